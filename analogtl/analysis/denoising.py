"""What the records of denoising trials tell beside the table: losses by noise, and samples."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analogtl.analysis import summaries
from analogtl.analysis.read import RunData
from analogtl.errors import RunError
from analogtl.files import below, read_sealed

_NEEDED = ("noise_share", "loss")


def by_noise(run: RunData) -> pd.DataFrame:
    """Mean and spread of the held-out loss, by arm, level and share of noise (of the variance)."""
    axes = summaries.swept_axes(run.chosen.rows)
    rows = [
        {"arm": trial["arm"], **{axis: trial[axis] for axis in axes}, **one}
        for trial in run.chosen.rows.to_dict("records")
        for one in _details(run, str(trial["trial"])).get("by_noise", ())
        if isinstance(one, dict) and all(isinstance(one.get(key), float) for key in _NEEDED)
    ]
    if not rows:
        return pd.DataFrame(columns=["arm", "noise_share"])
    return summaries.spread(pd.DataFrame(rows), ["arm", *axes, "noise_share"], ["loss"])


def samples(run: RunData) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Samples (N, D) of one trial of each arm at each setting, in words."""
    rows = run.chosen.rows
    axes = summaries.swept_axes(rows)
    firsts = rows.sort_values("seed", kind="stable").drop_duplicates(["arm", *axes])
    firsts = summaries.in_arm_order(firsts.sort_values(axes, kind="stable") if axes else firsts)
    found = {}
    for trial in firsts.to_dict("records"):
        with contextlib.suppress(ValueError, TypeError):
            drawn = np.array(_details(run, str(trial["trial"])).get("samples", ()), dtype=float)
            if drawn.ndim == 2 and np.isfinite(drawn).all():
                setting = summaries.setting_text({axis: trial[axis] for axis in axes})
                found[str(trial["arm"]), setting] = drawn
    return found


def _details(run: RunData, trial: str) -> dict[str, Any]:
    """What the record of a trial tells; nothing if there is none, as beside a table on its own."""
    with contextlib.suppress(RunError):
        details = read_sealed(below(run.path / "trials", trial) / "trial.json").get("details")
        if isinstance(details, dict):
            return details
    return {}
