"""How much devices differ, when each is known with an error of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

Array = NDArray[Any]
LEVEL = 0.95  # of the intervals
TINY = 1e-18


@dataclass(frozen=True)
class Spread:
    """Standard deviation over devices, without what is the error of each.

    With t the variance of the devices and v that of each one's error, the squares of what they are
    beside their weighted mean, divided by t + v, add up to chi-square. The estimate is where they
    are what is expected (Paule and Mandel 1982), the interval where they are chi-square's quantiles
    (Viechtbauer 2007), which holds for few devices too.

    Attributes:
        value: The standard deviation.
        interval: That which holds it with a probability of `LEVEL`.
        weights: What each device counts for in the mean (N,).
    """

    value: float
    interval: tuple[float, float]
    weights: Array

    @classmethod
    def of(cls, values: Array, variances: Array) -> Spread:
        """Estimate it from each device's value, NaN if it has none, and its error's variance."""
        known = np.isfinite(values)
        y, v, n = values[known], variances[known], int(known.sum())
        if n < 2:
            return cls(0.0, (0.0, float("inf")), np.ones(len(values)))
        low, high = ((1 + side * LEVEL) / 2 for side in (1, -1))
        targets = [n - 1, stats.chi2.ppf(low, n - 1), stats.chi2.ppf(high, n - 1)]
        value, low, high = (_where(y, v, one) for one in targets)
        weights = 1 / (value + variances + TINY)
        return cls(value**0.5, (low**0.5, high**0.5), weights)

    def mean(self, values: Array) -> float:
        """Mean over devices, by what each counts for; NaN without any."""
        known = np.isfinite(values)
        if not known.any():
            return float("nan")
        return float(np.average(values[known], weights=self.weights[known]))


def _where(values: Array, variances: Array, target: float) -> float:
    """Find the variance of the devices at which the sum is ``target``, at least 0."""

    def beyond(variance: float) -> float:
        weights = 1 / (variance + variances + TINY)
        mean = np.average(values, weights=weights)
        return float(np.sum(weights * (values - mean) ** 2)) - target

    if beyond(0.0) <= 0:
        return 0.0
    most = float(np.sum((values - values.mean()) ** 2)) / target
    return float(brentq(beyond, 0.0, 2 * most, xtol=1e-9 * most + TINY, rtol=1e-6))
