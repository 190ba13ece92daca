"""An experiment's network, and what can be known of it before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analogtl.config.schema import Experiment
from analogtl.config.training import Training
from analogtl.crossbar.layer_settings import survey_arrays
from analogtl.errors import ExperimentError, one_line
from analogtl.study.network import fresh_model, own_network
from analogtl.tasks.task import Task


def check_same_inputs(source: Task, target: Task) -> None:
    """See that a network that was pretrained on one task can be shown the examples of another.

    Raises:
        ExperimentError: If it cannot.
    """
    for what, size in target.sizes.items():
        if what != "n_classes" and source.sizes.get(what) != size:
            raise ExperimentError(
                f"finetune.dataset: {what} is {size}, but {source.sizes.get(what)} in "
                "pretrain.dataset; use data sets of one size"
            )


def adapt(model: nn.Module, experiment: Experiment, task: Task) -> nn.Module:
    """The pretrained network as it fits a task: with a new head for its classes, if it has any.

    Raises:
        ExperimentError: If the network has no head that can be replaced.
    """
    if task.n_classes and (own := own_network(experiment, task)) is not None:
        return own.with_new_head(model)
    try:
        task.adapt(model)
    except Exception as error:  # timm's models have many ways to fail
        raise ExperimentError(
            f"model {experiment.model.network}: has no head that can be replaced, as an arm "
            f"that starts from the pretrained network needs: {one_line(error)}"
        ) from error
    return model


def on_device(model: nn.Module, device: str) -> nn.Module:
    """The model where it is to be trained: ``cpu``, where it is made, or ``cuda``."""
    return model if device == "cpu" else model.to(device)


def check_network(experiment: Experiment, task: Task, *, on_arrays: bool) -> None:
    """Find before hours of pretraining what would make the training after it fail.

    Args:
        experiment: With the network, and how it is trained and converted.
        on_arrays: Whether it is to be put on arrays.

    Raises:
        ExperimentError: If arrays, or batches as small as they are, cannot be had.
    """
    model = fresh_model(experiment, task)
    smallest_batch(model, task, experiment.finetune, "finetune")
    if on_arrays:
        survey_arrays(model, experiment.analog, experiment.convert, task.example())


def smallest_batch(model: nn.Module, task: Task, section: Training, stage: str) -> int:
    """Find how few examples a training step of a digital network may have: 1 or 2.

    Batch normalisation needs more than one value per channel, which one image does not give it
    where the layer sees a single position.

    Args:
        model: The network, before it is put on arrays.
        section: Batch size.
        stage: Name of the section.

    Raises:
        ExperimentError: If there is no way to give it two images in each step.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not (norms and _single_values(model, norms, task.example(1))):
        return 1
    needs = "but the network's batch normalisation needs 2 images or more in a step"
    if section.batch_size == 1:
        raise ExperimentError(f"{stage}.batch_size: 1, {needs}; expected 2 or more")
    if len(task.train) == 1:
        raise ExperimentError(f"{stage}.dataset: 1 training image, {needs}")
    return 2


def _single_values(model: nn.Module, norms: list[_BatchNorm], image_1CHW: Tensor) -> bool:
    """Whether a layer sees a single value of each channel when one image passes."""
    found = []

    def look(_layer: nn.Module, args: Any, _output: Any) -> None:
        found.append(args[0].numel() <= args[0].shape[1])

    handles = [norm.register_forward_hook(look) for norm in norms]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(image_1CHW)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return any(found)
