"""Vector code for the two innermost loops, written as LLVM vector instructions.

Numba's own loops are turned into vector code by LLVM when it sees how; these two must never depend
on that. The types are LLVM's own fixed-length vectors, which it maps to whatever the processor has
(AVX-512, AVX2, SSE, NEON), so nothing here names an instruction set.

``BLOCKS`` vectors of ``WIDTH`` rows make a *group*: the rows that are treated together. Several at
once, because the steps of one vector wait for each other.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 16
BLOCKS = 3
LANES = WIDTH * BLOCKS

POOL_BITS = 14
PIECE = 128  # slots that take consecutive numbers of the pool
POOL_SIZE = (1 << POOL_BITS) + PIECE * LANES
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407  # of the generator of positions

_F32, _I64, _I32, _I16, _I1 = ir.FloatType(), *(ir.IntType(n) for n in (64, 32, 16, 1))
_VF, _VI, _VB = (ir.VectorType(t, WIDTH) for t in (_F32, _I32, _I1))


def _splat(b: Any, value: Any, vector: Any) -> Any:
    """A vector whose elements all are ``value``."""
    one = b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(_VI, [0] * WIDTH)
    return b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _int(value: int) -> Any:
    return ir.Constant(_I64, value)


def _data(context: Any, b: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, b, array).data


def _load(b: Any, pointer: Any, index: Any) -> Any:
    vector = b.load(b.bitcast(b.gep(pointer, [index]), _VF.as_pointer()))
    vector.align = 4
    return vector


def _store(b: Any, vector: Any, pointer: Any, index: Any) -> None:
    place = b.bitcast(b.gep(pointer, [index]), vector.type.as_pointer())
    b.store(vector, place).align = 4


def _fused(b: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, as one instruction where the processor has it."""
    return b.fadd(b.fmul(x, y, flags=["contract"]), z, flags=["contract"])


def _loop(b: Any, count: Any, carried: list[Any], body: Any) -> list[Any]:
    """``for m in range(count): carried = body(m, carried)``; returns the last ``carried``."""
    before = b.block
    inside, after = b.append_basic_block("inside"), b.append_basic_block("after")
    b.cbranch(b.icmp_signed(">", count, _int(0)), inside, after)
    b.position_at_end(inside)
    m = b.phi(_I64)
    m.add_incoming(_int(0), before)
    now = []
    for value in carried:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        now.append(phi)
    new = body(m, now)
    end = b.block
    m_next = b.add(m, _int(1))
    m.add_incoming(m_next, end)
    for phi, value in zip(now, new, strict=True):
        phi.add_incoming(value, end)
    b.cbranch(b.icmp_signed("<", m_next, count), inside, after)
    b.position_at_end(after)
    out = []
    for value, last in zip(carried, new, strict=True):
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(last, end)
        out.append(phi)
    return out


def _make_apply_pulses(multiplicative: bool) -> Any:
    @intrinsic
    def apply_pulses(typing, bits, first, slots, turns, n, cells, base, weights, moved, gains, rng):
        signature = types.uint64(
            bits, types.int64, slots, turns, types.int64, cells, types.uint64, weights, moved,
            gains, types.uint64,
        )  # fmt: skip

        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            bit_p, slot_p, turn_p, cell_p, weight_p, moved_p, gain_p = (
                _data(context, b, sig.args[i], args[i]) for i in (0, 2, 3, 5, 7, 8, 9)
            )
            first, n, base, rng = args[1], args[4], args[6], args[10]
            zero, one = (ir.Constant(_VF, [x] * WIDTH) for x in (0.0, 1.0))
            w, slope_up, step_up, slope_down, step_down, low, high = ([] for _ in range(7))
            for q in range(BLOCKS):
                weight, reference, top, bottom, up, down = (
                    _load(b, cell_p, b.add(base, _int(LANES * field + WIDTH * q)))
                    for field in (0, 3, 4, 5, 6, 7)
                )
                fall = b.select(b.fcmp_ordered(">", top, zero), b.fdiv(up, top), zero)
                rise = b.select(b.fcmp_ordered("<", bottom, zero), b.fdiv(down, bottom), zero)
                start = zero if multiplicative else one
                w.append(b.fadd(weight, reference))
                slope_up.append(b.fsub(start, fall))
                slope_down.append(b.fadd(start, rise))
                step_up.append(up)
                step_down.append(b.fsub(zero, down))
                low.append(bottom)
                high.append(top)

            def pulse(entry: Any, gain: Any, carried: list[Any]) -> list[Any]:
                weights, seen = carried[:BLOCKS], carried[BLOCKS:]
                slot, turn = b.load(b.gep(slot_p, [entry])), b.load(b.gep(turn_p, [entry]))
                word = b.gep(bit_p, [b.add(first, b.mul(slot, _int(2 * BLOCKS)))])
                new, new_seen = [], []
                for q in range(BLOCKS):
                    coincide = b.load(b.gep(word, [_int(q)]))
                    is_up = b.xor(b.load(b.gep(word, [_int(BLOCKS + q)])), turn)
                    on, is_up = b.bitcast(coincide, _VB), b.bitcast(is_up, _VB)
                    slope = b.select(is_up, slope_up[q], slope_down[q])
                    step = b.select(is_up, step_up[q], step_down[q])
                    noisy = _load(b, gain_p, b.add(gain, _int(WIDTH * q)))
                    if multiplicative:  # slope is that of the change
                        v = _fused(b, _fused(b, slope, weights[q], step), noisy, weights[q])
                    else:  # slope is that of the new weight
                        v = _fused(b, slope, weights[q], b.fmul(step, noisy))
                    v = b.select(b.fcmp_ordered(">", v, low[q]), v, low[q])
                    v = b.select(b.fcmp_ordered("<", v, high[q]), v, high[q])
                    new.append(b.select(on, v, weights[q]))
                    new_seen.append(b.or_(seen[q], coincide))
                return new + new_seen

            def piece(p: Any, carried: list[Any]) -> list[Any]:
                rng = b.add(b.mul(carried[-1], _int(MULTIPLIER)), _int(INCREMENT))
                offset = b.lshr(rng, _int(64 - POOL_BITS))
                begin = b.mul(p, _int(PIECE))
                left = b.sub(n, begin)
                length = b.select(b.icmp_signed("<", left, _int(PIECE)), left, _int(PIECE))

                def step(m: Any, carried: list[Any]) -> list[Any]:
                    gain = b.add(offset, b.mul(m, _int(LANES)))
                    return pulse(b.add(begin, m), gain, carried)

                return [*_loop(b, length, carried[:-1], step), rng]

            pieces = b.sdiv(b.add(n, _int(PIECE - 1)), _int(PIECE))
            nothing = [ir.Constant(_I16, 0)] * BLOCKS
            done = _loop(b, pieces, [*w, *nothing, rng], piece)
            for q in range(BLOCKS):
                _store(b, done[q], weight_p, _int(WIDTH * q))
                lanes = b.sext(b.bitcast(done[BLOCKS + q], _VB), _VI)
                _store(b, lanes, moved_p, _int(WIDTH * q))
            return done[-1]

        return signature, generate

    return apply_pulses


