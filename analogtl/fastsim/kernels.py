"""The update of a tile: pulse trains, deferred pulses on A, reads, pulses on C.

The fast array A is hidden (gamma 0): a column of A matters only at the moment it is read. So the
pulses of an update are not applied at once. Every pulse of every input vector takes a *slot* in a
ring: one bit per line (pulse or not) and one for its sign. When a column is read, the slots since
its last read are applied to its cells in their order. That is the same stochastic process as pulse
by pulse, with one column at a time in one piece of memory.

Layouts, float32 unless said otherwise. Rows come in groups of ``LANES``; G groups, padded with
cells that nothing moves:

``fast`` [in, G * 8 * LANES]: a cell of A: persistent weight, apparent weight, buffer H, reference,
    upper and lower bound, step up, step down.
``slow`` [in, G * 6 * LANES]: a cell of C: persistent weight, reference, bounds, steps.
``weight`` [in, G * LANES]: C's apparent weights, those of the forward pass.
``means`` [in, G * 2 * LANES]: running and past mean of the reads (AGAD; else of length 1).
``x_bits`` [slots / 32, 2, in] (uint32): pulses and signs of the columns, a bit per slot.
``d_bits`` [G, slots, 2 * BLOCKS] (uint16): pulses and signs of the rows, a bit per row.
``start`` [in] (int64): the first slot not yet applied to a column.
``in_chop``, ``switched`` [in] (uint8): the column's chopper; whether it turned at its last read.
``out_chop`` [G * LANES]: the rows' choppers, as factors 1 or -1.
``counts`` [10] (int64), ``averages`` [3]: see the constants.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.simd import (
    BLOCKS,
    CAP,
    FACTOR,
    FORGET,
    KEEP,
    LANES,
    LIMIT,
    N_NUMBERS,
    POOL_BITS,
    POOL_SIZE,
    READ_BOUND,
    READ_INPUT,
    READ_NOISE,
    READ_RES,
    READ_SCALE,
    SUBTRACT,
    SWITCHED,
    TAIL,
    THRESHOLD,
    WITH_BUFFER,
    apply_additive,
    apply_multiplicative,
    draw_rows,
    read_chopped,
    read_dynamic,
    trailing_zeros,
)
from analogtl.fastsim.streams import (
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

BLOCK = 1024  # vectors whose bits are made before their columns are read

# fields of ``fast`` and of ``slow``, in multiples of LANES
PERSISTENT, APPARENT, BUFFER, REFERENCE, W_MAX, W_MIN, STEP_UP, STEP_DOWN = range(8)
C_PERSISTENT, C_REFERENCE, C_MAX, C_MIN, C_UP, C_DOWN = range(6)
# fields of ``counts``
UPDATES, COLUMN, SWEEPS, SLOT, READS, POOLS, PRODUCTS = range(7)
# fields of ``averages``
M_X, M_D, COUNT_LR = range(3)

_SHIFT = np.uint64(64 - POOL_BITS)


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
    fast_write_noise: float  # in weight units; 0: the apparent is the persistent weight
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


@compiled
def abs_max(values):
    """The largest absolute value of a float32 vector, by its bits, so that the loop vectorises."""
    best = np.int32(0)
    for i in range(values.shape[0]):
        bits = np.int32(np.float32(values[i]).view(np.int32) & np.int32(0x7FFFFFFF))
        best = max(best, bits)
    return np.int32(best).view(np.float32)


@compiled
def pulse_train(lr, granularity, x_max, d_max, desired_bl, fixed_bl, um, ublm, grad_scale):
    """Length of the pulse train, and the factors that make pulse chances of |d| and of |x|."""
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


@compiled
def pulse_chances(values, factor, res, sto_round, key, chances):
    """Pulse probability of every line: ``chances`` from ``values``, both [lines]."""
    if res <= np.float32(0.0):
        for i in range(values.shape[0]):
            chances[i] = abs(values[i]) * factor
        return
    k1, k2 = key_low(key), key_high(key)
    for i in range(values.shape[0]):
        r = abs(values[i]) * factor / res
        if sto_round:
            r += uniform_of(hash32(i, k1, k2)) - np.float32(0.5)
        chances[i] = np.float32(np.rint(r)) * res


@compiled
def draw_columns(chances, values, pulses, signs, bit, key):
    """Draw one slot's bits of all columns into bit ``bit`` of ``pulses`` and ``signs`` [in]."""
    k1, k2 = key_low(key), key_high(key)
    one, none = np.uint32(1 << bit), np.uint32(0)
    for i in range(values.shape[0]):
        pulse = one if uniform_of(hash32(i, k1, k2)) < chances[i] else none
        negative = one if values[i] < np.float32(0.0) else none
        pulses[i] = np.uint32(pulses[i] | pulse)
        signs[i] = np.uint32(signs[i] | negative)


