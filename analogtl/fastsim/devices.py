"""The device-to-device draw: the same cells that aihwkit draws for one ``construction_seed``.

aihwkit draws a tile's cells with the C++ library's default engine, a linear congruential generator,
and its normal distribution, the polar method, in a fixed order. Running the same recurrence here
gives the same devices for the same seed on either engine, so that engines can be compared pairwise,
and it takes no second tile in memory.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analogtl.fastsim.compiled import compiled, inner
from analogtl.fastsim.layout import record_of

MODULUS = 2147483647
_MULTIPLIER, _MULTIPLIER_2 = 16807, 16807**2  # of one step, and of two
_INVERSE = np.float32(2.0**-31)


@inner
def _reduced(product):
    """Compute ``product`` modulo ``MODULUS``, 2^31 - 1, for a product of two numbers below it."""
    folded = (product & MODULUS) + (product >> 31)
    return folded - MODULUS if folded >= MODULUS else folded


@inner
def _uniform(state):
    """Make a uniform float32 in [0, 1) from the engine's state."""
    return min(np.float32(state - 1) * _INVERSE, np.float32(1.0 - 2.0**-24))


@inner
def _canonical(state):
    """Draw a uniform float32 in [0, 1) and the engine's next state."""
    state = _reduced(state * _MULTIPLIER)
    return _uniform(state), state


@inner
def _gauss(state, saved, has_saved):
    """Draw a standard normal float32 by the polar method, which makes two and keeps one."""
    if has_saved:
        return saved, state, np.float32(0.0), False
    one = np.float32(1.0)
    two = np.float32(2.0)
    x = np.float32(0.0)
    y = np.float32(0.0)
    r2 = np.float32(0.0)
    while r2 > one or r2 == np.float32(0.0):
        # Both numbers from the same state: neither waits for the other.
        u, _ = _canonical(state)
        x = np.float32(two * u - one)
        state = _reduced(state * _MULTIPLIER_2)
        y = np.float32(two * _uniform(state) - one)
        r2 = np.float32(np.float32(x * x) + np.float32(y * y))
    factor = np.float32(math.sqrt(np.float32(np.float32(-2.0) * np.float32(math.log(r2)) / r2)))
    return np.float32(y * factor), state, np.float32(x * factor), True


class Draw(NamedTuple):
    """What the cells of one device are drawn from; aihwkit's names where there is one."""

    w_max: np.float32
    w_max_dtod: np.float32
    w_min: np.float32
    w_min_dtod: np.float32
    dw_min: np.float32
    dw_min_dtod: np.float32
    dw_min_dtod_log_normal: bool
    up_down: np.float32
    up_down_dtod: np.float32
    enforce_consistency: bool
    perfect_bias: bool
    corrupt_devices_prob: np.float32
    corrupt_devices_range: np.float32
    reset: np.float32
    reset_dtod: np.float32
    lifetime: np.float32
    lifetime_dtod: np.float32
    diffusion: np.float32
    diffusion_dtod: np.float32
    kind: int
    # linear steps and soft bounds
    gamma_up: np.float32
    gamma_up_dtod: np.float32
    gamma_down: np.float32
    gamma_down_dtod: np.float32
    allow_increasing: bool
    mean_bound_reference: bool
    reverse_up: bool
    reverse_down: bool
    reverse_offset: np.float32
    # power steps
    pow_gamma: np.float32
    pow_gamma_dtod: np.float32
    pow_up_down: np.float32
    pow_up_down_dtod: np.float32
    # classes with a reference
    slope_up_dtod: np.float32
    slope_down_dtod: np.float32
    reference_mean: np.float32
    reference_std: np.float32
    subtract_symmetry_point: bool
    n_estimation_steps: int


_RECORD = record_of(Draw)
# Kinds of ``Draw``: what is drawn beside bounds and steps.
PLAIN, SLOPES, GAMMAS, GAMMAS_AND_REFERENCE, SOFT_REFERENCE = range(5)
# Fields of drawn cells.
(
    REFERENCE, TOP, BOTTOM, UP, DOWN, RESET_BIAS, MORE_UP, MORE_DOWN, DECAY, DIFFUSION, N_FIELDS,
) = range(11)  # fmt: skip