apply_additive = _make_apply_pulses(multiplicative=False)
apply_multiplicative = _make_apply_pulses(multiplicative=True)
"""Apply a list of slots to one group of one column of A; returns the new state of ``rng``.

``bits`` [groups, slots, 2 * BLOCKS] (uint16): pulse bits and sign bits of the rows; ``first``: the
first element of the group in it; ``slots`` (int64), ``turns`` (uint16; 0xFFFF turns the directions
over): a list of ``n`` slots; ``cells`` (float32): the column's cells, of which the group's begin at
element ``base``, in the order of the fields in ``kernels.py``; they are only read. ``weights``
[LANES] receives the new absolute weights, ``moved`` [LANES] (int32) -1 where a pulse came, else 0.
``gains`` (float32): 1 + noise; every ``PIECE`` slots take a run of it that begins at random.
"""


@intrinsic
def draw_rows(typing, chances, signs, bits, first, stride, groups, k1, k2):
    """Draw one slot's bits of all rows.

    ``chances``, ``signs`` [rows] (float32): probability of a pulse, and a number of the row's sign;
    ``bits`` (uint16): where to, from element ``first`` on, ``stride`` elements from group to group;
    ``k1``, ``k2`` (uint32): the key. The same numbers as ``hash32`` in ``random.py``.
    """
    signature = types.none(
        chances, signs, bits, types.int64, types.int64, types.int64, types.uint32, types.uint32
    )

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        chance_p, sign_p, bit_p = (_data(context, b, sig.args[i], args[i]) for i in (0, 1, 2))
        first, stride, groups = args[3], args[4], args[5]
        k1, k2 = _splat(b, args[6], _VI), _splat(b, args[7], _VI)

        def constant(value: int) -> Any:
            return ir.Constant(_VI, [value] * WIDTH)

        lane = ir.Constant(_VI, [(i * 0x9E3779B9) % 2**32 for i in range(WIDTH)])
        start = b.add(k1, lane)

        def group(g: Any, carried: list[Any]) -> list[Any]:
            for q in range(BLOCKS):
                row = b.add(b.mul(g, _int(LANES)), _int(WIDTH * q))
                moved_on = b.mul(b.trunc(row, _I32), ir.Constant(_I32, 0x9E3779B9))
                h = b.add(start, _splat(b, moved_on, _VI))
                h = b.xor(h, b.lshr(h, constant(16)))
                h = b.add(b.mul(h, constant(0x7FEB352D)), k2)
                h = b.xor(h, b.lshr(h, constant(15)))
                h = b.mul(h, constant(0x846CA68B))
                h = b.xor(h, b.lshr(h, constant(16)))
                scale = ir.Constant(_VF, [2.0**-24] * WIDTH)
                u = b.fmul(b.sitofp(b.lshr(h, constant(8)), _VF), scale)
                on = b.fcmp_ordered("<", u, _load(b, chance_p, row))
                zero = ir.Constant(_VF, [0.0] * WIDTH)
                negative = b.fcmp_ordered("<", _load(b, sign_p, row), zero)
                place = b.add(first, b.mul(g, stride))
                b.store(b.bitcast(on, _I16), b.gep(bit_p, [b.add(place, _int(q))]))
                b.store(b.bitcast(negative, _I16), b.gep(bit_p, [b.add(place, _int(BLOCKS + q))]))
            return []

        _loop(b, groups, [], group)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def trailing_zeros(typing, word):
    """The number of 0 bits below the lowest 1 bit of a uint32."""

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.cttz(args[0], ir.Constant(_I1, 1))

    return types.uint32(types.uint32), generate
