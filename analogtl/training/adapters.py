"""The networks of the arms with low-rank adapters, as they go onto arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from analogtl.config.schema import Experiment
from analogtl.crossbar.convert import Conversion, derived_seed
from analogtl.crossbar.lora import Adapters, add_adapters
from analogtl.crossbar.survey import candidates, shown_name, survey
from analogtl.study.columns import DIGITAL_ENGINE
from analogtl.tasks.task import Task
from analogtl.training.weights import head_of
from analogtl.vocabulary import Arm


def adapted(
    model: nn.Module, experiment: Experiment, task: Task, arm: Arm, seed: int = 0
) -> Adapters | None:
    """Put adapters into a digital network, where an arm has any.

    Args:
        model: The network with its head for the task; it is changed.
        seed: Of the adapters.

    Raises:
        ExperimentError: As `analogtl.crossbar.lora.add_adapters`.
    """
    if not arm.has_adapters:
        return None
    new = head_of(model, experiment, task)
    head = [name for name in candidates(model) if any(one.startswith(f"{name}.") for one in new)]
    fit = survey(model, task.example())
    torch.manual_seed(derived_seed(seed, "adapters"))
    return add_adapters(model, experiment.lora, fit, head, on_arrays=arm.trains_arrays)


def with_digital_layers(conversion: Conversion, adapters: Adapters) -> list[dict[str, Any]]:
    """The rows of ``layers.csv`` of a network with adapters, in its order.

    Args:
        adapters: Its own; what is digital because of them has a row, too.
    """
    by_arm = {shown_name(name): name for name in adapters.digital}
    trained = {shown_name(name) for name in adapters.trained}
    rows = {row["layer"]: row for row in conversion.layers}
    for part in conversion.survey.digital:
        if part.name in by_arm and part.vectors:
            layer: Any = conversion.model.get_submodule(by_arm[part.name])
            sides = layer.weight.shape[0], layer.weight[0].numel()
            rows[part.name] = {
                "layer": part.name,
                "shape": "x".join(map(str, sides)),
                "tiles": 0,
                "tokens_per_image": part.vectors,
                "engine": DIGITAL_ENGINE,
            }
    order = [shown_name(name) for name, _ in conversion.model.named_modules()]
    return [
        {**rows[name], "trained": name in trained} for name in dict.fromkeys(order) if name in rows
    ]
