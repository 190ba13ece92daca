"""Figures at a paper column's width, from the numbers of `analogtl.analysis.summaries`.

Each function returns a `Drawing`: the same one is written to files and put into the page. They are
called through `drawing.styled`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from analogtl.analysis import summaries
from analogtl.analysis.critical_point import CriticalPoint
from analogtl.analysis.curves import metric_in
from analogtl.analysis.judged import epochs_text
from analogtl.analysis.summaries import Series
from analogtl.config.retention import time_text
from analogtl.report import style
from analogtl.report.drawing import Drawing
from analogtl.study.columns import JUDGED
from analogtl.vocabulary import Metric, arm_label, label_of

QUANTITY = JUDGED
_ROOM = 190  # points of a figure's width that the axes get
LAYER_QUANTITIES = {
    "weights_changed": "cells changed (%)",
    "relative_error": "programming error (%)",
}


# --------------------------------------------------------------------------------- in words


def value_text(mean: float, sd: float, n: int, metric: Metric = Metric.ERROR) -> str:
    """A value as it is read out: ``14.5 ± 1.2 % (n = 5)``, not to be broken at the signs."""
    spread = "" if math.isnan(sd) else f" ± {metric.number(sd)}"
    text = f"{metric.number(mean)}{spread} {metric.unit}".rstrip()
    return f"{text} (n = {n})".replace(" ", "\u00a0").replace("\u00a0(", " (")


def _error_label(trials: pd.DataFrame) -> str:
    metric, epochs = metric_in(trials), epochs_text(trials, short=True)
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}, {epochs}{unit}"


def _named(axis: str, level: object) -> str:
    return f"{axis.rpartition('.')[2]} = {summaries.with_unit(axis, level)}"


def _spread_caption(mark: str, counts: Iterable[int]) -> str:
    seen = sorted(set(counts))
    if seen == [1]:
        return "One trial."
    trials = f"{seen[0]} trials" if len(seen) == 1 else f"{seen[0]} to {seen[-1]} trials"
    return f"Mean over {trials}; {mark}: ± 1 standard deviation."


# -------------------------------------------------------------------------- error per epoch


def error_traces(
    traces: pd.DataFrame,
    *,
    along: str = "epoch",
    quantity: str = "error",
    label: str = Metric.ERROR.axis,
    scale: float = 1.0,
    metric: Metric = Metric.ERROR,
) -> Drawing:
    """Test error per epoch and arm, mean and one standard deviation over trials (paper, Fig. 2).

    Args:
        traces: From `summaries.traces`, or `analogtl.analysis.denoising.by_noise`.
        along: The column of the x axis: ``epoch`` or ``noise_share``.
        quantity: ``error``, ``loss`` or ``weights_changed``.
        label: The y axis's label.
        scale: Factor on the quantity (100 for a share in percent).
        metric: How values are written.
    """
    axes = [axis for axis in summaries.axis_columns(traces) if axis != along]
    lines = summaries.series(traces, along, quantity, axes)
    labels = style.line_labels(lines)
    of_epochs = along == "epoch"
    row = "epoch {:g}" if of_epochs else "noise {:.2f}"
    caption = _spread_caption("band", (n for line in lines for n in line.n))
    fig = style.new_figure(2.15)
    rows = [row.format(x) for x in sorted({x for line in lines for x in line.x})]
    drawing = Drawing(fig, row.partition(" ")[0], rows, labels, caption)
    ax = fig.subplots()
    handles: list[Any] = []
    for line, name, look in zip(lines, labels, style.line_looks(lines), strict=True):
        x, mean = np.array(line.x, float), scale * np.array(line.mean)
        sd = scale * np.array(line.sd)
        # Markers tell the lines apart in grey: about eight each, whatever the number of epochs.
        every = max(1, math.ceil(len(x) / 8))
        handles += ax.plot(x, mean, markevery=every, label=name, **style.line_style(look))
        low, high = mean - np.nan_to_num(sd), mean + np.nan_to_num(sd)
        ax.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0)
        texts = [value_text(*one, metric) for one in zip(mean, sd, line.n, strict=True)]
        values = [(row.format(at), name, text) for at, text in zip(x, texts, strict=True)]
        drawing.tell(ax, line.x, list(mean), values)
    ax.set(xlabel="epoch" if of_epochs else "share of noise in the variance", ylabel=label)
    ax.margins(x=0.02)
    _fit_y(ax, ax.dataLim.y0, ax.dataLim.y1, metric if of_epochs else Metric.ERROR)
    if of_epochs:
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    _legend_above(fig, handles)
    return drawing


def error_after(ages: pd.DataFrame, metric: Metric = Metric.ERROR) -> Drawing:
    """Test error against the time after training, log axis; time 0 a decade before the first.

    Args:
        ages: From `summaries.ages`.
    """
    lines = summaries.series(ages, "time", "error", summaries.axis_columns(ages))
    labels = style.line_labels(lines)
    times = sorted({float(time) for time in ages["time"]})
    first = next((time for time in times if time > 0), 1.0)
    places = {time: time or first / 10 for time in times}
    names = {time: time_text(time) for time in times}
    fig = style.new_figure(2.15)
    caption = _spread_caption("bars", (n for line in lines for n in line.n))
    drawing = Drawing(fig, "time after training", list(names.values()), labels, caption)
    ax = fig.subplots()
    ax.set_xscale("log")
    handles: list[Any] = []
    for line, label, look in zip(lines, labels, style.line_looks(lines), strict=True):
        x = [places[float(time)] for time in line.x]
        drawn = style.line_style(look)
        bars = ax.errorbar(
            x, line.mean, yerr=np.nan_to_num(line.sd), capsize=2, elinewidth=0.8, label=label,
            **drawn,
        )  # fmt: skip
        handles.append(bars)
        told = zip(line.mean, line.sd, line.n, strict=True)
        texts = [value_text(*one, metric) for one in told]
        values = [(names[float(t)], label, text) for t, text in zip(line.x, texts, strict=True)]
        drawing.tell(ax, x, list(line.mean), values)
    ax.set(xlabel="time after training", ylabel=metric.axis)
    ax.minorticks_off()
    # Labels as far as there is room: never closer than a twelfth of the axis.
    span = math.log(max(places.values()) / min(places.values())) or 1.0
    shown, last = [], -math.inf
    for time in times:
        place = math.log(places[time]) / span
        shown.append(names[time] if place - last >= 1 / 12 else "")
        last = place if shown[-1] else last
    ax.set_xticks(list(places.values()), shown)
    _fit_y(ax, ax.dataLim.y0, ax.dataLim.y1, metric)
    _legend_above(fig, handles)
    return drawing


def _fit_y(ax: Axes, lowest: float, highest: float, metric: Metric) -> None:
    """Let the y axis begin at 0; of a loss, which is never near it, below the lowest one."""
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return  # nothing is drawn
    start = 0.0 if metric.is_percent else lowest - 0.06 * (highest - lowest)
    ax.set_ylim(start, highest + 0.06 * (highest - start) if highest > start else start + 1)


def _legend_above(fig: Figure, handles: Sequence[Any]) -> None:
    """A legend above the axes, on one line where it fits: it never hides data."""
    if len(handles) < 2:
        return
    labels = short_names([str(handle.get_label()) for handle in handles], 50)
    canvas: Any = FigureCanvasAgg(fig)
    renderer = canvas.get_renderer()
    for columns in range(len(handles), 0, -1):
        legend = fig.legend(
            handles=handles,
            labels=labels,
            loc="outside upper center",
            ncols=columns,
            borderaxespad=0.1,
        )
        if columns == 1 or legend.get_window_extent(renderer).width <= 0.98 * fig.bbox.width:
            lines = math.ceil(len(handles) / columns)
            fig.set_figheight(fig.get_figheight() + 0.145 * lines)
            return
        legend.remove()


# -------------------------------------------------------------------------- error per level


def error_vs_level(
    levels: pd.DataFrame,
    trials: pd.DataFrame,
    axis: str,
    points: Mapping[tuple[str, str], CriticalPoint] | None = None,
) -> Drawing:
    """Test error against one axis, with every trial and the critical point (paper, Figs. 3 to 5).

    Args:
        levels: From `summaries.levels`.
        trials: The trials behind them: one dot each.
        axis: The axis on x; arms without a level on it are drawn as horizontal lines.
        points: What to mark, by the arm and the setting of a line; not where the levels are names,
            which have no order.
    """
    metric = metric_in(trials)
    others = [a for a in summaries.axis_columns(levels) if a != axis]
    lines = summaries.series(levels, axis, QUANTITY, others)
    flat = summaries.baselines(levels, axis, QUANTITY)
    numeric = summaries.is_numeric(levels[axis].dropna())
    present = summaries.sorted_levels(levels[axis])
    places = {level: float(level) if numeric else float(n) for n, level in enumerate(present)}
    rows = {level: _named(axis, level) for level in present}
    looks, labels = style.line_looks([*lines, *flat]), style.line_labels([*lines, *flat])
    caption = _spread_caption("bars", (n for line in [*lines, *flat] for n in line.n))
    fig = style.new_figure(2.2)
    drawing = Drawing(fig, label_of(axis), list(rows.values()), labels, caption)
    ax = fig.subplots()
    handles: list[Any] = []
    spacing = 0.0 if len(lines) == 1 else min(6.0, 18 / len(lines))
    for number, (line, look, label) in enumerate(zip(lines, looks, labels, strict=False)):
        x = [places[level] for level in line.x]
        shift = spacing * (number - (len(lines) - 1) / 2)
        beside = _shifted(ax, shift)
        bars = ax.errorbar(
            x, line.mean, yerr=np.nan_to_num(line.sd), capsize=2, elinewidth=0.8, label=label,
            transform=beside, **style.line_style(look) | ({} if numeric else {"linestyle": "none"}),
        )  # fmt: skip
        handles.append(bars)
        if len(lines) <= 3:  # else the dots of one line would be taken for those of another
            mine = _trials_of(trials, line, axis, others)
            ax.plot(
                mine[axis].map(places), mine[QUANTITY], ".", color=look.color, markersize=3,
                markeredgewidth=0, alpha=0.55, transform=_shifted(ax, shift + 3.2),
            )  # fmt: skip
        told = zip(line.mean, line.sd, line.n, strict=True)
        texts = [value_text(*one, metric) for one in told]
        values = [(rows[level], label, text) for level, text in zip(line.x, texts, strict=True)]
        drawing.tell(ax, x, line.mean, values, transform=beside)
    for base, look, label in zip(flat, looks[len(lines) :], labels[len(lines) :], strict=True):
        (mean,), (sd,), (n,) = base.mean, base.sd, base.n
        handles.append(ax.axhline(mean, color=look.color, linestyle=look.dash, label=label))
        if not math.isnan(sd):
            ax.axhspan(mean - sd, mean + sd, color=look.color, alpha=0.12, linewidth=0)
        values = [(row, label, value_text(mean, sd, n, metric)) for row in rows.values()]
        drawing.tell(ax, list(places.values()), [mean] * len(places), values)
    ax.set(xlabel=label_of(axis), ylabel=_error_label(trials))
    pairs = [pair for line in [*lines, *flat] for pair in zip(line.mean, line.sd, strict=True)]
    ends = [mean + side * sd for mean, sd in pairs for side in (-1, 1)]
    drawn_at = [*ends, *levels[f"{QUANTITY}_mean"], *trials[QUANTITY]]
    _fit_y(ax, np.nanmin(drawn_at), np.nanmax(drawn_at), metric)
    if numeric:
        _ticks_at_levels(ax, present)
        drawn = zip(lines, looks, labels, strict=False)
        marked = [
            (points[line.arm, line.setting], look.color, f"{label}: ")
            for line, look, label in drawn
            if points and (line.arm, line.setting) in points
        ]
        if len(marked) == 1:
            marked = [(marked[0][0], style.INK, "")]
        handles += _mark_points(ax, marked, axis, metric)
    else:
        names = short_names([summaries.level_text(axis, level) for level in present], 16)
        ax.set_xticks(list(places.values()), names)
        _slant_if_long(ax, names)
        ax.set_xlim(-0.5, len(present) - 0.5)
    _legend_above(fig, handles)
    return drawing


def _shifted(ax: Axes, points: float) -> Transform:
    """The data's places, moved to the right: so marks at one level do not hide each other."""
    fig: Any = ax.figure
    return ax.transData + ScaledTranslation(points / 72, 0, fig.dpi_scale_trans)


