"""Pulses of each epoch, over interruptions, and of each cell."""

import itertools
import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from aihwkit.optim import AnalogSGD
from safetensors import safe_open
from torch import nn

import analogtl
from analogtl.config.arrays import Analog, Convert
from analogtl.config.schema import Experiment
from analogtl.crossbar.convert import analog_layers, to_analog
from analogtl.crossbar.pulses import KINDS, pulses_between, pulses_so_far
from analogtl.crossbar.saved import pulses_of_cells
from analogtl.errors import ExperimentError, RunError
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.tables import read_rows, read_table
from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial

SCRATCH = {"arms": ["analog-scratch"], "epochs": 3, "batch_size": 10}


def a_trial(tiny, **sections):
    [trial] = trials_of(tiny(**{"finetune": SCRATCH, **sections}), sweep=False)
    return trial


def rows_of(run, trial):
    return read_table(run.trial_path(trial.id) / "pulses.csv")


@pytest.fixture
def finished(tiny, tmp_path):
    """A run with a trial that saved the pulses of every cell."""
    run, trial = RunDir(tmp_path / "whole", "tiny"), a_trial(tiny, run={"save_pulses": True})
    assert run_trial(trial, run)["status"] == "done"
    run.collect()
    return run, trial


def test_the_epochs_sum_up_to_the_trial_and_the_cells_to_the_layers(finished):
    run, trial = finished
    pulses = analogtl.read_pulses(run.path, everything=True)
    layers = analogtl.read_layers(run.path, everything=True).set_index("layer")
    assert len(pulses) == 3 * len(layers)
    assert sorted(set(pulses["epoch"])) == [1, 2, 3]
    cells = safetensors.numpy.load_file(run.trial_path(trial.id) / "pulses.safetensors")
    assert len(cells) == 4 * layers["tiles"].sum()
    for kind in KINDS:
        total = pulses.groupby("layer")[f"{kind}_sum"].sum()
        assert total.sum() > 0
        assert total.to_dict() == layers[f"{kind}_sum"].to_dict()
        name = kind[0].upper() + kind[1:]
        for layer, row in layers.iterrows():
            counts = cells[f"{layer}.0.{name}"]
            assert "x".join(map(str, counts.shape)) == row["shape"]
            assert counts.sum() == row[f"{kind}_sum"]
            assert counts.max() == row[f"{kind}_max"]


@pytest.mark.parametrize("after", [3, 9, 14])
def test_a_trial_that_was_interrupted_has_the_same_pulses(tiny, tmp_path, finished, after):
    whole, _ = finished
    run, trial = RunDir(tmp_path / "stopped", "tiny"), a_trial(tiny, run={"save_pulses": True})
    steps = itertools.count()
    limits = RunLimits(stop=lambda: next(steps) >= after)
    assert run_trial(trial, run, limits)["status"] == "stopped"
    assert run_trial(trial, run)["resumed"]
    for name in ("pulses.csv", "pulses.safetensors"):
        content = (run.trial_path(trial.id) / name).read_bytes()
        assert content == (whole.trial_path(trial.id) / name).read_bytes()


def test_an_epoch_has_the_sum_mean_median_and_maximum_of_its_own_pulses():
    before = {"head": [{"A_up": torch.tensor([[100, 3]], dtype=torch.int8)}]}
    after = {"head": [{"A_up": torch.tensor([[300, 4]], dtype=torch.int16)}]}
    before["head"].append({"A_up": torch.tensor([[0]])})
    after["head"].append({"A_up": torch.tensor([[6]])})
    [row] = pulses_between(before, after)
    assert row == {
        "layer": "head", "a_up_sum": 207, "a_up_mean": 69.0, "a_up_median": 6.0, "a_up_max": 200,
    }  # fmt: skip


