"""Tiles whose array A gets the gradient's pulses: SGD on A itself, or transfers from A to C."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from aihwkit.exceptions import TileError
from torch import Tensor

from analogtl.fastsim import kernels
from analogtl.fastsim import layout as k
from analogtl.fastsim.arrays import ArraysTile
from analogtl.fastsim.compiled import entry_of
from analogtl.fastsim.layout import A, Array, C
from analogtl.fastsim.simd import LANES
from analogtl.fastsim.spec import gammas_of
from analogtl.fastsim.streams import FLUSH

_new_pool = kernels.new_pool.py_func


class _Lent(threading.local):
    """What a thread lends to updates."""

    def __init__(self) -> None:
        self.pool = _new_pool()


_lent = _Lent()


class PulsedTile(ArraysTile):
    """A tile whose update sends pulses to A, by way of a ring that defers them.

    Where the products see A (``gammas``), A is brought to now at the end of each update.
    """

    _own_pool: kernels.Pool | None = None
    _update: Callable[..., bool] | None = None  # for the type of these numbers

    def set_spec(self, spec: k.Spec) -> None:
        """Take these numbers."""
        super().set_spec(spec)
        self._update = None

    def _prepare(self) -> None:
        slots = 1024
        while slots < 2 * max(self.x_size, 2 * self.spec.train.desired_bl) + 512:
            slots *= 2
        width = self.part
        self.ring = k.PulseRing(
            x_bits=np.zeros((slots // 32, 2, self.x_size), np.uint32),
            d_bits=np.zeros((-(-self.groups // width), slots, 2, 4 * width), np.uint16),
            start=np.zeros(self.x_size, np.int64),
        )
        out_chop = np.zeros(self.groups * LANES, np.float32)
        out_chop[: self.d_size] = 1.0
        self.choppers = k.Choppers(
            in_chop=np.zeros(self.x_size, np.uint8),
            switched=np.zeros(self.x_size, np.uint8),
            out_chop=out_chop,
        )
        self.averages = np.zeros(3, np.float32)
        self.averages[k.COUNT_LR] = 1.0
        # What the products see of A and of C; None: C alone, as it is.
        self.gammas = gammas_of(self.compound)
        # Without C, its place has what the products see.
        visible = C in self.devices and self.gammas is not None
        self.visible = np.zeros_like(self.cells.weight) if visible else self.cells.weight

    def matrix(self) -> Tensor:
        """The weights that the products see, ``[x_size, d_size]``, in place."""
        return torch.from_numpy(self.visible)[:, : self.d_size]

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out], contiguous."""
        if not (x.is_contiguous() and d.is_contiguous()):  # the machine code takes their word
            raise TileError("rows of vectors have to be contiguous")
        rows, of_d = x.numpy(), d.numpy()
        n = len(rows)
        if n != len(of_d):
            raise TileError(f"{n} input and {len(of_d)} gradient vectors")
        if n == 0 or self.learning_rate == 0.0:
            return
        self.make_room(n)
        given = (
            rows, of_d, 1.0 / divisor, self.learning_rate,
            self.cells, self.ring, self.choppers, self.planes, self.counts, self.averages,
            self._packed_spec, self.seed, self._pool(n),
        )  # fmt: skip
        if self._update is None:
            self._update = entry_of(kernels.update, *given)
        if not self._update(*given):
            raise TileError(
                f"the learning rate {self.learning_rate} asks for longer pulse trains than the "
                f"{self.ring.d_bits.shape[1]} pulses that are kept; expected fixed_bl = true"
            )
        if self.gammas is not None:
            self.settle()
            self.show()

    def _pool(self, n_vectors: int) -> kernels.Pool:
        """Room for noise: the tile's own where it is used more than once, else the thread's."""
        if 2 * n_vectors > kernels.READS_OF_POOL:
            return _lent.pool
        if self._own_pool is None:
            self._own_pool = _new_pool()
        return self._own_pool

    def show(self) -> None:
        """Let the products see the arrays as they are: the weighted sum of A and C."""
        super().show()
        if C in self.devices and self.gammas is not None:
            of_a, of_c = self.gammas
            apparent = self.field(self.cells.fast, k.APPARENT)
            np.multiply(apparent, of_a, out=self.visible.reshape(apparent.shape))
            self.visible += of_c * self.cells.weight

    # -- weights and hidden parameters ------------------------------------------------------------

    def _program(self, target: Array) -> None:
        """Program C, or A where there is no C; A's apparent weights become 0 beside C."""
        if C not in self.devices:
            self.program_device(A, target)
        elif self.gammas is None:
            self.program_device(C, target)
            self.put(self.cells.fast, k.APPARENT, 0.0)
            if self.spec.fast.write_noise <= 0.0:
                self.put(self.cells.fast, k.PERSISTENT, 0.0)
        else:
            self.program_device(A, 0.0)
            self.program_device(C, target / self.gammas[C])

    def settle(self) -> None:
        """Bring all of A to now, in place."""
        if self._flush_into(self.cells.fast, self.ring, self.planes):
            self.counts[k.POOLS] += 1

    def current(self, n: int) -> Array:
        """The cells of device ``n``, A's copied and brought to now: looking disturbs nothing."""
        if n != A:
            return self.cells_of(n)
        fast, ring = self.cells.fast.copy(), self.ring._replace(start=self.ring.start.copy())
        self._flush_into(fast, ring, self.planes[:, :0])
        return fast

    def current_planes(self) -> Array:
        """Copy the counts, with the pulses that are still in the ring."""
        planes, ring = self.planes.copy(), self.ring._replace(start=self.ring.start.copy())
        self._flush_into(self.cells.fast.copy(), ring, planes)
        return planes

    def most_pulses(self, vectors: int) -> int:
        """Bound the pulses that a cell of A can have got after ``vectors`` more."""
        return int(self.counts[k.SLOT]) + vectors * self.ring.d_bits.shape[1]

    def _flush_into(self, fast: Array, ring: k.PulseRing, planes: Array) -> bool:
        """Apply the pulses that are still in the ring, if there are any; whether there were."""
        if int(self.counts[k.SLOT]) <= int(ring.start.min()):
            return False
        kernels.flush(
            fast, self.cells.fast_more, self.cells.curves[0], ring, self.choppers, planes,
            self.counts, self._packed_spec, self.seed, FLUSH, _lent.pool,
        )  # fmt: skip
        return True

    def hidden_arrays(self) -> dict[str, Array]:
        """Name the buffer and, of AGAD, the means, ``[in, out]``."""
        if C not in self.devices or self.spec.direct:
            return {}
        buffer = self.get(self.cells.fast, k.BUFFER)
        if not self.spec.dynamic:
            return {"buffered_FP_weight_0": buffer}
        means = (self.get(self.cells.means, i) for i in range(2))
        names = ("buffered_FP_weight", "running_mean_weight", "past_mean_weight")
        return dict(zip(names, (buffer, *means), strict=True))

    def set_hidden_arrays(self, given: dict[str, Array]) -> None:
        """Set what `hidden_arrays` names; the ring's pulses are gone."""
        for name, value in given.items():
            if name.startswith("buffered"):
                self.put(self.cells.fast, k.BUFFER, value)
            else:
                self.put(self.cells.means, int(name.startswith("past")), value)
        self.ring.start[:] = self.counts[k.SLOT]

    def _arrays(self) -> dict[str, Array]:
        return {
            **super()._arrays(),
            **self.ring._asdict(),
            **self.choppers._asdict(),
            "averages": self.averages,
        }