def _trials_of(
    trials: pd.DataFrame, line: Series, axis: str, others: Sequence[str]
) -> pd.DataFrame:
    """The trials behind a line."""
    rows = trials[(trials["arm"] == line.arm) & trials[axis].notna() & trials[QUANTITY].notna()]
    setting = "" if line.setting == summaries.AS_IN_FILE else line.setting
    mine = [
        summaries.setting_text(dict(zip(others, levels, strict=True))) == setting
        for levels in rows[list(others)].itertuples(index=False, name=None)
    ]
    return rows[mine]


def is_log(values: Iterable[float]) -> bool:
    """Whether levels spread over decades, so that a linear axis would squeeze them."""
    numbers = [float(value) for value in values]
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= 30 * min(numbers)


def _ticks_at_levels(ax: Axes, levels: Sequence[float]) -> None:
    """Ticks where the trials are, labelled as far as there is room."""
    places = [float(level) for level in levels]
    if is_log(levels):
        ax.set_xscale("log")
        ax.minorticks_off()
        places = [math.log(level) for level in levels]
    point = (places[-1] - places[0] or 1.0) / _ROOM
    ends = (places[0] - 8 * point, places[-1] + 10 * point)
    ax.set_xlim(*map(math.exp, ends) if is_log(levels) else ends)
    texts: list[str] = []
    free = -math.inf
    for place, level in zip(places, levels, strict=True):
        text = f"{level:g}"
        half = style.LETTER * (len(text) + 1) / 2 * point
        fits = place - half >= free
        texts.append(text if fits else "")
        free = place + half if fits else free
    ax.set_xticks(list(levels), texts)


