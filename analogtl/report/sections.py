"""What each run comes to on paper and page: its tables, charts and figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from analogtl.analysis import summaries
from analogtl.analysis.analyse import RunAnalysis
from analogtl.analysis.critical_point import JudgedCurve
from analogtl.report import charts, tables, words
from analogtl.report import figures as plots
from analogtl.report.figures import Marks
from analogtl.report.svg import Chart
from analogtl.report.tables import Table
from analogtl.vocabulary import CriticalPointVerdict, arm_label

MAX_LINES = 10  # more lines than this make a figure that nobody can read
QUANTITY = "error_final"  # `error_best` picks its epoch on the test set


# ------------------------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Section:
    """What one run comes to: tables, charts for the page, and makers of the figures.

    Attributes:
        run: The run, analysed.
        tables: The tables everybody wants.
        more_tables: Long tables about learning rates and layers.
        figures: Stem of the file -> the call that draws it (drawing is slow, so only on demand).
        words: What the statistics say.
    """

    run: RunAnalysis
    tables: list[Table]
    more_tables: list[Table]
    charts: list[Chart]
    layer_charts: list[Chart]
    figures: dict[str, Callable[[], Figure]]
    words: list[str]


def study(run: RunAnalysis) -> Section:
    """Everything that one run comes to."""
    section = Section(run, [], [], [], [], {}, [])
    if run.trials.empty:
        return section
    _add_errors(section)
    if not run.layers.empty:
        _add_layers(section)
    return section


def _add_errors(section: Section) -> None:
    run = section.run
    name, axes, levels = run.run.name, run.axes, run.levels
    note = ""
    if run.several_rates:
        note = "At each level the learning rate with the lowest validation error."
    section.tables.append(tables.outcomes_table(levels, experiment=name, note=note))
    if run.several_rates:
        section.more_tables.append(
            tables.learning_rates_table(run.chosen.choices, axes, experiment=name)
        )
    drawn = [axis for axis in axes if _add_level_figure(section, levels, axis)]
    if len(axes) > 1 and not drawn:
        _add_level_maps(section, levels)
    told = [one for one in run.curves if one.point.verdict is not CriticalPointVerdict.NO_DATA]
    section.words.extend(f"{words.curve_name(one.curve)}: {words.sentences(one)}" for one in told)
    if untold := len(run.curves) - len(told):
        section.words.append(f"Curves without enough data for a critical point: {untold}.")
    if told:
        section.tables.append(tables.critical_points_table(run.curves, experiment=name))
    if run.traces.empty or run.traces["epoch"].nunique() < 2:
        return
    for arm, rows in _readable_traces(run.traces, axes):
        _add_trace_figures(section, rows, arm)


def _add_level_figure(section: Section, levels: pd.DataFrame, axis: str) -> bool:
    """Error against one axis; whether the lines are few enough for it."""
    others = [a for a in section.run.axes if a != axis]
    if len(summaries.series(levels, axis, QUANTITY, others)) > MAX_LINES:
        return False
    marks = list(_marks(section.run.curves, axis))
    trials = section.run.trials
    section.charts.append(charts.level_chart(levels, axis, marks=marks))
    section.figures[f"error-{slug(axis)}"] = partial(
        plots.error_vs_level, levels, trials, axis, marks=marks
    )
    return True


def _add_level_maps(section: Section, levels: pd.DataFrame) -> None:
    """Error over the two axes with most levels, a map for each setting of the others."""
    axes = section.run.axes
    numbers = [axis for axis in axes if summaries.is_numeric(levels[axis].dropna())]
    x, y = sorted(numbers or axes, key=lambda axis: -levels[axis].nunique())[:2]
    by = [axis for axis in axes if axis not in (x, y)]
    rows = levels[levels[x].notna() & levels[y].notna()]
    panels = list(plots.panels_of(rows, by))
    if len(panels) > MAX_LINES:
        return
    section.charts.extend(charts.level_map(frame, x, y, title=name) for name, frame in panels)
    section.figures[f"map-{slug(x)}-{slug(y)}"] = partial(plots.level_maps, rows, x, y, by)


def _marks(curves: Sequence[JudgedCurve], axis: str) -> Iterator[Marks]:
    """What to mark on a figure: one mark per arm; several curves of an arm would be a thicket."""
    here = [one for one in curves if one.curve.axis == axis]
    arms = [one.curve.arm for one in here]
    for one in here:
        point = one.point
        if arms.count(one.curve.arm) > 1 or point.verdict is CriticalPointVerdict.NO_DATA:
            continue
        hinge = point.hinge
        yield Marks(
            arm=one.curve.arm,
            headline=words.headline(one),
            sentence=words.sentences(one),
            critical=point.critical,
            elbow=hinge.elbow if hinge else None,
            low=hinge.low if hinge else None,
            high=hinge.high if hinge else None,
            certified=point.certified,
            margin=point.margin,
        )


def _readable_traces(
    traces: pd.DataFrame, axes: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Traces for one figure each: all arms; in a sweep, an arm's levels beside the digital arms.

    Yields:
        The arm that a figure is about, "" for all, and its rows.
    """
    if not axes:
        yield "", traces
        return
    swept = set(traces.loc[traces[list(axes)].notna().any(axis=1), "arm"])
    without = traces[~traces["arm"].isin(swept)]
    for arm in summaries.arms_of(traces[traces["arm"].isin(swept)]):
        rows = traces[traces["arm"] == arm]
        if len(rows[list(axes)].drop_duplicates()) <= MAX_LINES:
            yield arm, pd.concat([without, rows], ignore_index=True)


