"""A pool that runs each trial in this process: for tests of what comes before and after it."""

from __future__ import annotations

from typing import Any

from analogtl.scheduling.jobs import Job, Outcome, Pool, execute


class InProcess(Pool):
    """Takes the place of `LocalPool`, where a test is not about workers."""

    starts_at_once = True

    def __init__(self, *_: Any, function: str, **__: Any) -> None:
        self.notes: list[str] = []
        self._ended: list[Outcome] = []

    def free(self) -> int:
        return 1 - len(self._ended)

    def submit(self, job: Job) -> None:
        self._ended.append(Outcome(job.trial_id, execute(job.data)))

    def poll(self, timeout: float) -> list[Outcome]:
        ended, self._ended = self._ended, []
        return ended
