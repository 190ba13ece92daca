"""Measure a device: number of states, step, bounds, symmetry point, noise, pulse response.

Everything "measured" is read off a real aihwkit tile, by giving it pulses and reading its weights;
so it holds for the device that an experiment would train on, whatever its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analogtl.config.arrays import Device, Nonidealities
from analogtl.config.catalog import device_class, device_parameters
from analogtl.crossbar.pulsed_tile import PulsedTile, Replay, Trace, replay
from analogtl.crossbar.rpu_config import build_device, set_parameters
from analogtl.errors import ExperimentError

Array = NDArray[np.float64]

NOISE_PARAMETERS = ("dw_min_std", "dw_min_std_add", "dw_min_std_slope", "write_noise_std")
RAMP_POINTS = 200  # weights kept per ramp
GRID = 41  # weights between the bounds at which the steps are measured
N_DEVICES = 400  # that are drawn and measured
FINE_STATES = 100  # at least, where the symmetry point is sought
REPEATS = 30  # pulses from the same weight, for the noise


@dataclass(frozen=True)
class Fact:
    """One property of a device.

    Attributes:
        name: What it is, in words.
        parameter: The aihwkit parameters behind it, "" if it follows from several.
        nominal: The value that is set, None where nothing sets it.
        measured: What the devices of the tile have (median), None where nothing is measured.
        spread: Half the range of the central 68 % of the devices, None where there is none.
        unit: Unit, "" for a plain number.
        note: What the number means for training.
    """

    name: str
    parameter: str
    nominal: float | None
    measured: float | None = None
    spread: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class DeviceView:
    """What `view_device` found; S of the devices are shown with P points of their ramps.

    Attributes:
        device_class: The aihwkit device class behind it.
        parameters: Parameter of that class -> value, as built.
        n_devices: Devices that were measured.
        pulses: Pulses given so far at each point of the ramps, up and then down (P,).
        turn: The pulse at which the ramp turns from up to down.
        weights: Weight of the shown devices at each point, as the network reads them (P, S).
        symmetry_points: Where an up and a down step are equal for each of them, NaN without such a
            point (S,).
        grid: Weights at which the steps were measured, median over the devices (G,).
        up, down: Step of an up and of a down pulse there, both positive, median (G,).
        replays: Real devices beside simulated ones with the same pulses.
    """

    name: str
    device_class: str
    parameters: Mapping[str, Any]
    n_devices: int
    facts: tuple[Fact, ...]
    pulses: Array
    turn: float
    weights: Array
    symmetry_points: Array
    grid: Array
    up: Array
    down: Array
    replays: tuple[Replay, ...] = ()

    @property
    def title(self) -> str:
        """Its name, and its class where that is another."""
        same = self.name == self.device_class
        return self.name if same else f"{self.name} ({self.device_class})"

    def crossings(self, number: int) -> Iterator[float]:
        """Find the pulse at which each ramp of a shown device first passes its symmetry point."""
        point, weights, pulses = self.symmetry_points[number], self.weights[:, number], self.pulses
        if np.isnan(point):
            return
        ways = ((pulses <= self.turn, weights >= point), (pulses >= self.turn, weights <= point))
        for ramp, beyond in ways:
            i = int(np.argmax(ramp & beyond))
            if (ramp & beyond).any() and i > 0 and ramp[i - 1]:
                share = (point - weights[i - 1]) / (weights[i] - weights[i - 1])
                yield float(pulses[i - 1] + share * (pulses[i] - pulses[i - 1]))


def view_device(
    device: Device,
    nonidealities: Nonidealities | None = None,
    *,
    later: Mapping[str, Any] | None = None,
    name: str = "",
    traces: Sequence[Trace] = (),
    n_devices: int = N_DEVICES,
    n_shown: int = 5,
    seed: int = 1,
) -> DeviceView:
    """Build a tile of one device and give it pulses.

    Args:
        device: Preset and parameters, as in ``[analog.device]``.
        nonidealities: As in ``[analog.nonidealities]``.
        later: Parameters that come after these, as in ``[analog.slow_device]``.
        name: What to call the device; by default by its preset.
        traces: Readings of real devices, whose pulses simulated ones get too.
        n_devices: Devices that are drawn and measured (N).
        n_shown: Devices whose ramps are kept (S).
        seed: Seed of the device draw; the pulses' noise is drawn anew each time.

    Raises:
        ExperimentError: If the installed aihwkit lacks a parameter, or no device moves.
    """
    built = build_device(device, nonidealities or Nonidealities())
    set_parameters(built, later or {}, "analog.slow_device")
    quiet, cls = _quiet(built), device_class(device.preset)
    measured = _measure(PulsedTile(quiet, n_devices, seed))
    if not (measured.step > 0).any():
        line = f"{name or device.preset}: no pulse moves any of its devices: nothing to show"
        raise ExperimentError(line)
    update_noise, write_noise = _noise(PulsedTile(built, n_devices, seed), measured)
    shown = PulsedTile(built, n_shown, seed)
    ramp = shown.ramp
    pulses, weights = _ramps(shown)
    facts = [*_facts(built, measured, _in_range(built, seed), update_noise, write_noise)]
    replays = [replay(built, trace, n=n_devices, seed=seed) for trace in traces]
    if replays:
        inside = 100 * float(np.mean([one.inside for one in replays]))
        note = "of what was measured, in the middle of simulated devices with the same pulses"
        facts.append(Fact("readings in the central 90 %", "", 90.0, inside, unit="%", note=note))
    return DeviceView(
        name=name or device.preset,
        device_class=cls,
        parameters={one: getattr(built, one) for one in device_parameters(cls)},
        n_devices=n_devices,
        facts=tuple(facts),
        pulses=pulses,
        turn=float(ramp),
        weights=weights,
        symmetry_points=_measure(PulsedTile(quiet, n_shown, seed)).points,
        grid=np.median(measured.grid, axis=1),
        up=np.median(measured.up, axis=1),
        down=np.median(measured.down, axis=1),
        replays=tuple(replays),
    )


@lru_cache(maxsize=64)
def _symmetry_of(device: str, nonidealities: str) -> tuple[float, float] | None:
    built = build_device(
        Device.model_validate_json(device), Nonidealities.model_validate_json(nonidealities)
    )
    return _in_range(built, seed=1)


def symmetry_in_range(device: Device, nonidealities: Nonidealities) -> tuple[float, float] | None:
    """Where the symmetry point lies within the range, from the top: 0.5 is ideal.

    Measured without noise on a tile of the device, whose steps are made small enough for their size
    not to be cut off by the bounds; torch's generators stay as they are.

    Returns:
        The median over devices and half the range of their central 68 %, shares of the range; None
        if most devices have no symmetry point.
    """
    return _symmetry_of(device.model_dump_json(), nonidealities.model_dump_json())


def _in_range(built: Any, seed: int) -> tuple[float, float] | None:
    """`symmetry_in_range` of a device as built."""
    fine = _quiet(built)
    if fine.dw_min is not None:  # up and down steps keep their ratio
        fine.dw_min = min(fine.dw_min, (fine.w_max - fine.w_min) / FINE_STATES)
    with torch.random.fork_rng(devices=[]):
        measured = _measure(PulsedTile(fine, N_DEVICES, seed))
    has_range = measured.upper > measured.lower
    points = measured.points
    known = has_range & ~np.isnan(points)
    if 2 * known.sum() <= has_range.sum():
        return None
    shares = (measured.upper - points)[known] / (measured.upper - measured.lower)[known]
    return _middle(np.clip(shares, 0.0, 1.0))


def _quiet(built: Any) -> Any:
    """A copy of a device without noise."""
    quiet = deepcopy(built)
    for name in NOISE_PARAMETERS:
        if hasattr(quiet, name):
            setattr(quiet, name, 0.0)
    return quiet


@dataclass(frozen=True)
class _Measured:
    """Bounds and steps of N devices, at G weights between the bounds."""

    lower: Array  # (N,)
    upper: Array  # (N,)
    grid: Array  # (G, N)
    up: Array  # (G, N)
    down: Array  # (G, N)

    @property
    def points(self) -> Array:
        """Symmetry points: where ``up - down`` changes from positive to negative (N,)."""
        difference = self.up - self.down
        points = np.full(difference.shape[1], np.nan)
        falls = (difference[:-1] > 0) & (difference[1:] <= 0)
        for device in np.flatnonzero(falls.any(axis=0)):
            i = int(np.argmax(falls[:, device]))
            above, below = difference[i, device], difference[i + 1, device]
            near, far = self.grid[i, device], self.grid[i + 1, device]
            points[device] = near + above / (above - below) * (far - near)
        return points

    @property
    def step(self) -> Array:
        """Size of a step at each device's own place (N,)."""
        steps = (self.up + self.down) / 2
        places = enumerate(self.places)
        return np.array([np.interp(w, self.grid[:, i], steps[:, i]) for i, w in places])

    @property
    def places(self) -> Array:
        """The symmetry points, or midway between the bounds for a device without one (N,)."""
        points = self.points
        return np.where(np.isnan(points), (self.lower + self.upper) / 2, points)


