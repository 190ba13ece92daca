"""Charts for the HTML report: the figures of `plots`, drawn as SVG that can be read value by value.

Everything but the reading works without a script, and the same numbers stand in a table below each
chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.summaries import Baseline, Series
from analogtl.report.figures import LAYER_QUANTITIES, Marks, is_log, quantity_label
from analogtl.report.svg import (
    Chart,
    Look,
    Scale,
    Stop,
    looks_of,
    luminance,
    nice_ticks,
    percent,
    swatch,
    tag,
    text,
    x_ticks,
)
from analogtl.vocabulary import arm_label, arm_style, label_of

HEIGHT = 260  # of a line chart's plot area, in CSS pixels
ROW = 20  # pixels per row of a chart by layer
SPREAD = "Mean over seeds; {}: ± 1 standard deviation. {}"


def value_text(mean: float, sd: float, n: int, unit: str = "%") -> str:
    """A value as it is read out: ``14.5 ± 1.2 % (n = 5)``, not to be broken at the signs."""
    spread = "" if math.isnan(sd) else f"\u00a0±\u00a0{sd:.1f}"
    return f"{mean:.1f}{spread}\u00a0{unit} (n\u00a0=\u00a0{n})"


def _labels(lines: Sequence[Series]) -> list[str]:
    one_varies = len({line.arm for line in lines if line.setting}) == 1
    return [line.setting if line.setting and one_varies else line.label for line in lines]


def _seed_counts(lines: Iterable[Series]) -> str:
    counts = sorted({n for line in lines for n in line.n})
    if counts in ([], [1]):
        return "One seed." if counts else ""
    return f"{counts[0]} seeds." if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds."


def _top(lines: Iterable[Series], scale: float) -> float:
    """The highest end of a mean with its spread; 1 if there is nothing above 0."""
    tops = [
        (mean + (0.0 if math.isnan(sd) else sd)) * scale
        for line in lines
        for mean, sd in zip(line.mean, line.sd, strict=True)
    ]
    return max(tops, default=0.0) or 1.0


# ----------------------------------------------------------------------------------- line charts


@dataclass(frozen=True)
class _XAxis:
    """The x axis of a line chart: where each value is (0..1), and what it is called."""

    at: dict[float | str, float]
    ticks: Sequence[tuple[float, str]]
    heads: Sequence[str]
    label: str
    column: str
    scale: Scale | None = None


def trace_chart(
    traces: pd.DataFrame,
    *,
    quantity: str = "error",
    title: str = "Test error per epoch",
    y_label: str = "test error (%)",
    scale: float = 1.0,
) -> Chart:
    """A quantity per epoch and arm, mean and one standard deviation over seeds (paper, Fig. 2)."""
    lines = summaries.series(traces, "epoch", quantity, summaries.axis_columns(traces))
    epochs = sorted({float(x) for line in lines for x in line.x})
    place = Scale(epochs[0], max(epochs[-1], epochs[0] + 1))
    ticks = [t for t in nice_ticks(place.low, place.high, 6) if t == round(t)]
    x = _XAxis(
        at={epoch: place(epoch) for epoch in epochs},
        ticks=[(place(t), f"{t:g}") for t in ticks if place.low <= t <= place.high],
        heads=[f"epoch {epoch:g}" for epoch in epochs],
        label="epoch",
        column="epoch",
    )
    drawn = [
        _band_and_line(line, look, x, _y_scale(lines, scale), scale)
        for line, look in zip(lines, looks_of(lines), strict=True)
    ]
    return _line_chart(lines, drawn, x, title=title, y_label=y_label, scale=scale, spread="band")


def level_chart(
    levels: pd.DataFrame,
    axis: str,
    *,
    quantity: str = "error_final",
    marks: Sequence[Marks] = (),
) -> Chart:
    """Test error against one axis with the critical point (paper, Figs. 3 to 5)."""
    others = [a for a in summaries.axis_columns(levels) if a != axis]
    lines = summaries.series(levels, axis, quantity, others)
    flat = summaries.baselines(levels, axis, quantity)
    x = _level_axis(lines, axis, summaries.is_numeric(levels[axis].dropna()))
    everything = [*lines, *(_as_series(base, x) for base in flat)]
    y = _y_scale(everything, 1.0)
    looks = looks_of(everything)
    drawn = [
        _bars_and_marks(line, look, x, y, joined=x.scale is not None)
        for line, look in zip(lines, looks, strict=False)
    ]
    drawn += [
        _baseline(base, look, y) for base, look in zip(flat, looks[len(lines) :], strict=True)
    ]
    label = quantity_label(quantity, levels)
    return _line_chart(
        everything,
        drawn,
        x,
        title=f"{label.partition(',')[0].partition(' (')[0].capitalize()} against {x.label}",
        y_label=label,
        spread="bars",
        marks=_marks(marks, x.scale, axis) if x.scale else ("", []),
    )


def _level_axis(lines: Sequence[Series], axis: str, numeric: bool) -> _XAxis:
    present = list(dict.fromkeys(x for line in lines for x in line.x))
    if numeric:
        present.sort()
        values = [float(x) for x in present]
        scale = Scale(values[0], values[-1], is_log(values)).padded(0.03)
        at = {x: scale(float(x)) for x in present}
    else:
        scale = None
        at = {x: (place + 0.5) / len(present) for place, x in enumerate(present)}
    name = axis.rpartition(".")[2]
    return _XAxis(
        at=at,
        ticks=[(at[x], summaries.level_text(x)) for x in present],
        heads=[f"{name} = {summaries.with_unit(axis, x)}" for x in present],
        label=label_of(axis),
        column=label_of(axis),
        scale=scale,
    )


def _as_series(base: Baseline, x: _XAxis) -> Series:
    """A horizontal line has its value everywhere."""
    count = len(x.at)
    return Series(
        base.arm, "", (*x.at,), (base.mean,) * count, (base.sd,) * count, (base.n,) * count
    )


def _y_scale(lines: Sequence[Series], scale: float) -> Scale:
    return Scale(0.0, nice_ticks(0.0, _top(lines, scale))[-1])


@dataclass(frozen=True)
class _Drawn:
    """One series: what stretches with the width, what does not, and its key in the legend."""

    stretched: str
    fixed: str
    key: str


def _y(scale: Scale, value: float) -> float:
    return HEIGHT * (1 - scale(value))


def _band_and_line(line: Series, look: Look, x: _XAxis, y: Scale, scale: float) -> _Drawn:
    xs = [x.at[v] for v in line.x]
    ends = [
        (m * scale, 0.0 if math.isnan(s) else s * scale)
        for m, s in zip(line.mean, line.sd, strict=True)
    ]
    band = _band(xs, [_y(y, m - s) for m, s in ends], [_y(y, m + s) for m, s in ends])
    curve = _curve(xs, [_y(y, m) for m, _ in ends], look.dash)
    every = max(1, math.ceil(len(xs) / 8))  # about eight markers, whatever the number of epochs
    marks = [
        look.mark(percent(at), _y(y, m)) for at, (m, _) in list(zip(xs, ends, strict=True))[::every]
    ]
    return _Drawn(look.group(band, curve), look.group(*marks), look.key())


def _bars_and_marks(line: Series, look: Look, x: _XAxis, y: Scale, *, joined: bool) -> _Drawn:
    xs = [x.at[v] for v in line.x]
    parts = []
    for at, mean, sd in zip(xs, line.mean, line.sd, strict=True):
        if sd > 0:
            parts.append(_error_bar(percent(at), _y(y, mean - sd), _y(y, mean + sd)))
        parts.append(look.mark(percent(at), _y(y, mean)))
    curve = _curve(xs, [_y(y, mean) for mean in line.mean], look.dash) if joined else ""
    return _Drawn(look.group(curve) if curve else "", look.group(*parts), look.key(line=joined))


def _baseline(base: Baseline, look: Look, y: Scale) -> _Drawn:
    sd = 0.0 if math.isnan(base.sd) else base.sd
    low, high, mean = _y(y, base.mean - sd), _y(y, base.mean + sd), _y(y, base.mean)
    band = _band([0.0, 1.0], [low, low], [high, high])
    curve = _curve([0.0, 1.0], [mean, mean], look.dash)
    return _Drawn(look.group(band, curve), "", look.key(marker=False))


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{1000 * x:.1f} {y:.1f}" for x, y in points)


def _curve(xs: Sequence[float], ys: Sequence[float], dash: str) -> str:
    path = _path(zip(xs, ys, strict=True))
    return tag("path", d=path, class_="line", stroke_dasharray=dash)


def _band(xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    outline = [*zip(xs, high, strict=True), *zip(reversed(xs), reversed(low), strict=True)]
    return tag("path", d=_path(outline) + "Z", class_="band")


def _error_bar(at: str, low: float, high: float) -> str:
    bar = tag("line", x1=at, x2=at, y1=low, y2=high, class_="bar")
    caps = (tag("use", href="#m-cap", x=at, y=end, class_="bar") for end in (low, high))
    return bar + "".join(caps)


def _line_chart(
    lines: Sequence[Series],
    drawn: Sequence[_Drawn],
    x: _XAxis,
    *,
    title: str,
    y_label: str,
    spread: str,
    scale: float = 1.0,
    marks: tuple[str, list[tuple[str, str]]] = ("", []),
) -> Chart:
    y = _y_scale(lines, scale)
    labels = _labels(lines)
    stretched = tag(
        "svg",
        "".join(d.stretched for d in drawn),
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 1000 {HEIGHT}",
        preserveAspectRatio="none",
        overflow="visible",
    )
    stops, body = [], []
    for where, head in zip(x.at, x.heads, strict=True):
        rows, cells = [], [head.removeprefix("epoch ")]
        for number, line in enumerate(lines):
            if where not in line.x:
                cells.append("")
                continue
            place = line.x.index(where)
            mean = line.mean[place] * scale
            said = value_text(mean, line.sd[place] * scale, line.n[place])
            rows.append((number, 100 * x.at[where], _y(y, mean), said))
            cells.append(said)
        stops.append(Stop(100 * x.at[where], 0.0, head, tuple(rows)))
        body.append(tuple(cells))
    marked, mark_legend = marks
    fixed = "".join(d.fixed for d in drawn)
    return Chart(
        title=title,
        svg=_grid(y, x.ticks) + marked + stretched + fixed,
        stops=tuple(stops),
        direction="x",
        height=HEIGHT,
        x_label=x.label,
        y_label=y_label,
        caption=SPREAD.format(spread, _seed_counts(lines)).strip(),
        table=((x.column, *labels), *body),
        legend=(*((d.key, label) for d, label in zip(drawn, labels, strict=True)), *mark_legend),
        series=tuple(labels),
        colors=tuple((look.color, look.dark) for look in looks_of(lines)),
    )


def _grid(y: Scale, ticks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for tick in nice_ticks(y.low, y.high):
        at = _y(y, tick)
        parts.append(tag("line", x1=0, x2="100%", y1=at, y2=at, class_="grid" if tick else "axis"))
        parts.append(text(f"{tick:g}", x=-8, y=at + 4, class_="tick end"))
    return "".join(parts) + x_ticks(ticks, HEIGHT)


def _marks(marks: Sequence[Marks], scale: Scale, axis: str) -> tuple[str, list[tuple[str, str]]]:
    """The critical level, the elbow's interval and the certified level, with their legend."""
    parts, legend = [], []
    for mark in marks:
        several = len(marks) > 1
        whose = f"{arm_label(mark.arm)}: " if several else ""
        style = arm_style(mark.arm)
        colors = f"--p:{style.color};--d:{style.dark}" if several else ""
        drawn = []
        for kind, words in mark.legend(axis):
            shape, key = _mark_shapes(mark, kind, scale)
            drawn.append(shape)
            legend.append((swatch(key, colors, "s marks"), whose + words))
        parts.append(tag("g", "".join(drawn), class_="s marks", style=colors))
    return "".join(parts), legend


