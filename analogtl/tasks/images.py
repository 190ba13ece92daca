"""Make tasks to learn: images of chosen classes, split, and served in batches.

Images stay uint8 in memory and become floats batch by batch. Everything random is a pure function
of (seed, epoch, batch), so training can resume at any batch and see what it would have seen.

Shape suffixes: B images of a batch, C channels, H and W rows and columns of pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analogtl.errors import ExperimentError
from analogtl.tasks.classes import Classes
from analogtl.tasks.classification import Arrays, Classification, carve, limited
from analogtl.tasks.counts import check_test_size
from analogtl.tasks.sources import read
from analogtl.tasks.task import AUGMENT, LIMIT_TEST, LIMIT_TRAIN, Draws, Place


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageTask(Classification):
    """Images whose classes are to be told apart.

    Attributes:
        train, validation, test: The splits; ``validation`` may be empty.
        mean, std: Of the training images per channel, on a scale where white is 1.
    """

    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.train.images.shape[2]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Classes, and the shape of an image."""
        names = ("n_classes", "image_size", "in_channels")
        return {name: getattr(self, name) for name in names}

    def served(
        self, split: Split, at: Place, *, draws: Draws, augment: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Serve images, normalised by mean and std.

        Args:
            split, at, draws: See `Task.served`.
            augment: ``"crop"``: pad by 4 pixels of black, or an eighth of a smaller image, and cut
                out at a random place; ``"flip"``: mirror left and right at random.

        Returns:
            x_BCHW float32; y_B int64.
        """
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        shift = -torch.tensor(self.mean).view(1, -1, 1, 1) / std
        scale = 1 / (255 * std)
        images = split.images[at]
        if augment:
            images = _augmented(images, augment, draws(AUGMENT))
        return torch.addcmul(shift, images.float(), scale), split.labels[at]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all images, labels and class names: equal for equal content only."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=16)
        for split in (self.train, self.validation, self.test):
            digest.update(repr(tuple(split.images.shape)).encode())
            for tensor in (split.images, split.labels):
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def load_task(
    dataset: str,
    *,
    root: Path | None = None,
    classes: Classes = None,
    samples_per_class: int | None = None,
    test_samples_per_class: int | None = None,
    validation_fraction: float = 0.0,
    seed: int = 0,
    image_size: int | None = None,
    download: bool = True,
    split_seed: int | None = None,
    min_test_images: int = 1,
) -> ImageTask:
    """Read a data set and make a task of it.

    Args:
        dataset: A name from `vocabulary.Dataset`.
        root: Folder that holds the data; for ``image_folder`` the folder of images. CIFAR is also
            looked for in ``$ANALOGTL_DATA`` and in the user's cache folder.
        classes: All if None; a count (the first ones by label order); or which: names, label
            numbers, superclasses (``superclass:vehicles_1`` or just its name). Labels are
            renumbered from 0 in the order given. Of a reduced data set, those present count.
        samples_per_class: At most so many training images per class, chosen by ``seed``;
            validation data is carved out of these.
        test_samples_per_class: At most so many test images per class, the same for every seed.
        validation_fraction: Share of each class's training images held out, chosen by ``seed``;
            one image at least unless 0. A folder that has both ``val/`` and ``test/`` brings its
            own validation data, and this is ignored.
        seed: Of the choices above.
        image_size: Resize to so many pixels squared; as they are if None (32 for folders).
        download: Whether CIFAR may be fetched if absent.
        split_seed: Draws the test images of a folder that has none apart; see `find_images`.
        min_test_images: Fewer test images of the chosen classes than this are refused;
            ``test_samples_per_class`` may keep fewer.

    Raises:
        ExperimentError: no such data set, class or folder; damaged or hostile data; no network.
    """
    try:
        source, chosen = read(dataset, root, classes, image_size, download, split_seed)
    except OSError as error:  # no permission, a name too long, a device that fails
        reason = f"cannot read {error.filename}: {error.strerror}"
        raise ExperimentError(f"data set {dataset}: {reason}") from error

    train = _select(source.train, chosen)
    test = _select(source.test, chosen)
    if len(np.unique(test[1])) < len(chosen):
        absent = [source.classes.names[c] for i, c in enumerate(chosen) if i not in test[1]]
        raise ExperimentError(f"data set {dataset}: no test images of {', '.join(absent)}")
    check_test_size(dataset, len(test[1]), min_test_images)
    train = limited(train, samples_per_class, seed, LIMIT_TRAIN)
    test = limited(test, test_samples_per_class, 0, LIMIT_TEST)
    if source.validation is not None:
        validation = _select(source.validation, chosen)
    else:
        train, validation = carve(dataset, train, validation_fraction, seed)

    learnt = _to_split(train, image_size)
    mean, std = _statistics(learnt.images)
    return ImageTask(
        train=learnt,
        validation=_to_split(validation, image_size),
        test=_to_split(test, image_size),
        class_names=tuple(source.classes.names[c] for c in chosen),
        mean=mean,
        std=std,
    )


def _select(part: Arrays, chosen: list[int]) -> Arrays:
    """Keep only the chosen classes, renumbered in their order; images keep theirs."""
    images, labels = part
    new_label = np.full(max(labels.max(initial=0), *chosen) + 1, -1)
    new_label[chosen] = np.arange(len(chosen))
    renumbered = new_label[labels]
    keep = renumbered >= 0
    return (images if keep.all() else images[keep]), renumbered[keep]


def _to_split(part: Arrays, image_size: int | None) -> Split:
    images = torch.from_numpy(np.require(part[0], requirements=["C", "W"]))
    if image_size is not None and images.shape[-1] != image_size:
        size = (image_size, image_size)
        pieces = [
            F.interpolate(piece.float(), size, mode="bilinear", antialias=True).round().byte()
            for piece in torch.split(images, 1000)
        ]
        images = torch.cat(pieces)
    return Split(images, torch.from_numpy(part[1]))


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, 1 being white; from exact integer sums."""
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    total_of_squares = torch.zeros_like(total)
    for piece in torch.split(images, 1000):
        wide = piece.int()
        total += wide.sum(dim=(0, 2, 3))
        total_of_squares += (wide * wide).sum(dim=(0, 2, 3))
    count = images[:, 0].numel()
    mean = total / count
    std = (total_of_squares / count - mean**2).clamp(min=1.0).sqrt()  # of a blank channel: one grey
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _augmented(images: Tensor, augment: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Crop and flip all images of a batch at once: both only choose rows and columns."""
    n_images, channels, height, width = images.shape
    rows = torch.arange(height).expand(n_images, height)
    columns = torch.arange(width).expand(n_images, width)
    if "crop" in augment:
        pad = min(4, height // 8)
        images = F.pad(images, (pad, pad, pad, pad))
        offset = torch.from_numpy(rng.integers(0, 2 * pad + 1, size=(2, n_images, 1)))
        rows, columns = rows + offset[0], columns + offset[1]
    if "flip" in augment:
        mirror = torch.from_numpy(rng.random((n_images, 1)) < 0.5)
        columns = torch.where(mirror, columns.flip(1), columns)
    pixel = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).view(n_images, 1, -1)
    chosen = images.flatten(2).gather(2, pixel.expand(-1, channels, -1))
    return chosen.view(n_images, channels, height, width)
