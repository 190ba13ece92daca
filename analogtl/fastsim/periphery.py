"""Forward and backward products with noise and converters, per vector as in aihwkit's C++."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analogtl.fastsim import threads
from analogtl.fastsim.compiled import compiled, inner
from analogtl.fastsim.kernels import abs_max
from analogtl.fastsim.layout import Array, record_of
from analogtl.fastsim.streams import BACKWARD, FORWARD, fill_normals, mix64, stream

NONE, ABS_MAX, MAX, CONSTANT = range(4)  # noise management

SEGMENT = 1024  # outputs that take consecutive numbers of the pool
POOL_BITS = 14
_SHIFT = np.uint64(64 - POOL_BITS)


class _Numbers(NamedTuple):
    """One direction's periphery; resolutions are absolute steps (0: none), numbers float32."""

    is_perfect: bool
    noise_management: int
    nm_thres: np.float32
    bound_management: bool
    inp_bound: np.float32
    inp_res: np.float32
    inp_noise: np.float32
    out_bound: np.float32
    out_noise: np.float32
    out_res: np.float32
    out_scale: np.float32
    max_bm_factor: int
    max_bm_res: np.float32


_RECORD = record_of(_Numbers)


class IO(_Numbers):
    """One direction's periphery, also for the kernels."""

    @cached_property
    def packed(self) -> Array:
        """The numbers as an array [1] of one record: see `layout.packed`."""
        return np.array([self], _RECORD)


@inner
def management_scale(row, gain, io):
    """Compute what a vector is divided by before the converter; 0 for a zero vector."""
    zero, one = np.float32(0.0), np.float32(1.0)
    if io.noise_management == NONE:
        return one
    if io.noise_management == CONSTANT:
        return io.nm_thres if io.nm_thres > zero else one
    if io.noise_management == MAX:
        s = np.float32(row[0] * gain)
        for i in range(1, row.shape[0]):
            s = max(s, np.float32(row[i] * gain))
    else:
        s = np.float32(abs_max(row) * gain)
    return min(s, io.nm_thres) if io.nm_thres > zero else s


@compiled
def prepare(x, gain, packed_io, reduction, scale, inputs, seed, purpose, counter):
    """Scale, discretise and bound the inputs.

    ``inputs`` [N, in] receives ``x * gain`` after the converter and ``scale`` [N] each vector's
    noise-management scale; ``reduction`` is the bound management's factor.
    """
    io, gain, reduction = packed_io[0], np.float32(gain), np.float32(reduction)
    zero, one = np.float32(0.0), np.float32(1.0)
    res, bound = io.inp_res, io.inp_bound
    size = x.shape[1]
    noise = np.empty(size + (size & 1) if io.inp_noise > zero else 0, np.float32)
    for t in range(x.shape[0]):
        row, out = x[t], inputs[t]
        scale[t] = management_scale(row, gain, io)
        factor = np.float32(one / scale[t]) if scale[t] > zero else one
        factor = np.float32(factor / reduction)
        for i in range(size):
            v = np.float32(np.float32(row[i] * gain) * factor)
            if res > zero:
                v = np.float32(np.rint(np.float32(v / res))) * res
            out[i] = min(max(v, -bound), bound)
        if io.inp_noise > zero:
            fill_normals(noise, stream(stream(seed, purpose, counter), 1, t))
            for i in range(size):
                out[i] += io.inp_noise * noise[i]


