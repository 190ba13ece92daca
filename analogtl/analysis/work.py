"""What the arrays of a run did, as counted: pulses, reads, conversions, per trial, layer and epoch.

`analogtl.analysis.costs` turns it into energy, time and wear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from analogtl.errors import RunError
from analogtl.files import below
from analogtl.study.checked import Problems, read_checked
from analogtl.study.columns import DIGITAL_ENGINE, EpochRow, PulseRow
from analogtl.study.record import CELLS
from analogtl.vocabulary import Algorithm, Arm, arm_label

ARRAYS: Final = ("a", "c")
"""A, which the gradient's pulses go to, and C, which holds the weights."""
FLOAT_BYTES: Final = 4
_PULSES: Final = [f"{array}_{way}_{what}" for array in ARRAYS for way in ("up", "down")
                  for what in ("sum", "mean", "max")]  # fmt: skip
COUNTS: Final = (
    "vectors", "pulses", "cell_reads", "da_conversions", "ad_conversions", "digital_operations",
    "bytes_moved", "array_reads", "pulse_slots", "macs", "digital_bytes",
)  # fmt: skip
WEAR: Final = ("most_pulses", "worn_low", "worn_high", "worn_from")
COLUMNS: Final = ("trial", "layer", "position", "epoch", "cells", *COUNTS, *WEAR)


def work_of(
    path: Path,
    trials: pd.DataFrame,
    layers: pd.DataFrame,
    *,
    batch_size: int,
    endurance: float | None,
    problems: Problems,
) -> tuple[pd.DataFrame, list[str]]:
    """Read what the arrays of some trials did.

    Args:
        path: The run directory, for its epochs, pulses and saved cells.
        trials: Rows of its ``trials.csv``.
        layers: Their rows of ``layers.csv``.
        batch_size: Images per step, where no axis of the trials says otherwise.
        endurance: Pulses that a cell stands; None for unknown.
        problems: Where damaged rows and files are told.

    Returns:
        A row for each trial, layer and epoch, with `COLUMNS`; and a line for each arm whose counts
        are lacking, which says why. What is digital in an arm with adapters has no cells.
    """
    batch = trials.get("finetune.batch_size", pd.Series(batch_size, trials.index))
    known = trials[["trial", "arm", "algorithm"]].assign(batch=batch.fillna(batch_size))
    rows = layers.merge(known, on="trial")
    rows["position"] = pd.factorize(rows["layer"])[0]
    only = ("trial", "stage", "epoch", "split", "n_samples")
    epochs = _read(path / "epochs.csv", EpochRow, problems, only)
    epochs = epochs[(epochs["stage"] == "finetune") & (epochs["split"] == "train")]
    epochs = epochs[epochs["n_samples"] > 0]
    pulses = _read(path / "pulses.csv", PulseRow, problems, ("trial", "layer", "epoch", *_PULSES))
    reasons = _lacking(rows, epochs, pulses)
    lines = [
        f"no costs of {arm_label(arm)}: {why}"
        for arm, why in dict.fromkeys(
            (arm, why) for arm, why in zip(rows["arm"], reasons, strict=True) if why
        )
    ]
    rows = rows[reasons == ""]
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS)), lines
    found = _per_epoch(rows, epochs, pulses)
    cells = _saved_cells(path, rows["trial"].unique(), endurance, problems)
    found = found.assign(**_wear(found, endurance, cells)) if endurance else found
    return found.reindex(columns=list(COLUMNS)), lines


def _read(file: Path, rows_of: type, problems: Problems, only: Iterable[str]) -> pd.DataFrame:
    """Read some columns of a table, none of its rows if it is missing."""
    only = list(only)
    if not file.is_file():
        return pd.DataFrame(columns=only)
    pieces = read_checked(file, rows_of, problems, only=only)
    table = pd.concat([piece for piece in pieces if len(piece)] or [pd.DataFrame(columns=only)])
    return table.reindex(columns=only).reset_index(drop=True)


