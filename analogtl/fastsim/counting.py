"""Count the pulses that reach every cell, exactly.

Adding to a number per cell would cost as much as the pulse itself. So counts are kept in *planes*:
plane b has the bits of weight 2**b of the counts, 48 cells in a word. The pulses of one slot to
these cells are bits of a word too, and eight slots are added to all counts of a vector of words by
some 60 operations (carry-save adders).

`new_planes` makes room, and `make_room` keeps it large enough; `count_group` counts the pulses that
are applied to a group of rows, `write_column` those that it sends, by `count_one`; `numbers` gives
the counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from analogtl.fastsim.compiled import compiled, inner
from analogtl.fastsim.layout import Array
from analogtl.fastsim.simd import LANES, _data, _int, _loop

_SLOTS = 8  # that are added up before anything is carried to the planes of weight 8 and more
_LOW, _HELD = 3, 8  # planes that are held in registers: of weight below 8, and all
_LONGEST = 1 << _HELD  # slots that carry out of these at most once
_MORE = 4  # planes that are added where the counts could overflow
_WORD, _I32 = ir.IntType(64), ir.IntType(32)


def new_planes(places: int, groups: int, width: int, counted: bool) -> Array:
    """Make counts of 0: planes [places, parts, K, 2 * V] (uint64).

    ``places``: the columns of all arrays whose pulses are counted, array by array in each column.
    A part is V = ``width`` groups of rows: V words of pulses up, then V of those down. Where
    nothing is counted there are no parts.
    """
    return np.zeros(
        (places, -(-groups // width) if counted else 0, _HELD + _MORE, 2 * width), np.uint64
    )


def make_room(planes: Array, most: int) -> Array:
    """Add planes if a count could come to ``most`` and they are too few for it."""
    missing = most.bit_length() - planes.shape[2]
    if missing <= 0 or planes.size == 0:
        return planes
    return np.pad(planes, ((0, 0), (0, 0), (0, -(-missing // _MORE) * _MORE), (0, 0)))


def _sum(b: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    """Sum and carry of three bits, in every place of the words."""
    some = b.xor(x, y)
    return b.xor(some, z), b.or_(b.and_(x, y), b.and_(some, z))


def _count(b: Any, width: int, plane_at: Any, bit_at: Any, pulse_at: Any, k: Any, n: Any) -> None:
    """Count ``n`` pulses of a column to a part of ``width`` groups.

    ``plane_at(i)``, ``bit_at(i)``: pointer to element i of the part's ``k`` planes and of its
    pulses; ``pulse_at(i)``: to element i of the list.
    """
    size = 2 * width
    vector, half = ir.VectorType(_WORD, size), ir.VectorType(_WORD, width)
    nothing = ir.Constant(vector, None)
    both = ir.Constant(ir.VectorType(_I32, size), [*range(size)])

    def load(pointer: Any, kind: Any) -> Any:
        value = b.load(b.bitcast(pointer, kind.as_pointer()))
        value.align = 8
        return value

    def plane(level: Any) -> Any:
        return b.bitcast(plane_at(b.mul(level, _int(size))), vector.as_pointer())

    def pulse(index: Any) -> Any:
        """Load the rows that move up in a slot, then those that move down."""
        entry = b.load(pulse_at(index))
        up, down = (
            load(bit_at(b.mul(turn, _int(4 * width))), half)
            for turn in (entry, b.xor(entry, _int(1)))
        )
        return b.shuffle_vector(up, down, both)

    def add(planes: list[Any], carries: list[Any]) -> list[Any]:
        *planes, over = planes
        for level in range(_LOW):
            pairs, carries = zip(carries[::2], carries[1::2], strict=True), []
            for x, y in pairs:
                planes[level], carry = _sum(b, planes[level], x, y)
                carries.append(carry)
        (carry,) = carries
        for level in range(_LOW, _HELD):
            planes[level], carry = b.xor(planes[level], carry), b.and_(planes[level], carry)
        return [*planes, b.or_(over, carry)]

    def piece(p: Any, _: list[Any]) -> list[Any]:
        begin = b.mul(p, _int(_LONGEST))
        left = b.sub(n, begin)
        whole = b.icmp_signed("<", _int(_LONGEST), left)
        length = b.select(whole, _int(_LONGEST), left)
        rest = b.and_(length, _int(_SLOTS - 1))

        def block(m: Any, planes: list[Any]) -> list[Any]:
            index = b.add(begin, b.mul(m, _int(_SLOTS)))
            return add(planes, [pulse(b.add(index, _int(slot))) for slot in range(_SLOTS)])

        def last_block(_: Any, planes: list[Any]) -> list[Any]:
            index = b.sub(b.add(begin, length), rest)
            carries = []
            for slot in range(_SLOTS):
                some = b.icmp_signed("<", _int(slot), rest)
                value = pulse(b.select(some, b.add(index, _int(slot)), index))
                carries.append(b.select(some, value, nothing))
            return add(planes, carries)

        levels = [plane(_int(level)) for level in range(_HELD)]
        held = [*(load(level, vector) for level in levels), nothing]
        held = _loop(b, b.lshr(length, _int(_LOW)), held, block)
        held = _loop(b, b.zext(b.icmp_signed("!=", rest, _int(0)), _WORD), held, last_block)
        for level, value in zip(levels, held, strict=False):
            b.store(value, level).align = 8

        def carry_on(m: Any, carried: list[Any]) -> list[Any]:
            (carry,), level = carried, plane(m)
            before = load(level, vector)
            b.store(b.xor(before, carry), level).align = 8
            return [b.and_(before, carry)]

        def some(carried: list[Any]) -> Any:
            name, kind = f"llvm.vector.reduce.or.v{size}i64", ir.FunctionType(_WORD, [vector])
            any_of = b.call(b.module.declare_intrinsic(name, (), kind), carried)
            return b.icmp_unsigned("!=", any_of, _int(0))

        carry = [held[_HELD]]
        for level in range(_HELD, _HELD + _MORE):  # a test would fail too rarely to be worth it
            carry = carry_on(_int(level), carry)
        above = _HELD + _MORE
        _loop(
            b, b.sub(k, _int(above)), carry, lambda m, c: carry_on(b.add(m, _int(above)), c), some
        )
        return []

    _loop(b, b.lshr(b.add(n, _int(_LONGEST - 1)), _int(_HELD)), [], piece)


@intrinsic
def count_group(typing, planes, place, group, groups, bits, pulses, n):
    """Count the ``n`` pulses of a column that were applied to a group of its rows, of ``groups``.

    They are counted for a whole part at once, with its last group: the bits are in the cache then.
    ``place``: the column's in ``planes``; ``bits`` (uint16): ``PulseRing.d_bits``; ``pulses``: the
    list, as `column_slots` makes it. Does nothing where nothing is counted.
    """
    signature = types.void(planes, types.int64, types.int64, types.int64, bits, pulses, types.int64)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        plane_p, bit_p, pulse_p = (_data(context, b, sig.args[i], args[i]) for i in (0, 4, 5))
        place, group, groups, n = args[1], args[2], args[3], args[6]
        (_, parts, k, size), (_, slots, _, _) = (
            cgutils.unpack_tuple(b, context.make_array(sig.args[i])(context, b, args[i]).shape)
            for i in (0, 4)
        )
        shift = b.lshr(size, _int(2))
        part = b.lshr(group, shift)
        last = b.or_(
            b.icmp_signed("==", b.and_(group, shift), shift),
            b.icmp_signed("==", group, b.sub(groups, _int(1))),
        )
        with b.if_then(b.and_(last, b.icmp_signed(">", parts, _int(0)))):
            first = b.mul(b.add(b.mul(place, parts), part), b.mul(k, size))
            at = b.mul(b.mul(part, slots), b.mul(size, _int(4)))
            for width in (1, 2):
                with b.if_then(b.icmp_signed("==", size, _int(2 * width))):
                    _count(
                        b, width, lambda i: b.gep(plane_p, [b.add(first, i)]),
                        lambda i: b.gep(bit_p, [b.add(at, i)]), lambda i: b.gep(pulse_p, [i]), k, n,
                    )  # fmt: skip
        return context.get_dummy_value()

    return signature, generate


@inner
def count_one(planes, place, down, row):
    """Count a single pulse to a row; ``down``: 0 or 1."""
    width, group = planes.shape[3] // 2, row // LANES
    part, word, carry = (
        group // width,
        down * width + group % width,
        np.uint64(1) << np.uint64(row % LANES),
    )
    for plane in range(planes.shape[2]):
        before = planes[place, part, plane, word]
        planes[place, part, plane, word] = before ^ carry
        carry &= before
        if carry == np.uint64(0):
            return


@compiled
def numbers(planes, arrays, array, down, out):
    """Add the counts of pulses up or down to one of the arrays to ``out`` [in, rows] (int64)."""
    width, rows = planes.shape[3] // 2, out.shape[1]
    for column in range(out.shape[0]):
        for plane in range(planes.shape[2]):
            for first in range(0, rows, LANES):
                group = first // LANES
                word = planes[
                    column * arrays + array, group // width, plane, down * width + group % width
                ]
                if word == np.uint64(0):  # as most are, of the higher planes
                    continue
                for bit in range(min(LANES, rows - first)):
                    out[column, first + bit] += (
                        np.int64((word >> np.uint64(bit)) & np.uint64(1)) << plane
                    )
