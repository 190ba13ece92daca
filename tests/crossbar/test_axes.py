"""Every axis and level, read back from tiles that were built with it.

Devices are drawn from fixed seeds: what is said of them has the same outcome at every run. Pulse
noise, write noise and output noise are aihwkit's own, seeded by the clock: each mean and standard
deviation of those may be off by 5.5 standard errors, a false alarm in 4e-8, and below 1e-6 in one
test. aihwkit takes its normal numbers from a list of some 30,000 drawn beforehand, so that n of
them tell no more than n and the list do together.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analogtl.cli.catalogue import KINDS
from analogtl.config.catalog import catalog, device_parameters
from analogtl.config.load import with_settings
from analogtl.config.reference import axes_table
from analogtl.config.schema import Experiment
from analogtl.crossbar import convert as transfer
from analogtl.crossbar.rpu_config import build_rpu_config
from analogtl.errors import ExperimentError
from analogtl.study.trial import trials_of
from analogtl.training.loop import build_optimizer
from analogtl.vocabulary import AXES, NUMBERED, analog_only, key_of, label_of

ALARM = 1e-6
SIGMAS = 5.5
LIST = 20_000  # numbers that aihwkit draws from, at the least
SIZE = 200  # devices a side: 40,000 devices
LEVELS = [(name, level) for name in AXES if name in NUMBERED for level in AXES[name].levels]
# Without spread from device to device: what is left of the device is the axis under test.
EQUAL = {"dw_min_dtod": 0.0, "up_down_dtod": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
QUIET = {**EQUAL, "reference_std": 0.0, "dw_min_std": 0.0, "write_noise_std": 0.0}


def experiment(device: dict[str, Any] | None = None, **analog: Any) -> Experiment:
    return Experiment.model_validate(
        {"name": "axes", "analog": {"device": device or {}, "engine": "aihwkit", **analog}}
    )


def at(base: Experiment, name: str, level: float) -> Experiment:
    """The experiment that a sweep runs at one level."""
    return with_settings(base, {key_of(name): level})


@dataclass
class Array:
    """A layer programmed through the same path as every model's, and its hidden parameters."""

    tile: Any
    hidden: dict[str, np.ndarray]


def build(setup: Experiment, weight_OI: torch.Tensor | None = None, seed: int = 1) -> Array:
    layer = nn.Linear(SIZE, SIZE, bias=False)
    layer.weight.data = torch.zeros(SIZE, SIZE) if weight_OI is None else weight_OI
    conversion = transfer.to_analog(
        nn.Sequential(OrderedDict(layer=layer)),
        setup.analog,
        setup.convert,
        seed=seed,
        example=torch.zeros(1, SIZE),
    )
    tile = next(transfer.analog_tiles(conversion.model))
    hidden = {k: v.numpy().astype(np.float64) for k, v in tile.get_hidden_parameters().items()}
    return Array(tile, hidden)


def follows(sample: np.ndarray, cdf: Any) -> bool:
    """Whether a sample fits a distribution, at a false-alarm rate of ALARM."""
    return bool(stats.kstest(sample.ravel(), cdf).pvalue > ALARM)


def close(measured: float, expected: float, error: float) -> bool:
    return abs(measured - expected) <= SIGMAS * error


def std_close(sample: np.ndarray, expected: float) -> bool:
    """Whether the spread of normal numbers is the expected one, and their mean 0."""
    n = 1 / (1 / sample.size + 1 / LIST)
    return close(float(sample.std()), expected, expected / math.sqrt(2 * n) + 1e-7) and close(
        float(sample.mean()), 0.0, expected / math.sqrt(n) + 1e-7
    )


# -- one check per axis: does a built tile have this level? ----------------------------------------


def has_wtn(level: float) -> bool:
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(SIZE, SIZE, generator=generator) - 0.5
    # A small omega leaves room for the noise within the bounds, so that no device clips it.
    base = experiment({**EQUAL, "reference_std": 0.0}, mapping={"weight_scaling_omega": 0.2})
    array = build(at(base, "wtn", level), weight)
    scale = array.tile.get_scales()
    alpha = 1.0 if scale is None else scale.numpy().reshape(-1, 1)
    added = array.tile.tile.get_weights().numpy() * alpha - weight.numpy()
    return std_close(added, level / 100 * float(weight.abs().max()))


def has_sps(level: float) -> bool:
    array = build(at(experiment(QUIET), "sps", level))
    upper, lower = array.hidden["max_bound_1"], array.hidden["min_bound_1"]
    return np.allclose(upper, 1 - level / 100, atol=1e-6) and np.allclose(lower, -1.0, atol=1e-6)


def has_spv(level: float) -> bool:
    hidden = build(at(experiment({"up_down_dtod": 0.0}), "spv", level)).hidden
    samples = [hidden["reference_0"], hidden["reference_1"]]
    if not level:
        return not any(sample.any() for sample in samples)
    return all(follows(sample, stats.norm(0, 2 * level / 100).cdf) for sample in samples)


