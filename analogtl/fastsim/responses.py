"""How a cell answers to pulses, device class by device class.

Each rule is a scalar function. It gives the signed change that a pulse makes to a cell at ``v``
(its weight plus its reference), and what the pulse noise (``dw_min_std`` times a normal number) is
relative to. C, whose pulses are few, is updated by these; `simd.py` has the same rules for vectors
of cells, for the many pulses onto A, and a test holds the two together.

The rules are those of aihwkit's device classes (``aihwkit.simulator.configs.devices``), each with
the class's own parameter names. One difference: where a cell was programmed beyond its range, which
its reference can cause, aihwkit's power of a negative number sends it to its lower bound; here the
step there is 0.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from analogtl.fastsim import simd
from analogtl.fastsim.compiled import inner
from analogtl.fastsim.layout import EXP, POW

_ZERO, _ONE, _TWO = (np.float32(value) for value in (0.0, 1.0, 2.0))
_LOG2_E, _LN2 = np.float32(simd.LOG2_E), np.float32(simd.LN2)
_LN2_HIGH, _LN2_LOW = np.float32(simd.LN2_HIGH), np.float32(simd.LN2_LOW)
_ROOT_HALF = np.int32(simd.ROOT_HALF)
_MAX_EXPONENT, _SMALLEST = np.float32(simd.MAX_EXPONENT), np.float32(simd.SMALLEST)
_EXP, _LOG = (np.array(values, np.float32) for values in (simd.EXP_POLYNOMIAL, simd.LOG_POLYNOMIAL))


@inner
def polynomial(x, coefficients):
    """Evaluate a polynomial, the highest power's coefficient first."""
    value = coefficients[0]
    for k in range(1, len(coefficients)):
        value = value * x + coefficients[k]
    return value


@inner
def exp32(x):
    """Compute exp(x) to 2e-7 in float32, within [exp(-87), exp(87)]."""
    x = min(max(x, -_MAX_EXPONENT), _MAX_EXPONENT)
    n = np.float32(np.rint(x * _LOG2_E))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = polynomial(r, _EXP) * (r * r) + r + _ONE
    power = np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23))
    return p * np.int32(power).view(np.float32)


@inner
def log32(u):
    """Compute log(u) to 2e-7 in float32, for a normal positive ``u``."""
    raw = np.int32(np.float32(u).view(np.int32) - _ROOT_HALF)
    exponent = np.float32(np.int32(raw >> np.int32(23)))
    m = np.int32(np.int32(raw & np.int32(0x007FFFFF)) + _ROOT_HALF).view(np.float32) - _ONE
    return m + m * m * polynomial(m, _LOG) + exponent * _LN2


@inner
def linear_change(v, up, step_up, step_down, slope_up, slope_down, mult_noise):
    """Compute constant, linear and soft-bounds steps: ``slope * v + step``.

    Additive noise is relative to the step at ``v = 0``, multiplicative to the change itself.
    """
    step = step_up if up else -step_down
    slope = slope_up if up else -slope_down
    change = slope * v + step
    return change, change if mult_noise else step


@inner
def exp_change(v, up, low, high, step_up, step_down, device):
    """Compute exponential steps: ``step * max(1 - A exp(gamma z), 0)``.

    ``z = 2 a v / range + b``.
    """
    z = _TWO * v / (high - low) * device.a + device.b
    power = device.gamma_up * z if up else -device.gamma_down * z
    factor = max(_ONE - (device.A_up if up else device.A_down) * exp32(power), _ZERO)
    change = factor * (step_up if up else -step_down)
    spread = abs(change) + device.dw_min_std_add + device.dw_min_std_slope * abs(v)
    return change, spread


@inner
def pow_change(v, up, low, high, step_up, step_down, gamma_up, gamma_down):
    """Compute power steps: ``step * u ** gamma``, ``u`` the share of the range that is left."""
    left = max(((high - v) if up else (v - low)) / (high - low), _ZERO)
    gamma = gamma_up if up else gamma_down
    power = exp32(gamma * log32(max(left, _SMALLEST)))
    power = power if left > _SMALLEST or gamma == _ZERO else _ZERO
    change = power * (step_up if up else -step_down)
    return change, change


@inner
def piecewise_change(v, up, low, high, step_up, step_down, curves, nodes):
    """Compute steps that follow a curve over the range, linear between equally spaced nodes.

    ``curves`` [2, nodes], of the steps up and of those down: the value at the first node, and what
    each further one adds to the slope.
    """
    last = np.float32(nodes - 1)
    place = (v - low) / (high - low) * last if high > low else _ZERO
    place = min(max(place, _ZERO), last)
    curve = curves[0] if up else curves[1]
    factor = curve[0]
    for node in range(1, nodes):
        factor += curve[node] * max(place - np.float32(node - 1), _ZERO)
    change = factor * (step_up if up else -step_down)
    return change, change


def change_of(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
    """Compute the change of a pulse, and what its noise is relative to, by the device's class.

    ``more_up`` and ``more_down``: the slopes (linear) or gammas (power) of the cell. For compiled
    functions: which rule it is follows from the type of ``device``, so that only that is compiled.
    """
    raise NotImplementedError


@overload(change_of, jit_options={"error_model": "numpy"})
def _change_of(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
    def linear(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
        return linear_change(v, up, step_up, step_down, more_up, more_down, device.mult_noise)

    def exponential(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
        return exp_change(v, up, low, high, step_up, step_down, device)

    def power(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
        return pow_change(v, up, low, high, step_up, step_down, more_up, more_down)

    def piecewise(v, up, low, high, step_up, step_down, more_up, more_down, device, curves):
        return piecewise_change(v, up, low, high, step_up, step_down, curves, device.nodes)

    others = [rule for rule in (exponential, power, piecewise) if rule.__name__ in device.fields]
    return others[0] if others else linear


@inner
def can_move(low, high, device):
    """Whether a pulse does anything: aihwkit leaves cells without a range alone in two classes."""
    return high > low or (device.response != EXP and device.response != POW)
