"""The fast engine draws the devices that aihwkit draws for the same construction_seed."""

from dataclasses import fields
from functools import partial

import pytest
import torch
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
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.parameters.training import UpdateParameters
from aihwkit.simulator.presets import devices as presets
from aihwkit.simulator.presets.devices import ReRamArrayHfO2PresetDevice
from aihwkit.simulator.tiles.analog import AnalogTile

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim.cases import compound_config
from analogtl.fastsim.spec import granularity_of

DRAWN = (
    *("max_bound", "min_bound", "dwmin_up", "dwmin_down", "reset_bias"),
    *("decay_scales", "diffusion_rates"),
    *("slope_up", "slope_down", "gamma_up", "gamma_down", "reference"),
)


def both(config, out_size=7, in_size=11):
    stock = AnalogTile(out_size, in_size, config)
    fast = FastTile(out_size, in_size, fast_rpu_config(config, seed=1))
    return stock.get_hidden_parameters(), fast.get_hidden_parameters()


@pytest.mark.parametrize(
    "device",
    [
        *(getattr(presets, name) for name in dir(presets) if name.endswith("PresetDevice")),
        SoftBoundsDevice,
        SoftBoundsPmaxDevice,
        lambda: SoftBoundsReferenceDevice(
            slope_up_dtod=0.2, slope_down_dtod=0.1, reference_mean=0.1, reference_std=0.3
        ),
        lambda: ReRamArrayHfO2PresetDevice(
            corrupt_devices_prob=0.3, reset=0.1, reset_dtod=0.2, up_down=0.1
        ),
        lambda: SoftBoundsDevice(enforce_consistency=False, perfect_bias=True, up_down=-0.2,
                                      w_max_dtod=1.0, w_min_dtod=1.0),
        lambda: SoftBoundsDevice(reverse_up=True, reverse_down=True),
        lambda: LinearStepDevice(reverse_up=True, gamma_up=0.5, gamma_down=0.3),
        lambda: LinearStepDevice(
            allow_increasing=True, mean_bound_reference=False, gamma_up=0.1, gamma_up_dtod=0.5,
            lifetime=100.0, lifetime_dtod=0.3, diffusion=0.1, diffusion_dtod=0.2,
            write_noise_std=1.0,
        ),
        lambda: PowStepDevice(pow_gamma=2.0, pow_gamma_dtod=0.3, pow_up_down=0.2,
                                   pow_up_down_dtod=0.1, write_noise_std=1.0),
        lambda: PowStepReferenceDevice(
            pow_gamma=1.5, reference_std=0.1, subtract_symmetry_point=True, up_down=0.3,
        ),
        lambda: PowStepReferenceDevice(
            subtract_symmetry_point=True, n_estimation_steps=50, up_down=-0.3,
        ),
        lambda: PiecewiseStepDevice(piecewise_up=[1, 0.5, 0.1], piecewise_down=[0.2, 0.5, 1],
                                         write_noise_std=1.0),
        lambda: ConstantStepDevice(corrupt_devices_prob=0.3),
    ],
)  # fmt: skip
def test_the_same_devices_as_aihwkit(device):
    stock, fast = both(compound_config(device))
    assert list(stock) == list(fast)
    for name in stock:
        if name.startswith(DRAWN):
            # bit for bit where both use the same logarithm and exponential
            torch.testing.assert_close(fast[name], stock[name], rtol=2e-6, atol=1e-7), name
        elif not name.startswith(("hidden", "persistent")):
            torch.testing.assert_close(fast[name], stock[name], rtol=1e-6, atol=1e-6)


def bounds(seed, construction_seed, tiles=1):
    """Upper bounds of the tiles that are made from one configuration."""
    config = compound_config()
    config.device.construction_seed = construction_seed
    fast = fast_rpu_config(config, seed=seed)
    return [FastTile(7, 11, fast).get_hidden_parameters()["max_bound_0"] for _ in range(tiles)]


@pytest.mark.parametrize("construction_seed", [0, 97])  # 0: the draw comes from the seed
def test_one_seed_one_draw_and_no_two_tiles_alike(construction_seed):
    first, second = bounds(1, construction_seed, tiles=2)
    assert torch.equal(first, bounds(1, construction_seed)[0])
    assert not torch.equal(first, second)
    assert not torch.equal(first, bounds(2, 0)[0])
    assert not torch.equal(first, bounds(1, 98)[0])


