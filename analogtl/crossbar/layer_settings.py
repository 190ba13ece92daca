"""What the arrays of each layer are set up with: the network's settings, or the layer's own."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from analogtl.config.arrays import Analog, Convert
from analogtl.config.per_layer import meant
from analogtl.crossbar.defaults import LayerDefaults, LayerSize, Plan, choose
from analogtl.crossbar.lora import Adapters
from analogtl.crossbar.rpu_config import Pulsing, RPUConfig, build_rpu_config
from analogtl.crossbar.survey import Survey, candidates, shown_name, survey
from analogtl.errors import ExperimentError, counted
from analogtl.fastsim import unsupported_reason
from analogtl.vocabulary import FileAlgorithm


@dataclass(frozen=True)
class Variant:
    """Settings that some layers have in place of the network's.

    Attributes:
        level: Which layers (`analogtl.config.per_layer.meant`).
        analog, convert: Their settings, whole.
        text: How they differ, in words.
    """

    level: str
    analog: Analog
    convert: Convert
    text: str


@dataclass(frozen=True)
class LayerSettings:
    """What the arrays of a layer are set up with.

    Attributes:
        analog, convert: Its settings.
        own: How they differ from the network's, in words; "" if they do not.
        chosen: What they leave open; None where nothing is chosen.
    """

    analog: Analog
    convert: Convert
    own: str
    chosen: LayerDefaults | None

    def config(self, vectors: int = 1, construction_seed: int = 0) -> RPUConfig:
        """Build aihwkit's configuration; of a layer that sees so many vectors per image."""
        pulsing = self.chosen.pulsing if self.chosen else Pulsing.given(self.analog, vectors)
        return build_rpu_config(self.analog, pulsing, construction_seed=construction_seed)

    def row(self) -> dict[str, Any]:
        """What it means for the training, as columns of ``layers.csv``."""
        own = {"own_settings": self.own} if self.own else {}
        return {**(self.chosen.row() if self.chosen else {}), **own}


def settings_by_layer(
    model: nn.Module,
    surveyed: Survey,
    analog: Analog,
    convert: Convert,
    plan: Plan | None = None,
    variant: Variant | None = None,
    adapters: Adapters | None = None,
) -> dict[str, LayerSettings]:
    """Tell what each layer on arrays is set up with, by name in the network's order.

    Args:
        surveyed: What of it goes onto arrays.
        analog, convert: The network's settings.
        plan: The training that is planned; None: nothing is chosen for it.
        variant: What differs in some layers. What is chosen for them is what would be chosen if all
            layers had these settings; for the others, as if none had.
        adapters: Those of the model, if it has any; nothing is chosen for what is not trained.

    Raises:
        ExperimentError: If the variant is of no layer, or the fast engine does not cover it.
    """

    def of(one: Analog) -> dict[str, LayerDefaults]:
        sizes = layer_sizes(model, one, surveyed)
        if adapters:
            sizes = {name: size for name, size in sizes.items() if name in adapters.trained}
        return (choose(one, sizes, plan) if plan and sizes else None) or {}

    chosen = of(analog)
    found = {name: LayerSettings(analog, convert, "", chosen.get(name)) for name in surveyed.arrays}
    layers = {shown_name(name): name for name in surveyed.arrays}
    if variant and (own := [layers[name] for name in meant(variant.level, layers)]):
        check_covered(variant.analog)
        theirs, settings = of(variant.analog), (variant.analog, variant.convert, variant.text)
        found |= {name: LayerSettings(*settings, theirs.get(name)) for name in own}
    return found


def survey_arrays(
    model: nn.Module,
    analog: Analog,
    convert: Convert,
    example: Tensor,
    adapters: Adapters | None = None,
) -> Survey:
    """Survey what `to_analog` would put on arrays; nothing is programmed.

    Args:
        model: As for `to_analog`, and so are the others.
        analog: Its engine and device.
        convert: Its layers that stay digital.
        example: One batch of images (B, C, H, W).
        adapters: Those of the model.

    Raises:
        ExperimentError: As `to_analog` does.
    """
    digital = digital_layers(model, convert.digital_layers)
    chosen = dict.fromkeys(digital, "chosen in convert.digital_layers")
    surveyed = survey(model, example, {**(adapters.digital if adapters else {}), **chosen})
    if not surveyed.arrays:
        reasons = Counter(part.reason for part in surveyed.digital)
        why = "; ".join(f"{counted(n, 'part')}: {reason}" for reason, n in reasons.most_common(3))
        key = "convert.digital_layers" if convert.digital_layers else "model"
        raise ExperimentError(f"{key}: nothing of the network can go onto arrays: {why}")
    check_covered(analog)
    return surveyed


