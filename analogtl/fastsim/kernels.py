"""The update of a tile: pulse trains, deferred pulses on A, reads, pulses on C.

Where the fast array A is hidden (gamma 0), a column of it matters only at the moment it is read. So
the pulses of an update are not applied at once but kept in a ring (`PulseRing`), and applied to a
column, in their order, when the column is read, or at the latest before a product sees it
(`flush`). That is the same stochastic process as pulse by pulse, with one column at a time in one
piece of memory. An update has two halves that take turns: `emit_pulses` puts the pulses of a block
of vectors into the ring and notes which reads fall due; `read_columns` carries the reads out.

`analogtl.fastsim.layout` describes the arrays and numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analogtl.fastsim import counting, responses, simd, streams
from analogtl.fastsim.compiled import compiled, inner
from analogtl.fastsim.layout import (
    C_DOWN,
    C_MAX,
    C_MIN,
    C_PERSISTENT,
    C_REFERENCE,
    C_UP,
    COLUMN,
    COUNT_LR,
    M_D,
    M_X,
    POOL_READS,
    POOLS,
    READS,
    SLOT,
    SOFT_BOUNDS,
    SWEEPS,
    UPDATES,
    Array,
)
from analogtl.fastsim.simd import LANES
from analogtl.fastsim.streams import mix64, stream, uniform

BLOCK = 1024  # vectors whose bits are made before their columns are read
READS_OF_POOL = 8  # that may share normal numbers though they are of several calls

_SHIFT = np.uint64(64 - simd.POOL_BITS)


class Noise(NamedTuple):
    """Normal numbers that are drawn once per block; ``gains``: 1 + dw_min_std times them.

    ``answers``: the numbers that say how the device's cells answer to pulses.
    """

    normals: Array
    gains: Array
    answers: Array


class Pool(NamedTuple):
    """Normal numbers, their gains, and [1] (uint64) what they were drawn for: never 0."""

    stamp: Array
    normals: Array
    gains: Array


class Reads(NamedTuple):
    """The reads that fall due in a block of vectors, in their order.

    ``slot`` (int64): the first slot after the read. ``count_lr``: the learning rate that counted
    the pulses of the last vector before it.
    ``chops`` [sweeps, G * LANES]: the rows' choppers; they may turn after each sweep over the
    columns.
    """

    slot: Array
    count_lr: Array
    chops: Array


@inner
def abs_max(values):
    """Find the largest absolute value of a float32 vector, by its bits: that loop vectorises."""
    best = np.int32(0)
    for i in range(values.shape[0]):
        bits = np.int32(np.float32(values[i]).view(np.int32) & np.int32(0x7FFFFFFF))
        best = max(best, bits)
    return np.int32(best).view(np.float32)


@inner
def pulse_train(lr, x_max, d_max, train):
    """Compute the length of the train, and the factors that make pulse chances of |d| and |x|."""
    zero = np.float32(0.0)
    if lr <= zero:
        return 0, zero, zero
    granularity, f_bl, bl = train.granularity, np.float32(train.desired_bl), train.desired_bl
    a = np.float32(math.sqrt(np.float32(lr / np.float32(granularity * f_bl))))
    free = not train.fixed_bl and not train.update_bl_management
    if free and np.float32(granularity * f_bl) < lr:
        a = np.float32(1.0)
        bl = max(math.ceil(np.float32(lr / granularity)), 1)
    b = a
    if train.update_management or train.update_bl_management:
        if x_max == zero or d_max == zero:
            return 0, zero, zero
        d_val = np.float32(train.um_grad_scale * d_max)
        k = np.float32(np.float32(np.float32(lr * x_max) * d_val) / granularity)
        if train.update_bl_management:
            bl = train.desired_bl if k > f_bl else math.ceil(k)
            if bl <= 0:
                return 0, zero, zero
            a = np.float32(math.sqrt(np.float32(lr / np.float32(granularity * np.float32(bl)))))
            b = a
        if k > f_bl:
            d_val = np.float32(d_val * np.float32(f_bl / k))
        a = np.float32(a * np.float32(math.sqrt(np.float32(x_max / d_val))))
        b = np.float32(b * np.float32(math.sqrt(np.float32(d_val / x_max))))
    return bl, a, b


@inner
def pulse_chances(values, factor, res, sto_round, key, chances):
    """Compute the pulse probability of every line: ``chances`` from ``values``, both [lines]."""
    if res <= np.float32(0.0):
        for i in range(values.shape[0]):
            chances[i] = abs(values[i]) * factor
        return
    k1, k2 = streams.key_low(key), streams.key_high(key)
    for i in range(values.shape[0]):
        r = abs(values[i]) * factor / res
        if sto_round:
            r += streams.uniform_of(streams.hash32(i, k1, k2)) - np.float32(0.5)
        chances[i] = np.float32(np.rint(r)) * res


@inner
def draw_columns(chances, values, pulses, signs, bit, key):
    """Draw one slot's bits of all columns into bit ``bit`` of ``pulses`` and ``signs`` [in].

    The words are begun anew with bit 0.
    """
    k1, k2 = streams.key_low(key), streams.key_high(key)
    one, none = np.uint32(1 << bit), np.uint32(0)
    old = np.uint32(one - np.uint32(1))
    for i in range(values.shape[0]):
        pulse = one if streams.uniform_of(streams.hash32(i, k1, k2)) < chances[i] else none
        negative = one if values[i] < np.float32(0.0) else none
        pulses[i] = np.uint32(pulses[i] & old | pulse)
        signs[i] = np.uint32(signs[i] & old | negative)


@inner
def column_slots(ring, column, end, chopped, pulses):
    """List the slots from the column's start to ``end`` in which it pulsed; returns their number.

    ``pulses`` (int64): twice the slot's place in the ring, and 1 more where the column's sign and
    chopper turn the direction of the pulse over.
    """
    x_bits, start = ring.x_bits, ring.start[column]
    words = x_bits.shape[0]
    turn = np.uint32(0xFFFFFFFF) if chopped else np.uint32(0)
    n = 0
    for w in range(start >> 5, (end + 31) >> 5):
        place = w & (words - 1)
        word = x_bits[place, 0, column]
        from_bit, to_bit = start - (w << 5), end - (w << 5)
        if from_bit > 0:
            word = np.uint32(word & np.uint32(0xFFFFFFFF << from_bit))
        if to_bit < 32:
            word = np.uint32(word & np.uint32((1 << to_bit) - 1))
        signs = np.uint32(x_bits[place, 1, column] ^ turn)
        while word != np.uint32(0):
            bit = np.uint32(simd.trailing_zeros(word))
            word = np.uint32(word & np.uint32(word - np.uint32(1)))
            turned = np.int64(np.uint32(signs >> bit) & np.uint32(1))
            pulses[n] = 2 * ((place << 5) + np.int64(bit)) + turned
            n += 1
    return n


@inner
def chop_period(spec):
    """Count the reads after which a regular chopper turns."""
    if spec.in_chop_prob > np.float32(0.0):
        return max(math.ceil(np.float32(np.float32(1.0) / spec.in_chop_prob)), 2)
    return 2


@inner
def apply_group(column, more, group, d_bits, pulses, n, noise, device, curves, rng):
    """Apply ``n`` pulses to one group of the cells of one column of A; returns ``rng``."""
    base, place = np.uint64(group * 8 * LANES), np.uint64(group * 2 * LANES)
    width = d_bits.shape[3]
    shift = width >> 3  # 1 where a part has two groups
    first = (group >> shift) * d_bits.shape[1] * 2 * width + (group & shift) * 4
    given = (
        d_bits, first, width, pulses, n, column, base, more, place, noise.answers, curves,
        device.nodes, noise.gains, noise.normals, device.write_noise, rng,
    )  # fmt: skip
    return simd.apply_pulses(device, given)


@inner
def read_column(
    column,
    more,
    means,
    chops,
    d_bits,
    pulses,
    n,
    noise,
    numbers,
    spec,
    curves,
    rng,
    steps,
    planes,
    counted,
):
    """Apply ``n`` pulses to one column of A, then read it into its buffer H.

    ``column`` [G * 8 * LANES] and ``means`` [G * 2 * LANES] are the column's; ``steps`` [rows]
    receives the signed number of pulses for each row of C; ``counted``: the column's place in
    ``planes``. Returns whether there is any pulse, and ``rng``.
    """
    any_step = np.uint64(0)
    groups = steps.shape[0] // LANES
    for group in range(groups):
        rng = apply_group(column, more, group, d_bits, pulses, n, noise, spec.fast, curves, rng)
        counting.count_group(planes, counted, group, groups, d_bits, pulses, n)
        base, row = np.uint64(group * 8 * LANES), np.uint64(group * LANES)
        if spec.dynamic:
            came, rng = simd.read_dynamic(
                column, base, means, np.uint64(group * 2 * LANES), chops, steps, row, noise.normals,
                numbers, rng,
            )  # fmt: skip
        else:
            came, rng = simd.read_chopped(
                column, base, means, np.uint64(0), chops, steps, row, noise.normals, numbers, rng
            )
        any_step |= came
    return any_step != np.uint64(0), rng


@inner
def read_numbers(spec, numbers):
    """Fill in the numbers of a read that stay the same."""
    zero, one = np.float32(0.0), np.float32(1.0)
    keep = spec.momentum
    subtract = np.float32(one - (keep if spec.dynamic else min(max(keep, zero), one)))
    limit = np.float32(spec.transfer_train.desired_bl)
    numbers[simd.READ_INPUT] = spec.read.input
    numbers[simd.READ_NOISE] = spec.read.noise
    numbers[simd.READ_RES] = spec.read.res
    numbers[simd.READ_BOUND] = spec.read.bound
    numbers[simd.READ_SCALE] = spec.read.scale
    numbers[simd.THRESHOLD] = spec.threshold
    numbers[simd.LIMIT] = limit
    numbers[simd.KEEP] = keep
    numbers[simd.SUBTRACT] = np.float32(subtract * spec.threshold)
    numbers[simd.CAP] = np.float32(limit * spec.buffer_cap)
    numbers[simd.TAIL] = min(np.float32(spec.tail_weightening / np.float32(chop_period(spec))), one)
    numbers[simd.FORGET] = one if spec.forget_buffer else zero
    numbers[simd.WITH_BUFFER] = zero if spec.no_buffer or spec.direct else one
    numbers[simd.DIRECT] = one if spec.direct else zero


@inner
def write_column(
    cells, more, weight, steps, lr, normals, spec, curves, rng, train, planes, counted
):  # fmt: skip
    """Send pulses onto one column of C, at learning rate ``lr``, up where ``steps`` [rows] are."""
    zero, one = np.float32(0.0), np.float32(1.0)
    most = zero
    for row in range(steps.shape[0]):
        most = max(most, abs(steps[row]))
    device = spec.slow
    bl, a, b = pulse_train(lr, one, most, spec.transfer_train)
    for k in range(bl):
        rng = mix64(rng)
        train[k] = 1 if uniform(rng) < b else 0
    for row in range(steps.shape[0]):
        if steps[row] != zero:
            rng = write_cell(
                cells, more, weight, row, steps[row] > zero, abs(steps[row]) * a, train, bl,
                normals, device, curves, rng, planes, counted,
            )  # fmt: skip
    return rng


@inner
def write_cell(
    cells, more, weight, row, up, p, train, bl, normals, device, curves, rng, planes, counted
):  # fmt: skip
    """Send pulses onto one cell of a column of C: each of ``train`` with probability ``p``.

    ``counted``: the column's place in ``planes``, where they are counted.
    """
    counts, stuck, before = planes.shape[1] > 0, False, rng
    zero, one = np.float32(0.0), np.float32(1.0)
    c = cells[row // LANES * 6 * LANES + row % LANES :]
    top, bottom = c[C_MAX * LANES], c[C_MIN * LANES]
    step_up, step_down = c[C_UP * LANES], c[C_DOWN * LANES]
    if device.response == SOFT_BOUNDS:
        more_up = -step_up / top if top > zero else zero
        more_down = -step_down / bottom if bottom < zero else zero
    else:
        first = row // LANES * 2 * LANES + row % LANES
        more_up, more_down = more[first], more[first + LANES]
        stuck = not responses.can_move(bottom, top, device)
        if stuck and not counts:
            return rng
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
        if counts:
            counting.count_one(planes, counted, 0 if up else 1, row)
        if stuck:
            continue
        rng = mix64(rng)
        xi = normals[np.int64(rng >> _SHIFT)] * device.dw_min_std
        change, relative_to = responses.change_of(
            w, up, bottom, top, step_up, step_down, more_up, more_down, device, curves
        )
        w += change + xi * relative_to
        w = min(max(w, bottom), top)
        moved = True
    if stuck:  # the other cells draw the same numbers, counted or not
        return before
    if moved:
        w -= reference
        c[C_PERSISTENT * LANES] = w
        if device.write_noise > zero:
            rng = mix64(rng)
            w += device.write_noise * normals[np.int64(rng >> _SHIFT)]
        weight[row] = w
    return rng


@inner
def draw_noise(key, device):
    """Draw the normal numbers of one block."""
    return noise_of(new_pool(), key, device)


@inner
def new_pool():
    """Room for the numbers of one block."""
    pool = Pool(
        np.empty(1, np.uint64),
        np.empty(simd.POOL_SIZE, np.float32),
        np.empty(simd.POOL_SIZE, np.float32),
    )
    pool.stamp[0] = 0
    return pool


@inner
def noise_of(pool, key, device):
    """Draw the normal numbers of one block into ``pool``, unless they are there already."""
    std, one = device.dw_min_std, np.float32(1.0)
    stamp = np.uint64(mix64(key) + np.uint64(np.float32(std).view(np.int32)) | np.uint64(1))
    if pool.stamp[0] != stamp:
        streams.fill_normals(pool.normals, key)
        for i in range(simd.POOL_SIZE):
            pool.gains[i] = one + std * pool.normals[i]
        pool.stamp[0] = stamp
    answers = np.empty(simd.N_ANSWERS, np.float32)
    answers[simd.STD] = std
    answers[simd.A_UP], answers[simd.A_DOWN] = device.A_up, device.A_down
    answers[simd.GAMMA_UP], answers[simd.GAMMA_DOWN] = device.gamma_up, device.gamma_down
    answers[simd.A], answers[simd.B] = device.a, device.b
    answers[simd.STD_ADD] = device.dw_min_std_add
    answers[simd.STD_SLOPE] = device.dw_min_std_slope
    return Noise(pool.normals, pool.gains, answers)


@inner
def next_noise(pool, n_reads, counts, device, seed):
    """Draw the normal numbers of the next reads: anew, or for few reads those of the last few."""
    if counts[POOLS] == 0 or counts[POOL_READS] + n_reads > READS_OF_POOL:
        counts[POOLS] += 1
        counts[POOL_READS] = 0
    counts[POOL_READS] += n_reads
    return noise_of(pool, stream(seed, streams.POOL, counts[POOLS] - 1), device)


@inner
def pulse_space(ring):
    """Make room for the pulses of a column: as many as the ring has slots."""
    return np.empty(ring.x_bits.shape[0] * 32, np.int64)


@compiled
def flush(fast, more, curves, ring, choppers, planes, counts, packed_spec, seed, purpose, pool):
    """Bring every column of A to now: ``ring.start`` moves on; H, C and the choppers stay."""
    device = packed_spec[0].fast
    noise = noise_of(pool, stream(seed, purpose, counts[POOLS]), device)
    pulses, groups = pulse_space(ring), fast.shape[1] // (8 * LANES)
    for column in range(fast.shape[0]):
        n = column_slots(ring, column, counts[SLOT], choppers.in_chop[column] != 0, pulses)
        ring.start[column] = counts[SLOT]
        if n == 0:
            continue
        rng = stream(seed, purpose, (counts[SLOT] << 16) + column)
        for group in range(groups):
            rng = apply_group(
                fast[column], more[column % more.shape[0]], group, ring.d_bits, pulses, n, noise,
                device, curves, rng,
            )  # fmt: skip
            place = column * (planes.shape[0] // fast.shape[0])
            counting.count_group(planes, place, group, groups, ring.d_bits, pulses, n)


@inner
def follow_average(m, new, tau):
    """Update the moving average of the largest values, as aihwkit's ``auto_scale`` keeps it."""
    zero, one = np.float32(0.0), np.float32(1.0)
    if m <= zero:
        return new
    if new <= zero:
        return m
    return np.float32(np.float32(np.float32(one - tau) * m) + np.float32(tau * new))


