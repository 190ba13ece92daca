"""The fast tile: an aihwkit analog tile whose simulator is the fast engine."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from aihwkit.simulator.tiles.analog import AnalogTile
from aihwkit.simulator.tiles.base import SimulatorTile
from torch import Tensor

from analogtl.errors import ExperimentError
from analogtl.fastsim import kernels as k
from analogtl.fastsim import periphery as fast_io
from analogtl.fastsim.config import (
    FastRPUConfig,
    device_numbers,
    io_numbers,
    not_covered,
    plain_device,
    spec_of,
)
from analogtl.fastsim.devices import draw_device
from analogtl.fastsim.streams import BACKWARD, FLUSH, FORWARD, SET, fill_normals, stream

STATE_FORMAT = 1  # of a captured state
_ARRAYS = (
    "fast", "weight", "slow", "means", "x_bits", "d_bits", "start", "in_chop", "switched",
    "out_chop", "counts", "averages", "reset_bias",
)  # fmt: skip
_STATE = {*_ARRAYS, "format", "x_size", "d_size", "seed", "number", "learning_rate", "dw_min"}
_SIGNED = {"x_bits": np.int32, "d_bits": np.int16}  # tensors have no unsigned numbers of this size


_buffers = threading.local()


def _scratch(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor that lives until the thread asks again."""
    size = math.prod(shape)
    buffer = getattr(_buffers, "buffer", None)
    if buffer is None or buffer.numel() < size:
        buffer = _buffers.buffer = torch.empty(max(size, 1 << 16))
    return buffer[:size].view(*shape)


