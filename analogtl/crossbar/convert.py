"""Digital -> analog: conversion, weight transfer noise, and a report of what was achieved.

Shape suffixes: O output rows, I input columns of a weight matrix.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from aihwkit.nn.modules.base import AnalogLayerBase
from aihwkit.simulator.tiles.array import TileModuleArray
from aihwkit.simulator.tiles.base import SimulatorTileWrapper
from torch import Tensor, nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.defaults import Plan, warnings
from analogtl.crossbar.layer_settings import (
    LayerSettings,
    Variant,
    not_covered,
    resolved,
    settings_by_layer,
    survey_arrays,
)
from analogtl.crossbar.lora import Adapters
from analogtl.crossbar.rpu_config import RPUConfig
from analogtl.crossbar.survey import Survey, shown_name
from analogtl.fastsim import fast_rpu_config, unsupported_reason


@dataclass(frozen=True)
class Conversion:
    """A converted model and what the conversion achieved.

    Attributes:
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
    variant: Variant | None = None,
    adapters: Adapters | None = None,
) -> Conversion:
    """Program a digital model onto arrays.

    Every layer gets a construction seed of its own, derived from the seed and its name, and so
    does every tile of a split layer: equal shapes must not mean equal devices. Weight transfer
    noise is added once to the weights that are programmed (arXiv 2505.11067, eq. 1), in every
    tile's own units after mapping, so that devices clip what exceeds their bounds.

    Args:
        model: The digital model; it is left as it is, and shares its frozen parameters.
        analog: Algorithm, device, mapping, engine.
        convert: Weight transfer noise and layers that stay digital.
        seed: Seed of the replicate.
        example: One batch of images (B, C, H, W), to count the vectors that each layer sees.
        plan: The training that is planned, for what the experiment leaves to be chosen
            (`defaults.choose`); None: `Pulsing.given`.
        variant: What differs in some layers.
        adapters: Those of the model, if it has any; then the rest is held fixed.

    Raises:
        ExperimentError: If a pattern matches no layer, nothing is left to convert, or
            engine = "fast" does not cover a layer.
    """
    surveyed = survey_arrays(model, analog, convert, example, adapters)
    settings = settings_by_layer(model, surveyed, analog, convert, plan, variant, adapters)
    notes: list[str] = []
    engines: dict[str, str] = {}

    def layer_config(layer: str, vectors: int) -> RPUConfig:
        name = shown_name(layer)
        config = settings[layer].config(vectors, derived_seed(seed, "devices", name))
        unsupported = unsupported_reason(config)
        if unsupported and analog.engine == "auto":
            notes.append(f"{name}: {not_covered(unsupported)}")
        is_fast = analog.engine != "aihwkit" and not unsupported
        engines[name] = "fast" if is_fast else "aihwkit"
        if is_fast:
            _count_pulses(config.device)
        config.tile_array_class = _seeded_array(config, seed, name, fast=is_fast)
        if not is_fast:
            return config
        return fast_rpu_config(config, seed=derived_seed(seed, "streams", name))

    torch.manual_seed(derived_seed(seed, "conversion"))
    # What is frozen is shared: of a language model it is nearly all, and would be there twice.
    shared = {id(one): one for one in model.parameters() if not one.requires_grad}
    converted = copy.deepcopy(model, shared)
    layers = []
    for name, on_array in surveyed.arrays.items():
        digital: Any = converted.get_submodule(name)
        weight_OI = digital.weight.detach().reshape(digital.weight.shape[0], -1).clone()
        layer: Any = on_array.make(digital, layer_config(name, on_array.vectors))
        owner, _, attribute = name.rpartition(".")
        setattr(converted.get_submodule(owner), attribute, layer)
        shown = shown_name(name)
        noise_seed = derived_seed(seed, "weight transfer noise", shown)
        generator = torch.Generator().manual_seed(noise_seed)
        achieved = _program(layer, weight_OI, settings[name], generator)
        config = next(iter(analog_tiles(layer))).rpu_config
        layers.append(
            {
                "layer": shown,
                "shape": "x".join(map(str, weight_OI.shape)),
                **achieved,
                **resolved(config),
                **settings[name].row(),
                "tokens_per_image": on_array.vectors,
                "engine": engines[shown],
            }
        )
    kinds = set(engines.values())
    engine = kinds.pop() if len(kinds) == 1 else "mixed"
    notes += warnings([analog, *([variant.analog] if variant else [])], layers)
    if adapters:
        adapters.hold(converted)
    return Conversion(converted, layers, engine, surveyed, notes)


def analog_layers(model: nn.Module) -> dict[str, AnalogLayerBase]:
    """Find the analog layers by name: those that own tiles themselves."""
    return {
        shown_name(name): module
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
    settings: LayerSettings,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Add the weight transfer noise to a converted layer and compare with the digital weights."""
    convert = settings.convert
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
    noisy = settings.analog.array_device.apply_write_noise_on_set
    return {
        "tiles": tiles,
        "relative_error": (error / power) ** 0.5 if power else None,
        "share_clipped": None if noisy else clipped / weight_OI.numel(),
    }
