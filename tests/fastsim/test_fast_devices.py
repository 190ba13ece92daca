"""The fast engine draws the devices that aihwkit draws for the same construction_seed."""

import pytest
import torch
from aihwkit.simulator.configs.devices import (
    ConstantStepDevice,
    LinearStepDevice,
    PiecewiseStepDevice,
    PowStepDevice,
    PowStepReferenceDevice,
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
    SoftBoundsReferenceDevice,
)
from aihwkit.simulator.presets import devices as presets
from aihwkit.simulator.presets.devices import ReRamArrayHfO2PresetDevice
from aihwkit.simulator.tiles.analog import AnalogTile

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim.cases import compound_config

DRAWN = (
    *("max_bound", "min_bound", "dwmin_up", "dwmin_down", "decay_scales", "reset_bias"),
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
        lambda: LinearStepDevice(allow_increasing=True, mean_bound_reference=False,
                                      gamma_up=0.1, gamma_up_dtod=0.5, lifetime=100.0,
                                      lifetime_dtod=0.3, write_noise_std=1.0),
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
