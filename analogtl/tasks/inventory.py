"""Take stock of a data set: which classes and how many images, and a fingerprint of their content.

It needs no torch and keeps no images. What it read is remembered in the user's cache folder until
a file changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analogtl.errors import ExperimentError
from analogtl.files import check_regular
from analogtl.tasks import points
from analogtl.tasks.classes import Classes, choose_classes
from analogtl.tasks.counts import ClassCount
from analogtl.tasks.folders import NOT_CHOSEN, TEST_EVERY, Folder, find_images
from analogtl.tasks.pieces import Pieces, find_pieces
from analogtl.tasks.sources import (
    CIFAR,
    DIGITS,
    FOLDER_IMAGE_SIZE,
    Source,
    files_of,
    folder_of,
    locate,
    read,
)
from analogtl.tasks.stamps import recall, remember, stamp
from analogtl.tasks.texts import count_windows, find_texts
from analogtl.tasks.tokens import BYTES, Tokens
from analogtl.vocabulary import Dataset, Objective

# Raised whenever what a fingerprint is made of changes.
_VERSION = 1
# Images of each digit that scikit-learn bundles.
_DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


@dataclass(frozen=True)
class Inventory:
    """What a data set holds of the chosen classes.

    Attributes:
        fingerprint: Hash of what a training can see of it: the names of the classes, the content
            and the order of their images in each split, and the size at which they are seen. It
            does not depend on where they are, nor on whether CIFAR is an archive or a folder.
        classes: In the order of their labels; before any limit on samples is applied.
        left_out: Reason -> how many files of a folder, or texts, are not used as they are.
    """

    fingerprint: str
    classes: tuple[ClassCount, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def take_inventory(
    dataset: str,
    *,
    root: Path | None,
    classes: Classes,
    image_size: int | None,
    objective: Objective = Objective.CLASSIFICATION,
    columns: tuple[str, str] = ("text", "label"),
    context: int = 64,
    tokens: Tokens = BYTES,
    download: bool = True,
    split_seed: int | None = None,
) -> Inventory:
    """Take stock of the chosen classes of a data set.

    Args:
        dataset, root, classes, image_size, download, split_seed: As
            `analogtl.tasks.images.load_task` takes them.
        objective: What is to be learned, of texts.
        columns: Of a table of texts: of the text, and of its label.
        context: Tokens of a text that a network sees at once.
        tokens: How texts become tokens.

    Raises:
        ExperimentError: no such data set, class or folder; damaged or hostile data; no network.
    """
    try:
        if dataset == Dataset.IMAGE_FOLDER:
            return _of_folder(find_images(folder_of(root), split_seed), classes, image_size)
        if dataset in (Dataset.KJV, Dataset.TEXT_FOLDER):
            tokens.check(context)
            if objective is Objective.CLASSIFICATION:
                found = find_pieces(dataset, root, classes, *columns)
                return _of_pieces(found, context, tokens, split_seed)
            texts = find_texts(dataset, root, classes, columns[0])
            return _of_texts(texts, context, tokens)
        if dataset == Dataset.POINTS:
            names = points.chosen_shapes(classes)
            counts = tuple(ClassCount(name, points.TRAIN, 0, points.TEST) for name in names)
            return Inventory(_digest_of(["points", *names], points.VERSION).hexdigest(), counts)
        if dataset == Dataset.DIGITS:
            return _of_digits(classes, image_size)
        if dataset in CIFAR:
            return _of_cifar(dataset, root, classes, image_size, download)
        source, chosen = read(dataset, root, classes, image_size, download)
    except OSError as error:
        reason = f"cannot read {error.filename}: {error.strerror}"
        raise ExperimentError(f"data set {dataset}: {reason}") from error
    return _of_source(source, chosen, image_size)


def _of_cifar(
    dataset: str, root: Path | None, classes: Classes, image_size: int | None, download: bool
) -> Inventory:
    place = locate(dataset, root, download)
    state = stamp(files_of(dataset, place))
    name = repr((_VERSION, dataset, str(place.absolute()), _plain(classes), image_size))
    if known := recall(name, state):
        return Inventory(known["fingerprint"], tuple(ClassCount(**one) for one in known["classes"]))
    inventory = _of_source(*read(dataset, root, classes, image_size, download), image_size)
    remember(name, state, asdict(inventory))
    return inventory


def _of_source(source: Source, chosen: Sequence[int], image_size: int | None) -> Inventory:
    names = [source.classes.names[label] for label in chosen]
    digest = _digest_of(names, image_size or source.train[0].shape[-1])
    counts = []
    for images, labels in (source.train, source.test):
        place = np.full(len(source.classes.names), -1)
        place[list(chosen)] = np.arange(len(chosen))
        kept = np.flatnonzero(place[labels] >= 0)
        counts.append(np.bincount(place[labels[kept]], minlength=len(chosen)).tolist())
        digest.update(place[labels[kept]].astype("<i8").tobytes())
        for start in range(0, len(kept), 1000):
            digest.update(images[kept[start : start + 1000]].tobytes())
    rows = zip(names, *counts, strict=True)
    return Inventory(digest.hexdigest(), tuple(ClassCount(n, a, 0, b) for n, a, b in rows))


def _of_digits(classes: Classes, image_size: int | None) -> Inventory:
    chosen = choose_classes(Dataset.DIGITS, DIGITS, classes)
    names = [DIGITS.names[label] for label in chosen]
    digest = _digest_of(["scikit-learn's digits", *names], image_size or 8)
    counts = [_DIGITS[label] for label in chosen]
    return Inventory(
        digest.hexdigest(),
        tuple(
            ClassCount(name, count - count // TEST_EVERY, 0, count // TEST_EVERY)
            for name, count in zip(names, counts, strict=True)
        ),
    )


def _of_texts(texts: Mapping[str, bytes], context: int, tokens: Tokens) -> Inventory:
    digest = _digest_of(list(texts), context)
    counts = []
    for name, text in texts.items():
        digest.update(hashlib.blake2b(text).digest())
        counts.append(count_windows(name, len(tokens.whole(text, f"text {name}")), context, tokens))
    digest.update(tokens.fingerprint.encode())
    return Inventory(digest.hexdigest(), tuple(counts))


def _of_pieces(found: Pieces, context: int, tokens: Tokens, split_seed: int | None) -> Inventory:
    digest = _digest_of(["pieces", *found.names], context)
    counts = []
    for name, texts, tests in zip(found.names, found.texts, found.tests(split_seed), strict=True):
        for text, test in zip(texts, tests, strict=True):
            digest.update(f"{len(text)} {test} {text}".encode())
        counts.append(ClassCount(name, len(tests) - sum(tests), 0, sum(tests)))
    digest.update(tokens.fingerprint.encode())
    left_out = dict(found.left_out)
    if cut := tokens.each([text for texts in found.texts for text in texts], context)[1]:
        left_out[f"cut after {context} {tokens.unit}"] = cut
    return Inventory(digest.hexdigest(), tuple(counts), left_out)


def _of_folder(folder: Folder, classes: Classes, image_size: int | None) -> Inventory:
    chosen = choose_classes(Dataset.IMAGE_FOLDER, folder.classes, classes)
    folder.check(chosen)
    names = [folder.class_names[label] for label in chosen]
    parts = {
        split: [found[label] for label in chosen]
        for split in ("train", "validation", "test")
        if (found := getattr(folder, split)) is not None
    }
    files = [file for part in parts.values() for images in part for file in images]
    size = image_size or FOLDER_IMAGE_SIZE
    name = repr((_VERSION, str(folder.place.absolute()), names, size))
    state = stamp(files)
    fingerprint = recall(name, state)
    if fingerprint is None:
        fingerprint = _content(parts, names, size)
        remember(name, state, fingerprint)
    shape = {split: list(map(len, part)) for split, part in parts.items()}
    none = [0] * len(chosen)
    counts = (shape.get(split, none) for split in ("train", "validation", "test"))
    unused = set(range(len(folder.class_names))) - set(chosen)
    left_out = dict(folder.left_out)
    others = sum(
        len(part[label])
        for part in (folder.train, folder.validation or (), folder.test)
        for label in unused
        if part
    )
    if others:
        left_out[NOT_CHOSEN] = others
    rows = zip(names, *counts, strict=True)
    return Inventory(fingerprint, tuple(ClassCount(*row) for row in rows), left_out)


def _content(parts: Mapping[str, list[tuple[Path, ...]]], names: list[str], size: int) -> str:
    """Hash the content of images, split by split, class by class; their names count for nothing."""
    digest = _digest_of(names, size)
    for split, part in parts.items():
        for images in part:
            digest.update(f"{split} {len(images)}\n".encode())
            for path in images:
                check_regular(path)
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
    return str(digest.hexdigest())


def _digest_of(names: Sequence[str], size: int) -> Any:
    """A hash that begins with what all images share."""
    whole = repr((_VERSION, list(names), size))
    return hashlib.blake2b(whole.encode("utf-8", "surrogateescape"), digest_size=16)


def _plain(classes: Classes) -> Any:
    return classes if classes is None or isinstance(classes, int | str) else list(classes)
