"""What ``finetune`` and ``sweep`` share: run trials, show them, sum up."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import typer

from analogtl.cli import output
from analogtl.cli.board import Board
from analogtl.errors import counted

if TYPE_CHECKING:
    from analogtl.scheduling.plan import Plan
    from analogtl.study.limits import RunLimits
    from analogtl.study.study import Study

Failed = Literal["again", "skip", "only"]
# Left out, in this order, until the table fits the terminal.
LEAST_NEEDED = ("wall_s_mean", "weights_changed", "error_transfer", "lr", "error_best", "n")
MOST_FAILURES = 5


def run_and_show(
    study: Study,
    *,
    jobs: int | None,
    limits: RunLimits,
    command: str,
    backend: str = "local",
    backend_options: Mapping[str, Any] | None = None,
    failed: Failed = "again",
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Run the trials of a study, show them meanwhile, and print the results.

    Raises:
        typer.Exit: With code 1 if a trial failed.
    """
    from analogtl.cli.live import watch
    from analogtl.scheduling.plan import plan
    from analogtl.scheduling.sweep import run_trials

    planned = plan(study)
    with study.nothing_left_if_wrong():
        study.prepare(argv=sys.argv)
        if not (quiet or as_json):
            _announce(study, planned, jobs=jobs or 1)
        board = Board(study.experiment.name, study.trials, study.run, jobs=jobs or 1)
        updates = run_trials(
            study,
            jobs=jobs,
            backend=backend,
            limits=limits,
            failed=failed,
            **(backend_options or {}),
        )
        watch(updates, board, command, quiet=quiet, as_json=as_json)
    _sum_up(study, board, command, quiet=quiet, as_json=as_json)
    if board.count("failed"):
        raise typer.Exit(1)


def _announce(study: Study, planned: Plan, *, jobs: int) -> None:
    """The early word: what will run, and what will not fit."""
    from analogtl.scheduling.plan import shortages

    if planned.left and (study.sweep or planned.finished):
        output.note(f"{len(planned.left)} of {len(planned.trials)} trials to run")
    for line in (*planned.notes, *shortages(planned.left, study.run, jobs=jobs)):
        output.warn(line)
    if planned.changed:
        output.warn(
            f"{counted(len(planned.changed), 'trial')} finished with other settings, to be run "
            f"anew; the earlier results go to {study.run.path / 'replaced'}/; to keep both, "
            "Ctrl-C and add --set name=ANOTHER"
        )


def _sum_up(study: Study, board: Board, command: str, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        output.emit(
            {
                "event": "summary",
                "run": str(study.run.path),
                "trials": len(board.trials),
                **{kind: board.count(kind) for kind in ("done", "skipped", "failed", "stopped")},
                "results": [dict(s.row) for s in board.trials.values() if s.row],
            }
        )
        return
    if board.done:
        if sys.stdout.isatty():
            output.say("")
        _results(study, board)
    failures = board.failures()
    for state in failures[:MOST_FAILURES]:
        output.problem(f"{state.id}: failed: {state.message}")
    if len(failures) > MOST_FAILURES:
        more = len(failures) - MOST_FAILURES
        output.problem(f"and {more} more failed; `analogtl runs show {study.run.name}` lists them")
    if any(_mismatch(state.message) for state in failures):
        output.problem("torch and aihwkit do not fit together: `analogtl doctor` says what to do")
    if quiet:
        return
    (where,) = output.paths([study.run.path])
    waiting = board.count("waiting", "stopped")
    if waiting:
        output.note(f"{counted(waiting, 'trial')} left; go on with: {command}")
    if failures:
        output.note(f"retry what failed with: {command} --failed only")
    if board.done:
        output.note(f"next: analogtl report {shlex.quote(where)}")


def _mismatch(message: str) -> bool:
    from analogtl.doctor import looks_like_mismatch

    return looks_like_mismatch(message)


def _results(study: Study, board: Board) -> None:
    """Mean and spread of the test error per arm and level, at the learning rate kept."""
    from analogtl.analysis import summaries
    from analogtl.analysis.select_lr import select_learning_rate
    from analogtl.report import run_tables
    from analogtl.study import columns as records

    frame = records.read_trials(study.run.path)
    frame = frame[frame["trial"].isin(list(board.trials))]
    # Axes of other sweeps in this directory have no level here.
    fixed = set(records.TRIAL_COLUMNS)
    frame = frame[[c for c in frame.columns if c in fixed or frame[c].notna().any()]]
    chosen = select_learning_rate(frame)
    several = bool((chosen.choices["n_lrs"] > 1).any())
    levels = summaries.levels(chosen.rows)
    table = run_tables.outcomes_table(
        levels, experiment=study.experiment.name, several_rates=several
    )
    output.show_table(table, drop=LEAST_NEEDED)
