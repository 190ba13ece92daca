"""Layers with settings of their own in a study: levels, keys, what is shown and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import call
from told import problems_of

from analogtl.config.load import with_settings
from analogtl.config.per_layer import meant
from analogtl.config.schema import Experiment
from analogtl.study.basis import no_look
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import Trial, common_key, trials_of
from analogtl.training.run_trial import run_trial
from analogtl.vocabulary import PER_LAYER, Arm, key_of

SETTINGS = {"wtn": 20, "spv": 10}


def opened(levels: Any, settings: Any = SETTINGS, **sections: Any) -> Study:
    data = {"name": "layers", "model": {"architecture": "mlp_digits"}, **sections}
    data |= {"per_layer": {"settings": settings}, "sweep": {"axes": {PER_LAYER: levels}}}
    return Study.open(Experiment.model_validate(data), sweep=True, look=no_look)


def levels_of(study: Study) -> list[Any]:
    return [trial.axes[PER_LAYER] for trial in study.trials if trial.arm.analog]


def by_level(study: Study) -> dict[Any, Trial]:
    return {trial.axes[PER_LAYER]: trial for trial in study.trials if trial.arm.analog}


def test_each_layer_is_a_level_in_the_network_s_order():
    study = opened(["none", "each-layer", "all"])
    levels = levels_of(study)
    assert (levels[0], levels[-1]) == ("none", "all")
    assert len(levels) == 5
    assert list(study.experiment.sweep.axes[PER_LAYER]) == levels
    swin = opened(["none", "each-stage"], model={"architecture": "swin_digits"})
    assert levels_of(swin) == ["none", "stages.0", "stages.1", "head"]


def test_a_finetuning_leaves_the_axis_alone():
    data = {"name": "x", "per_layer": {"layer": "all", "settings": SETTINGS}}
    data["sweep"] = {"axes": {PER_LAYER: ["none", "each-layer"]}}
    study = Study.open(Experiment.model_validate(data), look=no_look)
    assert {trial.experiment.per_layer.layer for trial in study.trials} == {"all"}


def test_levels_that_mean_no_layer_are_refused_one_line_each():
    assert len(problems_of(opened, ["none", "heads", "stages.7"])) == 2


def key(layer: str, settings: Any, arm: str = "analog-tl") -> str:
    data = {"name": "x", "finetune": {"arms": [arm]}}
    data |= {"per_layer": {"layer": layer, "settings": settings}} if settings else {}
    return trials_of(Experiment.model_validate(data), sweep=False, look=no_look)[0].key


def test_settings_count_where_some_layer_has_them():
    plain = key("none", {})
    assert key("none", SETTINGS) == plain
    assert len({plain, key("all", SETTINGS), key("head", SETTINGS), key("head", {"wtn": 5})}) == 4
    assert key("head", {"wtn": 5}) == key("head", {"convert": {"weight_transfer_noise": 5}})
    assert key("head", SETTINGS, "digital-tl") == key("none", {}, "digital-tl")


def test_the_levels_of_a_sweep_belong_together():
    study = opened(["none", "each-layer", "all"])
    whole = study.experiment.resolved()
    keys = {
        common_key(trial.experiment.resolved(), trial.arm, [PER_LAYER])
        for trial in by_level(study).values()
    }
    assert keys == {common_key(whole, Arm.ANALOG_TL, [PER_LAYER])}
    other = opened(["none", "all"], {"wtn": 5})
    assert common_key(other.experiment.resolved(), Arm.ANALOG_TL, [PER_LAYER]) not in keys


def test_what_differs_may_be_an_axis_too():
    axes = {PER_LAYER: ["none", "all"], "per_layer.settings.wtn": [5, 20]}
    data = {"name": "x", "sweep": {"axes": axes}, "finetune": {"arms": ["analog-tl"]}}
    study = Study.open(Experiment.model_validate(data), sweep=True, look=no_look)
    own = [trial.experiment.per_layer for trial in study.trials]
    assert [(one.layer, one.settings["convert.weight_transfer_noise"]) for one in own] == [
        ("none", 5), ("none", 20), ("all", 5), ("all", 20)
    ]  # fmt: skip
    keys = {common_key(t.experiment.resolved(), t.arm, t.axes) for t in study.trials}
    assert len(keys) == 1


FILE = """name = "x"
model.architecture = "mlp_digits"
finetune.arms = ["analog-tl"]
analog.drive = 0.5
analog.granularity_per_token = 0.2
[per_layer.settings]
wtn = 20
"""


def test_a_dry_run_shows_which_layer_has_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    Path("exp.toml").write_text(FILE)
    done = call(capsys, "sweep", "exp.toml", "--param", PER_LAYER, "--dry-run")
    assert done.code == 0
    assert sum(" * " in line for line in done.out.splitlines()) == 1
    assert "weight_transfer_noise = 20" in done.out
    levels = ("--param", PER_LAYER, "--values", "none,heads")
    done = call(capsys, "sweep", "exp.toml", *levels, "--quiet")
    assert done.code == 2
    assert len(done.problems) == 1
    assert not Path("runs").exists()


def test_validate_looks_at_every_layer(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.chdir(tmp_path)
    Path("exp.toml").write_text(FILE + "[sweep.axes]\nper_layer = ['none', 'each-layer', 'all']\n")
    done = call(capsys, "validate", "exp.toml")
    assert (done.code, "5 trials" in done.out) == (0, True)
    Path("exp.toml").write_text(FILE + "[sweep.axes]\nper_layer = ['none', 'heads']\n")
    assert len(call(capsys, "validate", "exp.toml").problems) == 1


def test_a_layer_that_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    Path("exp.toml").write_text(FILE)
    for command in ("finetune", "convert"):
        done = call(capsys, command, "exp.toml", "--set", "per_layer.layer=heads", "--quiet")
        assert done.code == 2
        assert len(done.problems) == 1
    assert not Path("runs").exists()


def test_a_layer_has_its_own_settings_on_stock_arrays(tiny, run_dir):
    own = {"layer": "head", "settings": {"wtn": 40, "out_noise": 0.3}}
    finetune = {"arms": ["analog-scratch"], "epochs": 1, "samples_per_class": 20}
    experiment = tiny(per_layer=own, finetune=finetune, analog={"engine": "aihwkit"})
    (trial,) = trials_of(experiment, sweep=False)
    row = run_trial(trial, run_dir)
    assert (row["status"], row["engine"]) == ("done", "aihwkit")
    rows = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
    assert [row["layer"] for row in rows if row["own_settings"]] == ["head"]


def test_a_layer_has_its_own_settings_in_training_and_the_tables(tiny, run_dir):
    """At ``all`` a trial is the one with the settings everywhere, at ``none`` the one without."""
    settings = {"wtn": 40, "out_noise": 0.3, "spv": 30}
    changes = {"per_layer": {"settings": settings}, "finetune": {"arms": ["analog-tl"]}}
    changes["sweep"] = {"axes": {PER_LAYER: ["none", "each-layer", "all"]}}
    trials = by_level(Study.open(tiny(**changes), root=run_dir.root, sweep=True))
    plain = tiny(finetune={"arms": ["analog-tl"]})
    dotted = {key_of(name): value for name, value in settings.items()}
    rivals = {"none": plain, "all": with_settings(plain, dotted)}
    told = {}
    for level, trial in trials.items():
        run_trial(trial, run_dir)
        told[level] = read_rows(run_dir.trial_path(trial.id) / "epochs.csv")
        rows = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
        own = [row["layer"] for row in rows if row["own_settings"]]
        assert own == meant(level, [row["layer"] for row in rows])
    for level, rival in rivals.items():
        (trial,) = trials_of(rival, sweep=False)
        run_trial(trial, run_dir)
        again = read_rows(run_dir.trial_path(trial.id) / "epochs.csv")
        assert [row["loss"] for row in again] == [row["loss"] for row in told[level]]
    losses = {level: tuple(row["loss"] for row in rows) for level, rows in told.items()}
    assert len(set(losses.values())) == len(losses)
