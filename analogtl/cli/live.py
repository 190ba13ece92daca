"""Showing what runs: live on a terminal, plain lines in a file or pipe, JSON for machines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from analogtl.cli import output, textplot
from analogtl.cli.board import Board, TrialState
from analogtl.cli.common import Interrupted, announced
from analogtl.errors import RunError, counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from analogtl.scheduling.sweep import Update
    from analogtl.study.study import Study

REFRESH = 1.0  # frames per second: enough to see, little for a slow connection
LINE_EVERY = 10.0  # seconds between plain lines about the same trial
CHART_ROWS = 8
CHART_LINES = 5  # more lines than this in one chart cannot be told apart


class View(Protocol):
    """One way to show a board."""

    def update(self, update: Update, state: TrialState | None) -> None:
        """Something happened, and the board knows it already."""

    def note(self, text: str) -> None:
        """A line that is not a result."""


def watch(
    updates: Iterator[Update], board: Board, command: str, *, quiet: bool, as_json: bool
) -> None:
    """Show updates as they come, to the end.

    Raises:
        Interrupted: On Ctrl-C, when the workers have saved what they were at; it says that
            `command` goes on.
    """
    with _view(board, quiet=quiet, as_json=as_json) as view, announced(view.note):
        try:
            for update in updates:
                view.update(update, board.apply(update))
        except KeyboardInterrupt:
            if isinstance(updates, Generator):
                updates.close()
            raise Interrupted(
                f"interrupted: {board.done} of {len(board.trials)} trials are done and kept, "
                f"running ones are saved; go on with: {command}"
            ) from None


def _view(board: Board, *, quiet: bool, as_json: bool) -> contextlib.AbstractContextManager[View]:
    if as_json:
        return contextlib.nullcontext(JsonView())
    if quiet:
        return contextlib.nullcontext(QuietView())
    console = output.console()
    if console.is_terminal and not console.is_dumb_terminal:
        return live_view(board, console)
    return contextlib.nullcontext(PlainView(board))


class _OnStandardError:
    def note(self, text: str) -> None:
        output.note(text)


class JsonView(_OnStandardError):
    """One object per update."""

    def update(self, update: Update, state: TrialState | None) -> None:
        record = {key: value for key, value in update.row.items() if value not in (None, "")}
        if update.text:
            record["text"] = update.text
        output.emit({"event": update.kind, **record, "trial": update.trial})


class QuietView(_OnStandardError):
    """Only what went wrong."""

    def update(self, update: Update, state: TrialState | None) -> None:
        if update.kind == "failed":
            output.problem(f"{update.trial}: failed: {update.text}")


class PlainView(_OnStandardError):
    """Lines: one per finished trial and per epoch, the latter not too many; no control codes."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._said: dict[str, float] = {}
        self._skipped = 0

    def update(self, update: Update, state: TrialState | None) -> None:
        if update.kind == "skipped":
            self._skipped += 1
            return
        if self._skipped:
            output.say(f"{counted(self._skipped, 'trial')} finished earlier")
            self._skipped = 0
        if update.kind == "message":
            output.say(f"{update.trial}: {update.text}" if update.trial else update.text)
        elif state is not None and update.kind != "started":
            self._trial(update.kind, state)

    def _trial(self, kind: str, state: TrialState) -> None:
        last = state.epoch is not None and state.epoch == state.epochs
        if kind in ("epoch", "pretrain"):
            recent = time.monotonic() - self._said.get(state.id, -LINE_EVERY) < LINE_EVERY
            if recent and not last:
                return
            self._said[state.id] = time.monotonic()
        board = self._board
        place = f"[{board.done}/{len(board.trials)}] {state.label}"
        if kind == "failed":
            output.say(f"{place}: failed: {state.message}")
        elif kind == "stopped":
            output.say(f"{place}: stopped; {state.message}")
        elif kind == "done":
            best = state.row.get("error_best")
            text = f"done, {board.quantity} {_percent(state.error)}"
            text += f" (best {_percent(best)})" if best is not None else ""
            text += f", {output.duration(state.wall_s)}" if state.wall_s is not None else ""
            left = board.seconds_left()
            text += f"; {output.duration(left)} left in all" if left else ""
            output.say(f"{place}: {text}")
        else:
            output.say(f"{place}: {_epoch(state, board.quantity)}")


def _epoch(state: TrialState, quantity: str) -> str:
    parts = [f"{state.doing} epoch {state.epoch}/{state.epochs}"]
    if state.loss is not None:
        parts.append(f"loss {state.loss:.3g}")
    if state.error is not None:
        parts.append(f"{quantity} {_percent(state.error)}")
    if state.left_s:
        parts.append(f"{output.duration(state.left_s)} left")
    return ", ".join(parts)


