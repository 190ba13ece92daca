"""Convolutions by index, as aihwkit's layers in one and in three dimensions ask for them.

Such a layer hands over whole images, and once which pixel each element of each vector is. aihwkit's
C++ tiles look them up while they compute; here the vectors are laid out first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class IndexedTile:
    """The indexed interface of a tile, by the one that takes vectors."""

    in_size: int
    out_size: int
    analog_ctx: Any
    image_sizes: list[int]

    def set_indexed(self, indices: Tensor, image_sizes: list[int]) -> None:
        """Take the places of the vectors' elements: 0 for a zero, 1 for a one, then the pixels.

        Args:
            indices: ``[(in + bias) * outputs]``.
            image_sizes: Channels, then the spatial sizes of the inputs and of the outputs.
        """
        self.analog_ctx.set_indexed()
        self.image_sizes = list(image_sizes)
        shape = self._output_shape()
        self._places = indices.view(-1, shape.numel())[: self.in_size].T.flatten().long()

    def is_indexed(self) -> bool:
        """Whether the places are known."""
        return bool(getattr(self, "image_sizes", []))

    def _output_shape(self) -> torch.Size:
        return torch.Size(self.image_sizes[1 + (len(self.image_sizes) - 1) // 2 :])

    def _vectors(self, images: Tensor) -> Tensor:
        """Lay out ``[N, channels, ...]`` as ``[N, outputs, in]``."""
        flat = images.reshape(len(images), -1)
        ends = flat.new_tensor([0.0, 1.0]).expand(len(images), 2)
        return torch.cat([ends, flat], dim=1)[:, self._places].view(len(images), -1, self.in_size)

    def joint_forward_indexed(
        self, x_input: Tensor, is_test: bool = False, ctx: Any = None
    ) -> Tensor:
        """Run the forward pass: ``[N, in channels, ...]`` to ``[N, out channels, ...]``."""
        out: Tensor = self.joint_forward(self._vectors(x_input), is_test, ctx)  # type: ignore[attr-defined]
        return out.transpose(1, 2).reshape(len(x_input), -1, *self._output_shape())

    def backward_indexed(self, d_input: Tensor, ctx: Any = None) -> Tensor:
        """Run the backward pass: ``[N, out channels, ...]`` to ``[N, in channels, ...]``."""
        n, channels = len(d_input), self.image_sizes[0]
        shape = self.image_sizes[1 : 1 + (len(self.image_sizes) - 1) // 2]
        d_vectors: Tensor = self.backward(d_input.flatten(2).transpose(1, 2), ctx)  # type: ignore[attr-defined]
        flat = d_vectors.new_zeros(n, 2 + channels * torch.Size(shape).numel())
        flat.index_add_(1, self._places, d_vectors.reshape(n, -1))
        return flat[:, 2:].reshape(n, channels, *shape)

    def update_indexed(self, x_input: Tensor, d_input: Tensor) -> None:
        """Update the arrays with images of inputs and of output gradients."""
        self.update(self._vectors(x_input), d_input.flatten(2).transpose(1, 2))  # type: ignore[attr-defined]
