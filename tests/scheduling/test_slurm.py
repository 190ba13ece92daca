"""Trials under Slurm through submitit: its local executor, and a Slurm made of processes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_slurm
import fake_trials as fake
import pytest

from analogtl.config.load import with_settings
from analogtl.errors import ExperimentError
from analogtl.files import write_json
from analogtl.scheduling.sweep import Update, run_trials
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows

submitit = pytest.importorskip(
    "submitit", reason="submitit is not installed: pip install 'analogtl[slurm]'"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Slurm made of processes, put first on the PATH."""
    folder = fake_slurm.install(tmp_path / "slurm-commands")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    submitit.SlurmJob.watcher.clear()
    return folder


def start(run: RunDir, behaviour: dict[str, str], **given: Any) -> Iterator[Update]:
    sweep = {"seeds": given.pop("seeds")} if "seeds" in given else {}
    experiment = given.pop("experiment", None) or fake.experiment(behaviour, **sweep)
    return run_trials(
        Study(experiment, run, sweep=True), backend="slurm", function=fake.FUNCTION, **given
    )


def test_a_rehearsal_on_this_machine(run: RunDir) -> None:
    behaviour = {"wtn=5": "fail"}
    updates = list(start(run, behaviour, cluster="local", jobs=2))
    assert [u.text for u in updates if u.kind == "failed"] == [fake.PROBLEM]
    assert [u.trial for u in updates if u.kind == "done"] == [
        "arm=analog-scratch,wtn=0,lr=0.01,seed=0"
    ]
    assert len(read_rows(run.path / "trials.csv")) == 2


def test_one_array_job_runs_all_trials(run: RunDir, slurm: Path) -> None:
    options = {"partition": "long", "hours": 2.0, "memory_gb": 4.0, "account": "us"}
    updates = []
    for update in start(run, {"arm": "held"}, seeds=[0, 1], jobs=3, **options):
        updates.append(update)
        if update.kind == "epoch":  # progress is told
            fake.release(run)
    assert [u.kind for u in updates].count("done") == 4
    [submission] = fake_slurm.submissions(slurm)
    assert submission["array"] == "0-3%3"
    assert submission["partition"] == "long"
    assert submission["account"] == "us"
    assert submission["time"] == "120"
    assert submission["mem"] == "4GB"
    assert "requeue" in submission
    [message] = [u.text for u in updates if u.kind == "message"]
    assert message.startswith("4 trials")
    assert "scancel 1000" in message


