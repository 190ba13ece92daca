"""What a network is built for, from the sizes of a task: an input, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fit:
    """What a network is built for.

    Attributes:
        arguments: Of the constructor of this package's own networks, and of timm's.
        example: One input of zeros.
        outputs: Shape of what must come out for it.
        words: Inputs and outputs in words, for messages.
    """

    arguments: dict[str, int]
    example: Tensor
    outputs: tuple[int, ...]
    words: tuple[str, str]

    def try_out(self, model: nn.Module) -> None:
        """Send the example through, in evaluation mode, so that no statistics are updated.

        Raises:
            ValueError: What comes out has another shape.
        """
        model.eval()
        with torch.no_grad():
            found = model(self.example)
        model.train()
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != self.outputs:
            raise ValueError(f"its output is {shape}, not {self.outputs}")


def fit_of(sizes: Mapping[str, int]) -> Fit:
    """Find what the sizes of a task (`analogtl.tasks.task.Task.sizes`) ask of a network.

    Args:
        sizes: Of classification ``n_classes``, ``image_size`` (pixels a side) and
            ``in_channels``; of the next token ``context`` and ``vocabulary``, and of the
            classification of texts these with ``n_classes``; of denoising ``features``.
    """
    if "image_size" in sizes:
        classes, size, channels = (sizes[k] for k in ("n_classes", "image_size", "in_channels"))
        return Fit(
            {"num_classes": classes, "in_chans": channels, "img_size": size},
            torch.zeros(1, channels, size, size),
            (1, classes),
            (f"{channels} x {size} x {size} image", "a number for each class"),
        )
    if "features" in sizes:
        count = sizes["features"]
        words = f"noisy {count}-vector", "the noise in each number"
        return Fit({"features": count}, torch.zeros(1, 1 + count), (1, count), words)
    context, vocabulary = sizes["context"], sizes["vocabulary"]
    arguments = {"context": context, "vocabulary": vocabulary}
    example, text = torch.zeros(1, context, dtype=torch.int64), f"{context}-token text"
    if "n_classes" in sizes:
        classes = sizes["n_classes"]
        arguments["num_classes"] = classes
        return Fit(arguments, example, (1, classes), (text, "a number for each class"))
    words = text, "for each token a number for each that may be next"
    return Fit(arguments, example, (1, context, vocabulary), words)
