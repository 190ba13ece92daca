"""The update of a tile by a rule: pulses onto its first array, reads, pulses from array to array.

As in `kernels`, the pulses onto the first array wait in the ring until their column is read; where
the forward pass sees the first array, all columns are brought to now before it (`flush`). Columns
do not see one another: all that is done to one column is done in a row, in the order of time.

The functions here are templates: `driver_of` compiles a copy of them for each rule, with the rule's
functions in the place of the names that end in an underscore.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from analogtl.fastsim import layout, simd, streams
from analogtl.fastsim.compiled import compiled, inner
from analogtl.fastsim.counting import count_group
from analogtl.fastsim.kernels import (
    BLOCK,
    Reads,
    apply_group,
    column_slots,
    draw_noise,
    emit_pulses,
    new_pool,
    next_noise,
    pulse_space,
    read_numbers,
    write_column,
)
from analogtl.fastsim.layout import COLUMN, POOLS, READS, SLOT, SWEEPS, UPDATES, Array
from analogtl.fastsim.rules.contract import COUNT_LR, LR, Rule, named_apart
from analogtl.fastsim.rules.fields import loader, storer, weights_loader
from analogtl.fastsim.simd import LANES
from analogtl.fastsim.streams import stream, uniform

ARRAY_SHIFT = 48  # the reads of array n have stream numbers from n << ARRAY_SHIFT on
NOT_A_NUMBER, NO_SUCH_ARRAY = 1, 2  # bits of what `update` returns

read_: Any = None
after_read_: Any = None
direction_: Any = None
onto_: Any = None
sees_: Any = None
load_cell_: Any = None
store_cell_: Any = None
load_column_: Any = None
store_column_: Any = None
load_p_: Any = None
load_weights_: Any = None
read_cells_: Any = None
read_events_: Any = None
flush_: Any = None
CELL_FIELDS_ = COLUMN_FIELDS_ = 0


class State(NamedTuple):
    """The cells and numbers of a tile of A arrays, float32 unless said otherwise.

    ``fast``, ``fast_more``: the first array, as `layout.Cells` has A. ``slow`` [A - 1, in, cells],
    ``weights`` [A - 1, in, rows], ``slow_more`` [A - 1, ...]: each further one, as it has C.
    ``curves``: of the first array and of the others. ``cell`` [in, fields * rows], ``column``
    [in, fields]: the rule's own numbers. ``seen`` [in, rows]: what the passes multiply with, where
    that is not the last array. ``turns`` [A - 1, 2] (int64): of each array but the last, the column
    that is read next and how often one was read; the first array's are in the tile's counts.
    """

    fast: Array
    fast_more: Array
    slow: Array
    weights: Array
    slow_more: Array
    curves: Array
    cell: Array
    column: Array
    seen: Array
    turns: Array


class Events(NamedTuple):
    """Reads that fall due, in the order of time: a chain for each column.

    ``array``, ``number`` [events] (int64): what is read, and the how-manieth read of it that is
    (of the first array: in this block). ``head`` [in]: each column's first, ``next`` [events]: the
    one after; -1 for none.
    """

    array: Array
    number: Array
    head: Array
    next: Array


@inner
def list_events(events, before, after, first_column, every, turns):
    """Find the reads between two numbers of updates: array i is read every ``every[i]`` vectors."""
    in_size, n, first = events.head.shape[0], 0, 0
    last = np.full(in_size, -1, np.int64)
    events.head[:] = -1
    for update_number in range(before + 1, after + 1):
        for array in range(every.shape[0]):
            if every[array] == 0 or update_number % every[array] != 0:
                continue
            if array == 0:
                column, number = (first_column + first) % in_size, first
                first += 1
            else:
                column, number = turns[array, 0], turns[array, 1]
                turns[array, 0] = (column + 1) % in_size
                turns[array, 1] += 1
            events.array[n], events.number[n], events.next[n] = array, number, -1
            if last[column] < 0:
                events.head[column] = n
            else:
                events.next[last[column]] = n
            last[column] = n
            n += 1


def read_cells(array, y, state, place, own, p, steps):
    """Let the rule take in one column's reads ``y``; ``steps`` [out] gets the pulses.

    ``y`` has a number for the cells too that only fill up a group: no rule is to see those.

    Returns:
        1 if there is any pulse, and 1 if something is not a number.
    """
    rows = y.shape[0]
    any_step = wrong = np.int32(0)
    for row in range(steps.shape[0]):
        at = place + row
        new, pulses = read_(array, y[row], load_cell_(state, at, rows), own, p)
        wrong |= store_cell_(state, at, rows, new)
        n = np.float32(pulses)
        steps[row] = n
        any_step |= np.int32(1) if n != np.float32(0.0) else np.int32(0)
        wrong |= np.int32(1) if n != n else np.int32(0)
    return any_step, wrong


def read_events(
    events, reads, n_reads, state, ring, planes, counts, count_lr, spec, p_numbers, seed, pulses,
    out_size
):  # fmt: skip
    """Carry out the reads of a block; returns what is wrong, in bits."""
    in_size, rows, arrays = ring.start.shape[0], state.weights.shape[2], state.weights.shape[0] + 1
    groups = rows // LANES
    noise = next_noise(new_pool(), n_reads, counts, spec.fast, seed)
    numbers = np.zeros(simd.N_NUMBERS, np.float32)
    read_numbers(spec, numbers)
    steps, y = np.empty(out_size, np.float32), np.empty(rows, np.float32)
    write_lr = np.float32(spec.step * spec.slow.granularity)
    train = np.empty(max(spec.transfer_train.desired_bl, int(np.ceil(spec.step)), 1), np.uint8)
    cell, column_numbers = state.cell.reshape(-1), state.column.reshape(-1)
    wrong = np.int32(0)
    for column in range(in_size):
        event = events.head[column]
        more = state.fast_more[column % state.fast_more.shape[0]]
        while event >= 0:
            array, number = events.array[event], events.number[event]
            own = load_column_(column_numbers, column * COLUMN_FIELDS_, 1)
            p_numbers[COUNT_LR] = reads.count_lr[number] if array == 0 else count_lr
            p = load_p_(p_numbers, 0, 1)
            name = counts[READS] + number if array == 0 else (array << ARRAY_SHIFT) + number
            rng = stream(seed, streams.READ, name)
            if array == 0:
                down = direction_(own, p) < 0
                n = column_slots(ring, column, reads.slot[number], down, pulses)
                ring.start[column] = reads.slot[number]
            for group in range(groups):
                row = np.uint64(group * LANES)
                if array == 0:
                    rng = apply_group(
                        state.fast[column], more, group, ring.d_bits, pulses, n, noise, spec.fast,
                        state.curves[0], rng,
                    )  # fmt: skip
                    count_group(planes, column * arrays, group, groups, ring.d_bits, pulses, n)
                    rng = simd.read_out(
                        state.fast[column], np.uint64((group * 8 + 1) * LANES), y, row,
                        noise.normals, numbers, rng,
                    )  # fmt: skip
                else:
                    rng = simd.read_out(
                        state.weights[array - 1, column], row, y, row, noise.normals, numbers, rng
                    )
            place = column * (CELL_FIELDS_ * rows)
            any_step, bad = read_cells_(array, y, cell, place, own, p, steps)
            wrong |= bad
            if any_step != 0 and bad == 0:
                to = int(onto_(array, own, p))
                if to <= array or to >= arrays:
                    wrong |= np.int32(NO_SUCH_ARRAY)
                else:
                    write_column(
                        state.slow[to - 1, column],
                        state.slow_more[to - 1, column % state.slow_more.shape[1]],
                        state.weights[to - 1, column], steps, write_lr, noise.normals, spec,
                        state.curves[1], rng, train, planes, column * arrays + to,
                    )  # fmt: skip
            u = np.float32(uniform(stream(seed, streams.IN_CHOP, name)))
            after = after_read_(array, own, u, p)
            wrong |= store_column_(column_numbers, column * COLUMN_FIELDS_, 1, after)
            event = events.next[event]
    return wrong


def flush(state, ring, planes, counts, spec, p_numbers, seed, purpose):
    """Bring every column of the first array to now."""
    noise = draw_noise(stream(seed, purpose, counts[POOLS]), spec.fast)
    pulses, arrays = pulse_space(ring), state.weights.shape[0] + 1
    groups = state.weights.shape[2] // LANES
    column_numbers, p = state.column.reshape(-1), load_p_(p_numbers, 0, 1)
    for column in range(ring.start.shape[0]):
        down = direction_(load_column_(column_numbers, column * COLUMN_FIELDS_, 1), p) < 0
        n = column_slots(ring, column, counts[SLOT], down, pulses)
        ring.start[column] = counts[SLOT]
        if n == 0:
            continue
        rng = stream(seed, purpose, (counts[SLOT] << 16) + column)
        for group in range(groups):
            rng = apply_group(
                state.fast[column], state.fast_more[column % state.fast_more.shape[0]], group,
                ring.d_bits, pulses, n, noise, spec.fast, state.curves[0], rng,
            )  # fmt: skip
            count_group(planes, column * arrays, group, groups, ring.d_bits, pulses, n)


def bring_to_now(state, ring, planes, counts, packed_spec, p_numbers, seed, purpose):
    """Do what `flush` does, called from outside."""
    flush_(state, ring, planes, counts, packed_spec[0], p_numbers, seed, purpose)


def update(
    x, d, d_gain, lr, state, ring, planes, counts, averages, packed_spec, p_numbers, every, seed
):  # fmt: skip
    """Update a tile with the vectors of one call, ``x`` [N, in] and ``d * d_gain`` [N, out].

    ``p_numbers``: the rule's parameters and facts; ``every`` [A - 1] (int64): the vectors between
    two reads of each array. Returns what is wrong, in bits.
    """
    spec = packed_spec[0]
    n_vectors, in_size = x.shape
    rows = state.weights.shape[2]
    p_numbers[LR] = lr
    block = min(BLOCK, n_vectors)
    reads = Reads(
        np.empty(block, np.int64),
        np.empty(block, np.float32),
        np.ones((block // in_size + 3, rows), np.float32),
    )
    n_events = block * every.shape[0]
    events = Events(
        np.empty(n_events, np.int64),
        np.empty(n_events, np.int64),
        np.empty(in_size, np.int64),
        np.empty(n_events, np.int64),
    )
    pulses = pulse_space(ring)
    wrong, t = np.int32(0), 0
    while t < n_vectors:
        if counts[SLOT] - ring.start.min() > 3 * (ring.d_bits.shape[1] // 4):
            flush_(state, ring, planes, counts, spec, p_numbers, seed, streams.FLUSH)
            counts[POOLS] += 1
        first_column, before = counts[COLUMN], counts[UPDATES]
        end = min(t + BLOCK, n_vectors)
        t, n_reads, sweep = emit_pulses(
            x, d, d_gain, lr, t, end, ring, counts, averages, spec, seed, every[0], reads
        )
        list_events(events, before, counts[UPDATES], first_column, every, state.turns)
        if events.head.max() >= 0:
            wrong |= read_events_(
                events, reads, n_reads, state, ring, planes, counts, averages[layout.COUNT_LR],
                spec, p_numbers, seed, pulses, d.shape[1],
            )  # fmt: skip
            counts[READS] += n_reads
            counts[SWEEPS] += sweep
    return wrong


def see(state, p_numbers):
    """Compute what the passes multiply with, ``state.seen``; returns 1 if it is not all numbers."""
    in_size, rows = state.seen.shape
    p = load_p_(p_numbers, 0, 1)
    cell, column_numbers = state.cell.reshape(-1), state.column.reshape(-1)
    others = state.weights.reshape(-1)
    wrong = np.int32(0)
    for column in range(in_size):
        own = load_column_(column_numbers, column * COLUMN_FIELDS_, 1)
        for row in range(rows):
            place = (row // LANES * 8 + 1) * LANES + row % LANES
            weights = load_weights_(
                state.fast[column], place, others, column * rows + row, in_size * rows
            )
            at = column * (CELL_FIELDS_ * rows) + row
            value = np.float32(sees_(weights, load_cell_(cell, at, rows), own, p))
            state.seen[column, row] = value
            wrong |= np.int32(1) if value != value else np.int32(0)
    return wrong


class Driver(NamedTuple):
    """The compiled functions of one rule."""

    update: Callable[..., int]
    bring_to_now: Callable[..., None]
    see: Callable[..., int]


@cache
def driver_of(rule: Rule, arrays: int) -> Driver:
    """Compile the driver of a rule for this number of arrays, at its first call."""
    own: dict[str, Any] = {
        **globals(),
        **{f"{name}_": function for name, function in rule.compiled().items()},
        "load_cell_": loader(rule.cell_kind),
        "store_cell_": storer(rule.cell_kind),
        "load_column_": loader(rule.column_kind),
        "store_column_": storer(rule.column_kind),
        "load_p_": loader(rule.p_kind),
        "load_weights_": weights_loader(arrays),
        "CELL_FIELDS_": len(rule.cell_kind._fields),
        "COLUMN_FIELDS_": len(rule.column_kind._fields),
    }
    called = update, bring_to_now, see  # from Python
    for template in (read_cells, flush, read_events, *called):
        name = template.__name__
        copy = FunctionType(template.__code__, own, name)
        named_apart(copy, f"{rule.digest}_{arrays}", __name__)
        own[f"{name}_"] = own[name] = (compiled if template in called else inner)(copy)
    return Driver(own["update"], own["bring_to_now"], own["see"])
