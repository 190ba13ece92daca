"""Constants of hardware: what a pulse, a read, a conversion and an operation cost, and from where.

The presets are in ``hardware.toml``. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import tomli

UNITS = {
    "pulse_energy": "J",
    "read_energy": "J",
    "adc_energy": "J",
    "dac_energy": "J",
    "digital_energy": "J",
    "memory_energy": "J/byte",
    "pulse_time": "s",
    "read_time": "s",
    "digital_rate": "1/s",
    "parallel_arrays": "arrays",
    "endurance": "pulses",
}
"""Key of [hardware] -> unit of its value."""


@dataclass(frozen=True)
class Constant:
    """A key of [hardware] with its value and where that is from."""

    name: str
    value: float
    source: str

    @property
    def unit(self) -> str:
        return UNITS[self.name]


@cache
def _file() -> dict[str, dict[str, Any]]:
    text = resources.files("analogtl.config").joinpath("hardware.toml").read_text(encoding="utf-8")
    return tomli.loads(text)


def hardware_presets() -> dict[str, str]:
    """Name the presets: what each is about."""
    return {name: str(content["about"]) for name, content in _file().items()}


def preset_constants(preset: str) -> list[Constant]:
    """List the constants of a preset, in the order of `UNITS`."""
    content = _file()[preset]
    return [Constant(name, **content[name]) for name in UNITS if name in content]


def constants_of(hardware: Mapping[str, Any]) -> dict[str, Constant]:
    """Collect what a table [hardware] sets: its own keys over those of its preset.

    Args:
        hardware: The table, valid; a key that is None is not set.
    """
    preset = hardware.get("preset")
    known = {one.name: one for one in preset_constants(preset)} if preset else {}
    own = {
        name: Constant(name, float(value), "set in [hardware]")
        for name, value in hardware.items()
        if name in UNITS and value is not None
    }
    return {**known, **own}