def _lacking(rows: pd.DataFrame, epochs: pd.DataFrame, pulses: pd.DataFrame) -> pd.Series:
    """Say for each trial and layer why it has no costs; "" where it has."""
    why = pd.Series("", rows.index, dtype=object)
    counted = rows["engine"].ne(DIGITAL_ENGINE)
    told = {
        "its training has no epoch with images in epochs.csv": ~rows["trial"].isin(epochs["trial"]),
        "pulses.csv is missing or has no row of it": ~rows["trial"].isin(pulses["trial"]),
        "its layers.csv is of a version that did not count": rows["a_up_sum"].isna()
        | rows["pass_conversions"].isna(),
        "aihwkit's own arrays, which count no pulses": rows["engine"].eq("aihwkit"),
    }
    for reason, lacks in told.items():
        why[lacks & counted] = reason
    # A trial is costed whole or not at all.
    worst = dict(zip(rows["trial"], why, strict=True))
    worst |= {trial: one for trial, one in zip(rows["trial"], why, strict=True) if one}
    return rows["trial"].map(worst).astype(object)


def _per_epoch(rows: pd.DataFrame, epochs: pd.DataFrame, pulses: pd.DataFrame) -> pd.DataFrame:
    rows = rows.rename(columns={name: f"all_{name}" for name in _PULSES})
    total = epochs.groupby("trial")["n_samples"].sum().rename("images")
    found = rows.merge(epochs[["trial", "epoch", "n_samples"]], on="trial").join(total, on="trial")
    found = found.merge(pulses, on=["trial", "layer", "epoch"], how="left")
    found = found.sort_values(["trial", "position", "epoch"], kind="stable", ignore_index=True)
    sides = found["shape"].str.split("x", expand=True).astype(float)
    digital = found["engine"].eq(DIGITAL_ENGINE)
    trained = found["arm"].map(_trains_arrays)
    if "trained" in found:  # by layer, in arms with adapters
        trained = found["trained"].astype(object).where(found["trained"].notna(), trained)
        trained = trained.astype(bool)
    tokens = found["tokens_per_image"].fillna(1).astype(float)
    vectors = found["n_samples"] * tokens
    share = found["n_samples"] / found["images"]  # of the schedule, which goes by vectors
    weights = sides[0] * sides[1]
    found["cells"] = weights.where(~digital, 0.0)
    found["epoch"] = found["epoch"].astype(int)
    conversions = found["pass_conversions"] / (found["images"] * tokens)  # of a vector
    # Frozen arrays are passed through as others are; nothing counts it where nothing is updated.
    conversions = conversions.where(trained)
    same = conversions.groupby(found["layer"]).transform("max")
    whole = (sides[0] + sides[1]).where(found["tiles"] == 1)
    conversions = conversions.fillna(same).fillna(whole).where(~digital, 0.0)
    reads, read_values = (found[name].fillna(0) * share for name in ("reads", "read_conversions"))
    mixed = found["algorithm"] == Algorithm.MP
    hidden = ~found["algorithm"].isin((Algorithm.SGD, Algorithm.TT, Algorithm.MP))
    outer = (vectors * found["cells"]).where(mixed & trained, 0.0)
    updates = (vectors * found["tiles"] * found["desired_bl"]).where(trained & ~digital, 0.0)
    steps = np.ceil(found["n_samples"] / found["batch"])
    # Forward, backward and the gradient; weights are read for two, read and written for one.
    macs = trained.map({True: 3, False: 2}) * vectors * weights
    digital_bytes = trained.map({True: 4, False: 2}) * FLOAT_BYTES * weights * steps
    return found.assign(
        vectors=vectors,
        pulses=found[[name for name in _PULSES if name.endswith("_sum")]].fillna(0).sum(axis=1),
        cell_reads=2 * vectors * found["cells"] + read_values,
        da_conversions=vectors * conversions + reads,
        ad_conversions=vectors * conversions + read_values,
        digital_operations=(read_values.where(hidden, 0.0) + outer).where(~digital, macs),
        bytes_moved=(2 * FLOAT_BYTES * (read_values.where(hidden, 0.0) + outer)).where(
            ~digital, digital_bytes
        ),
        array_reads=2 * vectors * found["tiles"] + reads,
        # When a cell of mixed precision is written is nowhere counted.
        pulse_slots=(updates + reads * found["transfer_bl"].fillna(0)).mask(
            mixed & trained & ~digital
        ),
        macs=macs,
        digital_bytes=digital_bytes,
    )


