"""The fast tile: an aihwkit analog tile whose simulator is the fast engine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from aihwkit.exceptions import TileError
from aihwkit.optim.context import AnalogContext
from aihwkit.simulator.configs.compounds import MixedPrecisionCompound
from aihwkit.simulator.tiles.analog import AnalogTile
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from analogtl.fastsim import threads
from analogtl.fastsim.arrays import ArraysTile
from analogtl.fastsim.config import FastRPUConfig
from analogtl.fastsim.indexed import IndexedTile
from analogtl.fastsim.layout import Array
from analogtl.fastsim.mixed import MixedPrecisionTile
from analogtl.fastsim.pulsed import PulsedTile
from analogtl.fastsim.simulator import FastSimulatorTile
from analogtl.fastsim.threads import Task


class _Product(Function):
    """A tile's products with the digital bias, as one node of autograd.

    It does what aihwkit's ``AnalogFunction`` and what is added to it do, in less time: vectors that
    need no gradient are not sent back (though counted, as each pass has a stream of noise).
    """

    @staticmethod
    def forward(
        ctx: Any, context: AnalogContext, tile: FastTile, x: Tensor, bias: Tensor | None, test: bool
    ) -> Tensor:
        ctx.context, ctx.tile, ctx.saved_analog_tensors = context, tile, [x]
        context.use_torch_update = False
        out = tile.joint_forward(x, test, ctx)
        ctx.save_for_backward(*ctx.saved_analog_tensors)
        return out if bias is None else out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        ctx.saved_analog_tensors = ctx.saved_tensors
        needs_x, needs_bias = ctx.needs_input_grad[2:4]
        d_x = ctx.tile.backward(d, ctx) if needs_x or not ctx.tile.skip_backward() else None
        ctx.context.analog_input.append(ctx.saved_tensors[0])
        ctx.context.analog_grad_output.append(d)
        d_bias = d.reshape(-1, d.shape[-1]).sum(0) if needs_bias else None
        return None, None, d_x, d_bias, None


class FastTile(IndexedTile, AnalogTile):
    """An analog tile on the fast engine; made through ``fast_rpu_config``."""

    supports_indexed = True
    _pending: Task | None = None  # an update that another thread may be at
    # the mapping's scales, their version, and the one scale if they are one
    _scale: tuple[Any, int | None, float | None] = (torch.empty(0), None, None)

    @property
    def tile(self) -> FastSimulatorTile:
        """The tile's simulator, once its last update is done."""
        self.finish_update()
        simulator: FastSimulatorTile = self.__dict__["tile"]
        return simulator

    @tile.setter
    def tile(self, simulator: FastSimulatorTile) -> None:
        self.__dict__["tile"] = simulator

    def finish_update(self) -> None:
        """See that the last update is done; what it raised in another thread is raised here."""
        if (pending := self._pending) is not None:
            self._pending = None
            pending.finish()

    def __getstate__(self) -> dict[str, Any]:
        self.finish_update()
        state: dict[str, Any] = super().__getstate__()
        return state

    def simulator_class(self, rpu_config: FastRPUConfig) -> type[ArraysTile]:
        """Find the class of the tiles that run a configuration's algorithm."""
        mixed = isinstance(rpu_config.device, MixedPrecisionCompound)
        return MixedPrecisionTile if mixed else PulsedTile

    def _create_simulator_tile(
        self, x_size: int, d_size: int, rpu_config: FastRPUConfig
    ) -> FastSimulatorTile:
        number = rpu_config.tile_count.next()
        return self.simulator_class(rpu_config)(x_size, d_size, rpu_config, number)

    def _recreate_simulator_tile(
        self, x_size: int, d_size: int, rpu_config: FastRPUConfig
    ) -> FastSimulatorTile:
        return self.simulator_class(rpu_config)(x_size, d_size, rpu_config, draw=False)

    def _one_scale(self) -> float | None:
        """Find the tile's one digital output scale; ``None`` if there is more to its periphery."""
        scales = self._buffers["mapping_scales"]
        version = None if scales is None else scales._version
        if self._scale[0] is not scales or self._scale[1] != version:
            self._scale = (scales, version, self._find_scale(scales))
        return self._scale[2]

    def _find_scale(self, scales: Tensor | None) -> float | None:
        plain = self.input_range is None and not (self.in_trans or self.out_trans)
        if not plain or hasattr(self.rpu_config.pre_post, "periph_quant"):
            return None
        if scales is None:
            return 1.0
        return float(scales) if scales.numel() == 1 else None

    def forward(self, x_input: Tensor, tensor_view: tuple[int, ...] | None = None) -> Tensor:
        """Multiply, with the digital scales and bias: ``[..., in]`` to ``[..., out]``."""
        plain = tensor_view is None and self.out_scaling_alpha is None
        if self.analog_ctx.use_indexed or not plain or self._one_scale() is None:
            return super().forward(x_input, tensor_view)
        bias = self.bias if self.digital_bias else None
        apply: Any = _Product.apply
        out: Tensor = apply(self.analog_ctx, self, x_input, bias, not self.training)
        return out

    def skip_backward(self) -> bool:
        """Count a backward pass without carrying it out, where its number of passes is known."""
        return self.tile.skip_backward()

    # The next three do what TileWithPeriphery does, with the digital scale inside the kernels.

    def joint_forward(self, x_input: Tensor, is_test: bool = False, ctx: Any = None) -> Tensor:
        """Run the forward pass with the digital output scale: ``[..., in]`` to ``[..., out]``."""
        scale = self._one_scale()
        if scale is None:
            return super().joint_forward(x_input, is_test, ctx)
        tile = self.tile
        rows = tile.rows_of(x_input, tile.x_size, False, self.analog_bias)
        out, top = tile.product(rows, gain_out=scale)
        shape = (*x_input.shape[:-1], self.out_size)
        bound = self.get_forward_out_bound()
        if ctx is not None and bound is not None and top >= bound:
            ctx.saved_analog_tensors.append((out.abs() >= bound * abs(scale)).view(shape))
        return out if len(shape) == 2 else out.view(shape)

    def backward(self, d_input: Tensor, ctx: Any = None) -> Tensor:
        """Run the backward pass: ``[..., out]`` to ``[..., in]``."""
        scale = self._one_scale()
        if scale is None:
            return super().backward(d_input, ctx)
        tile = self.tile
        if ctx is not None and len(ctx.saved_analog_tensors) > 1:
            d_input = torch.where(ctx.saved_analog_tensors[1], 0.0, d_input)
        rows = tile.rows_of(d_input, tile.d_size, False, False)
        out, _ = tile.product(rows, transposed=True, gain_in=scale)
        if self.analog_bias:
            out = out[:, :-1]
        return out if d_input.dim() == 2 else out.reshape(*d_input.shape[:-1], self.in_size)

    def update(self, x_input: Tensor, d_input: Tensor) -> None:
        """Update the arrays with ``[..., in]`` inputs and ``[..., out]`` gradients.

        With several threads, at the latest when the tile is next used: the tensors are not to be
        changed until then (`AnalogSGD` hands over copies).
        """
        scale = self._one_scale()
        if scale is None:
            super().update(x_input, d_input)
            return
        tile = self.tile
        x = tile.rows_of(x_input, tile.x_size, False, self.analog_bias)
        d = tile.rows_of(d_input, tile.d_size, False, False)
        divisor = 1.0 if self._scale[0] is None else scale * self.mapping_lr_scale
        if threads.several():
            self._pending = Task(partial(tile.update_rows, x, d, divisor))
        else:
            tile.update_rows(x, d, divisor)

    def pulse_counts(self) -> dict[str, Array]:
        """Count the pulses that have reached each cell: see `ArraysTile.pulse_counts`."""
        return self.tile.pulse_counts()

    def cuda(self, device: Any = None) -> FastTile:
        """Refuse: the fast engine runs on the CPU.

        Raises:
            TileError: always.
        """
        raise TileError("the fast engine runs on the CPU")
