"""The fast engine draws the devices that aihwkit draws for the same construction_seed."""

import pytest
import torch
from aihwkit.simulator.configs.devices import (
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
    SoftBoundsReferenceDevice,
)
from aihwkit.simulator.presets.devices import (
    ReRamArrayHfO2PresetDevice,
    ReRamArrayOMPresetDevice,
    ReRamSBPresetDevice,
)
from aihwkit.simulator.tiles.analog import AnalogTile

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim.cases import compound_config

DRAWN = ("max_bound", "min_bound", "dwmin_up", "dwmin_down", "reset_bias", "reference")


def both(config, out_size=7, in_size=11):
    stock = AnalogTile(out_size, in_size, config)
    fast = FastTile(out_size, in_size, fast_rpu_config(config, seed=1))
    return stock.get_hidden_parameters(), fast.get_hidden_parameters()


@pytest.mark.parametrize(
    "device",
    [
        ReRamArrayHfO2PresetDevice,
        ReRamArrayOMPresetDevice,
        ReRamSBPresetDevice,
        SoftBoundsDevice,
        SoftBoundsPmaxDevice,
        lambda **kw: SoftBoundsReferenceDevice(
            slope_up_dtod=0.2, slope_down_dtod=0.1, reference_mean=0.1, reference_std=0.3, **kw
        ),
        lambda **kw: ReRamArrayHfO2PresetDevice(
            corrupt_devices_prob=0.3, reset=0.1, reset_dtod=0.2, up_down=0.1, **kw
        ),
        lambda **kw: SoftBoundsDevice(enforce_consistency=False, perfect_bias=True, up_down=-0.2,
                                      w_max_dtod=1.0, w_min_dtod=1.0, **kw),
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


def test_another_seed_another_draw_and_no_two_tiles_alike():
    config = compound_config()
    fast = fast_rpu_config(config, seed=1)
    first, second = FastTile(7, 11, fast), FastTile(7, 11, fast)
    a, b = first.get_hidden_parameters(), second.get_hidden_parameters()
    assert not torch.equal(a["max_bound_0"], b["max_bound_0"])
    config.device.construction_seed = 98
    other = FastTile(7, 11, fast_rpu_config(config, seed=1)).get_hidden_parameters()
    assert not torch.equal(a["max_bound_0"], other["max_bound_0"])


def test_without_a_construction_seed_the_draw_comes_from_the_seed():
    config = compound_config()
    config.device.construction_seed = 0

    def bounds(seed):
        tile = FastTile(7, 11, fast_rpu_config(config, seed=seed))
        return tile.get_hidden_parameters()["max_bound_1"]

    assert torch.equal(bounds(1), bounds(1))
    assert not torch.equal(bounds(1), bounds(2))


def test_programming_is_clipped_like_aihwkits():
    config = compound_config()
    target = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    tiles = AnalogTile(7, 11, config), FastTile(7, 11, fast_rpu_config(config, seed=1))
    for tile in tiles:
        tile.tile.set_weights(target)
    assert torch.equal(tiles[0].tile.get_weights(), tiles[1].tile.get_weights())
    assert not torch.equal(tiles[0].tile.get_weights(), target)
