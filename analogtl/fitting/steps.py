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
SURE = 9.0  # standard deviations; nothing lies beyond


@inner
def _exp(x):
    return math.exp(min(max(x, -MAX_LOG), MAX_LOG))


@inner
def _step(kind, theta, w, sign, slopes):
    """Compute the signed mean change of a pulse at ``w``, before the bounds cut it off.

    Returns it and its derivative by ``w``; those by ``theta`` that are not 0 go into ``slopes``.
    """
    span = max(theta[0] - theta[1], 1e-9)
    i = 0 if sign > 0 else 1
    size = sign * _exp(theta[2 + i])
    left = max(sign * (theta[i] - w), 0.0)
    if kind == SOFT:
        slopes[i] = abs(size) if left > 0.0 else 0.0
        slopes[2 + i] = size * left
        return size * left, -slopes[i]
    if kind == LINEAR:
        step = size * (1.0 - sign * theta[4 + i] * w)
        slopes[2 + i], slopes[4 + i] = step, -abs(size) * w
        return step, -abs(size) * theta[4 + i]
    if kind == EXP:
        rate = sign * 2.0 * _exp(theta[6 + i]) / span
        lost = _exp(theta[4 + i] + rate * w)
        if lost >= 1.0:
            slopes[:] = 0.0
            return 0.0, 0.0
        slopes[2 + i], slopes[4 + i] = size * (1.0 - lost), -size * lost
        slopes[6 + i] = -size * lost * rate * w
        slopes[0] = size * lost * rate * w / span
        slopes[1] = -slopes[0]
        return slopes[2 + i], -size * lost * rate
    if kind == POW:
        share, power = left / span, _exp(theta[4 + i])
        if share <= 0.0:
            slopes[:] = 0.0
            return 0.0, 0.0
        step = size * share**power
        by_share = power * step / share / span
        slopes[2 + i], slopes[4 + i] = step, step * math.log(share) * power
        slopes[i] = sign * by_share * (1.0 - share)
        slopes[1 - i] = sign * by_share * share
        return step, -sign * by_share
    nodes = (theta.size - 4) // 2
    share = (w - theta[1]) / span
    place = min(max(share, 0.0), 1.0) * (nodes - 1)
    node = min(int(place), nodes - 2)
    first = 4 + i * nodes + node
    low, high = _exp(theta[first]), _exp(theta[first + 1])
    step = size * (low + (place - node) * (high - low))
    by_place = size * (high - low) * (nodes - 1) / span if 0.0 < share < 1.0 else 0.0
    slopes[2 + i], slopes[0] = step, -by_place * share
    slopes[1] = by_place * (share - 1.0)
    slopes[first] = size * (1.0 - place + node) * low
    slopes[first + 1] = size * (place - node) * high
    return step, by_place


@compiled
def step_sizes(kind, theta, weights, sign):
    """Compute the size of a pulse's step at each of ``weights`` (W,)."""
    sizes, slopes = np.empty(weights.size), np.zeros(theta.size)
    for k in range(weights.size):
        sizes[k] = abs(_step(kind, theta, weights[k], sign, slopes)[0])
    return sizes


@compiled
def errors(kind, theta, readings, signs, starts, gains, shifts):
    """Predict each reading from those before; return reading - prediction (K,), 0 at a start.

    Also its derivatives by ``theta`` (K, T). ``gains`` (K,): the share of an error that is taken
    for a change of the device rather than for noise of the reading.
    """
    found, by_theta = np.zeros(readings.size), np.zeros((readings.size, theta.size))
    moved, slopes = np.zeros((2, theta.size))
    w = 0.0
    for k in range(readings.size):
        if starts[k]:
            w = readings[k]
            moved[:] = 0.0
        else:
            if signs[k] != 0:
                slopes[:] = 0.0
                step, slope = _step(kind, theta, w, signs[k], slopes)
                w += step
                for t in range(theta.size):
                    moved[t] += slope * moved[t] + slopes[t]
                w = _bounded(theta, w, moved)
            w += shifts[k]
            found[k] = readings[k] - w
            by_theta[k] = -moved
            w += gains[k] * found[k]
            moved *= 1.0 - gains[k]
        w = _bounded(theta, w, moved)
    return found, by_theta


@inner
def _bounded(theta, w, moved):
    """Cut a weight off at the bounds; there it moves with the bound."""
    for i in range(2):
        if w > theta[0] if i == 0 else w < theta[1]:
            w = theta[i]
            moved[:] = 0.0
            moved[i] = 1.0
    return w


@compiled
def carried(maps, gains, left, added):
    """Carry noise to what is linear in the errors of a free run: ``maps`` (P, K) @ errors.

    ``gains``, ``left``, ``added``: of `filtered`, gains 1 where a sequence starts. Noise of a pulse
    stays in the readings that follow; that of a reading where a sequence starts passes into the
    run. Returns (P, K) each: what the noise of each reading does, and that of each pulse.
    """
    read, moved = np.empty(maps.shape), np.empty(maps.shape)
    into, stays = np.zeros((2, len(maps)))
    for k in range(left.size - 1, -1, -1):
        for p in range(len(maps)):
            read[p, k] = maps[p, k] + gains[k] * into[p]
            into[p] = left[k] * ((1.0 - gains[k]) * into[p] - maps[p, k])
            moved[p, k] = added[k] * (read[p, k] + stays[p])
            stays[p] = left[k] * (read[p, k] + stays[p])
    return read, moved


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
    slopes = np.zeros(theta.size)
    at_zero_up = abs(_step(kind, theta, 0.0, 1, slopes)[0])
    at_zero_down = abs(_step(kind, theta, 0.0, -1, slopes)[0])
    for k in range(readings.size):
        if starts[k]:
            predicted[k], scales[k] = readings[k], 1.0
            w, state, spread = min(max(readings[k], theta[1]), theta[0]), write**2, 0.0
            continue
        sign = signs[k]
        left[k] = 1.0
        if sign != 0:
            change, slope = _step(kind, theta, w, sign, slopes)
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
                if z > SURE:
                    continue
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
