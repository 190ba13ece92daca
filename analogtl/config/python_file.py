"""Python files of the user's own that an experiment names: found beside it, read, and not run.

Their text becomes part of the experiment: a trial that runs later, or elsewhere, runs what was
planned.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from analogtl.errors import ExperimentError
from analogtl.files import read_text
from analogtl.vocabulary import Defined

MAX_BYTES = 200_000


def text_or_template(file: Path, template: Path, wanted: Defined) -> tuple[str, bool]:
    """The text of a file and False, or a template to begin with and True where there is none.

    Args:
        template: What defines something under the usual name, with THIS_FILE where it tells how
            an experiment names it.
        wanted: What the experiment names.

    Raises:
        ExperimentError: If the file cannot be read.
    """
    if os.path.lexists(file):
        return _code(file), False
    text = _code(template)
    for word in ("class", "def"):
        text = text.replace(f"{word} {wanted.usual}", f"{word} {wanted.inside}")
    return text.replace("THIS_FILE", f"{file}:{wanted.inside}"), True


def _code(file: Path) -> str:
    return read_text(file, MAX_BYTES, "code").replace("\r\n", "\n")


def parsed(file: str, text: str) -> ast.Module:
    """Parse a file.

    Raises:
        ExperimentError: If it is not Python, with the line.
    """
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise ExperimentError(f"{file}:{error.lineno or 1}: not Python: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{file}:1: not Python: {error}") from None


def embed(
    known: MutableMapping[str, str],
    files: Iterator[str],
    folders: Sequence[Path],
    shipped: Mapping[str, Path] | None = None,
) -> None:
    """Take the text of each file into a table, by the name that the experiment gives it.

    Args:
        known: The table; what is in it already stays.
        folders: Where to look, in this order.
        shipped: Name -> file of those to look among after that.

    Raises:
        ExperimentError: If a file cannot be read.
    """
    for file in files:
        if file in known or "\0" in file:
            continue
        places = [folder / file for folder in folders]
        places += [shipped[file]] if shipped and file in shipped else []
        if found := next((place for place in places if os.path.isfile(place)), None):
            known[file] = _code(found)


def values_of(flat: Mapping[str, Any], key: str) -> Iterator[Any]:
    """All values that tables, flattened, give to a key: its own, and those it is varied over."""
    yield flat.get(key)
    for table in ("sweep.axes", "sweep.tune.candidates"):
        levels = flat.get(f"{table}.{key}")
        yield from levels if isinstance(levels, list | tuple) else ()