@inner
def count_learning_rate(averages, lr, spec):
    """Compute the learning rate that counts the pulses onto A."""
    zero = np.float32(0.0)
    if spec.fast_lr <= zero:
        return lr
    rate = spec.fast_lr
    if spec.auto_scale:
        rate = np.float32(
            rate * np.float32(np.float32(spec.train.desired_bl) * spec.fast.granularity)
        )
        if averages[M_X] > zero and averages[M_D] > zero:
            rate = np.float32(rate / np.float32(averages[M_X] * averages[M_D]))
    return np.float32(rate * lr) if spec.scale_fast_lr else np.float32(rate)


@inner
def read_learning_rate(lr, spec):
    """Compute the learning rate of the reads; 0: nothing is read."""
    return np.float32(spec.transfer_lr * (lr if spec.scale_transfer_lr else np.float32(1.0)))


@compiled
def transfer_period(transfer_every, units_in_mbatch, n_vectors):
    """Count the vectors from one read to the next; 0: nothing is read."""
    if units_in_mbatch:
        return max(math.ceil(np.float32(transfer_every * np.float32(n_vectors))), 0)
    return max(math.floor(transfer_every + np.float32(0.5)), 0)


@inner
def buffer_scale(read_lr, count_lr, spec):
    """Compute what one read is multiplied by before it goes into the buffer."""
    granularity = spec.buffer_granularity
    if not spec.correct_gradient_magnitudes:
        return np.float32(abs(read_lr) / granularity)
    ratio = np.float32(spec.slow.granularity / spec.fast.granularity)
    return np.float32(np.float32(abs(read_lr) / count_lr) / np.float32(granularity * ratio))


