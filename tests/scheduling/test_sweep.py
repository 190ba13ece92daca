"""Running many trials in worker processes, with a stand-in for the training (see fake_trials)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials as fake
import pytest
from fake_slurm import alive

from analogtl.config.load import with_settings
from analogtl.errors import ExperimentError, RunError
from analogtl.files import write_json
from analogtl.scheduling.jobs import Job, execute
from analogtl.scheduling.local import LocalPool, _Worker
from analogtl.scheduling.sweep import Update, backend_options, run_trials
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import Trial
from analogtl.vocabulary import Backend

Behaviour = dict[str, str]
PATIENCE = 300.0  # seconds until something that has to come is missing; only a failure takes them


def start(run: RunDir, behaviour: Behaviour, **given: Any) -> Any:
    sweep = {key: given.pop(key) for key in ("seeds", "axes") if key in given}
    given.setdefault("function", fake.FUNCTION)
    return run_trials(fake.study(run, behaviour, **sweep), **given)


def kinds(updates: Iterator[Update] | list[Update]) -> list[str]:
    return [update.kind for update in updates if update.kind not in ("epoch", "pretrain")]


@pytest.fixture
def finished(run: RunDir) -> list[Trial]:
    """The run's trials, which are done."""
    fake.study(run).prepare()
    for trial in fake.trials():
        fake.run_trial(trial, run)
    run.collect()
    return fake.trials()


def test_every_trial_runs_once_in_order_and_lands_in_the_tables(run: RunDir) -> None:
    updates = list(start(run, {}, seeds=[0, 1], jobs=1))
    started = [u.trial for u in updates if u.kind == "started"]
    assert started == [trial.id for trial in fake.trials(seeds=[0, 1])]
    assert kinds(updates).count("done") == 4
    rows = read_rows(run.path / "trials.csv")
    assert sorted(row["trial"] for row in rows) == sorted(started)
    assert len(read_rows(run.path / "epochs.csv")) == 4 * 3 * 2


def test_a_second_call_runs_nothing_again(
    run: RunDir, finished: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run.path / "trials.csv").read_bytes()
    monkeypatch.setattr("analogtl.scheduling.local.subprocess.Popen", None)  # not called
    assert kinds(start(run, {})) == ["skipped", "skipped"]
    assert (run.path / "trials.csv").read_bytes() == before
    assert all(len(fake.attempts(run, trial.id)) == 1 for trial in finished)


@pytest.mark.parametrize(
    ("jobs", "order"),
    [(1, ["started", "done", "started", "done"]), (2, ["started", "started", "done", "done"])],
)
def test_as_many_trials_run_at_once_as_there_are_jobs(
    run: RunDir, jobs: int, order: list[str]
) -> None:
    assert kinds(start(run, {}, jobs=jobs)) == order
    # Both were at work at the same moment, in processes of their own, or one after the other.
    workers = {tuple(fake.attempts(run, trial.id)) for trial in fake.trials()}
    assert len(workers) == jobs


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("fail", fake.PROBLEM),
        ("bug", "TypeError:"),
        ("segfault", "(SIGSEGV); see logs/worker-1.log"),
        ("sigkill", "was killed"),
    ],
)
def test_a_failure_is_recorded_and_does_not_stop_the_rest(
    run: RunDir, behaviour: str, message: str
) -> None:
    updates = list(start(run, {"wtn=0": behaviour}, jobs=1))
    failed = [u for u in updates if u.kind == "failed"]
    assert [u.trial for u in failed] == ["arm=analog-scratch,wtn=0,lr=0.01,seed=0"]
    assert message in failed[0].text
    assert [u.trial for u in updates if u.kind == "done"] == [
        "arm=analog-scratch,wtn=5,lr=0.01,seed=0"
    ]
    status = {r["trial"]: r["status"] for r in read_rows(run.path / "trials.csv")}
    assert sorted(status.values()) == ["done", "failed"]


def test_a_dead_worker_is_replaced_and_its_trial_taken_up_once_more(run: RunDir) -> None:
    updates = list(start(run, {"wtn=5": "once"}, jobs=1))
    assert kinds(updates).count("done") == 2
    message = next(u.text for u in updates if u.kind == "message")
    assert "killed" in message
    assert "last checkpoint" in message
    assert len(set(fake.attempts(run, "arm=analog-scratch,wtn=5,lr=0.01,seed=0"))) == 2


