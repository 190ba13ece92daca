"""The fast engine's numbers: right distributions, and the same ones wherever they are drawn."""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from analogtl.fastsim import streams as r
from analogtl.fastsim.compiled import compiled
from analogtl.fastsim.simd import BLOCKS, LANES, WIDTH, draw_rows, trailing_zeros


def outside(function):
    """A function that only compiled ones can call, as one of Python."""
    return njit(lambda *given: function(*given))


key_low, key_high, hash32, uniform_of = map(
    outside, (r.key_low, r.key_high, r.hash32, r.uniform_of)
)


def normals(count, key):
    out = np.empty(count, np.float32)
    r.fill_normals(out, np.uint64(key))
    return out


def test_normal_numbers_are_normal():
    # Four tests at 1e-5 each on a fixed seed.
    z = normals(1 << 20, 5).astype(np.float64)
    n = len(z)
    assert abs(z.mean()) * np.sqrt(n) < 4.5
    assert abs(z.var() - 1) / np.sqrt(2 / n) < 4.5
    assert abs(stats.kurtosis(z)) / np.sqrt(24 / n) < 4.5
    assert stats.kstest(z, "norm").pvalue > 1e-5
    assert z.max() > 4.3
    assert z.min() < -4.3
    assert np.isfinite(z).all()


def test_normal_numbers_are_those_of_box_and_muller():
    """The polynomials in place of logarithm and sine, next to the functions themselves."""
    count, key = 4096, np.uint64(r.stream(np.uint64(3), r.READ, 5))
    k1, k2 = (np.uint32(half(key)) for half in (key_low, key_high))
    first = np.array([hash32(i, k1, k2) for i in range(count // 2)], np.int64)
    second = np.array([hash32(i, k2, k1) for i in range(count // 2)], np.uint32)
    radius = np.sqrt(-2 * np.log(((first >> 1) + 1) / 2.0**31))
    angle = (second.view(np.int32) >> 2) * (np.pi / 2**31)
    sine, cosine = np.sin(angle), np.cos(angle) * np.where(second & 2, -1, 1)
    swap = (second & 1).astype(bool)
    expected = [radius * np.where(swap, a, b) for a, b in ((sine, cosine), (cosine, sine))]
    np.testing.assert_allclose(normals(count, key), np.concatenate(expected), atol=2e-6)


def test_normal_numbers_are_independent_of_each_other_and_between_streams():
    pools = np.stack([normals(4096, r.stream(np.uint64(3), r.POOL, k)) for k in range(300)])
    n = pools.size
    neighbours = (pools[:, 1:] * pools[:, :-1]).mean() * np.sqrt(n)
    halves = (pools[:, :2048] * pools[:, 2048:]).mean() * np.sqrt(n / 2)
    between = (pools[1:] * pools[:-1]).mean() * np.sqrt(n)
    squares = ((pools[:, 1:] ** 2 - 1) * (pools[:, :-1] ** 2 - 1)).mean() / 2 * np.sqrt(n)
    assert max(abs(v) for v in (neighbours, halves, between, squares)) < 4.5
    # The pools' means vary as those of independent numbers do.
    means = pools.mean(1) * np.sqrt(4096)
    assert abs(means.var() - 1) < 5 * np.sqrt(2 / 300)


@pytest.mark.parametrize("chance", [1e-4, 0.05, 0.5, 0.97])
def test_pulses_come_with_their_probability(chance):
    @compiled
    def draw(chances, signs, bits, key):
        draw_rows(
            chances, signs, bits, 0, 8, 0, len(chances) // LANES, r.key_low(key),
            r.key_high(key),
        )  # fmt: skip

    groups = 200
    rows = groups * LANES
    chances = np.full(rows, chance, np.float32)
    signs = np.where(np.arange(rows) % 3 == 0, -1.0, 1.0).astype(np.float32)
    pulses = 0
    for key in range(20):
        bits = np.zeros((groups, 2, 4), np.uint16)  # up and down; the last word stays empty
        draw(chances, signs, bits, np.uint64(r.stream(np.uint64(1), r.D_BITS, key)))
        unpacked = np.unpackbits(bits.view(np.uint8), bitorder="little")
        unpacked = unpacked.reshape(groups, 2, 4, WIDTH)[:, :, :BLOCKS].astype(bool)
        up, down = unpacked[:, 0].ravel(), unpacked[:, 1].ravel()
        assert not (up & (signs > 0)).any()
        assert not (down & (signs < 0)).any()
        came = up | down
        pulses += came.sum()
        # The same numbers as the scalar code draws.
        k1, k2 = (np.uint32(f(np.uint64(r.stream(np.uint64(1), r.D_BITS, key)))) for f in
                  (key_low, key_high))  # fmt: skip
        u = np.array([uniform_of(np.uint32(hash32(i, k1, k2))) for i in range(100)])
        assert np.array_equal(came[:100], u < chance)
    trials = rows * 20
    assert abs(pulses - chance * trials) < 4.5 * np.sqrt(chance * (1 - chance) * trials)


def test_streams_differ_by_seed_purpose_and_counter():
    keys = {
        int(r.stream(np.uint64(seed), purpose, counter))
        for seed in range(20)
        for purpose in range(12)
        for counter in range(200)
    }
    assert len(keys) == 20 * 12 * 200


def test_lowest_bit():
    @compiled
    def lowest(word):
        return trailing_zeros(word)

    assert [lowest(np.uint32(1 << i)) for i in range(32)] == list(range(32))
    assert lowest(np.uint32(0b101000)) == 3


def test_the_numbers_stay_the_same_from_version_to_version():
    """Results of finished trials follow from these; `mix64` is SplitMix64, with its own numbers."""
    golden = 0x9E3779B97F4A7C15
    seeds = 1234567, (1234567 + golden) % 2**64
    assert [int(r.mix64(np.uint64(seed))) for seed in seeds] == [
        6457827717110365317,
        3203168211198807973,
    ]
    key = np.uint64(r.stream(np.uint64(1), r.READ, 2))
    assert int(key) == 9818061694033268420
    hashed = [int(hash32(i, np.uint32(5), np.uint32(7))) for i in range(3)]
    assert hashed == [4215204982, 4282631411, 3111186285]
    assert r.uniform(key) == (int(key) >> 11) / 2**53
    assert float(uniform_of(np.uint32(hashed[0]))) == (hashed[0] >> 8) / 2**24
