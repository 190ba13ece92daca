"""The critical point: the largest level at which the test error is not worse than at zero.

Model: ``error[s, l] = offset[s] + f(level[l]) + noise``. The same seeds run at every level, so a
seed is a block and its offset (an easy or a hard draw of devices and data order) cancels. What is
asked of ``f``, and how:

- *Is it worse at level x than at zero?* A one-sided t test on the within-seed excess, from the
  highest level down, stopping at the first level that is not worse. In this fixed order every test
  may use the full alpha: the chance that any level no worse than zero is called worse is alpha at
  most, without a correction and whatever the shape of the curve (Maurer, Hothorn, Lehmacher 1995),
  as far as each test keeps its alpha; the table below has what was simulated.
- *How noisy is a trial?* The residual standard deviation of seed + level, pooled over the levels
  below the one tested (the first two others at least), and a variance of its own for the level
  tested, as in Welch's test with Satterthwaite's degrees of freedom. Pooling is what gives 3 to 5
  seeds their power; the variance of its own keeps a level where training is merely noisier from
  being called worse (one spread for all would do that in 14 % of flat sweeps whose last level is
  three times as noisy). The levels above are left out: noisier training there would hide the elbow,
  and networks stuck at exactly 50 % would feign one.
- *Where does it bend?* A hinge, flat and then linear, fitted by least squares. Whether there is a
  hinge at all is a sup-F test; its null distribution is that of the levels permuted within each
  seed, exact for any noise and any offset as long as the curve is flat. Only if it passes is the
  elbow given. Levels at the top that a straight line does not fit (an error that has saturated at
  chance) are left out of the fit. The interval is a bootstrap of the residuals over seeds and
  levels: drawing whole seeds, of which there are three to five, covers the true elbow in 73 to 93 %
  of simulated sweeps where 95 % are asked for; this one in 88 to 98 %. It supposes that the curve
  does bend at one point; a smooth upward curve gets an elbow later than where it leaves the flat.
- *Up to where is it certainly harmless?* The largest level up to which every level is shown to cost
  less than a margin, by one-sided tests from the lowest level up (same alpha, fixed order). It ends
  below a level at which trials failed: they are not missing by chance.

A level that is "not worse" is one that was not shown to be worse; with few seeds that is easily
said. So the result carries the excess that would have been found with a probability of 80 %, and
the certified level beside the critical one.

What to expect at alpha 5 % with 200 test images, test errors near 17 % (binomial sd 2.7 points),
training noise of 1.5 and seed offsets of 2 points, levels 0 2 5 10 15 20 30, elbow at 5, 10 or 15.
``rise`` is the excess at the first level past the elbow (`tests/test_critical_point.py` holds the
module to these):

=======================================  =======  =======
share of simulated sweeps                3 seeds  5 seeds
=======================================  =======  =======
flat curve: some critical point claimed  <= 6 %   <= 6 %
same, last level three times as noisy    <= 7.5%  <= 7.5%
elbow: claimed below the true one        <= 5 %   <= 5 %
elbow: exact level, rise 5 points        42 %     69 %
elbow: exact level, rise 7.5 points      73 %     91 %
elbow: within one level, rise 5 points   93 %     99 %
flat curve: hinge reported               <= 5 %   <= 5 %
hinge interval covers the true elbow     >= 90 %  >= 90 %
certified a level that costs the margin  <= 5 %   <= 5 %
=======================================  =======  =======

Inference is over seeds, for the test images at hand: other images of the same classes are a further
source of spread that no number of seeds shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from analogtl.analysis import hinge as hinge_fit
from analogtl.analysis.curves import Curve, curves
from analogtl.analysis.hinge import Hinge, Scale
from analogtl.analysis.seed_blocks import MIN_SEEDS, Additive, Blocks, Excess, p_above, p_text
from analogtl.errors import counted

if TYPE_CHECKING:
    import pandas as pd

RECOMMENDED_SEEDS: Final = 5
"""Fewer are tested, and said to be few."""

ALPHA: Final = 0.05
"""One-sided error probability of each claim."""

MARGIN: Final = 2.0
"""Points of test error that count as harmless, as `[report] margin` has it unless set."""

_MIN_LEVELS_POOLED: Final = 3
_POWER: Final = 0.80


class Verdict(StrEnum):
    """What a sweep says about its critical point."""

    CRITICAL = "critical point"
    NONE = "no critical point"
    NO_DATA = "not enough data"


@dataclass(frozen=True)
class LevelTest:
    """One level against the reference. Errors and excesses are in points of test error.

    Attributes:
        level: The level.
        n_seeds: Seeds finished both here and at the reference.
        mean: Mean error of the finished seeds, percent.
        excess: Error above that at the reference, within seeds.
        lower, upper: One-sided confidence bounds of the excess, each at 1 - alpha.
        p_worse: Of the test that it is not worse than at the reference.
        p_harmless: Of the test that it is worse by the margin or more.
        shown_worse: Whether the step-down procedure got here and called it worse.
    """

    level: float
    n_seeds: int
    mean: float
    excess: float
    lower: float
    upper: float
    p_worse: float
    p_harmless: float
    shown_worse: bool


@dataclass(frozen=True)
class CriticalPoint:
    """What `critical_point` found. Levels are in the axis' unit, errors in points.

    Attributes:
        verdict: See `Verdict`.
        critical: Harshest level not shown to be worse than the reference; None unless the verdict
            is CRITICAL. Equal to the reference if even the mildest level is worse.
        first_worse: The next level, the mildest one shown to be worse; the true critical point
            lies below it.
        certified: Harshest level up to which all are shown to cost less than `margin`; None if not
            even the mildest level is.
        max_level: Harshest level tested.
        reference: The level that the others are compared with: zero where there is one.
        alpha, margin: As asked for.
        residual_sd: Standard deviation of one trial about its seed and level, all levels pooled.
        detectable: Excess at `max_level` that would have been found with a probability of 80 %.
        n_seeds: Seeds finished at the reference.
        n_missing: Trials without a finite error among these seeds and the levels tested.
        levels: One `LevelTest` per level tested, mildest first.
        hinge: The hinge fit; None with fewer than four levels.
        unsure: Levels where trials failed or too few finished; nothing is certified from there on.
        failing: Those that were left out because trials failed there.
        notes: What to keep in mind, a sentence each.
        sentence: All of it in plain words.
    """

    verdict: Verdict
    reference: float
    alpha: float
    margin: float
    n_seeds: int
    sentence: str
    critical: float | None = None
    first_worse: float | None = None
    certified: float | None = None
    max_level: float | None = None
    residual_sd: float | None = None
    detectable: float | None = None
    n_missing: int = 0
    levels: tuple[LevelTest, ...] = ()
    hinge: Hinge | None = None
    unsure: tuple[float, ...] = ()
    failing: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The verdict with its level: for a figure's annotation or a table's cell."""
        if self.verdict is Verdict.CRITICAL:
            return f"critical point at {self.critical:g}"
        if self.verdict is Verdict.NONE:
            failing = ", ".join(f"{level:g}" for level in self.failing)
            failing = f"; trials fail at {failing}" if failing else ""
            return f"no critical point up to {self.max_level:g}{failing}"
        return str(self.verdict)


