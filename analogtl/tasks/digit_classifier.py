"""How much drawn images look like digits, in the eyes of a classifier of the bundled digits.

Shape suffixes: N images, D pixels of an image, F features of the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analogtl.models.mlp import PixelMLP
from analogtl.tasks.images import ImageTask, load_task
from analogtl.vocabulary import Dataset

EPOCHS, BATCH, RATE = 20, 32, 0.003


@lru_cache(maxsize=1)
def digit_classifier() -> tuple[PixelMLP, ImageTask]:
    """Train a classifier of all ten digits, the same whenever asked, in about a second.

    Torch's generator is left as it was.
    """
    task = load_task(Dataset.DIGITS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PixelMLP()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for epoch in range(1, EPOCHS + 1):
        for images, labels in task.batches(task.train, BATCH, seed=0, epoch=epoch, shuffle=True):
            optimizer.zero_grad()
            loss = task.loss(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval(), task


def judge_digits(drawn_ND: Tensor, real_ND: Tensor, digits: Sequence[str]) -> dict[str, float]:
    """Compare drawn with real digits.

    Args:
        drawn_ND: Images to be judged, on a scale where white is 1.
        real_ND: Images of `digits`, on the same scale.
        digits: Which digits they should be, by name.

    Returns:
        ``frechet_distance`` of the classifier's features (Heusel et al., arXiv 1706.08500), and
        ``in_classes``, the share of drawn images that are taken for one of `digits`.
    """
    model, task = digit_classifier()

    def features_of(images_ND: Tensor) -> Tensor:
        mean, std = torch.tensor(task.mean), torch.tensor(task.std)
        normal = (images_ND - mean) / std
        side = task.image_size
        found: Tensor = model.body(normal.view(-1, 1, side, side))
        return found

    with torch.no_grad():
        drawn_NF, real_NF = features_of(drawn_ND), features_of(real_ND)
        taken_N = model.head(drawn_NF).argmax(1)
    wanted = torch.tensor([task.class_names.index(name) for name in digits])
    return {
        "frechet_distance": frechet_distance(drawn_NF.numpy(), real_NF.numpy()),
        "in_classes": float(torch.isin(taken_N, wanted).float().mean()),
    }


def frechet_distance(a_NF: NDArray[np.float32], b_NF: NDArray[np.float32]) -> float:
    """Squared Fréchet distance between normal distributions with the mean and covariance of each.

    |m - n|^2 + tr(A + B - 2 (A B)^(1/2)), where (A B)^(1/2) has the eigenvalues of
    (A^(1/2) B A^(1/2))^(1/2), which is symmetric.
    """
    a, b = np.asarray(a_NF, float), np.asarray(b_NF, float)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    gap = a.mean(0) - b.mean(0)
    return max(0.0, float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * shared))
