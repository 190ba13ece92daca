"""Running many trials: on this machine, on a Ray cluster, or under Slurm.

`run_trials` is a plain generator. Whatever the backend, a trial is run by one function,
`analogtl.training.run_trial.run_trial`, in some process that sees the run directory; it resumes it,
catches its own failure and writes its own record. So the backends differ only in where that process
is, and the rest is here: which trials are left and in which order, what waits for a pretrained
model, what is told meanwhile. Torch is imported once there is something to run.
"""

from __future__ import annotations

import contextlib
import inspect
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from analogtl.errors import ExperimentError, RunError, counted, did_you_mean
from analogtl.scheduling.jobs import RUN_TRIAL, Job, Needs, Outcome, Pool
from analogtl.scheduling.local import LocalPool
from analogtl.scheduling.plan import threads_that_fit
from analogtl.scheduling.ray import RayPool
from analogtl.scheduling.slurm import SlurmPool
from analogtl.study.device import check_device, gpus
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial
from analogtl.vocabulary import Backend, Device, TrialStatus

Kind = Literal["pretrain", "started", "epoch", "done", "failed", "skipped", "stopped", "message"]
POLL = 0.25  # seconds between looks at the workers and their progress
COLLECT_EVERY = 60.0  # seconds between rewrites of the tables, at least
MIN_DISK = 20_000_000  # bytes; with less, every further trial would fail on a full disk
POOLS: dict[Backend, type[Pool]] = {
    Backend.LOCAL: LocalPool,
    Backend.RAY: RayPool,
    Backend.SLURM: SlurmPool,
}


@dataclass(frozen=True)
class Update:
    """Something happened in a sweep."""

    # skipped: finished earlier; pretrain, epoch: progress; stopped: by a limit, the next call goes
    # on; message: for the user to read.
    kind: Kind
    trial: str = ""  # name of the trial; empty for a message about all of them
    # Of an ended trial its row of ``trials.csv``, of a running one its ``progress.json``.
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""  # the message, or why a trial failed


def run_trials(
    study: Study,
    *,
    jobs: int | None = None,
    backend: str = Backend.LOCAL,
    limits: RunLimits = RunLimits(),
    skip_failed: bool = False,
    function: str = RUN_TRIAL,
    argv: Sequence[str] = (),
    **options: Any,
) -> Generator[Update]:
    """Run what is left of a study's trials, in their order, and tell what happens meanwhile.

    What has to be chosen first is trained first.

    Closing the generator (which Ctrl-C does) stops the workers after a checkpoint; another call
    goes on from there. The tables of the run directory are written every minute and at the end.

    Args:
        study: The trials, and where everything is written and what is finished is found.
        jobs: Trials at the same time. Default: on this machine one, or one on each GPU; all that
            fit elsewhere.
        limits: Limits and checkpoints, the same for every trial.
        skip_failed: Whether trials that failed in an earlier call are left as they are.
        function: ``module:name`` of the function that runs a trial; for tests.
        argv: The command line, for the provenance.
        options: Options of the backend: see `RayPool` and `SlurmPool`.

    Raises:
        ExperimentError: If the backend is not known or not installed, or an option does not fit.
        RunError: If the run directory cannot be written, e.g. because the disk is full, or another
            process is at work there on another experiment of this name.
    """
    # A trial whose process died is taken up again; here, the same is likely to happen once more.
    retries = 1 if backend == Backend.LOCAL else 3
    for phase in study.phases():
        needs, note = needs_of(phase, backend, jobs)
        with phase.at_work(argv=argv):
            within = replace(limits, threads=needs.threads)
            sweep = _Sweep(phase, within, skip_failed, retries, function)
            pool = _pool(backend, phase.run, jobs, needs, within, function, options)
            pool.notes += [note] if note else []
            whole = False
            try:
                yield from sweep.updates(pool)
                whole = True
            finally:
                pool.close()
                with contextlib.nullcontext() if whole else contextlib.suppress(RunError):
                    phase.run.collect()


def needs_of(study: Study, backend: str, jobs: int | None = None) -> tuple[Needs, str]:
    """What a trial of a study needs, as far as it is to be had here; and a line if that is less.

    Raises:
        ExperimentError: If it needs a GPU and this machine, which is to run it, has none.
    """
    threads, note = study.experiment.run.threads, ""
    on_gpu = any(Device.CUDA in trial.basis.devices for trial in study.sketch)
    if backend == Backend.LOCAL:
        if on_gpu:
            check_device(Device.CUDA)
        threads, note = threads_that_fit(threads, jobs=jobs or (gpus() if on_gpu else 1))
    return Needs(threads, int(on_gpu)), note


