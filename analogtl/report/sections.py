"""What each run comes to on paper and page: its tables, its figures, and the words for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pandas as pd

from analogtl.analysis import denoising, summaries
from analogtl.analysis.analyse import RunAnalysis
from analogtl.analysis.blocks import MIN_BLOCKS
from analogtl.analysis.critical_point import CriticalPoint, JudgedCurve
from analogtl.analysis.curves import setting
from analogtl.analysis.findings import GRADIENTS_TEACH, judge_findings
from analogtl.analysis.judged import epochs_text
from analogtl.report import cost_tables, figures, run_tables, words
from analogtl.report.cost_figure import cost_bars, names_of
from analogtl.report.drawing import Draw, Drawn
from analogtl.report.figures import QUANTITY
from analogtl.report.layer_effects import layer_effects_table, layer_figure, parts_of, sentences
from analogtl.report.samples import MAX_PANELS, samples_figure
from analogtl.report.style import MAX_LINES
from analogtl.report.tables import Table
from analogtl.vocabulary import (
    PER_LAYER,
    RUN_AXIS,
    Arm,
    CriticalPointVerdict,
    FindingVerdict,
    Metric,
    arm_label,
    label_of,
)

About = Literal["errors", "layers", "costs"]
MAX_BARS = 40  # of arms and levels in the figure of costs


@dataclass(frozen=True)
class FigureSpec:
    """A figure that is not drawn yet: drawing is slow, so only on demand.

    Attributes:
        stem: Of its files.
        title: What it shows.
        about: What the page groups it by.
    """

    stem: str
    title: str
    draw: Draw
    about: About = "errors"


def _of_arm(arm: str, stem: str, title: str, draw: Draw, about: About = "errors") -> FigureSpec:
    """A figure about one arm, which its stem and title name; about all of them where that is ""."""
    if not arm:
        return FigureSpec(stem, title, draw, about)
    return FigureSpec(f"{stem}-{slug(arm)}", f"{title}, {arm_label(arm)}", draw, about)


@dataclass(frozen=True)
class Section:
    """What one run comes to.

    Attributes:
        tables: The tables everybody wants.
        more_tables: Long tables about learning rates and layers.
        cost_tables: What training costs, where that is known.
        words: What the statistics say.
        limits: What a reader must know of the numbers before.
        drawn: What became of each figure, as soon as they are drawn.
    """

    run: RunAnalysis
    tables: list[Table] = field(default_factory=list)
    more_tables: list[Table] = field(default_factory=list)
    cost_tables: list[Table] = field(default_factory=list)
    figures: list[FigureSpec] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)

    @property
    def all_tables(self) -> list[Table]:
        """Every table of the run."""
        return [*self.tables, *self.cost_tables, *self.more_tables]

    def drawn_about(self, about: str) -> list[tuple[FigureSpec, Drawn]]:
        """The figures of one group."""
        pairs = zip(self.figures, self.drawn, strict=True)
        return [(spec, drawn) for spec, drawn in pairs if spec.about == about]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.run.name


def section_of(run: RunAnalysis, *, plain: bool = False) -> Section:
    """Everything that one run comes to.

    Args:
        plain: Whether figures are drawn without the critical points.
    """
    section = Section(run)
    if run.trials.empty:
        return section
    _add_tables(section)
    _add_words(section)
    section.figures.extend(_level_figures(run, plain=plain))
    section.figures.extend(_trace_figures(run))
    section.figures.extend(_age_figures(run))
    if run.error is Metric.DENOISING:
        _add_denoising(section)
    _add_layer_effects(section)
    section.figures.extend(_layer_figures(run))
    _add_costs(section)
    for listed in (section.tables, section.more_tables, section.cost_tables):
        listed[:] = [replace(table, experiment=section.name) for table in listed]
    return section


def _add_layer_effects(section: Section) -> None:
    run = section.run
    if run.layer_effects.empty:
        return
    judged = (run.error, run.alpha)
    section.tables.append(layer_effects_table(run.layer_effects, *judged))
    parts = list(parts_of(run.layer_effects, run.run.setting("per_layer", "settings")))
    for number, part in enumerate(parts):
        section.words.extend(sentences(part, *judged))
        stem = f"per-layer-{number + 1}" if len(parts) > 1 else "per-layer"
        title = f"Which layers hurt: {', '.join(filter(None, (part.settings, part.at)))}"
        if part.effects["excess"].notna().any():
            section.figures.append(FigureSpec(stem, title, partial(layer_figure, part, *judged)))


def _add_costs(section: Section) -> None:
    costs = section.run.costs
    if costs is None:
        return
    tables = (cost_tables.arms_table, cost_tables.terms_table, cost_tables.layers_table)
    section.cost_tables.extend(table(costs) for table in tables)
    if costs.totals["energy"].gt(0).any() and len(costs.totals) <= MAX_BARS:
        draw = partial(cost_bars, costs.totals, names_of(costs, costs.totals), "arm")
        section.figures.append(FigureSpec("costs", "Energy of training", draw, "costs"))
    arms = [] if costs.axes else summaries.arms_of(costs.layers)
    for arm in arms:
        rows = costs.layers[costs.layers["arm"] == arm]
        if len(rows) > 1 and rows["pulses"].gt(0).any() and rows["energy"].gt(0).all():
            draw = partial(cost_bars, rows, rows["layer"].tolist(), "layer")
            title = "Energy of training by layer"
            section.figures.append(_of_arm(arm, "costs-layers", title, draw, "costs"))


def _add_tables(section: Section) -> None:
    run = section.run
    section.tables.append(
        run_tables.outcomes_table(
            run.levels,
            judged=epochs_text(run.trials),
            several_rates=run.several_rates,
            untuned=run.run.untuned,
            metric=run.error,
        )
    )
    if run.run.images.get("pretrain") or run.run.images.get("finetune"):
        section.tables.append(run_tables.images_table(run.run.images))
    if len(run.ages):
        model = str(run.run.setting("evaluate", "noise_model"))
        section.tables.append(run_tables.ages_table(run.ages, model, run.error))
    if any(map(_is_told, run.curves)):
        section.tables.append(run_tables.critical_points_table(run.curves, run.error))
    if not run.run.tuning.empty:
        section.more_tables.append(run_tables.tuning_table(run.run.tuning, run.levels, run.error))
    if run.several_rates:
        choices = run.run.chosen.choices
        section.more_tables.append(run_tables.learning_rates_table(choices, run.axes, run.error))
    if run.layers.empty:
        return
    if run.stages["weights_changed_mean"].notna().any() and (run.stages["layers"] > 1).any():
        section.more_tables.append(run_tables.stages_table(run.stages))
    section.more_tables.append(run_tables.layers_table(run.layers))
    if "a_up_mean_mean" in run.layers and run.layers["a_up_mean_mean"].notna().any():
        section.more_tables.append(run_tables.wear_table(run.layers))


def _add_denoising(section: Section) -> None:
    """The loss by the share of noise, and what the networks draw."""
    run, metric = section.run.run, section.run.error
    losses = denoising.by_noise(run)
    if len(losses):
        section.more_tables.append(run_tables.noise_table(losses))
        how: Any = {"along": "noise_share", "quantity": "loss"}
        how |= {"label": metric.axis, "metric": metric}
        axes = [axis for axis in summaries.axis_columns(losses) if axis != "noise_share"]
        for arm, rows in _readable_traces(losses, axes):
            title = f"{metric.label.capitalize()} by the share of noise"
            draw = partial(figures.error_traces, rows, **how)
            section.figures.append(_of_arm(arm, "noise", title, draw))
    drawn = denoising.samples(run)
    if 0 < len(drawn) <= MAX_PANELS:
        draw = partial(samples_figure, drawn)
        section.figures.append(FigureSpec("samples", "Samples drawn", draw))


def _limits(run: RunAnalysis) -> Iterator[str]:
    """What a reader must know of the numbers: what they mix, and what is not on arrays."""
    yield from run.run.notes
    if run.run.untuned:
        yield f"Limit: {words.not_tuned(run.run.untuned, rates=run.several_rates)}"
    yield from words.tuning_limits(run.run.tuning)
    for arm, rows in run.levels.groupby("arm", sort=False):
        if shares := summaries.shares_of(rows):
            yield (
                f"Limit: of its network's weights, {arm_label(str(arm))} has "
                f"{summaries.share_text(shares)}; the others are digital and without noise."
            )
    yield from _lost_in_noise(run)


def _lost_in_noise(run: RunAnalysis) -> Iterator[str]:
    """Where the arrays moved no further than noise alone, unless a control shows that they learned.

    How far they moved does not tell where to; how they fare against shuffled gradients does.
    """
    lost = summaries.lost_in_noise(run.layers)
    controls = {
        one.at: one.verdict
        for one in ([] if lost.empty else judge_findings([run], published=False))
        if one.finding is GRADIENTS_TEACH and one.n_blocks >= MIN_BLOCKS
    }
    axes = summaries.axis_columns(run.layers)
    for row in lost.to_dict("records"):
        of_arm = controls if row["arm"] == Arm.ANALOG_TL else {}
        verdict = of_arm.get(setting({axis: row[axis] for axis in axes}))
        if verdict is FindingVerdict.HOLDS:
            continue
        learned = "did not learn: with shuffled gradients they are not shown to be worse"
        if verdict is None:
            learned = "may not have learned"
            if row["arm"] == Arm.ANALOG_TL:
                learned += (
                    f": {MIN_BLOCKS} blocks (a seed and a set of classes) or more of the arm "
                    f"{Arm.SHUFFLED_GRADIENTS} would tell"
                )
        at = ", ".join(f"{label_of(axis)} {summaries.level_text(axis, row[axis])}" for axis in axes)
        yield (
            f"Limit: {arm_label(row['arm'])}{f' at {at}' if at else ''}: the weights moved "
            f"{100 * row['rms_change']:.2g} % of their range, rms, where noise alone was to move "
            f"them {100 * row['noise_walk']:.2g} %. The arrays {learned}."
        )


def _add_words(section: Section) -> None:
    section.limits.extend(_limits(section.run))
    told = [one for one in section.run.curves if _is_told(one)]
    several = len({one.curve.experiment for one in told}) > 1
    for one in told:
        whose = f"{one.curve.experiment}, " if several else ""
        section.words.append(f"{whose}{words.curve_name(one.curve)}: {words.sentences(one)}")
    if untold := len(section.run.curves) - len(told):
        section.words.append(f"Curves without enough data for a critical point: {untold}.")


def _is_told(one: JudgedCurve) -> bool:
    return one.point.verdict is not CriticalPointVerdict.NO_DATA


# ------------------------------------------------------------------------------------ levels


def _level_figures(run: RunAnalysis, *, plain: bool) -> Iterator[FigureSpec]:
    """Error against each axis; where its lines are too many, over two axes as a map."""
    drawn = False
    for axis in run.axes:
        others = [other for other in run.axes if other != axis]
        if axis == PER_LAYER or (axis == RUN_AXIS and others):
            continue
        if len(summaries.series(run.levels, axis, QUANTITY, others)) > MAX_LINES:
            continue
        points = {} if plain else _points(run.curves, axis)
        draw = partial(figures.error_vs_level, run.levels, run.trials, axis, points)
        title = f"{run.error.label.capitalize()} against {label_of(axis)}"
        yield FigureSpec(f"error-{slug(axis)}", title, draw)
        drawn = True
    if drawn or len(run.axes) < 2 or PER_LAYER in run.axes:
        return
    levels = run.levels
    numbers = [axis for axis in run.axes if summaries.is_numeric(levels[axis].dropna())]
    x, y = sorted(numbers or run.axes, key=lambda axis: -levels[axis].nunique())[:2]
    by = [axis for axis in run.axes if axis not in (x, y)]
    rows = levels[levels[x].notna() & levels[y].notna()]
    if len(list(figures.panels_of(rows, by))) <= MAX_LINES:
        title = f"{run.error.label.capitalize()} over {label_of(x)} and {label_of(y)}"
        draw = partial(figures.level_maps, rows, run.trials, x, y, by)
        yield FigureSpec(f"map-{slug(x)}-{slug(y)}", title, draw)


def _points(curves: Sequence[JudgedCurve], axis: str) -> dict[tuple[str, str], CriticalPoint]:
    """What to mark on a figure, by line: where a line has several curves it would be a thicket."""
    here = [one for one in curves if one.curve.axis == axis]
    several = len({one.curve.experiment for one in here}) > 1
    lines = [(one.curve.arm, one.curve.experiment if several else "") for one in here]
    return {
        line: one.point
        for one, line in zip(here, lines, strict=True)
        if lines.count(line) == 1 and _is_told(one)
    }


# ------------------------------------------------------------------------------------ epochs


def _trace_figures(run: RunAnalysis) -> Iterator[FigureSpec]:
    traces = run.traces
    if traces.empty or traces["epoch"].nunique() < 2:
        return
    for arm, rows in _readable_traces(traces, run.axes):
        draw = partial(figures.error_traces, rows, label=run.error.axis, metric=run.error)
        yield _of_arm(arm, "traces", f"{run.error.label.capitalize()} per epoch", draw)
        # Only analog arms have cells; of a sweep, only the arm's own are of interest here.
        changed = rows[rows["weights_changed_mean"].notna()]
        if arm:
            changed = changed[changed["arm"] == arm]
        if changed["weights_changed_mean"].any():
            cells: Any = {"quantity": "weights_changed", "label": "cells changed (%)"}
            draw = partial(figures.error_traces, changed, scale=100.0, **cells)
            yield _of_arm(arm, "changed", "Analog cells changed per epoch", draw)


def _readable_traces(
    traces: pd.DataFrame, axes: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Traces for one figure each: all arms; in a sweep, an arm's levels beside the digital arms.

    Yields:
        The arm that a figure is about, "" for all, and its rows.
    """
    lines = len(traces[["arm", *axes]].drop_duplicates())
    if not axes or (axes == [RUN_AXIS] and lines <= MAX_LINES):
        yield "", traces
        return
    swept = set(traces.loc[traces[list(axes)].notna().any(axis=1), "arm"])
    without = traces[~traces["arm"].isin(swept)]
    for arm in summaries.arms_of(traces[traces["arm"].isin(swept)]):
        rows = traces[traces["arm"] == arm]
        if len(rows[list(axes)].drop_duplicates()) <= MAX_LINES:
            yield arm, pd.concat([without, rows], ignore_index=True)


