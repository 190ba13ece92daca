"""Read images: CIFAR archives, scikit-learn's digits, a folder of the user's own.

Each reader returns a `Source`: all images as they are, with the label numbers of the full set.
Choosing classes and carving splits is `analogtl.tasks.images`'s job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.errors import ExperimentError
from analogtl.tasks import archives
from analogtl.vocabulary import Dataset

Images = NDArray[np.uint8]  # (N, C, H, W)
Labels = NDArray[np.int64]  # (N,)

_MAX_LISTED = 10  # problems of the same kind, before "and so many more"


@dataclass(frozen=True)
class Source:
    """The images of a data set, unselected.

    Attributes:
        train, test, validation: Images (N, C, H, W) uint8 and label numbers (N,) int64;
            ``validation`` only where the user's folder brings one.
        class_names: Name of each label number of the full set, absent ones included.
        superclasses: Name of each superclass -> label numbers of its classes, of those present.
    """

    train: tuple[Images, Labels]
    test: tuple[Images, Labels]
    class_names: tuple[str, ...]
    superclasses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validation: tuple[Images, Labels] | None = None


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

    Looked for in ``root``, else in ``$ANALOGTL_DATA``, else in the user's cache folder; downloaded
    there if absent and allowed, with its checksum compared. A local copy is taken as it is, so a
    reduced archive in the official layout serves too.

    Raises:
        ExperimentError: not found, no network, damaged, hostile, or not CIFAR.
    """
    place = locate(dataset, root, download)
    spec = CIFAR[dataset]
    files = [place / name for name in spec.files] if place.is_dir() else [place]
    stamps = [(f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file()]
    return _read_cifar(dataset, place, tuple(stamps))


@lru_cache(maxsize=2)  # a sweep's trials in one process read the same two data sets again and again
def _read_cifar(dataset: str, place: Path, stamps: tuple[tuple[int, int], ...]) -> Source:
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
    return Source((images, labels), parts[spec.test], names, superclasses)


def locate(dataset: str, root: Path | None, download: bool) -> Path:
    """Find the extracted folder or the archive; download it if need be."""
    spec = CIFAR[dataset]
    folder = root or _default_folder()
    itself = [folder] if folder.name == spec.folder or folder.is_file() else []
    candidates = [*itself, folder / spec.folder, folder / spec.archive]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = " and ".join(str(path) for path in candidates)
    options = (
        "set [data] root or the environment variable ANALOGTL_DATA to the folder that holds it"
    )
    mistyped = root is not None and not folder.exists()
    if mistyped or not download:
        raise ExperimentError(f"data set {dataset}: not found (looked for {looked}); {options}")
    target = folder / spec.archive
    try:
        archives.download(spec.url, spec.sha256, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ExperimentError(
            f"data set {dataset}: not found (looked for {looked}) and the download of {spec.url} "
            f"failed ({reason}); {options}"
        ) from error
    return target


def _default_folder() -> Path:
    if given := os.environ.get("ANALOGTL_DATA"):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "analogtl"


def _dict_of(pickled: bytes, where: str) -> dict[str, Any]:
    content = archives.load_pickle(pickled, where)
    if not isinstance(content, dict):
        raise ExperimentError(f"{where}: holds a {type(content).__name__}, not the official dict")
    return {_decoded(key): value for key, value in content.items()}


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _names(content: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = content.get(key)
    if not isinstance(names, list) or not names:
        raise ExperimentError(f"{where}: has no list {key}")
    return tuple(_decoded(name) for name in names)


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


def read_digits() -> Source:
    """Read the 1797 digits of 8 x 8 pixels and 17 grey levels that scikit-learn bundles.

    They come without a test set: every fifth image of each digit is taken for one.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    train, test = _split_every_fifth(images, labels)
    return Source(train, test, tuple(str(i) for i in range(10)))


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
    is_test = rank % 5 == 4
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def read_image_folder(folder: Path, image_size: int) -> Source:
    """PNG and JPEG images, in one folder per class.

    Either ``folder/train/<class>/`` with ``folder/test/<class>/`` or ``folder/val/<class>/`` (the
    test set; if both exist, ``val`` is validation data), or ``folder/<class>/``, where every fifth
    image of a class, by file name, is for testing. Classes are numbered in the order of their
    names. Images become RGB; what exceeds a square is cut off around its centre, and the rest
    resized to ``image_size``.

    Raises:
        ExperimentError: no such folder, fewer than two classes, a class without images, images
            that cannot be read (each named).
    """
    where = f"data set image_folder: {folder}"
    if not folder.is_dir():
        raise ExperimentError(f"{where} is not a folder; set [data] root to the folder of images")
    held_out = [folder / name for name in ("test", "val") if (folder / name).is_dir()]
    if not (folder / "train").is_dir():
        names = _class_folders(folder, where)
        images, labels = _read_classes(folder, names, image_size)
        train, test = _split_every_fifth(images, labels)
        return Source(train, test, names)
    if not held_out:
        raise ExperimentError(f"{where} has train/ but neither test/ nor val/ beside it")
    names = _class_folders(folder / "train", f"{where}/train")
    for other in held_out:
        unknown = set(_class_folders(other, f"{where}/{other.name}")) ^ set(names)
        if unknown:
            raise ExperimentError(
                f"{where}: train and {other.name} have different classes: "
                f"{', '.join(sorted(unknown))} in one only"
            )
    train = _read_classes(folder / "train", names, image_size)
    test = _read_classes(held_out[0], names, image_size)
    validation = _read_classes(held_out[1], names, image_size) if len(held_out) == 2 else None
    return Source(train, test, names, validation=validation)


def _class_folders(folder: Path, where: str) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(names) < 2:
        found = f"one class folder ({names[0]})" if names else "no class folders"
        raise ExperimentError(f"{where} has {found}; two classes are needed at least")
    return tuple(names)


def _read_classes(folder: Path, names: Sequence[str], size: int) -> tuple[Images, Labels]:
    images, labels, problems = [], [], []
    for label, name in enumerate(names):
        files = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.name[0] != "."
        )
        if not files:
            problems.append(f"data set image_folder: {folder / name} has no PNG or JPEG images")
        for path in files:
            try:
                images.append(_read_image(path, size))
                labels.append(label)
            except Exception as error:  # Pillow fails on damaged files in many ways
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                problems.append(f"data set image_folder: {path}: not a readable image ({reason})")
    if problems:
        rest = len(problems) - _MAX_LISTED
        more = [f"data set image_folder: and {rest} more such problems"] if rest > 0 else []
        raise ExperimentError(problems[:_MAX_LISTED] + more)
    return np.stack(images), np.asarray(labels, dtype=np.int64)


def _read_image(path: Path, size: int) -> Images:
    """Read one image as (3, size, size)."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=("PNG", "JPEG")) as image:
        image.draft("RGB", (2 * size, 2 * size))  # lets a large JPEG be decoded at a lower scale
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 8 bits
            upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
        square = ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
        return np.asarray(square).transpose(2, 0, 1)
