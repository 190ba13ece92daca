"""Every parameter of aihwkit's reaches the fast engine's numbers or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aihwkit.exceptions import ConfigError
from aihwkit.simulator.configs.devices import SoftBoundsDevice

from analogtl.config import catalog
from analogtl.config.arrays import Analog
from analogtl.config.parameters import PARAMETERS_OF
from analogtl.crossbar.rpu_config import build_rpu_config
from analogtl.errors import ExperimentError
from analogtl.fastsim import FastTile, fast_rpu_config, unsupported_reason
from analogtl.fastsim.cases import compound_config
from analogtl.vocabulary import Algorithm

PRESET = "ReRamArrayHfO2PresetDevice"
# Table -> what has no effect by itself in aihwkit either; [analog.mapping] is aihwkit's own work.
# The details of a non-ideality that is off (and refused where it is on), ...
DETAILS = {"ir_drop_g_ratio", "out_nonlinearity_std", "slope_calibration", "v_offset_w_min"}
DETAILS |= {"w_noise", "w_noise_type"}
PULSES = {"x_res_implicit", "d_res_implicit", "update_management"}
IDLE = {
    "forward": DETAILS,
    # ... bound management, which only a forward pass has, ...
    "backward": DETAILS | {"bound_management", "bm_test_negative_bound"},
    # ... and both managements of the reads of A, which are off; they send an input of 1, which no
    # resolution changes.
    "transfer_forward": DETAILS
    | {"bound_management", "bm_test_negative_bound", "max_bm_factor", "max_bm_res"}
    | {"noise_management", "nm_thres", "inp_res"},
    # Implicit pulses are refused; the management of train lengths brings that of the update.
    "update": PULSES,
    "transfer_update": PULSES | {"update_bl_management"},
    # Details again, and the noise of a reset, which is drawn when a column is reset.
    "device": {"corrupt_devices_range", "diffusion_dtod", "lifetime_dtod", "reset_std"},
    "compound": {"no_buffer"},  # AGAD has one always
}
IDLE["slow_device"] = IDLE["device"]


def parameters(table: str, algorithm: Algorithm) -> dict[str, Any]:
    if table == "compound":
        return catalog.compound_parameters(algorithm)
    if table in PARAMETERS_OF:
        return dict(catalog.catalog()[PARAMETERS_OF[table][0]])
    return catalog.device_parameters(PRESET)


def values(default: Any) -> list[Any]:
    """Some values of a parameter; one of them at least is not the one that it has."""
    if isinstance(default, dict):
        return list(default["enum"])
    if isinstance(default, bool):
        return [True, False]
    if isinstance(default, list):
        return [[0.5]]
    return [default * 0.5 if default else 0.3, default + 1, default - 1]


def numbers(analog: Analog) -> Any:
    """All that a tile computes with; the reason if the engine refuses."""
    config = build_rpu_config(analog, construction_seed=3)
    if reason := unsupported_reason(config):
        return reason
    tile = FastTile(5, 4, fast_rpu_config(config, seed=1))
    hidden = {name: value.numpy().tobytes() for name, value in tile.get_hidden_parameters().items()}
    inner = tile.tile
    on_set = [
        getattr(device, "apply_write_noise_on_set", None) for device in inner.devices.values()
    ]
    return (
        inner.spec,
        inner.forward_io,
        inner.backward_io,
        hidden,
        [bias.tolist() for bias in inner.reset_bias().values()],
        inner.cells.curves.tolist(),
        on_set,
        inner.planes.size,
    )


def changed(algorithm: Algorithm, table: str, name: str, default: Any) -> Iterator[Any]:
    for value in values(default):
        try:
            analog = Analog(algorithm=algorithm, granularity_per_token=0, **{table: {name: value}})
            yield numbers(analog)
        except (ValueError, ExperimentError):  # no value for it, or not in this aihwkit
            continue


@pytest.mark.parametrize("table", IDLE)
@pytest.mark.parametrize("algorithm", [Algorithm.C_TTV2, Algorithm.AGAD])
def test_no_parameter_is_read_and_then_not_used(algorithm, table):
    base = numbers(Analog(algorithm=algorithm, granularity_per_token=0))
    idle = set()
    for name, default in parameters(table, algorithm).items():
        found = list(changed(algorithm, table, name, default))
        if found and all(one == base for one in found):
            idle.add(name)
    assert idle <= IDLE[table]


DEVICES = {
    "ConstantStepDevice": set(),
    # Where steps may not grow towards the bounds, that they may changes nothing by itself; and how
    # far beyond a bound they would vanish matters for reversed steps alone.
    "EcRamPresetDevice": {"allow_increasing", "reverse_offset"},
    "SoftBoundsDevice": {"reverse_offset"},
    "ReRamESPresetDevice": set(),
    "PowStepDevice": set(),
    # Steps of the search for the symmetry point, which is not subtracted.
    "PowStepReferenceDevice": {"n_estimation_steps"},
    "PiecewiseStepDevice": set(),
}


@pytest.mark.parametrize("preset", DEVICES)
def test_no_parameter_of_a_device_class_is_read_and_then_not_used(preset):
    def of(**own: Any) -> Any:
        device = {"preset": preset, **own}
        return numbers(Analog(granularity_per_token=0, device=device))

    base, idle = of(), set()
    assert not isinstance(base, str)
    for name, default in catalog.device_parameters(preset).items():
        found = []
        for value in values(default):
            try:
                found.append(of(**{name: value}))
            except (ValueError, ExperimentError, ConfigError):  # no value for it
                continue
        if found and all(one == base for one in found):
            idle.add(name)
    # Their spreads are small: no cell of these tiles is inconsistent.
    assert idle <= IDLE["device"] | DEVICES[preset] | {"enforce_consistency"}


# -- what is refused, each by itself and by a little ----------------------------------------------

STOCK_ONLY = (
    "inp_asymmetry", "out_asymmetry", "out_noise_std", "ir_drop", "out_nonlinearity",
    "v_offset_std", "r_series", "w_read_asymmetry_dtod",
)  # fmt: skip
PASSES = ("forward", "backward", "device.transfer_forward")
ALONE: list[tuple[str, Any]] = [
    *((f"{one}.{name}", 0.01) for one in PASSES for name in STOCK_ONLY),
    *((f"{one}.{name}", True) for one in PASSES for name in ("inp_sto_round", "out_sto_round")),
    ("forward.bm_test_negative_bound", False),
    ("update.d_sparsity", True),
    ("update.desired_bl", 1001),
    ("device.transfer_update.desired_bl", 1001),
    ("device.transfer_update.desired_bl", 0),
    ("device.transfer_update.sto_round", True),
    ("device.transfer_update.res", 0.01),
    ("device.transfer_forward.inp_noise", 0.01),
    ("device.gamma_vec", [1.0, 0.0]),
    ("device.n_reads_per_transfer", 2),
    ("device.transfer_every_vec", [1.0, 1.0]),
    ("device.transfer_lr_vec", [1.0, 1.0]),
    ("device.transfer_every", -0.01),
    ("device.with_reset_prob", 0.01),
    *(
        (f"device.unit_cell_devices.{array}.{name}", value)
        for array in (0, 1)
        for name, value in {
            "drift.nu": 0.01, "drift.nu_std": 0.01, "drift.nu_dtod": 0.01,
            "w_min": 0.01, "w_max": -0.01, "dw_min": 0.0,
        }.items()
    ),
]  # fmt: skip
ALLOWED: list[tuple[str, Any]] = [
    ("update.desired_bl", 1000),
    ("device.transfer_update.desired_bl", 1),
    ("device.transfer_every", 0.0),
    ("device.gamma", 0.01),
    ("device.gamma_vec", [0.0, 0.5]),
    ("backward.bm_test_negative_bound", False),
    ("device.unit_cell_devices.0.lifetime", 0.01),
    ("device.unit_cell_devices.1.diffusion", 0.01),
    ("device.unit_cell_devices.0.reverse_up", True),
    ("device.unit_cell_devices.1.reverse_down", True),
    ("device.unit_cell_devices.0.w_min", 0.0),
    ("device.unit_cell_devices.1.count_pulses", True),
    ("device.unit_cell_devices.1.w_max", 0.0),
]


def with_value(path: str, value: Any) -> Any:
    config = compound_config(SoftBoundsDevice)
    *where, name = path.split(".")
    target: Any = config
    for part in where:
        target = target[int(part)] if part.isdigit() else getattr(target, part)
    assert hasattr(target, name)
    setattr(target, name, value)
    return config


@pytest.mark.parametrize(("path", "value"), ALONE)
def test_a_little_of_what_is_not_covered_is_refused(path, value):
    assert unsupported_reason(with_value(path, value))


@pytest.mark.parametrize(("path", "value"), ALLOWED)
def test_the_last_value_that_is_covered_is_not(path, value):
    assert unsupported_reason(with_value(path, value)) is None


@pytest.mark.parametrize("granularity", [0.25, 0.5, 2.0])
def test_every_granularity_of_the_buffer_counts(granularity):
    def buffer(**compound):
        return numbers(Analog(granularity_per_token=0, compound=compound))[0].buffer_granularity

    one = buffer(buffer_granularity=1.0)
    assert buffer(buffer_granularity=granularity) == pytest.approx(granularity * one)
    assert buffer(buffer_granularity=0.0) == one
    # of the array's 4 columns, each read every second vector
    wide = buffer(buffer_granularity=granularity, auto_granularity=80.0, transfer_every=2.0)
    assert wide == pytest.approx(granularity * one * 80 / (4 * 2))