def _mark_shapes(mark: Marks, kind: str, scale: Scale) -> tuple[str, str]:
    """What is drawn in the chart, and the same in the legend."""
    if kind == "critical" and mark.critical is not None:
        at = percent(scale(mark.critical))
        return (
            tag("line", x1=at, x2=at, y1=0, y2=HEIGHT, class_="critical"),
            tag("line", x1=14, x2=14, y1=0, y2=14, class_="critical"),
        )
    if kind == "elbow" and mark.elbow is not None:
        low = max(0.0, scale(mark.elbow if mark.low is None else mark.low))
        high = min(1.0, scale(mark.elbow if mark.high is None else mark.high))
        width = percent(max(0.002, high - low))
        return (
            tag("rect", x=percent(low), width=width, y=0, height=HEIGHT, class_="interval"),
            tag("rect", x=4, y=1, width=20, height=12, class_="interval"),
        )
    if kind == "certified" and mark.certified is not None:
        at = percent(scale(mark.certified))
        return (
            tag("use", href="#m-up", x=at, y=HEIGHT - 2, class_="certified"),
            tag("use", href="#m-up", x=14, y=8, class_="certified"),
        )
    return "", ""


# --------------------------------------------------------------------------------- charts by row


def layer_chart(layers: pd.DataFrame, quantity: str, title: str) -> Chart:
    """One row per layer, one dot per arm: what was programmed, or how much of it moved.

    Args:
        layers: From `summaries.layers`, without swept axes.
        quantity: A share in 0..1; shown in percent.
        title: What it shows.
    """
    lines = summaries.series(layers, "position", quantity, [])
    names = _layer_names(layers)
    looks, labels = looks_of(lines), _labels(lines)
    height = ROW * len(names)
    ticks = nice_ticks(0.0, _top(lines, 100.0), 4)
    scale = Scale(0.0, ticks[-1])
    middle = {place: ROW * (number + 0.5) for number, place in enumerate(names)}
    # The arms of a layer stand a little above each other, so that none hides another.
    shifts = [5.0 * (i - (len(lines) - 1) / 2) / max(1, len(lines) - 1) for i in range(len(lines))]
    parts = [_row_grid(scale, ticks, list(middle.values()), height)]
    rows: dict[int, list[tuple[int, float, float, str]]] = {place: [] for place in names}
    cells = {place: [""] * len(lines) for place in names}
    for number, (line, look, shift) in enumerate(zip(lines, looks, shifts, strict=True)):
        drawn = []
        for where, mean, sd, n in zip(line.x, line.mean, line.sd, line.n, strict=True):
            place, share, y = int(where), scale(100 * mean), middle[int(where)] + shift
            if sd > 0:
                low, high = (percent(max(0.0, share + sign * scale(100 * sd))) for sign in (-1, 1))
                drawn.append(tag("line", x1=low, x2=high, y1=y, y2=y, class_="bar"))
            drawn.append(look.mark(percent(share), y))
            said = value_text(100 * mean, 100 * sd, n)
            rows[place].append((number, 100 * share, y, said))
            cells[place][number] = said
        parts.append(look.group(*drawn))
    return Chart(
        title=title,
        svg="".join(parts),
        stops=tuple(Stop(0.0, middle[p], name, tuple(rows[p])) for p, name in names.items()),
        direction="y",
        height=height,
        x_label=LAYER_QUANTITIES[quantity],
        y_label="",
        caption=SPREAD.format("bars", _seed_counts(lines)).strip(),
        table=(("layer", *labels), *((name, *cells[p]) for p, name in names.items())),
        legend=tuple((k.key(line=False), label) for k, label in zip(looks, labels, strict=True)),
        series=tuple(labels),
        colors=tuple((look.color, look.dark) for look in looks),
        row_labels=tuple((middle[p], name) for p, name in names.items()),
    )


