"""Convolutions on arrays in one to three dimensions, with any padding that comes before them.

aihwkit's own convolutions run on every engine in two dimensions and padded with zeros only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch.nn.functional as F
from aihwkit.nn.modules.base import AnalogLayerBase
from torch import Tensor, nn

Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
Pad: TypeAlias = Callable[[Conv, Tensor], Tensor]


def pad_as_given(conv: Conv, x: Tensor) -> Tensor:
    """Pad as torch's own convolutions do: by `padding`, with what `padding_mode` says."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)


def pad_to_same(conv: Conv, x: Tensor) -> Tensor:
    """Pad with zeros so that the output has 1 / stride of the input's size, as TensorFlow does."""
    amounts: list[int] = []
    shapes = (x.shape[2:], conv.kernel_size, conv.stride, conv.dilation)
    for size, kernel, stride, dilation in zip(*shapes, strict=True):
        reach = (math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1
        lacking = max(reach - size, 0)
        amounts = [lacking // 2, lacking - lacking // 2, *amounts]
    return F.pad(x, amounts)


class UnfoldedConv(AnalogLayerBase, nn.Module):
    """A convolution on arrays: each patch of the padded input is one vector for them.

    In: (B, C, ...), out: (B, O, ...), with one to three spatial dimensions.
    """

    pad: Pad
    analog_module: Any

    def __init__(self, conv: Conv, rpu_config: Any, pad: Pad) -> None:
        """Program a convolution onto arrays.

        Args:
            conv: The digital convolution, without groups.
            pad: What comes before it.
        """
        super().__init__()
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.padding, self.padding_mode, self.groups = conv.padding, conv.padding_mode, conv.groups
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.pad = pad
        self.in_features = conv.weight[0].numel()
        self.out_features = conv.out_channels
        size = self.out_features, self.in_features
        module = rpu_config.get_default_tile_module_class(*size)
        self.analog_module = module(*size, rpu_config, conv.bias is not None)
        AnalogLayerBase.set_weights(self, conv.weight, conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        dimensions = len(self.kernel_size)
        if x.dim() == dimensions + 1:
            return self(x[None])[0]
        x = self.pad(self, x)
        shapes = zip(self.kernel_size, self.stride, self.dilation, strict=True)
        for place, (kernel, stride, dilation) in enumerate(shapes, 2):
            x = x.unfold(place, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        # (B, C, outputs, kernel) -> (B, outputs, C, kernel): the order of the weight's columns
        outputs = x.shape[2 : 2 + dimensions]
        x = x.movedim(1, 1 + dimensions).reshape(len(x), outputs.numel(), self.in_features)
        return self.analog_module(x).transpose(1, 2).reshape(len(x), -1, *outputs)
