"""The findings against simulated runs: never "holds" without the seeds for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from trial_rows import trial_row

from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.blocks import holm
from analogtl.analysis.critical_point import MARGIN
from analogtl.analysis.findings import (
    FINDINGS,
    JudgedFinding,
    Reason,
    findings_frame,
    judge_findings,
)
from analogtl.analysis.read import RunData
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.vocabulary import AXES, Arm, FindingVerdict

HOLDS, FAILS, OPEN = FindingVerdict.HOLDS, FindingVerdict.FAILS, FindingVerdict.OPEN
ARMS = {
    "digital-tl": 15.0,
    "analog-tl": 17.0,
    "digital-scratch": 30.0,
    "analog-scratch": 34.0,
    "frozen-array": 25.0,
}
FALSE_ALARM = 1e-4
LEVELS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0)


def fig2(
    n_blocks: int = 5,
    errors: Mapping[str, float] = ARMS,
    sd: float = 1.5,
    seed: int = 0,
    **changes: object,
) -> pd.DataFrame:
    """All arms; seeds share an offset, so that differences are less noisy than errors."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 3, n_blocks)
    return pd.DataFrame(
        [
            trial_row(arm, s, mean + offset[s] + rng.normal(0, sd), **{"experiment": "e"} | changes)
            for arm, mean in errors.items()
            for s in range(n_blocks)
        ]
    )


def sweep(
    axis: str,
    excess: np.ndarray,
    n_blocks: int = 5,
    levels: tuple[float, ...] = LEVELS,
    sd: float = 3.0,
    seed: int = 0,
    **changes: object,
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 2, n_blocks)
    return pd.DataFrame(
        [
            trial_row(
                "analog-tl",
                s,
                17.0 + offset[s] + rise + rng.normal(0, sd),
                **{"experiment": axis, axis: level} | changes,
            )
            for level, rise in zip(levels, excess, strict=True)
            for s in range(n_blocks)
        ]
    )


