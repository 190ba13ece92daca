"""The arguments and options that commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from analogtl.cli import completion
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import Backend, Device

Complete = Callable[..., completion.Offers] | None
EVERYWHERE, LIMITS, WHERE = "Everywhere", "Limits", "Where"  # panels of the help


def argument(metavar: str, help: str, complete: Complete = None, **more: Any) -> Any:
    """An argument, its help, and what Tab offers."""
    return typer.Argument(
        metavar=metavar, help=help, autocompletion=complete, show_default=False, **more
    )


def option(
    names: str,
    metavar: str | None,
    help: str,
    complete: Complete = None,
    *,
    panel: str | None = None,
    show_default: bool = False,
    **more: Any,
) -> Any:
    """An option, its help, and what Tab offers; without a metavar it is a flag."""
    return typer.Option(
        *names.split(),
        metavar=metavar,
        help=help,
        autocompletion=complete,
        rich_help_panel=panel,
        show_default=show_default,
        **more,
    )


def path(text: str | Path) -> Path:
    """A path of a command line; an empty one, as of a variable that is not set, is a mistake.

    Raises:
        typer.BadParameter: If it is empty.
    """
    if text == "":
        raise typer.BadParameter("expected a path; got nothing")
    return Path(text)


def checked(what: str, word: str, known: Collection[str]) -> str:
    """A word of a command line that has to be one of a few.

    Raises:
        ExperimentError: If it is none of them.
    """
    if word not in known:
        hint = did_you_mean(word, known)
        raise ExperimentError(f"{what} {word!r}: not known" + (f"; {hint}" if hint else ""))
    return word


Exp = Annotated[
    str | None,
    argument(
        "EXP",
        "Experiment file, or the name of a shipped one (`analogtl list experiments`). Without it: "
        "exp.toml in this folder, else the bundled quickstart.",
        completion.experiments,
    ),
]
Settings = Annotated[
    list[str] | None,
    option(
        "--set",
        "KEY=VALUE",
        "Set a key (`analogtl explain keys`), e.g. finetune.epochs=5; repeatable.",
        completion.settings,
        panel=EVERYWHERE,
    ),
]
Task = Annotated[
    str | None,
    option(
        "--task",
        "NAME",
        "One of the experiment's tasks, e.g. 5class (`analogtl list experiments` shows them).",
        completion.tasks,
        panel=EVERYWHERE,
    ),
]
Runs = Annotated[
    Path,
    option(
        "--runs",
        "DIR",
        "Folder of the run directories.",
        panel=EVERYWHERE,
        show_default=True,
        parser=path,
    ),
]
DryRun = Annotated[
    bool,
    option("--dry-run", None, "Show what would run, and with which settings.", panel=EVERYWHERE),
]
Quiet = Annotated[
    bool, option("--quiet -q", None, "Print results and errors only.", panel=EVERYWHERE)
]
Json = Annotated[bool, option("--json", None, "Print JSON, one object per line.", panel=EVERYWHERE)]
Jobs = Annotated[
    int | None,
    option(
        "--jobs -j",
        "N",
        "Trials at the same time, one core each (or --threads). Default: 1 on this machine, or one "
        "on each GPU; all that fit on a cluster.",
        panel=WHERE,
        min=1,
    ),
]
Threads = Annotated[
    int | None,
    option(
        "--threads",
        "N",
        "Threads of one trial with arrays on the fast engine (key: run.threads); the results are "
        "the same. Default: 1.",
        panel=WHERE,
        min=1,
    ),
]
SaveModel = Annotated[
    bool,
    option(
        "--save-model",
        None,
        "Write the weights, and the conductances of the arrays, at the end of each trial: "
        "weights.safetensors and arrays.safetensors (key: run.save_model). `analogtl runs export` "
        "collects them.",
        panel=WHERE,
    ),
]
SavePulses = Annotated[
    bool,
    option(
        "--save-pulses",
        None,
        "Write the pulses of every cell on the fast engine's arrays at the end of each trial: "
        "pulses.safetensors (key: run.save_pulses).",
        panel=WHERE,
    ),
]
WhichDevice = Annotated[
    Device | None,
    option(
        "--device",
        "DEVICE",
        "auto (CUDA where torch has it), cpu or cuda (key: run.device). The fast engine's arrays "
        "are always on the CPU.",
        completion.choices(lambda: completion.meanings(Device)),
        panel=WHERE,
    ),
]
WhichBackend = Annotated[
    Backend,
    option(
        "--backend",
        "BACKEND",
        "Where trials run: local (processes on this machine), ray (a Ray cluster) or slurm (an "
        "array job).",
        completion.choices(lambda: completion.meanings(Backend)),
        panel=WHERE,
        show_default=True,
    ),
]
BackendOptions = Annotated[
    list[str] | None,
    option(
        "--backend-option",
        "NAME=VALUE",
        "An option of ray or slurm, e.g. address=auto, partition=gpu; repeatable.",
        panel=WHERE,
    ),
]
SkipFailed = Annotated[
    bool,
    option("--skip-failed", None, "Do not run again what failed before.", panel=LIMITS),
]
MaxHours = Annotated[
    float | None,
    option(
        "--max-hours",
        "H",
        "Save and stop after this many hours; the same command goes on later.",
        panel=LIMITS,
        min=0,
    ),
]
CheckpointMinutes = Annotated[
    float,
    option(
        "--checkpoint-minutes",
        "MIN",
        "In the middle of an epoch, save at least this often.",
        panel=LIMITS,
        show_default=True,
        min=0,
    ),
]
