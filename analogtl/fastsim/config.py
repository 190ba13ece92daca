"""Which configurations the fast engine runs exactly, and their numbers as it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from aihwkit.simulator.configs.compounds import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
)
from aihwkit.simulator.configs.configs import UnitCellRPUConfig
from aihwkit.simulator.configs.devices import (
    ConstantStepDevice,
    ExpStepDevice,
    LinearStepDevice,
    PiecewiseStepDevice,
    PowStepDevice,
    PowStepReferenceDevice,
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
    SoftBoundsReferenceDevice,
)
from aihwkit.simulator.parameters.enums import (
    AnalogMVType,
    BoundManagementType,
    NoiseManagementType,
    PulseType,
    RPUDataType,
    WeightNoiseType,
)

from analogtl.fastsim import devices, layout
from analogtl.fastsim import periphery as fast_io
from analogtl.fastsim.devices import Draw
from analogtl.fastsim.layout import Device, Read, Spec, Train
from analogtl.fastsim.rules.compound import RuleCompound
from analogtl.fastsim.rules.contract import load_rule

_NOISE_MANAGEMENT = {
    NoiseManagementType.NONE: fast_io.NONE,
    NoiseManagementType.ABS_MAX: fast_io.ABS_MAX,
    NoiseManagementType.MAX: fast_io.MAX,
    NoiseManagementType.CONSTANT: fast_io.CONSTANT,
}
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
    """A unit-cell configuration whose tiles run on the fast engine; made by ``fast_rpu_config``."""

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
    compound: Any = getattr(rpu_config, "device", None)
    if not isinstance(rpu_config, UnitCellRPUConfig):
        return f"{type(rpu_config).__name__}, only compounds of two devices"
    if type(compound) not in (
        ChoppedTransferCompound,
        DynamicTransferCompound,
        BufferedTransferCompound,
        RuleCompound,
    ):
        return f"{type(compound).__name__}"
    if rpu_config.runtime.data_type is not RPUDataType.FLOAT:
        return f"data_type {rpu_config.runtime.data_type.value}"
    return (
        _compound_reason(compound)
        or next(filter(None, map(_device_reason, compound.unit_cell_devices)), None)
        or _update_reason(rpu_config.update, "update")
        or _update_reason(compound.transfer_update, "transfer_update")
        or _io_reason(rpu_config.forward, "forward")
        or _io_reason(rpu_config.backward, "backward")
        or _io_reason(compound.transfer_forward, "transfer_forward")
    )


def _compound_reason(c: Any) -> str | None:
    if isinstance(c, RuleCompound):
        wanted = len(load_rule(c.rule).array_names(c.values))
        if len(c.unit_cell_devices) != wanted:
            return f"{len(c.unit_cell_devices)} unit_cell_devices; this rule has {wanted} arrays"
    elif len(c.unit_cell_devices) != 2:
        return f"{len(c.unit_cell_devices)} unit_cell_devices, only two"
    if c.gamma != 0.0 or (len(c.gamma_vec) and list(c.gamma_vec) != [0.0, 1.0]):
        return "gamma other than 0"
    required = {
        "transfer_every_vec": [],
        "transfer_lr_vec": [],
        "no_self_transfer": True,
        "n_reads_per_transfer": 1,
        "transfer_columns": True,
        "with_reset_prob": 0.0,
        "random_selection": False,
    }
    if c.transfer_every < 0.0:
        return f"transfer_every = {c.transfer_every}"
    for name, value in required.items():
        if getattr(c, name) != value:
            return f"{name} = {getattr(c, name)}"
    update = c.transfer_update
    if update.res > 0.0 or update.sto_round:
        return "a resolution of transfer_update (res, sto_round)"
    if update.desired_bl < 1:
        return f"transfer_update.desired_bl = {update.desired_bl}"
    if isinstance(c, DynamicTransferCompound) and c.in_chop_prob <= 0.0:
        return "in_chop_prob = 0 in DynamicTransferCompound"
    if c.transfer_forward.inp_noise > 0.0:
        return "transfer_forward.inp_noise"
    return None


class DeviceClass(NamedTuple):
    """How the engine treats one of aihwkit's device classes."""

    kind: Any
    response: int  # how cells answer to pulses
    drawn: int  # what is drawn beside bounds and steps
    hidden: tuple[str, ...]  # hidden parameters that only this class has, in aihwkit's order