def _slant_if_long(ax: Axes, labels: Sequence[str]) -> None:
    """Labels of evenly spaced ticks that would touch one another are written aslant."""
    wide = (max(sum(map(len, pair)) for pair in pairwise(labels)) if len(labels) > 1 else 0) / 2
    if (wide + 0.8) * style.LETTER > _ROOM / len(labels):
        for label in ax.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")


def _mark_points(
    ax: Axes, points: Sequence[tuple[CriticalPoint, str, str]], axis: str, metric: Metric
) -> list[Line2D]:
    """Critical points in a strip below the axis, where there is no data; a row each.

    ``points``: each with its colour and whose it is, for the legend.
    """
    handles: list[Line2D] = []
    low, high = ax.get_ylim()
    step = 0.06 * (high - low)
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    for number, (point, color, whose) in enumerate(points):
        y, hinge = low - step * (number + 0.6), point.hinge
        if point.unfit:
            text = f"{whose}{summaries.with_unit(axis, point.reference)} is an unfit reference"
            handles += ax.plot(
                [point.reference], [y], linestyle="none", marker="x", markersize=4.5, color=color,
                clip_on=False, label=text,
            )  # fmt: skip
        if hinge.elbow is not None and hinge.low is not None and hinge.high is not None:
            text = f"{whose}bend at {hinge.elbow:.3g} [{hinge.low:.3g}, {hinge.high:.3g}]"
            handles += ax.plot(
                [hinge.low, hinge.high], [y, y], color=color, linewidth=4, alpha=0.3,
                solid_capstyle="butt", label=text,
            )  # fmt: skip
            ax.plot([hinge.elbow], [y], "|", color=color, markersize=5, markeredgewidth=1.2)
        for level, marker, text in (
            (point.critical, "v", "no harm shown up to {}"),
            (point.certified, "^", f"costs < {metric.least(point.margin)} up to {{}}"),
        ):
            if level is not None:
                handles += ax.plot(
                    [level], [y], linestyle="none", marker=marker, markersize=4.5, color=color,
                    clip_on=False, label=whose + text.format(summaries.with_unit(axis, level)),
                )  # fmt: skip
    if handles:
        ax.set_ylim(bottom=low - step * (len(points) + 0.2))
        ax.set_yticks(ticks)
        ax.axhline(low, color=style.MUTED, linewidth=0.6)
    return handles


