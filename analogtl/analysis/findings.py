"""The findings that runs are held to, and what runs say about each.

They are those that arXiv 2505.11067 states in words or numbers, and one of our own: that the arrays
learn at all. `analogtl explain findings` says how each kind is decided; in short:

- *Arms*: one-sided t tests on the difference within blocks. All comparisons of one run, task and
  setting are one family (Holm). In a sweep, an arm counts at the level that stands for none of the
  non-ideality.
- *Critical level*: it holds if the hinge's interval lies within the tolerance, or if the level
  tests confine it: certified up to the lower end, worse from the upper one. It does not if the
  interval lies outside, if the lower end is worse already, or if the upper end is certified. Where
  one of these speaks for it and another against it, it is open.
- *Little effect*: every level of the range is shown to cost less than the margin. All tests must
  pass, which needs no correction. It does not hold if one costs more (Bonferroni over the levels).

Each verdict has an error probability of at most alpha; no difference seen is never taken for no
effect. Runs differ in scale and settings, so that each is judged for itself, by its own alpha and
margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd
from scipy import special

from analogtl.analysis.blocks import MIN_BLOCKS, blocks_of, holm, p_above
from analogtl.analysis.critical_point import POWER, CriticalPoint, JudgedCurve
from analogtl.analysis.curves import mean_share, reference_level, setting
from analogtl.analysis.judged import epochs_text
from analogtl.config.per_layer import NONE
from analogtl.study.columns import JUDGED, axis_columns
from analogtl.vocabulary import (
    AXES,
    PAPER,
    PER_LAYER,
    Algorithm,
    Arm,
    CriticalPointVerdict,
    FindingVerdict,
    Metric,
)

if TYPE_CHECKING:
    from analogtl.analysis.analyse import RunAnalysis


@dataclass(frozen=True)
class Finding:
    """A statement that runs can support or contradict.

    Attributes:
        id: Short name, for the CSV.
        figure: Where it is published: "Fig. 2", or "IBM's talk"; "" for our own, which is not.
        n_classes: Tasks that it is stated for, by their number of classes; () for any.
    """

    id: str
    figure: str
    n_classes: tuple[int, ...]

    @property
    def source(self) -> str:
        """The publication."""
        return IBM_TALK if self.figure == _TALK else PAPER if self.figure else "analogtl"


@dataclass(frozen=True)
class ArmsFinding(Finding):
    """Two arms compared: the difference is the test error of `worse` less that of `better`, points.

    Attributes:
        below: It holds for a difference above `above` and below this.
        fails_below: It does not hold for a difference below this (or above `below`).
        above: See `below`.
        algorithm: Of the analog arms; None: any, each by itself.
    """

    better: Arm
    worse: Arm
    below: float = math.inf
    fails_below: float = 1.0
    above: float = 0.0
    algorithm: Algorithm | None = Algorithm.C_TTV2


@dataclass(frozen=True)
class AxisFinding(Finding):
    """What an axis does to the analog-tl arm.

    Attributes:
        hybrid: Whether layers are kept digital (`convert.digital_layers`); None: either.
    """

    axis: str
    _: KW_ONLY
    hybrid: bool | None = None


@dataclass(frozen=True)
class CriticalFinding(AxisFinding):
    """A critical level of one axis, and how far from it still agrees."""

    level: float
    tolerance: float = 5.0

    @property
    def band(self) -> tuple[float, float]:
        """The levels that still agree, from the lowest to the highest."""
        return self.level - self.tolerance, self.level + self.tolerance


@dataclass(frozen=True)
class LittleEffectFinding(AxisFinding):
    """An axis that hardly matters.

    Attributes:
        up_to: Harshest level that must have been tested; None: the last of the registry's.
    """

    _: KW_ONLY
    up_to: float | None = None

    @property
    def reach(self) -> float:
        """Harshest level that must have been tested."""
        return self.up_to or max(AXES[self.axis].levels)


@dataclass(frozen=True)
class HarmFinding(AxisFinding):
    """An axis that does harm at a level, or below it."""

    level: float


ARRAYS_LEARN: Final = ArmsFinding(
    "arrays-learn", "", (), Arm.ANALOG_TL, Arm.FROZEN_ARRAY, algorithm=None
)
GRADIENTS_TEACH: Final = ArmsFinding(
    "gradients-teach", "", (), Arm.ANALOG_TL, Arm.SHUFFLED_GRADIENTS, algorithm=None
)
CONTROLS: Final = (ARRAYS_LEARN, GRADIENTS_TEACH)
"""Our own. That the arrays learn does not hold where not one cell changed, whatever the errors."""

IBM_TALK: Final = (
    "Transfer Learning on Edge Using 14nm CMOS-compatible ReRAM Array and Analog In-memory "
    "Training Algorithm, invited talk, IBM Research (abstract)"
)
_TALK: Final = "IBM's talk"

FINDINGS: Final[tuple[Finding, ...]] = (
    ArmsFinding(
        "analog-tl-beats-analog-scratch", "Fig. 2", (2, 5), Arm.ANALOG_TL, Arm.ANALOG_SCRATCH
    ),
    ArmsFinding(
        "analog-tl-beats-digital-scratch", "Fig. 2", (2, 5), Arm.ANALOG_TL, Arm.DIGITAL_SCRATCH
    ),
    ArmsFinding(
        "digital-tl-ahead", "Fig. 2", (2, 5), Arm.DIGITAL_TL, Arm.ANALOG_TL, below=4, fails_below=0
    ),
    CriticalFinding("wtn-critical-2-class", "Fig. 3", (2,), "wtn", 15.0, hybrid=False),
    CriticalFinding("wtn-critical-5-class", "Fig. 3", (5,), "wtn", 10.0, hybrid=False),
    LittleEffectFinding("spv-little-effect-2-class", "Fig. 4", (2,), "spv"),
    CriticalFinding("spv-critical-5-class", "Fig. 4", (5,), "spv", 10.0),
    LittleEffectFinding("dw-min-std-little-effect", "Fig. 5", (2, 5), "dw_min_std"),
    LittleEffectFinding("dw-min-dtod-little-effect", "Fig. 5", (2, 5), "dw_min_dtod"),
    ArmsFinding(
        "agad-close-to-digital",
        _TALK,
        (2, 5),
        Arm.DIGITAL_TL,
        Arm.ANALOG_TL,
        below=1,
        fails_below=-math.inf,
        above=-math.inf,
        algorithm=Algorithm.AGAD,
    ),
    LittleEffectFinding("wtn-hybrid-unharmed", _TALK, (2, 5), "wtn", hybrid=True, up_to=20.0),
    HarmFinding("wtn-all-analog-sensitive", _TALK, (2, 5), "wtn", 20.0, hybrid=False),
    *CONTROLS,
)
"""Fig. 4 also varies the symmetry point skew, and the published version of the paper further axes,
without a claim that runs could be held to."""


class Reason(Enum):
    """Why a finding is judged as it is; each belongs to one verdict."""

    NO_RUN = FindingVerdict.OPEN, "no run has what it takes"
    FEW_BLOCKS = FindingVerdict.OPEN, "fewer blocks than a test needs"
    UNDECIDED = FindingVerdict.OPEN, "neither it nor the contrary is shown"
    UNFIT_REFERENCE = FindingVerdict.OPEN, "the reference does not train or is worse than a level"
    # two arms
    DIFFERENCE = FindingVerdict.HOLDS, "the difference is shown"
    NO_DIFFERENCE = FindingVerdict.FAILS, "a difference outside the stated range is shown"
    NOTHING_CHANGED = FindingVerdict.FAILS, "not one cell changed"
    # a critical level
    BEND_INSIDE = FindingVerdict.HOLDS, "the elbow's interval lies within the tolerance"
    TESTS_CONFINE = FindingVerdict.HOLDS, "certified up to its lower end, worse from its upper one"
    WORSE_BEFORE = FindingVerdict.FAILS, "worse at the lower end of the tolerance already"
    HARMLESS_BEYOND = FindingVerdict.FAILS, "certified up to the upper end of the tolerance"
    BEND_OUTSIDE = FindingVerdict.FAILS, "the elbow's interval lies outside the tolerance"
    CONTRADICTION = FindingVerdict.OPEN, "the level tests and the hinge contradict each other"
    SWEEP_ENDS = FindingVerdict.OPEN, "no level above the published one was tested"
    # harm
    HARMFUL = FindingVerdict.HOLDS, "worse at the level or before"
    # little effect
    HARMLESS = FindingVerdict.HOLDS, "every level of the range is certified"
    COSTLY = FindingVerdict.FAILS, "some level is shown to cost more than the margin"
    TRIALS_MISSING = FindingVerdict.OPEN, "trials failed at some level of the range"
    RANGE_SHORT = FindingVerdict.OPEN, "certified, but short of the range"

    @property
    def verdict(self) -> FindingVerdict:
        """The verdict that it belongs to."""
        return self.value[0]


class Estimate(NamedTuple):
    """A number that was found, with its interval; None where it is not known.

    Attributes:
        value: Difference in points, critical level or elbow, or largest rise in points.
        low, high: Its interval at `confidence` (0..1); for a critical level, from the certified
            level to the first that is worse if the hinge has no interval.
        unit: Of the three: "points" or the unit of the axis.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    unit: str = ""


