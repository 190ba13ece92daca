"""What a sweep will run, reuse and redo, and what this machine has no room for."""

from __future__ import annotations

import shutil
from typing import Any

import fake_trials as fake
import pytest

from analogtl.config.load import with_settings
from analogtl.config.schema import Experiment
from analogtl.files import write_json
from analogtl.scheduling.plan import plan, shortages
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial, pretrain_settings


def finish(run: RunDir, trial: Trial) -> None:
    """Record a trial as done."""
    row = {**trial_row(trial), "status": "done", "error_final": 9.0, "wall_s": 30.0}
    run.write_trial(trial, row, fake.epochs_of(trial, 2), [])


def both(**changes: Any) -> Experiment:
    changed = {"finetune.arms": ["digital-tl", "analog-tl"], **changes}
    return with_settings(fake.experiment(), changed)


def test_a_plan_tells_what_is_done_failed_begun_and_outdated(run: RunDir) -> None:
    study = fake.study(run, {"wtn=0,lr=0.01,seed=1": "fail"}, seeds=[0, 1, 2])
    trials = study.trials
    fake.run_trial(trials[0], run)
    fake.run_trial(trials[2], run)
    run.state_path(trials[4]).mkdir(parents=True)
    earlier = with_settings(study.experiment, {"finetune.epochs": 3})
    finish(run, Study(earlier, run, sweep=True).trials[1])
    made = plan(study)
    assert made.finished == {trials[0].id}
    assert made.failed == {trials[2].id: fake.PROBLEM}
    assert made.begun == {trials[4].id}
    assert made.changed == {trials[1].id: "other settings"}
    assert [trial.id for trial in made.left] == [trial.id for trial in trials[1:]]
    assert (made.pretrain, made.notes) == ("not needed", [])


def test_a_plan_changes_nothing_even_if_something_is_damaged(run: RunDir) -> None:
    study = fake.study(run)
    trial = study.trials[0]
    fake.run_trial(trial, run)
    (run.trial_path(trial.id) / "epochs.csv").write_text("torn")
    made = plan(study)
    assert trial.id not in made.finished
    assert "checksum" in made.notes[0]
    assert (run.trial_path(trial.id) / "epochs.csv").read_text() == "torn"


def test_a_plan_says_whether_and_why_it_pretrains(run: RunDir) -> None:
    study = Study(both(), run)
    made = plan(study)
    assert made.pretrain == "run"
    key = study.pretrain_key
    write_json(run.pretrained / key / "checkpoint.json", {})
    pointer = {"key": key, "settings": pretrain_settings(study.experiment)}
    write_json(run.path / "pretrain" / "checkpoint.json", pointer)
    assert plan(study).pretrain == "reuse"
    made = plan(Study(both(**{"pretrain.epochs": 33}), run))
    assert made.pretrain == "run"
    assert "pretrain.epochs was 20" in made.reason
    several = Study(both(**{"sweep.axes": {"pretrain.epochs": [20, 33]}}), run, sweep=True)
    assert plan(several).reason.startswith("1 of 2")
    for trial in study.trials:
        finish(run, trial)
    assert plan(study).pretrain == "not needed"


def test_what_does_not_fit_is_said_before(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    trials = fake.trials(seeds=list(range(10)))
    assert shortages(trials, run, jobs=2) == []
    [line] = shortages(trials, run, jobs=4)
    assert line.startswith("cores: 4 jobs")
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)  # type: ignore[attr-defined]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    [line] = shortages(trials, run, jobs=1)
    assert line.startswith("disk: ")
