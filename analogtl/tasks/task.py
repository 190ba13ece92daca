"""What every task can do: serve batches, tell the loss, and judge a network by held-out examples.

Everything random is a pure function of (seed, epoch, batch), so training can resume at any batch
and see what it would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from analogtl.vocabulary import Metric

# Purposes of random numbers: each its own stream, so that no two are ever the same numbers.
LIMIT_TRAIN, LIMIT_TEST, VALIDATION, ORDER, AUGMENT, NOISE = range(6)
Place: TypeAlias = Tensor | slice
Draws: TypeAlias = Callable[[int], np.random.Generator]


class Task(ABC):
    """Data to learn from and to test on, with what is to be learned from it.

    Attributes:
        metric: What a network is judged by.
        train, validation, test: The splits; ``validation`` may be empty.
    """

    metric: ClassVar[Metric]
    train: Any
    validation: Any
    test: Any

    @property
    def n_classes(self) -> int | None:
        """How many classes there are to tell apart; None if there are none."""
        return None

    @property
    @abstractmethod
    def guessing(self) -> float:
        """Training loss of a network that has learned nothing."""

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """What a network is built for: see `analogtl.models.build.build_model`."""

    @property
    def evaluated_at_once(self) -> int:
        """How many examples a network sees at once when it is evaluated."""
        return 128

    @abstractmethod
    def served(
        self, split: Any, at: Place, *, draws: Draws, augment: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Serve one batch: inputs and targets, the examples first.

        Args:
            split: What to serve.
            at: Where in it the examples are.
            draws: Gives this batch's generator for a purpose.
        """

    def batches(
        self,
        split: Sized,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        shuffle: bool,
        augment: Sequence[str] = (),
        start: int = 0,
        smallest: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch from batch ``start`` on: the same whenever asked again.

        Args:
            split: What to serve, in its order unless ``shuffle``.
            batch_size: Examples per batch; the last batch may be smaller.
            seed: With ``epoch`` (and the batch's number) decides the order and all else.
            epoch: As above.
            start: Batches to skip, at no cost.
            smallest: Fewest examples of a batch: a smaller rest joins the batch before it.

        Yields:
            What `served` returns.
        """
        order = None
        if shuffle:
            rng = np.random.default_rng([seed, ORDER, epoch])
            order = torch.from_numpy(rng.permutation(len(split)))
        count = batch_count(len(split), batch_size, smallest)
        for batch in range(start, count):
            end = (batch + 1) * batch_size if batch + 1 < count else len(split)
            place = slice(batch * batch_size, end)

            def draws(purpose: int, batch: int = batch) -> np.random.Generator:
                return np.random.default_rng([seed, purpose, epoch, batch])

            at = place if order is None else order[place]
            yield self.served(split, at, draws=draws, augment=augment)

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, mean: bool = True
    ) -> Tensor:
        """Mean, or sum, of the examples' losses."""

    @abstractmethod
    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the metric is the mean of, for each example (B,)."""

    def score(self, judged: float, count: int) -> float:
        """The metric of so many examples, from the sum of `judged`."""
        return judged / max(1, count)

    def balanced(self, split: Any, judged_N: Tensor) -> float | None:
        """The metric as a mean over classes; None where there are none."""
        return None

    def example(self, count: int = 2) -> Tensor:
        """A few inputs, to see what reaches each layer."""
        served = self.batches(self.test, count, seed=0, epoch=0, shuffle=False)
        return next(served)[0]

    def adapt(self, model: nn.Module) -> None:
        """Make a network that learned another task of this kind fit this one.

        By default it does as it is. A new head is drawn from torch's generator.
        """
        return

    def details(self, model: nn.Module) -> dict[str, Any]:
        """What there is to tell of a trained network beside its metric, JSON-able.

        What ``quality`` holds are columns of ``trials.csv``.
        """
        return {}


def batch_count(n_examples: int, batch_size: int, smallest: int = 1) -> int:
    """Count the batches of an epoch; see `Task.batches` for ``smallest``."""
    whole, rest = divmod(n_examples, batch_size)
    return whole + (rest >= smallest or not whole) if rest else whole