def test_many_trials_share_the_jobs_of_one_array(
    run: RunDir, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analogtl.scheduling.slurm.MAX_ARRAY", 3)
    updates = list(start(run, {}, seeds=[0, 1, 2, 3]))
    assert [u.kind for u in updates].count("done") == 8
    [submission] = fake_slurm.submissions(slurm)
    assert submission["array"].startswith("0-2%")


def test_what_needs_the_pretrained_model_waits_for_the_job_that_makes_it(
    run: RunDir, slurm: Path
) -> None:
    arms = {"finetune.arms": ["digital-tl", "analog-tl", "analog-scratch"]}
    experiment = with_settings(fake.experiment(), arms)
    updates = list(start(run, {}, experiment=experiment, wait=False))
    assert {u.kind for u in updates} == {"message"}
    first, later = fake_slurm.submissions(slurm)
    assert first["array"].startswith("0-2%"), "one that pretrains, two from scratch"
    assert later["array"].startswith("0-1%")
    assert later["dependency"] == "afterany:1000_0"


def test_what_needs_a_model_that_an_earlier_call_is_making_waits_for_it(
    run: RunDir, slurm: Path
) -> None:
    # Only the making of it is in the queue, where it stays as long as its process sleeps.
    first = with_settings(
        fake.experiment({"arm": "held"}), {"finetune.arms": ["digital-tl"], "sweep.axes": {}}
    )
    list(start(run, {}, experiment=first, wait=False))
    more = with_settings(first, {"sweep.seeds": [0, 1, 2]})
    list(start(run, {}, experiment=more, wait=False))
    _, later = fake_slurm.submissions(slurm)
    assert later["array"].startswith("0-1%")
    assert later["dependency"] == "afterany:1000"
    fake_slurm.scancel(slurm, ["1000", "--signal", "SIGKILL"])


def test_a_job_found_in_the_queue_that_dies_is_submitted_again(run: RunDir, slurm: Path) -> None:
    submitit.SlurmJob.watcher._delay_s = 1
    behaviour = {"arm": "held"}
    dies, other = fake.trials(behaviour)
    list(start(run, behaviour, wait=False))
    updates, killed = [], False
    for update in start(run, behaviour):
        updates.append(update)
        if update.kind == "epoch" and update.trial == dies.id and not killed:
            fake_slurm.scancel(slurm, ["1000_0", "--signal", "SIGKILL"])
            killed = True
        if len(fake_slurm.submissions(slurm)) == 2:
            fake.release(run)
    assert sorted(u.trial for u in updates if u.kind == "done") == sorted([dies.id, other.id])
    assert len(fake_slurm.submissions(slurm)) == 2
    assert [len(fake.attempts(run, trial.id)) for trial in (dies, other)] == [2, 1]


def test_jobs_outlive_the_command_and_are_found_again(run: RunDir, slurm: Path) -> None:
    behaviour = {"arm": "held"}
    updates = start(run, behaviour)
    next(update for update in updates if update.kind == "epoch")
    updates.close()  # type: ignore[attr-defined]
    again = []
    for update in start(run, behaviour):
        again.append(update)
        if update.kind == "epoch":
            fake.release(run)
    assert [u.kind for u in again if u.kind in ("done", "skipped")] == ["done", "done"]
    assert len(fake_slurm.submissions(slurm)) == 1, "nothing is submitted twice"
    assert [len(fake.attempts(run, trial.id)) for trial in fake.trials()] == [1, 1]


def test_the_experiment_is_frozen_at_submission(run: RunDir, slurm: Path) -> None:
    fake_slurm.keep_busy(slurm)  # a job at work on one of the trials would refuse the second call
    list(start(run, {}, wait=False))
    # The same names with other settings are other trials, and not taken for those in the queue.
    longer = with_settings(fake.experiment(), {"finetune.epochs": 77})
    list(start(run, {}, experiment=longer, wait=False))
    assert len(fake_slurm.submissions(slurm)) == 2
    fake_slurm.make_room(slurm)
    fake_slurm.wait(slurm)
    epochs = set()
    for file in [*run.path.glob("trials/*/trial.json"), *run.path.glob("replaced/*/trial.json")]:
        epochs.add(json.loads(file.read_text())["settings"]["finetune"]["epochs"])
    assert epochs <= {10, 77}
    assert epochs


def test_a_job_at_its_time_limit_saves_and_goes_back_into_the_queue(
    run: RunDir, slurm: Path
) -> None:
    behaviour = {"wtn=5": "held"}
    trial = fake.trials(behaviour)[1]
    seen: list[Update] = []
    for update in start(run, behaviour):
        seen.append(update)
        if update.kind == "epoch" and not (slurm / "requeued").exists():
            fake_slurm.scancel(slurm, ["1000_1", "--signal", "SIGUSR2"])
            while not (slurm / "requeued").exists():
                time.sleep(0.05)
    assert (slurm / "requeued").read_text() == "1000_1\n"
    assert [u.kind for u in seen].count("done") == 2
    assert not [u for u in seen if u.kind == "message" and "last checkpoint" in u.text]
    assert len(set(fake.attempts(run, trial.id))) == 2


def test_a_job_that_dies_is_submitted_again(run: RunDir, slurm: Path) -> None:
    submitit.SlurmJob.watcher._delay_s = 1  # asks sacct more often than every ten minutes
    updates = list(start(run, {"wtn=5": "once"}))
    assert [u.kind for u in updates].count("done") == 2
    lost = [u for u in updates if u.kind == "message" and "ended (COMPLETED)" in u.text]
    assert len(lost) == 1
    assert len(fake_slurm.submissions(slurm)) == 2


def test_a_deadline_stops_the_jobs_and_fails_no_trial(run: RunDir, slurm: Path) -> None:
    limits = RunLimits(deadline=time.time() + 20)  # time enough for the other one, on any machine
    updates = list(start(run, {"wtn=5": "held"}, limits=limits))
    ended = {u.trial: u.kind for u in updates if u.kind in ("done", "failed", "stopped")}
    assert list(ended.values()).count("done") == 1
    assert list(ended.values()).count("stopped") == 1
    assert len(fake_slurm.submissions(slurm)) == 1


def test_a_list_of_submissions_from_elsewhere_is_not_believed(run: RunDir, slurm: Path) -> None:
    hostile = {"a": ["../../x", "k"], "b": ["1; rm -rf /", "k"], "c": [1, 2], "d": "e", "f": ["7"]}
    write_json(run.path / "slurm" / "submitted.json", hostile)
    assert [u.kind for u in start(run, {})].count("done") == 2


def test_without_slurm_that_is_said(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExperimentError, match=r"backend .slurm."):
        list(start(run, {}))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ExperimentError, match=r"analogtl\[slurm\]"):
        list(start(run, {}))
