"""A multilayer perceptron that finds the noise in what it sees, told how far the noise has come.

Shape suffixes: B examples, D numbers of an example, H units of a hidden layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Linear layers, to whose hidden outputs waves of the time are added before a SiLU.

    So the published 2-14-14-2 network is told the time, by currents into its hidden layers
    (arXiv 2404.05648). A wave has a frequency and a learned height for each unit, in digital.

    In: (B, 1 + D), the time (0 to 1) first. Out: the noise (B, D).

    Args:
        features: D.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, features: int = 2, hidden: Sequence[int] = (14, 14)) -> None:
        super().__init__()
        widths = [features, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.waves = nn.ModuleList(_Waves(width) for width in hidden)
        self.out = nn.Linear(widths[-1], features)

    def forward(self, x: Tensor) -> Tensor:
        time_B1, seen = x[:, :1], x[:, 1:]
        for layer, waves in zip(self.layers, self.waves, strict=True):
            seen = nn.functional.silu(layer(seen) + waves(time_B1))
        noise_BD: Tensor = self.out(seen)
        return noise_BD


class _Waves(nn.Module):
    """Sines and cosines of a time, from a quarter of a turn to four turns, each with a height."""

    turns_H: Tensor
    phase_H: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(width) / max(1, width - 1)
        self.register_buffer("turns_H", math.pi / 2 * 16**place, persistent=False)
        self.register_buffer("phase_H", math.pi / 2 * (torch.arange(width) % 2), persistent=False)
        self.height_H = nn.Parameter(torch.ones(width))

    def forward(self, time_B1: Tensor) -> Tensor:
        return self.height_H * torch.sin(time_B1 * self.turns_H + self.phase_H)
