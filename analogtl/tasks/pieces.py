"""Read texts that belong to classes: lines, files of a folder, rows of a table. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analogtl.errors import ExperimentError
from analogtl.files import decoded
from analogtl.tasks.classes import Classes, ClassList, choose_classes
from analogtl.tasks.folders import TEST_EVERY, listed
from analogtl.tasks.tables import TABLES, read_file, read_table
from analogtl.tasks.texts import find_texts
from analogtl.vocabulary import Dataset

EMPTY = "empty, left out"


@dataclass(frozen=True)
class Pieces:
    """Texts of classes.

    Attributes:
        names: Of the chosen classes, in the order of their labels.
        texts: Of each class, in the order in which they were found.
        left_out: Reason -> how many texts are not used.
    """

    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, int]

    def tests(self, split_seed: int | None) -> list[list[bool]]:
        """Which texts of each class are for testing: every fifth, or one in five by a seed."""
        import numpy as np

        found = []
        for label, texts in enumerate(self.texts):
            chosen = np.zeros(len(texts), dtype=bool)
            if split_seed is None:
                chosen[TEST_EVERY - 1 :: TEST_EVERY] = True
            else:
                order = np.random.default_rng([split_seed, label]).permutation(len(texts))
                chosen[order[: len(texts) // TEST_EVERY]] = True
            found.append(chosen.tolist())
        return found


def find_pieces(
    dataset: str, root: Path | None, classes: Classes, text_column: str, label_column: str
) -> Pieces:
    """Read texts with their classes.

    Args:
        dataset: ``kjv``, whose books are classes and whose paragraphs are texts, or
            ``text_folder``.
        root: Of ``text_folder``: a CSV or JSONL file; a folder of class folders, in which every
            ``.txt`` file is a text; or a folder of ``.txt`` files, each of which is a class whose
            lines are texts.
        classes: Which, as `choose_classes` takes them.
        text_column, label_column: Of a CSV or JSONL file.

    Raises:
        ExperimentError: No such files, columns or classes; labels that are missing.
    """
    by_class: dict[str, list[str]]
    if dataset == Dataset.TEXT_FOLDER and root is not None and root.is_file():
        if root.suffix.lower() not in TABLES:
            raise ExperimentError(
                f"data set {dataset}: {root}: one text has no classes; expected a CSV or JSONL "
                "file, a folder of .txt files, or one of class folders"
            )
        by_class = {}
        for text, label in read_table(dataset, root, text_column, label_column):
            by_class.setdefault(label, []).append(text)
        by_class = dict(sorted(by_class.items()))
    elif dataset == Dataset.TEXT_FOLDER and root is not None and _class_folders(root):
        by_class = _of_folders(dataset, root)
    else:
        files = find_texts(dataset, root, classes)
        by_class = {name: decoded(text, name).splitlines() for name, text in files.items()}
        classes = None  # they are chosen
    names = list(by_class)
    chosen = choose_classes(dataset, ClassList(tuple(names), tuple(range(len(names)))), classes)
    texts = [[one.strip() for one in by_class[names[at]]] for at in chosen]
    kept = tuple(tuple(filter(None, one)) for one in texts)
    empty = sum(map(len, texts)) - sum(map(len, kept))
    lacking = [
        f"data set {dataset}: class {names[at]}: {len(one)} texts that are not empty; expected "
        f"{TEST_EVERY} at least"
        for at, one in zip(chosen, kept, strict=True)
        if len(one) < TEST_EVERY
    ]
    if lacking:
        raise ExperimentError(listed(lacking, dataset))
    return Pieces(tuple(names[at] for at in chosen), kept, {EMPTY: empty} if empty else {})


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")


def _of_folders(dataset: str, root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for folder in _class_folders(root):
        files = sorted(one for one in folder.rglob("*.txt") if one.is_file())
        found[folder.name] = [decoded(read_file(dataset, one), str(one)) for one in files]
    return found
