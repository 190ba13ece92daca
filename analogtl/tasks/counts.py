"""Count the images that a stage uses, and tell whether they are enough to test on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from analogtl.errors import ExperimentError, counted
from analogtl.vocabulary import Dataset


@dataclass(frozen=True)
class ClassCount:
    """How many images of a class there are in each split."""

    name: str
    train: int
    validation: int
    test: int


IMBALANCED = 1.5
"""Classes are imbalanced where the largest has more than so many times the images of another."""


def imbalance(sizes: Iterable[int]) -> float:
    """How many times the images of the smallest class the largest has; 1 where there are none."""
    known = [size for size in sizes if size]
    return max(known) / min(known) if known else 1.0


def held_out(count: int, fraction: float) -> int:
    """How many of a class's training images are validation data: one at least, unless 0."""
    return max(1, round(fraction * count)) if fraction else 0


def used(
    counts: Iterable[ClassCount],
    *,
    samples_per_class: int | None,
    test_samples_per_class: int | None,
    validation_fraction: float,
) -> tuple[ClassCount, ...]:
    """Count what a task takes of its data set; the arguments are those of `load_task`."""
    counts = tuple(counts)
    brought = any(one.validation for one in counts)  # the data set's own validation data
    found = []
    for one in counts:
        train = one.train if samples_per_class is None else min(one.train, samples_per_class)
        test = one.test if test_samples_per_class is None else min(one.test, test_samples_per_class)
        validation = one.validation if brought else held_out(train, validation_fraction)
        train -= 0 if brought else validation
        found.append(ClassCount(one.name, train, validation, test))
    return tuple(found)


def check_test_size(dataset: str, images: int, at_least: int) -> None:
    """Refuse a test set that is too small to mean anything.

    The test error of n images has a standard error of up to 50 / sqrt(n) percentage points: of 10
    points with 25 images.

    Raises:
        ExperimentError: it has fewer examples than `at_least`.
    """
    if images < at_least and Dataset(dataset).examples != "images":
        raise ExperimentError(
            f"data set {dataset}: {images} test {Dataset(dataset).examples}; expected {at_least} "
            f"at least: add some, or set data.min_test_images = {images}"
        )
    if images < at_least:
        spread = 50 / math.sqrt(max(images, 1))
        raise ExperimentError(
            f"data set {dataset}: {counted(images, 'test image')} of the chosen classes, which "
            f"leaves the test error a standard error of up to {spread:.0f} points; expected "
            f"{at_least} at least: add some, or set data.min_test_images = {images}"
        )
