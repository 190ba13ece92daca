"""Files that hold a network of the user's own, ``[model] file``: read without running them.

What `build` in it is given and returns is told in `explain/models.md`; `analogtl.models.own`
calls it.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analogtl.config.python_file import embed, parsed, values_of
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import FileNetwork, file_network

KEY = "model.file"


def network_template() -> Path:
    """The file that ``analogtl init --model my_net.py`` writes."""
    return Path(__file__).parent.with_name("models") / "template.py"


def embed_networks(data: dict[str, Any], flat: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Take the text of each network file that an experiment names into ``model.files``.

    Args:
        data: The tables of the experiment.
        flat: The same by dotted keys.
        folders: Where to look, in this order.

    Raises:
        ExperimentError: If a file cannot be read, or imports one that lies beside it: that would
            be no part of the experiment.
    """
    files = [one.file for one in map(file_network, values_of(flat, KEY)) if one is not None]
    if not files:
        return
    section = data.setdefault("model", {})
    known = section.setdefault("files", {}) if isinstance(section, dict) else None
    if not isinstance(known, dict):
        return
    before = set(known)
    embed(known, iter(files), folders)
    for file in known.keys() - before:
        for name, line in imports(parsed(file, known[file])):
            for folder in ((one / file).parent for one in folders):
                places = folder / f"{name}.py", folder / name / "__init__.py"
                if not name or any(map(os.path.isfile, places)):
                    what = f"imports {name or 'relative to itself'}, a file beside it"
                    why = "a network is one file, as its text becomes part of the experiment"
                    raise ExperimentError(f"{file}:{line}: {what}; {why}")


@cache
def check_network_file(network: FileNetwork, text: str) -> None:
    """See that a file defines what the experiment names; nothing of it is run.

    Raises:
        ExperimentError: With file and line.
    """
    tree = parsed(network.file, text)
    names = {alias.asname or alias.name for node in ast.walk(tree) for alias in _aliases(node)}
    defined = [one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    if not {network.inside, "*"} & {*names, *defined}:
        hint = did_you_mean(network.inside, defined)
        raise ExperimentError(
            f"{network.file}:1: has no function {network.inside!r}" + (f"; {hint}" if hint else "")
        )


def line_of(network: FileNetwork, text: str) -> int:
    """The line on which what the experiment names is defined; 1 if it is imported."""
    for node in parsed(network.file, text).body:
        if getattr(node, "name", None) == network.inside:
            return node.lineno
    return 1


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The packages that a file imports, "" for one relative to the file, and the lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.level else node.module or ""
            yield module.partition(".")[0], node.lineno


def _aliases(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
