"""Which layers hurt: the figure, the table and the words for `analysis.layer_effects`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analogtl.analysis import summaries
from analogtl.analysis.blocks import MIN_BLOCKS
from analogtl.config.per_layer import ALL, stage_of
from analogtl.errors import counted
from analogtl.report import style
from analogtl.report.drawing import Drawing
from analogtl.report.figures import short_names
from analogtl.report.tables import Column, Table, level_columns
from analogtl.vocabulary import AXES, PER_LAYER, Metric, arm_label, arm_style, key_of

EVERYWHERE = "all layers"
_OWN = f"{PER_LAYER}.settings."
_TIMES = 3  # that all layers together may reach further than one of them on its scale
_NAMED = 6  # layers that a sentence names


@dataclass(frozen=True)
class Part:
    """The layers of all arms, at one setting of the other axes.

    Attributes:
        at: The levels of axes that hold for all layers, in words; "" for none.
        settings: What some layers have, in words: ``wtn = 20 %``.
        effects: Rows of `analysis.layer_effects`.
    """

    at: str
    settings: str
    effects: pd.DataFrame


def parts_of(effects: pd.DataFrame, settings: Any) -> Iterator[Part]:
    """The parts of a run.

    Args:
        effects: From `analysis.layer_effects`.
        settings: The experiment's own, by key: whatever its file says.
    """
    axes, given = _axes(effects), settings if isinstance(settings, dict) else {}
    names = {axis.key: name for name, axis in AXES.items()}
    known: Any = [((), effects)]
    if axes:
        known = effects.groupby(axes, dropna=False, sort=False, observed=True)
    for key, rows in known:
        levels = dict(zip(axes, key, strict=True))
        swept = {
            key_of(axis).removeprefix(_OWN): level
            for axis, level in levels.items()
            if axis.startswith(_OWN)
        }
        own = {names.get(key, key): value for key, value in {**given, **swept}.items()}
        at = {axis: level for axis, level in levels.items() if not axis.startswith(_OWN)}
        yield Part(summaries.setting_text(at), summaries.setting_text(own), rows)


def _axes(effects: pd.DataFrame) -> list[str]:
    """The other axes."""
    names = list(effects.columns)
    return names[1 : names.index(PER_LAYER)]


# ------------------------------------------------------------------------------------ the figure


def layer_figure(part: Part, metric: Metric, alpha: float) -> Drawing:
    """Error of each layer's level above that of none, the first layer on top; all layers below."""
    known = part.effects[part.effects["excess"].notna()]
    levels = summaries.sorted_levels(known[PER_LAYER])
    layers = [level for level in levels if level != ALL]
    names = {level: level if level != ALL else EVERYWHERE for level in levels}
    arms = summaries.arms_of(known)
    labels, looks = [arm_label(arm) for arm in arms], [arm_style(arm) for arm in arms]
    tall = max(0.118, 0.17 - 0.0015 * len(layers)) * max(len(layers), 4)
    low = 0.2 if ALL in levels else 0.0
    fig = style.new_figure(0.85 + tall + (0.3 + low if low else 0.0))
    interval = f"{100 * (1 - 2 * alpha):.0f} %"
    caption = f"Bars: {interval} interval, within blocks. Filled: {_hurts(alpha)}."
    drawing = Drawing(fig, "layer", [names[one] for one in levels], labels, caption)
    ratios = [tall, low] if layers and low else [1]
    panels = fig.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    groups = [group for group in (layers, [ALL] if low else []) if group]
    for ax, rows_of in zip(panels, groups, strict=True):
        places = {level: float(number) for number, level in enumerate(rows_of)}
        step = 0.6 / len(arms)
        for number, arm in enumerate(arms):
            shift = step * (number - (len(arms) - 1) / 2)
            rows = known[known["arm"].eq(arm) & known[PER_LAYER].isin(rows_of)]
            _dots(drawing, ax, rows, places, shift, metric)
        ax.axvline(0, color=style.MUTED, linewidth=0.7)
        ax.set_ylim(len(rows_of) - 0.4, -0.6)
        ticks = short_names([names[level] for level in rows_of])
        ax.set_yticks(list(places.values()), ticks, fontsize=style.SMALL)
        _bands(ax, rows_of)
    _share_scale(list(panels))
    gap = f" ({metric.gap})" if metric.gap else ""
    what = short_names([f"{part.settings}, in one layer or in all"], 52)[0]
    panels[-1].set_xlabel(f"rise of the {metric.label}{gap}\n{what}")
    handles = [
        Line2D([], [], linestyle="none", **style.marker_style(look), label=label)
        for look, label in zip(looks, labels, strict=True)
    ]
    for text, face in ((_hurts(alpha), style.INK), ("not shown to", style.PAPER)):
        mark = Line2D([], [], linestyle="none", marker="o", color=style.INK, label=text)
        mark.set_markerfacecolor(face)
        handles.append(mark)
    shown = handles if len(arms) > 1 else handles[-2:]
    fig.legend(handles=shown, loc="outside upper center", ncols=2, borderaxespad=0.1)
    fig.set_figheight(fig.get_figheight() + 0.145 * ((len(shown) + 1) // 2))
    return drawing


def _hurts(alpha: float) -> str:
    return f"hurts (Holm, {100 * alpha:g} %)"


def _dots(
    drawing: Drawing,
    ax: Axes,
    rows: pd.DataFrame,
    places: Mapping[str, float],
    shift: float,
    metric: Metric,
) -> None:
    """The effects of one arm."""
    arm = str(rows["arm"].iloc[0]) if len(rows) else ""
    look, label = arm_style(arm), arm_label(arm)
    y = [places[level] + shift for level in rows[PER_LAYER]]
    x, ends = rows["excess"].to_numpy(float), rows[["low", "high"]].to_numpy(float).T
    reach = np.nan_to_num(np.abs(ends - x))
    ax.errorbar(x, y, xerr=reach, linestyle="none", marker="", ecolor=look.color, elinewidth=0.8)
    for filled in (True, False):
        mine = rows["hurts"].to_numpy(bool) == filled
        face = look.color if filled else style.PAPER
        ax.plot(
            x[mine], np.array(y)[mine], linestyle="none", markersize=3.2,
            **style.marker_style(look) | {"markerfacecolor": face},
        )  # fmt: skip
    names = [level if level != ALL else EVERYWHERE for level in rows[PER_LAYER]]
    texts = [_value(row, metric) for row in rows.to_dict("records")]
    drawing.tell(ax, list(x), y, [(n, label, text) for n, text in zip(names, texts, strict=True)])


def _value(row: Mapping[Any, Any], metric: Metric) -> str:
    """``+3.1 points [2.0, 4.2]``."""
    text = metric.difference(row["excess"], "+")
    if pd.isna(row["low"]):
        return text
    return f"{text} [{metric.number(row['low'])}, {metric.number(row['high'])}]"


def _bands(ax: Axes, layers: Sequence[str]) -> None:
    """Every other stage on a grey ground, so that a row can be followed to its name."""
    stages = list(dict.fromkeys(map(stage_of, layers)))
    for number, layer in enumerate(layers):
        if stages.index(stage_of(layer)) % 2 and len(layers) > len(stages):
            ax.axhspan(number - 0.5, number + 0.5, color=style.GRID, alpha=0.5, linewidth=0)
    ax.grid(visible=False, axis="y")


def _share_scale(panels: Sequence[Axes]) -> None:
    """One scale for the layers and for all of them, unless the layers would be squeezed."""
    reaches = [max(map(abs, ax.get_xlim())) for ax in panels]
    for ax in panels:
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    if len(panels) == 2 and reaches[1] <= _TIMES * reaches[0]:
        ends = [ax.get_xlim() for ax in panels]
        limits = min(low for low, _ in ends), max(high for _, high in ends)
        for ax in panels:
            ax.set_xlim(limits)
        panels[0].tick_params(axis="x", labelbottom=False)


# ---------------------------------------------------------------------------- the table, the words


def layer_effects_table(effects: pd.DataFrame, metric: Metric, alpha: float) -> Table:
    """What each layer costs that alone has settings of its own, and all of them."""
    number: dict[str, Any] = {"kind": "number", "digits": metric.decimals}
    columns = (
        Column("arm", "arm", kind="arm", if_varied=True),
        *level_columns(effects, _axes(effects)),
        Column(PER_LAYER, "layer"),
        Column("n_blocks", "blocks", kind="count"),
        Column("n_failed", "failed", kind="count", if_varied=True),
        Column("excess", "above none", metric.gap, **number),
        Column("low", "from", metric.gap, **number),
        Column("high", "to", metric.gap, **number),
        Column("p", "p (Holm)", kind="share"),
        Column("hurts", "hurts"),
    )
    shown = effects.assign(hurts=effects["hurts"].map({True: "yes", False: "not shown"}))
    shown.loc[shown["p"].isna(), "hurts"] = "not tested"
    note = (
        f"With their own settings: one layer at a time; {ALL}: all of them. Interval: "
        f"{100 * (1 - 2 * alpha):.0f} %, not corrected. p: one-sided, by Holm's rule over the "
        f"layers of an arm; that of {ALL} alone."
    )
    title = "Which layers hurt"
    kept = tuple(column for column in columns if column.is_needed(shown))
    return Table("layer_effects", title, shown, kept, note, whole=effects)


def sentences(part: Part, metric: Metric, alpha: float) -> Iterator[str]:
    """What the layers of each arm were found to cost, harshest first."""
    at = f" at {part.at}" if part.at else ""
    for arm, rows in part.effects.groupby("arm", sort=False):
        whose = f"{arm_label(str(arm))}{at}, {part.settings} in one layer or stage"
        single, whole = rows[rows[PER_LAYER] != ALL], rows[rows[PER_LAYER] == ALL]
        tested = single[single["p"].notna()]
        if tested.empty:
            yield f"{whose}: not enough data; at least {MIN_BLOCKS} blocks are needed."
            continue
        found = tested[tested["hurts"]].sort_values("excess", ascending=False)
        named = [f"{row[PER_LAYER]} {_value(row, metric)}" for row in found.to_dict("records")]
        more = len(named) - _NAMED
        listed = "; ".join(named[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        what = f"{len(found)} of {len(tested)} hurt beyond the noise"
        rule = (
            f"Holm's rule, {100 * alpha:g} %; in brackets {100 * (1 - 2 * alpha):.0f} % intervals"
        )
        text = f"{whose}: {what} ({rule}){f': {listed}' if listed else ''}."
        for row in whole[whole["excess"].notna()].to_dict("records"):
            text += f" In all layers: {_value(row, metric)}."
        if untested := len(single) - len(tested):
            text += f" Not tested, for too few finished trials: {counted(untested, 'level')}."
        yield text
