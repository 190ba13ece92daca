"""What the statistics found, in plain words: functions from objects to text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from analogtl.analysis.critical_point import POWER, RECOMMENDED_SEEDS, CriticalPoint, JudgedCurve
from analogtl.analysis.curves import Curve
from analogtl.analysis.findings import (
    ARRAYS_LEARN,
    ArmsFinding,
    AxisFinding,
    CriticalFinding,
    Finding,
    JudgedFinding,
    LittleEffectFinding,
    Reason,
)
from analogtl.analysis.seed_blocks import MIN_SEEDS
from analogtl.analysis.summaries import with_unit
from analogtl.errors import counted
from analogtl.vocabulary import AXES, Arm, CriticalPointVerdict, arm_label, label_of


def p_text(p_value: float) -> str:
    """``p = 0.03``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


# ------------------------------------------------------------------------------ critical points


def curve_name(curve: Curve) -> str:
    """The arm, the setting of other axes and the axis: ``analog TL at spv=5, learning rate``."""
    at = f" at {curve.at}" if curve.at else ""
    return f"{arm_label(curve.arm)}{at}, {label_of(curve.axis)}"


def headline(judged: JudgedCurve) -> str:
    """What a sweep shows, in a few words: ``no harm shown up to 20 %; worse from 30 % on``."""
    curve, point = judged.curve, judged.point
    if point.verdict is CriticalPointVerdict.NO_DATA:
        return "not enough data"
    parts = []
    if point.worst_fine:
        parts.append(f"no harm shown {_reach(curve, point.worst_fine.level)}")
    if point.first_worse is not None:
        parts.append(f"worse {_from(curve, point.first_worse)}")
    elif point.failing:
        parts.append(f"trials fail at {_levels(curve, point.failing)}")
    return "; ".join(parts)


def bend(judged: JudgedCurve) -> str:
    """Where the error starts to rise, with its interval; "" where no such place is shown."""
    hinge = judged.point.hinge
    if hinge is None or hinge.elbow is None:
        return ""
    unit = with_unit(judged.curve.axis, "").strip()
    interval = ""
    if hinge.low is not None and hinge.high is not None:
        percent = 100 * (1 - judged.point.alpha)
        interval = f" ({percent:.0f} % interval {hinge.low:.3g} to {hinge.high:.3g})"
    return f"the error starts to rise at about {hinge.elbow:.3g} {unit}".rstrip() + interval


def harmless(judged: JudgedCurve) -> str:
    """Up to which level less than the margin is lost: ``costs less than 2 points up to 5 %``."""
    curve, point = judged.curve, judged.point
    if point.certified is None:
        return f"costs less than {point.margin:g} points at no level for sure"
    return f"costs less than {point.margin:g} points {_reach(curve, point.certified)} for sure"


def sentences(judged: JudgedCurve) -> str:
    """All that a sweep shows about the critical point of its axis, with the numbers."""
    curve, point = judged.curve, judged.point
    if point.verdict is CriticalPointVerdict.NO_DATA:
        return " ".join([_no_data(curve, point), *_gaps(curve, point)])
    parts = [*_verdict(judged)]
    if rise := bend(judged):
        assert point.hinge is not None
        parts.append(
            f"{_capital(rise)}, by a line that is flat and then rises "
            f"({p_text(point.hinge.p_value)})."
        )
    parts += [f"{_capital(harmless(judged))}.", _seeds_of(point), *_gaps(curve, point)]
    return " ".join(parts)


def _verdict(judged: JudgedCurve) -> Iterator[str]:
    curve, point = judged.curve, judged.point
    first = next((test for test in point.levels if test.shown_worse), None)
    told = first or point.levels[-1]
    numbers = f"{told.excess:+.1f} points of {curve.error}, {p_text(told.p_worse)}"
    against = f", compared with {with_unit(curve.axis, point.reference)}" if point.reference else ""
    if first:
        yield f"{_capital(headline(judged))}: {numbers}{against}."
        if point.worst_fine is None:
            ends = " and ".join(with_unit(curve.axis, x) for x in (point.reference, first.level))
            yield f"No level between {ends} was tested."
        return
    top = with_unit(curve.axis, told.level)
    yield f"{_capital(headline(judged))}: {numbers} at {top}{against}."
    yield (
        f"A rise of {point.detectable:.1f} points there would have been found with a probability "
        f"of {100 * POWER:.0f} %."
    )
    if alone := [test.level for test in point.levels if test.p_worse < point.alpha]:
        yield f"Taken alone, {_levels(curve, alone)} is worse."