# ------------------------------------------------------------------------- layers and grids


def layer_dots(layers: pd.DataFrame, quantity: str) -> Drawing:
    """One row per layer in the network's order, one dot per arm; bars: one sd over trials.

    Args:
        layers: From `summaries.layers`, without swept axes (see `layer_map` for those).
        quantity: ``weights_changed`` or ``relative_error``; a share in 0..1.
    """
    lines = summaries.series(layers, "position", quantity, [])
    names = _layer_names(layers)
    caption = _spread_caption("bars", (n for line in lines for n in line.n))
    fig = style.new_figure(0.5 + _row_height(len(names)) * max(len(names), 4))
    labels = style.line_labels(lines)
    drawing = Drawing(fig, "layer", list(names.values()), labels, caption)
    ax = fig.subplots()
    handles = []
    spacing = 0.6 / len(lines)
    for number, (line, look, label) in enumerate(
        zip(lines, style.line_looks(lines), labels, strict=True)
    ):
        mean, sd = 100 * np.array(line.mean), 100 * np.array(line.sd)
        y = [float(at) + spacing * (number - (len(lines) - 1) / 2) for at in line.x]
        bars = ax.errorbar(
            mean, y, xerr=np.nan_to_num(sd), linestyle="none", elinewidth=0.7, markersize=3,
            label=label, **style.marker_style(look),
        )  # fmt: skip
        handles.append(bars)
        texts = map(value_text, mean, sd, line.n)
        values = [(names[int(at)], label, text) for at, text in zip(line.x, texts, strict=True)]
        drawing.tell(ax, list(mean), y, values)
    ax.set(xlabel=LAYER_QUANTITIES[quantity], ylim=(len(names) - 0.4, -0.6))  # first layer on top
    ax.set_xlim(left=0)
    ax.set_yticks(list(names), short_names(list(names.values())), fontsize=style.SMALL)
    _legend_above(fig, handles)
    return drawing