UNKNOWN: Final = Estimate()


@dataclass(frozen=True)
class JudgedFinding:
    """What one experiment says about one finding.

    Attributes:
        reason: Why it is judged as it is.
        experiment: "" if none has the runs.
        n_classes: The task; None if unknown.
        at: Levels of further axes, ``n_states=20``; "" for none.
        estimate: The number that it is judged by.
        p_holds, p_fails: Of the tests behind an arm comparison, after Holm's correction.
        n_compared: Arm comparisons that were corrected together.
        errors: Mean test errors of the better and the worse arm, percent.
        curve: The curve that a finding about an axis is judged by.
        levels: Of that curve: the levels that the reason is about.
        blocks_needed: Blocks that would show a little effect where there is none, if more than now.
        n_blocks: Blocks that the answer rests on.
        class_sets: Sets of classes that they are made of; 0 if they are seeds alone.
        judged_by: What the error is, in words.
        trials: Names of these trials.
        weights_changed: Mean share of the analog cells that changed in those of analog-tl, 0..1;
            None if unknown.
    """

    finding: Finding
    reason: Reason
    experiment: str = ""
    n_classes: int | None = None
    metric: Metric = Metric.ERROR  # what the errors are
    at: str = ""
    estimate: Estimate = UNKNOWN
    p_holds: float | None = None
    p_fails: float | None = None
    n_compared: int = 0
    errors: tuple[float, float] | None = None
    curve: JudgedCurve | None = None
    levels: tuple[float, ...] = ()
    blocks_needed: int | None = None
    n_blocks: int = 0
    class_sets: int = 0
    judged_by: str = ""
    trials: tuple[str, ...] = ()
    weights_changed: float | None = None

    @property
    def verdict(self) -> FindingVerdict:
        """What the runs say."""
        return self.reason.verdict


