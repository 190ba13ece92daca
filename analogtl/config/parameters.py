"""aihwkit's parameters in an experiment: the defaults of each algorithm, and checks of values.

Source of the defaults: aihwkit's `build_config`; what the desk measurements train with beside them.
A key in the file takes the place of its default here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from analogtl.config import catalog
from analogtl.config.rule_file import RuleFacts
from analogtl.errors import did_you_mean
from analogtl.vocabulary import Algorithm

Problem = tuple[str, str]  # dotted key below the section, and what is wrong

# Where the catalog has the parameters of a table of [analog], and the aihwkit class they belong to.
PARAMETERS_OF = {
    "forward": ("io", "IOParameters"),
    "backward": ("io", "IOParameters"),
    "update": ("update", "UpdateParameters"),
    "transfer_forward": ("io", "IOParameters"),
    "transfer_update": ("update", "UpdateParameters"),
    "mapping": ("mapping", "MappingParameter"),
}
Table = Literal[
    "device",
    "slow_device",
    "compound",
    "forward",
    "backward",
    "update",
    "transfer_forward",
    "transfer_update",
    "mapping",
]
SECTIONS: tuple[Table, ...] = get_args(Table)[2:]  # those that are aihwkit's beside the devices
_WHOLE = (
    "desired_bl",
    "n_reads_per_transfer",
    "max_bm_factor",
    "max_input_size",
    "max_output_size",
    "n_d_bins",
    "n_x_bins",
    "n_estimation_steps",
    "p_max",
)
# By the ends of their names; 0 turns most of them off.
_NOT_NEGATIVE = (
    *("_std", "_dtod", "_prob", "_noise", "_lr", "_every", "_size", "_omega", "_factor", "_bins"),
    *("_thres", "_drop", "_series", "granularity", "momentum"),
)
_AT_MOST_ONE = ("_prob", "momentum")
_ABOVE_ZERO = (
    *("dw_min", "w_max", "desired_bl", "inp_bound", "out_bound", "n_reads_per_transfer"),
    *("p_max", "alpha", "range_max"),
)
_NOT_ABOVE_ZERO = ("w_min", "range_min")  # aihwkit's bounds have 0 between them
_SMALLEST, _LARGEST = 1e-37, 1e38  # about what 32 bits hold

_Tables = dict[str, dict[str, Any]]  # table of [analog] -> parameter -> value
_COMMON: _Tables = {"mapping": {"weight_scaling_omega": 0.6}}
_RAW_READ = {"noise_management": "None", "bound_management": "None"}
_TTV2: _Tables = {
    **_COMMON,
    "compound": {
        "transfer_every": 1.0,
        "units_in_mbatch": False,
        "auto_scale": True,
        "auto_momentum": 0.99,
        "in_chop_prob": 0.0,
        "forget_buffer": True,
        "momentum": 0.0,
    },
    "transfer_forward": _RAW_READ,
    "transfer_update": {
        "update_bl_management": False,
        "update_management": False,
    },
}
_CHOPPED = {**_TTV2["compound"], "in_chop_prob": 0.1}
DEFAULTS: dict[Algorithm, _Tables] = {
    Algorithm.C_TTV2: {**_TTV2, "compound": _CHOPPED},
    Algorithm.TTV2: _TTV2,
    Algorithm.AGAD: {
        **_COMMON,
        "compound": {**_CHOPPED, "in_chop_random": False},
    },
    # One transfer a mini-batch, as in build_config: one after each vector writes the noise of
    # coarse devices into the weights (digits: 78 % error instead of 49 %; 60 % with frozen arrays).
    Algorithm.TT: {
        **_COMMON,
        "compound": {"transfer_every": 1.0, "units_in_mbatch": True, "fast_lr": 0.1},
        "transfer_forward": _RAW_READ,
    },
    Algorithm.SGD: _COMMON,
    Algorithm.MP: _COMMON,
}


def defaults_of(algorithm: Algorithm, rule: RuleFacts | None) -> _Tables:
    """The defaults of an algorithm's tables; those of a rule are c-ttv2's, its parameters its own.

    Args:
        rule: What it says of itself, if it is in a file.
    """
    if rule is None:
        return DEFAULTS[algorithm]
    own = {name: value for name, value in rule.parameters.items() if name != "auto_granularity"}
    transfer_update = {**_TTV2["transfer_update"], "desired_bl": 1}
    pulses = {"update": {"desired_bl": 5}, "transfer_update": transfer_update}
    return {**_TTV2, **pulses, "compound": own}


def table_problems(
    table: str,
    values: Mapping[str, Any],
    algorithm: Algorithm,
    preset: str,
    rule: RuleFacts | None = None,
) -> Iterator[Problem]:
    """Check one table of [analog] against the aihwkit class that it sets parameters of.

    Args:
        table: One of SECTIONS, "device" or "slow_device".
        values: Parameter -> value, as in the file.
        algorithm: The algorithm whose compound it is; for "compound".
        preset: The device preset; for "device" and "slow_device".
        rule: What the algorithm says of itself, if it is in a file.
    """
    known: Mapping[str, Any]
    if table == "compound" and rule is not None:
        known, owner = rule.parameters, str(algorithm)
    elif table == "compound":
        known = catalog.compound_parameters(algorithm)
        owner = algorithm.compound or f"algorithm {algorithm.value!r} (it has no compound)"
    elif table in PARAMETERS_OF:
        kind, owner = PARAMETERS_OF[table]
        known = catalog.catalog()[kind]
    else:
        known = catalog.device_parameters(preset)
        cls = catalog.device_class(preset)
        owner = preset if cls == preset else f"{preset} ({cls})"
    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known)
            yield name, f"{owner} has no parameter {name!r}" + (f"; {hint}" if hint else "")
        elif expected := _expected(name, value, known[name]):
            yield name, f"expected {expected}; got {value!r}"


def _expected(name: str, value: Any, default: Any) -> str:
    """What a parameter takes, in words, if the value is none of that; "" where it fits."""
    if isinstance(default, dict):
        return "" if value in default["enum"] else f"one of {', '.join(default['enum'])}"
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, list):
        is_list = isinstance(value, list | tuple) and all(map(is_number, value))
        return "" if is_list else "a list of numbers"
    if not is_number(value):
        return "a finite number"
    if isinstance(default, int) and name in _WHOLE and value != int(value):
        return "a whole number"
    if value and not _SMALLEST < abs(value) < _LARGEST:
        return "a number that 32 bits hold"
    if value > 0 and name in _NOT_ABOVE_ZERO:
        return "zero or less"
    if value < 0 and name.endswith(_NOT_NEGATIVE):
        return "zero or more"
    if value > 1 and name.endswith(_AT_MOST_ONE):
        return "a number from 0 to 1"
    return "a number above zero" if value <= 0 and name in _ABOVE_ZERO else ""


def device_conflicts(preset: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Find parameters of a device that are right by themselves, but not together.

    Args:
        values: The parameters that differ from it, each right by itself.
    """
    given = {**catalog.device_parameters(preset), **values}
    up, down = (given.get(f"piecewise_{way}", [1]) for way in ("up", "down"))
    if len(up) != len(down) or not up:
        expected = "expected as many factors as piecewise_up has, at least 1"
        yield "piecewise_down", f"{expected}; got {len(down)} and {len(up)}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float (a bool is not)."""
    try:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False