def test_a_worker_is_replaced_before_it_has_grown_old(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analogtl.scheduling.local.TRIALS_PER_WORKER", 2)
    list(start(run, {}, seeds=[0, 1], jobs=1))
    workers = [fake.attempts(run, trial.id) for trial in fake.trials(seeds=[0, 1])]
    assert workers[0] == workers[1] != workers[2] == workers[3]


@pytest.mark.parametrize(
    ("skip_failed", "attempts", "ended"),
    [
        (False, [2, 1, 1, 1], ["done", "failed", "skipped"]),
        (True, [1, 1, 1, 1], ["done", "failed", "skipped"]),
    ],
)
def test_what_to_do_with_earlier_failures_is_a_choice(
    run: RunDir, skip_failed: bool, attempts: list[int], ended: Any, in_process: None
) -> None:
    behaviour = {"wtn=0": "fail"}
    list(start(run, behaviour))
    updates = list(start(run, behaviour, seeds=[0, 1], skip_failed=skip_failed))
    trials = fake.trials(seeds=[0, 1])
    assert [len(fake.attempts(run, trial.id)) for trial in trials] == attempts
    assert sorted(set(kinds(updates)) - {"started"}) == ended


def test_closing_stops_the_workers_and_keeps_what_is_finished(run: RunDir) -> None:
    updates = start(run, {"wtn=5": "steps 3000"}, jobs=2)
    seen: list[Update] = []
    for update in updates:
        seen.append(update)
        if {"done", "epoch"} <= {u.kind for u in seen}:
            break
    [worker] = fake.attempts(run, "arm=analog-scratch,wtn=5,lr=0.01,seed=0")
    updates.close()
    assert not alive(worker)
    # It did not wait for the trial's own end.
    assert [r["status"] for r in read_rows(run.path / "trials.csv")] == ["done"]


def sweep_elsewhere(run: RunDir, behaviour: Behaviour, seeds: list[int]) -> subprocess.Popen[bytes]:
    """A process that does what `start` does."""
    code = (
        "import json, sys, fake_trials as fake\n"
        "from pathlib import Path\n"
        "from analogtl.scheduling.sweep import run_trials\n"
        "from analogtl.study.run_dir import RunDir\n"
        "root, behaviour, seeds = sys.argv[1], *map(json.loads, sys.argv[2:])\n"
        "study = fake.study(RunDir(Path(root), 'fake'), behaviour, seeds=seeds)\n"
        "for update in run_trials(study, jobs=2, function=fake.FUNCTION): pass\n"
    )
    arguments = [str(run.root), json.dumps(behaviour), json.dumps(seeds)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def test_workers_end_when_whoever_started_them_is_killed(run: RunDir) -> None:
    parent = sweep_elsewhere(run, {"arm": "steps 3000"}, [0])
    try:
        workers = wait_for(lambda: [p for t in fake.trials() for p in fake.attempts(run, t.id)], 2)
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + PATIENCE
    while any(alive(worker) for worker in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(worker) for worker in workers)


def test_three_processes_that_sweep_one_directory_do_no_trial_twice(run: RunDir) -> None:
    seeds = list(range(10))
    behaviour = {"arm": "sleep 0.02"}
    processes = [sweep_elsewhere(run, behaviour, seeds) for _ in range(3)]
    assert [process.wait(timeout=PATIENCE) for process in processes] == [0, 0, 0]
    trials = fake.trials(behaviour, seeds=seeds)
    assert [len(fake.attempts(run, trial.id)) for trial in trials] == [1] * len(trials)
    rows = read_rows(run.path / "trials.csv")
    assert sorted(row["trial"] for row in rows) == sorted(trial.id for trial in trials)
    assert len(read_rows(run.path / "epochs.csv")) == len(trials) * 3 * 2
    assert not (run.path / "damaged").exists()
    assert not list(run.path.rglob("*.part"))


def test_a_deadline_stops_and_the_next_call_goes_on(run: RunDir, in_process: None) -> None:
    seen: list[Update] = []
    limits = RunLimits(stop=lambda: "done" in kinds(seen))
    for update in start(run, {}, limits=limits):
        seen.append(update)
    assert kinds(seen) == ["started", "done", "message"]
    assert "1 trial left" in seen[-1].text
    # A worker has the deadline with its job.
    trial = fake.trials({"arm": "steps 5"})[1]
    late = Job.of(trial, run, RunLimits(deadline=0.0), fake.FUNCTION)
    assert execute(late.data)["status"] == "stopped"
    assert kinds(start(run, {})) == ["skipped", "started", "done"]


def test_a_trial_that_hangs_is_killed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = LocalPool(run, 1, function=fake.FUNCTION, max_trial_hours=1)
    monkeypatch.setattr(pool, "_limit", 0.5)
    pool.submit(Job.of(fake.trials({"wtn": "hang"})[0], run, RunLimits(), fake.FUNCTION))
    outcomes: list[Any] = []
    end = time.monotonic() + PATIENCE
    while not outcomes and time.monotonic() < end:
        outcomes = pool.poll(0.1)
    pool.close()
    assert outcomes[0].row is None
    assert outcomes[0].final, "it would only hang again"
    assert "limit" in outcomes[0].reason


@pytest.mark.parametrize(
    ("progress", "late"),
    [
        (None, True),
        ({"stage": "pretrain"}, False),
        ({"stage": "pretrain", "pid": -1}, True),  # of another process
        ({"stage": "finetune", "began_at": time.time()}, False),
        ({"stage": "finetune", "began_at": 1.0}, True),
    ],
)
def test_pretraining_does_not_count_for_the_limit_of_a_trial(
    run: RunDir, progress: dict[str, Any] | None, late: bool
) -> None:
    pool = LocalPool(run, 1, max_trial_hours=1)
    trial = fake.trials()[0]
    if progress is not None:
        said = {"pid": os.getpid(), **progress}
        write_json(run.trial_path(trial.id) / "progress.json", said)
    job = Job.of(trial, run, RunLimits())
    process: Any = SimpleNamespace(pid=os.getpid(), stdin=None, stdout=None)
    begun_long_ago = time.monotonic() - 10_000
    worker = _Worker(1, process, process.stdin, process.stdout, job=job, since=begun_long_ago)
    assert pool._late(worker) == late
    worker.since = time.monotonic()
    assert not pool._late(worker)


def test_progress_of_a_running_trial_is_told(run: RunDir) -> None:
    epochs = []
    for update in start(run, {"wtn=0": "held"}):
        if update.kind == "epoch":
            epochs.append(update.row["epoch"])
        if len(epochs) == 3:
            fake.release(run)
    assert epochs == sorted(set(epochs))


def test_workers_that_cannot_start_are_told_once(run: RunDir) -> None:
    with pytest.raises(RunError, match=r"ModuleNotFoundError.*analogtl doctor"):
        list(start(run, {}, function="no_such_module:f"))


def test_workers_run_one_thread_and_import_nothing_from_the_folder(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody's folder may hold a file with the name of a module.
    here = tmp_path / "elsewhere"
    here.mkdir()
    (here / "json.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert kinds(start(run, {})).count("done") == 2


def test_the_experiment_is_frozen_when_a_job_is_made(run: RunDir) -> None:
    trial = fake.trials()[0]
    data = json.loads(json.dumps(Job.of(trial, run, RunLimits(), fake.FUNCTION).data))
    assert Trial.from_data(data["trial"]) == trial
    assert execute(data)["status"] == "done"
    data["trial"]["experiment"]["finetune"]["epochs"] = 99  # not what was submitted
    row = execute(data)
    assert row["status"] == "failed"
    assert "other settings" in row["message"]


def test_a_damaged_record_is_set_aside_with_a_message_and_redone(
    run: RunDir, finished: list[Trial], in_process: None
) -> None:
    trial = finished[0]
    epochs = run.trial_path(trial.id) / "epochs.csv"
    epochs.write_bytes(epochs.read_bytes()[:-7])
    updates = list(start(run, {}))
    assert kinds(updates) == ["message", "skipped", "started", "done"]
    assert "set aside" in updates[0].text
    assert (run.path / "damaged" / f"{trial.id}.1" / "trial.json").is_file()
    assert len(read_rows(run.path / "trials.csv")) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "rai"}, "'rai'.*'ray'"),
        ({"jobs": 0}, "jobs: .* 1 "),
        ({"address": "auto"}, "'local' .* 'address'"),
        ({"backend": "slurm", "queue": "x"}, "'slurm' .* 'queue'"),
        ({"backend": "slurm", "hour": 3}, "'hour'.*'hours'"),
        ({"backend": "slurm", "hours": "x"}, "hours = 'x': "),
        ({"backend": "slurm", "hours": 0}, "hours = 0: .* 0$"),
        ({"backend": "slurm", "trials_per_job": -1}, "trials_per_job = -1: "),
        ({"backend": "slurm", "cluster": "pbs"}, "cluster = 'pbs': .*'local'"),
        ({"backend": "ray", "cpus": [1]}, r"cpus = \[1\]: "),
        ({"backend": "ray", "gpus": float("nan")}, "gpus = nan: "),
    ],
)
def test_what_no_backend_can_do_is_refused(run: RunDir, given: Any, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        list(start(run, {}, **given))


def wait_for(found: Any, count: int) -> list[int]:
    end = time.monotonic() + PATIENCE
    while len(found()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return list(found())


def test_interrupts_reach_only_the_parent(run: RunDir) -> None:
    # Ctrl-C goes to the whole foreground group; the workers leave it to the parent.
    updates = start(run, {"wtn=0": "held"}, jobs=1)
    for update in updates:
        if update.kind == "epoch":
            break
    [worker] = fake.attempts(run, update.trial)
    os.kill(worker, signal.SIGINT)
    fake.release(run)
    assert kinds(list(updates)) == ["done", "started", "done"]


@pytest.mark.parametrize("backend", ["ray", "slurm"])
def test_every_option_of_a_backend_is_explained(backend: str) -> None:
    from importlib import resources

    page = resources.files("analogtl").joinpath("explain", "sweeps.md").read_text()
    _, _, rest = page.partition(f"`--backend {backend}`")
    part = rest.partition("`--backend ")[0]
    for name in backend_options(Backend(backend)):
        assert f"`{name}`" in part, f"{backend}: {name}"


def test_changed_settings_run_again_and_keep_the_earlier_result(
    run: RunDir, finished: list[Trial], in_process: None
) -> None:
    changed = with_settings(fake.experiment(), {"finetune.epochs": 99})
    list(run_trials(Study(changed, run, sweep=True), function=fake.FUNCTION))
    trial = finished[0]
    assert len(fake.attempts(run, trial.id)) == 2
    assert (run.path / "replaced" / f"{trial.id}.1" / "trial.json").is_file()


def of_other_settings(run: RunDir) -> Study:
    return Study(with_settings(fake.experiment(), {"finetune.epochs": 99}), run, sweep=True)


def test_another_experiment_of_the_same_name_is_refused_while_one_is_at_work(run: RunDir) -> None:
    updates = start(run, {"wtn=0": "held"})
    next(updates)
    files = ("plan.json", "experiment.resolved.json", "provenance.json")
    before = [(run.path / name).read_bytes() for name in files]
    with pytest.raises(RunError, match="another") as refused:
        list(run_trials(of_other_settings(run), function=fake.FUNCTION))
    assert "--set name=" in str(refused.value)
    assert [(run.path / name).read_bytes() for name in files] == before
    updates.close()
    assert kinds(list(run_trials(of_other_settings(run), function=fake.FUNCTION)))[-1] == "done"


def test_parts_of_the_same_experiment_run_side_by_side_under_one_plan(
    run: RunDir, in_process: None
) -> None:
    updates = start(run, {}, seeds=[0])
    next(updates)
    list(start(run, {}, seeds=[1]))
    assert set(run.planned()) == {trial.id for trial in fake.trials(seeds=[0, 1])}
    list(updates)
    list(start(run, {}, seeds=[1]))
    assert set(run.planned()) == {trial.id for trial in fake.trials(seeds=[1])}, "the last one's"


def test_a_process_that_was_killed_keeps_nobody_out(run: RunDir) -> None:
    mark = run.path / ".locks" / "at-work-0123.lock"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert not run.others_at_work()
    assert not mark.exists()


def test_a_job_that_runs_without_its_command_keeps_others_out(run: RunDir) -> None:
    fake.study(run).prepare()
    with run.trial_lock(fake.trials()[1].id), pytest.raises(RunError, match="another"):
        of_other_settings(run).prepare()


def test_a_job_that_waited_while_the_experiment_changed_does_not_run(run: RunDir) -> None:
    from analogtl.training.run_trial import run_trial

    of_other_settings(run).prepare()
    assert run_trial(fake.trials()[0], run)["status"] == "failed"
    assert run.record(fake.trials()[0].id) is None


def test_a_wrong_experiment_removes_nothing_where_others_are_at_work(run: RunDir) -> None:
    def go_wrong(study: Study, others: contextlib.ExitStack) -> None:
        with study.nothing_left_if_wrong():
            others.enter_context(study.run.working())
            raise ExperimentError("wrong")

    with contextlib.ExitStack() as others, pytest.raises(ExperimentError):
        go_wrong(fake.study(run), others)
    assert run.path.is_dir()
