"""Fit one model to traces: the mean response of each device, then the noise about it.

A device's parameters minimise SciPy's ``soft_l1`` loss of what readings lie beside the free run of
its mean response, so that they hold over whole ramps, whatever the noise is like. Given them, the
noise is the likeliest one for a Kalman filter that predicts each reading from those before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.sparse import lil_matrix

from analogtl.fitting import steps
from analogtl.fitting.models import Model
from analogtl.fitting.pulses import Trace

Array = NDArray[Any]
ROUNDS = 2
MAX_CALLS = 30  # of the least squares in a round
LESSENED = 5  # times at most that noise is, which is too large
LASTING = 0.4  # share of the variance that noise of pulses predicts, from which it may be it
EDGE = 0.02  # share of the range from its ends
TREND = 5  # degree, at most, of the trend of a ramp
PARTS = 10  # of a device's readings, for the interval of its noise
FAR = 3.0  # standard deviations from which an error counts as an outlier
LOG_NOISE, LOG_WRITE = (-9.0, 5.0), (-14.0, 1.0)  # limits, of steps and of weights
STEP = 0.05  # of the logarithms, for their derivatives
NEAR = 1e-4  # of parameters, for theirs


@dataclass(frozen=True)
class Noise:
    """What pulses and readings scatter by.

    Attributes:
        pulse: Standard deviation of a pulse, in ``unit``.
        write: Standard deviation of a reading, in weights.
        unit: `steps.OF_STEP` or `OF_ZERO_STEP`.
    """

    pulse: float
    write: float
    unit: int = steps.OF_STEP


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted to N devices.

    Attributes:
        model: The model.
        own: Parameters of each device (N, model.own).
        shared: Parameters that they share.
        limits: Limits of the devices' parameters, lower and upper (2, N, own).
        noise: Noise of all of them.
        covariances: Covariance of each device's own parameters (N, own, own).
        shared_covariance: Of the shared ones.
        noise_errors: Standard errors of the noise of pulses and of readings.
        lasting: Whether readings scatter for several pulses, and then no more.
    """

    model: Model
    own: Array
    shared: Array
    limits: Array
    noise: Noise
    covariances: Array
    shared_covariance: Array
    noise_errors: Array
    lasting: bool = False

    def theta(self, number: int) -> Array:
        """All parameters of a device, as `steps` takes them."""
        return self.model.theta(self.own[number], self.shared)


