"""How a device answers to pulses, one at a time, and the filter that predicts each reading.

The rules are those of aihwkit's device classes. A device is a vector ``theta``: its upper and lower
bound, and then by kind (steps are positive, w is the weight, R the range):

- ``SOFT``: log slopes up, down: a step is slope times the distance to the bound.
- ``LINEAR``: log steps at 0 up, down; relative slopes g: step (1 - g w) up, step (1 + g w) down.
- ``EXP``: log steps; log A up, down; log gamma up, down: step (1 - A exp(+-2 gamma w / R)).
- ``POW``: log steps; log exponents up, down, of the share of the range that is left.
- ``PIECEWISE``: log steps; log factors at equally spaced nodes, those up and then those down.

All scalars are float64, in weights. A pulse is +1, -1 or 0 (a reading without a pulse).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.fastsim.compiled import compiled, inner

Array = NDArray[Any]
SOFT, LINEAR, EXP, POW, PIECEWISE = range(5)
# What the noise of a pulse is relative to: its step, the step at weight 0, or nothing (weights).
OF_STEP, OF_ZERO_STEP, OF_WEIGHT = range(3)
MAX_LOG = 30.0


@inner
def _exp(x):
    return math.exp(min(max(x, -MAX_LOG), MAX_LOG))


@inner
def _step(kind, theta, w, sign):
    """Compute the signed mean change of a pulse at ``w``, before the bounds cut it off."""
    top, bottom = theta[0], theta[1]
    span = max(top - bottom, 1e-9)
    i = 0 if sign > 0 else 1
    size = _exp(theta[2 + i])
    left = max((top - w) if sign > 0 else (w - bottom), 0.0)
    if kind == SOFT:
        return sign * size * left
    if kind == LINEAR:
        return sign * size * (1.0 - sign * theta[4 + i] * w)
    if kind == EXP:
        power = _exp(theta[6 + i])
        return sign * size * max(1.0 - _exp(theta[4 + i] + sign * 2.0 * power * w / span), 0.0)
    if kind == POW:
        share = left / span
        return sign * size * share ** _exp(theta[4 + i]) if share > 0.0 else 0.0
    nodes = (theta.size - 4) // 2
    place = min(max((w - bottom) / span, 0.0), 1.0) * (nodes - 1)
    node = min(int(place), nodes - 2)
    first = 4 + i * nodes + node
    low, high = _exp(theta[first]), _exp(theta[first + 1])
    return sign * size * (low + (place - node) * (high - low))


@inner
def _after(kind, theta, w, sign):
    if sign == 0:
        return w
    return min(max(w + _step(kind, theta, w, sign), theta[1]), theta[0])


@compiled
def step_sizes(kind, theta, weights, sign):
    """Compute the size of a pulse's step at each of ``weights`` (W,)."""
    sizes = np.empty(weights.size)
    for k in range(weights.size):
        sizes[k] = abs(_step(kind, theta, weights[k], sign))
    return sizes


@compiled
def errors(kind, theta, readings, signs, starts, gains, scales, shifts):
    """Predict each reading from those before; return (reading - prediction) / scale (K,).

    ``gains`` (K,): the share of an error that is taken for a change of the device rather than for
    noise of the reading. A reading where ``starts`` is true begins a sequence; its error is 0.
    """
    found = np.zeros(readings.size)
    w = 0.0
    for k in range(readings.size):
        if starts[k]:
            w = readings[k]
        else:
            w = _after(kind, theta, w, signs[k]) + shifts[k]
            error = readings[k] - w
            found[k] = error / scales[k]
            w += gains[k] * error
        w = min(max(w, theta[1]), theta[0])
    return found


@compiled
def filtered(kind, theta, readings, signs, starts, noise, write, floor, unit):
    """Run the extended Kalman filter: predictions, gains, standard deviations, shifts (K,) each.

    A shift is what a bound does to the mean, as it cuts off the scatter on one side.

    Args: ``noise``: of a pulse, in ``unit`` (`OF_STEP` and so on); ``write``: of a reading, in
    weights; ``floor``: what no reading is more exact than.
    """
    predicted = np.empty(readings.size)
    gains = np.empty(readings.size)
    scales = np.empty(readings.size)
    shifts = np.zeros(readings.size)
    w, variance = 0.0, 0.0
    read = write * write + floor * floor
    at_zero_up = abs(_step(kind, theta, 0.0, 1))
    at_zero_down = abs(_step(kind, theta, 0.0, -1))
    h = 1e-4 * max(theta[0] - theta[1], 1e-6)
    for k in range(readings.size):
        if starts[k]:
            predicted[k], gains[k], scales[k] = readings[k], 0.0, 1.0
            w, variance = min(max(readings[k], theta[1]), theta[0]), read
            continue
        sign = signs[k]
        if sign != 0:
            change = _step(kind, theta, w, sign)
            slope = 1.0 + (_step(kind, theta, w + h, sign) - _step(kind, theta, w - h, sign)) / (
                2.0 * h
            )
            relative = 1.0
            if unit == OF_STEP:
                relative = abs(change)
            elif unit == OF_ZERO_STEP:
                relative = at_zero_up if sign > 0 else at_zero_down
            unbound = w + change
            w = min(max(unbound, theta[1]), theta[0])
            variance = min(max(slope, 0.0), 1.0) ** 2 * variance + (noise * relative) ** 2
            deviation = math.sqrt(variance) + 1e-300
            for bound, side in ((theta[0], 1.0), (theta[1], -1.0)):
                z = side * (bound - unbound) / deviation
                within = 0.5 * math.erfc(-z / math.sqrt(2.0))
                variance *= within
                lost = deviation * (math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))
                lost -= side * (bound - unbound) * (1.0 - within)
                shifts[k] -= side * max(lost - max(side * (unbound - bound), 0.0), 0.0)
            w += shifts[k]
        total = variance + read
        error = readings[k] - w
        predicted[k], gains[k], scales[k] = w, variance / total, math.sqrt(total)
        w = min(max(w + gains[k] * error, theta[1]), theta[0])
        variance -= gains[k] * variance
    return predicted, gains, scales, shifts


@compiled
def free_run(kind, theta, readings, signs, starts):
    """Follow the mean response from the first reading of each sequence alone (K,)."""
    path = np.empty(readings.size)
    w = 0.0
    for k in range(readings.size):
        w = min(max(readings[k] if starts[k] else w, theta[1]), theta[0])
        w = w if starts[k] else _after(kind, theta, w, signs[k])
        path[k] = w
    return path
