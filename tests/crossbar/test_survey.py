"""Surveys: which weights are counted, which arrays can hold, and what is named as digital."""

import copy

import pytest
import torch
import torch.nn.functional as F
from aihwkit.optim import AnalogSGD
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import (
    analog_layers,
    programmed_weights,
    share_changed,
    to_analog,
)
from analogtl.crossbar.layer_settings import digital_layers
from analogtl.crossbar.products import product_weights
from analogtl.crossbar.survey import survey
from analogtl.errors import ExperimentError

IDEAL = {"w_max": 100.0, "w_min": -100.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
IDEAL |= {"reference_std": 0.0, "subtract_symmetry_point": False}
PERFECT = Analog(device=IDEAL, forward={"is_perfect": True}, backward={"is_perfect": True})


class OwnLinear(nn.Linear):
    """As its parent, written anew."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


class NormedLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight, dim=1), self.bias)


class LoraLinear(nn.Linear):
    """As its parent until something was learned: the second factor starts at zero."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.a = nn.Parameter(torch.randn(1, self.in_features))
        self.b = nn.Parameter(torch.zeros(self.out_features, 1))

    def forward(self, x):
        return super().forward(x) + x @ self.a.T @ self.b.T


class SameConv2d(nn.Conv2d):
    """Padded as TensorFlow does: all sizes come from the input."""

    def forward(self, x):
        pads = []
        for axis in (-1, -2):
            size, stride, kernel = x.shape[axis], self.stride[axis], self.kernel_size[axis]
            lacking = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)


class Everything(nn.Module):
    """What arrays can hold (``linear``, ``own``) beside all kinds of weights that they cannot."""

    def __init__(self):
        super().__init__()
        self.linear, self.own = nn.Linear(8, 8), OwnLinear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.scale = nn.Parameter(torch.ones(8))
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.read = nn.Linear(8, 8)
        self.asked = nn.Linear(8, 8)
        self.normed, self.lora = NormedLinear(8, 8), LoraLinear(8, 8)
        self.parametrized = weight_norm(nn.Linear(8, 8))
        self.fixed = nn.Linear(8, 8).requires_grad_(False)
        self.short = nn.Linear(8, 8).to(torch.bfloat16)
        self.tied = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.tied[1].weight = self.tied[0].weight
        self.twice = nn.ModuleList([nn.Linear(8, 8)] * 2)
        self.named = nn.Linear(8, 8)
        self.grouped = nn.Conv1d(5, 5, 3, padding=1, groups=5)
        self.transposed = nn.ConvTranspose1d(5, 5, 3, padding=1)
        self.idle = nn.Linear(8, 8)

    def forward(self, x):
        x = self.own(self.linear(x + self.position)) * self.scale
        x, _ = self.lstm(self.norm(x))
        x, _ = self.attention(x, x, x)
        x = F.linear(x @ self.matrix, self.read.weight)
        x = self.asked(x.to(self.asked.weight.dtype))
        x = self.parametrized(self.lora(self.normed(x)))
        x = self.short(self.fixed(x).bfloat16()).float()
        for layer in (*self.tied, *self.twice):
            x = layer(x)
        x = self.named(input=x)
        return self.transposed(self.grouped(x))


def test_everything_that_stays_digital_is_named_with_its_share():
    found = survey(Everything(), torch.zeros(2, 5, 8))
    assert list(found.arrays) == ["linear", "own"]
    weights = {part.name: part.weights for part in found.digital}
    assert weights == {
        "lstm": 2 * 32 * 8,
        "attention.in_proj_weight": 24 * 8,
        "attention.out_proj": 64,
        "matrix": 64,
        "read": 64,
        "asked": 64,
        "normed": 64,
        "lora": 64 + 8 + 8,
        "parametrized": 64 + 8,
        "fixed": 64,
        "short": 64,
        "tied.0": 64,
        "tied.1": 0,
        "twice.0": 64,
        "named": 64,
        "grouped": 15,
        "transposed": 75,
        "idle": 0,
    }
    total = 2 * 64 + sum(weights.values())
    assert found.share_on_arrays == pytest.approx(128 / total)
    assert sum(part.share for part in found.digital) == pytest.approx(1 - 128 / total)
    assert all(part.reason for part in found.digital)
    assert found.digital[0].name == "lstm"
    warning = found.warning()
    assert "lstm (LSTM, " in warning
    assert f"{100 * 128 / total:.3g} %" in warning


