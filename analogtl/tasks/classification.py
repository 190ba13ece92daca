"""What tasks with classes have in common, of images and of texts: loss, error, splits by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from analogtl.errors import ExperimentError
from analogtl.tasks.counts import held_out
from analogtl.tasks.task import VALIDATION, Task
from analogtl.vocabulary import Metric

Labels = NDArray[np.int64]
Arrays: TypeAlias = tuple[Any, Labels]  # examples, the first of an array's dimensions; their labels


@dataclass(frozen=True)
class Classification(Task):
    """Examples whose classes are to be told apart. A split has ``labels`` (N,) int64.

    Attributes:
        class_names: Name of each label, 0 to n_classes - 1.
    """

    metric: ClassVar[Metric] = Metric.ERROR

    class_names: tuple[str, ...]

    @property
    def n_classes(self) -> int:
        """How many classes."""
        return len(self.class_names)

    @property
    def guessing(self) -> float:
        """Loss of who gives all classes the same probability."""
        return math.log(self.n_classes)

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, mean: bool = True
    ) -> Tensor:
        """Cross entropy of logits (B, K)."""
        how = "mean" if mean else "sum"
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, reduction=how)

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Which examples are taken for another class."""
        return outputs.argmax(1) != targets

    def score(self, judged: float, count: int) -> float:
        """The error in percent."""
        return 100 * judged / max(1, count)

    def balanced(self, split: Any, judged_N: Tensor) -> float:
        """The mean of the classes' own errors, percent; those without an example do not count."""
        sizes = torch.bincount(split.labels)
        wrong = torch.bincount(split.labels[judged_N.bool()], minlength=len(sizes))
        return 100 * float((wrong.double() / sizes).nanmean()) if len(split) else 0.0

    def adapt(self, model: nn.Module) -> None:
        """Put in a new head for the classes."""
        whole: Any = model
        whole.reset_classifier(self.n_classes)


def take(part: Arrays, index: NDArray[Any]) -> Arrays:
    """Some examples with their labels."""
    return part[0][index], part[1][index]


def limited(part: Arrays, limit: int | None, seed: int, purpose: int) -> Arrays:
    """At most so many examples of each class; all if the limit is None."""
    return part if limit is None else take(part, pick(part[1], partial(min, limit), seed, purpose))


def pick(labels: Labels, how_many: Callable[[int], int], seed: int, purpose: int) -> Labels:
    """Positions of random members of each class, in ascending order: so many of so many, or all."""
    rng = np.random.default_rng([seed, purpose])
    picked = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        picked.append(members[: how_many(len(members))])
    return np.sort(np.concatenate(picked))


def carve(dataset: str, train: Arrays, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """What remains to train on, and the validation data taken from it, class by class.

    Raises:
        ExperimentError: Nothing remains of a class.
    """
    if not fraction:
        return train, take(train, np.arange(0))
    chosen = np.zeros(len(train[1]), dtype=bool)
    chosen[pick(train[1], lambda n: held_out(n, fraction), seed, VALIDATION)] = True
    if len(np.unique(train[1][~chosen])) < len(np.unique(train[1])):
        raise ExperimentError(
            f"data set {dataset}: validation_fraction {fraction} leaves a class without training "
            "examples; lower it or raise samples_per_class"
        )
    return take(train, ~chosen), take(train, chosen)
