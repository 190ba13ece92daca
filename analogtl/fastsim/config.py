"""Which configurations the fast engine runs exactly."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any

from aihwkit.simulator.configs.compounds import (
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
)
from aihwkit.simulator.configs.configs import (
    DigitalRankUpdateRPUConfig,
    SingleRPUConfig,
    UnitCellRPUConfig,
)
from aihwkit.simulator.parameters.enums import (
    AnalogMVType,
    BoundManagementType,
    PulseType,
    RPUDataType,
    WeightNoiseType,
)

from analogtl.fastsim.rules.compound import RuleCompound
from analogtl.fastsim.rules.contract import load_rule
from analogtl.fastsim.spec import (
    NOISE_MANAGEMENT,
    TRANSFERS,
    device_class,
    devices_of,
    gammas_of,
    plain_device,
)

_PULSED = (PulseType.STOCHASTIC_COMPRESSED, PulseType.STOCHASTIC)
# Non-idealities of a matrix product that only the stock engine computes; each is off at 0.
_STOCK_ONLY_IO = (
    "inp_asymmetry",
    "out_asymmetry",
    "out_noise_std",
    "ir_drop",
    "out_nonlinearity",
    "v_offset_std",
    "r_series",
    "w_read_asymmetry_dtod",
)


class UnsupportedConfig(ValueError):
    """The fast engine cannot run a configuration exactly; aihwkit's own tiles can."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the fast engine does not cover {reason}")


class TileCount:
    """Numbers the tiles made from one configuration; copies of the configuration share it."""

    def __init__(self) -> None:
        self.made = 0

    def next(self) -> int:
        self.made += 1
        return self.made - 1

    def __deepcopy__(self, memo: Any) -> TileCount:
        return self


def _default_tile_class() -> type:
    from analogtl.fastsim.tile import FastTile

    return FastTile


@dataclass
class FastRPUConfig(UnitCellRPUConfig):
    """A configuration whose tiles run on the fast engine; made by ``fast_rpu_config``.

    ``device`` is a transfer compound, a mixed-precision compound, or a device that gets the
    gradient's pulses itself.
    """

    tile_class: type = field(default_factory=_default_tile_class)
    """Tile class that corresponds to this configuration."""

    seed: int = 0
    """Seed of every random stream of the tiles, together with the number of the tile."""

    tile_count: TileCount = field(default_factory=TileCount, compare=False, repr=False)
    """Numbers the tiles, so that each has streams of its own."""


def fast_rpu_config(rpu_config: Any, *, seed: int) -> FastRPUConfig:
    """Make the configuration of fast tiles that run the same process as ``rpu_config``.

    Args:
        rpu_config: A stock configuration; it is copied, not changed.
        seed: Seed of all random streams. Tiles made from one configuration are numbered in the
            order in which they are made and never share a stream.

    Raises:
        UnsupportedConfig: if ``unsupported_reason`` names a reason.
    """
    if reason := unsupported_reason(rpu_config):
        raise UnsupportedConfig(reason)
    own = {f.name for f in fields(UnitCellRPUConfig)} - {"tile_class"}
    values = {f.name: getattr(rpu_config, f.name) for f in fields(rpu_config) if f.name in own}
    made = FastRPUConfig(**deepcopy(values), seed=int(seed))
    if isinstance(made.device, RuleCompound):
        from analogtl.fastsim.rules.tile import RuleTile

        made.tile_class = RuleTile
    return made


def unsupported_reason(rpu_config: Any) -> str | None:
    """Name what the fast engine cannot run exactly in ``rpu_config``; ``None`` if nothing."""
    if not isinstance(rpu_config, UnitCellRPUConfig | SingleRPUConfig | DigitalRankUpdateRPUConfig):
        return f"{type(rpu_config).__name__}, only arrays of pulsed devices"
    compound: Any = rpu_config.device
    devices = devices_of(compound)
    if not devices:
        return f"{type(compound).__name__}"
    if rpu_config.runtime.data_type is not RPUDataType.FLOAT:
        return f"data_type {rpu_config.runtime.data_type.value}"
    return (
        _compound_reason(compound)
        or next(filter(None, map(_device_reason, devices.values())), None)
        or _update_reason(rpu_config.update, "update")
        or _io_reason(rpu_config.forward, "forward")
        or _io_reason(rpu_config.backward, "backward")
        or _transfer_reason(compound, rpu_config.update)
    )


# From 1.2.0 on, aihwkit takes the choppers back where the products see A; but the sign of cell i,
# counted row by row, is that of column i // rows (seen with random choppers).
GAMMA_IS_CHOPPED = tuple(map(int, version("aihwkit").split(".")[:2])) >= (1, 2)