@inner
def oldest_slot(start):
    """Find the slot that some column has received last of all."""
    oldest = start[0]
    for j in range(1, start.shape[0]):
        if start[j] < oldest:
            oldest = start[j]
    return oldest


@inner
def emit_pulses(x, d, d_gain, lr, begin, end, ring, counts, averages, spec, seed, every, reads):
    """First half of an update: the pulses of vectors ``begin`` to ``end`` go into the ring.

    Stops early where the ring has no room for the next vector's pulses. Every ``every`` vectors a
    read of the next column falls due: it is noted in ``reads``, and column and choppers advance.

    Returns:
        The vector to go on with, the number of reads, and of finished sweeps over all columns.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    in_size, out_size = x.shape[1], d.shape[1]
    size, row_width = ring.d_bits.shape[1], ring.d_bits.shape[2] * ring.d_bits.shape[3]
    groups = reads.chops.shape[1] // LANES
    tau = np.float32(np.float32(one - spec.auto_momentum) / np.float32(x.shape[0]))
    read_lr = read_learning_rate(lr, spec)
    x_chance = np.empty(in_size, np.float32)
    d_chance, d_sign = np.empty(groups * LANES, np.float32), np.empty(groups * LANES, np.float32)
    for i in range(out_size, groups * LANES):
        d_chance[i] = d_sign[i] = zero
    oldest = oldest_slot(ring.start)
    n_reads = sweep = 0
    t = begin
    while t < end:
        # The length of the vector's train, and the chance of a pulse on each line.
        x_max, d_max = abs_max(x[t]), np.float32(abs_max(d[t]) * d_gain)
        m_x, m_d = averages[M_X], averages[M_D]
        if spec.auto_scale:
            averages[M_X] = follow_average(m_x, x_max, tau)
            averages[M_D] = follow_average(m_d, d_max, tau)
        count_lr = count_learning_rate(averages, lr, spec)
        bl, a, b = pulse_train(abs(count_lr), x_max, d_max, spec.train)
        # The word of 32 slots that is being written must hold none that are still to be read.
        if counts[SLOT] + bl - oldest > size - 32:
            averages[M_X], averages[M_D] = m_x, m_d
            break
        averages[COUNT_LR] = count_lr
        if bl > 0:
            key = stream(seed, streams.X_BITS, -1 - counts[SLOT])
            pulse_chances(x[t], b, spec.res, spec.sto_round, key, x_chance)
            key = stream(seed, streams.D_BITS, -1 - counts[SLOT])
            a = np.float32(a * d_gain)
            pulse_chances(d[t], a, spec.res, spec.sto_round, key, d_chance)
            turn = reads.chops[sweep]
            for i in range(out_size):
                d_sign[i] = d[t, i] * turn[i]
        for _ in range(bl):
            slot = counts[SLOT] & (size - 1)
            word, bit = slot >> 5, slot & 31
            key = stream(seed, streams.X_BITS, counts[SLOT])
            draw_columns(x_chance, x[t], ring.x_bits[word, 0], ring.x_bits[word, 1], bit, key)
            key = stream(seed, streams.D_BITS, counts[SLOT])
            simd.draw_rows(
                d_chance, d_sign, ring.d_bits, slot * row_width, size * row_width, row_width >> 4,
                groups, streams.key_low(key), streams.key_high(key),
            )  # fmt: skip
            counts[SLOT] += 1
        t += 1
        counts[UPDATES] += 1
        if every == 0 or counts[UPDATES] % every != 0:
            continue
        for _ in range(spec.n_reads_per_transfer):
            if read_lr != zero:
                reads.slot[n_reads] = counts[SLOT]
                reads.count_lr[n_reads] = count_lr
                n_reads += 1
                if counts[COLUMN] == in_size - 1:
                    sweep += 1
                    for i in range(reads.chops.shape[1]):
                        reads.chops[sweep, i] = reads.chops[sweep - 1, i]
                    if spec.out_chop_prob > zero and not spec.dynamic:
                        key = stream(seed, streams.OUT_CHOP, counts[SWEEPS] + sweep)
                        for i in range(out_size):
                            key = mix64(key)
                            if uniform(key) < spec.out_chop_prob:
                                reads.chops[sweep, i] = -reads.chops[sweep, i]
            counts[COLUMN] = (counts[COLUMN] + 1) % in_size
    return t, n_reads, sweep


@inner
def read_columns(
    reads,
    n_reads,
    first_column,
    read_lr,
    cells,
    ring,
    choppers,
    planes,
    counts,
    spec,
    seed,
    pulses,
    pool,
):
    """Second half of an update: carry out the reads that `emit_pulses` noted.

    The reads go round the columns from ``first_column`` on. Columns do not see one another, so that
    all reads of one column are done in a row, while it is in the cache: each applies the column's
    pulses up to the read's slot, reads it into H, and where H passes the threshold sends pulses to
    the column of C.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    in_size = ring.start.shape[0]
    arrays = planes.shape[0] // in_size
    period = chop_period(spec)
    noise = next_noise(pool, n_reads, counts, spec.fast, seed)
    numbers = np.empty(simd.N_NUMBERS, np.float32)
    read_numbers(spec, numbers)
    steps = np.empty(cells.weight.shape[1], np.float32)
    write_lr = np.float32(spec.step * spec.slow.granularity)
    if spec.direct:
        write_lr = abs(read_lr)
    longest = math.ceil(np.float32(write_lr / spec.slow.granularity))
    train = np.empty(max(spec.transfer_train.desired_bl, longest, 1), np.uint8)
    for e in range(min(n_reads, in_size)):
        column = (first_column + e) % in_size
        for f in range(e, n_reads, in_size):
            done = (first_column + f) // in_size  # sweeps over the columns since the block began
            total = counts[SWEEPS] + done
            chopped = choppers.in_chop[column] != 0
            n = column_slots(ring, column, reads.slot[f], chopped, pulses)
            scale = buffer_scale(read_lr, reads.count_lr[f], spec)
            if spec.dynamic and spec.correct_accumulation:
                sample = np.float32(total % period + 1)
                scale = np.float32(scale / min(sample, np.float32(one / spec.fast.granularity)))
            if spec.direct:
                scale = one if read_lr > zero else -one
            numbers[simd.FACTOR] = -scale if chopped else scale
            numbers[simd.SWITCHED] = one if choppers.switched[column] != 0 else zero
            came, rng = read_column(
                cells.fast[column], cells.fast_more[column % cells.fast_more.shape[0]],
                cells.means[column % cells.means.shape[0]], reads.chops[done], ring.d_bits, pulses,
                n, noise, numbers, spec, cells.curves[0],
                stream(seed, streams.READ, counts[READS] + f), steps, planes, column * arrays,
            )  # fmt: skip
            if came and (not spec.dynamic or total > period):
                write_column(
                    cells.slow[column], cells.slow_more[column % cells.slow_more.shape[0]],
                    cells.weight[column], steps, write_lr, noise.normals, spec, cells.curves[1],
                    rng, train, planes, column * arrays + 1,
                )  # fmt: skip
            ring.start[column] = reads.slot[f]
            turn_now = total % period + 1 == period and (
                spec.dynamic or (spec.in_chop_prob > zero and not spec.in_chop_random)
            )
            if spec.in_chop_random and spec.in_chop_prob > zero:
                key = stream(seed, streams.IN_CHOP, counts[READS] + f)
                turn_now = turn_now or uniform(key) < spec.in_chop_prob
            choppers.switched[column] = 1 if turn_now else 0
            if turn_now:
                choppers.in_chop[column] = 1 - choppers.in_chop[column]
    counts[READS] += n_reads


