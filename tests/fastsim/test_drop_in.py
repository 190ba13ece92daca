"""Plain aihwkit scripts on the fast engine: new layers, and models that are analog already."""

import io
import runpy
import sys
from pathlib import Path

import pytest
import torch
from aihwkit.nn import (
    AnalogConv1d,
    AnalogConv1dMapped,
    AnalogConv2d,
    AnalogConv2dMapped,
    AnalogConv3d,
    AnalogConv3dMapped,
    AnalogGRUCell,
    AnalogLinear,
    AnalogLinearMapped,
    AnalogLSTMCell,
    AnalogLSTMCellCombinedWeight,
    AnalogRNN,
    AnalogSequential,
    AnalogVanillaRNNCell,
)
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import FloatingPointRPUConfig, InferenceRPUConfig
from aihwkit.simulator.parameters.io import IOParameters
from torch import nn

from analogtl.fastsim import FastTile, UnsupportedConfig, fast_rpu_config, to_fast
from analogtl.fastsim.cases import CASES

EXAMPLE = Path(__file__).parents[2] / "experiments" / "examples" / "plain_aihwkit.py"
LAYERS = {
    "linear": (lambda c: AnalogLinear(7, 5, rpu_config=c), (6, 7)),
    "linear, mapped": (lambda c: AnalogLinearMapped(7, 5, rpu_config=c), (6, 7)),
    "conv1d": (lambda c: AnalogConv1d(3, 4, 3, rpu_config=c), (2, 3, 9)),
    "conv1d, strided": (lambda c: AnalogConv1d(3, 4, 4, 2, 1, bias=False, rpu_config=c), (2, 3, 9)),
    "conv3d": (lambda c: AnalogConv3d(2, 4, 2, padding=1, rpu_config=c), (2, 2, 3, 4, 5)),
    "conv2d": (lambda c: AnalogConv2d(3, 4, 3, padding=1, rpu_config=c), (2, 3, 6, 6)),
    "conv1d, mapped": (lambda c: AnalogConv1dMapped(8, 4, 3, rpu_config=c), (2, 8, 9)),
    "conv3d, mapped": (lambda c: AnalogConv3dMapped(4, 4, 2, rpu_config=c), (2, 4, 3, 4, 5)),
    "conv2d, mapped": (lambda c: AnalogConv2dMapped(3, 4, 3, rpu_config=c), (2, 3, 6, 6)),
    "rnn": (lambda c: AnalogRNN(AnalogVanillaRNNCell, 7, 5, rpu_config=c), (4, 2, 7)),
    "lstm": (lambda c: AnalogRNN(AnalogLSTMCell, 7, 5, rpu_config=c), (4, 2, 7)),
    "lstm, combined": (
        lambda c: AnalogRNN(AnalogLSTMCellCombinedWeight, 7, 5, rpu_config=c),
        (4, 2, 7),
    ),
    "gru": (lambda c: AnalogRNN(AnalogGRUCell, 7, 5, rpu_config=c), (4, 2, 7)),
}


def config(quiet=False, **mapping):
    made = CASES["HfO2"].make()
    made.mapping.max_input_size, made.mapping.max_output_size = 18, 4  # mapped layers are split
    for name, value in mapping.items():
        setattr(made.mapping, name, value)
    if quiet:
        made.forward = IOParameters(is_perfect=True)
        made.backward = IOParameters(is_perfect=True)
    return made


def output(model, x):
    out = model(x)
    return out[0] if isinstance(out, tuple) else out


def step(model, x, steps=4):
    optimizer = AnalogSGD(model.parameters(), lr=0.5)
    optimizer.regroup_param_groups(model)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        out = output(model, x)
        (out - torch.randn(out.shape, generator=generator)).square().sum().backward()
        optimizer.step()


def tiles(model):
    return [module for module in model.modules() if isinstance(module, FastTile)]


