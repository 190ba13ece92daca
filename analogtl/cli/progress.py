"""What runs, while it runs: bars on a terminal, lines in a file or pipe, JSON for machines.

Trials are told apart by their arm, levels, learning rate and seed. The time left is estimated from
the epochs that were measured so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from analogtl.cli import output
from analogtl.cli.process import Interrupted, announced
from analogtl.errors import RunError, counted, duration
from analogtl.vocabulary import AXES, Metric, TrialStatus, arm_label

if TYPE_CHECKING:
    from rich.console import Console

    from analogtl.scheduling.sweep import Update
    from analogtl.study.trial import Trial

LINE_EVERY = 10.0  # seconds between plain lines about the same trial
ENDS = {"done": TrialStatus.DONE, "skipped": TrialStatus.DONE, "failed": TrialStatus.FAILED}
ENDS |= {"stopped": TrialStatus.STOPPED}


class Watcher:
    """Follows trials by the updates of a run, and shows what they do.

    Args:
        name: What is run, in front of the counts.
        labels: Trial -> what it is called.
        error: What the error of the trials is.
        quiet: Show failures only.
        as_json: Write one object per update.
        console: Where the bars are drawn.
        clock: Seconds that pass.

    Attributes:
        status: What has become of each trial; missing while it waits or runs.
        rows: The record of each trial that has ended.
        messages: Why trials failed or stopped.
    """

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        metric: Metric = Metric.ERROR,
        quiet: bool = False,
        as_json: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._labels, self._metric = name, labels, metric
        self._quiet, self._as_json, self._clock = quiet, as_json, clock
        self.status = dict.fromkeys(labels, TrialStatus.MISSING)
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.messages: dict[str, str] = {}
        self._said: dict[str, float] = {}  # when a plain line told of a trial
        self._earlier = 0  # trials that were finished before and not told of yet
        console = console or output.console()
        self._live = console.is_terminal and not (console.is_dumb_terminal or quiet or as_json)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=2,
            speed_estimate_period=3600,
            get_time=clock,
            disable=not self._live,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # One bar for all trials, in trials; and one for each that runs, in epochs.
        self._all = self._bars.add_task(name, total=len(labels), doing="", visible=len(labels) > 1)
        self._running: dict[str, TaskID] = {}
        self._share: dict[str, float] = {}  # what is done of a running trial

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()
        self._tell_earlier()

    def count(self, *statuses: TrialStatus) -> int:
        """How many trials have one of these states."""
        return sum(status in statuses for status in self.status.values())

    def seconds_left(self) -> float | None:
        """Seconds to the end of the last trial, judged by the epochs so far; None if unknown."""
        return self._bars.tasks[0].time_remaining

    def interrupted(self, text: str) -> None:
        """Say so, without the bars: what runs is saved now, and then the command ends."""
        self._bars.stop()
        self._live = False
        output.note(text)

    def apply(self, update: Update) -> None:
        """Take in an update and show it."""
        trial, kind = update.trial, update.kind
        known, row = trial in self._labels, update.row
        if known and kind in ENDS:
            self.status[trial], self.rows[trial] = ENDS[kind], row
            self.messages[trial] = update.text or str(row.get("message") or "")
        if self._as_json:
            filled = {key: value for key, value in row.items() if value not in (None, "")}
            text = {"text": update.text} if update.text else {}
            output.emit({"event": kind, **filled, **text, "trial": trial})
        elif kind == "skipped":
            self._earlier += 1
            self._leave_out(1.0)
        else:
            self._tell_earlier()
            if kind == "message":
                self._line((f"{self._labels.get(trial, trial)}: " if trial else "") + update.text)
            elif kind in ENDS:
                self._ended(trial, kind, row)
            elif known:
                self._progress(trial, kind, row)
            self._bars.update(self._all, description=self._counts())

    def _tell_earlier(self) -> None:
        if self._earlier:
            self._line(f"{counted(self._earlier, 'trial')} finished earlier")
            self._earlier = 0

    def _counts(self) -> str:
        failed, running = self.count(TrialStatus.FAILED), len(self._running)
        text = f"{self._name}: {self.count(TrialStatus.DONE)} of {len(self.status)} done"
        text += f", {running} running" if running else ""
        return text + (f", {failed} failed" if failed else "")

    def _leave_out(self, share: float) -> None:
        """Take a trial, or the rest of one, out of what is to be done."""
        whole = self._bars.tasks[0]  # through `update` it would forget how fast it was
        whole.total = (whole.total or 0.0) - share

    def _progress(self, trial: str, kind: str, row: Mapping[str, Any]) -> None:
        if trial not in self._running:
            label = self._labels[trial]
            self._running[trial] = self._bars.add_task(label, total=None, doing="starting")
        if kind == "started":
            return
        epoch, epochs, error, loss = (row.get(key) for key in ("epoch", "epochs", "error", "loss"))
        doing = f"{'pretraining' if kind == 'pretrain' else 'epoch'} {epoch}/{epochs}"
        shown = doing if error is None else f"{doing}, {self._metric.text(error)}"
        self._bars.update(self._running[trial], completed=epoch, total=epochs, doing=shown)
        if kind == "epoch" and epochs:
            self._bars.update(self._all, advance=epoch / epochs - self._share.get(trial, 0.0))
            self._share[trial] = epoch / epochs
        recent = self._clock() - self._said.get(trial, -LINE_EVERY) < LINE_EVERY
        if self._live or self._quiet or (recent and epoch != epochs):
            return
        self._said[trial] = self._clock()
        doing += "" if loss is None else f", loss {loss:.3g}"
        doing += "" if error is None else f", {self._metric.label} {self._metric.text(error)}"
        doing += f", {duration(row['seconds_left'])} left" if row.get("seconds_left") else ""
        self._line(f"{self._place(trial)}: {doing}")

    def _ended(self, trial: str, kind: str, row: Mapping[str, Any]) -> None:
        if trial in self._running:
            self._bars.remove_task(self._running.pop(trial))
        rest = 1.0 - self._share.pop(trial, 0.0)
        if kind == "done":
            self._bars.update(self._all, advance=rest)
            self._line(f"{self._place(trial)}: {self._result(row)}")
            return
        self._leave_out(rest)
        text = f"{self._place(trial)}: {kind}: {self.messages[trial]}"
        self._line(text, "red" if kind == "failed" else "")

    def _result(self, row: Mapping[str, Any]) -> str:
        final, best, took = (row.get(key) for key in ("error_final", "error_best", "wall_s"))
        text = "done" + (
            "" if final is None else f", {self._metric.label} {self._metric.text(final)}"
        )
        text += "" if best is None else f" (best {self._metric.text(best)})"
        text += "" if took is None else f", {duration(took)}"
        left = None if self._live else self.seconds_left()
        return text + (f"; {duration(left)} left in all" if left else "")

    def _place(self, trial: str) -> str:
        if len(self.status) == 1:
            return self._labels[trial]
        return f"[{self.count(TrialStatus.DONE)}/{len(self.status)}] {self._labels[trial]}"

    def _line(self, text: str, style: str = "") -> None:
        if self._live:
            self._bars.console.print(Text(text, style), soft_wrap=True)
        elif style == "red" and self._quiet:
            output.problem(text)
        elif not self._quiet:
            output.say(text)


def watcher_of(name: str, trials: Sequence[Trial], **options: Any) -> Watcher:
    """A watcher of some trials, each called by its arm, levels, learning rate and seed."""
    several_rates = len({trial.lr for trial in trials if "finetune.lr" not in trial.axes}) > 1
    labels = {trial.id: _label(trial, several_rates) for trial in trials}
    metric = trials[0].experiment.metric if trials else Metric.ERROR
    return Watcher(name, labels, metric=metric, **options)


def _label(trial: Trial, several_rates: bool) -> str:
    parts = [arm_label(trial.arm)]
    for axis, level in trial.axes.items():
        number = isinstance(level, int | float) and not isinstance(level, bool)
        unit = " %" if axis in AXES and AXES[axis].unit == "%" else ""
        parts.append(f"{axis.rpartition('.')[2]} = {f'{level:g}' if number else level}{unit}")
    parts += [f"lr {trial.lr:g}"] if several_rates else []
    return ", ".join([*parts, f"seed {trial.seed}"])


def watch(updates: Iterator[Update], watcher: Watcher, command: str) -> None:
    """Show updates as they come, to the end.

    Raises:
        Interrupted: On Ctrl-C, when the workers have saved what they were at; it says that
            `command` goes on.
    """
    with watcher, announced(watcher.interrupted):
        try:
            for update in updates:
                watcher.apply(update)
        except KeyboardInterrupt:
            if isinstance(updates, Generator):
                updates.close()
            done = watcher.count(TrialStatus.DONE)
            raise Interrupted(
                f"interrupted: {done} of {len(watcher.status)} trials are done and kept, "
                f"running ones are saved; go on with: {command}"
            ) from None


def watch_pretraining(
    steps: Generator[list[dict[str, Any]], None, Any],
    epochs: int,
    asked: Callable[[], bool],
    **options: Any,
) -> Any:
    """Show the epochs of a pretraining (or of what begins with one); return its result.

    Raises:
        Interrupted: When `asked` says that the user wants it, after the state is saved.
    """
    from analogtl.scheduling.sweep import Update

    name = "pretraining"
    with Watcher(name, {name: name}, **options) as watcher:
        try:
            while True:
                rows = next(steps)
                if options.get("as_json"):
                    for row in rows:
                        output.emit({"event": "pretrain", **row})
                else:  # the last row is of the test images
                    watcher.apply(Update("epoch", name, {**rows[-1], "epochs": epochs}))
        except StopIteration as end:
            return end.value
        except RunError:
            if asked():
                raise Interrupted("interrupted: saved; the same command goes on") from None
            raise
