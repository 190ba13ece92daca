"""Trials in processes on this machine, reused from trial to trial.

A worker imports torch once (seconds). If it dies, from lack of memory or a crash in compiled code,
that is the end of its trial only, and another takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from analogtl.errors import RunError
from analogtl.scheduling.jobs import RUN_TRIAL, Job, Needs, Outcome, Pool
from analogtl.study.device import VISIBLE, visible_gpus
from analogtl.study.run_dir import RunDir
from analogtl.study.threads import THREADS

GRACE = 30.0  # seconds that a worker has to save its trial when it is asked to stop
TRIALS_PER_WORKER = 200  # then another takes its place: libraries may keep memory each time
FALSE_STARTS = 3  # workers that die before they are ready, in a row, before we give up


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    ready: bool = False
    served: int = 0
    job: Job | None = None
    since: float = 0.0
    received: bytes = b""


class LocalPool(Pool):
    """Worker processes on this machine, `jobs` of them; their logs go into the run directory.

    They run trials by the function ``module:name``. One that needs much longer for a trial than
    `max_trial_hours` is killed. Where trials need a GPU, each worker sees one, in turns.
    """

    starts_at_once = True

    def __init__(
        self,
        run: RunDir,
        jobs: int | None = None,
        needs: Needs = Needs(),
        *,
        function: str = RUN_TRIAL,
        max_trial_hours: float | None = None,
    ) -> None:
        self._gpus = visible_gpus() if needs.gpus else []
        self._run, self._function = run, function
        self._jobs = jobs or len(self._gpus) or 1
        # The trial ends itself at its limit, between two steps; this is for one that hangs.
        self._limit = None if max_trial_hours is None else 3600 * max_trial_hours * 1.1 + 60
        self.notes: list[str] = []
        self._told: set[str] = set()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._false_starts = 0
        self._out_of_memory = _oom_kills()

    def warm(self) -> None:
        while len(self._workers) < self._jobs:
            self._start()

    def free(self) -> int:
        return self._jobs - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        self.warm()
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job, worker.since = job, time.monotonic()
        with contextlib.suppress(OSError):  # it died this moment; `poll` finds out
            worker.stdin.write(json.dumps(job.data).encode() + b"\n")
            worker.stdin.flush()

    def poll(self, timeout: float) -> list[Outcome]:
        outcomes = []
        for key, _ in self._selector.select(timeout):
            worker: _Worker = key.data
            data = os.read(key.fd, 1 << 16)
            if data:
                worker.received += data
                outcomes += self._read(worker)
            else:
                outcomes += self._bury(worker)
        for worker in self._workers:
            if self._late(worker):
                worker.process.kill()
        return outcomes

    def close(self) -> None:
        try:
            for worker in self._workers:
                _close(worker.stdin)
            end = time.monotonic() + GRACE
            for worker in self._workers:
                try:
                    worker.process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    worker.process.kill()
        finally:  # also when a second Ctrl-C comes while we wait
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
                _close(worker.stdout)
            self._selector.close()
            self._workers.clear()

    def _start(self) -> None:
        taken = {worker.number for worker in self._workers}
        number = next(n for n in range(1, self._jobs + 1) if n not in taken)
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        environment = {**os.environ, **THREADS, "PYTHONPATH": path}
        if self._gpus:
            environment[VISIBLE] = self._gpus[(number - 1) % len(self._gpus)]
        # -P: what lies in the current folder is not to be imported unless we import it, too.
        with self._log(number) as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "analogtl.scheduling.worker", self._function],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Worker(number, process, process.stdin, process.stdout)
        self._workers.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _log(self, number: int) -> IO[bytes]:
        path = self._run.inside("logs", f"worker-{number}.log")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "ab")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _read(self, worker: _Worker) -> list[Outcome]:
        *lines, worker.received = worker.received.split(b"\n")
        outcomes = []
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "broken" in message:
                raise RunError(
                    f"the workers cannot start: {message['broken']}; `analogtl doctor` tells more"
                )
            if "ready" in message:
                worker.ready, self._false_starts = True, 0
            elif "note" in message:
                if message["note"] not in self._told:  # several workers may find the same
                    self._told.add(message["note"])
                    self.notes.append(message["note"])
            elif worker.job is not None:
                outcomes.append(Outcome(worker.job.trial_id, message["row"]))
                worker.job = None
                worker.served += 1
                if worker.served >= TRIALS_PER_WORKER:
                    self._retire(worker)
        return outcomes

    def _retire(self, worker: _Worker) -> None:
        self._selector.unregister(worker.stdout)
        self._workers.remove(worker)
        _close(worker.stdin)  # it is idle, and ends at once
        _close(worker.stdout)
        worker.process.wait()

    def _bury(self, worker: _Worker) -> list[Outcome]:
        self._selector.unregister(worker.stdout)
        _close(worker.stdin)
        _close(worker.stdout)
        worker.process.kill()  # it closed its output: whatever it is doing, nobody will hear of it
        code = worker.process.wait()
        self._workers.remove(worker)
        reason = f"its process {self._cause(code)}; see logs/worker-{worker.number}.log"
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= FALSE_STARTS:
                raise RunError(f"the workers die before they are ready: {reason}")
        if worker.job is None:
            return []
        late = self._late(worker)
        if late:
            hours = (time.monotonic() - worker.since) / 3600
            reason = f"hung: killed after {hours:.2g} hours, past its limit"
        return [Outcome(worker.job.trial_id, None, reason, final=late)]

    def _late(self, worker: _Worker) -> bool:
        if worker.job is None or self._limit is None:
            return False
        if time.monotonic() - worker.since <= self._limit:
            return False
        # Pretraining, which all trials share, does not count.
        progress = self._run.progress(worker.job.trial_id)
        if progress.get("pid") != worker.process.pid:  # of another process
            return True
        began_at = progress.get("began_at")
        if isinstance(began_at, int | float):
            return time.time() - began_at > self._limit
        return progress.get("stage") != "pretrain"

    def _cause(self, code: int) -> str:
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if -code != signal.SIGKILL:
            return f"crashed ({name})"
        killed = _oom_kills()
        if killed > self._out_of_memory:
            self._out_of_memory = killed
            return "was killed because the machine ran out of memory: use fewer --jobs"
        return "was killed (SIGKILL), by somebody or for lack of memory"


def _oom_kills() -> int:
    """How many processes this machine has killed for lack of memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a pipe whose reader is gone
        file.close()
