"""State and operations of one crossbar tile on the fast engine, as aihwkit's simulator tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from aihwkit.simulator.tiles.base import SimulatorTile
from torch import Tensor

from analogtl.fastsim import devices as drawn
from analogtl.fastsim import hidden, kernels
from analogtl.fastsim import layout as k
from analogtl.fastsim.config import (
    FastRPUConfig,
    UnsupportedConfig,
    curves_of,
    device_class,
    draw_of,
    io_numbers,
    plain_device,
    spec_of,
    unsupported_reason,
)
from analogtl.fastsim.periphery import analog_product
from analogtl.fastsim.simd import BLOCKS, LANES
from analogtl.fastsim.streams import FLUSH, SET, fill_normals, stream

STATE_FORMAT = 2  # of a captured state
_SINGLE = (
    "format",
    "x_size",
    "d_size",
    "seed",
    "draw_seed",
    "number",
    "learning_rate",
)  # no arrays nor lists
_SIGNED = {"x_bits": np.int32, "d_bits": np.int16}  # tensors have no unsigned numbers of this size


Array = k.Array


def clipped(values: Array, low: Array, high: Array) -> Array:
    """Clip to the maximum first, then to the minimum, which may be above it."""
    return np.maximum(np.minimum(values, high), low)


class FastSimulatorTile(SimulatorTile):
    """State and operations of one crossbar tile with ``x_size`` columns and ``d_size`` rows.

    Args:
        x_size: Number of inputs.
        d_size: Number of outputs.
        rpu_config: A ``FastRPUConfig``.
        number: The tile's number among those made from the configuration.
        draw: Whether to draw devices and program zero weights; without, the state is to be loaded.

    Raises:
        UnsupportedConfig: if the engine does not cover the configuration.
    """

    def __init__(
        self,
        x_size: int,
        d_size: int,
        rpu_config: FastRPUConfig,
        number: int = 0,
        draw: bool = True,
    ) -> None:
        if reason := unsupported_reason(rpu_config):  # it may have been changed since it was made
            raise UnsupportedConfig(reason)
        self.x_size, self.d_size = x_size, d_size
        self.learning_rate = 0.01
        self.number = number
        self.seed = np.uint64(stream(np.uint64(rpu_config.seed & (2**64 - 1)), 0, number))
        # The first tile of a configuration gets aihwkit's own draw.
        own = int(rpu_config.device.construction_seed)
        if own == 0 or number > 0:
            own = int(stream(self.seed if own == 0 else np.uint64(own), 1, number))
        self.draw_seed = own
        self.devices = [plain_device(d) for d in rpu_config.device.unit_cell_devices]
        self.compound = rpu_config.device
        self.dw_min = [float(d.dw_min) for d in self.devices]
        self._config = rpu_config
        self.forward_io = io_numbers(rpu_config.forward, forward=True)
        self.backward_io = io_numbers(rpu_config.backward, forward=False)
        self.renew_spec()
        groups = -(-d_size // LANES)
        rows = groups * LANES
        slots = 1024
        while slots < 2 * max(x_size, 2 * self.spec.train.desired_bl) + 512:
            slots *= 2
        agad = x_size if self.spec.dynamic else 1
        self.cells = k.Cells(
            fast=np.zeros((x_size, groups * 8 * LANES), np.float32),
            weight=np.zeros((x_size, rows), np.float32),
            slow=np.zeros((x_size, groups * 6 * LANES), np.float32),
            means=np.zeros((agad, groups * 2 * LANES), np.float32),
            fast_more=np.zeros((x_size if self.has_more(0) else 1, groups * 2 * LANES), np.float32),
            slow_more=np.zeros((x_size if self.has_more(1) else 1, groups * 2 * LANES), np.float32),
            curves=curves_of(self.devices),
        )
        self.ring = k.PulseRing(
            x_bits=np.zeros((slots // 32, 2, x_size), np.uint32),
            d_bits=np.zeros((groups, slots, 2 * BLOCKS), np.uint16),
            start=np.zeros(x_size, np.int64),
        )
        self.choppers = k.Choppers(
            in_chop=np.zeros(x_size, np.uint8),
            switched=np.zeros(x_size, np.uint8),
            out_chop=np.ones(rows, np.float32),
        )
        self.counts = np.zeros(10, np.int64)
        self.averages = np.zeros(3, np.float32)
        self.averages[k.COUNT_LR] = 1.0
        # Share of a weight that is left after a step [in, out], of devices with a lifetime.
        self.decay: list[Array | None] = [
            np.ones((x_size, d_size), np.float32) if device.lifetime > 0.0 else None
            for device in self.devices
        ]
        # How far a weight walks at random in a step [in, out], of devices with diffusion.
        self.diffusion: list[Array | None] = [
            np.zeros((x_size, d_size), np.float32) if device.diffusion > 0.0 else None
            for device in self.devices
        ]
        # [2, in, out]; drawn again when it is needed, as only decay needs it often.
        self.kept_reset_bias: Array | None = None
        if draw:
            both = self._drawn()
            for n, cells in enumerate(both):
                self._take(n, cells)
            if any(decay is not None for decay in self.decay):
                self.kept_reset_bias = np.stack([cells[:, drawn.RESET_BIAS] for cells in both])
            self.set_weights(torch.zeros(d_size, x_size))

    # -- construction -----------------------------------------------------------------------------

    def renew_spec(self) -> None:
        """Take the numbers of the configuration, with the tile's own ``dw_min``."""
        self.set_spec(spec_of(self._config, self.x_size, (self.dw_min[0], self.dw_min[1])))

    def set_spec(self, spec: k.Spec) -> None:
        """Take these numbers."""
        self.spec, self._packed_spec = spec, k.packed(spec)

    def has_more(self, n: int) -> bool:
        """Whether the cells of device ``n`` have slopes or exponents beside bounds and steps."""
        known = device_class(self.devices[n])
        assert known is not None
        return known.response in (k.LINEAR, k.POW) and known.drawn != drawn.PLAIN

    def more(self, n: int) -> Array:
        """The array of the slopes or exponents of device ``n``."""
        return (self.cells.fast_more, self.cells.slow_more)[n]

    def _drawn(self) -> list[Array]:
        """Draw both devices' cells, [in, fields, out] each: always the same."""
        state = self.draw_seed % drawn.MODULUS or 1
        saved, has_saved = np.float32(0.0), False
        both = []
        for device in self.devices:
            cells = np.zeros((self.x_size, drawn.N_FIELDS, self.d_size), np.float32)
            state, saved, has_saved = drawn.draw_device(
                cells, draw_of(device), self.d_size, state, np.float32(saved), has_saved
            )
            both.append(cells)
        return both

    def _take(self, n: int, cells: Array) -> None:
        """Take the drawn cells of device ``n``."""
        first = k.REFERENCE if n == 0 else k.C_REFERENCE
        for i in range(5):
            self.put(self.cells.fast if n == 0 else self.cells.slow, first + i, cells[:, i])
        if self.has_more(n):
            self.put(self.more(n), 0, cells[:, drawn.MORE_UP])
            self.put(self.more(n), 1, cells[:, drawn.MORE_DOWN])
        if self.devices[n].lifetime > 0.0:
            self.decay[n] = np.ascontiguousarray(cells[:, drawn.DECAY])
        if self.devices[n].diffusion > 0.0:
            self.diffusion[n] = np.ascontiguousarray(cells[:, drawn.DIFFUSION])

    def reset_bias(self) -> Array:
        """Copy what a reset brings the cells to, ``[2, in, out]``."""
        if self.kept_reset_bias is not None:
            return self.kept_reset_bias
        return np.stack([cells[:, drawn.RESET_BIAS] for cells in self._drawn()])

    def field(self, cells: Array, field: int) -> Array:
        """View one field of the cells, ``[x_size, groups, LANES]``."""
        grouped = cells.reshape(self.x_size, self.ring.d_bits.shape[0], -1, LANES)
        return grouped[:, :, field]

    def get(self, cells: Array, field: int) -> Array:
        """Copy one field of the cells ``[x_size, d_size]``."""
        return self.field(cells, field).reshape(self.x_size, -1)[:, : self.d_size]

    def put(self, cells: Array, field: int, values: Array | float) -> None:
        """Set one field of the cells from ``[x_size, d_size]`` or one number."""
        padded = np.zeros((self.x_size, self.cells.weight.shape[1]), np.float32)
        padded[:, : self.d_size] = values
        self.field(cells, field)[...] = padded.reshape(self.x_size, -1, LANES)

    # -- forward, backward, update ----------------------------------------------------------------

    def matrix(self) -> Tensor:
        """C's apparent weights, ``[x_size, d_size]``, in place."""
        return torch.from_numpy(self.cells.weight)[:, : self.d_size]

    def rows_of(self, values: Tensor, size: int, trans: bool, bias: bool) -> Tensor:
        """``values`` as ``[N, size]`` float32 rows without gradient."""
        values = values.detach()
        if values.dtype != torch.float32:
            raise TileError("the fast engine computes in float32")
        if values.dim() < 1 or values.shape[0 if trans else -1] != size - int(bias):
            raise TileError(f"Invalid dimensions: expected {size - int(bias)} values per vector.")
        flat = (
            values.reshape(values.shape[0], -1).T if trans else values.reshape(-1, size - int(bias))
        )
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
        """``rows * gain_in`` times C (or its transpose), times ``gain_out``, through the periphery.

        Returns the product ``[N, out]`` and its largest absolute value before ``gain_out``.
        """
        io = self.backward_io if transposed else self.forward_io
        matrix = self.matrix().T if transposed else self.matrix()
        return analog_product(
            rows, matrix, io, gain_in, gain_out, self.seed, self._next_product, transposed
        )

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
        """Multiply with the weights of C: ``[..., in]`` to ``[..., out]``."""
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
        """Multiply with the transposed weights of C: ``[..., out]`` to ``[..., in]``."""
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

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        if x.shape[0] != d.shape[0]:
            raise TileError(f"{x.shape[0]} input and {d.shape[0]} gradient vectors")
        if x.shape[0] == 0 or self.learning_rate == 0.0:
            return
        kernels.update(
            x.numpy(), d.numpy(), np.float32(1.0 / divisor), np.float32(self.learning_rate),
            self.cells, self.ring, self.choppers, self.counts, self.averages, self._packed_spec,
            self.seed,
        )  # fmt: skip

    # -- weights and hidden parameters ------------------------------------------------------------

    def get_weights(self) -> Tensor:
        """Copy C's apparent weights ``[out, in]``."""
        return self.matrix().T.contiguous()

    def set_weights(self, weight: Tensor) -> None:
        """Program C, clipped to its cells' bounds; A's apparent weights become 0, as in aihwkit.

        aihwkit also restarts the count of updates and the column to be read next.
        """
        if tuple(weight.shape) != (self.d_size, self.x_size):
            raise RuntimeError(
                f"Invalid weights dimensions: expected [{self.d_size},{self.x_size}] tensor"
            )
        self._flush()
        target = weight.detach().to(torch.float32).T.contiguous().numpy()
        fast, slow = self.cells.fast, self.cells.slow
        programmed = clipped(target, self.get(slow, k.C_MIN), self.get(slow, k.C_MAX))
        self.put(slow, k.C_PERSISTENT, programmed)
        self.cells.weight[:, : self.d_size] = programmed
        if self.spec.slow.write_noise > 0.0 and self.devices[1].apply_write_noise_on_set:
            self._renew_write_noise(1)
        self.put(fast, k.APPARENT, 0.0)
        if self.spec.fast.write_noise <= 0.0:
            self.put(fast, k.PERSISTENT, 0.0)
        self.counts[k.UPDATES] = 0
        self.counts[k.COLUMN] = 0

    def _renew_write_noise(self, n: int) -> None:
        """Draw the apparent weights of a device anew, from its persistent ones."""
        cells, spec = ((self.cells.fast, self.spec.fast), (self.cells.slow, self.spec.slow))[n]
        weights = self._persistent(n)
        if spec.write_noise > 0.0:
            weights = weights + spec.write_noise * self._normals()
        if n == 0:
            self.put(cells, k.APPARENT, weights)
        else:
            self.cells.weight[:, : self.d_size] = weights

    def reset_columns(
        self, start_column_idx: int = 0, num_columns: int = 1, reset_prob: float = 1.0
    ) -> None:
        """Reset columns of A (-1: all), each cell with probability ``reset_prob``, as aihwkit does.

        A cell goes to its reset bias with noise ``reset_std``; all of A gets new write noise.
        """
        self._flush()
        fast = self.cells.fast
        count = self.x_size if num_columns < 0 else num_columns
        columns = (start_column_idx + np.arange(min(count, self.x_size))) % self.x_size
        target = self.reset_bias()[0] + self.devices[0].reset_std * self._normals()
        target = clipped(target, self.get(fast, k.W_MIN), self.get(fast, k.W_MAX))
        rng = np.random.default_rng([int(self.seed), int(self.counts[k.PRODUCTS])])
        chosen = np.zeros((self.x_size, self.d_size), bool)
        chosen[columns] = rng.random((len(columns), self.d_size)) < reset_prob
        self.put(fast, k.PERSISTENT, np.where(chosen, target, self.get(fast, k.PERSISTENT)))
        self._renew_write_noise(0)

    def decay_weights(self, alpha: float = 1.0) -> None:
        """Decay towards the reset bias by ``alpha`` / lifetime, and draw new write noise."""
        self._flush()
        for n, decay in enumerate(self.decay):
            weights = self._persistent(n)
            if decay is not None:
                bias, share = self.reset_bias()[n], 1 + np.float32(alpha) * (decay - 1)
                weights = (weights - bias) * share + bias
            self._set_persistent(n, weights)

    def diffuse_weights(self) -> None:
        """Let every weight take a random step, and draw new write noise."""
        self._flush()
        for n, rate in enumerate(self.diffusion):
            step = 0.0 if rate is None else rate * self._normals()
            self._set_persistent(n, self._persistent(n) + step)

    def _persistent(self, n: int) -> Array:
        """Copy the persistent weights of device ``n``, ``[in, out]``."""
        if n == 0:
            return self.get(self.cells.fast, k.PERSISTENT)
        return self.get(self.cells.slow, k.C_PERSISTENT)

    def _set_persistent(self, n: int, weights: Array) -> None:
        """Set the persistent weights of device ``n``, within bounds; draw new write noise."""
        cells, place, top, bottom = (
            (self.cells.fast, k.PERSISTENT, k.W_MAX, k.W_MIN)
            if n == 0
            else (self.cells.slow, k.C_PERSISTENT, k.C_MAX, k.C_MIN)
        )
        self.put(cells, place, clipped(weights, self.get(cells, bottom), self.get(cells, top)))
        self._renew_write_noise(n)

    def drift_weights(self, delta_t: float = 1.0) -> None:
        """Drift: these devices have none."""

    def set_weights_uniform_random(self, bmin: float, bmax: float) -> None:
        """Program weights drawn uniformly between ``bmin`` and ``bmax``."""
        rng = np.random.default_rng([int(self.seed), self._next_product()])
        values = rng.uniform(bmin, bmax, (self.d_size, self.x_size)).astype(np.float32)
        self.set_weights(torch.from_numpy(values))

    def _normals(self) -> Array:
        """Draw normal numbers ``[x_size, d_size]`` for an operation outside of training."""
        size = self.x_size * self.d_size
        noise = np.empty(size + 1 & ~1, np.float32)
        fill_normals(noise, np.uint64(stream(self.seed, SET, self._next_product())))
        return noise[:size].reshape(self.x_size, self.d_size)

    def _flush(self) -> None:
        """Bring all of A to now, in place."""
        if self._flush_into(self.cells.fast, self.ring):
            self.counts[k.POOLS] += 1

    def current_fast(self) -> Array:
        """Copy A's cells, brought to now: looking does not disturb the run."""
        fast, ring = self.cells.fast.copy(), self.ring._replace(start=self.ring.start.copy())
        self._flush_into(fast, ring)
        return fast

    def _flush_into(self, fast: Array, ring: k.PulseRing) -> bool:
        """Apply the pulses that are still in the ring, if there are any; whether there were."""
        if int(self.counts[k.SLOT]) <= int(ring.start.min()):
            return False
        kernels.flush(
            fast, self.cells.fast_more, self.cells.curves[0], ring, self.choppers, self.counts,
            self._packed_spec, self.seed, FLUSH,
        )  # fmt: skip
        return True

    def get_hidden_parameter_names(self) -> list[str]:
        """Name the slices of ``get_hidden_parameters``, as aihwkit does."""
        return hidden.names(self)

    def get_hidden_parameters(self) -> Tensor:
        """Devices, weights and buffer ``[names, out, in]``, A as it is now."""
        return hidden.values(self)

    def set_hidden_parameters(self, params: Tensor) -> None:
        """Set devices, weights and buffer from ``[names, out, in]``, exactly as given.

        aihwkit overwrites the persistent with the apparent weights here; this does not.
        """
        hidden.set_values(self, params)

    # -- state ------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, Array]:
        """Collect everything that changes, by the names that saved states have."""
        return {
            **self.cells._asdict(),
            **self.ring._asdict(),
            **self.choppers._asdict(),
            "counts": self.counts,
            "averages": self.averages,
            **{f"decay_{n}": d for n, d in enumerate(self.decay) if d is not None},
            **{f"diffusion_{n}": d for n, d in enumerate(self.diffusion) if d is not None},
        }

    def state(self) -> dict[str, Any]:
        """Copy the complete state as tensors, numbers and lists; loading it restores every bit."""
        out: dict[str, Any] = {
            "format": STATE_FORMAT,
            "x_size": self.x_size,
            "d_size": self.d_size,
            "seed": str(int(self.seed)),
            "draw_seed": str(self.draw_seed),
            "number": self.number,
            "learning_rate": float(self.learning_rate),
            "dw_min": [float(v) for v in self.dw_min],
        }
        for name, array in self._arrays().items():
            if name in _SIGNED:
                array = array.view(_SIGNED[name])
            out[name] = torch.from_numpy(array.copy())
        if self.kept_reset_bias is not None:
            out["reset_bias"] = torch.from_numpy(self.kept_reset_bias.copy())
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
        given = state.get("reset_bias")
        self.kept_reset_bias = None if given is None else given.detach().cpu().numpy().copy()
        self.seed = np.uint64(int(state["seed"]))
        self.draw_seed = int(state["draw_seed"])
        self.number = int(state["number"])
        self.learning_rate = float(state["learning_rate"])
        self.dw_min = [float(v) for v in state["dw_min"]]
        self.renew_spec()

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
        missing = sorted({*_SINGLE, "dw_min", *self._arrays()} - extra.keys())
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