def critical_point(
    levels: ArrayLike,
    seeds: Sequence[object] | NDArray[np.generic],
    errors: ArrayLike,
    *,
    reference: float | None = None,
    scale: Scale = "linear",
    alpha: float = ALPHA,
    margin: float = MARGIN,
    n_permutations: int = 1999,
    n_bootstrap: int = 1999,
    seed: int = 0,
    error: str = "test error",
) -> CriticalPoint:
    """Find the critical point of one sweep; the module's docstring says how.

    Args:
        levels: Level of each trial [N].
        seeds: Seed of each trial [N]; the same seed at two levels is one block.
        errors: Test error of each trial, percent [N]; not finite where the trial failed.
        reference: Level to compare with; zero if it is among the levels, else the lowest. All other
            levels must lie on one side of it.
        scale: Scale on which the hinge is linear.
        alpha: One-sided error probability of each of the claims.
        margin: Points of test error that count as harmless.
        n_permutations: Draws of the sup-F test's null distribution; 0 leaves the hinge out.
        n_bootstrap: Draws of the elbow's interval; 0 leaves the interval out.
        seed: Of these draws.
        error: What the errors are called in the sentence.

    Raises:
        ValueError: The three do not have one length; a level is not finite (or zero on a reciprocal
            scale); one seed has two errors at one level; levels lie on both sides of the reference;
            alpha or margin out of range.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, not {alpha}")
    if not margin > 0:
        raise ValueError(f"margin must be above 0 points, not {margin}")
    sweep = Blocks.of(levels, seeds, errors, reference)
    if scale == "reciprocal" and 0.0 in sweep.levels:
        raise ValueError("level 0 has no place on a reciprocal scale")
    say = _Words(sweep, alpha, margin, error)
    if sweep.n_seeds < MIN_SEEDS or len(sweep.levels) < 2:
        return CriticalPoint(
            verdict=Verdict.NO_DATA,
            reference=sweep.reference,
            alpha=alpha,
            margin=margin,
            n_seeds=sweep.n_seeds,
            sentence=say.no_data(),
            n_missing=sweep.n_missing,
            unsure=sweep.unsure,
            failing=sweep.failing,
            notes=tuple(sweep.notes),
        )
    tests, detectable, sd = _test_levels(sweep, alpha, margin)
    shown = [test.shown_worse for test in tests]
    n_fine = shown.index(True) if True in shown else len(tests)
    critical = first_worse = None
    if n_fine < len(tests):
        critical = tests[n_fine - 1].level if n_fine else sweep.reference
        first_worse = tests[n_fine].level
    certified = None
    doubt = min((abs(x - sweep.reference) for x in sweep.unsure), default=float("inf"))
    for test in tests:
        if not test.p_harmless < alpha or abs(test.level - sweep.reference) >= doubt:
            break
        certified = test.level
    hinge = None
    if n_permutations and len(sweep.levels) >= hinge_fit.MIN_LEVELS:
        rng = np.random.default_rng(seed)
        hinge = hinge_fit.fit_hinge(sweep, scale, alpha, n_permutations, n_bootstrap, rng)
    return CriticalPoint(
        verdict=Verdict.CRITICAL if critical is not None else Verdict.NONE,
        reference=sweep.reference,
        alpha=alpha,
        margin=margin,
        n_seeds=sweep.n_seeds,
        sentence=say.result(tests, critical, first_worse, certified, hinge, detectable),
        critical=critical,
        first_worse=first_worse,
        certified=certified,
        max_level=tests[-1].level,
        residual_sd=sd,
        detectable=detectable,
        n_missing=sweep.n_missing,
        levels=tuple(tests),
        hinge=hinge,
        unsure=sweep.unsure,
        failing=sweep.failing,
        notes=tuple(sweep.notes),
    )


def _test_levels(
    sweep: Blocks, alpha: float, margin: float
) -> tuple[list[LevelTest], float, float]:
    """All levels against the reference; the detectable excess at the last; the pooled sd."""
    n_levels = len(sweep.levels)
    paired_L = np.isfinite(sweep.errors_SL).sum(axis=0)
    found = []
    detectable = float("nan")
    for place in range(1, n_levels):
        found_here = Excess.at(
            sweep.up_to(max(place + 1, min(_MIN_LEVELS_POOLED, n_levels))), place
        )
        excess, se, df = found_here.value, found_here.se, found_here.df
        t = float(special.stdtrit(df, 1 - alpha))
        detectable = (t + float(special.stdtrit(df, _POWER))) * se
        found.append(
            LevelTest(
                level=float(sweep.levels[place]),
                n_seeds=int(paired_L[place]),
                mean=float(np.nanmean(sweep.errors_SL[:, place])),
                excess=excess,
                lower=excess - t * se,
                upper=excess + t * se,
                p_worse=p_above(excess, se, df),
                p_harmless=p_above(margin - excess, se, df),
                shown_worse=False,
            )
        )
    # From the harshest level down; the first that is not shown to be worse ends it.
    for place in reversed(range(len(found))):
        if not found[place].p_worse < alpha:
            break
        found[place] = replace(found[place], shown_worse=True)
    return found, detectable, float(np.sqrt(Additive.fit(sweep).variance))


@dataclass(frozen=True)
class _Words:
    """The result in plain words."""

    sweep: Blocks
    alpha: float
    margin: float
    error: str

    def no_data(self) -> str:
        n_seeds, levels = self.sweep.n_seeds, self.sweep.levels
        have = (
            f"{counted(n_seeds, 'seed')} finished at {self.sweep.reference:g}"
            if n_seeds < MIN_SEEDS
            else f"{counted(max(0, len(levels) - 1), 'level')} to compare with it"
        )
        need = (
            f"at least {MIN_SEEDS} seeds, each at {self.sweep.reference:g} and at a further level"
        )
        return " ".join([f"Not enough data: {have}; needed are {need}.", *self.sweep.notes])

    def result(
        self,
        tests: list[LevelTest],
        critical: float | None,
        first_worse: float | None,
        certified: float | None,
        hinge: Hinge | None,
        detectable: float,
    ) -> str:
        zero = f"{self.sweep.reference:g}"
        top = tests[-1]
        if critical is None:
            parts = [
                f"No critical point up to {top.level:g}: the {self.error} there is not shown to be "
                f"worse than at {zero} ({_points(top.excess)}, {p_text(top.p_worse)}). "
                f"A rise of {detectable:.1f} points would have been found with a probability of "
                f"{100 * _POWER:.0f} %."
            ]
            if lower := [t.level for t in tests if t.p_worse < self.alpha]:
                parts.append(
                    "Taken alone, level " + ", ".join(f"{x:g}" for x in lower) + " is worse."
                )
        else:
            first = next(t for t in tests if t.level == first_worse)
            worse = (
                f"from {first_worse:g} on the {self.error} is worse than at {zero} "
                f"({_points(first.excess)} at {first_worse:g}, {p_text(first.p_worse)})"
            )
            if critical == self.sweep.reference:
                parts = [
                    f"Critical point at {zero}: {worse}; it may lie anywhere between {zero} and "
                    f"{first_worse:g}, the mildest level tested."
                ]
            else:
                parts = [f"Critical point at {critical:g}: {worse}, up to {critical:g} not shown."]
        if hinge is not None and hinge.elbow is not None:
            interval = (
                f", {100 * (1 - self.alpha):.0f} % interval {hinge.low:.3g} to {hinge.high:.3g}"
                if hinge.low is not None
                else ""
            )
            parts.append(
                f"A flat-then-linear fit bends at {hinge.elbow:.3g}{interval} "
                f"({p_text(hinge.p_value)})."
            )
        parts.append(
            f"Costs less than {self.margin:g} points: "
            + (f"shown up to {certified:g}." if certified is not None else "shown at no level.")
        )
        fewest = min((test.n_seeds for test in tests), default=self.sweep.n_seeds)
        seeds = counted(self.sweep.n_seeds, "seed")
        if fewest < self.sweep.n_seeds:
            seeds += f", {fewest} of them at every level (compared are the seeds in common)"
        if self.sweep.n_missing:
            seeds += f", {counted(self.sweep.n_missing, 'trial')} missing"
        if self.sweep.n_seeds < RECOMMENDED_SEEDS:
            seeds += f"; {RECOMMENDED_SEEDS} or more are recommended"
        parts.append(f"{seeds[0].upper()}{seeds[1:]}.")
        return " ".join([*parts, *self.sweep.notes])


def _points(excess: float) -> str:
    return f"{excess:+.1f} points"


def critical_point_of(
    curve: Curve,
    *,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    n_permutations: int = 1999,
    n_bootstrap: int = 1999,
) -> CriticalPoint:
    """`critical_point` of one curve of a trials table, on the scale that suits its axis."""
    return critical_point(
        curve.levels,
        curve.seeds,
        curve.errors,
        reference=curve.reference,
        scale=curve.scale,
        alpha=alpha,
        margin=margin,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        error=curve.error,
    )


_CURVE: Final = ("experiment", "arm", "algorithm", "n_classes", "axis", "at", "direction")


def critical_points(
    trials: pd.DataFrame,
    *,
    metric: str = "error_final",
    alpha: float = ALPHA,
    margin: float = MARGIN,
    n_permutations: int = 1999,
    n_bootstrap: int = 1999,
) -> pd.DataFrame:
    """The critical point of every curve in a trials table: critical_points.csv.

    Args:
        trials: Rows of trials.csv, of any number of experiments; see
            `analogtl.analysis.curves.curves`.
        metric: Column of the test error, percent.
        alpha, margin, n_permutations, n_bootstrap: See `critical_point`.

    Returns:
        One row per curve with the columns

        - experiment, arm, algorithm, n_classes, axis, at, direction: which curve (see `Curve`);
        - verdict: "critical point", "no critical point" or "not enough data";
        - critical, first_worse, certified, max_level, reference: levels (see `CriticalPoint`);
        - margin, alpha: what was asked for;
        - elbow, elbow_low, elbow_high, slope, height, p_hinge: the hinge (see `Hinge`);
        - n_seeds, n_levels, n_trials, n_missing: what it rests on (n_levels counts the reference);
        - residual_sd, detectable: points of test error (see `CriticalPoint`);
        - headline, sentence: in words.

        Cells that do not apply are empty (NaN or None).
    """
    import pandas as pd

    rows = []
    for curve in curves(trials, metric=metric):
        found = critical_point_of(
            curve,
            alpha=alpha,
            margin=margin,
            n_permutations=n_permutations,
            n_bootstrap=n_bootstrap,
        )
        hinge = found.hinge or Hinge(p_value=float("nan"))
        rows.append(
            {name: getattr(curve, name) for name in _CURVE}
            | {
                "verdict": str(found.verdict),
                "critical": found.critical,
                "first_worse": found.first_worse,
                "certified": found.certified,
                "max_level": found.max_level,
                "reference": found.reference,
                "margin": found.margin,
                "alpha": found.alpha,
                "elbow": hinge.elbow,
                "elbow_low": hinge.low,
                "elbow_high": hinge.high,
                "slope": hinge.slope,
                "height": hinge.height,
                "p_hinge": hinge.p_value,
                "n_seeds": found.n_seeds,
                "n_levels": len(found.levels) + 1 if found.levels else 0,
                "n_trials": len(curve.trials),
                "n_missing": found.n_missing,
                "residual_sd": found.residual_sd,
                "detectable": found.detectable,
                "headline": found.headline,
                "sentence": found.sentence,
            }
        )
    return _table(pd.DataFrame(rows, columns=_POINT_COLUMNS), text=_POINT_TEXT)


_POINT_TEXT: Final = (*_CURVE, "verdict", "headline", "sentence")
_POINT_COLUMNS: Final = [
    *_CURVE, "verdict", "critical", "first_worse", "certified", "max_level", "reference", "margin",
    "alpha", "elbow", "elbow_low", "elbow_high", "slope", "height", "p_hinge", "n_seeds",
    "n_levels", "n_trials", "n_missing", "residual_sd", "detectable", "headline", "sentence",
]  # fmt: skip


def level_tests(
    trials: pd.DataFrame,
    *,
    metric: str = "error_final",
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Every level of every curve against the reference: the numbers behind `critical_points`.

    Returns:
        One row per curve and level tested: experiment, arm, algorithm, n_classes, axis, at,
        direction, then the attributes of `LevelTest`.
    """
    import pandas as pd

    rows = []
    for curve in curves(trials, metric=metric):
        found = critical_point_of(curve, alpha=alpha, margin=margin, n_permutations=0)
        for test in found.levels:
            rows.append({name: getattr(curve, name) for name in _CURVE} | asdict(test))
    columns = [*_CURVE, *(field.name for field in fields(LevelTest))]
    return _table(pd.DataFrame(rows, columns=columns), text=_CURVE)


def _table(frame: pd.DataFrame, text: Iterable[str]) -> pd.DataFrame:
    """Numbers as numbers, so that an empty cell is NaN whatever else a column holds."""
    import pandas as pd

    for column in frame.columns.difference(list(text)):
        frame[column] = pd.to_numeric(frame[column])
    frame["n_classes"] = pd.to_numeric(frame["n_classes"]).astype("Int64")
    return frame