def layer_map(layers: pd.DataFrame, axis: str, quantity: str) -> Drawing:
    """Layers against levels as a heat map: how one quantity spreads over the network in a sweep.

    Args:
        layers: From `summaries.layers`, of one arm and a sweep along ``axis`` alone.
        axis: The swept axis, on x.
        quantity: A share in 0..1; shown in percent.
    """
    rows = _as_values(layers[layers[axis].notna()], quantity, 100)
    names = _layer_names(rows)
    ticks = short_names(list(names.values()))
    fig = style.new_figure(0.85 + _row_height(len(names)) * max(len(names), 4))
    drawing = Drawing(fig, "layer", list(names.values()), _heads(rows, axis), _map_caption(rows))
    ax = fig.subplots()
    _heat_map(drawing, ax, rows, axis, "position", names, ticks, rows["mean"].max())
    ax.set_title(LAYER_QUANTITIES[quantity], loc="left")
    ax.set(xlabel=label_of(axis), ylabel="")
    return drawing


def level_maps(
    levels: pd.DataFrame, trials: pd.DataFrame, x: str, y: str, by: Sequence[str]
) -> Drawing:
    """Test error over two axes, a heat map per setting of the others, on one colour scale.

    Args:
        levels: From `summaries.levels`.
        x, y: The axes of each map.
        by: The further axes, one panel per combination of their levels and arm.
    """
    values = _as_values(levels, QUANTITY, 1)
    panels = list(panels_of(values, by))
    lines, count = math.ceil(len(panels) / 2), min(2, len(panels))
    rows = summaries.sorted_levels(levels[y])
    names = {
        title: {level: ", ".join(filter(None, (title, _named(y, level)))) for level in rows}
        for title, _ in panels
    }
    fig = style.new_figure(0.6 + lines * (0.35 + 0.19 * max(4, len(rows))))
    every_row = [name for panel in names.values() for name in panel.values()]
    drawing = Drawing(fig, label_of(y), every_row, _heads(values, x), _map_caption(values))
    axes = fig.subplots(lines, count, sharex=True, sharey=True, squeeze=False).ravel()
    ticks = [summaries.level_text(y, level) for level in rows]
    for ax, (title, frame) in zip(axes, panels, strict=False):
        _heat_map(drawing, ax, frame, x, y, names[title], ticks, values["mean"].max(), count)
        ax.set(xlabel="", ylabel="", title=title)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    fig.suptitle(_error_label(trials), fontsize=8)
    fig.supxlabel(label_of(x), fontsize=8)
    fig.supylabel(label_of(y), fontsize=8)
    return drawing


