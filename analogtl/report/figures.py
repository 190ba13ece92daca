"""Figures for papers: Matplotlib Figures at a column's width, from the numbers of `summaries`.

Every figure survives a black-and-white printer and a colour-blind reader: arms differ in colour,
dash and marker, blue and round for digital, orange and square for analog, dashed from scratch. The
figures do not touch Matplotlib's global state and need no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import joblib
import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from analogtl.analysis import summaries
from analogtl.analysis.summaries import Baseline, Series
from analogtl.files import write_atomically
from analogtl.vocabulary import arm_label, arm_style, label_of

COLUMN_INCHES = 3.5  # one column of a two-column paper (IEEE: 3.5 in)
LETTERS_ABREAST = 45  # of tick labels that fit below a figure of a column's width
DPI = 200
FIGURES_PER_PROCESS = 12  # at the least: a process takes as long to start as to draw that many
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3 fonts
    "svg.fonttype": "path",  # looks the same on every machine
    "svg.hashsalt": "analogtl",  # the same numbers give the same file
}


SETTING_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*", "<", ">")
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (2, 1)))


@contextmanager
def paper_style() -> Iterator[None]:
    """Fonts, lines and sizes of every figure, while the block runs."""
    style: Any = sns.axes_style("ticks")
    with mpl.rc_context({**style, **_STYLE}):
        yield


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the paper's style, and leave the caller's as it was."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with paper_style():
            return draw(*args, **kwargs)

    return styled


def new_figure(height: float, width: float = COLUMN_INCHES) -> Figure:
    """An empty figure, a column wide unless said otherwise; sizes in inches."""
    # Text is laid out at the resolution it is saved in: hinting changes its width.
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _line_looks(lines: Sequence[Series]) -> list[dict[str, Any]]:
    """Colour, dash and marker of each line: by arm, or along a scale for an arm's many settings."""
    looks = []
    one_arm_varies = len({line.arm for line in lines if line.setting}) == 1
    for line in lines:
        style = arm_style(line.arm)
        siblings = [other for other in lines if other.arm == line.arm]
        look: dict[str, Any]
        if len(siblings) == 1:
            look = {"color": style.color, "linestyle": style.dash, "marker": style.marker}
            filled = style.filled
        else:
            place = siblings.index(line)
            shades = sns.color_palette("viridis", len(siblings) + 1)  # the last is too pale
            look = {
                "color": shades[place],
                "linestyle": _DASHES[place % len(_DASHES)],
                "marker": SETTING_MARKERS[place % len(SETTING_MARKERS)],
            }
            filled = True
        look["markerfacecolor"] = look["color"] if filled else "white"
        look["label"] = line.setting if line.setting and one_arm_varies else line.label
        looks.append(look)
    return looks


def _legend_outside(fig: Figure, handles: Sequence[Any]) -> None:
    """A legend above the axes, in as many columns as fit: it never hides data."""
    labels = [handle.get_label() for handle in handles]
    if len(labels) < 2:
        return
    longest = max(len(label) for label in labels)
    columns = max(1, min(3, int(fig.get_figwidth() / (0.5 + 0.052 * longest))))
    fig.legend(handles, labels, loc="outside upper center", ncols=columns, borderaxespad=0.1)


@_styled
def error_traces(
    traces: pd.DataFrame,
    *,
    quantity: str = "error",
    label: str = "test error (%)",
    scale: float = 1.0,
) -> Figure:
    """Test error per epoch and arm, mean and one standard deviation over seeds (paper, Fig. 2).

    Args:
        traces: From `summaries.traces`.
        quantity: ``error`` or ``weights_changed``.
        label: The y axis's label.
        scale: Factor on the quantity (100 for a share in percent).
    """
    axes = summaries.axis_columns(traces)
    lines = summaries.series(traces, "epoch", quantity, axes)
    fig = new_figure(2.5 + 0.1 * max(0, len(lines) - 4))
    ax = fig.subplots()
    handles: list[Any] = []
    for line, look in zip(lines, _line_looks(lines), strict=True):
        x, mean, sd = np.array(line.x, float), np.array(line.mean), np.nan_to_num(line.sd)
        # Markers tell the lines apart in grey: about eight each, whatever the number of epochs.
        every = max(1, math.ceil(len(x) / 8))
        handles += ax.plot(x, mean * scale, markevery=every, **look)
        low, high = (mean - sd) * scale, (mean + sd) * scale
        ax.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
    ax.set(xlabel="epoch", ylabel=label)
    ax.margins(x=0.02)
    _from_zero(ax)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    sns.despine(ax=ax)
    _legend_outside(fig, handles)
    return fig