@compiled
def update(
    x, d, d_gain, lr, cells, ring, choppers, planes, counts, averages, packed_spec, seed, pool
):  # fmt: skip
    """Update a tile with the vectors of one call, ``x`` [N, in] and ``d * d_gain`` [N, out].

    ``pool``: room for noise, with whatever is left in it of an earlier call.
    Returns whether that is done; otherwise a vector asks for more pulses than the ring holds.
    """
    spec, d_gain, lr = packed_spec[0], np.float32(d_gain), np.float32(lr)
    n_vectors, in_size = x.shape
    every = transfer_period(spec.transfer_every, spec.units_in_mbatch, n_vectors)
    most = min(BLOCK, n_vectors) * max(spec.n_reads_per_transfer, 1)
    reads = Reads(
        np.empty(most, np.int64),
        np.empty(most, np.float32),
        np.empty((most // in_size + 3, choppers.out_chop.shape[0]), np.float32),
    )
    pulses = pulse_space(ring)
    t = np.int64(0)  # a plain 0 would be a type of its own, and `emit_pulses` be compiled twice
    full = 3 * (ring.d_bits.shape[1] // 4)
    allowed = full
    while t < n_vectors:
        if counts[SLOT] - oldest_slot(ring.start) > allowed:
            flush(
                cells.fast, cells.fast_more, cells.curves[0], ring, choppers, planes, counts,
                packed_spec, seed, streams.FLUSH, pool,
            )  # fmt: skip
            counts[POOLS] += 1
        first_column = counts[COLUMN]
        for i in range(choppers.out_chop.shape[0]):
            reads.chops[0, i] = choppers.out_chop[i]
        before, end = t, min(t + BLOCK, n_vectors)
        t, n_reads, sweep = emit_pulses(
            x, d, d_gain, lr, t, end, ring, counts, averages, spec, seed, every, reads
        )
        if n_reads > 0:
            read_columns(
                reads, n_reads, first_column, read_learning_rate(lr, spec), cells, ring, choppers,
                planes, counts, spec, seed, pulses, pool,
            )  # fmt: skip
            counts[SWEEPS] += sweep
            for i in range(choppers.out_chop.shape[0]):
                choppers.out_chop[i] = reads.chops[sweep, i]
        if t > before:
            allowed = full
        elif allowed > 0:  # once more, with an empty ring
            allowed = 0
        else:
            return False
    return True
