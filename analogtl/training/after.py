"""After training: what is made of the final state of a trial, without another training.

That is the test error of its arrays when they have been left alone for a time, also again with
other times or another model; and the files of its model.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from analogtl.crossbar import checkpoint as state
from analogtl.crossbar.retention import Ageing
from analogtl.errors import AnalogtlError, RunError, one_line
from analogtl.study.network import fresh_model
from analogtl.study.record import WEIGHTS
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import Trial
from analogtl.tasks.task import Task
from analogtl.training.loop import evaluate
from analogtl.training.network import on_device
from analogtl.training.resumable import Rows
from analogtl.training.saved import model_files
from analogtl.training.stages import on_arrays, prepare_torch, task_of_trial

_LOG = logging.getLogger(__name__)


def catch_up(trial: Trial, run: RunDir) -> None:
    """Make what a trial that is done still lacks, if its final state is kept.

    The trial is none the worse where that fails; a line in the log says why.
    """
    record = run.record(trial.id)
    if record is None or not record.done or not run.is_due(trial, record):
        return
    for name in run.lacking(trial, record):
        try:
            if name == WEIGHTS:
                task = task_of_trial(trial)
                run.write_files(trial, model_files(trial, _final_model(trial, run, task), task))
            else:
                run.write_evaluation(trial, evaluation(trial, run))
        except (AnalogtlError, OSError, RuntimeError, ValueError, KeyError) as error:
            _LOG.warning("%s: %s is not made: %s", trial.id, name, one_line(error))


def evaluation(trial: Trial, run: RunDir) -> Rows:
    """Test the arrays of a trial at each time after training: the rows of ``evaluation.csv``.

    Raises:
        RunError: If the final state is damaged or of another trial, or the images are others.
    """
    prepare_torch(trial.experiment.run.threads)
    task = task_of_trial(trial)
    model = on_device(_final_model(trial, run, task), trial.basis.device)
    asked = trial.experiment.evaluate
    ageing = Ageing(model, asked, trial.seed)
    about = {"experiment": trial.experiment.name, "trial": trial.id, "seed": trial.seed}
    rows: list[dict[str, Any]] = []
    for time in asked.times:
        for repeat in range(asked.repeats):
            with ageing.at(time, repeat):
                score = evaluate(model, task.test, task)
            said: dict[str, Any] = {"time": time, "repeat": repeat, "metric": task.metric}
            said |= {"loss": score.loss, "error": score.error, "n_samples": score.n_samples}
            said["balanced_error"] = score.balanced_error
            rows.append({**about, **said})
    return rows


def _final_model(trial: Trial, run: RunDir, task: Task) -> nn.Module:
    """The network with the arrays that a trial has trained, as they were at its end."""
    file = run.final_path(trial.id)
    loaded = state.load(file)
    if loaded is None or loaded[1].get("trial") != trial.key:
        raise RunError(f"{file}: not the final state of this trial")
    conversion, _ = on_arrays(trial, fresh_model(trial.experiment, task), task)
    state.restore(conversion.model, *loaded)
    return conversion.model