def test_programming_is_clipped_like_aihwkits():
    config = compound_config()
    target = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    tiles = AnalogTile(7, 11, config), FastTile(7, 11, fast_rpu_config(config, seed=1))
    for tile in tiles:
        tile.tile.set_weights(target)
    assert torch.equal(tiles[0].tile.get_weights(), tiles[1].tile.get_weights())
    assert not torch.equal(tiles[0].tile.get_weights(), target)


CLASSES = {
    "constant": partial(ConstantStepDevice, dw_min=0.02),
    "linear": partial(LinearStepDevice, dw_min=0.02, gamma_up=0.3, gamma_down=0.6),
    "linear, reversed": partial(LinearStepDevice, dw_min=0.02, gamma_up=0.5, reverse_up=True),
    "linear, additive": partial(LinearStepDevice, dw_min=0.02, gamma_up=0.4, mult_noise=False),
    "soft bounds": partial(SoftBoundsDevice, dw_min=0.02),
    "soft bounds, additive": partial(SoftBoundsDevice, dw_min=0.02, mult_noise=False),
    "exponential": partial(ExpStepDevice, dw_min=0.02),
    "exponential, one-sided": partial(presets.PCMPresetDevice, dw_min=0.02),
    "power": partial(PowStepDevice, dw_min=0.02, pow_gamma=1.7, pow_up_down=0.2),
    "power, with a reference": partial(
        PowStepReferenceDevice, dw_min=0.02, pow_gamma=0.7, reference_std=0.02
    ),
    "piecewise": partial(
        PiecewiseStepDevice,
        dw_min=0.02,
        piecewise_up=[1.5, 1.0, 0.4, 0.1],
        piecewise_down=[0.2, 0.7, 1.0, 1.1],
    ),
    "piecewise, one node": partial(
        PiecewiseStepDevice, dw_min=0.02, piecewise_up=[0.7], piecewise_down=[1.2]
    ),
    "without a range": partial(
        ExpStepDevice, dw_min=0.02, corrupt_devices_prob=0.5, corrupt_devices_range=0.1
    ),
    "decaying": partial(SoftBoundsDevice, dw_min=0.02, lifetime=30.0, lifetime_dtod=0.2),
}


@pytest.mark.parametrize("name", CLASSES)
def test_without_noise_both_engines_go_the_same_way(name):
    device = partial(CLASSES[name], dw_min_std=0.0, write_noise_std=0.0)
    if "write_noise_std" not in {f.name for f in fields(CLASSES[name]())}:
        device = partial(CLASSES[name], dw_min_std=0.0)
    granularity = float(granularity_of(device(), 0.02))
    config = compound_config(
        device,
        auto_scale=False,
        in_chop_prob=0.0,
        fast_lr=2.0 * granularity,  # inputs and gradients of 1 then give two certain pulses
        transfer_lr=0.5,
        transfer_forward=IOParameters(is_perfect=True),
        update=UpdateParameters(
            desired_bl=2, fixed_bl=True, update_management=False, update_bl_management=False
        ),
    )
    stock = AnalogTile(20, 7, config)
    fast = FastTile(20, 7, fast_rpu_config(config, seed=1))
    rng = torch.Generator().manual_seed(0)
    weights = 0.1 * torch.randn(20, 7, generator=rng)
    steps = [torch.randn(9, size, generator=rng).sign() for _ in range(8) for size in (7, 20)]
    for tile in (stock.tile, fast.tile):
        tile.set_learning_rate(1.0)
        tile.set_weights(weights)
        for x, d in zip(steps[::2], steps[1::2], strict=True):
            tile.update(x, d, False)
            tile.decay_weights(1.0)
    expected, got = stock.get_hidden_parameters(), fast.get_hidden_parameters()
    for quantity in ("hidden_weights_0", "hidden_weights_1", "buffered_FP_weight_0"):
        torch.testing.assert_close(got[quantity], expected[quantity], rtol=2e-5, atol=2e-5)
    assert (expected["hidden_weights_0"].abs() > granularity).float().mean() > 0.2  # A moved
    assert (expected["hidden_weights_1"] - weights).abs().max() > 0.5 * granularity  # so did C
