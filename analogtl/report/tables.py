"""Tables: a tidy frame with the columns to show, written as text, Markdown, CSV or LaTeX.

A `Table` keeps numbers as numbers; only the renderers round. Each writes the same rows, so a value
in the paper's table is the value in the CSV file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.critical_point import JudgedCurve, points_frame
from analogtl.analysis.findings import JudgedFinding, findings_frame
from analogtl.report import words
from analogtl.vocabulary import arm_label, label_of

Kind = Literal["text", "arm", "level", "count", "number", "mean", "duration"]
EMPTY = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table as shown.

    Attributes:
        key: The frame's column; a mean reads ``<key>_mean`` and ``<key>_sd``.
        header: Heading, without the unit.
        unit: Unit, "" for a plain number.
        kind: How values are written: ``level`` in the fewest digits, ``number`` with fixed ones.
        digits: Decimals of a number or a mean; a mean gets more where its spread is smaller.
        scale: Factor between the frame's value and the one shown (100 for a share in percent).
        essential: Whether a paper's table has it; elsewhere there is room.
    """

    key: str
    header: str
    unit: str = ""
    kind: Kind = "text"
    digits: int = 1
    scale: float = 1.0
    essential: bool = True

    @property
    def heading(self) -> str:
        """Heading and unit."""
        return f"{self.header} ({self.unit})" if self.unit else self.header

    @property
    def right(self) -> bool:
        """Whether the values are numbers, aligned right."""
        return self.kind not in ("text", "arm")


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
    if column.kind == "mean":
        means, sds = frame[f"{column.key}_mean"].tolist(), frame[f"{column.key}_sd"].tolist()
        return [
            Cell(mean_text(mean, sd, column), None if pd.isna(mean) else float(mean) * column.scale)
            for mean, sd in zip(means, sds, strict=True)
        ]
    return [_cell(value, column) for value in frame[column.key].tolist()]


def _cell(value: object, column: Column) -> Cell:
    if summaries.is_empty(value):
        return Cell(EMPTY, None)
    if column.kind == "arm":
        return Cell(arm_label(str(value)), arm_label(str(value)))
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        return Cell(text or EMPTY, text or None)
    number = float(value) * column.scale
    if column.kind == "count":
        return Cell(f"{number:.0f}", number)
    if column.kind == "duration":
        return Cell(duration(number), number)
    if column.kind == "number":
        return Cell(f"{number:.{column.digits}f}", number)
    return Cell(summaries.level_text(number), number)


def mean_text(mean: float, sd: float, column: Column) -> str:
    """A mean with its spread, ``14.5 ± 1.2``, with decimals enough to show the spread."""
    if pd.isna(mean):
        return EMPTY
    mean = mean * column.scale
    if pd.isna(sd):
        return f"{mean:.{column.digits}f}"
    sd = sd * column.scale
    digits = column.digits
    while digits < column.digits + 3 and 0 < sd < 0.95 * 10**-digits:
        digits += 1
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``48 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    place = next(i for i, (size, _) in enumerate(units) if whole >= size)
    (big, big_name), (small, small_name) = units[place], units[place + 1]
    rest = whole % big // small
    return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")


# ---------------------------------------------------------------------------------- renderers


def to_csv(table: Table) -> str:
    """All the rows and columns there are: no rounding, no index column."""
    frame = table.frame if table.whole is None else table.whole
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def to_markdown(table: Table) -> str:
    """A Markdown table with its title and note; numbers aligned right."""
    heads = [markdown_escape(column.heading) for column in table.columns]
    body = [[markdown_escape(cell.text) for cell in row] for row in table.rows()]
    widths = [max(3, *(len(r[i]) for r in [heads, *body])) for i in range(len(heads))]
    right = [column.right for column in table.columns]
    lines = [
        _markdown_line(heads, widths, right),
        _markdown_line(
            ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)],
            widths,
            right,
        ),
        *(_markdown_line(row, widths, right) for row in body),
    ]
    parts = [f"**{markdown_escape(table.title)}**", "\n".join(lines)]
    if table.note:
        parts.append(markdown_escape(table.note))
    return "\n\n".join(parts) + "\n"


