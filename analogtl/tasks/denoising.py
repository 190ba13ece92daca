"""Denoising: examples with noise, of which the noise is to be found, as in a diffusion model.

At time t (0 to 1) an example x is seen as cos(pi t / 2) x + sin(pi t / 2) e, with e from N(0, 1):
the variance-preserving cosine schedule of Nichol and Dhariwal (arXiv 2102.09672). The network is
told t and finds e (Ho et al., arXiv 2006.11239).

Shape suffixes: B examples of a batch, D numbers of an example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from analogtl.tasks.classes import Classes
from analogtl.tasks.counts import held_out
from analogtl.tasks.digit_classifier import judge_digits
from analogtl.tasks.images import ImageTask
from analogtl.tasks.points import Points, chosen_shapes, draw
from analogtl.tasks.task import LIMIT_TEST, LIMIT_TRAIN, NOISE, VALIDATION, Draws, Place, Task
from analogtl.vocabulary import Dataset, Metric

DRAWN = 500  # examples
SHOWN = (500, 30)  # of these, in a picture: points, and anything larger
LEVELS = 8  # times at which each held-out example is seen


@dataclass(frozen=True)
class Clean:
    """Examples without noise (N, D); held-out ones are seen at `levels` times each, not at any."""

    x_ND: Tensor
    levels: int = 0

    def __len__(self) -> int:
        return len(self.x_ND) * max(1, self.levels)


@dataclass(frozen=True)
class DenoisingTask(Task):
    """Examples whose noise is to be found.

    Attributes:
        digits: Where the examples are digits: which, and the mean and standard deviation by which
            they are normalised.
    """

    metric: ClassVar[Metric] = Metric.DENOISING

    train: Clean
    validation: Clean
    test: Clean
    digits: tuple[Sequence[str], float, float] | None = None

    @property
    def guessing(self) -> float:
        """Loss of who answers zero: the variance of the noise."""
        return 1.0

    @property
    def features(self) -> int:
        """Numbers of an example."""
        return self.train.x_ND.shape[1]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Numbers of an example."""
        return {"features": self.features}

    def served(
        self, split: Clean, at: Place, *, draws: Draws, augment: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Serve the time and the noisy example (B, 1 + D), and the noise (B, D), float32.

        See `Task.served`. Of a held-out split the noise is the same in every epoch.
        """
        at_B = torch.arange(len(split))[at]
        rng = draws(NOISE)
        noise_BD = torch.from_numpy(
            rng.standard_normal((len(at_B), self.features), dtype=np.float32)
        )
        if split.levels:
            time_B = (at_B % split.levels + 0.5) / split.levels
        else:
            time_B = torch.from_numpy(rng.random(len(at_B), dtype=np.float32))
        clean_BD = split.x_ND[at_B // max(1, split.levels)]
        return noisy(clean_BD, noise_BD, time_B), noise_BD

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, mean: bool = True
    ) -> Tensor:
        """Mean squared error of the noise (B, D)."""
        loss_B = (outputs - targets).square().mean(1)
        return loss_B.mean() if mean else loss_B.sum()

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of each example's noise (B,)."""
        return (outputs - targets).detach().square().mean(1)

    def details(self, model: nn.Module) -> dict[str, Any]:
        """Held-out loss at each time, samples (N, D), and of digits how they look."""
        model.eval()
        total_L = torch.zeros(LEVELS, dtype=torch.float64)
        done = 0
        with torch.no_grad():
            for x, noise_BD in self.batches(self.test, 128, seed=0, epoch=0, shuffle=False):
                loss_B = (model(x) - noise_BD).square().mean(1)
                level_B = torch.arange(done, done + len(x)) % LEVELS
                total_L.index_add_(0, level_B, loss_B.double())
                done += len(x)
        count = len(self.test.x_ND)
        losses = [
            {
                "time": (level + 0.5) / LEVELS,
                "noise_share": math.sin(math.pi / 2 * (level + 0.5) / LEVELS) ** 2,
                "loss": float(total) / count,
                "n_samples": count,
            }
            for level, total in enumerate(total_L)
        ]
        drawn_ND = sample(model, DRAWN, self.features, seed=0)
        quality = {}
        if self.digits:
            names, mean, std = self.digits
            quality = judge_digits(drawn_ND * std + mean, self.test.x_ND * std + mean, names)
        shown = drawn_ND[: SHOWN[self.features > 2]].tolist()
        return {
            "by_noise": losses,
            "samples": [[round(x, 4) for x in one] for one in shown],
            "quality": quality,
        }


def noisy(clean_BD: Tensor, noise_BD: Tensor, time_B: Tensor) -> Tensor:
    """What a network sees of examples at times 0 to 1: (B, 1 + D), the time first."""
    angle_B1 = (math.pi / 2 * time_B)[:, None]
    seen_BD = angle_B1.cos() * clean_BD + angle_B1.sin() * noise_BD
    return torch.cat([time_B[:, None], seen_BD], 1)


def sample(model: nn.Module, count: int, features: int, *, seed: int, steps: int = 50) -> Tensor:
    """Draw examples (N, D) from a denoising network, from noise alone.

    The steps are those of DDIM without noise (Song et al., arXiv 2010.02502).
    """
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(count, features, generator=generator)
    times = [1 - (step + 0.5) / steps for step in range(steps)] + [0.0]
    model.eval()
    with torch.no_grad():
        for now, then in pairwise(times):
            a, b = math.pi / 2 * now, math.pi / 2 * then
            time_N1 = torch.full((count, 1), now)
            noise_ND = model(torch.cat([time_N1, x_ND], 1))
            # Examples have a variance of 1: none is far beyond 3.
            clean_ND = ((x_ND - math.sin(a) * noise_ND) / math.cos(a)).clamp(-4, 4)
            noise_ND = (x_ND - math.cos(a) * clean_ND) / math.sin(a)
            x_ND = math.cos(b) * clean_ND + math.sin(b) * noise_ND
    return x_ND


def of_images(images: ImageTask, dataset: str) -> DenoisingTask:
    """Make a denoising task of the images of a classification, normalised and flat."""
    digits = None
    if dataset == Dataset.DIGITS and images.image_size == 8:
        digits = images.class_names, images.mean[0], images.std[0]

    def flat(split: Any, levels: int) -> Clean:
        served = images.batches(split, 1000, seed=0, epoch=0, shuffle=False)
        parts = [x_BCHW.flatten(1) for x_BCHW, _ in served]
        width = images.in_channels * images.image_size**2
        return Clean(torch.cat(parts) if parts else torch.zeros(0, width), levels)

    return DenoisingTask(
        flat(images.train, 0),
        flat(images.validation, LEVELS),
        flat(images.test, LEVELS),
        digits,
    )


def load_points(
    *,
    classes: Classes,
    samples_per_class: int | None,
    test_samples_per_class: int | None,
    validation_fraction: float,
    seed: int = 0,
) -> DenoisingTask:
    """Make a denoising task of the points of shapes.

    The test points are the same for every seed; which are held out for validation, and which are
    kept of more, `seed` chooses.
    """
    parts: dict[str, list[Points]] = {"train": [], "validation": [], "test": []}
    for name in chosen_shapes(classes):
        train, test = draw(name)
        train = np.random.default_rng([seed, LIMIT_TRAIN]).permutation(train)
        test = np.random.default_rng([0, LIMIT_TEST]).permutation(test)
        train, test = train[:samples_per_class], test[:test_samples_per_class]
        taken = held_out(len(train), validation_fraction)
        train = np.random.default_rng([seed, VALIDATION]).permutation(train)
        parts["train"].append(train[taken:])
        parts["validation"].append(train[:taken])
        parts["test"].append(test)
    joined = {k: torch.from_numpy(np.concatenate(v).astype(np.float32)) for k, v in parts.items()}
    return DenoisingTask(
        Clean(joined["train"]), Clean(joined["validation"], LEVELS), Clean(joined["test"], LEVELS)
    )
