"""What a data set holds, and when its fingerprint changes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cifar import cifar10_files, cifar100_files, write_archive, write_folder
from PIL import Image

from analogtl.tasks import inventory, sources, stamps
from analogtl.tasks.counts import used
from analogtl.tasks.images import load_task
from analogtl.tasks.inventory import ClassCount, Inventory, take_inventory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a process that remembers nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stamps, "_remembered", {})
    return tmp_path / "cache" / "analogtl" / "inventories"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten images of each of the classes a, b and c."""
    root = tmp_path / "images"
    for name in "abc":
        (root / name).mkdir(parents=True)
        for i in range(10):
            color = (ord(name), i, 0)
            Image.new("RGB", (8, 8), color).save(root / name / f"{i}.png")
    return root


def of(root: Path, dataset: str = "image_folder", **more: Any) -> Inventory:
    """The inventory of the first two classes."""
    arguments: dict[str, Any] = {"classes": 2, "image_size": None, **more}
    return take_inventory(dataset, root=root, **arguments)


def counts(found: Inventory) -> list[tuple[str, int, int, int]]:
    return [(one.name, one.train, one.validation, one.test) for one in found.classes]


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [("digits", None), ("digits", [7, "2"]), ("cifar10", None), ("cifar100", ["bee", "people"])],
)
def test_counts_are_those_of_the_task(tmp_path: Path, dataset: str, classes: Any) -> None:
    write_folder(cifar10_files(), tmp_path / "cifar-10-batches-py")
    write_folder(cifar100_files(), tmp_path / "cifar-100-python")
    task = load_task(dataset, root=tmp_path, classes=classes)
    found = of(tmp_path, dataset, classes=classes)
    expected = [
        ClassCount(name, *((split.labels == i).sum() for split in splits))
        for splits in [(task.train, task.validation, task.test)]
        for i, name in enumerate(task.class_names)
    ]
    assert list(found.classes) == expected
    assert found.left_out == {}