def _row_grid(scale: Scale, ticks: Sequence[float], rows: Sequence[float], height: int) -> str:
    places = [percent(scale(tick)) for tick in ticks]
    parts = [tag("line", x1=at, x2=at, y1=0, y2=height, class_="grid") for at in places]
    parts += [tag("line", x1=0, x2="100%", y1=y, y2=y, class_="rule") for y in rows]
    parts.append(tag("line", x1=0, x2=0, y1=0, y2=height, class_="axis"))
    return "".join(parts) + x_ticks([(scale(t), f"{t:g}") for t in ticks], height)


def _layer_names(layers: pd.DataFrame) -> dict[int, str]:
    """The layers by their place in the network."""
    pairs = layers.drop_duplicates("position").sort_values("position")
    return {int(p): str(n) for p, n in zip(pairs["position"], pairs["layer"], strict=True)}


def layer_map(layers: pd.DataFrame, arm: str, axis: str, quantity: str, title: str) -> Chart:
    """Layers against levels as a heat map, for a sweep along one axis.

    Args:
        layers: From `summaries.layers`.
        arm: The arm to show.
        axis: The swept axis, along x.
        quantity: A share in 0..1; shown in percent.
        title: What it shows.
    """
    rows = layers[(layers["arm"] == arm) & layers[axis].notna()]
    return _heat_map(
        rows,
        rows="position",
        row_names=_layer_names(rows),
        axis=axis,
        quantity=quantity,
        scale=100.0,
        title=title,
        label=LAYER_QUANTITIES[quantity],
        corner="layer",
    )


