"""The tables of runs: for each a list of columns, of which those with values are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.critical_point import JudgedCurve, points_frame
from analogtl.analysis.curves import metric_in
from analogtl.analysis.findings import JudgedFinding, findings_frame
from analogtl.config.retention import time_text
from analogtl.report import words
from analogtl.report.tables import Column, Table, level_columns
from analogtl.vocabulary import CriticalPointVerdict, Metric, label_of

AXES: Final = "AXES"  # in a table's list: a column for each axis

COLUMNS: Final = {
    column.key: column
    for column in (
        Column("arm", "arm", kind="arm"),
        Column("experiment", "experiment", if_varied=True),
        Column("at", "at"),
        Column("verdict", "verdict"),
        Column("share_on_arrays", "weights on arrays", "%", "number", scale=100),
        Column("trained_cells", "cells trained", kind="count"),
        Column("trained_digital", "digital trained", kind="count"),
        Column("dataset", "data set"),
        Column("training", "training", kind="count"),
        Column("validation", "validation", kind="count"),
        Column("test", "test", kind="count"),
        Column("left_out", "files left out"),
        Column("n", "n", kind="count"),
        Column("seed", "seed", kind="count"),
        Column("class_set", "classes"),
        Column("n_blocks", "blocks", kind="count"),
        Column("status", "status"),
        Column("lr", "learning rate", kind="level", if_varied=True),
        Column("error_transfer", "error at epoch 0", "%", "number"),
        Column("error_judged", "judged error", "%", "number"),
        Column("error_final", "final error", "%", "number"),
        Column("error_best", "best error", "%", "number"),
        Column("balanced_error_final", "balanced error, last epoch", "%", "number"),
        Column("epoch_best", "best epoch", kind="count"),
        Column("error_validation", "validation error", "%", "number", digits=2),
        Column("perplexity", "perplexity", kind="number", digits=2),
        Column("metric", "metric", if_varied=True),
        Column("frechet_distance", "Fréchet distance", kind="number"),
        Column("in_classes", "drawn in the classes", "%", "number", scale=100),
        Column("noise_share", "noise in the variance", "%", "number", scale=100),
        Column("loss", "denoising loss", kind="number", digits=3),
        Column("weights_changed", "cells changed", "%", "number", scale=100),
        Column(
            "symmetry_point",
            "symmetry point, from the top",
            "% of the range",
            "share",
            scale=100,
            essential=False,
            if_varied=True,
        ),
        Column(
            "symmetry_spread",
            "its spread over devices",
            "% of the range",
            "share",
            scale=100,
            essential=False,
            if_varied=True,
        ),
        Column("wall_s", "time per trial", kind="duration", essential=False),
        Column("engine", "engine"),
        Column("message", "message"),
        Column("lrs", "tried"),
        Column("settings_kept", "settings chosen"),
        Column("tried", "candidates", kind="count"),
        Column("lead", "better than the next by", "points", "number"),
        Column("resolution", "resolution", "points", "number"),
        Column("edge", "at the edge of what was tried"),
        Column("kept", "kept", kind="level"),
        Column("n_blocks_compared", "blocks compared", kind="count"),
        Column("how", "how", if_varied=True),
        Column("axis_label", "axis"),
        Column("unfit", "why unfit"),
        Column("critical", "no harm shown up to", kind="level"),
        Column("first_worse", "worse from", kind="level"),
        Column("elbow", "bend", kind="number"),
        Column("elbow_low", "bend from", kind="number"),
        Column("elbow_high", "bend to", kind="number"),
        Column("certified", "certified to", kind="level"),
        Column("shared_with", "reference shared with", essential=False),
        Column("margin", "margin", "points", kind="level", essential=False),
        Column("statement", "finding"),
        Column("n_classes", "classes", kind="count"),
        Column("estimate", "estimate", kind="number"),
        Column("low", "from", kind="number"),
        Column("high", "to", kind="number"),
        Column("unit", "unit"),
        Column("source", "source", essential=False),
        Column("figure", "figure", essential=False),
        Column("layer", "layer"),
        Column("shape", "shape", essential=False),
        Column("tiles", "tiles", kind="count", essential=False),
        Column("tokens_per_image", "vectors per example", kind="count", essential=False),
        Column("granularity", "granularity", kind="level", essential=False),
        Column("relative_error", "programming error", "%", "number", scale=100),
        Column("share_clipped", "clipped", "%", "number", scale=100, essential=False),
        Column("rms_change", "rms change", "% of the range", "number", digits=2, scale=100),
        Column("noise_changed", "changed by noise alone", "%", "number", digits=2, scale=100),
        Column("noise_walk", "rms by noise alone", "% of the range", "number", digits=2, scale=100),
        Column("a_up_mean", "pulses on A up, mean", kind="number", essential=False),
        Column("a_up_max", "pulses on A up, max", kind="number", essential=False),
        Column("a_down_mean", "pulses on A down, mean", kind="number", essential=False),
        Column("a_down_max", "pulses on A down, max", kind="number", essential=False),
        Column("c_up_mean", "pulses on C up, mean", kind="number", essential=False),
        Column("c_up_max", "pulses on C up, max", kind="number", essential=False),
        Column("c_down_mean", "pulses on C down, mean", kind="number", essential=False),
        Column("c_down_max", "pulses on C down, max", kind="number", essential=False),
        Column("stage", "stage"),
        Column("layers", "layers", kind="count"),
        Column("cells", "cells", kind="count"),
        Column("after", "time after training"),
        Column("error", "error", "%", "number"),
        Column("repeats_sd", "spread of repeats", "%", "number", digits=2),
        Column("trial", "trial"),
        Column("state", "state"),
    )
}
_GAPS: Final = ("margin", "lead", "resolution")  # differences of errors
ERRORS: Final = ("error_transfer", "error_judged", "error_final", "error_best")
BALANCED: Final = "balanced_error_final"  # which only imbalanced classes have
OUTCOMES: Final = (
    "arm", AXES, "symmetry_point", "symmetry_spread", "share_on_arrays", "trained_cells",
    "trained_digital", "lr", "n", *ERRORS, BALANCED, "perplexity", "frechet_distance", "in_classes",
    "weights_changed", "wall_s",
)  # fmt: skip
AGES: Final = ("arm", AXES, "after", "n", "error", "repeats_sd")
LEARNING_RATES: Final = (
    "arm", AXES, "lrs", "kept", "error_validation", "n_blocks_compared", "how",
)  # fmt: skip
TUNING: Final = (
    "arm", AXES, "settings_kept", "tried", "n_blocks_compared", "error_validation", "lead",
    "resolution", "edge", "how",
)  # fmt: skip
CRITICAL_POINTS: Final = (
    "experiment", "arm", "axis_label", "at", "verdict", "unfit", "critical", "first_worse", "elbow",
    "elbow_low", "elbow_high", "certified", "margin", "n_blocks", "shared_with",
)  # fmt: skip
FINDINGS: Final = (
    "statement", "n_classes", "experiment", "at", "verdict", "estimate", "low", "high", "unit",
    "n_blocks", "source", "figure",
)  # fmt: skip
LAYERS: Final = (
    "layer", "arm", AXES, "shape", "tiles", "tokens_per_image", "granularity", "n",
    "relative_error", "share_clipped", "weights_changed", "noise_changed", "rms_change",
    "noise_walk",
)  # fmt: skip
WEAR: Final = ("layer", "arm", AXES, "n", *summaries.LAYER_QUANTITIES[2:])
STAGES: Final = ("stage", "arm", AXES, "layers", "cells", "n", "weights_changed")
TRIALS: Final = (
    "experiment", "arm", AXES, "lr", "seed", "class_set", "status", "metric", *ERRORS, "epoch_best",
    "error_validation", "weights_changed", "wall_s", "engine", "message",
)  # fmt: skip
IMAGES: Final = (
    "stage", "dataset", "n_classes", "training", "validation", "test", "left_out",
)  # fmt: skip
NOISE: Final = ("noise_share", "arm", AXES, "n", "loss")
UNFINISHED: Final = ("experiment", "trial", "state", "message")

SPREAD_NOTE: Final = "Mean ± sample standard deviation over n trials."
RATE_NOTE: Final = "At each level the learning rate with the lowest validation error."


def _table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    names: Sequence[str],
    note: str = "",
    *,
    axes: Sequence[str] = (),
    whole: pd.DataFrame | None = None,
    metric: Metric | None = Metric.ERROR,
) -> Table:
    """A table of those columns that the frame has values for; None for several metrics."""
    levels = level_columns(frame, axes)
    listed = [one for name in names for one in (levels if name == AXES else [COLUMNS[name]])]
    kept = tuple(measured(column, metric) for column in listed if column.is_needed(frame))
    return Table(name, title, frame, kept, note, whole=whole)


def measured(column: Column, metric: Metric | None) -> Column:
    """The column with the unit and the digits of a metric, where it holds one."""
    if metric and metric.is_percent:
        return column
    digits = metric.decimals if metric else 3
    if column.key in _GAPS:
        return replace(column, unit=metric.gap if metric else "", digits=digits)
    if column.key not in (*ERRORS, "error_validation", "error", "repeats_sd"):
        return column
    return replace(column, unit=metric.unit if metric else "", digits=digits)


def outcomes_table(
    levels: pd.DataFrame,
    *,
    judged: str = "last epoch",
    several_rates: bool = False,
    untuned: Sequence[str] = (),
    metric: Metric = Metric.ERROR,
) -> Table:
    """Error per arm and level, from `summaries.levels`.

    Args:
        judged: What the judged error is, in words.
        several_rates: Whether learning rates were chosen from.
        untuned: Axes whose levels are compared without having been tuned.
    """
    axes = summaries.axis_columns(levels)
    title = metric.label.capitalize()
    if metric is Metric.CROSS_ENTROPY:
        levels = levels.assign(perplexity=np.exp(levels["error_judged_mean"].astype(float)))
    title += f" against {' and '.join(map(label_of, axes))}" if axes else " per arm"
    note = f"{SPREAD_NOTE} Judged error: {judged}." + (f" {RATE_NOTE}" if several_rates else "")
    note += f" {words.not_tuned(untuned, rates=several_rates)}" if untuned else ""
    # One epoch is judged: then the final error is the judged one.
    names = [one for one in OUTCOMES if one != "error_final" or judged != "last epoch"]
    return _table("outcomes", title, levels, names, note, axes=axes, metric=metric)


def noise_table(losses: pd.DataFrame) -> Table:
    """Held-out loss by the share of noise, from `analogtl.analysis.denoising.by_noise`."""
    title = "Denoising loss by the share of noise"
    axes = summaries.axis_columns(losses.drop(columns="noise_share"))
    losses = losses.sort_values("noise_share", kind="stable")
    return _table("noise", title, losses, NOISE, SPREAD_NOTE, axes=axes)


def learning_rates_table(choices: pd.DataFrame, axes: Sequence[str], metric: Metric) -> Table:
    """Which learning rates were tried at each level and which was kept."""
    shown, title = choices.assign(kept=choices["lr"]), "Learning rates tried and kept"
    how: Any = {"axes": axes, "whole": choices, "metric": metric}
    return _table("learning_rates", title, shown, LEARNING_RATES, **how)


def tuning_table(choices: pd.DataFrame, trials: pd.DataFrame, metric: Metric) -> Table:
    """What was chosen for each arm at each level of trials, and how clearly; see `read_tuning`."""
    axes = [axis for axis in summaries.axis_columns(trials) if axis in choices]
    note = (
        "Chosen by the validation error, mean of the judged epochs, on blocks that nothing here is "
        "tested on."
    )
    if choices["resolution"].notna().any():
        note += (
            " Resolution: standard error of the difference of two such errors; a smaller lead is "
            "none."
        )
    shown = choices.rename(columns={"kept": "settings_kept"})
    title = "Settings chosen on validation data"
    how: Any = {"axes": axes, "whole": choices, "metric": metric}
    return _table("tuning_choices", title, shown, TUNING, note, **how)


def critical_points_table(
    judged: Sequence[JudgedCurve], metric: Metric | None = Metric.ERROR
) -> Table:
    """The critical points of curves."""
    points = points_frame(judged).assign(
        unfit=[words.unfit_text(one) for one in judged],
        headline=[words.headline(one) for one in judged],
        sentence=[words.sentences(one) for one in judged],
    )
    told = points[points["verdict"] != CriticalPointVerdict.NO_DATA]
    frame = told.assign(axis_label=[label_of(str(axis)) for axis in told["axis"]])
    explained = {
        "critical": "No harm shown up to: the critical point, the harshest level that was not "
        "shown to be worse than none.",
        "elbow": "Bend: where a flat-then-linear fit bends, with its interval.",
        "certified": "Certified: harshest level up to which all are shown to cost less than the "
        "margin.",
    }
    notes = [text for key, text in explained.items() if frame[key].notna().any()]
    if frame["verdict"].eq(CriticalPointVerdict.UNFIT_REFERENCE).any():
        notes.append(
            "Unfit reference: it is not shown to beat its control, or some level is shown to be "
            "better by the margin or more; then nothing is said of the levels."
        )
    if len(frame):
        notes.append(f"Judged by: {'; '.join(frame['judged_by'].unique())}.")
    if untold := len(points) - len(told):
        notes.append(f"Curves without enough data: {untold}.")
    how: Any = {"whole": points, "metric": metric}
    return _table(
        "critical_points", "Critical points", frame, CRITICAL_POINTS, " ".join(notes), **how
    )


def findings_table(judged: Sequence[JudgedFinding]) -> Table:
    """Findings and what the runs say.

    Shows the rows of findings that some run can speak to; the CSV file has them all.
    """
    findings = findings_frame(judged)
    findings.insert(1, "statement", [words.statement(one.finding) for one in judged])
    findings.insert(2, "published", [words.published(one.finding) for one in judged])
    findings.insert(9, "says", [words.says(one) for one in judged])
    findings["note"] = [words.movement(one) for one in judged]
    frame = findings[findings["experiment"] != ""]
    note = (
        "Estimate: difference of two arms, critical level, or largest rise, with its interval. "
        "Not enough data: the runs neither show the finding nor the contrary."
    )
    if len(frame):
        note += f" Judged by: {'; '.join(frame['judged_by'].unique())}."
    if silent := findings["finding"].nunique() - frame["finding"].nunique():
        note += f" Findings without a run here: {silent}."
    title = "Findings and what these runs say"
    table = _table("findings", title, frame, FINDINGS, note, whole=findings)
    digits = max((one.metric.decimals for one in judged if one.experiment), default=1)
    columns = [
        replace(one, digits=digits) if one.key in ("estimate", "low", "high") else one
        for one in table.columns
    ]
    return replace(table, columns=tuple(columns))


def ages_table(ages: pd.DataFrame, model: str, metric: Metric) -> Table:
    """Error a while after training, from `summaries.ages`."""
    note = f"{SPREAD_NOTE} Of a trial counts the mean of its repeats. Noise model: {model}."
    axes, title = summaries.axis_columns(ages), f"{metric.label.capitalize()} after training"
    shown = ages.assign(after=[time_text(time) for time in ages["time"]])
    how: Any = {"axes": axes, "whole": ages, "metric": metric}
    return _table("ages", title, shown, AGES, note, **how)


def layers_table(layers: pd.DataFrame) -> Table:
    """What was programmed and what moved per layer, from `summaries.layers`."""
    note = f"{SPREAD_NOTE} Programming error: relative L2 error of the layer's weights."
    axes = summaries.axis_columns(layers)
    return _table("layer_summary", "Layers", layers, LAYERS, note, axes=axes)


def wear_table(layers: pd.DataFrame) -> Table:
    """How often the cells of each layer were pulsed, beside how far they moved."""
    note = f"{SPREAD_NOTE} Pulses of a cell in fine-tuning; the fast engine counts them."
    axes = summaries.axis_columns(layers)
    return _table("wear", "Pulses", layers, WEAR, note, axes=axes)


def stages_table(stages: pd.DataFrame) -> Table:
    """What moved in each part of the network, from `summaries.stages`."""
    note = f"{SPREAD_NOTE} All layers of a stage taken together."
    axes = summaries.axis_columns(stages)
    return _table("stage_summary", "Stages", stages, STAGES, note, axes=axes)


def trials_table(trials: pd.DataFrame) -> Table:
    """Every trial with its outcome, by arm, level, learning rate and seed."""
    axes = summaries.axis_columns(trials)
    keys = [axis for axis in axes if summaries.is_numeric(trials[axis])]
    ordered = summaries.in_arm_order(trials.sort_values([*keys, "lr", "seed"], kind="stable"))
    place = {name: number for number, name in enumerate(trials["experiment"].unique())}
    ordered = ordered.sort_values("experiment", key=lambda c: c.map(place), kind="stable")
    metrics = {metric_in(rows) for _, rows in ordered.groupby("experiment", dropna=False)}
    metric = metrics.pop() if len(metrics) == 1 else None
    return _table("trials", "Every trial", ordered, TRIALS, axes=axes, metric=metric)


def images_table(images: Mapping[str, Any]) -> Table:
    """The images that each stage uses, from a run's ``data.json``."""
    rows = [
        {
            "stage": stage,
            "dataset": one.get("dataset"),
            "n_classes": len(one.get("classes", ())),
            **{
                name: sum(counts.get(split, 0) for counts in one.get("classes", ()))
                for name, split in _SPLITS.items()
            },
            "left_out": ", ".join(f"{n} {why}" for why, n in one.get("left_out", {}).items()),
        }
        for stage in ("pretrain", "finetune")
        for one in images.get(stage, ())
    ]
    return _table("images", "Examples that the stages use", pd.DataFrame(rows), IMAGES)


_SPLITS: Final = {"training": "train", "validation": "validation", "test": "test"}


def unfinished_table(unfinished: pd.DataFrame) -> Table:
    """Trials that failed or are missing; columns experiment, trial, state, message."""
    return _table("unfinished", "Trials that failed or are missing", unfinished, UNFINISHED)
