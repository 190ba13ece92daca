"""Charts for the HTML report: SVG drawn from the numbers, readable at every width.

A chart has no view box: positions along x are percentages, so that the letters keep their size from
a phone to a wide screen; only the curves themselves stretch, in a nested SVG. Colours are CSS
variables, so that dark mode and print can change them. Everything works without a script except
reading the values under the pointer or with the arrow keys; for that each chart carries its
``stops``: the places that can be read, and what is said there. The same numbers stand in a table
below each chart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import matplotlib as mpl
import pandas as pd

from analogtl import summaries
from analogtl.axes import label_of
from analogtl.plots import LAYER_QUANTITIES, SETTING_MARKERS, Marks, arm_style, is_log, shorten
from analogtl.summaries import Series

HEIGHT = 260  # of a line chart's plot area, in CSS pixels
NARROW = 250  # what is left of a plot area's width on a phone, in CSS pixels
_LETTER = 6.2  # width of a letter of a tick label, in CSS pixels
_DASH_ARRAYS = {"-": "", "--": "6 4", ":": "2 3", "-.": "7 3 2 3"}
_SETTING_DASHES = ("", "7 3", "2 2.5", "8 3 2 3", "4 2")
_MARKER_IDS = {"s": "square", "o": "circle", "^": "up", "D": "diamond", "v": "down"}


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
        stops: What can be read along it.
        direction: How the arrow keys move: along ``x``, along ``y``, or over a ``grid``.
        columns: Stops per row of a grid.
        height: Of the plot area, in CSS pixels.
        x_label, y_label: Labels of the axes.
        legend: The lines: (symbol drawn as SVG, text).
        series: Names of the series that the stops refer to.
        colors: Per series, the colour on paper and on a dark screen.
        row_labels: Labels of the rows of a chart by layer: (y in pixels, name).
        caption: What the reader must know: what the spread is, how many seeds.
        table: The numbers: a heading row and the others.
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
                [round(stop.x, 2), round(stop.y, 1), stop.head, _compact(stop.rows)]
                for stop in self.stops
            ],
        }
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        # The letters that could end the script element or start a comment in it.
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compact(rows: Iterable[tuple[int, float, float, str]]) -> list[list[int | float | str]]:
    return [[number, round(x, 2), round(y, 1), text] for number, x, y, text in rows]


# ------------------------------------------------------------------------------------ elements


def _tag(name: str, content: str = "", **attributes: object) -> str:
    """An element; attribute names take ``_`` for ``-``, values and nothing else are escaped."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{text}>{content}</{name}>" if content else f"<{name}{text}/>"


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _text(content: str, **attributes: object) -> str:
    return _tag("text", escape(content), **attributes)


def _percent(share: float) -> str:
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about ``count`` steps apart."""
    if not high > low:
        high = low + 1.0
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


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


@dataclass(frozen=True)
class _Look:
    """Colour on paper and on a dark screen, dash and marker of one series."""

    color: str
    dark: str
    dash: str
    marker: str
    filled: bool

    @property
    def style(self) -> str:
        return f"--p:{self.color};--d:{self.dark}"

    def mark(self, x: object, y: object) -> str:
        hollow = "" if self.filled else " hollow"
        return _tag("use", href=f"#m-{self.marker}", x=x, y=y, class_=f"mark{hollow}")

    @property
    def swatch(self) -> str:
        """The series' line and marker, for the legend."""
        line = _tag("line", x1=0, x2=28, y1=7, y2=7, class_="line", stroke_dasharray=self.dash)
        group = _tag("g", line + self.mark(14, 7), class_="s", style=self.style)
        return _tag("svg", group, class_="swatch", width=28, height=14, aria_hidden="true")


