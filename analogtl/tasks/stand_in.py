"""Tasks without images: as many of them and as large as a data set has, all black."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from analogtl.config.class_names import CLASS_NAMES, SUPERCLASSES
from analogtl.errors import ExperimentError
from analogtl.tasks.classes import Classes, ClassList, choose_classes
from analogtl.tasks.counts import ClassCount
from analogtl.tasks.images import ImageTask, Split
from analogtl.tasks.sources import FOLDER_IMAGE_SIZE
from analogtl.vocabulary import Dataset

# Channels, and pixels a side unless [data] image_size says otherwise.
_SHAPES = {
    Dataset.DIGITS: (1, 8),
    Dataset.CIFAR10: (3, 32),
    Dataset.CIFAR100: (3, 32),
    Dataset.IMAGE_FOLDER: (3, FOLDER_IMAGE_SIZE),
}
_TRAIN, _TEST = 500, 100  # images of a class of CIFAR-100


def stand_in(dataset: str, counts: Sequence[ClassCount], image_size: int | None) -> ImageTask:
    """A task with so many images of each class in each split; they take no memory.

    Args:
        counts: What is used of each class, after all limits.

    Raises:
        ExperimentError: If a class is left without images.
    """
    empty = [one.name for one in counts if one.train < 1 or one.test < 1]
    if empty:
        raise ExperimentError(
            f"data set {dataset}: {', '.join(empty)}: no training or test images left; lower "
            "validation_fraction, or raise samples_per_class"
        )
    channels, size = _SHAPES[Dataset(dataset)]
    black = torch.zeros(1, channels, image_size or size, image_size or size, dtype=torch.uint8)

    def split(many: Iterable[int]) -> Split:
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor([*many]))
        return Split(black.expand(len(labels), -1, -1, -1), labels)

    return ImageTask(
        train=split(one.train for one in counts),
        validation=split(one.validation for one in counts),
        test=split(one.test for one in counts),
        class_names=tuple(one.name for one in counts),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )


def nominal_counts(dataset: str, classes: Classes) -> tuple[ClassCount, ...]:
    """What a data set holds according to its name, for a machine that does not have it."""
    names = CLASS_NAMES.get(dataset)
    if names is None:  # the user's own: whatever is asked for
        if classes is None or isinstance(classes, int | str):
            classes = range(classes if isinstance(classes, int) else 2)
        chosen = [str(one) for one in classes]
    else:
        groups = {
            group: tuple(sorted(map(names.index, members.split())))
            for group, members in SUPERCLASSES.items()
            if dataset == Dataset.CIFAR100
        }
        known = ClassList(names, tuple(range(len(names))), groups)
        chosen = [names[label] for label in choose_classes(dataset, known, classes)]
    return tuple(ClassCount(name, _TRAIN, 0, _TEST) for name in chosen)
