"""The configurations in which the fast engine is compared with aihwkit's own tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aihwkit.simulator.configs.compounds import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    TransferCompound,
)
from aihwkit.simulator.configs.configs import (
    DigitalRankUpdateRPUConfig,
    SingleRPUConfig,
    UnitCellRPUConfig,
)
from aihwkit.simulator.configs.devices import (
    LinearStepDevice,
    PiecewiseStepDevice,
    PowStepDevice,
    PowStepReferenceDevice,
    SoftBoundsDevice,
)
from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.parameters.training import UpdateParameters
from aihwkit.simulator.presets.devices import (
    CapacitorPresetDevice,
    EcRamMOPresetDevice,
    EcRamPresetDevice,
    GokmenVlasovPresetDevice,
    IdealizedPresetDevice,
    PCMPresetDevice,
    ReRamArrayHfO2PresetDevice,
    ReRamArrayOMPresetDevice,
    ReRamESPresetDevice,
    ReRamSBPresetDevice,
)
from aihwkit.simulator.presets.utils import PresetIOParameters, PresetUpdateParameters

from analogtl.fastsim.config import GAMMA_IS_CHOPPED


@dataclass(frozen=True)
class Case:
    """A configuration to compare.

    Attributes:
        about: What it tests.
        make: Makes the configuration.
        lr: The learning rate.
        batches: Number of calls of the update.
        vectors: Input vectors in a call.
        signs: Whether all inputs and gradients are 1 or -1. Every vector then pulses every cell,
            and what varies is the noise alone.
        ageing: Whether the weights decay and diffuse after each call, as the optimizer has it for
            devices with a lifetime or diffusion.
    """

    about: str
    make: Callable[[], Any]
    lr: float = 0.1
    batches: int = 6
    vectors: int = 40
    signs: bool = False
    ageing: bool = False


def compound_config(
    device: Any = ReRamArrayHfO2PresetDevice,
    slow_device: Any = None,
    compound: Any = ChoppedTransferCompound,
    update: UpdateParameters | None = None,
    transfer_update: UpdateParameters | None = None,
    write_noise_on_set: bool = False,
    **settings: Any,
) -> UnitCellRPUConfig:
    """Make a c-TTv2 configuration with preset periphery in which the weights of C move often.

    Args:
        device: Device class of both arrays, or of A.
        slow_device: Device class of C, if it is another.
        compound: Compound class.
        update: Pulse trains onto A (default: up to 5 pulses).
        transfer_update: Pulse trains onto C (default: one pulse).
        write_noise_on_set: The devices' ``apply_write_noise_on_set``.
        **settings: Parameters of the compound.
    """
    values: dict[str, Any] = {"transfer_every": 1.0, "fast_lr": 0.1, "transfer_lr": 10.0}
    if compound not in (TransferCompound, BufferedTransferCompound):
        values |= {"in_chop_prob": 0.1, "auto_scale": True, "units_in_mbatch": False}
    values |= {"transfer_forward": PresetIOParameters()} | settings
    return UnitCellRPUConfig(
        device=compound(
            unit_cell_devices=[
                _device(make, write_noise_on_set) for make in (device, slow_device or device)
            ],
            construction_seed=97,
            transfer_update=transfer_update or _unmanaged(1, PresetUpdateParameters),
            **values,
        ),
        forward=PresetIOParameters(),
        backward=PresetIOParameters(),
        update=update or PresetUpdateParameters(desired_bl=5),
    )


def single_config(
    device: Any = ReRamArrayHfO2PresetDevice, update: UpdateParameters | None = None
) -> SingleRPUConfig:
    """Make a configuration with one array that gets the gradient's pulses itself."""
    made = _device(device, write_noise_on_set=False)
    made.construction_seed = 97
    return SingleRPUConfig(
        device=made,
        forward=PresetIOParameters(),
        backward=PresetIOParameters(),
        update=update or PresetUpdateParameters(desired_bl=31),
    )


def mixed_config(
    device: Any = ReRamArrayHfO2PresetDevice,
    update: UpdateParameters | None = None,
    **settings: Any,
) -> DigitalRankUpdateRPUConfig:
    """Make a configuration of mixed precision; ``settings``: parameters of its compound."""
    made = _device(device, write_noise_on_set=False)
    return DigitalRankUpdateRPUConfig(
        device=MixedPrecisionCompound(device=made, construction_seed=97, **settings),
        forward=PresetIOParameters(),
        backward=PresetIOParameters(),
        update=update or PresetUpdateParameters(desired_bl=31),
    )


def _device(make: Any, write_noise_on_set: bool) -> Any:
    device = make()
    if hasattr(device, "apply_write_noise_on_set"):  # of the classes that have write noise
        device.apply_write_noise_on_set = write_noise_on_set
    return device


