"""Tables: a tidy frame with the columns to show, written as text, Markdown, CSV or LaTeX.

A `Table` keeps numbers as numbers; only the renderers round. Each writes the same rows, so a value
in the paper's table is the value in the CSV file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from analogtl.analysis import summaries
from analogtl.errors import duration, printable
from analogtl.study.checked import guarded
from analogtl.vocabulary import arm_label, label_of

Kind = Literal["text", "arm", "level", "count", "number", "share", "duration"]
EMPTY = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table as shown.

    Attributes:
        key: The frame's column; of a summary, ``<key>_mean`` and ``<key>_sd``.
        header: Heading, without the unit.
        unit: Unit, "" for a plain number.
        kind: How values are written: ``level`` in the fewest digits, ``number`` with fixed ones,
            ``share`` in two significant ones.
        digits: Decimals of a number; a mean gets more where its spread is smaller.
        scale: Factor between the frame's value and the one shown (100 for a share in percent).
        essential: Whether a paper's table has it; elsewhere there is room.
        if_varied: Whether it is left out where all rows have the same.
    """

    key: str
    header: str
    unit: str = ""
    kind: Kind = "text"
    digits: int = 1
    scale: float = 1.0
    essential: bool = True
    if_varied: bool = False

    @property
    def heading(self) -> str:
        """Heading and unit."""
        return f"{self.header} ({self.unit})" if self.unit else self.header

    @property
    def right(self) -> bool:
        """Whether the values are numbers, aligned right."""
        return self.kind not in ("text", "arm")

    def source(self, frame: pd.DataFrame) -> str:
        """The frame's column that it shows: the value, or the mean."""
        return self.key if self.key in frame.columns else f"{self.key}_mean"

    def is_needed(self, frame: pd.DataFrame) -> bool:
        """Whether a frame has values for it that are worth a column."""
        key = self.source(frame)
        if key not in frame.columns or not frame[key].notna().any() or frame[key].eq("").all():
            return False
        return not self.if_varied or frame[key].nunique() > 1


def level_columns(frame: pd.DataFrame, axes: Iterable[str]) -> list[Column]:
    """A column per axis of a sweep: numbers, or names."""
    kinds: dict[bool, Kind] = {True: "level", False: "text"}
    return [
        Column(axis, label_of(axis), kind=kinds[pd.api.types.is_numeric_dtype(frame[axis])])
        for axis in axes
    ]


@dataclass(frozen=True)
class Cell:
    """One cell: what is read, and what it is sorted by (None: always last)."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """A tidy frame, the columns to show, and what they mean.

    Attributes:
        name: Stem of the files it is written to.
        title: One line; the caption's first sentence.
        frame: The numbers, unrounded.
        columns: What the other formats show.
        note: What a reader must know: what the spread is, what was left out.
        experiment: The experiment that it is about; "" for several.
        whole: The rows that the CSV file holds, where they are more than are worth showing.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    note: str = ""
    experiment: str = ""
    whole: pd.DataFrame | None = None

    @property
    def full_title(self) -> str:
        """The title where the experiment is not clear from what stands around the table."""
        return f"{self.experiment}: {self.title}" if self.experiment else self.title

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self) -> list[list[Cell]]:
        """The cells to show, row by row, rounded to what the spread supports."""
        shown = [_cells(self.frame, column) for column in self.columns]
        return [list(row) for row in zip(*shown, strict=True)]


def _cells(frame: pd.DataFrame, column: Column) -> list[Cell]:
    values = frame[column.source(frame)].tolist()
    if column.kind == "number" and f"{column.key}_sd" in frame.columns:
        return [
            Cell(mean_text(mean, sd, column), None if pd.isna(mean) else float(mean) * column.scale)
            for mean, sd in zip(values, frame[f"{column.key}_sd"], strict=True)
        ]
    return [_cell(value, column) for value in values]


def _cell(value: Any, column: Column) -> Cell:
    if pd.isna(value):
        return Cell(EMPTY, None)
    if column.kind == "arm":
        return Cell(arm_label(str(value)), arm_label(str(value)))
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        text = summaries.level_text(column.key, str(value))
        if isinstance(value, bool):
            text = "yes" if value else "no"
        return Cell(text or EMPTY, text or None)
    number = float(value) * column.scale
    match column.kind:
        case "count":
            text = f"{number:.0f}"
        case "duration":
            text = duration(number)
        case "number":
            text = f"{number:.{column.digits}f}"
        case "share":
            text = f"{float(f'{number:.2g}'):g}"
        case _:
            text = summaries.level_text(column.key, number)
    return Cell(text, number)


def mean_text(mean: float, sd: float, column: Column) -> str:
    """A mean with its spread, ``14.5 ± 1.2``, with decimals enough to show the spread."""
    if pd.isna(mean):
        return EMPTY
    mean = mean * column.scale
    if pd.isna(sd):
        return f"{mean:.{column.digits}f}"
    sd = sd * column.scale
    digits = column.digits
    # What is smaller than a millionth of the mean is rounding of equal numbers, and not a spread.
    while digits < column.digits + 5 and 1e-6 * abs(mean) < sd < 0.95 * 10**-digits:
        digits += 1
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


# ---------------------------------------------------------------------------------------- CSV


