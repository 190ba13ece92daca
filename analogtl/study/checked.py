"""Tables and JSON files that others may have changed: read with every cell and field checked.

What is wrong is left out, with a line that names file, line, column, value and what was expected;
the rest is read. Reads a table in pieces, so that a large one takes little memory.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from analogtl.config.load import EXPECTED
from analogtl.errors import RunError, counted, printable
from analogtl.files import check_regular, read_json
from analogtl.study.columns import TYPES, rule_broken
from analogtl.vocabulary import NUMBERED

if TYPE_CHECKING:
    import pandas as pd

MAX_TOLD: Final = 5  # wrong rows of a file that are told one by one
_ROWS: Final = 10_000  # of a piece
_PARSING: Final = {
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "list_type": "a list",
}


class Problems:
    """What is wrong in files, a line each; of one file's rows only the first few."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._wrong_rows: dict[Path, int] = {}

    def row(self, file: Path, line: int, what: str) -> None:
        """Tell of a row that is left out."""
        self._wrong_rows[file] = self._wrong_rows.get(file, 0) + 1
        if self._wrong_rows[file] <= MAX_TOLD:
            self.lines.append(printable(f"{file}:{line}: {what}; row left out"))

    def other(self, what: str) -> None:
        """Tell of something else."""
        self.lines.append(printable(what))

    def all(self) -> list[str]:
        """Every line; the last ones count the rows that are not told one by one."""
        more = [
            f"{file}: {counted(n - MAX_TOLD, 'more row')} left out"
            for file, n in self._wrong_rows.items()
            if n > MAX_TOLD
        ]
        return self.lines + more

    def raise_any(self) -> None:
        """Raise a `RunError` of all lines, if there is any."""
        if lines := self.all():
            raise RunError("\n".join(lines))


# -- cells -----------------------------------------------------------------------------------------

# A text that a spreadsheet would take for a formula, and one that looks like its guarded form.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")


def guarded(text: str) -> str:
    """Text as a cell of a CSV file: no spreadsheet takes it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` made a cell of; any other cell is itself."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


# -- tables ----------------------------------------------------------------------------------------


def read_checked(
    file: Path,
    rows_of: type,
    problems: Problems,
    *,
    header: Iterable[str] = (),
    needed: Iterable[str] = (),
    only: Sequence[str] | None = None,
    numeric: Iterable[str] = (),
) -> Iterator[pd.DataFrame]:
    """A CSV file in pieces, with the right types; an empty cell is missing.

    Args:
        rows_of: Row type of `analogtl.study.columns`. Further columns are axes.
        problems: Where each row that is left out is told.
        header: Columns without which there is nothing to read.
        needed: Such columns whose cells must not be empty, either.
        only: Columns to read; all by default.
        numeric: Axes that are known to be numbers, beside those of the registry.

    Yields:
        Frames, at least one; text columns of type object with None for missing.

    Raises:
        RunError: If the file as a whole is not a readable table.
    """
    import pandas as pd

    records = _records(file, problems)
    _, names = next(records, (1, None))
    if names is None:
        raise RunError(f"{file}: empty")
    needed = tuple(needed)
    names = [*map(unguarded, names)]
    _check_header(file, names, {*header, *needed})
    numbers = {*numeric, *NUMBERED}.intersection(names).difference(TYPES)
    kept = [name for name in names if only is None or name in only]
    adapter = TypeAdapter(list[rows_of])  # type: ignore[valid-type]
    pieces = iter(lambda: list(itertools.islice(records, _ROWS)), [])
    for piece in itertools.chain([next(pieces, [])], pieces):
        lines, rows = [], []
        for place, cells in piece:
            row = dict(zip(names, map(unguarded, cells), strict=True))
            if what := _empty_or_no_number(row, needed, numbers):
                problems.row(file, place, what)
                continue
            rows.append({name: row[name] for name in kept if row[name] != ""})
            lines.append(place)
        good = _checked(file, adapter, lines, rows, problems)
        yield _frame(pd.DataFrame(good, columns=kept, dtype=object))


def _check_header(file: Path, header: Sequence[str], needed: Iterable[str]) -> None:
    if missing := sorted(set(needed) - set(header)):
        hint = " (separated by ';': expected commas)" if any(";" in one for one in header) else ""
        raise RunError(f"{file}: no column {', '.join(missing)}{hint}")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise RunError(printable(f"{file}:1: column {twice!r} more than once"))
    if "" in header:
        raise RunError(f"{file}:1: column {header.index('') + 1} has no name")


def _checked(
    file: Path,
    adapter: TypeAdapter[list[Any]],
    lines: Sequence[int],
    rows: list[dict[str, str]],
    problems: Problems,
) -> list[dict[str, Any]]:
    """The rows that are right, each cell with its type."""
    wrong: dict[int, str] = {}
    try:
        values = adapter.validate_python(rows)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            number, *column = details["loc"]
            wrong.setdefault(int(number), f"{_dotted(column)}: {_message(details)}")
        right = [row for number, row in enumerate(rows) if number not in wrong]
        values = adapter.validate_python(right)
    places = [number for number in range(len(rows)) if number not in wrong]
    good = []
    for number, value in zip(places, values, strict=True):
        if what := rule_broken(value):
            wrong[number] = what
        else:
            good.append(value)
    for number in sorted(wrong):
        problems.row(file, lines[number], wrong[number])
    return good


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def row_problem(row: Mapping[str, Any], rows_of: type) -> str:
    """What is wrong with a row that a JSON file holds; "" if nothing. None and NaN are missing."""
    known = {name: value for name, value in row.items() if value is not None and value == value}
    try:
        _adapter(rows_of).validate_python(known)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        return f"{_dotted(details['loc'])}: {_message(details)}"
    return rule_broken(known)


def _empty_or_no_number(row: dict[str, str], needed: Iterable[str], numbers: Iterable[str]) -> str:
    for name in needed:
        if row[name] == "":
            return f"{name}: empty"
    for name in numbers:
        if row[name] and not _is_number(row[name]):
            return f"{name}: expected a number; got {_short(row[name])}"
    return ""


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of the row types with their dtypes; axes stay text until all is read."""
    for name in frame.columns:
        kind, column = TYPES.get(str(name), str), frame[name]
        if kind is bool and column.notna().all():
            frame[name] = column.astype(bool)
        elif kind in (int, float):
            frame[name] = column.astype(float)
        else:
            frame[name] = column.where(column.notna(), None)
    return frame


