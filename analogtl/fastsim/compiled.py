"""Compile with numba and keep the machine code, believing none that is not as it was written.

numba itself loads whatever its cache holds: a torn file fails every later call, and a flipped bit
is run as machine code. Here each file ends with the SHA-256 of what stands before it; one that does
not match is compiled anew, which is told once.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from numba import njit, typeof
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache

_LOG = logging.getLogger(__name__)
_CHECKSUM = hashlib.sha256().digest_size  # bytes
_PACKAGE, _FOLDER = f"{__package__}.", Path(__file__).parent


def compiled(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at its first call and keep the machine code for later processes.

    The code is kept in ``NUMBA_CACHE_DIR``, beside the source or, where that cannot be written to,
    in the user's cache folder; where there is no such folder either, every process compiles for
    itself.
    """
    return _kept(function)


def _kept(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher: Any = njit(nogil=True, error_model="numpy", **options)(function)
    try:
        dispatcher._cache = _Cache(function)
    except (RuntimeError, OSError):  # no folder that can be written
        dispatcher._cache = _NoCache()
    return dispatcher


def inner(function: Callable[..., Any]) -> Any:
    """Compile ``function`` as `compiled` does, for compiled functions only.

    Without ways in from Python and from C a first use compiles 1 s less.
    """
    return _kept(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry_of(function: Any, *arguments: Any) -> Callable[..., Any]:
    """Find the machine code of a compiled function for arguments of these types.

    It can be called without numba's search for it, which takes 2 us for the arrays of a tile. The
    arguments of each call are to be of the same types, arrays as contiguous as these.
    """
    entry: Callable[..., Any] = function.compile(tuple(typeof(given) for given in arguments))
    return entry


@cache
def _imported(path: Path) -> tuple[bytes, set[Path]]:
    """Hash a source file, and find the files of this package that it imports from."""
    text = path.read_bytes()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {
        _FOLDER / f"{name.removeprefix(_PACKAGE).replace('.', '/')}.py"
        for name in names
        if name.startswith(_PACKAGE)
    }
    return hashlib.sha256(text).digest(), {file for file in files if file.is_file()}


@cache
def _sources(path: Path) -> str:
    """Hash the text that the machine code of a file's functions depends on.

    numba keeps compiled code until the function's own file changes. The functions here call each
    other across files: the text of all that the file imports, directly or not, counts.
    """
    found, todo = {}, [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found[file], more = _imported(file)
            todo += more
    return hashlib.sha256(b"".join(found[file] for file in sorted(found))).hexdigest()


@cache
def _tell(text: str) -> None:
    """Say something once in a process, however many functions it holds for."""
    _LOG.warning("%s", text)


class _CheckedFiles(IndexDataCacheFile):
    """The index and the data files of a function's machine code, each with a checksum at its end.

    numba unpickles a file from its start and ignores what follows.
    """

    def __init__(self, path: str, base: str, stamp: str) -> None:
        super().__init__(path, base, stamp)
        # The version is read before the rest, which may speak of what other sources no longer have.
        self._version += f" {stamp}"

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        # A file can have been replaced, by another process, since its index was read.
        written_for, data = super().load(key) or (None, None)
        return data if written_for == key else None

    def _load_index(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            _check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[IO[bytes]]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue())
            file.write(hashlib.sha256(content.getvalue()).digest())


def _check(path: str) -> None:
    """Compare a file with its checksum."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content[:-_CHECKSUM]).digest() != content[-_CHECKSUM:]:
        raise ValueError(f"{path}: checksum does not match")


class _Cache(FunctionCache):
    """The kept machine code of one function; damaged, it is as if there were none."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # Under a name of its own: numba's files of the same function have no checksums.
        self._cache_file = _CheckedFiles(
            self.cache_path,
            f"checked-{self._impl.filename_base}",
            _sources(Path(function.__code__.co_filename)),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # what unpickling garbage can raise has no end
            # Whole, but of classes that are no more: an earlier version wrote it.
            if isinstance(error, ValueError | OSError):
                _tell(
                    f"{self.cache_path}: kept machine code is damaged ({type(error).__name__}); "
                    "compiling it anew"
                )
            with contextlib.suppress(OSError):
                os.unlink(self._cache_file._index_path)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, a folder in the place of a file, ...
            _tell(_not_kept(f"{self.cache_path}: {getattr(error, 'strerror', None) or error}"))


class _NoCache(NullCache):
    """In place of a cache where no folder can be written."""

    def save_overload(self, sig: Any, data: Any) -> None:
        _tell(_not_kept("no folder for it can be written"))


def _not_kept(why: str) -> str:
    return (
        f"machine code of the fast engine cannot be kept ({why}): every process compiles it again, "
        "about 8 s; NUMBA_CACHE_DIR names a folder for it"
    )
