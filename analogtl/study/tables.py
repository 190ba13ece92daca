"""The tables as CSV files: written without ever leaving half a file, read without believing any.

pandas is imported only by the readers of data frames.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogtl.errors import ExperimentError, RunError
from analogtl.files import atomic_file, check_regular, write_atomically
from analogtl.study.checked import Problems, guarded, read_checked, unguarded, whole_table
from analogtl.study.columns import ROWS_OF, Row
from analogtl.vocabulary import RUN_FOLDERS

if TYPE_CHECKING:
    import pandas as pd

# -- writing ---------------------------------------------------------------------------------------


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a CSV file atomically. A missing or None value is an empty cell."""
    write_atomically(path, to_csv(columns, rows))


def to_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(guarded, columns))
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue()


def write_joined(path: Path, base: Sequence[str], files: Sequence[Path]) -> None:
    """Write several CSV files as one, atomically, a line at a time: memory stays flat.

    Args:
        base: Columns that come first, in this order; every further column of a file follows.
        files: The files. One that is not there (any more) counts as empty.

    Raises:
        RunError: If one is not a readable CSV file, or the result cannot be written.
    """
    columns = dict.fromkeys(base)
    for file in files:
        for header in itertools.islice(_lines(file), 1):
            columns.update(dict.fromkeys(header))
    with atomic_file(path) as target:
        writer = csv.writer(codecs.getwriter("utf-8")(target), lineterminator="\n")
        writer.writerow(columns)
        for file in files:
            lines = _lines(file)
            header = next(lines, [])
            if header == list(columns):
                writer.writerows(lines)
                continue
            places = {name: place for place, name in enumerate(header)}
            order = [places.get(name) for name in columns]
            for line in lines:
                writer.writerow("" if place is None else line[place] for place in order)


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}"
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")  # csv does not quote a lone \r
    return guarded(text) if isinstance(value, str) else text


# -- reading ---------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as text cells.

    Raises:
        RunError: If it is not there or a line has a wrong number of cells.
    """
    if not path.is_file():
        raise RunError(f"{path}: not a readable CSV file: no such file")
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise RunError(f"{path}: empty")
    names = [*map(unguarded, header)]
    return [dict(zip(names, map(unguarded, line), strict=True)) for line in lines]


def _lines(path: Path) -> Iterator[list[str]]:
    """The lines of a CSV file, header first, each with as many cells; none if it is missing."""
    try:
        check_regular(path)
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if header is None:
                return
            yield header
            for number, line in enumerate(reader, 2):
                if len(line) != len(header):
                    raise RunError(f"{path}:{number}: {len(line)} cells, expected {len(header)}")
                yield line
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: not a readable CSV file: {error}") from None


def find_tables(name: str, where: str | Path) -> list[Path]:
    """The files of one name for a run directory, a folder of runs, or the file itself."""
    path = Path(where)
    if path.is_file():
        return [path] if path.name == name else []
    if (path / name).is_file():
        return [path / name]
    return sorted(
        file
        for file in path.rglob(name)
        if not RUN_FOLDERS.intersection(file.relative_to(path).parts[:-1])
    )


def find_all_tables(name: str, where: Sequence[str | Path]) -> list[Path]:
    """The files of one name in several places, each once.

    Raises:
        ExperimentError: If there is none.
    """
    files = {file.resolve(): file for place in where for file in find_tables(name, place)}
    if not files:
        places = ", ".join(str(place) for place in where)
        raise ExperimentError(f"{places}: no {name} found; `analogtl finetune` or `sweep` write it")
    return list(files.values())


def read_tables(name: str, where: Sequence[str | Path]) -> pd.DataFrame:
    """All rows of the files of one name, e.g. ``trials.csv``.

    Args:
        where: Run directories, folders of them, or the files themselves.

    Raises:
        ExperimentError: If there is none.
        RunError: If one is not readable, or a row is wrong; with a line per problem.
    """
    import pandas as pd

    problems = Problems()
    tables = [read_table(file, problems) for file in find_all_tables(name, where)]
    problems.raise_any()
    return pd.concat(tables, ignore_index=True)


def read_table(file: Path, problems: Problems | None = None, **options: Any) -> pd.DataFrame:
    """A table of a run with the right types; empty cells are missing.

    Args:
        file: ``trials.csv``, ``epochs.csv``, ``layers.csv`` or ``pulses.csv``.
        problems: Where each row that is left out is told; without it, one is an error.
        options: See `analogtl.study.checked.read_checked`.

    Raises:
        RunError: If the file as a whole is not a readable table.
    """
    found = Problems() if problems is None else problems
    table = whole_table(read_checked(file, ROWS_OF[file.name], found, **options))
    if problems is None:
        found.raise_any()
    return table
