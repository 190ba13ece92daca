"""Tasks and models that tell what a training did with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analogtl.tasks.images import ImageTask, Split

N_CLASSES, SIDE = 3, 4
# Share of the images of each split whose label is another than the one that `Oracle` answers with.
WRONG = {"train": 0.75, "validation": 0.25, "test": 0.375}
SIZES = {"train": 12, "validation": 8, "test": 16}


def ended(steps: Iterator[Any]) -> Any:
    """Run a stage to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def small_task() -> ImageTask:
    """Images that hold their number and the answer of `Oracle`, in splits that tell themselves."""
    splits = {}
    first = 0
    for name, size in SIZES.items():
        answers = torch.arange(size) % N_CLASSES
        images = torch.zeros(size, 1, SIDE, SIDE, dtype=torch.uint8)
        images[:, 0, 0, 0] = (100 * answers).byte()
        images[:, 0, 1, 1] = (first + torch.arange(size)).byte()
        wrong = torch.arange(size) < WRONG[name] * size
        splits[name] = Split(images, torch.where(wrong, (answers + 1) % N_CLASSES, answers))
        first += size
    names = tuple("abc"[:N_CLASSES])
    return ImageTask(class_names=names, mean=(0.0,), std=(1 / 255,), **splits)


class Shared(list[Any]):
    """A list that copies of its owner share."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self


class Oracle(nn.Module):
    """Answers with what an image holds, in training mode with the class after it.

    Its linear layer can be put onto an array; what comes out of it counts for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, N_CLASSES)

    def reset_classifier(self, _: int) -> None:
        """Keep the answers."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        answer = (x_BCHW[:, 0, 0, 0] / 100).round().long()
        if self.training:
            answer = (answer + 1) % N_CLASSES
        return 9.0 * F.one_hot(answer, N_CLASSES) + 0.0 * self.layer(x_BCHW.flatten(1))


class Watched(nn.Module):
    """A small network with dropout that notes the images and the mask of each training step.

    Attributes:
        seen: One entry per training step: images (B, C, H, W), dropout mask, and the digital
            parameters before the step.
    """

    def __init__(self, seen: Shared) -> None:
        super().__init__()
        self.seen = seen
        self.body = nn.Linear(SIDE * SIDE, 6)
        self.head = nn.Linear(6, N_CLASSES)

    def reset_classifier(self, n_classes: int) -> None:
        """Draw a new head."""
        self.head = nn.Linear(6, n_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        inner = torch.relu(self.body(x_BCHW.flatten(1) / 255))
        if self.training:
            mask = F.dropout(torch.ones(32), 0.5)
            weights = {n: p.detach().clone() for n, p in self.named_parameters() if p.numel() > 1}
            self.seen.append((x_BCHW.clone(), mask, weights))
        return self.head(inner)
