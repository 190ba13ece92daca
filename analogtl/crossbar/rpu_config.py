"""The experiment's device and training algorithm -> an aihwkit rpu_config.

Each algorithm is aihwkit's own device class with the settings of the experiment file; what
aihwkit's `build_config` sets for it is the default (see `analogtl.config.parameters.DEFAULTS`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from enum import Enum
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias, cast

from aihwkit.simulator.configs import (
    DigitalRankUpdateRPUConfig,
    IOParameters,
    MappingParameter,
    SingleRPUConfig,
    UnitCellRPUConfig,
    UpdateParameters,
    compounds,
)
from aihwkit.simulator.configs import devices as device_classes
from aihwkit.simulator.configs.devices import PulsedDevice
from aihwkit.simulator.presets import devices as preset_classes

from analogtl.config.arrays import Analog, Device, Nonidealities
from analogtl.errors import ExperimentError
from analogtl.fastsim.rules import RuleCompound, RuleError, RuleText, load_rule
from analogtl.vocabulary import Algorithm, FileAlgorithm

RPUConfig: TypeAlias = UnitCellRPUConfig | SingleRPUConfig | DigitalRankUpdateRPUConfig


class Pulsing(NamedTuple):
    """How hard the arrays of a layer are pulsed, by the algorithms that have a hidden matrix."""

    drive: float  # of A: fast_lr x update.desired_bl
    auto_granularity: float
    transfer_bl: int  # transfer_update.desired_bl

    @classmethod
    def given(cls, analog: Analog, tokens_per_image: int = 1) -> Pulsing:
        """Take what the file gives, and aihwkit's drive and a granularity of 10 for "auto"."""
        drive = 0.5 if analog.drive == "auto" else analog.drive
        granularity = 10.0 if analog.granularity == "auto" else analog.granularity or 0.0
        return cls(drive, granularity * tokens_per_image, 1)


def split_drive(drive: float) -> tuple[float, int]:
    """Split a drive into ``fast_lr`` and ``update.desired_bl``.

    Vectors above the average have longer trains: ten times as long at most where few pulses are
    sent (aihwkit's own 0.1 and 5 are a drive of 0.5), twice as long where there are many.
    """
    return (drive / 5, 5) if drive <= 0.5 else (0.5, math.ceil(2 * drive))


def build_rpu_config(
    analog: Analog, pulsing: Pulsing | None = None, *, construction_seed: int = 0
) -> RPUConfig:
    """Build the stock aihwkit configuration of one layer.

    Args:
        analog: The experiment's section.
        pulsing: What the algorithms with a hidden matrix take where the file gives no key of
            aihwkit's for it; None: as `Pulsing.given`, with one input vector an image.
        construction_seed: Seed of the device draw (0: aihwkit draws it from the clock).

    Raises:
        ExperimentError: If the installed aihwkit lacks a parameter.
    """
    device = build_device(analog.array_device, analog.nonidealities)
    algorithm = analog.algorithm
    update, transfer_update = UpdateParameters(), UpdateParameters()
    pulsing = pulsing or Pulsing.given(analog)
    if isinstance(algorithm, Algorithm) and algorithm.granular:
        fast_lr, update.desired_bl = split_drive(pulsing.drive)
        transfer_update.desired_bl = pulsing.transfer_bl
    common: dict[str, Any] = {
        "forward": _io(analog, "forward"),
        "backward": _io(analog, "backward"),
        "update": _filled(update, analog, "update"),
        "mapping": _filled(MappingParameter(), analog, "mapping"),
    }
    if isinstance(algorithm, FileAlgorithm):
        return UnitCellRPUConfig(
            device=_driven(analog, algorithm, device, pulsing, construction_seed), **common
        )
    if algorithm is Algorithm.SGD:
        device.construction_seed = construction_seed
        return SingleRPUConfig(device=device, **common)
    if algorithm is Algorithm.MP:
        compound = compounds.MixedPrecisionCompound(
            device=device, construction_seed=construction_seed
        )
        return DigitalRankUpdateRPUConfig(device=_filled(compound, analog, "compound"), **common)
    compound = getattr(compounds, algorithm.compound or "")(
        unit_cell_devices=[device, _slow_device(analog, device)],
        transfer_forward=_filled(IOParameters(), analog, "transfer_forward"),
        transfer_update=_filled(transfer_update, analog, "transfer_update"),
        construction_seed=construction_seed,
    )
    if algorithm.granular:
        compound.fast_lr, compound.auto_granularity = fast_lr, pulsing.auto_granularity
    return UnitCellRPUConfig(device=_filled(compound, analog, "compound"), **common)


def _driven(
    analog: Analog, algorithm: FileAlgorithm, device: PulsedDevice, pulsing: Pulsing, seed: int
) -> RuleCompound:
    """Make the arrays that a rule drives."""
    text = RuleText(algorithm.file, algorithm.inside, analog.rules[algorithm.file])
    values = analog.values("compound")
    if analog.granularity is not None:
        values["auto_granularity"] = pulsing.auto_granularity
    try:
        others = len(load_rule(text).array_names(values)) - 1
        slow = [_slow_device(analog, device) for _ in range(others)]
        return RuleCompound(
            rule=text,
            values=values,
            unit_cell_devices=[device, *slow],
            transfer_forward=_filled(IOParameters(), analog, "transfer_forward"),
            transfer_update=_filled(UpdateParameters(), analog, "transfer_update"),
            construction_seed=seed,
        )
    except RuleError as error:
        raise ExperimentError(str(error)) from None


def _slow_device(analog: Analog, fast: PulsedDevice) -> PulsedDevice:
    own = analog.slow_array_device
    slow = build_device(own, analog.nonidealities) if own else deepcopy(fast)
    return cast(PulsedDevice, _filled(slow, analog, "slow_device"))


def build_device(device: Device, nonidealities: Nonidealities) -> PulsedDevice:
    """Build the resistive device of an experiment.

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


def _filled(target: Any, analog: Analog, section: str) -> Any:
    set_parameters(target, analog.values(section), f"analog.{section}")
    return target


def _io(analog: Analog, section: str) -> IOParameters:
    io: IOParameters = _filled(IOParameters(), analog, section)
    if analog.nonidealities.out_noise is not None:
        io.out_noise = analog.nonidealities.out_noise
    if analog.nonidealities.io_bits is not None:
        io.inp_res = io.out_res = 1 / (2**analog.nonidealities.io_bits - 2)
    return io
