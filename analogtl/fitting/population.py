"""From fitted devices to aihwkit's parameters: means and spreads over devices, with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analogtl.fitting import steps
from analogtl.fitting.estimate import Fitted
from analogtl.fitting.models import NODES
from analogtl.fitting.spread import Spread
from analogtl.fitting.steps import MAX_LOG

Array = NDArray[Any]
LEVEL = 0.95  # of the intervals
UPPER = (1 + LEVEL) / 2
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
    each = _each(fitted, fitted.own, fitted.shared)
    alone = [_each(fitted, own, fitted.shared) for own in _draws(fitted)]
    spreads = {
        name: Spread.of(values, _variances(np.array([one[name] for one in alone])))
        for name, values in each.items()
    }

    def locations(each: Mapping[str, Array], shared: Array) -> dict[str, float]:
        return _locations(fitted, {k: spreads[k].mean(v) for k, v in each.items()}, shared)

    found = locations(each, fitted.shared)
    together = [
        locations(_each(fitted, own, shared), shared) for own, shared in _shared_draws(fitted)
    ]
    samples = [locations(one, fitted.shared) for one in alone] if n < 2 else []
    without = [
        locations(
            {k: np.where(np.arange(n) == i, np.nan, v) for k, v in each.items()}, fitted.shared
        )
        for i in range(n if n > 1 else 0)
    ]
    for name, value in found.items():
        common = np.array([one[name] for one in together])
        if together and _is_shared(name):
            interval = _percentiles(common)
        else:
            kept = np.array([one[name] for one in without or samples])
            error = kept.std() * (np.sqrt(n - 1) if without else 1.0)
            if len(common):
                error = np.hypot(error, np.nanstd(common))
            factor = stats.t.ppf(UPPER, n - 1) if without else stats.norm.ppf(UPPER)
            interval = value - float(factor * error), value + float(factor * error)
        parameters[name], intervals[name] = value, interval
    for name, scale in _spreads(fitted).items():
        size = abs(parameters[scale]) if scale else 1.0
        parameters[name] = 0.0
        if n > 1:
            low, high = spreads[name].interval
            parameters[name] = spreads[name].value / size
            intervals[name] = low / size, high / size
    quantities = {
        name: (parameters.pop(name), intervals.pop(name)) for name in ("states", "symmetry_point")
    }
    points = np.isfinite(each["symmetry_point"]).sum()
    if 2 * points <= n:  # no device in two has one
        del quantities["symmetry_point"]
    elif points > 1:
        one = spreads["symmetry_point"]
        quantities["symmetry_point_dtod"] = one.value, one.interval
    step, noise = parameters["dw_min"], fitted.noise
    reach = stats.norm.ppf(UPPER) * fitted.noise_errors
    pulse, write = (
        (float(max(value - by, 0.0)), float(value + by))
        for value, by in zip((noise.pulse, noise.write), reach, strict=True)
    )
    parameters["dw_min_std"], intervals["dw_min_std"] = noise.pulse, pulse
    # In steps, of which the mean is not known better than over that many devices.
    parts = np.array([reach[1] / noise.write, (intervals["dw_min"][1] - step) / step])
    ratio, by = noise.write / step, float(np.hypot(*parts))
    parameters["write_noise_std"] = ratio
    intervals["write_noise_std"] = ratio * max(1 - by, 0.0), ratio * (1 + by)
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


def _draws(fitted: Fitted) -> list[Array]:
    """The devices' parameters as they might be as well, each for itself (N, own)."""
    random, roots = np.random.default_rng(0), [_root(one) for one in fitted.covariances]
    draws = (np.array([r @ random.standard_normal(len(r)) for r in roots]) for _ in range(DRAWS))
    return [np.clip(fitted.own + one, *fitted.limits) for one in draws]


def _shared_draws(fitted: Fitted) -> list[tuple[Array, Array]]:
    """What the devices share as it might be as well, and how their own parameters follow it."""
    if not len(fitted.shared):
        return []
    random, root = np.random.default_rng(1), _root(fitted.shared_covariance)
    moves = [root @ random.standard_normal(len(root)) for _ in range(DRAWS)]
    return [
        (np.clip(fitted.own - fitted.follows @ move, *fitted.limits), fitted.shared + move)
        for move in moves
    ]


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    found: Array = vectors * np.sqrt(np.clip(values, 0, None))
    return found


def _each(fitted: Fitted, own: Array, shared: Array) -> dict[str, Array]:
    """What aihwkit draws for each device, from the devices' own parameters (N, own).

    NaN where a device's readings do not tell it, but those of others do.
    """
    model, told = fitted.model, fitted.told[:, :2]
    top, bottom = np.where(told | ~told.any(axis=0), own[:, :2], np.nan).T
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
        found["gamma_up_dtod"] = own[:, 4] * np.nanmean(top)
        found["gamma_down_dtod"] = -own[:, 5] * np.nanmean(bottom)
        found |= {"slope_up": own[:, 4], "slope_down": own[:, 5]}
    if model.kind == steps.POW:
        gammas = np.exp(np.clip(own[:, 4:6], -MAX_LOG, MAX_LOG))
        found["pow_gamma_dtod"] = gammas.mean(axis=1)
        found["pow_up_down_dtod"] = (gammas[:, 0] - gammas[:, 1]) / 2
        found |= {"pow_up": gammas[:, 0], "pow_down": gammas[:, 1]}
    found["symmetry_point"] = np.array([_symmetry(fitted, one, shared) for one in own])
    return found


def _symmetry(fitted: Fitted, own: Array, shared: Array) -> float:
    """The weight at which a device's steps up and down are equal, NaN without one."""
    theta = fitted.model.theta(own, shared)
    weights = np.linspace(own[1], own[0], GRID)
    up, down = (steps.step_sizes(fitted.model.kind, theta, weights, sign) for sign in (1, -1))
    difference = up - down
    falls = np.flatnonzero((difference[:-1] > 0) & (difference[1:] <= 0))
    if not len(falls):
        return float("nan")
    i = falls[0]
    share = difference[i] / (difference[i] - difference[i + 1])
    return float(weights[i] + share * (weights[i + 1] - weights[i]))


def _locations(fitted: Fitted, mean: Mapping[str, float], shared: Array) -> dict[str, float]:
    """aihwkit's mean parameters, and the number of states and the symmetry point."""
    model = fitted.model
    found = {
        "dw_min": max(mean["up"], mean["down"]),
        "up_down": (mean["up"] - mean["down"]) / max(mean["up"], mean["down"]),
        "w_max": mean["w_max_dtod"],
        "w_min": mean["w_min_dtod"],
    }
    if "slope_up" in mean:
        found["gamma_up"] = mean["slope_up"] * found["w_max"]
        found["gamma_down"] = -mean["slope_down"] * found["w_min"]
    if "pow_up" in mean:
        up, down = mean["pow_up"], mean["pow_down"]
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
    found["symmetry_point"] = mean["symmetry_point"]
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


def _variances(draws: Array) -> Array:
    """Variance of each device's draws (D, N), without those that are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a device that has none
        found: Array = np.nan_to_num(np.nanvar(draws, axis=0))
    return found


def _percentiles(values: Array) -> Interval:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return float(low), float(high)
