"""No image is in two splits, and no two choices of a task are made by the same numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from analogtl.tasks import images
from analogtl.tasks.images import ImageTask, Split, load_task


def same_images(task: ImageTask) -> list[tuple[str, str]]:
    """Pairs of splits that have an image in common."""
    found = {
        name: {image.numpy().tobytes() for image in getattr(task, name).images}
        for name in ("train", "validation", "test")
    }
    return [(a, b) for a, b in itertools.combinations(found, 2) if found[a] & found[b]]


@pytest.mark.parametrize("limits", [{}, {"samples_per_class": 50, "test_samples_per_class": 20}])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_image_is_in_two_splits(limits: dict[str, int], seed: int) -> None:
    task = load_task("digits", validation_fraction=0.2, seed=seed, **limits)
    assert min(len(task.train), len(task.validation), len(task.test)) >= 100
    assert same_images(task) == []


def test_labels_stay_with_their_images() -> None:
    whole = load_task("digits")
    label_of = {
        image.numpy().tobytes(): int(label)
        for split in (whole.train, whole.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    part = load_task("digits", classes=[7, 2], samples_per_class=40, validation_fraction=0.3)
    for split in (part.train, part.validation, part.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of[image.numpy().tobytes()] == (7, 2)[int(label)]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The keys of all generators that are made."""
    made: list[tuple[int, ...]] = []
    real = np.random.default_rng

    def watched(key: Any) -> np.random.Generator:
        made.append(tuple(key))
        return real(key)

    monkeypatch.setattr(images.np.random, "default_rng", watched)
    return made


def test_every_choice_has_a_generator_of_its_own(keys: list[tuple[int, ...]]) -> None:
    task = load_task("digits", samples_per_class=50, test_samples_per_class=20,
                     validation_fraction=0.2, seed=1)  # fmt: skip
    ways = ("crop", "flip")
    for seed, epoch in itertools.product((1, 2), (1, 2)):
        list(task.batches(task.train, 100, seed=seed, epoch=epoch, shuffle=True,
                     augment=ways))  # fmt: skip
    assert len(keys) == 3 + 4 * (1 + 4)
    # numpy takes a key that is padded with zeros for the same one
    longest = max(map(len, keys))
    assert len({key + (0,) * (longest - len(key)) for key in keys}) == len(keys)


# An image that is its own: where it was cut and whether it was mirrored shows.
ODD = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)


def moves(count: int = 64, **changes: Any) -> torch.Tensor:
    """One image over and over, augmented: what differs between two of them is the augmentation."""
    task = load_task("digits", classes=2)
    split = Split(ODD.repeat(count, 1, 1, 1), torch.zeros(count).long())
    given: dict[str, Any] = {"seed": 0, "epoch": 1, "augment": ("crop", "flip")} | changes
    served = task.batches(split, 16, shuffle=False, **given)
    return torch.stack([x for x, _ in served])


def test_augmentation_is_drawn_by_seed_epoch_batch_and_image() -> None:
    one = moves()
    assert torch.equal(one, moves())
    for changed in ({"seed": 1}, {"epoch": 2}):
        assert not torch.equal(one, moves(**changed))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(one, 2))  # batches
    for way, kinds in (("flip", 2), ("crop", 9)):
        for batch in moves(640, augment=(way,)):
            assert len(torch.unique(batch, dim=0)) > 1  # images of one batch
        assert len(torch.unique(moves(640, augment=(way,)).flatten(0, 1), dim=0)) == kinds


def test_without_augmentation_images_are_as_they_are() -> None:
    assert len(torch.unique(moves(augment=()).flatten(0, 1), dim=0)) == 1
