"""``analogtl init``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from analogtl.cli import complete, output
from analogtl.cli.common import DEFAULT_FILE
from analogtl.errors import ExperimentError
from analogtl.files import write_atomically
from analogtl.vocabulary import Algorithm, Network

EXAMPLES = (
    ("analogtl init", "asks for task, network, device and algorithm"),
    ("analogtl init --yes", "digits, the paper's device and algorithm"),
    ("analogtl init --task cifar-2 --device EcRamPresetDevice --algorithm agad", "no questions"),
)


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=True)
    ] = Path(DEFAULT_FILE),
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="digits, cifar-2, cifar-5 or images (your own).",
            autocompletion=complete.tasks,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Network: one of `analogtl list models`, or any timm name. Default: the task's.",
            autocompletion=complete.models,
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="PRESET",
            help="Device preset (`analogtl list presets`).",
            autocompletion=complete.presets,
            show_default=False,
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="Training algorithm (`analogtl list algorithms`).",
            autocompletion=complete.algorithms,
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; take the defaults.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file if it exists.")
    ] = False,
) -> None:
    """Write an experiment file with comments, ready to run and to edit.

    What no option says is asked for, unless --yes is given or there is nobody to ask.
    """
    if file.exists() and not force:
        raise ExperimentError(
            f"{file}: exists already; --force overwrites it, or name another file"
        )
    from analogtl.config import catalog, starter

    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    if asks:
        tasks = {name: one.title for name, one in starter.TASKS.items()}
        algorithms = {each.value: each.meaning for each in Algorithm}
        presets = {name: catalog.device_class(name) for name in catalog.presets()}
        task = task or _ask("Task", tasks, starter.DEFAULT_TASK)
        if model is None and task in starter.TASKS:
            own = starter.TASKS[task].model
            model = _ask(
                "Network (or any timm name)",
                {each.value: each.meaning for each in Network},
                own,
                others=True,
            )
        device = device or _ask("Device", presets, starter.DEFAULT_DEVICE)
        algorithm = algorithm or _ask("Algorithm", algorithms, starter.DEFAULT_ALGORITHM)
    text = starter.starter(
        task or starter.DEFAULT_TASK,
        model=model,
        device=device or starter.DEFAULT_DEVICE,
        algorithm=algorithm or starter.DEFAULT_ALGORITHM,
        name=_name(file),
        file=str(file),
    )
    write_atomically(file, text)
    output.say(f"{file} written")
    run = "analogtl finetune" + ("" if str(file) == DEFAULT_FILE else f" {file}")
    output.note(f"next: {run}")


def _name(file: Path) -> str:
    """A name for the experiment, from that of its file."""
    import re

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")
    return name[:100] or "exp"


def _ask(what: str, choices: Mapping[str, str], default: str, *, others: bool = False) -> str:
    """A choice by its number or its name; by any other word too where `others` are welcome."""
    names = list(choices)
    rows = [(str(number), name, choices[name]) for number, name in enumerate(names, 1)]
    output.rows_table((), rows, title=what, right=(0,), styles={2: "dim"})
    while True:
        answer = str(typer.prompt("number or name", default=default)).strip()
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        if answer in choices or (others and answer and not answer.isdigit()):
            return answer
        near = get_close_matches(answer, names, n=1)
        output.warn(f"{answer}: none of these" + (f"; did you mean {near[0]}?" if near else ""))