def draw_device(
    cells: NDArray[Any], p: Draw, out: int, state: int, saved: np.float32, has_saved: bool
) -> tuple[int, np.float32, bool]:
    """Draw one device's cells: ``cells`` [in, fields, O], of which this fills ``out`` rows.

    Returns the generator's state, from which the compound's next device goes on.
    """
    packed = np.array([p], _RECORD)  # numba compiles faster for it: see `layout.packed`
    after: tuple[int, np.float32, bool] = _draw_all(cells, packed, out, state, saved, has_saved)
    if p.kind == PLAIN:
        return after
    state, saved, has_saved = after
    draw = {SLOPES: _draw_slopes, SOFT_REFERENCE: _draw_soft_references}.get(p.kind, _draw_gammas)
    return draw(cells, packed, out, state, np.float32(saved), has_saved)


@compiled
def _draw_all(cells, packed, out, state, saved, has_saved):
    """Draw what the cells of every device class have: bounds, steps, decay and diffusion."""
    p = packed[0]
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    in_size = cells.shape[0]
    up_bias = min(p.up_down, zero)
    down_bias = -p.up_down if p.up_down > zero else zero
    for j in range(in_size):
        for i in range(out):
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            top = np.float32(p.w_max * np.float32(one + np.float32(p.w_max_dtod * g)))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            bottom = np.float32(p.w_min * np.float32(one + np.float32(p.w_min_dtod * g)))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            if p.dw_min_dtod_log_normal:
                gain = np.float32(math.exp(np.float32(p.dw_min_dtod * g)))
            else:
                gain = np.float32(one + np.float32(p.dw_min_dtod * g))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            r = np.float32(p.up_down_dtod * g)
            up = np.float32(np.float32(np.float32(up_bias + gain) + r) * p.dw_min)
            down = np.float32(np.float32(np.float32(down_bias + gain) - r) * p.dw_min)
            if p.enforce_consistency:
                up, down = abs(up), abs(down)
                if bottom > top:
                    top, bottom = bottom, top
                top, bottom = abs(top), -abs(bottom)
            elif bottom > top:
                middle = np.float32(top + np.float32(bottom - top) / two)
                top = middle
                bottom = middle
            u, state = _canonical(state)
            if p.corrupt_devices_prob > u:
                low = max(min(top, bottom), -abs(p.corrupt_devices_range))
                high = min(max(top, bottom), abs(p.corrupt_devices_range))
                u, state = _canonical(state)
                top = np.float32(low + np.float32(np.float32(high - low) * u))
                bottom = top
                up = zero
                down = zero
            if p.perfect_bias and j == in_size - 1:
                up = p.dw_min
                down = p.dw_min
                bottom = np.float32(np.float32(100.0) * p.w_min)
                top = np.float32(np.float32(100.0) * p.w_max)
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            rate = np.float32(p.diffusion * np.float32(one + np.float32(p.diffusion_dtod * g)))
            cells[j, DIFFUSION, i] = abs(rate)
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            cells[j, REFERENCE, i] = zero
            cells[j, TOP, i] = top
            cells[j, BOTTOM, i] = bottom
            cells[j, UP, i] = up
            cells[j, DOWN, i] = down
            cells[j, RESET_BIAS, i] = np.float32(p.reset + np.float32(p.reset_dtod * g))
            cells[j, DECAY, i] = one
            if p.lifetime > zero:
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                life = np.float32(p.lifetime * np.float32(one + np.float32(p.lifetime_dtod * g)))
                cells[j, DECAY, i] = np.float32(one - one / life) if life > one else zero
    return state, saved, has_saved


