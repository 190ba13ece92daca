"""Rows of a trials.csv as the tests of the statistics need them: no training."""

from __future__ import annotations

from analogtl.study.columns import TRIAL_COLUMNS
from analogtl.vocabulary import AXES, Arm


def trial_row(arm: str, seed: int, error: float, **changes: object) -> dict[str, object]:
    """A finished trial with this error; levels of axes and other columns as changes."""
    analog = Arm(arm).analog
    levels = "".join(f",{k}={v}" for k, v in changes.items() if k in AXES or "." in k)
    row = {
        "experiment": "e",
        "trial": f"arm={arm}{levels},lr={changes.get('lr', 0.01)},seed={seed}",
        "seed": seed,
        "arm": arm,
        "lr": 0.01,
        "algorithm": "c-ttv2" if analog else None,
        "n_classes": 2,
        "status": "done",
        "error_final": error,
        "error_judged": error,
        "error_validation": error,
        "weights_changed": (0.06 if arm != "frozen-array" else 0.0) if analog else None,
    }
    return dict.fromkeys(TRIAL_COLUMNS) | {"judged_epochs": 1} | row | changes
