"""Wrong cells and fields: every kind of change to the CSV and JSON files of a run directory."""

from __future__ import annotations

import copy
import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = ("trials.csv", "epochs.csv", "layers.csv")
CELLS = ("text", "12,5", "inf", "-inf", "nan", "", "1e300", "-3", '"', "2.5", "\x1b[31m", "true")
FIELDS: tuple[Any, ...] = (
    None, "text", "", -1, 1e300, float("nan"), True, 0.5, [], {}, [[{}]], {"a": [None]}, "\x1b[2J",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One change to a file of a run directory.

    Attributes:
        file: Which one.
        place: The column, or the dotted key.
        what: What was done to it.
        content: The file's new content.
        line: Line of the wrong cell; 0 where it is not one cell.
    """

    file: str
    place: str
    what: str
    content: str
    line: int = 0

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.file} {self.place} {self.what}"


def changes(run: Path, seed: int = 0) -> Iterator[Change]:
    """Every change, each at a random row."""
    rng = random.Random(seed)
    for name in TABLES:
        yield from _cells(name, (run / name).read_text(encoding="utf-8"), rng)
    for file in sorted(run.rglob("*.json")):
        name = file.relative_to(run).as_posix()
        yield from _fields(name, json.loads(file.read_text(encoding="utf-8")))


def _cells(name: str, text: str, rng: random.Random) -> Iterator[Change]:
    header, *rows = list(csv.reader(text.splitlines()))

    def table(place: int, change: Callable[[int, str], str]) -> str:
        lines = [header]
        lines += [
            [*row[:place], change(number, row[place]), *row[place + 1 :]]
            for number, row in enumerate(rows)
        ]
        # A lone quote must stay one: nothing but commas is quoted.
        quoted = [[f'"{c}"' if "," in c and c[:1] != '"' else c for c in line] for line in lines]
        return "\n".join(map(",".join, quoted)) + "\n"

    for place, column in enumerate(header):
        for cell in CELLS:
            at = rng.randrange(len(rows))
            one = table(place, lambda number, old, at=at, new=cell: new if number == at else old)
            yield Change(name, column, repr(cell), one, at + 2)
            if cell in ("", "text"):
                whole = table(place, lambda _number, _old, new=cell: new)
                yield Change(name, column, f"all {cell!r}", whole)
        kept = [[c for n, c in enumerate(row) if n != place] for row in (header, *rows)]
        gone = "\n".join(",".join(f'"{c}"' for c in row) for row in kept) + "\n"
        yield Change(name, column, "gone", gone)


def _fields(name: str, content: Any) -> Iterator[Change]:
    for path in _paths(content):
        for value in FIELDS:
            changed = copy.deepcopy(content)
            inner = changed
            for part in path[:-1]:
                inner = inner[part]
            if path:
                inner[path[-1]] = value
            else:
                changed = value
            place = ".".join(map(str, path))
            yield Change(name, place, repr(value), json.dumps(changed, indent=1))


def _paths(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    pairs: Any = ()
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list):
        pairs = list(enumerate(content))[:2]
    for key, value in pairs:
        yield from _paths(value, (*above, key))
