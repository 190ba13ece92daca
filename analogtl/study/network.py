"""An experiment's network before anything is learned, and which of its layers go onto arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from analogtl.config.load import in_some_layers
from analogtl.config.per_layer import NONE, in_full
from analogtl.config.schema import Experiment
from analogtl.crossbar.layer_settings import Variant, survey_arrays
from analogtl.models.build import build_model
from analogtl.models.language import build_language
from analogtl.models.own import OwnNetwork
from analogtl.study.basis import task_settings
from analogtl.study.weights import language_folder, tokens_of
from analogtl.tasks.counts import ClassCount
from analogtl.tasks.load import stand_in_for, task_for
from analogtl.tasks.stand_in import nominal_counts
from analogtl.tasks.task import Task
from analogtl.vocabulary import PER_LAYER, Dataset


def fresh_model(experiment: Experiment, task: Task) -> nn.Module:
    """The model with random weights, from torch's generator."""
    if (own := own_network(experiment, task)) is not None:
        return own.build()
    if experiment.model.is_language:
        folder = language_folder(experiment)
        return build_language(folder, kwargs=experiment.model.kwargs, sizes=task.sizes)
    return build_model(experiment.model.network, kwargs=experiment.model.kwargs, **task.sizes)


def own_network(experiment: Experiment, task: Task) -> OwnNetwork | None:
    """The network of the user's own file; None if the experiment names none."""
    network = experiment.model.own
    if network is None:
        return None
    text = experiment.model.files[network.file]
    return OwnNetwork(network, text, task.sizes, experiment.model.kwargs)


def stand_in_with(experiment: Experiment, stage: str, counts: Sequence[ClassCount]) -> Task:
    """A stand-in for what a stage learns from, with so many examples.

    Raises:
        ExperimentError: If a class is left without images, or texts cannot be read.
    """
    dataset = getattr(experiment, stage).dataset
    if Dataset(dataset).of_texts and experiment.metric.is_share:
        # How many tokens its texts have is part of the plan.
        return task_for(**task_settings(experiment, stage))
    return stand_in_for(
        experiment.objective,
        dataset,
        counts,
        image_size=experiment.data.image_size,
        context=experiment.data.context,
        tokens=tokens_of(experiment),
    )


def variant_of(experiment: Experiment) -> Variant | None:
    """What differs in some layers; None if nothing does.

    Raises:
        ExperimentError: If settings do not fit.
    """
    own = experiment.per_layer
    if own.layer == NONE:
        return None
    there = in_some_layers(experiment)
    return Variant(own.layer, there.analog, there.convert, own.text)


def with_layers_in_full(experiment: Experiment) -> Experiment:
    """The experiment with a level for each layer, or stage, where its axis per_layer says so.

    Raises:
        ExperimentError: If a level means no layer, or the network cannot be built.
    """
    levels = experiment.sweep.axes.get(PER_LAYER)
    if levels is None:
        return experiment
    section, data = experiment.finetune, experiment.as_written()
    # How many examples there are does not matter to the layers.
    counts = nominal_counts(section.dataset, section.classes)
    task = stand_in_with(experiment, "finetune", counts)
    with torch.random.fork_rng():
        model = fresh_model(experiment, task)
        surveyed = survey_arrays(model, experiment.analog, experiment.convert, task.example())
    data["sweep"]["axes"][PER_LAYER] = in_full(levels, list(surveyed.arrays))
    return Experiment.model_validate(data)
