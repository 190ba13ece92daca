"""What a rule is: a class of scalar functions that says how the arrays of a cell drive each other.

`explain/rules.md` is the contract in words. A rule is one Python file, the user's own code: it runs
as such, and only where a configuration names it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
import re
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.errors import NumbaError

from analogtl.fastsim.python_file import PythonFileError, parse_text, run_text, told

# What a function of a rule knows beside the rule's own parameters: ``p.lr``, ...
FACTS: dict[str, str] = {
    "lr": "the learning rate of the update",
    "count_lr": "the learning rate that counted the pulses onto the first array before the read",
    "in_size": "the number of columns of the tile",
    "fast_granularity": "the mean step of the first array's device at a weight of 0",
    "slow_granularity": "that of the others",
    "desired_bl": "the most pulses of a transfer: transfer_update.desired_bl",
}
LR, COUNT_LR = 0, 1  # places of those that change from read to read
# Parameters that the driver obeys, whether the rule has them or not, with aihwkit's meanings.
DRIVEN: dict[str, float | bool] = json.loads(
    Path(__file__).with_name("driven.json").read_text(encoding="utf-8")
)
# The functions of a rule, and their arguments; all but the first may be left out.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "read": ("array", "y", "cell", "column", "p"),
    "after_read": ("array", "column", "u", "p"),
    "direction": ("column", "p"),
    "onto": ("array", "column", "p"),
    "sees": ("weights", "cell", "column", "p"),
    "every": ("array", "p"),
}
ATTRIBUTES = ("arrays", "cell", "column", "parameters", "counterpart", "label")
ALLOWED = ("math", "numpy", "numba", "analogtl.fastsim.rules")
MAX_ARRAYS = 16
RuleError = PythonFileError  # a rule file is wrong; the message names file and line


@dataclass(frozen=True)
class RuleText:
    """A rule file as text, and the class in it.

    ``file``: its name, for messages; ``name``: the class.
    """

    file: str
    name: str
    text: str

    @classmethod
    def read(cls, place: str) -> RuleText:
        """Read ``my_rule.py:Rule``; one of the shipped files where there is no such file.

        Raises:
            RuleError: If it cannot be read.
        """
        file, _, name = place.rpartition(":")
        path = Path(file) if Path(file).is_file() else Path(__file__).parent / "shipped" / file
        try:
            return cls(file, name, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise RuleError(f"{file}: cannot be read: {error}") from None


def _same_column(array: Any, column: Any, u: Any, p: Any) -> Any:
    return column


def _as_it_is(column: Any, p: Any) -> Any:
    return 1


def _next_array(array: Any, column: Any, p: Any) -> Any:
    return array + 1


def _last_array(weights: Any, cell: Any, column: Any, p: Any) -> Any:
    return weights[len(weights) - 1]


def _as_aihwkit(array: Any, p: Any) -> Any:
    return p.transfer_every * p.in_size**array


DEFAULTS: dict[str, Callable[..., Any]] = {
    "after_read": _same_column,
    "direction": _as_it_is,
    "onto": _next_array,
    "sees": _last_array,
    "every": _as_aihwkit,
}


class Rule:
    """A rule that was read and looks right; made by `load_rule`."""

    def __init__(self, text: RuleText) -> None:
        self.text = text
        self.digest = hashlib.sha256(f"{text.name}\n{text.text}".encode()).hexdigest()[:12]
        self._lines = _Lines(text)
        found = _run(text)
        self._check_names(found)
        self.arrays: tuple[str, ...] | str = getattr(found, "arrays", ("A", "C"))
        fields: dict[str, Any] = {"cell": (), "column": (), "parameters": {}}
        own = {name: getattr(found, name, default) for name, default in fields.items()}
        self._check_fields(own)
        self.parameters: dict[str, float | bool] = {**DRIVEN, **own["parameters"]}
        self.counterpart: str = getattr(found, "counterpart", "")
        self.cell: tuple[str, ...] = tuple(own["cell"])
        self.cell_kind = _kind("Cell", self.cell)
        self.column_kind = _kind("Column", own["column"])
        self.p_kind = _kind("P", (*FACTS, *self.parameters))
        self.functions = {
            name: inspect.getattr_static(found, name, default)
            for name, default in {"read": None, **DEFAULTS}.items()
        }
        for name, function in self.functions.items():
            self.functions[name] = getattr(function, "__func__", function)
        self.shows_first = "sees" in vars(found)  # whether a pass may see more than the last array
        self._check_functions()

    def array_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name the arrays, in the order in which they are read."""
        if not isinstance(self.arrays, str):
            return self.arrays
        count = int(values.get("n_arrays", self.parameters["n_arrays"]))
        return tuple(f"{self.arrays}{n}" for n in reversed(range(count)))

    def numbers(self, values: Mapping[str, Any], **facts: float) -> Any:
        """Collect the parameters and facts, in the order of ``p``: float32."""
        given = {**dict.fromkeys(FACTS, 0.0), **facts, **self.parameters, **values}
        return np.array([float(given[name]) for name in self.p_kind._fields], np.float32)

    def compiled(self) -> dict[str, Any]:
        """Make compiled functions; they are compiled where they are first called from."""
        made = {}
        for name, function in self.functions.items():
            if name != "every":
                copy = FunctionType(function.__code__, function.__globals__, name)
                named_apart(copy, self.digest, __name__)
                made[name] = njit(nogil=True, error_model="numpy", boundscheck=True)(copy)
        return made

    def periods(self, p: Any, arrays: int) -> list[float]:
        """Ask the rule how many vectors lie between two reads of each array but the last.

        Raises:
            RuleError: If it does not say.
        """
        return [float(self._call("every", array, p)) for array in range(arrays - 1)]

    # -- what can be wrong -----------------------------------------------------------------------

    def error(self, what: str, name: str = "") -> RuleError:
        """Make the error of an attribute of the rule, with its line."""
        return RuleError(f"{self.text.file}:{self._lines.of(name)}: {what}")

    def _check_names(self, found: type) -> None:
        known = (*ATTRIBUTES, *FUNCTIONS)
        for name in vars(found):
            if not name.startswith("_") and name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise self.error(f"a rule has no {name!r}; {hint}", name)
        if not hasattr(found, "read"):
            raise self.error(f"{self.text.name} has no function read(array, y, cell, column, p)")

    def _check_fields(self, own: Mapping[str, Any]) -> None:
        for name in ("cell", "column"):
            if not _are_names(own[name]):
                raise self.error(f"{name}: expected a tuple of names; got {own[name]!r}", name)
        parameters = own["parameters"]
        numbers = isinstance(parameters, dict) and all(
            isinstance(value, int | float) and math.isfinite(value) for value in parameters.values()
        )
        if not numbers or not _are_names(tuple(parameters)) or set(parameters) & set(FACTS):
            what = f"parameters: expected names with numbers, none of {', '.join(FACTS)}"
            raise self.error(what, "parameters")
        if isinstance(self.arrays, str):
            if not 2 <= parameters.get("n_arrays", 0) <= MAX_ARRAYS:
                what = "a name alone needs a parameter n_arrays (2 or more)"
                raise self.error(f"arrays: {what}", "arrays")
        elif not _are_names(self.arrays) or not 2 <= len(self.arrays) <= MAX_ARRAYS:
            raise self.error(
                f"arrays: expected 2 to {MAX_ARRAYS} names; got {self.arrays!r}", "arrays"
            )

    def _check_functions(self) -> None:
        for name, function in self.functions.items():
            wanted = FUNCTIONS[name]
            if not inspect.isfunction(function):
                raise self.error(f"{name}: expected a function", name)
            if len(inspect.signature(function).parameters) != len(wanted):
                raise self.error(f"expected {name}({', '.join(wanted)})", name)
        p = self.p_kind._make(
            self.numbers(
                {}, lr=0.01, count_lr=0.1, in_size=4.0, fast_granularity=0.01, slow_granularity=0.01
            )
        )
        names = self.array_names({})
        cell, column = (
            kind._make([np.float32(0.0)] * len(kind._fields))
            for kind in (self.cell_kind, self.column_kind)
        )
        weights = (np.float32(0.5),) * len(names)
        for array in range(len(names) - 1):
            for y in (0.0, 0.3, -0.3):
                given = self._call("read", array, np.float32(y), cell, column, p)
                if not (isinstance(given, tuple) and len(given) == 2):
                    raise self.error("read: expected two values, the cell and the pulses", "read")
                self._check_values("read", given[0], self.cell_kind)
                self._check_values("read", (given[1],))
            after = self._call("after_read", array, column, np.float32(0.5), p)
            self._check_values("after_read", after, self.column_kind)
            to = self._call("onto", array, column, p)
            if not array < to < len(names):
                raise self.error(f"onto: expected an array after {array}; got {to}", "onto")
        for value in self.periods(p, len(names)):
            self._check_values("every", (value,))
        self._check_values("direction", (self._call("direction", column, p),))
        self._check_values("sees", (self._call("sees", weights, cell, column, p),))

    def _check_values(self, name: str, values: Any, kind: Any = None) -> None:
        fields = kind._fields if kind else ("number",)
        if not isinstance(values, tuple) or len(values) != len(fields):
            raise self.error(
                f"{name}: expected {len(fields)} values ({', '.join(fields)}); got {values!r}", name
            )
        for value in values:
            try:
                wrong = math.isnan(value)
            except TypeError:
                raise self.error(f"{name}: expected numbers; got {values!r}", name) from None
            if wrong:
                raise self.error(f"{name} returns NaN", name)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the rule in Python."""
        with np.errstate(all="ignore"):
            try:
                return self.functions[name](*arguments)
            except Exception as error:
                raise RuleError(told(error, self.text.file, f"{name}: ")) from None

    def compile_each(self, arrays: int) -> None:
        """Compile every function by itself, to say which one does not compile, and where.

        Raises:
            RuleError: If one does not.
        """
        number, array = types.float32, types.int64
        cell, column, p = (
            types.NamedUniTuple(number, len(kind._fields), kind)
            for kind in (self.cell_kind, self.column_kind, self.p_kind)
        )
        kinds = {
            "array": array, "y": number, "cell": cell, "column": column, "u": number, "p": p,
            "weights": types.UniTuple(number, arrays),
        }  # fmt: skip
        for name, dispatcher in self.compiled().items():
            try:
                dispatcher.compile(tuple(kinds[argument] for argument in FUNCTIONS[name]))
            except NumbaError as error:
                raise RuleError(self._not_compiled(name, str(error))) from None

    def _not_compiled(self, name: str, message: str) -> str:
        places = re.findall(rf'File "{re.escape(self.text.file)}", line (\d+)', message)
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        told = [
            one for one in lines if not one.startswith(("Failed in", "File", "During", "-", "^"))
        ]
        line = places[-1] if places else self._lines.of(name)
        return f"{self.text.file}:{line}: {name} does not compile: {(told or lines)[0][:200]}"


def named_apart(function: FunctionType, digest: str, module: str) -> None:
    """Name a function after its rule: numba links by name, and keeps code in files of that name."""
    function.__qualname__ = f"{function.__name__}_{digest}"
    function.__module__ = module


def _kind(name: str, fields: tuple[str, ...]) -> Any:
    """Make the class of named numbers; one of no use where there is none, as tuples have some."""
    return namedtuple(name, tuple(fields) or ("unused",))


def _are_names(names: Any) -> bool:
    return (
        isinstance(names, tuple)
        and all(
            isinstance(one, str) and one.isidentifier() and not one.startswith("_") for one in names
        )
        and len(set(names)) == len(names)
    )


class _Lines:
    """Lines of a class and its attributes."""

    def __init__(self, text: RuleText) -> None:
        self._tree = parse_text(text.file, text.text)
        self._name = text.name

    def of(self, name: str) -> int:
        for node in self._tree.body:
            if isinstance(node, ast.ClassDef) and node.name == self._name:
                for part in node.body:
                    targets = getattr(part, "targets", [getattr(part, "target", None)])
                    names = [
                        getattr(part, "name", None),
                        *(getattr(t, "id", None) for t in targets),
                    ]
                    if name and name in names:
                        return part.lineno
                return node.lineno
        return 1


def _run(text: RuleText) -> type:
    """Run a rule file; return the class."""
    for node in ast.walk(parse_text(text.file, text.text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        for name in names:
            if name != "__future__" and not any(f"{name}.".startswith(f"{a}.") for a in ALLOWED):
                what = f"imports {name}; a rule is one file, and may import {', '.join(ALLOWED)}"
                raise RuleError(f"{text.file}:{getattr(node, 'lineno', 1)}: {what}")
    scope = run_text(text.file, text.text)
    found = scope.get(text.name)
    if not isinstance(found, type):
        classes = [name for name, value in scope.items() if isinstance(value, type)]
        hint = f"; there is {', '.join(classes)}" if classes else ""
        raise RuleError(f"{text.file}:1: has no class {text.name!r}{hint}")
    return found


@cache
def load_rule(text: RuleText) -> Rule:
    """Read a rule, and see that its functions take and return what they are to.

    Raises:
        RuleError: With file and line.
    """
    return Rule(text)