def _add_trace_figures(section: Section, traces: pd.DataFrame, arm: str) -> None:
    whose = f", {arm_label(arm)}" if arm else ""
    suffix = f"-{slug(arm)}" if arm else ""
    label = plots.error_label(traces)
    title = f"{label.partition(' (')[0].capitalize()} per epoch{whose}"
    section.charts.append(charts.trace_chart(traces, title=title, y_label=label))
    section.figures[f"traces{suffix}"] = partial(plots.error_traces, traces, label=label)
    # Only analog arms have cells; of a sweep, only the arm's own are of interest here.
    moved = traces[traces["weights_changed_mean"].notna()]
    if arm:
        moved = moved[moved["arm"] == arm]
    if not moved["weights_changed_mean"].any():
        return
    label = "cells changed since epoch 0 (%)"
    title = f"Analog cells changed per epoch{whose}"
    section.charts.append(
        charts.trace_chart(
            moved, quantity="weights_changed", title=title, y_label=label, scale=100.0
        )
    )
    section.figures[f"moved{suffix}"] = partial(
        plots.error_traces, moved, quantity="weights_changed", label=label, scale=100.0
    )


_LAYER_TITLES = {
    "weights_changed": "Cells changed by fine-tuning",
    "relative_error": "Programming error after conversion",
}


def _add_layers(section: Section) -> None:
    name, axes = section.run.run.name, section.run.axes
    rows, parts = section.run.layers, section.run.stages
    if parts["weights_changed_mean"].notna().any() and (parts["layers"] > 1).any():
        section.more_tables.append(tables.stages_table(parts, experiment=name))
    section.more_tables.append(tables.layers_table(rows, experiment=name))
    if rows["layer"].nunique() < 2:
        return  # one array is no network: its numbers are in the other figures
    for quantity, title in _LAYER_TITLES.items():
        if rows[f"{quantity}_mean"].isna().all():
            continue
        if not axes:
            section.layer_charts.append(charts.layer_chart(rows, quantity, title))
            section.figures[f"layers-{slug(quantity)}"] = partial(plots.layer_bars, rows, quantity)
        elif len(axes) == 1:
            arms = summaries.arms_of(rows[rows[axes[0]].notna()])
            if "analog-tl" in arms:
                arms = [arm for arm in arms if arm != "frozen-array"]  # programmed alike, and still
            for arm in arms:
                mine = rows[rows["arm"] == arm]
                if mine[f"{quantity}_mean"].fillna(0).eq(0).all():
                    continue  # frozen arrays do not move: an empty map says nothing
                whose = f"{title}, {arm_label(arm)}"
                section.layer_charts.append(charts.layer_map(mine, arm, axes[0], quantity, whose))
                stem = f"layers-{slug(quantity)}-{slug(arm)}"
                section.figures[stem] = partial(plots.layer_map, mine, arm, axes[0], quantity)


def slug(text: str) -> str:
    """A file name or anchor: letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "run"
