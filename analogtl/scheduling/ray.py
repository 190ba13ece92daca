"""Trials as tasks on a Ray cluster: this machine, or many.

Every node must have analogtl installed, and see the run directory under the same path. A trial
whose worker or node is lost is handed in again, and goes on from its last checkpoint elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from analogtl.errors import ExperimentError
from analogtl.scheduling.jobs import Job, Needs, NonNegative, Outcome, Pool, Positive, execute
from analogtl.study.run_dir import RunDir
from analogtl.study.threads import use_one_thread

GRACE = 30.0  # seconds that running trials have to save when the sweep is stopped
LOOK_EVERY = 2.0  # seconds between looks at the size of the cluster


class RayPool(Pool):
    """Tasks on a Ray cluster.

    Args:
        jobs: Trials at the same time; default: as many as the cluster has room for.
        address: Address of the cluster (``auto``: the one that runs here); default: the one that
            the environment names (``RAY_ADDRESS``), else a new one on this machine.
        cpus: CPUs of one trial, at least as many as its threads; ask for more where memory is
            short.
        gpus: GPUs of one trial; a fraction shares one. Default: one where trials are for CUDA.

    Raises:
        ExperimentError: If no cluster answers.
    """

    def __init__(
        self,
        run: RunDir,
        jobs: int | None = None,
        needs: Needs = Needs(),
        *,
        address: str | None = None,
        cpus: Positive = 1.0,
        gpus: NonNegative | None = None,
    ) -> None:
        import ray

        self._ray, self._jobs = ray, jobs
        self._cpus = max(cpus, needs.threads)
        self._gpus = needs.gpus if gpus is None else gpus
        self.notes: list[str] = []
        self._ours = not ray.is_initialized()
        if self._ours:
            quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
            if address is None and "RAY_ADDRESS" not in os.environ:
                quiet["include_dashboard"] = False
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                text = " ".join(str(error).split())
                raise ExperimentError(f"backend 'ray': no cluster at {address}: {text}") from None
        self._task = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)(_run)
        self._running: dict[Any, str] = {}  # reference of a task -> trial
        self._stop = run.inside(".locks", f"stop-{uuid.uuid4().hex}")
        self._slots, self._looked = 0, 0.0

    @classmethod
    def check(cls, **options: Any) -> None:
        if find_spec("ray") is None:
            raise ExperimentError(
                "backend 'ray': Ray is not installed; pip install 'analogtl[ray]'"
            )

    def free(self) -> int:
        return max(0, (self._jobs or self._room()) - len(self._running))

    def submit(self, job: Job) -> None:
        reference = self._task.remote({**job.data, "stop_file": str(self._stop)})
        self._running[reference] = job.trial_id

    def poll(self, timeout: float) -> list[Outcome]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(
                list(self._running), num_returns=len(self._running), timeout=0
            )
        return [self._outcome(reference) for reference in ready]

    def close(self) -> None:
        try:
            if self._running:
                with contextlib.suppress(OSError):
                    self._stop.parent.mkdir(parents=True, exist_ok=True)
                    self._stop.touch()
                self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE)
        finally:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
            self._running.clear()
            self._stop.unlink(missing_ok=True)
            if self._ours:
                self._ray.shutdown()

    def _room(self) -> int:
        """How many trials the cluster can run; nodes come and go."""
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            have: dict[str, float] = self._ray.cluster_resources()  # type: ignore[no-untyped-call]
            room = int(have.get("CPU", 0.0) // self._cpus)
            if self._gpus:
                room = min(room, int(have.get("GPU", 0.0) // self._gpus))
            self._slots = room
            if room < 1 and not self._running:
                wanted = f"{self._cpus:g} CPUs" + (f", {self._gpus:g} GPUs" if self._gpus else "")
                self.notes.append(f"the Ray cluster has no room for a trial of {wanted}; waiting")
                self._slots = 1  # an autoscaler sees the demand
        return self._slots

    def _outcome(self, reference: Any) -> Outcome:
        trial_id = self._running.pop(reference)
        try:
            return Outcome(trial_id, dict(self._ray.get(reference)))
        except self._ray.exceptions.OutOfMemoryError:
            return Outcome(trial_id, None, "Ray killed it: its node ran out of memory")
        except self._ray.exceptions.RayError as error:
            text = str(error).strip().splitlines() or [""]
            return Outcome(
                trial_id, None, f"its process was lost ({type(error).__name__}: {text[0]})"
            )


def _run(data: Mapping[str, Any]) -> dict[str, Any]:
    use_one_thread()
    return execute(data)
