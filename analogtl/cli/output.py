"""What the commands write: results to standard output, notes and errors to standard error.

Everything is plain text when it does not go to a terminal, and one JSON object per line with
``--json``. Nothing that is printed is read as markup, and no character of it is obeyed by a
terminal: names, values and messages come from anywhere.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogtl.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from analogtl.report.tables import Table

GAP = 2  # characters between columns
MAX_WORD = 40  # characters that a table does not break
MAX_NAME = 24  # characters of a cell that is not broken into lines
PIPED_WIDTH = 120  # columns of a table in a file or a pipe
MAX_PROBLEM = 2000  # characters of a line about a problem; who wrote such a long word knows it
LAYOUT = "\n\t"  # what a text for people may hold beside visible characters
# Columns of results that are left out, in this order, until the table fits the terminal.
LEAST_NEEDED = (
    *("wall_s", "weights_changed", "error_transfer", "lr", "error_best", "error_final", "n"),
    *("elbow", "elbow_low", "elbow_high", "n_blocks", "unit"),
)


def console() -> Console:
    """Standard output."""
    return _console(stderr=False)


@cache
def _safe_console() -> type[Console]:
    """The class of consoles on which no text of ours is a code, whatever it is in."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            # All that is drawn, bars and tables among it, passes here; rich's own codes are marked.
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text, LAYOUT), style, control)

        def on_broken_pipe(self) -> None:
            raise  # what is being handled: `analogtl.cli.app.run` ends the command

    return SafeConsole


def _console(*, stderr: bool) -> Console:
    made = _safe_console()(stderr=stderr, markup=False, highlight=False, emoji=False)
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
    if len(text) > MAX_PROBLEM:
        text = f"{text[: MAX_PROBLEM // 2]} [...] {text[-MAX_PROBLEM // 2 :]}"
    _line(text, "red", stderr=True)


class LogLines(logging.Handler):
    """Shows what the package's modules log, which is what a user should know, as `warn` does."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


LOG_LINES = LogLines()


def _line(text: str, style: str, *, stderr: bool) -> None:
    stream, text = sys.stderr if stderr else sys.stdout, printable(text, LAYOUT)
    if not stream.isatty():
        print(text, file=stream, flush=True)
        return
    # A long line is wrapped by the terminal: what is copied from it has no line breaks of ours.
    _console(stderr=stderr).print(text, style=style or None, soft_wrap=True)


def emit(record: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own, in ASCII; what JSON cannot hold is null or text."""
    print(json.dumps(_jsonable(record), allow_nan=False), flush=True)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(one) for one in value]
    if hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


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
        right: Columns that hold numbers.
        styles: Column -> style of its cells.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if not (rows := [[printable(cell, LAYOUT) for cell in row] for row in rows]):
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
        table.add_row(*map(Text, row))
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
    rows_table(
        [column.heading for column in columns],
        list(zip(*(cells[column.key] for column in columns), strict=True)),
        title=table.full_title,
        right=[place for place, column in enumerate(columns) if column.right],
    )
    if table.note:
        say(table.note, "dim")


def short(path: Path) -> str:
    """A path as it is best typed: relative to the current folder where it lies below it."""
    try:
        here, full = Path.cwd(), path.resolve()
    except OSError:  # the current folder was removed
        return str(path)
    typed = str(full.relative_to(here)) if full.is_relative_to(here) else str(path)
    return f"./{typed}" if typed.startswith("-") else typed  # or it would be an option


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
