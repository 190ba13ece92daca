"""Running the command line in this process, and a stand-in for the trials of a sweep."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from analogtl.cli.app import run
from analogtl.scheduling.sweep import Update
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial

EPOCHS = 3


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        return self.err.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The objects of ``--json``: every line of the output has to be one."""
        return [json.loads(line) for line in self.out.splitlines()]


def call(capsys: Any, *argv: str) -> Result:
    """Run a command line as `analogtl ARGV` would."""
    capsys.readouterr()
    words = [str(word) for word in argv]
    with mock.patch.object(sys, "argv", ["analogtl", *words]):
        code = run(words)
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def written(folder: Path, text: str, name: str = "exp.toml") -> Path:
    """An experiment file with this text."""
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def errors_of(trial: Trial) -> list[float]:
    """Test error per epoch of a stand-in trial: falling, and higher for analog arms and levels."""
    level = sum(float(level) for level in trial.axes.values() if isinstance(level, int | float))
    end = 10.0 + 5.0 * trial.arm.analog + level / 10 + trial.seed
    return [end + 60.0 / (epoch + 1) - 60.0 / (EPOCHS + 1) for epoch in range(EPOCHS + 1)]


class FakeTrials:
    """Takes the place of `analogtl.scheduling.sweep.run_trials`; nothing is trained.

    Attributes:
        fail: Parts of the names of trials that fail.
        interrupt: Number of finished trials after which the user presses Ctrl-C.
        options: What the last call was given.
        experiment: That of the last call.
    """

    def __init__(self, fail: Sequence[str] = (), interrupt: int | None = None) -> None:
        self.fail, self.interrupt = fail, interrupt
        self.options: dict[str, Any] = {}

    def __call__(self, study: Study, **options: Any) -> Iterator[Update]:
        self.options, self.experiment = options, study.experiment
        with study.at_work(argv=options["argv"]):
            yield from self.updates(study.run, study.trials)

    def updates(self, run: RunDir, trials: Sequence[Trial]) -> Iterator[Update]:
        """What `run_trials` would say of these trials."""
        for number, trial in enumerate(trials):
            record = run.finished(trial)
            if record is not None:
                yield Update("skipped", trial.id, record.row)
                continue
            if number == self.interrupt:
                run.collect()
                raise KeyboardInterrupt
            yield Update("started", trial.id)
            yield from self._run(trial, run)
        run.collect()

    def _run(self, trial: Trial, run: RunDir) -> Iterator[Update]:
        errors = errors_of(trial)
        base = {"experiment": run.name, "trial": trial.id, "seed": trial.seed, "arm": trial.arm}
        base |= {**trial.axes, "stage": "finetune", "lr": trial.lr}
        rows = []
        for epoch, error in enumerate(errors):
            both = {**base, "epoch": epoch, "loss": error / 50, "error": error}
            rows += [{**both, "split": split} for split in ("validation", "test")]
            progress = {"stage": "finetune", "epoch": epoch, "epochs": EPOCHS, "loss": error / 50}
            progress |= {"error": error, "wall_s": 2.0, "seconds_left": 2.0 * (EPOCHS - epoch)}
            yield Update("epoch", trial.id, progress)
        row = {
            **trial_row(trial),
            "n_classes": 5,
            "engine": "fast",
            "wall_s": 8.0,
            "resumed": False,
        }
        if any(part in trial.id for part in self.fail):
            row |= {"status": "failed", "message": "loss is not finite at step 7"}
            run.write_trial(trial, row, [], [])
            yield Update("failed", trial.id, row, row["message"])
            return
        row |= {
            "status": "done",
            "error_transfer": errors[0],
            "error_final": errors[-1],
            "error_best": min(errors[1:]),
            "epoch_best": EPOCHS,
            "error_validation": errors[-1],
        }
        run.write_trial(trial, row, rows, [])
        yield Update("done", trial.id, row)
