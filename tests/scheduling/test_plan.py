"""What a sweep will run, and what it will need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials as fake
import pytest

from analogtl.config.load import load_experiment, with_settings
from analogtl.config.schema import Experiment, content_key
from analogtl.files import write_json
from analogtl.scheduling.plan import Sample, estimate, finished_samples, makespan, memory_free, plan
from analogtl.study.run_dir import RunDir, pretrain_settings
from analogtl.study.trial import Trial, trials_of


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs", "fake")


def finish(run: RunDir, trial: Trial, *, wall_s: float = 30.0, **row: Any) -> None:
    """Record a trial as done."""
    row = {"trial": trial.id, "status": "done", "wall_s": wall_s, **row}
    run.write_trial(trial, row, fake.epochs_of(trial, 2), [])


def both(**changes: Any) -> Experiment:
    changed = {"finetune.arms": ["digital-tl", "analog-tl"], **changes}
    return with_settings(fake.experiment(), changed)


def test_a_plan_tells_what_is_done_failed_begun_and_outdated(run: RunDir) -> None:
    behaviour = {"wtn=0,lr=0.01,seed=1": "fail"}
    experiment = fake.experiment(behaviour, seeds=[0, 1, 2])
    trials = trials_of(experiment, sweep=True)
    fake.run_trial(trials[0], run)
    fake.run_trial(trials[2], run)
    (run.trial_path(trials[4].id) / "resume").mkdir(parents=True)
    old = Trial(
        with_settings(experiment, {"finetune.epochs": 3}), trials[1].arm, trials[1].axes, 0.01, 0
    )
    finish(run, old)
    made = plan(experiment, run, sweep=True)
    assert made.finished == {trials[0].id}
    assert made.failed == {trials[2].id: "the loss became nan at epoch 1, step 3"}
    assert made.begun == {trials[4].id}
    assert made.changed == {trials[1].id}
    assert [trial.id for trial in made.left] == [trial.id for trial in trials[1:]]
    assert (made.pretrain, made.notes) == ("not needed", [])


def test_a_plan_changes_nothing_even_if_something_is_damaged(run: RunDir) -> None:
    [trial, *_] = fake.trials()
    fake.run_trial(trial, run)
    (run.trial_path(trial.id) / "epochs.csv").write_text("torn")
    made = plan(fake.experiment(), run, sweep=True)
    assert trial.id not in made.finished
    assert "checksum does not match" in made.notes[0]
    assert (run.trial_path(trial.id) / "epochs.csv").read_text() == "torn"


def test_a_plan_says_whether_and_why_it_pretrains(run: RunDir) -> None:
    experiment = both()

    def checkpoint(of: Experiment) -> None:
        key = f"{content_key(pretrain_settings(of))}-0123"
        write_json(run.pretrained / key / "checkpoint.json", {})
        pointer = {"key": key, "settings": pretrain_settings(of)}
        write_json(run.path / "pretrain" / "checkpoint.json", pointer)

    made = plan(experiment, run, sweep=False)
    assert (made.pretrain, made.reason) == ("run", "no such model was pretrained yet")
    checkpoint(experiment)
    assert plan(experiment, run, sweep=False).pretrain == "reuse"
    longer = both(**{"pretrain.epochs": 33})
    made = plan(longer, run, sweep=False)
    assert made.pretrain == "run"
    assert made.reason == "settings changed: pretrain.epochs was 20, is 33"
    several = both(**{"sweep.axes": {"pretrain.epochs": [20, 33]}})
    made = plan(several, run, sweep=True)
    assert made.reason == "1 of 2 pretrained models are not there yet"
    for trial in trials_of(experiment, sweep=False):
        finish(run, trial)
    assert plan(experiment, run, sweep=False).pretrain == "not needed"


def test_wall_time_of_trials_on_several_processes() -> None:
    assert makespan([], 3) == 0
    assert makespan([5, 5, 5, 5], 1) == 20
    assert makespan([5, 5, 5, 5], 2) == 10
    assert makespan([1, 9, 1, 1], 2) == 9
    assert makespan([2, 2, 2], 8) == 2


def test_nothing_is_known_before_anything_ran(run: RunDir) -> None:
    guess = estimate(plan(fake.experiment(), run, sweep=True), run)
    assert guess.seconds is None
    assert guess.memory is None
    assert guess.basis == "nothing like it has been run yet"
    assert guess.trials == 2
    assert 0 < guess.disk < guess.disk_free


def test_finished_trials_tell_what_the_others_take(run: RunDir) -> None:
    experiment = fake.experiment(seeds=[0, 1, 2])
    trials = trials_of(experiment, sweep=True)
    finish(run, trials[0], wall_s=20)
    finish(run, trials[1], wall_s=40)
    guess = estimate(plan(experiment, run, sweep=True), run, jobs=2)
    # The level is part of the device, so each level has a nearest trial of its own.
    assert sorted(guess.seconds_by_trial.values()) == [30, 30, 30, 30]
    assert guess.seconds == 60
    assert guess.basis == "trials like these in this run"
    assert guess.memory is not None
    assert guess.memory > 1e7


def test_times_scale_with_the_epochs_and_come_from_the_nearest_kind(run: RunDir) -> None:
    experiment = both()
    digital, analog = trials_of(experiment, sweep=False)
    neighbour = RunDir(run.root, "neighbour")
    finish(neighbour, digital, wall_s=10)
    finish(neighbour, analog, wall_s=100)
    longer = with_settings(experiment, {"finetune.epochs": 30, "finetune.batch_size": 16})
    guess = estimate(plan(longer, run, sweep=False), run)
    assert list(guess.seconds_by_trial.values()) == [30, 300]
    assert guess.basis == (
        "trials with the same model in run neighbour; the pretraining comes on top"
    )
    other = with_settings(longer, {"model.architecture": "mlp_digits"})
    assert estimate(plan(other, run, sweep=False), run).seconds is None


def test_resumed_and_foreign_records_are_no_basis(run: RunDir) -> None:
    [trial, *_] = fake.trials()
    finish(run, trial, wall_s=20, resumed=True)
    strange = run.path / "trials" / "strange"
    strange.mkdir()
    for content in ("[]", "{}", '{"row": {"status": "done", "wall_s": "x"}, "settings": {}}', "x"):
        (strange / "trial.json").write_text(content)
        assert list(finished_samples(run)) == []
    row = {"status": "done", "wall_s": 5}
    (strange / "trial.json").write_text(json.dumps({"row": row, "settings": {"arm": 3}}))
    assert estimate(plan(fake.experiment(), run, sweep=True), run).seconds is None


def test_a_measurement_wins_over_older_trials(run: RunDir) -> None:
    experiment = fake.experiment()
    trials = trials_of(experiment, sweep=True)
    sample = Sample(trials[0].settings(), 7.0, 800.0, "a short measurement")
    guess = estimate(plan(experiment, run, sweep=True), run, samples=[sample])
    assert guess.seconds == 14
    assert guess.basis == "a short measurement"
    assert guess.memory == 800_000_000


def test_what_does_not_fit_is_said_before(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = fake.experiment(seeds=list(range(10)))
    monkeypatch.setattr("analogtl.scheduling.plan.memory_free", lambda: 5_000_000_000)
    monkeypatch.setattr("analogtl.scheduling.plan._disk_free", lambda _: 100_000)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    settings = trials_of(experiment, sweep=True)[0].settings()
    sample = Sample(settings, 3600.0, 3600.0, "a short measurement")
    made = plan(experiment, run, sweep=True)
    warnings = estimate(made, run, jobs=4, max_hours=2, samples=[sample]).warnings
    assert [line.partition(":")[0] for line in warnings] == ["disk", "memory", "cores", "time"]
    assert "use --jobs 1" in warnings[1]
    assert "5.0 hours, more than the limit of 2" in warnings[3]
    assert estimate(made, run, jobs=1, samples=[sample]).warnings[1:] == []


def test_this_machine_says_how_much_memory_is_left() -> None:
    free = memory_free()
    if not Path("/proc/meminfo").exists():
        assert free is None
    else:
        assert free is not None
        assert 10**7 < free < 10**14


@pytest.mark.slow
def test_weight_programming_is_measured_as_such(run_dir: RunDir) -> None:
    from analogtl.scheduling.measuring import measure
    from analogtl.training.stages import run_trial

    settings = ["programming.epochs=40", "sweep.axes={}", "programming.vectors=200"]
    [trial] = trials_of(load_experiment("desk/weight_programming", settings), sweep=False)[:1]
    sample = measure(trial)
    assert sample is not None
    run_trial(trial, run_dir)
    row = run_trial(replace(trial, seed=9), run_dir)
    assert 0.1 < sample.seconds / row["wall_s"] < 10


@pytest.mark.slow
def test_a_short_measurement_has_the_right_magnitude(tiny: Any, run_dir: RunDir) -> None:
    from analogtl.scheduling.measuring import measure
    from analogtl.training.stages import run_trial

    experiment = tiny(finetune={"epochs": 40, "arms": ["analog-scratch"]})
    [trial] = trials_of(experiment, sweep=False)
    sample = measure(trial)
    assert sample is not None
    assert sample.memory_mb is not None
    assert 200 < sample.memory_mb < 5000
    run_trial(trial, run_dir)  # compiles, if nothing has yet
    [other] = trials_of(with_settings(experiment, {"sweep.seeds": [1]}), sweep=False)
    row = run_trial(other, run_dir)
    assert 0.1 < sample.seconds / row["wall_s"] < 10
