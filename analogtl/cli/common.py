"""What the commands that run something share: the experiment, the run directory, interruptions."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from analogtl.cli import output
from analogtl.errors import ExperimentError

if TYPE_CHECKING:
    from analogtl.study.limits import RunLimits
    from analogtl.study.study import Study

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_FILE = "exp.toml"
DEFAULT_EXPERIMENT = "quickstart"


class Interrupted(Exception):
    """The user stopped the command; the text says what is kept.

    Not a `KeyboardInterrupt`, which the command line parser would turn into a bare exit code.
    """


def one_of(option: str, word: str, known: Iterable[str]) -> Any:
    """A word of a command line that has to be one of a few.

    Raises:
        ExperimentError: If it is none of them.
    """
    from difflib import get_close_matches

    known = [*known]
    if word in known:
        return word
    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known)}"
    raise ExperimentError(f"{option} {word}: not known; {hint}")


def again(
    command: str, exp: str, settings: Sequence[str] | None, runs: Path, jobs: int | None, *more: str
) -> str:
    """The command line that does the same once more."""
    words = ["analogtl", command, *([exp] if exp else []), *more]
    words += [word for one in settings or () for word in ("--set", one)]
    words += [] if runs == Path("runs") else ["--runs", str(runs)]
    return shlex.join(words + ([] if jobs is None else ["--jobs", str(jobs)]))


def open_study(
    exp: str | None,
    settings: Sequence[str] | None,
    runs: Path,
    *,
    task: str | None = None,
    sweep: bool = False,
    axes: dict[str, list[Any]] | None = None,
    tell: bool = True,
) -> Study:
    """Read the experiment that a command is about.

    Args:
        exp: File or name of a shipped experiment; None for exp.toml here, else the quickstart.
        settings: Overrides, ``a.b=c``.
        runs: Folder of the run directories.
        task: One of the experiment's tasks; None for its own choice.
        sweep: Whether the axes and learning rates of [sweep] are run.
        axes: Axes that take the place of the file's: name -> levels.
        tell: Say which experiment was taken where none was given.

    Raises:
        ExperimentError: With one line per problem.
    """
    from analogtl.study.study import Study

    if exp is None:
        exp = DEFAULT_FILE if Path(DEFAULT_FILE).exists() else DEFAULT_EXPERIMENT
        if tell and exp == DEFAULT_FILE:
            output.note(f"using {DEFAULT_FILE} of this folder")
        elif tell:
            output.note(
                "using the bundled quickstart; `analogtl init` writes an experiment of your own"
            )
    study = Study.open(exp, settings or (), runs, sweep=sweep, axes=axes, task=task)
    for note in study.notes if tell else ():
        output.note(note)
    return study


def run_limits(
    checkpoint_minutes: float,
    max_hours: float | None,
    trial_timeout: float | None,
    stop_on_divergence: bool,
    stop: Callable[[], bool] | None = None,
) -> RunLimits:
    """The limits of a command line as the stages take them.

    Args:
        checkpoint_minutes: In the middle of an epoch, save at least this often.
        max_hours: Hours from now after which everything is saved and stops.
        trial_timeout: Hours after which one trial fails.
        stop_on_divergence: Whether a diverging trial is ended.
        stop: Asked after every step; see `stoppable`.
    """
    import time

    from analogtl.study.limits import RunLimits

    return RunLimits(
        checkpoint_minutes=checkpoint_minutes,
        deadline=None if max_hours is None else time.time() + 3600 * max_hours,
        max_trial_hours=trial_timeout,
        stop_on_divergence=stop_on_divergence,
        **({} if stop is None else {"stop": stop}),
    )


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def use_threads(number: int | None) -> None:
    """Set the threads of this process; it counts if torch is not imported yet.

    Left alone, torch takes one per core: on small networks, or beside other work, they wait for one
    another most of the time.
    """
    for name in THREAD_VARIABLES:
        if number is not None:
            os.environ[name] = str(number)
        else:
            os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))


def interruptible(command: F) -> F:
    """Let Ctrl-C end a command with a line and exit code 130; SIGTERM means the same."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _handling(_interrupt):
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


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt
