"""The process of a command: its streams, Ctrl-C and SIGTERM, which lose nothing, and threads."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from analogtl.cli import output

MIN_WIDTH = 10  # columns of a terminal

F = TypeVar("F", bound=Callable[..., Any])


class Interrupted(Exception):
    """The user stopped the command; the text says what is kept.

    Not a `KeyboardInterrupt`, which the command line parser would turn into a bare exit code.
    """


def interruptible(command: F) -> F:
    """Let Ctrl-C end a command with a line and exit code 130; SIGTERM means the same."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _handling(signal.default_int_handler):
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; nothing that was finished is lost") from None

    return wrapped  # type: ignore[return-value]


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C ask for a stop, which saves first; the second one stops at once.

    Yields:
        Whether a stop was asked for.
    """
    asked = False

    def ask(_number: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        output.note("stopping after this step (Ctrl-C again: at once)")

    with _handling(ask):
        yield lambda: asked


@contextlib.contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C say at once that it was heard: saving may take a while."""

    def stop(number: int, _frame: Any) -> None:
        say("stopping: what runs is being saved")
        raise KeyboardInterrupt

    with _handling(stop):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM while the block runs; in other threads nothing changes."""
    try:
        before = {one: signal.signal(one, handler) for one in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class _Output(io.FileIO):
    """A standard stream that is written.

    That standard output cannot be written is an error that names it, once. Of standard error
    nobody could be told: the command goes on, and its exit code says the rest.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._failed = False

    def write(self, data: Any) -> int:
        try:
            return memoryview(data).nbytes if self._failed else super().write(data)
        except OSError as error:
            self._failed = True
            if self.fileno() == 1:
                error.filename = "standard output"
                raise
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make sure that there are three standard streams, which can write whatever there is.

    A stream that is closed would give its number to the next file that is opened, and whatever a
    library prints would go there. An encoding that lacks a character is no error, and what cannot
    be the width of a terminal is none.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            raw = _Output(number)
            encoding = stream.encoding if stream else "utf-8"
            buffer = io.BufferedWriter(raw)
            stream = io.TextIOWrapper(buffer, encoding, line_buffering=number == 2 or raw.isatty())
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    width = os.environ.get("COLUMNS", "")
    if not (width.isdecimal() and len(width) < 5 and int(width) >= MIN_WIDTH):
        os.environ.pop("COLUMNS", None)  # rich, and so the help, would print nothing