def whole_table(pieces: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The pieces as one: columns of whole numbers are integers, axes of numbers are numbers."""
    import pandas as pd

    table = pd.concat(list(pieces), ignore_index=True)
    for name in table.columns:
        cells = table[name].dropna()
        if name not in TYPES and cells.isin(["true", "false", "True", "False"]).all():
            table[name] = table[name].map(lambda cell: cell and cell.lower() == "true")
        elif name not in TYPES and cells.map(_is_number).all():
            table[name] = pd.to_numeric(table[name])
        elif table[name].dtype == float and len(cells) == len(table) and (cells % 1 == 0).all():
            table[name] = cells.astype("int64")
    return table


class _Lines:
    """The physical lines of a file; those of a record that turned out wrong can be had again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self._taken: list[str] = []
        self.first = 0  # number of the first line of the record

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        return line

    def begin(self) -> None:
        """A record begins."""
        self.first += len(self._taken) or (1 if not self.first else 0)
        self._taken = []

    def skip_one(self) -> None:
        """Give all lines of the record back but its first: it ends there."""
        self._again.extendleft(reversed(self._taken[1:]))
        self._taken = self._taken[:1]


def _records(file: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each record, header first, all with as many cells as the header.

    A record that is no CSV costs its first line: a lone quote does not swallow what follows.
    """
    try:
        check_regular(file)
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            yield from _parsed(file, _Lines(stream), problems)
    except OSError as error:
        raise RunError(f"{file}: not a readable CSV file: {error.strerror or error}") from None


def _parsed(file: Path, lines: _Lines, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    width, reader = 0, csv.reader(lines, strict=True)
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = f"no CSV ({error})"
        else:
            width = width or len(cells)
            wrong = f"{len(cells)} cells, expected {width}" if len(cells) != width else ""
            if not all(map(str.isascii, cells)) and not all(map(_is_text, cells)):
                wrong = "not UTF-8"
            if not wrong:
                yield lines.first, cells
                continue
            if not cells:
                continue  # an empty line
        if not width:
            raise RunError(f"{file}:1: not a readable CSV file: {wrong}")
        problems.row(file, lines.first, wrong)
        lines.skip_one()
        reader = csv.reader(lines, strict=True)


def _is_text(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- JSON ------------------------------------------------------------------------------------------


def read_fields(file: Path, fields: type, problems: Problems) -> dict[str, Any]:
    """What a JSON file of a run holds, without the fields that are wrong; {} if it is not there.

    Args:
        fields: A `TypedDict` of what is known about it; further fields stay as they are.
        problems: Where a file that cannot be read, and each field left out, is told.
    """
    if not file.exists():
        return {}
    try:
        content = read_json(file)
    except RunError as error:
        problems.other(f"left out: {error}")
        return {}
    if not isinstance(content, dict):
        problems.other(f"left out: {file}: not a JSON table")
        return {}
    try:
        _adapter(fields).validate_python(content, strict=True)
    except ValidationError as error:
        # The last first, so that the places of those before stay right.
        for details in reversed(error.errors(include_url=False)):
            _remove(content, details["loc"])
            problems.other(f"{file}: {_dotted(details['loc'])}: {_message(details)}; left out")
    return content


def visible(content: Any) -> Any:
    """JSON in whose text whatever is no visible character is its escape."""
    if isinstance(content, dict):
        return {printable(key): visible(value) for key, value in content.items()}
    if isinstance(content, list):
        return [visible(value) for value in content]
    return printable(content) if isinstance(content, str) else content


def _remove(content: Any, location: Sequence[int | str]) -> None:
    *above, last = location
    for part in above:
        content = content[part]
    if isinstance(content, dict):
        content.pop(last, None)
    else:
        del content[last]


# -- words -----------------------------------------------------------------------------------------


def _dotted(location: Iterable[int | str]) -> str:
    return ".".join(map(str, location))


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _message(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "literal_error":
        return f"expected {context['expected']}; got {_short(details['input'])}"
    expected = {**EXPECTED, **_PARSING}.get(kind, "").format(**context)
    return f"expected {expected or 'another value'}; got {_short(details['input'])}"
