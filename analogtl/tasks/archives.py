"""Read untrusted archives: no code from pickles, no files from tars.

CIFAR comes as pickles inside a ``.tar.gz``. Both formats can make a naive reader run code or
overwrite files, so the pickles are read by an unpickler that builds plain containers and numeric
arrays and refuses the rest, and the members of the tar are read in memory.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import re
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock

from analogtl.errors import ExperimentError

# Several times the largest file of CIFAR: more than this is no data set but a decompression bomb.
_MAX_MEMBER = 1 << 30
_CHUNK = 1 << 20
_TIMEOUT_S = 30


def load_pickle(content: bytes, where: str) -> Any:
    """Read a pickle of plain containers, numbers, strings and numeric arrays; call nothing.

    Python 2's strings come out as bytes. Nothing named in the pickle is ever imported: the few
    names that make up an array are replaced by inert stand-ins, and the array is built from its
    raw bytes here.

    Args:
        content: The pickle.
        where: What to call it in messages.

    Raises:
        ExperimentError: it names anything else, or is damaged.
    """
    try:
        return _finish(_PlainUnpickler(io.BytesIO(content), encoding="bytes").load())
    except _RefusedError as error:
        raise ExperimentError(f"{where}: refused: {error}") from error
    except Exception as error:  # damaged pickles fail in every way there is
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ExperimentError(f"{where}: not a readable pickle ({reason})") from error


class _RefusedError(Exception):
    """The pickle asks for something that plain data does not need."""


class _PlainUnpickler(pickle._Unpickler):  # type: ignore[misc, name-defined, unused-ignore]
    """Knows the names that an array consists of, and no other.

    The Python implementation, because its memo is a dict: the C one allocates room for whatever
    memo index a hostile file states. On CIFAR's files it is as fast.
    """

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _RefusedError(
                f"the pickle asks for {module}.{name}; plain data and numeric arrays need no such"
            )
        # A fresh one for each: a pickle may set the state of what it is given.
        return _Inert(stand_in)

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("the pickle refers to objects outside itself")


class _Inert:
    """A name of the pickle: may be called as ``make``, has no state, is no type."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("the pickle changes what it was given to build arrays")


class _DType:
    """``numpy.dtype(code, align, copy)``; its state holds the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def build(self) -> np.dtype[Any]:
        if not re.fullmatch(r"[biuf][1248]", self.code) or self.order not in tuple("<>=|"):
            raise _RefusedError(f"an array of type {self.code!r}; numbers were expected")
        return np.dtype(self.order + self.code)


class _Array:
    """``numpy.ndarray``; its state holds version, shape, type, Fortran order and raw bytes."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self) -> np.ndarray[Any, Any]:
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _DType):
            raise _RefusedError("an array without a numeric type")
        dtype = dtype.build()  # before the content: an array of objects carries a list
        if isinstance(raw, str):  # as Python 3 spells bytes in protocol 2
            raw = raw.encode("latin1")
        if not isinstance(raw, bytes):
            raise _RefusedError("an array whose content is not bytes")
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as Python 3's protocol 2 uses it: bytes spelt as Latin-1."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError("the pickle encodes by other than Latin-1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
}


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _finish(value: Any) -> Any:
    """Put real arrays where stand-ins are: at the top, or as values of dicts."""
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, _DType | _Inert):
        raise _RefusedError("the pickle holds parts of an array in place of one")
    return value


def read_files(place: Path, folder: str, names: Sequence[str], what: str) -> dict[str, bytes]:
    """Read ``folder``'s files ``names``, from ``place``: that folder itself or a ``.tar.gz`` of it.

    Nothing is extracted to disk. A tar that holds links, devices or paths that leave it is refused.

    Args:
        place: The extracted folder, or the archive.
        folder: What the folder is called inside the archive.
        names: The files to read.
        what: The data set, for messages.

    Raises:
        ExperimentError: a file is missing, too large, or the archive is damaged.
    """
    try:
        if place.is_dir():
            found = {
                name: (place / name).read_bytes() for name in names if (place / name).is_file()
            }
        else:
            found = _read_tar(place, {f"{folder}/{name}": name for name in names})
    except _RefusedError as error:
        raise ExperimentError(f"{what}: {place}: refused: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"{place} is not a complete .tar.gz archive ({error}); remove or replace it"
        raise ExperimentError(f"{what}: {problem}") from error
    except OSError as error:
        raise ExperimentError(f"{what}: cannot read {place}: {error.strerror}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise ExperimentError(f"{what}: {place} lacks {', '.join(missing)}")
    return found


def _read_tar(path: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    found = {}
    with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts:
                raise _RefusedError(f"member {member.name!r} would leave the archive's folder")
            if not (member.isreg() or member.isdir()):
                raise _RefusedError(f"member {member.name!r} is neither a file nor a folder")
            if member.size > _MAX_MEMBER:
                raise _RefusedError(f"member {member.name!r} claims {member.size} bytes")
            name = wanted.get(str(inside))
            content = archive.extractfile(member) if name is not None else None
            if name is not None and content is not None:
                found[name] = content.read()
        while stream.read(_CHUNK):  # to the end, where gzip compares its checksum
            pass
    return found


def download(url: str, sha256: str, target: Path) -> None:
    """Fetch ``url`` to ``target``, which then exists complete and with the right checksum, or not.

    Several processes may ask at once: one fetches, the others wait and find it there.

    Raises:
        OSError: no network, no room, no permission, or another content than expected.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            return
        part = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        try:
            with (
                urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source,
                part.open("wb") as sink,
            ):
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
            if digest.hexdigest() != sha256:
                raise OSError("its checksum is not the official one")
            os.replace(part, target)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