def check_covered(analog: Analog) -> None:
    """See that the fast engine covers settings that only it is to run.

    Raises:
        ExperimentError: If it does not.
    """
    is_rule = isinstance(analog.algorithm, FileAlgorithm)
    must = is_rule or analog.engine == "fast"
    if must and (reason := unsupported_reason(build_rpu_config(analog))):
        if is_rule:
            raise ExperimentError(
                f"analog.algorithm = {str(analog.algorithm)!r}: only the fast engine runs rules, "
                f"and it does not cover {reason}"
            )
        raise ExperimentError(f"analog.engine = 'fast': {not_covered(reason)}")


def layer_settings(
    model: nn.Module,
    surveyed: Survey,
    analog: Analog,
    convert: Convert,
    *,
    plan: Plan,
    variant: Variant | None = None,
    adapters: Adapters | None = None,
) -> list[dict[str, Any]]:
    """Tell how `to_analog` would set up the arrays of each layer; the arguments are its own.

    Of the model the shapes of the weights are enough. ``surveyed``: by `survey_arrays`.

    Returns:
        One row per layer, with the columns of ``layers.csv`` that are known before conversion, of
        layers about which there is something to tell.
    """
    settings = settings_by_layer(model, surveyed, analog, convert, plan, variant, adapters)
    if not any(one.chosen or one.own for one in settings.values()):
        return []
    configs = {name: one.config(surveyed.arrays[name].vectors) for name, one in settings.items()}
    return [
        {"layer": shown_name(name), **resolved(configs[name]), **one.row()}
        for name, one in settings.items()
        if not adapters or name in adapters.trained
    ]


def layer_sizes(model: nn.Module, analog: Analog, surveyed: Survey) -> dict[str, LayerSize]:
    """Find the size of the largest tile of every layer that goes onto arrays."""
    mapping = build_rpu_config(analog).mapping

    def tile(lines: int, most: int) -> int:
        return math.ceil(lines / math.ceil(lines / most)) if most > 0 else lines

    sizes = {}
    for name, on_array in surveyed.arrays.items():
        weight: Any = model.get_submodule(name).weight
        out_size, in_size = weight.shape[0], weight[0].numel()
        columns = tile(in_size, mapping.max_input_size)
        sizes[name] = LayerSize(columns, tile(out_size, mapping.max_output_size), on_array.vectors)
    return sizes


def not_covered(reason: str) -> str:
    """Say that the fast engine does not cover something, and what to do."""
    return f'the fast engine does not cover {reason}; engine = "aihwkit" does'


def digital_layers(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Find the layers that stay digital by choice.

    Raises:
        ExperimentError: If a pattern matches no layer.
    """
    layers = {shown_name(name): name for name in candidates(model)}
    names = list(layers)
    matching = {pattern: fnmatch.filter(names, pattern) for pattern in patterns}
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    problems = [
        f"convert.digital_layers: {pattern!r} matches no layer; layers: {shown}"
        for pattern, found in matching.items()
        if not found
    ]
    if problems:
        raise ExperimentError(problems)
    return {layers[name] for name in itertools.chain.from_iterable(matching.values())}


def resolved(config: RPUConfig) -> dict[str, Any]:
    """Read the learning rates and the granularity that a layer ended up with."""
    device = config.device
    values = getattr(device, "values", {})  # a rule's
    return {
        "fast_lr": getattr(device, "fast_lr", None),
        "transfer_lr": values.get("transfer_lr", getattr(device, "transfer_lr", None)),
        "granularity": values.get("auto_granularity", getattr(device, "auto_granularity", None)),
        "desired_bl": config.update.desired_bl,
        "transfer_bl": getattr(getattr(device, "transfer_update", None), "desired_bl", None),
    }
