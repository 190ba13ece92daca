"""The statistics below `analogtl fit`: spreads over devices, robust least squares."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from analogtl.fitting.least import minimum, soft_l1
from analogtl.fitting.spread import Spread


@pytest.mark.parametrize("n", [3, 20])
def test_interval_of_a_spread_holds_it_as_often_as_it_says(n):
    """Errors differ from device to device; false alarms: 3 in 1,000 of each n."""
    random, inside, times = np.random.default_rng(5), 0, 400
    for _ in range(times):
        errors = random.uniform(0.1, 1.5, n)
        values = 2 + random.standard_normal(n) + errors * random.standard_normal(n)
        low, high = Spread.of(values, errors**2).interval
        inside += low <= 1.0 <= high
    assert 366 <= inside <= 391  # of 400, with 95 % each


def test_a_spread_without_errors_is_the_standard_deviation():
    values = np.array([1.0, 2.0, 4.0, np.nan])
    spread = Spread.of(values, np.zeros(4))
    assert spread.value == pytest.approx(values[:3].std(ddof=1))
    assert spread.mean(values) == pytest.approx(values[:3].mean())


def test_errors_are_no_spread():
    spread = Spread.of(np.array([1.0, 2.0, 0.0]), np.ones(3))
    assert spread.value == spread.interval[0] == 0 < spread.interval[1]


@pytest.mark.parametrize("upper", [10.0, 1.5])
def test_least_squares_are_those_of_scipy(upper):
    random, x = np.random.default_rng(3), np.linspace(0, 3, 80)
    y = 2 * np.exp(-0.7 * x) + 0.1 * random.standard_t(2, len(x))

    def errors(p):
        return (y - p[0] * np.exp(-p[1] * x)) / 0.1

    def loss(p):
        curve = np.exp(-p[1] * x)
        slopes = np.stack([-curve, p[0] * x * curve], axis=1) / 0.1
        return soft_l1(errors(p), slopes)

    bounds, first = (np.array([0.0, 0.0]), np.array([upper, 5.0])), np.array([1.0, 1.0])
    theirs = least_squares(errors, first, bounds=bounds, loss="soft_l1")
    value, found = minimum(loss, first, *bounds)
    assert found == pytest.approx(theirs.x, rel=1e-3)
    assert value == pytest.approx(theirs.cost, rel=1e-5)