def _looks(lines: Sequence[Series]) -> list[_Look]:
    """By arm; along a colour scale for the many settings of one arm."""
    looks = []
    for line in lines:
        siblings = [other for other in lines if other.arm == line.arm]
        if len(siblings) == 1:
            style = arm_style(line.arm)
            marker = _MARKER_IDS[style.marker]
            dash = _DASH_ARRAYS[style.dash]
            looks.append(_Look(style.color, style.dark, dash, marker, style.filled))
        else:
            place = siblings.index(line)
            looks.append(setting_look(place, len(siblings)))
    return looks


def setting_look(place: int, count: int) -> _Look:
    """The look of one of an arm's settings: dark to light on paper, the other way on a screen."""
    share = place / max(1, count - 1)
    shades = mpl.colormaps["viridis"]
    markers = [_MARKER_IDS[m] for m in SETTING_MARKERS if m in _MARKER_IDS]
    return _Look(
        mpl.colors.to_hex(shades(0.72 * share)),
        mpl.colors.to_hex(shades(1.0 - 0.62 * share)),
        _SETTING_DASHES[place % len(_SETTING_DASHES)],
        markers[place % len(markers)],
        True,
    )


def _labels(lines: Sequence[Series]) -> list[str]:
    one_varies = len({line.arm for line in lines if line.setting}) == 1
    return [line.setting if line.setting and one_varies else line.label for line in lines]


def value_text(mean: float, sd: float, n: int, unit: str = "%") -> str:
    """A value as it is read out: ``14.5 ± 1.2 % (n = 5)``."""
    spread = "" if math.isnan(sd) else f" ± {sd:.1f}"
    return f"{mean:.1f}{spread} {unit} (n = {n})"


# ----------------------------------------------------------------------------------- line charts


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
    x_scale = Scale(epochs[0], max(epochs[-1], epochs[0] + 1))
    ticks = [t for t in nice_ticks(x_scale.low, x_scale.high, 6) if t == round(t)]
    ticks = [t for t in ticks if x_scale.low <= t <= x_scale.high]
    return _line_chart(
        lines,
        xs=epochs,
        at={x: x_scale(x) for x in epochs},
        ticks=[(x_scale(t), f"{t:g}") for t in ticks],
        heads=[f"epoch {x:g}" for x in epochs],
        first_column="epoch",
        scale=scale,
        markers=max(1, math.ceil(len(epochs) / 8)),
        bands=True,
        title=title,
        x_label="epoch",
        y_label=y_label,
        caption=f"Mean over seeds; band: ± 1 standard deviation. {_seed_counts(lines)}",
    )


def level_chart(
    levels: pd.DataFrame,
    axis: str,
    *,
    quantity: str = "error_final",
    marks: Sequence[Marks] = (),
    title: str = "",
    y_label: str = "test error, last epoch (%)",
) -> Chart:
    """Test error against one axis with the critical point (paper, Figs. 3 to 5)."""
    others = [a for a in summaries.axis_columns(levels) if a != axis]
    lines = summaries.series(levels, axis, quantity, others)
    present = list(dict.fromkeys(x for line in lines for x in line.x))
    numeric = summaries.is_numeric(levels[axis].dropna())
    x_scale = Scale(0, 1)
    if numeric:
        values = sorted(float(x) for x in present)
        log = is_log(values)
        x_scale = Scale(values[0], values[-1], log).padded(0.03)
        present = list(values)
        at = {x: x_scale(float(x)) for x in present}
    else:
        at = {x: (place + 0.5) / len(present) for place, x in enumerate(present)}
    flat = summaries.baselines(levels, axis, quantity)
    return _line_chart(
        lines,
        xs=present,
        at=at,
        ticks=[(at[x], summaries.level_text(x)) for x in present],
        heads=[f"{axis.rpartition('.')[2]} = {summaries.with_unit(axis, x)}" for x in present],
        first_column=label_of(axis),
        bands=False,
        joined=numeric,
        flat=[Series(base.arm, "", tuple(present), *_repeat(base, len(present))) for base in flat],
        marks=[mark for mark in marks if numeric],
        x_scale=x_scale,
        axis=axis,
        title=title or f"Test error against {label_of(axis)}",
        x_label=label_of(axis),
        y_label=y_label,
        caption=f"Mean over seeds; bars: ± 1 standard deviation. {_seed_counts(lines)}",
    )


