"""Fit one model to traces: the devices' parameters, and the noise, in turns.

Given the noise, each device's parameters minimise SciPy's ``soft_l1`` loss of the errors of a
filter that predicts each reading from those before, each relative to its standard deviation. Given
the parameters, the noise is what readings move beside the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls
from scipy.sparse import lil_matrix

from analogtl.fitting import steps
from analogtl.fitting.models import Model
from analogtl.fitting.pulses import Trace

Array = NDArray[Any]
ROUNDS = 2
MAX_CALLS = 30  # of the least squares in a round
TREND, SHORTEST = 3, 12  # degree of the trend that is taken off a ramp's increments; readings of it
EDGE = 0.02  # share of the range from which a bound cuts off the noise
PARTS = 10  # of a device's readings, for the interval of its noise
OUTLIER = 50.0  # times the median square
FAR = 3.0  # standard deviations from which an error counts as an outlier for the noise


@dataclass(frozen=True)
class Noise:
    """What pulses and readings scatter by.

    Attributes:
        pulse: Standard deviation of a pulse, in ``unit``.
        write: Standard deviation of a reading, in weights.
        unit: `steps.OF_STEP`, `OF_ZERO_STEP` or `OF_WEIGHT`.
    """

    pulse: float
    write: float
    unit: int = steps.OF_WEIGHT

    @classmethod
    def seen(cls, traces: Sequence[Trace]) -> Noise:
        """Estimate the noise without a model, beside a smooth trend of each ramp.

        Noise of a reading makes neighbouring increments go opposite ways: their covariance is
        -write^2, and their variance pulse^2 + 2 write^2.
        """
        moments, n = np.zeros(2), 0
        for trace in traces:
            for ramp in np.split(trace.weights, trace.turns[1:]):
                if len(ramp) >= SHORTEST:
                    index = np.linspace(-1, 1, len(ramp) - 1)
                    moved = np.diff(ramp)
                    beside = moved - np.polyval(np.polyfit(index, moved, TREND), index)
                    moments += (beside**2).mean(), (beside[1:] * beside[:-1]).mean()
                    n += 1
        variance, covariance = moments / max(n, 1)
        write = min(max(-covariance, 0.0), variance / 2)
        return cls(float(np.sqrt(max(variance - 2 * write, 0.0))), float(np.sqrt(write)))


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted to N devices.

    Attributes:
        model: The model.
        own: Parameters of each device (N, model.own).
        shared: Parameters that they share.
        noise: Noise of all of them.
        covariances: Covariance of each device's own parameters (N, own, own).
        shared_covariance: Of the shared ones.
        noise_errors: Standard errors of the noise of pulses and of readings.
    """

    model: Model
    own: Array
    shared: Array
    noise: Noise
    covariances: Array
    shared_covariance: Array
    noise_errors: Array

    def theta(self, number: int) -> Array:
        """All parameters of a device, as `steps` takes them."""
        return self.model.theta(self.own[number], self.shared)


