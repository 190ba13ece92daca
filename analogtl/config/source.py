"""Read experiment files: TOML, `extends`, tasks, and the line on which each key stands.

Nothing here knows the schema or loads it: `analogtl.config.load` judges what was read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.errors import ExperimentError, did_you_mean, printable
from analogtl.files import read_text

MAX_FILE_BYTES = 1_000_000  # an experiment is a page of text
MAX_EXTENDS = 20  # files, each of which extends the next
NOT_OF_A_TASK = ("name", "extends", "task", "tasks")  # keys that a table of [tasks] cannot set


class Source:
    """A merged experiment before validation, and where each key came from."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.origin: dict[str, str] = {}  # dotted key -> "file:line" or "--set a.b"
        self.file = ""
        self.folders: tuple[Path, ...] = ()  # of the files, where rules stand beside them

    def place(self, key: str) -> str:
        """Where a key, or the nearest table above it, was written."""
        while key:
            if key in self.origin:
                return self.origin[key]
            key = key.rpartition(".")[0]
        return self.file


@dataclass(frozen=True)
class _Layer:
    """One file of a chain of files that extend one another."""

    file: Path
    data: dict[str, Any]
    lines: dict[str, int]

    def origin(self, prefix: str = "") -> dict[str, str]:
        """Dotted key -> place of all keys below a prefix, which the keys are without."""
        return {
            key.removeprefix(prefix): f"{self.file}:{line}"
            for key, line in self.lines.items()
            if key.startswith(prefix)
        }


def read_files(path: str | Path, task: str | None = None) -> Source:
    """Read an experiment file and those that it extends, with one task of theirs.

    Each file comes over the one that it extends, and the task's keys of a file come right over the
    file's own. The name of the task is added to that of the experiment.

    Args:
        path: A TOML file, or the name of a shipped experiment, e.g. ``quickstart``.
        task: The task; None for that of the file, if it has one.

    Raises:
        ExperimentError: If a file cannot be read, or the task does not exist.
    """
    source = Source()
    layers = _layers(find_experiment(path))
    source.file = str(layers[-1].file)
    names = _task_names(layers)
    own, place = _own_task(layers)
    if task is None:
        task = own
    else:
        place = f"--task {task}"
    if task is not None and task not in names:
        hint = did_you_mean(task, names) if names else f"{source.file} has no tasks"
        raise ExperimentError(f"{place}: unknown task {task!r}; {hint}")
    for layer in layers:
        data = {key: value for key, value in layer.data.items() if key not in ("task", "tasks")}
        _merge(source.data, data)
        source.origin |= layer.origin()
        if task in layer.data.get("tasks", ()):
            _merge(source.data, layer.data["tasks"][task])
            source.origin |= layer.origin(f"tasks.{task}.")
    source.folders = tuple(layer.file.parent for layer in reversed(layers))
    if task is not None and isinstance(source.data.get("name"), str):
        source.data["name"] += f"_{task}"
    return source


def tasks_of(path: str | Path) -> tuple[str | None, list[str]]:
    """The task that an experiment file is run with when none is asked for, and all its tasks.

    Raises:
        ExperimentError: If a file cannot be read.
    """
    layers = _layers(find_experiment(path))
    return _own_task(layers)[0], _task_names(layers)


def _task_names(layers: list[_Layer]) -> list[str]:
    return list(dict.fromkeys(name for layer in layers for name in layer.data.get("tasks", ())))


def _own_task(layers: list[_Layer]) -> tuple[str | None, str]:
    """The task that the files choose, and the place where they do."""
    for layer in reversed(layers):
        if "task" in layer.data:
            return layer.data["task"], f"{layer.file}:{layer.lines.get('task', 1)}: task"
    return None, ""


def find_experiment(path: str | Path) -> Path:
    """The file that a path or the name of a shipped experiment stands for.

    Raises:
        ExperimentError: If there is none.
    """
    file = Path(path)
    if not str(path):
        raise ExperimentError("expected an experiment file; got an empty name")
    if os.path.isfile(file):  # unlike Path.is_file, False for what no file can be called
        return file
    name = file.as_posix().removesuffix(".toml").removeprefix("experiments/")
    if name in shipped_experiments():  # also where a folder has that name, as a run's may
        return shipped_folder() / f"{name}.toml"
    if os.path.isdir(file):
        raise ExperimentError(f"{path}: expected an experiment file, found a folder")
    if os.path.exists(file):  # a pipe: it is read more than once, and might never end
        raise ExperimentError(f"{path}: expected a plain file; save what it holds as one")
    hint = did_you_mean(name, shipped_experiments())
    hint = hint if hint.startswith("did") else "`analogtl list experiments` shows the shipped ones"
    raise ExperimentError(f"{path}: no such file, and no shipped experiment of that name; {hint}")


