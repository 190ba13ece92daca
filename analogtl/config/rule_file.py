"""Files that hold training algorithms: read without running them.

What an experiment needs to know of a rule is written out in its class, and read off the text here;
`analogtl.fastsim.rules` runs it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from analogtl.config.python_file import embed, parsed, values_of
from analogtl.errors import ExperimentError
from analogtl.vocabulary import FileAlgorithm, file_algorithm


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


def rule_template() -> Path:
    """The file that ``analogtl init --algorithm my_rule.py`` writes."""
    return shipped_rules()[0].with_name("template.py")


def embed_rules(data: dict[str, Any], flat: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Take the text of each rule file that an experiment names into ``analog.rules``.

    Args:
        data: The tables of the experiment.
        flat: The same by dotted keys.
        folders: Where to look, in this order; then among the shipped ones.

    Raises:
        ExperimentError: If a file cannot be read.
    """
    analog = data.get("analog")
    own = analog.get("algorithms") if isinstance(analog, Mapping) else None
    names = [*values_of(flat, "analog.algorithm"), *(own if isinstance(own, Mapping) else ())]
    files = [one.file for one in map(file_algorithm, names) if one is not None]
    section = data.setdefault("analog", {}) if files else None
    known = section.setdefault("rules", {}) if isinstance(section, dict) else None
    if isinstance(known, dict):
        embed(known, iter(files), folders, {path.name: path for path in shipped_rules()})


@cache
def rule_facts(algorithm: FileAlgorithm, text: str) -> RuleFacts:
    """Read off a rule file what its class says of itself; nothing of it is run.

    Raises:
        ExperimentError: With file and line.
    """
    tree = parsed(algorithm.file, text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if algorithm.inside not in classes:
        there = f"; there is {', '.join(classes)}" if classes else ""
        raise ExperimentError(f"{algorithm.file}:1: has no class {algorithm.inside!r}{there}")
    found: dict[str, Any] = {"parameters": {}, "counterpart": "", "arrays": ("A", "C")}
    for node in classes[algorithm.inside].body:
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
