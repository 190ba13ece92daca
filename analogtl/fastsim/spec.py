"""The numbers of a configuration as the engine takes them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from aihwkit.simulator.configs.compounds import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    TransferCompound,
)
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
    RPUDataType,
)

from analogtl.fastsim import devices, layout
from analogtl.fastsim import periphery as fast_io
from analogtl.fastsim.devices import Draw
from analogtl.fastsim.layout import A, C, Device, Read, Spec, Train
from analogtl.fastsim.rules.compound import RuleCompound

NOISE_MANAGEMENT = {
    NoiseManagementType.NONE: fast_io.NONE,
    NoiseManagementType.ABS_MAX: fast_io.ABS_MAX,
    NoiseManagementType.MAX: fast_io.MAX,
    NoiseManagementType.CONSTANT: fast_io.CONSTANT,
}
TRANSFERS = (
    RuleCompound,
    TransferCompound,
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
)


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


def devices_of(compound: Any) -> dict[int, Any]:
    """Find the devices of the arrays A and C (of a rule: of all that it has), by their numbers.

    None, if what they make up is not known.
    """
    if type(compound) in TRANSFERS:
        return dict(enumerate(compound.unit_cell_devices))
    if type(compound) is MixedPrecisionCompound:
        return {A: compound.device}
    return {A: compound} if device_class(compound) else {}


def gammas_of(compound: Any) -> tuple[np.float32, np.float32] | None:
    """What the products see of A and of C; None: C alone, as it is."""
    if type(compound) is MixedPrecisionCompound:
        return None
    if type(compound) not in TRANSFERS:
        return _f(1.0), _f(0.0)
    of_a, of_c = compound.gamma_vec or (compound.gamma, 1.0)
    return None if of_a == 0.0 and of_c == 1.0 else (_f(of_a), _f(of_c))


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
        noise_management=NOISE_MANAGEMENT.get(io.noise_management, fast_io.NONE),
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


def curves_of(devices: Mapping[int, Any]) -> layout.Array:
    """Collect the steps along the range of the devices of A and C, ``[2, 2, nodes]``.

    The value at the first node, and what each further one adds to the slope.
    """
    curved = {
        n: (getattr(d, "piecewise_up", [1.0]), getattr(d, "piecewise_down", [1.0]))
        for n, d in devices.items()
        if n in (A, C)
    }
    curves = np.zeros((2, 2, max(len(up) for up, _ in curved.values())), np.float32)
    for n, directions in curved.items():
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
    if type(c) not in TRANSFERS or type(c) is TransferCompound:
        return _f(1.0), _f(1.0)
    if not isinstance(c, ChoppedTransferCompound):
        return _f(1.0), _f(_f(c.thres_scale) * slow)
    scale, every = _f(c.buffer_granularity if c.buffer_granularity > 0.0 else 1.0), c.transfer_every
    if c.auto_granularity > 0.0 and every > 0.0:  # without transfers it has no meaning
        period = _f(_f(in_size) * _f(every))
        return _f(scale * _f(_f(fast * _f(c.auto_granularity)) / period)), _f(1.0)
    return _f(scale * fast), _f(1.0)


def spec_of(rpu_config: Any, in_size: int, dw_min: Mapping[int, float]) -> Spec:
    """Collect the update's numbers for a tile of ``in_size`` columns with these ``dw_min``."""
    c, up = rpu_config.device, rpu_config.update
    found = {n: plain_device(device) for n, device in devices_of(c).items()}
    first = next(iter(found))  # takes the place of the array that is not there
    a, s = (found.get(n, found[first]) for n in (A, C))
    min_a, min_s = (dw_min.get(n, dw_min[first]) for n in (A, C))
    transfer, chopped, dynamic = (
        isinstance(c, kind)
        for kind in (TransferCompound, ChoppedTransferCompound, DynamicTransferCompound)
    )
    buffered = transfer and type(c) is not TransferCompound
    g_fast, g_slow = granularity_of(a, min_a), granularity_of(s, min_s)
    buffer, threshold = _buffer(c, in_size, g_fast, g_slow)
    # Trains of mixed precision are always managed; those onto C alone are measured in its steps.
    managed = replace(up, update_management=True, update_bl_management=True)
    write = c.transfer_update if transfer else managed
    transfer_lr, gammas = _f(c.transfer_lr if transfer else 0.0), gammas_of(c)
    if buffered and gammas is not None and min(gammas) > 0.0:
        transfer_lr = _f(transfer_lr * _f(gammas[A] / gammas[C]))
    return Spec(
        train=_train(up, _f(_f(g_fast + g_slow) / _f(2.0))),
        res=_f(max(up.res, 0.0)),
        sto_round=bool(up.sto_round),
        auto_scale=bool(chopped and c.auto_scale),
        auto_momentum=_f(c.auto_momentum if chopped else 0.0),
        fast_lr=_f(c.fast_lr if transfer else 0.0),
        scale_fast_lr=bool(getattr(c, "scale_fast_lr", False)),
        fast=_device(a, min_a, g_fast),
        transfer_every=_f(c.transfer_every if transfer else 0.0),
        units_in_mbatch=bool(transfer and c.units_in_mbatch),
        transfer_lr=transfer_lr,
        scale_transfer_lr=bool(transfer and c.scale_transfer_lr),
        n_reads_per_transfer=min(int(c.n_reads_per_transfer), in_size) if transfer else 0,
        read=_read(c.transfer_forward if transfer else rpu_config.forward),
        buffer_granularity=buffer,
        threshold=threshold,
        correct_gradient_magnitudes=bool(chopped and c.correct_gradient_magnitudes),
        no_buffer=bool(chopped and not dynamic and c.no_buffer),
        forget_buffer=bool(buffered and c.forget_buffer),
        momentum=_f(c.momentum if buffered else 0.0),
        in_chop_prob=_f(c.in_chop_prob if chopped else 0.0),
        in_chop_random=bool(chopped and c.in_chop_random),
        out_chop_prob=_f(c.out_chop_prob if chopped else 0.0),
        direct=transfer and not buffered,
        step=_f(c.step if buffered else 1.0),
        transfer_train=_train(write, g_slow),
        slow=_device(s, min_s, g_slow),
        dynamic=dynamic,
        tail_weightening=_f(c.tail_weightening if dynamic else 1.0),
        buffer_cap=_f(c.buffer_cap if dynamic else 0.0),
        correct_accumulation=bool(dynamic and c.experimental_correct_accumulation),
    )


_DRAWN = get_type_hints(Draw)


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
        for name, kind in _DRAWN.items()
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
