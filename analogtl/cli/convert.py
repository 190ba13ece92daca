"""``analogtl convert``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import common, output
from analogtl.cli.options import (
    CheckpointMinutes,
    DryRun,
    Exp,
    Json,
    Quiet,
    Runs,
    Settings,
    Task,
    Threads,
)

if TYPE_CHECKING:
    from analogtl.training.stages import ConversionResult

EXAMPLES = (
    ("analogtl convert quickstart", "what programming costs the small digits network"),
    (
        "analogtl convert quickstart --set convert.weight_transfer_noise=10",
        "the same with 10 % weight transfer noise",
    ),
)


def command(
    exp: Exp = None,
    settings: Settings = None,
    task: Task = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            help="Seed of the device draw. Default: the first of sweep.seeds.",
            show_default=False,
        ),
    ] = None,
    runs: Runs = Path("runs"),
    threads: Threads = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Program the pretrained network onto arrays, and show what was achieved.

    Per layer: the relative error of the programmed weights, the share that the devices' bounds
    clipped, the tiles, and the learning rates and granularity that fine-tuning would use. In all:
    the test error before and after, on the pretraining task.
    """
    study = common.open_study(exp, settings, runs, task=task, tell=not (quiet or as_json))
    if dry_run:
        from analogtl.cli.dryrun import show_stage

        show_stage(study, convert=True, as_json=as_json)
        return
    from analogtl.cli.live import watch_pretraining

    common.use_threads(threads)
    from analogtl.training.stages import convert

    # Only a pretraining has something to save when Ctrl-C comes.
    trained = study.run.find_pretrained(study.experiment) is not None
    stopping = contextlib.nullcontext(bool) if trained else common.stoppable()
    with study.nothing_left_if_wrong(), stopping as stop:
        study.prepare(argv=sys.argv, with_trials=False)
        limits = common.run_limits(checkpoint_minutes, None, None, False, stop)
        chosen = study.experiment.sweep.seeds[0] if seed is None else seed
        steps = convert(study.experiment, study.run, seed=chosen, limits=limits)
        result: ConversionResult = watch_pretraining(
            steps, study, stop, quiet=quiet, as_json=as_json
        )
    if as_json:
        for layer in result.layers:
            output.emit({"event": "layer", **layer})
        output.emit(
            {
                "event": "converted",
                "error_digital": result.error_digital,
                "error_analog": result.error_analog,
                "engine": result.engine,
                "notes": result.notes,
            }
        )
        return
    _show(result)
    if not quiet:
        (where,) = output.paths([study.run.path / "convert" / "layers.csv"])
        output.note(f"every number: {where}")
        output.note(f"next: {common.again('finetune', exp or '', settings, runs, None)}")


def _show(result: ConversionResult) -> None:
    headings = ["layer", "shape", "tiles", "error %", "clipped %", "granularity", "fast lr"]
    headings.append("transfer lr")
    keys = ("granularity", "fast_lr", "transfer_lr")
    rows = [
        [
            str(layer["layer"]),
            str(layer["shape"]),
            str(layer["tiles"]),
            _percent(layer["relative_error"]),
            _percent(layer["share_clipped"]),
            *(_number(layer[key]) for key in keys),
        ]
        for layer in result.layers
    ]
    output.rows_table(headings, rows, title="What was programmed", right=range(2, 8))
    for note in result.notes:
        output.say(note)
    output.say(
        f"test error on the pretraining task: {result.error_digital:.1f} % digital, "
        f"{result.error_analog:.1f} % on the arrays ({result.engine} engine)"
    )


def _percent(share: Any) -> str:
    return "" if share in (None, "") else f"{100 * float(share):.2f}"


def _number(value: Any) -> str:
    return "" if value in (None, "") else f"{float(value):.4g}"
