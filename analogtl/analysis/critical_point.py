"""The critical point: the largest level at which the test error is not worse than at zero.

Model: ``error[b, l] = offset[b] + f(level[l]) + noise``, a trial's error being what
`analogtl.analysis.judged` says. The same blocks (a seed, or a seed and a set of classes) run at
every level, so the offset of a block (an easy or a hard draw of devices, data order and task)
cancels. What is asked of ``f``, and how:

- *Is the reference one?* It is unfit if it is not shown to beat its control (the frozen arrays, or
  chance where there are none) by a one-sided t test, or if it is worse than some other level by the
  margin, and shown to be by paired t tests (Bonferroni). Then no critical point is given and
  nothing certified, since levels that do not train cost nothing. Either test is at alpha and takes
  no two levels for equally noisy.
- *Is it worse at level x than at zero?* A one-sided t test on the excess within blocks, from the
  highest level down, stopping at the first level that is not worse. In this fixed order every test
  may use the full alpha: the chance that any level no worse than zero is called worse is alpha at
  most, without a correction and whatever the shape of the curve (Maurer, Hothorn, Lehmacher 1995).
- *How noisy is a trial?* The residual standard deviation of block + level, pooled over the levels
  below the one tested (the first two others at least), and a variance of its own for the level
  tested, as in Welch's test with Satterthwaite's degrees of freedom. Pooling is what gives 3 to 5
  blocks their power; the variance of its own keeps a level where training is merely noisier from
  being called worse (one spread for all would do that in 14 % of flat sweeps whose last level is
  three times as noisy). The levels above are left out: noisier training there would hide the elbow,
  and networks stuck at exactly 50 % would feign one.
- *Where does it bend?* See `analogtl.analysis.hinge`.
- *Up to where is it certainly harmless?* The largest level up to which every level is shown to cost
  less than a margin, by one-sided tests from the lowest level up (same alpha, fixed order). It ends
  below a level at which trials failed: they are not missing by chance.

A level that is "not worse" is one that was not shown to be worse; with few blocks that is easily
said. So the result carries the excess that would have been found with a probability of 80 %, and
the certified level beside the critical one. Inference is over blocks, for the test images and the
sets of classes at hand. `analogtl explain critical-point` has the error rates that the tests hold
this module to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from analogtl.analysis import hinge as hinge_fit
from analogtl.analysis.blocks import (
    MIN_BLOCKS,
    BlockDesign,
    LevelGap,
    TwoWayFit,
    WelchContrast,
    p_above,
)
from analogtl.analysis.curves import Curve, References, shared_with
from analogtl.analysis.hinge import Hinge, Scale
from analogtl.analysis.reference import UNCHECKED, Control, ReferenceCheck, check_reference
from analogtl.vocabulary import CriticalPointVerdict

RECOMMENDED_BLOCKS: Final = 5
"""Fewer are tested, and said to be few."""

ALPHA: Final = 0.05
"""One-sided error probability of each claim."""

MARGIN: Final = 2.0
"""Points of test error that count as harmless, as `[report] margin` has it unless set."""

DRAWS: Final = 1999
"""Of the permutations, and of the bootstrap, behind a hinge."""

POWER: Final = 0.80
"""Probability with which a `detectable` excess would have been found."""

_MIN_LEVELS_POOLED: Final = 3


@dataclass(frozen=True)
class LevelTest:
    """One level against the reference. Errors and excesses are in points of test error.

    Attributes:
        n_blocks: Blocks finished both here and at the reference.
        excess: Error above that at the reference, within blocks.
        lower, upper: One-sided confidence bounds of the excess, each at 1 - alpha.
        p_worse: Of the test that it is not worse than at the reference.
        p_harmless: Of the test that it is worse by the margin or more.
        shown_worse: Whether the step-down procedure got here and called it worse.
    """

    level: float
    n_blocks: int
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
        reference: The level that the others are compared with: zero where there is one.
        alpha, margin: As asked for.
        n_blocks: Blocks finished at the reference and run at a further level.
        n_alone: Blocks that were run at the reference alone: they count against the control only.
        n_unpaired: Blocks left out because they have not finished at the reference.
        n_missing: Trials without a finite error among the blocks and levels tested.
        gaps: Levels where trials failed or too few finished; nothing is certified from there on.
        levels: One `LevelTest` per level tested, mildest first.
        residual_sd: Standard deviation of one trial about its block and level, all levels pooled.
        detectable: Excess at `max_level` that would have been found with a probability of `POWER`.
        hinge: The hinge fit; `NOT_FITTED` with fewer than four levels or an unfit reference.
        check: Whether the reference is one.
    """

    reference: float
    alpha: float
    margin: float
    n_blocks: int
    n_alone: int
    n_unpaired: int
    n_missing: int
    gaps: tuple[LevelGap, ...]
    levels: tuple[LevelTest, ...] = ()
    residual_sd: float | None = None
    detectable: float | None = None
    hinge: Hinge = hinge_fit.NOT_FITTED
    check: ReferenceCheck = UNCHECKED

    @property
    def unfit(self) -> bool:
        """Whether the levels have nothing that they could be held to."""
        return bool(self.levels) and self.check.fails(self.alpha, self.margin)

    @property
    def verdict(self) -> CriticalPointVerdict:
        """What the sweep says about its critical point."""
        if not self.levels:
            return CriticalPointVerdict.NO_DATA
        if self.unfit:
            return CriticalPointVerdict.UNFIT_REFERENCE
        if self.levels[-1].shown_worse:
            return CriticalPointVerdict.CRITICAL
        return CriticalPointVerdict.NONE

    @property
    def worst_fine(self) -> LevelTest | None:
        """The harshest level tested that is not shown to be worse than the reference, if any."""
        if self.unfit:
            return None
        return next((test for test in reversed(self.levels) if not test.shown_worse), None)

    @property
    def first_worse(self) -> float | None:
        """The mildest level shown to be worse; the true critical point lies below it."""
        worse = (test.level for test in self.levels if test.shown_worse)
        return None if self.unfit else next(worse, None)

    @property
    def critical(self) -> float | None:
        """The harshest level not shown to be worse, where the next one is.

        It is the reference if even the mildest level is worse.
        """
        if self.verdict is not CriticalPointVerdict.CRITICAL:
            return None
        return self.worst_fine.level if self.worst_fine else self.reference

    @property
    def certified(self) -> float | None:
        """Harshest level up to which all are shown to cost less than `margin`; None: not one is."""
        doubt = min((abs(gap.level - self.reference) for gap in self.gaps), default=float("inf"))
        certified = None
        for test in () if self.unfit else self.levels:
            if not test.p_harmless < self.alpha or abs(test.level - self.reference) >= doubt:
                break
            certified = test.level
        return certified

    @property
    def max_level(self) -> float | None:
        """Harshest level tested."""
        return self.levels[-1].level if self.levels else None