# A subclass comes before its parents.
DEVICE_CLASSES = (
    DeviceClass(
        SoftBoundsReferenceDevice, layout.SOFT_BOUNDS, devices.SOFT_REFERENCE, ("reference",)
    ),
    DeviceClass(SoftBoundsDevice, layout.SOFT_BOUNDS, devices.SLOPES, ("slope_up", "slope_down")),
    DeviceClass(LinearStepDevice, layout.LINEAR, devices.SLOPES, ("slope_up", "slope_down")),
    DeviceClass(ConstantStepDevice, layout.LINEAR, devices.PLAIN, ()),
    DeviceClass(ExpStepDevice, layout.EXP, devices.PLAIN, ()),
    DeviceClass(
        PowStepReferenceDevice,
        layout.POW,
        devices.GAMMAS_AND_REFERENCE,
        ("gamma_up", "gamma_down", "reference"),
    ),
    DeviceClass(PowStepDevice, layout.POW, devices.GAMMAS, ("gamma_up", "gamma_down")),
    DeviceClass(PiecewiseStepDevice, layout.PIECEWISE, devices.PLAIN, ()),
)


def device_class(device: Any) -> DeviceClass | None:
    """Find how the engine treats a device; None if it does not know its class."""
    for known in DEVICE_CLASSES:
        if isinstance(device, known.kind):
            if known.kind is SoftBoundsDevice and (device.reverse_up or device.reverse_down):
                return known._replace(response=layout.LINEAR)
            return known
    return None


def _device_reason(device: Any) -> str | None:
    name = type(device).__name__
    if device_class(device) is None:
        return f"device class {name}"
    device = plain_device(device)
    if device.drift.nu > 0.0 or device.drift.nu_std > 0.0 or device.drift.nu_dtod > 0.0:
        return f"drift of {name}"
    if device.count_pulses:
        return f"count_pulses of {name}"
    if device.w_min > 0.0 or device.w_max < 0.0:
        return f"bounds of {name} that do not include 0"
    return None


def _update_reason(update: Any, name: str) -> str | None:
    if update.pulse_type not in _PULSED:
        return f"{name}.pulse_type {update.pulse_type.value}"
    if update.d_sparsity:
        return f"{name}.d_sparsity"
    if update.desired_bl > 1000:
        return f"{name}.desired_bl above 1000"
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
    if io.noise_management not in _NOISE_MANAGEMENT:
        return f"{name}.noise_management {io.noise_management.value}"
    if name == "forward":
        if io.bound_management not in (BoundManagementType.NONE, BoundManagementType.ITERATIVE):
            return f"{name}.bound_management {io.bound_management.value}"
        if not io.bm_test_negative_bound:
            return f"{name}.bm_test_negative_bound = false"
    return None


def _f(value: Any) -> np.float32:
    return np.float32(value)


def _step_of(res: float, bound: float) -> np.float32:
    """Convert a resolution (a step, or a number of steps) to an absolute step; 0 for none."""
    r = max(_f(res), _f(0.0))
    if r > 1.0:
        r = _f(1.0) / r
    return _f(r * _f(_f(2.0) * _f(bound)))


