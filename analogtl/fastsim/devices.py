"""The device-to-device draw: the same cells that aihwkit draws for one ``construction_seed``.

aihwkit draws a tile's cells with the C++ library's default engine, a linear congruential generator,
and its normal distribution, the polar method, in a fixed order. Running the same recurrence here
gives the same devices for the same seed on either engine, so that engines can be compared pairwise,
and it takes no second tile in memory.
"""

from __future__ import annotations

import math

import numpy as np

from analogtl.fastsim.compiled import compiled

MODULUS = 2147483647
_INVERSE = np.float32(2.0**-31)


@compiled
def _canonical(state):
    """Draw a uniform float32 in [0, 1) and the engine's next state."""
    state = (state * 16807) % MODULUS
    u = np.float32(state - 1) * _INVERSE
    return min(u, np.float32(1.0 - 2.0**-24)), state


@compiled
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
        u, state = _canonical(state)
        x = np.float32(two * u - one)
        u, state = _canonical(state)
        y = np.float32(two * u - one)
        r2 = np.float32(np.float32(x * x) + np.float32(y * y))
    factor = np.float32(math.sqrt(np.float32(np.float32(-2.0) * np.float32(math.log(r2)) / r2)))
    return np.float32(y * factor), state, np.float32(x * factor), True


@compiled
def draw_device(cells, p, flags, state, saved, has_saved):
    """Draw one device's cells: ``cells`` [in, 6, O], of which this fills the first ``out`` rows:
    reference, upper and lower bound, step up, step down, reset bias.

    ``p`` (float32) and ``flags`` (bool): see ``device_numbers`` in ``config.py``. Returns the
    generator's state, which the next device of the compound goes on from.
    """
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    (w_max, w_max_dtod, w_min, w_min_dtod, dw_min, dw_min_dtod, up_down, up_down_dtod,
     corrupt_prob, corrupt_range, reset, reset_dtod,
     slope_up_dtod, slope_down_dtod, reference_mean, reference_std) = p  # fmt: skip
    log_normal, consistent, perfect_bias, is_reference, subtract, out = flags
    in_size = cells.shape[0]
    up_bias = min(up_down, zero)
    down_bias = -up_down if up_down > zero else zero
    for j in range(in_size):
        for i in range(out):
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            top = np.float32(w_max * np.float32(one + np.float32(w_max_dtod * g)))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            bottom = np.float32(w_min * np.float32(one + np.float32(w_min_dtod * g)))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            if log_normal:
                gain = np.float32(math.exp(np.float32(dw_min_dtod * g)))
            else:
                gain = np.float32(one + np.float32(dw_min_dtod * g))
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            r = np.float32(up_down_dtod * g)
            up = np.float32(np.float32(np.float32(up_bias + gain) + r) * dw_min)
            down = np.float32(np.float32(np.float32(down_bias + gain) - r) * dw_min)
            if consistent:
                up, down = abs(up), abs(down)
                if bottom > top:
                    top, bottom = bottom, top
                top, bottom = abs(top), -abs(bottom)
            elif bottom > top:
                middle = np.float32(top + np.float32(bottom - top) / two)
                top = middle
                bottom = middle
            u, state = _canonical(state)
            if corrupt_prob > u:
                low = max(min(top, bottom), -abs(corrupt_range))
                high = min(max(top, bottom), abs(corrupt_range))
                u, state = _canonical(state)
                top = np.float32(low + np.float32(np.float32(high - low) * u))
                bottom = top
                up = zero
                down = zero
            if perfect_bias and j == in_size - 1:
                up = dw_min
                down = dw_min
                bottom = np.float32(np.float32(100.0) * w_min)
                top = np.float32(np.float32(100.0) * w_max)
            g, state, saved, has_saved = _gauss(state, saved, has_saved)  # diffusion, which is 0
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            cells[j, 0, i] = zero
            cells[j, 1, i] = top
            cells[j, 2, i] = bottom
            cells[j, 3, i] = up
            cells[j, 4, i] = down
            cells[j, 5, i] = np.float32(reset + np.float32(reset_dtod * g))
    for i in range(out):
        for j in range(in_size):
            if not is_reference:
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                continue
            top, bottom = cells[j, 1, i], cells[j, 2, i]
            up, down = cells[j, 3, i], cells[j, 4, i]
            regular = top > zero and bottom < zero
            if regular:
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                slope_down = np.float32(
                    np.float32(-down / bottom)
                    * abs(np.float32(one + np.float32(slope_down_dtod * g)))
                )
                g, state, saved, has_saved = _gauss(state, saved, has_saved)
                slope_up = np.float32(
                    np.float32(up / top) * abs(np.float32(one + np.float32(slope_up_dtod * g)))
                )
                top = np.float32(up / slope_up)
                bottom = np.float32(-down / slope_down)
                cells[j, 1, i] = top
                cells[j, 2, i] = bottom
            g, state, saved, has_saved = _gauss(state, saved, has_saved)
            ref = np.float32(reference_mean + np.float32(reference_std * g))
            if subtract and top > zero and bottom < zero:
                sp = np.float32(
                    np.float32(up - down)
                    / np.float32(np.float32(up / top) - np.float32(down / bottom))
                )
                ref = np.float32(ref + sp)
                cells[j, 5, i] = np.float32(cells[j, 5, i] + sp)
            cells[j, 0, i] = ref
    return state, saved, has_saved