class Fit:
    """Fits of one model to traces; ``weights`` (per trace) leave readings out (0) or in (1)."""

    def __init__(
        self, model: Model, traces: Sequence[Trace], floor: float, weights: Sequence[Array] = ()
    ) -> None:
        self.model, self.traces, self.floor = model, traces, floor
        self.weights = weights or [np.ones(len(trace.weights)) for trace in traces]

    def run(self, noise: Noise, before: Fitted | None = None) -> Fitted:
        """Fit with a noise that is known, from the models' first guess or another fit."""
        own = np.array([self.model.start(trace) for trace in self.traces])
        first = Fitted(self.model, own, self.model.start_shared, noise, *(np.empty(0),) * 3)
        return self._devices(self._devices(first if before is None else before))

    def run_all(self, noise: Noise) -> Fitted:
        """Fit, and find the noise of what the fit leaves."""
        fit = self.run(noise)
        for _ in range(ROUNDS):
            fit = self._noise(fit)
            fit = self._devices(fit, covariance=True)
        return fit

    # -- the devices' parameters -------------------------------------------------------------------

    def _devices(self, fit: Fitted, covariance: bool = False) -> Fitted:
        model, filters = self.model, []
        for number in range(len(self.traces)):
            _, gains, scales, shifts = self.filter(fit, number)
            scales = scales / np.maximum(self.weights[number], 1e-12)
            filters.append((gains, scales, shifts))

        def errors(number: int, theta: Array) -> Array:
            trace = self.traces[number]
            found: Array = steps.errors(
                model.kind, theta, trace.weights, trace.signs, trace.starts, *filters[number]
            )
            return found

        if model.shared:
            return self._together(fit, errors, covariance)
        own, covariances = [], []
        for number, trace in enumerate(self.traces):
            lower, upper = model.limits(trace)
            ends = np.quantile(trace.weights, (0.995, 0.005))
            results = [
                least_squares(
                    lambda p, n=number: errors(n, model.theta(p, fit.shared)),
                    np.clip(first, lower + 1e-9, upper - 1e-9),
                    bounds=(lower, upper),
                    loss="soft_l1",
                    f_scale=FAR / 2,
                    x_scale="jac",
                    max_nfev=MAX_CALLS,
                )
                # A bound that no prediction reaches has no slope: try those that are seen, too.
                for first in (fit.own[number], [*ends, *fit.own[number][2:]])
            ]
            result = min(results, key=lambda one: float(one.cost))
            own.append(result.x)
            if covariance:
                covariances.append(_covariance(result.jac))
        return replace(fit, own=np.array(own), covariances=np.array(covariances))

    def _together(self, fit: Fitted, errors: Any, covariance: bool) -> Fitted:
        """Fit all devices at once: some of their parameters are the same."""
        model, n = self.model, len(self.traces)
        ends = np.cumsum([0, *(len(trace.weights) for trace in self.traces)])
        sparsity = lil_matrix((int(ends[-1]), n * model.own + model.shared), dtype=np.int8)
        sparsity[:, n * model.own :] = 1
        for i in range(n):
            sparsity[ends[i] : ends[i + 1], i * model.own : (i + 1) * model.own] = 1
        limits = [*(model.limits(trace) for trace in self.traces), model.limits_shared]
        lower, upper = (np.concatenate([each[side] for each in limits]) for side in (0, 1))
        first = np.concatenate([fit.own.ravel(), fit.shared])

        def split(p: Array) -> tuple[Array, Array]:
            return p[: n * model.own].reshape(n, model.own), p[n * model.own :]

        def all_errors(p: Array) -> Array:
            own, shared = split(p)
            return np.concatenate([errors(i, model.theta(own[i], shared)) for i in range(n)])

        result = least_squares(
            all_errors,
            np.clip(first, lower + 1e-9, upper - 1e-9),
            bounds=(lower, upper),
            loss="soft_l1",
            f_scale=FAR / 2,
            x_scale="jac",
            jac_sparsity=sparsity if n > 1 else None,
            max_nfev=MAX_CALLS,
        )
        own, shared = split(result.x)
        fit = replace(fit, own=own, shared=shared)
        if not covariance:
            return fit
        whole = _covariance(result.jac.toarray() if n > 1 else result.jac)
        blocks = [slice(i * model.own, (i + 1) * model.own) for i in range(n)]
        return replace(
            fit,
            covariances=np.array([whole[block, block] for block in blocks]),
            shared_covariance=whole[n * model.own :, n * model.own :],
        )

    # -- noise -------------------------------------------------------------------------------------

    def filter(self, fit: Fitted, number: int) -> tuple[Array, ...]:
        """Run the filter along a trace: predictions, gains, standard deviations."""
        trace, noise = self.traces[number], fit.noise
        theta = fit.theta(number)
        found: tuple[Array, ...] = steps.filtered(
            fit.model.kind,
            theta,
            trace.weights,
            trace.signs,
            trace.starts,
            noise.pulse,
            noise.write,
            self.floor,
            noise.unit,
        )
        return found

    def scores(self, fit: Fitted) -> list[Array]:
        """Log likelihood of each reading; an outlier's grows linearly. 0 where a cycle starts."""
        found = []
        for number, trace in enumerate(self.traces):
            predicted, _, scales, _ = self.filter(fit, number)
            far = np.abs((trace.weights - predicted) / scales)
            loss = np.where(far > FAR, FAR * far - FAR**2 / 2, far**2 / 2)
            found.append(np.where(trace.starts, 0.0, -loss - np.log(scales)))
        return found

    def _noise(self, fit: Fitted) -> Fitted:
        """Find the noise: what readings move beside the steps, over one pulse and over many.

        The square is pulse^2 for each pulse and 2 write^2 on the whole. Over many pulses, noise of
        the readings that lasts for some of them is not taken for noise of the pulses.
        """
        found = []
        for unit in self.model.units:
            rows = [part for n in range(len(self.traces)) for part in self._moves(fit, n, unit)]
            noise = fit.noise
            for _ in range(3):
                noise, misses = _solve(rows, noise, unit, self.floor)
            kept = [
                _solve(rows[:i] + rows[i + 1 :], noise, unit, self.floor)[0]
                for i in range(len(rows))
            ]
            found.append((misses, noise, np.array([(one.pulse, one.write) for one in kept])))
        _, noise, kept = min(found, key=lambda one: one[0])
        n = len(kept)
        return replace(fit, noise=noise, noise_errors=np.sqrt((n - 1) * kept.var(axis=0)))

    def _moves(self, fit: Fitted, number: int, unit: int) -> Iterator[Array]:
        """Windows of a trace: square of what is beside the steps, sum of squared units, pulses."""
        trace, theta = self.traces[number], fit.theta(number)
        predicted, gains, _, _ = self.filter(fit, number)
        state = np.clip(predicted + gains * (trace.weights - predicted), theta[1], theta[0])
        steps_taken = predicted[1:] - state[:-1]
        units = np.abs(steps_taken)
        if unit == steps.OF_ZERO_STEP:
            at_zero = [
                float(steps.step_sizes(fit.model.kind, theta, np.zeros(1), sign)[0])
                for sign in (1, -1)
            ]
            units = np.where(trace.signs[1:] > 0, *at_zero) * (trace.signs[1:] != 0)
        edge = EDGE * (theta[0] - theta[1])
        bad = (state[:-1] > theta[0] - edge) | (state[:-1] < theta[1] + edge) | trace.starts[1:]
        path, squares, bads = (
            np.concatenate([[0.0], np.cumsum(one)])
            for one in (np.diff(trace.weights) - steps_taken, units**2, bad)
        )
        # After noise of a pulse the filter lags behind, and takes the next steps for other ones.
        h, at = 1e-4 * (theta[0] - theta[1]), np.median(state)
        ends = (
            steps.step_sizes(fit.model.kind, theta, np.array([at - h, at + h]), s) for s in (1, -1)
        )
        slope = float(np.clip(np.mean([abs(np.diff(one)[0]) for one in ends]) / (2 * h), 0.0, 0.5))
        lost = 1 - float(gains[1:].mean())
        left = 1 - slope * lost * np.cumsum((lost * (1 - slope)) ** np.arange(trace.lag))
        shares = {1: 1.0, trace.lag: float(np.mean(np.append(1.0, left[:-1]) ** 2))}
        windows = [
            np.stack(
                [
                    np.square(path[lag:] - path[:-lag]),
                    (squares[lag:] - squares[:-lag]) * shares[lag],
                    np.full(len(path) - lag, lag, float),
                ]
            )[:, bads[lag:] == bads[:-lag]]
            for lag in (1, trace.lag)
        ]
        parts = 1 if len(self.traces) > 1 else PARTS
        for part in range(parts):
            yield np.concatenate([np.array_split(one, parts, axis=1)[part] for one in windows], 1)


