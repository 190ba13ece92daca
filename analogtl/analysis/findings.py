"""What a set of runs says about each of the published findings (`analogtl.analysis.claims`).

Three verdicts, each with an error probability of at most alpha (5 %) where not stated otherwise:

- *holds*: the runs show it. Absence of a difference is never taken for "little effect": that has to
  be shown as a rise below a margin, at every level up to the end of the registry's range.
- *does not hold*: the runs show the contrary, beyond a margin that makes it matter.
- *not enough data*: neither. That covers runs that are missing, fewer than three seeds, and seeds
  enough to test but not to decide; ``says`` tells which, and where it can be told, how many seeds
  would decide.

How each kind is decided:

- *Arms* (Fig. 2): the difference of two arms within seeds, by one-sided t tests. "A beats B": shown
  above 0 points it holds, shown below 1 point it does not. "By about 2 points": shown between 0 and
  4 it holds, shown outside it does not. The arm comparisons of one experiment and task are one
  family, corrected by Holm's rule. An arm that a sweep varies counts at the level that stands for
  none of the non-ideality.
- *Critical level* (Figs. 3, 4): within 5 percentage points of the published one, one step of its
  grid. It holds if the interval of the hinge lies in there, or if the step-down tests confine it
  (certified up to the lower end, worse from the upper one). It does not if the interval lies
  outside, if the error is worse at the lower end already, or if it is certified to the upper end.
  If one of these speaks for the finding and another against it, it is open.
- *Little effect* (Figs. 4, 5): every level up to the end of the registry's range is shown to cost
  less than the margin: it holds (all tests must pass, which needs no correction; a level at which
  trials failed does not pass). Some level of that range is shown to cost more: it does not
  (corrected by Bonferroni over the levels).
- *The arrays learn* (ours): analog-tl beats the frozen-array control. If not one weight moved, it
  does not hold, whatever the errors.

Experiments differ in scale and settings, so that each one is judged for itself.

In simulated sweeps like those of `analogtl.analysis.critical_point`, a critical level elsewhere
"holds", and the right one "does not hold", in at most 5 %; the right one, where the error
rises by 7.5 points at the next level, is shown in 75 % of the sweeps with 3 seeds and in 92 %
with 5. "Little effect" is harder: that no effect at all stays below 2 points at each of four levels
is shown in 2 %, 6 % and 11 % with 3, 5 and 8 seeds, where a trial's standard deviation is 3 points,
and in 80 % with 48.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import special

from analogtl.analysis.claims import (
    FINDINGS,
    ArmsFinding,
    CriticalFinding,
    Finding,
    LittleEffectFinding,
)
from analogtl.analysis.critical_point import (
    ALPHA,
    MARGIN,
    RECOMMENDED_SEEDS,
    CriticalPoint,
    judge_curves,
)
from analogtl.analysis.curves import curves, reference_level, setting
from analogtl.analysis.seed_blocks import MIN_SEEDS, p_above
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.errors import counted
from analogtl.study.columns import axis_columns
from analogtl.vocabulary import AXES, CriticalPointVerdict
from analogtl.vocabulary import FindingVerdict as Verdict

if TYPE_CHECKING:
    import pandas as pd


def p_text(p: float) -> str:
    return f"p = {p:.2g}"


@dataclass(frozen=True)
class Answer:
    """What one experiment says about one finding.

    Attributes:
        experiment: "" if none has the runs.
        n_classes: The task; None if unknown.
        at: Levels of further axes, ``n_states=20``; "" for none.
        verdict: See `Verdict`.
        says: In words, with the numbers.
        estimate: Difference in points, critical level or elbow, or largest rise in points.
        low, high: Its interval at `confidence`; for a critical level, from the certified level to
            the first that is worse if the hinge has no interval.
        confidence: Of the interval, 0..1.
        unit: Of the three: "points" or the unit of the axis.
        p_holds, p_fails: Of the tests behind an arm comparison, after Holm's correction.
        n_seeds: Seeds that the answer rests on.
        trials: Names of these trials.
        note: What to keep in mind.
    """

    experiment: str
    n_classes: int | None
    at: str
    verdict: Verdict
    says: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    unit: str = ""
    p_holds: float | None = None
    p_fails: float | None = None
    n_seeds: int = 0
    trials: tuple[str, ...] = ()
    note: str = ""


COLUMNS: Final = [
    "finding", "statement", "published", "figure", "source", "experiment", "n_classes", "at",
    "verdict", "says", "estimate", "low", "high", "confidence", "unit", "p_holds", "p_fails",
    "n_seeds", "min_seeds", "n_trials", "trials", "note",
]  # fmt: skip


def evaluate(
    trials: pd.DataFrame,
    *,
    metric: str = "error_final",
    alpha: float = ALPHA,
    margin: float = MARGIN,
    n_permutations: int = 1999,
    n_bootstrap: int = 1999,
) -> pd.DataFrame:
    """Hold the findings to the runs in a trials table.

    Args:
        trials: Rows of trials.csv, of any number of experiments and learning rates; the learning
            rate of each level is chosen here. A partial sweep is judged as far as it goes.
        metric: Column of the test error, percent.
        alpha: Error probability of each verdict.
        margin: Points of test error that count as little.
        n_permutations, n_bootstrap: Of the hinge (`analogtl.analysis.critical_point`).

    Returns:
        One row per finding, task and experiment that has the runs for it, in the order of
        `FINDINGS`; a finding without any has one row per task that says what is missing. Columns:
        finding (its id), statement, published, figure, source, then the attributes of `Answer`
        with min_seeds and n_trials; trials are separated by "; ".

    Raises:
        ValueError: The table lacks the column.
    """
    import pandas as pd

    if metric not in trials:
        raise ValueError(f"the trials table has no column {metric!r}")
    by_finding: dict[str, list[Answer]] = {finding.id: [] for finding in FINDINGS}
    for finding, answer in _arm_answers(trials, metric, alpha):
        by_finding[finding.id].append(answer)
    hinge = {"n_permutations": n_permutations, "n_bootstrap": n_bootstrap}
    for finding, answer in _curve_answers(trials, metric, alpha, margin, hinge):
        by_finding[finding.id].append(answer)
    rows = []
    for finding in FINDINGS:
        answers = by_finding[finding.id]
        for task in finding.n_classes or (None,):
            mine = [a for a in answers if task is None or a.n_classes == task]
            for answer in mine or [_nothing(finding, task)]:
                rows.append(_row(finding, answer))
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("estimate", "low", "high", "confidence", "p_holds", "p_fails"):
        table[column] = pd.to_numeric(table[column])
    table["n_classes"] = pd.to_numeric(table["n_classes"]).astype("Int64")
    return table


def _row(finding: Finding, answer: Answer) -> dict[str, object]:
    return {
        "finding": finding.id,
        "statement": finding.statement,
        "published": finding.published,
        "figure": finding.figure,
        "source": finding.source,
        **vars(answer),
        "verdict": str(answer.verdict),
        "min_seeds": MIN_SEEDS,
        "n_trials": len(answer.trials),
        "trials": "; ".join(answer.trials),
    }


def _nothing(finding: Finding, task: int | None) -> Answer:
    where = f" on a {task}-class task" if task is not None else ""
    return Answer("", task, "", Verdict.OPEN, f"No run has {finding.needs}{where}.")


# --- arms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """An arm comparison before it is judged."""

    finding: ArmsFinding
    answer: Answer
    p_holds: float = 1.0
    p_fails: float = 1.0


def _arm_answers(
    trials: pd.DataFrame, metric: str, alpha: float
) -> Iterator[tuple[Finding, Answer]]:
    """All arm comparisons, judged family by family."""
    for (experiment, task, at), group in _at_reference(trials, metric):
        family = []
        for finding in FINDINGS:
            if not isinstance(finding, ArmsFinding):
                continue
            if finding.n_classes and task not in finding.n_classes:
                continue
            if {finding.better, finding.worse} <= set(group["arm"]):
                empty = Answer(experiment, task, at, Verdict.OPEN, "")
                family.append(_compare(finding, group, metric, alpha, empty))
        tested = [c for c in family if c.answer.n_seeds >= MIN_SEEDS]
        holds = holm([c.p_holds for c in tested])
        fails = holm([c.p_fails for c in tested])
        for comparison, p_holds, p_fails in zip(tested, holds, fails, strict=True):
            answer = _judge(comparison, p_holds, p_fails, alpha, len(tested))
            yield comparison.finding, answer
        for comparison in family:
            if comparison not in tested:
                yield comparison.finding, comparison.answer


def _at_reference(
    trials: pd.DataFrame, metric: str
) -> Iterator[tuple[tuple[str, int | None, str], pd.DataFrame]]:
    """Per experiment, task and setting: trials where no non-ideality of the registry is varied.

    Arms that an axis does not touch have no level and belong to every setting. Failed trials are
    kept, without an error, so that an arm which has only those is not taken for absent.
    """
    import pandas as pd

    selected = select_learning_rate(trials)
    table = selected.rows
    if len(selected.failed):
        table = pd.concat([table, selected.failed.assign(**{metric: float("nan")})])
    if "algorithm" in table:
        rival = table["algorithm"].notna() & ~table["algorithm"].isin(_ALGORITHM)
        table = table[~(rival & table["arm"].isin(_ANALOG))]
    keys = [k for k in ("experiment", "n_classes") if k in table]
    for key, group in table.groupby(keys, dropna=False, sort=True):
        task = _task(key[1]) if len(key) > 1 else None
        axes = [a for a in axis_columns(group.columns) if group[a].notna().any()]
        mildest: dict[str, object] = {}  # where that is not "none of it"
        for axis in (a for a in axes if a in AXES):
            level = pd.to_numeric(group[axis], errors="coerce")
            reference = reference_level(axis, level.dropna())
            group = group[level.isna() | (level == reference)]
            if reference:
                mildest[axis] = reference
        others = [a for a in axes if a not in AXES]
        settings = group[others].dropna(how="all").drop_duplicates() if others else None
        if settings is None or settings.empty:
            yield (str(key[0]), task, setting(mildest)), group
            continue
        numeric = [name for name in others if pd.api.types.is_numeric_dtype(settings[name])]
        if numeric:
            settings = settings.sort_values(numeric, kind="stable")
        for levels in settings.to_dict("records"):
            here = pd.Series(True, index=group.index)
            for name, value in levels.items():
                here &= group[name].isna() | group[name].eq(value)
            yield (str(key[0]), task, setting({**mildest, **_named(levels)})), group[here]


_ANALOG: Final = ("analog-tl", "analog-scratch", "frozen-array")
_POWER: Final = 0.8  # of the number of seeds that is suggested
_ALGORITHM: Final = ("c-ttv2",)  # the findings are about this one


def _named(levels: Mapping[object, object]) -> dict[str, object]:
    return {str(name): value for name, value in levels.items()}


def _task(value: Any) -> int | None:
    import pandas as pd

    return None if pd.isna(value) else int(value)


def _compare(
    finding: ArmsFinding, group: pd.DataFrame, metric: str, alpha: float, answer: Answer
) -> _Comparison:
    """The difference of two arms over the seeds that both have finished."""
    finished = group[group[metric].notna()].drop_duplicates(["arm", "seed"])
    by_seed = finished.pivot(index="seed", columns="arm", values=metric)
    by_seed = by_seed.reindex(columns=[finding.better, finding.worse]).dropna()
    n = len(by_seed)
    used = finished[
        finished["seed"].isin(by_seed.index) & finished["arm"].isin([finding.better, finding.worse])
    ]
    answer = replace(
        answer,
        n_seeds=n,
        trials=tuple(used["trial"].astype(str)),
        unit="points",
        note=_movement(used[used["arm"].eq("analog-tl")]),
    )
    if n < MIN_SEEDS:
        words = f"{counted(n, 'seed')} finished in both arms; at least {MIN_SEEDS} are needed."
        return _Comparison(finding, replace(answer, says=words))
    better, worse = by_seed[finding.better].to_numpy(), by_seed[finding.worse].to_numpy()
    difference = worse - better
    estimate = float(difference.mean())
    se = float(difference.std(ddof=1)) / math.sqrt(n)
    reach = float(special.stdtrit(n - 1, 1 - alpha)) * se
    says = (
        f"{finding.better} {better.mean():.1f} %, {finding.worse} {worse.mean():.1f} %: "
        f"{finding.better} is {abs(estimate):.1f} points {'better' if estimate >= 0 else 'worse'} "
        f"({100 * (1 - 2 * alpha):.0f} % interval {estimate - reach:.1f} to {estimate + reach:.1f})"
    )
    over = p_above(estimate - finding.above, se, n - 1)
    under = p_above(finding.below - estimate, se, n - 1) if finding.below < math.inf else 0.0
    too_low = p_above(finding.fails_below - estimate, se, n - 1)
    too_high = p_above(estimate - finding.below, se, n - 1) if finding.below < math.inf else 1.0
    return _Comparison(
        finding,
        replace(
            answer,
            says=says,
            estimate=estimate,
            low=estimate - reach,
            high=estimate + reach,
            confidence=1 - 2 * alpha,
        ),
        p_holds=max(over, under),
        p_fails=min(too_low, too_high),
    )


def _judge(
    comparison: _Comparison, p_holds: float, p_fails: float, alpha: float, n_family: int
) -> Answer:
    finding, answer = comparison.finding, comparison.answer
    family = f" after Holm's correction for {n_family} comparisons" if n_family > 1 else ""
    seeds = _seeds(answer.n_seeds)
    if finding.must_move and answer.note == _NOT_MOVED:
        verdict, why = Verdict.FAILS, "not one analog weight moved"
    elif p_holds < alpha:
        verdict, why = Verdict.HOLDS, f"{p_text(p_holds)}{family}"
    elif p_fails < alpha:
        bound = f"less than {_points(finding.fails_below)} better"
        if finding.below < math.inf:
            bound = f"outside {finding.above:g} to {finding.below:g} points"
        verdict, why = Verdict.FAILS, f"{bound}, {p_text(p_fails)}{family}"
    else:
        verdict, why = Verdict.OPEN, f"the interval leaves it open{family}"
    return replace(
        answer,
        verdict=verdict,
        says=f"{answer.says}; {why}; {seeds}.",
        p_holds=p_holds,
        p_fails=p_fails,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected by Holm's rule, in their order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


_NOT_MOVED: Final = "Not one analog weight moved: what was learned is in the digital parameters."


def _movement(analog: pd.DataFrame) -> str:
    import pandas as pd

    if "weights_changed" not in analog:
        return ""
    return _moved(tuple(pd.to_numeric(analog["weights_changed"], errors="coerce").dropna()))


def _moved(shares: Sequence[float]) -> str:
    """How far the arrays moved, in words; "" if unknown."""
    if not len(shares):
        return ""
    if max(shares) == 0:
        return _NOT_MOVED
    return f"{100 * np.mean(shares):.3g} % of the analog weights moved."


def _points(n: float) -> str:
    return f"{n:g} point" if n == 1 else f"{n:g} points"


def _seeds(n: int) -> str:
    few = f" ({RECOMMENDED_SEEDS} or more are recommended)" if n < RECOMMENDED_SEEDS else ""
    return f"{counted(n, 'seed')}{few}"


# --- axes -----------------------------------------------------------------------------------------


def _curve_answers(
    trials: pd.DataFrame, metric: str, alpha: float, margin: float, hinge: Mapping[str, int]
) -> Iterator[tuple[Finding, Answer]]:
    """All findings about an axis, on every curve of analog-tl that fits."""
    for curve in curves(select_learning_rate(trials), metric=metric):
        if curve.arm != "analog-tl" or curve.algorithm not in (None, *_ALGORITHM):
            continue
        wanted = [
            finding
            for finding in FINDINGS
            if isinstance(finding, (CriticalFinding, LittleEffectFinding))
            and finding.axis == curve.axis
            and curve.n_classes in finding.n_classes
        ]
        if not wanted:
            continue
        (judged,) = judge_curves([curve], alpha=alpha, margin=margin, **hinge)
        point = judged.point
        for finding in wanted:
            answer = Answer(
                curve.experiment,
                curve.n_classes,
                curve.at,
                Verdict.OPEN,
                "",
                n_seeds=point.n_seeds,
                trials=curve.trials,
                note=_moved(curve.weights_changed),
            )
            if point.verdict is CriticalPointVerdict.NO_DATA:
                yield finding, answer
            elif isinstance(finding, CriticalFinding):
                yield finding, _judge_critical(finding, point, answer)
            else:
                yield finding, _judge_little(finding, point, answer)


def _judge_critical(finding: CriticalFinding, point: CriticalPoint, answer: Answer) -> Answer:
    lowest, highest = finding.level - finding.tolerance, finding.level + finding.tolerance
    unit = AXES[finding.axis].unit
    band = f"{lowest:g} to {highest:g} {unit}".strip()
    hinge = point.hinge
    inside = outside = False
    estimate, low, high = point.critical, point.certified, point.first_worse
    confidence = 1 - 2 * point.alpha
    if hinge is not None and hinge.low is not None and hinge.high is not None:
        estimate, low, high, confidence = hinge.elbow, hinge.low, hinge.high, 1 - point.alpha
        inside = lowest <= hinge.low and hinge.high <= highest
        outside = hinge.high < lowest or hinge.low > highest
    early = point.first_worse is not None and point.first_worse <= lowest
    late = point.certified is not None and point.certified >= highest
    confined = (
        point.certified is not None
        and point.first_worse is not None
        and point.certified >= lowest
        and point.first_worse <= highest
    )
    supports, contradicts = inside or confined, outside or early or late
    if supports and contradicts:
        verdict, why = Verdict.OPEN, "The step-down tests and the hinge contradict each other."
    elif supports:
        how = "interval of the bend lies" if inside else "tests confine the critical level"
        verdict, why = Verdict.HOLDS, f"The {how} within {band}."
    elif contradicts:
        if early:
            why = f"Worse already at {point.first_worse:g}, not above {lowest:g}."
        elif late:
            why = f"Harmless up to {point.certified:g}, beyond {band}."
        else:
            why = f"The interval of the bend lies outside {band}."
        verdict = Verdict.FAILS
    elif point.max_level is not None and point.max_level <= finding.level:
        verdict, why = Verdict.OPEN, f"The sweep ends at {point.max_level:g}: no level above."
    else:
        verdict, why = Verdict.OPEN, f"Neither inside nor outside {band} is shown."
    return replace(
        answer,
        verdict=verdict,
        says=f"{why} {answer.says}",
        estimate=estimate,
        low=low,
        high=high,
        confidence=confidence,
        unit=unit,
    )


def _judge_little(finding: LittleEffectFinding, point: CriticalPoint, answer: Answer) -> Answer:
    # Levels past the range that the finding is stated for neither refute nor are needed.
    tests = [t for t in point.levels if t.level <= finding.reach] or list(point.levels)
    worst = max(tests, key=lambda test: test.excess)
    # p_harmless tests a rise of at least the margin; its complement, one of at most the margin.
    costly = [t for t in tests if (1 - t.p_harmless) * len(tests) < point.alpha]
    unsure = [gap.level for gap in point.gaps if gap.level <= finding.reach]
    certified = point.reference if point.certified is None else point.certified
    if costly:
        at = ", ".join(f"{test.level:g}" for test in costly)
        verdict, why = Verdict.FAILS, f"Costs more than {point.margin:g} points at {at}."
    elif certified >= finding.reach:
        verdict = Verdict.HOLDS
        why = f"Every level up to {certified:g} costs less than {point.margin:g} points."
    elif unsure:
        verdict = Verdict.OPEN
        why = f"Not all trials finished at {', '.join(f'{level:g}' for level in unsure)}."
    elif certified == point.max_level:
        verdict = Verdict.OPEN
        why = f"Harmless up to {certified:g}, short of {finding.reach:g}."
    else:
        verdict = Verdict.OPEN
        why = f"A rise of {point.margin:g} points is neither shown nor excluded."
        if point.residual_sd:
            # Every level has to pass, so each must be all the more likely to.
            power = _POWER ** (1 / len(tests))
            spread = float(special.ndtri(1 - point.alpha) + special.ndtri(power))
            needed = math.ceil(2 * (spread * point.residual_sd / point.margin) ** 2)
            if needed > point.n_seeds:
                why += f" To exclude it where there is none takes about {needed} seeds."
    return replace(
        answer,
        verdict=verdict,
        says=f"{why} {answer.says}",
        estimate=worst.excess,
        low=worst.lower,
        high=worst.upper,
        confidence=1 - 2 * point.alpha,
        unit="points",
    )
