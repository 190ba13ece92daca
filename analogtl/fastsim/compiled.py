"""Compile with numba, keep the result, and know whether compiling is still to be done."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.registry import cpu_target

# numba keeps compiled code until the function's own file changes. The functions here call each
# other across files, so that the text of all of them is what compiled code depends on.
_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()
_kept: list[Any] = []


def compiled(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at its first call and keep the machine code for later processes.

    The code is kept beside the source or, where that cannot be written to, in the user's cache
    folder; where there is no such folder either, every process compiles for itself.
    """
    try:
        dispatcher: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)
    file = getattr(dispatcher._cache, "_cache_file", None)
    if file is not None:
        file._source_stamp = _SOURCES
        _kept.append(dispatcher)
    return dispatcher


def compilation_needed() -> bool:
    """Whether the first use of the fast engine will compile, which takes some ten seconds, once."""
    import analogtl.fastsim.tile  # noqa: F401  (all functions are known then)

    magic = cpu_target.target_context.codegen().magic_tuple()
    for dispatcher in _kept:
        if dispatcher.py_func.__name__ not in ("update", "finish", "draw_device"):
            continue
        if dispatcher.signatures:
            continue
        try:
            known = dispatcher._cache._cache_file._load_index()
        except (AttributeError, EOFError, ImportError, OSError, pickle.UnpicklingError):
            return True
        if not any(key[1] == magic for key in known):
            return True
    return False