def bend(at: float, slope: float, levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    return np.maximum(0.0, np.array(levels) - at) * slope


def analysed(trials: pd.DataFrame, margin: float = MARGIN, draws: int = 199) -> RunAnalysis:
    name = "" if trials.empty else str(trials["experiment"].iloc[0])
    run = RunData(name, Path(name), trials, select_learning_rate(trials))
    return analyse(run, margin=margin, draws=draws)


def judge(trials: pd.DataFrame, **options: float) -> list[JudgedFinding]:
    runs = [analysed(run, **options) for _, run in trials.groupby("experiment")]  # type: ignore[arg-type]
    return judge_findings(runs, published=True)


def answers(trials: pd.DataFrame, finding: str, **options: float) -> list[JudgedFinding]:
    return [one for one in judge(trials, **options) if one.finding.id == finding]


def answer(
    trials: pd.DataFrame, finding: str, n_classes: int = 2, **options: float
) -> JudgedFinding:
    (one,) = (
        one
        for one in answers(trials, finding, **options)
        if finding == "arrays-learn" or one.n_classes == n_classes
    )
    return one


# --- the findings as data -------------------------------------------------------------------------


def test_published_findings_are_judged_on_request_and_the_control_always() -> None:
    own = analysed(fig2(5, ARMS | {"analog-scratch": 10.0}))
    control, shuffled = judge_findings([own])
    assert (control.finding.id, control.verdict) == ("arrays-learn", HOLDS)
    assert (shuffled.finding.id, shuffled.reason) == ("gradients-teach", Reason.NO_RUN)
    own.run.experiment["report"] = {"findings": True}
    assert FAILS in {one.verdict for one in judge_findings([own])}
    assert len(judge_findings([own], published=False)) == 2


def test_without_runs_every_finding_is_open() -> None:
    found = judge_findings([analysed(fig2().iloc[:0])], published=True)
    assert {one.reason for one in found} == {Reason.NO_RUN}
    assert [one.finding for one in found if one.n_classes != 5] == [
        finding for finding in FINDINGS if finding.n_classes != (5,)
    ]
    assert findings_frame(found)["verdict"].eq(FindingVerdict.OPEN).all()


# --- arms -----------------------------------------------------------------------------------------


def test_arms_in_the_published_order() -> None:
    trials = fig2(5)
    one = answer(trials, "analog-tl-beats-analog-scratch")
    assert one.verdict is HOLDS
    errors = trials.pivot(index="seed", columns="arm", values="error_final")
    difference = errors["analog-scratch"] - errors["analog-tl"]
    half = stats.t.ppf(0.95, 4) * difference.std(ddof=1) / math.sqrt(5)
    mean = difference.mean()
    assert one.estimate[:4] == pytest.approx((mean, mean - half, mean + half, 0.9))
    assert (one.estimate.unit, one.n_blocks, one.n_compared) == ("points", 5, 4)
    assert one.errors == pytest.approx(
        (errors["analog-tl"].mean(), errors["analog-scratch"].mean())
    )
    assert len(one.trials) == 10
    assert "arm=analog-tl,lr=0.01,seed=4" in one.trials
    assert one.weights_changed == pytest.approx(0.06)
    assert answer(trials, "arrays-learn").verdict is HOLDS


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_nothing_holds_on_fewer_than_three_seeds(n_blocks: int) -> None:
    clear = pd.concat(
        [
            fig2(n_blocks, sd=0.01),
            sweep("wtn", bend(15, 5), n_blocks, sd=0.01),
            sweep("spv", np.zeros(5), n_blocks, AXES["spv"].levels, sd=0.01),
        ]
    )
    found = judge(clear)
    assert {one.verdict for one in found} == {OPEN}
    one = answer(clear, "analog-tl-beats-analog-scratch")
    assert (one.reason, one.n_blocks) == (Reason.FEW_BLOCKS, n_blocks)
    assert answer(fig2(3, sd=0.01), "analog-tl-beats-analog-scratch").verdict is HOLDS


def test_an_advantage_that_is_not_there_is_refuted_or_left_open() -> None:
    finding = "analog-tl-beats-analog-scratch"
    equal = ARMS | {"analog-scratch": 17.0}
    found = Counter(answer(fig2(5, equal, seed=s), finding).verdict for s in range(50))
    assert found[HOLDS] <= stats.binom.ppf(1 - FALSE_ALARM, 50, 0.05)
    reversed_order = answer(fig2(5, ARMS | {"analog-scratch": 12.0}), finding)
    assert reversed_order.reason is Reason.NO_DIFFERENCE
    assert (reversed_order.estimate.high or 0) < 0
    # Little noise shows that there is less than a point to gain.
    assert answer(fig2(5, equal, sd=0.1, seed=1), finding).reason is Reason.NO_DIFFERENCE
    noisy = answer(fig2(3, ARMS | {"analog-scratch": 19.0}, sd=6), finding)
    assert noisy.reason is Reason.UNDECIDED


@pytest.mark.parametrize(
    ("gap", "sd", "verdict"),
    [(2.0, 0.4, HOLDS), (8.0, 0.4, FAILS), (-3.0, 0.4, FAILS), (3.9, 0.4, OPEN), (2.0, 4.0, OPEN)],
)
def test_about_two_points_is_between_nought_and_four(
    gap: float, sd: float, verdict: FindingVerdict
) -> None:
    one = answer(fig2(5, ARMS | {"analog-tl": 15 + gap}, sd=sd), "digital-tl-ahead")
    assert one.verdict is verdict
    assert (one.estimate.low or 0) < gap < (one.estimate.high or 0)


def test_arrays_that_did_not_move_have_not_learned() -> None:
    trials = fig2(5, weights_changed=0.0)
    # though the errors differ by 8 points
    assert answer(trials, "arrays-learn").reason is Reason.NOTHING_CHANGED
    other = answer(trials, "analog-tl-beats-analog-scratch")
    assert (other.verdict, other.weights_changed) == (HOLDS, 0)
    assert answer(fig2(2, weights_changed=0.0), "arrays-learn").verdict is OPEN


def test_only_common_seeds_are_compared() -> None:
    trials = fig2(5)
    lost = trials["arm"].eq("analog-scratch") & trials["seed"].lt(3)
    failed = trials.assign(status=trials["status"].mask(lost, "failed"))
    for table in (trials[~lost], failed):
        one = answer(table, "analog-tl-beats-analog-scratch")
        assert (one.n_blocks, one.reason, one.experiment) == (2, Reason.FEW_BLOCKS, "e")
    assert answer(trials[~lost], "analog-tl-beats-digital-scratch").n_blocks == 5


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_tasks_and_experiments_are_judged_apart() -> None:
    trials = pd.concat(
        [
            fig2(5),
            fig2(5, n_classes=5, errors=ARMS | {"analog-scratch": 10.0}),
            fig2(5, experiment="full"),
            fig2(5, experiment="ten", n_classes=10),
        ]
    )
    found = answers(trials, "analog-tl-beats-analog-scratch")
    assert [(one.experiment, one.n_classes, one.verdict) for one in found] == [
        ("e", 2, HOLDS),
        ("full", 2, HOLDS),
        ("e", 5, FAILS),
    ]
    # stated for any task
    assert {one.n_classes for one in answers(trials, "arrays-learn")} == {2, 5, 10}


def test_arms_of_a_sweep_are_compared_at_the_reference() -> None:
    noisy = fig2(5, {"analog-tl": 60.0}, wtn=30.0)
    clean = fig2(5)
    clean["wtn"] = [0.0 if Arm(arm).analog else np.nan for arm in clean["arm"]]
    one = answer(pd.concat([noisy, clean]), "digital-tl-ahead")
    assert one.n_blocks == 5
    assert one.estimate.value == pytest.approx(2, abs=2)
    # without the reference nothing is compared
    one = answer(pd.concat([noisy, clean[~clean["arm"].eq("analog-tl")]]), "digital-tl-ahead")
    assert one.verdict is OPEN


def test_other_settings_are_judged_one_by_one() -> None:
    key = "analog.compound.auto_granularity"
    rows = fig2(5)
    analog = rows["arm"].map(lambda arm: Arm(arm).analog)
    moved = rows[analog].assign(**{key: 160})
    frozen = moved.assign(**{key: 10000, "weights_changed": 0.0})
    trials = pd.concat([rows[~analog], frozen, moved])
    learn = answers(trials, "arrays-learn")
    assert [(one.at, one.verdict) for one in learn] == [
        (f"{key}=160", HOLDS),  # in the order of the levels
        (f"{key}=10000", FAILS),
    ]
    ahead = [one for one in answers(trials, "digital-tl-ahead") if one.n_classes == 2]
    assert len(ahead) == 2  # the digital arm, without a level, belongs to both


def test_whether_the_arrays_learn_is_judged_with_any_algorithm() -> None:
    trials = fig2()
    analog = trials["arm"].map(lambda arm: Arm(arm).analog)
    agad = trials.assign(algorithm=trials["algorithm"].mask(analog, "agad"))
    assert answer(agad, "arrays-learn").verdict is HOLDS
    both = pd.concat([trials, agad[analog]])
    both["analog.algorithm"] = both["algorithm"].where(both["arm"].map(lambda a: Arm(a).analog))
    at = {one.at for one in answers(both, "arrays-learn")}
    assert at == {"analog.algorithm=c-ttv2", "analog.algorithm=agad"}


def test_rival_algorithms_do_not_count() -> None:
    trials = fig2(5)
    analog = trials["arm"].map(lambda arm: Arm(arm).analog)
    agad = trials.assign(algorithm=trials["algorithm"].mask(analog, "agad"))
    assert answer(agad, "analog-tl-beats-analog-scratch").reason is Reason.NO_RUN
    both = pd.concat([trials, agad.assign(error_final=90.0)])
    assert answer(both, "analog-tl-beats-analog-scratch").verdict is HOLDS
    agad_sweep = sweep("wtn", bend(15, 3), algorithm="agad")
    assert answer(agad_sweep, "wtn-critical-2-class").reason is Reason.NO_RUN


@pytest.mark.parametrize(
    ("gap", "sd", "verdict"),
    [(0.0, 0.2, HOLDS), (-3.0, 0.4, HOLDS), (4.0, 0.4, FAILS), (-1.5, 3.0, OPEN)],
)
def test_agad_within_a_point_of_digital(gap: float, sd: float, verdict: FindingVerdict) -> None:
    trials = fig2(8, ARMS | {"analog-tl": 15 + gap}, sd=sd)
    assert answer(trials, "agad-close-to-digital").reason is Reason.NO_RUN  # it is c-TTv2
    analog = trials["arm"].map(lambda arm: Arm(arm).analog)
    agad = trials.assign(algorithm=trials["algorithm"].mask(analog, "agad"))
    assert answer(agad, "agad-close-to-digital").verdict is verdict


@pytest.mark.parametrize(
    ("excess", "hybrid", "sensitive"),
    [(0.0, HOLDS, FAILS), (0.5, FAILS, HOLDS)],
)
def test_digital_layers_decide_which_claim_on_transfer_noise_is_judged(
    excess: float, hybrid: FindingVerdict, sensitive: FindingVerdict
) -> None:
    own = analysed(sweep("wtn", bend(5, excess), 8, sd=0.5))

    def judged() -> dict[str, JudgedFinding]:
        found = judge_findings([own], published=True)
        return {one.finding.id: one for one in found if one.n_classes != 5}

    found = judged()
    assert found["wtn-all-analog-sensitive"].verdict is sensitive
    assert found["wtn-hybrid-unharmed"].reason is Reason.NO_RUN
    own.run.experiment["convert"] = {"digital_layers": ["head"]}
    found = judged()
    assert found["wtn-all-analog-sensitive"].reason is Reason.NO_RUN
    assert found["wtn-critical-2-class"].reason is Reason.NO_RUN
    assert found["wtn-hybrid-unharmed"].verdict is hybrid


# --- critical levels and little effect ------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "at", "n_classes", "verdict"),
    [
        ("wtn-critical-2-class", 15, 2, HOLDS),
        ("wtn-critical-2-class", 2, 2, FAILS),
        ("wtn-critical-5-class", 10, 5, HOLDS),
        ("wtn-critical-5-class", 0, 5, FAILS),
        ("spv-critical-5-class", 10, 5, HOLDS),
    ],
)
def test_critical_levels(finding: str, at: float, n_classes: int, verdict: FindingVerdict) -> None:
    trials = sweep(finding.split("-")[0], bend(at, 2.5), n_classes=n_classes)
    (row,) = findings_frame([answer(trials, finding, n_classes)]).to_dict("records")
    assert row["verdict"] == verdict
    assert row["low"] <= row["estimate"] <= row["high"]
    assert (row["unit"], row["n_blocks"], row["n_trials"]) == ("%", 5, 35)


