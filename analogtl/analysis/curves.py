"""The curves of a trials table: test error along one axis, everything else equal."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analogtl.analysis.blocks import MIN_BLOCKS, blocks_of
from analogtl.analysis.judged import epochs_text
from analogtl.analysis.reference import Control
from analogtl.analysis.select_lr import GROUP, Selection
from analogtl.errors import check_known
from analogtl.study.columns import JUDGED, METRICS, axis_columns
from analogtl.vocabulary import AXES, Arm, Metric, metric_of


@dataclass(frozen=True)
class Curve:
    """The trials of one arm along one axis, everything else equal.

    Attributes:
        experiment, arm, algorithm, n_classes: Where they come from; None where unknown.
        at: Levels of the other axes that the arm varies, ``n_states=20``; "" for none.
        direction: "up" if the levels lie above the reference, "down" if below.
        reference: The level that the others are compared with.
        trials: Names of the finished trials.
        levels, blocks, errors: One per trial; failed ones are included, with an error of NaN.
        judged_by: What the error is, in words.
        class_sets: Sets of classes that the blocks are made of; 0 if they are seeds alone.
        control: What training at the reference has to beat; None where nobody can say.
        at_reference: What tells the trials at the reference from others: block and key or outcome.
        weights_changed: Mean share of the analog cells that changed, 0..1; None if unknown.
        error: What the errors are.
    """

    experiment: str
    arm: str
    algorithm: str | None
    n_classes: int | None
    axis: str
    at: str
    direction: str
    reference: float
    trials: tuple[str, ...]
    levels: tuple[float, ...]
    blocks: tuple[str, ...]
    errors: tuple[float, ...]
    judged_by: str
    class_sets: int
    control: Control | None
    at_reference: frozenset[tuple[str, str]]
    weights_changed: float | None
    error: Metric = Metric.ERROR

    @property
    def name(self) -> str:
        """The run and the axis."""
        return f"{self.experiment} ({self.axis})"

    @property
    def scale(self) -> Literal["linear", "reciprocal"]:
        """The scale on which harm may be linear."""
        return "reciprocal" if self.axis in AXES and AXES[self.axis].reciprocal else "linear"


def curves(chosen: Selection, *, metric: str = JUDGED) -> Iterator[Curve]:
    """Every curve of the chosen trials, of any number of experiments.

    An axis whose levels are not numbers has no order and so no curve. Of an axis that is not in the
    registry nobody has said which way it harms, so it must have a level at zero.

    Args:
        chosen: The trials at the learning rate that suits each level best.
        metric: Column of the test error, percent.

    Raises:
        ExperimentError: If the trials have no such column.
    """
    check_known("metric", [metric], [one for one in METRICS if one in chosen.rows])
    table = chosen.with_failed(metric)
    axes = axis_columns(table.columns)
    is_frozen = table["arm"] == Arm.FROZEN_ARRAY
    for (experiment, _, _, n_classes), arm in table.groupby(list(GROUP), dropna=False, sort=True):
        levels = {"experiment": experiment, "n_classes": n_classes}
        frozen = table[is_frozen & equal_at(table, levels)]
        for axis in axes:
            level = pd.to_numeric(arm[axis], errors="coerce")
            if level.nunique() < 2 or (level.isna() & arm[axis].notna()).any():
                continue
            varied = arm[level.notna()].assign(**{axis: level[level.notna()]})
            others = [a for a in axes if a != axis and varied[a].nunique(dropna=False) > 1]
            if not others:
                yield from _sides(varied, axis, "", metric, frozen)
                continue
            for at, group in varied.groupby(others, dropna=False, sort=True):
                levels = dict(zip(others, at, strict=True))
                same = frozen[equal_at(frozen, levels)]
                yield from _sides(group, axis, setting(levels), metric, same)


References = Mapping[tuple[str, frozenset[tuple[str, str]]], Sequence[str]]
"""Arm and trials at a reference level -> the curves that start there."""


def references(runs: Iterable[Selection]) -> References:
    """Which curves of all these runs have the same trials at their reference level."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[str]] = {}
    for chosen in runs:
        for curve in curves(chosen):
            found.setdefault((curve.arm, curve.at_reference), []).append(curve.name)
    return found


def shared_with(curve: Curve, known: References) -> tuple[str, ...]:
    """The other curves that start from the same trials.

    They are no independent evidence: a reference that is bad by chance makes all look harmless.
    """
    names = known.get((curve.arm, curve.at_reference), ()) if curve.at_reference else ()
    return tuple(dict.fromkeys(name for name in names if name != curve.name))


