"""What runs, while it runs: bars on a terminal, lines in a file or pipe, JSON for machines."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Self

from rich.text import Text

from analogtl.cli import output
from analogtl.cli.process import Interrupted, announced
from analogtl.errors import RunError
from analogtl.scheduling.progress import Watcher
from analogtl.scheduling.sweep import Update
from analogtl.vocabulary import TrialStatus

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0  # seconds between plain lines about the same trial


class TerminalWatcher(Watcher):
    """Shows bars on a terminal, and lines of plain text or JSON elsewhere.

    Args:
        args, options: As of a `Watcher`.
        quiet: Show failures only.
        as_json: Write one object per update.
        console: Where the bars are drawn.
    """

    def __init__(
        self,
        *args: Any,
        quiet: bool = False,
        as_json: bool = False,
        console: Console | None = None,
        **options: Any,
    ) -> None:
        console = console or output.console()
        live = console.is_terminal and not (console.is_dumb_terminal or quiet or as_json)
        super().__init__(
            *args,
            console=console,
            transient=True,
            refresh_per_second=2,
            disable=not live,
            **options,
        )
        self._quiet, self._as_json, self.bars_are_seen = quiet, as_json, live
        self._said: dict[str, float] = {}  # when a plain line told of a trial

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()
        super().__exit__(*error)

    def interrupted(self, text: str) -> None:
        """Say so, without the bars: what runs is saved now, and then the command ends."""
        self.bars.stop()
        self.bars_are_seen = False
        output.note(text)

    def apply(self, update: Update) -> None:
        super().apply(update)
        if self._as_json:
            filled = {key: value for key, value in update.row.items() if value not in (None, "")}
            text = {"text": update.text} if update.text else {}
            output.emit({"event": update.kind, **filled, **text, "trial": update.trial})

    def progressed(self, trial: str, text: str, *, last: bool) -> None:
        recent = self.clock() - self._said.get(trial, -LINE_EVERY) < LINE_EVERY
        if self.bars_are_seen or (recent and not last):
            return
        self._said[trial] = self.clock()
        self.line(text)

    def line(self, text: str, style: str = "") -> None:
        if self.bars_are_seen:
            self.bars.console.print(Text(text, style), soft_wrap=True)
        elif style == "red" and self._quiet and not self._as_json:
            output.problem(text)
        elif not (self._quiet or self._as_json):
            output.say(text)


def watch(updates: Generator[Update], watcher: TerminalWatcher, command: str) -> None:
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
    name = "pretraining"
    with TerminalWatcher(name, {name: name}, **options) as watcher:
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