def test_the_cells_of_a_split_layer_lie_where_the_metadata_say(tmp_path):
    analog = Analog(granularity_per_token=0.05, mapping={"max_input_size": 8, "max_output_size": 5})
    torch.manual_seed(0)
    made = to_analog(
        nn.Sequential(nn.Linear(20, 7)), analog, Convert(), seed=1, example=torch.randn(2, 20)
    ).model
    optimizer = AnalogSGD(made.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        # Outputs and inputs that nothing comes from or goes to have no pulses.
        x = torch.randn(4, 20)
        x[:, 9:] = 0.0
        (made(x)[:, :6] ** 2).sum().backward()
        optimizer.step()
    (tmp_path / "cells").write_bytes(pulses_of_cells(made))
    whole = np.full((7, 20), -1)
    [tiles] = pulses_so_far(made).values()
    inner = next(iter(analog_layers(made).values())).analog_module
    wrappers = [tile for row in inner.array for tile in row]
    with safe_open(tmp_path / "cells", "numpy") as file:
        assert len(file.keys()) == 4 * len(tiles) == 4 * 6
        for number, (tile, counts) in enumerate(zip(wrappers, tiles, strict=True)):
            place = json.loads(file.metadata()["tiles"])[f"0.{number}"]
            for kind, expected in tile.pulse_counts().items():
                found = file.get_tensor(f"0.{number}.{kind}")
                np.testing.assert_array_equal(found, expected.T)
                np.testing.assert_array_equal(found, counts[kind])
            part = tuple(slice(*place[side]) for side in ("outputs", "inputs"))
            assert (whole[part] == -1).all()
            whole[part] = tile.pulse_counts()["A_up"].T + tile.pulse_counts()["A_down"].T
    assert (whole[:6, :9] > 0).all()
    assert (whole[:, 9:] == 0).all()
    assert (whole[6] == 0).all()


def test_asking_for_cells_makes_no_other_trial_and_damage_is_found(tiny, finished):
    run, trial = finished
    assert a_trial(tiny).key == trial.key
    assert run.finished(a_trial(tiny)) is not None
    file = run.trial_path(trial.id) / "pulses.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"pulses\.safetensors"):
        run.checked_record(trial.id)
    assert run.finished(trial) is None
    assert list(run.damaged.rglob("pulses.safetensors"))
    run_trial(a_trial(tiny), run)
    assert not file.exists()


def test_results_of_other_settings_are_kept_with_their_cells(tiny, finished):
    run, trial = finished
    other = a_trial(tiny, finetune={**SCRATCH, "samples_per_class": 20})
    assert other.id == trial.id
    assert run_trial(other, run)["status"] == "done"
    assert list((run.path / "replaced").rglob("pulses.safetensors"))
    assert not (run.trial_path(trial.id) / "pulses.safetensors").exists()


@pytest.mark.parametrize(
    ("arm", "engine"), [("analog-scratch", "aihwkit"), ("digital-scratch", "fast")]
)
def test_without_arrays_on_the_fast_engine_there_are_none(tiny, run_dir, arm, engine):
    sections = {"finetune": {**SCRATCH, "arms": [arm]}, "analog": {"engine": engine}}
    trial = a_trial(tiny, **sections, run={"save_pulses": True})
    left = run_dir.trial_path(trial.id) / "pulses.safetensors"  # by a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    assert run_trial(trial, run_dir)["status"] == "done"
    assert not list(run_dir.trial_path(trial.id).glob("pulses*"))
    run_dir.collect()
    assert read_rows(run_dir.path / "pulses.csv") == []


def test_runs_of_earlier_versions_have_no_such_table(finished):
    run, _ = finished
    (run.path / "pulses.csv").unlink()
    with pytest.raises(ExperimentError, match=r"pulses\.csv"):
        analogtl.read_pulses(run.path)
    assert len(analogtl.read_layers(run.path, everything=True)) > 0


def test_weight_programming_has_them_too(tmp_path):
    settings = {"size": 8, "vectors": 200, "epochs": 2, "lr": 0.1}
    experiment = Experiment.model_validate(
        {
            "name": "programming",
            "kind": "weight-programming",
            "programming": settings,
            "run": {"save_pulses": True},
        }
    )
    run = RunDir(tmp_path, "programming")
    [trial] = trials_of(experiment, sweep=True)
    assert run_trial(trial, run)["status"] == "done"
    [layer] = read_rows(run.trial_path(trial.id) / "layers.csv")
    pulses = rows_of(run, trial)
    assert pulses["epoch"].tolist() == [1, 2]
    assert pulses["a_up_sum"].sum() == int(layer["a_up_sum"]) > 0
    cells = safetensors.numpy.load_file(run.trial_path(trial.id) / "pulses.safetensors")
    assert cells["array.0.A_up"].sum() == int(layer["a_up_sum"])