def test_a_flat_sweep_refutes_a_critical_level_only_if_the_noise_allows() -> None:
    quiet = answer(sweep("wtn", np.zeros(7), sd=0.5), "wtn-critical-2-class")
    assert quiet.reason is Reason.HARMLESS_BEYOND
    noisy = answer(sweep("wtn", np.zeros(7), n_blocks=3, sd=4), "wtn-critical-2-class")
    assert noisy.reason is Reason.UNDECIDED


def test_a_sweep_that_ends_too_early_is_open() -> None:
    short = sweep("wtn", np.zeros(4), levels=LEVELS[:4])
    assert answer(short, "wtn-critical-2-class").reason is Reason.SWEEP_ENDS


@pytest.mark.parametrize("n_blocks", [3, 5])
def test_critical_level_verdicts_are_seldom_wrong(n_blocks: int) -> None:
    n = 24

    def verdicts(at: float) -> Counter[FindingVerdict]:
        return Counter(
            answer(sweep("wtn", bend(at, 1.5), n_blocks, seed=s), "wtn-critical-2-class").verdict
            for s in range(n)
        )

    few = stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    right, low, high = verdicts(15), verdicts(5), verdicts(99)
    assert right[FAILS] <= few
    assert right[HOLDS] >= {3: 0.5, 5: 0.7}[n_blocks] * n
    assert low[HOLDS] <= few
    assert low[FAILS] > 0.8 * n
    assert high[HOLDS] <= few