def test_a_survey_leaves_the_network_as_it_is():
    net = Everything()
    classes = [type(m) for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    drawn = torch.get_rng_state()
    survey(net, torch.zeros(2, 5, 8))
    assert [type(m) for m in net.modules()] == classes
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(drawn, torch.get_rng_state())
    assert net.training


def test_what_is_added_or_looked_up_is_no_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 8)
            self.query = nn.Parameter(torch.randn(1, 1, 8))
            self.relative = nn.Parameter(torch.zeros(5, 5))
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            x = self.linear(x + self.table(torch.arange(5)))
            x = (x @ x.mT + self.relative).softmax(-1) @ x
            return F.scaled_dot_product_attention(self.query.expand(len(x), -1, -1), x, x)

    assert product_weights(Net().eval(), torch.zeros(2, 5, 8)) == {"query": 8, "linear.weight": 64}


CONVOLUTIONS = {
    "1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (9,)),
    "1d dilated": (nn.Conv1d(3, 4, 2, dilation=3, bias=False), (9,)),
    "3d": (nn.Conv3d(3, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 2)), (3, 4, 5)),
    "same": (nn.Conv2d(3, 4, (2, 3), padding="same"), (6, 5)),
    "valid": (nn.Conv2d(3, 4, 3, padding="valid"), (6, 5)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", dilation=2), (6, 5)),
    "circular": (nn.Conv1d(3, 4, 3, padding=2, padding_mode="circular"), (6,)),
    "TensorFlow's": (SameConv2d(3, 4, 3, stride=2), (6, 5)),
    "plain": (nn.Conv2d(3, 4, (2, 3), stride=(1, 2), padding=(0, 1)), (6, 5)),
}


@pytest.mark.parametrize("engine", ["fast", "aihwkit"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_every_kind_run_on_arrays_as_they_do_digitally(kind, engine):
    conv, size = CONVOLUTIONS[kind]
    digital = nn.Sequential(conv)
    x = torch.randn(2, 3, *size)
    # Split over several tiles: three input channels make at least six columns.
    analog = PERFECT.model_copy(update={"engine": engine, "mapping": {"max_input_size": 5}})
    done = to_analog(digital, analog, Convert(), seed=0, example=x)
    assert done.survey.share_on_arrays == 1
    assert done.layers[0]["tiles"] > 1
    expected = digital(x)
    torch.testing.assert_close(done.model(x), expected, rtol=1e-4, atol=1e-4)
    assert done.layers[0]["tokens_per_image"] == expected[0, 0].numel()
    one = x[0], expected[0]
    torch.testing.assert_close(done.model(one[0]), one[1], rtol=1e-4, atol=1e-4)
    gradients = []
    for model in (digital, done.model):
        leaf = x.clone().requires_grad_()
        model(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_every_kind_learn_on_arrays(kind):
    conv, size = CONVOLUTIONS[kind]
    x = torch.randn(4, 3, *size)
    settings = Analog(algorithm="sgd", device={"preset": "ConstantStepDevice"})
    model = to_analog(nn.Sequential(conv), settings, Convert(), seed=0, example=x).model
    before = programmed_weights(model)
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    optimizer.regroup_param_groups(model)
    model(x).square().mean().backward()
    optimizer.step()
    assert share_changed(before, programmed_weights(model))[0] > 0.5


def test_a_subclass_goes_onto_arrays_if_it_does_what_its_parent_does():
    net = nn.Sequential(OwnLinear(8, 8), NormedLinear(8, 8), SameConv2d(1, 1, 3))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net

        def forward(self, x):
            return self.body(x[:, None])[:, 0]

    x = torch.randn(2, 8, 8)
    done = to_analog(Net(), PERFECT, Convert(), seed=0, example=x)
    assert list(analog_layers(done.model)) == ["body.0", "body.2"]
    torch.testing.assert_close(done.model(x), net(x[:, None])[:, 0], rtol=1e-4, atol=1e-4)


def test_a_network_without_anything_for_arrays_is_refused():
    for net in (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), nn.Sequential(nn.Flatten())):
        with pytest.raises(ExperimentError, match="arrays"):
            to_analog(net, Analog(), Convert(), seed=0, example=torch.zeros(2, 2, 8, 8))


def test_layers_that_are_digital_anyway_can_be_chosen_too():
    net = Everything()
    assert digital_layers(net, ["norm*"]) == {"normed"}
    found = survey(net, torch.zeros(2, 5, 8), {"normed": "mine", "own": "mine"})
    assert list(found.arrays) == ["linear"]
