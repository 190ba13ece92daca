"""What training costs in hardware: the counts of `analogtl.analysis.work` times constants.

Every energy and time is one count times one constant of [hardware]; the frames keep both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.work import COLUMNS, COUNTS
from analogtl.config.hardware import UNITS, Constant, constants_of
from analogtl.config.load import apply_overrides, validate
from analogtl.config.source import Source
from analogtl.errors import ExperimentError


@dataclass(frozen=True)
class Term:
    """One part of the cost: a count times a constant.

    Attributes:
        name: As columns call it.
        label: In words.
        count: Column of the counts.
        energy: Constant that makes it an energy; "" for none.
        time: Constant that makes it a time; "" for none. An operation takes 1 / digital_rate.
    """

    name: str
    label: str
    count: str
    energy: str = ""
    time: str = ""


TERMS: Final = (
    Term("pulses", "pulses at cells", "pulses", "pulse_energy"),
    Term("reads", "cells read", "cell_reads", "read_energy"),
    Term("da", "D/A conversions", "da_conversions", "dac_energy"),
    Term("ad", "A/D conversions", "ad_conversions", "adc_energy"),
    Term("digital", "digital operations", "digital_operations", "digital_energy", "digital_rate"),
    Term("memory", "bytes moved", "bytes_moved", "memory_energy"),
    Term("array_reads", "reads of arrays", "array_reads", time="read_time"),
    Term("pulse_slots", "pulse slots", "pulse_slots", time="pulse_time"),
)
DIGITALLY: Final = (
    Term("same_macs", "the same digitally: operations", "macs", "digital_energy", "digital_rate"),
    Term("same_bytes", "the same digitally: bytes moved", "digital_bytes", "memory_energy"),
)
ENERGIES: Final = tuple(term for term in TERMS if term.energy)


def hardware_of(settings: Any, overrides: Sequence[str], run: str) -> dict[str, Constant]:
    """Collect the constants that a run's experiment, or a command line over it, sets.

    Args:
        settings: Table [hardware] of the resolved experiment; whatever that is.
        overrides: ``hardware.key=value`` of the command line.

    Raises:
        ExperimentError: With a line per wrong key or value.
    """
    if other := [one for one in overrides if not one.strip().startswith("hardware.")]:
        raise ExperimentError(
            f"--set {one}: a report takes the keys of hardware only, e.g. "
            "--set hardware.preset=hfox-reram"
            for one in other
        )
    source = Source()
    source.file = f"{run}: experiment.resolved.json"
    given = settings if isinstance(settings, Mapping) else {}
    source.data = {"name": "costs", "hardware": dict(given)}
    apply_overrides(source, overrides)
    found = constants_of(validate(source).hardware.model_dump())
    own = {key.removeprefix("hardware.") for key in source.origin}
    return {
        name: Constant(name, one.value, f"--set hardware.{name}") if name in own else one
        for name, one in found.items()
    }


def cost(counts: pd.DataFrame, hardware: Mapping[str, Constant]) -> pd.DataFrame:
    """Add energies (J) and times (s) to rows of counts; a term without its constant is empty.

    Returns:
        The rows with ``energy_TERM``, ``time_TERM``, ``energy`` and ``time`` over all terms known,
        ``same_energy`` and ``same_time`` of the same layers trained digitally, and ``tops_per_w``:
        10^12 operations of that digital training (two for each product) per J of the arrays.
    """
    new: dict[str, pd.Series] = {}
    for term in (*TERMS, *DIGITALLY):
        if term.energy in hardware:
            new[f"energy_{term.name}"] = counts[term.count] * hardware[term.energy].value
        if term.time in hardware:
            new[f"time_{term.name}"] = counts[term.count] * _seconds(term, hardware)
    costed = counts.assign(**new)
    for total, terms in (("", TERMS), ("same_", DIGITALLY)):
        for what in ("energy", "time"):
            parts = [f"{what}_{term.name}" for term in terms if f"{what}_{term.name}" in new]
            sums = costed[parts].sum(axis=1, skipna=False) if parts else math.nan
            costed[f"{total}{what}"] = sums
    known = set(hardware) >= {term.energy for term in ENERGIES} - {"memory_energy"}
    costed["tops_per_w"] = 2e-12 * counts["macs"] / costed["energy"] if known else math.nan
    return costed


def _seconds(term: Term, hardware: Mapping[str, Constant]) -> float:
    value = hardware[term.time].value
    if term.time == "digital_rate":
        return 1 / value
    return value / (hardware["parallel_arrays"].value if "parallel_arrays" in hardware else 1.0)


@dataclass(frozen=True)
class Costs:
    """What the trials of a run cost, as means over trials; the frames' columns are those of `cost`.

    Attributes:
        epochs: A row for each arm, level, layer and epoch.
        layers: A row for each arm, level and layer, over all epochs.
        totals: A row for each arm and level.
    """

    hardware: Mapping[str, Constant]
    axes: Sequence[str]
    epochs: pd.DataFrame
    layers: pd.DataFrame
    totals: pd.DataFrame

    def terms(self) -> pd.DataFrame:
        """List each term of the totals: its count, constant, unit, source, energy and time."""
        rows = []
        for row in self.totals.to_dict("records"):
            level = {name: row[name] for name in ("arm", *self.axes)}
            for term in (*TERMS, *DIGITALLY):
                for what, key in (("energy", term.energy), ("time", term.time)):
                    if not key:
                        continue
                    one = self.hardware.get(key)
                    cell = level | {"term": term.label, "count": row[term.count], "constant": key}
                    cell |= {"value": None, "unit": UNITS[key], "source": "not set: not counted"}
                    cell |= {"energy": None, "time": None}
                    if one:
                        cell |= {"value": one.value, "source": one.source}
                        cell[what] = row[f"{what}_{term.name}"]
                    rows.append(cell)
        return pd.DataFrame(rows)


def costs_of(
    work: pd.DataFrame, trials: pd.DataFrame, hardware: Mapping[str, Constant]
) -> Costs | None:
    """Cost what `work_of` counted of some trials; None where it counted nothing."""
    axes = summaries.swept_axes(trials)
    rows = work[list(COLUMNS)].merge(trials[["trial", "arm", *axes]], on="trial")
    if rows.empty:
        return None
    level = ["arm", *axes]
    layer = [*level, "position", "layer"]
    frames = (
        _means(rows, [*layer, "epoch"]),
        _means(_summed(rows, layer), layer),
        _means(_summed(rows, level), level),
    )
    return Costs(hardware, axes, *(cost(frame, hardware) for frame in frames))


def _summed(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The counts of each trial added up, where all are known; its wear at the end, over cells."""
    keys = ["trial", *by]
    summed = rows.groupby(keys, dropna=False, sort=False)[list(COUNTS)].sum()
    lacking = rows[list(COUNTS)].isna().groupby([rows[key] for key in keys], dropna=False).any()
    summed = summed.mask(lacking.reindex(summed.index))
    last = rows[rows["epoch"] == rows.groupby("trial")["epoch"].transform("max")]
    cells = last["cells"]
    last = last.assign(worn_low=last["worn_low"] * cells, worn_high=last["worn_high"] * cells)
    worn = last.groupby(keys, dropna=False, sort=False)
    ends = worn[["cells", "worn_low", "worn_high"]].sum(min_count=1)
    summed["worn_low"], summed["worn_high"] = (
        ends[name] / ends["cells"] for name in ("worn_low", "worn_high")
    )
    summed["most_pulses"] = worn["most_pulses"].max()
    summed["worn_from"] = worn["worn_from"].agg(_origin)
    return summed.reset_index()


def _means(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over trials; of the wear the largest, and what it is from."""
    groups = rows.groupby(list(by), dropna=False)
    means = groups[list(COUNTS)].mean()
    means.insert(0, "n", groups.size())
    means["most_pulses"] = groups["most_pulses"].max()
    for name in ("worn_low", "worn_high"):
        means[name] = groups[name].mean()
    means["worn_from"] = groups["worn_from"].agg(_origin)
    return summaries.in_arm_order(means.reset_index())


def _origin(names: pd.Series) -> str:
    return ", ".join(sorted(set(names.dropna())))
