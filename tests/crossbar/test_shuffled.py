"""The control whose arrays are pulsed without the gradients' signal."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from aihwkit.optim import AnalogSGD
from torch import Tensor, nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import programmed_weights, to_analog
from analogtl.crossbar.shuffled import shuffle_gradients

ANALOG = Analog.model_validate(
    {
        "drive": 1.0,
        "granularity_per_token": 2.0,
        "device": {"preset": "EcRamPresetDevice", "dw_min": 0.02},
    }
)


def train(layer: nn.Module, target: nn.Module, x: Tensor, *, shuffled: bool) -> Tensor:
    """Pull the outputs towards those of ``target``; return how the weights changed, (O, I)."""
    torch.manual_seed(0)
    model = to_analog(
        nn.Sequential(OrderedDict(one=layer)), ANALOG, Convert(), seed=1, example=x[:2]
    ).model
    if shuffled:
        shuffle_gradients(model)
    before = programmed_weights(model)["one"][0]
    optimizer = AnalogSGD(model.parameters(), lr=0.05)
    optimizer.regroup_param_groups(model)
    for batch in x.split(8):
        optimizer.zero_grad()
        (-model(batch) * target(batch).detach()).sum().backward()
        optimizer.step()
    return programmed_weights(model)["one"][0] - before


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_the_arrays_move_as_much_and_nowhere(kind: str) -> None:
    torch.manual_seed(4)
    if kind == "linear":
        layers = [nn.Linear(10, 40, bias=False) for _ in range(2)]
        x = torch.randn(600, 10)
    else:
        layers = [nn.Conv2d(3, 40, 2, bias=False) for _ in range(2)]
        x = torch.randn(120, 3, 4, 4)
    way = layers[1].weight.detach().flatten()

    def agreement(change: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([change.flatten(), way]))[0, 1])

    signal, noise = (train(*layers, x, shuffled=shuffled) for shuffled in (False, True))
    assert float(noise.std()) > 0.3 * float(signal.std())
    assert agreement(signal) > 0.5
    # 400 cells or more: 0.25 is five standard deviations of the correlation of independent ones.
    assert abs(agreement(noise)) < 0.25