def _pool(
    name: str,
    run: RunDir,
    jobs: int | None,
    needs: Needs,
    limits: RunLimits,
    function: str,
    options: dict[str, Any],
) -> Pool:
    backend, given = check_backend(name, jobs, options)
    if backend is Backend.LOCAL:
        hours = limits.max_trial_hours
        return LocalPool(run, jobs, needs, function=function, max_trial_hours=hours)
    made: Callable[..., Pool] = POOLS[backend]
    return made(run, jobs, needs, **given)


def check_backend(
    name: str, jobs: int | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Backend, dict[str, Any]]:
    """The backend of this name, and its options as it takes them.

    Raises:
        ExperimentError: If it is not known, not installed or not there, or an option does not fit.
    """
    backend = Backend.named(name)
    if backend is None:
        raise ExperimentError(f"unknown backend {name!r}; {did_you_mean(name, Backend)}")
    if jobs is not None and jobs < 1:
        raise ExperimentError(f"jobs: expected 1 or more; got {jobs}")
    known = {} if backend is Backend.LOCAL else backend_options(backend)
    given: dict[str, Any] = {}
    for option, value in (options or {}).items():
        if option not in known:
            hint = did_you_mean(option, known) if known else ""
            raise ExperimentError(
                f"backend '{backend}' has no option {option!r}" + (f"; {hint}" if hint else "")
            )
        try:
            given[option] = known[option].validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ExperimentError(f"backend '{backend}': {option} = {value!r}: {why}") from None
    POOLS[backend].check(**given)
    return backend, given


