"""Texts whose classes are to be told apart.

Shape suffixes: N texts, B texts of a batch, T tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analogtl.tasks.classes import Classes
from analogtl.tasks.classification import Classification, carve, limited, take
from analogtl.tasks.counts import check_test_size
from analogtl.tasks.pieces import find_pieces
from analogtl.tasks.task import LIMIT_TEST, LIMIT_TRAIN, Draws, Place
from analogtl.tasks.tokens import Tokens

PADDING = -1
EXAMPLES = 64  # texts that tell how many tokens a text has


@dataclass(frozen=True)
class TextSplit:
    """Tokens of texts (N, T) int32, padded at their end, and labels (N,) int64."""

    tokens: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TextClasses(Classification):
    """Texts whose classes are to be told apart.

    Attributes:
        context: Most tokens of a text.
        vocabulary: Tokens that there are.
    """

    train: TextSplit
    validation: TextSplit
    test: TextSplit
    context: int
    vocabulary: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """Classes, most tokens of a text, and tokens that there are."""
        names = ("n_classes", "context", "vocabulary")
        return {name: getattr(self, name) for name in names}

    def served(
        self, split: TextSplit, at: Place, *, draws: Draws, augment: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Serve x_BT int64, padded with -1 to the longest text, and y_B."""
        return _trimmed(split.tokens[at]), split.labels[at]

    def example(self, count: int = 2) -> Tensor:
        """Texts from all over the training texts: enough to tell how many tokens they have."""
        some = min(len(self.train), max(count, EXAMPLES))
        return _trimmed(self.train.tokens[torch.linspace(0, len(self.train) - 1, some).long()])


def load_text_classes(
    dataset: str,
    *,
    root: Path | None,
    classes: Classes,
    columns: tuple[str, str],
    context: int,
    tokens: Tokens,
    samples_per_class: int | None,
    test_samples_per_class: int | None,
    validation_fraction: float,
    split_seed: int | None = None,
    min_test_images: int = 1,
    seed: int = 0,
) -> TextClasses:
    """Read texts with their classes.

    Args:
        dataset, root, classes: As `find_pieces` takes them.
        columns: Of a table: of the text, and of the label.
        context: Most tokens of a text: longer ones are cut.
        tokens: How texts become tokens.
        samples_per_class, test_samples_per_class, validation_fraction, min_test_images, seed: As
            `analogtl.tasks.images.load_task` takes them.
        split_seed: Draws the texts for testing; without it every fifth of a class is one.

    Raises:
        ExperimentError: No such data, or too little of it.
    """
    tokens.check(context)
    found = find_pieces(dataset, root, classes, *columns)
    flat = [text for texts in found.texts for text in texts]
    ids = tokens.each(flat, context)[0]
    padded = np.full((len(ids), max(map(len, ids))), PADDING, np.int32)
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = one
    labels = np.repeat(np.arange(len(found.names)), list(map(len, found.texts)))
    testing = np.concatenate([np.array(one) for one in found.tests(split_seed)])
    train, test = (take((padded, labels), np.flatnonzero(testing == one)) for one in (False, True))
    check_test_size(dataset, len(test[1]), min_test_images)
    train = limited(train, samples_per_class, seed, LIMIT_TRAIN)
    test = limited(test, test_samples_per_class, 0, LIMIT_TEST)
    train, validation = carve(dataset, train, validation_fraction, seed)
    return TextClasses(
        **{
            name: TextSplit(*map(torch.from_numpy, part))
            for name, part in (("train", train), ("validation", validation), ("test", test))
        },
        class_names=found.names,
        context=context,
        vocabulary=tokens.vocabulary,
    )


def _trimmed(tokens_BT: Tensor) -> Tensor:
    """Without the columns that only padding is in."""
    longest = int((tokens_BT != PADDING).sum(1).max()) if len(tokens_BT) else 0
    return tokens_BT[:, :longest].long()
