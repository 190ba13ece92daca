"""Device files: the device class of aihwkit and the parameters that somebody's devices have.

    class = "SoftBoundsReferenceDevice"

    [parameters]       # aihwkit's, by name; the class's defaults for the others
    dw_min = 0.02
    w_max = 1.0

    [fit]              # optional, shown and not used: where the parameters come from
    source = "pulses.csv"
    sha256 = "..."

They are written by hand, or by a program (`write_device`); ``[analog.device] file`` names one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from analogtl.config import catalog
from analogtl.config.parameters import Problem, device_conflicts, is_number, table_problems
from analogtl.config.source import read_toml
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.files import write_atomically
from analogtl.vocabulary import Algorithm

TABLES = ("parameters", "fit")
# Keys that name a device file -> what of a resolved experiment follows from it.
DEVICE_FILES = {
    "analog.device.file": "analog.device",
    "analog.slow_device.file": "analog.slow_array",
}
EXPECTED = 'expected aihwkit\'s name of one, e.g. class = "SoftBoundsReferenceDevice"'


@dataclass(frozen=True)
class DeviceFile:
    """What a device file says."""

    device_class: str
    """aihwkit's device class, or a preset, which brings its parameters."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameter -> value, by aihwkit's names."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Where the parameters come from: ``source`` (relative to the file), ``sha256``, ``g_min``,
    ``g_max``, ``unit``, and whatever else is worth telling."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> DeviceFile:
        """The device of a table in which `device_problems` finds nothing."""
        return cls(table["class"], *(table.get(name, {}) for name in TABLES))

    def as_table(self) -> dict[str, Any]:
        """The tables of the file, without empty ones."""
        tables = {"parameters": dict(self.parameters), "fit": dict(self.fit)}
        return {"class": self.device_class} | {name: one for name, one in tables.items() if one}


def device_problems(table: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is wrong with the content of a device file."""
    name, known = table.get("class"), [*catalog.presets(), *catalog.devices()]
    if name is None:
        yield "class", f"missing, so that this is no device file; {EXPECTED}"
        return
    if not isinstance(name, str):
        yield "class", f"{EXPECTED}; got {name!r}"
    elif name not in known:
        hint = did_you_mean(name, known) or "see `analogtl list devices`"
        yield "class", f"unknown device class {name!r}; {hint}"
    parameters = catalog.device_parameters(name) if name in known else {}
    for key, value in table.items():
        if key in TABLES and not isinstance(value, dict):
            yield key, f"expected a table, [{key}]; got {value!r}"
        elif key in parameters:
            yield key, "belongs below [parameters]"
        elif key not in ("class", *TABLES):
            yield key, f"unknown key; {did_you_mean(key, ['class', *TABLES])}"
    own, fit = (table.get(key) for key in TABLES)
    if name in known and isinstance(own, dict):
        wrong = list(table_problems("device", own, Algorithm.SGD, name))
        for key, problem in wrong or device_conflicts(name, own):
            yield f"parameters.{key}", problem
    for key, value in fit.items() if isinstance(fit, dict) else ():
        if key in ("source", "sha256", "unit") and not isinstance(value, str):
            yield f"fit.{key}", f"expected text; got {value!r}"
        elif key in ("g_min", "g_max") and not is_number(value):
            yield f"fit.{key}", f"expected a finite number; got {value!r}"
        elif not all(is_number(one) for one in _leaves(value) if isinstance(one, float)):
            yield f"fit.{key}", f"expected finite numbers; got {value!r}"


def _leaves(value: Any) -> Iterator[Any]:
    """A value, or those in a list or table, however deep."""
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


def find_device(name: str, folders: Iterable[Path]) -> DeviceFile | None:
    """The device of a file in one of the folders, or of a preset or class of that name.

    Raises:
        ExperimentError: If the file is no device file.
    """
    for place in (folder / name for folder in folders if "\0" not in name):
        if name and os.path.lexists(place):
            return read_device(place)
    return DeviceFile(name) if name in (*catalog.presets(), *catalog.devices()) else None


def read_device(file: Path) -> DeviceFile:
    """Read a device file.

    Raises:
        ExperimentError: With a line per problem: file, line, key.
    """
    if os.path.lexists(file) and not os.path.isfile(file):
        raise ExperimentError(f"{file}: expected a plain file")
    page = "see `analogtl explain devices-and-nonidealities`"
    table, lines = read_toml(file, "a device file", page)
    problems = []
    for key, problem in device_problems(table):
        line = lines.get(key, lines.get(key.partition(".")[0]))
        place = f"{file}:{line}" if line else str(file)
        problems.append(f"{place}: {key}: {problem}")
    if problems:
        raise ExperimentError(problems)
    return DeviceFile.from_table(table)


def write_device(file: Path, device: DeviceFile, comments: str = "") -> None:
    """Write a device file, whole or not at all.

    Args:
        file: Where to; what is there is replaced.

    Raises:
        ExperimentError: If `read_device` would refuse it.
        RunError: If it cannot be written.
    """
    table = device.as_table()
    if problems := [f"{file}: {key}: {problem}" for key, problem in device_problems(table)]:
        raise ExperimentError(problems)
    header = "".join(f"# {line}".rstrip() + "\n" for line in comments.splitlines())
    write_atomically(file, header + tomli_w.dumps(table))
