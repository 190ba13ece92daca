"""The curves of a trials table: test error along one axis, everything else equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from analogtl.analysis.select_lr import GROUP, Selection
from analogtl.errors import check_known
from analogtl.study.columns import METRICS, axis_columns
from analogtl.vocabulary import AXES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Curve:
    """The trials of one arm along one axis, everything else equal.

    Attributes:
        experiment, arm, algorithm, n_classes: Where they come from; None where unknown.
        axis: The axis that varies.
        at: Levels of the other axes that the arm varies, ``n_states=20``; "" for none.
        direction: "up" if the levels lie above the reference, "down" if below.
        reference: The level that the others are compared with.
        trials: Names of the finished trials.
        levels, seeds, errors: One per trial; failed ones are included, with an error of NaN.
        weights_changed: Mean share of the analog cells that changed, 0..1; None if unknown.
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
    seeds: tuple[str, ...]
    errors: tuple[float, ...]
    weights_changed: float | None

    @property
    def scale(self) -> Literal["linear", "reciprocal"]:
        """The scale on which harm may be linear."""
        return "reciprocal" if self.axis in AXES and AXES[self.axis].reciprocal else "linear"


def curves(chosen: Selection, *, metric: str = "error_final") -> Iterator[Curve]:
    """Every curve of the chosen trials, of any number of experiments.

    An axis whose levels are not numbers has no order and so no curve. Of an axis that is not in the
    registry nobody has said which way it harms, so it must have a level at zero.

    Args:
        chosen: The trials at the learning rate that suits each level best.
        metric: Column of the test error, percent. `error_final` is the default because
            `error_best` picks its epoch on the test set.

    Raises:
        ExperimentError: If the trials have no such column.
    """
    import pandas as pd

    check_known("metric", [metric], [one for one in METRICS if one in chosen.rows])
    table = chosen.with_failed(metric)
    axes = axis_columns(table.columns)
    for _, arm in table.groupby(list(GROUP), dropna=False, sort=True):
        for axis in axes:
            level = pd.to_numeric(arm[axis], errors="coerce")
            if level.nunique() < 2 or (level.isna() & arm[axis].notna()).any():
                continue
            varied = arm[level.notna()].assign(**{axis: level[level.notna()]})
            others = [a for a in axes if a != axis and varied[a].nunique(dropna=False) > 1]
            if not others:
                yield from _sides(varied, axis, "", metric)
                continue
            for at, group in varied.groupby(others, dropna=False, sort=True):
                yield from _sides(group, axis, setting(dict(zip(others, at, strict=True))), metric)


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


def _sides(group: pd.DataFrame, axis: str, at: str, metric: str) -> Iterator[Curve]:
    """The curve above the reference and the one below, as far as they exist."""
    import pandas as pd

    reference = reference_level(axis, group[axis])
    if reference is None:
        return
    for direction in ("up", "down"):
        side = group[axis] >= reference if direction == "up" else group[axis] <= reference
        # A trial that appears twice (two copies of one run) is one trial.
        rows = group[side].drop_duplicates([axis, "seed"])
        if rows[axis].nunique() < 2:
            continue
        first = rows.iloc[0]
        done = rows[rows[metric].notna()]
        yield Curve(
            experiment=str(first["experiment"]),
            arm=str(first["arm"]),
            algorithm=None if pd.isna(first["algorithm"]) else str(first["algorithm"]),
            n_classes=None if pd.isna(first["n_classes"]) else int(first["n_classes"]),
            axis=axis,
            at=at,
            direction=direction,
            reference=reference,
            trials=tuple(done["trial"].astype(str)),
            levels=tuple(rows[axis].astype(float)),
            seeds=tuple(rows["seed"].astype(str)),
            errors=tuple(rows[metric].astype(float)),
            weights_changed=mean_share(done["weights_changed"]),
        )
