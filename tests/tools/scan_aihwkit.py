"""Read off the installed aihwkit what `analogtl.config.catalog` keeps.

To write ``catalog.json`` again after a release of aihwkit: python tests/tools/scan_aihwkit.py
"""

import dataclasses
import json
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from aihwkit.simulator.configs import IOParameters, MappingParameter, UpdateParameters
from aihwkit.simulator.configs import compounds as compounds_module
from aihwkit.simulator.configs import devices as devices_module
from aihwkit.simulator.presets import devices as presets_module

from analogtl.vocabulary import Algorithm

CATALOG = Path(__file__).parents[2] / "analogtl" / "config" / "catalog.json"
COMPOUNDS = {one.compound for one in Algorithm if one.compound} | {"BufferedTransferCompound"}
# Parameters that only a newer aihwkit than the oldest supported one has, and their defaults.
NEWER = {
    ("TransferCompound", "scale_fast_lr"): True,
    ("BufferedTransferCompound", "scale_fast_lr"): True,
    ("ChoppedTransferCompound", "scale_fast_lr"): False,
    ("DynamicTransferCompound", "scale_fast_lr"): False,
}
# analogtl gives the construction seed (one per layer) and the devices itself.
OURS = ("construction_seed", "unit_cell_devices")


def classes(module: ModuleType) -> dict[str, type]:
    """The classes that a module defines, by name."""
    own = (one for one in vars(module).values() if isinstance(one, type))
    return {one.__name__: one for one in own if one.__module__ == module.__name__}


def parameters(cls: type) -> dict[str, Any]:
    """Parameter -> default; what an experiment file cannot set (nested configurations) is left out.

    A number or bool is kept as it is, an enum as ``{"enum": [names], "default": name}``.
    """
    found: dict[str, Any] = {}
    instance = cls()
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name, None)
        if field.name in OURS:
            continue
        if isinstance(value, Enum):
            members = [member.value for member in type(value)]
            found[field.name] = {"enum": members, "default": value.value}
        elif isinstance(value, bool | int | float):
            found[field.name] = value
        elif isinstance(value, list) and all(isinstance(v, int | float) for v in value):
            found[field.name] = value
    return found


def scan() -> dict[str, Any]:
    """The content of ``catalog.json``, of the installed aihwkit."""
    pulsed = devices_module.PulsedDevice
    devices = {
        name: parameters(cls)
        for name, cls in classes(devices_module).items()
        if issubclass(cls, pulsed) and cls is not pulsed
    }
    presets = {}
    for name, cls in classes(presets_module).items():
        base = next(one.__name__ for one in cls.__mro__ if one.__name__ in devices)
        own = {k: v for k, v in parameters(cls).items() if v != devices[base].get(k)}
        presets[name] = {"device": base, "values": own}
    found = {
        "presets": presets,
        "devices": devices,
        "compounds": {
            name: parameters(cls)
            for name, cls in classes(compounds_module).items()
            if name in COMPOUNDS
        },
        "io": parameters(IOParameters),
        "update": parameters(UpdateParameters),
        "mapping": parameters(MappingParameter),
    }
    for (compound, parameter), default in NEWER.items():
        found["compounds"][compound].setdefault(parameter, default)
    return found


if __name__ == "__main__":
    CATALOG.write_text(json.dumps(scan(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