def _no_data(curve: Curve, point: CriticalPoint) -> str:
    reference = with_unit(curve.axis, point.reference)
    have = f"{counted(point.n_seeds, 'seed')} finished at {reference}"
    if point.n_seeds >= MIN_SEEDS:
        have += ", none of them at a further level"
    return (
        f"Not enough data: {have}; at least {MIN_SEEDS} are needed, there and at a further level."
    )


def _seeds_of(point: CriticalPoint) -> str:
    fewest = min((test.n_seeds for test in point.levels), default=point.n_seeds)
    parts = [seeds_text(point.n_seeds)]
    if fewest < point.n_seeds:
        parts.append(f"{fewest} of them at every level (compared are the seeds in common)")
    if point.n_missing:
        parts.append(f"{counted(point.n_missing, 'trial')} missing")
    return ", ".join(parts) + "."


def _gaps(curve: Curve, point: CriticalPoint) -> Iterator[str]:
    reference = with_unit(curve.axis, point.reference)
    if not point.n_seeds:
        yield f"No trial has finished at {reference}."
        return
    if point.n_unpaired:
        yield f"Left out: {counted(point.n_unpaired, 'seed')} not finished at {reference}."
    for gap in point.gaps:
        level = with_unit(curve.axis, gap.level)
        failed = f", {counted(gap.n_failed, 'trial')} failed" if gap.n_failed else ""
        if gap.left_out:
            yield f"Left out: {level} ({counted(gap.n_seeds, 'seed')} finished{failed})."
        else:
            yield f"At {level}{failed}: what they would have shown is not known."


def seeds_text(n_seeds: int) -> str:
    """``5 seeds``; fewer are said to be few."""
    few = f" ({RECOMMENDED_SEEDS} or more are recommended)" if n_seeds < RECOMMENDED_SEEDS else ""
    return f"{counted(n_seeds, 'seed')}{few}"


# ------------------------------------------------------------------------------------- findings


def statement(finding: Finding) -> str:
    """A finding in a sentence: ``Weight transfer noise hurts the 2-class task beyond 15 %.``"""
    if isinstance(finding, ArmsFinding):
        control = "The arrays learn: " if finding is ARRAYS_LEARN else ""
        by = f" by {published(finding)}" if finding.below < math.inf else ""
        return _capital(f"{control}{finding.better.label} beats {finding.worse.label}{by}.")
    assert isinstance(finding, AxisFinding)
    task = "" if len(finding.n_classes) > 1 else f" the {finding.n_classes[0]}-class task"
    if isinstance(finding, CriticalFinding):
        does = f"hurts{task} beyond {published(finding)}"
    else:
        does = f"has little effect{task and ' on'}{task}"
    return _capital(f"{AXES[finding.axis].meaning} {does}.")


def published(finding: Finding) -> str:
    """The published number or effect."""
    if finding is ARRAYS_LEARN:
        return "not published: a control"
    if isinstance(finding, ArmsFinding):
        middle = (finding.above + finding.below) / 2
        return f"about {middle:g} points" if middle < math.inf else "lower test error"
    if isinstance(finding, CriticalFinding):
        return with_unit(finding.axis, finding.level)
    return "little effect"


def needs(finding: Finding) -> str:
    """The runs that a finding takes: ``a sweep of wtn with the arm analog-tl``."""
    if isinstance(finding, ArmsFinding):
        return f"the arms {finding.better} and {finding.worse}"
    if isinstance(finding, LittleEffectFinding):
        reach = with_unit(finding.axis, finding.reach)
        return f"a sweep of {finding.axis} up to {reach} with the arm {Arm.ANALOG_TL}"
    assert isinstance(finding, AxisFinding)
    return f"a sweep of {finding.axis} with the arm {Arm.ANALOG_TL}"


def says(judged: JudgedFinding) -> str:
    """What the runs show about a finding, with the numbers."""
    finding = judged.finding
    if judged.reason is Reason.NO_RUN:
        where = "" if judged.n_classes is None else f" on a {judged.n_classes}-class task"
        return f"No run has {needs(finding)}{where}."
    if isinstance(finding, ArmsFinding):
        return _arms_say(judged, finding)
    assert judged.curve is not None
    why = _axis_says(judged, judged.curve)
    return " ".join(filter(None, (why, sentences(judged.curve))))


