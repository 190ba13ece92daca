"""The fast engine repeats bit for bit, and a copy or a restored state goes on as the original."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.optim import AnalogSGD
from aihwkit.optim.context import AnalogContext
from aihwkit.simulator.configs.compounds import DynamicTransferCompound, TransferCompound
from safetensors.torch import load, save
from torch import nn

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim.cases import compound_config, mixed_config, single_config
from analogtl.fastsim.spec import devices_of

CONFIGS = {
    "c-TTv2": lambda: compound_config(transfer_lr=3.0, out_chop_prob=0.2),
    "AGAD": lambda: compound_config(compound=DynamicTransferCompound, transfer_lr=3.0),
    "SGD": single_config,
    "TT": lambda: compound_config(compound=TransferCompound, units_in_mbatch=False, gamma=0.3),
    "MP": lambda: mixed_config(n_x_bins=6, n_d_bins=4, n_rows_per_transfer=9, random_row=True),
}


def build(config, seed=0):
    torch.manual_seed(0)
    array = next(iter(devices_of(config.device).values()))
    array.count_pulses = True  # the counts are a part of the state
    digital = nn.Sequential(nn.Linear(20, 60), nn.Tanh(), nn.Linear(60, 3))
    config.mapping.weight_scaling_omega = 0.6
    return convert_to_analog(digital, fast_rpu_config(config, seed=seed))


def train(model, steps, first=0, images=8):
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    losses = []
    for i in range(first, first + steps):
        x = torch.randn(images, 20, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean() + model(x)[:, 0].mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def tiles(model):
    return [m for m in model.modules() if isinstance(m, FastTile)]


def digital(model):
    """What is not on arrays; a tile's context is a parameter without numbers of its own."""
    return [p for p in model.parameters() if not isinstance(p, AnalogContext)]


def same_state(s, t):
    assert s.keys() == t.keys()
    return all(torch.equal(v, t[k]) if torch.is_tensor(v) else v == t[k] for k, v in s.items())


def same(a, b):
    """Whether all that a model consists of is equal, bit for bit."""
    pairs = zip(tiles(a), tiles(b), strict=True)
    return all(same_state(one.tile.state(), other.tile.state()) for one, other in pairs) and all(
        torch.equal(p, q) for p, q in zip(digital(a), digital(b), strict=True)
    )


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]()


def test_a_run_repeats_bit_for_bit_and_another_seed_is_another_run(config):
    a, b, c = build(config), build(config), build(config, seed=1)
    assert train(a, 20) == train(b, 20)
    assert same(a, b)
    train(c, 20)
    assert not same(a, c)


def test_the_number_of_threads_does_not_matter(config):
    a, b = build(config), build(config)
    before = torch.get_num_threads()
    train(a, 20)
    try:
        torch.set_num_threads(2)
        train(b, 20)
    finally:
        torch.set_num_threads(before)
    assert same(a, b)


OTHER_PROCESSOR = """
import json, test_fast_state as t
print(json.dumps(t.train(t.build(t.CONFIGS["c-TTv2"]()), 20)))
"""


@pytest.mark.slow
def test_a_processor_without_vector_extensions_runs_the_same_process(tmp_path):
    """Compiled for the plainest processor of the family, the numbers agree up to rounding."""
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **plain, "PYTHONPATH": path}
    command = [sys.executable, "-c", OTHER_PROCESSOR]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    native = train(build(CONFIGS["c-TTv2"]()), 20)
    assert json.loads(done.stdout) == pytest.approx(native, rel=1e-3)


def through_state(model, config):
    other = build(config, seed=5)
    for one, into in zip(tiles(model), tiles(other), strict=True):
        state = one.tile.state()
        tensors = load(save({k: v for k, v in state.items() if torch.is_tensor(v)}))
        rest = json.loads(json.dumps({k: v for k, v in state.items() if not torch.is_tensor(v)}))
        into.tile.load_state(tensors | rest)
    for p, q in zip(digital(model), digital(other), strict=True):
        q.data = p.data.clone()
    return other


def through_state_dict(model, config):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(config, seed=5)
    other.load_state_dict(torch.load(file, weights_only=False))
    return other


COPIES = {
    "state": through_state,
    "state_dict": through_state_dict,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(("steps", "images"), [(0, 8), (7, 8), (7, 1)])
def test_a_restored_run_goes_on_like_the_original(config, how, steps, images):
    straight, stopped = build(config), build(config)
    train(straight, steps + 12, images=images)
    train(stopped, steps, images=images)
    resumed = COPIES[how](stopped, config)
    assert same(stopped, resumed)
    train(resumed, 12, first=steps, images=images)
    assert same(straight, resumed)
    train(stopped, 12, first=steps, images=images)  # the original is not touched by the copy
    assert same(straight, stopped)


def test_looking_at_the_weights_does_not_change_the_run(config):
    a, b = build(config), build(config)
    train(a, 5)
    train(b, 5)
    for tile in tiles(b):
        first, second = (tile.tile.get_hidden_parameters() for _ in range(2))
        assert torch.equal(first, second)
        tile.get_weights()
        tile.pulse_counts()
        b.state_dict()
        tile.tile.state()
    train(a, 5, first=5)
    train(b, 5, first=5)
    assert same(a, b)


def test_hidden_parameters_can_be_set(config):
    a, b = build(config), build(config, seed=9)
    train(a, 9)
    for one, other in zip(tiles(a), tiles(b), strict=True):
        other.set_hidden_parameters(one.get_hidden_parameters())
        for name, value in one.get_hidden_parameters().items():
            assert torch.equal(value, other.get_hidden_parameters()[name]), name


def test_the_state_of_another_tile_is_an_error(config):
    a = FastTile(5, 6, fast_rpu_config(config, seed=0))
    b = FastTile(5, 7, fast_rpu_config(config, seed=0))
    with pytest.raises(Exception, match="size"):
        a.tile.load_state(b.tile.state())
    with pytest.raises(Exception, match="format"):
        a.tile.load_state(a.tile.state() | {"format": 99})
    with pytest.raises(Exception, match="fast"):
        a.tile.load_state(a.tile.state() | {"fast": torch.zeros(3)})