def judge_findings(
    analyses: Sequence[RunAnalysis], *, published: bool | None = None
) -> list[JudgedFinding]:
    """Hold the findings to runs. A partial sweep is judged as far as it goes.

    Args:
        published: Whether to judge the published findings, too; by default, those runs are held to
            them whose experiment asks for it (`[report] findings`).

    Returns:
        One per finding, task, experiment and setting that has the runs for it, in the order of
        `FINDINGS`; a finding without any has one per task.
    """
    asked = [one.asks_for_findings if published is None else published for one in analyses]
    judged: list[JudgedFinding] = []
    for analysis, all_of_them in zip(analyses, asked, strict=True):
        # The published ones are of errors in percent.
        findings = FINDINGS if all_of_them and analysis.error.gap == "points" else CONTROLS
        judged += [*_judge_arms(analysis, findings), *_judge_axes(analysis, findings)]
    result = []
    for finding in FINDINGS if any(asked) else CONTROLS:
        mine = [one for one in judged if one.finding is finding]
        for task in finding.n_classes or (None,):
            nothing = JudgedFinding(finding, Reason.NO_RUN, n_classes=task)
            result += [one for one in mine if task in (None, one.n_classes)] or [nothing]
    return result


def findings_frame(judged: Iterable[JudgedFinding]) -> pd.DataFrame:
    """The numbers of findings.csv: one row per judged finding; trials are separated by "; "."""
    rows = [
        {
            **vars(one),
            **one.estimate._asdict(),
            "estimate": one.estimate.value,
            "finding": one.finding.id,
            "figure": one.finding.figure,
            "source": one.finding.source,
            "verdict": str(one.verdict),
            "min_blocks": MIN_BLOCKS,
            "n_trials": len(one.trials),
            "trials": "; ".join(one.trials),
        }
        for one in judged
    ]
    columns = [
        *("finding", "figure", "source", "experiment", "n_classes", "at", "verdict"),
        *("estimate", "low", "high", "confidence", "unit", "p_holds", "p_fails"),
        *("n_blocks", "min_blocks", "n_trials", "trials", "judged_by"),
    ]
    numbers = ("estimate", "low", "high", "confidence", "p_holds", "p_fails")
    types = {**dict.fromkeys(numbers, "float64"), "n_classes": "Int64"}
    return pd.DataFrame(rows, columns=columns).astype(types)


