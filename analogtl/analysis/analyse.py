"""What a run comes to, as one object: each learning rate chosen, each curve fitted once.

Tables, figures, pages and findings are all made from a `RunAnalysis`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analogtl import vocabulary
from analogtl.analysis import summaries
from analogtl.analysis.critical_point import ALPHA, MARGIN, JudgedCurve, judge_curves
from analogtl.analysis.curves import curves
from analogtl.analysis.read import RunData
from analogtl.analysis.select_lr import Selection


@dataclass(frozen=True)
class RunAnalysis:
    """One run, analysed. Frames have one row per arm and setting, in the order to show them.

    Attributes:
        run: The run as read.
        metric: Column of the test error that was judged, percent.
        alpha, margin: What it was judged by (`analogtl.analysis.critical_point`).
        trials: The finished trials at the learning rate kept. Axes of names are ordered categories,
            in the order of the experiment's file.
        axes: The axes along which these differ.
        levels: Outcomes per level (`summaries.levels`).
        traces: Test error and cells changed per epoch (`summaries.traces`).
        layers: What was programmed into each layer, and how much moved (`summaries.layers`).
        stages: How much moved in each part of the network (`summaries.stages`).
        curves: The curves along axes of numbers, with their critical points.
    """

    run: RunData
    metric: str
    alpha: float
    margin: float
    trials: pd.DataFrame
    axes: list[str]
    levels: pd.DataFrame
    traces: pd.DataFrame
    layers: pd.DataFrame
    stages: pd.DataFrame
    curves: tuple[JudgedCurve, ...]

    @property
    def chosen(self) -> Selection:
        """The trials at the learning rate kept, and how it was chosen."""
        return self.run.chosen

    @property
    def asks_for_findings(self) -> bool:
        """Whether the experiment wants to be held to the published findings."""
        return self.run.setting("report", "findings") is True

    @property
    def several_rates(self) -> bool:
        """Whether some level was run at more than one learning rate."""
        return bool((self.chosen.choices["n_lrs"] > 1).any())

    @property
    def error_name(self) -> str:
        """What the error is: of test images, or of programmed weights."""
        return vocabulary.error_name(self.trials["arm"].unique())


def analyse(
    run: RunData,
    *,
    margin: float | None = None,
    alpha: float | None = None,
    metric: str = "error_final",
) -> RunAnalysis:
    """Analyse a run.

    Args:
        run: The run as read.
        margin: Points of test error that count as harmless; by default the experiment's own.
        alpha: Error probability of each claim; by default the experiment's own.
        metric: Column of the test error that is judged, percent.
    """
    margin = _own(run, "margin", MARGIN) if margin is None else margin
    alpha = _own(run, "alpha", ALPHA) if alpha is None else alpha
    asked = run.setting("sweep", "axes")
    trials = summaries.with_ordered_levels(
        run.chosen.rows, asked if isinstance(asked, dict) else {}
    )
    return RunAnalysis(
        run=run,
        metric=metric,
        alpha=alpha,
        margin=margin,
        trials=trials,
        axes=summaries.swept_axes(trials),
        levels=summaries.levels(trials),
        traces=summaries.traces(run.epochs, trials),
        layers=summaries.layers(run.layers, trials),
        stages=summaries.stages(run.layers, trials),
        curves=judge_curves(curves(run.chosen, metric=metric), alpha=alpha, margin=margin),
    )


def _own(run: RunData, key: str, default: float) -> float:
    value = run.setting("report", key)
    return float(value) if isinstance(value, int | float) and value > 0 else default