def _markdown_line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
    return "| " + " | ".join(padded) + " |"


def markdown_escape(text: str) -> str:
    """Text that Markdown prints as it is."""
    # Text from a file must stay text: no cell breaks, no markup, no HTML.
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("`", "\\`")):
        text = text.replace(old, new)
    return " ".join(text.replace("*", "\\*").split())


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
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
}


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


_COLUMN_LETTERS = 52  # what fits into a paper's column at \\small
_LONGEST_CELL = 30  # longer text is broken into lines


def to_latex(table: Table) -> str:
    """A booktabs table at the width of a paper's column, or of its page where it needs that.

    The essential columns only; a heading and its unit on two lines; spreads as ``$m \\pm s$``.
    """
    columns = [column for column in table.columns if column.essential]
    rows = [
        [cell for cell, column in zip(row, table.columns, strict=True) if column.essential]
        for row in table.rows()
    ]
    heads = [_two_lines(column.heading) for column in columns]
    widths = [
        min(_LONGEST_CELL, max(len(text) for text in (*head, *(row[i].text for row in rows))))
        for i, head in enumerate(heads)
    ]
    wide = sum(widths) + 2 * len(widths) > _COLUMN_LETTERS
    environment = "table*" if wide else "table"
    align = "".join(
        _latex_column(column, max((len(row[i].text) for row in rows), default=0))
        for i, column in enumerate(columns)
    )
    lines = [
        r"% needs \usepackage{booktabs,array}",
        rf"\begin{{{environment}}}",
        r"  \centering\small\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{latex_escape(_sentence(table.full_title))}{_latex_note(table.note)}}}",
        rf"  \label{{tab:{_label(table)}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        *_latex_heads(heads),
        r"    \midrule",
        *("    " + " & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _latex_column(column: Column, longest: int) -> str:
    if column.right:
        return "r"
    if longest <= _LONGEST_CELL:
        return "l"
    return r">{\raggedright\arraybackslash}p{4.4cm}"


def _latex_heads(heads: Sequence[tuple[str, str]]) -> list[str]:
    """Headings above their columns, on two lines where one of them is long."""
    lines = []
    for number in range(2):
        cells = [latex_escape(head[number]) for head in heads]
        if any(cells):
            lines.append("    " + " & ".join(cells) + r" \\")
    return lines


def _two_lines(heading: str) -> tuple[str, str]:
    """A heading broken at the space nearest to its middle, the short ones at the bottom."""
    spaces = [place for place, letter in enumerate(heading) if letter == " "]
    if len(heading) <= 9 or not spaces:
        return "", heading
    middle = min(spaces, key=lambda place: abs(2 * place + 1 - len(heading)))
    return heading[:middle], heading[middle + 1 :]


def _latex_cell(cell: Cell) -> str:
    mean, plus_minus, sd = cell.text.partition(" ± ")
    if plus_minus and isinstance(cell.value, float):
        return rf"${mean} \pm {sd}$"
    if isinstance(cell.value, float) and cell.text.startswith("-"):
        return f"${cell.text}$"
    return latex_escape(cell.text)


def _label(table: Table) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{table.experiment} {table.name}").strip("-")


def _latex_note(note: str) -> str:
    return f" {latex_escape(note)}" if note else ""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


# ----------------------------------------------------------------------------------- builders

SPREAD_NOTE = "Mean ± sample standard deviation over n seeds."


def _has_values(frame: pd.DataFrame, column: Column) -> bool:
    key = f"{column.key}_mean" if column.kind == "mean" else column.key
    return key in frame.columns and bool(frame[key].notna().any())


def _kept(frame: pd.DataFrame, columns: Iterable[Column]) -> tuple[Column, ...]:
    return tuple(column for column in columns if _has_values(frame, column))


def _axes(axes: Iterable[str]) -> list[Column]:
    return [Column(axis, label_of(axis), kind="level") for axis in axes]


def outcomes_table(levels: pd.DataFrame, *, experiment: str = "", note: str = "") -> Table:
    """Error per arm and level, from `summaries.levels`; columns without a value are left out."""
    axes = summaries.axis_columns(levels)
    columns = [
        Column("arm", "arm", kind="arm"),
        *_axes(axes),
        *([Column("lr", "learning rate", kind="level")] if levels["lr"].nunique() > 1 else []),
        Column("n", "n", kind="count"),
        Column("error_transfer", "error at epoch 0", "%", "mean"),
        Column("error_final", "final error", "%", "mean"),
        Column("error_best", "best error", "%", "mean"),
        Column("weights_changed", "cells changed", "%", "mean", scale=100),
        Column("wall_s_mean", "time per trial", kind="duration", essential=False),
    ]
    title = summaries.error_name(levels).capitalize()
    title += f" against {_and([label_of(axis) for axis in axes])}" if axes else " per arm"
    note = " ".join(part for part in (SPREAD_NOTE, note) if part)
    return Table("outcomes", title, levels, _kept(levels, columns), note, experiment)


def _and(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def learning_rates_table(
    choices: pd.DataFrame, axes: Sequence[str], *, experiment: str = ""
) -> Table:
    """Which learning rates were tried at each level and which was kept."""
    columns = [
        Column("arm", "arm", kind="arm"),
        *_axes(axes),
        Column("lrs", "tried"),
        Column("lr", "kept", kind="level"),
        Column("error_validation", "validation error", "%", "number", digits=2),
        Column("n_seeds_compared", "seeds compared", kind="count"),
        *([Column("how", "how")] if choices["how"].nunique() > 1 else []),
    ]
    title = "Learning rates tried and kept"
    return Table("learning_rates", title, choices, _kept(choices, columns), "", experiment)


def critical_points_table(judged: Sequence[JudgedCurve], *, experiment: str = "") -> Table:
    """The critical points of curves."""
    points = points_frame(judged).assign(
        headline=[words.headline(one) for one in judged],
        sentence=[words.sentences(one) for one in judged],
    )
    told = points[points["verdict"] != "not enough data"]
    frame = told.assign(axis_label=[label_of(str(axis)) for axis in told["axis"]])
    untold = len(points) - len(told)
    columns = [
        *([] if experiment else [Column("experiment", "experiment")]),
        Column("arm", "arm", kind="arm"),
        Column("axis_label", "axis"),
        *([Column("at", "at")] if (told["at"] != "").any() else []),
        Column("verdict", "verdict"),
        Column("critical", "critical level", kind="level"),
        Column("first_worse", "worse from", kind="level"),
        Column("elbow", "elbow", kind="number"),
        Column("elbow_low", "elbow from", kind="number"),
        Column("elbow_high", "elbow to", kind="number"),
        Column("certified", "certified to", kind="level"),
        Column("margin", "margin", "points", kind="level", essential=False),
        Column("n_seeds", "seeds", kind="count"),
    ]
    kept = _kept(frame, columns)
    explained = {
        "critical": "Critical: harshest level not shown to be worse than none.",
        "elbow": "Elbow: where a flat-then-linear fit bends, with its interval.",
        "certified": "Certified: harshest level up to which all are shown to cost less than the "
        "margin.",
    }
    sentences = [
        text for name, text in explained.items() if name in {column.key for column in kept}
    ]
    if untold:
        sentences.append(f"Curves without enough data: {untold}.")
    note = " ".join(sentences)
    return Table("critical_points", "Critical points", frame, kept, note, experiment, whole=points)


def findings_table(judged: Sequence[JudgedFinding]) -> Table:
    """The findings and what the runs say.

    Shows the rows of findings that some run can speak to; the CSV file has them all.
    """
    findings = findings_frame(judged)
    findings.insert(1, "statement", [words.statement(one.finding) for one in judged])
    findings.insert(2, "published", [words.published(one.finding) for one in judged])
    findings.insert(9, "says", [words.says(one) for one in judged])
    findings["note"] = [words.movement(one) for one in judged]
    frame = findings[findings["experiment"] != ""]
    columns = [
        Column("statement", "finding"),
        Column("n_classes", "classes", kind="count"),
        Column("experiment", "experiment"),
        *([Column("at", "at")] if (frame["at"] != "").any() else []),
        Column("verdict", "verdict"),
        Column("estimate", "estimate", kind="number"),
        Column("low", "from", kind="number"),
        Column("high", "to", kind="number"),
        Column("unit", "unit"),
        Column("n_seeds", "seeds", kind="count"),
        Column("source", "source", essential=False),
        Column("figure", "figure", essential=False),
    ]
    note = (
        "Estimate: difference of two arms, critical level, or largest rise, with its interval. "
        "Not enough data: the runs neither show the finding nor the contrary."
    )
    silent = findings["finding"].nunique() - frame["finding"].nunique()
    if silent:
        note += f" Findings without a run here: {silent}."
    title = "Published findings and what these runs say"
    return Table("findings", title, frame, _kept(frame, columns), note, whole=findings)


def layers_table(layers: pd.DataFrame, *, experiment: str = "") -> Table:
    """What was programmed and what moved per layer, from `summaries.layers`."""
    columns = [
        Column("layer", "layer"),
        Column("arm", "arm", kind="arm"),
        *_axes(summaries.axis_columns(layers)),
        Column("shape", "shape", essential=False),
        Column("tiles", "tiles", kind="count", essential=False),
        Column("tokens_per_image", "vectors per image", kind="count", essential=False),
        Column("granularity", "granularity", kind="level", essential=False),
        Column("n", "n", kind="count"),
        Column("relative_error", "programming error", "%", "mean", scale=100),
        Column("share_clipped", "clipped", "%", "mean", scale=100, essential=False),
        Column("weights_changed", "cells changed", "%", "mean", scale=100),
    ]
    note = f"{SPREAD_NOTE} Programming error: relative L2 error of the layer's weights."
    return Table("layer_summary", "Layers", layers, _kept(layers, columns), note, experiment)


def stages_table(stages: pd.DataFrame, *, experiment: str = "") -> Table:
    """What moved in each part of the network, from `summaries.stages`."""
    columns = [
        Column("stage", "stage"),
        Column("arm", "arm", kind="arm"),
        *_axes(summaries.axis_columns(stages)),
        Column("layers", "layers", kind="count"),
        Column("cells", "cells", kind="count"),
        Column("n", "n", kind="count"),
        Column("weights_changed", "cells changed", "%", "mean", digits=3, scale=100),
    ]
    note = f"{SPREAD_NOTE} All layers of a stage taken together."
    return Table("stage_summary", "Stages", stages, _kept(stages, columns), note, experiment)


def trials_table(trials: pd.DataFrame) -> Table:
    """Every trial with its outcome, by arm, level, learning rate and seed."""
    axes = summaries.axis_columns(trials)
    keys = [axis for axis in axes if summaries.is_numeric(trials[axis])]
    ordered = summaries.in_arm_order(trials.sort_values([*keys, "lr", "seed"], kind="stable"))
    if trials["experiment"].nunique() > 1:
        place = {name: number for number, name in enumerate(trials["experiment"].unique())}
        ordered = ordered.sort_values("experiment", key=lambda c: c.map(place), kind="stable")
    columns = [
        *([Column("experiment", "experiment")] if trials["experiment"].nunique() > 1 else []),
        Column("arm", "arm", kind="arm"),
        *_axes(axes),
        Column("lr", "learning rate", kind="level"),
        Column("seed", "seed", kind="count"),
        Column("status", "status"),
        Column("error_transfer", "error at epoch 0", "%", "number", digits=2),
        Column("error_final", "final error", "%", "number", digits=2),
        Column("error_best", "best error", "%", "number", digits=2),
        Column("epoch_best", "best epoch", kind="count"),
        Column("error_validation", "validation error", "%", "number", digits=2),
        Column("weights_changed", "cells changed", "%", "number", digits=2, scale=100),
        Column("wall_s", "time", kind="duration"),
        Column("engine", "engine"),
        Column("message", "message"),
    ]
    return Table("trials", "Every trial", ordered, _kept(ordered, columns))


def unfinished_table(unfinished: pd.DataFrame) -> Table:
    """Trials that failed or are missing; columns experiment, trial, state, message."""
    columns = [
        Column("experiment", "experiment"),
        Column("trial", "trial"),
        Column("state", "state"),
        Column("message", "message"),
    ]
    title = "Trials that failed or are missing"
    return Table("unfinished", title, unfinished, _kept(unfinished, columns))
