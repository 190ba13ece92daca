"""What the statistics found, in plain words: functions from objects to text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pandas as pd

from analogtl.analysis.blocks import MIN_BLOCKS
from analogtl.analysis.critical_point import POWER, RECOMMENDED_BLOCKS, CriticalPoint, JudgedCurve
from analogtl.analysis.curves import Curve
from analogtl.analysis.findings import (
    ARRAYS_LEARN,
    CONTROLS,
    GRADIENTS_TEACH,
    ArmsFinding,
    AxisFinding,
    CriticalFinding,
    Finding,
    HarmFinding,
    JudgedFinding,
    LittleEffectFinding,
    Reason,
)
from analogtl.analysis.summaries import with_unit
from analogtl.errors import counted
from analogtl.study.choice import CHOSEN
from analogtl.vocabulary import (
    AXES,
    Algorithm,
    Arm,
    CriticalPointVerdict,
    Metric,
    arm_label,
    label_of,
)

MAX_EDGES: Final = 4  # that a sentence lists


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
    if point.unfit:
        return f"{with_unit(curve.axis, point.reference)} is no reference"
    parts = []
    if point.worst_fine:
        parts.append(f"no harm shown {_reach(curve, point.worst_fine.level)}")
    if point.first_worse is not None:
        on = "down" if curve.direction == "down" else "on"
        parts.append(f"worse from {with_unit(curve.axis, point.first_worse)} {on}")
    elif failing := [gap.level for gap in point.gaps if gap.left_out and gap.n_failed]:
        parts.append(f"trials fail at {_levels(curve, failing)}")
    return "; ".join(parts)


def sentences(judged: JudgedCurve) -> str:
    """All that a sweep shows about the critical point of its axis, with the numbers."""
    curve, point = judged.curve, judged.point
    if point.verdict is CriticalPointVerdict.NO_DATA:
        have = f"{counted(len(_finished(judged)), _noun(curve.class_sets))} finished at "
        have += with_unit(curve.axis, point.reference)
        have += ", none of them at a further level" if len(_finished(judged)) >= MIN_BLOCKS else ""
        needed = f"at least {MIN_BLOCKS} are needed, there and at a further level"
        return " ".join([f"Not enough data: {have}; {needed}.", *_gaps(curve, point)])
    if point.unfit:
        consequence = "So no level is called harmful, and none harmless."
        reasons = [unfit_text(judged), consequence, *_shared(judged), _blocks_of(judged)]
        return " ".join([f"{_capital(headline(judged))}.", *reasons, *_gaps(curve, point)])
    parts, hinge = [*_verdict(judged)], point.hinge
    if hinge.elbow is not None:
        at = with_unit(curve.axis, float(f"{hinge.elbow:.3g}"))
        parts.append(
            f"The error starts to rise at about {at} ({100 * (1 - point.alpha):.0f} % interval "
            f"{hinge.low:.3g} to {hinge.high:.3g}): a fit of a flat, then rising line, "
            f"{p_text(hinge.p_value)}."
        )
    where = "at no level" if point.certified is None else _reach(curve, point.certified)
    parts.append(f"That it costs less than {_margin(judged)} is shown {where}.")
    parts += [*_shared(judged), _blocks_of(judged), *_gaps(curve, point)]
    return " ".join(parts)


def _finished(judged: JudgedCurve) -> set[str]:
    """The blocks that have finished at the reference."""
    curve = judged.curve
    trials = zip(curve.blocks, curve.levels, curve.errors, strict=True)
    return {
        block
        for block, level, error in trials
        if level == curve.reference and not math.isnan(error)
    }


def failed_reference(judged: JudgedCurve) -> str:
    """That every trial at the reference level failed; "" if one did not."""
    curve = judged.curve
    if curve.reference not in curve.levels or _finished(judged):
        return ""
    level = with_unit(curve.axis, curve.reference)
    return f"every trial at the reference, {level}, failed: there is nothing to compare with"


def unfit_text(judged: JudgedCurve) -> str:
    """Why nothing can be held to the reference; "" if it can."""
    return " ".join(_unfit(judged.curve, judged.point)) if judged.point.unfit else ""


def _unfit(curve: Curve, point: CriticalPoint) -> Iterator[str]:
    check, reference = point.check, with_unit(curve.axis, point.reference)
    if not check.p_lead < point.alpha:
        yield (
            f"{reference} is not shown to beat {check.control}: "
            f"{curve.error.difference(check.lead, '+')}, {p_text(check.p_lead)}."
        )
    if check.beaten(point.alpha, point.margin) and check.rival is not None:
        yield (
            f"{reference} is {curve.error.difference(check.excess)} worse than "
            f"{with_unit(curve.axis, check.rival)}, {p_text(check.p_excess)} (corrected for "
            f"{counted(len(point.levels), 'level')})."
        )


def _margin(judged: JudgedCurve) -> str:
    return judged.curve.error.least(judged.point.margin)


def _shared(judged: JudgedCurve) -> Iterator[str]:
    if judged.shared_with:
        yield f"Its trials at the reference are also those of {'; '.join(judged.shared_with)}."


def _verdict(judged: JudgedCurve) -> Iterator[str]:
    curve, point = judged.curve, judged.point
    first = next((test for test in point.levels if test.shown_worse), None)
    told = first or point.levels[-1]
    rise = curve.error.number(told.excess, "+")
    gap = f"{curve.error.gap} of {curve.error.label}" if curve.error.is_percent else curve.error.gap
    numbers = f"{f'{rise} {gap}'.rstrip()}, {p_text(told.p_worse)}"
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
        f"A rise of {curve.error.difference(point.detectable)} there would have been found with "
        f"a probability of {100 * POWER:.0f} %."
    )
    if alone := [test.level for test in point.levels if test.p_worse < point.alpha]:
        yield f"Taken alone, {_levels(curve, alone)} is worse."


def _blocks_of(judged: JudgedCurve) -> str:
    curve, point = judged.curve, judged.point
    fewest = min((test.n_blocks for test in point.levels), default=point.n_blocks)
    parts = [blocks_text(point.n_blocks, curve.class_sets)]
    if fewest < point.n_blocks:
        shared = f"compared are the {_noun(curve.class_sets)}s in common"
        parts.append(f"{fewest} of them at every level ({shared})")
    if point.n_alone:
        reference = with_unit(curve.axis, point.reference)
        parts.append(f"{point.n_blocks + point.n_alone} at {reference}")
    if point.n_missing:
        parts.append(f"{counted(point.n_missing, 'trial')} missing")
    return f"{', '.join(parts)}; judged by the {curve.judged_by}."


def _gaps(curve: Curve, point: CriticalPoint) -> Iterator[str]:
    reference, noun = with_unit(curve.axis, point.reference), _noun(curve.class_sets)
    if point.n_unpaired:
        yield f"Left out: {counted(point.n_unpaired, noun)} not finished at {reference}."
    for gap in point.gaps:
        level = with_unit(curve.axis, gap.level)
        failed = f", {counted(gap.n_failed, 'trial')} failed" if gap.n_failed else ""
        if gap.left_out:
            yield f"Left out: {level} ({counted(gap.n_blocks, noun)} finished{failed})."
        else:
            yield f"At {level}{failed}: what they would have shown is not known."


def tuning_limits(choices: pd.DataFrame) -> Iterator[str]:
    """What a reader must know of the choices: which lie at the edge, which are no clear ones."""
    if choices.empty:
        return
    of = f"of {counted(len(choices), 'choice')}"
    edges = choices["edge"].astype(str)
    if at_edge := int((edges != "").sum()):
        values = dict.fromkeys(one for edge in edges if edge for one in edge.split("; "))
        listed = "; ".join([*values][:MAX_EDGES]) + ("; ..." if len(values) > MAX_EDGES else "")
        yield (
            f"Limit: {at_edge} {of} lie at the edge of what was tried ({listed}): beyond it may be "
            "better."
        )
    unclear = int((choices["lead"] < choices["resolution"]).sum())
    if unclear:
        yield (
            f"Limit: {unclear} {of} were made by a lead that the validation images do not resolve: "
            "the next best candidate may be as good."
        )
    unknown = choices.loc[choices["how"] != CHOSEN, "how"].unique()
    for how in unknown:
        yield f"Limit: {int((choices['how'] == how).sum())} {of} were not made by the error: {how}."


def not_tuned(axes: Sequence[str], *, rates: bool = False) -> str:
    """That levels which may need settings of their own were compared without."""
    what = " and ".join(map(label_of, axes))
    but = "no setting but the learning rate was" if rates else "no setting was"
    return f"Not tuned: {but} chosen for each {what}; another may suit it better."


def _noun(class_sets: int) -> str:
    """What a block is called: a seed, unless there are several tasks."""
    return "block" if class_sets > 1 else "seed"


def blocks_text(n_blocks: int, class_sets: int = 0) -> str:
    """``5 seeds``, or ``10 blocks of 2 class sets``; fewer than advisable are said to be few."""
    of = f" of {class_sets} class sets" if class_sets > 1 else ""
    few = n_blocks < RECOMMENDED_BLOCKS
    advice = f" ({RECOMMENDED_BLOCKS} or more are recommended)" if few else ""
    return f"{counted(n_blocks, _noun(class_sets))}{of}{advice}"


# ------------------------------------------------------------------------------------- findings


def statement(finding: Finding) -> str:
    """A finding in a sentence: ``Weight transfer noise hurts the 2-class task beyond 15 %.``"""
    if isinstance(finding, ArmsFinding):
        if finding.algorithm and finding.above < 0:
            return (
                f"{finding.algorithm.label}: {finding.worse.label} is within "
                f"{counted(round(finding.below), 'point')} of {finding.better.label}."
            )
        control = {ARRAYS_LEARN: "The arrays learn: ", GRADIENTS_TEACH: "The gradient teaches: "}
        by = f" by {published(finding)}" if finding.below < math.inf else ""
        return _capital(
            f"{control.get(finding, '')}{finding.better.label} beats {finding.worse.label}{by}."
        )
    assert isinstance(finding, AxisFinding)
    task = f" the {finding.n_classes[0]}-class task"
    if len(finding.n_classes) > 1:
        task = {None: "", True: " hybrid networks", False: " all-analog networks"}[finding.hybrid]
    if isinstance(finding, CriticalFinding):
        does = f"hurts{task} beyond {published(finding)}"
    elif isinstance(finding, HarmFinding):
        does = f"of {with_unit(finding.axis, finding.level)} hurts{task}"
    else:
        up_to = finding.up_to if isinstance(finding, LittleEffectFinding) else None
        up_to_text = f" up to {with_unit(finding.axis, up_to)}" if up_to else ""
        does = f"has little effect{task and ' on'}{task}{up_to_text}"
    return _capital(f"{AXES[finding.axis].meaning} {does}.")


def published(finding: Finding) -> str:
    """The published number or effect."""
    if finding in CONTROLS:
        return "not published: a control"
    if isinstance(finding, ArmsFinding):
        if finding.above < 0:
            return f"less than {counted(round(finding.below), 'point')}"
        bounded = finding.below < math.inf
        return f"about {finding.below / 2:g} points" if bounded else "lower test error"
    if isinstance(finding, HarmFinding):
        return "sensitive"
    if isinstance(finding, CriticalFinding):
        return with_unit(finding.axis, finding.level)
    return "little effect"


def needs(finding: Finding) -> str:
    """The runs that a finding takes: ``a sweep of wtn with the arm analog-tl``."""
    if isinstance(finding, ArmsFinding):
        rival = finding.algorithm not in (None, Algorithm.C_TTV2)
        by = f", trained by {finding.algorithm}" if rival else ""
        return f"the arms {finding.better} and {finding.worse}{by}"
    if isinstance(finding, LittleEffectFinding):
        reach = with_unit(finding.axis, finding.reach)
        kept = " and convert.digital_layers" if finding.hybrid else ""
        return f"a sweep of {finding.axis} up to {reach} with the arm {Arm.ANALOG_TL}{kept}"
    assert isinstance(finding, AxisFinding)
    return f"a sweep of {finding.axis} with the arm {Arm.ANALOG_TL}"


_WHY: Final = {
    Reason.NO_RUN: "No run has {needs}{task}.",
    Reason.DIFFERENCE: "{p_holds}{corrected}",
    Reason.NO_DIFFERENCE: "{outside}, {p_fails}{corrected}",
    Reason.NOTHING_CHANGED: "but no cell changed",
    Reason.BEND_INSIDE: "The rise starts within {band}, its interval included.",
    Reason.TESTS_CONFINE: "The level tests place the start of the harm within {band}.",
    Reason.WORSE_BEFORE: "Worse at {worse} already; published is {band}.",
    Reason.HARMLESS_BEYOND: "No harm up to {certified} for sure; published is {band}.",
    Reason.BEND_OUTSIDE: "The rise starts outside {band}.",
    Reason.CONTRADICTION: "The level tests and the fitted line contradict each other.",
    Reason.SWEEP_ENDS: "The sweep ends at {top}; no level above was tested.",
    Reason.HARMFUL: "Worse from {worse} on.",
    Reason.HARMLESS: "Every level up to {certified} costs less than {margin}.",
    Reason.COSTLY: "Costs more than {margin} at {levels}.",
    Reason.TRIALS_MISSING: "Not all trials finished at {levels}.",
    Reason.RANGE_SHORT: "No harm up to {certified} for sure, but the range goes further.",
}


def says(judged: JudgedFinding) -> str:
    """What the runs show about a finding, with the numbers."""
    if judged.curve is not None:
        return " ".join(filter(None, (_axis_why(judged, judged.curve), sentences(judged.curve))))
    if judged.reason is Reason.NO_RUN:
        task = "" if judged.n_classes is None else f" on a {judged.n_classes}-class task"
        return _WHY[judged.reason].format(needs=needs(judged.finding), task=task)
    finding = judged.finding
    assert isinstance(finding, ArmsFinding)
    estimate = judged.estimate
    if judged.errors is None or estimate.value is None:
        have = f"{counted(judged.n_blocks, _noun(judged.class_sets))} finished in both arms"
        return f"{have}; at least {MIN_BLOCKS} are needed."
    if finding.above < 0:
        outside = f"more than {counted(round(finding.below), 'point')} better"
    elif finding.below < math.inf:
        outside = f"outside 0 to {finding.below:g} points"
    else:
        outside = f"less than {counted(round(finding.fails_below), 'point')} better"
        if not judged.metric.is_percent:
            least = finding.fails_below * judged.metric.margin / Metric.ERROR.margin
            outside = f"less than {judged.metric.least(least)} better"
    n = judged.n_compared
    why = _WHY.get(judged.reason, "this leaves it open{corrected}").format(
        p_holds=p_text(judged.p_holds or 0),
        p_fails=p_text(judged.p_fails or 0),
        outside=outside,
        corrected=f", corrected for {n} comparisons" if n > 1 else "",
    )
    better, worse = finding.better.label, finding.worse.label
    than = "better" if estimate.value >= 0 else "worse"
    percent, metric = 100 * (estimate.confidence or 0), judged.metric
    return (
        f"{better} {metric.text(judged.errors[0])}, {worse} {metric.text(judged.errors[1])}: "
        f"{better} is {metric.difference(abs(estimate.value))} {than} ({percent:.0f} % interval "
        f"{metric.number(estimate.low)} to {metric.number(estimate.high)}); {why}; "
        f"{blocks_text(judged.n_blocks, judged.class_sets)}; judged by the {judged.judged_by}."
    )


def _axis_why(judged: JudgedFinding, curve: JudgedCurve) -> str:
    finding, point = judged.finding, curve.point
    if judged.reason in (Reason.FEW_BLOCKS, Reason.UNFIT_REFERENCE):
        return ""
    margin = _margin(curve)
    undecided = f"A rise of {margin} is neither shown nor excluded."
    if judged.blocks_needed:
        undecided += (
            f" To exclude it takes about {judged.blocks_needed} {_noun(judged.class_sets)}s."
        )
    band = ""
    if isinstance(finding, CriticalFinding):
        band = f"{finding.band[0]:g} to {with_unit(finding.axis, finding.band[1])}"
        undecided = "Neither inside nor outside {band} is shown."
    elif isinstance(finding, HarmFinding):
        band = f"harm up to {with_unit(finding.axis, finding.level)}"
        undecided = "Harm up to there is neither shown nor excluded."
    worse, certified, top = (
        "" if level is None else with_unit(curve.curve.axis, level)
        for level in (point.first_worse, point.certified, point.max_level)
    )
    return _WHY.get(judged.reason, undecided).format(
        band=band,
        margin=margin,
        worse=worse,
        certified=certified,
        top=top,
        levels=_levels(curve.curve, judged.levels),
    )


def movement(judged: JudgedFinding) -> str:
    """How far the arrays of analog-tl moved; "" if unknown."""
    if judged.weights_changed is None:
        return ""
    if judged.weights_changed == 0:
        return "No cell changed: what was learned is in the digital parameters."
    return f"{100 * judged.weights_changed:.3g} % of the cells changed."


def _reach(curve: Curve, level: float) -> str:
    return f"{'down' if curve.direction == 'down' else 'up'} to {with_unit(curve.axis, level)}"


def _levels(curve: Curve, levels: Iterable[float]) -> str:
    return ", ".join(with_unit(curve.axis, level) for level in levels)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