@compiled
def column_slots(x_bits, column, start, end, chopped, slots, turns):
    """List the slots from ``start`` to ``end`` in which a column pulsed; returns their number.

    ``slots`` (int64) are places in the ring; ``turns`` (uint16) is 0xFFFF where the column's sign
    and chopper turn the direction of the pulse over.
    """
    words = x_bits.shape[0]
    turn = np.uint32(0xFFFFFFFF) if chopped else np.uint32(0)
    n = 0
    for w in range(start >> 5, (end + 31) >> 5):
        place = w & (words - 1)
        pulses = x_bits[place, 0, column]
        from_bit, to_bit = start - (w << 5), end - (w << 5)
        if from_bit > 0:
            pulses = np.uint32(pulses & np.uint32(0xFFFFFFFF << from_bit))
        if to_bit < 32:
            pulses = np.uint32(pulses & np.uint32((1 << to_bit) - 1))
        signs = np.uint32(x_bits[place, 1, column] ^ turn)
        while pulses != np.uint32(0):
            bit = np.uint32(trailing_zeros(pulses))
            pulses = np.uint32(pulses & np.uint32(pulses - np.uint32(1)))
            slots[n] = (place << 5) + np.int64(bit)
            turns[n] = np.uint16(0 - np.int64(np.uint32(signs >> bit) & np.uint32(1)))
            n += 1
    return n


@compiled
def chop_period(spec):
    """The number of reads after which a regular chopper turns."""
    if spec.in_chop_prob > np.float32(0.0):
        return max(math.ceil(np.float32(np.float32(1.0) / spec.in_chop_prob)), 2)
    return 2


@compiled
def visit_column(
    cells, means, d_bits, slots, turns, n, out_chop, spec, gains, normals, numbers, steps, rng
):
    """Bring one column of A to now and, if there are ``numbers`` for it, read it into its buffer H.

    ``cells`` [G * 8 * LANES] and ``means`` [G * 2 * LANES] are the column's; ``slots`` and
    ``turns`` list its ``n`` pulses; ``steps`` [rows] receives the signed number of pulses for each
    row of C. Returns whether there is any, and ``rng``.
    """
    any_step = np.uint64(0)
    for group in range(d_bits.shape[0]):
        base, row = np.uint64(group * 8 * LANES), np.uint64(group * LANES)
        first = group * d_bits.shape[1] * d_bits.shape[2]
        if spec.fast_mult_noise:
            rng = apply_multiplicative(
                d_bits, first, slots, turns, n, cells, base, gains, normals, spec.fast_write_noise,
                rng,
            )  # fmt: skip
        else:
            rng = apply_additive(
                d_bits, first, slots, turns, n, cells, base, gains, normals, spec.fast_write_noise,
                rng,
            )  # fmt: skip
        if numbers.shape[0] == 0:
            continue
        if spec.dynamic:
            came, rng = read_dynamic(
                cells, base, means, np.uint64(group * 2 * LANES), out_chop, steps, row, normals,
                numbers, rng,
            )  # fmt: skip
        else:
            came, rng = read_chopped(
                cells, base, means, np.uint64(0), out_chop, steps, row, normals, numbers, rng
            )
        any_step |= came
    return any_step != np.uint64(0), rng


