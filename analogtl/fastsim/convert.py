"""Move a model that is analog already onto the fast engine."""

from __future__ import annotations

from typing import TypeVar

import torch
from aihwkit.simulator.tiles.analog import AnalogTile
from aihwkit.simulator.tiles.base import SimulatorTileWrapper
from torch import Tensor, nn

from analogtl.fastsim.config import (
    FastRPUConfig,
    TileCount,
    UnsupportedConfig,
    fast_rpu_config,
    unsupported_reason,
)
from analogtl.fastsim.tile import FastTile

M = TypeVar("M", bound=nn.Module)
_DIGITAL = ("bias", "out_scaling_alpha", "input_range", "input_range_update_idx")  # of a tile


def to_fast(model: M, *, seed: int) -> M:
    """Replace the tiles of an analog model by fast ones, in place; return the model.

    Each tile keeps what aihwkit hands out: devices, weights, buffer, scales, bias and learning
    rate. What it does not, the choppers and counters of a training, begins anew. An optimizer has
    to be made (again) afterwards.

    Args:
        model: Made of aihwkit's layers. Tiles that are fast already stay.
        seed: Seed of all random streams; tiles are numbered in their order in the model.

    Raises:
        UnsupportedConfig: if the fast engine does not cover a tile; nothing is changed then.
    """
    count = TileCount()
    made: dict[int, FastTile] = {}
    for name, tile in model.named_modules():
        if not isinstance(tile, SimulatorTileWrapper) or isinstance(tile, FastTile):
            continue
        reason = unsupported_reason(tile.rpu_config)
        if reason is None and type(tile) is not AnalogTile:
            reason = f"tiles of class {type(tile).__name__}"
        if reason is not None:
            raise UnsupportedConfig(f"{reason} ({name})")
        config = fast_rpu_config(tile.rpu_config, seed=seed)
        config.tile_count = count
        made[id(tile)] = _fast_tile(tile, config)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if id(child) in made:
                parent.register_module(name, made[id(child)])
    return model


@torch.no_grad()
def _fast_tile(tile: AnalogTile, config: FastRPUConfig) -> FastTile:
    """Make the fast tile that has a stock tile's devices, weights and digital part."""
    bias = tile.analog_bias or tile.digital_bias
    fast = FastTile(tile.out_size, tile.in_size, config, bias, tile.in_trans, tile.out_trans)
    hidden = tile.tile.get_hidden_parameters()
    # Devices first, as they bound the weights; last, as weights start the fast array anew.
    fast.tile.set_hidden_parameters(hidden)
    fast.tile.set_weights(tile.tile.get_weights())
    fast.tile.set_hidden_parameters(hidden)
    fast.tile.set_learning_rate(tile.tile.get_learning_rate())
    scales = tile.get_mapping_scales()
    fast.set_mapping_scales(None if scales is None else scales.clone())
    for name in _DIGITAL:
        value = getattr(tile, name, None)
        if isinstance(value, Tensor):
            getattr(fast, name).data.copy_(value)
    return fast.train(tile.training)
