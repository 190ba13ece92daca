"""Fit every model, and choose by readings that a fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.errors import ExperimentError
from analogtl.fitting import steps
from analogtl.fitting.estimate import Fit, Fitted, Noise
from analogtl.fitting.models import MODELS, Model
from analogtl.fitting.population import Population, describe
from analogtl.fitting.pulses import Pulses, Trace

Array = NDArray[Any]
FOLDS = 2
SAMPLE = 8  # devices, of which models are compared
BLOCK = 10  # pulses, at least, that are left out together where there is one cycle only
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
        model: aihwkit's class to fit; by default the one whose mean response is closest to cycles
            that are held out, and of those that do as well, within a standard error, the simplest.

    Raises:
        ExperimentError: If no device follows from it.
    """
    traces, floor = pulses.traces, max(FLOOR, pulses.resolution / np.sqrt(12))
    noise = Noise.seen(traces)
    wanted = [one for one in MODELS if model in (None, one.device_class)]
    scores: dict[str, float] = {}
    if len(wanted) > 1:
        few = traces[:: -(-len(traces) // SAMPLE)]
        free = _of_free_run(noise, traces)
        held_out = {one: _held_out(one, few, floor, free) for one in wanted}
        best = max(held_out.values(), key=lambda values: float(values.mean()))
        worse = {one: best - values for one, values in held_out.items()}
        scores = {one.name: -float(values.mean()) for one, values in worse.items()}
        wanted = [one for one, values in worse.items() if values.mean() <= _error(values)]
    fit = Fit(wanted[0], traces, floor)
    fitted = fit.run_all(noise)
    curves, bands, residuals = [], [], []
    for number, trace in enumerate(traces):
        predicted, _, scales, _ = fit.filter(fitted, number)
        theta = fitted.theta(number)
        arguments = (fitted.model.kind, theta, trace.weights, trace.signs, trace.starts)
        curves.append(steps.free_run(*arguments))
        bands.append(np.where(trace.starts, np.nan, scales))
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


def _of_free_run(noise: Noise, traces: Sequence[Trace]) -> Noise:
    """The noise with which the filter follows the mean response alone, not the readings."""
    ramp = np.mean([len(trace.weights) / len(trace.turns) for trace in traces])
    return Noise(0.0, float(np.hypot(noise.write, noise.pulse * np.sqrt(ramp / 4))))


def _error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _held_out(model: Model, traces: Sequence[Trace], floor: float, noise: Noise) -> Array:
    """Mean log likelihood of a held-out reading, for each device and each part that was held out.

    Held out are cycles, or blocks of pulses where there is one cycle. They are compared with the
    free run of the mean response, whose noise is the same for all models: none can explain what
    its steps miss as noise.
    """
    several = min(int(trace.cycles[-1]) for trace in traces) > 0
    marks = [t.cycles if several else np.arange(len(t.cycles)) // max(t.lag, BLOCK) for t in traces]
    found, fitted = [], None
    for fold in range(FOLDS):
        out = [mark % FOLDS == fold for mark in marks]
        fit = Fit(model, traces, floor, [1.0 - one for one in out])
        fitted = fit.run(noise, fitted)
        for score, mark, one in zip(fit.scores(fitted), marks, out, strict=True):
            found += [score[mark == part].mean() for part in np.unique(mark[one])]
    return np.array(found)


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
    yield "Drift, retention, and stuck devices (corrupt_devices_prob): not in pulses."
    if fitted.model.kind == steps.LINEAR and fitted.model.own == 4:
        yield "Write noise: ConstantStepDevice has none; the readings' noise is only told."