@compiled
def _draw_slopes(cells, packed, out, state, saved, has_saved):
    """Draw how fast the steps of the cells shrink towards the bounds."""
    p = packed[0]
    zero = np.float32(0.0)
    for i in range(out):
        for j in range(cells.shape[0]):
            cell = cells[j, :, i]
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            up = np.float32(p.gamma_up + np.float32(p.gamma_up_dtod * g))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            down = np.float32(p.gamma_down + np.float32(p.gamma_down_dtod * g))
            if not p.allow_increasing:
                up, down = abs(up), abs(down)
            top = p.w_max if p.mean_bound_reference else cell[TOP]
            bottom = p.w_min if p.mean_bound_reference else cell[BOTTOM]
            at_up = np.float32(bottom - p.reverse_offset) if p.reverse_up else top
            at_down = np.float32(top + p.reverse_offset) if p.reverse_down else bottom
            cell[MORE_UP] = (
                np.float32(np.float32(-up * cell[UP]) / at_up) if at_up != zero else zero
            )
            cell[MORE_DOWN] = (
                np.float32(np.float32(-down * cell[DOWN]) / at_down) if at_down != zero else zero
            )
    return state, saved, has_saved


@compiled
def _draw_soft_references(cells, packed, out, state, saved, has_saved):
    """Draw the cells' reference, and the spread of the slopes, which moves the bounds."""
    p = packed[0]
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(out):
        for j in range(cells.shape[0]):
            cell = cells[j, :, i]
            top, bottom, up, down = cell[TOP], cell[BOTTOM], cell[UP], cell[DOWN]
            regular = top > zero and bottom < zero
            if regular:
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                slope_down = np.float32(
                    np.float32(-down / bottom)
                    * abs(np.float32(one + np.float32(p.slope_down_dtod * g)))
                )
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                slope_up = np.float32(
                    np.float32(up / top) * abs(np.float32(one + np.float32(p.slope_up_dtod * g)))
                )
                top = np.float32(up / slope_up)
                bottom = np.float32(-down / slope_down)
                cell[TOP] = top
                cell[BOTTOM] = bottom
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            ref = np.float32(p.reference_mean + np.float32(p.reference_std * g))
            if p.subtract_symmetry_point and top > zero and bottom < zero:
                point = np.float32(
                    np.float32(up - down)
                    / np.float32(np.float32(up / top) - np.float32(down / bottom))
                )
                ref = np.float32(ref + point)
                cell[RESET_BIAS] = np.float32(cell[RESET_BIAS] + point)
            cell[REFERENCE] = ref
    return state, saved, has_saved


@compiled
def _draw_gammas(cells, packed, out, state, saved, has_saved):
    """Draw the cells' exponents, and their references if the class has them."""
    p = packed[0]
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(out):
        for j in range(cells.shape[0]):
            cell = cells[j, :, i]
            up_bias = min(p.pow_up_down, zero)
            down_bias = -p.pow_up_down if p.pow_up_down > zero else zero
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            gain = np.float32(one + np.float32(p.pow_gamma_dtod * g))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            r = np.float32(p.pow_up_down_dtod * g)
            gamma_up = np.float32(np.float32(np.float32(up_bias + gain) + r) * p.pow_gamma)
            gamma_down = np.float32(np.float32(np.float32(down_bias + gain) - r) * p.pow_gamma)
            if p.enforce_consistency:
                gamma_up, gamma_down = abs(gamma_up), abs(gamma_down)
            cell[MORE_UP], cell[MORE_DOWN] = gamma_up, gamma_down
            if p.kind == GAMMAS:
                continue
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            cell[REFERENCE] = np.float32(p.reference_mean + np.float32(p.reference_std * g))
            top, bottom, up, down = cell[TOP], cell[BOTTOM], cell[UP], cell[DOWN]
            if p.subtract_symmetry_point and top > zero and bottom < zero:
                width = np.float32(top - bottom)
                steps = p.n_estimation_steps
                if steps <= 0:
                    per_range = np.float32(width / min(abs(down), abs(up)))
                    steps = int(min(np.rint(np.float32(np.float32(10.0) * per_range)), 10000))
                point = zero
                for _ in range(steps):
                    rise = up * np.float32(np.float32((top - point) / width) ** gamma_up)
                    fall = down * np.float32(np.float32((point - bottom) / width) ** gamma_down)
                    point = np.float32(point + np.float32(rise - fall))
                cell[REFERENCE] = np.float32(cell[REFERENCE] + point)
                cell[RESET_BIAS] = np.float32(cell[RESET_BIAS] + point)
    return state, saved, has_saved
