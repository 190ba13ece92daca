"""Mixed precision: gradients are added up in digital, and written onto the array cell by cell.

The rank updates go into a digital matrix chi. Every so often its rows are read: where a cell's chi
has grown to whole steps of the device (``granularity``), that many are taken off and sent to the
array as pulses (Nandakumar et al., Front. Neurosci. 14, 406, 2020; aihwkit's
``MixedPrecisionCompound``).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from aihwkit.exceptions import TileError
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim import simd, streams
from analogtl.fastsim.arrays import ArraysTile
from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.counting import count_group
from analogtl.fastsim.kernels import (
    abs_max,
    apply_group,
    draw_noise,
    pulse_train,
)
from analogtl.fastsim.layout import APPARENT, A, Array
from analogtl.fastsim.simd import BLOCKS, LANES, WIDTH
from analogtl.fastsim.streams import mix64, stream, uniform


class MixedPrecisionTile(ArraysTile):
    """A tile whose gradients are added up in digital, before they are written onto its array."""

    def groups_of_part(self) -> int:
        """Count the groups of rows whose pulses are counted together: each has its own trains."""
        return 1

    def _prepare(self) -> None:
        self.chi = np.zeros_like(self.cells.weight)  # padded with rows that stay 0

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        n_vectors = x.shape[0]
        if n_vectors != d.shape[0]:
            raise TileError(f"{n_vectors} input and {d.shape[0]} gradient vectors")
        if n_vectors == 0 or self.learning_rate == 0.0:
            return
        self.make_room(n_vectors)
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
        granularity = np.float32(c.granularity) or self.spec.fast.granularity
        write(
            self.chi, self.cells.fast, self.cells.fast_more, self.cells.weight[:, :size],
            self.cells.curves[A], self.planes, first, n_rows, granularity,
            np.float32(c.transfer_lr), self._packed_spec, self.seed, counter,
        )  # fmt: skip
        self.counts[k.COLUMN] = (first + n_rows) % size
        self.counts[k.READS] += 1

    def _program(self, target: Array) -> None:
        """Program the array; what was added up is gone, as in aihwkit."""
        self.program_device(A, target)
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
def write(
    chi,
    fast,
    more,
    weight,
    curves,
    planes,
    first,
    n_rows,
    granularity,
    rate,
    numbers,
    seed,
    counter,
):
    """Take whole steps off rows of ``chi`` [in, rows], and send them to the array as pulses.

    ``n_rows`` rows from ``first`` on, as if one after the other: each has a pulse train of its own.
    As a cell belongs to one row only, all rows can share the slots. ``granularity``: what a step
    is; ``rate``: the learning rate of a step of 1; ``numbers`` [1]: a ``Spec``.
    """
    spec = numbers[0]
    device = spec.fast
    zero, one = np.float32(0.0), np.float32(1.0)
    rows, groups = chi.shape[1], chi.shape[1] // LANES
    most = np.zeros(rows, np.int32)  # largest absolute values, by their bits: that vectorises
    for column in range(chi.shape[0]):
        for row in range(rows):
            size = np.int32(np.float32(chi[column, row]).view(np.int32) & np.int32(0x7FFFFFFF))
            most[row] = max(most[row], size)
    slots = max(spec.transfer_train.desired_bl, 1)
    threshold, factor = np.full(rows, np.inf, np.float32), np.zeros(rows, np.float32)
    longest = np.zeros(groups, np.int64)
    trains = np.zeros((groups, slots, BLOCKS), np.uint16)
    for i in range(n_rows):
        row = (first + i) % weight.shape[1]
        steps = np.float32(math.trunc(np.int32(most[row]).view(np.float32) / granularity))
        if steps == zero:
            continue
        lr = np.float32(granularity * abs(rate))
        length, a, factor[row] = pulse_train(lr, steps, one, spec.transfer_train)
        threshold[row] = granularity
        group, lane = row // LANES, row % LANES
        longest[group] = max(longest[group], length)
        rng = stream(seed, streams.OUT_CHOP, (np.int64(counter) << 20) + row)
        for slot in range(length):
            rng = mix64(rng)
            if uniform(rng) < a:
                word = trains[group, slot, lane // WIDTH]
                trains[group, slot, lane // WIDTH] = np.uint16(word | np.uint16(1 << lane % WIDTH))
    if longest.max() == 0:
        return
    noise = draw_noise(stream(seed, streams.POOL, counter), device)
    pulses = 2 * np.arange(slots)
    chances, signs = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    bits = np.zeros((groups, slots, 2, 4), np.uint16)  # a part has one group
    for column in range(chi.shape[0]):
        for group in range(groups):
            begin, came = group * LANES, False
            for row in range(begin, begin + LANES):
                came |= abs(chi[column, row]) >= threshold[row]
            if not came:
                continue
            for lane in range(LANES):
                value, steps = chi[column, begin + lane], zero
                if abs(value) >= threshold[begin + lane]:
                    steps = np.float32(math.trunc(value / granularity))
                chi[column, begin + lane] = value - steps * granularity
                chances[lane] = abs(steps) * factor[begin + lane]
                signs[lane] = -steps if rate < zero else steps
            place = (np.int64(counter) << 36) + (np.int64(column) << 22) + (np.int64(group) << 10)
            for slot in range(longest[group]):
                key = stream(seed, streams.D_BITS, -1 - place - slot)
                simd.draw_rows(
                    chances, signs, bits, (group * slots + slot) * 8, 0, 0, 1,
                    streams.key_low(key), streams.key_high(key),
                )  # fmt: skip
                for q in range(BLOCKS):
                    for down in range(2):
                        word = np.uint16(bits[group, slot, down, q] & trains[group, slot, q])
                        bits[group, slot, down, q] = word
            apply_group(
                fast[column], more[column % more.shape[0]], group, bits, pulses, longest[group],
                noise, device, curves, stream(seed, streams.READ, place),
            )  # fmt: skip
            count_group(planes, column, group, groups, bits, pulses, longest[group])
            apparent = fast[column, (group * 8 + APPARENT) * LANES :]
            for lane in range(min(LANES, weight.shape[1] - begin)):
                weight[column, begin + lane] = apparent[lane]
