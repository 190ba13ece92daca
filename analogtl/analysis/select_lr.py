"""Which trials count: the best learning rate at each level, chosen on validation error alone.

The paper varies the learning rate at every level and keeps the best model (arXiv 2505.11067,
section III).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pandas as pd

from analogtl.analysis.blocks import blocks_of
from analogtl.study.choice import choose
from analogtl.study.columns import axis_columns

GROUP: Final = ("experiment", "arm", "algorithm", "n_classes")
"""What trials must have in common to be compared; and the level of every axis."""

_DIGITS: Final = 10  # lr 0.1 + 0.2 and 0.3 are one learning rate


@dataclass(frozen=True)
class Selection:
    """The trials that count, and how their learning rate was chosen.

    Attributes:
        rows: The finished trials at the learning rate kept, with the columns and the index of the
            table they come from.
        failed: The trials that failed at it, likewise.
        choices: One row per experiment x arm x algorithm x n_classes x level of every axis, with
            `lr` (kept), `lrs` (all that were tried, separated by spaces), `n_lrs`,
            `n_blocks_compared` (blocks that all candidates share), `error_validation` (mean over
            those blocks at the learning rate kept, percent), `n_done` and `n_failed` (trials at the
            learning rate kept), `how` (one of the words in `analogtl.study.choice`).
    """

    rows: pd.DataFrame
    failed: pd.DataFrame
    choices: pd.DataFrame

    def with_failed(self, metric: str) -> pd.DataFrame:
        """The finished and the failed trials, the failed ones without the metric."""
        if self.failed.empty:
            return self.rows
        return pd.concat([self.rows, self.failed.assign(**{metric: float("nan")})])


def finished(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials are done."""
    return trials["status"].eq("done").fillna(False).astype(bool)


def select_learning_rate(trials: pd.DataFrame) -> Selection:
    """Keep, per experiment x arm x level, the learning rate of the lowest mean validation error.

    By the rule of `analogtl.study.choice.choose`; of equals, the smaller learning rate.

    Args:
        trials: Rows of trials.csv, of any number of experiments.

    Returns:
        The rows kept and the choices. The same learning rate is kept for every block of a level, so
        blocks stay paired.
    """
    trials = _with_classes(trials)
    keys = [*GROUP, *axis_columns(trials.columns)]
    lr = pd.to_numeric(trials["lr"], errors="coerce")
    validation = pd.to_numeric(trials["error_validation"], errors="coerce")
    level_of = trials.groupby(keys, dropna=False, sort=False).ngroup() if len(trials) else lr
    known = zip(level_of, blocks_of(trials), lr, finished(trials), validation, strict=True)
    # Plain Python per level: a study has thousands of small ones.
    levels: dict[float, list[_Run]] = {}
    for place, (level, block, rate, done, error) in enumerate(known):
        rounded = 0.0 if math.isnan(rate) else float(f"{rate:.{_DIGITS}g}")
        levels.setdefault(level, []).append(_Run(place, block, rounded, done, error))
    key_values = {key: trials[key].tolist() for key in keys}
    kept, failed, choices = [], [], []
    for level_runs in levels.values():
        best, choice = _choose(level_runs)
        mine = [run for run in level_runs if run.lr == best]
        kept += [run.place for run in mine if run.done]
        failed += [run.place for run in mine if not run.done]
        n_done = sum(run.done for run in mine)
        where = {key: key_values[key][level_runs[0].place] for key in keys}
        choices.append(where | choice | {"n_done": n_done, "n_failed": len(mine) - n_done})
    return Selection(
        rows=trials.iloc[sorted(kept)],
        failed=trials.iloc[sorted(failed)],
        choices=pd.DataFrame(choices, columns=[*keys, *_CHOICE_COLUMNS]),
    )


def _with_classes(trials: pd.DataFrame) -> pd.DataFrame:
    """The table with `n_classes` also where a trial failed before it could tell.

    It is that of the finished trials of the level, or else of the experiment, if these agree; so
    that a failure counts against its own level and is not taken for one of its own.
    """
    if not trials["n_classes"].isna().any():
        return trials
    known = pd.to_numeric(trials["n_classes"], errors="coerce").astype("float64")
    for by in (["experiment", *axis_columns(trials.columns)], ["experiment"]):
        groups = known.groupby([trials[key] for key in by], dropna=False)
        low, high = groups.transform("min"), groups.transform("max")
        known = known.fillna(low.where(low == high))
    return trials.assign(n_classes=known.astype("Int64"))


_CHOICE_COLUMNS: Final = (
    "lr", "lrs", "n_lrs", "n_blocks_compared", "error_validation", "n_done", "n_failed", "how",
)  # fmt: skip


class _Run(NamedTuple):
    """What the choice needs to know of one trial."""

    place: int
    block: str
    lr: float
    done: bool
    error: float  # validation, percent; NaN if unknown


def _choose(runs: list[_Run]) -> tuple[float, dict[str, Any]]:
    """The learning rate of one level of one arm, and how it was chosen."""
    tried: dict[float, set[str]] = {}
    errors: dict[float, dict[str, float]] = {}  # of the finished trials: block -> error
    for run in runs:
        tried.setdefault(run.lr, set()).add(run.block)
        if run.done:
            errors.setdefault(run.lr, {})[run.block] = run.error
    ordered = {rate: tried[rate] for rate in sorted(tried)}
    best, how, shared, means = choose(ordered, errors)
    return best, {
        "lr": best or None,
        "lrs": " ".join(f"{rate:g}" for rate in sorted(tried)),
        "n_lrs": len(tried),
        "n_blocks_compared": len(shared),
        "error_validation": means.get(best, math.nan),
        "how": how,
    }