def _unmanaged(length: int, kind: Any = UpdateParameters, **values: Any) -> UpdateParameters:
    """Make pulse trains of one length, without update management."""
    made: UpdateParameters = kind(
        desired_bl=length, update_bl_management=False, update_management=False, **values
    )
    return made


def _soft_bounds(**values: Any) -> SoftBoundsDevice:
    return SoftBoundsDevice(dw_min=0.05, write_noise_std=0.5, **values)


def _additive(**values: Any) -> SoftBoundsDevice:
    return _soft_bounds(mult_noise=False, **values)


def _quiet(**values: Any) -> SoftBoundsDevice:
    return SoftBoundsDevice(dw_min=0.05, dw_min_std=0.01, mult_noise=False, **values)


def _certain_pulses(device: Any, **settings: Any) -> UnitCellRPUConfig:
    """Vectors of 1 and -1 give every cell one pulse each (but for one in a thousand)."""
    devices = device(), settings.get("slow_device", device)()
    rate = 0.999 * (devices[0].dw_min + devices[1].dw_min) / 2
    return compound_config(device, auto_scale=False, fast_lr=rate, in_chop_prob=0.0, **settings)


def _case(about: str, settings: dict[str, Any], **own: Any) -> Case:
    """Make a case with these settings of `compound_config`."""
    make = _certain_pulses if own.get("signs") else compound_config
    return Case(about, lambda: make(**settings), **own)


def _lives_shortly(**values: Any) -> LinearStepDevice:
    return LinearStepDevice(
        dw_min=0.05, lifetime=20.0, lifetime_dtod=0.3, reset=0.1, write_noise_std=0.5, **values
    )


def _device_case(
    about: str, device: Any, transfer_lr: float, ageing: bool = False, **settings: Any
) -> Case:
    """Make a case in which both arrays are driven hard enough for a device of many small steps."""
    driven = {"device": device, "fast_lr": 0.5, "update": _LONG, "transfer_lr": transfer_lr}
    return _case(about, {**driven, "transfer_update": _FIVE} | settings, ageing=ageing)


def _tiki_taka(device: Any = ReRamArrayHfO2PresetDevice, **settings: Any) -> UnitCellRPUConfig:
    """Make a configuration of Tiki-Taka in which the pulses onto C are neither none nor all."""
    own = {"transfer_lr": 1.0, "units_in_mbatch": False, "transfer_update": _FIVE} | settings
    return compound_config(device, compound=TransferCompound, **own)


_LONG = PresetUpdateParameters(desired_bl=31)
_FIVE = PresetUpdateParameters(desired_bl=5)
_HFO2 = ReRamArrayHfO2PresetDevice