@compiled
def read_numbers(spec, numbers):
    """Fill in the numbers of a read that stay the same."""
    zero, one = np.float32(0.0), np.float32(1.0)
    keep = spec.momentum
    subtract = np.float32(one - (keep if spec.dynamic else min(max(keep, zero), one)))
    limit = np.float32(spec.transfer_bl)
    numbers[READ_INPUT] = spec.read_input
    numbers[READ_NOISE] = spec.read_noise
    numbers[READ_RES] = spec.read_res
    numbers[READ_BOUND] = spec.read_bound
    numbers[READ_SCALE] = spec.read_scale
    numbers[THRESHOLD] = spec.threshold
    numbers[LIMIT] = limit
    numbers[KEEP] = keep
    numbers[SUBTRACT] = np.float32(subtract * spec.threshold)
    numbers[CAP] = np.float32(limit * spec.buffer_cap)
    numbers[TAIL] = min(np.float32(spec.tail_weightening / np.float32(chop_period(spec))), one)
    numbers[FORGET] = one if spec.forget_buffer else zero
    numbers[WITH_BUFFER] = zero if spec.no_buffer else one


@compiled
def write_column(cells, weight, steps, spec, normals, rng, train):
    """Pulses onto one column of C; ``steps`` [rows] holds each row's signed number of pulses."""
    zero, one = np.float32(0.0), np.float32(1.0)
    most = zero
    for row in range(steps.shape[0]):
        most = max(most, abs(steps[row]))
    lr = np.float32(spec.step * spec.slow_granularity)
    bl, a, b = pulse_train(
        lr, spec.slow_granularity, one, most, spec.transfer_bl, spec.transfer_fixed_bl,
        spec.transfer_um, spec.transfer_ublm, spec.transfer_grad_scale,
    )  # fmt: skip
    for k in range(bl):
        rng = mix64(rng)
        train[k] = 1 if uniform(rng) < b else 0
    for row in range(steps.shape[0]):
        n = steps[row]
        if n == zero:
            continue
        c = cells[row // LANES * 6 * LANES + row % LANES :]
        p = abs(n) * a
        top, bottom = c[C_MAX * LANES], c[C_MIN * LANES]
        reference = c[C_REFERENCE * LANES]
        w = c[C_PERSISTENT * LANES] + reference
        moved = False
        for k in range(bl):
            if train[k] == 0:
                continue
            if p < one:
                rng = mix64(rng)
                if uniform(rng) >= p:
                    continue
            rng = mix64(rng)
            xi = normals[np.int64(rng >> _SHIFT)] * spec.slow_dw_min_std
            if n > zero:
                step = c[C_UP * LANES]
                slope = -step / top if top > zero else zero
            else:
                step = -c[C_DOWN * LANES]
                slope = -step / bottom if bottom < zero else zero
            change = slope * w + step
            w += change + xi * (change if spec.slow_mult_noise else step)
            w = min(max(w, bottom), top)
            moved = True
        if moved:
            w -= reference
            c[C_PERSISTENT * LANES] = w
            if spec.slow_write_noise > zero:
                rng = mix64(rng)
                w += spec.slow_write_noise * normals[np.int64(rng >> _SHIFT)]
            weight[row] = w
    return rng


@compiled
def flush(fast, x_bits, d_bits, start, in_chop, counts, spec, seed, purpose):
    """Bring every column of A to now: ``start`` moves on; H, C and the choppers stay."""
    size = x_bits.shape[0] * 32
    normals = np.empty(POOL_SIZE, np.float32)
    fill_normals(normals, stream(seed, purpose, counts[POOLS]))
    gains = np.float32(1.0) + spec.fast_dw_min_std * normals
    nothing = np.empty(0, np.float32)
    slots, turns = np.empty(size, np.int64), np.empty(size, np.uint16)
    for column in range(fast.shape[0]):
        n = column_slots(
            x_bits, column, start[column], counts[SLOT], in_chop[column] != 0, slots, turns
        )
        start[column] = counts[SLOT]
        if n == 0:
            continue
        visit_column(
            fast[column], nothing, d_bits, slots, turns, n, nothing, spec, gains, normals, nothing,
            nothing, stream(seed, purpose, (counts[SLOT] << 16) + column),
        )  # fmt: skip


@compiled
def follow_average(m, new, tau):
    """The moving average of the largest values, as aihwkit's ``auto_scale`` keeps it."""
    zero, one = np.float32(0.0), np.float32(1.0)
    if m <= zero:
        return new
    if new <= zero:
        return m
    return np.float32(np.float32(np.float32(one - tau) * m) + np.float32(tau * new))


@compiled
def count_learning_rate(averages, lr, spec):
    """The learning rate that counts the pulses onto A."""
    zero = np.float32(0.0)
    if spec.fast_lr <= zero:
        return lr
    rate = spec.fast_lr
    if spec.auto_scale:
        rate = np.float32(rate * np.float32(np.float32(spec.desired_bl) * spec.fast_granularity))
        if averages[M_X] > zero and averages[M_D] > zero:
            rate = np.float32(rate / np.float32(averages[M_X] * averages[M_D]))
    return np.float32(rate * lr) if spec.scale_fast_lr else np.float32(rate)


@compiled
def buffer_scale(read_lr, count_lr, spec):
    """What one read is multiplied by before it goes into the buffer."""
    granularity = spec.buffer_granularity
    if not spec.correct_gradient_magnitudes:
        return np.float32(abs(read_lr) / granularity)
    ratio = np.float32(spec.slow_granularity / spec.fast_granularity)
    return np.float32(np.float32(abs(read_lr) / count_lr) / np.float32(granularity * ratio))


@compiled
def update(
    x, d, d_gain, lr, fast, weight, slow, means, x_bits, d_bits, start, in_chop, switched, out_chop,
    counts, averages, spec, seed,
):  # fmt: skip
    """The update of one call with vectors ``x`` [N, in] and ``d * d_gain`` [N, out]."""
    zero, one = np.float32(0.0), np.float32(1.0)
    n_vectors, in_size, out_size = x.shape[0], x.shape[1], d.shape[1]
    groups, rows = d_bits.shape[0], d_bits.shape[0] * LANES
    size = x_bits.shape[0] * 32
    stride = size * 2 * BLOCKS
    tau = np.float32(np.float32(one - spec.auto_momentum) / np.float32(n_vectors))
    if spec.units_in_mbatch:
        every = max(math.ceil(np.float32(spec.transfer_every * np.float32(n_vectors))), 0)
    else:
        every = max(math.floor(spec.transfer_every + np.float32(0.5)), 0)
    read_lr = np.float32(spec.transfer_lr * (lr if spec.scale_transfer_lr else one))
    period = chop_period(spec)

    normals, gains = np.empty(POOL_SIZE, np.float32), np.empty(POOL_SIZE, np.float32)
    slots, turns = np.empty(size, np.int64), np.empty(size, np.uint16)
    steps = np.empty(rows, np.float32)
    numbers = np.zeros(N_NUMBERS, np.float32)
    read_numbers(spec, numbers)
    train = np.empty(max(spec.transfer_bl, math.ceil(spec.step), 1), np.uint8)
    event_slot = np.empty(min(BLOCK, n_vectors), np.int64)
    event_scale = np.empty(min(BLOCK, n_vectors), np.float32)
    x_chance = np.empty(in_size, np.float32)
    d_chance, d_sign = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    chop_history = np.empty((min(BLOCK, n_vectors) // in_size + 3, rows), np.float32)

    t = 0
    while t < n_vectors:
        # Make the bits of as many vectors as fit into the ring.
        oldest = counts[SLOT]
        for j in range(in_size):
            oldest = min(oldest, start[j])
        if counts[SLOT] - oldest > 3 * (size // 4):
            flush(fast, x_bits, d_bits, start, in_chop, counts, spec, seed, FLUSH)
            counts[POOLS] += 1
            oldest = counts[SLOT]
        n_events = 0
        first_column = counts[COLUMN]
        sweep = 0
        chop_history[0] = out_chop
        t_end = min(t + BLOCK, n_vectors)
        while t < t_end:
            x_max, d_max = abs_max(x[t]), np.float32(abs_max(d[t]) * d_gain)
            m_x, m_d = averages[M_X], averages[M_D]
            if spec.auto_scale:
                averages[M_X] = follow_average(m_x, x_max, tau)
                averages[M_D] = follow_average(m_d, d_max, tau)
            count_lr = count_learning_rate(averages, lr, spec)
            bl, a, b = pulse_train(
                abs(count_lr), spec.granularity, x_max, d_max, spec.desired_bl, spec.fixed_bl,
                spec.update_management, spec.update_bl_management, spec.um_grad_scale,
            )  # fmt: skip
            if counts[SLOT] + bl - oldest > size - 32:  # no room: this vector opens the next block
                averages[M_X], averages[M_D] = m_x, m_d
                break
            averages[COUNT_LR] = count_lr
            if bl > 0:
                key = stream(seed, X_BITS, -1 - counts[SLOT])
                pulse_chances(x[t], b, spec.res, spec.sto_round, key, x_chance)
                key = stream(seed, D_BITS, -1 - counts[SLOT])
                a = np.float32(a * d_gain)
                pulse_chances(d[t], a, spec.res, spec.sto_round, key, d_chance)
                turn = chop_history[sweep]
                for i in range(out_size):
                    d_sign[i] = d[t, i] * turn[i]
            for _ in range(bl):
                slot = counts[SLOT] & (size - 1)
                word, bit = slot >> 5, slot & 31
                if bit == 0:
                    x_bits[word] = np.uint32(0)
                key = stream(seed, X_BITS, counts[SLOT])
                draw_columns(x_chance, x[t], x_bits[word, 0], x_bits[word, 1], bit, key)
                key = stream(seed, D_BITS, counts[SLOT])
                draw_rows(
                    d_chance, d_sign, d_bits, slot * 2 * BLOCKS, stride, groups, key_low(key),
                    key_high(key),
                )  # fmt: skip
                counts[SLOT] += 1
            t += 1
            counts[UPDATES] += 1
            if every > 0 and counts[UPDATES] % every == 0:
                if read_lr != zero:
                    event_slot[n_events] = counts[SLOT]
                    event_scale[n_events] = buffer_scale(read_lr, count_lr, spec)
                    n_events += 1
                    if counts[COLUMN] == in_size - 1:
                        chop_history[sweep + 1] = chop_history[sweep]
                        sweep += 1
                        if spec.out_chop_prob > zero and not spec.dynamic:
                            key = stream(seed, OUT_CHOP, counts[SWEEPS] + sweep)
                            for i in range(out_size):
                                key = mix64(key)
                                if uniform(key) < spec.out_chop_prob:
                                    chop_history[sweep, i] = -chop_history[sweep, i]
                counts[COLUMN] = (counts[COLUMN] + 1) % in_size
        if n_events == 0:
            continue
        # Read the columns whose turn came, each in its own piece of memory.
        fill_normals(normals, stream(seed, POOL, counts[POOLS]))
        counts[POOLS] += 1
        for i in range(POOL_SIZE):
            gains[i] = one + spec.fast_dw_min_std * normals[i]
        for e in range(min(n_events, in_size)):
            column = (first_column + e) % in_size
            for f in range(e, n_events, in_size):
                done = (first_column + f) // in_size
                total = counts[SWEEPS] + done
                chopped = in_chop[column] != 0
                n = column_slots(
                    x_bits, column, start[column], event_slot[f], chopped, slots, turns
                )
                scale = event_scale[f]
                if spec.dynamic and spec.correct_accumulation:
                    sample = np.float32(total % period + 1)
                    scale = np.float32(scale / min(sample, np.float32(one / spec.fast_granularity)))
                numbers[FACTOR] = -scale if chopped else scale
                numbers[SWITCHED] = one if switched[column] != 0 else zero
                came, rng = visit_column(
                    fast[column], means[column % means.shape[0]], d_bits, slots, turns, n,
                    chop_history[done], spec, gains, normals, numbers, steps,
                    stream(seed, READ, counts[READS] + f),
                )  # fmt: skip
                if came and (not spec.dynamic or total > period):
                    write_column(slow[column], weight[column], steps, spec, normals, rng, train)
                start[column] = event_slot[f]
                turn_now = total % period + 1 == period and (
                    spec.dynamic or (spec.in_chop_prob > zero and not spec.in_chop_random)
                )
                if spec.in_chop_random and spec.in_chop_prob > zero:
                    key = stream(seed, IN_CHOP, counts[READS] + f)
                    turn_now = turn_now or uniform(key) < spec.in_chop_prob
                switched[column] = 1 if turn_now else 0
                if turn_now:
                    in_chop[column] = 1 - in_chop[column]
        counts[READS] += n_events
        counts[SWEEPS] += sweep
        out_chop[:] = chop_history[sweep]
