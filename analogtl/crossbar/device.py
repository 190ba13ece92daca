"""Preset and non-idealities -> an aihwkit device."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from importlib import metadata
from typing import Any

from aihwkit.simulator.configs import devices as device_classes
from aihwkit.simulator.configs.devices import PulsedDevice
from aihwkit.simulator.presets import devices as preset_classes

from analogtl.config.schema import Device, Nonidealities
from analogtl.errors import ExperimentError


def build_device(device: Device, nonidealities: Nonidealities) -> PulsedDevice:
    """The resistive device of an experiment.

    The preset's parameters come first, then the file's, then the non-idealities in the paper's
    terms (arXiv 2505.11067, Section III; Figs. 4 and 5):

    - symmetry point skew p %: w_max, w_min or both move by p % of their size; "both" moves them
      in the same direction, so that the centre moves and the range stays.
    - symmetry point variability p %: reference_std = 2 p / 100.
    - number of states n: dw_min = (w_max - w_min) / n with the bounds before any skew, which is
      2 / n for bounds of 1 and -1.

    Raises:
        ExperimentError: If the installed aihwkit lacks a parameter.
    """
    cls = getattr(preset_classes, device.preset, None) or getattr(device_classes, device.preset)
    built: PulsedDevice = cls()
    set_parameters(built, device.parameters, "analog.device")
    # Only devices with write noise have the switch; setting it on others would be unused.
    if hasattr(built, "apply_write_noise_on_set"):
        built.apply_write_noise_on_set = device.apply_write_noise_on_set
    if nonidealities.n_states is not None:
        built.dw_min = (built.w_max - built.w_min) / nonidealities.n_states
    skew = nonidealities.symmetry_point_skew / 100
    bound = nonidealities.symmetry_point_skew_bound
    if skew and bound in ("upper", "both"):
        built.w_max *= 1 - skew
    if skew and bound in ("lower", "both"):
        built.w_min *= 1 + skew if bound == "both" else 1 - skew
    if nonidealities.symmetry_point_variability is not None:
        built.reference_std = 2 * nonidealities.symmetry_point_variability / 100
    return built


def set_parameters(target: Any, values: Mapping[str, Any], section: str) -> None:
    """Set dataclass fields of an aihwkit object; text becomes the field's enum member.

    Raises:
        ExperimentError: If the installed aihwkit has no such field.
    """
    problems = []
    for name, value in values.items():
        if not hasattr(target, name):
            version = metadata.version("aihwkit")
            owner = type(target).__name__
            problems.append(f"{section}.{name}: aihwkit {version} has no {name} in its {owner}")
            continue
        current = getattr(target, name)
        if isinstance(current, Enum):
            value = type(current)(value)
        elif isinstance(current, bool):
            value = bool(value)
        elif isinstance(current, int) and float(value).is_integer():
            value = int(value)
        elif isinstance(value, tuple):
            value = list(value)
        setattr(target, name, value)
    if problems:
        raise ExperimentError(problems)
