"""Forward and backward products with noise and converters, per vector as in aihwkit's C++."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.kernels import abs_max
from analogtl.fastsim.streams import fill_normals, mix64, stream

NONE, ABS_MAX, MAX, CONSTANT = range(4)  # noise management

SEGMENT = 1024  # outputs that take consecutive numbers of the pool
POOL_BITS = 14
_SHIFT = np.uint64(64 - POOL_BITS)


class IO(NamedTuple):
    """One direction's periphery; resolutions are absolute steps (0: none), numbers float32."""

    is_perfect: bool
    noise_management: int
    nm_thres: float
    bound_management: bool
    inp_bound: float
    inp_res: float
    inp_noise: float
    out_bound: float
    out_noise: float
    out_res: float
    out_scale: float
    max_bm_factor: int
    max_bm_res: float


@compiled
def management_scale(row, gain, io):
    """What a vector is divided by before the converter; 0 for a zero vector."""
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