def io_numbers(io: Any, *, forward: bool) -> fast_io.IO:
    """Collect the numbers of one direction's periphery."""
    perfect = io.is_perfect or io.mv_type is AnalogMVType.IDEAL
    no_management = io.noise_management is NoiseManagementType.NONE
    inf = np.float32(np.inf)
    return fast_io.IO(
        is_perfect=perfect,
        noise_management=_NOISE_MANAGEMENT.get(io.noise_management, fast_io.NONE),
        nm_thres=_f(0.0 if no_management else io.nm_thres),
        bound_management=forward and io.bound_management is BoundManagementType.ITERATIVE,
        inp_bound=_f(io.inp_bound) if io.inp_bound > 0.0 else inf,
        inp_res=_step_of(io.inp_res, io.inp_bound),
        inp_noise=_f(io.inp_noise),
        out_bound=_f(io.out_bound) if io.out_bound > 0.0 else inf,
        out_noise=_f(io.out_noise),
        out_res=_step_of(io.out_res, io.out_bound),
        out_scale=_f(io.out_scale),
        max_bm_factor=int(io.max_bm_factor),
        max_bm_res=_f(io.max_bm_res),
    )


def _train(update: Any, granularity: np.float32) -> Train:
    return Train(
        granularity=granularity,
        desired_bl=int(update.desired_bl),
        fixed_bl=bool(update.fixed_bl),
        update_management=bool(update.update_management or update.update_bl_management),
        update_bl_management=bool(update.update_bl_management),
        um_grad_scale=_f(update.um_grad_scale),
    )


def _device(device: Any, dw_min: float, granularity: np.float32) -> Device:
    known = device_class(device)
    assert known is not None
    write_noise = getattr(device, "write_noise_std", 0.0)
    is_exp = known.response == layout.EXP
    exponential = {
        name: _f(getattr(device, name) if is_exp else 0.0)
        for name in (
            "A_up", "A_down", "gamma_up", "gamma_down", "a", "b", "dw_min_std_add",
            "dw_min_std_slope",
        )
    }  # fmt: skip
    return Device(
        granularity=granularity,
        dw_min_std=_f(device.dw_min_std),
        # The noise of a constant step is the same either way.
        mult_noise=bool(getattr(device, "mult_noise", True)),
        write_noise=_f(_f(write_noise) * _f(dw_min)) if write_noise > 0 else _f(0),
        response=known.response,
        nodes=len(getattr(device, "piecewise_up", (1,))),
        **exponential,
    )


def curves_of(compound_devices: Sequence[Any]) -> layout.Array:
    """Collect the steps along the range of the first two devices, ``[2, 2, nodes]``.

    The value at the first node, and what each further one adds to the slope.
    """
    both = [
        (getattr(d, "piecewise_up", [1.0]), getattr(d, "piecewise_down", [1.0]))
        for d in compound_devices[:2]
    ]
    curves = np.zeros((2, 2, max(len(up) for up, _ in both)), np.float32)
    for n, directions in enumerate(both):
        for k, values in enumerate(directions):
            slopes = np.diff(np.asarray(values, np.float64))
            curves[n, k, : len(values)] = [values[0], *np.diff(slopes, prepend=0.0)]
    return curves


def _read(io: Any) -> Read:
    if io.is_perfect or io.mv_type is AnalogMVType.IDEAL:
        return Read(_f(1.0), _f(0.0), _f(0.0), _f(np.inf), _f(io.out_scale))
    # The read sends an input of 1 through the converter of the inputs.
    given, inp_res = _f(1.0), _step_of(io.inp_res, io.inp_bound)
    if inp_res > 0.0:
        given = _f(np.rint(_f(_f(1.0) / inp_res)) * inp_res)
    if io.inp_bound > 0.0:
        given = min(given, _f(io.inp_bound))
    return Read(
        input=given,
        noise=_f(io.out_noise),
        res=_step_of(io.out_res, io.out_bound),
        bound=_f(io.out_bound if io.out_bound > 0.0 else np.inf),
        scale=_f(io.out_scale),
    )


def _buffer(c: Any, in_size: int, fast: np.float32, slow: np.float32) -> tuple[np.float32, ...]:
    """Compute the buffer's granularity and threshold."""
    if not isinstance(c, ChoppedTransferCompound):
        return _f(1.0), _f(_f(c.thres_scale) * slow)
    scale, every = _f(c.buffer_granularity if c.buffer_granularity > 0.0 else 1.0), c.transfer_every
    if c.auto_granularity > 0.0 and every > 0.0:  # without transfers it has no meaning
        period = _f(_f(in_size) * _f(every))
        return _f(scale * _f(_f(fast * _f(c.auto_granularity)) / period)), _f(1.0)
    return _f(scale * fast), _f(1.0)


