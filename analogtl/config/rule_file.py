"""Files that hold training algorithms: found beside the experiment, read without running them.

What an experiment needs to know of a rule is written out in its class, and read off the text here;
`analogtl.fastsim.rules` runs it. The text itself becomes part of the experiment (`[analog] rules`):
a trial that runs later, or elsewhere, runs what was planned.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from analogtl.errors import ExperimentError
from analogtl.vocabulary import FileAlgorithm, file_algorithm

MAX_BYTES = 200_000


@dataclass(frozen=True)
class RuleFacts:
    """What the class of a rule says of itself."""

    parameters: Mapping[str, float | bool]  # its own, and those that every rule has
    counterpart: str  # aihwkit's compound that it is the same as; "" for none
    n_arrays: int


def shipped_rules() -> list[Path]:
    """The rule files that come with analogtl."""
    folder = Path(str(resources.files("analogtl"))) / "fastsim" / "rules" / "shipped"
    return sorted(file for file in folder.glob("*.py") if file.stem != "template")


def rule_text(file: Path, algorithm: FileAlgorithm) -> tuple[str, bool]:
    """The text of a rule file and False, or one to begin with and True where there is none.

    Raises:
        ExperimentError: If the file cannot be read.
    """
    if os.path.lexists(file):
        return _text(file), False
    text = _text(shipped_rules()[0].with_name("template.py"))
    text = text.replace("class Rule:", f"class {algorithm.class_name}:")
    return text.replace("THIS_FILE", f"{file}:{algorithm.class_name}"), True


def embed_rules(data: dict[str, Any], folders: Sequence[Path]) -> None:
    """Take the text of each rule file that an experiment names into ``analog.rules``.

    Args:
        data: The tables of the experiment.
        folders: Where to look, in this order; then among the shipped ones.

    Raises:
        ExperimentError: If a file cannot be read.
    """
    for algorithm in _named(data):
        section = data.setdefault("analog", {})
        known = section.setdefault("rules", {}) if isinstance(section, dict) else None
        if not isinstance(known, dict) or algorithm.file in known or "\0" in algorithm.file:
            continue
        shipped = {path.name: path for path in shipped_rules()}
        places = [folder / algorithm.file for folder in folders]
        places += [shipped[algorithm.file]] if algorithm.file in shipped else []
        if found := next((place for place in places if os.path.isfile(place)), None):
            known[algorithm.file] = _text(found)


def _named(data: Mapping[str, Any]) -> Iterator[FileAlgorithm]:
    """The algorithms in files that an experiment names, wherever it can."""
    analog, sweep = data.get("analog"), data.get("sweep")
    names: list[Any] = []
    if isinstance(analog, Mapping):
        own = analog.get("algorithms")
        names += [analog.get("algorithm"), *(own if isinstance(own, Mapping) else ())]
    axes = sweep.get("axes") if isinstance(sweep, Mapping) else None
    if isinstance(axes, Mapping):
        nested = axes.get("analog")
        both = axes.get("analog.algorithm"), nested if isinstance(nested, Mapping) else {}
        for levels in (both[0], both[1].get("algorithm") if both[1] else None):
            names += levels if isinstance(levels, list | tuple) else ()
    yield from filter(None, map(file_algorithm, names))


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ExperimentError(f"{file}: more than {MAX_BYTES:,} bytes are no rule")
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExperimentError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ExperimentError(f"{file}: not UTF-8 text; save the file as UTF-8") from None


@cache
def rule_facts(algorithm: FileAlgorithm, text: str) -> RuleFacts:
    """Read off a rule file what its class says of itself; nothing of it is run.

    Raises:
        ExperimentError: With file and line.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        place = f"{algorithm.file}:{error.lineno or 1}"
        raise ExperimentError(f"{place}: not Python: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{algorithm.file}:1: not Python: {error}") from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if algorithm.class_name not in classes:
        there = f"; there is {', '.join(classes)}" if classes else ""
        raise ExperimentError(f"{algorithm.file}:1: has no class {algorithm.class_name!r}{there}")
    found: dict[str, Any] = {"parameters": {}, "counterpart": "", "arrays": ("A", "C")}
    for node in classes[algorithm.class_name].body:
        name = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(name, ast.Name) and name.id in found:
            kind = type(found[name.id])
            try:
                value = ast.literal_eval(node.value)
                if not isinstance(value, kind | str if name.id == "arrays" else kind):
                    raise ValueError
            except ValueError:
                what = f"{name.id}: expected a {kind.__name__}, written out"
                raise ExperimentError(f"{algorithm.file}:{node.lineno}: {what}") from None
            found[name.id] = value
    driven = resources.files("analogtl").joinpath("fastsim/rules/driven.json")
    parameters = {**json.loads(driven.read_text(encoding="utf-8")), **found["parameters"]}
    arrays = found["arrays"]
    count = int(parameters.get("n_arrays", 2)) if isinstance(arrays, str) else len(arrays)
    return RuleFacts(parameters, found["counterpart"], count)