# --- arms -----------------------------------------------------------------------------------------


def _judge_arms(analysis: RunAnalysis, findings: Sequence[Finding]) -> Iterator[JudgedFinding]:
    """All comparisons of arms of one run, corrected task by task and setting by setting."""
    of_arms = [finding for finding in findings if isinstance(finding, ArmsFinding)]
    for algorithm in analysis.run.trials["algorithm"].dropna().unique():
        mine = [finding for finding in of_arms if finding.algorithm in (None, algorithm)]
        yield from _judge_arms_with(str(algorithm), mine, analysis)


def _judge_arms_with(
    algorithm: str, findings: Sequence[ArmsFinding], analysis: RunAnalysis
) -> Iterator[JudgedFinding]:
    for task, at, trials in _at_reference(analysis, algorithm):
        arms = set(trials["arm"])
        compared = [
            _compare(finding, trials, analysis, task, at)
            for finding in findings
            if (not finding.n_classes or task in finding.n_classes)
            and {finding.better, finding.worse} <= arms
        ]
        yield from (one for one in compared if one.p_holds is None)
        tested = [one for one in compared if one.p_holds is not None]
        holds = holm([one.p_holds for one in tested])
        fails = holm([one.p_fails for one in tested])
        for one, p_holds, p_fails in zip(tested, holds, fails, strict=True):
            if one.finding is ARRAYS_LEARN and one.weights_changed == 0:
                reason = Reason.NOTHING_CHANGED
            elif p_holds < analysis.alpha:
                reason = Reason.DIFFERENCE
            else:
                reason = Reason.NO_DIFFERENCE if p_fails < analysis.alpha else Reason.UNDECIDED
            yield replace(
                one, reason=reason, p_holds=p_holds, p_fails=p_fails, n_compared=len(tested)
            )


def _at_reference(
    analysis: RunAnalysis, algorithm: str
) -> Iterator[tuple[int | None, str, pd.DataFrame]]:
    """Per task and setting: an algorithm's trials where no non-ideality of the registry is varied.

    Arms that an axis does not touch have no level and belong to every setting. Failed trials are
    kept, without an error, so that an arm which has only those is not taken for absent.
    """
    table = analysis.run.chosen.with_failed(analysis.metric)
    rival = table["algorithm"].notna() & table["algorithm"].ne(algorithm)
    table = table[~(rival & table["arm"].isin([arm for arm in Arm if arm.analog]))]
    for key, group in table.groupby("n_classes", dropna=False):
        task = None if pd.isna(key) else int(key)  # type: ignore[arg-type]
        axes = [axis for axis in axis_columns(group.columns) if group[axis].notna().any()]
        mildest: dict[str, object] = {}  # where that is not "none of it"
        if PER_LAYER in axes:  # what holds where no layer differs
            group = group[group[PER_LAYER].isna() | group[PER_LAYER].eq(NONE)]
            axes.remove(PER_LAYER)
        for axis in (a for a in axes if a in AXES):
            level = pd.to_numeric(group[axis], errors="coerce")
            reference = reference_level(axis, level.dropna())
            group = group[level.isna() | (level == reference)]
            if reference:
                mildest[axis] = reference
        others = [axis for axis in axes if axis not in AXES]
        settings = group[others].dropna(how="all").drop_duplicates()
        if settings.empty:
            yield task, setting(mildest), group
            continue
        numeric = [name for name in others if pd.api.types.is_numeric_dtype(settings[name])]
        if numeric:
            settings = settings.sort_values(numeric, kind="stable")
        for levels in settings.to_dict("records"):
            here = pd.Series(True, index=group.index)
            for name, value in levels.items():
                here &= group[name].isna() | group[name].eq(value)
            named = {str(name): value for name, value in levels.items()}
            yield task, setting({**mildest, **named}), group[here]