def equal_at(table: pd.DataFrame, levels: Mapping[str, Any]) -> pd.Series[bool]:
    """Which rows have these values; a missing one equals a missing one."""
    here = pd.Series(True, index=table.index)
    for name, value in levels.items():
        here &= table[name].isna() if pd.isna(value) else table[name].eq(value).fillna(False)
    return here


def setting(levels: Mapping[str, object]) -> str:
    """Levels of axes in words, ``wtn=5, n_states=20``; axes that do not apply are left out."""
    return ", ".join(
        f"{axis}={level:g}" if isinstance(level, (int, float)) else f"{axis}={level}"
        for axis, level in levels.items()
        if level is not None and level == level  # NaN is not itself
    )


def reference_level(axis: str, levels: pd.Series[float]) -> float | None:
    """The level of an axis that stands for "none of it", among these; None if nobody can say."""
    if axis in AXES and AXES[axis].harsher_below:
        return float(levels.max())
    if (levels == 0).any():
        return 0.0
    return float(levels.min()) if axis in AXES else None


def mean_share(shares: pd.Series[float]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = shares.astype(float).dropna()
    return float(np.mean(known)) if len(known) else None


def _sides(
    group: pd.DataFrame, axis: str, at: str, metric: str, frozen: pd.DataFrame
) -> Iterator[Curve]:
    """The curve above the reference and the one below, as far as they exist.

    Args:
        group: The trials of one arm, equal but for the axis.
        frozen: The trials of the frozen arrays at these levels of the other axes.
    """
    reference = reference_level(axis, group[axis])
    if reference is None:
        return
    group = group.assign(block=blocks_of(group))
    for direction in ("up", "down"):
        side = group[axis] >= reference if direction == "up" else group[axis] <= reference
        # A trial that appears twice (two copies of one run) is one trial.
        rows = group[side].drop_duplicates([axis, "block"])
        if rows[axis].nunique() < 2:
            continue
        first = rows.iloc[0]
        done = rows[rows[metric].notna()]
        here = done[done[axis] == reference]
        n_classes = None if pd.isna(first["n_classes"]) else int(first["n_classes"])
        yield Curve(
            experiment=str(first["experiment"]),
            arm=str(first["arm"]),
            algorithm=None if pd.isna(first["algorithm"]) else str(first["algorithm"]),
            n_classes=n_classes,
            axis=axis,
            at=at,
            direction=direction,
            reference=reference,
            trials=tuple(done["trial"].astype(str)),
            levels=tuple(rows[axis].astype(float)),
            blocks=tuple(rows["block"]),
            errors=tuple(rows[metric].astype(float)),
            judged_by=epochs_text(done) if metric == JUDGED else metric,
            class_sets=int(rows["class_set"].nunique()) if "class_set" in rows else 0,
            control=_control(here, frozen[frozen[axis] == reference], metric, n_classes),
            at_reference=frozenset(map(_identity, here.to_dict("records"))),
            weights_changed=mean_share(done["weights_changed"]),
            error=metric_in(rows),
        )


def metric_in(trials: pd.DataFrame) -> Metric:
    """What the errors of these trials, of one experiment, are."""
    names = trials["metric"].dropna().unique() if "metric" in trials else ()
    return metric_of(names, trials["arm"])


def _control(
    here: pd.DataFrame, frozen: pd.DataFrame, metric: str, n_classes: int | None
) -> Control | None:
    """What the trials at the reference have to beat: the frozen arrays, else chance."""
    done = frozen[frozen[metric].notna()]
    errors = dict(zip(blocks_of(done), done[metric].astype(float), strict=True))
    arms = set(here["arm"])
    if arms == {Arm.ANALOG_TL} and len(errors.keys() & set(here["block"])) >= MIN_BLOCKS:
        return Control("the frozen arrays", errors)
    if not n_classes or Arm.WEIGHT_PROGRAMMING in arms:
        return None
    chance = 100 * (1 - 1 / n_classes)
    return Control(f"chance ({chance:.0f} %)", chance)


def _identity(trial: Mapping[Hashable, object]) -> tuple[str, str]:
    """A trial's block, and its key; where that is unknown all that came out of it."""
    known = trial.get("key")
    outcome = [trial.get(name) for name in METRICS] + [trial.get("weights_changed")]
    return str(trial["block"]), known if isinstance(known, str) and known else repr(outcome)
