"""The arguments and options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analogtl.cli import complete

EVERYWHERE = "Everywhere"

Exp = Annotated[
    str | None,
    typer.Argument(
        metavar="EXP",
        help="Experiment file, or the name of a shipped one (`analogtl list experiments`). Without "
        "it: exp.toml in this folder, else the bundled quickstart.",
        autocompletion=complete.experiments,
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the experiment, e.g. finetune.epochs=5; repeatable. `analogtl explain "
        "keys` lists the keys.",
        autocompletion=complete.settings,
        show_default=False,
        rich_help_panel=EVERYWHERE,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="One of the experiment's tasks, e.g. 5class (`analogtl list experiments` shows them).",
        show_default=False,
        rich_help_panel=EVERYWHERE,
    ),
]
Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        metavar="DIR",
        help="Folder of the run directories.",
        rich_help_panel=EVERYWHERE,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show the resolved experiment, what would run or be reused, and the number of trials; "
        "run nothing.",
        rich_help_panel=EVERYWHERE,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress and no hints: results and errors only.",
        rich_help_panel=EVERYWHERE,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write JSON, one object per line, for machines.",
        rich_help_panel=EVERYWHERE,
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        metavar="MIN",
        min=0,
        help="In the middle of an epoch, save at least this often.",
        rich_help_panel="Limits",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of the digital training; more than one pays for large networks only. "
        "Default: OMP_NUM_THREADS, else 1.",
        show_default=False,
        rich_help_panel="Limits",
    ),
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        "--max-hours",
        metavar="H",
        min=0,
        help="Save and stop after this many hours; the same command goes on later.",
        show_default=False,
        rich_help_panel="Limits",
    ),
]
TrialTimeout = Annotated[
    float | None,
    typer.Option(
        "--trial-timeout",
        metavar="H",
        min=0,
        help="A trial that takes longer than this many hours fails; the pretraining, which trials "
        "share, does not count.",
        show_default=False,
        rich_help_panel="Limits",
    ),
]
StopOnDivergence = Annotated[
    bool,
    typer.Option(
        "--stop-on-divergence",
        help="End a trial as failed once its training loss is twice that of guessing.",
        rich_help_panel="Limits",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Trials at the same time, one core each. Default: 1 on this machine; all that fit on "
        "a cluster.",
        show_default=False,
        rich_help_panel="Where",
    ),
]
Failed = Annotated[
    str,
    typer.Option(
        "--failed",
        metavar="WHAT",
        help="What to do with trials that failed before: run them again, skip them, or run only "
        "them.",
        autocompletion=complete.failed,
        rich_help_panel="Limits",
    ),
]