@dataclass(frozen=True)
class Marks:
    """What the statistics say about one arm along one axis (`analogtl.analysis.critical_point`).

    Attributes:
        arm: The arm.
        headline: The verdict in a few words.
        sentence: All of it in words.
        critical: Harshest level not shown to be worse than the reference; None: no such point.
        elbow, low, high: Where the flat-then-linear fit bends, and its interval; None: it does not.
        certified: Harshest level up to which all are shown to cost less than the margin; or None.
        margin: That margin, in percentage points.
    """

    arm: str
    headline: str = ""
    sentence: str = ""
    critical: float | None = None
    elbow: float | None = None
    low: float | None = None
    high: float | None = None
    certified: float | None = None
    margin: float | None = None

    def legend(self, axis: str) -> list[tuple[str, str]]:
        """What is marked: pairs of a kind (critical, elbow, certified, headline) and its words."""
        said = []
        if self.critical is not None:
            said.append(("critical", f"critical level {summaries.with_unit(axis, self.critical)}"))
        elif self.headline:
            said.append(("headline", self.headline))
        if self.elbow is not None:
            interval = ""
            if self.low is not None and self.high is not None:
                interval = f" [{self.low:.3g}, {self.high:.3g}]"
            said.append(("elbow", f"elbow of the fit {self.elbow:.3g}{interval}"))
        if self.certified is not None:
            level = summaries.with_unit(axis, self.certified)
            said.append(("certified", f"costs < {self.margin:g} points up to {level}"))
        return said


def is_log(values: Iterable[float]) -> bool:
    """Whether levels spread over decades, so that a linear axis would squeeze them."""
    numbers = [float(value) for value in values]
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= 30 * min(numbers)


@_styled
def error_vs_level(
    levels: pd.DataFrame,
    trials: pd.DataFrame,
    axis: str,
    *,
    quantity: str = "error_final",
    marks: Sequence[Marks] = (),
) -> Figure:
    """Test error against one axis, with every seed and the critical point (paper, Figs. 3 to 5).

    Args:
        levels: From `summaries.levels`.
        trials: The trials behind them: one dot each.
        axis: The axis on x; arms without a level on it are drawn as horizontal lines.
        quantity: A column of ``trials``, in percent.
        marks: What to mark, per arm.
    """
    others = [a for a in summaries.axis_columns(levels) if a != axis]
    lines = summaries.series(levels, axis, quantity, others)
    flat = summaries.baselines(levels, axis, quantity)
    numeric = summaries.is_numeric(levels[axis].dropna())
    names = [] if numeric else list(dict.fromkeys(str(x) for line in lines for x in line.x))
    shown = marks if numeric else ()
    fig = new_figure(2.6 + 0.1 * max(0, len(lines) + len(flat) + 2 * len(shown) - 4))
    ax = fig.subplots()
    handles: list[Any] = []
    for line, look in zip(lines, _line_looks(lines), strict=True):
        x = _positions(line.x, names)
        if not numeric:
            look["linestyle"] = "none"  # names have no order: no line between them
        sd = np.nan_to_num(line.sd)
        handles.append(ax.errorbar(x, line.mean, yerr=sd, capsize=2, elinewidth=0.8, **look))
        seeds = _seeds(trials, line, axis, others, quantity)
        x = _positions(seeds[axis].tolist(), names)
        ax.plot(x, seeds[quantity].to_numpy(), ".", color=look["color"], ms=2.5, alpha=0.45)
    handles += _draw_baselines(ax, flat)
    for mark in shown:
        handles += _draw_marks(ax, mark, axis, named=len(shown) > 1)
    ax.set(xlabel=label_of(axis), ylabel=quantity_label(quantity, levels))
    if names:
        labels = [summaries.level_text(name) for name in names]
        ax.set_xticks(range(len(names)), labels)
        _slant_if_long(ax, labels)
        ax.margins(x=0.15)
    else:
        _ticks_at_levels(ax, sorted({float(x) for line in lines for x in line.x}))
    _from_zero(ax)
    sns.despine(ax=ax)
    _legend_outside(fig, handles)
    return fig


