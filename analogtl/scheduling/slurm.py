"""Trials as one array job of Slurm, through submitit.

The jobs carry the experiment as it is at submission. They write their own records, so whoever
submitted them may leave: the same command finds them again, shows how they do, and hands in only
what neither is done nor in the queue. A job that is pre-empted, or at its time limit, saves its
trial and goes back into the queue.

submitit pickles what it submits, below ``slurm/`` in the run directory. Nothing here reads one: how
a trial ended is in its record.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from shutil import which
from typing import Annotated, Any, Literal

from pydantic import Field

from analogtl.errors import ExperimentError, RunError
from analogtl.files import write_json
from analogtl.scheduling.jobs import Job, Needs, Outcome, Pool, Positive, execute
from analogtl.study.run_dir import RunDir
from analogtl.study.threads import use_one_thread
from analogtl.vocabulary import TrialStatus

MAX_ARRAY = 1000  # Slurm's usual MaxArraySize is 1001
LOOK_EVERY = 2.0  # seconds between looks at the records and the queue
MAX_REQUEUES = 1000
SAVE_SECONDS = 120  # before its time limit, a job is told to save


class SlurmPool(Pool):
    """An array job of Slurm.

    Args:
        run: The run directory; it must lie on a file system that all nodes see.
        jobs: Array tasks at the same time; default: as many as Slurm grants.
        hours: Time limit of one job; trials that need longer go on in another.
        gpus: GPUs of one job. Default: one where trials are for CUDA.
        trials_per_job: Trials that one job runs, one after the other; default: as few as make the
            array small enough for Slurm.
        parameters: Further parameters of `sbatch`, e.g. ``{"constraint": "avx512"}``.
        wait: Whether to stay until all is done, or to leave after the submission.
        cluster: ``slurm``, or ``local`` for processes on this machine (a rehearsal).

    Raises:
        ExperimentError: If there is no Slurm here.
    """

    def __init__(
        self,
        run: RunDir,
        jobs: int | None = None,
        needs: Needs = Needs(),
        *,
        partition: str | None = None,
        account: str | None = None,
        hours: Positive = 24.0,
        memory_gb: Positive = 8.0,
        gpus: Annotated[int, Field(ge=0)] | None = None,
        trials_per_job: Annotated[int, Field(ge=1)] | None = None,
        parameters: Mapping[str, Any] | None = None,
        wait: bool = True,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        import submitit

        self.takes_all = cluster == "slurm"  # nothing queues the processes of a rehearsal
        self._most = 1_000_000 if self.takes_all else jobs or os.cpu_count() or 1
        self._run, self._size, self._wait = run, trials_per_job, wait
        self._handle = submitit.SlurmJob if cluster == "slurm" else submitit.LocalJob
        self.notes: list[str] = []
        self._folder = run.inside("slurm")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            limit = {f"{cluster}_max_num_timeout": MAX_REQUEUES}
            self._executor = submitit.AutoExecutor(self._folder, cluster=cluster, **limit)
        except (RuntimeError, OSError) as error:
            raise ExperimentError(f"backend 'slurm': {' '.join(str(error).split())}") from None
        self._executor.update_parameters(
            name=f"analogtl-{run.name.replace('/', '-')}",
            timeout_min=max(1, round(60 * hours)),
            mem_gb=memory_gb,
            cpus_per_task=needs.threads,
            gpus_per_node=needs.gpus if gpus is None else gpus,
            slurm_partition=partition,
            slurm_account=account,
            slurm_array_parallelism=jobs or MAX_ARRAY,
            slurm_signal_delay_s=SAVE_SECONDS,
            slurm_additional_parameters={"requeue": True, **(parameters or {})},
        )
        self._new: list[Job] = []
        self._keys: dict[str, str] = {}  # trial -> key of its settings
        self._jobs: dict[str, Any] = {}  # trial -> submitit's job
        self._looked = 0.0
        self._deadline: float | None = None
        self._earlier = self._in_queue()

    @classmethod
    def check(cls, **options: Any) -> None:
        if find_spec("submitit") is None:
            raise ExperimentError(
                "backend 'slurm': submitit is not installed; pip install 'analogtl[slurm]'"
            )
        if options.get("cluster") != "local" and which("srun") is None:
            raise ExperimentError("backend 'slurm': no Slurm here: there is no command srun")

    def free(self) -> int:
        return self._most - len(self._jobs) - len(self._new)

    def submit(self, job: Job) -> None:
        self._keys[job.trial_id] = job.data["trial"]["key"]
        self._deadline = job.data["limits"]["deadline"]
        # Once: when that job is over and the trial comes back, it needs another one.
        earlier = self._earlier.pop((job.trial_id, self._keys[job.trial_id]), None)
        if earlier is not None:
            self._jobs[job.trial_id] = earlier
        else:
            self._new.append(job)

    def poll(self, timeout: float) -> list[Outcome]:
        if self._new:
            self._submit()
        time.sleep(timeout)
        if time.monotonic() - self._looked < LOOK_EVERY:
            return []
        self._looked = time.monotonic()
        outcomes = []
        for trial_id in list(self._jobs):
            outcome = self._outcome(trial_id)
            if outcome is not None:
                del self._jobs[trial_id]
                outcomes.append(outcome)
        return outcomes

    def _outcome(self, trial_id: str) -> Outcome | None:
        if not self._wait:
            return Outcome(trial_id, {"trial": trial_id, "status": TrialStatus.QUEUED})
        job = self._jobs[trial_id]
        gone = job.done()  # before the look at the record, which is written first
        record = self._run.record(trial_id)
        # A failure of an earlier submission is not the end of this one.
        if record and record.key == self._keys[trial_id] and (record.done or gone):
            return Outcome(trial_id, dict(record.row))
        if not gone:
            return None
        with self._run.trial_lock(trial_id, wait=False) as held:
            if not held:  # a process that we know nothing of has it
                return Outcome(trial_id, {"trial": trial_id, "status": TrialStatus.BUSY})
        if self._deadline is not None and time.time() >= self._deadline:
            return Outcome(trial_id, {"trial": trial_id, "status": TrialStatus.STOPPED})
        return Outcome(trial_id, None, f"Slurm job {job.job_id} ended ({job.state}); see slurm/")

    def _submit(self) -> None:
        """Hand in what is new: first what makes a pretrained model, then what needs it."""
        first = [job for job in self._new if job.after is None]
        later = [job for job in self._new if job.after is not None]
        self._new = []
        ids = self._hand_in(first)
        # One that makes a model may be in the queue since an earlier call.
        makers = {self._jobs[job.after].job_id for job in later if job.after in self._jobs}
        if makers:
            self._executor.update_parameters(
                slurm_dependency=f"afterany:{':'.join(sorted(makers))}"
            )
        ids.update(self._hand_in(later))
        self._executor.update_parameters(slurm_dependency=None)
        arrays = sorted({job_id.partition("_")[0] for job_id in ids.values()})
        self.notes.append(
            f"{len(ids)} trials submitted as job {', '.join(arrays[:5])}; they stay in the queue "
            f"when this command is left: `scancel {' '.join(arrays[:5])}` removes them"
        )

    def _hand_in(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Submit arrays; return trial -> job id."""
        size = self._size or -(-len(jobs) // MAX_ARRAY)
        packs = [jobs[start : start + size] for start in range(0, len(jobs), size)] if jobs else []
        ids: dict[str, str] = {}
        for start in range(0, len(packs), MAX_ARRAY):
            part = packs[start : start + MAX_ARRAY]
            try:
                submitted = self._executor.map_array(
                    Task(), [[job.data for job in pack] for pack in part]
                )
            except Exception as error:  # submitit raises several kinds
                raise RunError(f"sbatch: {' '.join(str(error).split())[:500]}") from None
            for pack, handle in zip(part, submitted, strict=True):
                for job in pack:
                    self._jobs[job.trial_id] = handle
                    ids[job.trial_id] = handle.job_id
        self._remember(ids)
        return ids

    # What was submitted is kept as plain data, so that another call finds it in the queue.

    def _remember(self, ids: Mapping[str, str]) -> None:
        file = self._folder / "submitted.json"
        with self._run.lock("slurm"):
            known = self._remembered()
            known.update({trial: [job_id, self._keys[trial]] for trial, job_id in ids.items()})
            write_json(file, known)

    def _remembered(self) -> dict[str, list[str]]:
        return {
            trial: entry
            for trial, entry in self._run.read("slurm", "submitted.json").items()
            if isinstance(entry, list)
            and [type(part) for part in entry] == [str, str]
            and re.fullmatch(r"\d+(_\d+)?", entry[0])
        }

    def _in_queue(self) -> dict[tuple[str, str], Any]:
        """(trial, key) -> job, of what an earlier call submitted and is still in the queue."""
        found: dict[tuple[str, str], Any] = {}
        jobs: dict[str, Any] = {}
        for trial, (job_id, key) in self._remembered().items():
            if job_id not in jobs:
                job: Any = self._handle(folder=self._folder, job_id=job_id)
                jobs[job_id] = None if job.done(force_check=not jobs) else job
            if jobs[job_id] is not None:
                found[trial, key] = jobs[job_id]
        return found


class Task:
    """What one array task does: its trials, one after the other.

    When Slurm announces the end of the time (or pre-empts the job), the running trial is saved
    first, and then submitit puts the job back into the queue.
    """

    def __call__(self, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
        use_one_thread()
        stop = threading.Event()
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        announced = getattr(signal, f"SIG{name}")
        requeue = signal.signal(announced, lambda *_: stop.set())
        ends = []
        for job in jobs:
            ends.append(str(execute(job, stop.is_set).get("status")))
            if stop.is_set() and callable(requeue):
                requeue(announced, None)
        return ends

    def checkpoint(self, jobs: Sequence[Mapping[str, Any]]) -> Any:
        """How submitit hands the job in again: the trials know themselves where they were."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(), jobs)
