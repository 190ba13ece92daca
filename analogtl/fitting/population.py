"""From fitted devices to aihwkit's parameters: means and spreads over devices, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analogtl.fitting import steps
from analogtl.fitting.estimate import Fitted
from analogtl.fitting.models import NODES
from analogtl.fitting.steps import MAX_LOG

Array = NDArray[Any]
LEVEL = 0.95  # of the intervals
DRAWS = 200  # of one device's parameters, for its intervals
GRID = 201  # weights at which the symmetry point is sought
Interval = tuple[float, float]


@dataclass(frozen=True)
class Population:
    """aihwkit's parameters and other quantities, value and interval each."""

    parameters: Mapping[str, Any]
    intervals: Mapping[str, Interval]
    quantities: Mapping[str, tuple[float, Interval]]


def describe(fitted: Fitted) -> Population:
    """Compute what the devices have in common and how they differ."""
    parameters: dict[str, Any] = {}
    intervals: dict[str, Interval] = {}
    n = len(fitted.own)
    draws = _draws(fitted)
    each = _each(fitted, fitted.own)
    locations = _locations(fitted, each, fitted.shared)
    drawn = [_each(fitted, own) for own, _ in draws]
    samples = [
        _locations(fitted, one, shared) for one, (_, shared) in zip(drawn, draws, strict=True)
    ]
    without = [
        _locations(fitted, {k: np.delete(v, i) for k, v in each.items()}, fitted.shared)
        for i in range(n if n > 1 else 0)
    ]
    for name, value in locations.items():
        of_draws = np.array([sample[name] for sample in samples])
        if n < 2 or _is_shared(name):
            interval = _percentiles(of_draws)
        else:
            kept = np.array([one[name] for one in without])
            error = np.sqrt((n - 1) / n * np.sum((kept - kept.mean()) ** 2))
            reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * error)
            interval = value - reach, value + reach
        parameters[name], intervals[name] = value, interval
    each_draws = {name: np.array([one[name] for one in drawn]) for name in each}
    for name, scale in _spreads(fitted).items():
        parameters[name] = 0.0
        if n > 1:
            size = abs(parameters[scale]) if scale else 1.0
            if name in ("dw_min_dtod", "pow_gamma_dtod"):  # of the mean of up and down
                size = float(each[name].mean())
            value, low, high = _spread(each[name], _known(each_draws[name]))
            parameters[name], intervals[name] = value / size, (low / size, high / size)
    quantities = {
        name: (parameters.pop(name), intervals.pop(name)) for name in ("states", "symmetry_point")
    }
    points = each["symmetry_point"]
    if 2 * np.isfinite(points).sum() <= n:  # no device in two has one
        del quantities["symmetry_point"]
    elif np.isfinite(points).sum() > 1:
        value, low, high = _spread(points, _known(each_draws["symmetry_point"]))
        quantities["symmetry_point_dtod"] = value, (low, high)
    step = parameters["dw_min"]
    noise, reach = fitted.noise, stats.norm.ppf((1 + LEVEL) / 2) * fitted.noise_errors
    pulse, write = (
        (float(max(value - by, 0.0)), float(value + by))
        for value, by in zip((noise.pulse, noise.write), reach, strict=True)
    )
    parameters["dw_min_std"], intervals["dw_min_std"] = noise.pulse, pulse
    parameters["write_noise_std"] = noise.write / step
    intervals["write_noise_std"] = write[0] / step, write[1] / step
    if len(fitted.model.units) > 1:
        parameters["mult_noise"] = noise.unit == steps.OF_STEP
    if fitted.model.kind == steps.LINEAR and fitted.model.own == 4:
        del parameters["write_noise_std"], intervals["write_noise_std"]  # the class has none
        quantities["write_noise"] = noise.write, write
    if fitted.model.kind == steps.EXP:
        parameters |= {"a": 1.0, "b": 0.0}
    return Population(_plain(parameters), intervals, quantities)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a device file takes them; curves from their nodes."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        curve, bracket, _ = name.partition("[")
        number = value if isinstance(value, bool) else float(value)
        if bracket:
            found.setdefault(curve, []).append(number)
        else:
            found[name] = number
    return found


def _is_shared(name: str) -> bool:
    return name in ("A_up", "A_down", "gamma_up", "gamma_down") or "[" in name


def _draws(fitted: Fitted) -> list[tuple[Array, Array]]:
    """Parameters as they might be as well, by their covariance."""
    random = np.random.default_rng(0)
    roots = [_root(one) for one in fitted.covariances]
    shared = _root(fitted.shared_covariance) if len(fitted.shared) else np.zeros((0, 0))
    return [
        (
            np.clip(
                fitted.own + np.array([root @ random.standard_normal(len(root)) for root in roots]),
                *fitted.limits,
            ),
            fitted.shared + shared @ random.standard_normal(len(shared)),
        )
        for _ in range(DRAWS)
    ]


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    found: Array = vectors * np.sqrt(np.clip(values, 0, None))
    return found


def _each(fitted: Fitted, own: Array) -> dict[str, Array]:
    """What aihwkit draws for each device, from the devices' own parameters (N, own)."""
    model = fitted.model
    top, bottom = own[:, 0], own[:, 1]
    up, down = np.exp(np.clip(own[:, 2:4], -MAX_LOG, MAX_LOG)).T
    if model.kind == steps.SOFT:
        up, down = up * top, -down * bottom
    found = {
        "w_max_dtod": top,
        "w_min_dtod": bottom,
        "dw_min_dtod": (up + down) / 2,
        "up_down_dtod": (up - down) / 2,
        "up": up,
        "down": down,
    }
    if model.kind == steps.LINEAR and model.own == 6:
        # aihwkit draws them about a mean that is relative to the mean bounds.
        found["gamma_up_dtod"] = own[:, 4] * top.mean()
        found["gamma_down_dtod"] = -own[:, 5] * bottom.mean()
        found |= {"slope_up": own[:, 4], "slope_down": own[:, 5]}
    if model.kind == steps.POW:
        gammas = np.exp(np.clip(own[:, 4:6], -MAX_LOG, MAX_LOG))
        found["pow_gamma_dtod"] = gammas.mean(axis=1)
        found["pow_up_down_dtod"] = (gammas[:, 0] - gammas[:, 1]) / 2
        found |= {"pow_up": gammas[:, 0], "pow_down": gammas[:, 1]}
    found["symmetry_point"] = np.array([_symmetry(fitted, one) for one in own])
    return found


def _symmetry(fitted: Fitted, own: Array) -> float:
    """The weight at which a device's steps up and down are equal, NaN without one."""
    theta = fitted.model.theta(own, fitted.shared)
    weights = np.linspace(own[1], own[0], GRID)
    up, down = (steps.step_sizes(fitted.model.kind, theta, weights, sign) for sign in (1, -1))
    difference = up - down
    falls = np.flatnonzero((difference[:-1] > 0) & (difference[1:] <= 0))
    if not len(falls):
        return float("nan")
    i = falls[0]
    share = difference[i] / (difference[i] - difference[i + 1])
    return float(weights[i] + share * (weights[i + 1] - weights[i]))


def _locations(fitted: Fitted, each: dict[str, Array], shared: Array) -> dict[str, float]:
    """aihwkit's mean parameters, and the number of states and the symmetry point."""
    model = fitted.model
    up, down = each["up"].mean(), each["down"].mean()
    found = {
        "dw_min": max(up, down),
        "up_down": (up - down) / max(up, down),
        "w_max": each["w_max_dtod"].mean(),
        "w_min": each["w_min_dtod"].mean(),
    }
    if "slope_up" in each:
        found["gamma_up"] = each["slope_up"].mean() * found["w_max"]
        found["gamma_down"] = -each["slope_down"].mean() * found["w_min"]
    if "pow_up" in each:
        up, down = each["pow_up"].mean(), each["pow_down"].mean()
        found["pow_gamma"] = max(up, down)
        found["pow_up_down"] = (up - down) / max(up, down)
    if model.kind == steps.EXP:
        names = ["A_up", "A_down", "gamma_up", "gamma_down"]
        found |= dict(zip(names, np.exp(np.clip(shared, -MAX_LOG, MAX_LOG)), strict=True))
    if model.kind == steps.PIECEWISE:
        theta = np.exp(np.clip(model.theta(fitted.own[0], shared)[4:], -MAX_LOG, MAX_LOG))
        names = [f"piecewise_{way}[{i}]" for way in ("up", "down") for i in range(NODES)]
        found |= dict(zip(names, theta, strict=True))
    found["states"] = (found["w_max"] - found["w_min"]) / found["dw_min"]
    points = each["symmetry_point"]
    points = points[np.isfinite(points)]
    found["symmetry_point"] = points.mean() if len(points) else np.nan
    return {name: float(value) for name, value in found.items()}


def _spreads(fitted: Fitted) -> dict[str, str]:
    """Spread -> what it is relative to, "" for nothing."""
    found = {
        "dw_min_dtod": "dw_min",
        "up_down_dtod": "dw_min",
        "w_max_dtod": "w_max",
        "w_min_dtod": "w_min",
    }
    if fitted.model.kind == steps.LINEAR and fitted.model.own == 6:
        found |= {"gamma_up_dtod": "", "gamma_down_dtod": ""}
    if fitted.model.kind == steps.POW:
        found |= {"pow_gamma_dtod": "pow_gamma", "pow_up_down_dtod": "pow_gamma"}
    return found


def _spread(values: Array, known: float) -> tuple[float, float, float]:
    """Standard deviation over devices with its interval, without the estimates' own variance."""
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return 0.0, 0.0, float("inf")
    whole = float(np.var(values, ddof=1))
    low, high = (
        (n - 1) * whole / stats.chi2.ppf(p, n - 1) for p in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)
    )
    value, low, high = (float(np.sqrt(max(one - known, 0.0))) for one in (whole, low, high))
    return value, low, high


def _known(draws: Array) -> float:
    """The variance that is the estimates' own: of draws of each device (D, N)."""
    variances = [np.var(one[np.isfinite(one)]) for one in draws.T if np.isfinite(one).sum() > 1]
    return float(np.median(variances)) if variances else 0.0


def _percentiles(values: Array) -> Interval:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return float(low), float(high)
