"""The device classes that are fitted: their parameters, where a fit starts, and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.fitting import steps
from analogtl.fitting.pulses import Trace

Array = NDArray[Any]
NODES = 11  # of a piecewise response; odd: the middle one is the step at the middle of the range


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

    def theta(self, own: Array, shared: Array) -> Array:
        """All parameters of a device, as `steps` takes them."""
        if self.kind == steps.LINEAR and self.own == 4:
            return np.concatenate([own, [0.0, 0.0]])
        if self.kind == steps.PIECEWISE:
            half, middle = len(shared) // 2, NODES // 2
            curves = (np.insert(part, middle, 0.0) for part in (shared[:half], shared[half:]))
            return np.concatenate([own, *curves])
        return np.concatenate([own, shared])

    def start(self, trace: Trace) -> Array:
        """A first guess of a device's own parameters, from its steps' line over the weight."""
        w, moved, sign = trace.weights[:-1], np.diff(trace.weights), trace.signs[1:]
        moved = np.where(trace.starts[1:], np.nan, moved)
        low, high = np.quantile(trace.weights, (0.005, 0.995))
        span, slopes, sizes = high - low, [], []
        for s in (1, -1):
            known = (sign == s) & np.isfinite(moved)
            slope, at_zero = np.polyfit(w[known], s * moved[known], 1)
            slopes.append(float(np.clip(-s * slope, 0.2 / known.sum(), 1.0)))
            middle = np.median(w[known])
            sizes.append(float(max(at_zero, slope * middle + at_zero, 0.2 * span / known.sum())))
        bounds, logs = [high + 0.02 * span, low - 0.02 * span], np.log(sizes)
        if self.kind == steps.SOFT:
            return np.array([*bounds, *np.log(slopes)])
        if self.kind == steps.LINEAR and self.own == 6:
            return np.array([high, low, *logs, 0.5 / max(high, 0.1), 0.5 / max(-low, 0.1)])
        if self.kind == steps.POW:
            return np.array([*bounds, *(logs + 0.7), 0.0, 0.0])
        return np.array([high, low, *logs])

    @property
    def start_shared(self) -> Array:
        """A first guess of what devices share."""
        if self.kind == steps.EXP:
            return np.log([0.12, 0.12, 2.0, 2.0])
        return np.zeros(self.shared)

    def limits(self, trace: Trace) -> tuple[Array, Array]:
        """Bounds of a device's own parameters."""
        low, high = trace.weights.min(), trace.weights.max()
        span = high - low
        middle = (low + high) / 2
        lower, upper = [middle, low - 2 * span, -16.0, -16.0], [high + 2 * span, middle, 3.0, 3.0]
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


# From the fewest parameters to the most: of models that do equally well the first is taken.
MODELS: Sequence[Model] = (
    Model("constant steps", "ConstantStepDevice", steps.LINEAR, 4),
    Model("soft bounds", "SoftBoundsReferenceDevice", steps.SOFT, 4),
    Model("linear steps", "LinearStepDevice", steps.LINEAR, 6),
    Model("power steps", "PowStepDevice", steps.POW, 6),
    Model("exponential steps", "ExpStepDevice", steps.EXP, 4, 4),
    Model("piecewise steps", "PiecewiseStepDevice", steps.PIECEWISE, 4, 2 * (NODES - 1)),
)