def _slant_if_long(ax: Any, labels: Sequence[str]) -> None:
    """Labels of the x axis that would touch one another are written aslant."""
    if max(map(len, labels), default=0) * len(labels) > LETTERS_ABREAST:
        for label in ax.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")


def _from_zero(ax: Any) -> None:
    """Let the y axis begin at 0, with room for the highest marker."""
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.06 * ax.dataLim.y1))


_WHEN = {"error_final": "last epoch", "error_best": "best epoch", "error_transfer": "epoch 0"}


def error_label(frame: pd.DataFrame) -> str:
    """What the error of these trials is, with its unit."""
    return f"{summaries.error_name(frame)} (%)"


def quantity_label(quantity: str, frame: pd.DataFrame) -> str:
    """The label of an error's axis: what it is, and of which epoch."""
    return f"{summaries.error_name(frame)}, {_WHEN[quantity]} (%)"


def _ticks_at_levels(ax: Axes, levels: Sequence[float]) -> None:
    """Ticks where the trials are, as far as their labels have room."""
    if is_log(levels):
        ax.set_xscale("log")
        ax.minorticks_off()
    places = [math.log(level) for level in levels] if is_log(levels) else list(levels)
    room = 0.07 * (places[-1] - places[0])
    kept: list[int] = []
    for number, place in enumerate(places):
        if not kept or place - places[kept[-1]] >= room:
            kept.append(number)
    ax.set_xticks([levels[i] for i in kept], [summaries.level_text(levels[i]) for i in kept])


def _positions(x: Sequence[float | str], names: Sequence[str]) -> list[float]:
    return [float(names.index(str(v))) for v in x] if names else [float(v) for v in x]


def _seeds(
    trials: pd.DataFrame, line: Series, axis: str, others: Sequence[str], quantity: str
) -> pd.DataFrame:
    """The trials behind a line."""
    rows = trials[(trials["arm"] == line.arm) & trials[axis].notna() & trials[quantity].notna()]
    setting = "" if line.setting == summaries.AS_IN_FILE else line.setting
    mine = [
        summaries.setting_text(dict(zip(others, levels, strict=True))) == setting
        for levels in rows[list(others)].itertuples(index=False, name=None)
    ]
    return rows[mine]


def _draw_baselines(ax: Axes, flat: Sequence[Baseline]) -> list[Any]:
    handles = []
    for base in flat:
        style = arm_style(base.arm)
        handles.append(
            ax.axhline(
                base.mean,
                color=style.color,
                linestyle=style.dash,
                linewidth=1,
                label=arm_label(base.arm),
            )
        )
        if not math.isnan(base.sd):
            low, high = base.mean - base.sd, base.mean + base.sd
            ax.axhspan(low, high, color=style.color, alpha=0.12, linewidth=0)
    return handles


def _draw_marks(ax: Axes, mark: Marks, axis: str, *, named: bool) -> list[Any]:
    """The critical level as a line, the elbow's interval as a band, the certified level below."""
    whose = f"{arm_label(mark.arm)}: " if named else ""
    color = arm_style(mark.arm).color if named else "#222222"
    handles: list[Any] = []
    for kind, text in mark.legend(axis):
        label = whose + text
        if kind == "critical" and mark.critical is not None:
            dash = (0, (6, 2, 1, 2))
            handles.append(
                ax.axvline(mark.critical, color=color, linewidth=1, linestyle=dash, label=label)
            )
        elif kind == "elbow" and mark.elbow is not None:
            edge = (*mpl.colors.to_rgb(color), 0.3)
            low = mark.elbow if mark.low is None else mark.low
            high = mark.elbow if mark.high is None else mark.high
            handles.append(
                ax.axvspan(
                    low, high, facecolor="none", edgecolor=edge, hatch="////", lw=0.5, label=label
                )
            )
        elif kind == "certified" and mark.certified is not None:
            handles += ax.plot(
                [mark.certified],
                [0.0],
                marker="^",
                markersize=6,
                color=color,
                linestyle="none",
                clip_on=False,
                transform=ax.get_xaxis_transform(),
                label=label,
            )
        else:
            handles.append(mpl.lines.Line2D([], [], linestyle="none", label=label))
    return handles


