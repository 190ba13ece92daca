"""Plots made of characters: a sparkline, and a chart of several lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
RAMP = "_.:-=+*#"
GLYPHS = "●■▲◆○□△◇"
LETTERS = "ox^*+#%@"
COLORS = ("blue", "dark_orange3", "green", "magenta", "cyan", "red", "yellow", "bright_black")


def has_unicode(encoding: str | None) -> bool:
    """Whether blocks and dots can be written in an encoding."""
    try:
        (BLOCKS + GLYPHS).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(
    values: Sequence[float], low: float, high: float, width: int, *, unicode: bool = True
) -> str:
    """A line of bars, one per value, or per group of values where they do not fit.

    Args:
        values: The values; NaN leaves a gap.
        low: Value of the lowest bar.
        high: Value of the highest bar.
        width: Most characters.
        unicode: Draw with blocks; else with ASCII.
    """
    ramp = BLOCKS if unicode else RAMP
    if len(values) > width:  # the last value of each group: the newest stays the newest
        values = [values[(i + 1) * len(values) // width - 1] for i in range(width)]
    bars = []
    for value in values:
        if not math.isfinite(value):
            bars.append(" ")
            continue
        share = (value - low) / (high - low) if high > low else 0.0
        bars.append(ramp[round(min(1.0, max(0.0, share)) * (len(ramp) - 1))])
    return "".join(bars)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: What it is, in the legend.
        x, y: Its points, x ascending.
        dots: Draw only the points, not the way between them.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


def chart(
    lines: Sequence[Line],
    *,
    width: int,
    height: int,
    y_label: str = "",
    x_label: str = "",
    zero: bool = True,
    unicode: bool = True,
    legend: bool = True,
) -> list[Text]:
    """Lines in a field of characters; each has a glyph and a colour of its own.

    Args:
        lines: The lines; later ones are drawn over earlier ones.
        width: Characters per row, labels included.
        height: Rows, axis and legend not included.
        y_label: Above the y axis.
        x_label: After the x axis.
        zero: Let the y axis begin at zero.
        unicode: Draw with dots and lines; else with ASCII.
        legend: Add rows that say which glyph is which line.
    """
    from rich.text import Text

    points = [
        (x, y)
        for line in lines
        for x, y in zip(line.x, line.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    if not points or width < 20 or height < 2:
        return []
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high, step = _scale(min(low, 0.0) if zero else low, high)
    ticks = {
        round((high - at) / (high - low) * (height - 1)): f"{at:.6g}"
        for at in (low + i * step for i in range(round((high - low) / step) + 1))
    }
    margin = max(map(len, ticks.values())) + 2
    columns = width - margin - 1
    glyphs = GLYPHS if unicode else LETTERS
    field: list[list[tuple[str, str]]] = [[(" ", "")] * columns for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - left) / (right - left) if right > left else 0.0
        up = (y - low) / (high - low)
        return round(across * (columns - 1)), round((1 - up) * (height - 1))

    for number, line in enumerate(lines):
        mark = (glyphs[number % len(glyphs)], COLORS[number % len(COLORS)])
        way = ("·" if unicode else ".", mark[1])
        known = [
            (x, y)
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]
        places = [place(x, y) for x, y in known]
        if not line.dots:
            for (c0, r0), (c1, r1) in pairwise(places):
                for column in range(c0 + 1, c1):
                    row = round(r0 + (r1 - r0) * (column - c0) / (c1 - c0))
                    field[row][column] = way
        for column, row in places:
            field[row][column] = mark

    bar, corner, dash = ("│", "└", "─") if unicode else ("|", "+", "-")
    drawn: list[Text] = []
    if y_label:
        drawn.append(Text(y_label, style="dim"))
    for row, cells in enumerate(field):
        text = Text()
        text.append(f"{ticks.get(row) or '':>{margin - 1}} {bar}", style="dim")
        for character, style in cells:
            text.append(character, style=style)
        drawn.append(text)
    ends = f"{left:.6g}", f"{right:.6g}" + (f" {x_label}" if x_label else "")
    space = max(1, columns - len(ends[0]) - len(ends[1]))
    drawn.append(Text(" " * margin + corner + dash * columns, style="dim"))
    drawn.append(Text(" " * (margin + 1) + ends[0] + " " * space + ends[1], style="dim"))
    if legend:
        drawn.extend(_legend(lines, glyphs, width))
    return drawn


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round bounds around some values, and the step between the ticks: at most six of them."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= 5:
            break
    return first * step, last * step, step


def _legend(lines: Sequence[Line], glyphs: str, width: int) -> list[Text]:
    from rich.text import Text

    rows = [Text()]
    for number, line in enumerate(lines):
        entry = Text()
        entry.append(f"{glyphs[number % len(glyphs)]} ", style=COLORS[number % len(COLORS)])
        entry.append(f"{line.label}   ")
        if rows[-1].cell_len and rows[-1].cell_len + entry.cell_len > width:
            rows.append(Text())
        rows[-1].append_text(entry)
    return rows
