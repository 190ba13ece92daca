"""State and operations of one crossbar tile on the fast engine, as aihwkit's simulator tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from aihwkit.simulator.tiles.base import SimulatorTile
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim.config import FastRPUConfig
from analogtl.fastsim.periphery import analog_product
from analogtl.fastsim.spec import io_numbers
from analogtl.fastsim.streams import stream

STATE_FORMAT = 3  # of a captured state
_SINGLE = (
    "format",
    "x_size",
    "d_size",
    "seed",
    "draw_seed",
    "number",
    "learning_rate",
)  # no arrays nor lists
_LISTS = ("dw_min",)
# tensors have no unsigned numbers of these sizes
_SIGNED = {"x_bits": np.int32, "d_bits": np.int16, "planes": np.int64}


Array = k.Array


class FastSimulatorTile(SimulatorTile):
    """One crossbar tile with ``x_size`` columns and ``d_size`` rows: products, state, small things.

    What its arrays are, and how an update changes them, is the subclasses' matter:
    `analogtl.fastsim.arrays`.

    Args:
        x_size: Number of inputs.
        d_size: Number of outputs.
        rpu_config: A ``FastRPUConfig``.
        number: The tile's number among those made from the configuration.
    """

    def __init__(
        self, x_size: int, d_size: int, rpu_config: FastRPUConfig, number: int = 0
    ) -> None:
        self.x_size, self.d_size = x_size, d_size
        self.learning_rate = 0.01
        self.number = number
        self.seed = np.uint64(stream(np.uint64(rpu_config.seed & (2**64 - 1)), 0, number))
        # The first tile of a configuration gets aihwkit's own draw.
        own = int(rpu_config.device.construction_seed)
        if own == 0 or number > 0:
            own = int(stream(self.seed if own == 0 else np.uint64(own), 1, number))
        self.draw_seed = own
        self.compound = rpu_config.device
        self._config = rpu_config
        self.forward_io = io_numbers(rpu_config.forward, forward=True)
        self.backward_io = io_numbers(rpu_config.backward, forward=False)
        self.counts = np.zeros(10, np.int64)

    def matrix(self) -> Tensor:
        """The weights that the products see, ``[x_size, d_size]``, in place."""
        raise NotImplementedError

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        raise NotImplementedError

    # -- forward, backward, update ----------------------------------------------------------------

    def rows_of(self, values: Tensor, size: int, trans: bool, bias: bool) -> Tensor:
        """``values`` as ``[N, size]`` float32 rows without gradient."""
        if values.requires_grad:
            values = values.detach()
        if values.dtype != torch.float32:
            raise TileError("the fast engine computes in float32")
        if values.dim() < 1 or values.shape[0 if trans else -1] != size - int(bias):
            raise TileError(f"Invalid dimensions: expected {size - int(bias)} values per vector.")
        flat = values
        if trans:
            flat = values.reshape(values.shape[0], -1).T
        elif values.dim() != 2:
            flat = values.reshape(-1, size - int(bias))
        if bias:
            flat = torch.cat([flat, torch.ones(flat.shape[0], 1)], dim=1)
        return flat.contiguous()

    @staticmethod
    def _shaped(flat: Tensor, like: Tensor, in_trans: bool, out_trans: bool) -> Tensor:
        shape = list(like.shape)
        batch = shape[1:] if in_trans else shape[:-1]
        if out_trans:
            return flat.T.reshape([flat.shape[1], *batch]).contiguous()
        return flat.reshape([*batch, flat.shape[1]])

    def product(
        self, rows: Tensor, transposed: bool = False, gain_in: float = 1.0, gain_out: float = 1.0
    ) -> tuple[Tensor, float]:
        """Multiply with the weights (or their transpose), through the periphery.

        ``rows * gain_in`` go in, and what comes out is multiplied by ``gain_out``.

        Returns the product ``[N, out]`` and its largest absolute value before ``gain_out``.
        """
        io = self.backward_io if transposed else self.forward_io
        matrix = self.matrix().T if transposed else self.matrix()
        return analog_product(
            rows, matrix, io, gain_in, gain_out, self.seed, self._next_product, transposed
        )

    def skip_backward(self) -> bool:
        """Count a backward pass without carrying it out; not where it may be several passes."""
        if self.backward_io.bound_management and not self.backward_io.is_perfect:
            return False
        if not self.backward_io.is_perfect:
            self._next_product()
        return True

    def _next_product(self) -> int:
        """Count a pass through the periphery, or of another draw of noise: its stream."""
        self.counts[k.PRODUCTS] += 1
        return int(self.counts[k.PRODUCTS]) - 1

    def forward(
        self,
        x_input: Tensor,
        bias: bool = False,
        in_trans: bool = False,
        out_trans: bool = False,
        is_test: bool = False,
        non_blocking: bool = False,
    ) -> Tensor:
        """Multiply with the weights: ``[..., in]`` to ``[..., out]``."""
        rows = self.rows_of(x_input, self.x_size, in_trans, bias)
        out, _ = self.product(rows)
        return self._shaped(out, x_input, in_trans, out_trans)

    def backward(
        self,
        d_input: Tensor,
        bias: bool = False,
        in_trans: bool = False,
        out_trans: bool = False,
        non_blocking: bool = False,
    ) -> Tensor:
        """Multiply with the transposed weights: ``[..., out]`` to ``[..., in]``."""
        rows = self.rows_of(d_input, self.d_size, in_trans, False)
        out, _ = self.product(rows, transposed=True)
        if bias:
            out = out[:, :-1].contiguous()
        return self._shaped(out, d_input, in_trans, out_trans)

    def update(
        self,
        x_input: Tensor,
        d_input: Tensor,
        bias: bool = False,
        in_trans: bool = False,
        out_trans: bool = False,
        non_blocking: bool = False,
    ) -> None:
        """Update with inputs ``[..., in]`` and output gradients ``[..., out]``."""
        x = self.rows_of(x_input, self.x_size, in_trans, bias)
        d = self.rows_of(d_input, self.d_size, out_trans, False)
        self.update_rows(x, d)

    def get_weights(self) -> Tensor:
        """Copy the weights that the products see, ``[out, in]``."""
        return self.matrix().T.contiguous()

    # -- state ------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, Array]:
        """Collect the arrays that change, by the names that saved states have."""
        return {"counts": self.counts}

    def state(self, *, copy: bool = True) -> dict[str, Any]:
        """Give the complete state as tensors, numbers and lists; loading it restores every bit.

        Args:
            copy: Whether it stays as it is when the tile goes on; else its arrays are the tile's.
        """
        out: dict[str, Any] = {
            "format": STATE_FORMAT,
            "x_size": self.x_size,
            "d_size": self.d_size,
            "seed": str(int(self.seed)),
            "draw_seed": str(self.draw_seed),
            "number": self.number,
            "learning_rate": float(self.learning_rate),
        }
        for name, array in self._arrays().items():
            if name in _SIGNED:
                array = array.view(_SIGNED[name])
            out[name] = torch.from_numpy(array.copy() if copy else array)
        return out

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned.

        Raises:
            TileError: if the state is of another kind of tile.
        """
        if int(state["format"]) != STATE_FORMAT:
            raise TileError(f"tile state of format {state['format']}, expected {STATE_FORMAT}")
        if (int(state["x_size"]), int(state["d_size"])) != (self.x_size, self.d_size):
            raise TileError("tile state of another size")
        for name, array in self._arrays().items():
            value = state[name].detach().cpu().numpy()
            if name in _SIGNED:
                value = value.view(array.dtype)
            if value.shape != array.shape or value.dtype != array.dtype:
                raise TileError(f"tile state: unexpected shape of {name}")
            array[...] = value
        self.seed = np.uint64(int(state["seed"]))
        self.draw_seed = int(state["draw_seed"])
        self.number = int(state["number"])
        self.learning_rate = float(state["learning_rate"])

    def dump_extra(self) -> dict[str, Any]:
        """Copy the complete state for a state_dict: everything as a sequence."""
        return {
            key: value if isinstance(value, Tensor | list) else [value]
            for key, value in self.state().items()
        }

    def load_extra(self, extra: dict[str, Any], strict: bool = False) -> None:
        """Restore ``dump_extra``'s state; another engine's is left alone unless ``strict``.

        Raises:
            RuntimeError: if ``strict`` and something is missing.
        """
        missing = sorted({*_SINGLE, *_LISTS, *self._arrays()} - extra.keys())
        if missing and strict:
            raise RuntimeError(f"tile state without {', '.join(missing)}")
        if not missing:
            self.load_state({key: v[0] if key in _SINGLE else v for key, v in extra.items()})

    # -- small things -----------------------------------------------------------------------------

    def get_x_size(self) -> int:
        """Get the number of columns."""
        return self.x_size

    def get_d_size(self) -> int:
        """Get the number of rows."""
        return self.d_size

    def get_learning_rate(self) -> float:
        """Get the learning rate of the next update."""
        return self.learning_rate

    def set_learning_rate(self, learning_rate: float | None) -> None:
        """Set the learning rate of the next updates."""
        if learning_rate is not None:
            self.learning_rate = float(learning_rate)

    def get_brief_info(self) -> str:
        """Describe the tile in one line."""
        return f"FastTile[{type(self.compound).__name__}]({self.d_size},{self.x_size})"

    def get_meta_parameters(self) -> Any:
        """Get the periphery's and the update's parameters, as aihwkit's own tiles give them."""
        return self._config.as_bindings()

    def get_hidden_update_index(self) -> int:
        """Get the device that receives the update: always A."""
        return 0

    def set_hidden_update_index(self, index: int) -> None:
        """Ignored, as for every transfer compound."""
