"""``analogtl sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from analogtl.cli import common, complete, output
from analogtl.cli.options import (
    CheckpointMinutes,
    DryRun,
    Exp,
    Failed,
    Jobs,
    Json,
    MaxHours,
    Quiet,
    Runs,
    Settings,
    StopOnDivergence,
    Task,
    TrialTimeout,
)
from analogtl.errors import ExperimentError
from analogtl.vocabulary import AXES

EXAMPLES = (
    ("analogtl sweep --param spv", "exp.toml or the quickstart, at the axis's default levels"),
    ("analogtl sweep exp.toml --param wtn --values 0,5,10,20 --jobs 4", "levels of your own"),
    ("analogtl sweep exp.toml", "the axes and learning rates of [sweep] in the file"),
    (
        "analogtl sweep exp.toml --param analog.algorithm --values c-ttv2,agad,ttv2",
        "any key can be an axis",
    ),
    ("analogtl sweep exp.toml --failed only", "only what failed before"),
    ("analogtl list axes", "the axes as a table"),
)
SECTIONS = {
    "Axes, what a level sets in aihwkit, and default levels (* named in the source's text)": [
        (
            f"{axis.name:<16} {axis.label}",
            f"{axis.sets}\n       {axis.levels_text}; {axis.source}",
        )
        for axis in AXES.values()
    ]
}


def command(
    exp: Exp = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="AXIS",
            help="Axis to sweep in place of the file's: wtn, sps, spv, n_states, ... (`analogtl "
            "list axes`) or any dotted key; repeat it for a grid.",
            autocompletion=complete.axes,
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--values",
            metavar="A,B,C",
            help="Levels of the axis; give it once per --param, in the same order. Default: the "
            "axis's own levels.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    task: Task = None,
    runs: Runs = Path("runs"),
    jobs: Jobs = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="BACKEND",
            help="Where trials run: local (processes on this machine), ray (a Ray cluster) or "
            "slurm (an array job). The key analog.engine is something else.",
            autocompletion=complete.backends,
            rich_help_panel="Where",
        ),
    ] = "local",
    backend_options: Annotated[
        list[str] | None,
        typer.Option(
            "--backend-option",
            metavar="NAME=VALUE",
            help="An option of ray or slurm, e.g. address=auto, partition=gpu; repeatable.",
            show_default=False,
            rich_help_panel="Where",
        ),
    ] = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    max_hours: MaxHours = None,
    trial_timeout: TrialTimeout = None,
    stop_on_divergence: StopOnDivergence = False,
    failed: Failed = "again",
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every arm at every level of one or more axes, for every learning rate and seed.

    All levels run at the first seed before any at the second, so a part of a sweep can already be
    reported. A digital arm, which no device axis touches, runs once per seed. What is finished is
    never run again. With several learning rates the best one at each level is kept, chosen on
    validation data.
    """
    one = common.one_of("--failed", failed, complete.FAILED)
    common.one_of("--backend", backend, complete.BACKENDS)
    more = _backend_options(backend_options or [])
    if more and backend == "local":
        name = next(iter(more))
        raise ExperimentError(
            f"--backend-option {name}: the backend local has none; give --backend"
        )
    axes = _axes(param or [], values or [])
    study = common.open_study(
        exp,
        settings,
        runs,
        task=task,
        sweep=True,
        axes=axes or None,
        tell=not (quiet or as_json),
    )
    if dry_run:
        from analogtl.cli.dryrun import show_trials

        show_trials(study, jobs=jobs, as_json=as_json)
        return
    if not study.experiment.sweep.axes and not study.experiment.sweep.lr and not quiet:
        output.note("no axis to sweep: give --param, or [sweep.axes] in the file")
    from analogtl.cli.trials import run_and_show

    run_and_show(
        study,
        jobs=jobs,
        backend=backend,
        backend_options=more,
        limits=common.run_limits(checkpoint_minutes, max_hours, trial_timeout, stop_on_divergence),
        command=common.again(
            "sweep",
            exp or "",
            settings,
            runs,
            jobs,
            *_words(param or [], values or []),
            *([] if backend == "local" else ["--backend", backend]),
            *(word for one in backend_options or () for word in ("--backend-option", one)),
        ),
        failed=one,
        quiet=quiet,
        as_json=as_json,
    )


def _axes(params: Sequence[str], values: Sequence[str]) -> dict[str, list[Any]]:
    """Axis -> levels, of the command line.

    Raises:
        ExperimentError: If levels are missing, or there are more of them than axes.
    """
    from analogtl.config.load import parse_value
    from analogtl.vocabulary import key_of

    problems = []
    if len(values) > len(params):
        example = f"--param wtn --values {values[0]}"
        problems.append(f"--values {values[0]}: levels of what? Give an axis too: {example}")
    if 0 < len(values) < len(params):
        problems.append(
            f"--values: expected one for each of the {len(params)} --param, or none at all"
        )
    for name in params:
        if params.count(name) > 1 or sum(key_of(p) == key_of(name) for p in params) > 1:
            problems.append(f"--param {name}: given more than once")
            break
    axes: dict[str, list[Any]] = {}
    for place, name in enumerate(params):
        if place < len(values):
            if not all(map(str.strip, values[place].split(","))):
                problems.append(f"--values {values[place]}: a level is missing between commas")
                continue
            levels = parse_value(values[place], tuple[Any, ...])
            axes[name] = levels if isinstance(levels, list) else [levels]
        elif name in AXES:
            axes[name] = list(AXES[name].levels)
        elif "." in name and not values:
            problems.append(f"--param {name}: no default levels; give some, e.g. --values 1,2,5")
        else:
            axes[name] = [0]  # the schema says what is wrong with the name
    if problems:
        raise ExperimentError(problems)
    return axes


def _backend_options(options: Sequence[str]) -> dict[str, Any]:
    from analogtl.config.load import parse_value

    parsed = {}
    for option in options:
        name, equals, raw = option.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ExperimentError(
                f"--backend-option {option}: expected NAME=VALUE, e.g. address=auto"
            )
        parsed[name.strip()] = parse_value(raw.strip())
    return parsed


def _words(params: Sequence[str], values: Sequence[str]) -> list[str]:
    """The axes and levels as they were typed."""
    words = []
    for place, name in enumerate(params):
        words += ["--param", name]
        if place < len(values):
            words += ["--values", values[place]]
    return words