def spec_of(rpu_config: Any, in_size: int, dw_min: tuple[float, float]) -> Spec:
    """Collect the update's numbers for a tile of ``in_size`` columns with these ``dw_min``."""
    c, up = rpu_config.device, rpu_config.update
    a, s = (plain_device(device) for device in c.unit_cell_devices[:2])
    chopped, dynamic = (
        isinstance(c, kind) for kind in (ChoppedTransferCompound, DynamicTransferCompound)
    )
    g_fast, g_slow = granularity_of(a, dw_min[0]), granularity_of(s, dw_min[1])
    buffer, threshold = _buffer(c, in_size, g_fast, g_slow)
    return Spec(
        train=_train(up, _f(_f(g_fast + g_slow) / _f(2.0))),
        res=_f(max(up.res, 0.0)),
        sto_round=bool(up.sto_round),
        auto_scale=bool(chopped and c.auto_scale),
        auto_momentum=_f(c.auto_momentum if chopped else 0.0),
        fast_lr=_f(c.fast_lr),
        scale_fast_lr=bool(getattr(c, "scale_fast_lr", False)),
        fast=_device(a, dw_min[0], g_fast),
        transfer_every=_f(c.transfer_every),
        units_in_mbatch=bool(c.units_in_mbatch),
        transfer_lr=_f(c.transfer_lr),
        scale_transfer_lr=bool(c.scale_transfer_lr),
        read=_read(c.transfer_forward),
        buffer_granularity=buffer,
        threshold=threshold,
        correct_gradient_magnitudes=bool(chopped and c.correct_gradient_magnitudes),
        no_buffer=bool(chopped and not dynamic and c.no_buffer),
        forget_buffer=bool(c.forget_buffer),
        momentum=_f(c.momentum),
        in_chop_prob=_f(c.in_chop_prob if chopped else 0.0),
        in_chop_random=bool(chopped and c.in_chop_random),
        out_chop_prob=_f(c.out_chop_prob if chopped else 0.0),
        step=_f(c.step),
        transfer_train=_train(c.transfer_update, g_slow),
        slow=_device(s, dw_min[1], g_slow),
        dynamic=dynamic,
        tail_weightening=_f(c.tail_weightening if dynamic else 1.0),
        buffer_cap=_f(c.buffer_cap if dynamic else 0.0),
        correct_accumulation=bool(dynamic and c.experimental_correct_accumulation),
    )


def draw_of(device: Any) -> Draw:
    """Collect what a device's cells are drawn from."""
    known = device_class(device)
    assert known is not None
    soft = known.kind is SoftBoundsDevice  # aihwkit's linear step with these numbers
    fixed: dict[str, Any] = {
        "kind": known.drawn,
        "n_estimation_steps": int(getattr(device, "n_estimation_steps", -1)),
    }
    if soft:
        fixed |= {"gamma_up": _f(1.0), "gamma_down": _f(1.0), "mean_bound_reference": False}
    values: dict[str, Any] = {
        name: (bool if kind is bool else _f)(getattr(device, name, 0.0))
        for name, kind in get_type_hints(Draw).items()
        if name not in fixed
    }
    return Draw(**values, **fixed)


def granularity_of(device: Any, dw_min: float) -> np.float32:
    """Compute a device's mean step at a weight of 0, which trains and buffers are measured in."""
    bindings = device.as_bindings(RPUDataType.FLOAT)
    bindings.dw_min = dw_min
    return _f(bindings.calc_weight_granularity())


def plain_device(device: Any) -> Any:
    """Find the device that aihwkit simulates for ``device``, derived numbers filled in."""
    if isinstance(device, SoftBoundsPmaxDevice):
        bindings = device.as_bindings(RPUDataType.FLOAT)
        copy = deepcopy(device)
        for name in ("w_max", "w_min", "dw_min", "up_down"):
            setattr(copy, name, getattr(bindings, name))
        return copy
    return device