def _repeat(
    base: summaries.Baseline, count: int
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
    return (base.mean,) * count, (base.sd,) * count, (base.n,) * count


def _seed_counts(lines: Sequence[Series]) -> str:
    counts = sorted({n for line in lines for n in line.n})
    if not counts:
        return ""
    if len(counts) == 1:
        return "One seed." if counts == [1] else f"{counts[0]} seeds."
    return f"{counts[0]} to {counts[-1]} seeds."


def _line_chart(
    lines: Sequence[Series],
    *,
    xs: Sequence[float | str],
    at: dict[float | str, float],
    ticks: Sequence[tuple[float, str]],
    heads: Sequence[str],
    first_column: str,
    title: str,
    x_label: str,
    y_label: str,
    caption: str,
    bands: bool,
    joined: bool = True,
    scale: float = 1.0,
    markers: int = 1,
    flat: Sequence[Series] = (),
    marks: Sequence[Marks] = (),
    x_scale: Scale | None = None,
    axis: str = "",
) -> Chart:
    everything = [*lines, *flat]
    looks = _looks(everything)
    labels = _labels(everything)
    tops = [
        (m + (0 if math.isnan(s) else s)) * scale
        for line in everything
        for m, s in zip(line.mean, line.sd, strict=True)
    ]
    y_ticks = nice_ticks(0.0, max(tops, default=1.0) or 1.0)
    y_scale = Scale(0.0, y_ticks[-1])

    def y(value: float) -> float:
        return HEIGHT * (1 - y_scale(value * scale))

    stretched, fixed = [], []
    for number, (line, look) in enumerate(zip(everything, looks, strict=True)):
        is_flat = number >= len(lines)
        xs_here = [0.0, 1.0] if is_flat else [at[x] for x in line.x]
        means = list(line.mean[:2]) if is_flat else list(line.mean)
        sds = [0.0 if math.isnan(s) else s for s in (line.sd[:2] if is_flat else line.sd)]
        if is_flat and len(means) == 1:
            means, sds = means * 2, sds * 2
        parts = []
        if bands or is_flat:
            parts.append(
                _band(
                    xs_here,
                    [y(m - s) for m, s in zip(means, sds, strict=True)],
                    [y(m + s) for m, s in zip(means, sds, strict=True)],
                )
            )
        if joined or is_flat:
            parts.append(_polyline(xs_here, [y(m) for m in means], look.dash))
        stretched.append(_tag("g", "".join(parts), class_="s", style=look.style))
        if is_flat:
            continue
        points = []
        for place, (x, m, s) in enumerate(zip(xs_here, means, sds, strict=True)):
            if not bands and s > 0:
                points.append(_error_bar(x, y(m - s), y(m + s)))
            if place % markers == 0:
                points.append(look.mark(_percent(x), y(m)))
        fixed.append(_tag("g", "".join(points), class_="s", style=look.style))
    marked, mark_legend = _marks(marks, x_scale or Scale(0, 1), axis)
    svg = "".join(
        (
            _grid(y_ticks, y_scale, ticks),
            marked,
            _tag(
                "svg",
                "".join(stretched),
                width="100%",
                height=HEIGHT,
                viewBox=f"0 0 1000 {HEIGHT}",
                preserveAspectRatio="none",
                overflow="visible",
            ),
            *fixed,
        )
    )
    stops, body = [], []
    for where, head in zip(xs, heads, strict=True):
        rows, cells = [], [head.removeprefix("epoch ")]
        for number, line in enumerate(everything):
            if where not in line.x:
                cells.append("")
                continue
            place = line.x.index(where)
            text = value_text(line.mean[place] * scale, line.sd[place] * scale, line.n[place])
            rows.append((number, 100 * at[where], y(line.mean[place]), text))
            cells.append(text)
        stops.append(Stop(100 * at[where], 0.0, head, tuple(rows)))
        body.append(tuple(cells))
    return Chart(
        title=title,
        svg=svg,
        stops=tuple(stops),
        direction="x",
        height=HEIGHT,
        x_label=x_label,
        y_label=y_label,
        caption=caption.strip(),
        table=((first_column, *labels), *body),
        legend=(
            *((look.swatch, text) for look, text in zip(looks, labels, strict=True)),
            *mark_legend,
        ),
        series=tuple(labels),
        colors=tuple((look.color, look.dark) for look in looks),
    )


def _grid(y_ticks: Sequence[float], y_scale: Scale, x_ticks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for tick in y_ticks:
        y = HEIGHT * (1 - y_scale(tick))
        name = "axis" if tick == y_ticks[0] else "grid"
        parts.append(_tag("line", x1=0, x2="100%", y1=y, y2=y, class_=name))
        parts.append(_text(f"{tick:g}", x=-8, y=y + 4, class_="tick end"))
    parts += _x_ticks(x_ticks, HEIGHT)
    return "".join(parts)


def _x_ticks(ticks: Sequence[tuple[float, str]], height: float) -> list[str]:
    """Tick labels: those that would touch on a phone go to a second line, or are left out."""
    parts = []
    free = [-math.inf, -math.inf]  # where each of two lines of labels is free again
    for share, text in ticks:
        half = _LETTER * len(text) / 2 + 3
        center = share * NARROW
        parts.append(
            _tag(
                "line",
                x1=_percent(share),
                x2=_percent(share),
                y1=height,
                y2=height + 4,
                class_="axis",
            )
        )
        row = next((i for i, end in enumerate(free) if center - half >= end), None)
        if row is None:
            continue
        free[row] = center + half
        parts.append(_text(text, x=_percent(share), y=height + 17 + 13 * row, class_="tick mid"))
    return parts


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{1000 * x:.1f} {y:.1f}" for x, y in points)


def _polyline(xs: Sequence[float], ys: Sequence[float], dash: str) -> str:
    points = list(zip(xs, ys, strict=True))
    return _tag("path", d=_path(points), class_="line", stroke_dasharray=dash)


def _band(xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    outline = [*zip(xs, high, strict=True), *zip(reversed(xs), reversed(low), strict=True)]
    return _tag("path", d=_path(outline) + "Z", class_="band")


def _error_bar(x: float, low: float, high: float) -> str:
    at = _percent(x)
    bar = _tag("line", x1=at, x2=at, y1=low, y2=high, class_="bar")
    caps = (_tag("use", href="#m-cap", x=at, y=end, class_="bar") for end in (low, high))
    return bar + "".join(caps)


def _marks(marks: Sequence[Marks], scale: Scale, axis: str) -> tuple[str, list[tuple[str, str]]]:
    """The critical level, the elbow's interval and the certified level, with their legend."""
    parts, legend = [], []
    for mark in marks:
        several = len(marks) > 1
        whose = f"{summaries.arm_label(mark.arm)}: " if several else ""
        style = arm_style(mark.arm)
        colors = f"--p:{style.color};--d:{style.dark}" if several else ""
        drawn = []
        for kind, text in mark.legend(axis):
            shape, swatch = _mark_shapes(mark, kind, scale)
            drawn.append(shape)
            legend.append((_swatch(swatch, colors), whose + text))
        parts.append(_tag("g", "".join(drawn), class_="s marks", style=colors))
    return "".join(parts), legend


def _mark_shapes(mark: Marks, kind: str, scale: Scale) -> tuple[str, str]:
    """What is drawn in the chart, and the same in the legend."""
    if kind == "critical" and mark.critical is not None:
        at = _percent(scale(mark.critical))
        return (
            _tag("line", x1=at, x2=at, y1=0, y2=HEIGHT, class_="critical"),
            _tag("line", x1=14, x2=14, y1=0, y2=14, class_="critical"),
        )
    if kind == "elbow" and mark.elbow is not None:
        low = scale(mark.elbow if mark.low is None else mark.low)
        high = scale(mark.elbow if mark.high is None else mark.high)
        low, high = max(0.0, low), min(1.0, high)
        width = _percent(max(0.002, high - low))
        return (
            _tag("rect", x=_percent(low), width=width, y=0, height=HEIGHT, class_="interval"),
            _tag("rect", x=4, y=1, width=20, height=12, class_="interval"),
        )
    if kind == "certified" and mark.certified is not None:
        at = _percent(scale(mark.certified))
        return (
            _tag("use", href="#m-up", x=at, y=HEIGHT - 2, class_="certified"),
            _tag("use", href="#m-up", x=14, y=8, class_="certified"),
        )
    return "", ""


def _swatch(content: str, style: str) -> str:
    group = _tag("g", content, class_="s marks", style=style)
    return _tag("svg", group, class_="swatch", width=28, height=14, aria_hidden="true")


# ------------------------------------------------------------------------------- charts by layer

ROW = 20  # pixels per layer


def layer_chart(layers: pd.DataFrame, quantity: str, title: str) -> Chart:
    """One row per layer, one dot per arm: what was programmed, or how much of it moved.

    Args:
        layers: From `summaries.layers`, without swept axes.
        quantity: A share in 0..1; shown in percent.
        title: What it shows.
    """
    lines = summaries.series(layers, "position", quantity, [])
    names = _layer_names(layers)
    row = {place: number for number, place in enumerate(names)}
    looks, labels = _looks(lines), _labels(lines)
    height = ROW * len(names)
    tops = [
        100 * (m + (0 if math.isnan(s) else s))
        for line in lines
        for m, s in zip(line.mean, line.sd, strict=True)
    ]
    ticks = nice_ticks(0.0, max(tops, default=1.0) or 1.0, 4)
    scale = Scale(0.0, ticks[-1])
    parts = [
        _tag("line", x1=_percent(scale(t)), x2=_percent(scale(t)), y1=0, y2=height, class_="grid")
        for t in ticks
    ]
    for number in range(len(names)):
        y = ROW * (number + 0.5)
        parts.append(_tag("line", x1=0, x2="100%", y1=y, y2=y, class_="rule"))
    parts.append(_tag("line", x1=0, x2=0, y1=0, y2=height, class_="axis"))
    parts += _x_ticks([(scale(t), f"{t:g}") for t in ticks], height)
    for line, look in zip(lines, looks, strict=True):
        drawn = []
        for place, mean, sd in zip(line.x, line.mean, line.sd, strict=True):
            y = ROW * (row[int(place)] + 0.5)
            if sd > 0:
                ends = [_percent(max(0.0, scale(100 * (mean + sign * sd)))) for sign in (-1, 1)]
                drawn.append(_tag("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="bar"))
            drawn.append(look.mark(_percent(scale(100 * mean)), y))
        parts.append(_tag("g", "".join(drawn), class_="s", style=look.style))
    stops, body = [], []
    for place, name in names.items():
        y = ROW * (row[place] + 0.5)
        rows, cells = [], [name]
        for number, line in enumerate(lines):
            if place not in line.x:
                cells.append("")
                continue
            at = line.x.index(place)
            mean, sd = 100 * line.mean[at], 100 * line.sd[at]
            text = value_text(mean, sd, line.n[at])
            rows.append((number, 100 * scale(mean), y, text))
            cells.append(text)
        stops.append(Stop(0.0, y, name, tuple(rows)))
        body.append(tuple(cells))
    return Chart(
        title=title,
        svg="".join(parts),
        stops=tuple(stops),
        direction="y",
        height=height,
        x_label=LAYER_QUANTITIES[quantity],
        y_label="",
        caption=f"Mean over seeds; bars: ± 1 standard deviation. {_seed_counts(lines)}".strip(),
        table=(("layer", *labels), *body),
        legend=tuple((look.swatch, text) for look, text in zip(looks, labels, strict=True)),
        series=tuple(labels),
        colors=tuple((look.color, look.dark) for look in looks),
        row_labels=tuple((ROW * (row[place] + 0.5), name) for place, name in names.items()),
    )


def layer_map(layers: pd.DataFrame, arm: str, axis: str, quantity: str, title: str) -> Chart:
    """Layers against levels as a heat map, for a sweep along one axis."""
    rows = layers[(layers["arm"] == arm) & layers[axis].notna()]
    names = _layer_names(rows)
    columns = list(rows[axis].drop_duplicates())
    if summaries.is_numeric(rows[axis]):
        columns.sort()
    cells = {
        (int(place), level): (100 * mean, 100 * sd, int(n))
        for place, level, mean, sd, n in zip(
            rows["position"],
            rows[axis],
            rows[f"{quantity}_mean"],
            rows[f"{quantity}_sd"],
            rows["n"],
            strict=True,
        )
        if not summaries.is_empty(mean)
    }
    top = max((mean for mean, _, _ in cells.values()), default=1.0) or 1.0
    height, width = ROW * len(names), 1 / len(columns)
    parts, stops = [], []
    body: list[tuple[str, ...]] = []
    shades = mpl.colormaps["cividis"]
    for number, (place, name) in enumerate(names.items()):
        texts = [name]
        for column, level in enumerate(columns):
            at, y = column * width, ROW * (number + 0.5)
            head = f"{name}, {axis.rpartition('.')[2]} = {summaries.with_unit(axis, level)}"
            value = cells.get((place, level))
            text = value_text(*value) if value else "no value"
            texts.append(text if value else "")
            stops.append(
                Stop(100 * (at + width / 2), y, head, ((0, 100 * (at + width / 2), y, text),))
            )
            if value is None:
                continue
            color = shades(value[0] / top)
            parts.append(
                _tag(
                    "rect",
                    x=_percent(at),
                    y=ROW * number,
                    width=_percent(width),
                    height=ROW,
                    fill=mpl.colors.to_hex(color),
                    class_="cell",
                )
            )
            if len(columns) <= 10:
                ink = "on-light" if _luminance(color) > 0.18 else "on-dark"
                parts.append(
                    _text(
                        f"{value[0]:.0f}",
                        x=_percent(at + width / 2),
                        y=y + 4,
                        class_=f"in-cell {ink}",
                    )
                )
        body.append(tuple(texts))
    ticks = [((i + 0.5) * width, summaries.level_text(level)) for i, level in enumerate(columns)]
    parts += _x_ticks(ticks, height)
    label = LAYER_QUANTITIES[quantity]
    return Chart(
        title=title,
        svg="".join(parts),
        stops=tuple(stops),
        direction="grid",
        columns=len(columns),
        height=height,
        x_label=label_of(axis),
        y_label="",
        caption=f"{summaries.arm_label(arm)}: {label}, mean over seeds; "
        f"from 0 (dark) to {top:.0f} (bright).",
        table=(("layer", *(summaries.with_unit(axis, level) for level in columns)), *body),
        series=(label,),
        colors=(("#555555", "#cccccc"),),
        row_labels=tuple((ROW * (i + 0.5), name) for i, name in enumerate(names.values())),
    )


def _layer_names(layers: pd.DataFrame) -> dict[int, str]:
    """The layers by their place in the network."""
    pairs = layers.drop_duplicates("position").sort_values("position")
    return {int(p): str(n) for p, n in zip(pairs["position"], pairs["layer"], strict=True)}


def _luminance(color: Sequence[float]) -> float:
    """Relative luminance of an RGB colour (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    a, b = (_luminance(mpl.colors.to_rgb(color)) for color in (one, other))
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


__all__ = ["Chart", "Stop", "layer_chart", "layer_map", "level_chart", "shorten", "trace_chart"]
