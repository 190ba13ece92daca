"""Read images: CIFAR archives, scikit-learn's digits, a folder of the user's own.

Each reader returns a `Source`: all images as they are, with the label numbers of the full set.
Choosing classes and carving splits is `analogtl.tasks.images`'s job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.errors import ExperimentError, RunError, did_you_mean
from analogtl.tasks import archives
from analogtl.tasks.classes import Classes, ClassList, choose_classes
from analogtl.tasks.decoding import read_image
from analogtl.tasks.folders import TEST_EVERY, Folder, find_images, listed
from analogtl.tasks.pickles import load_pickle
from analogtl.tasks.stamps import cache_folder, stamp
from analogtl.vocabulary import Dataset

Images = NDArray[np.uint8]  # (N, C, H, W)
Labels = NDArray[np.int64]  # (N,)

FOLDER_IMAGE_SIZE = 32  # what the package's own models for colour images expect


@dataclass(frozen=True)
class Source:
    """The images of a data set.

    Attributes:
        train, test, validation: Images (N, C, H, W) uint8 and label numbers (N,) int64;
            ``validation`` only where the user's folder brings one.
        classes: What the label numbers mean, and which there are.
    """

    train: tuple[Images, Labels]
    test: tuple[Images, Labels]
    classes: ClassList
    validation: tuple[Images, Labels] | None = None


def read(
    dataset: str,
    root: Path | None,
    classes: Classes,
    image_size: int | None,
    download: bool,
    split_seed: int | None = None,
) -> tuple[Source, list[int]]:
    """Read a data set; return it with the label numbers of the chosen classes.

    Other classes may be among its images. The arguments are those of
    `analogtl.tasks.images.load_task`.

    Raises:
        ExperimentError: no such data set, class or folder; damaged or hostile data; no network.
        OSError: a file or folder cannot be read.
    """
    if dataset == Dataset.IMAGE_FOLDER:
        folder = find_images(folder_of(root), split_seed)
        chosen = choose_classes(dataset, folder.classes, classes)
        return read_images(folder, chosen, image_size or FOLDER_IMAGE_SIZE), chosen
    if dataset in CIFAR:
        source = read_cifar(dataset, root, download)
    elif dataset == Dataset.DIGITS:
        source = read_digits()
    else:
        raise ExperimentError(f"data set {dataset!r}: unknown; {did_you_mean(dataset, Dataset)}")
    return source, choose_classes(dataset, source.classes, classes)


def folder_of(root: Path | None) -> Path:
    """The folder of a data set of the user's own.

    Raises:
        ExperimentError: none is given.
    """
    if root is None:
        raise ExperimentError("data set image_folder: set [data] root to the folder of images")
    return root


@dataclass(frozen=True)
class _Cifar:
    """The official archive: its address, checksum, and the names inside."""

    folder: str
    archive: str
    sha256: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str

    @property
    def url(self) -> str:
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFAR: dict[str, _Cifar] = {
    Dataset.CIFAR10: _Cifar(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    Dataset.CIFAR100: _Cifar(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        train=("train",),
        test="test",
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
}


def read_cifar(dataset: str, root: Path | None, download: bool) -> Source:
    """CIFAR-10 or CIFAR-100 in the official layout, extracted or as the ``.tar.gz``.

    Looked for in ``root``, then in ``$ANALOGTL_DATA``, then in the user's cache folder; downloaded
    to the first of the latter two if absent and allowed, with its checksum compared. A local copy
    is taken as it is, so a reduced archive in the official layout serves too.

    Raises:
        ExperimentError: not found, no network, damaged, hostile, or not CIFAR.
    """
    place = locate(dataset, root, download)
    return _read_cifar(dataset, place, stamp(files_of(dataset, place)).text)


def files_of(dataset: str, place: Path) -> list[Path]:
    """The files that CIFAR is read from: the archive, or those of the folder."""
    return [place / name for name in CIFAR[dataset].files] if place.is_dir() else [place]


@lru_cache(maxsize=2)  # a sweep's trials in one process read the same two data sets again and again
def _read_cifar(dataset: str, place: Path, _stamp: str) -> Source:
    spec = CIFAR[dataset]
    where = f"data set {dataset}: {place}: "
    contents = archives.read_files(place, spec.folder, spec.files, f"data set {dataset}")
    # One at a time, and each raw file forgotten once it is read.
    batches = {name: _dict_of(contents.pop(name), where + name) for name in spec.files}
    names = _names(batches[spec.meta], spec.names, where + spec.meta)
    parts = {
        name: (
            _images(batches[name], where + name),
            _labels(batches[name], spec.labels, len(names), where + name),
        )
        for name in (*spec.train, spec.test)
    }
    images, labels = map(np.concatenate, zip(*(parts[name] for name in spec.train), strict=True))
    superclasses = {}
    if dataset == Dataset.CIFAR100:
        super_names = _names(batches[spec.meta], "coarse_label_names", where + spec.meta)
        coarse = _labels(batches["train"], "coarse_labels", len(super_names), where + "train")
        superclasses = {
            name: tuple(int(label) for label in np.unique(labels[coarse == number]))
            for number, name in enumerate(super_names)
        }
    present = tuple(map(int, np.unique(labels)))
    return Source((images, labels), parts[spec.test], ClassList(names, present, superclasses))


def locate(dataset: str, root: Path | None, download: bool) -> Path:
    """Find the extracted folder or the archive; download it if need be.

    A download goes to where every experiment looks, not into the folder of one: that can be a
    folder of images.

    Raises:
        ExperimentError: no such folder, or not found and not downloaded.
    """
    spec = CIFAR[dataset]
    if root is not None and not root.exists():
        raise ExperimentError(f"data set {dataset}: [data] root: {root.absolute()} does not exist")
    candidates = _candidates(dataset, root)
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = " and ".join(str(path) for path in candidates)
    options = (
        "set [data] root or the environment variable ANALOGTL_DATA to the folder that holds it"
    )
    if not download:
        raise ExperimentError(f"data set {dataset}: not found (looked for {looked}); {options}")
    target = _shared_folder() / spec.archive
    try:
        archives.download(spec.url, spec.sha256, target)
    except (OSError, RunError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ExperimentError(
            f"data set {dataset}: not found (looked for {looked}) and the download of {spec.url} "
            f"to {target} failed ({reason}); {options}"
        ) from error
    return target


def is_absent(dataset: str, root: Path | None) -> bool:
    """Whether a data set is one that could be downloaded, and is not here."""
    if dataset not in CIFAR:
        return False
    mistyped = root is not None and not root.exists()
    return not mistyped and not any(place.exists() for place in _candidates(dataset, root))


def _candidates(dataset: str, root: Path | None) -> list[Path]:
    """The places at which CIFAR can be, in the order in which they are looked at."""
    spec = CIFAR[dataset]
    places = []
    for folder in dict.fromkeys([root or _shared_folder(), _shared_folder(), cache_folder()]):
        folder = folder.absolute()
        itself = [folder] if folder.name == spec.folder or folder.is_file() else []
        places += [*itself, folder / spec.folder, folder / spec.archive]
    return places


def _shared_folder() -> Path:
    """The folder for the data of all experiments."""
    given = os.environ.get("ANALOGTL_DATA")
    return Path(os.path.expanduser(given)) if given else cache_folder()


def _dict_of(pickled: bytes, where: str) -> dict[str, Any]:
    content = load_pickle(pickled, where)
    if not isinstance(content, dict):
        raise ExperimentError(f"{where}: holds a {type(content).__name__}, not the official dict")
    return {_decoded(key): value for key, value in content.items()}


def _decoded(value: Any) -> str:
    """Text, which Python 2's pickles hold as bytes; nothing else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _names(content: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = content.get(key)
    texts = tuple(map(_decoded, names)) if isinstance(names, list) else ()
    if not texts or not all(texts):
        raise ExperimentError(f"{where}: has no list {key} of names")
    return texts


