"""What conversion loses of the outputs, and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import programmed_weights, to_analog
from analogtl.crossbar.output_losses import OutputLosses, output_losses

IDEAL: dict[str, Any] = {
    "device": {"preset": "IdealizedPresetDevice"},
    "forward": {"out_noise": 0.0, "inp_res": -1.0, "out_res": -1.0},
}


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 40), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(40, 5)), torch.randn(48, 1, 8, 8)


def losses(**analog: Any) -> OutputLosses:
    model, images = network()
    given = Analog.model_validate({**IDEAL, **analog})
    converted = to_analog(model, given, Convert(), seed=1, example=images[:2]).model
    found = output_losses(model, converted, images)
    assert found is not None
    return found


def forward(**more: Any) -> dict[str, Any]:
    return {**IDEAL["forward"], **more}


def test_ideal_arrays_keep_everything() -> None:
    found = losses()
    assert found.network > 0.99  # the bounds of a few cells differ
    assert set(found.layers) == {"0", "3", "5"}
    for kept in found.layers.values():
        assert min(kept) > 0.99
    assert found.warning() == ""


@pytest.mark.parametrize(
    ("cause", "io"),
    [
        ("noise", {"out_noise": 1.0}),
        ("resolution", {"out_res": 0.2, "out_bound": 4.0}),
        ("bounds", {"out_bound": 0.3, "bound_management": "None"}),
    ],
)
def test_a_loss_has_its_cause(cause: str, io: dict[str, Any]) -> None:
    found = losses(forward=forward(**io))
    for name, kept in found.layers.items():
        own = kept._asdict()
        assert own.pop(cause) == pytest.approx(own.pop("all"), abs=0.05), name
        assert kept.all < 0.95, name
        if cause != "bounds":  # which the others are within here
            assert all(value > 0.99 for value in own.values()), (name, own)
    assert found.network < min(kept.all for kept in found.layers.values()) + 0.05
    assert found.helps[0] == cause
    assert found.helps[1] > 0.9


def test_a_warning_names_the_key() -> None:
    assert "out_noise" in losses(forward=forward(out_noise=3.0)).warning()


def test_programming_that_loses_the_weights_is_the_cause() -> None:
    noisy = {"preset": "ReRamArrayHfO2PresetDevice", "apply_write_noise_on_set": True}
    found = losses(device=noisy)
    assert found.helps[0] == "programming"
    for kept in found.layers.values():
        assert kept.programming == pytest.approx(kept.all, abs=0.05)


def test_looking_changes_nothing() -> None:
    model, images = network()
    given = Analog.model_validate({"forward": {"out_noise": 0.1}})

    def outputs(*, looked: bool) -> torch.Tensor:
        converted = to_analog(model, given, Convert(), seed=1, example=images[:2]).model
        before = programmed_weights(converted)
        if looked:
            output_losses(model, converted, images)
        after = programmed_weights(converted)
        assert all(
            torch.equal(a, b)
            for name in before
            for a, b in zip(before[name], after[name], strict=True)
        )
        return converted(images).detach()

    assert torch.equal(outputs(looked=True), outputs(looked=False))
    assert model.training