@compiled
def finish(y, gain, packed_io, reduction, scale, silent, passed, seed, purpose, counter):
    """Add the output noise, discretise, bound and scale back ``y`` [N, out], in place.

    ``passed`` [N] (uint8) tells which vectors kept within the output bound. A zero vector gives
    zeros without noise if ``silent``. The result is multiplied by ``gain``; returned is the largest
    absolute output without it, and whether all vectors kept within the bound.

    The noise is taken from normal numbers drawn anew at every call: each its own number where
    there are few, else runs of them that begin at random places.
    """
    io, gain, reduction = packed_io[0], np.float32(gain), np.float32(reduction)
    zero, one = np.float32(0.0), np.float32(1.0)
    res, bound = io.out_res, io.out_bound
    n, size = y.shape
    few = n * size <= 1 << POOL_BITS
    noisy = io.out_noise > zero
    pool = np.empty((n * size + 1) // 2 * 2 if few else (1 << POOL_BITS) + SEGMENT, np.float32)
    key = stream(seed, purpose, counter)
    if noisy:
        fill_normals(pool, key)
    top, all_passed = zero, True
    for t in range(n):
        row = y[t]
        passed[t] = 1
        if silent and scale[t] <= zero:
            for i in range(size):
                row[i] = zero
            continue
        factor = np.float32(one / scale[t]) if scale[t] > zero else one
        factor = np.float32(io.out_scale / np.float32(factor / reduction))
        beyond = np.int32(0)
        for first in range(0, size, SEGMENT):
            key = mix64(key)
            offset = np.uint64(t * size + first) if few else key >> _SHIFT
            begin = np.uint64(first)
            for i in range(min(SEGMENT, size - first)):
                u = np.uint64(i)
                v = row[begin + u]
                if noisy:
                    v = v + io.out_noise * pool[offset + u]
                if res > zero:
                    v = np.float32(np.rint(np.float32(v / res))) * res
                beyond |= np.int32(1) if abs(v) > bound else np.int32(0)
                row[begin + u] = min(max(v, -bound), bound) * factor
        if io.bound_management and beyond != 0:
            passed[t] = 0
            all_passed = False
        top = max(top, abs_max(row))
        if gain != one:
            for i in range(size):
                row[i] *= gain
    return top, all_passed


class _Buffers(threading.local):
    """What a thread lends to its products: room, and views of it by shape."""

    def __init__(self) -> None:
        self.room = torch.empty(1 << 16)
        self.views: dict[tuple[int, int], tuple[Tensor, Array, Array, Array]] = {}

    def lend(self, n: int, size: int) -> tuple[Tensor, Array, Array, Array]:
        """Lend inputs [n, size], as a tensor and as an array, scales [n] and marks [n] (uint8).

        They are not initialised, and live until the thread asks again.
        """
        lent = self.views.get((n, size))
        if lent is None:
            if self.room.numel() < n * size:
                self.room = torch.empty(n * size)
                self.views.clear()
            elif len(self.views) > 1000:
                self.views.clear()
            inputs = self.room[: n * size].view(n, size)
            lent = inputs, inputs.numpy(), np.empty(n, np.float32), np.empty(n, np.uint8)
            self.views[n, size] = lent
        return lent


_buffers = _Buffers()


def analog_product(
    rows: Tensor,
    matrix: Tensor,
    io: IO,
    gain_in: float,
    gain_out: float,
    seed: np.uint64,
    next_counter: Callable[[], int],
    backward: bool,
) -> tuple[Tensor, float]:
    """Multiply ``rows * gain_in`` with ``matrix``, times ``gain_out``, through the periphery.

    Under bound management, vectors whose output is beyond the bound are sent again at half the
    scale, until none is or the scale is at its limit. Each pass has a stream of noise of its own:
    that of ``seed`` and ``next_counter()``.

    Returns:
        The product ``[N, out]`` and its largest absolute value before ``gain_out``.
    """
    if io.is_perfect:
        out = rows @ matrix
        factor = gain_in * float(io.out_scale)
        if factor != 1.0:
            out *= factor
        top = float(out.abs().max()) if out.numel() else 0.0
        return (out if gain_out == 1.0 else out.mul_(gain_out)), top
    managed = io.noise_management != NONE
    silent = managed and (backward or io.inp_noise <= 0.0)
    purpose = BACKWARD if backward else FORWARD

    def send(rows: Tensor, reduction: float) -> tuple[Tensor, Array, float, bool]:
        n, size = rows.shape
        inputs, input_rows, scale, passed = _buffers.lend(n, size)
        out, counter, given = torch.empty(n, matrix.shape[1]), next_counter(), rows.numpy()
        prepare(given, gain_in, io.packed, reduction, scale, input_rows, seed, purpose, counter)
        threads.multiply(inputs, matrix, out)
        top, all_passed = finish(
            out.numpy(), gain_out, io.packed, reduction, scale, silent, passed, seed, purpose,
            counter,
        )  # fmt: skip
        return out, passed, top, all_passed

    out, passed, top, all_passed = send(rows, 1.0)
    if all_passed:
        return out, top
    reduction, todo = 1.0, np.arange(len(rows))
    while not all_passed:
        if int(reduction) > io.max_bm_factor or (
            io.inp_res > 0.0 and reduction > io.max_bm_res / io.inp_res
        ):
            break
        todo, reduction = todo[passed == 0], reduction * 2.0
        index = torch.from_numpy(todo)
        again, passed, more, all_passed = send(rows[index], reduction)
        out[index] = again
        top = max(top, more)
    return out, top
