"""A control: arrays that get as many pulses as in training, without what the gradients say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from analogtl.crossbar.convert import analog_tiles


def shuffle_gradients(model: nn.Module) -> None:
    """Give every gradient vector a random sign on its way to the arrays.

    The pulses of a vector depend on sizes alone, so that each array is pulsed as often as before;
    only what the pulses add up to is noise. What stays digital is trained as ever. The signs come
    from torch's generator.
    """
    for tile in analog_tiles(model):
        update: Callable[[Tensor, Tensor], None] = tile.update
        dim = 1 if tile.analog_ctx.use_indexed else -1  # of the outputs
        tile.update = partial(_with_random_signs, update, dim)


def _with_random_signs(
    update: Callable[[Tensor, Tensor], None], dim: int, x_input: Tensor, d_input: Tensor
) -> None:
    signs = torch.randint(0, 2, d_input.select(dim, 0).shape).to(d_input) * 2 - 1
    update(x_input, d_input * signs.unsqueeze(dim))
