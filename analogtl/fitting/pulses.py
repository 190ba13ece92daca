"""Measured pulses of some devices, as weights: what a fit starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analogtl.errors import ExperimentError
from analogtl.fitting.tables import read_table

Array = NDArray[Any]
MIXED = 200.0  # ratio of the ranges of two cycles from which units are mixed
MIN_PULSES = 10  # of a device in each direction
END = 0.05  # share of a ramp that tells where it ends


@dataclass(frozen=True)
class Trace:
    """The readings of one device, in order (K,).

    Attributes:
        device: Its name.
        weights: Readings as weights.
        signs: The pulse before each: +1 up, -1 down, 0 none.
        cycles: Number of the cycle, from 0.
        starts: Whether a cycle begins there: the pulse before is not known.
    """

    device: str
    weights: Array
    signs: Array
    cycles: Array
    starts: Array

    @property
    def turns(self) -> Array:
        """Where each ramp starts, the first included."""
        return np.flatnonzero(self.starts | (np.diff(self.signs, prepend=0) != 0))

    @property
    def span(self) -> float:
        """The range of the readings, without outliers."""
        return float(np.ptp(np.quantile(self.weights, (0.01, 0.99))))

    @property
    def lag(self) -> int:
        """Pulses, a tenth of a ramp, over which noise of the pulses shows."""
        return int(np.clip(len(self.weights) / len(self.turns) / 10, 2, 100))


@dataclass(frozen=True)
class Pulses:
    """Traces of devices, and what weights -1 and 1 are in the unit of the file."""

    traces: tuple[Trace, ...]
    g_min: float
    g_max: float
    unit: str
    rows: int

    @property
    def n_cycles(self) -> int:
        """The cycles that every device has."""
        return min(int(trace.cycles[-1]) + 1 for trace in self.traces)

    @property
    def resolution(self) -> float:
        """Smallest distance between two different readings, in weights."""
        steps = np.diff(np.unique(np.concatenate([trace.weights for trace in self.traces])))
        return float(np.min(steps[steps > 1e-9], initial=1.0))


def read_pulses(file: Path, g_min: float | None = None, g_max: float | None = None) -> Pulses:
    """Read measured pulses and normalise them.

    Weight -1 is where ramps down end and 1 where ramps up end: the median over ramps of the mean of
    their last 5 %. Readings below 0 cannot be conductances: they are weights, and stay as they are.

    Args:
        file: CSV, TSV or XLSX, in a layout of `tables.read_table`.
        g_min, g_max: The conductances of weights -1 and 1, in the file's unit.

    Raises:
        ExperimentError: With a line for each problem.
    """
    table, unit = read_table(file)
    problems = [f"{file}: {problem}" for problem in _problems(table)]
    if problems:
        raise ExperimentError(problems)
    values = table["conductance"]
    if values.min() < -0.05 * values.max() and g_min is None and g_max is None:
        low, high, unit = -1.0, 1.0, "weight"
    else:
        low, high = (
            float(
                np.median([_end(ramp) for _, ramp in _ramps(table) if ramp["sign"].iloc[-1] == s])
            )
            if given is None
            else given
            for s, given in ((-1, g_min), (1, g_max))
        )
    if not low < high:
        raise ExperimentError(f"{file}: g_min {low:g} is not below g_max {high:g}")
    table["weight"] = 2 * (values - low) / (high - low) - 1
    traces = tuple(_trace(str(name), part) for name, part in table.groupby("device", sort=False))
    beyond = [t.device for t in traces if not t.weights.min() < 0 < t.weights.max()]
    if beyond:
        raise ExperimentError(
            f"{file}: device {beyond[0]}: weight 0, midway from g_min {low:g} to g_max {high:g}, "
            "is out of its range; is its unit another one? else --g-min and --g-max set the range"
        )
    return Pulses(traces, low, high, unit, len(table))


def _trace(device: str, part: pd.DataFrame) -> Trace:
    cycles = pd.factorize(part["cycle"])[0]
    starts = np.diff(cycles, prepend=-1) != 0
    return Trace(
        device,
        np.ascontiguousarray(part["weight"], float),
        np.ascontiguousarray(part["sign"], np.int64),
        cycles,
        starts,
    )


def _ramps(table: pd.DataFrame) -> Any:
    """Runs of pulses of one direction, each of one device and cycle."""
    pulsed = table[table["sign"] != 0]
    keys = pulsed[["device", "cycle", "sign"]]
    return pulsed.groupby((keys != keys.shift()).any(axis=1).cumsum())


def _end(ramp: pd.DataFrame) -> float:
    return float(ramp["conductance"].iloc[-max(1, int(END * len(ramp))) :].mean())


def _problems(table: pd.DataFrame) -> Any:
    """Find what cannot be fitted."""
    spans = table.groupby(["device", "cycle"], sort=False)["conductance"].agg(
        lambda g: g.abs().max()
    )
    spans = spans[spans > 0]
    if len(spans) and spans.max() > MIXED * spans.min():
        (one, first), (other, second) = (
            spans.index[int(i)] for i in (spans.argmin(), spans.argmax())
        )
        yield (
            f"device {one} reaches {spans.min():g} and device {other} {spans.max():g} "
            f"(cycles {first}, {second}): units are mixed; write all conductances in one unit"
        )
        return
    for device, part in table.groupby("device", sort=False):
        pulses = {sign: int((part["sign"] == sign).sum()) for sign in (1, -1)}
        if part["conductance"].nunique() == 1:
            yield f"device {device}: constant, {part['conductance'].iloc[0]:g}; remove it"
        elif min(pulses.values()) == 0:
            which = "up" if pulses[1] else "down"
            yield f"device {device}: only pulses {which}; expected pulses in both directions"
        elif min(pulses.values()) < MIN_PULSES:
            few = min(pulses.values())
            yield f"device {device}: {few} pulses in one direction; expected {MIN_PULSES}"
        else:
            yield from _drift(str(device), part)


def _drift(device: str, part: pd.DataFrame) -> Any:
    changes: dict[int, list[float]] = {1: [], -1: []}
    for _, ramp in _ramps(part):
        n = max(1, int(END * len(ramp)))
        values = ramp["conductance"].to_numpy()
        changes[int(ramp["sign"].iloc[0])].append(values[-n:].mean() - values[:n].mean())
    up, down = np.mean(changes[1]), np.mean(changes[-1])
    if up <= 0 and down >= 0:
        yield f"device {device}: falls at pulses up and rises at pulses down: directions swapped?"
    elif up <= 0 or down >= 0:
        way = "falls" if up <= 0 else "rises"
        yield f"device {device}: {way} at pulses of both directions: it only drifts; remove it"