def _compare(
    finding: ArmsFinding, trials: pd.DataFrame, analysis: RunAnalysis, task: int | None, at: str
) -> JudgedFinding:
    """The difference of two arms over the blocks that both have finished; not yet corrected."""
    metric, pair = analysis.metric, [finding.better, finding.worse]
    done = trials[trials[metric].notna()].assign(block=blocks_of)
    done = done.drop_duplicates(["arm", "block"])
    by_block = done.pivot(index="block", columns="arm", values=metric)
    by_block = by_block.reindex(columns=pair).dropna()
    used = done[done["block"].isin(by_block.index) & done["arm"].isin(pair)]
    n = len(by_block)
    found = JudgedFinding(
        finding,
        Reason.FEW_BLOCKS,
        experiment=analysis.run.name,
        n_classes=task,
        at=at,
        n_blocks=n,
        class_sets=int(used["class_set"].nunique()) if "class_set" in used else 0,
        judged_by=epochs_text(used) if metric == JUDGED else metric,
        trials=tuple(used["trial"].astype(str)),
        estimate=Estimate(unit=analysis.error.gap),
        metric=analysis.error,
        weights_changed=mean_share(used.loc[used["arm"].eq(Arm.ANALOG_TL), "weights_changed"]),
    )
    if n < MIN_BLOCKS:
        return found
    better, worse = by_block[finding.better].to_numpy(), by_block[finding.worse].to_numpy()
    difference = float((worse - better).mean())
    se = float((worse - better).std(ddof=1)) / math.sqrt(n)
    half = float(special.stdtrit(n - 1, 1 - analysis.alpha)) * se
    # Of an infinite limit the p value is 0 or 1.
    above = p_above(difference - finding.above, se, n - 1)
    below = p_above(finding.below - difference, se, n - 1)
    least = finding.fails_below * analysis.error.margin / Metric.ERROR.margin
    too_low = p_above(least - difference, se, n - 1)
    too_high = p_above(difference - finding.below, se, n - 1)
    return replace(
        found,
        reason=Reason.UNDECIDED,
        errors=(float(better.mean()), float(worse.mean())),
        estimate=Estimate(
            difference,
            difference - half,
            difference + half,
            1 - 2 * analysis.alpha,
            analysis.error.gap,
        ),
        p_holds=max(above, below),
        p_fails=min(too_low, too_high),
    )


# --- axes -----------------------------------------------------------------------------------------


def _judge_axes(analysis: RunAnalysis, findings: Sequence[Finding]) -> Iterator[JudgedFinding]:
    """All findings about an axis, on every curve of analog-tl that fits."""
    for judged in analysis.curves:
        curve, point = judged.curve, judged.point
        if curve.arm != Arm.ANALOG_TL or curve.algorithm not in (None, Algorithm.C_TTV2):
            continue
        hybrid = bool(analysis.run.setting("convert", "digital_layers"))
        for finding in findings:
            if not isinstance(finding, AxisFinding):
                continue
            if finding.axis != curve.axis or curve.n_classes not in finding.n_classes:
                continue
            if finding.hybrid not in (None, hybrid):
                continue
            found = JudgedFinding(
                finding,
                Reason.FEW_BLOCKS,
                experiment=curve.experiment,
                n_classes=curve.n_classes,
                at=curve.at,
                curve=judged,
                n_blocks=point.n_blocks,
                class_sets=curve.class_sets,
                judged_by=curve.judged_by,
                trials=curve.trials,
                weights_changed=curve.weights_changed,
            )
            if point.verdict is CriticalPointVerdict.NO_DATA:
                yield found
            elif point.unfit:
                yield replace(found, reason=Reason.UNFIT_REFERENCE)
            elif isinstance(finding, CriticalFinding):
                yield _judge_critical(finding, point, found)
            elif isinstance(finding, LittleEffectFinding):
                yield _judge_little(finding, point, found)
            elif isinstance(finding, HarmFinding):
                yield _judge_harm(finding, point, found)


