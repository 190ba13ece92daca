"""What a run comes to, as one object: each learning rate chosen, each curve fitted once.

Tables, figures, pages and findings are all made from a `RunAnalysis`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.costs import Costs, costs_of
from analogtl.analysis.critical_point import ALPHA, DRAWS, JudgedCurve, judge_curves
from analogtl.analysis.curves import References, curves, metric_in, references
from analogtl.analysis.layer_effects import layer_effects
from analogtl.analysis.read import RunData
from analogtl.errors import check_known
from analogtl.study.columns import JUDGED, METRICS
from analogtl.vocabulary import Metric


@dataclass(frozen=True)
class RunAnalysis:
    """One run, analysed: what is asked for is computed once, when it is first needed.

    Frames have one row per arm and setting (and epoch, layer, ...), in the order to show them.

    Attributes:
        metric: Column of the test error that is judged, percent.
        alpha, margin, draws: What it is judged by (`analogtl.analysis.critical_point`).
        references: Which curves, of this run and others, start from the same trials.
    """

    run: RunData
    metric: str
    alpha: float
    margin: float
    draws: int
    references: References

    @property
    def several_rates(self) -> bool:
        """Whether some level was run at more than one learning rate."""
        return bool((self.run.chosen.choices["n_lrs"] > 1).any())

    @property
    def asks_for_findings(self) -> bool:
        """Whether the experiment wants to be held to the published findings."""
        return self.run.setting("report", "findings") is True

    @property
    def error(self) -> Metric:
        """What the error is: of test images, of programmed weights, a loss."""
        return metric_in(self.run.trials)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The finished trials at the learning rate kept.

        Axes of names are ordered categories, in the order of the experiment's file.
        """
        asked = self.run.setting("sweep", "axes")
        return summaries.with_ordered_levels(self.run.chosen.rows, asked)

    @cached_property
    def axes(self) -> list[str]:
        """The axes along which the trials differ."""
        return summaries.swept_axes(self.trials)

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Outcomes per level."""
        return summaries.levels(self.trials)

    @cached_property
    def traces(self) -> pd.DataFrame:
        """Test error and cells changed per epoch."""
        return summaries.traces(self.run.epochs, self.trials)

    @cached_property
    def ages(self) -> pd.DataFrame:
        """Test error a while after training, per arm, level and time."""
        return summaries.ages(self.run.evaluation, self.trials)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """What was programmed into each layer, and how much of it changed."""
        return summaries.layers(self.run.layers, self.trials)

    @cached_property
    def layer_effects(self) -> pd.DataFrame:
        """What settings cost that one layer has at a time, where the run varies that."""
        asked = self.run.setting("sweep", "axes")
        rows = summaries.with_ordered_levels(self.run.chosen.with_failed(self.metric), asked)
        return layer_effects(rows, self.metric, self.alpha)

    @cached_property
    def costs(self) -> Costs | None:
        """What the training cost, where [hardware] says what things cost and all was counted."""
        if self.run.work.empty:
            return None
        return costs_of(self.run.work, self.trials, self.run.hardware)

    @cached_property
    def stages(self) -> pd.DataFrame:
        """How much changed in each part of the network."""
        return summaries.stages(self.run.layers, self.trials)

    @cached_property
    def curves(self) -> tuple[JudgedCurve, ...]:
        """The curves along axes of numbers, with their critical points."""
        return judge_curves(
            curves(self.run.chosen, metric=self.metric),
            alpha=self.alpha,
            margin=self.margin,
            draws=self.draws,
            references=self.references,
        )


def analyse(
    run: RunData,
    *,
    margin: float | None = None,
    alpha: float | None = None,
    metric: str = JUDGED,
    draws: int = DRAWS,
    beside: References | None = None,
) -> RunAnalysis:
    """Analyse a run.

    Args:
        margin: What counts as harmless; by default the experiment's own, or its metric's.
        alpha: Error probability of each claim; by default the experiment's own.
        metric: Column of the test error that is judged, percent.
        draws: Of the hinges' tests and intervals; 0 leaves the hinges out.
        beside: The `references` of the runs that are reported with it; by default its own.

    Raises:
        ExperimentError: If the trials have no such column.
    """
    check_known("metric", [metric], METRICS)
    margin = _own(run, "margin", metric_in(run.trials).margin) if margin is None else margin
    alpha = _own(run, "alpha", ALPHA) if alpha is None else alpha
    beside = references([run.chosen]) if beside is None else beside
    return RunAnalysis(run, metric, alpha, margin, draws, beside)


def _own(run: RunData, key: str, default: float) -> float:
    value = run.setting("report", key)
    return float(value) if isinstance(value, int | float) and value > 0 else default
