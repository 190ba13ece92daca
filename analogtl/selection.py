"""Which trials count: the best learning rate at each level, chosen on validation error alone.

The paper varies the learning rate at every level and keeps the best model (arXiv 2505.11067,
section III). Choosing on the test error would make every level look better than it is, and the
level with the most learning rates best of all; here the test error plays no part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analogtl.records import axis_columns

if TYPE_CHECKING:
    import pandas as pd

CHOSEN: Final = "chosen"
ONLY_ONE: Final = "only one learning rate"
NO_VALIDATION: Final = "no validation error: the middle learning rate, not the best"
NOTHING_SHARED: Final = "no seed in common: the learning rate with most seeds, not the best"
ALL_FAILED: Final = "every trial failed"

_SIGNIFICANT_DIGITS: Final = 10  # lr 0.1 + 0.2 and 0.3 are one learning rate


@dataclass(frozen=True)
class Selection:
    """The trials that count, and how their learning rate was chosen.

    Attributes:
        rows: The finished trials at the learning rate kept, with the columns and the index of the
            table they come from.
        failed: The trials that failed at it, likewise.
        choices: One row per experiment x arm x algorithm x n_classes x level of every axis, with
            `lr` (kept), `lrs` (all that were tried, separated by spaces), `n_lrs`,
            `n_seeds_compared` (seeds that all candidates share), `error_validation` (mean over
            those seeds at the learning rate kept, percent), `n_done` and `n_failed` (trials at the
            learning rate kept), `how` (one of the words in this module).
    """

    rows: pd.DataFrame
    failed: pd.DataFrame
    choices: pd.DataFrame


def finished(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials are done; all of them where the table has no `status`."""
    import pandas as pd

    if "status" not in trials:
        return pd.Series(True, index=trials.index)
    return trials["status"].eq("done")


def select_learning_rate(trials: pd.DataFrame) -> Selection:
    """Keep, per experiment x arm x level, the learning rate of the lowest mean validation error.

    The rule, in order:

    1. A learning rate that failed on seeds where another one finished is out (all but those with
       the fewest such seeds): a mean over the seeds that happened to survive would favour the
       learning rate that diverges on the hard ones.
    2. A learning rate that has finished fewer than half the seeds of the furthest one waits: it
       would reduce the comparison to the few seeds it has.
    3. The rest are compared on the seeds that all of them have finished, so that no learning rate
       wins through an easy seed. Equal means: the smaller learning rate.

    Args:
        trials: Rows of trials.csv, of any number of experiments; at least the columns `experiment`,
            `arm`, `seed` and `lr`.

    Returns:
        The rows kept and the choices. The same learning rate is kept for every seed of a level, so
        seeds stay paired.
    """
    import pandas as pd

    keys = [k for k in ("experiment", "arm", "algorithm", "n_classes") if k in trials]
    keys += axis_columns(trials.columns)
    kept = []
    failed = []
    choices: list[dict[str, object]] = []
    if len(trials):
        # sort=False also spares comparing levels of mixed types.
        for key, level in trials.groupby(keys, dropna=False, sort=False):
            mine, choice = _choose(level)
            kept.append(level[mine & finished(level)])
            failed.append(level[mine & ~finished(level)])
            choices.append(dict(zip(keys, key, strict=True)) | choice)
    columns = [*keys, *_CHOICE_COLUMNS]
    return Selection(
        rows=pd.concat(kept).sort_index() if kept else trials.copy(),
        failed=pd.concat(failed).sort_index() if failed else trials.copy(),
        choices=pd.DataFrame(choices, columns=columns),
    )


_CHOICE_COLUMNS: Final = (
    "lr", "lrs", "n_lrs", "n_seeds_compared", "error_validation", "n_done", "n_failed", "how",
)  # fmt: skip


def _choose(level: pd.DataFrame) -> tuple[pd.Series[bool], dict[str, object]]:
    """Which rows have the learning rate kept, and the choice, for one level of one arm."""
    import pandas as pd

    done = finished(level)
    lr = pd.to_numeric(level["lr"], errors="coerce").fillna(0.0)
    lr = lr.map(lambda value: float(f"{value:.{_SIGNIFICANT_DIGITS}g}"))
    rates: list[float] = sorted(set(lr))
    finished_seeds = {rate: set(level.loc[done & lr.eq(rate), "seed"]) for rate in rates}
    failed_seeds = {rate: set(level.loc[~done & lr.eq(rate), "seed"]) for rate in rates}

    candidates = [rate for rate in rates if finished_seeds[rate]]
    best, how = rates[0], ONLY_ONE if len(rates) == 1 else ALL_FAILED
    shared: set[object] = set()
    error = float("nan")
    if candidates:
        anyone = set.union(*finished_seeds.values())
        lost = {rate: len(failed_seeds[rate] & anyone - finished_seeds[rate]) for rate in rates}
        fewest = min(lost[rate] for rate in candidates)
        candidates = [rate for rate in candidates if lost[rate] == fewest]
        most = max(len(finished_seeds[rate]) for rate in candidates)
        candidates = [rate for rate in candidates if 2 * len(finished_seeds[rate]) >= most]
        shared = set.intersection(*(finished_seeds[rate] for rate in candidates))
        common = done & level["seed"].isin(shared)
        errors = {rate: _validation_error(level[common & lr.eq(rate)]) for rate in candidates}
        if len(rates) > 1:
            how = CHOSEN
        if len(candidates) == 1:
            best = candidates[0]
        elif not shared:
            best = max(candidates, key=lambda rate: (len(finished_seeds[rate]), -rate))
            how = NOTHING_SHARED
        elif any(math.isnan(value) for value in errors.values()):
            best = candidates[(len(candidates) - 1) // 2]
            how = NO_VALIDATION
        else:
            best = min(candidates, key=lambda rate: (errors[rate], rate))
        error = errors[best]
    mine = lr.eq(best)
    return mine, {
        "lr": best if level["lr"].notna().any() else None,
        "lrs": " ".join(f"{rate:g}" for rate in rates),
        "n_lrs": len(rates),
        "n_seeds_compared": len(shared),
        "error_validation": error,
        "n_done": int((done & mine).sum()),
        "n_failed": int((~done & mine).sum()),
        "how": how,
    }


def _validation_error(rows: pd.DataFrame) -> float:
    """Mean validation error, percent; NaN without rows or if any of them lacks it."""
    import pandas as pd

    if "error_validation" not in rows:
        return float("nan")
    return float(pd.to_numeric(rows["error_validation"], errors="coerce").mean(skipna=False))