CASES: dict[str, Case] = {
    "HfO2": _case("c-TTv2 as in the paper, HfO2", {}),
    "OM": _case("the same, OM device", {"device": ReRamArrayOMPresetDevice}),
    "SB": _case(
        "the same, SB device (many small steps, much write noise)",
        {"device": ReRamSBPresetDevice, "fast_lr": 0.5, "transfer_lr": 0.05},
    ),
    "choppers": _case(
        "regular input choppers, output choppers",
        {"in_chop_prob": 0.4, "in_chop_random": False, "out_chop_prob": 0.3},
    ),
    "transfer_bl": _case(
        "up to 5 pulses onto C, buffer kept, momentum",
        {
            "transfer_update": PresetUpdateParameters(desired_bl=5),
            "transfer_lr": 20.0,
            "forget_buffer": False,
            "momentum": 0.3,
        },
    ),
    "every": _case(
        "a read every 3 vectors, multiplicative noise, buffer with momentum",
        {"device": _soft_bounds, "transfer_every": 3, "momentum": 0.2, "fast_lr": 0.5},
    ),
    "AGAD": _case(
        "DynamicTransferCompound",
        {"compound": DynamicTransferCompound, "in_chop_prob": 0.4, "transfer_lr": 20.0},
    ),
    "TTv2": _case(
        "BufferedTransferCompound",
        {"compound": BufferedTransferCompound, "units_in_mbatch": False, "fast_lr": 0.5},
        lr=0.3,
    ),
    "noise": _case(
        "pulse and write noise of A, with certain pulses",
        {"device": _HFO2, "transfer_lr": 0.01},
        signs=True,
    ),
    "slow_noise": _case(
        "pulse and write noise of C, which is another device than A, after perfect reads",
        {
            "device": _quiet,
            "slow_device": _HFO2,
            "transfer_lr": 1e3,
            "transfer_forward": IOParameters(is_perfect=True),
        },
        signs=True,
    ),
    "read_noise": _case(
        "noise of the read, with certain pulses and little other noise",
        {"device": _quiet, "slow_device": _HFO2, "transfer_lr": 1e-3},
        signs=True,
    ),
    # options of the update onto A
    "plain_lr": _case(
        "no auto_scale, the SGD learning rate on A", {"auto_scale": False, "fast_lr": 0.0}
    ),
    "mbatch": _case(
        "transfer_every in mini-batches",
        {"transfer_every": 0.1, "units_in_mbatch": True, "transfer_lr": 20.0},
    ),
    "magnitudes": _case(
        "correct_gradient_magnitudes, auto_granularity",
        {"correct_gradient_magnitudes": True, "auto_granularity": 100, "transfer_lr": 1.0},
    ),
    "no_buffer": _case("no_buffer", {"no_buffer": True, "transfer_lr": 20.0}),
    "long_trains": _case(
        "long pulse trains, some at their limit",
        {"device": _additive, "fast_lr": 0.8, "update": _LONG, "transfer_lr": 0.5},
    ),
    "rare_reads": _case(
        "so many pulses between two reads that the history must be cleared in between",
        {
            "device": _additive,
            "fast_lr": 0.8,
            "update": _LONG,
            "transfer_every": 10,
            "transfer_lr": 1.0,
        },
    ),
    "one_call": _case("all vectors in one call", {}, batches=1, vectors=1100),
    "fixed_trains": _case(
        "no update management, trains of free length",
        {
            "device": _additive,
            "auto_scale": False,
            "transfer_lr": 0.5,
            "fast_lr": 0.06,
            "update": _unmanaged(3, fixed_bl=False),
        },
    ),
    "resolution": _case(
        "discretised pulse probabilities, stochastic rounding, gradient scale",
        {
            "update": UpdateParameters(
                desired_bl=7,
                res=0.15,
                sto_round=True,
                um_grad_scale=0.6,
                update_bl_management=False,
            )
        },
    ),
    "transfer_train": _case(
        "pulse trains of 4 onto C without management, steps of 0.7",
        {"transfer_update": _unmanaged(4), "transfer_lr": 20.0, "step": 0.7},
    ),
    "write_on_set": _case("write noise when weights are set", {"write_noise_on_set": True}),
    "AGAD_random": _case(
        "DynamicTransferCompound, random choppers, buffer kept and capped",
        {
            "compound": DynamicTransferCompound,
            "in_chop_prob": 0.3,
            "in_chop_random": True,
            "forget_buffer": False,
            "buffer_cap": 0.5,
            "transfer_lr": 20.0,
            "experimental_correct_accumulation": True,
        },
    ),
    "perfect_read": _case(
        "a perfect read of A, output choppers at random",
        {
            "out_chop_prob": 0.5,
            "transfer_forward": IOParameters(is_perfect=True, out_scale=0.7),
        },
    ),
    # device classes
    "Idealized": _device_case("constant steps", IdealizedPresetDevice, 0.005),
    "GokmenVlasov": _device_case("constant steps", GokmenVlasovPresetDevice, 0.03),
    "EcRam": _device_case("linear steps", EcRamPresetDevice, 0.03),
    "EcRamMO": _device_case("linear steps, much pulse noise", EcRamMOPresetDevice, 0.01),
    "Capacitor": _device_case("linear steps, additive noise", CapacitorPresetDevice, 0.1),
    "ReRamES": _device_case("exponential steps, write noise", ReRamESPresetDevice, 0.05),
    "PCM": _device_case(
        "exponential steps, noise that depends on the weight", PCMPresetDevice, 0.2
    ),
    "pow": _device_case(
        "power steps",
        partial(PowStepDevice, dw_min=0.02, pow_gamma=1.7, pow_up_down=0.2, write_noise_std=0.5),
        0.3,
    ),
    "pow_reference": _device_case(
        "power steps with a reference",
        partial(
            PowStepReferenceDevice,
            dw_min=0.02,
            pow_gamma=0.8,
            reference_std=0.05,
            w_max=1,
            w_min=-1,
        ),
        0.3,
    ),
    "piecewise": _device_case(
        "piecewise steps",
        partial(
            PiecewiseStepDevice,
            dw_min=0.02,
            piecewise_up=[1.5, 1.0, 0.4, 0.1],
            piecewise_down=[0.2, 0.7, 1.0, 1.1],
            write_noise_std=0.5,
        ),
        0.3,
    ),
    "reverse": _device_case(
        "soft bounds whose steps grow towards the bounds",
        partial(SoftBoundsDevice, dw_min=0.02, reverse_up=True, reverse_down=True),
        0.3,
    ),
    "two_devices": _device_case(
        "A of soft bounds, C of power steps",
        _soft_bounds,
        0.5,
        slow_device=partial(PowStepDevice, dw_min=0.05, write_noise_std=0.3),
    ),
    "corrupt": _device_case(
        "cells without a range among exponential steps",
        partial(ReRamESPresetDevice, corrupt_devices_prob=0.3, corrupt_devices_range=0.2),
        0.05,
    ),
    "decay": _device_case("decay after each call, write noise", _lives_shortly, 0.5, ageing=True),
    "diffusion": _device_case(
        "diffusion after each call, of soft bounds",
        partial(_soft_bounds, diffusion=0.03, diffusion_dtod=0.3),
        0.5,
        ageing=True,
    ),
    # single arrays, Tiki-Taka, mixed precision
    "SGD": Case("pulsed SGD", single_config, lr=0.1),
    "SGD_exponential": Case(
        "pulsed SGD, exponential steps, write noise",
        partial(single_config, ReRamESPresetDevice),
        lr=0.02,
    ),
    "SGD_resolution": Case(
        "pulsed SGD, discretised pulse probabilities, additive noise, long calls",
        partial(
            single_config,
            _additive,
            UpdateParameters(desired_bl=7, res=0.15, sto_round=True, update_bl_management=False),
        ),
        lr=0.03,
        batches=3,
        vectors=300,
    ),
    "SGD_ageing": Case(
        "pulsed SGD, free trains, decay and diffusion after each call",
        partial(
            single_config,
            partial(_lives_shortly, diffusion=0.02, w_max_dtod=0.0, w_min_dtod=0.0),
            _unmanaged(3, fixed_bl=False),
        ),
        lr=0.05,
        ageing=True,
    ),
    "TT": Case("Tiki-Taka", _tiki_taka),
    "TT_idle": Case(
        "Tiki-Taka, of whose reads the noise is the most", partial(_tiki_taka, fast_lr=0.003)
    ),
    "TT_power": Case(
        "Tiki-Taka, power steps, the learning rate of SGD on A, 3 reads per transfer",
        partial(
            _tiki_taka,
            partial(PowStepDevice, dw_min=0.05, pow_gamma=1.7, write_noise_std=0.5),
            fast_lr=0.0,
            n_reads_per_transfer=3,
            transfer_every=2,
            scale_transfer_lr=False,
        ),
    ),
    "MP": Case("mixed precision", mixed_config, lr=0.1, vectors=20),
    "MP_exponential": Case(
        "mixed precision, exponential steps, write noise, several pulses a step",
        partial(mixed_config, ReRamESPresetDevice, granularity=0.03, transfer_lr=1.5),
        lr=0.005,
        vectors=20,
    ),
    "MP_bins": Case(
        "mixed precision, inputs and gradients in bins, some rows at random",
        partial(
            mixed_config,
            _soft_bounds,
            n_x_bins=6,
            n_d_bins=4,
            n_rows_per_transfer=9,
            random_row=True,
        ),
        lr=0.02,
        vectors=20,
    ),
    # A in the products
    "gamma": _case("the products see C + 0.3 A", {"gamma": 0.3}),
    "gamma_vec": _device_case(
        "AGAD, the products see 0.7 C + 0.5 A, power steps",
        partial(PowStepDevice, dw_min=0.02, pow_gamma=1.7, write_noise_std=0.5),
        0.3,
        compound=DynamicTransferCompound,
        in_chop_prob=0.4,
        gamma_vec=[0.5, 0.7],
    ),
    "TTv2_gamma": _case(
        "TTv2, the products see C + 0.5 A",
        {
            "compound": BufferedTransferCompound,
            "units_in_mbatch": False,
            "fast_lr": 0.5,
            "gamma": 0.5,
        },
        lr=0.3,
    ),
    "TT_gamma": Case(
        "Tiki-Taka, the products see C + 0.3 A, write noise",
        partial(_tiki_taka, gamma=0.3, write_noise_on_set=True),
    ),
}
if GAMMA_IS_CHOPPED:  # refused: see there
    del CASES["gamma"], CASES["gamma_vec"]
BASIC = (
    *("HfO2", "OM", "SB", "choppers", "transfer_bl", "AGAD", "TTv2", "SGD", "TT", "MP"),
    *("TTv2_gamma", "noise", "slow_noise", "read_noise"),
)
"""The cases that ``equivalence.check`` runs unless told otherwise."""

PERIPHERIES = {
    "preset converters": PresetIOParameters(),
    "bound management": PresetIOParameters(out_bound=1.5, out_noise=0.05),
    "input noise, no output converter": IOParameters(inp_noise=0.05, out_res=-1.0, out_bound=0.0),
    "constant scale that clips": IOParameters(
        noise_management=NoiseManagementType.CONSTANT,
        nm_thres=1.5,
        bound_management=BoundManagementType.NONE,
    ),
}
