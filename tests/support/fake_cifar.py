"""Small archives in CIFAR's official layout, in the pickle dialect of Python 2 that it came in."""

import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
CIFAR100_NAMES = ["apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee"]
CIFAR100_COARSE = ["aquatic_mammals", "fish", "people", "beasts", "insects"]
COARSE_OF = [2, 1, 2, 3, 0, 3, 4]  # of each fine label


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 wrote it: text, too, is a byte string."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode() if isinstance(value, str) else value
        short = len(raw) < 256
        size = bytes([len(raw)]) if short else struct.pack("<i", len(raw))
        self.write((b"U" if short else b"T") + size + raw)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    """A pickle as Python 2 wrote it, with NumPy's names of that time."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def cifar10_files(per_batch: int = 15, test: int = 20, seed: int = 0) -> dict[str, Any]:
    """Contents of the files of a CIFAR-10 of five classes, 3 images of each per batch."""
    rng = np.random.default_rng(seed)

    def part(count: int) -> dict[str, Any]:
        labels = [i % len(CIFAR10_NAMES) for i in range(count)]
        return {"data": _pixels(labels, rng), "labels": labels, "batch_label": "a batch"}

    files = {f"data_batch_{i}": part(per_batch) for i in range(1, 6)}
    return files | {"test_batch": part(test), "batches.meta": {"label_names": CIFAR10_NAMES}}


def cifar100_files(present: tuple[int, ...] = (0, 1, 2, 3, 4, 6)) -> dict[str, Any]:
    """Contents of a CIFAR-100 of seven classes, 10 + 4 images of each of those ``present``."""
    rng = np.random.default_rng(1)

    def part(count: int) -> dict[str, Any]:
        labels = [label for _ in range(count) for label in present]
        return {
            "data": _pixels(labels, rng),
            "fine_labels": labels,
            "coarse_labels": [COARSE_OF[label] for label in labels],
        }

    meta = {"fine_label_names": CIFAR100_NAMES, "coarse_label_names": CIFAR100_COARSE}
    return {"train": part(10), "test": part(4), "meta": meta}


def _pixels(labels: list[int], rng: np.random.Generator) -> np.ndarray:
    """Rows of random pixels; the first one of each is ten times the label."""
    data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    data[:, 0] = 10 * np.asarray(labels)
    return data


def write_folder(files: Mapping[str, Any], folder: Path) -> Path:
    """Write the files, pickled unless bytes already, as an extracted folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else python2_pickle(content)
        (folder / name).write_bytes(raw)
    return folder


def write_archive(files: Mapping[str, Any], folder: str, path: Path) -> Path:
    """Write the files, pickled unless bytes already, as ``path``, a .tar.gz of ``folder``."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            raw = content if isinstance(content, bytes) else python2_pickle(content)
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path
