"""Vector code for the two innermost loops, written as LLVM vector instructions.

Numba's own loops are turned into vector code by LLVM when it sees how; these two must never depend
on that. The types are LLVM's own fixed-length vectors, which it maps to whatever the processor has
(AVX-512, AVX2, SSE, NEON), so nothing here names an instruction set.

``BLOCKS`` vectors of ``WIDTH`` rows make a *group*: the rows that are treated together. Several at
once, because the steps of one vector wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
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
    """Make a vector whose elements all are ``value``."""
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
    """``x * y + z``, rounded once: the same number on every processor, whatever it has for it."""
    return _intrinsic(b, "fma", x, y, z)


def _next_position(b: Any, rng: Any) -> tuple[Any, Any]:
    """Compute the generator's next state and a place in the pool."""
    rng = b.add(b.mul(rng, _int(MULTIPLIER)), _int(INCREMENT))
    return rng, b.lshr(rng, _int(64 - POOL_BITS))


def _loop(
    b: Any,
    count: Any,
    carried: list[Any],
    body: Callable[[Any, list[Any]], list[Any]],
    while_: Callable[[list[Any]], Any] | None = None,
) -> list[Any]:
    """``for m in range(count): carried = body(m, carried)``; returns the last ``carried``.

    It ends earlier where ``while_(carried)`` is not met.
    """
    before = b.block
    inside, after = b.append_basic_block("inside"), b.append_basic_block("after")

    def goes_on(m: Any, values: list[Any]) -> Any:
        more = b.icmp_signed("<", m, count)
        return more if while_ is None else b.and_(more, while_(values))

    b.cbranch(goes_on(_int(0), carried), inside, after)
    b.position_at_end(inside)
    m = b.phi(_I64)
    m.add_incoming(_int(0), before)
    now = []
    for value in carried:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        now.append(phi)
    new = body(m, now)
    m_next = b.add(m, _int(1))
    more = goes_on(m_next, new)
    end = b.block
    m.add_incoming(m_next, end)
    for phi, value in zip(now, new, strict=True):
        phi.add_incoming(value, end)
    b.cbranch(more, inside, after)
    b.position_at_end(after)
    out = []
    for value, last in zip(carried, new, strict=True):
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(last, end)
        out.append(phi)
    return out


def _constant(value: float) -> Any:
    return ir.Constant(_VF, [value] * WIDTH)


def _intrinsic(b: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_VF, [a.type for a in arguments])
    function = b.module.declare_intrinsic(f"llvm.{name}.v{WIDTH}f32", (), kind)
    return b.call(function, arguments)