def _layers(file: Path, above: tuple[Path, ...] = ()) -> list[_Layer]:
    """A file and those that it extends, the lowest first."""
    here = file.resolve()
    if len(above) >= MAX_EXTENDS:
        raise ExperimentError(f"{file}: more than {MAX_EXTENDS} files extend one another")
    if here in above:
        names = " -> ".join(p.name for p in (*above, here))
        raise ExperimentError(f"{file}: extends: the files extend one another in a circle: {names}")
    data, lines = read_toml(file)
    base = data.pop("extends", None)
    _check_tasks(data, lines, file)
    for table in (data, *data.get("tasks", {}).values()):
        resolve_data_root(table, file.parent)
    layer = _Layer(file, data, lines)
    if base is None:
        return [layer]
    if not isinstance(base, str) or not base:
        raise ExperimentError(f"{file}: extends: expected a file name; got {base!r}")
    beside = file.parent / base
    try:
        below = beside if os.path.isfile(beside) else find_experiment(base)
        return [*_layers(below, (*above, here)), layer]
    except ExperimentError as error:
        if above or not error.problems[0].startswith(f"{printable(base)}:"):
            raise
        raise ExperimentError(f"{file}: extends: {error.problems[0]}") from None


def _check_tasks(data: Mapping[str, Any], lines: Mapping[str, int], file: Path) -> None:
    problems = []
    task, tasks = data.get("task", ""), data.get("tasks", {})
    if not isinstance(task, str):
        problems.append(("task", f"expected the name of a task; got {task!r}"))
    if not isinstance(tasks, dict):
        problems.append(("tasks", f"expected a section; got {tasks!r}"))
        tasks = {}
    for name, changes in tasks.items():
        key = f"tasks.{name}"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name):
            problems.append((key, "expected letters, digits, '.', '_' or '-' (at most 40)"))
        elif not isinstance(changes, dict):
            problems.append((key, f"expected a section; got {changes!r}"))
        else:
            for wrong in set(NOT_OF_A_TASK) & set(changes):
                problems.append((f"{key}.{wrong}", "belongs to the file, not to a task"))
    if problems:
        raise ExperimentError([f"{file}:{lines.get(k, 1)}: {k}: {what}" for k, what in problems])


def read_toml(
    file: Path, kind: str = "an experiment file", hint: str = "`analogtl init` writes one"
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a TOML file: its tables, and dotted key -> line.

    Args:
        kind: What it should be, for messages.
        hint: Where one comes from.

    Raises:
        ExperimentError: If it cannot be read, is too large or empty, or no TOML.
    """
    text = read_text(file, MAX_FILE_BYTES, kind)
    if not text.strip():
        raise ExperimentError(f"{file}: empty; {hint} to start from")
    return _parse(text, file), key_lines(text)


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        match = re.search(r"^(.*) \(at line (\d+), column \d+\)$", str(error))
        if match:
            raise ExperimentError(f"{file}:{match[2]}: not valid TOML: {match[1]}") from None
        raise ExperimentError(f"{file}: not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ExperimentError(f"{file}: not valid TOML: {reason}") from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict):
            inner = below.get(key)
            if not isinstance(inner, dict):
                inner = below[key] = {}
            _merge(inner, value)
        else:
            below[key] = value


def resolve_data_root(data: Mapping[str, Any], folder: Path) -> None:
    """Make a relative data folder absolute: beside the file that names it, wherever a command runs.

    Args:
        folder: The folder of the file; the current one for a command line.
    """
    section = data.get("data")
    root = section.get("root") if isinstance(section, dict) else None
    if isinstance(root, str) and "\0" not in root and not os.path.isabs(os.path.expanduser(root)):
        data["data"]["root"] = str((folder / root).resolve())


_NAME = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"^\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*=")


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> line, as far as a line-by-line reading tells."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):  # TOML knows no other end of a line
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _plain(header[1])
            lines.setdefault(table, number)
        elif key:
            lines.setdefault(f"{table}.{_plain(key[1])}" if table else _plain(key[1]), number)
    return lines


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
