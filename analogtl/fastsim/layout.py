"""The arrays and numbers of a tile that the kernels work on.

Rows come in groups of ``LANES``: G groups, padded with cells that nothing moves. Arrays are float32
unless said otherwise.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

A, C = range(2)  # the arrays of a tile

# fields of ``fast`` and of ``slow``, in multiples of LANES
PERSISTENT, APPARENT, BUFFER, REFERENCE, W_MAX, W_MIN, STEP_UP, STEP_DOWN = range(8)
C_PERSISTENT, C_REFERENCE, C_MAX, C_MIN, C_UP, C_DOWN = range(6)
REFERENCES = REFERENCE, C_REFERENCE  # of A and C; bounds and steps follow
# how a device's cells answer to pulses: see `responses.py`
SOFT_BOUNDS, LINEAR, EXP, POW, PIECEWISE = range(5)
# fields of ``counts`` [10] (int64)
UPDATES, COLUMN, SWEEPS, SLOT, READS, POOLS, PRODUCTS, VECTORS, POOL_READS = range(9)
# fields of ``averages`` [3]
M_X, M_D, COUNT_LR = range(3)


class Cells(NamedTuple):
    """The cells of a tile, [in, G * fields * LANES]: a column's in one piece.

    ``fast``, of A: persistent weight, apparent weight, buffer H, reference, upper and lower bound,
        step up, step down.
    ``weight``: C's apparent weights, those of the forward pass.
    ``slow``, of C: persistent weight, reference, bounds, steps.
    ``means``: running and past mean of the reads (AGAD; else of length 1).
    ``fast_more``, ``slow_more``: slopes or gammas, up and down, of A and C (of the device classes
        that have them; else of length 1).
    ``curves`` [2, 2, nodes]: steps up and down along the range (piecewise steps), of A and of C.
    """

    fast: Array
    weight: Array
    slow: Array
    means: Array
    fast_more: Array
    slow_more: Array
    curves: Array


class PulseRing(NamedTuple):
    """The pulses that some column has still to receive: a ring buffer of slots.

    Each pulse of a vector's train takes one *slot*: a bit per column and per row for "pulses", and
    one for the sign. Slots are numbered without end; slot s lies at place s modulo the ring's
    size, a power of 2. Emitting goes on at ``counts[SLOT]``. A column has received the slots before
    its ``start``; the oldest start of all columns is the ring's tail. Where the head comes too near
    to the tail, all columns are brought to now (`flush`), which empties the ring.

    ``x_bits`` [slots / 32, 2, in] (uint32): pulses and signs of the columns, a bit per slot: the
        slots in which one column pulses are found 32 at a time.
    ``d_bits`` [parts, slots, 2, 4 * V] (uint16): the rows that move up, and those that move down,
        in a column that does not turn the direction over; a bit per row, three words for each of
        the V groups of a part (1 if there is but one, else 2) and one that is empty: one load has a
        slot's pulses for a vector of rows.
    ``start`` [in] (int64): the first slot not yet applied to a column.
    """

    x_bits: Array
    d_bits: Array
    start: Array


class Choppers(NamedTuple):
    """Signs that pulses and reads are multiplied by.

    ``in_chop`` [in] (uint8): whether a column's is -1. ``switched`` [in] (uint8): whether it turned
    at the last read. ``out_chop`` [G * LANES]: the rows' choppers, as factors 1 or -1;
    0 for the cells that only fill up a group, so that their noise does not get into H.
    """

    in_chop: Array
    switched: Array
    out_chop: Array


class Train(NamedTuple):
    """How pulse trains onto one array are made; aihwkit's names (``UpdateParameters``)."""

    granularity: np.float32  # what one coinciding pulse changes
    desired_bl: int
    fixed_bl: bool
    update_management: bool
    update_bl_management: bool
    um_grad_scale: np.float32


