"""What aihwkit offers, as plain data: presets, device classes, compounds and their parameters.

Experiment files are checked, and names are completed, without importing torch. The facts are kept
in ``catalog.json``; a test compares it with the installed aihwkit. To write it again for another
release: ``python tests/tools/scan_aihwkit.py``.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import tomli

from analogtl.vocabulary import Algorithm


@cache
def catalog() -> dict[str, Any]:
    """The content of ``catalog.json``: keys presets, devices, compounds, io, update, mapping."""
    text = resources.files("analogtl.config").joinpath("catalog.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def presets() -> list[str]:
    """Names of the device presets that analog arms accept."""
    return list(catalog()["presets"])


def devices() -> list[str]:
    """Names of aihwkit's pulsed device classes; each is accepted where a preset is."""
    return list(catalog()["devices"])


def device_class(preset: str) -> str:
    """The aihwkit device class behind a preset (a device class stands for itself)."""
    entry = catalog()["presets"].get(preset)
    return str(entry["device"]) if entry else preset


def device_parameters(preset: str) -> dict[str, Any]:
    """Parameter -> default of a preset or class; an enum is {"enum": names, "default": name}."""
    data = catalog()
    if preset in data["presets"]:
        return {**data["devices"][device_class(preset)], **data["presets"][preset]["values"]}
    return dict(data["devices"][preset])


@cache
def _meanings() -> dict[str, Any]:
    text = resources.files("analogtl.config").joinpath("device_meanings.toml").read_text("utf-8")
    return tomli.loads(text)


def device_meaning(device: str) -> str:
    """What a device class does with a weight at a pulse, in words."""
    return str(_meanings()["devices"][device])


def parameter_meaning(device: str, parameter: str) -> str:
    """What a parameter of a device class means, in words."""
    known = _meanings()["parameters"]
    return str({**known, **known.get(device, {})}[parameter])


def presets_with(parameter: str) -> list[str]:
    """Presets whose device has a parameter of this name."""
    return [p for p in presets() if parameter in device_parameters(p)]


def compound_parameters(algorithm: str) -> dict[str, Any]:
    """Parameter -> default of an algorithm's compound; empty for plain SGD."""
    compound = Algorithm(algorithm).compound
    return dict(catalog()["compounds"][compound]) if compound else {}