def _trains_arrays(arm: str) -> bool:
    known = Arm.named(arm)
    return known is None or known.trains_arrays


# ---------------------------------------------------------------------------------------- wear


def _wear(
    found: pd.DataFrame, endurance: float, cells: Mapping[tuple[str, str], tuple[float, int]]
) -> dict[str, Any]:
    """Bound the share of the cells that have had more pulses than they stand, up to each epoch.

    A cell has had at most the sum of the epochs' maxima, so that none is worn out while that is
    within the endurance. Else at most mean / endurance of them are (Markov), and one at least if
    the maximum of some epoch, or of all in one direction, says so.
    """
    by = [found["trial"], found["layer"]]
    last = found["epoch"] == found.groupby(by)["epoch"].transform("max")
    lows, highs, most = [], [], []
    for array in ARRAYS:
        means, maxima = (
            [f"{array}_{way}_{what}" for way in ("up", "down")] for what in ("mean", "max")
        )
        whole = found[[f"all_{name}" for name in maxima]]
        if whole.isna().all(axis=None):
            continue
        mean, upper = (
            found[names].fillna(0).sum(axis=1).groupby(by).cumsum() for names in (means, maxima)
        )
        seen = found[maxima].fillna(0).max(axis=1).groupby(by).cummax()
        # At the end the maxima over all epochs are known, which say more.
        upper = upper.mask(last, whole.fillna(0).sum(axis=1))
        seen = seen.mask(last, whole.fillna(0).max(axis=1))
        lows.append((seen > endurance) / found["cells"])
        highs.append((mean / endurance).clip(upper=1).mask(upper <= endurance, 0.0))
        most.append(upper)
    low, high = (pd.concat(parts, axis=1).mean(axis=1) for parts in (lows, highs))
    high = high.where(high > low, low)
    largest = pd.concat(most, axis=1).max(axis=1)
    origin = low.eq(high).map({True: "maximum", False: "mean and maximum"}).astype(object)
    for row in np.flatnonzero(last).tolist():
        key = str(found["trial"][row]), str(found["layer"][row])
        if key in cells:
            low[row] = high[row] = cells[key][0]
            largest[row], origin[row] = cells[key][1], "every cell"
    told = zip(WEAR, (largest, low, high, origin), strict=True)
    return {name: column.where(found["cells"] > 0) for name, column in told}


def _saved_cells(
    path: Path, trials: Iterable[str], endurance: float | None, problems: Problems
) -> dict[tuple[str, str], tuple[float, int]]:
    """Find for each trial and layer the share of worn cells and the most pulses, where saved."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for trial in trials if endurance else ():
        counts: dict[str, list[Any]] = {}
        try:
            file = below(path, "trials", trial, CELLS)
            if not file.is_file():
                continue
            with safe_open(file, "numpy") as saved:
                for name in saved.keys():  # noqa: SIM118 - it is no mapping
                    if name.endswith("_up"):
                        layer = name.rsplit(".", 2)[0]
                        down = saved.get_tensor(f"{name.removesuffix('_up')}_down")
                        both = saved.get_tensor(name).astype(np.int64) + down
                        counts.setdefault(layer, []).append(both.ravel())
        except (RunError, OSError, SafetensorError, ValueError) as error:
            problems.other(f"{path / 'trials' / trial / CELLS}: cannot be read: {error}")
            continue
        for layer, parts in counts.items():
            all_cells = np.concatenate(parts)
            found[trial, layer] = float((all_cells > endurance).mean()), int(all_cells.max())
    return found
