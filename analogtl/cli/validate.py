"""``analogtl validate``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from analogtl.cli import complete, output
from analogtl.cli.options import Json, Quiet, Settings
from analogtl.errors import ExperimentError, counted

EXAMPLES = (
    ("analogtl validate exp.toml", "every problem of a file at once, each with its line"),
    ("analogtl validate experiments/paper/*.toml", "any number of files"),
)


def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Experiment files, or names of shipped ones. Without any: exp.toml.",
            autocompletion=complete.experiments,
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check experiment files without running anything.

    Every problem is a line: file, line number, key, what is wrong, what was expected. A file with
    tasks is checked with each of them. Exit code 2 if there is any problem.
    """
    from analogtl.config.load import load_experiment
    from analogtl.study.trial import trials_of

    told: set[str] = set()
    for file, task in _with_tasks(files or ["exp.toml"], settings or ()):
        try:
            experiment = load_experiment(file, settings or (), task)
            swept = bool(experiment.sweep.axes or experiment.sweep.lr)
            trials = len(trials_of(experiment, sweep=swept))
        except ExperimentError as error:
            new = [line for line in error.problems if line not in told]  # tasks share most of them
            told.update(new)
            if as_json:
                output.emit({"file": file, "ok": False, "problems": error.problems})
            else:
                for line in new:
                    output.problem(line)
            continue
        if as_json:
            output.emit({"file": file, "ok": True, "name": experiment.name, "trials": trials})
        elif not quiet:
            output.say(f"{file}: ok: {experiment.name}, {counted(trials, 'trial')}"
                       + (" in its sweep" if swept else ""))  # fmt: skip
    if told:
        raise typer.Exit(2)


def _with_tasks(files: Sequence[str], settings: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each file with the task that it chooses (None), and then with each of its other tasks."""
    from analogtl.config.source import tasks_of

    for file in files:
        yield file, None
        if not any(setting.startswith("task=") for setting in settings):
            with contextlib.suppress(ExperimentError):  # it was told for None
                own, tasks = tasks_of(file)
                yield from ((file, task) for task in tasks if task != own)
