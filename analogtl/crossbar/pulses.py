"""What a training did to the arrays: pulses, reads, conversions, change of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analogtl.crossbar.convert import analog_layers, analog_tiles
from analogtl.fastsim import FastTile

KINDS = ("a_up", "a_down", "c_up", "c_down")
Counts = dict[str, list[dict[str, Tensor]]]
"""Layer -> for each tile: kind of pulse, "A_up" or another -> counts [out, in]."""


def wear(model: nn.Module, before: dict[str, list[Tensor]]) -> dict[str, dict[str, Any]]:
    """Compute the columns of ``layers.csv`` on wear, by layer; only the fast engine counts.

    ``before``: the programmed weights at the beginning.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, layer in analog_layers(model).items():
        tiles = list(analog_tiles(layer))
        found[name] = {"rms_change": _rms_change(tiles, before[name])}
        if all(isinstance(tile, FastTile) for tile in tiles):
            found[name] |= _summary(_counts(tiles)) | _conversions(tiles)
    return found


def pulses_so_far(model: nn.Module) -> Counts:
    """Count the pulses of every cell since the model was converted, where they are counted."""
    tiles = {name: list(analog_tiles(layer)) for name, layer in analog_layers(model).items()}
    counted = {
        name: _counts(ones)
        for name, ones in tiles.items()
        if all(isinstance(tile, FastTile) for tile in ones)
    }
    return {name: counts for name, counts in counted.items() if all(counts)}


def pulses_between(before: Counts, after: Counts) -> list[dict[str, Any]]:
    """Sum up the pulses between two moments: rows of ``pulses.csv``, one for each layer."""
    return [
        {
            "layer": name,
            **_summary(
                [
                    {kind: now.long() - then[kind] for kind, now in tile.items()}
                    for tile, then in zip(tiles, before[name], strict=True)
                ]
            ),
        }
        for name, tiles in after.items()
    ]


def _rms_change(tiles: list[Any], before: list[Tensor]) -> float:
    """Compute the root mean square change of the weights, relative to their mean range."""
    squares = ranges = 0.0
    for tile, start in zip(tiles, before, strict=True):
        hidden = tile.get_hidden_parameters()
        last = [key.removeprefix("max_bound") for key in hidden if key.startswith("max_bound")][-1]
        ranges += float((hidden[f"max_bound{last}"] - hidden[f"min_bound{last}"]).sum())
        squares += float(((tile.tile.get_weights() - start).double() ** 2).sum())
    cells = sum(start.numel() for start in before)
    return float(np.sqrt(squares / cells) / (ranges / cells)) if ranges > 0.0 else 0.0


def _counts(tiles: list[Any]) -> list[dict[str, Tensor]]:
    """Count the pulses of each tile, in the smallest signed type that holds them."""
    return [
        {
            kind: torch.from_numpy(
                np.ascontiguousarray(counts.T, np.min_scalar_type(-1 - counts.max()))
            )
            for kind, counts in tile.pulse_counts().items()
        }
        for tile in tiles
    ]


def _summary(tiles: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Sum, mean, median and maximum of the pulses, over the cells of all tiles."""
    pulses: dict[str, list[Any]] = {}
    for tile in tiles:
        counts = list(tile.values())
        # Of several arrays the first and the last: A, which the gradient's pulses go to, and C.
        for kind, numbers in zip(
            KINDS, counts[:2] + (counts[-2:] if counts[2:] else []), strict=False
        ):
            pulses.setdefault(kind, []).append(numbers.numpy().ravel())
    row: dict[str, Any] = {}
    for kind, parts in pulses.items():
        cells = np.concatenate(parts)
        row |= {
            f"{kind}_sum": int(cells.sum()),
            f"{kind}_mean": float(cells.mean()),
            f"{kind}_median": float(np.median(cells)),
            f"{kind}_max": int(cells.max()),
        }
    return row


def _conversions(tiles: list[Any]) -> dict[str, Any]:
    """Reads of A and conversions, as the schedule has them."""
    row = {"reads": 0, "read_conversions": 0, "pass_conversions": 0}
    for tile in tiles:
        schedule = tile.tile.schedule()
        row["reads"] += schedule["reads"]
        row["read_conversions"] += schedule["reads"] * tile.tile.d_size
        row["pass_conversions"] += schedule["vectors"] * (tile.tile.x_size + tile.tile.d_size)
    return row
