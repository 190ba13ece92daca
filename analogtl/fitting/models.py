"""The device classes that are fitted: their parameters, where a fit starts, and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.fitting import steps
from analogtl.fitting.pulses import Trace

Array = NDArray[Any]
MARGIN = 0.1  # share of the range that may be near a bound
PARTS = 20  # of a ramp, for a first guess
NODES = 11  # of a piecewise response; odd: the middle one is the step at the middle of the range
SIZES = {steps.LINEAR: 6, steps.PIECEWISE: 4 + 2 * NODES}  # of theta, where parameters are fixed


@dataclass(frozen=True)
class Model:
    """A way in which steps depend on the weight.

    Attributes:
        name: In words.
        device_class: aihwkit's class.
        kind: Of `steps`.
        own: Parameters that each device has for itself.
        shared: Parameters that all devices have in common, as aihwkit has no spread of them.
    """

    name: str
    device_class: str
    kind: int
    own: int
    shared: int = 0

    @cached_property
    def places(self) -> Array:
        """Where the own parameters and the shared ones stand in what `steps` takes."""
        found = np.arange(self.own + self.shared)
        if self.kind == steps.PIECEWISE:  # a curve's middle node is its unit
            found[self.own :] += 1 + np.arange(self.shared) // (NODES - 1)
            found[self.own :] -= np.arange(self.shared) % (NODES - 1) < NODES // 2
        return found

    def theta(self, own: Array, shared: Array) -> Array:
        """All parameters of a device, as `steps` takes them."""
        found = np.zeros(SIZES.get(self.kind, self.own + self.shared))
        found[self.places] = np.concatenate([own, shared])
        return found

    @property
    def units(self) -> tuple[int, ...]:
        """What the noise of a pulse can be relative to."""
        if self.kind == steps.SOFT or (self.kind == steps.LINEAR and self.own == 6):
            return steps.OF_STEP, steps.OF_ZERO_STEP
        return (steps.OF_STEP,)

    def start(self, trace: Trace) -> Array:
        """A first guess of a device's own parameters, from its steps' line over the weight."""
        low, high = np.quantile(trace.weights, (0.005, 0.995))
        span, sizes, slopes, bounds = high - low, [], [], []
        for sign, end in ((1, high), (-1, low)):
            weights, step = _coarse(trace, sign)
            if self.kind not in (steps.SOFT, steps.POW):  # at a hard bound there are no steps
                inside = (weights > low + MARGIN * span) & (weights < high - MARGIN * span)
                if inside.sum() > 3:
                    weights, step = weights[inside], step[inside]
            slope, at_zero = np.polyfit(weights, step, 1)
            floor = 0.05 * max(step.mean(), span / len(trace.weights))
            slope = -sign * slope / max(at_zero, floor)  # relative, positive: smaller at the end
            sizes.append(np.log(max(at_zero, floor)))
            slopes.append(np.clip(slope, -0.5 / span, 2 / span))
            place = sign / slope if slope > 0 else sign * np.inf
            bounds.append(np.clip(place, *sorted((end + sign * 0.02 * span, end + sign * span))))
        if self.kind == steps.SOFT:
            return np.array([*bounds, *(sizes - np.log(np.abs(bounds)))])
        if self.kind == steps.LINEAR and self.own == 6:
            return np.array([high, low, *sizes, *slopes])
        if self.kind == steps.POW:
            shares = np.abs(bounds) / (bounds[0] - bounds[1])
            return np.array([*bounds, *(sizes - np.log(shares)), 0.0, 0.0])
        return np.array([high, low, *sizes])

    @property
    def start_shared(self) -> Array:
        """A first guess of what devices share."""
        if self.kind == steps.EXP:
            return np.log([0.12, 0.12, 2.0, 2.0])
        return np.zeros(self.shared)

    def limits(self, trace: Trace) -> tuple[Array, Array]:
        """Bounds of a device's own parameters; hard bounds of weights are where readings end."""
        low, high = trace.weights.min(), trace.weights.max()
        span, middle = high - low, (low + high) / 2
        beyond = (0.5 if self.kind in (steps.SOFT, steps.POW) else 0.02) * span
        lower, upper = [middle, low - beyond, -16.0, -16.0], [high + beyond, middle, 3.0, 3.0]
        if self.kind == steps.LINEAR and self.own == 6:
            lower, upper = [*lower, -1 / span, -1 / span], [*upper, 4 / span, 4 / span]
        elif self.kind == steps.POW:
            lower, upper = [*lower, -3.0, -3.0], [*upper, 2.3, 2.3]
        return np.array(lower), np.array(upper)

    @property
    def limits_shared(self) -> tuple[Array, Array]:
        """Bounds of what devices share."""
        if self.kind == steps.EXP:
            return np.array([-16.0, -16.0, -2.0, -2.0]), np.array([1.0, 1.0, 3.0, 3.0])
        return np.full(self.shared, -5.0), np.full(self.shared, 5.0)


def _coarse(trace: Trace, sign: int) -> tuple[Array, Array]:
    """Weights and steps, averaged over parts of each ramp, so that noise hardly counts."""
    weights, step = [], []
    for ramp in np.split(np.arange(len(trace.signs)), trace.turns[1:]):
        if trace.signs[ramp[-1]] != sign or len(ramp) < 2:
            continue
        parts = np.array_split(ramp, min(PARTS, len(ramp)))
        means = np.array([trace.weights[part].mean() for part in parts])
        places = np.array([part.mean() for part in parts])
        weights.append((means[1:] + means[:-1]) / 2)
        step.append(sign * np.diff(means) / np.diff(places))
    found: tuple[Array, Array] = np.concatenate(weights), np.concatenate(step)
    return found


# From the fewest parameters to the most: of models that do equally well the first is taken.
MODELS: Sequence[Model] = (
    Model("constant steps", "ConstantStepDevice", steps.LINEAR, 4),
    Model("soft bounds", "SoftBoundsReferenceDevice", steps.SOFT, 4),
    Model("linear steps", "LinearStepDevice", steps.LINEAR, 6),
    Model("power steps", "PowStepDevice", steps.POW, 6),
    Model("exponential steps", "ExpStepDevice", steps.EXP, 4, 4),
    Model("piecewise steps", "PiecewiseStepDevice", steps.PIECEWISE, 4, 2 * (NODES - 1)),
)
