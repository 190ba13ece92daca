"""Read texts: those that are bundled, and the user's own. It needs no torch."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from analogtl.config.class_names import CLASS_NAMES
from analogtl.errors import ExperimentError
from analogtl.files import check_regular
from analogtl.tasks.classes import Classes, ClassList, choose_classes
from analogtl.tasks.counts import ClassCount
from analogtl.tasks.folders import TEST_EVERY
from analogtl.tasks.tables import MAX_BYTES, TABLES, read_table
from analogtl.tasks.tokens import Tokens
from analogtl.vocabulary import Dataset


def find_texts(
    dataset: str, root: Path | None, classes: Classes, text_column: str = "text"
) -> dict[str, bytes]:
    """Read the chosen texts: name -> bytes.

    Args:
        dataset: ``kjv``, or ``text_folder``.
        root: Of ``text_folder``: a ``.txt`` file, a folder of them, or a CSV or JSONL file, whose
            texts follow one another with an empty line between them.
        classes: Which: all if None; names, with or without ``.txt``; or how many, by name.
        text_column: Of a CSV or JSONL file.

    Raises:
        ExperimentError: no such file or text; one that is empty or no text.
    """
    if dataset == Dataset.KJV:
        names = CLASS_NAMES[dataset]
        folder = resources.files("analogtl.tasks").joinpath("texts")
        chosen = choose_classes(dataset, _listed(names), classes, fewest=1)
        return {
            names[at]: gzip.decompress(folder.joinpath(f"{names[at]}.txt.gz").read_bytes())
            for at in chosen
        }
    files = _files(dataset, root)
    if files[0].suffix.lower() in TABLES:
        rows = read_table(dataset, files[0], text_column)
        return {files[0].stem: "\n\n".join(text for text, _ in rows).encode()}
    if isinstance(classes, str):
        classes = classes.removesuffix(".txt")
    elif isinstance(classes, Sequence):
        classes = [one.removesuffix(".txt") if isinstance(one, str) else one for one in classes]
    listed = _listed([file.name.removesuffix(".txt") for file in files])
    texts, problems, room = {}, [], MAX_BYTES
    for at in choose_classes(dataset, listed, classes, fewest=1):
        try:
            check_regular(files[at])
            size = files[at].stat().st_size
            content = files[at].read_bytes() if size <= room else b""
        except OSError as error:
            problems.append(f"data set {dataset}: cannot read {files[at]}: {error.strerror}")
            continue
        room -= size
        if room < 0:
            problems.append(
                f"data set {dataset}: {files[at]}: more than {MAX_BYTES:,} bytes in all"
            )
        elif b"\0" in content:
            problems.append(f"data set {dataset}: {files[at]}: no text: it has zero bytes")
        elif not content.strip():
            problems.append(f"data set {dataset}: {files[at]}: empty")
        texts[listed.names[at]] = content
    if problems:
        raise ExperimentError(problems)
    return texts


def count_windows(name: str, length: int, context: int, tokens: Tokens) -> ClassCount:
    """Count a text's windows: the last fifth, the end of the text, is for testing.

    Raises:
        ExperimentError: it is too short.
    """
    windows = (length - 1) // context
    if windows < TEST_EVERY:
        raise ExperimentError(
            f"text {name}: {length} {tokens.unit}; expected {TEST_EVERY * context + 1} at least, "
            f"for {TEST_EVERY} windows of data.context = {context}"
        )
    test = windows // TEST_EVERY
    return ClassCount(name, windows - test, 0, test)


def _listed(names: Sequence[str]) -> ClassList:
    return ClassList(tuple(names), tuple(range(len(names))))


def _files(dataset: str, root: Path | None) -> list[Path]:
    if root is None:
        raise ExperimentError(
            f"data set {dataset}: set [data] root to a .txt, CSV or JSONL file, or a folder"
        )
    if not root.exists():
        raise ExperimentError(f"data set {dataset}: [data] root: {root.absolute()} does not exist")
    if not root.is_dir():
        return [root]
    files = sorted(file for file in root.iterdir() if file.suffix == ".txt" and file.is_file())
    if not files:
        raise ExperimentError(f"data set {dataset}: {root}: no .txt file in it")
    return files
