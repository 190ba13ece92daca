"""Compile with numba and keep the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

# numba keeps compiled code until the function's own file changes. The functions here call each
# other across files, so that the text of all of them is what compiled code depends on.
_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


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
    return dispatcher
