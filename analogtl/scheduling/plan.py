"""Before a sweep: what will run, what is reused, and what this machine has no room for.

Plain functions and data; the command line shows them. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analogtl.config.section import flatten
from analogtl.errors import RunError, counted
from analogtl.files import nearest_folder
from analogtl.study.basis import Basis, differences
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial, pretrain_settings

ROW_BYTES = 230  # of one line of epochs.csv, measured
RECORD_BYTES = 6000  # of a trial.json with its layers.csv, measured
PULSE_BYTES = 30 * 190  # of an epoch in pulses.csv, of a network with many layers, measured


@dataclass(frozen=True)
class Plan:
    """What a call will do."""

    trials: list[Trial]  # all trials that were asked for, in the order in which they run
    finished: set[str]  # those that are done
    failed: dict[str, str]  # those that failed in an earlier call, and why
    begun: set[str]  # those that were begun and will go on from a checkpoint
    # Those that were finished with other settings, data or versions and run anew: with which.
    changed: dict[str, str]
    # Whether the pretrained model has to be made, is there, or is not needed.
    pretrain: Literal["run", "reuse", "not needed"]
    reason: str  # why, in words
    notes: list[str]  # what was found damaged

    @property
    def left(self) -> list[Trial]:
        """The trials that are not done, failed ones among them."""
        return [trial for trial in self.trials if trial.id not in self.finished]


def plan(study: Study) -> Plan:
    """Compare the trials of a study with what its run directory holds; nothing is changed.

    Raises:
        ExperimentError: If the experiment has no valid list of trials.
        RunError: If a link in the run directory leads out of it.
    """
    run = study.run
    finished, failed, begun, changed = set(), {}, set(), {}
    notes: list[str] = []
    due = 0
    for trial in study.trials:
        try:
            record = run.checked_record(trial.id)
        except RunError as error:
            notes.append(f"{error}; {trial.id} will be run again")
            record = None
        if record is not None and record.key != trial.key:
            if record.done:
                now = trial_row(trial)
                others = differences(record.row, now) or ["other settings"]
                changed[trial.id] = " and ".join(others)
        elif record is not None and record.done:
            finished.add(trial.id)
            due += run.is_due(trial, record)
        elif record is not None:
            failed[trial.id] = str(record.row.get("message") or "")
        if trial.id not in finished and run.state_path(trial).is_dir():
            begun.add(trial.id)
    if due:
        said = "what is asked for is made from the final state"
        notes.append(f"{counted(due, 'finished trial')}: {said}, without training")
    if any("" in trial.basis.data for trial in study.trials):
        notes.append("images are not here yet: they are downloaded before anything is run")
    given = [t for t in study.trials if t.arm.pretrained and t.experiment.model.start]
    if not all(trial.basis.weights for trial in given):
        notes.append("weights are not here yet: they are downloaded before anything is run")
    pretrain, reason = _pretraining(study, finished)
    return Plan(study.trials, finished, failed, begun, changed, pretrain, reason, notes)


def _pretraining(
    study: Study, finished: set[str]
) -> tuple[Literal["run", "reuse", "not needed"], str]:
    trials = [trial for trial in study.trials if trial.pretrains]
    if not trials:
        if any(trial.arm.pretrained for trial in study.trials):
            return "not needed", "the weights that are given are the pretrained model"
        return "not needed", "no arm starts from a pretrained model"
    wanted = {trial.pretrain_key: trial for trial in trials if trial.id not in finished}
    if not wanted:
        return "not needed", "every trial that starts from a pretrained model is done"
    missing = [one for key, one in wanted.items() if study.run.find_pretrained(key) is None]
    if not missing:
        return "reuse", "trained before with the same model, settings and images"
    if len(wanted) > 1:
        return "run", f"{len(missing)} of {len(wanted)} pretrained models are not there yet"
    return "run", _why_again(missing[0], study.run)


def _why_again(trial: Trial, run: RunDir) -> str:
    """Why a model is pretrained: never done, or what changed since."""
    pointer = run.read("pretrain", "checkpoint.json")
    earlier: Any = pointer.get("settings")
    basis: Any = pointer.get("basis")
    if not isinstance(earlier, dict):
        return "no such model was pretrained yet"
    before = flatten(earlier)
    now = flatten(pretrain_settings(trial.experiment))
    changes = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    with contextlib.suppress(KeyError, TypeError):
        mine = trial.basis.of_pretraining()
        changes += differences(Basis.from_data(basis).columns(), mine.columns())
    if not changes:
        return "the checkpoint is gone"
    return "changed since: " + "; ".join(changes[:3]) + ("; ..." if len(changes) > 3 else "")


def shortages(left: Sequence[Trial], run: RunDir, *, jobs: int) -> list[str]:
    """What this machine has no room for, one line each.

    Args:
        left: The trials to run; each writes its rows twice, into its own tables and the run's.
    """
    lines = []
    epochs = sum(trial.section.epochs + 1 for trial in left)
    needed = RECORD_BYTES * len(left) + 2 * ROW_BYTES * 3 * epochs
    needed += 2 * PULSE_BYTES * sum(trial.section.epochs for trial in left if trial.arm.analog)
    free = shutil.disk_usage(nearest_folder(run.path)).free
    if needed > 0.9 * free:
        lines.append(
            f"disk: about {needed / 1e6:,.0f} MB will be written, {free / 1e6:,.0f} MB are free"
        )
    if jobs > (os.cpu_count() or 1):
        lines.append(f"cores: {jobs} jobs on {os.cpu_count()} cores; each trial needs one")
    return lines


def threads_that_fit(wanted: int, *, jobs: int) -> tuple[int, str]:
    """Give each of several trials no more threads than this machine has cores for them.

    Returns:
        The threads of a trial, and a line if they are fewer than wanted; results are the same.
    """
    cores = os.cpu_count() or 1
    fit = max(1, min(wanted, cores // jobs))
    if fit == wanted:
        return wanted, ""
    line = f"cores: {jobs} trials at a time with {wanted} threads each want {jobs * wanted}, here "
    return fit, f"{line}are {cores}: each takes {fit}"
