"""A tile whose devices all get the same pulses, and the pulses that real devices got."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from aihwkit.simulator.configs import SingleRPUConfig, UpdateParameters
from aihwkit.simulator.tiles import AnalogTile
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_RAMP = 20_000  # pulses; a device of 10,000 states goes from bound to bound
INSIDE = (5.0, 95.0)  # percentiles between which 90 % of the readings should lie


class PulsedTile:
    """A tile of n devices in one column; each pulse reaches every device."""

    def __init__(self, device: Any, n: int, seed: int) -> None:
        device = deepcopy(device)
        device.construction_seed = seed
        update = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
        self.n = n
        self.tile = AnalogTile(n, 1, SingleRPUConfig(device=device, update=update)).tile
        step = device.dw_min
        if step is None:  # aihwkit derives it from other parameters
            step = float(self.hidden("dwmin_up").mean())
        # With x = d = 1 and trains of one, a large learning rate gives one pulse for certain; one
        # of dw_min does not where aihwkit reckons with another step (the exponential ones).
        self.tile.set_learning_rate(100 * step)
        span = float((self.hidden("max_bound") - self.hidden("min_bound")).mean())
        # Pulses that take a device from one bound (nearly) to the other.
        self.ramp = int(np.clip(np.ceil(2 * span / step), 20, MAX_RAMP))

    def hidden(self, name: str) -> Array:
        """Read a parameter of each device (N,), by aihwkit's name of it."""
        place = self.tile.get_hidden_parameter_names().index(name)
        values = self.tile.get_hidden_parameters()[place]
        return _array(values)

    def pulse(self, sign: int, number: int = 1) -> None:
        x = torch.ones(number, 1)
        d = torch.full((number, self.n), float(-sign))
        self.tile.update(x, d, False)

    def saturate(self, sign: int) -> None:
        self.pulse(sign, min(3 * self.ramp, MAX_RAMP))

    def weights(self) -> Array:
        return _array(self.tile.get_weights())

    def set(self, weights: Array) -> None:
        self.tile.set_weights(torch.tensor(weights, dtype=torch.float32).reshape(-1, 1))


def _array(values: torch.Tensor) -> Array:
    flat: Array = values.numpy().astype(float).ravel()  # a copy: aihwkit may reuse its memory
    return flat


class Trace(Protocol):
    """Readings of one real device, in order, K of each.

    Attributes:
        weights: What was read, as weights (K,).
        signs: The pulse before each reading: 1 up, -1 down, 0 none (K,).
        starts: Whether a cycle starts there: the pulse before is not known (K,).
    """

    @property
    def weights(self) -> NDArray[Any]: ...
    @property
    def signs(self) -> NDArray[Any]: ...
    @property
    def starts(self) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Replay:
    """Readings of one real device, and of simulated ones with the same pulses, K of each.

    Attributes:
        pulses: Pulses so far (K,).
        measured: Its weights (K,).
        low, middle, high: 5th, 50th and 95th percentile of the simulated devices' weights (K,).
    """

    pulses: Array
    measured: Array
    low: Array
    middle: Array
    high: Array

    @property
    def inside(self) -> float:
        """Share of the readings between `low` and `high`; 0.9 where both are alike."""
        return float(np.mean((self.measured >= self.low) & (self.measured <= self.high)))


def replay(device: Any, trace: Trace, *, n: int, seed: int) -> Replay:
    """Give n simulated devices the pulses of a real one.

    Where a cycle starts they are set to the weight that was read there.

    Args:
        device: As built.
        trace: What was read of the real one.
        n: Simulated devices.
        seed: Seed of their draw; the noise of the pulses is drawn anew each time.
    """
    tile = PulsedTile(device, n, seed)
    weights, known = np.asarray(trace.weights, float), ~np.asarray(trace.starts, bool)
    weights, known, signs = weights[:MAX_RAMP], known[:MAX_RAMP], trace.signs[:MAX_RAMP]
    known[0] = False
    bands = np.empty((3, len(weights)))
    for k, weight in enumerate(weights):
        if not known[k]:
            tile.set(np.full(n, weight))
        elif signs[k]:
            tile.pulse(int(signs[k]))
        bands[:, k] = np.percentile(tile.weights(), (INSIDE[0], 50, INSIDE[1]))
    pulses = np.cumsum(np.abs(signs) * known).astype(float)
    return Replay(pulses, weights, *bands)
