"""What aihwkit offers, as plain data: presets, device classes, compounds and their parameters.

Experiment files are checked, and names are completed, without importing torch. The facts are read
off an installed aihwkit by `scan` and kept in ``catalog.json``; a test compares the two. To write
the file again after an aihwkit release: ``python -m analogtl.config.catalog``.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from analogtl.vocabulary import Algorithm

# Parameters that only a newer aihwkit than the oldest supported one has.
SINCE = {
    ("TransferCompound", "scale_fast_lr"): "1.2.0",
    ("BufferedTransferCompound", "scale_fast_lr"): "1.2.0",
    ("ChoppedTransferCompound", "scale_fast_lr"): "1.2.0",
    ("DynamicTransferCompound", "scale_fast_lr"): "1.2.0",
}


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
    """Parameter -> default of a preset or device class; see `scan` for how values are kept."""
    data = catalog()
    if preset in data["presets"]:
        return {**data["devices"][device_class(preset)], **data["presets"][preset]["values"]}
    return dict(data["devices"][preset])


def presets_with(parameter: str) -> list[str]:
    """Presets whose device has a parameter of this name."""
    return [p for p in presets() if parameter in device_parameters(p)]


def compound_parameters(algorithm: str) -> dict[str, Any]:
    """Parameter -> default of an algorithm's compound; empty for plain SGD."""
    compound = Algorithm(algorithm).compound
    return dict(catalog()["compounds"][compound]) if compound else {}


def scan() -> dict[str, Any]:
    """Read the same facts off the installed aihwkit.

    A value is kept as it is if it is a number or bool; an enum as ``{"enum": [names], "default":
    name}``; anything that an experiment file cannot set (nested configurations) is left out.
    """
    import dataclasses
    import inspect
    from enum import Enum

    import aihwkit.simulator.configs.compounds as compounds
    import aihwkit.simulator.configs.devices as devices_module
    import aihwkit.simulator.presets.devices as presets_module
    from aihwkit.simulator.configs import IOParameters, MappingParameter, UpdateParameters

    def classes(module: Any) -> dict[str, Any]:
        return {
            name: cls
            for name, cls in vars(module).items()
            if inspect.isclass(cls) and cls.__module__ == module.__name__
        }

    def parameters(cls: type) -> dict[str, Any]:
        found: dict[str, Any] = {}
        instance = cls()
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name, None)
            if isinstance(value, Enum):
                members = [member.value for member in type(value)]
                found[field.name] = {"enum": members, "default": value.value}
            elif isinstance(value, bool | int | float):
                found[field.name] = value
            elif isinstance(value, list) and all(isinstance(v, int | float) for v in value):
                found[field.name] = value
        # analogtl gives the construction seed (one per layer) and the devices itself.
        for name in ("construction_seed", "unit_cell_devices"):
            found.pop(name, None)
        return found

    pulsed = {
        name: cls
        for name, cls in classes(devices_module).items()
        if issubclass(cls, devices_module.PulsedDevice) and cls is not devices_module.PulsedDevice
    }
    device_values = {name: parameters(cls) for name, cls in pulsed.items()}
    preset_values = {}
    for name, cls in classes(presets_module).items():
        base = next(c.__name__ for c in cls.__mro__ if c.__name__ in pulsed)
        own = {k: v for k, v in parameters(cls).items() if v != device_values[base].get(k)}
        preset_values[name] = {"device": base, "values": own}
    kept = {algorithm.compound for algorithm in Algorithm if algorithm.compound}
    kept.add("BufferedTransferCompound")
    return {
        "presets": preset_values,
        "devices": device_values,
        "compounds": {
            name: parameters(cls) for name, cls in classes(compounds).items() if name in kept
        },
        "io": parameters(IOParameters),
        "update": parameters(UpdateParameters),
        "mapping": parameters(MappingParameter),
    }


def main() -> None:
    """Write ``catalog.json`` from the installed aihwkit."""
    from pathlib import Path

    data = scan()
    for (compound, parameter), _ in SINCE.items():
        default = compound in ("TransferCompound", "BufferedTransferCompound")
        data["compounds"][compound].setdefault(parameter, default)
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    Path(__file__).with_name("catalog.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
