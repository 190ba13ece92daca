"""Fit every model, and choose by readings that a fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.errors import ExperimentError
from analogtl.fitting import steps
from analogtl.fitting.estimate import Fit, Fitted
from analogtl.fitting.models import MODELS, Model
from analogtl.fitting.population import Population, describe
from analogtl.fitting.pulses import Pulses, Trace

Array = NDArray[Any]
FOLDS = 2
TIE = 2.0  # standard errors within which a model does as well as the best
SAMPLE = 8  # devices, of which models are compared
BLOCK = 10  # pulses, at least, that are left out together where there is one cycle only
FLOOR = 1e-4  # no reading is taken for more exact, in weights


@dataclass(frozen=True)
class Gap:
    """How much worse than the best a model does, with the standard error of the difference."""

    mean: float
    error: float

    @classmethod
    def between(cls, values: Array, best: Array) -> Gap:
        """Compare values of devices (or parts) with those of the best model; lower is better."""
        worse = values - best
        error = worse.std(ddof=1) / np.sqrt(len(worse)) if len(worse) > 1 else 0.0
        return cls(float(worse.mean()), float(error))

    @property
    def ties(self) -> bool:
        """Whether the data do not tell the model from the best."""
        return self.mean <= TIE * self.error


@dataclass(frozen=True)
class Score:
    """How well a model does on held-out readings.

    Attributes:
        miss: Mean distance from the mean response, in percent of the range.
        gap: That of the best model from it.
        loss: Difference of the mean log likelihood; None where the distance decides already.
    """

    miss: float
    gap: Gap
    loss: Gap | None = None

    @property
    def ties(self) -> bool:
        """Whether the data do not tell the model from the best."""
        return self.gap.ties and (self.loss is None or self.loss.ties)


@dataclass(frozen=True)
class Result:
    """A fit of measured pulses.

    Attributes:
        pulses: The measurements.
        fitted: The chosen model.
        population: Its parameters as aihwkit names them.
        scores: Model name -> how close it comes to held-out readings.
        unknown: What the data cannot say, a sentence each.
        curves: Mean response of each device's model (K,), from each cycle's first reading.
        bands: Standard deviation of readings about it (K,).
        residuals: Reading - its prediction from those before, in standard deviations (K,).
    """

    pulses: Pulses
    fitted: Fitted
    population: Population
    scores: dict[str, Score]
    unknown: tuple[str, ...]
    curves: tuple[Array, ...]
    bands: tuple[Array, ...]
    residuals: tuple[Array, ...]

    @property
    def device_class(self) -> str:
        """aihwkit's class of the chosen model."""
        return self.fitted.model.device_class


