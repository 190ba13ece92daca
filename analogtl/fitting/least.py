"""Robust least squares of many devices at once, within bounds, from their normal equations.

SciPy's ``least_squares`` wants the derivatives of all readings in one matrix; with parameters that
50 devices share it takes minutes where the sums of their products take a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MAX_STEPS = 60
ENOUGH = 1e-7  # share of the loss; a step that gains less is the last
DAMPING, LESS, MORE, MOST = 1e-3, 0.2, 5.0, 1e9


def soft_l1(errors: Array, slopes: Array) -> tuple[float, Array, Array]:
    """Compute SciPy's ``soft_l1`` loss of errors (K,), its gradient, and the matrix of its steps.

    Args:
        errors: What is to be small.
        slopes: Its derivatives by the parameters (K, P).
    """
    root = np.sqrt(1 + errors**2)  # an error beyond 1 counts by its size instead of its square
    weighted = slopes / root[:, None]
    return float((root - 1).sum()), weighted.T @ errors, weighted.T @ slopes


def minimum(
    loss: Callable[[Array], tuple[float, Array, Array]], first: Array, lower: Array, upper: Array
) -> tuple[float, Array]:
    """Find the least loss and where it is, by Levenberg and Marquardt's method.

    Args:
        loss: Value, gradient (P,) and curvature (P, P) at parameters (P,).
        first: Where to start.
        lower, upper: Bounds of the parameters.
    """
    p, damping = np.clip(first, lower, upper), DAMPING
    value, slope, curve = loss(p)
    for _ in range(MAX_STEPS):
        free = ~(((p <= lower) & (slope > 0)) | ((p >= upper) & (slope < 0)))
        part, diagonal = curve[np.ix_(free, free)], np.maximum(np.diag(curve)[free], 1e-12)
        new = p.copy()
        new[free] -= np.linalg.solve(part + np.diag(damping * diagonal), slope[free])
        new = np.clip(new, lower, upper)
        found = loss(new)
        if found[0] < value:
            gain, p, damping = value - found[0], new, damping * LESS
            value, slope, curve = found
            if gain < ENOUGH * value:
                break
        elif damping > MOST:
            break
        else:
            damping *= MORE
    return value, p
