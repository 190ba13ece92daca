"""Digital -> analog: conversion, weight transfer noise, and a report of what was achieved.

Shape suffixes: O output rows, I input columns of a weight matrix.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aihwkit.nn.modules.base import AnalogLayerBase
from aihwkit.simulator.tiles.array import TileModuleArray
from aihwkit.simulator.tiles.base import SimulatorTileWrapper
from torch import Tensor, nn

from analogtl.config.schema import Analog, Convert
from analogtl.crossbar.defaults import LayerSize, Plan, choose, warnings
from analogtl.crossbar.rpu_config import Pulsing, RPUConfig, build_rpu_config
from analogtl.crossbar.survey import Survey, candidates, survey
from analogtl.errors import ExperimentError, counted
from analogtl.fastsim import fast_rpu_config, unsupported_reason
from analogtl.vocabulary import FileAlgorithm


@dataclass(frozen=True)
class Conversion:
    """A converted model and what the conversion achieved.

    Attributes:
        model: The analog model.
        layers: One row per analog layer, in the columns of ``layers.csv`` (without those that
            name the trial).
        engine: "fast", "aihwkit", or "mixed".
        survey: What is on arrays, and what stays digital.
        notes: Layers that the fast engine does not cover, with the reason; and what bodes ill for
            the planned training.
    """

    model: nn.Module
    layers: list[dict[str, Any]]
    engine: str
    survey: Survey
    notes: list[str]


def to_analog(
    model: nn.Module,
    analog: Analog,
    convert: Convert,
    *,
    seed: int,
    example: Tensor,
    plan: Plan | None = None,
) -> Conversion:
    """Program a digital model onto arrays.

    Every layer gets a construction seed of its own, derived from the seed and its name, and so
    does every tile of a split layer: equal shapes must not mean equal devices. Weight transfer
    noise is added once to the weights that are programmed (arXiv 2505.11067, eq. 1), in every
    tile's own units after mapping, so that devices clip what exceeds their bounds.

    Args:
        model: The digital model; it is left as it is.
        analog: Algorithm, device, mapping, engine.
        convert: Weight transfer noise and layers that stay digital.
        seed: Seed of the replicate.
        example: One batch of images (B, C, H, W), to count the vectors that each layer sees.
        plan: The training that is planned, for what the experiment leaves to be chosen
            (`defaults.choose`); None: `Pulsing.given`.

    Raises:
        ExperimentError: If a pattern matches no layer, nothing is left to convert, or
            engine = "fast" does not cover a layer.
    """
    surveyed = survey_arrays(model, analog, convert, example)
    sizes = layer_sizes(model, analog, surveyed)
    chosen = (choose(analog, sizes, plan) if plan else None) or {}
    notes: list[str] = []
    engines: dict[str, str] = {}

    def layer_config(name: str, vectors: int) -> RPUConfig:
        given = Pulsing.given(analog, vectors)
        config = build_rpu_config(
            analog,
            chosen[name].pulsing if name in chosen else given,
            construction_seed=derived_seed(seed, "devices", name),
        )
        unsupported = unsupported_reason(config)
        if unsupported and analog.engine == "auto":
            notes.append(f"{name}: {_not_covered(unsupported)}")
        is_fast = analog.engine != "aihwkit" and not unsupported
        engines[name] = "fast" if is_fast else "aihwkit"
        if is_fast:
            _count_pulses(config.device)
        config.tile_array_class = _seeded_array(config, seed, name, fast=is_fast)
        if not is_fast:
            return config
        return fast_rpu_config(config, seed=derived_seed(seed, "streams", name))

    torch.manual_seed(derived_seed(seed, "conversion"))
    converted = copy.deepcopy(model)
    layers = []
    for name, on_array in surveyed.arrays.items():
        digital: Any = converted.get_submodule(name)
        weight_OI = digital.weight.detach().reshape(digital.weight.shape[0], -1).clone()
        layer: Any = on_array.make(digital, layer_config(name, on_array.vectors))
        owner, _, attribute = name.rpartition(".")
        setattr(converted.get_submodule(owner), attribute, layer)
        generator = torch.Generator().manual_seed(derived_seed(seed, "weight transfer noise", name))
        achieved = _program(layer, weight_OI, convert, generator, analog)
        config = next(iter(analog_tiles(layer))).rpu_config
        layers.append(
            {
                "layer": name,
                "shape": "x".join(map(str, weight_OI.shape)),
                **achieved,
                **_resolved(config),
                **(chosen[name].row() if name in chosen else {}),
                "tokens_per_image": on_array.vectors,
                "engine": engines[name],
            }
        )
    kinds = set(engines.values())
    engine = kinds.pop() if len(kinds) == 1 else "mixed"
    return Conversion(converted, layers, engine, surveyed, [*notes, *warnings(analog, layers)])


def survey_arrays(model: nn.Module, analog: Analog, convert: Convert, example: Tensor) -> Survey:
    """Survey what `to_analog` would put on arrays; nothing is programmed.

    Args:
        model: As for `to_analog`, and so are the others.
        analog: Its engine and device.
        convert: Its layers that stay digital.
        example: One batch of images (B, C, H, W).

    Raises:
        ExperimentError: As `to_analog` does.
    """
    surveyed = survey(model, example, digital_layers(model, convert.digital_layers))
    if not surveyed.arrays:
        reasons = Counter(part.reason for part in surveyed.digital)
        why = "; ".join(f"{counted(n, 'part')}: {reason}" for reason, n in reasons.most_common(3))
        key = "convert.digital_layers" if convert.digital_layers else "model"
        raise ExperimentError(f"{key}: nothing of the network can go onto arrays: {why}")
    is_rule = isinstance(analog.algorithm, FileAlgorithm)
    must = is_rule or analog.engine == "fast"
    if must and (reason := unsupported_reason(build_rpu_config(analog))):
        if is_rule:
            raise ExperimentError(
                f"analog.algorithm = {str(analog.algorithm)!r}: only the fast engine runs rules, "
                f"and it does not cover {reason}"
            )
        raise ExperimentError(f"analog.engine = 'fast': {_not_covered(reason)}")
    return surveyed


def layer_settings(
    model: nn.Module, analog: Analog, convert: Convert, *, example: Tensor, plan: Plan
) -> list[dict[str, Any]]:
    """Tell how `to_analog` would set up the arrays of each layer; the arguments are its own.

    Returns:
        One row per layer, with the columns of ``layers.csv`` that are known before conversion.
    """
    surveyed = survey_arrays(model, analog, convert, example)
    chosen = choose(analog, layer_sizes(model, analog, surveyed), plan)
    return [
        {
            "layer": name,
            **_resolved(build_rpu_config(analog, settings.pulsing)),
            **settings.row(),
        }
        for name, settings in (chosen or {}).items()
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


def _not_covered(reason: str) -> str:
    return f'the fast engine does not cover {reason}; engine = "aihwkit" does'


def digital_layers(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Find the layers that stay digital by choice.

    Raises:
        ExperimentError: If a pattern matches no layer.
    """
    names = list(candidates(model))
    matching = {pattern: fnmatch.filter(names, pattern) for pattern in patterns}
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    problems = [
        f"convert.digital_layers: {pattern!r} matches no layer; layers: {shown}"
        for pattern, found in matching.items()
        if not found
    ]
    if problems:
        raise ExperimentError(problems)
    return set(itertools.chain.from_iterable(matching.values()))