def _percent(value: Any) -> str:
    try:
        return f"{float(value):.1f} %"
    except (TypeError, ValueError):
        return "?"


# -- the live view ---------------------------------------------------------------------------------


class LiveView:
    """A frame that is drawn anew in place; messages and failures stay above it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        self._line(text, "dim")

    def update(self, update: Update, state: TrialState | None) -> None:
        if update.kind == "message":
            self._line((f"{update.trial}: " if update.trial else "") + update.text, "")
        elif update.kind == "failed":
            about = state.label if state is not None else update.trial
            self._line(f"{about}: failed: {update.text}", "red")

    def _line(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(output.printable(text), style=style), soft_wrap=True)


@contextlib.contextmanager
def live_view(board: Board, console: Console) -> Iterator[LiveView]:
    """The live view of a board while the block runs."""
    from rich.console import Group
    from rich.live import Live

    unicode = textplot.has_unicode(console.encoding)

    def draw() -> Group:
        return Group(*frame(board, console.width, console.height - 1, unicode=unicode))

    with Live(
        get_renderable=draw,
        console=console,
        refresh_per_second=REFRESH,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield LiveView(console)


def frame(board: Board, width: int, height: int, *, unicode: bool = True) -> list[Text]:
    """One frame of the live view: at most `height` lines of at most `width` characters."""
    from rich.text import Text

    width = max(40, min(width, 110))
    lines = [_headline(board, width), _bar(board, width, unicode)]
    running = board.running()
    shown = running[:4]
    tail: list[Text] = []
    if shown:
        tail = [Text(), Text("running", style="dim")]
        tail += [_running_line(state, width, unicode) for state in shown]
        if len(running) > len(shown):
            tail.append(Text(f"and {len(running) - len(shown)} more", style="dim"))
    room = height - len(lines) - len(tail)
    groups = _groups_to_show(board, max(1, room - 2))
    curved = [g for g in groups if len(board.curve(g)) > 1]
    chart_groups = _most_telling(board, curved, CHART_LINES)
    rest = room - len(groups) - 3
    if chart_groups and rest >= 7:
        lines += _chart(board, chart_groups, width, min(CHART_ROWS, rest - 4), unicode)
    if room > 3:
        lines += [Text(), _group_heading(board, width, unicode)]
    lines += [_group_line(board, group, width, unicode) for group in groups]
    hidden = len(board.groups) - len(groups)
    if hidden and len(lines) + len(tail) < height:
        lines.append(Text(f"and {hidden} more", style="dim"))
    lines += tail
    for line in lines:
        line.truncate(width, overflow="ellipsis" if unicode else "crop")
    return lines[:height]


def _headline(board: Board, width: int) -> Text:
    from rich.text import Text

    parts = [f"{board.done} of {len(board.trials)} trials done"]
    if running := len(board.running()):
        parts.append(f"{running} running")
    if failed := board.count("failed"):
        parts.append(f"{failed} failed")
    left = board.seconds_left()
    ends = f"{output.duration(board.elapsed())}" + (
        f", {output.duration(left)} left" if left else ""
    )
    text = Text()
    text.append(board.name, style="bold")
    text.append(": " + ", ".join(parts), style="none")
    space = max(2, width - text.cell_len - len(ends))
    text.append(" " * space + ends, style="dim")
    return text


def _bar(board: Board, width: int, unicode: bool) -> Text:
    from rich.text import Text

    total = max(1, len(board.trials))
    share = float(board.count("done", "skipped", "failed"))
    for state in board.running():
        if state.status == "running" and state.epoch and state.epochs:
            share += state.epoch / state.epochs
    filled = round(width * min(1.0, share / total))
    full, empty = ("━", "─") if unicode else ("=", "-")
    text = Text(full * filled, style="green")
    text.append(empty * (width - filled), style="dim")
    return text


def _groups_to_show(board: Board, most: int) -> list[str]:
    """The groups with something to tell, the digital baseline first."""
    active = {state.group for state in board.running()}
    known = [g for g in board.groups if board.curve(g) or g in active]
    return _most_telling(board, known or list(board.groups), most)


def _most_telling(board: Board, groups: list[str], most: int) -> list[str]:
    """The digital baseline, what is at work, and the rest, as many as there is room for."""
    active = {state.group for state in board.running()}
    order = sorted(groups, key=lambda g: (g != board.baseline, g not in active))
    kept = set(order[:most])
    return [g for g in groups if g in kept]


def _chart(board: Board, groups: list[str], width: int, rows: int, unicode: bool) -> list[Text]:
    curves = [(group, board.curve(group)) for group in groups]
    lines = [
        textplot.Line(group, [float(e) for e in curve], list(curve.values()))
        for group, curve in curves
    ]
    return textplot.chart(
        lines,
        width=width,
        height=rows,
        y_label=f"{board.quantity} (%), mean over seeds",
        x_label="epochs",
        unicode=unicode,
    )


SPARK = 16
NUMBERS = 8


def _group_heading(board: Board, width: int, unicode: bool) -> Text:
    from rich.text import Text

    label = _label_width(board, width)
    versus = "vs digital" if board.baseline and len(board.groups) > 1 else ""
    what = _cut(f"{board.quantity}, %", label, unicode)
    text = f"{what:<{label}} {'done':>7}  {'by epoch':<{SPARK}}"
    text += f" {'now':>{NUMBERS}} {'best':>{NUMBERS}}  {versus}"
    return Text(text, style="dim")


def _label_width(board: Board, width: int) -> int:
    numbers = 8 + 2 + SPARK + 2 * (NUMBERS + 1) + 12
    return max(10, min(max(map(len, board.groups), default=10), width - numbers))


def _group_line(board: Board, group: str, width: int, unicode: bool) -> Text:
    from rich.text import Text

    label = _label_width(board, width)
    states = board.groups[group]
    done = sum(state.status in ("done", "skipped") for state in states)
    curve = board.curve(group)
    text = Text(f"{_cut(group, label, unicode):<{label}}", style="none")
    text.append(f" {f'{done}/{len(states)}':>7}  ", style="dim")
    if not curve:
        return text
    errors = list(curve.values())
    highest = max(max(board.curve(g).values(), default=0.0) for g in board.groups)
    spark = textplot.sparkline(errors, 0.0, highest, SPARK, unicode=unicode)
    text.append(f"{spark:<{SPARK}}", style="cyan")
    best = min(errors[1:] or errors)
    text.append(f" {errors[-1]:>{NUMBERS}.1f} {best:>{NUMBERS}.1f}", style="none")
    reference = board.curve(board.baseline) if board.baseline else {}
    epoch = max(curve)
    if group != board.baseline and epoch in reference:
        text.append(f"  {curve[epoch] - reference[epoch]:>+10.1f}", style="none")
    return text


def _cut(text: str, width: int, unicode: bool) -> str:
    if len(text) <= width:
        return text
    return text[: width - 1] + ("…" if unicode else "~")


def _running_line(state: TrialState, width: int, unicode: bool) -> Text:
    from rich.text import Text

    detail = (
        _epoch(state, "error").replace(" epoch ", " ") if state.epoch is not None else "starting"
    )
    room = max(12, width - len(detail) - 2)
    return Text(f"{_cut(state.label, room, unicode):<{room}}  {detail}")


# -- pretraining alone -----------------------------------------------------------------------------


def watch_pretraining(
    steps: Generator[list[dict[str, Any]], None, Any],
    study: Study,
    asked: Callable[[], bool],
    *,
    quiet: bool,
    as_json: bool,
) -> Any:
    """Show the epochs of a pretraining (or of what begins with one); return its result.

    Raises:
        Interrupted: When `asked` says that the user wants it, after the state is saved.
    """
    epochs = study.experiment.pretrain.epochs
    errors: list[float] = []
    console = output.console()
    live = console.is_terminal and not console.is_dumb_terminal and not (quiet or as_json)
    unicode = textplot.has_unicode(console.encoding)
    began = said = time.monotonic()
    try:
        with _pretraining_line(console) if live else contextlib.nullcontext() as line:
            while True:
                try:
                    rows = next(steps)
                except StopIteration as end:
                    return end.value
                for row in rows if as_json else ():
                    output.emit({"event": "pretrain", **row})
                row = rows[-1]  # of the test images
                errors.append(float(row["error"]))
                epoch = int(row["epoch"])
                spent = time.monotonic() - began
                left = spent / epoch * (epochs - epoch) if epoch else None
                text = f"pretraining epoch {epoch}/{epochs}, loss {row['loss']:.3g}, "
                text += f"test error {row['error']:.1f} %"
                text += f", {output.duration(left)} left" if left else ""
                if line is not None:
                    spark = textplot.sparkline(errors, 0, max(errors), 16, unicode=unicode)
                    line.update(f"{spark}  {text}")
                elif not (quiet or as_json) and (
                    time.monotonic() - said > LINE_EVERY or epoch in (0, epochs)
                ):
                    said = time.monotonic()
                    output.say(text)
    except RunError:
        if asked():
            raise Interrupted("interrupted: saved; the same command goes on") from None
        raise


@contextlib.contextmanager
def _pretraining_line(console: Console) -> Iterator[Any]:
    status = console.status("pretraining", refresh_per_second=2)
    with status:
        yield status
