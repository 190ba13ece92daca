"""Random numbers for the fast engine: pure functions of a seed and of counters.

No generator carries state from call to call. Every number is a function of the tile's seed, of what
it is for and of where in the run it is used, so that a run can be stopped, copied or resumed
anywhere and still draw the same numbers, in any order and on any number of threads.
"""

from __future__ import annotations

import math

import numpy as np

from analogtl.fastsim.compiled import compiled, inner

# What a number is for: distinct purposes never share a stream.
POOL, X_BITS, D_BITS, IN_CHOP, OUT_CHOP, READ, FLUSH, SET, FORWARD, BACKWARD = range(1, 11)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_U16, _U15, _U8, _U2, _U1, _U0 = (np.uint32(k) for k in (16, 15, 8, 2, 1, 0))
_S30, _S27, _S31, _S32 = (np.uint64(k) for k in (30, 27, 31, 32))
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_F24 = np.float32(2.0**-24)
_F31 = np.float32(2.0**-31)
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)


@compiled
def mix64(z):
    """Scramble 64 bits, bijectively."""
    z = np.uint64(z) + _GOLDEN
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@compiled
def stream(seed, purpose, counter):
    """Make the 64-bit key of one stream; ``seed``: uint64, the others: integers."""
    return mix64(mix64(np.uint64(seed) + np.uint64(purpose) * _M1) ^ np.uint64(counter))


@inner
def hash32(i, k1, k2):
    """32 random bits: element ``i`` of the stream with the key halves ``k1``, ``k2`` (uint32)."""
    h = np.uint32(np.uint32(np.uint32(i) * np.uint32(0x9E3779B9)) + k1)
    h = np.uint32(h ^ np.uint32(h >> _U16))
    h = np.uint32(np.uint32(h * np.uint32(0x7FEB352D)) + k2)
    h = np.uint32(h ^ np.uint32(h >> _U15))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ np.uint32(h >> _U16))


@inner
def key_low(key):
    """Take the lower half of a stream's key."""
    return np.uint32(key & _LOW)


@inner
def key_high(key):
    """Take the upper half of a stream's key."""
    return np.uint32(key >> _S32)


@inner
def uniform_of(h):
    """Make a uniform number in [0, 1) with 24 bits from 32 random bits."""
    return np.float32(np.int32(np.uint32(h >> _U8))) * _F24


@compiled
def uniform(key):
    """Make a uniform number in [0, 1) with 53 bits."""
    return np.float64(key >> np.uint64(11)) * 2.0**-53


@compiled
def fill_normals(out, key):
    """Fill ``out`` (float32, 1-D, of even length) with independent standard normal numbers.

    Box and Muller's transform, with polynomials in place of logarithm and sine so that the loop
    becomes vector code without a maths library; they are good to 2e-7.
    """
    half = out.shape[0] // 2
    k1, k2 = key_low(key), key_high(key)
    one = np.float32(1.0)
    first, second = out[:half], out[half:]
    for i in range(half):
        h = hash32(i, k1, k2)
        u = (np.float32(np.int32(np.uint32(h >> _U1))) + one) * _F31  # in (0, 1]
        # log(u) = exponent * log 2 + log(1 + m), with 1 + m in [sqrt(1/2), sqrt(2)).
        raw = np.int32(np.float32(u).view(np.int32) - _ROOT_HALF)
        exponent = np.float32(np.int32(raw >> np.int32(23)))
        m = np.int32(np.int32(raw & np.int32(0x007FFFFF)) + _ROOT_HALF).view(np.float32) - one
        p = np.float32(0.0922615952)
        p = p * m + np.float32(-0.143521074)
        p = p * m + np.float32(0.147750825)
        p = p * m + np.float32(-0.165620477)
        p = p * m + np.float32(0.199744563)
        p = p * m + np.float32(-0.250020576)
        p = p * m + np.float32(0.333336427)
        p = p * m + np.float32(-0.499999926)
        minus_log = -(m + m * m * p + exponent * np.float32(0.693147181))
        radius = np.float32(math.sqrt(max(minus_log + minus_log, np.float32(0.0))))
        # An angle in (-pi/4, pi/4), and a random quarter turn.
        h = hash32(i, k2, k1)
        angle = np.float32(np.int32(np.int32(h) >> np.int32(2))) * np.float32(math.pi / 2**31)
        a = angle * angle
        s = np.float32(-0.000195914319) * a + np.float32(0.00833277535)
        sine = angle + angle * a * (s * a + np.float32(-0.166666651))
        c = np.float32(-0.00136619506) * a + np.float32(0.041661469)
        cosine = one + a * (c * a + np.float32(-0.499999828))
        cosine = -cosine if np.uint32(h & _U2) != _U0 else cosine
        swap = np.uint32(h & _U1) != _U0
        first[i] = radius * (sine if swap else cosine)
        second[i] = radius * (cosine if swap else sine)