def analog_layers(model: nn.Module) -> dict[str, AnalogLayerBase]:
    """Find the analog layers by name: those that own tiles themselves."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, AnalogLayerBase) and hasattr(module, "analog_module")
    }


def analog_tiles(module: nn.Module) -> Iterator[SimulatorTileWrapper]:
    """Yield all tiles in a module, in a fixed order."""
    for part in module.modules():
        if isinstance(part, SimulatorTileWrapper):
            yield part


def programmed_weights(model: nn.Module) -> dict[str, list[Tensor]]:
    """Copy the weights on the arrays: layer name -> one tensor (O, I) per tile."""
    return {
        name: [tile.tile.get_weights().clone() for tile in analog_tiles(layer)]
        for name, layer in analog_layers(model).items()
    }


def share_changed(
    before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]
) -> tuple[float, dict[str, float]]:
    """Compute the share (0 to 1) of analog cells that changed: over all, and by layer."""
    changed: dict[str, int] = {}
    cells: dict[str, int] = {}
    for name, tiles in before.items():
        pairs = list(zip(tiles, after[name], strict=True))
        changed[name] = sum(int((a != b).sum()) for a, b in pairs)
        cells[name] = sum(a.numel() for a, _ in pairs)
    by_layer = {name: changed[name] / cells[name] for name in before}
    return sum(changed.values()) / max(1, sum(cells.values())), by_layer


def derived_seed(seed: int, *what: str) -> int:
    """Derive a seed for one purpose: never 0, which aihwkit takes for "random"."""
    text = "/".join((str(seed), *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % (2**31 - 2) + 1


# -- inside ----------------------------------------------------------------------------------------


def _count_pulses(device: Any) -> None:
    """Let the fast engine count the pulses; stock arrays do so on a GPU only."""
    for one in getattr(device, "unit_cell_devices", [getattr(device, "device", device)]):
        one.count_pulses = True


def _seeded_array(config: RPUConfig, seed: int, name: str, *, fast: bool) -> type[TileModuleArray]:
    """Make a class of arrays in which every tile has its own devices and streams."""

    class SeededTileArray(TileModuleArray):
        def __init__(self, out_size: int, in_size: int, rpu_config: Any, *args: Any, **kw: Any):
            real = rpu_config.tile_class
            numbers = itertools.count()

            def tile(out: int, inp: int, _config: Any, **kwargs: Any) -> SimulatorTileWrapper:
                number = str(next(numbers))
                own = copy.deepcopy(config)
                own.device.construction_seed = derived_seed(seed, "devices", name, number)
                if fast:
                    own = fast_rpu_config(own, seed=derived_seed(seed, "streams", name, number))
                return real(out, inp, own, **kwargs)

            splitting = copy.copy(rpu_config)
            splitting.tile_class = tile
            super().__init__(out_size, in_size, splitting, *args, **kw)

    return SeededTileArray


def tile_slices(layer: nn.Module) -> Iterator[tuple[SimulatorTileWrapper, slice, slice]]:
    """Yield each tile of a layer with its rows and columns in the layer's weight matrix."""
    inner: Any = layer.analog_module
    if not isinstance(inner, TileModuleArray):
        yield inner, slice(0, inner.out_size), slice(0, inner.in_size)
        return
    column = 0
    for in_size, row_of_tiles in zip(inner.in_sizes, inner.array, strict=True):
        row = 0
        for out_size, tile in zip(inner.out_sizes, row_of_tiles, strict=True):
            yield tile, slice(row, row + out_size), slice(column, column + in_size)
            row += out_size
        column += in_size


