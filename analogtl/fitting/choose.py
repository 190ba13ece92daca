"""Fit every model, and choose by readings that a fit has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
FOLDS = 3  # at most
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

    @property
    def ties(self) -> list[str]:
        """aihwkit's classes that the data do not tell from the chosen one."""
        return _ties(self.scores, self.fitted.model)


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
    unknown = tuple(_unknown(pulses, fitted, population, scores))
    return Result(
        pulses, fitted, population, scores, unknown, *map(tuple, (curves, bands, residuals))
    )


def _compare(models: Sequence[Model], traces: Sequence[Trace], floor: float) -> dict[str, Score]:
    """Compare mean responses; where they do as well, how likely the readings are.

    The mean response counts first: likelihoods depend on what the noise is like, and the noise of
    real devices is often like that of no model.
    """
    found = {one: _held_out(one, traces, floor) for one in models}
    gaps = _gaps({one: miss for one, (miss, _) in found.items()})
    losses = _gaps({one: loss for one, (_, loss) in found.items() if gaps[one].ties})
    return {
        one.name: Score(float(miss.mean()), gaps[one], losses.get(one))
        for one, (miss, _) in found.items()
    }


def _gaps(values: Mapping[Model, Array]) -> dict[Model, Gap]:
    best = min(values.values(), key=lambda one: float(one.mean()))
    return {model: Gap.between(one, best) for model, one in values.items()}


def _held_out(model: Model, traces: Sequence[Trace], floor: float) -> tuple[Array, Array]:
    """Mean distance of held-out readings, in percent of the range, and minus log likelihood.

    Held out is each third cycle (or second, if there are two), in turn; blocks of pulses where
    there is one only. Returns a value for each device, or for each part that was held out if there
    is one device.
    """
    cycles = 1 + min(int(trace.cycles[-1]) for trace in traces)
    folds = min(FOLDS, cycles) if cycles > 1 else FOLDS
    blocks = (np.arange(len(one.cycles)) // max(one.lag, BLOCK) for one in traces)
    marks = [one.cycles for one in traces] if cycles > 1 else [*blocks]
    found: list[list[tuple[float, float]]] = [[] for _ in traces]
    for fold in range(folds):
        out = [mark % folds == fold for mark in marks]
        fit = Fit(model, traces, floor, [1.0 - one for one in out])
        fitted = fit.run_held_out()
        values = zip(_misses(fit, fitted), fit.losses(fitted), marks, out, strict=True)
        for number, (miss, loss, mark, one) in enumerate(values):
            parts = [mark == part for part in np.unique(mark[one])]
            found[number] += [(float(miss[p].mean()), float(loss[p].mean())) for p in parts]
    means = np.array([np.mean(one, axis=0) for one in found] if len(traces) > 1 else found[0])
    return means[:, 0], means[:, 1]


def _misses(fit: Fit, fitted: Fitted) -> list[Array]:
    """Distance of each reading from the free run, in percent of the device's range."""
    return [
        100 * np.abs(trace.weights - fit.free_run(fitted, number)) / trace.span
        for number, trace in enumerate(fit.traces)
    ]


def _ties(scores: Mapping[str, Score], chosen: Model) -> list[str]:
    others = [one for one in MODELS if one != chosen and one.name in scores]
    return [one.device_class for one in others if scores[one.name].ties]


def _unknown(
    pulses: Pulses, fitted: Fitted, population: Population, scores: Mapping[str, Score]
) -> Any:
    """Say what the data cannot tell."""
    n, cycles = len(pulses.traces), pulses.n_cycles
    if others := _ties(scores, fitted.model):
        yield (
            f"The class: {', '.join(others)} as well as {fitted.model.device_class}, which has "
            "fewer parameters; --model takes another."
        )
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
        if short := int((~fitted.told[:, 0 if side > 0 else 1]).sum()):
            does = "does" if short == 1 else "do"
            yield f"{name}: {short} of {n} devices {does} not stay there, and tell nothing of it."
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
