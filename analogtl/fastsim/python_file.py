"""Run Python files of the user's own, given as text, and tell where in them an error is."""

from __future__ import annotations

import ast
import hashlib
import linecache
import re
import sys
import traceback
from types import ModuleType
from typing import Any

_FILE = "__file_of_the_user__"  # a name in the module, by which its frames are known


class PythonFileError(ValueError):
    """A file of the user's own is wrong; the message names file and line."""


def parse_text(file: str, text: str) -> ast.Module:
    """Parse a file.

    Raises:
        PythonFileError: If it is not Python.
    """
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise PythonFileError(f"{file}:{error.lineno or 1}: not Python: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise PythonFileError(f"{file}:1: not Python: {error}") from None


def run_text(file: str, text: str) -> dict[str, Any]:
    """Run a file as a module of its own; return what it defines.

    The text is what counts, whatever lies under the file's name by now; tracebacks show its lines.

    Raises:
        PythonFileError: If it is not Python, fails, or ends the program.
    """
    tree = parse_text(file, text)
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    digest = hashlib.sha256(f"{file}\n{text}".encode()).hexdigest()[:12]
    module = ModuleType(f"{re.sub(r'[^A-Za-z0-9]', '_', file)}_{digest}")
    scope: dict[str, Any] = vars(module)
    scope[_FILE] = file
    sys.modules[module.__name__] = module  # where dataclasses look their annotations up
    try:
        exec(compile(tree, file, "exec", dont_inherit=True), scope)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise PythonFileError(told(error, file)) from None
    return scope


def place_of(error: BaseException) -> str | None:
    """File and line of the user's own code in which an error came up; None if in none."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _FILE in frame.f_globals:
            place = f"{frame.f_globals[_FILE]}:{line}"
    return place


def told(error: BaseException, file: str, what: str = "", line: int = 1) -> str:
    """Tell in a line of an error of the user's own code.

    Args:
        file: The file, for an error that has no line in it.
        what: What was called, for the message.
        line: The line then.
    """
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        line = error.lineno
    place = place_of(error) or f"{file}:{line}"
    return f"{place}: {what}{type(error).__name__}: {' '.join(str(error).split())[:200]}"
