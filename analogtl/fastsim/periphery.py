"""Forward and backward products with noise and converters, per vector as in aihwkit's C++."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analogtl.fastsim import threads
from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.kernels import abs_max
from analogtl.fastsim.streams import BACKWARD, FORWARD, fill_normals, mix64, stream

NONE, ABS_MAX, MAX, CONSTANT = range(4)  # noise management

SEGMENT = 1024  # outputs that take consecutive numbers of the pool
POOL_BITS = 14
_SHIFT = np.uint64(64 - POOL_BITS)


class IO(NamedTuple):
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


@compiled
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
def prepare(x, gain, io, reduction, scale, inputs, seed, purpose, counter):
    """Scale, discretise and bound the inputs.

    ``inputs`` [N, in] receives ``x * gain`` after the converter and ``scale`` [N] each vector's
    noise-management scale; ``reduction`` is the bound management's factor.
    """
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
def finish(y, gain, io, reduction, scale, silent, passed, seed, purpose, counter):
    """Add the output noise, discretise, bound and scale back ``y`` [N, out], in place.

    ``passed`` [N] (uint8) tells which vectors kept within the output bound. A zero vector gives
    zeros without noise if ``silent``. The result is multiplied by ``gain``; returned is the largest
    absolute output without it.

    The noise is taken from normal numbers drawn anew at every call: each its own number where
    there are few, else runs of them that begin at random places.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    res, bound = io.out_res, io.out_bound
    n, size = y.shape
    few = n * size <= 1 << POOL_BITS
    noisy = io.out_noise > zero
    pool = np.empty((n * size + 1) // 2 * 2 if few else (1 << POOL_BITS) + SEGMENT, np.float32)
    key = stream(seed, purpose, counter)
    if noisy:
        fill_normals(pool, key)
    top = zero
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
        top = max(top, abs_max(row))
        if gain != one:
            for i in range(size):
                row[i] *= gain
    return top


_buffers = threading.local()


def _scratch(shape: Sequence[int]) -> Tensor:
    """Lend an uninitialised float32 tensor that lives until the thread asks again."""
    size = math.prod(shape)
    buffer = getattr(_buffers, "buffer", None)
    if buffer is None or buffer.numel() < size:
        buffer = _buffers.buffer = torch.empty(max(size, 1 << 16))
    return buffer[:size].view(*shape)


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

    def send(rows: Tensor, reduction: float) -> tuple[Tensor, np.ndarray, float]:
        counter, factor = next_counter(), np.float32(reduction)
        inputs, scale = _scratch(rows.shape), np.empty(len(rows), np.float32)
        out, passed = torch.empty(len(rows), matrix.shape[1]), np.empty(len(rows), np.uint8)
        prepare(
            rows.numpy(), np.float32(gain_in), io, factor, scale, inputs.numpy(), seed, purpose,
            counter,
        )  # fmt: skip
        threads.multiply(inputs, matrix, out)
        top = finish(
            out.numpy(), np.float32(gain_out), io, factor, scale, silent, passed, seed, purpose,
            counter,
        )  # fmt: skip
        return out, passed, float(top)

    reduction, todo = 1.0, np.arange(len(rows))
    out, passed, top = send(rows, reduction)
    while io.bound_management and not passed.all():
        if int(reduction) > io.max_bm_factor or (
            io.inp_res > 0.0 and reduction > io.max_bm_res / io.inp_res
        ):
            break
        todo, reduction = todo[passed == 0], reduction * 2.0
        index = torch.from_numpy(todo)
        again, passed, more = send(rows[index], reduction)
        out[index] = again
        top = max(top, more)
    return out, top
