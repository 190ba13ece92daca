"""Checkpoints: all of a model's state, on both engines, in files that cannot run code."""

import json

import pytest
import torch
from aihwkit.optim import AnalogSGD
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar import checkpoint as state
from analogtl.crossbar.convert import analog_tiles, to_analog
from analogtl.errors import RunError


def build(engine, seed=0, width=6):
    torch.manual_seed(0)
    digital = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3))
    analog = Analog(engine=engine, compound={"auto_granularity": 5})
    model = to_analog(digital, analog, Convert(), seed=seed, example=torch.zeros(1, 8)).model
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    optimizer.regroup_param_groups(model)
    return model, optimizer


def step(model, optimizer, count, first=0):
    for i in range(first, first + count):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean() + model(x)[:, 0].mean()
        loss.backward()
        optimizer.step()


def hidden(model):
    return [tile.tile.get_hidden_parameters() for tile in analog_tiles(model)]


def reloaded(tmp_path, model, engine, seed=1):
    tensors, meta = state.capture(model)
    state.save(tmp_path / "checkpoint", tensors, meta)
    other, optimizer = build(engine, seed=seed)  # other devices: all must come from the file
    state.restore(other, *state.load(tmp_path / "checkpoint"))
    return other, optimizer


def test_a_stock_tile_gets_back_what_its_bindings_reach(tmp_path):
    model, optimizer = build("aihwkit")
    step(model, optimizer, 5)
    other, optimizer = reloaded(tmp_path, model, "aihwkit")
    names = next(iter(analog_tiles(model))).tile.get_hidden_parameter_names()
    for a, b in zip(hidden(model), hidden(other), strict=True):
        for name, row_a, row_b in zip(names, a, b, strict=True):
            if name.startswith("persistent_weights"):
                bound = {k: a[names.index(f"{k}_bound_{name[-1]}")] for k in ("max", "min")}
                assert torch.equal(row_b, row_a.clamp(bound["min"], bound["max"])), name
            elif name != "hidden_weights_0":  # without its write noise until the next pulse
                assert torch.equal(row_a, row_b), name
    for a, b in zip(analog_tiles(model), analog_tiles(other), strict=True):
        assert torch.equal(a.tile.get_weights(), b.tile.get_weights())
        extra_a, extra_b = a.tile.dump_extra(), b.tile.dump_extra()
        assert extra_a.keys() == extra_b.keys()
        for key, value in extra_a.items():
            assert torch.allclose(torch.as_tensor(value), torch.as_tensor(extra_b[key])), key
    before = [tile.tile.get_weights().clone() for tile in analog_tiles(other)]
    step(other, optimizer, 5, first=5)  # and it goes on learning
    after = [tile.tile.get_weights() for tile in analog_tiles(other)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_checkpoint_of_another_model_is_refused():
    tensors, meta = state.capture(build("fast", width=6)[0])
    with pytest.raises(RunError, match="another model"):
        state.restore(build("fast", width=7)[0], tensors, meta)
    with pytest.raises(RunError, match="another model"):
        state.restore(nn.Linear(8, 3), tensors, meta)


def test_a_damaged_file_is_recognised(tmp_path):
    path = tmp_path / "checkpoint"
    assert state.load(path) is None
    state.save(path, {"a": torch.arange(4.0)}, {})
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match="checksum"):
        state.load(path)
    file.unlink()
    with pytest.raises(RunError, match="damaged"):
        state.load(path)
    content = json.loads(path.with_suffix(".json").read_text())
    content["tensors"] = "../elsewhere.safetensors"  # nor one that leads elsewhere
    path.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="damaged"):
        state.load(path)


def test_saving_again_replaces_the_old_checkpoint_and_leaves_one(tmp_path):
    path = tmp_path / "checkpoint"
    for value in (1.0, 2.0):
        state.save(path, {"a": torch.tensor(value)}, {"n": value})
    tensors, meta = state.load(path)
    assert (float(tensors["a"]), meta["n"]) == (2.0, 2.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    state.save(path, {"a": torch.tensor(1.0)}, {})

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.safetensors.torch, "save_file", full)
    with pytest.raises(RunError, match="No space"):
        state.save(path, {"a": torch.tensor(2.0)}, {})
    assert float(state.load(path)[0]["a"]) == 1.0


VALUES = {"none": None, "number": 1.5, "text": "text", "list": [1, "a", None]}
VALUES |= {"nested": {"a": [1.0] * 100, 3: {"b": [1, 2]}}}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_nested_values_survive_packing(value):
    tensors, meta = {}, {}
    state.pack({"it": value, "tensor": torch.arange(3), "tuple": (1, 2)}, "x", tensors, meta)
    back = state.unpack("x", tensors, json.loads(json.dumps(meta)))
    assert back["it"] == value
    assert back["tuple"] == [1, 2]
    assert torch.equal(back["tensor"], torch.arange(3))


def test_everything_comes_back_also_the_fast_array_and_the_persistent_weights(tmp_path):
    model, optimizer = build("fast")
    step(model, optimizer, 5)
    other, _ = reloaded(tmp_path, model, "fast")
    names = next(iter(analog_tiles(model))).tile.get_hidden_parameter_names()
    for a, b in zip(hidden(model), hidden(other), strict=True):
        for name, row_a, row_b in zip(names, a, b, strict=True):
            assert torch.equal(row_a, row_b), name
        assert a.abs().sum() > 0
    for a, b in zip(analog_tiles(model), analog_tiles(other), strict=True):
        assert torch.equal(a.tile.get_weights(), b.tile.get_weights())
    x = {"digital/0.analog_module.bias", "digital/2.analog_module.bias"}
    assert x <= set(state.capture(other)[0])


def test_a_resumed_run_on_the_fast_engine_equals_the_uninterrupted_one(tmp_path):
    whole, optimizer = build("fast")
    step(whole, optimizer, 10)
    half, optimizer = build("fast")
    step(half, optimizer, 5)
    other, optimizer = reloaded(tmp_path, half, "fast")
    step(other, optimizer, 5, first=5)
    for a, b in zip(hidden(whole), hidden(other), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(state.capture(whole)[0].items(), state.capture(other)[0].items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1]), a[0]


def test_parameters_that_share_memory_are_saved_each(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 4))
    model[1].weight.data = model[0].weight.data  # whole, and of the next a part
    model[2].weight.data = model[0].weight.data[:, :2]
    tensors, meta = state.capture(model)
    state.save(tmp_path / "checkpoint", tensors, meta)
    loaded, _ = state.load(tmp_path / "checkpoint")
    for name, one in model.named_parameters():
        assert torch.equal(loaded[f"digital/{name}"], one)
