"""How everything is drawn: fonts, lines, sizes and colours, on paper and on the page.

Figures survive a black-and-white printer and a colour-blind reader: lines differ in colour, dash
and marker. What is drawn in one of the `DARK` colours changes with the page's colour scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analogtl.analysis.summaries import Series
from analogtl.vocabulary import OTHER_STYLE, Arm, Style, arm_style

COLUMN_INCHES = 3.5  # one column of a two-column paper (IEEE: 3.5 in)
DPI = 200
MAX_LINES = 10  # more lines than this make a figure that nobody can read

INK, MUTED, GRID, PAPER = "#1a1e23", "#545d68", "#e3e7ec", "#ffffff"
SMALL = 7.0  # points, of text that must be small: layer names, numbers in cells
LETTER = 0.6 * 7.5  # points that a letter of a tick label is wide
MAP_COLORS = "cividis"

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a name may have dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0.1,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.9,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3 fonts
    "svg.fonttype": "path",  # looks the same on every machine
    "svg.hashsalt": "analogtl",  # the same numbers give the same file
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Fonts, lines and sizes of every figure, while the block runs."""
    with mpl.rc_context(RC):
        yield


def new_figure(height: float, width: float = COLUMN_INCHES) -> Figure:
    """An empty figure, a column wide unless said otherwise; sizes in inches."""
    # Text is laid out at the resolution it is saved in: hinting changes its width.
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


# --------------------------------------------------------------------------------- colours


def setting_colors(count: int) -> list[tuple[str, str]]:
    """Colours of so many lines that differ in a setting: on paper, and on a dark screen."""
    shades = mpl.colormaps["viridis"]  # its end is too pale on paper, its start on a dark screen
    shares = [place / max(1, count - 1) for place in range(count)]
    to_hex = mpl.colors.to_hex
    return [(to_hex(shades(0.72 * x)), to_hex(shades(1.0 - 0.62 * x))) for x in shares]


_STYLES = (*(arm.style for arm in Arm), OTHER_STYLE)
DARK: dict[str, str] = {
    **{style.color.lower(): style.dark for style in _STYLES},
    **{light: dark for count in range(2, MAX_LINES + 1) for light, dark in setting_colors(count)},
}
"""Colour on paper -> colour on a dark screen, of everything that stands for an arm or setting."""


def luminance(color: Any) -> float:
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    rgb = mpl.colors.to_rgb(color)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def readable_on(color: Any) -> str:
    """Black or white, whichever can be read on a colour."""
    return "black" if luminance(color) > 0.18 else "white"


# ------------------------------------------------------------------------------------- lines

_SETTING_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*", "<", ">")
_SETTING_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (2, 1)))


def line_style(look: Style) -> dict[str, Any]:
    """For `Axes.plot`: line and marker."""
    return {"linestyle": look.dash, **marker_style(look)}


def marker_style(look: Style) -> dict[str, Any]:
    """For `Axes.plot`: the marker alone."""
    face = look.color if look.filled else PAPER
    return {"marker": look.marker, "color": look.color, "markerfacecolor": face}


def line_looks(lines: Sequence[Series]) -> list[Style]:
    """By arm; the lines of arms that have several, along a scale of colours."""
    arms = [line.arm for line in lines]
    varied = [place for place, arm in enumerate(arms) if arms.count(arm) > 1]
    looks = [arm_style(arm) for arm in arms]
    for number, (place, shades) in enumerate(zip(varied, setting_colors(len(varied)), strict=True)):
        dash = _SETTING_DASHES[number % len(_SETTING_DASHES)]
        looks[place] = Style(*shades, dash, _SETTING_MARKERS[number % len(_SETTING_MARKERS)])
    return looks


def line_labels(lines: Sequence[Series]) -> list[str]:
    """What a legend calls each line: where one arm alone varies, by its setting."""
    one_varies = len({line.arm for line in lines if line.setting}) == 1
    return [
        (line.setting if line.setting and one_varies else line.label) + line.on_arrays
        for line in lines
    ]
