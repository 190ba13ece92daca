"""What is removed from runs: nothing that is a result, that could go on, or that is not ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fake_trials as fake
import pytest

from analogtl.config.load import with_settings
from analogtl.files import write_json, write_sealed
from analogtl.study.clean import Removable, removable, remove
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.trial import Trial

MODEL = "0123456789abcdef"


def filled(run: RunDir) -> list[Trial]:
    study = fake.study(run)
    study.prepare()
    for trial in study.trials:
        fake.run_trial(trial, run)
    run.collect()
    return study.trials


def changed(run: RunDir) -> Study:
    """The same trials with other settings."""
    experiment = with_settings(fake.experiment(), {"finetune.epochs": 99})
    return Study(experiment, run, sweep=True)


def saved_state(run: RunDir, trial: Trial) -> Path:
    folder = run.state_path(trial)
    folder.mkdir(parents=True)
    (folder / "state.json").write_bytes(b"x" * 5000)
    return folder


def model(run: RunDir, name: str, part: str = "checkpoint.json") -> Path:
    file = run.pretrained / name / part
    file.parent.mkdir(parents=True)
    write_sealed(file, {"meta": {}})
    return run.pretrained / name


def final_state(run: RunDir, trial: Trial, key: str) -> Path:
    file = run.final_path(trial.id).with_suffix(".json")
    file.parent.mkdir(parents=True)
    write_sealed(file, {"meta": {"trial": key}})
    return file.parent


def found(run: RunDir, **how: Any) -> dict[Path, Removable]:
    return {thing.path: thing for thing in removable(run.root, **how)[0]}


def test_leftovers_go_and_no_result(run: RunDir) -> None:
    trial, *_ = filled(run)
    tables = ("trials.csv", "epochs.csv")
    before = {name: (run.path / name).read_bytes() for name in tables}
    state = saved_state(run, trial)
    half = run.path / ".analogtl-x.part"
    half.write_bytes(b"x" * 100)
    os.utime(half, (1, 1))
    (run.path / ".analogtl-new.part").write_bytes(b"being written")
    (run.path / ".another-program.part").write_bytes(b"")
    os.utime(run.path / ".another-program.part", (1, 1))
    things = found(run)
    assert set(things) == {state, half}
    assert remove(list(things.values())) == 5100
    assert not state.exists()
    assert found(run) == {}
    assert {name: (run.path / name).read_bytes() for name in tables} == before


def test_the_state_of_an_interrupted_trial_stays_where_an_earlier_result_stands(
    run: RunDir,
) -> None:
    filled(run)
    again = changed(run)
    again.prepare()
    state = saved_state(run, again.trials[0])
    assert found(run) == {}
    assert found(run, everything=True) == {}
    filled(run)  # back to the earlier settings: the state is of others than are asked for
    assert found(run) == {}
    assert set(found(run, everything=True)) == {state}


def test_what_came_to_be_needed_after_the_question_stays(run: RunDir) -> None:
    trial, *_ = filled(run)
    state = saved_state(run, trial)
    things = list(found(run).values())
    with run.trial_lock(trial.id):
        assert remove(things) == 0
    again = changed(run)
    again.prepare()
    fake.run_trial(again.trials[0], run)
    assert remove(things) == 0
    assert state.is_dir()


def test_a_trial_that_failed_or_is_damaged_keeps_its_state(run: RunDir) -> None:
    trial, other = fake.trials({"wtn=0": "fail"})
    fake.study(run, {"wtn=0": "fail"}).prepare()
    for one in (trial, other):
        fake.run_trial(one, run)
        saved_state(run, one)
    (run.trial_path(other.id) / "trial.json").write_text("{")
    assert found(run) == {}


def test_models_go_only_if_no_run_needs_them(run: RunDir) -> None:
    filled(run)
    used, resumable, unused, half = (
        model(run, f"{MODEL[:-1]}{n}", "resume/state.json" if n % 2 else "checkpoint.json")
        for n in range(4)
    )
    plan = run.read("plan.json")
    write_json(run.path / "plan.json", {**plan, "pretrained": [used.name, resumable.name]})
    assert found(run) == {}
    assert set(found(run, everything=True)) == {unused, half}
    (run.path / "plan.json").write_text("{")
    things, left_alone = removable(run.root, everything=True)
    assert things == []
    assert any("plan.json" in line for line in left_alone)


def test_what_does_not_carry_our_mark_stays(run: RunDir, tmp_path: Path) -> None:
    filled(run)
    foreign = tmp_path / "runs" / "project"
    for name in ("logs", "damaged", "replaced"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "precious").write_text("x")
    (foreign / "plan.json").write_text('{"trials": ["a"]}')
    (foreign / "provenance.json").write_text('{"by": "another program"}')
    mine = run.pretrained / MODEL
    mine.mkdir(parents=True)
    (mine / "weights.pt").write_text("precious")
    (run.pretrained / "thesis").mkdir()
    (run.pretrained / "thesis" / "checkpoint.json").write_text("{}")
    things, left_alone = removable(run.root, everything=True)
    assert things == []
    assert any(str(foreign) in line for line in left_alone)


@pytest.mark.parametrize("name", ["damaged", "replaced", "logs"])
def test_what_was_set_aside_goes_when_asked_for_and_nobody_is_at_work(
    run: RunDir, name: str
) -> None:
    filled(run)
    (run.path / name).mkdir()
    assert found(run) == {}
    things = found(run, everything=True)
    assert set(things) == {run.path / name}
    with run.working():
        assert remove(list(things.values())) == 0
    remove(list(things.values()))
    assert not (run.path / name).exists()


def test_nothing_behind_a_link_goes(run: RunDir, tmp_path: Path) -> None:
    trial, *_ = filled(run)
    outside = tmp_path / "outside"
    (outside / trial.key).mkdir(parents=True)
    half = outside / ".analogtl-x.part"
    half.touch()
    os.utime(half, (1, 1))
    model(RunDir(outside, "x"), MODEL)
    (run.trial_path(trial.id) / "resume").symlink_to(outside)
    run.pretrained.symlink_to(outside / "pretrained")
    (run.path / "notes").symlink_to(outside)
    (run.path / "damaged").symlink_to(outside)
    things, left_alone = removable(run.root, everything=True)
    assert things == []
    assert any("link" in line for line in left_alone)


def test_a_run_on_another_disk_is_cleaned_through_the_link_that_a_user_made(
    run: RunDir, tmp_path: Path
) -> None:
    trial, *_ = filled(run)
    os.rename(run.path, tmp_path / "disk")
    run.path.symlink_to(tmp_path / "disk")
    state = saved_state(run, trial)
    assert set(found(run)) == {state}
    remove(list(found(run).values()))
    assert not state.exists()


def test_a_final_state_stays_while_it_is_of_the_result_and_something_is_asked_of_it(
    run: RunDir,
) -> None:
    first, second, *_ = filled(run)
    settings = run.path / "experiment.resolved.json"
    write_json(settings, {"evaluate": {"times": [1.0]}})
    mine, other = final_state(run, first, first.key), final_state(run, second, "of others")
    assert not {mine, other} & set(found(run))
    assert {mine, other} & set(found(run, everything=True)) == {other}
    with run.trial_lock(second.id):  # perhaps it is being trained
        assert other not in found(run, everything=True)
    thing = found(run, everything=True)[other]
    assert thing.bytes == (other / "state.json").stat().st_size
    settings.write_text("damaged")
    assert mine not in found(run, everything=True)
    write_json(settings, {"evaluate": {"times": []}})
    assert remove(list(found(run, everything=True).values())) > 0
    assert not mine.exists()
    assert not other.exists()
    assert run.checked_record(first.id)
