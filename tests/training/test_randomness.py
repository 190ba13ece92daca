"""The seed reaches every draw of a trial, and no two draws are one: seeds, epochs, stages."""

from __future__ import annotations

import pytest
import torch
from probes import Shared, Watched, small_task

from analogtl.crossbar import convert as transfer
from analogtl.study import network
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.training import run_trial, stages
from analogtl.training.programming import WeightProgrammingRun


class Draws:
    """What one trial drew, by name; two trials differ in a draw iff its values do."""

    def __init__(self, seen, conversions) -> None:
        half = len(seen) // 2  # two epochs
        first, second = seen[:half], seen[half:]
        self.start = seen[0][2]
        self.order = [x for x, *_ in first]
        self.second_order = [x for x, *_ in second]
        self.dropout = [mask for _, mask, _ in first]
        self.second_dropout = [mask for _, mask, _ in second]
        self.devices, self.streams = [], []
        for conversion in conversions:
            for tile in transfer.analog_tiles(conversion.model):
                self.devices.append(tile.get_hidden_parameters()["max_bound_1"])
                self.streams.append(tile.tile.forward(torch.ones(1, tile.tile.x_size)))


@pytest.fixture
def draws(tiny, tmp_path, monkeypatch):
    """Runs a trial of an arm on the small task and tells what it drew, in either stage."""
    seen = Shared()
    conversions = []
    runs = iter(range(100))
    convert = transfer.to_analog

    def watched(*args, **given):
        conversions.append(convert(*args, **given))
        return conversions[-1]

    def run(arm, seed=0, stage="finetune", **changes):
        seen.clear()
        conversions.clear()
        experiment = tiny(
            pretrain={"classes": None, "batch_size": 4, **changes.pop("pretrain", {})},
            finetune={"classes": None, "batch_size": 4, "arms": [arm]},
            sweep={"seeds": [seed]},
            **changes,
        )
        (trial,) = trials_of(experiment, sweep=False)
        row = run_trial.run_trial(trial, RunDir(tmp_path / f"{next(runs)}", "tiny"))
        assert row["status"] == "done", row
        pretrained = len(seen) // 2 if trial.arm.pretrained else 0  # as many steps in either stage
        part = seen[:pretrained] if stage == "pretrain" else seen[pretrained:]
        return Draws(list(part), conversions)

    stages._cached_task.cache_clear()
    monkeypatch.setattr(stages, "task_for", lambda *_, **__: small_task())
    monkeypatch.setattr(network, "build_model", lambda *_, **__: Watched(seen))
    monkeypatch.setattr(stages.transfer, "to_analog", watched)
    yield run
    stages._cached_task.cache_clear()


def same(one, other) -> bool:
    if isinstance(one, dict):
        one, other = list(one.values()), list(other.values())
    assert len(one) == len(other) > 0
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


EVERY = ("order", "second_order", "dropout", "second_dropout")
ON_ARRAYS = ("devices", "streams")


def test_the_seed_of_a_trial_reaches_every_draw_of_a_start_from_scratch(draws):
    one, again, other = (draws("digital-scratch", seed) for seed in (1, 1, 2))
    for name in ("start", *EVERY):
        assert same(getattr(one, name), getattr(again, name)), name
        assert not same(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("arm", ["analog-scratch", "analog-tl", "frozen-array"])
def test_the_seed_of_a_trial_reaches_its_arrays_and_its_training(draws, arm):
    one, again, other = (draws(arm, seed) for seed in (1, 1, 2))
    for name in (*EVERY, *ON_ARRAYS):
        assert same(getattr(one, name), getattr(again, name)), name
        assert not same(getattr(one, name), getattr(other, name)), name


def test_the_seed_of_a_trial_draws_the_new_head_and_leaves_the_pretraining_alone(draws):
    one, again, other = (draws("digital-tl", seed).start for seed in (1, 1, 2))
    for name in one:
        assert torch.equal(one[name], again[name])
        assert torch.equal(one[name], other[name]) == name.startswith("body"), name


def test_pretraining_has_a_seed_of_its_own(draws):
    one, again, other = (
        draws("digital-tl", trial_seed, "pretrain", pretrain={"seed": seed})
        for trial_seed, seed in ((0, 1), (5, 1), (0, 2))
    )
    for name in ("start", *EVERY):
        assert same(getattr(one, name), getattr(again, name)), name
        assert not same(getattr(one, name), getattr(other, name)), name


def test_every_epoch_has_draws_of_its_own(draws):
    one = draws("digital-scratch")
    assert not same(one.order, one.second_order)
    assert not same(one.dropout, one.second_dropout)


def test_arms_of_one_seed_share_the_order_of_the_images_and_their_devices(draws):
    # What makes a comparison of arms a comparison of pairs.
    digital, analog, frozen = (
        draws(arm, 3) for arm in ("digital-scratch", "analog-scratch", "frozen-array")
    )
    assert same(digital.order, analog.order)
    assert same(analog.order, frozen.order)
    assert same(analog.devices, frozen.devices)


def test_convert_draws_by_the_seed_that_it_is_given(tiny, run_dir, monkeypatch):
    asked = []
    convert = transfer.to_analog

    def watched(*args, **given):
        conversion = convert(*args, **given)
        tile = next(transfer.analog_tiles(conversion.model))
        asked.append(tile.get_hidden_parameters()["max_bound_1"])
        return conversion

    monkeypatch.setattr(stages.transfer, "to_analog", watched)
    for seed in (1, 1, 2):
        list(stages.convert(tiny(pretrain={"epochs": 0}), run_dir, seed=seed))
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])


def test_a_trial_of_weight_programming_has_its_seed_and_learning_rate(tiny, run_dir, monkeypatch):
    made = []

    class Watching(WeightProgrammingRun):
        def __init__(self, section, analog, *, lr, seed):
            made.append((lr, seed))
            super().__init__(section, analog, lr=lr, seed=seed)

    monkeypatch.setattr(stages, "WeightProgrammingRun", Watching)
    experiment = tiny(
        kind="weight-programming",
        programming={"size": 2, "vectors": 2, "epochs": 1, "lr": 0.03},
        sweep={"seeds": [4, 5]},
    )
    for trial in trials_of(experiment, sweep=False):
        assert run_trial.run_trial(trial, run_dir)["status"] == "done"
    assert made == [(0.03, 4), (0.03, 5)]
