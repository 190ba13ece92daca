"""The judged error of a trial: the mean test error of its last epochs.

It is what tables, figures, critical points and findings show and compare, and is made here alone,
from ``epochs.csv``. One epoch would be a lottery: the error of a small test set goes up and down by
several points from epoch to epoch. A trial stays one number: nothing takes its epochs, which are
not independent, for replicates. The best epoch would be picked on the test images.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from analogtl.errors import RunError, counted
from analogtl.study.columns import JUDGED_EPOCHS, epochs_judged
from analogtl.vocabulary import Metric

_SAME: Final = 1e-4  # points; the CSV files hold nine digits


def with_judged(
    trials: pd.DataFrame, epochs: pd.DataFrame, asked: int | None
) -> tuple[pd.DataFrame, str]:
    """Trials with the columns `error_judged` and `judged_epochs`, and a line on what is lacking.

    Where some trial's last epochs are not all in the table, the whole run is judged by the last
    epoch, which ``trials.csv`` has: what is compared is judged alike.

    Args:
        trials: Finished trials.
        epochs: Test error per fine-tuning epoch of these trials, each epoch once.
        asked: ``[report] judged_epochs``.

    Raises:
        RunError: If more epochs are asked for than a trial has.
    """
    if trials.empty:
        return trials.assign(error_judged=trials["error_final"], judged_epochs=0), ""
    names = trials.drop_duplicates("trial")
    known = epochs[epochs["error"].notna()].astype({"epoch": int, "error": float})
    lasts = known.groupby("trial")["epoch"].max()
    for trial, last in lasts[lasts.index.isin(names["trial"])].items():
        if asked is not None and asked > max(1, last):
            have = counted(int(last), "epoch")
            raise RunError(f"judged_epochs {asked}: {trial} has {have}; expected at most as many")
    counts = lasts.map(lambda last: epochs_judged(int(last), asked)).astype(int)
    window = known[known["epoch"] > known["trial"].map(lasts - counts)]
    found = window.groupby("trial")["error"]
    final = window.sort_values("epoch").groupby("trial")["error"].last()
    same = (final - names.set_index("trial")["error_final"].astype(float)).abs() < _SAME
    whole = trials["trial"].map((found.size() == counts) & same)
    lacking = int((~whole.fillna(False).astype(bool)).sum())
    if not lacking:
        judged, count = trials["trial"].map(found.mean()), trials["trial"].map(counts)
        return trials.assign(error_judged=judged.astype(float), judged_epochs=count), ""
    told = (
        f"{counted(lacking, 'trial')} of {len(trials)} without all last epochs in epochs.csv: all "
        "are judged by the last epoch alone"
    )
    final_error = trials["error_final"].astype(float)
    return trials.assign(error_judged=final_error, judged_epochs=1), "" if asked == 1 else told


def with_balanced(trials: pd.DataFrame, epochs: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Trials whose errors are the balanced ones, and a line on what is lacking.

    Where a finished trial's balanced errors are not all in the table, as in those of earlier
    versions, all trials keep their errors: what is compared is judged alike.

    Args:
        trials: Rows of trials.csv.
        epochs: Rows of epochs.csv of these trials, of fine-tuning: validation and test.
    """
    order = epochs.sort_values("epoch", kind="stable")
    test = order[order["split"] == "test"]
    validation = order[order["split"] == "validation"].groupby("trial")["balanced_error"]
    last = test.groupby("trial")[["error", "balanced_error"]].last()
    done = trials[trials["status"].eq("done").fillna(False)].set_index("trial")
    final = last["error"].reindex(done.index).astype(float)
    whole = (final - done["error_final"].astype(float)).abs() < _SAME
    whole &= ~done.index.isin(order.loc[order["balanced_error"].isna(), "trial"])
    if lacking := int((~whole).sum()):
        told = f"{counted(lacking, 'trial')} of {len(done)} without all balanced errors"
        return trials, f"{told} in epochs.csv: all are judged by the error"
    trained = test[(test["epoch"] > 0) | ~test["trial"].isin(test.loc[test["epoch"] > 0, "trial"])]
    best = trained.sort_values("balanced_error", kind="stable").groupby("trial").first()
    found = {
        "error_transfer": test[test["epoch"] == 0].groupby("trial")["balanced_error"].first(),
        "error_final": last["balanced_error"],
        "error_best": best["balanced_error"],
        "epoch_best": best["epoch"],
        "error_validation": validation.last(),
    }
    errors = {name: trials["trial"].map(values) for name, values in found.items()}
    trials = trials.assign(**errors, metric=Metric.BALANCED_ERROR.value)
    return trials.assign(balanced_error_final=float("nan")), ""  # it would be there twice


def epochs_text(trials: pd.DataFrame, *, short: bool = False) -> str:
    """What the trials are judged by: ``last epoch``, ``mean of the last 5 epochs``."""
    known = trials[JUDGED_EPOCHS].dropna() if JUDGED_EPOCHS in trials else ()
    low, high = (int(min(known)), int(max(known))) if len(known) else (1, 1)
    if high == 1:
        return "last epoch"
    epochs = f"last {high if low == high else f'{low} to {high}'} epochs"
    return epochs if short else f"mean of the {epochs}"
