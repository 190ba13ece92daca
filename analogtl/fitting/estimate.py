"""Fit one model to traces: the devices' parameters by robust least squares, noise by likelihood.

The two take turns. Given the noise, each device's parameters minimise SciPy's ``soft_l1`` loss of
the errors of a filter that predicts each reading from those before, each relative to its standard
deviation. Given the parameters, the noise maximises the likelihood of those errors.
"""

from __future__ import annotations

from collections.abc import Sequence
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
ROUNDS = 3
MAX_CALLS = 40  # of the least squares in a round
FAR = 3.0  # standard deviations from which an error counts as an outlier for the noise
START_NOISE, START_WRITE = 0.3, 0.01  # relative to a step; in weights


@dataclass(frozen=True)
class Noise:
    """What pulses and readings scatter by.

    Attributes:
        pulse: Standard deviation of a pulse, relative to its step; or, if it does not multiply, to
            the step at weight 0.
        write: Standard deviation of a reading, in weights.
        multiplies: Whether the noise of a pulse shrinks with its step.
    """

    pulse: float = START_NOISE
    write: float = START_WRITE
    multiplies: bool = True


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
        score: Log likelihood of the readings, outliers limited.
    """

    model: Model
    own: Array
    shared: Array
    noise: Noise
    covariances: Array
    shared_covariance: Array
    score: float

    def theta(self, number: int) -> Array:
        """All parameters of a device, as `steps` takes them."""
        return self.model.theta(self.own[number], self.shared)


class Fit:
    """Fits of one model to some traces; ``weights`` (per trace) leave readings out (0) or in (1)."""

    def __init__(
        self, model: Model, traces: Sequence[Trace], floor: float, weights: Sequence[Array] = ()
    ) -> None:
        self.model, self.traces, self.floor = model, traces, floor
        self.weights = weights or [np.ones(len(trace.weights)) for trace in traces]

    def run(self, before: Fitted | None = None) -> Fitted:
        """Fit, from a fit of all readings or from the models' first guess."""
        model, both = self.model, self.model.kind in (steps.SOFT, steps.LINEAR)
        if before is None:
            own = np.array([model.start(trace) for trace in self.traces])
            fit = Fitted(model, own, model.start_shared, Noise(), *(np.empty(0),) * 2, 0.0)
        else:
            fit = before
        for number in range(ROUNDS if before is None else 1):
            fit = self._devices(fit)
            kinds = (True, False) if both and before is None else (fit.noise.multiplies,)
            if number == 0 and before is None and both:
                kinds = (False,)
            found = [self._noise(fit, kind) for kind in kinds]
            fit = max(found, key=lambda one: one.score)
        return self._devices(fit, covariance=True)

    # -- the devices' parameters -------------------------------------------------------------------

    def _devices(self, fit: Fitted, covariance: bool = False) -> Fitted:
        model, filters = self.model, []
        for number, trace in enumerate(self.traces):
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

    def filter(self, fit: Fitted, number: int, noise: Noise | None = None) -> tuple[Array, ...]:
        """Run the filter along a trace: predictions, gains, standard deviations."""
        trace, noise = self.traces[number], noise or fit.noise
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
            noise.multiplies,
        )
        return found

    def scores(self, fit: Fitted, noise: Noise | None = None) -> list[Array]:
        """Log likelihood of each reading; an outlier's grows linearly. 0 where a cycle starts."""
        found = []
        for number, trace in enumerate(self.traces):
            predicted, _, scales, _ = self.filter(fit, number, noise)
            far = np.abs((trace.weights - predicted) / scales)
            loss = np.where(far > FAR, FAR * far - FAR**2 / 2, far**2 / 2)
            found.append(np.where(trace.starts, 0.0, -loss - np.log(scales)))
        return found

    def score(self, fit: Fitted, noise: Noise) -> float:
        """Log likelihood of the readings that are not left out."""
        parts = zip(self.scores(fit, noise), self.weights, strict=True)
        return float(sum(part @ weights for part, weights in parts))

    def _noise(self, fit: Fitted, multiplies: bool) -> Fitted:
        """Find the noise that makes the readings most likely."""

        def loss(logs: Array) -> float:
            return -self.score(fit, Noise(*np.exp(logs), multiplies))

        starts = [(fit.noise.pulse, fit.noise.write), (START_NOISE, START_WRITE)]
        first = min((np.log(np.maximum(one, 1e-4)) for one in starts), key=loss)
        limits = [(np.log(1e-4), np.log(50.0)), (np.log(1e-6), np.log(2.0))]
        result = minimize(loss, first, method="Nelder-Mead", bounds=limits, options={"xatol": 1e-2})
        return replace(fit, noise=Noise(*np.exp(result.x), multiplies), score=-float(result.fun))


def _covariance(jacobian: Array) -> Array:
    """Covariance of parameters from the Jacobian of errors of standard deviation 1.

    SciPy scales it by the loss already: outliers weigh less.
    """
    scale = np.maximum(np.sqrt((jacobian**2).sum(axis=0)), 1e-12)
    scaled = jacobian / scale
    found: Array = np.linalg.pinv(scaled.T @ scaled, rcond=1e-10, hermitian=True)
    return found / np.outer(scale, scale)
