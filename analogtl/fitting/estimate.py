"""Fit one model to traces: the mean response of each device, then the noise about it.

A device's parameters minimise the ``soft_l1`` loss of what readings lie beside the free run of
its mean response, so that they hold over whole ramps, whatever the noise is like. Given them, the
noise is the likeliest one for a Kalman filter that predicts each reading from those before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from analogtl.fitting import steps
from analogtl.fitting.least import minimum, soft_l1
from analogtl.fitting.models import Model
from analogtl.fitting.pulses import Trace

Array = NDArray[Any]
EXPECTATIONS = 30  # rounds that find how devices differ
LESSENED = 5  # times at most that noise is, which is too large
LASTING = 0.4  # share of the variance that noise of pulses predicts, from which it may be it
EDGE = 0.02  # share of the range from its ends
TREND = 5  # degree, at most, of the trend of a ramp
PARTS = 10  # of a device's readings, for the interval of its noise
FAR = 3.0  # standard deviations from which an error counts as an outlier
OF_MEDIAN = 1.4826  # standard deviation of normal errors, of the median of their sizes
LOG_NOISE, LOG_WRITE = (-9.0, 5.0), (-14.0, 1.0)  # limits, of steps and of weights
REACHED = 0.1  # share of the pulses towards a bound that end there, from which it is told
STEP = 0.05  # of the logarithms, for their derivatives


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
        covariances: Covariance of each device's own parameters, those shared given (N, own, own).
        follows: How they follow the shared ones: less this (N, own, shared) times their change.
        told: Whether a device's readings tell a parameter (N, own): a hard bound that they do not
            reach is not told.
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
    follows: Array
    told: Array
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
        self.inside = [~trace.starts & _inside(trace) for trace in traces]

    def run(self) -> Fitted:
        """Fit the mean response, from the model's first guess."""
        limits = np.array([self.model.limits(trace) for trace in self.traces]).swapaxes(0, 1)
        own = np.array([self.model.start(trace) for trace in self.traces])
        noise, unknown = Noise(0.0, self.scatter), (np.empty(0),) * 5
        fit = Fitted(self.model, own, self.model.start_shared, limits, noise, *unknown)
        return self._devices(self._devices(fit, seen=True), seen=True)

    def run_noise(self) -> Fitted:
        """Fit the mean response and the noise about it."""
        fit = self.run()
        seen, _ = self._squares(fit)
        guess = replace(fit, noise=Noise(0.3, self.scatter / 2))
        fit = self._devices(self._within(self._noise(guess, self.model.units, 1.0), seen))
        seen, _ = self._squares(fit)
        return self._devices(self._within(self._noise(fit, [fit.noise.unit], 0.2), seen))

    def run_all(self) -> Fitted:
        """Fit the mean response and the noise about it, with their errors."""
        fit = self._with_noise_errors(self._with_errors(self.run_noise()))
        # How well a device is known depends on where it is: rather there than where it was found,
        # or devices that are found far off by mistake would pass for well known.
        return replace(self._with_errors(self._shrunk(fit)), own=fit.own)

    def run_held_out(self) -> Fitted:
        """Fit what readings that were left out are to be compared with: the likeliest devices."""
        fit = self.run_noise()
        return self._shrunk(self._with_errors(fit)) if len(self.traces) > 1 else fit

    def _shrunk(self, fit: Fitted) -> Fitted:
        """Move each device towards their mean, as far as its own readings do not tell it.

        The devices are normal about their mean; that and their covariance are the likeliest ones.
        """
        if len(self.traces) == 1:
            return fit
        own, mean, between = fit.own, fit.own.mean(axis=0), np.cov(fit.own.T, ddof=0)
        for _ in range(EXPECTATIONS):
            gains = np.array([between @ _inverse(between + one) for one in fit.covariances])
            own = mean + np.einsum("nij,nj->ni", gains, fit.own - mean)
            mean = own.mean(axis=0)
            between = np.cov(own.T, ddof=0) + (between - gains @ between).mean(axis=0)
        return replace(fit, own=np.clip(own, *fit.limits))

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

    def _errors(self, fit: Fitted) -> Callable[..., tuple[Array, Array]]:
        """What readings of a device lie beside the free run of its parameters, as a function.

        In weights, and their derivatives by the device's own parameters and those shared.
        """
        filters = []
        for number in range(len(self.traces)):
            _, gains, _, shifts, _, _ = self.filter(fit, number, follow=False)
            filters.append((gains, shifts))
        places = self.model.places

        def errors(number: int, own: Array, shared: Array) -> tuple[Array, Array]:
            trace, theta = self.traces[number], self.model.theta(own, shared)
            arguments = (trace.weights, trace.signs, trace.starts, *filters[number])
            beside, slopes = steps.errors(self.model.kind, theta, *arguments)
            return beside, slopes[:, places]

        return errors

    def _devices(self, fit: Fitted, seen: bool = False) -> Fitted:
        """Fit the devices' parameters: each for itself, or at once if some of them are shared.

        With ``seen`` also from the bounds that are seen: one that no prediction reaches has no
        slope.
        """
        errors, n = self._errors(fit), len(self.traces)
        beside = [errors(i, fit.own[i], fit.shared)[0][self.weights[i] > 0] for i in range(n)]
        # Noise of pulses adds up to more than readings scatter: an outlier is far beyond both.
        far = FAR * max(self.scatter, float(np.median(np.abs(np.concatenate(beside)))) * OF_MEDIAN)
        groups = [[*range(n)]] if self.model.shared else [[i] for i in range(n)]
        own, shared = fit.own.copy(), fit.shared
        for group in groups:
            starts = [fit.own[group]]
            if seen:
                ends = [np.quantile(self.traces[i].weights, (0.995, 0.005)) for i in group]
                starts.append(np.hstack([ends, fit.own[group][:, 2:]]))
            results = [self._group(fit, errors, group, start, far) for start in starts]
            best = min(results, key=lambda one: one[0])[1]
            own[group] = best[: own[group].size].reshape(len(group), -1)
            shared = best[own[group].size :]
        return replace(fit, own=own, shared=shared)

    def _group(
        self, fit: Fitted, errors: Callable[..., Any], group: list[int], own: Array, far: float
    ) -> tuple[float, Array]:
        """Fit some devices, errors counting by their size from ``far``; least loss, and where."""
        size, shape = own.size, own.shape

        def at(p: Array) -> tuple[float, Array, Array]:
            value, slope, curve = 0.0, np.zeros(len(p)), np.zeros((len(p), len(p)))
            for place, number in enumerate(group):
                mine = p[:size].reshape(shape)[place]
                beside, slopes = errors(number, mine, p[size:])
                kept = self.weights[number] / far
                loss = soft_l1(kept * beside, kept[:, None] * slopes)
                first = place * shape[1]
                index = np.r_[first : first + shape[1], size : len(p)]
                value += loss[0]
                slope[index] += loss[1]
                curve[np.ix_(index, index)] += loss[2]
            return value, slope, curve

        lower, upper = (
            np.concatenate([fit.limits[side][group].ravel(), self.model.limits_shared[side]])
            for side in (0, 1)
        )
        return minimum(at, np.concatenate([own.ravel(), fit.shared]), lower, upper)

    # -- noise -------------------------------------------------------------------------------------

    def losses(self, fit: Fitted) -> list[Array]:
        """Minus log likelihood of each reading given those before; an outlier's grows linearly.

        0 where readings end: a bound cuts off the noise there.
        """
        runs = (self.filter(fit, number, follow=True) for number in range(len(self.traces)))
        return [self._losses(number, one[0], one[2]) for number, one in enumerate(runs)]

    def _losses(self, number: int, predicted: Array, scales: Array) -> Array:
        far = np.abs((self.traces[number].weights - predicted) / scales)
        loss = np.where(far > FAR, FAR * far - FAR**2 / 2, far**2 / 2)
        return np.where(self.inside[number], loss + np.log(scales), 0.0)

    def _restricted(self, fit: Fitted, logs: Array, unit: int) -> Array:
        """Minus log of the restricted likelihood (REML) of a noise, of each device.

        Parameters follow part of the noise, which would else look smaller, and vanish where one
        cycle tells six parameters. Before, each is known to about 1. Of parts of the readings if
        there is one device.
        """
        fit, own, found = replace(fit, noise=_noise_of(logs, unit)), self.model.own, []
        parts = 1 if len(self.traces) > 1 else PARTS
        for number, trace in enumerate(self.traces):
            predicted, gains, scales, shifts, *_ = self.filter(fit, number, follow=True)
            arguments = (trace.weights, trace.signs, trace.starts, gains, shifts)
            _, slopes = steps.errors(self.model.kind, fit.theta(number), *arguments)
            weights = self.weights[number]
            kept = weights * self.inside[number] / scales
            by_own = kept[:, None] * slopes[:, :own]
            error = np.clip(kept * (trace.weights - predicted), -FAR, FAR)
            curve, slope = by_own.T @ by_own + np.eye(own), by_own.T @ error
            gain = slope @ np.linalg.solve(curve, slope)
            spent = (np.linalg.slogdet(curve)[1] - gain) / 2 / parts
            losses = np.array_split(weights * self._losses(number, predicted, scales), parts)
            found += [float(part.sum() + spent) for part in losses]
        return np.array(found)

    def _noise(self, fit: Fitted, units: Sequence[int], reach: float) -> Fitted:
        """Find the likeliest noise, in one of ``units``, from steps of ``reach`` in its logs."""
        first = np.log([max(fit.noise.pulse, 1e-2), max(fit.noise.write, 1e-4)])
        simplex = first + reach * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
        options = {"xatol": 2e-2, "fatol": 5e-2, "initial_simplex": simplex}
        found = []
        for unit in units:
            result = minimize(
                lambda logs, unit=unit: self._restricted(fit, logs, unit).sum(),
                first,
                method="Nelder-Mead",
                bounds=[LOG_NOISE, LOG_WRITE],
                options=options,
            )
            found.append((float(result.fun), unit, result.x))
        _, unit, best = min(found, key=lambda one: one[0])
        return replace(fit, noise=_noise_of(best, unit), lasting=False)

    def _with_noise_errors(self, fit: Fitted) -> Fitted:
        """Add the standard errors of the noise, from how devices (or parts of one) differ."""

        def losses(logs: Array) -> Array:
            return self._restricted(fit, logs, fit.noise.unit)

        best = np.log([max(fit.noise.pulse, 1e-4), max(fit.noise.write, 1e-6)])
        slopes = _jacobian(losses, best, STEP)
        slopes -= slopes.mean(axis=0)
        curves = _jacobian(lambda at: _jacobian(losses, at, STEP).sum(axis=0), best, STEP)
        errors = np.exp(best) * np.sqrt(((slopes @ _inverse(curves)) ** 2).sum(axis=0))
        return replace(fit, noise_errors=errors)

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
        alone, cross, free, told = [], [], [], []
        for number, own in enumerate(fit.own):
            block = self.weights[number][:, None] * errors(number, own, fit.shared)[1]
            mine, others = block[:, : model.own], block[:, model.own :]
            told.append(self._told(number, mine))
            alone.append(_inverse(mine.T @ mine) @ mine.T)
            cross.append(alone[-1] @ others)
            free.append(others - mine @ cross[-1])
        curvature = _inverse(np.sum([one.T @ one for one in free], axis=0))
        shared = np.sum([self._carried(fit, n, curvature @ one.T) for n, one in enumerate(free)], 0)
        return replace(
            fit,
            covariances=np.array([self._carried(fit, n, one) for n, one in enumerate(alone)]),
            shared_covariance=shared,
            follows=np.array(cross),
            told=np.array(told),
        )

    def _told(self, number: int, slopes: Array) -> Array:
        """Whether a device's readings tell its parameters: hard bounds only where they stay."""
        told = np.ones(slopes.shape[1], dtype=bool)
        if self.model.kind not in (steps.SOFT, steps.POW):
            for i, sign in enumerate((1, -1)):
                bound = np.abs(slopes[self.traces[number].signs == sign, i]) > 0.5
                told[i] = bound.mean() > REACHED
        return told

    def _carried(self, fit: Fitted, number: int, map_: Array) -> Array:
        """Covariance of ``map_`` (P, K) @ errors of the free run, from the noise."""
        _, gains, _, _, left, added = self.filter(fit, number, follow=False)
        gains = np.where(self.traces[number].starts, 1.0, gains)
        read, moved = steps.carried(np.ascontiguousarray(map_), gains, left, added)
        read *= np.hypot(fit.noise.write, self.floor)
        found: Array = moved @ moved.T + read @ read.T
        return found


def _noise_of(logs: Array, unit: int) -> Noise:
    return Noise(float(np.exp(logs[0])), float(np.exp(logs[1])), unit)


def _inside(trace: Trace) -> Array:
    """Whether the reading before lies within the range, where bounds cut no noise off (K,)."""
    before, edge = np.roll(trace.weights, 1), EDGE * trace.span
    found: Array = (before < trace.weights.max() - edge) & (before > trace.weights.min() + edge)
    return found


def _jacobian(function: Callable[[Array], Array], at: Array, step: float) -> Array:
    moves = step * np.eye(len(at))
    return np.stack([(function(at + h) - function(at - h)) / (2 * step) for h in moves], axis=1)


def _inverse(square: Array) -> Array:
    """Invert a curvature; directions that nothing depends on get none."""
    scale = np.maximum(np.sqrt(np.abs(np.diag(square))), 1e-12)
    found: Array = np.linalg.pinv(square / np.outer(scale, scale), rcond=1e-10, hermitian=True)
    return found / np.outer(scale, scale)