def _compound_reason(c: Any) -> str | None:
    if type(c) is MixedPrecisionCompound:
        for name, value in (("n_x_bins", c.n_x_bins), ("n_d_bins", c.n_d_bins)):
            if value == 1:  # aihwkit's steps are then infinite
                return f"{name} = 1"
        return f"granularity = {c.granularity}" if c.granularity < 0.0 else None
    if type(c) not in TRANSFERS:
        return None
    if isinstance(c, RuleCompound):
        wanted = len(load_rule(c.rule).array_names(c.values))
        if len(c.unit_cell_devices) != wanted:
            return f"{len(c.unit_cell_devices)} unit_cell_devices; this rule has {wanted} arrays"
        if c.gamma != 0.0 or len(c.gamma_vec):
            return "gamma of a rule, which says itself what the passes see"
    elif len(c.unit_cell_devices) != 2:
        return f"{len(c.unit_cell_devices)} unit_cell_devices, only two"
    chopped = getattr(c, "in_chop_prob", 0.0) or getattr(c, "out_chop_prob", 0.0)
    if GAMMA_IS_CHOPPED and chopped and gammas_of(c) is not None:
        return "gamma with choppers: aihwkit 1.2 gives A the choppers' signs of other cells"
    if len(c.gamma_vec) not in (0, 2) or (len(c.gamma_vec) and c.gamma_vec[1] == 0.0):
        return f"gamma_vec = {c.gamma_vec}"
    required = {
        "transfer_every_vec": [],
        "transfer_lr_vec": [],
        "no_self_transfer": True,
        "transfer_columns": True,
        "with_reset_prob": 0.0,
        "random_selection": False,
    }
    if isinstance(c, ChoppedTransferCompound):
        required["n_reads_per_transfer"] = 1
    for name, value in required.items():
        if getattr(c, name) != value:
            return f"{name} = {getattr(c, name)}"
    if c.transfer_every < 0.0:
        return f"transfer_every = {c.transfer_every}"
    if c.n_reads_per_transfer < 1:
        return f"n_reads_per_transfer = {c.n_reads_per_transfer}"
    if isinstance(c, DynamicTransferCompound) and c.in_chop_prob <= 0.0:
        return "in_chop_prob = 0 in DynamicTransferCompound"
    return None


def _transfer_reason(c: Any, update: Any) -> str | None:
    """Name what the engine cannot run in the pulses onto C."""
    if type(c) is MixedPrecisionCompound:
        return _written_reason(update, "update")
    if type(c) not in TRANSFERS:
        return None
    if c.transfer_forward.inp_noise > 0.0:
        return "transfer_forward.inp_noise"
    return (
        _update_reason(c.transfer_update, "transfer_update")
        or _written_reason(c.transfer_update, "transfer_update")
        or _io_reason(c.transfer_forward, "transfer_forward")
    )


def _written_reason(update: Any, name: str) -> str | None:
    if update.res > 0.0 or update.sto_round:
        return f"a resolution of {name} (res, sto_round) for pulses onto the slow array"
    return None


def _device_reason(device: Any) -> str | None:
    name = type(device).__name__
    if device_class(device) is None:
        return f"device class {name}"
    device = plain_device(device)
    if device.drift.nu > 0.0 or device.drift.nu_std > 0.0 or device.drift.nu_dtod > 0.0:
        return f"drift of {name}"
    if device.dw_min <= 0.0:
        return f"dw_min = {device.dw_min} of {name}"
    if device.w_min > 0.0 or device.w_max < 0.0:
        return f"bounds of {name} that do not include 0"
    return None


def _update_reason(update: Any, name: str) -> str | None:
    if update.pulse_type not in _PULSED:
        return f"{name}.pulse_type {update.pulse_type.value}"
    if update.d_sparsity:
        return f"{name}.d_sparsity"
    if not 1 <= update.desired_bl <= 1000:
        return f"{name}.desired_bl = {update.desired_bl}, only 1 to 1000"
    return None


def _io_reason(io: Any, name: str) -> str | None:
    if io.is_perfect or io.mv_type is AnalogMVType.IDEAL:
        return None
    if io.mv_type is not AnalogMVType.ONE_PASS:
        return f"{name}.mv_type {io.mv_type.value}"
    for key in _STOCK_ONLY_IO:
        if getattr(io, key) != 0.0:
            return f"{name}.{key}"
    if io.w_noise_type is not WeightNoiseType.NONE and io.w_noise > 0.0:
        return f"{name}.w_noise"
    if io.inp_sto_round or io.out_sto_round:
        return f"stochastic rounding of {name}"
    if name == "transfer_forward":  # aihwkit itself turns both managements off there
        return None
    if io.noise_management not in NOISE_MANAGEMENT:
        return f"{name}.noise_management {io.noise_management.value}"
    if name == "forward":
        if io.bound_management not in (BoundManagementType.NONE, BoundManagementType.ITERATIVE):
            return f"{name}.bound_management {io.bound_management.value}"
        if not io.bm_test_negative_bound:
            return f"{name}.bm_test_negative_bound = false"
    return None