def _min(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def _max(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _polynomial(b: Any, x: Any, coefficients: Sequence[float]) -> Any:
    """Evaluate a polynomial, the highest power's coefficient first."""
    value = _constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fused(b, value, x, _constant(coefficient))
    return value


def _exp(b: Any, x: Any) -> Any:
    """exp(x) to 2e-7, within [exp(-87), exp(87)]: see `responses.exp32`."""
    x = _min(b, _max(b, x, _constant(-MAX_EXPONENT)), _constant(MAX_EXPONENT))
    n = _intrinsic(b, "rint", b.fmul(x, _constant(LOG2_E)))
    r = _fused(b, n, _constant(-LN2_HIGH), x)
    r = _fused(b, n, _constant(-LN2_LOW), r)
    p = b.fmul(_polynomial(b, r, EXP_POLYNOMIAL), b.fmul(r, r))
    p = b.fadd(b.fadd(p, r), _constant(1.0))
    power = b.add(b.fptosi(n, _VI), ir.Constant(_VI, [127] * WIDTH))
    return b.fmul(p, b.bitcast(b.shl(power, ir.Constant(_VI, [23] * WIDTH)), _VF))


def _log(b: Any, u: Any) -> Any:
    """log(u) to 2e-7, for normal positive u: see `responses.log32`."""
    root = ir.Constant(_VI, [ROOT_HALF] * WIDTH)
    raw = b.sub(b.bitcast(u, _VI), root)
    exponent = b.sitofp(b.ashr(raw, ir.Constant(_VI, [23] * WIDTH)), _VF)
    fraction = b.add(b.and_(raw, ir.Constant(_VI, [0x007FFFFF] * WIDTH)), root)
    m = b.fsub(b.bitcast(fraction, _VF), _constant(1.0))
    p = b.fmul(_polynomial(b, m, LOG_POLYNOMIAL), b.fmul(m, m))
    return _fused(b, exponent, _constant(LN2), b.fadd(m, p))


# The polynomials behind exp and log, for vectors here and for single numbers in `responses.py`.
MAX_EXPONENT, LOG2_E, LN2 = 87.0, 1.44269504, 0.693147181
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
EXP_POLYNOMIAL = (1.98412698e-4, 1.38888889e-3, 8.33333333e-3, 4.16666667e-2, 1.66666667e-1, 0.5)
LOG_POLYNOMIAL = (
    *(0.0922615952, -0.143521074, 0.147750825, -0.165620477),
    *(0.199744563, -0.250020576, 0.333336427, -0.499999926),
)
ROOT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)
SMALLEST = 1e-37

# the numbers of a device that the pulses take, by their places
STD, A_UP, A_DOWN, GAMMA_UP, GAMMA_DOWN, A, B, STD_ADD, STD_SLOPE, N_ANSWERS = range(10)


class _Block:
    """``WIDTH`` cells of one column of A on their way through a list of pulses.

    A subclass for each way to answer to a pulse. Everything that stays the same from pulse to pulse
    is computed once, in ``prepare``.
    """

    def __init__(self, b: Any, cell: Any, more: Any, numbers: Any, curves: Any, nodes: Any) -> None:
        self.weight, self.reference, self.top, self.bottom, self.up, self.down = (
            cell(field) for field in (0, 3, 4, 5, 6, 7)
        )
        self.more, self.numbers, self.curves, self.nodes = more, numbers, curves, nodes
        self.start = b.fadd(self.weight, self.reference)
        self.movable: Any = None  # mask of the cells that pulses can move; None: all
        self.prepare(b)

    def prepare(self, b: Any) -> None:
        raise NotImplementedError

    def pulsed(self, b: Any, v: Any, is_up: Any, gain: Any, xi: Any) -> Any:
        """The cells after a pulse, not yet clipped; ``gain``: 1 + noise, ``xi``: standard normal.

        Both are functions that load the vector.
        """
        raise NotImplementedError

    def number(self, b: Any, place: int) -> Any:
        return _splat(b, b.load(b.gep(self.numbers, [_int(place)])), _VF)

    def leave_those_without_range(self, b: Any) -> Any:
        """Mark the cells whose bounds coincide as not movable; return the range of the others."""
        self.movable = b.fcmp_ordered(">", self.top, self.bottom)
        return b.select(self.movable, b.fsub(self.top, self.bottom), _constant(1.0))


class _Linear(_Block):
    """``slope * v + step``, with noise relative to the step or (multiplicative) to the change."""

    multiplicative = False

    def slopes(self, b: Any) -> tuple[Any, Any]:
        return self.more(0), b.fsub(_constant(0.0), self.more(1))

    def prepare(self, b: Any) -> None:
        zero = _constant(0.0)
        self.slope_up, self.slope_down = self.slopes(b)
        if not self.multiplicative:  # the slope is that of the new weight, not of the change
            self.slope_up = b.fadd(_constant(1.0), self.slope_up)
            self.slope_down = b.fadd(_constant(1.0), self.slope_down)
        self.step_down = b.fsub(zero, self.down)

    def pulsed(self, b: Any, v: Any, is_up: Any, gain: Any, xi: Any) -> Any:
        slope = b.select(is_up, self.slope_up, self.slope_down)
        step = b.select(is_up, self.up, self.step_down)
        if self.multiplicative:
            return _fused(b, _fused(b, slope, v, step), gain(), v)
        return _fused(b, slope, v, b.fmul(step, gain()))


class _SoftBounds(_Linear):
    """Linear steps that vanish at the cell's own bounds."""

    def slopes(self, b: Any) -> tuple[Any, Any]:
        zero = _constant(0.0)
        fall = b.select(b.fcmp_ordered(">", self.top, zero), b.fdiv(self.up, self.top), zero)
        rise = b.select(
            b.fcmp_ordered("<", self.bottom, zero), b.fdiv(self.down, self.bottom), zero
        )
        return b.fsub(zero, fall), rise


class _Exp(_Block):
    """``step * max(1 - A exp(gamma z), 0)``, ``z = 2 a v / range + b``."""

    def prepare(self, b: Any) -> None:
        zero = _constant(0.0)
        width = self.leave_those_without_range(b)
        self.scale = b.fdiv(b.fmul(_constant(2.0), self.number(b, A)), width)
        self.offset = self.number(b, B)
        self.step_down = b.fsub(zero, self.down)
        self.gamma_up = self.number(b, GAMMA_UP)
        self.gamma_down = b.fsub(zero, self.number(b, GAMMA_DOWN))
        self.minus_up = b.fsub(zero, self.number(b, A_UP))
        self.minus_down = b.fsub(zero, self.number(b, A_DOWN))
        self.std, self.add, self.by_weight = (
            self.number(b, place) for place in (STD, STD_ADD, STD_SLOPE)
        )

    def pulsed(self, b: Any, v: Any, is_up: Any, gain: Any, xi: Any) -> Any:
        z = _fused(b, self.scale, v, self.offset)
        power = _exp(b, b.fmul(b.select(is_up, self.gamma_up, self.gamma_down), z))
        minus = b.select(is_up, self.minus_up, self.minus_down)
        factor = _max(b, _fused(b, minus, power, _constant(1.0)), _constant(0.0))
        change = b.fmul(factor, b.select(is_up, self.up, self.step_down))
        spread = b.fadd(_intrinsic(b, "fabs", change), self.add)
        spread = _fused(b, self.by_weight, _intrinsic(b, "fabs", v), spread)
        return _fused(b, b.fmul(self.std, xi()), spread, b.fadd(v, change))


class _Pow(_Block):
    """``step * u ** gamma``, ``u`` the share of the range that is left."""

    def prepare(self, b: Any) -> None:
        self.per_range = b.fdiv(_constant(1.0), self.leave_those_without_range(b))
        self.gamma_up, self.gamma_down = self.more(0), self.more(1)
        self.step_down = b.fsub(_constant(0.0), self.down)

    def pulsed(self, b: Any, v: Any, is_up: Any, gain: Any, xi: Any) -> Any:
        zero, smallest = _constant(0.0), _constant(SMALLEST)
        left = b.select(is_up, b.fsub(self.top, v), b.fsub(v, self.bottom))
        left = b.fmul(left, self.per_range)
        gamma = b.select(is_up, self.gamma_up, self.gamma_down)
        power = _exp(b, b.fmul(gamma, _log(b, _max(b, left, smallest))))
        some = b.or_(b.fcmp_ordered(">", left, smallest), b.fcmp_ordered("==", gamma, zero))
        change = b.fmul(b.select(some, power, zero), b.select(is_up, self.up, self.step_down))
        return _fused(b, change, gain(), v)


class _Piecewise(_Block):
    """Steps that follow a curve, summed up from its ramps: what each node adds to the slope."""

    def prepare(self, b: Any) -> None:
        width = b.fsub(self.top, self.bottom)
        usable = b.fcmp_ordered(">", width, _constant(0.0))
        last = _splat(b, b.sitofp(b.sub(self.nodes, _int(1)), _F32), _VF)
        self.last = last
        per_range = b.fdiv(last, b.select(usable, width, _constant(1.0)))
        self.per_range = b.select(usable, per_range, _constant(0.0))
        self.step_down = b.fsub(_constant(0.0), self.down)

    def pulsed(self, b: Any, v: Any, is_up: Any, gain: Any, xi: Any) -> Any:
        zero = _constant(0.0)
        place = b.fmul(b.fsub(v, self.bottom), self.per_range)
        place = _min(b, _max(b, place, zero), self.last)

        def of_node(index: Any) -> Any:
            up, down = (
                _splat(b, b.load(b.gep(self.curves, [at])), _VF)
                for at in (index, b.add(self.nodes, index))
            )
            return b.select(is_up, up, down)

        def ramp(node: Any, carried: list[Any]) -> list[Any]:
            factor, at = carried
            return [
                _fused(b, of_node(b.add(node, _int(1))), _max(b, b.fsub(place, at), zero), factor),
                b.fadd(at, _constant(1.0)),
            ]

        count = b.sub(self.nodes, _int(1))
        factor, _ = _loop(b, count, [of_node(_int(0)), zero], ramp)
        change = b.fmul(factor, b.select(is_up, self.up, self.step_down))
        return _fused(b, change, gain(), v)


def _make_apply_pulses(kind: type[_Block], multiplicative: bool = True) -> Any:
    if issubclass(kind, _Linear):
        kind = type(kind.__name__, (kind,), {"multiplicative": multiplicative})

    @intrinsic
    def apply_pulses(
        typing, bits, first, width, pulses, n, cells, base, more, place, numbers, curves, nodes,
        gains, normals, write_noise, rng,
    ):  # fmt: skip
        signature = types.uint64(
            bits, types.int64, types.int64, pulses, types.int64, cells, types.uint64, more,
            types.uint64, numbers, curves, types.int64, gains, normals, types.float32, types.uint64,
        )  # fmt: skip

        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            bit_p, pulse_p, cell_p, more_p, number_p, curve_p, gain_p, normal_p = (
                _data(context, b, sig.args[i], args[i]) for i in (0, 3, 5, 7, 9, 10, 12, 13)
            )
            first, width, n, base, extra, nodes, rng = (args[i] for i in (1, 2, 4, 6, 8, 11, 15))

            def block(q: int) -> _Block:
                def field(pointer: Any, at: Any) -> Callable[[int], Any]:
                    return lambda k: _load(b, pointer, b.add(at, _int(LANES * k + WIDTH * q)))

                cell, beside = field(cell_p, base), field(more_p, extra)
                return kind(b, cell, beside, number_p, curve_p, nodes)

            blocks = [block(q) for q in range(BLOCKS)]

            def pulse(entry: Any, run: Any, carried: list[Any]) -> list[Any]:
                weights, seen = carried[:BLOCKS], carried[BLOCKS:]
                entry = b.load(b.gep(pulse_p, [entry]))
                ups, downs = (
                    b.gep(bit_p, [b.add(first, b.mul(turn, width))])
                    for turn in (entry, b.xor(entry, _int(1)))
                )
                new, new_seen = [], []
                for q, cells in enumerate(blocks):
                    up, down = (b.load(b.gep(word, [_int(q)])) for word in (ups, downs))
                    coincide = b.or_(up, down)
                    on, is_up = b.bitcast(coincide, _VB), b.bitcast(up, _VB)
                    at = b.add(run, _int(WIDTH * q))
                    v = cells.pulsed(
                        b, weights[q], is_up, partial(_load, b, gain_p, at),
                        partial(_load, b, normal_p, at),
                    )  # fmt: skip
                    v = _min(b, _max(b, v, cells.bottom), cells.top)
                    new.append(b.select(on, v, weights[q]))
                    new_seen.append(b.or_(seen[q], coincide))
                return new + new_seen

            def piece(p: Any, carried: list[Any]) -> list[Any]:
                rng, offset = _next_position(b, carried[-1])
                begin = b.mul(p, _int(PIECE))
                left = b.sub(n, begin)
                length = b.select(b.icmp_signed("<", left, _int(PIECE)), left, _int(PIECE))

                def step(m: Any, carried: list[Any]) -> list[Any]:
                    run = b.add(offset, b.mul(m, _int(LANES)))
                    return pulse(b.add(begin, m), run, carried)

                return [*_loop(b, length, carried[:-1], step), rng]

            pieces = b.sdiv(b.add(n, _int(PIECE - 1)), _int(PIECE))
            nothing = [ir.Constant(_I16, 0)] * BLOCKS
            starts = [cells.start for cells in blocks]
            done = _loop(b, pieces, [*starts, *nothing, rng], piece)
            rng, offset = _next_position(b, done[-1])
            noise_scale = _splat(b, args[14], _VF)
            for q, cells in enumerate(blocks):
                stored, seen = (b.add(base, _int(LANES * field + WIDTH * q)) for field in (0, 1))
                came = b.bitcast(done[BLOCKS + q], _VB)
                if cells.movable is not None:
                    came = b.and_(came, cells.movable)
                new = b.fsub(done[q], cells.reference)
                xi = _load(b, normal_p, b.add(offset, _int(WIDTH * q)))
                noisy = _fused(b, noise_scale, xi, new)
                _store(b, b.select(came, new, _load(b, cell_p, stored)), cell_p, stored)
                _store(b, b.select(came, noisy, _load(b, cell_p, seen)), cell_p, seen)
            return rng

        return signature, generate

    return apply_pulses


_RESPONSES = {
    "soft_bounds_additive": _make_apply_pulses(_SoftBounds, multiplicative=False),
    "soft_bounds_multiplicative": _make_apply_pulses(_SoftBounds),
    "linear_additive": _make_apply_pulses(_Linear, multiplicative=False),
    "linear_multiplicative": _make_apply_pulses(_Linear),
    "exponential": _make_apply_pulses(_Exp),
    "power": _make_apply_pulses(_Pow),
    "piecewise": _make_apply_pulses(_Piecewise),
}
"""Apply a list of slots to one group of one column of A; returns the new state of ``rng``.

``bits`` (uint16): ``PulseRing.d_bits``; ``first``: the first element of the group in it, ``width``:
elements from the rows that move up to those that move down; ``pulses`` (int64): a list of ``n``
slots, each twice its place, and 1 more if the column turns the directions over; ``cells``
(float32): the column's cells, of which the group's begin at element ``base``, in the order of the
fields in ``layout.py``. Where a pulse came, the persistent and the apparent weight are replaced,
the latter with noise of strength ``write_noise``. ``gains`` (float32): 1 + noise, and ``normals``:
every ``PIECE`` slots, and the write noise, take a run of them that begins at random.

``more`` from ``place`` on: slopes or exponents up, then down; ``numbers``: see above; ``curves``
[2, ``nodes``]: the value at the first node, and what each further one adds to the slope. One
function for each way to answer to a pulse takes what it needs of these.
"""


@intrinsic
def apply_pulses(typing, device, given):
    """Apply a list of slots as the cells of ``device`` answer to pulses, which its type says.

    ``given``: the arguments, as a tuple.
    """
    [response] = [make for name, make in _RESPONSES.items() if name in device.fields]
    of_response, generate_it = response._defn(typing, *given)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        values = [
            context.cast(b, value, is_, wanted)
            for value, is_, wanted in zip(
                cgutils.unpack_tuple(b, args[1]), given, of_response.args, strict=True
            )
        ]
        return generate_it(context, b, of_response, values)

    return of_response.return_type(device, given), generate


# the numbers that ``read_group`` takes, by their places; ``read_out`` takes those before FACTOR
(
    READ_INPUT, READ_NOISE, READ_RES, READ_BOUND, READ_SCALE, FACTOR, THRESHOLD, LIMIT, KEEP,
    SUBTRACT, CAP, TAIL, FORGET, WITH_BUFFER, SWITCHED, DIRECT, N_NUMBERS,
) = range(17)  # fmt: skip


def _clip(b: Any, v: Any, bound: Any) -> Any:
    """Clip to ``bound`` first, then to ``-bound``."""
    v = b.select(b.fcmp_ordered("<", v, bound), v, bound)
    low = b.fsub(_constant(0.0), bound)
    return b.select(b.fcmp_ordered(">", v, low), v, low)


def _is_set(b: Any, number: Any) -> Any:
    return b.fcmp_ordered(">", number, _constant(0.0))


def _read(b: Any, seen: Any, xi: Any, number: Sequence[Any]) -> Any:
    """Send apparent weights through the converter of a read, with noise ``xi``."""
    y = _fused(b, number[READ_NOISE], xi, b.fmul(seen, number[READ_INPUT]))
    steps_of = _intrinsic(b, "rint", b.fdiv(y, number[READ_RES]))
    y = b.select(_is_set(b, number[READ_RES]), b.fmul(steps_of, number[READ_RES]), y)
    return b.fmul(_clip(b, y, number[READ_BOUND]), number[READ_SCALE])


def _make_read_group(dynamic: bool) -> Any:
    @intrinsic
    def read_group(typing, cells, base, means, place, chop, steps, row, normals, numbers, rng):
        signature = types.UniTuple(types.uint64, 2)(
            cells, types.uint64, means, types.uint64, chop, steps, types.uint64, normals, numbers,
            types.uint64,
        )  # fmt: skip

        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            cell_p, mean_p, chop_p, step_p, normal_p, number_p = (
                _data(context, b, sig.args[i], args[i]) for i in (0, 2, 4, 5, 7, 8)
            )
            base, place, row = args[1], args[3], args[6]
            number = [_splat(b, b.load(b.gep(number_p, [_int(i)])), _VF) for i in range(N_NUMBERS)]
            zero = _constant(0.0)

            def is_set(i: int) -> Any:
                return _is_set(b, number[i])

            rng, offset = _next_position(b, args[9])
            any_step = ir.Constant(_I16, 0)
            for q in range(BLOCKS):
                here = _int(WIDTH * q)
                seen = _load(b, cell_p, b.add(base, _int(LANES + WIDTH * q)))
                y = _read(b, seen, _load(b, normal_p, b.add(offset, here)), number)
                if dynamic:
                    running = b.add(place, here)
                    before = b.add(place, _int(LANES + WIDTH * q))
                    mean = _load(b, mean_p, running)
                    past = b.select(is_set(SWITCHED), mean, _load(b, mean_p, before))
                    _store(b, past, mean_p, before)
                    kept = b.fmul(mean, b.fsub(_constant(1.0), number[TAIL]))
                    _store(b, _fused(b, y, number[TAIL], kept), mean_p, running)
                    y = b.fsub(y, past)
                sign = _load(b, chop_p, b.add(row, here))
                change = b.fmul(b.fmul(y, number[FACTOR]), sign)
                in_buffer = b.add(base, _int(2 * LANES + WIDTH * q))
                h = b.select(is_set(WITH_BUFFER), _load(b, cell_p, in_buffer), zero)
                h = b.fadd(h, change)
                whole = _intrinsic(b, "trunc", b.fdiv(h, number[THRESHOLD]))
                n = _clip(b, whole, number[LIMIT])
                n = b.select(is_set(DIRECT), h, n)
                less = b.fsub(h, b.fmul(number[SUBTRACT], n))
                less = b.select(is_set(CAP), _clip(b, less, number[CAP]), less)
                after = b.select(is_set(FORGET), b.fmul(h, number[KEEP]), less)
                hit = b.fcmp_unordered("!=", n, zero)
                _store(b, b.select(hit, after, h), cell_p, in_buffer)
                _store(b, n, step_p, b.add(row, here))
                any_step = b.or_(any_step, b.bitcast(hit, _I16))
            out = [b.zext(any_step, _I64), rng]
            return context.make_tuple(b, signature.return_type, out)

        return signature, generate

    return read_group


read_chopped = _make_read_group(dynamic=False)
read_dynamic = _make_read_group(dynamic=True)
"""Read one group of one column of A into its buffer H; returns (any step, the new ``rng``).

With ``DIRECT`` there is no buffer: what was read goes into ``steps`` as it is.

``cells`` from ``base`` on as in ``apply_pulses``; ``means`` from ``place`` on: running and past
means (only ``read_dynamic`` uses them); ``chop``, ``steps`` [rows] from ``row`` on: the rows'
choppers, and where the signed numbers of pulses for C go; ``numbers``: see above.
"""


@intrinsic
def read_out(typing, seen, place, out, row, normals, numbers, rng):
    """Read one group of cells as they are; returns the new ``rng``.

    ``seen`` (float32) from ``place`` on: apparent weights; ``out`` [rows] from ``row`` on: where
    the values go; ``numbers``: those of the read, as in ``read_chopped``.
    """
    signature = types.uint64(seen, types.uint64, out, types.uint64, normals, numbers, types.uint64)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        seen_p, out_p, normal_p, number_p = (
            _data(context, b, sig.args[i], args[i]) for i in (0, 2, 4, 5)
        )
        number = [_splat(b, b.load(b.gep(number_p, [_int(i)])), _VF) for i in range(FACTOR)]
        rng, offset = _next_position(b, args[6])
        for q in range(BLOCKS):
            here = _int(WIDTH * q)
            weights, xi = (
                _load(b, pointer, b.add(at, here))
                for pointer, at in ((seen_p, args[1]), (normal_p, offset))
            )
            _store(b, _read(b, weights, xi, number), out_p, b.add(args[3], here))
        return rng

    return signature, generate


@intrinsic
def draw_rows(typing, chances, signs, bits, first, stride, shift, groups, k1, k2):
    """Draw one slot's bits of all rows.

    ``chances``, ``signs`` [rows] (float32): probability of a pulse, and a number of the row's sign;
    ``bits`` (uint16): ``PulseRing.d_bits``, from element ``first`` on, ``stride`` elements from
    part to part, of ``1 << shift`` groups each; ``k1``, ``k2`` (uint32): the key. The same numbers
    as ``hash32`` in ``streams.py``.
    """
    signature = types.none(
        chances,
        signs,
        bits,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        types.uint32,
        types.uint32,
    )

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        chance_p, sign_p, bit_p = (_data(context, b, sig.args[i], args[i]) for i in (0, 1, 2))
        first, stride, shift, groups = (args[i] for i in range(3, 7))
        k1, k2 = _splat(b, args[7], _VI), _splat(b, args[8], _VI)

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
                part, in_part = b.lshr(g, shift), b.and_(g, shift)
                up = b.add(b.add(first, b.mul(part, stride)), b.mul(in_part, _int(4)))
                down = b.add(up, b.shl(_int(4), shift))
                for place, sign in ((up, negative), (down, b.not_(negative))):
                    moves = b.bitcast(b.and_(on, sign), _I16)
                    b.store(moves, b.gep(bit_p, [b.add(place, _int(q))]))
            return []

        _loop(b, groups, [], group)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def trailing_zeros(typing, word):
    """Count the 0 bits below the lowest 1 bit of a uint32."""

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.cttz(args[0], ir.Constant(_I1, 1))

    return types.uint32(types.uint32), generate