SPV, STD = AXES["spv"].levels, AXES["dw_min_std"].levels


def little(excess: np.ndarray, n_blocks: int = 5, margin: float = MARGIN, **noise: float):
    trials = sweep("spv", excess, n_blocks, SPV, **noise)  # type: ignore[arg-type]
    return answer(trials, "spv-little-effect-2-class", margin=margin, draws=0)


def test_little_effect_needs_a_margin_not_a_large_p_value() -> None:
    quiet = little(np.zeros(5), sd=0.8)
    assert quiet.reason is Reason.HARMLESS
    assert (quiet.estimate.high or 99) < MARGIN
    # Nothing is significant here either, and yet little is known.
    noisy = little(np.zeros(5), 3, sd=3.0)
    assert noisy.reason is Reason.UNDECIDED
    assert noisy.blocks_needed is not None
    assert noisy.curve is not None
    assert noisy.curve.point.critical is None
    steep = little(bend(0, 1, SPV), sd=1)
    assert (steep.reason, steep.levels[-1]) == (Reason.COSTLY, 20)
    assert steep.estimate.value == pytest.approx(20, abs=3)
    assert little(np.zeros(5), 3, sd=3.0, margin=15.0).verdict is HOLDS


def test_a_rise_counts_by_the_margin_and_not_by_being_real() -> None:
    n = 30

    def found(top: float) -> list[JudgedFinding]:
        rise = np.array([0.0, 0.0, 0.0, 0.5, 1.0]) * top
        return [little(rise, sd=0.3, seed=seed) for seed in range(n)]

    small = found(MARGIN / 2)
    assert sum((one.estimate.low or 0) > 0 for one in small) > 0.9 * n  # real, and yet little
    assert sum(one.verdict is HOLDS for one in small) > 0.9 * n
    few = stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    at_the_margin = Counter(one.verdict for one in found(MARGIN))
    assert at_the_margin[HOLDS] <= few
    assert at_the_margin[FAILS] <= few
    assert sum(one.verdict is FAILS for one in found(2 * MARGIN)) > 0.9 * n


