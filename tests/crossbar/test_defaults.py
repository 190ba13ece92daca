"""What is chosen for each layer where the experiment does not say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from analogtl.config.arrays import Analog
from analogtl.crossbar.defaults import LayerSize, Plan, choose, warnings
from analogtl.crossbar.rpu_config import Pulsing, build_rpu_config
from analogtl.fastsim import FastTile, fast_rpu_config

DIGITS = {
    "stages.0.qkv": LayerSize(16, 48, 16),
    "stages.1.qkv": LayerSize(32, 96, 4),
    "stages.1.reduction": LayerSize(64, 32, 4),
    "head": LayerSize(32, 5, 1),
}
DESK = {
    "stages.0.qkv": LayerSize(48, 144, 64),
    "stages.1.qkv": LayerSize(96, 288, 16),
    "stages.1.mlp.2": LayerSize(384, 96, 16),
    "head": LayerSize(96, 2, 1),
}


def granularity(layers: dict[str, LayerSize], plan: Plan, **analog: Any) -> float:
    chosen = choose(Analog(**analog), layers, plan)
    assert chosen is not None
    (one,) = {round(c.pulsing.auto_granularity / layers[n].vectors, 6) for n, c in chosen.items()}
    return one


@pytest.mark.parametrize(
    ("layers", "images", "low", "high"),
    [
        (DIGITS, 3_888, 3, 12),  # 6 epochs: 5 is best of 5, 10, 20, 40
        (DIGITS, 15_552, 5, 25),  # 24 epochs: 5, 10 and 20 alike, 40 worse
        (DESK, 9_000, 10, 20),  # 2 classes
        (DESK, 22_500, 20, 50),  # 5 classes
    ],
)
def test_where_the_best_granularity_is_known(
    layers: dict[str, LayerSize], images: int, low: float, high: float
) -> None:
    assert low <= granularity(layers, Plan(images, 0.01)) <= high


def test_a_schedule_that_ends_at_zero_allows_a_smaller_granularity() -> None:
    plan = Plan(22_500, 0.01)
    cosine = plan._replace(mean=0.5, rms=0.375**0.5)
    assert granularity(DESK, cosine) < granularity(DESK, plan)


def test_what_the_file_gives_stays() -> None:
    given = Analog.model_validate(
        {
            "granularity_per_token": 7.0,
            "compound": {"fast_lr": 0.3},
            "transfer_update": {"desired_bl": 3},
        }
    )
    chosen = choose(given, DIGITS, Plan(3_888, 0.01))
    assert chosen is not None
    for name, one in chosen.items():
        config = build_rpu_config(given, one.pulsing)
        assert config.device.fast_lr == 0.3
        assert config.device.auto_granularity == pytest.approx(7 * DIGITS[name].vectors)
        assert config.device.transfer_update.desired_bl == 3
        assert one.bound_by == "file"
    assert {round(one.pulsing.drive, 6) for one in chosen.values()} == {1.5}


def test_a_number_for_the_drive_is_taken() -> None:
    config = build_rpu_config(Analog(drive=4.0))
    assert config.device.fast_lr * config.update.desired_bl == pytest.approx(4.0)


def test_algorithms_without_hidden_matrix_have_nothing_to_choose() -> None:
    assert choose(Analog.model_validate({"algorithm": "sgd"}), DIGITS, Plan(1, 1.0)) is None


def test_fine_devices_send_as_many_pulses_as_a_read_can_ask_for() -> None:
    ecram = Analog.model_validate({"device": {"preset": "EcRamPresetDevice"}})
    fine = choose(ecram, DESK, Plan(9_000, 0.01))
    coarse = choose(Analog(), DESK, Plan(9_000, 0.01))
    assert fine is not None
    assert coarse is not None
    assert {one.pulsing.transfer_bl for one in coarse.values()} == {1}
    assert max(one.pulsing.transfer_bl for one in fine.values()) > 3


@pytest.mark.parametrize("per_token", [3.0, 5.0])
def test_noise_moves_as_many_cells_as_foretold(per_token: float) -> None:
    """A tile without any gradient's signal, trained as planned."""
    size, plan = LayerSize(32, 96, 4), Plan(1_500, 0.01)
    analog = Analog(drive=1.0, granularity_per_token=per_token)
    chosen = choose(analog, {"one": size}, plan)
    assert chosen is not None
    config = build_rpu_config(analog, chosen["one"].pulsing, construction_seed=5)
    tile = FastTile(96, 32, fast_rpu_config(config, seed=5)).tile
    tile.set_weights(torch.zeros(96, 32))
    tile.set_learning_rate(plan.lr)
    before = tile.get_weights()
    rng = np.random.default_rng(5)
    for _ in range(plan.images * size.vectors // 1_000):
        x, d = (rng.standard_normal((1_000, n)).astype(np.float32) for n in (32, 96))
        tile.update_rows(torch.from_numpy(x), torch.from_numpy(d))
    change = tile.get_weights() - before
    changed, walk = float((change != 0).float().mean()), float(change.square().mean().sqrt())
    foretold = chosen["one"]
    # The formula takes H for a Brownian motion: right to a factor of 1.6.
    assert abs(math.log(changed / foretold.noise_changed)) < math.log(1.6)
    assert abs(math.log(walk / 2 / foretold.noise_walk)) < math.log(1.8)
    assert Pulsing.given(analog, 4).auto_granularity == foretold.pulsing.auto_granularity


def test_devices_that_hold_one_sign_only_are_told_beforehand() -> None:
    def told(preset: str) -> list[str]:
        return warnings([Analog.model_validate({"device": {"preset": preset}})], [])

    (line,) = told("PCMPresetDevice")
    assert "0 to 2" in line
    assert told("ReRamArrayHfO2PresetDevice") == []