def critical_point(
    levels: ArrayLike,
    blocks: Sequence[object] | NDArray[np.generic],
    errors: ArrayLike,
    *,
    reference: float | None = None,
    control: Control | None = None,
    scale: Scale = "linear",
    alpha: float = ALPHA,
    margin: float = MARGIN,
    draws: int = DRAWS,
    seed: int = 0,
) -> CriticalPoint:
    """Find the critical point of one sweep; the module's docstring says how.

    Args:
        levels: Level of each trial [N].
        blocks: Block of each trial [N].
        errors: Test error of each trial, percent [N]; not finite where the trial failed.
        reference: Level to compare with; zero if it is among the levels, else the lowest. All other
            levels must lie on one side of it.
        control: What the reference has to beat; None where nobody can say.
        scale: Scale on which the hinge is linear.
        alpha: One-sided error probability of each of the claims.
        margin: Points of test error that count as harmless.
        draws: Of the hinge's null distribution, and of its elbow's interval; 0 leaves it out.
        seed: Of these draws.

    Raises:
        ValueError: The three do not have one length; a level is not finite (or zero on a reciprocal
            scale); one block has two errors at one level; levels lie on both sides of the
            reference; alpha or margin out of range.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, not {alpha}")
    if not margin > 0:
        raise ValueError(f"margin must be above 0 points, not {margin}")
    sweep = BlockDesign.of(levels, blocks, errors, reference)
    if scale == "reciprocal" and 0.0 in sweep.levels:
        raise ValueError("level 0 has no place on a reciprocal scale")
    found = CriticalPoint(
        reference=sweep.reference,
        alpha=alpha,
        margin=margin,
        n_blocks=sweep.n_blocks,
        n_alone=sweep.n_alone,
        n_unpaired=sweep.n_unpaired,
        n_missing=int(np.isnan(sweep.errors_BL).sum()),
        gaps=sweep.gaps,
    )
    if sweep.n_blocks < MIN_BLOCKS or len(sweep.levels) < 2:
        return found
    tests, detectable = _test_levels(sweep, alpha, margin)
    check = check_reference(sweep, control, alpha, margin)
    hinge = hinge_fit.NOT_FITTED
    if draws and not check.fails(alpha, margin) and len(sweep.levels) >= hinge_fit.MIN_LEVELS:
        rng = np.random.default_rng(seed)
        harm_shown = tests[-1].shown_worse
        hinge = hinge_fit.fit_hinge(sweep, scale, alpha, draws, rng, harm_shown=harm_shown)
    residual_sd = float(np.sqrt(TwoWayFit.fit(sweep).variance))
    return replace(
        found,
        levels=tests,
        residual_sd=residual_sd,
        detectable=detectable,
        hinge=hinge,
        check=check,
    )


def _test_levels(
    sweep: BlockDesign, alpha: float, margin: float
) -> tuple[tuple[LevelTest, ...], float]:
    """All levels against the reference; and the excess that is detectable at the last."""
    n_levels = len(sweep.levels)
    n_blocks_L = np.isfinite(sweep.errors_BL).sum(axis=0)
    found = []
    detectable = float("nan")
    for place in range(1, n_levels):
        below = sweep.up_to(max(place + 1, min(_MIN_LEVELS_POOLED, n_levels)))
        contrast = WelchContrast.at(below, place)
        excess, se, df = contrast.value, contrast.se, contrast.df
        t = float(special.stdtrit(df, 1 - alpha))
        detectable = (t + float(special.stdtrit(df, POWER))) * se
        found.append(
            LevelTest(
                level=float(sweep.levels[place]),
                n_blocks=int(n_blocks_L[place]),
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
    return tuple(found), detectable


@dataclass(frozen=True)
class JudgedCurve:
    """A curve and its critical point.

    Attributes:
        shared_with: The other curves that have the same trials at the reference level.
    """

    curve: Curve
    point: CriticalPoint
    shared_with: tuple[str, ...] = ()


def judge_curves(
    curves: Iterable[Curve],
    *,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    draws: int = DRAWS,
    references: References | None = None,
) -> tuple[JudgedCurve, ...]:
    """The critical point of each curve, on the scale that suits its axis; see `critical_point`."""
    return tuple(
        JudgedCurve(
            curve,
            critical_point(
                curve.levels,
                curve.blocks,
                curve.errors,
                reference=curve.reference,
                control=curve.control,
                scale=curve.scale,
                alpha=alpha,
                margin=margin,
                draws=draws,
            ),
            shared_with(curve, references or {}),
        )
        for curve in curves
    )


def points_frame(judged: Iterable[JudgedCurve]) -> pd.DataFrame:
    """The numbers of critical_points.csv: one row per curve; cells that do not apply are empty.

    Columns: which curve (see `Curve`): experiment, arm, algorithm, n_classes, axis, at, direction;
    verdict; levels: critical, first_worse, certified, max_level, reference; margin and alpha, as
    asked for; the hinge (see `Hinge`): elbow, elbow_low, elbow_high, slope, height, p_hinge; the
    reference (see `ReferenceCheck`): control, lead, p_lead, rival, excess, p_excess; what it rests
    on: n_blocks, n_alone, n_levels (the reference included), n_trials, n_missing; points of test
    error: residual_sd, detectable; shared_with: curves with the same trials at the reference;
    judged_by: what the error is.
    """
    frame = pd.DataFrame(
        [_row(one) for one in judged],
        columns=[*_CURVE, "verdict", *_NUMBERS, "control", "shared_with", "judged_by"],
    )
    counts = [name for name in _NUMBERS if name.startswith("n_")]
    numbers = dict.fromkeys(_NUMBERS, float) | dict.fromkeys(counts, int)
    return frame.astype({**numbers, "n_classes": "Int64"})


_CURVE: Final = ("experiment", "arm", "algorithm", "n_classes", "axis", "at", "direction")
_CHECK: Final = ("lead", "p_lead", "rival", "excess", "p_excess")
_NUMBERS: Final = (
    "critical", "first_worse", "certified", "max_level", "reference", "margin", "alpha", "elbow",
    "elbow_low", "elbow_high", "slope", "height", "p_hinge", *_CHECK, "n_blocks", "n_alone",
    "n_levels", "n_trials", "n_missing", "residual_sd", "detectable",
)  # fmt: skip


def _row(judged: JudgedCurve) -> dict[str, object]:
    curve, point, hinge = judged.curve, judged.point, judged.point.hinge
    numbers = {name: getattr(point, name) for name in _NUMBERS if hasattr(point, name)}
    return {name: getattr(curve, name) for name in _CURVE} | {
        "verdict": str(point.verdict),
        **numbers,
        "elbow": hinge.elbow,
        "elbow_low": hinge.low,
        "elbow_high": hinge.high,
        "slope": hinge.slope,
        "height": hinge.height,
        "p_hinge": hinge.p_value,
        "n_levels": len(point.levels) + 1 if point.levels else 0,
        "n_trials": len(curve.trials),
        "control": point.check.control,
        **{name: getattr(point.check, name) for name in _CHECK if point.levels},
        "shared_with": "; ".join(judged.shared_with),
        "judged_by": curve.judged_by,
    }