def test_levels_at_which_trials_failed_are_not_taken_for_harmless() -> None:
    trials = sweep("dw_min_std", np.zeros(5), 5, STD, sd=0.3)
    for seeds in (1, 3):  # the level is kept, or left out
        failed = trials["dw_min_std"].eq(0.5) & trials["seed"].lt(seeds)
        lost = trials.assign(
            status=trials["status"].mask(failed, "failed"),
            error_final=trials["error_final"].mask(failed),
        )
        one = answer(lost, "dw-min-std-little-effect")
        assert (one.reason, one.levels) == (Reason.TRIALS_MISSING, (0.5,))


def test_levels_past_the_range_of_a_finding_do_not_decide_it() -> None:
    levels = (*STD, 5.0)
    steep = np.where(np.array(levels) > 1, 20.0, 0.0)
    one = answer(sweep("dw_min_std", steep, 5, levels, sd=0.3), "dw-min-std-little-effect")
    assert one.verdict is HOLDS
    assert (one.estimate.high or 99) < MARGIN


def test_little_effect_must_reach_the_end_of_the_range() -> None:
    for n_classes in (2, 5):
        full = sweep("dw_min_std", np.zeros(5), 5, STD, sd=0.5, n_classes=n_classes)
        one = answer(full, "dw-min-std-little-effect", n_classes)
        assert one.reason is Reason.HARMLESS
        short = answer(full[full["dw_min_std"] < 0.6], "dw-min-std-little-effect", n_classes)
        assert short.reason is Reason.RANGE_SHORT


@pytest.mark.slow
def test_the_number_of_seeds_that_is_suggested_is_enough() -> None:
    needed = 48  # by the formula at the true standard deviation of 3 points
    assert little(np.zeros(5), sd=3.0, seed=1).blocks_needed == pytest.approx(needed, rel=0.6)
    n = 200
    found = [little(np.zeros(5), needed, sd=3.0, seed=s).verdict for s in range(n)]
    assert found.count(HOLDS) / n == pytest.approx(0.8, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(("n_blocks", "right", "flat"), [(3, 0.75, 0.02), (5, 0.92, 0.06)])
def test_rates_stated_in_the_module(n_blocks: int, right: float, flat: float) -> None:
    n = 300
    few = stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    found = Counter(
        answer(sweep("wtn", bend(15, 1.5), n_blocks, seed=s), "wtn-critical-2-class").verdict
        for s in range(n)
    )
    assert found[FAILS] <= few
    assert found[HOLDS] / n == pytest.approx(right, abs=0.10)  # 4 standard errors
    none = Counter(little(np.zeros(5), n_blocks, sd=3.0, seed=s).verdict for s in range(n))
    assert none[FAILS] <= few
    assert none[HOLDS] / n == pytest.approx(flat, abs=0.05)


def test_partial_sweeps_are_judged_as_far_as_they_go() -> None:
    trials = sweep("wtn", bend(15, 2.5))
    partial = trials[trials["seed"].lt(2) | (trials["seed"].eq(2) & trials["wtn"].lt(12))]
    one = answer(partial, "wtn-critical-2-class")
    assert one.verdict is OPEN
    assert one.curve is not None
    assert [gap.level for gap in one.curve.point.gaps if gap.left_out] == [15, 20, 30]
