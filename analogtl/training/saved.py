"""What a trial leaves beside its tables where it is asked for: the pulses of its cells, its model.

All is made of the network as it is when the training ends.
"""

from __future__ import annotations

from torch import nn

from analogtl.crossbar.saved import arrays_of_cells, as_file, digital_weights, pulses_of_cells
from analogtl.study.provenance import versions
from analogtl.study.record import ARRAYS, CELLS, WEIGHTS
from analogtl.study.trial import Trial
from analogtl.tasks.images import ImageTask
from analogtl.tasks.task import Task


def files_of(trial: Trial, model: nn.Module, task: Task | None = None) -> dict[str, bytes]:
    """Make the files that are asked for: name -> content, empty where there is nothing to tell."""
    asked = trial.experiment.run
    found = {CELLS: pulses_of_cells(model)} if asked.save_pulses else {}
    return found | (model_files(trial, model, task) if asked.save_model else {})


def model_files(trial: Trial, model: nn.Module, task: Task | None) -> dict[str, bytes]:
    """Make the files of a trained network: its weights, and the arrays that hold them, if any."""
    experiment = trial.experiment
    analog, about = experiment.analog, {"analogtl": versions()["analogtl"], "trial": trial.id}
    about |= {"experiment": experiment.name}
    network = {"format": "pt", "network": experiment.model.file or experiment.model.network}
    images = {}
    if isinstance(task, ImageTask):  # what `model.weights` of another experiment goes by
        images = {"classes": task.class_names, "mean": task.mean, "std": task.std}
    weights = digital_weights(model)
    arrays = {"algorithm": str(analog.algorithm), "analog": analog.resolved()}
    return {
        ARRAYS: arrays_of_cells(model, {**about, **arrays}),
        WEIGHTS: as_file(weights, {**network, **about, **images}),
    }
