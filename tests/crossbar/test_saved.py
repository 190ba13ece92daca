"""Files of a network's weights and arrays: what is read from them without analogtl is what ran."""

import json

import numpy as np
import pytest
import safetensors
import torch
from aihwkit.optim import AnalogSGD
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.config.rule_file import shipped_rules
from analogtl.crossbar.convert import to_analog
from analogtl.crossbar.saved import arrays_of_cells, as_file, digital_weights
from analogtl.models.build import build_model
from analogtl.vocabulary import Algorithm

PERFECT = {"is_perfect": True}
SPLIT = {"max_input_size": 40, "max_output_size": 4}
RULES = {file.name: file.read_text() for file in shipped_rules()}
DRAWN = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(3))


def a_network():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 7)
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(7, 5, bias=False))


def trained(digital, images=DRAWN, algorithm="c-ttv2", engine="fast", **tables):
    """The network on arrays without noise in its passes, some steps later."""
    rule = {"rules": RULES} if ".py" in algorithm else {}
    analog = Analog(algorithm=algorithm, engine=engine, **rule, **{"forward": PERFECT, **tables})
    model = to_analog(digital, analog, Convert(), seed=1, example=images[:2]).model
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    for _ in range(6):
        optimizer.zero_grad()
        (model(images) ** 2).sum().backward()
        optimizer.step()
    return model.eval()


def metadata(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def matrices(content):
    """What a file says of the layers on arrays, read as its metadata tell: name -> matrix, bias."""
    tensors = safetensors.deserialize(content)
    arrays = {
        name: np.frombuffer(one["data"], np.float32).reshape(one["shape"]) for name, one in tensors
    }
    found = {}
    for name, tile in json.loads(metadata(content)["tiles"]).items():
        seen = sum(share * arrays[f"{name}.{array}"] for array, share in tile["shares"].items())
        seen = arrays[f"{name}.scale"].reshape(-1, 1) * seen
        layer = name.rpartition(".")[0]
        (first, end), (left, right) = tile["outputs"], tile["inputs"]
        matrix, _ = found.get(layer, (np.zeros((0, 0), np.float32), None))
        more = max(end - len(matrix), 0), max(right - matrix.shape[1], 0)
        matrix = np.pad(matrix, [(0, one) for one in more])
        assert not matrix[first:end, left:right].any()
        matrix[first:end, left:right] = seen[:, : right - left]
        found[layer] = matrix, seen[:, -1] if tile["bias"] else None
    return found


def check(model, digital, images=DRAWN):
    """See that both files are of this model; return what the one of the arrays holds."""
    weights, content = digital_weights(model), arrays_of_cells(model, {})
    assert list(weights) == list(digital.state_dict())
    digital.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(digital.eval()(images), model(images), rtol=1e-4, atol=1e-5)
    for layer, (matrix, bias) in matrices(content).items():
        expected = weights[f"{layer}.weight"].flatten(1)
        torch.testing.assert_close(torch.from_numpy(matrix), expected, rtol=1e-5, atol=1e-6)
        if bias is not None:
            torch.testing.assert_close(torch.from_numpy(bias), weights[f"{layer}.bias"])
    return {name: one["shape"] for name, one in safetensors.deserialize(content)}


@pytest.mark.parametrize("engine", ["fast", "aihwkit"])
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("mapping", [{}, SPLIT])
def test_weights_and_arrays_are_those_of_the_passes(engine, algorithm, mapping):
    model = trained(a_network(), algorithm=algorithm.value, engine=engine, mapping=mapping)
    shapes = check(model, a_network())
    arrays = "A" if algorithm in (Algorithm.SGD, Algorithm.MP) else "AC"
    tiles = {name.rpartition(".")[0] for name in shapes}
    assert len(tiles) == (2 + 6 + 2 if mapping else 3)
    assert set(shapes) == {f"{tile}.{one}" for tile in tiles for one in (*arrays, "scale")}


@pytest.mark.parametrize("rule", ["c_ttv2.py:Rule", "multi_tile_residual.py:Rule"])
def test_a_rule_has_its_own_arrays(rule):
    model, digital = trained(a_network(), algorithm=rule), a_network()
    digital.load_state_dict(digital_weights(model))
    torch.testing.assert_close(digital.eval()(DRAWN), model(DRAWN), rtol=1e-4, atol=1e-5)
    file = arrays_of_cells(model, {})
    found = [name for name, _ in safetensors.deserialize(file) if name.startswith("0.0.")]
    residual = rule.startswith("multi")
    names = ("W3", "W2", "W1", "W0") if residual else "AC"
    assert set(found) == {f"0.0.{one}" for one in (*names, "scale")}
    if residual:
        assert json.loads(metadata(file)["tiles"])["0.0"]["shares"] is None
    else:
        check(model, a_network())


@pytest.mark.parametrize("engine", ["fast", "aihwkit"])
@pytest.mark.parametrize(
    "tables",
    [
        {"algorithm": "tt", "compound": {"gamma": 0.3}},
        {"algorithm": "tt", "compound": {"gamma_vec": [0.5, 0.7]}},
        {"mapping": {"digital_bias": False}},
        {"mapping": {"weight_scaling_columnwise": True}},
        {"mapping": {"learn_out_scaling": True, "out_scaling_columnwise": True}},
        {"mapping": {"weight_scaling_omega": 0.0}},
    ],
)
def test_gamma_bias_and_scales_are_told(engine, tables):
    model = trained(a_network(), engine=engine, **tables)
    check(model, a_network())
    biases = {
        layer
        for layer, (_, bias) in matrices(arrays_of_cells(model, {})).items()
        if bias is not None
    }
    assert biases == ({"0", "3"} if "digital_bias" in tables.get("mapping", {}) else set())


def test_names_are_those_of_the_digital_network():
    torch.manual_seed(2)
    images = torch.randn(2, 1, 8, 8)
    digital = build_model("swin_digits", n_classes=3, image_size=8, in_channels=1)
    analog = Analog(algorithm="sgd", forward=PERFECT)
    model = to_analog(digital, analog, Convert(), seed=1, example=images).model.eval()
    for tensor in digital.state_dict().values():
        tensor.zero_()
    check(model, digital, images)


def test_metadata_are_text_or_json():
    content = as_file({"a": torch.zeros(2).expand(3, 2)}, {"mean": [0.5], "format": "pt"})
    assert metadata(content) == {"mean": "[0.5]", "format": "pt"}


def test_nothing_on_arrays_is_no_file():
    assert arrays_of_cells(a_network(), {}) == b""