def to_csv(table: Table) -> str:
    """All the rows and columns there are: no rounding, no index column, no formula in a text."""
    frame = table.frame if table.whole is None else table.whole
    texts = [name for name in frame.columns if not summaries.is_numeric(frame[name])]
    safe = {
        name: [guarded(cell) if isinstance(cell, str) else cell for cell in frame[name]]
        for name in texts
    }
    text: str = (
        frame.assign(**safe).rename(columns=guarded).to_csv(index=False, lineterminator="\n")
    )
    return text


# ----------------------------------------------------------------------------------- Markdown


def to_markdown(table: Table) -> str:
    """A Markdown table with its title and note."""
    parts = [f"**{markdown_escape(table.title)}**", markdown_rows(table)]
    if table.note:
        parts.append(markdown_paragraph(table.note))
    return "\n\n".join(parts) + "\n"


def markdown_rows(table: Table) -> str:
    """The rows alone; numbers are aligned right."""
    right = [column.right for column in table.columns]
    rows = [[column.heading for column in table.columns]]
    rows += [[cell.text for cell in row] for row in table.rows()]
    rows = [[markdown_escape(text) for text in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(right))]
    rows.insert(1, ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)])
    return "\n".join(
        "| "
        + " | ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        )
        + " |"
        for row in rows
    )


# Whatever begins markup; an underscore only where it may begin or end emphasis; what makes a link
# of a bare address. An interval of numbers stays as it is: there is nothing that it could link to.
_MARKUP = re.compile(
    r"(\[-?[\d.]+, -?[\d.]+\](?![(\[:]))"
    r"|[\\`*\[\]|~$@]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.",
    re.IGNORECASE,
)
_FIRST = re.compile(r"^(?:(?=[-+#=])|\d+(?=[.)]))")  # before what would begin a list or heading


def markdown_escape(text: str) -> str:
    """Text that Markdown prints as it is: no cell breaks, no markup, no link, no HTML."""
    text = printable(" ".join(text.split()))
    escaped = _MARKUP.sub(lambda found: found[1] or f"\\{found[0]}", text)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def markdown_paragraph(text: str) -> str:
    """Text that Markdown prints as it is and as a paragraph: no heading, list or rule."""
    return _FIRST.sub(r"\g<0>\\", markdown_escape(text))


# -------------------------------------------------------------------------------------- LaTeX

_LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "−": r"$-$",
        "–": "--",
        "σ": r"$\sigma$",
        "α": r"$\alpha$",
        "·": r"$\cdot$",
        # After a line's end, a bracket would begin its option and a star belong to it.
        **{letter: f"{{{letter}}}" for letter in "[]*"},
        "|": r"\textbar{}",
        '"': r"\char34{}",
    }
)
_COLUMN_LETTERS = 52  # what fits into a paper's column at \\small
_MAX_CELL = 30  # longer text is broken into lines


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return printable(" ".join(text.split())).translate(_LATEX)


def to_latex(table: Table) -> str:
    """A booktabs table at the width of a paper's column, or of its page where it needs that.

    The essential columns only; long headings on two lines; spreads as ``$m \\pm s$``.
    """
    shown = [place for place, column in enumerate(table.columns) if column.essential]
    columns = [table.columns[place] for place in shown]
    rows = [[row[place] for place in shown] for row in table.rows()]
    heads = [_lines(column.heading) for column in columns]
    longest = [max((len(row[i].text) for row in rows), default=0) for i in range(len(columns))]
    widths = [
        min(_MAX_CELL, max(length, *map(len, head)))
        for length, head in zip(longest, heads, strict=True)
    ]
    wide = sum(widths) + 2 * len(widths) > _COLUMN_LETTERS
    environment = "table*" if wide else "table"
    align = "".join(
        "r"
        if column.right
        else "l"
        if length <= _MAX_CELL
        else r">{\raggedright\arraybackslash}p{4.4cm}"
        for column, length in zip(columns, longest, strict=True)
    )
    caption = table.full_title if table.full_title.endswith((".", "?")) else f"{table.full_title}."
    label = re.sub(r"[^A-Za-z0-9]+", "-", f"{table.experiment} {table.name}").strip("-")
    lines = [
        r"% needs \usepackage{booktabs,array}",
        rf"\begin{{{environment}}}",
        r"  \centering\small\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{latex_escape(f'{caption} {table.note}')}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        "    " + " & ".join(map(_latex_head, heads, columns)) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(map(_latex_cell, row)) + r" \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _lines(heading: str) -> list[str]:
    """A long heading in two lines, broken at the space nearest to its middle."""
    spaces = [place for place, letter in enumerate(heading) if letter == " "]
    if len(heading) <= 9 or not spaces:
        return [heading]
    middle = min(spaces, key=lambda place: abs(2 * place + 1 - len(heading)))
    return [heading[:middle], heading[middle + 1 :]]


def _latex_head(lines: Sequence[str], column: Column) -> str:
    text = r"\\".join(map(latex_escape, lines))
    side = "r" if column.right else "l"
    return rf"\shortstack[{side}]{{{text}}}" if len(lines) > 1 else text


def _latex_cell(cell: Cell) -> str:
    mean, plus_minus, sd = cell.text.partition(" ± ")
    if plus_minus and isinstance(cell.value, float):
        return rf"${mean} \pm {sd}$"
    if isinstance(cell.value, float) and cell.text.startswith("-"):
        return f"${cell.text}$"
    return latex_escape(cell.text)
