"""The process of a command: Ctrl-C and SIGTERM, which lose nothing, and threads."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from analogtl.cli import output

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


def use_one_thread() -> None:
    """Let torch take one thread, or as many as OMP_NUM_THREADS says, if it is not imported yet.

    Left alone it takes one per core: on small networks, or beside other work, they wait for one
    another most of the time.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))
