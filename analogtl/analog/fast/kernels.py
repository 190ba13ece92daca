"""The compiled loops of the fast engine.

The fast array A is hidden (gamma 0): a column of A matters only at the moment it is read. So the
pulses of an update are not applied at once. Each input vector leaves a *slot* of bits per pulse, one
bit per line (pulse or not) and its sign, and when a column is read, the slots since its last read are
applied to its cells in their order. That is the same stochastic process as pulse by pulse; it touches
one column at a time, in one contiguous piece of memory.

Layouts (float32 unless said otherwise; O = ``out_size`` padded to a multiple of ``CHUNK``):

``fast`` [in, 8, O]: the fast array A, per cell: persistent weight, apparent weight, buffer H, reference,
    upper and lower bound, step up, step down.
``weight`` [in, O]: the apparent weights of the slow array C, those of the forward pass.
``slow`` [in, 6, O]: C's persistent weight, reference, upper and lower bound, step up, step down.
``means`` [in, 2, O]: running and past mean of the reads (AGAD only, else one unused cell).
``x_bits`` [words, 2, in], ``d_bits`` [words, 2, O] (uint32): a ring of 32-slot words; pulse, sign.
``start`` [in] (int64): the first slot not yet applied to a column.
``in_chop``, ``switched`` [in] (uint8), ``out_chop`` [O] (uint32): the choppers.
``counts`` (int64), ``averages`` (float32): see the constants below.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from analogtl.analog.fast.random import (
    D_BITS,
    FLUSH,
    IN_CHOP,
    OUT_CHOP,
    POOL,
    READ,
    X_BITS,
    fill_normals,
    hash32,
    key_high,
    key_low,
    mix64,
    stream,
    uniform,
    uniform_of,
)

CHUNK = 32  # rows treated together: enough to fill vector registers, few enough to stay in step
POOL_SIZE = 1 << 15
BLOCK = 1024  # vectors whose bits are made before their columns are read

# fields of ``fast`` and of ``slow``
PERSISTENT, APPARENT, BUFFER, REFERENCE, W_MAX, W_MIN, STEP_UP, STEP_DOWN = range(8)
C_PERSISTENT, C_REFERENCE, C_MAX, C_MIN, C_UP, C_DOWN = range(6)
# fields of ``counts``
UPDATES, COLUMN, SWEEPS, SLOT, VECTORS, READS, BLOCKS, PEEKS = range(8)
# fields of ``averages``
M_X, M_D, COUNT_LR = range(3)


class Spec(NamedTuple):
    """What the update needs to know; aihwkit's names where there is one. Numbers are float32."""

    # pulse trains of the update onto A
    desired_bl: int
    fixed_bl: bool
    update_management: bool
    update_bl_management: bool
    um_grad_scale: float
    res: float
    sto_round: bool
    granularity: float  # mean of both devices'
    fast_granularity: float
    slow_granularity: float
    auto_scale: bool
    auto_momentum: float
    fast_lr: float
    scale_fast_lr: bool
    # device A, device C
    fast_dw_min_std: float
    fast_mult_noise: bool
    fast_write_noise: float  # in weight units; 0: no persistent weight of its own
    slow_dw_min_std: float
    slow_mult_noise: bool
    slow_write_noise: float
    # reads
    transfer_every: float
    units_in_mbatch: bool
    transfer_lr: float
    scale_transfer_lr: bool
    read_input: float
    read_noise: float
    read_res: float
    read_bound: float
    read_scale: float
    # buffer
    buffer_granularity: float
    threshold: float
    correct_gradient_magnitudes: bool
    no_buffer: bool
    forget_buffer: bool
    momentum: float
    # choppers
    in_chop_prob: float
    in_chop_random: bool
    out_chop_prob: float
    # pulses onto C
    step: float
    transfer_bl: int
    transfer_fixed_bl: bool
    transfer_um: bool
    transfer_ublm: bool
    transfer_grad_scale: float
    # AGAD
    dynamic: bool
    tail_weightening: float
    buffer_cap: float
    correct_accumulation: bool


