"""Find the images in a folder of the user's own, and tell which files are no part of the task."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analogtl.errors import ExperimentError
from analogtl.tasks.classes import ClassList
from analogtl.tasks.decoding import image_formats
from analogtl.vocabulary import Dataset

MAX_LISTED = 10  # problems of the same kind, before "and so many more"
TEST_EVERY = 5  # where nobody says which images are for testing, every fifth is

# What the folders of the splits are called, whatever the case of their letters.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
HIDDEN = "hidden"
OUTSIDE = "outside the class folders"
BESIDE = "in folders beside the splits"
NOT_CHOSEN = "in classes not chosen"
LINKED_TWICE = "a link to a folder that was read already"
NO_FILE = "neither file nor folder"


@dataclass(frozen=True)
class Folder:
    """The images of a folder.

    Attributes:
        class_names: In the order of their names, which numbers them from 0.
        train, validation, test: Of each class, its images in order. ``validation`` is None where
            the folder brings none.
        left_out: Reason -> how many files are no part of these.
    """

    place: Path
    class_names: tuple[str, ...]
    train: tuple[tuple[Path, ...], ...]
    validation: tuple[tuple[Path, ...], ...] | None
    test: tuple[tuple[Path, ...], ...]
    left_out: Mapping[str, int]

    @property
    def classes(self) -> ClassList:
        """Its classes, to choose from."""
        return ClassList(self.class_names, tuple(range(len(self.class_names))))

    def check(self, chosen: Iterable[int]) -> None:
        """Check that each chosen class has images to train and to test on.

        Raises:
            ExperimentError: a line for each that has not.
        """
        where = f"data set image_folder: {self.place}"
        problems = []
        for label in chosen:
            name = self.class_names[label]
            if not self.train[label]:
                problems.append(f"{where}: class {name} has no images to train on")
            elif not self.test[label]:
                problems.append(f"{where}: no test images of {name}")
        if problems:
            raise ExperimentError(listed(problems))


def find_images(folder: Path, split_seed: int | None = None) -> Folder:
    """Find the images of a folder that holds one folder per class.

    Either ``folder/train/<class>/`` with ``folder/test/<class>/`` or ``folder/val/<class>/`` (the
    test set; if both exist, ``val`` is validation data), or ``folder/<class>/``, where one image of
    a class in five is for testing. Images may lie in sub-folders of a class.

    Args:
        split_seed: Draws the images for testing; without it every fifth by file name is one.

    Raises:
        ExperimentError: no such folder, fewer than two classes, splits with different classes, a
            seed for what is split already, something that is no file under an image's name (each
            named).
        OSError: A folder cannot be read.
    """
    where = f"data set image_folder: {folder}"
    if not folder.is_dir():
        raise ExperimentError(f"{where} is not a folder; set [data] root to the folder of images")
    walk = _Walk(folder)
    splits = _splits_of(folder, where)
    if not splits:
        names = _class_folders(folder, where)
        images = [walk.images(folder / name) for name in names]
        walk.count_others(folder, known=names)
        walk.raise_problems()
        tests = [_for_testing(one, folder, split_seed) for one in images]
        parts = [
            tuple(
                tuple(path for path in one if (path in test) == wanted)
                for one, test in zip(images, tests, strict=True)
            )
            for wanted in (False, True)
        ]
        return Folder(folder, names, parts[0], None, parts[1], walk.left_out)
    if split_seed is not None:
        folders = " and ".join(f"{place.name}/" for place in splits.values())
        raise ExperimentError(f"{where} has {folders}; data.split_seed splits what is not split")
    names = _class_folders(splits["train"], f"{where}/{splits['train'].name}")
    found = {}
    for split, place in splits.items():
        different = set(_class_folders(place, f"{where}/{place.name}")) ^ set(names)
        if different:
            raise ExperimentError(
                f"{where}: {splits['train'].name} and {place.name} have different classes: "
                f"{', '.join(sorted(different))} in one only"
            )
        found[split] = tuple(tuple(walk.images(place / name)) for name in names)
        walk.count_others(place, known=names)
    walk.count_others(folder, known=[place.name for place in splits.values()], inside=BESIDE)
    walk.raise_problems()
    validation = found.get("validation") if "test" in found else None
    test = found["test"] if "test" in found else found["validation"]
    return Folder(folder, names, found["train"], validation, test, walk.left_out)


def listed(problems: Sequence[str], dataset: str = Dataset.IMAGE_FOLDER) -> list[str]:
    """The first problems of a kind, and how many more there are."""
    rest = len(problems) - MAX_LISTED
    more = [f"data set {dataset}: and {rest} more such problems"] if rest > 0 else []
    return [*problems[:MAX_LISTED], *more]


def _for_testing(images: Sequence[Path], folder: Path, seed: int | None) -> set[Path]:
    """The images of a class that are for testing: one in `TEST_EVERY`.

    A seed orders them by a hash of it and of their places in the folder, which is the same
    everywhere, whatever other classes there are.
    """
    if seed is None:
        return set(images[TEST_EVERY - 1 :: TEST_EVERY])

    def drawn(path: Path) -> bytes:
        name = f"{seed} {path.relative_to(folder).as_posix()}"
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest()

    return set(sorted(images, key=drawn)[: len(images) // TEST_EVERY])


def _splits_of(folder: Path, where: str) -> dict[str, Path]:
    """The folders of the splits, ``train`` first; none if the classes are not split."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        split = _SPLITS.get(path.name.casefold())
        if split and path.is_dir():
            found.setdefault(split, []).append(path)
    others = sum(path.is_dir() and path.name[0] != "." for path in folder.iterdir())
    if "train" not in found:
        if found and others == sum(map(len, found.values())) and "test" in found:
            raise ExperimentError(f"{where} has {found['test'][0].name}/ but no train/ beside it")
        return {}
    if len(found) == 1:
        raise ExperimentError(f"{where} has train/ but neither test/ nor val/ beside it")
    for several in found.values():
        if len(several) > 1:
            names = " and ".join(f"{path.name}/" for path in several)
            raise ExperimentError(f"{where} has {names}; expected one of them")
    return {split: found[split][0] for split in ("train", "validation", "test") if split in found}