def apparent(model):
    return [tile.tile.get_weights() for tile in tiles(model)]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_aihwkits_learns_on_the_fast_engine_and_repeats_itself(name):
    make, shape = LAYERS[name]
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = AnalogSequential(make(fast_rpu_config(config(), seed=3)))
        before = apparent(model)
        step(model, torch.randn(shape))
        found.append(apparent(model))
    assert len(found[0]) >= (2 if "mapped" in name else 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, found[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_analog_already_keeps_what_it_holds(name):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    stock = AnalogSequential(make(config(quiet=True, weight_scaling_omega=0.6)))
    x = torch.randn(shape, requires_grad=True)
    expected = output(stock.eval(), x)
    [slope] = torch.autograd.grad(expected.square().sum(), x)
    hidden = [tile.tile.get_hidden_parameters() for tile in stock.analog_tiles()]
    model = to_fast(stock, seed=3)
    assert model is stock
    assert not any(module.training for module in model.modules())
    out = output(model, x)
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(out.square().sum(), x)[0], slope, atol=1e-4)
    assert len(tiles(model)) == len(hidden)
    for tile, values in zip(model.analog_tiles(), hidden, strict=True):
        assert torch.equal(tile.tile.get_hidden_parameters(), values)
    before = apparent(model)
    step(model.train(), x.detach())
    assert any(not torch.equal(a, b) for a, b in zip(before, apparent(model), strict=True))


def test_the_digital_part_of_a_tile_comes_along():
    torch.manual_seed(0)
    made = config(quiet=True, weight_scaling_omega=0.6, learn_out_scaling=True)
    made.mapping.out_scaling_columnwise = made.mapping.weight_scaling_columnwise = True
    made.pre_post.input_range.enable = True
    layer = AnalogLinear(6, 4, rpu_config=made)
    for tile in layer.analog_tiles():
        tile.bias.data.normal_()
        tile.out_scaling_alpha.data.uniform_(0.5, 2.0)
        tile.input_range.data.fill_(0.7)
    x = torch.randn(9, 6)
    expected = layer.eval()(x)
    assert torch.allclose(to_fast(layer, seed=1)(x), expected, atol=1e-5)


def test_tiles_never_share_a_stream_and_a_seed_names_them():
    def converted(seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
        return to_fast(convert_to_analog(model, config()), seed=seed)

    first, again, other = (
        [tile.tile.seed for tile in tiles(converted(seed))] for seed in (1, 1, 2)
    )
    assert len({*first, *other}) == 4
    assert first == again


def test_a_fast_tile_stays_and_one_tile_in_two_places_stays_one():
    layer = AnalogLinear(6, 4, rpu_config=config())
    model = nn.ModuleList(
        [layer, layer, AnalogLinear(6, 4, rpu_config=fast_rpu_config(config(), seed=1))]
    )
    [kept] = tiles(model)
    to_fast(model, seed=2)
    assert len(tiles(model)) == 2
    assert kept in tiles(model)


@pytest.mark.parametrize("other", [FloatingPointRPUConfig(), InferenceRPUConfig()])
def test_what_is_not_covered_is_named_and_nothing_is_changed(other):
    model = nn.Sequential(
        AnalogLinear(6, 4, rpu_config=config()), AnalogLinear(4, 2, rpu_config=other)
    )
    with pytest.raises(UnsupportedConfig, match=r"\(1\.analog_module"):
        to_fast(model, seed=1)
    assert tiles(model) == []


def test_a_saved_model_goes_on_bit_for_bit():
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    models = []
    for number in range(2):
        torch.manual_seed(number)
        model = to_fast(AnalogSequential(AnalogLinear(6, 4, rpu_config=config())), seed=number)
        if number == 0:
            step(model, x)
            torch.save(model.state_dict(), file)
            file.seek(0)
        else:
            model.load_state_dict(torch.load(file, weights_only=False))
        models.append(model)
    for model in models:
        step(model, x)
    assert all(torch.equal(a, b) for a, b in zip(*map(apparent, models), strict=True))


@pytest.mark.parametrize("engine", ["fast", "converted"])
def test_the_example_runs_and_learns(engine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--engine", engine, "--epochs", "2"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.partition("error ")[2].partition(" %")[0]) < 70, "of 90 by guessing"