def level_map(
    levels: pd.DataFrame, x: str, y: str, *, quantity: str = "error_final", title: str
) -> Chart:
    """One quantity over two axes as a heat map.

    Args:
        levels: From `summaries.levels`, of one arm and one setting of any further axes.
        x, y: The axes.
        quantity: In percent.
        title: What it shows.
    """
    present = summaries.sorted_levels(levels[y])
    return _heat_map(
        levels,
        rows=y,
        row_names={
            level: f"{y.rpartition('.')[2]} = {summaries.with_unit(y, level)}" for level in present
        },
        axis=x,
        quantity=quantity,
        scale=1.0,
        title=title,
        label=quantity_label(quantity, levels),
        corner=label_of(y),
    )


def _heat_map(
    frame: pd.DataFrame,
    *,
    rows: str,
    row_names: Mapping[Any, str],
    axis: str,
    quantity: str,
    scale: float,
    title: str,
    label: str,
    corner: str,
) -> Chart:
    """A column per level of ``axis``, a row per name, colour and number by the quantity."""
    columns = summaries.sorted_levels(frame[axis])
    heads = [summaries.with_unit(axis, level) for level in columns]
    name = axis.rpartition(".")[2]
    values = {
        (row, level): (mean * scale, sd * scale, int(n))
        for row, level, mean, sd, n in zip(
            frame[rows],
            frame[axis],
            frame[f"{quantity}_mean"],
            frame[f"{quantity}_sd"],
            frame["n"],
            strict=True,
        )
        if not summaries.is_empty(mean)
    }
    top = max((mean for mean, _, _ in values.values()), default=0.0) or 1.0
    width, height = 1 / len(columns), ROW * len(row_names)
    parts, stops, body = [], [], []
    for number, (row, row_name) in enumerate(row_names.items()):
        y, texts = ROW * (number + 0.5), [row_name]
        for column, level in enumerate(columns):
            middle = 100 * (column + 0.5) * width
            value = values.get((row, level))
            said = value_text(*value) if value else "no value"
            texts.append(said if value else "")
            head = f"{row_name}, {name} = {heads[column]}"
            stops.append(Stop(middle, y, head, ((0, middle, y, said),)))
            if value:
                numbered = len(columns) <= 10
                parts.append(_cell(column * width, width, number, value[0], top, numbered))
        body.append(tuple(texts))
    ticks = [((i + 0.5) * width, summaries.level_text(level)) for i, level in enumerate(columns)]
    return Chart(
        title=title,
        svg="".join(parts) + x_ticks(ticks, height),
        stops=tuple(stops),
        direction="grid",
        columns=len(columns),
        height=height,
        x_label=label_of(axis),
        y_label="",
        caption=f"{label[:1].upper()}{label[1:]}, mean over seeds; 0 is dark, {top:.0f} bright.",
        table=((corner, *heads), *body),
        series=(label,),
        colors=(("#555555", "#cccccc"),),
        row_labels=tuple((ROW * (i + 0.5), text) for i, text in enumerate(row_names.values())),
    )


def _cell(at: float, width: float, row: int, value: float, top: float, numbered: bool) -> str:
    color = mpl.colors.to_hex(mpl.colormaps["cividis"](value / top))
    box = tag(
        "rect",
        x=percent(at),
        y=ROW * row,
        width=percent(width),
        height=ROW,
        fill=color,
        class_="cell",
    )
    if not numbered:
        return box
    ink = "on-light" if luminance(color) > 0.18 else "on-dark"
    middle = percent(at + width / 2)
    return box + text(f"{value:.0f}", x=middle, y=ROW * (row + 0.5) + 4, class_=f"in-cell {ink}")