def backend_options(backend: Backend) -> dict[str, TypeAdapter[Any]]:
    """The options of a backend, and what each may be."""
    parameters = inspect.signature(POOLS[backend], eval_str=True).parameters.values()
    config = ConfigDict(coerce_numbers_to_str=True)
    return {
        parameter.name: TypeAdapter(parameter.annotation, config=config)
        for parameter in parameters
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
        study: Study,
        limits: RunLimits,
        skip_failed: bool,
        retries: int,
        function: str,
    ) -> None:
        self._trials, self._run, self._limits = study.trials, study.run, limits
        self._skip_failed, self._retries, self._function = skip_failed, retries, function
        self._todo: deque[Trial] = deque()
        self._running: dict[str, _Running] = {}
        self._elsewhere: dict[str, Trial] = {}  # another process has them
        self._deaths: dict[str, int] = {}
        self._pretrainings: dict[str, str] = {}  # key of a pretraining -> trial that does it
        self._collected = time.monotonic()
        self._pause = COLLECT_EVERY
        self._said: set[str] = set()  # what finished trials had to say
        self._first_problem: str | None = ""  # of the experiment; None once a trial said otherwise

    def updates(self, pool: Pool) -> Iterator[Update]:
        folder = self._run.path / "trials"
        if any(not (folder / trial.id / "trial.json").is_file() for trial in self._trials):
            pool.warm()  # importing torch takes seconds, which looking through the trials can use
        yield from self._look_through()
        if self._function == RUN_TRIAL:
            from analogtl.training.preflight import Need, preflight

            preflight(map(Need.of, self._todo))
        told_waiting = False
        while self._todo or self._running or self._elsewhere:
            over = self._limits.should_stop()
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
                locks = self._run.path / ".locks"
                said = f"waiting for {others} of another process (if none is at work, remove "
                yield Update("message", text=f"{said}{locks}/)")
            outcomes = pool.poll(POLL) if self._running else []
            if not self._running:
                time.sleep(4 * POLL)
            while pool.notes:
                yield Update("message", text=pool.notes.pop(0))
            for outcome in outcomes:
                yield from self._ended(outcome)
            yield from self._progress()
            yield from self._return_of_the_busy()
            self._collect()

    def _look_through(self) -> Iterator[Update]:
        finished: list[dict[str, Any]] = []
        lacking: list[str] = []
        for trial in self._trials:
            notes: list[str] = []
            record = self._run.record(trial.id, notes)
            for note in notes:
                yield Update("message", trial.id, text=note)
            ours = record is not None and record.key == trial.key
            if record is not None and ours and record.done:
                if self._run.is_due(trial, record):
                    self._todo.append(trial)
                    continue
                lacking += self._run.lacking(trial, record)
                finished.append(record.row)
                yield Update("skipped", trial.id, record.row)
            elif not (ours and self._skip_failed):
                self._todo.append(trial)
        for name, number in Counter(lacking).items():
            said = f"{counted(number, 'trial')} ended without {name} or a final state to make it of"
            yield Update("message", text=f"{said}; --set name=ANOTHER trains again")
        for row in finished:
            yield from self._said_by(row)

    def _submit(self, pool: Pool) -> Iterator[Update]:
        slots = pool.free()
        blocked: list[Trial] = []
        keys: dict[str, str] = {}  # pretraining that is waited for -> trial that does it
        while slots > 0 and self._todo:
            trial = self._todo.popleft()
            maker = self._maker(trial, keys)
            if maker is not None and not pool.takes_all:
                blocked.append(trial)
            elif (record := self._run.finished(trial)) and not self._run.is_due(
                trial, record
            ):  # by another process, since we looked
                yield Update("skipped", trial.id, record.row)
            else:
                pool.submit(Job.of(trial, self._run, self._limits, self._function, maker))
                self._running[trial.id] = _Running(trial, time.time(), told=pool.starts_at_once)
                slots -= 1
                if pool.starts_at_once:
                    yield Update("started", trial.id)
        self._todo.extendleft(reversed(blocked))

    def _maker(self, trial: Trial, waited_for: dict[str, str]) -> str | None:
        """The running trial that is about to make the pretrained model which this one needs.

        Without it, the trial would only hold a process (or a node) while it waits for the lock.
        """
        if not trial.pretrains:
            return None
        key = trial.pretrain_key
        if key not in waited_for:
            if self._run.find_pretrained(key) is not None:
                return None
            maker = self._pretrainings.get(key)
            if maker is None or maker not in self._running:
                self._pretrainings[key] = trial.id
                return None
            waited_for[key] = maker
        return waited_for[key]

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
            row = {"status": TrialStatus.FAILED, "message": outcome.reason}
        status = row.get("status")
        if status == TrialStatus.BUSY:
            self._elsewhere[trial.id] = trial
        elif status == TrialStatus.FAILED:
            wrong = bool(row.pop("wrong", False))
            row = self._record_failure(trial, row)
            message = str(row.get("message", ""))
            # What this raises is told as the error of all.
            self._check_experiment(message if wrong else "")
            yield Update("failed", trial.id, row, message)
            self._check_disk()
        elif status == TrialStatus.DONE:
            self._first_problem = None
            yield from self._said_by(row)
            yield Update("done", trial.id, row)
        elif status != TrialStatus.QUEUED:  # by a backend that does not wait
            yield Update("stopped", trial.id, row, str(row.get("message", "")))

    def _said_by(self, row: dict[str, Any]) -> Iterator[Update]:
        """Pass on the message of a finished trial, once: the other trials have the same one."""
        message = str(row.get("message") or "")
        if message and message not in self._said:
            self._said.add(message)
            yield Update("message", text=message)

    def _record_failure(self, trial: Trial, row: dict[str, Any]) -> dict[str, Any]:
        """Write the record of a trial whose process could not; return its row."""
        with self._run.trial_lock(trial.id, wait=False) as held:
            if not held:  # its process lives on where we cannot see it
                return row
            record = self._run.record(trial.id)
            if record is not None and record.key == trial.key:
                return dict(record.row)
            whole = {**trial_row(trial), **row, "status": TrialStatus.FAILED}
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
        if free < MIN_DISK:
            raise RunError(
                f"{self._run.path}: the disk is full ({free / 1e6:.0f} MB left); what is finished "
                "is kept; free some space, and the same command goes on"
            )

    def _progress(self) -> Iterator[Update]:
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
            if record is not None and not self._run.is_due(trial, record):
                yield Update("done", trial_id, record.row, "by another process")
            else:
                self._todo.appendleft(trial)

    def _collect(self) -> None:
        if time.monotonic() - self._collected < self._pause:
            return
        began = time.monotonic()
        self._run.collect()
        self._collected = time.monotonic()
        # However many trials there are, this stays a small part of the work.
        self._pause = max(COLLECT_EVERY, 50 * (self._collected - began))
