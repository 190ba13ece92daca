"""What a trained network leaves as files of safetensors: its weights, its arrays, their pulses.

They are for others to read, without analogtl: `analogtl explain models` says what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from aihwkit.nn.modules.base import AnalogLayerBase
from torch import Tensor, nn

from analogtl.crossbar.convert import analog_layers, tile_slices
from analogtl.crossbar.lora import AdaptedLayer
from analogtl.crossbar.pulses import pulses_so_far
from analogtl.fastsim import FastTile
from analogtl.fastsim.spec import gammas_of

READING = (
    "LAYER.TILE.ARRAY [outputs, inputs]: conductances, in the units of the device's w_min and "
    "w_max, each the difference to the cell's reference. A tile holds the part tiles[LAYER.TILE] "
    "of the layer's weight, of which outputs are the first and inputs the other dimensions, "
    "flattened: scale * sum over the tile's arrays of shares[ARRAY] * ARRAY. Where shares is null, "
    "the algorithm's file says what passes see. With bias, one more input is the layer's bias."
)


def digital_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy a network's parameters and buffers by the names of its digital `state_dict`.

    The weights of a layer on arrays are what a pass without noise and rounding multiplies with; a
    low-rank adapter is added to the weight that it stands beside.
    """
    found: dict[str, Tensor] = {}
    layers: dict[str, Any] = {**analog_layers(model)}
    layers |= {n: one for n, one in model.named_modules() if isinstance(one, AdaptedLayer)}
    inside = "\0"
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(f"{inside}."):
            continue
        own: dict[str, Tensor | None]
        if name in layers:
            inside, own = name, _of_layer(layers[name])
        else:
            passing = module._non_persistent_buffers_set
            kept = {n: one for n, one in module._buffers.items() if n not in passing}
            own = {**module._parameters, **kept}
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{n}": one.detach() for n, one in own.items() if one is not None}
    return {name: tensor.cpu().clone() for name, tensor in found.items()}


def as_file(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Make the content of a file of tensors; what is not text in its metadata is JSON."""
    content = safetensors.torch.save({name: one.contiguous() for name, one in tensors.items()})
    # The library writes metadata in any order; equal content is to have equal bytes.
    start = 8 + int.from_bytes(content[:8], "little")
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in about.items()}
    header = json.dumps({"__metadata__": texts, **json.loads(content[8:start])}).encode()
    header += b" " * (-len(header) % 8)  # what follows is aligned
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(content)[start:]))


def arrays_of_cells(model: nn.Module, about: Mapping[str, Any]) -> bytes:
    """Make a file of the conductances of every array, as `READING` says; empty without arrays.

    ``about``: what else the metadata is to say.
    """
    tensors: dict[str, Tensor] = {}
    tiles: dict[str, dict[str, Any]] = {}
    for name, tile, place in _named_tiles(model):
        arrays, scales = _arrays(tile), tile.get_scales()
        tensors |= {f"{name}.{array}": cells for array, cells in arrays.items()}
        tensors[f"{name}.scale"] = torch.ones(1) if scales is None else scales.detach().cpu()
        tiles[name] = {**place, "shares": _shares(tile, list(arrays)), "bias": tile.analog_bias}
    return as_file(tensors, {**about, "reading": READING, "tiles": tiles}) if tensors else b""


def pulses_of_cells(model: nn.Module) -> bytes:
    """Make a file of the pulses of every cell; empty if none are counted.

    ``<layer>.<tile>.<A_up>`` are the counts [out, in] of a tile, the layer's tiles numbered from 0.
    ``tiles`` in the metadata is JSON: for each ``<layer>.<tile>`` the ``outputs`` and ``inputs``
    of the layer's weight matrix that it holds, the first and the one after the last.
    """
    counted = {
        f"{layer}.{number}": counts
        for layer, tiles in pulses_so_far(model).items()
        for number, counts in enumerate(tiles)
    }
    tensors = {f"{n}.{kind}": one for n, kinds in counted.items() for kind, one in kinds.items()}
    places = {name: place for name, _, place in _named_tiles(model) if name in counted}
    return as_file(tensors, {"tiles": places}) if tensors else b""


def _of_layer(layer: Any) -> dict[str, Any]:
    """Weight and bias of a layer that is or has something special."""
    if isinstance(layer, AdaptedLayer):
        base, down, up = map(_of_layer, (layer.base_layer, layer.lora_A, layer.lora_B))
        added = layer.scale * (up["weight"].flatten(1) @ down["weight"].flatten(1))
        return {**base, "weight": base["weight"] + added.view(base["weight"].shape)}
    if not isinstance(layer, AnalogLayerBase):
        return dict(layer._parameters)
    weight, bias = layer.get_weights()
    return {"weight": weight.reshape(_shape(layer, weight)), "bias": bias}


def _shape(layer: Any, weight: Tensor) -> tuple[int, ...]:
    """The shape that the weight matrix of a layer has in the digital network."""
    kernel = getattr(layer, "kernel_size", None)
    return tuple(weight.shape) if kernel is None else (len(weight), layer.in_channels, *kernel)


def _named_tiles(model: nn.Module) -> Iterator[tuple[str, Any, dict[str, list[int]]]]:
    """Yield each tile with ``<layer>.<number>`` and its part of the layer's weight matrix."""
    for name, layer in analog_layers(model).items():
        for number, (tile, rows, columns) in enumerate(tile_slices(layer)):
            place = {"outputs": [rows.start, rows.stop], "inputs": [columns.start, columns.stop]}
            yield f"{name}.{number}", tile, place


def _arrays(tile: Any) -> dict[str, Tensor]:
    """Copy what the arrays of a tile show in a pass or a read: name -> weights [out, in]."""
    start, hidden = "hidden_weights_", tile.get_hidden_parameters()
    cells = [one for name, one in hidden.items() if name.removeprefix(start).isdigit()]
    names = tile.tile.names_of_arrays() if isinstance(tile, FastTile) else list("AC")
    cells = cells or [tile.tile.get_weights()]  # the only one is what the tile itself shows
    return {name: one.cpu().clone() for name, one in zip(names, cells, strict=False)}


def _shares(tile: Any, names: list[str]) -> dict[str, float] | None:
    """The factor of each array in what passes see; None if it is no such sum."""
    rule = getattr(tile.tile, "rule", None)
    if rule is not None and rule.shows_first:
        return None
    gammas = gammas_of(tile.rpu_config.device) if len(names) == 2 else None
    shares = map(float, gammas) if gammas else [*[0.0] * (len(names) - 1), 1.0]
    return dict(zip(names, shares, strict=True))