LAYER_QUANTITIES = {
    "weights_changed": "cells changed (%)",
    "relative_error": "programming error (%)",
    "share_clipped": "weights clipped (%)",
}


@_styled
def layer_bars(layers: pd.DataFrame, quantity: str) -> Figure:
    """One bar per layer, in the network's order, one panel per arm; whiskers: one sd over seeds.

    Args:
        layers: From `summaries.layers`, without swept axes (see `layer_map` for those).
        quantity: ``weights_changed``, ``relative_error`` or ``share_clipped``; a share in 0..1.
    """
    lines = summaries.series(layers, "position", quantity, [])
    names = layers.drop_duplicates("position").set_index("position")["layer"].sort_index()
    rows = len(names)
    fig = new_figure(0.7 + max(0.09, 0.16 - 0.0015 * rows) * max(rows, 3))
    panels = fig.subplots(1, max(1, len(lines)), sharey=True, sharex=True, squeeze=False)[0]
    for ax, line in zip(panels, lines, strict=False):
        look = arm_style(line.arm)
        y, mean = np.array(line.x, float), 100 * np.array(line.mean)
        sd = 100 * np.nan_to_num(line.sd)
        ax.barh(
            y,
            mean,
            xerr=sd,
            height=0.72,
            color=look.color if look.filled else "white",
            edgecolor=look.color,
            hatch=None if look.filled else "/////",
            linewidth=0.6,
            error_kw={"elinewidth": 0.6, "ecolor": "#222222"},
        )
        ax.set_title(_two_lines(arm_label(line.arm)), fontsize=6.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        sns.despine(ax=ax)
    size = 5.5 if rows > 30 else 6
    panels[0].set_yticks(names.index, [shorten(name) for name in names], fontsize=size)
    panels[0].set_ylim(rows - 0.4, -0.6)  # the first layer on top
    fig.supxlabel(LAYER_QUANTITIES[quantity], fontsize=7)
    return fig


@_styled
def layer_map(layers: pd.DataFrame, arm: str, axis: str, quantity: str) -> Figure:
    """Layers against levels as a heat map: how one quantity spreads over the network in a sweep.

    Args:
        layers: From `summaries.layers`, of a sweep along ``axis`` alone.
        arm: The arm to show.
        axis: The swept axis, on x.
        quantity: A share in 0..1; shown in percent.
    """
    rows = layers[(layers["arm"] == arm) & layers[axis].notna()]
    names = rows.drop_duplicates("position").set_index("position")["layer"].sort_index()
    grid = 100 * rows.pivot_table(index="position", columns=axis, values=f"{quantity}_mean")
    count = len(names)
    fig = new_figure(0.8 + max(0.09, 0.16 - 0.0015 * count) * max(count, 4))
    ax = fig.subplots()
    sns.heatmap(
        grid,
        ax=ax,
        cmap="cividis",
        vmin=0,
        linewidths=0.3,
        yticklabels=[shorten(name) for name in names],
        xticklabels=[summaries.level_text(level) for level in grid.columns],
        cbar_kws={"label": LAYER_QUANTITIES[quantity], "aspect": 30, "pad": 0.02},
    )
    ax.set(xlabel=label_of(axis), ylabel="")
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="y", labelsize=5.5 if count > 30 else 6, rotation=0)
    ax.tick_params(axis="x", rotation=0)
    _slant_if_long(ax, [summaries.level_text(level) for level in grid.columns])
    return fig


