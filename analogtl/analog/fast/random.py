"""Random numbers for the fast engine: pure functions of a seed and of counters.

No generator carries state from call to call. Every number is a function of the tile's seed, of what
it is for and of where in the run it is used, so that a run can be stopped, copied or resumed anywhere
and still draw the same numbers, in any order and on any number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# What a number is for: distinct purposes never share a stream.
POOL, X_BITS, D_BITS, IN_CHOP, OUT_CHOP, READ, FLUSH, SET, FORWARD, BACKWARD, PEEK = range(1, 12)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_U16, _U15, _U8, _U1, _U0 = (np.uint32(k) for k in (16, 15, 8, 1, 0))
_S30, _S27, _S31, _S32 = (np.uint64(k) for k in (30, 27, 31, 32))
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_F24 = np.float32(2.0**-24)
_F31 = np.float32(2.0**-31)


@njit(cache=True)
def mix64(z):
    """A bijective scrambling of 64 bits."""
    z = np.uint64(z) + _GOLDEN
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@njit(cache=True)
def stream(seed, purpose, counter):
    """The 64-bit key of one stream: ``seed`` (uint64), ``purpose`` and ``counter`` (integers)."""
    return mix64(mix64(np.uint64(seed) + np.uint64(purpose)) ^ np.uint64(counter))


@njit(cache=True)
def hash32(i, k1, k2):
    """32 random bits: element ``i`` of the stream with the key halves ``k1``, ``k2`` (uint32)."""
    h = np.uint32(np.uint32(np.uint32(i) * np.uint32(0x9E3779B9)) + k1)
    h = np.uint32(h ^ np.uint32(h >> _U16))
    h = np.uint32(np.uint32(h * np.uint32(0x7FEB352D)) + k2)
    h = np.uint32(h ^ np.uint32(h >> _U15))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ np.uint32(h >> _U16))


@njit(cache=True)
def key_low(key):
    """The lower half of a stream's key."""
    return np.uint32(key & _LOW)


@njit(cache=True)
def key_high(key):
    """The upper half of a stream's key."""
    return np.uint32(key >> _S32)


@njit(cache=True)
def uniform_of(h):
    """A uniform number in [0, 1) with 24 bits from 32 random bits."""
    return np.float32(np.int32(np.uint32(h >> _U8))) * _F24


@njit(cache=True)
def uniform(key):
    """One uniform number in [0, 1) with 53 bits."""
    return np.float64(key >> np.uint64(11)) * 2.0**-53


@njit(cache=True)
def fill_normals(out, key):
    """Fill ``out`` (float32, 1-D, of even length) with independent standard normal numbers.

    Box and Muller's transform, with logarithm and sine as polynomials so that the loop vectorises
    without a maths library; the relative error of a number is below 1e-6.
    """
    half = out.shape[0] // 2
    k1, k2 = key_low(key), key_high(key)
    first = out[:half]
    bits = first.view(np.int32)
    # Pass 1: uniform numbers in (0, 1], as floats, whose bits pass 2 takes apart.
    for i in range(half):
        h = hash32(i, k1, k2)
        first[i] = (np.float32(np.int32(np.uint32(h >> _U1))) + np.float32(1.0)) * _F31
    for i in range(half):
        # log(u) = exponent * log 2 + log(mantissa), mantissa in [sqrt(1/2), sqrt(2)).
        raw = np.int32(bits[i] - np.int32(0x3F3504F3))
        exponent = np.float32(np.int32(raw >> np.int32(23)))
        bits[i] = np.int32(np.int32(raw & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))
        m = first[i] - np.float32(1.0)
        z = m * m
        p = np.float32(7.0376836292e-2)
        p = p * m + np.float32(-1.1514610310e-1)
        p = p * m + np.float32(1.1676998740e-1)
        p = p * m + np.float32(-1.2420140846e-1)
        p = p * m + np.float32(1.4249322787e-1)
        p = p * m + np.float32(-1.6668057665e-1)
        p = p * m + np.float32(2.0000714765e-1)
        p = p * m + np.float32(-2.4999993993e-1)
        p = p * m + np.float32(3.3333331174e-1)
        log_u = m + (p * m * z - np.float32(0.5) * z) + exponent * np.float32(0.69314718056)
        radius = np.float32(math.sqrt(max(np.float32(-2.0) * log_u, np.float32(0.0))))
        # An angle in (-pi/4, pi/4), then a random quarter turn.
        h = hash32(i + half, k2, k1)
        a = np.float32(np.int32(np.int32(h) >> np.int32(2))) * np.float32(math.pi / 2**31)
        a2 = a * a
        sine = a + a * a2 * (
            np.float32(-1.6666654611e-1)
            + a2 * (np.float32(8.3321608736e-3) + a2 * np.float32(-1.9515295891e-4))
        )
        cosine = (
            np.float32(1.0)
            - np.float32(0.5) * a2
            + a2
            * a2
            * (
                np.float32(4.166664568298827e-2)
                + a2 * (np.float32(-1.388731625493765e-3) + a2 * np.float32(2.443315711809948e-5))
            )
        )
        swap = np.uint32(h & _U1) != _U0
        negative = np.uint32(h & np.uint32(2)) != _U0
        wide = -cosine if negative else cosine
        first[i] = radius * (sine if swap else wide)
        out[half + i] = radius * (wide if swap else sine)
