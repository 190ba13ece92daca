"""Fit every model, and choose by readings that a fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
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
FOLDS = 3
BLOCK = 20  # pulses that are left out together, where there is one cycle only
FLOOR = 1e-4  # no reading is taken for more exact, in weights


@dataclass(frozen=True)
class Result:
    """A fit of measured pulses.

    Attributes:
        pulses: The measurements.
        fitted: The chosen model.
        population: Its parameters as aihwkit names them.
        scores: Model name -> log likelihood of a held-out reading, relative to the best model.
        unknown: What the data cannot say, a sentence each.
        curves: Mean response of each device's model (K,), from each cycle's first reading.
        bands: Standard deviation that noise gives a reading about its prediction (K,).
        residuals: Reading - prediction, relative to that (K,).
    """

    pulses: Pulses
    fitted: Fitted
    population: Population
    scores: dict[str, float]
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
        model: aihwkit's class to fit; by default the one that predicts held-out cycles best, and of
            those that do as well, within one standard error, the one with the fewest parameters.
    """
    traces, floor = pulses.traces, max(FLOOR, pulses.resolution / np.sqrt(12))
    wanted = [one for one in MODELS if model in (None, one.device_class)]
    fits = {one.name: Fit(one, traces, floor).run() for one in wanted}
    scores: dict[str, float] = {}
    if len(wanted) > 1:
        held_out = {one.name: _held_out(one, fits[one.name], traces, floor) for one in wanted}
        best = max(held_out, key=lambda name: float(held_out[name].mean()))
        chosen = best
        for name in reversed([*held_out]):
            worse = held_out[best] - held_out[name]
            error = worse.std(ddof=1) / np.sqrt(len(worse)) if len(worse) > 1 else 0.0
            scores[name] = -float(worse.mean())
            if worse.mean() <= error:
                chosen = name
    else:
        chosen = wanted[0].name
    fitted = fits[chosen]
    fit = Fit(fitted.model, traces, floor)
    curves, bands, residuals = [], [], []
    for number, trace in enumerate(traces):
        predicted, _, scales, _ = fit.filter(fitted, number)
        theta = fitted.theta(number)
        arguments = (fitted.model.kind, theta, trace.weights, trace.signs, trace.starts)
        curves.append(steps.free_run(*arguments))
        bands.append(np.where(trace.starts, np.nan, scales))
        residuals.append(np.where(trace.starts, np.nan, (trace.weights - predicted) / scales))
    population = describe(fit, fitted)
    if not population.parameters["w_min"] < 0 < population.parameters["w_max"]:
        raise ExperimentError(
            "weight 0 is not between the bounds; --g-min and --g-max set the range"
        )
    unknown = tuple(_unknown(pulses, fitted, population))
    return Result(
        pulses, fitted, population, scores, unknown, *map(tuple, (curves, bands, residuals))
    )


def _folds(traces: Sequence[Trace]) -> list[list[Array]]:
    """What each fold holds out of each trace: cycles, or blocks of pulses where there is one."""
    several = min(int(trace.cycles[-1]) for trace in traces) > 0
    marks = [t.cycles if several else np.arange(len(t.cycles)) // BLOCK for t in traces]
    number = min(FOLDS, *(int(mark[-1]) + 1 for mark in marks))
    return [[mark % number == fold for mark in marks] for fold in range(number)]


def _held_out(model: Model, whole: Fitted, traces: Sequence[Trace], floor: float) -> Array:
    """Mean log likelihood of a held-out reading, for each device and fold."""
    found = []
    for fold in _folds(traces):
        fit = Fit(model, traces, floor, [1.0 - held for held in fold])
        fitted = fit.run(whole)
        for scores, held in zip(fit.scores(fitted), fold, strict=True):
            found.append(scores[held].mean())
    return np.array(found)


def _unknown(pulses: Pulses, fitted: Fitted, population: Population) -> Any:
    """Say what the data cannot tell."""
    n, cycles = len(pulses.traces), pulses.n_cycles
    if n == 1:
        yield "One device: no spread over devices; the _dtod parameters are 0, not aihwkit's defaults."
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
    yield "Drift, retention, and stuck devices (corrupt_devices_prob): not in pulses."
    if fitted.model.kind == steps.LINEAR and fitted.model.own == 4:
        yield "Write noise: ConstantStepDevice has none; the readings' noise is only told."