def _solve(rows: Sequence[Array], noise: Noise, unit: int, floor: float) -> tuple[Noise, float]:
    """Regress squares on pulses and readings, weighted by their variance under ``noise``."""
    square, pulses, lags = np.concatenate(rows, axis=1)
    if not len(square):
        return replace(noise, unit=unit), np.inf
    if noise.unit != unit:
        noise = Noise(
            noise.pulse / np.sqrt(max(float(pulses[lags == 1].mean()), 1e-18)), noise.write, unit
        )
    square = np.minimum(square, OUTLIER * np.median(square))
    expected = noise.pulse**2 * pulses + 2 * (noise.write**2 + floor**2) + 1e-18
    scale = 1 / (expected * np.sqrt(lags))
    regressors = np.stack([pulses, np.full(len(pulses), 2.0)], axis=1)
    (pulse, write), _ = nnls(regressors * scale[:, None], square * scale)
    expected = pulse * pulses + 2 * write + 2 * floor**2
    misses = float(((np.log(expected) + square / expected) / lags).mean())
    write = max(write - floor**2, 0.0)
    return Noise(float(np.sqrt(pulse)), float(np.sqrt(write)), unit), misses


def _covariance(jacobian: Array) -> Array:
    """Covariance of parameters from the Jacobian of errors of standard deviation 1.

    SciPy scales it by the loss already: outliers weigh less.
    """
    scale = np.maximum(np.sqrt((jacobian**2).sum(axis=0)), 1e-12)
    scaled = jacobian / scale
    found: Array = np.linalg.pinv(scaled.T @ scaled, rcond=1e-10, hermitian=True)
    return found / np.outer(scale, scale)