def panels_of(levels: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of one map each, and its title: a setting of ``by``, of one arm."""
    several = levels["arm"].nunique() > 1
    for key, frame in levels.groupby(["arm", *by], dropna=False, sort=False, observed=True):
        setting = summaries.setting_text(dict(zip(by, key[1:], strict=True)))
        arm = arm_label(str(key[0])) if several or not setting else ""
        yield ", ".join(filter(None, (arm, setting))), frame


def _as_values(frame: pd.DataFrame, quantity: str, scale: float) -> pd.DataFrame:
    """The rows with a value of a quantity, as columns mean and sd."""
    mean, sd = scale * frame[f"{quantity}_mean"], scale * frame[f"{quantity}_sd"]
    return frame.assign(mean=mean, sd=sd)[mean.notna()]


def _heads(frame: pd.DataFrame, axis: str) -> list[str]:
    return [summaries.with_unit(axis, level) for level in summaries.sorted_levels(frame[axis])]


def _map_caption(values: pd.DataFrame) -> str:
    return f"Mean over trials; 0 is dark, {values['mean'].max():.0f} bright."


def _heat_map(
    drawing: Drawing,
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    names: Mapping[Any, str],
    row_ticks: Sequence[str],
    top: float,
    abreast: int = 1,
) -> None:
    """A column per level of ``x``, a row per name, the mean in each cell."""
    columns = summaries.sorted_levels(frame[x])
    grid = frame.set_index([y, x])["mean"].unstack().reindex(index=list(names), columns=columns)
    ticks = short_names([summaries.level_text(x, level) for level in columns], 16)
    few, top = len(columns) <= 10, top or 1.0
    sns.heatmap(
        grid, ax=ax, cmap=style.MAP_COLORS, vmin=0, vmax=top, cbar=not few, annot=few, fmt=".0f",
        annot_kws={"fontsize": style.SMALL - 0.5}, linewidths=0.3, linecolor=style.PAPER,
        xticklabels=ticks, yticklabels=list(row_ticks),
    )  # fmt: skip
    for text in ax.texts:
        color = mpl.colormaps[style.MAP_COLORS](float(text.get_text()) / top)
        text.set_color(style.readable_on(color))
    ax.tick_params(axis="both", length=0, rotation=0)
    ax.tick_params(axis="y", labelsize=style.SMALL)
    ax.grid(visible=False)
    _slant_if_long(ax, ticks * abreast)
    heads, order = dict(zip(columns, _heads(frame, x), strict=True)), list(names)
    drawing.tell(
        ax,
        [columns.index(level) + 0.5 for level in frame[x]],
        [order.index(row) + 0.5 for row in frame[y]],
        [
            (names[row], heads[level], value_text(mean, sd, n))
            for row, level, mean, sd, n in zip(
                frame[y], frame[x], frame["mean"], frame["sd"], frame["n"], strict=True
            )
        ],
    )


def _layer_names(layers: pd.DataFrame) -> dict[int, str]:
    """The layers by their place in the network."""
    pairs = layers.drop_duplicates("position").sort_values("position")
    return {int(p): str(n) for p, n in zip(pairs["position"], pairs["layer"], strict=True)}


def _row_height(count: int) -> float:
    """Inches of a row: that of many layers as low as its text allows."""
    return max(0.118, 0.17 - 0.0015 * count)


def short_names(names: Sequence[str], width: int = 26) -> list[str]:
    """Names with their middle left out where they are long, never two of them alike."""
    tail = width * 2 // 3
    short = [x if len(x) <= width else f"{x[: width - tail - 1]}…{x[-tail:]}" for x in names]
    return short if len(set(short)) == len(set(names)) else short_names(names, width + 2)
