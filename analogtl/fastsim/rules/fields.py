"""Named numbers of a rule: from and to the memory of a tile, without loops, as vector code needs.

The functions that compiled code calls are made for one rule each: how many numbers there are, and
what they are called, is part of the code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic


def _data(context: Any, b: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, b, array).data


def loader(kind: Any) -> Any:
    """Make ``load(array, first, stride)``: numbers of a flat float32 array as a tuple ``kind``."""
    result = types.NamedUniTuple(types.float32, len(kind._fields), kind)

    @intrinsic
    def load(typing, array, first, stride):
        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            data, at = _data(context, b, sig.args[0], args[0]), args[1]
            values = []
            for _ in kind._fields:
                values.append(b.load(b.gep(data, [at])))
                at = b.add(at, args[2])
            return context.make_tuple(b, sig.return_type, values)

        return result(array, types.int64, types.int64), generate

    return load


def storer(kind: Any) -> Any:
    """Make ``store(array, first, stride, values)``: the reverse; 1 if one is not a number."""

    @intrinsic
    def store(typing, array, first, stride, values):
        if not isinstance(values, types.BaseTuple) or len(values) != len(kind._fields):
            raise TypingError(f"expected {len(kind._fields)} values ({', '.join(kind._fields)})")

        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            data, at = _data(context, b, sig.args[0], args[0]), args[1]
            wrong: Any = ir.Constant(ir.IntType(1), 0)
            for i, given in enumerate(sig.args[3].types):
                value = context.cast(b, b.extract_value(args[3], i), given, types.float32)
                b.store(value, b.gep(data, [at]))
                wrong = b.or_(wrong, b.fcmp_unordered("uno", value, value))
                at = b.add(at, args[2])
            return b.zext(wrong, ir.IntType(32))

        return types.int32(array, types.int64, types.int64, values), generate

    return store


def weights_loader(count: int) -> Any:
    """Make ``load(fast, place, others, first, stride)``: one cell's weights on all arrays.

    That on the first array is at ``place`` of ``fast``, those on the others are ``stride`` apart
    from ``first`` on in ``others``; both are flat float32 arrays.
    """
    result = types.UniTuple(types.float32, count)

    @intrinsic
    def load(typing, fast, place, others, first, stride):
        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            values = [b.load(b.gep(_data(context, b, sig.args[0], args[0]), [args[1]]))]
            data, at = _data(context, b, sig.args[2], args[2]), args[3]
            for _ in range(count - 1):
                values.append(b.load(b.gep(data, [at])))
                at = b.add(at, args[4])
            return context.make_tuple(b, sig.return_type, values)

        return result(fast, types.int64, others, types.int64, types.int64), generate

    return load


@intrinsic
def _fma(typing, x, y, z):
    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


@njit(error_model="numpy")
def fused(x, y, z):
    """``x * y + z`` in float32, rounded once."""
    return _fma(x, y, z)