def has_dw_min_std(level: float) -> bool:
    fine = {**QUIET, "dw_min": 0.01}  # fine steps from 0 stay clear of the bounds
    steps = pulse_once(at(experiment(fine, algorithm="sgd"), "dw_min_std", level))[0]
    return std_close(steps - 0.01, 0.01 * level)


def has_dw_min_dtod(level: float) -> bool:
    hidden = build(at(experiment(), "dw_min_dtod", level)).hidden
    for number in (0, 1):
        up, down = hidden[f"dwmin_up_{number}"], hidden[f"dwmin_down_{number}"]
        logarithm = np.log((up + down) / 2 / 0.4622)
        if not level:
            if not np.allclose(logarithm, 0, atol=1e-3):
                return False
        elif not follows(logarithm, stats.norm(0, level).cdf):
            return False
    return True


def has_write_noise_std(level: float) -> bool:
    fine = {**QUIET, "dw_min": 0.01}
    apparent, hidden = pulse_once(at(experiment(fine, algorithm="sgd"), "write_noise_std", level))
    if not level:  # then the device has no second, persistent weight
        return np.allclose(apparent, 0.01, atol=1e-6)
    persistent = hidden["persistent_weights"]
    return np.allclose(persistent, 0.01, atol=1e-6) and std_close(
        apparent - persistent, 0.01 * level
    )


def has_n_states(level: float) -> bool:
    hidden = build(at(experiment(QUIET), "n_states", level)).hidden
    steps = [hidden[f"dwmin_{way}_{number}"] for way in ("up", "down") for number in (0, 1)]
    return all(np.allclose(step, 2 / level, rtol=1e-5) for step in steps)


def has_out_noise(level: float) -> bool:
    fine = {"out_res": -1.0}
    base = experiment(forward=fine, backward=fine)
    tile = build(at(base, "out_noise", level)).tile
    ones = torch.ones(20, SIZE)  # weights of 0: nothing but noise comes out
    outputs = [tile.forward(ones).detach().numpy(), tile.backward(ones).detach().numpy()]
    return all(std_close(output, level) for output in outputs)


def has_io_bits(level: float) -> bool:
    base = experiment(forward={"out_noise": 0.0}, backward={"out_noise": 0.0})
    generator = torch.Generator().manual_seed(4)
    weight = torch.rand(SIZE, SIZE, generator=generator) - 0.5
    tile = build(at(base, "io_bits", level), weight).tile
    parameters = tile.tile.get_meta_parameters()
    # A built tile keeps the step: resolution x range, which is 2 for inputs and 24 for outputs.
    step = 1 / (2**level - 2)
    stored = [
        found
        for io in (parameters.forward_io, parameters.backward_io)
        for found in (io.inp_res / 2, io.out_res / 24)
    ]
    inputs = 2 * torch.rand(50, SIZE, generator=generator) - 1
    inputs[:, 0] = 1.0  # the largest input is 1, so that noise management leaves them as they are
    out = tile.forward(inputs).detach() / tile.get_scales() / (24 * step)
    return np.allclose(stored, step, rtol=1e-5) and np.allclose(out, out.round(), atol=1e-3)


def has_lr(level: float) -> bool:
    setup = at(experiment(), "lr", level)
    (trial, *_) = [t for t in trials_of(setup, sweep=False) if t.arm.analog]
    layer = nn.Sequential(nn.Linear(4, 3))
    model = transfer.to_analog(
        layer, setup.analog, setup.convert, seed=1, example=torch.zeros(1, 4)
    ).model
    optimizer = build_optimizer(model, setup.finetune, lr=trial.lr, kind="analog")
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    tile = next(transfer.analog_tiles(model))
    return trial.lr == level and math.isclose(tile.get_learning_rate(), level, rel_tol=1e-5)


CHECKS = {
    name.removeprefix("has_"): check for name, check in globals().items() if name[:4] == "has_"
}
CHECKS["w_max_dtod"] = lambda level: bounds_follow("w_max_dtod", level, "max_bound")
CHECKS["w_min_dtod"] = lambda level: bounds_follow("w_min_dtod", level, "min_bound")


