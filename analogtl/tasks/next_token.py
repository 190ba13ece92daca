"""Next-token prediction: windows of tokens, of which the next one is to be predicted.

A text is cut into windows that follow one another. The last fifth of them, the end of the text, is
the test set, alike for every seed: a window is never tested on what surrounds it. Tokens are the
bytes of the text, or those of a language model's tokenizer.

Shape suffixes: B windows of a batch, T tokens of a window, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from analogtl.errors import ExperimentError
from analogtl.tasks.classes import Classes
from analogtl.tasks.counts import check_test_size, held_out
from analogtl.tasks.task import LIMIT_TEST, LIMIT_TRAIN, VALIDATION, Draws, Place, Task
from analogtl.tasks.texts import count_windows, find_texts
from analogtl.tasks.tokens import BYTES, Tokens
from analogtl.vocabulary import Metric

MAX_LOGITS = 2**24  # of one batch of an evaluation: 64 MB
Starts = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of a text: all tokens (M,) int32, and where each window starts (N,)."""

    text: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class TextTask(Task):
    """Texts of which the next token is to be predicted.

    Attributes:
        context: Tokens that the network sees of a window; it predicts the one after each.
        vocabulary: Tokens that there are.
    """

    metric: ClassVar[Metric] = Metric.CROSS_ENTROPY

    train: Windows
    validation: Windows
    test: Windows
    context: int
    vocabulary: int

    @property
    def guessing(self) -> float:
        """Loss of who gives all tokens the same probability."""
        return math.log(self.vocabulary)

    @property
    def evaluated_at_once(self) -> int:
        """Fewer than usual where the vocabulary is large."""
        fitting = MAX_LOGITS // (self.context * self.vocabulary)
        return max(1, min(super().evaluated_at_once, fitting))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length of a window, and size of the vocabulary."""
        return {"context": self.context, "vocabulary": self.vocabulary}

    def served(
        self, split: Windows, at: Place, *, draws: Draws, augment: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Serve x_BT and y_BT, int64: tokens, and the token after each."""
        at_BT = split.starts[at][:, None] + torch.arange(self.context)
        return split.text[at_BT].long(), split.text[at_BT + 1].long()

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, mean: bool = True
    ) -> Tensor:
        """Cross entropy per token of logits (B, T, V), nats."""
        found = F.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), label_smoothing=label_smoothing
        )
        return found if mean else found * len(targets)

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy per token of each window (B,), nats."""
        with torch.no_grad():
            found = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return found.view(targets.shape).mean(1)


def load_texts(
    dataset: str,
    *,
    root: Path | None,
    classes: Classes,
    text_column: str = "text",
    context: int,
    tokens: Tokens = BYTES,
    samples_per_class: int | None,
    test_samples_per_class: int | None,
    validation_fraction: float,
    min_test_images: int = 1,
    seed: int = 0,
) -> TextTask:
    """Read texts, and cut them into windows.

    Args:
        dataset, root, classes, text_column: As `find_texts` takes them.
        context: Tokens that the network sees at once.
        tokens: How texts become tokens.
        samples_per_class, test_samples_per_class: At most so many windows of each text.
        validation_fraction: Share of each text's training windows held out, chosen by `seed`.
        min_test_images: Fewer test windows than this are refused; ``test_samples_per_class`` may
            keep fewer.
        seed: Of the choices above.

    Raises:
        ExperimentError: no such text; one that is too short.
    """
    tokens.check(context)
    texts = find_texts(dataset, root, classes, text_column)
    found = {name: tokens.whole(text, f"text {name}") for name, text in texts.items()}
    splits: dict[str, list[Starts]] = {"train": [], "validation": [], "test": []}
    counts = [count_windows(name, len(ids), context, tokens) for name, ids in found.items()]
    check_test_size(dataset, sum(one.test for one in counts), min_test_images)
    begin = 0
    for ids, count in zip(found.values(), counts, strict=True):
        starts = begin + context * np.arange(count.train + count.test)
        train, test = starts[: count.train], starts[count.train :]
        train = _some(train, samples_per_class, seed, LIMIT_TRAIN)
        shuffled = np.random.default_rng([seed, VALIDATION]).permutation(train)
        taken = held_out(len(train), validation_fraction)
        splits["train"].append(np.sort(shuffled[taken:]))
        splits["validation"].append(np.sort(shuffled[:taken]))
        splits["test"].append(_some(test, test_samples_per_class, 0, LIMIT_TEST))
        begin += len(ids)
    whole = torch.from_numpy(np.concatenate(list(found.values())))
    made = {
        name: Windows(whole, torch.from_numpy(np.concatenate(parts)))
        for name, parts in splits.items()
    }
    if not len(made["train"]):
        raise ExperimentError(
            f"data set {dataset}: validation_fraction {validation_fraction} leaves no training "
            "windows; lower it"
        )
    return TextTask(**made, context=context, vocabulary=tokens.vocabulary)


def _some(starts: Starts, limit: int | None, seed: int, purpose: int) -> Starts:
    if limit is None or limit >= len(starts):
        return starts
    return np.sort(np.random.default_rng([seed, purpose]).permutation(starts)[:limit])