def _judge_critical(
    finding: CriticalFinding, point: CriticalPoint, found: JudgedFinding
) -> JudgedFinding:
    lowest, highest = finding.band
    certified = -math.inf if point.certified is None else point.certified
    worse = math.inf if point.first_worse is None else point.first_worse
    unit = AXES[finding.axis].unit
    estimate = Estimate(
        point.critical, point.certified, point.first_worse, 1 - 2 * point.alpha, unit
    )
    inside = outside = False
    hinge = point.hinge
    if hinge.low is not None and hinge.high is not None:
        estimate = Estimate(hinge.elbow, hinge.low, hinge.high, 1 - point.alpha, unit)
        inside = lowest <= hinge.low and hinge.high <= highest
        outside = hinge.high < lowest or hinge.low > highest
    early, late = worse <= lowest, certified >= highest
    confined = certified >= lowest and worse <= highest
    if (inside or confined) and (outside or early or late):
        reason = Reason.CONTRADICTION
    elif inside:
        reason = Reason.BEND_INSIDE
    elif confined:
        reason = Reason.TESTS_CONFINE
    elif early:
        reason = Reason.WORSE_BEFORE
    elif late:
        reason = Reason.HARMLESS_BEYOND
    elif outside:
        reason = Reason.BEND_OUTSIDE
    elif point.max_level is not None and point.max_level <= finding.level:
        reason = Reason.SWEEP_ENDS
    else:
        reason = Reason.UNDECIDED
    return replace(found, reason=reason, estimate=estimate)


def _judge_harm(finding: HarmFinding, point: CriticalPoint, found: JudgedFinding) -> JudgedFinding:
    tests = [test for test in point.levels if test.level <= finding.level]
    reason = Reason.UNDECIDED
    if point.first_worse is not None and point.first_worse <= finding.level:
        reason = Reason.HARMFUL
    elif point.certified is not None and point.certified >= finding.level:
        reason = Reason.HARMLESS_BEYOND
    elif point.max_level is not None and point.max_level < finding.level:
        reason = Reason.SWEEP_ENDS
    estimate = UNKNOWN
    if tests:
        worst = max(tests, key=lambda test: test.excess)
        confidence = 1 - 2 * point.alpha
        estimate = Estimate(worst.excess, worst.lower, worst.upper, confidence, "points")
    return replace(found, reason=reason, estimate=estimate)


def _judge_little(
    finding: LittleEffectFinding, point: CriticalPoint, found: JudgedFinding
) -> JudgedFinding:
    # Levels past the range that the finding is stated for neither refute nor are needed.
    tests = [t for t in point.levels if t.level <= finding.reach] or list(point.levels)
    worst = max(tests, key=lambda test: test.excess)
    # p_harmless tests a rise of at least the margin; its complement, one of at most the margin.
    levels = tuple(t.level for t in tests if (1 - t.p_harmless) * len(tests) < point.alpha)
    certified = point.reference if point.certified is None else point.certified
    blocks_needed = None
    if levels:
        reason = Reason.COSTLY
    elif certified >= finding.reach:
        reason = Reason.HARMLESS
    elif levels := tuple(gap.level for gap in point.gaps if gap.level <= finding.reach):
        reason = Reason.TRIALS_MISSING
    elif certified == point.max_level:
        reason = Reason.RANGE_SHORT
    else:
        reason = Reason.UNDECIDED
        # Every level has to pass, so each must be all the more likely to.
        power = POWER ** (1 / len(tests))
        spread = float(special.ndtri(1 - point.alpha) + special.ndtri(power))
        needed = math.ceil(2 * (spread * (point.residual_sd or 0) / point.margin) ** 2)
        blocks_needed = needed if needed > point.n_blocks else None
    estimate = Estimate(worst.excess, worst.lower, worst.upper, 1 - 2 * point.alpha, "points")
    return replace(
        found, reason=reason, levels=levels, blocks_needed=blocks_needed, estimate=estimate
    )