def fit_pulses(pulses: Pulses, model: str | None = None) -> Result:
    """Fit measured pulses.

    Args:
        pulses: The measurements.
        model: aihwkit's class to fit; by default the one whose mean response is closest to cycles
            that are held out, and of those that do as well, within two standard errors, the one
            with the fewest parameters.

    Raises:
        ExperimentError: If no device follows from it.
    """
    traces, floor = pulses.traces, max(FLOOR, pulses.resolution / np.sqrt(12))
    wanted = [one for one in MODELS if model in (None, one.device_class)]
    scores: dict[str, Score] = {}
    if len(wanted) > 1:
        few = traces[:: -(-len(traces) // SAMPLE)]
        scores = _compare(wanted, few, floor)
        wanted = [one for one in wanted if scores[one.name].ties]
    fit = Fit(wanted[0], traces, floor)
    fitted = fit.run_all()
    curves, bands, residuals = [], [], []
    for number, trace in enumerate(traces):
        curve, _, band, *_ = fit.filter(fitted, number, follow=False)
        predicted, _, scales, *_ = fit.filter(fitted, number, follow=True)
        curves.append(curve)
        bands.append(np.where(trace.starts, np.nan, band))
        residuals.append(np.where(trace.starts, np.nan, (trace.weights - predicted) / scales))
    population = describe(fitted)
    if not population.parameters["w_min"] < 0 < population.parameters["w_max"]:
        raise ExperimentError(
            "weight 0 is not between the bounds; --g-min and --g-max set the range"
        )
    unknown = tuple(_unknown(pulses, fitted, population))
    return Result(
        pulses, fitted, population, scores, unknown, *map(tuple, (curves, bands, residuals))
    )


def _compare(models: Sequence[Model], traces: Sequence[Trace], floor: float) -> dict[str, Score]:
    """Compare mean responses; where they do as well, how likely the readings are.

    The mean response counts first: likelihoods depend on what the noise is like, and the noise of
    real devices is often like that of no model.
    """
    misses = {one: _held_out(one, traces, floor, noisy=False) for one in models}
    best = min(misses.values(), key=lambda values: float(values.mean()))
    gaps = {one: Gap.between(values, best) for one, values in misses.items()}
    scores = {one.name: Score(float(misses[one].mean()), gap) for one, gap in gaps.items()}
    losses = {one: _held_out(one, traces, floor, noisy=True) for one in models if gaps[one].ties}
    best = min(losses.values(), key=lambda values: float(values.mean()))
    for one, values in losses.items():
        scores[one.name] = replace(scores[one.name], loss=Gap.between(values, best))
    return scores


def _held_out(model: Model, traces: Sequence[Trace], floor: float, noisy: bool) -> Array:
    """Mean loss of held-out readings: minus log likelihood, or distance in percent of the range.

    Held out is each second cycle and then the others, or blocks of pulses where there is one cycle.
    Returns a value for each device, or for each part that was held out if there is one device.
    """
    several = min(int(trace.cycles[-1]) for trace in traces) > 0
    marks = [t.cycles if several else np.arange(len(t.cycles)) // max(t.lag, BLOCK) for t in traces]
    found: list[list[float]] = [[] for _ in traces]
    for fold in range(FOLDS):
        out = [mark % FOLDS == fold for mark in marks]
        fit = Fit(model, traces, floor, [1.0 - one for one in out])
        fitted = fit.run_noise() if noisy else fit.run()
        values = fit.losses(fitted) if noisy else _misses(fit, fitted)
        for number, (value, mark, one) in enumerate(zip(values, marks, out, strict=True)):
            found[number] += [float(value[mark == part].mean()) for part in np.unique(mark[one])]
    return np.array([np.mean(one) for one in found] if len(traces) > 1 else found[0])


def _misses(fit: Fit, fitted: Fitted) -> list[Array]:
    """Distance of each reading from the free run, in percent of the device's range."""
    return [
        100 * np.abs(trace.weights - fit.free_run(fitted, number)) / trace.span
        for number, trace in enumerate(fit.traces)
    ]


def _unknown(pulses: Pulses, fitted: Fitted, population: Population) -> Any:
    """Say what the data cannot tell."""
    n, cycles = len(pulses.traces), pulses.n_cycles
    if n == 1:
        yield "One device: no spread over devices; the _dtod parameters are 0, no defaults."
    elif n < 5:
        yield f"{n} devices: their spread is hardly known; look at the intervals."
    if cycles == 1:
        yield (
            "One cycle: noise cannot be told from what the model misses; dw_min_std and "
            "write_noise_std are upper bounds, and models are compared on blocks of pulses."
        )
    tops = np.array([trace.weights.max() for trace in pulses.traces])
    bottoms = np.array([trace.weights.min() for trace in pulses.traces])
    for name, reached, side in (("w_max", tops, 1), ("w_min", bottoms, -1)):
        bound, seen = population.parameters[name], reached.mean()
        if side * (bound - seen) > 0.2 * (tops.mean() - bottoms.mean()):
            yield f"{name} {bound:.3g} lies beyond the readings ({seen:.3g}): it is extrapolated."
    yield (
        "The reference: conductances of a device alone do not tell it. Weight 0 is the middle of "
        "the range; subtract_symmetry_point = true puts it at each device's symmetry point."
    )
    if fitted.lasting:
        yield (
            "The readings' noise lasts for several pulses, as that of no class of aihwkit does: "
            "dw_min_std is what carries a device as far as the readings go, not as they jump."
        )
    yield "Drift, retention, and stuck devices (corrupt_devices_prob): not in pulses."
    if fitted.model.kind == steps.LINEAR and fitted.model.own == 4:
        yield "Write noise: ConstantStepDevice has none; the readings' noise is only told."
