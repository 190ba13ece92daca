"""The training algorithm -> an aihwkit rpu_config: c-TTv2 and its rivals.

Each algorithm is aihwkit's own device class with the settings of the experiment file; what
aihwkit's `build_config` sets for it is the default (see `analogtl.config.parameters.DEFAULTS`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from aihwkit.simulator.configs import (
    DigitalRankUpdateRPUConfig,
    IOParameters,
    MappingParameter,
    SingleRPUConfig,
    UnitCellRPUConfig,
    UpdateParameters,
)
from aihwkit.simulator.configs.compounds import (
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    TransferCompound,
)

from analogtl.config.schema import Analog
from analogtl.crossbar.device import build_device, set_parameters

RPUConfig = UnitCellRPUConfig | SingleRPUConfig | DigitalRankUpdateRPUConfig
COMPOUNDS = {
    "c-ttv2": ChoppedTransferCompound,
    "ttv2": ChoppedTransferCompound,
    "agad": DynamicTransferCompound,
    "tt": TransferCompound,
}


def build_rpu_config(
    analog: Analog, *, tokens_per_image: int = 1, construction_seed: int = 0
) -> RPUConfig:
    """The stock aihwkit configuration of one layer.

    Args:
        analog: The experiment's section.
        tokens_per_image: Input vectors that the layer sees per image; c-TTv2's auto_granularity
            is granularity_per_token x this unless the file gives auto_granularity itself.
        construction_seed: Seed of the device draw (0: aihwkit draws it from the clock).

    Raises:
        ExperimentError: If the installed aihwkit lacks a parameter.
    """
    device = build_device(analog.array_device, analog.nonidealities)
    common: dict[str, Any] = {
        "forward": _io(analog, "forward"),
        "backward": _io(analog, "backward"),
        "update": _filled(UpdateParameters(), analog, "update"),
        "mapping": _filled(MappingParameter(), analog, "mapping"),
    }
    if analog.algorithm == "sgd":
        device.construction_seed = construction_seed
        return SingleRPUConfig(device=device, **common)
    if analog.algorithm == "mp":
        device.construction_seed = construction_seed
        compound = _filled(MixedPrecisionCompound(device=device), analog, "compound")
        return DigitalRankUpdateRPUConfig(device=compound, **common)
    compound = COMPOUNDS[analog.algorithm](
        unit_cell_devices=[device, _filled(deepcopy(device), analog, "slow_device")],
        transfer_forward=_filled(IOParameters(), analog, "transfer_forward"),
        transfer_update=_filled(UpdateParameters(), analog, "transfer_update"),
        construction_seed=construction_seed,
    )
    compound = _filled(compound, analog, "compound")
    if analog.granularity is not None:
        compound.auto_granularity = analog.granularity * tokens_per_image
    return UnitCellRPUConfig(device=compound, **common)


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
