"""``analogtl pretrain``."""

from __future__ import annotations

import sys
from pathlib import Path

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

EXAMPLES = (
    ("analogtl pretrain quickstart", "train the small digits network"),
    ("analogtl pretrain exp.toml --set pretrain.epochs=50", "the same with more epochs"),
)


def command(
    exp: Exp = None,
    settings: Settings = None,
    task: Task = None,
    runs: Runs = Path("runs"),
    threads: Threads = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the network digitally on the source task.

    The checkpoint goes to runs/pretrained and is reused by every experiment with the same model,
    data and [pretrain] section: the same network never trains twice. finetune and sweep pretrain by
    themselves where they need to.
    """
    study = common.open_study(exp, settings, runs, task=task, tell=not (quiet or as_json))
    if dry_run:
        from analogtl.cli.dryrun import show_stage

        show_stage(study, as_json=as_json)
        return
    from analogtl.cli.live import watch_pretraining

    common.use_threads(threads)
    from analogtl.training.stages import pretrain

    with study.nothing_left_if_wrong(), common.stoppable() as stop:
        study.prepare(argv=sys.argv, with_trials=False)
        limits = common.run_limits(checkpoint_minutes, None, None, False, stop)
        steps = pretrain(study.experiment, study.run, limits)
        checkpoint = watch_pretraining(steps, study, stop, quiet=quiet, as_json=as_json)
    if as_json:
        output.emit(
            {
                "event": "pretrained",
                "key": checkpoint.key,
                "path": str(checkpoint.path.parent),
                "reused": checkpoint.reused,
                "error": checkpoint.error,
            }
        )
        return
    how = "found trained" if checkpoint.reused else "trained"
    (where,) = output.paths([checkpoint.path.parent])
    output.say(f"{how}: test error {checkpoint.error:.1f} %, in {where}")
    if not quiet:
        output.note(f"next: {common.again('finetune', exp or '', settings, runs, None)}")
