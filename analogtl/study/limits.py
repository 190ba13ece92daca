"""How to run, as opposed to what: limits and checkpoints, which change no result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class RunLimits:
    """When a training saves its state and when it stops, and with how many threads it runs."""

    checkpoint_minutes: float = 10.0  # in the middle of an epoch, save at least this often
    # Time (as of `time.time`) at which to save and stop; None for never.
    deadline: float | None = None
    max_trial_hours: float | None = None  # hours after which one trial fails; None for no limit
    threads: int = 1  # of one trial, where arrays are on the fast engine
    # End a trial as failed when its training loss has grown beyond twice that of guessing.
    stop_on_divergence: bool = False
    stop: Callable[[], bool] = lambda: False  # asked after every step; when true, save and stop

    def should_stop(self) -> bool:
        """Whether it is time to save and stop."""
        return self.stop() or (self.deadline is not None and time.time() >= self.deadline)

    def as_data(self) -> dict[str, Any]:
        """The limits as JSON-able data, for another process; `stop` stays behind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stop"}
