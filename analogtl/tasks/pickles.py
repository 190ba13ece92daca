"""Read pickles that anybody may have made: plain data only, and nothing that one of them names.

A pickle is a program. Run as it is meant to be, it calls what it names, and a few bytes of it can
fill memory or hang: by lengths that it claims, or by values that hold others twice over, many
levels deep. Here it may build lists, dicts, text, numbers and numeric arrays, in proportion to its
own size.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from analogtl.errors import ExperimentError

# CIFAR-100 needs 300,000 operations, and text for names of files only.
MAX_OPERATIONS = 1_000_000
MAX_TEXT = 1 << 26  # bytes
T = TypeVar("T")
_MAX_NAME = 100  # characters of a name in a message


def load_pickle(content: bytes, where: str) -> Any:
    """Read a pickle of plain containers, numbers, strings and numeric arrays; call nothing.

    Python 2's strings come out as bytes. Nothing named in the pickle is ever imported: the few
    names that make up an array are replaced by inert stand-ins, and the array is built from its
    raw bytes here.

    Args:
        where: What to call it in messages.

    Raises:
        ExperimentError: it names anything else, or is damaged.
    """
    return read_pickle(lambda: _finish(PlainUnpickler(content).load()), where)


def read_pickle(read: Callable[[], T], where: str) -> T:
    """Return what a function reads with a `PlainUnpickler`; tell what is wrong with it.

    Raises:
        ExperimentError: it is refused, or damaged.
    """
    try:
        return read()
    except RefusedError as error:
        raise ExperimentError(f"{where}: refused: {error}") from error
    except Exception as error:  # damaged pickles fail in every way there is
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ExperimentError(f"{where}: not a readable pickle ({reason})") from error


class RefusedError(Exception):
    """The pickle asks for something that plain data does not need."""


# What protocols 2 to 4 write for plain data. Not among it: sets, whose members are hashed; arrays
# of bytes, which take the room they claim; what belongs to objects.
_OPERATIONS = b"".join(
    (
        pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK,
        pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE,
        pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT,
        pickle.BINSTRING + pickle.SHORT_BINSTRING + pickle.BINBYTES + pickle.SHORT_BINBYTES,
        pickle.BINUNICODE + pickle.SHORT_BINUNICODE,
        pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS,
        pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS,
        pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3,
        pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE + pickle.BINGET + pickle.LONG_BINGET,
        pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.REDUCE + pickle.BUILD,
    )
)


class _Operations:
    """The unpickler's table of operations, within bounds: each look-up is one of them."""

    def __init__(self, table: dict[int, Callable[[Any], None]]) -> None:
        self.table, self.left = table, MAX_OPERATIONS

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise RefusedError(f"it takes more than {MAX_OPERATIONS} operations")
        if code not in self.table:
            raise RefusedError(f"operation {bytes([code])!r}; plain data needs no such")
        return self.table[code]


class _Dict(dict[Any, Any]):
    """A dict with text or numbers for keys: the hash of nested tuples can take for ever."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes | int | float):
            raise RefusedError(f"a {type(key).__name__} for a key")
        super().__setitem__(key, value)


_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class PlainUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """Knows the names that an array consists of, and no other.

    A subclass may know more names and operations. The Python implementation, because its memo is a
    dict: the C one allocates room for whatever memo index a hostile file states. On CIFAR's files
    it is as fast.
    """

    stand_ins: Mapping[tuple[str, str], Callable[..., Any]] = {}
    operations = b""  # beside those of plain data

    def __init__(self, content: bytes, encoding: str = "bytes") -> None:
        super().__init__(io.BytesIO(content), encoding=encoding)
        own = {
            pickle.BINUNICODE[0]: PlainUnpickler.load_text,
            pickle.EMPTY_DICT[0]: PlainUnpickler.load_plain_dict,
            pickle.REDUCE[0]: PlainUnpickler.load_plain_call,
        }
        known = _PythonUnpickler.dispatch
        self.dispatch = _Operations(
            {code: own.get(code, known[code]) for code in _OPERATIONS + self.operations}
        )
        self.room = MAX_TEXT
        self.encoded: dict[int, tuple[str, bytes]] = {}

    def load_text(self) -> None:
        """Text takes up to four times its size in the file."""
        (size,) = struct.unpack("<I", self.read(4))
        self.room -= size
        if self.room < 0:
            raise RefusedError(f"more than {MAX_TEXT} bytes of text")
        self.append(str(self.read(size), "utf-8", "surrogatepass"))

    def load_plain_dict(self) -> None:
        self.append(_Dict())

    def load_plain_call(self) -> None:
        """Arguments come as a tuple: the bytes of an image would become a million of them."""
        arguments = self.stack.pop()
        if not (isinstance(self.stack[-1], Inert) and isinstance(arguments, tuple)):
            raise RefusedError("the pickle calls something in a way that plain data does not")
        self.stack[-1] = self.stack[-1](*arguments)

    def find_class(self, module: str, name: str) -> Any:
        make = {**_STAND_INS, **self.stand_ins}.get((module, name))
        if make is None:
            asked = f"{module[:_MAX_NAME]}.{name[:_MAX_NAME]}"
            raise RefusedError(f"the pickle asks for {asked}; plain data and numbers need no such")
        # A fresh one for each: a pickle may set the state of what it is given.
        return Inert(lambda *args: make(self, *args))

    def encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """``_codecs.encode`` as Python 3's protocol 2 uses it: bytes spelt as Latin-1.

        The same text gives the same bytes, not a copy for each time that it is referred to.
        """
        if not isinstance(text, str) or encoding != "latin1":
            raise RefusedError("the pickle encodes by other than Latin-1")
        if id(text) not in self.encoded:
            self.encoded[id(text)] = text, text.encode("latin1")
        return self.encoded[id(text)][1]


class Inert:
    """A name of the pickle: may be called as ``make``, has no state, is no type."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("the pickle changes what it was given to build arrays")


class _DType:
    """``numpy.dtype(code, align, copy)``; its state holds the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, _: PlainUnpickler, code: Any = None, *__: Any) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def build(self) -> np.dtype[Any]:
        if not re.fullmatch(r"[biuf][1248]", self.code) or self.order not in tuple("<>=|"):
            raise RefusedError(f"an array of type {self.code!r}; numbers were expected")
        return np.dtype(self.order + self.code)


class _Array:
    """``numpy.ndarray``; its state holds version, shape, type, Fortran order and raw bytes."""

    __slots__ = ("state", "unpickler")

    def __init__(self, unpickler: PlainUnpickler, *_: Any) -> None:
        self.unpickler = unpickler
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self) -> np.ndarray[Any, Any]:
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _DType):
            raise RefusedError("an array without a numeric type")
        dtype = dtype.build()  # before the content: an array of objects carries a list
        if isinstance(raw, str):  # as Python 3 spells bytes in protocol 2
            raw = self.unpickler.encode(raw)
        if not isinstance(raw, bytes):
            raise RefusedError("an array whose content is not bytes")
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): PlainUnpickler.encode,
}


def _text(value: Any) -> str:
    text = value.decode("latin1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > _MAX_NAME:
        raise RefusedError("an array without a numeric type")
    return text


def _finish(value: Any) -> Any:
    """Put real arrays where stand-ins are: at the top, or as values of the dict at the top."""
    if isinstance(value, dict):
        return {key: _built(item) for key, item in value.items()}
    return _built(value)


def _built(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, _DType | Inert):
        raise RefusedError("the pickle holds parts of an array in place of one")
    return value