def _images(content: dict[str, Any], where: str) -> Images:
    data = content.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise ExperimentError(f"{where}: its data is no uint8 array of 3072 columns (3 x 32 x 32)")
    return data.reshape(-1, 3, 32, 32)


def _labels(content: dict[str, Any], key: str, count: int, where: str) -> Labels:
    labels = content.get(key)
    if (
        not isinstance(labels, list | np.ndarray)
        or len(labels) != len(content["data"])
        or not all(isinstance(x, int | np.integer) and 0 <= x < count for x in labels)
    ):
        raise ExperimentError(
            f"{where}: its {key} are not one number from 0 to {count - 1} per image"
        )
    return np.asarray(labels, dtype=np.int64)


DIGITS = ClassList(tuple(str(i) for i in range(10)), tuple(range(10)))


def read_digits() -> Source:
    """Read the 1797 digits of 8 x 8 pixels and 17 grey levels that scikit-learn bundles.

    They come without a test set: every fifth image of each digit is taken for one.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    train, test = _split_every_fifth(images, labels)
    return Source(train, test, DIGITS)


def _split_every_fifth(
    images: Images, labels: Labels
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Split into training and test images where no one says which: alike for every seed.

    A split by seed would test one replicate on what another one's pretraining has seen.
    """
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    is_test = rank % TEST_EVERY == TEST_EVERY - 1
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def read_images(folder: Folder, chosen: Sequence[int], image_size: int) -> Source:
    """Read the chosen classes of an image folder.

    Images become RGB; what exceeds a square is cut off around its centre, and the rest resized to
    ``image_size``.

    Raises:
        ExperimentError: images that cannot be read (each named).
    """
    folder.check(chosen)
    problems: list[str] = []
    train, test, validation = (
        None if part is None else _read_classes(part, chosen, image_size, problems)
        for part in (folder.train, folder.test, folder.validation)
    )
    if problems or train is None or test is None:
        raise ExperimentError(listed(problems))
    return Source(train, test, folder.classes, validation)


def _read_classes(
    parts: Sequence[Sequence[Path]], chosen: Sequence[int], size: int, problems: list[str]
) -> tuple[Images, Labels]:
    images, labels = [np.empty((0, 3, size, size), np.uint8)], []
    for label in sorted(chosen):
        for path in parts[label]:
            try:
                images.append(read_image(path, size)[None])
                labels.append(label)
            except Exception as error:  # Pillow fails on damaged files in many ways
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problems.append(f"data set image_folder: {path}: not a readable image ({reason})")
    return np.concatenate(images), np.asarray(labels, dtype=np.int64)