def _program(
    layer: nn.Module,
    weight_OI: Tensor,
    convert: Convert,
    generator: torch.Generator,
    analog: Analog,
) -> dict[str, Any]:
    """Add the weight transfer noise to a converted layer and compare with the digital weights."""
    scale = {
        "absmax": float(weight_OI.abs().max()),
        "std": float(weight_OI.std()) if weight_OI.numel() > 1 else 0.0,
        "absolute": 1.0,
    }[convert.relative_to]
    sigma = convert.weight_transfer_noise / 100 * scale
    noise_OI = torch.randn(weight_OI.shape, generator=generator) * sigma
    error = power = 0.0
    clipped = tiles = 0
    for tile, rows, columns in tile_slices(layer):
        tiles += 1
        scales = tile.get_scales()
        alpha = torch.ones(1) if scales is None else scales.detach().cpu()
        alpha = alpha.view(-1, 1)
        target = weight_OI[rows, columns] / alpha
        on_tile = tile.tile.get_weights().clone()
        if sigma:
            target = target + noise_OI[rows, columns] / alpha
            on_tile[:, : target.shape[1]] = target
            tile.tile.set_weights(on_tile)
            on_tile = tile.tile.get_weights()
        written = on_tile[:, : target.shape[1]]
        clipped += int(((written - target).abs() > 1e-5).sum())
        error += float(((written * alpha - weight_OI[rows, columns]) ** 2).sum())
        power += float((weight_OI[rows, columns] ** 2).sum())
    # With write noise on set nearly every cell is off its target: clipping cannot be told apart.
    noisy = analog.array_device.apply_write_noise_on_set
    return {
        "tiles": tiles,
        "relative_error": (error / power) ** 0.5 if power else 0.0,
        "share_clipped": None if noisy else clipped / weight_OI.numel(),
    }


def _resolved(config: RPUConfig) -> dict[str, Any]:
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
