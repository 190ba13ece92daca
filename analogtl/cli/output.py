"""What the commands write: results to standard output, notes and errors to standard error.

Everything is plain text when it does not go to a terminal, and one JSON object per line with
``--json``. Nothing that is printed is read as markup.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from analogtl.report.tables import Table

GAP = 2  # characters between columns
MAX_WORD = 40  # characters that a table does not break
MAX_NAME = 24  # characters of a cell that is not broken into lines
PIPED_WIDTH = 120  # columns of a table in a file or a pipe
# Columns of results that are left out, in this order, until the table fits the terminal.
LEAST_NEEDED = (
    *("wall_s", "weights_changed", "error_transfer", "lr", "error_best", "n"),
    *("elbow", "elbow_low", "elbow_high", "n_seeds", "unit"),
)


def console() -> Console:
    """Standard output."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPED_WIDTH
    return made


def say(text: str, style: str = "") -> None:
    """A line of a result."""
    _line(text, style, stderr=False)


def note(text: str) -> None:
    """A line beside the result: what was chosen, what to do next."""
    _line(text, "dim", stderr=True)


def warn(text: str) -> None:
    """A line about something that the user should know."""
    _line(text, "yellow", stderr=True)


def problem(text: str) -> None:
    """A line about what is wrong."""
    _line(text, "red", stderr=True)


class LogLines(logging.Handler):
    """Shows what the package's modules log, which is what a user should know, as `warn` does."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


LOG_LINES = LogLines()


def _line(text: str, style: str, *, stderr: bool) -> None:
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        print(printable(text), file=stream, flush=True)
        return
    # A long line is wrapped by the terminal: what is copied from it has no line breaks of ours.
    _console(stderr=stderr).print(text, style=style or None, soft_wrap=True)


def printable(text: str) -> str:
    """Text without codes that a terminal would obey: a name may hold some."""
    known = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(known)


def emit(record: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own; what JSON cannot hold becomes null or text."""
    from pydantic_core import to_json

    def other(value: Any) -> Any:
        return value.item() if hasattr(value, "item") else str(value)  # item: of a NumPy number

    print(to_json(record, inf_nan_mode="null", fallback=other).decode(), flush=True)


def rows_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    right: Iterable[int] = (),
    styles: Mapping[int, str] | None = None,
) -> None:
    """A table of texts on standard output.

    Args:
        headings: One per column; none for a table without a heading.
        rows: The cells.
        title: A line above it.
        right: Columns that hold numbers.
        styles: Column -> style of its cells.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if not (rows := [*rows]):
        return
    out, numbers, columns = console(), set(right), list(zip(*rows, strict=True))
    headings = headings or [""] * len(columns)
    pairs = list(zip(headings, columns, strict=True))
    widths = _fit(
        [max(map(len, (heading, *cells))) for heading, cells in pairs],
        [_least_width(*pair, n in numbers) for n, pair in enumerate(pairs)],
        out.width - GAP * (len(columns) - 1),
    )
    table = RichTable(
        box=box.SIMPLE_HEAD,
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        show_header=any(headings),
    )
    for place, heading in enumerate(headings):
        table.add_column(
            Text(heading),
            justify="right" if place in numbers else "left",
            overflow="fold",
            width=widths[place],
            style=(styles or {}).get(place, ""),
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table)


def _least_width(heading: str, cells: Iterable[str], number: bool) -> int:
    """Width of what must not be broken: a number, a name of a few words, or a word."""
    parts = heading.split()
    for cell in cells:
        parts += [cell] if number or len(cell) <= MAX_NAME else cell.split()
    return min(max(map(len, parts), default=1), MAX_WORD)


def _fit(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns: what they need if there is room, else as fairly as the room allows."""
    widths = [min(wanted, low) for wanted, low in zip(natural, least, strict=True)]
    while sum(widths) > room and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < min(room, sum(natural)):
        ratios = [width / wanted for width, wanted in zip(widths, natural, strict=True)]
        widths[ratios.index(min(ratios))] += 1
    return widths


def show_table(table: Table) -> None:
    """A results table on standard output, in as many columns as the width allows."""
    columns, rows = list(table.columns), table.rows()
    cells = {column.key: [row[n].text for row in rows] for n, column in enumerate(columns)}
    extra = [column.key for column in columns if not column.essential]
    for key in [*reversed(extra), *LEAST_NEEDED]:
        least = [_least_width(one.heading, cells[one.key], one.right) for one in columns]
        if sum(least) + GAP * (len(least) - 1) <= console().width:
            break
        columns = [column for column in columns if column.key != key]
    title = f"{table.experiment}: {table.title}" if table.experiment else table.title
    rows_table(
        [column.heading for column in columns],
        list(zip(*(cells[column.key] for column in columns), strict=True)),
        title=title,
        right=[place for place, column in enumerate(columns) if column.right],
    )
    if table.note:
        say(table.note, "dim")


def short(path: Path) -> str:
    """A path as it is best typed: relative to the current folder where it lies below it."""
    here, full = Path.cwd(), path.resolve()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)


def toml(data: Mapping[str, Any]) -> str:
    """Nested tables as TOML; what is None is left out, as TOML has no such value."""
    import tomli_w

    return tomli_w.dumps(_without_none(data))


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }
