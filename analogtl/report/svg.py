"""What the charts of the HTML report are made of: SVG elements, scales, ticks, looks.

A chart has no view box: positions along x are percentages, so that letters keep their size from a
phone to a wide screen; only curves stretch, in a nested SVG. Colours are CSS variables (``--p`` on
paper, ``--d`` on a dark screen), so that dark mode and print can change them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import matplotlib as mpl

from analogtl.analysis.summaries import Series
from analogtl.report.figures import SETTING_MARKERS
from analogtl.vocabulary import arm_style

NARROW = 250  # what a plot area is wide on a phone, in CSS pixels
_LETTER = 6.2  # width of a letter of a tick label, in CSS pixels
_DASH_ARRAYS = {"-": "", "--": "6 4", ":": "2 3", "-.": "7 3 2 3"}
_SETTING_DASHES = ("", "7 3", "2 2.5", "8 3 2 3", "4 2")
_MARKERS = {"s": "square", "o": "circle", "^": "up", "D": "diamond", "v": "down"}


@dataclass(frozen=True)
class Stop:
    """A place of a chart that can be read: where it is, and what is said there.

    Attributes:
        x, y: Position of the cursor, percent of the width and pixels.
        head: What the place is, ``epoch 3``.
        rows: Per value: the series' number, its own x and y, and the text.
    """

    x: float
    y: float
    head: str
    rows: tuple[tuple[int, float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """A finished chart.

    Attributes:
        title: What it shows.
        svg: The drawing, all text in it escaped.
        stops: What can be read along it, with the pointer or the arrow keys.
        direction: How the arrow keys move: along ``x``, along ``y``, or over a ``grid``.
        columns: Stops per row of a grid.
        height: Of the plot area, in CSS pixels.
        x_label, y_label: Labels of the axes.
        legend: The lines: (symbol drawn as SVG, text).
        series: Names of the series that the stops refer to.
        colors: Per series, the colour on paper and on a dark screen.
        row_labels: Labels of the rows of a chart by rows: (y in pixels, name).
        caption: What the reader must know: what the spread is, how many seeds.
        table: The same numbers as text: a heading row and the others.
    """

    title: str
    svg: str
    stops: tuple[Stop, ...]
    direction: Literal["x", "y", "grid"]
    height: int
    x_label: str
    y_label: str
    caption: str
    table: tuple[tuple[str, ...], ...]
    columns: int = 1
    legend: tuple[tuple[str, str], ...] = ()
    series: tuple[str, ...] = ()
    colors: tuple[tuple[str, str], ...] = ()
    row_labels: tuple[tuple[float, str], ...] = ()

    @property
    def points(self) -> str:
        """The stops as JSON that is safe inside a script element."""
        content = {
            "direction": self.direction,
            "columns": self.columns,
            "series": self.series,
            "colors": self.colors,
            "stops": [
                [
                    round(stop.x, 2),
                    round(stop.y, 1),
                    stop.head,
                    [[number, round(x, 2), round(y, 1), text] for number, x, y, text in stop.rows],
                ]
                for stop in self.stops
            ],
        }
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        # The letters that could end the script element or start a comment in it.
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ------------------------------------------------------------------------------------ elements


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element around finished ``content``; attribute values are escaped, ``_`` becomes ``-``."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{text}>{content}</{name}>" if content else f"<{name}{text}/>"


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(content: str, **attributes: object) -> str:
    """A text element; the content is escaped."""
    return tag("text", escape(content), **attributes)


def percent(share: float) -> str:
    """A share of the width as a percentage."""
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


def swatch(content: str, style: str = "", kind: str = "s") -> str:
    """A small drawing for a legend, 28 by 14 pixels."""
    group = tag("g", content, class_=kind, style=style)
    return tag("svg", group, class_="swatch", width=28, height=14, aria_hidden="true")


# --------------------------------------------------------------------------------------- scales


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis: a value's place as a share 0..1 of its length."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 0.5

    def padded(self, share: float) -> Scale:
        """The same with room on both sides."""
        if self.log:
            room = (self.high / self.low) ** share
            return Scale(self.low / room, self.high * room, True)
        room = (self.high - self.low) * share
        return Scale(self.low - room, self.high + room)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, in about ``count`` steps."""
    if not high > low:
        high = low + 1.0
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def x_ticks(ticks: Iterable[tuple[float, str]], height: float) -> str:
    """Ticks below a plot area: labels that would touch on a phone go to a second line, or go."""
    parts = []
    free = [-math.inf, -math.inf]  # where each of two lines of labels is free again
    for share, label in ticks:
        half = _LETTER * len(label) / 2 + 3
        center, at = share * NARROW, percent(share)
        parts.append(tag("line", x1=at, x2=at, y1=height, y2=height + 4, class_="axis"))
        row = next((i for i, end in enumerate(free) if center - half >= end), None)
        if row is None:
            continue
        free[row] = center + half
        parts.append(text(label, x=at, y=height + 17 + 13 * row, class_="tick mid"))
    return "".join(parts)


# ---------------------------------------------------------------------------------------- looks


@dataclass(frozen=True)
class Look:
    """Colour on paper and on a dark screen, dash and marker of one series."""

    color: str
    dark: str
    dash: str
    marker: str
    filled: bool

    @property
    def style(self) -> str:
        """The colours as CSS variables."""
        return f"--p:{self.color};--d:{self.dark}"

    def group(self, *parts: str) -> str:
        """Elements in this colour."""
        return tag("g", "".join(parts), class_="s", style=self.style)

    def mark(self, x: object, y: object) -> str:
        """One marker."""
        hollow = "" if self.filled else " hollow"
        return tag("use", href=f"#m-{self.marker}", x=x, y=y, class_=f"mark{hollow}")

    def key(self, *, line: bool = True, marker: bool = True) -> str:
        """The series' line and marker, for the legend."""
        dash = tag("line", x1=0, x2=28, y1=7, y2=7, class_="line", stroke_dasharray=self.dash)
        drawn = (dash if line else "") + (self.mark(14, 7) if marker else "")
        return swatch(drawn, self.style)


def looks_of(lines: Sequence[Series]) -> list[Look]:
    """By arm; along a colour scale for the many settings of one arm."""
    looks = []
    for line in lines:
        siblings = [other for other in lines if other.arm == line.arm]
        if len(siblings) == 1:
            style = arm_style(line.arm)
            dash, marker = _DASH_ARRAYS[style.dash], _MARKERS[style.marker]
            looks.append(Look(style.color, style.dark, dash, marker, style.filled))
        else:
            looks.append(setting_look(siblings.index(line), len(siblings)))
    return looks


def setting_look(place: int, count: int) -> Look:
    """The look of one of an arm's settings: dark to light on paper, the other way on a screen."""
    share = place / max(1, count - 1)
    shades = mpl.colormaps["viridis"]
    markers = [_MARKERS[m] for m in SETTING_MARKERS if m in _MARKERS]
    return Look(
        mpl.colors.to_hex(shades(0.72 * share)),
        mpl.colors.to_hex(shades(1.0 - 0.62 * share)),
        _SETTING_DASHES[place % len(_SETTING_DASHES)],
        markers[place % len(markers)],
        True,
    )


def luminance(color: str) -> float:
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    rgb = mpl.colors.to_rgb(color)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