@_styled
def level_maps(
    levels: pd.DataFrame, x: str, y: str, by: Sequence[str], *, quantity: str = "error_final"
) -> Figure:
    """One quantity over two axes, a heat map per setting of the others, on one colour scale.

    Args:
        levels: From `summaries.levels`.
        x, y: The axes of each map.
        by: The further axes, one panel per combination of their levels and arm.
        quantity: In percent.
    """
    panels = list(panels_of(levels, by))
    count = min(2, len(panels))
    rows = math.ceil(len(panels) / count)
    grids = [
        frame.pivot_table(index=y, columns=x, values=f"{quantity}_mean", sort=False)
        .reindex(index=summaries.sorted_levels(levels[y]))
        .reindex(columns=summaries.sorted_levels(levels[x]))
        for _, frame in panels
    ]
    top = max(float(grid.max().max()) for grid in grids)
    fig = new_figure(0.6 + rows * (0.35 + 0.17 * max(4, levels[y].nunique())))
    axes = fig.subplots(rows, count, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, grid, (name, _) in zip(axes, grids, panels, strict=False):
        sns.heatmap(
            grid,
            ax=ax,
            cmap="cividis",
            vmin=0,
            vmax=top,
            annot=True,
            fmt=".0f",
            annot_kws={"fontsize": 5.5},
            linewidths=0.3,
            cbar=False,
            xticklabels=[summaries.level_text(level) for level in grid.columns],
            yticklabels=[summaries.level_text(level) for level in grid.index],
        )
        ax.set(xlabel="", ylabel="", title=name)
        ax.tick_params(axis="both", length=0, rotation=0)
        abreast = [summaries.level_text(level) for level in grid.columns] * count
        _slant_if_long(ax, abreast)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    fig.supxlabel(label_of(x), fontsize=7)
    fig.supylabel(label_of(y), fontsize=7)
    fig.colorbar(axes[0].collections[0], ax=list(axes), label=quantity_label(quantity, levels))
    return fig


def panels_of(levels: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of one map each, and its title: a setting of ``by``, of one arm."""
    several = levels["arm"].nunique() > 1
    for key, frame in levels.groupby(["arm", *by], dropna=False, sort=False):
        setting = summaries.setting_text(dict(zip(by, key[1:], strict=True)))
        arm = [arm_label(str(key[0]))] if several or not setting else []
        yield ", ".join([*arm, *([setting] if setting else [])]), frame


def _two_lines(text: str) -> str:
    """Broken at the space nearest to the middle, if it is too wide for a small panel."""
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    if len(text) <= 12 or not spaces:
        return text
    middle = min(spaces, key=lambda i: abs(2 * i - len(text)))
    return f"{text[:middle]}\n{text[middle + 1 :]}"


def shorten(name: str, width: int = 28) -> str:
    """A layer's name with its middle left out, if it is longer than ``width`` letters."""
    if len(name) <= width:
        return name
    tail = width * 2 // 3
    return f"{name[: width - tail - 1]}…{name[-tail:]}"


def save_all(
    figures: Sequence[tuple[Callable[[], Figure], Path]], formats: Sequence[str]
) -> list[list[Path]]:
    """`save` of many figures, given as what draws them; on all cores if there are enough of them.

    Each drawing function must be picklable. One after the other or side by side, the files are the
    same.
    """
    processes = min(joblib.cpu_count(), len(figures) // FIGURES_PER_PROCESS)
    jobs = (joblib.delayed(_draw_and_save)(draw, stem, formats) for draw, stem in figures)
    paths: list[list[Path]] = joblib.Parallel(n_jobs=max(1, processes), max_nbytes=None)(jobs)
    return paths


def _draw_and_save(draw: Callable[[], Figure], stem: Path, formats: Sequence[str]) -> list[Path]:
    return save(draw(), stem, formats)


def save(figure: Figure, stem: Path, formats: Iterable[str]) -> list[Path]:
    """Write ``stem.png``, ``.svg``, ``.pdf``, each at once or not at all; the paths written.

    The same numbers give the same bytes: no dates, no random ids.
    """
    paths = []
    with mpl.rc_context(_STYLE):
        # `Figure.savefig` draws everything twice per format; the layout needs one drawing in all.
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        figure.set_layout_engine("none")
        for kind in formats:
            content = io.BytesIO()
            if kind == "png":
                picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
                picture.save(content, "png", dpi=(DPI, DPI))
            elif kind == "svg":
                vector: Any = FigureCanvasSVG(figure)
                vector.print_svg(content, metadata={"Date": None})
            else:
                vector = FigureCanvasPdf(figure)
                vector.print_pdf(content, metadata={"CreationDate": None})
            path = stem.with_name(f"{stem.name}.{kind}")
            write_atomically(path, content.getvalue())
            paths.append(path)
    return paths