class Device(NamedTuple):
    """How the cells of one array answer to pulses; aihwkit's names where there is one."""

    granularity: np.float32  # the mean step at a weight of 0: ``dw_min`` in most device classes
    dw_min_std: np.float32
    mult_noise: bool
    write_noise: np.float32  # in weight units; 0: the apparent is the persistent weight
    response: int
    # exponential steps
    A_up: np.float32
    A_down: np.float32
    gamma_up: np.float32
    gamma_down: np.float32
    a: np.float32
    b: np.float32
    dw_min_std_add: np.float32
    dw_min_std_slope: np.float32
    # piecewise steps
    nodes: int


class Read(NamedTuple):
    """How a column of A is read; resolutions are absolute steps (0: none)."""

    input: np.float32
    noise: np.float32
    res: np.float32
    bound: np.float32
    scale: np.float32


class Spec(NamedTuple):
    """What the update needs to know; aihwkit's names where there is one."""

    # pulses onto A
    train: Train
    res: np.float32
    sto_round: bool
    auto_scale: bool
    auto_momentum: np.float32
    fast_lr: np.float32
    scale_fast_lr: bool
    fast: Device
    # reads of A into the buffer H
    transfer_every: np.float32
    units_in_mbatch: bool
    transfer_lr: np.float32
    scale_transfer_lr: bool
    n_reads_per_transfer: int
    read: Read
    buffer_granularity: np.float32
    threshold: np.float32
    correct_gradient_magnitudes: bool
    no_buffer: bool
    forget_buffer: bool
    momentum: np.float32
    in_chop_prob: np.float32
    in_chop_random: bool
    out_chop_prob: np.float32
    # pulses onto C
    direct: bool  # as many as what was read asks for, without a buffer
    step: np.float32
    transfer_train: Train
    slow: Device
    # AGAD
    dynamic: bool
    tail_weightening: np.float32
    buffer_cap: np.float32
    correct_accumulation: bool


def record_of(kind: type) -> np.dtype[Any]:
    """Make the type of records with the fields of a named tuple."""
    numbers = {bool: np.bool_, int: np.int64, np.float32: np.float32}
    hints = get_type_hints(kind).items()
    return np.dtype(
        [(name, numbers.get(part) or record_of(part)) for name, part in hints], align=True
    )


_SPEC = record_of(Spec)


def response_name(device: Device) -> str:
    """Name the way of a device's cells to answer to pulses, as `simd.apply_pulses` knows it."""
    name = ("soft_bounds", "linear", "exponential", "power", "piecewise")[device.response]
    if device.response > LINEAR:
        return name
    return f"{name}_{'multiplicative' if device.mult_noise else 'additive'}"


@cache
def _spec_with(fast: str, slow: str) -> np.dtype[Any]:
    """Give the devices in the record of a `Spec` another field, with the name of their response.

    So the ways to answer to pulses are part of the record's type, and only they are compiled.
    """

    def changed(record: np.dtype[Any], more: dict[str, tuple[np.dtype[Any], int]]) -> Any:
        fields: Any = dict(record.fields or {}) | more
        return np.dtype(
            {
                "names": list(fields),
                "formats": [field[0] for field in fields.values()],
                "offsets": [field[1] for field in fields.values()],
                "itemsize": record.itemsize,
            },
            align=True,
        )

    fields: Any = _SPEC.fields
    devices = {}
    for name, response in (("fast", fast), ("slow", slow)):
        device, offset = fields[name][:2]
        devices[name] = (changed(device, {response: device.fields["response"][:2]}), offset)
    return changed(_SPEC, devices)


def packed(spec: Spec) -> Array:
    """Pack the numbers for the kernels, as an array [1] of one record.

    numba takes an array in 0.1 us, and a named tuple of so many numbers in 3 us, a sixth of the
    update of a small tile.
    """
    return np.array([spec], _SPEC).view(
        _spec_with(response_name(spec.fast), response_name(spec.slow))
    )