def _age_figures(run: RunAnalysis) -> Iterator[FigureSpec]:
    """Error against the time after training: all arms, or each arm's levels."""
    ages = run.ages
    if ages.empty or ages["time"].nunique() < 2:
        return
    lines = len(ages[["arm", *run.axes]].drop_duplicates())
    in_one = not run.axes or (run.axes == [RUN_AXIS] and lines <= MAX_LINES)
    for arm in [""] if in_one else summaries.arms_of(ages):
        rows = ages[ages["arm"] == arm] if arm else ages
        if len(rows[["arm", *run.axes]].drop_duplicates()) <= MAX_LINES:
            title = f"{run.error.label.capitalize()} after training"
            yield _of_arm(arm, "ages", title, partial(figures.error_after, rows, run.error))


# ------------------------------------------------------------------------------------ layers

_LAYER_TITLES = {
    "weights_changed": "Cells changed by fine-tuning",
    "relative_error": "Programming error after conversion",
}


def _layer_figures(run: RunAnalysis) -> Iterator[FigureSpec]:
    rows = run.layers
    if rows.empty or rows["layer"].nunique() < 2:
        return  # one array is no network: its numbers are in the other figures
    if PER_LAYER in run.axes:
        return  # of each layer only what it costs matters
    for quantity, title in _LAYER_TITLES.items():
        if rows[f"{quantity}_mean"].isna().all():
            continue
        stem = f"layers-{slug(quantity)}"
        if not run.axes:
            draw = partial(figures.layer_dots, rows, quantity)
            yield FigureSpec(stem, title, draw, "layers")
        elif len(run.axes) == 1:
            (axis,) = run.axes
            arms = summaries.arms_of(rows[rows[axis].notna()])
            if Arm.ANALOG_TL in arms:  # frozen arrays are programmed alike, and do not change
                arms = [arm for arm in arms if arm != Arm.FROZEN_ARRAY]
            for arm in arms:
                mine = rows[rows["arm"] == arm]
                if not mine[f"{quantity}_mean"].fillna(0).any():
                    continue  # an empty map says nothing
                draw = partial(figures.layer_map, mine, axis, quantity)
                yield _of_arm(arm, stem, title, draw, "layers")


def slug(text: str) -> str:
    """A file name or anchor: letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "run"
