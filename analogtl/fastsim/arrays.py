"""Tiles whose arrays are aihwkit's pulsed devices: cells, their draw, programming and ageing.

A tile has A, the array that the gradient's pulses go to (cells ``fast``), C, the array that is
written cell by cell (cells ``slow``), or both. A device is named by the array that it makes up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analogtl.fastsim import counting, hidden
from analogtl.fastsim import devices as drawn
from analogtl.fastsim import layout as k
from analogtl.fastsim.config import FastRPUConfig, UnsupportedConfig, unsupported_reason
from analogtl.fastsim.layout import A, Array, C
from analogtl.fastsim.simd import LANES
from analogtl.fastsim.simulator import FastSimulatorTile
from analogtl.fastsim.spec import (
    curves_of,
    device_class,
    devices_of,
    draw_of,
    plain_device,
    spec_of,
)
from analogtl.fastsim.streams import SET, fill_normals, stream

_FEW_CELLS = 4096  # of which what was drawn is kept


class ArraysTile(FastSimulatorTile):
    """A tile with the arrays A, C or both; how an update changes them is the subclasses' matter.

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
        super().__init__(x_size, d_size, rpu_config, number)
        self.devices = {n: plain_device(d) for n, d in devices_of(rpu_config.device).items()}
        self.dw_min = {n: float(device.dw_min) for n, device in self.devices.items()}
        self.renew_spec()
        self.groups = -(-d_size // LANES)

        def cells(n: int, fields: int, wanted: bool = True) -> Array:
            size = x_size if n in self.devices and wanted else 1
            return np.zeros((size, self.groups * fields * LANES), np.float32)

        self.cells = k.Cells(
            fast=cells(A, 8),
            weight=np.zeros((x_size, self.groups * LANES), np.float32),
            slow=cells(C, 6),
            means=cells(A, 2, self.spec.dynamic),
            fast_more=cells(A, 2, self.has_more(A)),
            slow_more=cells(C, 2, self.has_more(C)),
            curves=curves_of(self.devices),
        )
        ones, zeros = (np.full((x_size, d_size), value, np.float32) for value in (1, 0))
        # Share of a weight that is left after a step [in, out], of devices with a lifetime.
        self.decay: dict[int, Array] = {
            n: ones.copy() for n, device in self.devices.items() if device.lifetime > 0.0
        }
        # How far a weight walks at random in a step [in, out], of devices with diffusion.
        self.diffusion: dict[int, Array] = {
            n: zeros.copy() for n, device in self.devices.items() if device.diffusion > 0.0
        }
        # [devices, in, out]; drawn again when it is needed, as only decay needs it often.
        self.kept_reset_bias: Array | None = None
        self._drawn_bias: dict[int, Array] | None = None  # of a small tile, once asked for
        self.part = self.groups_of_part()
        counted = any(device.count_pulses for device in self.devices.values())
        self.planes = counting.new_planes(
            x_size * len(self.devices), self.groups, self.part, counted
        )
        self._prepare()
        if draw:
            every = self._drawn()
            for n, of_device in every.items():
                self._take(n, of_device)
            if self.decay:
                bias = [of_device[:, drawn.RESET_BIAS] for of_device in every.values()]
                self.kept_reset_bias = np.stack(bias)
            self.set_weights(torch.zeros(d_size, x_size))

    # -- construction -----------------------------------------------------------------------------

    def groups_of_part(self) -> int:
        """Count the groups of rows whose pulses are counted together: two if there are as many."""
        return min(self.groups, 2)

    def _prepare(self) -> None:
        """Make the arrays of an algorithm, before the devices are drawn."""

    def renew_spec(self) -> None:
        """Take the numbers of the configuration, with the tile's own ``dw_min``."""
        self.set_spec(spec_of(self._config, self.x_size, self.dw_min))

    def set_spec(self, spec: k.Spec) -> None:
        """Take these numbers."""
        self.spec, self._packed_spec = spec, k.packed(spec)

    def has_more(self, n: int) -> bool:
        """Whether the cells of device ``n`` have slopes or exponents beside bounds and steps."""
        known = device_class(self.devices.get(n))
        return (
            known is not None and known.response in (k.LINEAR, k.POW) and known.drawn != drawn.PLAIN
        )

    def more(self, n: int) -> Array:
        """The array of the slopes or exponents of device ``n``."""
        return (self.cells.fast_more, self.cells.slow_more)[n]

    def _drawn(self) -> dict[int, Array]:
        """Draw the cells of all devices, [in, fields, out] each: always the same."""
        state = self.draw_seed % drawn.MODULUS or 1
        saved, has_saved = np.float32(0.0), False
        found = {}
        for n, device in self.devices.items():
            cells = np.zeros((self.x_size, drawn.N_FIELDS, self.d_size), np.float32)
            state, saved, has_saved = drawn.draw_device(
                cells, draw_of(device), self.d_size, state, np.float32(saved), has_saved
            )
            found[n] = cells
        return found

    def _take(self, n: int, cells: Array) -> None:
        """Take the drawn cells of device ``n``."""
        for i in range(5):
            self.put(self.cells_of(n), k.REFERENCES[min(n, C)] + i, cells[:, i])
        if self.has_more(n):
            self.put(self.more(n), 0, cells[:, drawn.MORE_UP])
            self.put(self.more(n), 1, cells[:, drawn.MORE_DOWN])
        if n in self.decay:
            self.decay[n] = np.ascontiguousarray(cells[:, drawn.DECAY])
        if n in self.diffusion:
            self.diffusion[n] = np.ascontiguousarray(cells[:, drawn.DIFFUSION])

    def reset_bias(self) -> dict[int, Array]:
        """What a reset brings the cells of each device to, ``[in, out]``."""
        if self.kept_reset_bias is not None:
            return dict(zip(self.devices, self.kept_reset_bias, strict=True))
        if self._drawn_bias is not None:
            return self._drawn_bias
        bias = {n: cells[:, drawn.RESET_BIAS] for n, cells in self._drawn().items()}
        if self.x_size * self.d_size <= _FEW_CELLS:
            self._drawn_bias = bias
        return bias

    # -- cells ------------------------------------------------------------------------------------

    def cells_of(self, n: int) -> Array:
        """The cells of device ``n``."""
        return (self.cells.fast, self.cells.slow)[n]

    def field(self, cells: Array, field: int) -> Array:
        """View one field of the cells, ``[x_size, groups, LANES]``."""
        return cells.reshape(self.x_size, self.groups, -1, LANES)[:, :, field]

    def get(self, cells: Array, field: int) -> Array:
        """Copy one field of the cells ``[x_size, d_size]``."""
        return self.field(cells, field).reshape(self.x_size, -1)[:, : self.d_size]

    def put(self, cells: Array, field: int, values: Array | float) -> None:
        """Set one field of the cells from ``[x_size, d_size]`` or one number."""
        padded = np.zeros((self.x_size, self.groups * LANES), np.float32)
        padded[:, : self.d_size] = values
        self.field(cells, field)[...] = padded.reshape(self.x_size, -1, LANES)

    def clipped(self, n: int, weights: Array) -> Array:
        """Clip weights ``[in, out]`` to the bounds of device ``n``."""
        first = k.REFERENCES[min(n, C)]
        high, low = (self.get(self.cells_of(n), first + i) for i in (1, 2))
        return np.maximum(np.minimum(weights, high), low)  # the minimum may be above the maximum

    def persistent(self, n: int) -> Array:
        """Copy the persistent weights of device ``n``, ``[in, out]``."""
        return self.get(self.cells_of(n), k.PERSISTENT)  # which comes first in A and in C

    def apparent(self, n: int, cells: Array) -> Array:
        """Copy the apparent weights of device ``n`` with these cells, ``[in, out]``."""
        if n == A:
            return self.get(cells, k.APPARENT)
        return self.cells.weight[:, : self.d_size].copy()

    def put_apparent(self, n: int, weights: Array | float) -> None:
        """Set the apparent weights of device ``n`` ``[in, out]``."""
        if n == A:
            self.put(self.cells.fast, k.APPARENT, weights)
        else:
            self.cells.weight[:, : self.d_size] = weights

    # -- pulses -----------------------------------------------------------------------------------

    def names_of_arrays(self) -> list[str]:
        """Name the arrays, in the order of the devices."""
        return ["AC"[n] for n in self.devices]

    def pulse_counts(self) -> dict[str, Array]:
        """Count the pulses that have reached each cell, ``[in, out]`` (int64) of each kind.

        "A_up", "A_down", "C_up", "C_down", of the arrays that there are. A pulse counts wherever it
        coincides, also where the cell rests at a bound or cannot move, and also while it waits in
        the ring. Nothing is counted, and this is empty, unless a device has ``count_pulses``.
        """
        if self.planes.size == 0:
            return {}
        planes, names = self.current_planes(), self.names_of_arrays()
        found = {}
        for n, name in enumerate(names):
            for down, direction in enumerate(("up", "down")):
                counts = np.zeros((self.x_size, self.d_size), np.int64)
                counting.numbers(planes, len(names), n, down, counts)
                found[f"{name}_{direction}"] = counts
        return found

    def schedule(self) -> dict[str, int]:
        """Count the vectors of all updates, and the columns of A that were read since."""
        reads = int(self.counts[k.READS]) if C in self.devices else 0
        return {"vectors": int(self.counts[k.VECTORS]), "reads": reads}

    def current_planes(self) -> Array:
        """The counts as they are now; looking does not disturb the run."""
        return self.planes

    def make_room(self, vectors: int) -> None:
        """Keep the counts of pulses from overflowing in an update of so many vectors."""
        self.counts[k.VECTORS] += vectors
        if self.planes.size == 0:
            return
        spec = self.spec
        train = max(spec.transfer_train.desired_bl, math.ceil(spec.step), 1)
        if spec.direct:
            rate = abs(spec.transfer_lr) * max(self.learning_rate, 1.0) / spec.slow.granularity
            train = max(train, math.ceil(rate))
        written = int(self.counts[k.VECTORS]) * len(self.devices) * train
        written *= max(spec.n_reads_per_transfer, 1)
        self.planes = counting.make_room(self.planes, max(written, self.most_pulses(vectors)))

    def most_pulses(self, vectors: int) -> int:
        """Bound the pulses that a cell of A can have got after ``vectors`` more."""
        return 0

    # -- weights ----------------------------------------------------------------------------------

    def matrix(self) -> Tensor:
        """The weights that the products see, ``[x_size, d_size]``, in place."""
        return torch.from_numpy(self.cells.weight)[:, : self.d_size]

    def set_weights(self, weight: Tensor) -> None:
        """Program the array that holds the weights, clipped to its cells' bounds.

        aihwkit also restarts the count of updates and the column (row) to be transferred next.
        """
        if tuple(weight.shape) != (self.d_size, self.x_size):
            raise RuntimeError(
                f"Invalid weights dimensions: expected [{self.d_size},{self.x_size}] tensor"
            )
        self.settle()
        self._program(weight.detach().to(torch.float32).T.contiguous().numpy())
        self.counts[k.UPDATES] = 0
        self.counts[k.COLUMN] = 0
        self.show()

    def _program(self, target: Array) -> None:
        """Program the arrays so that the products see ``target`` [in, out], within the bounds."""
        raise NotImplementedError

    def program_device(self, n: int, target: Array | float) -> None:
        """Set device ``n`` to weights [in, out], within its bounds, with write noise if wanted."""
        device = self.devices[n]
        programmed = self.clipped(n, np.broadcast_to(target, (self.x_size, self.d_size)))
        self.put(self.cells_of(n), k.PERSISTENT, programmed)
        self.put_apparent(n, programmed)
        if self.write_noise(n) > 0.0 and device.apply_write_noise_on_set:
            self._renew_write_noise(n)

    def settle(self) -> None:
        """Bring what is deferred to now, in place."""

    def show(self) -> None:
        """Let the products see the arrays as they are: A, if there is no C."""
        if C not in self.devices:
            self.cells.weight.reshape(self.x_size, -1, LANES)[...] = self.field(
                self.cells.fast, k.APPARENT
            )

    def write_noise(self, n: int) -> float:
        """The write noise of device ``n`` in weight units."""
        return float((self.spec.fast, self.spec.slow)[min(n, C)].write_noise)

    def _renew_write_noise(self, n: int) -> None:
        """Draw the apparent weights of a device anew, from its persistent ones."""
        weights = self.persistent(n)
        if (std := np.float32(self.write_noise(n))) > 0.0:
            weights = weights + std * self._normals()
        self.put_apparent(n, weights)

    def reset_columns(
        self, start_column_idx: int = 0, num_columns: int = 1, reset_prob: float = 1.0
    ) -> None:
        """Reset columns (-1: all), each cell with probability ``reset_prob``, as aihwkit does.

        A cell of A (of C, where there is no A) goes to its reset bias with noise ``reset_std``; the
        whole array gets new write noise.
        """
        self.settle()
        n = min(self.devices)
        count = self.x_size if num_columns < 0 else num_columns
        columns = (start_column_idx + np.arange(min(count, self.x_size))) % self.x_size
        target = self.reset_bias()[n] + self.devices[n].reset_std * self._normals()
        target = self.clipped(n, target)
        rng = np.random.default_rng([int(self.seed), int(self.counts[k.PRODUCTS])])
        chosen = np.zeros((self.x_size, self.d_size), bool)
        chosen[columns] = rng.random((len(columns), self.d_size)) < reset_prob
        self.put(self.cells_of(n), k.PERSISTENT, np.where(chosen, target, self.persistent(n)))
        self._renew_write_noise(n)
        self.show()

    def decay_weights(self, alpha: float = 1.0) -> None:
        """Decay towards the reset bias by ``alpha`` / lifetime, and draw new write noise."""
        self.settle()
        for n in self.devices:
            weights = self.persistent(n)
            if n in self.decay:
                bias = self.reset_bias()[n]
                share = 1 + np.float32(alpha) * (self.decay[n] - 1)
                weights = (weights - bias) * share + bias
            self._set_persistent(n, weights)
        self.show()

    def diffuse_weights(self) -> None:
        """Let every weight take a random step, and draw new write noise."""
        self.settle()
        for n in self.devices:
            step = self.diffusion[n] * self._normals() if n in self.diffusion else 0.0
            self._set_persistent(n, self.persistent(n) + step)
        self.show()

    def _set_persistent(self, n: int, weights: Array) -> None:
        """Set the persistent weights of device ``n``, within bounds; draw new write noise."""
        self.put(self.cells_of(n), k.PERSISTENT, self.clipped(n, weights))
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

    # -- hidden parameters and state --------------------------------------------------------------

    def current(self, n: int) -> Array:
        """The cells of device ``n`` as they are now; looking does not disturb the run."""
        return self.cells_of(n)

    def get_hidden_parameter_names(self) -> list[str]:
        """Name the slices of ``get_hidden_parameters``, as aihwkit does."""
        return hidden.names(self)

    def get_hidden_parameters(self) -> Tensor:
        """Devices, weights and buffer ``[names, out, in]``, as they are now."""
        return hidden.values(self)

    def set_hidden_parameters(self, params: Tensor) -> None:
        """Set devices, weights and buffer from ``[names, out, in]``, exactly as given.

        aihwkit overwrites the persistent with the apparent weights here; this does not.
        """
        self.settle()
        hidden.set_values(self, params)
        self.show()

    def hidden_arrays(self) -> dict[str, Array]:
        """Name the hidden parameters of the algorithm itself, ``[in, out]``, for `hidden`."""
        return {}

    def set_hidden_arrays(self, given: dict[str, Array]) -> None:
        """Set what `hidden_arrays` names."""

    def _arrays(self) -> dict[str, Array]:
        return {
            **super()._arrays(),
            **self.cells._asdict(),
            "planes": self.planes,
            **{f"decay_{n}": d for n, d in self.decay.items()},
            **{f"diffusion_{n}": d for n, d in self.diffusion.items()},
        }

    def state(self, *, copy: bool = True) -> dict[str, Any]:
        """Give the complete state as tensors, numbers and lists; loading it restores every bit.

        Args:
            copy: Whether it stays as it is when the tile goes on; else its arrays are the tile's.
        """
        out = super().state(copy=copy) | {"dw_min": list(self.dw_min.values())}
        if self.kept_reset_bias is not None:
            out["reset_bias"] = torch.from_numpy(self.kept_reset_bias.copy())
        return out

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned.

        Raises:
            TileError: if the state is of another kind of tile.
        """
        if self.planes.size:  # as many as that run needed
            self.planes = np.zeros(tuple(state["planes"].shape), np.uint64)
        super().load_state(state)
        given = state.get("reset_bias")
        self.kept_reset_bias = None if given is None else given.detach().cpu().numpy().copy()
        self._drawn_bias = None
        self.dw_min = dict(zip(self.devices, map(float, state["dw_min"]), strict=True))
        self.renew_spec()
        self.show()
