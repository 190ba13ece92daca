"""Forward and backward products with noise and converters, per vector as in aihwkit's C++."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from analogtl.analog.fast.kernels import abs_max
from analogtl.analog.fast.random import fill_normals, stream

NONE, ABS_MAX, MAX, CONSTANT = range(4)  # noise management


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


@njit(cache=True, nogil=True)
def scales(x, io, scale):
    """Each vector's noise-management scale: what its values are divided by; 0 for a zero vector."""
    zero = np.float32(0.0)
    for t in range(x.shape[0]):
        if io.noise_management == CONSTANT:
            s = io.nm_thres if io.nm_thres > zero else np.float32(1.0)
        elif io.noise_management == NONE:
            s = np.float32(1.0)
        else:
            if io.noise_management == MAX:
                s = x[t, 0]
                for i in range(1, x.shape[1]):
                    s = max(s, x[t, i])
            else:
                s = abs_max(x[t])
            if io.nm_thres > zero:
                s = min(s, io.nm_thres)
        scale[t] = s


@njit(cache=True, nogil=True)
def prepare(x, io, scale, reduction, quantised, seed, purpose, counter):
    """Scale, discretise and bound inputs: ``quantised`` [N, in] of ``x``, ``scale`` [N]."""
    zero, one = np.float32(0.0), np.float32(1.0)
    res, bound = io.inp_res, io.inp_bound
    size = x.shape[1]
    noise = np.empty(size + (size & 1), np.float32)
    for t in range(x.shape[0]):
        factor = np.float32(one / scale[t]) if scale[t] > zero else one
        factor = np.float32(factor / reduction)
        row, out = x[t], quantised[t]
        for i in range(size):
            v = np.float32(row[i] * factor)
            if res > zero:
                v = np.float32(np.rint(np.float32(v / res))) * res
            out[i] = min(max(v, -bound), bound)
        if io.inp_noise > zero:
            fill_normals(noise, stream(stream(seed, purpose, counter), 100, t))
            for i in range(size):
                out[i] += io.inp_noise * noise[i]


@njit(cache=True, nogil=True)
def finish(y, io, scale, reduction, managed, dead, passed, seed, purpose, counter):
    """Add the output noise, discretise, bound and scale back ``y`` [N, out], in place.

    ``passed`` [N] (uint8) tells which vectors kept within the output bound. A zero vector gives
    zeros without noise where ``dead`` is set. Returns the largest absolute output.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    res, bound = io.out_res, io.out_bound
    size = y.shape[1]
    noise = np.empty(size + (size & 1), np.float32)
    key = stream(seed, purpose, counter)
    top = zero
    for t in range(y.shape[0]):
        row = y[t]
        passed[t] = 1
        if dead and scale[t] <= zero:
            for i in range(size):
                row[i] = zero
            continue
        factor = np.float32(one / scale[t]) if scale[t] > zero else one
        factor = np.float32(io.out_scale / np.float32(factor / reduction))
        if io.out_noise > zero:
            fill_normals(noise, stream(key, 0, t))
        beyond = np.int32(0)
        for i in range(size):
            v = row[i]
            if io.out_noise > zero:
                v = v + io.out_noise * noise[i]
            if res > zero:
                v = np.float32(np.rint(np.float32(v / res))) * res
            beyond |= np.int32(1) if abs(v) > bound else np.int32(0)
            row[i] = min(max(v, -bound), bound) * factor
        if managed and beyond != 0:
            passed[t] = 0
        top = max(top, abs_max(row))
    return top