def _class_folders(folder: Path, where: str) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(names) < 2:
        found = f"one class folder ({names[0]})" if names else "no class folders"
        raise ExperimentError(f"{where} has {found}; two classes are needed at least")
    return tuple(names)


class _Walk:
    """Finds images below folders; counts what else is there."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.left_out: Counter[str] = Counter()
        self._problems: list[str] = []

    def raise_problems(self) -> None:
        if self._problems:
            raise ExperimentError(listed(self._problems))

    def images(self, folder: Path) -> list[Path]:
        """The images in a folder and in those below it, in the order of their paths."""
        found = []
        for path in self._files(folder):
            if path.suffix.lower() in image_formats():
                found.append(path)
            else:
                self.left_out[f"not an image that Pillow reads ({_shown(path.suffix)})"] += 1
        return sorted(found, key=lambda path: path.relative_to(folder).parts)

    def count_others(self, folder: Path, known: Iterable[str], inside: str = OUTSIDE) -> None:
        """Count what lies in a folder beside its known sub-folders."""
        for path in folder.iterdir():
            if path.name in known:
                continue
            if path.name[0] == ".":
                self.left_out[HIDDEN] += 1
            elif path.is_dir():
                self.left_out[inside] += sum(1 for _ in self._files(path))
            else:
                self.left_out[OUTSIDE] += 1

    def _files(self, folder: Path) -> Iterable[Path]:
        """The files below a folder that are not hidden; each real folder once, whatever links."""
        above = (folder, *folder.parents)  # up to the top: a link up leads to all the others
        seen = {_identity(one) for one in above[: above.index(self.top) + 1]}
        waiting = [folder]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if path.name[0] == ".":
                        self.left_out[HIDDEN] += 1
                    elif entry.is_dir():
                        identity = _identity(path)
                        if identity in seen:
                            self.left_out[LINKED_TWICE] += 1
                        else:
                            seen.add(identity)
                            waiting.append(path)
                    elif entry.is_file():
                        yield path
                    elif path.suffix.lower() in image_formats():
                        self._problems.append(
                            f"data set image_folder: {path}: not a readable image "
                            f"(expected a file, found {_kind(path)})"
                        )
                    else:
                        self.left_out[NO_FILE] += 1


def _identity(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_dev, about.st_ino


def _kind(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere"
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def _shown(suffix: str) -> str:
    return suffix.lower() if suffix[1:].isalnum() and len(suffix) <= 6 else "other"