def _facts(
    device: Any,
    measured: _Measured,
    in_range: tuple[float, float] | None,
    update_noise: float,
    write_noise: float,
) -> Iterator[Fact]:
    moves = measured.step > 0
    step, span = measured.step[moves], (measured.upper - measured.lower)[moves]
    typical, spread = _middle(step)
    states = None if device.dw_min is None else (device.w_max - device.w_min) / device.dw_min
    parameter, note = "(w_max - w_min) / dw_min", "steps from bound to bound"
    yield Fact("number of states", parameter, states, *_middle(span / step), note=note)
    note = "the smallest change of a weight, at the symmetry point"
    yield Fact("step of one pulse", "dw_min", device.dw_min, typical, spread, note=note)
    name, note = "its spread over devices", "half the central 68 % of the devices / median"
    dtod = device.dw_min_dtod
    yield Fact(name, "dw_min_dtod", dtod, spread / typical, unit="x step", note=note)
    noise, note = getattr(device, "dw_min_std", None), "from pulse to pulse of one device"
    yield Fact("update noise", "dw_min_std", noise, update_noise, unit="x step", note=note)
    yield Fact("upper bound", "w_max", device.w_max, *_middle(measured.upper))
    yield Fact("lower bound", "w_min", device.w_min, *_middle(measured.lower))
    points = measured.points[~np.isnan(measured.points)]
    if 2 * len(points) > len(measured.points):
        note = "up and down steps are equal there: random pulses drive a weight to it"
        yield Fact("symmetry point", "", None, *_middle(points), note=note)
    else:
        note = "none: up and down steps do not cross between the bounds"
        yield Fact("symmetry point", "", None, note=note)
    if in_range is not None:
        name, note = "its place in the range", "the symmetry point skew, from the top: 50 is ideal"
        share, about = in_range
        yield Fact(name, "", 50.0, 100 * share, 100 * about, unit="%", note=note)
    if getattr(device, "write_noise_std", 0.0) > 0:
        on_set = " and programming" if getattr(device, "apply_write_noise_on_set", False) else ""
        parameter = "write_noise_std x dw_min"
        noise = None if device.dw_min is None else device.write_noise_std * device.dw_min
        note = f"of the weight as read, after a pulse{on_set}"
        yield Fact("write noise", parameter, noise, write_noise, note=note)
    if getattr(device, "reference_std", 0.0) > 0:
        note = "spread of the reference devices, and so of the symmetry points"
        yield Fact("reference spread", "reference_std", device.reference_std, note=note)
    if getattr(device, "lifetime", 0.0) > 0:
        note = "weights decay by 1 / lifetime a mini-batch"
        yield Fact("lifetime", "lifetime", device.lifetime, unit="batches", note=note)
    if device.corrupt_devices_prob > 0:
        yield Fact("stuck devices", "corrupt_devices_prob", device.corrupt_devices_prob)