def movement(judged: JudgedFinding) -> str:
    """How far the arrays of analog-tl moved; "" if unknown."""
    if judged.weights_changed is None:
        return ""
    if judged.weights_changed == 0:
        return "No cell changed: what was learned is in the digital parameters."
    return f"{100 * judged.weights_changed:.3g} % of the cells changed."


def _arms_say(judged: JudgedFinding, finding: ArmsFinding) -> str:
    if judged.errors is None or judged.estimate is None:
        have = f"{counted(judged.n_seeds, 'seed')} finished in both arms"
        return f"{have}; at least {MIN_SEEDS} are needed."
    better, worse = finding.better.label, finding.worse.label
    than = "better" if judged.estimate >= 0 else "worse"
    numbers = (
        f"{better} {judged.errors[0]:.1f} %, {worse} {judged.errors[1]:.1f} %: {better} is "
        f"{abs(judged.estimate):.1f} points {than} "
        f"({100 * (judged.confidence or 0):.0f} % interval {judged.low:.1f} to {judged.high:.1f})"
    )
    corrected = f", corrected for {judged.n_compared} comparisons" if judged.n_compared > 1 else ""
    bound = f"less than {counted(round(finding.fails_below), 'point')} better"
    if finding.below < math.inf:
        bound = f"outside {finding.above:g} to {finding.below:g} points"
    why = {
        Reason.NOTHING_MOVED: "but no cell changed",
        Reason.DIFFERENCE: f"{p_text(judged.p_holds or 0)}{corrected}",
        Reason.NO_DIFFERENCE: f"{bound}, {p_text(judged.p_fails or 0)}{corrected}",
    }.get(judged.reason, f"this decides nothing{corrected}")
    return f"{numbers}; {why}; {seeds_text(judged.n_seeds)}."


def _axis_says(judged: JudgedFinding, curve: JudgedCurve) -> str:
    finding, point = judged.finding, curve.point
    band = ""
    if isinstance(finding, CriticalFinding):
        low, high = finding.band
        band = f"{low:g} to {with_unit(finding.axis, high)}"
    levels = _levels(curve.curve, judged.levels)
    worse, certified, top = (
        "" if level is None else with_unit(curve.curve.axis, level)
        for level in (point.first_worse, point.certified, point.max_level)
    )
    seeds = (
        f" To exclude it takes about {judged.seeds_needed} seeds." if judged.seeds_needed else ""
    )
    margin = f"{point.margin:g} points"
    return {
        Reason.BEND_INSIDE: f"The rise starts within {band}, its interval included.",
        Reason.TESTS_CONFINE: f"The level tests place the start of the harm within {band}.",
        Reason.WORSE_BEFORE: f"Worse at {worse} already; published is {band}.",
        Reason.HARMLESS_BEYOND: f"No harm up to {certified} for sure; published is {band}.",
        Reason.BEND_OUTSIDE: f"The rise starts outside {band}.",
        Reason.CONTRADICTION: "The level tests and the fitted line contradict each other.",
        Reason.SWEEP_ENDS: f"The sweep ends at {top}, no level above was tested.",
        Reason.COSTLY: f"Costs more than {margin} at {levels}.",
        Reason.HARMLESS: f"Every level up to {certified} costs less than {margin}.",
        Reason.TRIALS_MISSING: f"Not all trials finished at {levels}.",
        Reason.RANGE_SHORT: f"No harm up to {certified} for sure, but the range goes further.",
        Reason.UNDECIDED: (
            f"Neither inside nor outside {band} is shown."
            if band
            else f"A rise of {margin} is neither shown nor excluded.{seeds}"
        ),
    }.get(judged.reason, "")


def _reach(curve: Curve, level: float) -> str:
    return f"{'down' if curve.direction == 'down' else 'up'} to {with_unit(curve.axis, level)}"


def _from(curve: Curve, level: float) -> str:
    on = "down" if curve.direction == "down" else "on"
    return f"from {with_unit(curve.axis, level)} {on}"


def _levels(curve: Curve, levels: Iterable[float]) -> str:
    return ", ".join(with_unit(curve.axis, level) for level in levels)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
