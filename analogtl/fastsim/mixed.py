"""Mixed precision: gradients are added up in digital, and written onto the array cell by cell.

The rank updates go into a digital matrix chi. Every so often its rows are read: where a cell's chi
has grown to whole steps of the device (``granularity``), that many are taken off and sent to the
array as pulses (Nandakumar et al., Front. Neurosci. 14, 406, 2020; aihwkit's
``MixedPrecisionCompound``).
"""

from __future__ import annotations

import numpy as np
import torch
from aihwkit.exceptions import TileError
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim import streams
from analogtl.fastsim.arrays import ArraysTile
from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.kernels import abs_max, draw_noise, pulse_train, write_cell
from analogtl.fastsim.layout import Array, C
from analogtl.fastsim.streams import mix64, stream, uniform


class MixedPrecisionTile(ArraysTile):
    """A tile whose gradients are added up in digital, before they are written onto its array."""

    def _prepare(self) -> None:
        self.chi = np.zeros_like(self.cells.weight)  # padded with rows that stay 0

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        n_vectors = x.shape[0]
        if n_vectors != d.shape[0]:
            raise TileError(f"{n_vectors} input and {d.shape[0]} gradient vectors")
        if n_vectors == 0 or self.learning_rate == 0.0:
            return
        c, first = self.compound, int(self.counts[k.UPDATES])
        inputs = self._binned(x, int(c.n_x_bins), c.stoc_round_x, streams.X_BITS)
        gradients = self._binned(d, int(c.n_d_bins), c.stoc_round_d, streams.D_BITS)
        chi = torch.from_numpy(self.chi)[:, : self.d_size]
        every, begin = int(c.transfer_every * n_vectors), 0
        while begin < n_vectors:
            # A transfer follows the vector before which a whole number of periods has passed.
            wait = -(first + begin) % every if every > 0 else n_vectors
            wait = every if first + begin == 0 and every > 0 else wait
            end = min(begin + wait + 1, n_vectors)
            chi.addmm_(
                inputs[begin:end].T, gradients[begin:end], alpha=self.learning_rate / divisor
            )
            if begin + wait < n_vectors:
                self._transfer()
            begin = end
        self.counts[k.UPDATES] += n_vectors

    def _binned(self, values: Tensor, bins: int, stochastic: bool, purpose: int) -> Tensor:
        """Quantise each vector to ``bins`` steps of its own range; 0: not at all."""
        if bins <= 0:
            return values
        out = torch.empty_like(values)
        key = stream(self.seed, purpose, int(self.counts[k.UPDATES]))
        quantise(values.numpy(), np.float32(bins // 2), stochastic, np.uint64(key), out.numpy())
        return out

    def _transfer(self) -> None:
        """Send the whole steps of the next rows of chi to the array."""
        c, size = self.compound, self.d_size
        if c.n_rows_per_transfer == 0 or c.transfer_lr == 0.0:
            return
        n_rows = size if c.n_rows_per_transfer < 0 else min(int(c.n_rows_per_transfer), size)
        first = int(self.counts[k.COLUMN])
        counter = int(self.counts[k.READS])
        if c.random_row and n_rows < size:
            key = stream(self.seed, streams.READ, -1 - counter)
            first = min(int(uniform(np.uint64(key)) * size), size - 1)
        granularity = np.float32(c.granularity if c.granularity > 0.0 else 0.0)
        write(
            self.chi, self.cells, first, n_rows, size, granularity, np.float32(c.transfer_lr),
            self._packed_spec, self.seed, counter,
        )  # fmt: skip
        self.counts[k.COLUMN] = (first + n_rows) % size
        self.counts[k.READS] += 1

    def _program(self, target: Array) -> None:
        """Program the array; what was added up is gone, as in aihwkit."""
        self.program_device(C, target)
        self.chi[...] = 0.0

    def hidden_arrays(self) -> dict[str, Array]:
        """Name chi, ``[in, out]``."""
        return {"hidden_weights_chi": self.chi[:, : self.d_size]}

    def set_hidden_arrays(self, given: dict[str, Array]) -> None:
        """Set what `hidden_arrays` names."""
        self.chi[:, : self.d_size] = given["hidden_weights_chi"]

    def _arrays(self) -> dict[str, Array]:
        return {**super()._arrays(), "chi": self.chi}


@compiled
def quantise(values, half, stochastic, key, out):
    """Round ``values`` [N, size] to ``half`` steps up and down from 0, of each vector's maximum."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for t in range(values.shape[0]):
        width = np.float32(abs_max(values[t]) / half)
        width = width if width > zero else one
        own = mix64(key + np.uint64(t))
        k1, k2 = streams.key_low(own), streams.key_high(own)
        for i in range(values.shape[1]):
            q = values[t, i] / width
            if stochastic:
                q += streams.uniform_of(streams.hash32(i, k1, k2)) - np.float32(0.5)
            out[t, i] = min(max(np.float32(np.rint(q)), -half), half) * width


@compiled
def write(chi, cells, first, n_rows, size, granularity, rate, packed_spec, seed, counter):
    """Take whole steps off rows of ``chi`` [in, rows], and send them to the array as pulses.

    ``n_rows`` of ``size`` rows from ``first`` on, which are treated as if one after the other: each
    has a pulse train of its own. ``granularity``: what a step is (0: the device's); ``rate``: the
    learning rate of a step of 1.
    """
    spec = packed_spec[0]
    device = spec.slow
    zero, one = np.float32(0.0), np.float32(1.0)
    if granularity <= zero:
        granularity = device.granularity
    noise = draw_noise(stream(seed, streams.POOL, counter), device)
    most = np.zeros(chi.shape[1], np.float32)
    for column in range(chi.shape[0]):
        for row in range(chi.shape[1]):
            most[row] = max(most[row], abs(np.trunc(chi[column, row] / granularity)))
    for row in range(size):
        if (row - first) % size >= n_rows:
            most[row] = zero
    lr = np.float32(granularity * abs(rate))
    lengths = np.zeros(chi.shape[1], np.int64)
    factors = np.zeros(chi.shape[1], np.float32)
    trains = np.zeros((size, max(spec.transfer_train.desired_bl, 1)), np.uint8)
    for row in range(size):
        if most[row] == zero:
            continue
        lengths[row], a, factors[row] = pulse_train(lr, most[row], one, spec.transfer_train)
        rng = stream(seed, streams.D_BITS, (np.int64(counter) << 20) + row)
        for pulse in range(lengths[row]):
            rng = mix64(rng)
            trains[row, pulse] = 1 if uniform(rng) < a else 0
    for column in range(chi.shape[0]):
        rng = stream(seed, streams.READ, (np.int64(counter) << 20) + column)
        more = cells.slow_more[column % cells.slow_more.shape[0]]
        for row in range(size):
            steps = np.trunc(chi[column, row] / granularity)
            if most[row] == zero or steps == zero:
                continue
            chi[column, row] -= steps * granularity
            up = (steps < zero) != (rate < zero)  # positive gradients bring weights down
            rng = write_cell(
                cells.slow[column], more, cells.weight[column], row, up, abs(steps) * factors[row],
                trains[row], lengths[row], noise.normals, device, cells.curves[1], rng,
            )  # fmt: skip