LIMITS: list[dict[str, Any]] = [
    {},
    {"samples_per_class": 4, "validation_fraction": 0.1},
    {"validation_fraction": 0.3, "test_samples_per_class": 1},
    {"samples_per_class": 99, "test_samples_per_class": 99},
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("own", [False, True])
def test_what_is_used_is_counted_as_the_task_takes_it(
    images: Path, limits: dict[str, Any], own: bool
) -> None:
    if own:
        for split in ("train", "val", "test"):
            shutil.copytree(images, images.parent / "split" / split)
        (images.parent / "split" / "val" / "a" / "3.png").unlink()
        images = images.parent / "split"
    task = load_task("image_folder", root=images, classes=2, **limits)
    every = ("samples_per_class", "test_samples_per_class", "validation_fraction")
    found = used(of(images).classes, **{name: limits.get(name, 0) or None for name in every})
    for split in ("train", "validation", "test"):
        labels = getattr(task, split).labels
        expected = [int((labels == i).sum()) for i in range(2)]
        assert [getattr(one, split) for one in found] == expected


def test_every_file_that_is_not_used_is_counted(images: Path) -> None:
    inside = images / "a" / "more"
    inside.mkdir()
    (images / "a" / ".hidden.png").touch()
    (inside / "notes.txt").touch()
    (inside / "movie.eps").touch()
    (images / "list.csv").touch()
    (inside / "loop").symlink_to("..", target_is_directory=True)
    found = of(images)
    assert sorted(found.left_out.values()) == [1, 1, 1, 1, 1, 10]  # ten images of class c
    assert sum(one.train + one.test for one in found.classes) == 20


def test_files_beside_the_splits_are_counted(images: Path) -> None:
    root = images.parent / "split"
    for split in ("train", "test", "extra"):
        shutil.copytree(images, root / split)
    (root / "train" / "labels.csv").touch()
    assert sorted(of(root, classes=None).left_out.values()) == [1, 30]


def test_cifar_is_the_same_as_archive_and_folder_and_another_with_one_pixel_changed(
    tmp_path: Path,
) -> None:
    files = cifar100_files()
    (tmp_path / "b").mkdir()
    write_folder(files, tmp_path / "a" / "cifar-100-python")
    write_archive(files, "cifar-100-python", tmp_path / "b" / "cifar-100-python.tar.gz")
    first = of(tmp_path / "a", "cifar100")
    assert first == of(tmp_path / "b", "cifar100")
    assert first.fingerprint != of(tmp_path / "a", "cifar100", classes=[1, 0]).fingerprint

    rows = np.flatnonzero(np.asarray(files["train"]["fine_labels"]) == 4)
    files["train"]["data"][rows[0], 5] ^= 1  # of a class that is not chosen
    write_archive(files, "cifar-100-python", tmp_path / "b" / "cifar-100-python.tar.gz")
    assert first == of(tmp_path / "b", "cifar100")
    files["test"]["data"][0, 5] ^= 1
    write_archive(files, "cifar-100-python", tmp_path / "b" / "cifar-100-python.tar.gz")
    assert first.fingerprint != of(tmp_path / "b", "cifar100").fingerprint


def test_a_reduced_cifar_is_another(tmp_path: Path) -> None:
    write_folder(cifar10_files(), tmp_path / "a" / "cifar-10-batches-py")
    write_folder(cifar10_files(per_batch=10), tmp_path / "b" / "cifar-10-batches-py")
    whole, reduced = (of(tmp_path / name, "cifar10") for name in "ab")
    assert counts(whole) != counts(reduced)
    assert whole.fingerprint != reduced.fingerprint


def swap(root: Path, one: str, other: str) -> None:
    (root / one).rename(root / "aside")
    (root / other).rename(root / one)
    (root / "aside").rename(root / other)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "another image": lambda root: shutil.copy(root / "c/0.png", root / "a/0.png"),
    "one more": lambda root: shutil.copy(root / "c/0.png", root / "a/99.png"),
    "one less": lambda root: (root / "b/3.png").unlink(),
    "another order": lambda root: swap(root, "a/0.png", "a/1.png"),
    "another class": lambda root: (root / "a/0.png").rename(root / "b/00.png"),
    "another name of a class": lambda root: (root / "a").rename(root / "aa"),
    "swapped classes": lambda root: swap(root, "a", "b"),
    "a sub-folder": lambda root: shutil.copytree(root / "c", root / "a" / "more"),
}
NO_CHANGES: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda root: None,
    "another time": lambda root: os.utime(root / "a/0.png", (1, 1)),
    "a third class": lambda root: shutil.copytree(root / "c", root / "d"),
    "without a third class": lambda root: shutil.rmtree(root / "c"),
    "no image": lambda root: (root / "a" / "notes.txt").write_text("notes"),
    "a name that keeps the order": lambda root: (root / "a/9.png").rename(root / "a/9a.png"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_training_sees_changes_the_fingerprint(
    images: Path, change: Callable[[Path], Any]
) -> None:
    before = of(images)
    change(images)
    assert of(images).fingerprint != before.fingerprint


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_no_training_sees_does_not(images: Path, change: Callable[[Path], Any]) -> None:
    before = of(images)
    change(images)
    assert of(images).fingerprint == before.fingerprint
    moved = images.rename(images.parent / "elsewhere")
    assert of(moved).fingerprint == before.fingerprint
    assert of(moved, image_size=16).fingerprint != before.fingerprint


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is read whole from here on; every file seems to be old."""
    read: list[Any] = []
    for module, name in ((inventory, "_content"), (sources, "_read_cifar")):
        genuine = getattr(module, name)

        def counted(*args: Any, _genuine: Any = genuine) -> Any:
            read.append(args)
            return _genuine(*args)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(stamps, "_SETTLED_NS", -(10**18))
    return read


@pytest.mark.parametrize("dataset", ["image_folder", "cifar10"])
def test_files_are_read_once_until_they_change(
    tmp_path: Path, images: Path, cache: Path, read_files: list[Any], dataset: str
) -> None:
    write_folder(cifar10_files(), tmp_path / "cifar-10-batches-py")
    root = images if dataset == "image_folder" else tmp_path
    first = of(root, dataset)
    assert of(root, dataset) == first
    stamps._remembered.clear()  # as in the next process
    assert of(root, dataset) == first
    assert len(read_files) == 1
    (file,) = cache.iterdir()

    for damaged in (b"", b"{", b"[]", b"\xff", file.read_bytes().replace(b'"stamp": "', b'"x": "')):
        file.write_bytes(damaged)
        stamps._remembered.clear()
        assert of(root, dataset) == first
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, "value": "0"}))
    stamps._remembered.clear()
    assert of(root, dataset) == first
    assert len(read_files) == 7

    for path in (images / "a" / "0.png", tmp_path / "cifar-10-batches-py" / "test_batch"):
        os.utime(path, (5, 5))
    assert of(root, dataset) == first
    assert len(read_files) == 8


def test_without_a_cache_folder_files_are_still_read_once_a_process(
    images: Path, cache: Path, read_files: list[Any]
) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder would be")
    assert of(images) == of(images)
    assert len(read_files) == 1


def test_files_that_have_just_changed_are_not_remembered_for_later(
    images: Path, cache: Path
) -> None:
    of(images)
    assert not cache.exists()