@njit(cache=True)
def abs_max(values):
    """The largest absolute value of a float32 vector, from its bits (so that the loop vectorises)."""
    bits = values.view(np.int32)
    best = np.int32(0)
    for i in range(bits.shape[0]):
        best = max(best, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
    one = np.empty(1, np.int32)
    one[0] = best
    return one.view(np.float32)[0]


@njit(cache=True)
def pulse_train(lr, granularity, x_max, d_max, desired_bl, fixed_bl, um, ublm, grad_scale):
    """Length of the pulse train and the factors that turn |d| and |x| into pulse probabilities."""
    zero = np.float32(0.0)
    if lr <= zero:
        return 0, zero, zero
    f_bl = np.float32(desired_bl)
    bl = desired_bl
    a = np.float32(math.sqrt(np.float32(lr / np.float32(granularity * f_bl))))
    if not fixed_bl and not ublm and np.float32(granularity * f_bl) < lr:
        a = np.float32(1.0)
        bl = max(math.ceil(np.float32(lr / granularity)), 1)
    b = a
    if um or ublm:
        if x_max == zero or d_max == zero:
            return 0, zero, zero
        d_val = np.float32(grad_scale * d_max)
        k = np.float32(np.float32(np.float32(lr * x_max) * d_val) / granularity)
        if ublm:
            bl = desired_bl if k > f_bl else math.ceil(k)
            if bl <= 0:
                return 0, zero, zero
            a = np.float32(math.sqrt(np.float32(lr / np.float32(granularity * np.float32(bl)))))
            b = a
        if k > f_bl:
            d_val = np.float32(d_val * np.float32(f_bl / k))
        a = np.float32(a * np.float32(math.sqrt(np.float32(x_max / d_val))))
        b = np.float32(b * np.float32(math.sqrt(np.float32(d_val / x_max))))
    return bl, a, b


@njit(cache=True)
def draw_bits(bits, word, bit, values, factor, flip, res, sto_round, key):
    """One slot of one side: set the pulse and sign bits of every line.

    ``flip`` [lines] (uint32, 0 or 1) turns a line's sign over (the output chopper).
    """
    k1, k2 = key_low(key), key_high(key)
    shift = np.uint32(bit)
    pulses, signs = bits[word, 0], bits[word, 1]
    one, none = np.uint32(1), np.uint32(0)
    for i in range(values.shape[0]):
        v = values[i]
        p = abs(v) * factor
        if res > np.float32(0.0):
            r = p / res
            if sto_round:
                r += uniform_of(hash32(i, k2, k1)) - np.float32(0.5)
            p = np.float32(np.rint(r)) * res
        pulse = one if uniform_of(hash32(i, k1, k2)) < p else none
        negative = one if v < np.float32(0.0) else none
        pulses[i] = np.uint32(pulses[i] | np.uint32(pulse << shift))
        signs[i] = np.uint32(signs[i] | np.uint32(np.uint32(negative ^ flip[i]) << shift))


@njit(cache=True)
def load_cells(cells, first, floats, mult_noise):
    """Copy a chunk's cells to scratch: absolute weight, slope and step up, and down, bounds."""
    one = np.float32(1.0)
    zero = np.float32(0.0)
    for i in range(CHUNK):
        j = first + i
        up, down = cells[STEP_UP, j], cells[STEP_DOWN, j]
        top, bottom = cells[W_MAX, j], cells[W_MIN, j]
        floats[i] = cells[PERSISTENT, j] + cells[REFERENCE, j]
        floats[CHUNK + i] = -up / (top if top > zero else one) if top > zero else zero
        floats[2 * CHUNK + i] = up
        floats[3 * CHUNK + i] = down / (bottom if bottom < zero else one) if bottom < zero else zero
        floats[4 * CHUNK + i] = -down
        floats[5 * CHUNK + i] = bottom
        floats[6 * CHUNK + i] = top


@njit(cache=True)
def pulse_chunk(d_bits, words, n_words, first, std, mult_noise, floats, ints, pool, rng):
    """Apply the slots in ``words`` to the chunk in scratch; returns the new state of ``rng``.

    ``words`` [3, n] (uint32): place in the ring, the column's pulses, the column's signs. Every round
    takes the earliest waiting pulse of each row, so that a row's pulses come in their order.
    """
    none = np.uint32(0)
    for i in range(CHUNK):
        ints[2 * CHUNK + i] = none
    for m in range(n_words):
        word, x_pulse, x_sign = words[0, m], words[1, m], words[2, m]
        d_pulse, d_sign = d_bits[word, 0], d_bits[word, 1]
        waiting = none
        for i in range(CHUNK):
            b = np.uint32(d_pulse[first + i] & x_pulse)
            ints[i] = b
            ints[CHUNK + i] = np.uint32(d_sign[first + i] ^ x_sign)
            ints[2 * CHUNK + i] = np.uint32(ints[2 * CHUNK + i] | b)
            waiting = np.uint32(waiting | b)
        while waiting != none:
            rng = rng * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            offset = np.int64(rng >> np.uint64(49))
            waiting = none
            for i in range(CHUNK):
                b = ints[i]
                low = np.uint32(b & np.uint32(none - b))
                rest = np.uint32(b ^ low)
                ints[i] = rest
                waiting = np.uint32(waiting | rest)
                is_up = np.uint32(ints[CHUNK + i] & low) != none
                v = floats[i]
                slope = floats[CHUNK + i] if is_up else floats[3 * CHUNK + i]
                step = floats[2 * CHUNK + i] if is_up else floats[4 * CHUNK + i]
                change = slope * v + step
                noisy = change if mult_noise else step
                new = v + change + std * pool[offset + i] * noisy
                new = max(new, floats[5 * CHUNK + i])
                new = min(new, floats[6 * CHUNK + i])
                floats[i] = new if b != none else v
    return rng


@njit(cache=True)
def column_words(x_bits, column, start, end, chopped, words):
    """Collect the words of a column between two slots in which it pulsed; returns their number."""
    mask = x_bits.shape[0] - 1
    turn = np.uint32(0xFFFFFFFF) if chopped else np.uint32(0)
    n = 0
    if end <= start:
        return n
    for w in range(start >> 5, ((end - 1) >> 5) + 1):
        pulses = x_bits[w & mask, 0, column]
        lo, hi = max(start - (w << 5), 0), end - (w << 5)
        if lo > 0:
            pulses = np.uint32(pulses & np.uint32(np.uint32(0xFFFFFFFF) << np.uint32(lo)))
        if hi < 32:
            pulses = np.uint32(
                pulses & np.uint32(np.uint32(np.uint32(1) << np.uint32(hi)) - np.uint32(1))
            )
        if pulses != np.uint32(0):
            words[0, n] = np.uint32(w & mask)
            words[1, n] = pulses
            words[2, n] = np.uint32(x_bits[w & mask, 1, column] ^ turn)
            n += 1
    return n


@njit(cache=True)
def bring_to_now(
    cells, d_bits, words, n_words, write_noise, std, mult_noise, floats, ints, pool, rng
):
    """Apply a column's waiting pulses and store its persistent and apparent weights."""
    none = np.uint32(0)
    for first in range(0, cells.shape[1], CHUNK):
        load_cells(cells, first, floats, mult_noise)
        rng = pulse_chunk(d_bits, words, n_words, first, std, mult_noise, floats, ints, pool, rng)
        rng = rng * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        offset = np.int64(rng >> np.uint64(49))
        for i in range(CHUNK):
            j = first + i
            moved = ints[2 * CHUNK + i] != none
            w = floats[i] - cells[REFERENCE, j]
            noisy = w + write_noise * pool[offset + i]
            cells[PERSISTENT, j] = w if moved else cells[PERSISTENT, j]
            cells[APPARENT, j] = noisy if moved else cells[APPARENT, j]
    return rng


@njit(cache=True)
def write_column(cells, weight, steps, most, spec, pool, rng, train):
    """Pulses onto one column of C; ``steps`` [O] (float32) holds each row's signed pulse count."""
    one = np.float32(1.0)
    lr = np.float32(spec.step * spec.slow_granularity)
    bl, a, b = pulse_train(
        lr, spec.slow_granularity, one, most, spec.transfer_bl, spec.transfer_fixed_bl,
        spec.transfer_um, spec.transfer_ublm, spec.transfer_grad_scale,
    )  # fmt: skip
    for k in range(bl):
        rng = mix64(rng)
        train[k] = 1 if uniform(rng) < b else 0
    for i in range(steps.shape[0]):
        n = steps[i]
        if n == np.float32(0.0):
            continue
        p = abs(n) * a
        w = cells[C_PERSISTENT, i] + cells[C_REFERENCE, i]
        top, bottom = cells[C_MAX, i], cells[C_MIN, i]
        moved = False
        for k in range(bl):
            if train[k] == 0:
                continue
            if p < one:
                rng = mix64(rng)
                if uniform(rng) >= p:
                    continue
            rng = mix64(rng)
            xi = pool[np.int64(rng >> np.uint64(49))] * spec.slow_dw_min_std
            if n > np.float32(0.0):
                step = cells[C_UP, i]
                slope = -step / top if top > np.float32(0.0) else np.float32(0.0)
            else:
                step = -cells[C_DOWN, i]
                slope = -step / bottom if bottom < np.float32(0.0) else np.float32(0.0)
            change = slope * w + step
            w += change + xi * (change if spec.slow_mult_noise else step)
            w = min(max(w, bottom), top)
            moved = True
        if moved:
            w -= cells[C_REFERENCE, i]
            cells[C_PERSISTENT, i] = w
            if spec.slow_write_noise > np.float32(0.0):
                rng = mix64(rng)
                w += spec.slow_write_noise * pool[np.int64(rng >> np.uint64(49))]
            weight[i] = w
    return rng


@njit(cache=True)
def read_column(
    cells, weight, slow, mean, d_bits, words, n_words, in_chop, out_chop, was_switched, lr_scale,
    sweep, spec, floats, ints, pool, steps, train, rng,
):  # fmt: skip
    """Bring one column of A to now, read it into the buffer and write its pulses onto C."""
    none = np.uint32(0)
    zero, one = np.float32(0.0), np.float32(1.0)
    most = zero
    limit = np.float32(spec.transfer_bl)
    threshold = spec.threshold
    keep = spec.momentum
    subtract = np.float32(one - (keep if spec.dynamic else min(max(keep, zero), one)))
    cap = np.float32(limit * spec.buffer_cap)
    samples = 2
    if spec.in_chop_prob > zero:
        samples = max(math.ceil(np.float32(one / spec.in_chop_prob)), 2)
    tail = min(np.float32(spec.tail_weightening / np.float32(samples)), one)
    for first in range(0, cells.shape[1], CHUNK):
        load_cells(cells, first, floats, spec.fast_mult_noise)
        rng = pulse_chunk(
            d_bits, words, n_words, first, spec.fast_dw_min_std, spec.fast_mult_noise, floats, ints,
            pool, rng,
        )  # fmt: skip
        rng = rng * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        offset = np.int64(rng >> np.uint64(49))
        rng = rng * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        offset2 = np.int64(rng >> np.uint64(49))
        for i in range(CHUNK):
            j = first + i
            moved = ints[2 * CHUNK + i] != none
            w = floats[i] - cells[REFERENCE, j]
            noisy = w + spec.fast_write_noise * pool[offset + i]
            w = w if moved else cells[PERSISTENT, j]
            seen = noisy if moved else cells[APPARENT, j]
            cells[PERSISTENT, j] = w
            cells[APPARENT, j] = seen
            y = seen * spec.read_input + spec.read_noise * pool[offset2 + i]
            if spec.read_res > zero:
                y = np.float32(np.rint(y / spec.read_res)) * spec.read_res
            y = min(max(y, -spec.read_bound), spec.read_bound) * spec.read_scale
            floats[i] = y
        if spec.dynamic:
            for i in range(CHUNK):
                j = first + i
                y = floats[i]
                if was_switched:
                    mean[1, j] = mean[0, j]
                mean[0, j] = mean[0, j] * (one - tail) + y * tail
                floats[i] = y - mean[1, j]
        largest = zero
        for i in range(CHUNK):
            j = first + i
            change = floats[i] * lr_scale
            change = -change if (out_chop[j] != none) != in_chop else change
            h = change if spec.no_buffer else cells[BUFFER, j] + change
            n = np.float32(np.trunc(h / threshold))
            n = min(max(n, -limit), limit)
            less = h - subtract * n * threshold
            if cap > zero:
                less = min(max(less, -cap), cap)
            after = h * keep if spec.forget_buffer else less
            hit = n != zero
            cells[BUFFER, j] = after if hit else h
            steps[j] = n
            largest = max(largest, abs(n))
        most = max(most, largest)
    if most > zero and (not spec.dynamic or sweep > samples):
        rng = write_column(slow, weight, steps, most, spec, pool, rng, train)
    return rng


@njit(cache=True)
def flush(fast, x_bits, d_bits, start, in_chop, counts, spec, seed, purpose):
    """Bring every column of A to now. ``start`` is moved on; C, H and the choppers stay as they are."""
    pool = np.empty(POOL_SIZE + CHUNK, np.float32)
    fill_normals(pool, stream(seed, POOL, stream(seed, purpose, counts[BLOCKS])))
    floats = np.empty(7 * CHUNK, np.float32)
    ints = np.empty(3 * CHUNK, np.uint32)
    words = np.empty((3, x_bits.shape[0] + 1), np.uint32)
    for column in range(fast.shape[0]):
        n = column_words(x_bits, column, start[column], counts[SLOT], in_chop[column] != 0, words)
        start[column] = counts[SLOT]
        if n > 0:
            rng = stream(seed, purpose, (counts[SLOT] << 16) + column)
            bring_to_now(
                fast[column], d_bits, words, n, spec.fast_write_noise, spec.fast_dw_min_std,
                spec.fast_mult_noise, floats, ints, pool, rng,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def update(
    x, d, lr, fast, weight, slow, means, x_bits, d_bits, start, in_chop, switched, out_chop, counts,
    averages, spec, seed,
):  # fmt: skip
    """The update of one call: vectors ``x`` [N, in] and ``d`` [N, out], in their order."""
    zero, one = np.float32(0.0), np.float32(1.0)
    n_vectors, in_size, out_size = x.shape[0], x.shape[1], d.shape[1]
    rows = fast.shape[2]
    mask = x_bits.shape[0] - 1
    room = x_bits.shape[0] * 32
    tau = np.float32(np.float32(one - spec.auto_momentum) / np.float32(n_vectors))
    if spec.units_in_mbatch:
        every = max(math.ceil(np.float32(spec.transfer_every * np.float32(n_vectors))), 0)
    else:
        every = max(math.floor(spec.transfer_every + np.float32(0.5)), 0)
    read_lr = np.float32(spec.transfer_lr * (lr if spec.scale_transfer_lr else one))

    pool = np.empty(POOL_SIZE + CHUNK, np.float32)
    floats = np.empty(7 * CHUNK, np.float32)
    ints = np.empty(3 * CHUNK, np.uint32)
    words = np.empty((3, x_bits.shape[0] + 1), np.uint32)
    steps = np.empty(rows, np.float32)
    train = np.empty(max(spec.transfer_bl, math.ceil(spec.step), 1), np.uint8)
    event_slot = np.empty(min(BLOCK, n_vectors), np.int64)
    event_scale = np.empty(min(BLOCK, n_vectors), np.float32)
    no_flip = np.zeros(in_size, np.uint32)
    chop_history = np.zeros((BLOCK // in_size + 3, rows), np.uint32)

    t = 0
    while t < n_vectors:
        # Make the bits of as many vectors as fit.
        oldest = start[0]
        for j in range(in_size):
            oldest = min(oldest, start[j])
        if oldest < counts[SLOT] and counts[SLOT] - oldest > room // 2:
            flush(fast, x_bits, d_bits, start, in_chop, counts, spec, seed, FLUSH)
            counts[BLOCKS] += 1
            oldest = counts[SLOT]
        n_events = 0
        first_column = counts[COLUMN]
        sweep = 0
        chop_history[0] = out_chop
        t_end = min(t + BLOCK, n_vectors)
        while t < t_end:
            x_max, d_max = abs_max(x[t]), abs_max(d[t])
            if spec.auto_scale:
                for side in range(2):
                    new = x_max if side == 0 else d_max
                    m = averages[M_X + side]
                    if m <= zero:
                        averages[M_X + side] = new
                    elif new > zero:
                        averages[M_X + side] = np.float32(
                            np.float32(np.float32(one - tau) * m) + np.float32(tau * new)
                        )
            if spec.auto_scale and spec.fast_lr > zero:
                count_lr = np.float32(
                    spec.fast_lr * np.float32(np.float32(spec.desired_bl) * spec.fast_granularity)
                )
                if averages[M_X] > zero and averages[M_D] > zero:
                    count_lr = np.float32(count_lr / np.float32(averages[M_X] * averages[M_D]))
                if spec.scale_fast_lr:
                    count_lr = np.float32(count_lr * lr)
            elif spec.fast_lr > zero:
                count_lr = np.float32(spec.fast_lr * (lr if spec.scale_fast_lr else one))
            else:
                count_lr = lr
            bl, a, b = pulse_train(
                abs(count_lr), spec.granularity, x_max, d_max, spec.desired_bl, spec.fixed_bl,
                spec.update_management, spec.update_bl_management, spec.um_grad_scale,
            )  # fmt: skip
            if counts[SLOT] + bl - oldest > room - 32:
                if oldest == counts[SLOT]:
                    raise ValueError("a pulse train is longer than the history holds")
                break
            averages[COUNT_LR] = count_lr
            for _ in range(bl):
                slot = counts[SLOT]
                word, bit = (slot >> 5) & mask, slot & 31
                if bit == 0:
                    x_bits[word] = np.uint32(0)
                    d_bits[word] = np.uint32(0)
                draw_bits(
                    x_bits, word, bit, x[t], b, no_flip, spec.res, spec.sto_round,
                    stream(seed, X_BITS, slot),
                )  # fmt: skip
                draw_bits(
                    d_bits, word, bit, d[t], a, chop_history[sweep], spec.res, spec.sto_round,
                    stream(seed, D_BITS, slot),
                )  # fmt: skip
                counts[SLOT] += 1
            t += 1
            counts[VECTORS] += 1
            counts[UPDATES] += 1
            if every > 0 and counts[UPDATES] % every == 0:
                if read_lr != zero:
                    granularity = spec.buffer_granularity
                    if spec.correct_gradient_magnitudes:
                        granularity = np.float32(
                            granularity * np.float32(spec.slow_granularity / spec.fast_granularity)
                        )
                        scale = np.float32(np.float32(abs(read_lr) / count_lr) / granularity)
                    else:
                        scale = np.float32(abs(read_lr) / granularity)
                    event_slot[n_events] = counts[SLOT]
                    event_scale[n_events] = scale
                    n_events += 1
                    if counts[COLUMN] == in_size - 1:
                        chop_history[sweep + 1] = chop_history[sweep]
                        sweep += 1
                        if spec.out_chop_prob > zero and not spec.dynamic:
                            key = stream(seed, OUT_CHOP, counts[SWEEPS] + sweep)
                            for i in range(out_size):
                                key = mix64(key)
                                if uniform(key) < spec.out_chop_prob:
                                    chop_history[sweep, i] ^= np.uint32(1)
                counts[COLUMN] = (counts[COLUMN] + 1) % in_size
        # Read the columns that came up, each in its own piece of memory.
        if n_events > 0:
            fill_normals(pool, stream(seed, POOL, counts[BLOCKS]))
        counts[BLOCKS] += 1
        for e in range(min(n_events, in_size)):
            column = (first_column + e) % in_size
            for f in range(e, n_events, in_size):
                local = (first_column + f) // in_size
                total = counts[SWEEPS] + local
                chopped = in_chop[column] != 0
                n_words = column_words(x_bits, column, start[column], event_slot[f], chopped, words)
                scale = event_scale[f]
                samples = 2
                if spec.in_chop_prob > zero:
                    samples = max(math.ceil(np.float32(one / spec.in_chop_prob)), 2)
                if spec.dynamic and spec.correct_accumulation:
                    scale = np.float32(
                        scale
                        / min(
                            np.float32(total % samples + 1),
                            np.float32(one / spec.fast_granularity),
                        )
                    )
                read = counts[READS] + f
                rng = stream(seed, READ, read)
                was_switched = switched[column] != 0
                read_column(
                    fast[column], weight[column], slow[column], means[column % means.shape[0]],
                    d_bits, words, n_words, chopped, chop_history[local], was_switched, scale, total,
                    spec, floats, ints, pool, steps, train, rng,
                )  # fmt: skip
                start[column] = event_slot[f]
                switched[column] = 0
                flip = False
                if spec.dynamic or (spec.in_chop_prob > zero and not spec.in_chop_random):
                    flip = total % samples + 1 == samples
                if spec.in_chop_random and spec.in_chop_prob > zero:
                    flip = flip or uniform(stream(seed, IN_CHOP, read)) < spec.in_chop_prob
                if flip:
                    in_chop[column] ^= np.uint8(1)
                    switched[column] = 1
        counts[READS] += n_events
        counts[SWEEPS] += sweep
        out_chop[:] = chop_history[sweep]
