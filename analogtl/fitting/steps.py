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
OF_STEP, OF_ZERO_STEP = range(2)  # what the noise of a pulse is relative to: its step, that at 0
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
def filtered(kind, theta, readings, signs, starts, noise, write, about, unit, follow):
    """Run the extended Kalman filter along the readings (K,).

    With ``follow`` it corrects its state by every reading, as far as pulses are noisy. Without, it
    runs freely with the mean response, and readings tell only where a sequence starts.

    Args: ``noise``: of a pulse, in ``unit`` (`OF_STEP`, `OF_ZERO_STEP`); ``write``: of a reading;
    ``about``: of a reading about the mean response; both in weights.

    Returns (K,) each: predictions; gains; standard deviations of the errors; shifts, which is what
    a bound does to the mean, as it cuts off the scatter on one side; what is left of a deviation
    after the pulse; the standard deviation that the pulse adds.
    """
    predicted, gains, scales, shifts, left, added = np.zeros((6, readings.size))
    w, state, spread = 0.0, 0.0, 0.0  # the state's variance, and that of the devices about it
    at_zero_up = abs(_step(kind, theta, 0.0, 1))
    at_zero_down = abs(_step(kind, theta, 0.0, -1))
    h = 1e-4 * max(theta[0] - theta[1], 1e-6)
    for k in range(readings.size):
        if starts[k]:
            predicted[k], scales[k] = readings[k], 1.0
            w, state, spread = min(max(readings[k], theta[1]), theta[0]), write**2, 0.0
            continue
        sign = signs[k]
        left[k] = 1.0
        if sign != 0:
            change = _step(kind, theta, w, sign)
            slope = (_step(kind, theta, w + h, sign) - _step(kind, theta, w - h, sign)) / (2.0 * h)
            relative = abs(change)
            if unit == OF_ZERO_STEP:
                relative = at_zero_up if sign > 0 else at_zero_down
            unbound = w + change
            w = min(max(unbound, theta[1]), theta[0])
            added[k] = noise * relative
            left[k] = min(max(1.0 + slope, 0.0), 1.0)
            spread = left[k] ** 2 * spread + added[k] ** 2
            deviation = math.sqrt(spread + (state if follow else 0.0)) + 1e-300
            for bound, side in ((theta[0], 1.0), (theta[1], -1.0)):
                z = side * (bound - unbound) / deviation
                within = 0.5 * math.erfc(-z / math.sqrt(2.0))
                spread *= within
                left[k] *= within
                lost = deviation * (math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))
                lost -= side * (bound - unbound) * (1.0 - within)
                shifts[k] -= side * max(lost - max(side * (unbound - bound), 0.0), 0.0)
            w += shifts[k]
            state *= left[k] ** 2
        if follow:
            state, spread = state + spread, 0.0
        error = readings[k] - w
        predicted[k], scales[k] = w, math.sqrt(state + spread + write**2)
        gains[k] = state / (state + (write if follow else about) ** 2)
        w = min(max(w + gains[k] * error, theta[1]), theta[0])
        state -= gains[k] * state
    return predicted, gains, scales, shifts, left, added