class FastSimulatorTile(SimulatorTile):
    """State and operations of one crossbar tile with ``x_size`` columns and ``d_size`` rows.

    Args:
        x_size: Number of inputs.
        d_size: Number of outputs.
        rpu_config: A ``FastRPUConfig``.
        number: The tile's number among those made from the configuration.
        draw: Whether to draw devices and program zero weights; without, the state is to be loaded.

    Raises:
        ExperimentError: if the engine does not cover the configuration.
    """

    def __init__(
        self,
        x_size: int,
        d_size: int,
        rpu_config: FastRPUConfig,
        number: int = 0,
        draw: bool = True,
    ) -> None:
        problem = not_covered(rpu_config)
        if problem is None and not isinstance(rpu_config, FastRPUConfig):
            problem = "a fast tile takes a configuration that fast_rpu_config made"
        if problem is not None:  # the configuration may have been changed since
            raise ExperimentError(problem)
        self.x_size, self.d_size = x_size, d_size
        self.learning_rate = 0.01
        self.hide = False  # whether to leave the hidden parameters out of a state
        self.number = number
        self.seed = np.uint64(stream(np.uint64(rpu_config.seed & (2**64 - 1)), 0, number))
        self.devices = [plain_device(d) for d in rpu_config.device.unit_cell_devices]
        self.compound = rpu_config.device
        self.dw_min = [float(d.dw_min) for d in self.devices]
        self._config = rpu_config
        self.forward_io = io_numbers(rpu_config.forward, forward=True)
        self.backward_io = io_numbers(rpu_config.backward, forward=False)
        self._make_spec()
        groups = -(-d_size // k.LANES)
        rows = groups * k.LANES
        slots = 1024
        while slots < 2 * max(x_size, 2 * self.spec.desired_bl) + 512:
            slots *= 2
        agad = x_size if self.spec.dynamic else 1
        self.fast = np.zeros((x_size, groups * 8 * k.LANES), np.float32)
        self.slow = np.zeros((x_size, groups * 6 * k.LANES), np.float32)
        self.weight = np.zeros((x_size, rows), np.float32)
        self.means = np.zeros((agad, groups * 2 * k.LANES), np.float32)
        self.x_bits = np.zeros((slots // 32, 2, x_size), np.uint32)
        self.d_bits = np.zeros((groups, slots, 2 * k.BLOCKS), np.uint16)
        self.start = np.zeros(x_size, np.int64)
        self.in_chop = np.zeros(x_size, np.uint8)
        self.switched = np.zeros(x_size, np.uint8)
        self.out_chop = np.ones(rows, np.float32)
        self.counts = np.zeros(10, np.int64)
        self.averages = np.zeros(3, np.float32)
        self.averages[k.COUNT_LR] = 1.0
        self.reset_bias = np.zeros((2, x_size, d_size), np.float32)
        if draw:
            self._draw()
            self.set_weights(torch.zeros(d_size, x_size))

    # -- construction -----------------------------------------------------------------------------

    def _make_spec(self) -> None:
        self.spec = spec_of(self._config, self.x_size, (self.dw_min[0], self.dw_min[1]))

    def _draw(self) -> None:
        """Draw both devices' cells; the first tile of a configuration gets aihwkit's own draw."""
        seed = int(self.compound.construction_seed)
        if seed == 0 or self.number > 0:
            seed = int(stream(self.seed if seed == 0 else np.uint64(seed), 1, self.number))
        state = seed % 2147483647 or 1
        saved, has_saved = np.float32(0.0), False
        cells = np.zeros((self.x_size, 6, self.d_size), np.float32)
        for n, device in enumerate(self.devices):
            numbers, is_reference = device_numbers(device)
            flags = (
                bool(device.dw_min_dtod_log_normal),
                bool(device.enforce_consistency),
                bool(device.perfect_bias),
                is_reference,
                bool(getattr(device, "subtract_symmetry_point", False)),
                self.d_size,
            )
            state, saved, has_saved = draw_device(
                cells, numbers, flags, state, np.float32(saved), has_saved
            )
            first = k.REFERENCE if n == 0 else k.C_REFERENCE
            for i in range(5):
                self._put(self.fast if n == 0 else self.slow, first + i, cells[:, i])
            self.reset_bias[n] = cells[:, 5]

    def _field(self, cells: np.ndarray, field: int) -> np.ndarray:
        """One field of the cells in place, ``[x_size, groups, LANES]``."""
        grouped = cells.reshape(self.x_size, self.d_bits.shape[0], -1, k.LANES)
        return grouped[:, :, field]

    def _get(self, cells: np.ndarray, field: int) -> np.ndarray:
        """One field of the cells as a copy ``[x_size, d_size]``."""
        return self._field(cells, field).reshape(self.x_size, -1)[:, : self.d_size]

    def _put(self, cells: np.ndarray, field: int, values: np.ndarray | float) -> None:
        """Set one field of the cells from ``[x_size, d_size]`` or one number."""
        padded = np.zeros((self.x_size, self.weight.shape[1]), np.float32)
        padded[:, : self.d_size] = values
        self._field(cells, field)[...] = padded.reshape(self.x_size, -1, k.LANES)

    # -- forward, backward, update ----------------------------------------------------------------

    def _matrix(self) -> Tensor:
        """C's apparent weights, ``[x_size, d_size]``, in place."""
        return torch.from_numpy(self.weight)[:, : self.d_size]

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
        matrix = self._matrix().T if transposed else self._matrix()
        if io.is_perfect:
            out = rows @ matrix
            factor = gain_in * float(io.out_scale)
            if factor != 1.0:
                out *= factor
            top = float(out.abs().max()) if out.numel() else 0.0
            return (out if gain_out == 1.0 else out.mul_(gain_out)), top
        n = rows.shape[0]
        passed = np.empty(n, np.uint8)
        out = torch.empty(n, matrix.shape[1])
        top = self._pass(rows, matrix, io, transposed, gain_in, gain_out, 1.0, passed, out)
        reduction, todo = 1.0, np.arange(n)
        while io.bound_management and not passed.all():
            if int(reduction) > io.max_bm_factor or (
                io.inp_res > 0.0 and reduction > io.max_bm_res / io.inp_res
            ):
                break
            todo = todo[passed == 0]
            reduction *= 2.0
            passed = np.empty(len(todo), np.uint8)
            index = torch.from_numpy(todo)
            again = torch.empty(len(todo), matrix.shape[1])
            more = self._pass(
                rows[index], matrix, io, transposed, gain_in, gain_out, reduction, passed, again
            )
            out[index] = again
            top = max(top, more)
        return out, top

    def _pass(
        self, rows: Tensor, matrix: Tensor, io: fast_io.IO, transposed: bool, gain_in: float,
        gain_out: float, reduction: float, passed: np.ndarray, out: Tensor,
    ) -> float:  # fmt: skip
        """One analog product of all ``rows`` into ``out``; returns its largest absolute value."""
        purpose = BACKWARD if transposed else FORWARD
        counter = int(self.counts[k.PRODUCTS])
        self.counts[k.PRODUCTS] += 1
        inputs = _scratch(rows.shape)
        scale = np.empty(len(rows), np.float32)
        managed = io.noise_management != fast_io.NONE
        silent = managed and (transposed or io.inp_noise <= 0.0)
        fast_io.prepare(
            rows.numpy(), np.float32(gain_in), io, np.float32(reduction), scale, inputs.numpy(),
            self.seed, purpose, counter,
        )  # fmt: skip
        torch.mm(inputs, matrix, out=out)
        return float(
            fast_io.finish(
                out.numpy(), np.float32(gain_out), io, np.float32(reduction), scale, silent, passed,
                self.seed, purpose, counter,
            )
        )  # fmt: skip

    def forward(
        self,
        x_input: Tensor,
        bias: bool = False,
        in_trans: bool = False,
        out_trans: bool = False,
        is_test: bool = False,
        non_blocking: bool = False,
    ) -> Tensor:
        """Matrix product with the weights of C: ``[..., in]`` to ``[..., out]``."""
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
        """Product with the transposed weights of C: ``[..., out]`` to ``[..., in]``."""
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
        """The analog update with inputs ``[..., in]`` and output gradients ``[..., out]``."""
        x = self.rows_of(x_input, self.x_size, in_trans, bias)
        d = self.rows_of(d_input, self.d_size, out_trans, False)
        self.update_rows(x, d)

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """The update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        if x.shape[0] != d.shape[0]:
            raise TileError(f"{x.shape[0]} input and {d.shape[0]} gradient vectors")
        if x.shape[0] == 0 or self.learning_rate == 0.0:
            return
        k.update(
            x.numpy(), d.numpy(), np.float32(1.0 / divisor), np.float32(self.learning_rate),
            self.fast, self.weight, self.slow, self.means, self.x_bits, self.d_bits, self.start,
            self.in_chop, self.switched, self.out_chop, self.counts, self.averages, self.spec,
            self.seed,
        )  # fmt: skip

    # -- weights and hidden parameters ------------------------------------------------------------

    def get_weights(self) -> Tensor:
        """A copy of C's apparent weights ``[out, in]``."""
        return self._matrix().T.contiguous()

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
        d = self.d_size
        low, high = self._get(self.slow, k.C_MIN), self._get(self.slow, k.C_MAX)
        # the minimum first and then the maximum, where a cell's bounds are the wrong way round
        programmed = np.maximum(np.minimum(target, high), low)
        self._put(self.slow, k.C_PERSISTENT, programmed)
        self.weight[:, :d] = programmed
        if self.spec.slow_write_noise > 0.0 and self.devices[1].apply_write_noise_on_set:
            self._write_noise_c()
        self._put(self.fast, k.APPARENT, 0.0)
        if self.spec.fast_write_noise <= 0.0:
            self._put(self.fast, k.PERSISTENT, 0.0)
        self.counts[k.UPDATES] = 0
        self.counts[k.COLUMN] = 0

    def _write_noise_c(self) -> None:
        """Apparent weights of C anew from the persistent ones."""
        size = (self.x_size, self.d_size)
        noisy = self._get(self.slow, k.C_PERSISTENT)
        if self.spec.slow_write_noise > 0.0:
            noisy = noisy + self.spec.slow_write_noise * self._normals(size, SET)
        self.weight[:, : self.d_size] = noisy

    def _write_noise_a(self) -> None:
        """Apparent weights of A anew from the persistent ones."""
        size = (self.x_size, self.d_size)
        noisy = self._get(self.fast, k.PERSISTENT)
        if self.spec.fast_write_noise > 0.0:
            noisy = noisy + self.spec.fast_write_noise * self._normals(size, SET)
        self._put(self.fast, k.APPARENT, noisy)

    def reset_columns(
        self, start_column_idx: int = 0, num_columns: int = 1, reset_prob: float = 1.0
    ) -> None:
        """Reset columns of A (-1: all), each cell with probability ``reset_prob``, as aihwkit does.

        A cell goes to its reset bias with noise ``reset_std``; all of A gets new write noise.
        """
        self._flush()
        count = self.x_size if num_columns < 0 else num_columns
        columns = (start_column_idx + np.arange(min(count, self.x_size))) % self.x_size
        size = (self.x_size, self.d_size)
        target = self.reset_bias[0] + self.devices[0].reset_std * self._normals(size, SET)
        low, high = self._get(self.fast, k.W_MIN), self._get(self.fast, k.W_MAX)
        target = np.maximum(np.minimum(target, high), low)
        rng = np.random.default_rng([int(self.seed), int(self.counts[k.PRODUCTS])])
        chosen = np.zeros(size, bool)
        chosen[columns] = rng.random((len(columns), self.d_size)) < reset_prob
        self._put(self.fast, k.PERSISTENT, np.where(chosen, target, self._get(self.fast, 0)))
        self._write_noise_a()

    def decay_weights(self, alpha: float = 1.0) -> None:
        """Decay: these devices have none, but get new write noise, as in aihwkit."""
        self._flush()
        self._write_noise_a()
        self._write_noise_c()

    def diffuse_weights(self) -> None:
        """Diffusion: these devices have none, but get new write noise, as in aihwkit."""
        self.decay_weights()

    def drift_weights(self, delta_t: float = 1.0) -> None:
        """Drift: these devices have none."""

    def set_weights_uniform_random(self, bmin: float, bmax: float) -> None:
        """Program weights drawn uniformly between ``bmin`` and ``bmax``."""
        rng = np.random.default_rng([int(self.seed), int(self.counts[k.PRODUCTS])])
        self.counts[k.PRODUCTS] += 1
        values = rng.uniform(bmin, bmax, (self.d_size, self.x_size)).astype(np.float32)
        self.set_weights(torch.from_numpy(values))

    def _normals(self, shape: tuple[int, ...], purpose: int) -> np.ndarray:
        """Normal numbers for an operation outside of training, from a stream of its own."""
        noise = np.empty(math.prod(shape) + 1 & ~1, np.float32)
        fill_normals(noise, np.uint64(stream(self.seed, purpose, int(self.counts[k.PRODUCTS]))))
        self.counts[k.PRODUCTS] += 1
        return noise[: math.prod(shape)].reshape(shape)

    def _flush(self) -> None:
        """Bring all of A to now, in place."""
        if int(self.counts[k.SLOT]) > int(self.start.min()):
            k.flush(
                self.fast, self.x_bits, self.d_bits, self.start, self.in_chop, self.counts,
                self.spec, self.seed, FLUSH,
            )  # fmt: skip
            self.counts[k.POOLS] += 1

    def _current_fast(self) -> np.ndarray:
        """A's cells brought to now in a copy: looking does not disturb the run."""
        fast, start = self.fast.copy(), self.start.copy()
        if int(self.counts[k.SLOT]) > int(start.min()):
            k.flush(
                fast, self.x_bits, self.d_bits, start, self.in_chop, self.counts, self.spec,
                self.seed, FLUSH,
            )  # fmt: skip
        return fast

    def _parameter_names(self, n: int) -> list[str]:
        device = self.devices[n]
        names = ["max_bound", "min_bound", "dwmin_up", "dwmin_down", "decay_scales",
                 "diffusion_rates", "reset_bias", "drift_nu"]  # fmt: skip
        if device.write_noise_std > 0.0:
            names.append("persistent_weights")
        names += ["reference"] if device_numbers(device)[1] else ["slope_up", "slope_down"]
        return [f"{name}_{n}" for name in [*names, "hidden_weights"]]

    def get_hidden_parameter_names(self) -> list[str]:
        """The names of ``get_hidden_parameters``' slices, those of aihwkit."""
        if self.hide:
            return []
        names = self._parameter_names(0) + self._parameter_names(1)
        if self.spec.dynamic:
            return [*names, "buffered_FP_weight", "running_mean_weight", "past_mean_weight"]
        return [*names, "buffered_FP_weight_0"]

    def get_hidden_parameters(self) -> Tensor:
        """Devices, weights and buffer ``[names, out, in]``, A as it is now.

        A's cells are brought to this moment in a copy, so that looking does not change the run.
        """
        if self.hide:
            return torch.empty(0)
        fast = self._current_fast()
        d = self.d_size
        out = []
        for n in range(2):
            cells = fast if n == 0 else self.slow
            first = k.REFERENCE if n == 0 else k.C_REFERENCE
            ref, top, bottom, up, down = (self._get(cells, first + i) for i in range(5))
            apparent = self._get(fast, k.APPARENT) if n == 0 else self.weight[:, :d]
            zero, one = np.zeros_like(top), np.ones_like(top)
            values = [top, bottom, up, down, one, zero, self.reset_bias[n], zero]
            if self.devices[n].write_noise_std > 0.0:
                values.append(self._get(cells, 0))
            if device_numbers(self.devices[n])[1]:
                values.append(ref)
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    values.append(np.where(top != 0.0, -up / top, zero))
                    values.append(np.where(bottom != 0.0, -down / bottom, zero))
            out += [*values, apparent]
        out.append(self._get(fast, k.BUFFER))
        if self.spec.dynamic:
            out += [self._get(self.means, 0), self._get(self.means, 1)]
        return torch.stack([torch.from_numpy(np.ascontiguousarray(v.T)) for v in out])

    def set_hidden_parameters(self, params: Tensor) -> None:
        """Set devices, weights and buffer from ``[names, out, in]``, exactly as given.

        aihwkit overwrites the persistent with the apparent weights here; this does not.
        """
        if params.numel() == 0:
            return
        d = self.d_size
        names = self.get_hidden_parameter_names()
        if tuple(params.shape) != (len(names), d, self.x_size):
            raise RuntimeError("hidden parameters of another tile")
        p = {
            name: value.detach().to(torch.float32).T.contiguous().numpy()
            for name, value in zip(names, params, strict=True)
        }
        fields = ("max_bound", "min_bound", "dwmin_up", "dwmin_down")
        for n in range(2):
            cells = self.fast if n == 0 else self.slow
            first = (k.REFERENCE if n == 0 else k.C_REFERENCE) + 1
            for i, name in enumerate(fields):
                self._put(cells, first + i, p[f"{name}_{n}"])
            if f"reference_{n}" in p:
                self._put(cells, first - 1, p[f"reference_{n}"])
            elif not self._slopes_follow(p, n):
                raise TileError("slopes of a soft-bounds device that its bounds do not give")
            self.reset_bias[n] = p[f"reset_bias_{n}"]
            hidden = p[f"hidden_weights_{n}"]
            self._put(cells, 0, p.get(f"persistent_weights_{n}", hidden))
            if n == 0:
                self._put(cells, k.APPARENT, hidden)
            else:
                self.weight[:, :d] = hidden
            mean = float((np.abs(p[f"dwmin_up_{n}"]) + np.abs(p[f"dwmin_down_{n}"])).mean() / 2)
            if abs(mean - self.dw_min[n]) / self.dw_min[n] > 2 * self.devices[n].dw_min_dtod + 1e-5:
                self.dw_min[n] = mean
                self._make_spec()
        dynamic = self.spec.dynamic
        self._put(self.fast, k.BUFFER, p["buffered_FP_weight" + ("" if dynamic else "_0")])
        if dynamic:
            self._put(self.means, 0, p["running_mean_weight"])
            self._put(self.means, 1, p["past_mean_weight"])
        self.start[:] = self.counts[k.SLOT]

    @staticmethod
    def _slopes_follow(p: dict[str, np.ndarray], n: int) -> bool:
        """Whether the slopes given for device ``n`` are those of soft bounds: 0 at the bounds."""
        up = p[f"slope_up_{n}"] * p[f"max_bound_{n}"] + p[f"dwmin_up_{n}"]
        down = p[f"slope_down_{n}"] * p[f"min_bound_{n}"] + p[f"dwmin_down_{n}"]
        scale = 1e-4 * float(np.abs(p[f"dwmin_up_{n}"]).max() + 1e-12)
        return bool(np.abs(up).max() <= scale and np.abs(down).max() <= scale)

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The complete state as tensors, numbers and lists; loading it restores every bit."""
        out: dict[str, Any] = {
            "format": STATE_FORMAT,
            "x_size": self.x_size,
            "d_size": self.d_size,
            "seed": str(int(self.seed)),
            "number": self.number,
            "learning_rate": float(self.learning_rate),
            "dw_min": [float(v) for v in self.dw_min],
        }
        for name in _ARRAYS:
            array = getattr(self, name)
            if name in _SIGNED:
                array = array.view(_SIGNED[name])
            out[name] = torch.from_numpy(array.copy())
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
        for name in _ARRAYS:
            array = getattr(self, name)
            value = state[name].detach().cpu().numpy()
            if name in _SIGNED:
                value = value.view(array.dtype)
            if value.shape != array.shape or value.dtype != array.dtype:
                raise TileError(f"tile state: unexpected shape of {name}")
            array[...] = value
        self.seed = np.uint64(int(state["seed"]))
        self.number = int(state["number"])
        self.learning_rate = float(state["learning_rate"])
        self.dw_min = [float(v) for v in state["dw_min"]]
        self._make_spec()

    def dump_extra(self) -> dict[str, Any]:
        """What a state_dict keeps of the tile: the complete state, everything as a sequence."""
        return {
            key: value if isinstance(value, Tensor | list) else [value]
            for key, value in self.state().items()
        }

    def load_extra(self, extra: dict[str, Any], strict: bool = False) -> None:
        """Restore ``dump_extra``'s state; another engine's is left alone unless ``strict``.

        Raises:
            RuntimeError: if ``strict`` and something is missing.
        """
        missing = sorted(_STATE - extra.keys())
        if missing and strict:
            raise RuntimeError(f"tile state without {', '.join(missing)}")
        if not missing:
            single = _STATE - set(_ARRAYS) - {"dw_min"}
            self.load_state({k: v[0] if k in single else v for k, v in extra.items()})

    # -- small things -----------------------------------------------------------------------------

    def get_x_size(self) -> int:
        """Number of columns."""
        return self.x_size

    def get_d_size(self) -> int:
        """Number of rows."""
        return self.d_size

    def get_learning_rate(self) -> float:
        """The learning rate of the next update."""
        return self.learning_rate

    def set_learning_rate(self, learning_rate: float | None) -> None:
        """Set the learning rate of the next updates."""
        if learning_rate is not None:
            self.learning_rate = float(learning_rate)

    def get_brief_info(self) -> str:
        """One line about the tile."""
        return f"FastTile[{type(self.compound).__name__}]({self.d_size},{self.x_size})"

    def get_meta_parameters(self) -> Any:
        """The periphery's and the update's parameters, as aihwkit's own tiles give them."""
        return self._config.as_bindings()

    def get_hidden_update_index(self) -> int:
        """The device that receives the update: always A."""
        return 0

    def set_hidden_update_index(self, index: int) -> None:
        """Ignored, as for every transfer compound."""


class FastTile(AnalogTile):
    """An analog tile on the fast engine; made through ``fast_rpu_config``."""

    supports_indexed = False

    def _create_simulator_tile(  # type: ignore[override]
        self, x_size: int, d_size: int, rpu_config: FastRPUConfig
    ) -> FastSimulatorTile:
        number = rpu_config.tile_count.next() if isinstance(rpu_config, FastRPUConfig) else 0
        return FastSimulatorTile(x_size, d_size, rpu_config, number)

    def _recreate_simulator_tile(  # type: ignore[override]
        self, x_size: int, d_size: int, rpu_config: FastRPUConfig
    ) -> FastSimulatorTile:
        return FastSimulatorTile(x_size, d_size, rpu_config, draw=False)

    def __getstate__(self) -> dict[str, Any]:
        # "extra" is the complete state: the hidden parameters would only say most of it again.
        self.tile.hide = True
        try:
            return super().__getstate__()
        finally:
            self.tile.hide = False

    def _one_scale(self) -> float | None:
        """The tile's single digital output scale; ``None`` if the periphery does more than that."""
        scales = self.mapping_scales
        plain = self.input_range is None and not (self.in_trans or self.out_trans)
        if not plain or hasattr(self.rpu_config.pre_post, "periph_quant"):
            return None
        if scales is None:
            return 1.0
        return float(scales) if scales.numel() == 1 else None

    # The next three do what TileWithPeriphery does, with the digital scale inside the kernels.

    def joint_forward(self, x_input: Tensor, is_test: bool = False, ctx: Any = None) -> Tensor:
        """The forward pass with the digital output scale: ``[..., in]`` to ``[..., out]``."""
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
        return out.view(shape)

    def backward(self, d_input: Tensor, ctx: Any = None) -> Tensor:
        """The backward pass: ``[..., out]`` to ``[..., in]``."""
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
        return out.reshape(*d_input.shape[:-1], self.in_size)

    def update(self, x_input: Tensor, d_input: Tensor) -> None:
        """The analog update with ``[..., in]`` inputs and ``[..., out]`` gradients."""
        scale = self._one_scale()
        if scale is None:
            super().update(x_input, d_input)
            return
        tile = self.tile
        x = tile.rows_of(x_input, tile.x_size, False, self.analog_bias)
        d = tile.rows_of(d_input, tile.d_size, False, False)
        tile.update_rows(
            x, d, scale * self.mapping_lr_scale if self.mapping_scales is not None else 1.0
        )

    def cuda(self, device: Any = None) -> FastTile:
        """The fast engine runs on the CPU.

        Raises:
            TileError: always.
        """
        raise TileError("the fast engine runs on the CPU")


def tile_state(tile: FastTile) -> dict[str, Any]:
    """A tile's complete analog state: a flat dictionary of tensors, numbers, strings, lists."""
    return tile.tile.state()


def load_tile_state(tile: FastTile, state: dict[str, Any]) -> None:
    """Restore what ``tile_state`` returned, bit for bit.

    Raises:
        TileError: if the state belongs to another kind of tile.
    """
    tile.tile.load_state(state)


def weights_copy(tile: FastTile) -> Tensor:
    """A copy of C's weights as they are stored, ``[in, out]``: to count changed cells."""
    return tile.tile._matrix().clone()
