"""``analogtl finetune``."""

from __future__ import annotations

from pathlib import Path

from analogtl.cli import common, complete
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

EXAMPLES = (
    ("analogtl finetune quickstart", "all five arms on the digits, about a minute"),
    ("analogtl finetune exp.toml --jobs 2", "two trials at a time"),
    (
        "analogtl finetune quickstart --set finetune.epochs=2 --set sweep.seeds=0",
        "a first look: two epochs, one seed",
    ),
    ("analogtl finetune exp.toml --dry-run", "what it would do"),
)


def command(
    exp: Exp = None,
    settings: Settings = None,
    task: Task = None,
    runs: Runs = Path("runs"),
    jobs: Jobs = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    max_hours: MaxHours = None,
    trial_timeout: TrialTimeout = None,
    stop_on_divergence: StopOnDivergence = False,
    failed: Failed = "again",
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every arm of an experiment on the target task, for every seed.

    Arms: digital-tl, analog-tl, digital-scratch, analog-scratch, and frozen-array, the control that
    tells whether the arrays learn at all. Pretraining and conversion run where they are needed.
    What is finished is never run again; what was interrupted goes on.
    """
    one = common.one_of("--failed", failed, complete.FAILED)
    study = common.open_study(exp, settings, runs, task=task, tell=not (quiet or as_json))
    if dry_run:
        from analogtl.cli.dryrun import show_trials

        show_trials(study, jobs=jobs, as_json=as_json)
        return
    from analogtl.cli.trials import run_and_show

    run_and_show(
        study,
        jobs=jobs,
        limits=common.run_limits(checkpoint_minutes, max_hours, trial_timeout, stop_on_divergence),
        command=common.again("finetune", exp or "", settings, runs, jobs),
        failed=one,
        quiet=quiet,
        as_json=as_json,
    )