def scatter(traces: Sequence[Trace]) -> float:
    """Root mean square of what readings lie beside a smooth trend of their ramp."""
    squares = []
    for trace in traces:
        for ramp in np.split(trace.weights, trace.turns[1:]):
            index, degree = np.linspace(-1, 1, len(ramp)), min(TREND, len(ramp) // 3)
            squares.append(
                np.mean((ramp - np.polyval(np.polyfit(index, ramp, degree), index)) ** 2)
            )
    return float(np.sqrt(np.mean(squares)))


class Fit:
    """Fits of one model to traces; ``weights`` (per trace) leave readings out (0) or in (1)."""

    def __init__(
        self, model: Model, traces: Sequence[Trace], floor: float, weights: Sequence[Array] = ()
    ) -> None:
        self.model, self.traces, self.floor = model, traces, floor
        self.scatter = max(scatter(traces), floor)
        self.weights = weights or [np.ones(len(trace.weights)) for trace in traces]

    def run(self) -> Fitted:
        """Fit the mean response, from the model's first guess."""
        limits = np.array([self.model.limits(trace) for trace in self.traces]).swapaxes(0, 1)
        own = np.array([self.model.start(trace) for trace in self.traces])
        noise, unknown = Noise(0.0, self.scatter), (np.empty(0),) * 3
        fit = Fitted(self.model, own, self.model.start_shared, limits, noise, *unknown)
        return self._devices(self._devices(fit))

    def run_noise(self) -> Fitted:
        """Fit the mean response and the noise about it."""
        fit = self.run()
        for _ in range(ROUNDS):
            seen, _ = self._squares(fit)
            fit = self._devices(self._within(self._noise(fit), seen))
        return fit

    def run_all(self) -> Fitted:
        """Fit the mean response and the noise about it, with their errors."""
        return self._with_errors(self.run_noise())

    def filter(self, fit: Fitted, number: int, follow: bool) -> tuple[Array, ...]:
        """Run `steps.filtered` along a trace."""
        trace, noise = self.traces[number], fit.noise
        found: tuple[Array, ...] = steps.filtered(
            fit.model.kind,
            fit.theta(number),
            trace.weights,
            trace.signs,
            trace.starts,
            noise.pulse,
            float(np.hypot(noise.write, self.floor)),
            self.scatter,
            noise.unit,
            follow,
        )
        return found

    def free_run(self, fit: Fitted, number: int) -> Array:
        """Follow the mean response of a device; readings only tell where each sequence starts."""
        return self.filter(fit, number, follow=False)[0]

    # -- the devices' parameters -------------------------------------------------------------------

    def _errors(self, fit: Fitted) -> Callable[..., Array]:
        """What readings of a device lie beside the free run of its parameters, as a function."""
        filters = []
        for number, weights in enumerate(self.weights):
            _, gains, _, shifts, _, _ = self.filter(fit, number, follow=False)
            filters.append((gains, self.scatter / np.maximum(weights, 1e-12), shifts))

        def errors(number: int, own: Array, shared: Array = fit.shared) -> Array:
            trace, theta = self.traces[number], self.model.theta(own, shared)
            arguments = (trace.weights, trace.signs, trace.starts, *filters[number])
            found: Array = steps.errors(self.model.kind, theta, *arguments)
            return found

        return errors

    def _devices(self, fit: Fitted) -> Fitted:
        errors = self._errors(fit)
        if self.model.shared:
            return self._together(fit, errors)
        own = []
        for number, trace in enumerate(self.traces):
            ends = np.quantile(trace.weights, (0.995, 0.005))
            results = [
                _least(lambda p, n=number: errors(n, p), first, *fit.limits[:, number])
                # A bound that no prediction reaches has no slope: try those that are seen, too.
                for first in (fit.own[number], [*ends, *fit.own[number][2:]])
            ]
            own.append(min(results, key=lambda one: float(one.cost)).x)
        return replace(fit, own=np.array(own))

    def _together(self, fit: Fitted, errors: Callable[..., Array]) -> Fitted:
        """Fit all devices at once: some of their parameters are the same."""
        model, n = self.model, len(self.traces)
        ends = np.cumsum([0, *(len(trace.weights) for trace in self.traces)])
        sparsity = lil_matrix((int(ends[-1]), n * model.own + model.shared), dtype=np.int8)
        sparsity[:, n * model.own :] = 1
        for i in range(n):
            sparsity[ends[i] : ends[i + 1], i * model.own : (i + 1) * model.own] = 1
        lower, upper = (
            np.concatenate([fit.limits[side].ravel(), model.limits_shared[side]]) for side in (0, 1)
        )

        def split(p: Array) -> tuple[Array, Array]:
            return p[: n * model.own].reshape(n, model.own), p[n * model.own :]

        def all_errors(p: Array) -> Array:
            own, shared = split(p)
            return np.concatenate([errors(i, own[i], shared) for i in range(n)])

        first = np.concatenate([fit.own.ravel(), fit.shared])
        result = _least(all_errors, first, lower, upper, sparsity if n > 1 else None)
        own, shared = split(result.x)
        return replace(fit, own=own, shared=shared)

    # -- noise -------------------------------------------------------------------------------------

    def losses(self, fit: Fitted) -> list[Array]:
        """Minus log likelihood of each reading given those before; an outlier's grows linearly.

        0 where readings end: a bound cuts off the noise there.
        """
        found = []
        for number, trace in enumerate(self.traces):
            predicted, _, scales, _, _, _ = self.filter(fit, number, follow=True)
            far = np.abs((trace.weights - predicted) / scales)
            loss = np.where(far > FAR, FAR * far - FAR**2 / 2, far**2 / 2)
            before, edge = np.roll(trace.weights, 1), EDGE * trace.span
            high, low = trace.weights.max() - edge, trace.weights.min() + edge
            bound = (before > high) | (before < low)
            found.append(np.where(trace.starts | bound, 0.0, loss + np.log(scales)))
        return found

    def _noise(self, fit: Fitted) -> Fitted:
        """Find the likeliest noise, and its standard errors from how parts of the data differ."""
        parts = 1 if len(self.traces) > 1 else PARTS

        def losses(logs: Array, unit: int) -> Array:
            noisy = replace(fit, noise=_noise_of(logs, unit))
            found = [a * b for a, b in zip(self.losses(noisy), self.weights, strict=True)]
            return np.array([p.sum() for one in found for p in np.array_split(one, parts)])

        first = np.log([max(fit.noise.pulse, 0.3), max(self.scatter / 2, 1e-4)])
        simplex = first + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
        options = {"xatol": 1e-2, "fatol": 1e-2, "initial_simplex": simplex}
        found = []
        for unit in self.model.units:
            result = minimize(
                lambda logs, unit=unit: losses(logs, unit).sum(),
                first,
                method="Nelder-Mead",
                bounds=[LOG_NOISE, LOG_WRITE],
                options=options,
            )
            found.append((float(result.fun), unit, result.x))
        _, unit, best = min(found, key=lambda one: one[0])
        noise = _noise_of(best, unit)
        slopes = _jacobian(lambda logs: losses(logs, unit), best, STEP)
        slopes -= slopes.mean(axis=0)
        curves = _jacobian(
            lambda logs: _jacobian(lambda p: losses(p, unit), logs, STEP).sum(axis=0), best, STEP
        )
        errors = np.exp(best) * np.sqrt(((slopes @ _inverse(curves)) ** 2).sum(axis=0))
        return replace(fit, noise=noise, noise_errors=errors, lasting=False)

    def _squares(self, fit: Fitted) -> tuple[float, float]:
        """Mean square of readings about the free run: as they are, and as the noise has it."""
        runs = [self.filter(fit, n, follow=False) for n in range(len(self.traces))]
        pairs = list(zip(self.traces, runs, strict=True))
        seen = np.concatenate([(one.weights - run[0])[~one.starts] ** 2 for one, run in pairs])
        expected = np.concatenate([run[2][~one.starts] ** 2 for one, run in pairs])
        return float(seen.mean()), float(expected.mean())

    def _within(self, fit: Fitted, seen: float) -> Fitted:
        """Lessen noise of pulses that would carry devices further than ``seen``, their square.

        Noise of readings that lasts for some pulses looks like it from one reading to the next.
        """
        read = fit.noise.write**2 + self.floor**2
        for _ in range(LESSENED):
            share = max(seen - read, 0.0) / max(self._squares(fit)[1] - read, 1e-18)
            if share > (1.0 if fit.lasting else LASTING):
                break
            noise = replace(fit.noise, pulse=fit.noise.pulse * float(np.sqrt(share)))
            fit = replace(fit, noise=noise, lasting=True)
        return fit

    # -- uncertainty -------------------------------------------------------------------------------

    def _with_errors(self, fit: Fitted) -> Fitted:
        """Add the covariances: what the noise does to a fit that is linear in its parameters."""
        errors, model = self._errors(fit), self.model
        alone, cross, free = [], [], []
        for number, own in enumerate(fit.own):
            both = np.concatenate([own, fit.shared])

            def beside(p: Array, n: int = number) -> Array:
                return errors(n, p[: model.own], p[model.own :])

            block = self.scatter * _jacobian(beside, both, NEAR)
            mine, others = block[:, : model.own], block[:, model.own :]
            alone.append(_inverse(mine.T @ mine) @ mine.T)
            cross.append(alone[-1] @ others)
            free.append(others - mine @ cross[-1])
        curvature = _inverse(np.sum([one.T @ one for one in free], axis=0))
        shared = np.sum([self._carried(fit, n, curvature @ one.T) for n, one in enumerate(free)], 0)
        covariances = [
            self._carried(fit, number, one) + other @ shared @ other.T
            for number, (one, other) in enumerate(zip(alone, cross, strict=True))
        ]
        return replace(fit, covariances=np.array(covariances), shared_covariance=shared)

    def _carried(self, fit: Fitted, number: int, map_: Array) -> Array:
        """Covariance of ``map_`` (P, K) @ errors of the free run, from the noise.

        Noise of a pulse stays in the readings that follow; noise of those where a sequence starts
        passes into the free run.
        """
        _, gains, _, _, left, added = self.filter(fit, number, follow=False)
        gains = np.where(self.traces[number].starts, 1.0, gains)
        read, moved = np.empty_like(map_), np.empty_like(map_)
        into, stays = np.zeros((2, len(map_)))
        for k in range(len(left) - 1, -1, -1):
            read[:, k] = map_[:, k] + gains[k] * into
            into = left[k] * ((1 - gains[k]) * into - map_[:, k])
            moved[:, k] = added[k] * (read[:, k] + stays)
            stays = left[k] * (read[:, k] + stays)
        read *= np.hypot(fit.noise.write, self.floor)
        found: Array = moved @ moved.T + read @ read.T
        return found


def _noise_of(logs: Array, unit: int) -> Noise:
    return Noise(float(np.exp(logs[0])), float(np.exp(logs[1])), unit)


def _least(errors: Any, first: Any, lower: Array, upper: Array, sparsity: Any = None) -> Any:
    return least_squares(
        errors,
        np.clip(first, lower + 1e-9, upper - 1e-9),
        bounds=(lower, upper),
        loss="soft_l1",
        f_scale=FAR / 2,
        x_scale="jac",
        jac_sparsity=sparsity,
        max_nfev=MAX_CALLS,
    )


def _jacobian(function: Callable[[Array], Array], at: Array, step: float) -> Array:
    moves = step * np.eye(len(at))
    return np.stack([(function(at + h) - function(at - h)) / (2 * step) for h in moves], axis=1)


def _inverse(square: Array) -> Array:
    """Invert a curvature; directions that nothing depends on get none."""
    scale = np.maximum(np.sqrt(np.diag(square)), 1e-12)
    found: Array = np.linalg.pinv(square / np.outer(scale, scale), rcond=1e-10, hermitian=True)
    return found / np.outer(scale, scale)
