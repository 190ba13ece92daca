"""Devices, noise streams and transfer noise: seeds, layers and tiles each have their own."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import analog_layers, analog_tiles, to_analog

SIDE = 24
# Without clipping, what is added to a weight is the noise alone.
IDEAL = {"w_max": 100.0, "w_min": -100.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
IDEAL |= {"reference_std": 0.0, "subtract_symmetry_point": False}
# Two samples of 144 independent numbers correlate by more than this once in 1e8 (6 / sqrt(144));
# all seeds here are fixed.
CORRELATED = 0.5


def model() -> nn.Module:
    """Two layers that are equal in all but their name, so that the name alone tells them apart."""
    layers = nn.Sequential(OrderedDict(a=nn.Linear(SIDE, SIDE), b=nn.Linear(SIDE, SIDE)))
    generator = torch.Generator().manual_seed(0)
    layers.a.weight.data = torch.randn(SIDE, SIDE, generator=generator)
    layers.b.weight.data = layers.a.weight.data.clone()
    return layers


def converted(seed: int, *, split: bool, engine: str = "fast", wtn: float = 0.0, **device: float):
    size = SIDE // 2 if split else SIDE
    mapping = {"max_input_size": size, "max_output_size": size}
    # Choppers turn whole columns: without them the cells of an array are so many numbers.
    compound = {"in_chop_prob": 0.0}
    settings = Analog(engine=engine, mapping=mapping, device=device, compound=compound)
    convert = Convert(weight_transfer_noise=wtn)
    return to_analog(model(), settings, convert, seed=seed, example=torch.zeros(1, SIDE)).model


def tiles(split: bool, seeds=(1, 2), **settings):
    """All tiles of both layers at each seed, which are to have nothing in common."""
    return [
        tile for seed in seeds for tile in analog_tiles(converted(seed, split=split, **settings))
    ]


def assert_independent(draws: list[Tensor], count: int) -> None:
    assert len(draws) == count
    for one, other in itertools.combinations(draws, 2):
        x, y = one.flatten().double().numpy(), other.flatten().double().numpy()
        assert x.std() > 0
        assert abs(np.corrcoef(x, y)[0, 1]) < CORRELATED


@pytest.mark.parametrize(("split", "count"), [(False, 4), (True, 16)])
@pytest.mark.parametrize("engine", ["aihwkit", "fast"])
def test_devices_of_seeds_layers_and_tiles(split, count, engine):
    hidden = [tile.get_hidden_parameters() for tile in tiles(split, engine=engine)]
    for number in (0, 1):  # the fast and the slow array
        assert_independent([one[f"max_bound_{number}"] for one in hidden], count)
    assert_independent([h[f"max_bound_{n}"] for h in hidden for n in (0, 1)], 2 * count)


@pytest.mark.parametrize(("split", "count"), [(False, 4), (True, 16)])
def test_noise_streams_of_seeds_layers_and_tiles(split, count):
    products, updates = [], []
    for tile in tiles(split, w_max_dtod=0.0, w_min_dtod=0.0, dw_min_dtod=0.0):
        tile.tile.set_weights(torch.zeros(tile.tile.d_size, tile.tile.x_size))
        products.append(tile.tile.forward(torch.ones(20, tile.tile.x_size)))
        tile.tile.set_learning_rate(0.1)
        tile.tile.update(torch.ones(40, tile.tile.x_size), -torch.ones(40, tile.tile.d_size))
        updates.append(tile.get_hidden_parameters()["hidden_weights_0"])
    assert_independent(products, count)
    assert_independent(updates, count)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("engine", ["aihwkit", "fast"])
def test_transfer_noise_of_seeds_layers_and_tiles(split, engine):
    noise = []
    for seed in (1, 2):
        whole = converted(seed, split=split, engine=engine, wtn=10.0, **IDEAL)
        for layer in analog_layers(whole).values():
            added = layer.get_weights()[0] - model().a.weight.detach()
            halves = added.chunk(2)
            noise += [part for half in halves for part in half.chunk(2, dim=1)]
    assert_independent(noise, 16)


@pytest.mark.parametrize("engine", ["aihwkit", "fast"])
def test_what_is_drawn_for_a_layer_does_not_depend_on_the_others(engine):
    # A layer that stays digital, or another algorithm's order of work, moves nobody's devices.
    both = converted(1, split=True, engine=engine, wtn=10.0)
    settings = Analog(engine=engine, mapping={"max_input_size": 12, "max_output_size": 12})
    convert = Convert(weight_transfer_noise=10.0, digital_layers=("a",))
    alone = to_analog(model(), settings, convert, seed=1, example=torch.zeros(1, SIDE)).model
    assert torch.equal(both.b.get_weights()[0], alone.b.get_weights()[0])
