"""A stand-in for `run_trial` without torch: the experiment says what it does.

The description is a JSON object: trial name (or a part of it) -> behaviour. A behaviour is a word
and, after a space, a number: ``sleep 0.2``, ``fail``, ``segfault``, ``sigkill``, ``bug``, ``hang``,
``once`` (dies at its first attempt), ``steps 50`` (that many steps of 20 ms, stoppable), ``held``
(its first attempt takes steps until it is stopped or killed, or `release` lets it end).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analogtl.config.schema import Experiment
from analogtl.errors import RunError
from analogtl.files import write_json
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial

FUNCTION = "fake_trials:run_trial"
PROBLEM = "the loss became nan at epoch 1, step 3"
MAX_HOLD = 15_000  # steps: five minutes, in case a test ends before it lets its trials end


def experiment(behaviour: Mapping[str, str] | None = None, **sweep: Any) -> Experiment:
    """An experiment of scratch arms only (nothing to wait for), with a behaviour."""
    return Experiment.model_validate(
        {
            "name": "fake",
            "description": json.dumps(behaviour or {}),
            "finetune": {"arms": ["analog-scratch"]},
            "sweep": {"axes": {"wtn": [0, 5]}, **sweep},
        }
    )


def study(run: RunDir, behaviour: Mapping[str, str] | None = None, **sweep: Any) -> Study:
    return Study(experiment(behaviour, **sweep), run, sweep=True)


def trials(behaviour: Mapping[str, str] | None = None, **sweep: Any) -> list[Trial]:
    return study(RunDir(Path(), "fake"), behaviour, **sweep).trials


def run_trial(trial: Trial, run: RunDir, limits: RunLimits = RunLimits()) -> dict[str, Any]:
    with run.trial_lock(trial.id, wait=False) as held:
        if not held:
            return {**trial_row(trial), "status": "busy"}
        record = run.finished(trial)
        if record is not None:
            return dict(record.row)
        folder = run.trial_path(trial.id)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "attempts", "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        try:
            _behave(trial, run, limits)
        except InterruptedError:
            return {**trial_row(trial), "status": "stopped"}
        except RunError as error:
            row = {**trial_row(trial), "status": "failed", "message": str(error)}
            run.write_trial(trial, row, [], [])
            return row
        row = {
            **trial_row(trial),
            "n_classes": 5,
            "engine": "fake",
            "status": "done",
            "error_final": _error(trial),
        }
        run.write_trial(trial, row, epochs_of(trial, 3), [])
        return row


def epochs_of(trial: Trial, epochs: int) -> list[dict[str, Any]]:
    """Rows as a training of some epochs writes them."""
    base = {"experiment": trial.experiment.name, "trial": trial.id, "seed": trial.seed}
    return [
        {**base, "arm": trial.arm, "stage": "finetune", "epoch": epoch, "split": split}
        | {"loss": 1 / (epoch + 1), "error": _error(trial), "accuracy": 1 - _error(trial) / 100}
        | {"lr": trial.lr, "n_samples": 100, "wall_s": 0.1, "resumed": False, **trial.axes}
        for epoch in range(epochs)
        for split in ("train", "test")
    ]


def attempts(run: RunDir, trial_id: str) -> list[int]:
    """Process ids of the attempts at a trial."""
    file = run.trial_path(trial_id) / "attempts"
    whole, _, _ = file.read_text().rpartition("\n") if file.is_file() else ("", "", "")
    return [int(line) for line in whole.split()]


def release(run: RunDir) -> None:
    """Let the trials of a run that are held end."""
    (run.path / "released").touch()


def _error(trial: Trial) -> float:
    return 10.0 + float(trial.axes.get("wtn", 0)) / 2 + trial.seed


def _behave(trial: Trial, run: RunDir, limits: RunLimits) -> None:
    chosen = json.loads(trial.experiment.description or "{}")
    for name, behaviour in chosen.items():
        if name not in trial.id:
            continue
        word, _, number = behaviour.partition(" ")
        if word == "sleep":
            time.sleep(float(number))
        elif word == "fail":
            raise RunError(PROBLEM)
        elif word == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif word == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "once":
            if len(attempts(run, trial.id)) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        elif word == "bug":
            raise TypeError("a bug in the library")
        elif word == "hang":
            time.sleep(3600)
        elif word == "steps":
            _steps(trial, run, limits, int(number))
        elif word == "held" and len(attempts(run, trial.id)) == 1:
            _steps(trial, run, limits, MAX_HOLD)


def _steps(trial: Trial, run: RunDir, limits: RunLimits, steps: int) -> None:
    progress = run.trial_path(trial.id) / "progress.json"
    for step in range(steps):
        if limits.should_stop():
            raise InterruptedError
        if (run.path / "released").exists():
            break
        time.sleep(0.02)
        if step % 10 == 0:
            content = {"trial": trial.id, "stage": "finetune", "epoch": step // 10, "error": 10.0}
            write_json(progress, {**content, "updated_at": time.time()})
    progress.unlink(missing_ok=True)
