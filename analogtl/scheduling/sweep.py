"""Running many trials: on this machine, on a Ray cluster, or under Slurm.

`run_trials` is a plain generator. Whatever the engine, a trial is run by one function,
`analogtl.training.stages.run_trial`, in some process that sees the run directory; it resumes it,
catches its own failure and writes its own record. So the engines differ only in where that process
is (`analogtl.scheduling`), and the rest is here: which trials are left and in which order, what
waits for a pretrained model, what is told meanwhile. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import inspect
import shutil
import time
import typing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from analogtl.config.schema import Experiment, content_key
from analogtl.errors import ExperimentError, RunError, counted, did_you_mean
from analogtl.scheduling.jobs import RUN_TRIAL, Job, Outcome, Pool, load
from analogtl.study import run_dir as runs
from analogtl.study.run_dir import Options, RunDir
from analogtl.study.trial import Trial
from analogtl.vocabulary import Backend

Kind = Literal["pretrain", "started", "epoch", "done", "failed", "skipped", "stopped", "message"]
Failed = Literal["again", "skip", "only"]
POLL = 0.25  # seconds between looks at the workers and their progress
COLLECT_EVERY = 60.0  # seconds between rewrites of the tables, at least
LEAST_DISK = 20_000_000  # bytes; with less, every further trial would fail on a full disk


@dataclass(frozen=True)
class Update:
    """Something happened in a sweep.

    Attributes:
        kind: ``skipped`` (finished earlier), ``started``, ``pretrain`` and ``epoch`` (progress),
            ``done``, ``failed``, ``stopped`` (a limit came; it goes on with the next call),
            ``message`` (for the user to read).
        trial: Name of the trial; empty for a message about all of them.
        row: The row of ``trials.csv`` of an ended trial, the content of ``progress.json`` of a
            running one.
        text: The message, or why a trial failed.
    """

    kind: Kind
    trial: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def run_trials(
    experiment: Experiment,
    trials: Sequence[Trial],
    run: RunDir,
    *,
    jobs: int | None = None,
    engine: str = "local",
    options: Options = Options(),
    failed: Failed = "again",
    retries: int | None = None,
    function: str = RUN_TRIAL,
    **engine_options: Any,
) -> Iterator[Update]:
    """Run what is left of some trials, in their order, and tell what happens meanwhile.

    Closing the generator (which Ctrl-C does) stops the workers after a checkpoint; another call
    goes on from there. The tables of the run directory are written every minute and at the end.

    Args:
        experiment: The experiment; each trial carries its own, with its level applied.
        trials: The trials, in the order to run them.
        run: Where everything is written, and what is finished is found.
        jobs: Trials at the same time. Default: one on this machine, all that fit elsewhere.
        engine: A `Backend`.
        options: Limits and checkpoints, the same for every trial.
        failed: What to do with trials that failed in an earlier call: run them ``again``, ``skip``
            them, or run ``only`` them.
        retries: How often a trial is taken up again after its process died. Default: once on this
            machine, where the same is likely to happen again; three times elsewhere.
        function: ``module:name`` of the function that runs a trial; for tests.
        engine_options: Further options of the engine: see `RayPool` and `SlurmPool`.

    Raises:
        ExperimentError: If the engine is not known or not installed, or an option does not fit.
        RunError: If the run directory cannot be written, e.g. because the disk is full.
    """
    if not (run.path / "plan.json").is_file():
        run.create(experiment, trials)
    if retries is None:
        retries = 1 if engine == "local" else 3
    sweep = _Sweep(trials, run, options, failed, retries, function)
    pool = _pool(engine, run, jobs, options, function, engine_options)
    whole = False
    try:
        yield from sweep.updates(pool)
        whole = True
    finally:
        pool.close()
        with contextlib.nullcontext() if whole else contextlib.suppress(RunError):
            run.collect()


def _pool(
    engine: str,
    run: RunDir,
    jobs: int | None,
    options: Options,
    function: str,
    engine_options: dict[str, Any],
) -> Pool:
    if Backend.named(engine) is None:
        raise ExperimentError(f"unknown engine {engine!r}; {did_you_mean(engine, Backend)}")
    if jobs is not None and jobs < 1:
        raise ExperimentError(f"jobs: expected 1 or more; got {jobs}")
    pool = load(f"analogtl.scheduling.{engine}:{engine.capitalize()}Pool")
    options_of = {} if engine == "local" else engine_parameters(engine)
    given: dict[str, Any] = {}
    for name, value in engine_options.items():
        if name not in options_of:
            hint = did_you_mean(name, options_of) if options_of else ""
            raise ExperimentError(
                f"engine {engine!r} has no option {name!r}" + (f"; {hint}" if hint else "")
            )
        try:
            given[name] = options_of[name].validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ExperimentError(f"engine {engine!r}: {name} = {value!r}: {why}") from None
    if engine == "local":
        fixed = {"function": function, "max_trial_hours": options.max_trial_hours}
        return cast(Pool, pool(run, jobs or 1, **fixed))
    return cast(Pool, pool(run, jobs, **given))


def engine_parameters(engine: str) -> dict[str, TypeAdapter[Any]]:
    """The options of an engine, and what each may be."""
    pool = load(f"analogtl.scheduling.{engine}:{engine.capitalize()}Pool")
    hints = typing.get_type_hints(pool.__init__, include_extras=True)
    config = ConfigDict(coerce_numbers_to_str=True)
    return {
        name: TypeAdapter(hints[name], config=config)
        for name, parameter in inspect.signature(pool).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


@dataclass
class _Running:
    trial: Trial
    started: float  # Unix time
    seen: float = 0.0  # time stamp of the progress last told
    told: bool = False  # whether its start was


class _Sweep:
    """The trials of one call: which are left, which run, and what each became."""

    def __init__(
        self,
        trials: Sequence[Trial],
        run: RunDir,
        options: Options,
        failed: Failed,
        retries: int,
        function: str,
    ) -> None:
        self._trials, self._run, self._options = trials, run, options
        self._failed, self._retries, self._function = failed, retries, function
        self._todo: deque[Trial] = deque()
        self._running: dict[str, _Running] = {}
        self._elsewhere: dict[str, Trial] = {}  # another process has them
        self._deaths: dict[str, int] = {}
        self._pretrainings: dict[str, str] = {}  # key of a pretraining -> trial that does it
        self._pretrain_keys: dict[int, str] = {}  # experiment -> key of its pretraining
        self._collected = time.monotonic()
        self._pause = COLLECT_EVERY
        self._first_problem: str | None = ""  # of the experiment; None once a trial said otherwise

    def updates(self, pool: Pool) -> Iterator[Update]:
        folder = self._run.path / "trials"
        if any(not (folder / trial.id / "trial.json").is_file() for trial in self._trials):
            pool.warm()  # importing torch takes seconds, which looking through the trials can use
        yield from self._look_through()
        told_waiting = False
        while self._todo or self._running or self._elsewhere:
            over = self._options.over()
            if not over:
                yield from self._submit(pool)
            if over and not self._running:
                left = len(self._todo) + len(self._elsewhere)
                said = f"time is up: {counted(left, 'trial')} left; the same command goes on"
                yield Update("message", text=said)
                return
            if self._elsewhere and not self._running and not told_waiting:
                told_waiting = True
                others = counted(len(self._elsewhere), "trial")
                yield Update("message", text=f"waiting for {others} of another process")
            outcomes = pool.poll(POLL) if self._running else self._wait()
            while pool.notes:
                yield Update("message", text=pool.notes.pop(0))
            for outcome in outcomes:
                yield from self._ended(outcome)
            yield from self._progress(pool)
            yield from self._return_of_the_busy()
            self._collect()

    def _look_through(self) -> Iterator[Update]:
        for trial in self._trials:
            notes: list[str] = []
            record = self._run.record(trial.id, notes)
            for note in notes:
                yield Update("message", trial.id, text=note)
            status = None
            if record is not None and record.get("key") == trial.key():
                status = record.get("status")
            if status == "done" and record is not None:
                yield Update("skipped", trial.id, record["row"])
            elif (
                (status == "failed")
                if self._failed == "only"
                else (status != "failed" or self._failed == "again")
            ):
                self._todo.append(trial)

    def _submit(self, pool: Pool) -> Iterator[Update]:
        slots = pool.free()
        blocked: list[Trial] = []
        keys: dict[str, str] = {}  # pretraining that is waited for -> trial that does it
        while slots > 0 and self._todo:
            trial = self._todo.popleft()
            record = None
            if (self._run.path / "trials" / trial.id / "trial.json").is_file():
                record = self._run.finished(trial)
            if record is not None:  # by another process, since we looked
                yield Update("skipped", trial.id, record["row"])
                continue
            maker = self._maker(trial, keys)
            if maker is not None and not pool.takes_all:
                blocked.append(trial)
            else:
                pool.submit(Job.of(trial, self._run, self._options, self._function, maker))
                self._running[trial.id] = _Running(trial, time.time(), told=pool.starts_at_once)
                slots -= 1
                if pool.starts_at_once:
                    yield Update("started", trial.id)
        self._todo.extendleft(reversed(blocked))

    def _maker(self, trial: Trial, waited_for: dict[str, str]) -> str | None:
        """The running trial that is about to make the pretrained model which this one needs.

        Without it, the trial would only hold a process (or a node) while it waits for the lock.
        """
        if not trial.is_pretrained:
            return None
        key = self._pretrain_key(trial)
        if key not in waited_for:
            if self._run.find_pretrained(trial.experiment) is not None:
                return None
            maker = self._pretrainings.get(key)
            if maker is None or maker not in self._running:
                self._pretrainings[key] = trial.id
                return None
            waited_for[key] = maker
        return waited_for[key]

    def _pretrain_key(self, trial: Trial) -> str:
        """Kept, as it is asked for at every look at the queue; many trials share an experiment."""
        place = id(trial.experiment)  # alive as long as the sweep's trials
        if place not in self._pretrain_keys:
            self._pretrain_keys[place] = content_key(runs.pretrain_settings(trial.experiment))
        return self._pretrain_keys[place]

    def _ended(self, outcome: Outcome) -> Iterator[Update]:
        trial = self._running.pop(outcome.trial_id).trial
        row = outcome.row
        if row is None:
            self._deaths[trial.id] = self._deaths.get(trial.id, 0) + 1
            if self._deaths[trial.id] <= self._retries and not outcome.final:
                self._todo.appendleft(trial)
                text = f"{outcome.reason}; it goes on from its last checkpoint"
                yield Update("message", trial.id, text=text)
                return
            row = {"status": "failed", "message": outcome.reason}
        status = row.get("status")
        if status == "busy":
            self._elsewhere[trial.id] = trial
        elif status == "failed":
            wrong = bool(row.pop("wrong", False))
            row = self._record_failure(trial, row)
            yield Update("failed", trial.id, row, str(row.get("message", "")))
            self._check_disk()
            self._check_experiment(str(row.get("message", "")) if wrong else "")
        elif status == "done":
            self._first_problem = None
            yield Update("done", trial.id, row)
        elif status != "queued":  # by an engine that does not wait
            yield Update("stopped", trial.id, row, str(row.get("message", "")))

    def _record_failure(self, trial: Trial, row: dict[str, Any]) -> dict[str, Any]:
        """Write the record of a trial whose process could not; return its row."""
        with self._run.trial_lock(trial.id, wait=False) as held:
            if not held:  # its process lives on where we cannot see it
                return row
            record = self._run.record(trial.id)
            if record is not None and record.get("key") == trial.key():
                return dict(record["row"])
            whole = {**runs.trial_row(trial), **row, "status": "failed"}
            self._run.write_trial(trial, whole, [], [])
            return whole

    def _check_experiment(self, problem: str) -> None:
        """Stop where the experiment itself is wrong: the other trials would fail the same way.

        That is taken for granted once two trials in a row (or the only one) end with the same
        problem and none has succeeded.
        """
        if problem and (problem == self._first_problem or len(self._trials) == 1):
            raise ExperimentError(problem)
        if self._first_problem == "":  # before any trial has ended
            self._first_problem = problem or None

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self._run.path).free
        if free < LEAST_DISK:
            raise RunError(
                f"{self._run.path}: the disk is full ({free / 1e6:.0f} MB left); what is finished "
                "is kept; free some space, and the same command goes on"
            )

    def _progress(self, pool: Pool) -> Iterator[Update]:
        for trial_id, running in self._running.items():
            file = self._run.path / "trials" / trial_id / "progress.json"
            try:
                changed = file.stat().st_mtime
            except OSError:
                continue
            if changed <= running.seen:
                continue
            running.seen = changed
            progress = self._run.progress(trial_id)
            if float(progress.get("updated_at") or 0.0) < running.started:
                continue  # of an earlier attempt
            if not running.told:
                running.told = True
                yield Update("started", trial_id)
            kind: Kind = "pretrain" if progress.get("stage") == "pretrain" else "epoch"
            yield Update(kind, trial_id, progress)

    def _return_of_the_busy(self) -> Iterator[Update]:
        for trial_id, trial in list(self._elsewhere.items()):
            with self._run.trial_lock(trial_id, wait=False) as held:
                if not held:
                    continue
            del self._elsewhere[trial_id]
            record = self._run.finished(trial)
            if record is not None:
                yield Update("done", trial_id, record["row"], "by another process")
            else:
                self._todo.appendleft(trial)

    def _wait(self) -> list[Outcome]:
        time.sleep(4 * POLL)
        return []

    def _collect(self) -> None:
        if time.monotonic() - self._collected < self._pause:
            return
        began = time.monotonic()
        self._run.collect()
        self._collected = time.monotonic()
        # However many trials there are, this stays a small part of the work.
        self._pause = max(COLLECT_EVERY, 50 * (self._collected - began))
