"""``analogtl validate``."""

from __future__ import annotations

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

    Every problem is a line: file, line number, key, what is wrong, what was expected. Exit code 2
    if there is any.
    """
    from analogtl.config.load import load_experiment
    from analogtl.study.trial import trials_of

    wrong = False
    for file in files or ["exp.toml"]:
        try:
            experiment = load_experiment(file, settings or ())
            swept = bool(experiment.sweep.axes or experiment.sweep.lr)
            trials = len(trials_of(experiment, sweep=swept))
        except ExperimentError as error:
            wrong = True
            if as_json:
                output.emit({"file": file, "ok": False, "problems": error.problems})
            else:
                for line in error.problems:
                    output.problem(line)
            continue
        if as_json:
            output.emit({"file": file, "ok": True, "name": experiment.name, "trials": trials})
        elif not quiet:
            output.say(f"{file}: ok: {experiment.name}, {counted(trials, 'trial')}"
                       + (" in its sweep" if swept else ""))  # fmt: skip
    if wrong:
        raise typer.Exit(2)
