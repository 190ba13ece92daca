"""What runs, while it runs: the state of each trial, and bars of it, as a notebook shows them.

Trials are told apart by their arm, levels, learning rate and seed. The time left is estimated from
the epochs that were measured so far.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Self

from rich import get_console
from rich.console import Group
from rich.jupyter import JupyterMixin
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from analogtl.errors import counted, duration
from analogtl.scheduling.sweep import Update
from analogtl.study.trial import Trial
from analogtl.vocabulary import AXES, Metric, TrialStatus, arm_label

ENDS = {"done": TrialStatus.DONE, "skipped": TrialStatus.DONE, "failed": TrialStatus.FAILED}
ENDS |= {"stopped": TrialStatus.STOPPED}
DRAW_EVERY = 0.5  # seconds between drawings in a notebook, at least
MOST_LINES = 20  # the last ones, above the bars in a notebook


class Watcher:
    """Follows trials by the updates of a run, in bars and lines; who shows them, makes a subclass.

    Args:
        name: What is run, in front of the counts.
        labels: Trial -> what it is called.
        metric: What the trials are judged by.
        clock: Seconds that pass.
        drawn: How the bars are drawn, as rich takes it.

    Attributes:
        bars: One for all trials, in trials; and one for each that runs, in epochs.
        bars_are_seen: Else lines say what they would.
        status: What has become of each trial; missing while it waits or runs.
        rows: The record of each trial that has ended.
        messages: Why trials failed or stopped.
    """

    bars_are_seen = True

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        metric: Metric = Metric.ERROR,
        clock: Callable[[], float] = time.monotonic,
        **drawn: Any,
    ) -> None:
        self._name, self._labels, self._metric, self.clock = name, labels, metric, clock
        self.status = dict.fromkeys(labels, TrialStatus.MISSING)
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.messages: dict[str, str] = {}
        self._earlier = 0  # trials that were finished before and not told of yet
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
            TimeRemainingColumn(),
            speed_estimate_period=3600,
            get_time=clock,
            redirect_stdout=False,
            redirect_stderr=False,
            **drawn,
        )
        self._all = self.bars.add_task(name, total=len(labels), doing="", visible=len(labels) > 1)
        self._running: dict[str, TaskID] = {}
        self._share: dict[str, float] = {}  # what is done of a running trial

    @classmethod
    def of(cls, name: str, trials: Sequence[Trial], **options: Any) -> Self:
        """A watcher of some trials, each called by its arm, levels, learning rate and seed."""
        several_rates = len({t.lr for t in trials if "finetune.lr" not in t.axes}) > 1
        labels = {trial.id: _label(trial, several_rates) for trial in trials}
        metric = trials[0].experiment.metric if trials else Metric.ERROR
        return cls(name, labels, metric=metric, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._tell_earlier()

    def line(self, text: str, style: str = "") -> None:
        """Show a line about what happened."""
        raise NotImplementedError

    def progressed(self, trial: str, text: str, *, last: bool) -> None:
        """Tell of an epoch of a trial, beside its bar; nothing unless a subclass does."""

    def count(self, *statuses: TrialStatus) -> int:
        """How many trials have one of these states."""
        return sum(status in statuses for status in self.status.values())

    def seconds_left(self) -> float | None:
        """Seconds to the end of the last trial, judged by the epochs so far; None if unknown."""
        return self.bars.tasks[0].time_remaining

    def apply(self, update: Update) -> None:
        """Take in an update and show it."""
        trial, kind = update.trial, update.kind
        known, row = trial in self._labels, update.row
        if known and kind in ENDS:
            self.status[trial], self.rows[trial] = ENDS[kind], row
            self.messages[trial] = update.text or str(row.get("message") or "")
        if kind == "skipped":
            self._earlier += 1
            self._leave_out(1.0)
            return
        self._tell_earlier()
        if kind == "message":
            self.line((f"{self._labels.get(trial, trial)}: " if trial else "") + update.text)
        elif kind in ENDS:
            self._ended(trial, kind, row)
        elif known:
            self._progress(trial, kind, row)
        self.bars.update(self._all, description=self._counts())

    def _tell_earlier(self) -> None:
        if self._earlier:
            self.line(f"{counted(self._earlier, 'trial')} finished earlier")
            self._earlier = 0

    def _counts(self) -> str:
        failed, running = self.count(TrialStatus.FAILED), len(self._running)
        text = f"{self._name}: {self.count(TrialStatus.DONE)} of {len(self.status)} done"
        text += f", {running} running" if running else ""
        return text + (f", {failed} failed" if failed else "")

    def _leave_out(self, share: float) -> None:
        """Take a trial, or the rest of one, out of what is to be done."""
        whole = self.bars.tasks[0]  # through `update` it would forget how fast it was
        whole.total = (whole.total or 0.0) - share

    def _progress(self, trial: str, kind: str, row: Mapping[str, Any]) -> None:
        if trial not in self._running:
            label = self._labels[trial]
            self._running[trial] = self.bars.add_task(label, total=None, doing="starting")
        if kind == "started":
            return
        epoch, epochs, error, loss = (row.get(key) for key in ("epoch", "epochs", "error", "loss"))
        doing = f"{'pretraining' if kind == 'pretrain' else 'epoch'} {epoch}/{epochs}"
        shown = doing if error is None else f"{doing}, {self._metric.text(error)}"
        self.bars.update(self._running[trial], completed=epoch, total=epochs, doing=shown)
        if kind == "epoch" and epochs:
            self.bars.update(self._all, advance=epoch / epochs - self._share.get(trial, 0.0))
            self._share[trial] = epoch / epochs
        doing += "" if loss is None else f", loss {loss:.3g}"
        doing += "" if error is None else f", {self._metric.label} {self._metric.text(error)}"
        doing += f", {duration(row['seconds_left'])} left" if row.get("seconds_left") else ""
        self.progressed(trial, f"{self._place(trial)}: {doing}", last=epoch == epochs)

    def _ended(self, trial: str, kind: str, row: Mapping[str, Any]) -> None:
        if trial in self._running:
            self.bars.remove_task(self._running.pop(trial))
        rest = 1.0 - self._share.pop(trial, 0.0)
        if kind == "done":
            self.bars.update(self._all, advance=rest)
            self.line(f"{self._place(trial)}: {self._result(row)}")
            return
        self._leave_out(rest)
        text = f"{self._place(trial)}: {kind}: {self.messages[trial]}"
        self.line(text, "red" if kind == "failed" else "")

    def _result(self, row: Mapping[str, Any]) -> str:
        final, best, took = (row.get(key) for key in ("error_final", "error_best", "wall_s"))
        name, said = self._metric.label, self._metric.text
        text = "done" + ("" if final is None else f", {name} {said(final)}")
        text += "" if best is None else f" (best {said(best)})"
        text += "" if took is None else f", {duration(took)}"
        left = None if self.bars_are_seen else self.seconds_left()
        return text + (f"; {duration(left)} left in all" if left else "")

    def _place(self, trial: str) -> str:
        if len(self.status) == 1:
            return self._labels[trial]
        return f"[{self.count(TrialStatus.DONE)}/{len(self.status)}] {self._labels[trial]}"


def _label(trial: Trial, several_rates: bool) -> str:
    parts = [arm_label(trial.arm)]
    for axis, level in trial.axes.items():
        number = isinstance(level, int | float) and not isinstance(level, bool)
        unit = " %" if axis in AXES and AXES[axis].unit == "%" else ""
        parts.append(f"{axis.rpartition('.')[2]} = {f'{level:g}' if number else level}{unit}")
    parts += [f"lr {trial.lr:g}"] if several_rates else []
    return ", ".join([*parts, f"seed {trial.seed}"])


class NotebookWatcher(Watcher, JupyterMixin):
    """Draws itself below the cell that runs, and over itself as trials go on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, auto_refresh=False, **options)
        self.bars.update(self._all, visible=True)  # also of a single trial: it stays at the end
        self._lines: deque[Text] = deque(maxlen=MOST_LINES)
        self._drawn = self.clock()

    def __rich__(self) -> Group:
        return Group(*self._lines, self.bars)

    def __enter__(self) -> Self:
        from IPython.display import display  # which a notebook has

        self._handle: Any = display(self, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._handle.update(self)

    def line(self, text: str, style: str = "") -> None:
        self._lines.append(Text(text, style))

    def apply(self, update: Update) -> None:
        super().apply(update)
        if self.clock() - self._drawn >= DRAW_EVERY:
            self._drawn = self.clock()
            self._handle.update(self)


def follow(name: str, trials: Sequence[Trial], updates: Generator[Update]) -> None:
    """Run updates to their end; in a notebook, show them. What stops it, stops what runs."""
    with contextlib.ExitStack() as stack:
        watcher = None
        if get_console().is_jupyter:
            watcher = stack.enter_context(NotebookWatcher.of(name, trials))
        stack.enter_context(contextlib.closing(updates))  # a notebook keeps what was interrupted
        for update in updates:
            if watcher is not None:
                watcher.apply(update)
