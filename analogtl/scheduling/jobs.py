"""What the backends share: a job as frozen data, its outcome, and the function all of them call.

Nothing here imports torch before a job runs.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from analogtl.errors import one_line
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import Trial
from analogtl.vocabulary import TrialStatus

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
RUN_TRIAL = "analogtl.training.run_trial:run_trial"


@dataclass(frozen=True)
class Job:
    """One trial to run, as JSON-able data: a later change of the file is no matter."""

    trial_id: str
    data: dict[str, Any]  # what `execute` needs
    after: str | None = None  # trial that makes the pretrained model which this one needs, if any

    @classmethod
    def of(
        cls,
        trial: Trial,
        run: RunDir,
        limits: RunLimits,
        function: str = RUN_TRIAL,
        after: str | None = None,
    ) -> Job:
        """The job of running a trial, by the ``module:name`` of a function.

        Every process must see the run directory under its path.
        """
        data = {
            "trial": trial.as_data(),
            "root": str(run.root.resolve()),
            "name": run.name,
            "limits": limits.as_data(),
            "function": function,
        }
        return cls(trial.id, data, after)


@dataclass(frozen=True)
class Needs:
    """What one trial needs of the place where it runs."""

    threads: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    trial_id: str
    row: dict[str, Any] | None  # what `execute` returned; None if its process died
    reason: str = ""  # why the process died
    final: bool = False  # whether another attempt is pointless


class Pool(ABC):
    """A place that runs jobs."""

    starts_at_once = False  # whether a submitted job starts running at once (or waits in a queue)
    # Whether it wants all jobs at once and keeps their order itself; a job then names the trial
    # that it has to come `after`.
    takes_all = False
    notes: list[str]  # what the user should read; whoever shows it empties the list

    @classmethod
    def check(cls, **options: Any) -> None:
        """See, before anything runs, that there is such a place.

        Raises:
            ExperimentError: If there is none here.
        """
        return

    def warm(self) -> None:
        """Get ready for jobs, as far as that can go on in the background."""
        return

    @abstractmethod
    def free(self) -> int:
        """How many more jobs to hand over now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job."""

    @abstractmethod
    def poll(self, timeout: float) -> list[Outcome]:
        """The jobs that ended since the last call; waits up to `timeout` seconds for one.

        Raises:
            RunError: If jobs cannot run at all.
        """

    def close(self) -> None:
        """Stop what runs, after a checkpoint, and clean up; by default, leave it running."""
        return


def execute(data: Mapping[str, Any], stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run one job in this process: what every backend ends in.

    Args:
        data: The job's data. With a ``stop_file`` in it, the job stops once that file exists.
        stop: Asked after every training step; when true, the trial is saved and stopped.

    Returns:
        The row of ``trials.csv``. A failure is a row as well, never an exception.
    """
    row = {"trial": "", "status": TrialStatus.FAILED}
    try:
        trial = Trial.from_data(data["trial"])
        row["trial"] = trial.id
        if stop is None:
            stop = _StopFile(data.get("stop_file"))
        limits = RunLimits(**data["limits"], stop=stop)
        run = RunDir(Path(data["root"]), str(data["name"]))
        return dict(load(data["function"])(trial, run, limits))
    except Exception as error:  # even a bug must fail this trial only
        traceback.print_exc(file=sys.stderr)
        return {**row, "message": one_line(error)}


class _StopFile:
    """Whether a file exists; asked often, looks once a second."""

    def __init__(self, path: str | None) -> None:
        self._path, self._looked, self._there = path, 0.0, False

    def __call__(self) -> bool:
        if self._path and not self._there and time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            self._there = os.path.exists(self._path)
        return self._there


def load(name: str) -> Callable[..., Any]:
    """The function or class that ``module:name`` stands for."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found
