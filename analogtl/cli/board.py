"""The state of a sweep as it is shown while it runs: what each trial does, curves, time left."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analogtl.errors import AnalogtlError
from analogtl.study import columns as records
from analogtl.vocabulary import AXES, Arm

if TYPE_CHECKING:
    from analogtl.scheduling.sweep import Update
    from analogtl.study.run_dir import RunDir
    from analogtl.study.trial import Trial

ARM_NAMES = {
    "digital-tl": "digital TL",
    "analog-tl": "analog TL",
    "digital-scratch": "digital scratch",
    "analog-scratch": "analog scratch",
    "frozen-array": "frozen arrays",
    Arm.WEIGHT_PROGRAMMING: "weight programming",
}
BASELINE = "digital-tl"
ENDED = ("done", "skipped", "failed")
MOST_READ = 300  # finished trials whose curves are read at the start; the rest only counts


@dataclass
class TrialState:
    """One trial.

    Attributes:
        id, arm, label: Which it is; the label tells what its group does not: seed, learning rate.
        status: waiting, pretraining, running, done, skipped (done earlier), failed or stopped.
        epoch, epochs: How far it is; None before the first epoch.
        loss, error: At that epoch; the error is the test error in percent.
        epoch_s: Seconds that the epoch took.
        left_s: Estimated seconds to its end, as of `at`.
        at: When that was (`time.monotonic`).
        since: When this stage was first seen, and at which epoch.
        wall_s: Seconds it took in all, once it is done.
        curve: Epoch -> test error in percent.
        message: Why it failed.
    """

    id: str
    arm: str
    group: str
    label: str
    status: str = "waiting"
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    error: float | None = None
    epoch_s: float | None = None
    left_s: float | None = None
    at: float = 0.0
    since: tuple[float, int] | None = None
    wall_s: float | None = None
    curve: dict[int, float] = field(default_factory=dict)
    message: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def doing(self) -> str:
        """What it is at, in a word."""
        if self.status == "pretraining":
            return "pretraining"
        return "programming" if self.arm == Arm.WEIGHT_PROGRAMMING else "fine-tuning"


class Board:
    """All trials of one call, kept up to date by the updates of `run_trials`."""

    def __init__(
        self,
        name: str,
        trials: Sequence[Trial],
        run: RunDir,
        *,
        jobs: int = 1,
        expected: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.jobs = name, max(1, jobs)
        self._run, self._clock, self._read = run, clock, 0
        self._expected = dict(expected or {})  # trial -> seconds, from earlier trials
        self.began = clock()
        several_rates = len({trial.lr for trial in trials}) > 1
        self.trials = {trial.id: _state(trial, several_rates) for trial in trials}
        self.groups: dict[str, list[TrialState]] = {}
        for state in self.trials.values():
            self.groups.setdefault(state.group, []).append(state)
        programming = {trial.arm for trial in trials} == {Arm.WEIGHT_PROGRAMMING}
        self.quantity = "programming error" if programming else "test error"
        self.baseline = next((s.group for s in self.trials.values() if s.arm == BASELINE), "")

    def apply(self, update: Update) -> TrialState | None:
        """Take in an update; return the trial that it is about, if it is about one."""
        state = self.trials.get(update.trial)
        if state is None:
            return None
        row, kind = update.row, update.kind
        if kind == "started":
            state.status = "running"
        elif kind in ("epoch", "pretrain"):
            self._progress(state, row, pretraining=kind == "pretrain")
        elif kind in ("done", "skipped"):
            state.status, state.row = kind, row
            state.error, state.wall_s = _number(row.get("error_final")), _number(row.get("wall_s"))
            state.left_s = None
            if kind == "done" or self._read < MOST_READ:
                self._read += 1
                state.curve.update(self._recorded(state.id))
        elif kind in ("failed", "stopped"):
            state.status, state.row, state.left_s = kind, row, None
            state.message = update.text or str(row.get("message") or "")
        return state

    def _progress(self, state: TrialState, row: Mapping[str, Any], *, pretraining: bool) -> None:
        status = "pretraining" if pretraining else "running"
        if state.status != status or state.since is None:
            state.since = (self._clock(), _whole(row.get("epoch")) or 0)
        state.status = status
        state.epoch, state.epochs = _whole(row.get("epoch")), _whole(row.get("epochs"))
        state.loss, state.error = _number(row.get("loss")), _number(row.get("error"))
        state.epoch_s, state.left_s = _number(row.get("wall_s")), _number(row.get("seconds_left"))
        state.at = self._clock()
        if pretraining and state.epoch is not None and state.epochs is not None:
            # Its rows come one by one and tell the time of a part of an epoch only.
            done = state.epoch - state.since[1]
            spent = state.at - state.since[0]
            state.left_s = spent / done * (state.epochs - state.epoch) if done else None
        if not pretraining and state.epoch is not None and state.error is not None:
            state.curve[state.epoch] = state.error

    def _recorded(self, trial_id: str) -> dict[int, float]:
        """The test errors of a finished trial."""
        curve: dict[int, float] = {}
        with contextlib.suppress(AnalogtlError, OSError, ValueError, KeyError):
            for row in records.read_rows(self._run.trial_path(trial_id) / "epochs.csv"):
                if row["stage"] == "finetune" and row["split"] == "test" and row["error"]:
                    curve[int(row["epoch"])] = float(row["error"])
        return curve

    def count(self, *statuses: str) -> int:
        """How many trials have one of these states."""
        return sum(state.status in statuses for state in self.trials.values())

    @property
    def done(self) -> int:
        return self.count("done", "skipped")

    def running(self) -> list[TrialState]:
        """The trials that are at work."""
        return [s for s in self.trials.values() if s.status in ("running", "pretraining")]

    def failures(self) -> list[TrialState]:
        """The trials that failed."""
        return [s for s in self.trials.values() if s.status == "failed"]

    def curve(self, group: str) -> dict[int, float]:
        """Epoch -> mean test error over the trials of a group that have reached it."""
        values: dict[int, list[float]] = {}
        for state in self.groups[group]:
            for epoch, error in state.curve.items():
                values.setdefault(epoch, []).append(error)
        return {epoch: statistics.fmean(values[epoch]) for epoch in sorted(values)}

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self._clock() - self.began

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the last trial; None before there is anything to go by.

        A waiting trial is taken to last as long as the trials of its arm that this call has
        finished, or as was expected, or as a running one of its arm will, or as any other trial.
        """
        now = self._clock()
        total = 0.0
        for state in self.running():
            if state.left_s is None:
                total += self._typical(state) or 0.0
            else:
                total += max(0.0, state.left_s - (now - state.at))
        waiting = [s for s in self.trials.values() if s.status == "waiting"]
        for state in waiting:
            typical = self._typical(state)
            if typical is None:
                return None
            total += typical
        if not total and self.running():
            return None
        return total / min(self.jobs, max(1, len(waiting) + len(self.running())))

    def _typical(self, wanted: TrialState) -> float | None:
        known = [(s.arm == wanted.arm, s.wall_s) for s in self.trials.values() if s.wall_s]
        same = [seconds for alike, seconds in known if alike]
        if same:
            return statistics.fmean(same)
        if wanted.id in self._expected:
            return self._expected[wanted.id]
        known += [
            (state.arm == wanted.arm, state.epoch_s * state.epochs)
            for state in self.running()
            if state.epoch_s and state.epochs and state.status == "running"
        ]
        values = [seconds for alike, seconds in known if alike] or [s for _, s in known]
        return statistics.fmean(values) if values else None


def _state(trial: Trial, several_rates: bool) -> TrialState:
    levels = ", ".join(f"{_short(axis)} = {_level(axis, level)}" for axis, level in
                       trial.axes.items())  # fmt: skip
    group = ARM_NAMES.get(trial.arm, trial.arm) + (f", {levels}" if levels else "")
    rate = f"lr {trial.lr:g}, " if several_rates else ""
    return TrialState(trial.id, trial.arm, group, f"{group}, {rate}seed {trial.seed}")


def _short(axis: str) -> str:
    return axis if axis in AXES else axis.rpartition(".")[2]


def _level(axis: str, level: Any) -> str:
    unit = AXES[axis].unit if axis in AXES else ""
    text = f"{level:g}" if isinstance(level, int | float) and not isinstance(level, bool) else level
    return f"{text} %" if unit == "%" else str(text)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