def _middle(values: Array) -> tuple[float, float]:
    """Compute the median and half the central 68 %, which a few extreme devices do not decide."""
    low, middle, high = np.percentile(values, (16, 50, 84))
    return float(middle), float(high - low) / 2


def _measure(tile: PulsedTile) -> _Measured:
    """Measure the bounds, and an up and a down step at a grid of weights between them."""
    tile.set(np.zeros(tile.n))  # a tile starts at random weights
    tile.saturate(+1)
    upper = tile.weights()
    tile.saturate(-1)
    lower = tile.weights()
    grid, up, down = [], [], []
    # Not at the bounds: there every step is cut off.
    for share in np.linspace(0.05, 0.95, GRID):
        tile.set(lower + share * (upper - lower))
        start = tile.weights()
        tile.pulse(+1)
        up.append(tile.weights() - start)
        tile.set(start)
        tile.pulse(-1)
        down.append(start - tile.weights())
        grid.append(start)
    return _Measured(lower, upper, np.array(grid), np.array(up), np.array(down))


def _noise(tile: PulsedTile, measured: _Measured) -> tuple[float, float]:
    """Measure the noise of a pulse (relative to the step) and of a read (weight units)."""
    start, step = measured.places, measured.step
    has_write_noise = "persistent_weights" in tile.tile.get_hidden_parameter_names()
    read, kept = [], []
    for _ in range(REPEATS):
        tile.set(start)
        tile.pulse(+1)
        read.append(tile.weights())
        kept.append(tile.hidden("persistent_weights") if has_write_noise else read[-1])
    moves = step > 0
    relative = np.std(kept, axis=0, ddof=1)[moves] / step[moves]
    return float(np.median(relative)), float(np.std(np.array(read) - np.array(kept)))


def _ramps(tile: PulsedTile) -> tuple[Array, Array]:
    """Give pulses from the lower bound up, then down again: pulses (P,) and weights (P, S)."""
    tile.saturate(-1)
    points = min(tile.ramp, RAMP_POINTS) + 1
    marks = np.linspace(0, tile.ramp, points).round().astype(int)
    pulses, weights = [0], [tile.weights()]
    for sign in (+1, -1):
        for number in np.diff(marks):
            tile.pulse(sign, int(number))
            pulses.append(pulses[-1] + int(number))
            weights.append(tile.weights())
    return np.array(pulses, dtype=float), np.array(weights)