def pulse_once(setup: Experiment) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Weights and hidden parameters of an sgd tile after exactly one up pulse on every device."""
    config = build_rpu_config(setup.analog, construction_seed=2)
    config.update.desired_bl = 1
    config.update.update_bl_management = config.update.update_management = False
    tile = config.tile_class(SIZE, SIZE, config)
    tile.set_weights(torch.zeros(SIZE, SIZE))
    tile.set_learning_rate(float(config.device.dw_min))  # a pulse of probability 1
    tile.update(torch.ones(SIZE), -torch.ones(SIZE))
    hidden = {k: v.numpy().astype(np.float64) for k, v in tile.get_hidden_parameters().items()}
    return tile.tile.get_weights().numpy().astype(np.float64), hidden


def bounds_follow(axis: str, level: float, bound: str) -> bool:
    """Whether the bounds of both arrays are distributed as aihwkit's documentation has it.

    Each bound is drawn from its normal distribution; where the lower one is above the upper one
    the two are swapped, and a bound on the wrong side of 0 is folded back.
    """
    device = {**device_parameters("ReRamArrayHfO2PresetDevice"), axis: level}
    rng = np.random.default_rng(5)
    upper, lower = (
        side * (1 + device[spread] * rng.standard_normal(10 * SIZE**2))
        for side, spread in ((1.0, "w_max_dtod"), (-1.0, "w_min_dtod"))
    )
    expected = {
        "max_bound": np.abs(np.maximum(upper, lower)),
        "min_bound": -np.abs(np.minimum(upper, lower)),
    }[bound]
    hidden = build(at(experiment(), axis, level)).hidden
    return all(
        stats.ks_2samp(hidden[f"{bound}_{n}"].ravel(), expected, method="asymp").pvalue > ALARM
        for n in (0, 1)
    )


# -- the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_built_tile_has_the_level(name, level):
    assert CHECKS[name](level)


@pytest.mark.parametrize("name", sorted(NUMBERED))
def test_the_check_tells_a_level_from_the_next_one(name, monkeypatch):
    """The checks above can fail: a tile with one level does not pass for its neighbour."""
    low, high = AXES[name].levels[1:3]
    real = at
    monkeypatch.setitem(globals(), "at", lambda base, axis, _: real(base, axis, low))
    assert CHECKS[name](low)
    assert not CHECKS[name](high)


def symmetry_points(hidden, number):
    """Where an up and a down step are equal, from the documented formula of the soft bounds."""
    up, down = hidden[f"dwmin_up_{number}"], hidden[f"dwmin_down_{number}"]
    upper, lower = hidden[f"max_bound_{number}"], hidden[f"min_bound_{number}"]
    return (up - down) / (up / upper - down / lower)


def test_without_variability_each_reference_is_the_symmetry_point():
    hidden = build(at(experiment({"up_down_dtod": 0.3}), "spv", 0)).hidden
    points = symmetry_points(hidden, 0)
    assert points.std() > 0.05
    np.testing.assert_allclose(hidden["reference_0"], points, atol=2e-4)


@pytest.mark.parametrize(
    ("bound", "upper", "lower"), [("upper", 0.8, -1.0), ("lower", 1.0, -0.8), ("both", 0.8, -1.2)]
)
def test_skew_moves_the_bound_that_it_names(bound, upper, lower):
    skewed = experiment(QUIET, nonidealities={"symmetry_point_skew_bound": bound})
    hidden = build(at(skewed, "sps", 20)).hidden
    np.testing.assert_allclose(hidden["max_bound_1"], upper, atol=1e-6)
    np.testing.assert_allclose(hidden["min_bound_1"], lower, atol=1e-6)
    # Up and down steps are still equal at 0: the skew changes the range and the slopes.
    np.testing.assert_allclose(symmetry_points(hidden, 1), 0.0, atol=1e-6)


def test_states_are_counted_between_the_bounds_of_the_preset():
    device = {**QUIET, "preset": "ReRamSBPresetDevice", "w_max": 1.5, "w_min": -0.5}
    hidden = build(at(experiment(device), "n_states", 50)).hidden
    np.testing.assert_allclose(hidden["dwmin_up_0"], 2.0 / 50, rtol=1e-5)


def test_what_the_device_has_by_itself_is_a_default_level():
    preset = device_parameters("ReRamArrayHfO2PresetDevice")
    for axis in AXES.values():
        name = axis.key.rpartition(".")[2]
        if name in preset:
            assert preset[name] in axis.levels
    assert round(2 / preset["dw_min"], 3) in AXES["n_states"].levels
    assert catalog()["io"]["out_noise"] in AXES["out_noise"].levels


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_list_and_page_say_what_an_axis_sets_its_unit_levels_and_source(axis):
    (text,) = [" ".join(row) for row in KINDS["axes"].rows() if row[0] == axis.name]
    (row,) = [line for line in axes_table().splitlines() if line.startswith(f"| `{axis.name}` ")]
    page = row.replace("\\", "").replace("**", "")
    for said in (axis.label, axis.sets, axis.source):
        assert said in text
        assert said in page
    assert axis.key in page
    assert axis.marked_levels() in text
    for level in axis.published:
        assert f"{level:g}*" in text
        assert f"**{level:g}**" in row


@pytest.mark.parametrize("axis", [AXES[name] for name in AXES if name in NUMBERED])
def test_the_levels_are_valid_and_in_order(axis):
    assert list(axis.levels) == sorted(set(axis.levels))
    for level in axis.levels:
        with_settings(experiment(), {axis.key: level})
    with pytest.raises(ExperimentError):
        with_settings(experiment(), {axis.key: "much"})


def test_names_and_dotted_keys():
    assert key_of("wtn") == "convert.weight_transfer_noise"
    assert key_of("analog.compound.fast_lr") == "analog.compound.fast_lr"
    assert label_of("spv") == AXES["spv"].label
    keys = ("wtn", "lr", "analog.device.up_down", "finetune.epochs")
    assert [analog_only(key) for key in keys] == [True, False, True, False]
