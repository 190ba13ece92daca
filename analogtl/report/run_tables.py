"""The tables of runs: for each a list of columns, of which those with values are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.critical_point import JudgedCurve, points_frame
from analogtl.analysis.findings import JudgedFinding, findings_frame
from analogtl.report import words
from analogtl.report.tables import Column, Table
from analogtl.vocabulary import CriticalPointVerdict, error_name, label_of

ARM: Final = Column("arm", "arm", kind="arm")
AXES: Final = Column("", "one column for each axis", kind="level")
EXPERIMENT: Final = Column("experiment", "experiment", if_varied=True)
AT: Final = Column("at", "at")
VERDICT: Final = Column("verdict", "verdict")
N: Final = Column("n", "n", kind="count")
SEEDS: Final = Column("n_seeds", "seeds", kind="count")
LR: Final = Column("lr", "learning rate", kind="level", if_varied=True)
CHANGED: Final = Column("weights_changed", "cells changed", "%", "mean", scale=100)

OUTCOMES: Final = (
    ARM,
    AXES,
    LR,
    N,
    Column("error_transfer", "error at epoch 0", "%", "mean"),
    Column("error_final", "final error", "%", "mean"),
    Column("error_best", "best error", "%", "mean"),
    CHANGED,
    Column("wall_s_mean", "time per trial", kind="duration", essential=False),
)
LEARNING_RATES: Final = (
    ARM,
    AXES,
    Column("lrs", "tried"),
    Column("lr", "kept", kind="level"),
    Column("error_validation", "validation error", "%", "number", digits=2),
    Column("n_seeds_compared", "seeds compared", kind="count"),
    Column("how", "how", if_varied=True),
)
CRITICAL_POINTS: Final = (
    EXPERIMENT,
    ARM,
    Column("axis_label", "axis"),
    AT,
    VERDICT,
    Column("critical", "no harm shown up to", kind="level"),
    Column("first_worse", "worse from", kind="level"),
    Column("elbow", "bend", kind="number"),
    Column("elbow_low", "bend from", kind="number"),
    Column("elbow_high", "bend to", kind="number"),
    Column("certified", "certified to", kind="level"),
    Column("margin", "margin", "points", kind="level", essential=False),
    SEEDS,
)
FINDINGS: Final = (
    Column("statement", "finding"),
    Column("n_classes", "classes", kind="count"),
    Column("experiment", "experiment"),
    AT,
    VERDICT,
    Column("estimate", "estimate", kind="number"),
    Column("low", "from", kind="number"),
    Column("high", "to", kind="number"),
    Column("unit", "unit"),
    SEEDS,
    Column("source", "source", essential=False),
    Column("figure", "figure", essential=False),
)
LAYERS: Final = (
    Column("layer", "layer"),
    ARM,
    AXES,
    Column("shape", "shape", essential=False),
    Column("tiles", "tiles", kind="count", essential=False),
    Column("tokens_per_image", "vectors per image", kind="count", essential=False),
    Column("granularity", "granularity", kind="level", essential=False),
    N,
    Column("relative_error", "programming error", "%", "mean", scale=100),
    Column("share_clipped", "clipped", "%", "mean", scale=100, essential=False),
    CHANGED,
)
STAGES: Final = (
    Column("stage", "stage"),
    ARM,
    AXES,
    Column("layers", "layers", kind="count"),
    Column("cells", "cells", kind="count"),
    N,
    Column("weights_changed", "cells changed", "%", "mean", digits=3, scale=100),
)
TRIALS: Final = (
    EXPERIMENT,
    ARM,
    AXES,
    Column("lr", "learning rate", kind="level"),
    Column("seed", "seed", kind="count"),
    Column("status", "status"),
    Column("error_transfer", "error at epoch 0", "%", "number", digits=2),
    Column("error_final", "final error", "%", "number", digits=2),
    Column("error_best", "best error", "%", "number", digits=2),
    Column("epoch_best", "best epoch", kind="count"),
    Column("error_validation", "validation error", "%", "number", digits=2),
    Column("weights_changed", "cells changed", "%", "number", digits=2, scale=100),
    Column("wall_s", "time", kind="duration"),
    Column("engine", "engine"),
    Column("message", "message"),
)
UNFINISHED: Final = (
    Column("experiment", "experiment"),
    Column("trial", "trial"),
    Column("state", "state"),
    Column("message", "message"),
)

SPREAD_NOTE: Final = "Mean ± sample standard deviation over n seeds."
RATE_NOTE: Final = "At each level the learning rate with the lowest validation error."


def _table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    columns: tuple[Column, ...],
    note: str = "",
    *,
    experiment: str = "",
    axes: Sequence[str] = (),
    whole: pd.DataFrame | None = None,
) -> Table:
    """A table of those columns that the frame has values for."""
    levels = [Column(axis, label_of(axis), kind="level") for axis in axes]
    listed = [one for column in columns for one in (levels if column is AXES else [column])]
    kept = tuple(column for column in listed if column.is_needed(frame))
    return Table(name, title, frame, kept, note, experiment, whole)


def outcomes_table(
    levels: pd.DataFrame, *, experiment: str = "", several_rates: bool = False
) -> Table:
    """Error per arm and level, from `summaries.levels`."""
    axes = summaries.axis_columns(levels)
    title = error_name(levels["arm"]).capitalize()
    title += f" against {' and '.join(map(label_of, axes))}" if axes else " per arm"
    note = SPREAD_NOTE + (f" {RATE_NOTE}" if several_rates else "")
    return _table("outcomes", title, levels, OUTCOMES, note, experiment=experiment, axes=axes)


def learning_rates_table(
    choices: pd.DataFrame, axes: Sequence[str], *, experiment: str = ""
) -> Table:
    """Which learning rates were tried at each level and which was kept."""
    title = "Learning rates tried and kept"
    return _table(
        "learning_rates", title, choices, LEARNING_RATES, experiment=experiment, axes=axes
    )


def critical_points_table(judged: Sequence[JudgedCurve], *, experiment: str = "") -> Table:
    """The critical points of curves."""
    points = points_frame(judged).assign(
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
    if untold := len(points) - len(told):
        notes.append(f"Curves without enough data: {untold}.")
    return _table(
        "critical_points",
        "Critical points",
        frame,
        CRITICAL_POINTS,
        " ".join(notes),
        experiment=experiment,
        whole=points,
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
    if silent := findings["finding"].nunique() - frame["finding"].nunique():
        note += f" Findings without a run here: {silent}."
    title = "Findings and what these runs say"
    return _table("findings", title, frame, FINDINGS, note, whole=findings)


def layers_table(layers: pd.DataFrame, *, experiment: str = "") -> Table:
    """What was programmed and what moved per layer, from `summaries.layers`."""
    note = f"{SPREAD_NOTE} Programming error: relative L2 error of the layer's weights."
    axes = summaries.axis_columns(layers)
    return _table("layer_summary", "Layers", layers, LAYERS, note, experiment=experiment, axes=axes)


def stages_table(stages: pd.DataFrame, *, experiment: str = "") -> Table:
    """What moved in each part of the network, from `summaries.stages`."""
    note = f"{SPREAD_NOTE} All layers of a stage taken together."
    axes = summaries.axis_columns(stages)
    return _table("stage_summary", "Stages", stages, STAGES, note, experiment=experiment, axes=axes)


def trials_table(trials: pd.DataFrame) -> Table:
    """Every trial with its outcome, by arm, level, learning rate and seed."""
    axes = summaries.axis_columns(trials)
    keys = [axis for axis in axes if summaries.is_numeric(trials[axis])]
    ordered = summaries.in_arm_order(trials.sort_values([*keys, "lr", "seed"], kind="stable"))
    place = {name: number for number, name in enumerate(trials["experiment"].unique())}
    ordered = ordered.sort_values("experiment", key=lambda c: c.map(place), kind="stable")
    return _table("trials", "Every trial", ordered, TRIALS, axes=axes)


def unfinished_table(unfinished: pd.DataFrame) -> Table:
    """Trials that failed or are missing; columns experiment, trial, state, message."""
    return _table("unfinished", "Trials that failed or are missing", unfinished, UNFINISHED)
