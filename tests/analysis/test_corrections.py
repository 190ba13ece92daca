"""Corrections, pairings and summaries are the documented ones: each recomputed on its own."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from trial_rows import trial_row

from analogtl.analysis import summaries
from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.blocks import BlockDesign
from analogtl.analysis.critical_point import critical_point, judge_curves
from analogtl.analysis.curves import curves
from analogtl.analysis.findings import (
    FINDINGS,
    ArmsFinding,
    CriticalFinding,
    JudgedFinding,
    Reason,
    judge_findings,
)
from analogtl.analysis.hinge import fit_hinge
from analogtl.analysis.read import RunData
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.vocabulary import AXES, FindingVerdict

N = 5
# Of zero mean and of the deviation 1, and at right angles: differences of arms made of them have
# exactly the mean and the spread that is asked for.
SHAPES = np.array([[-2, -1, 0, 1, 2], [2, -1, -2, -1, 2], [-1, 2, 0, -2, 1]], float)
SHAPES /= SHAPES.std(1, ddof=1, keepdims=True)
OFFSET = np.array([0.0, 4.0, -3.0, 7.0, 1.0])  # easy and hard seeds


def analysed(rows: list[dict[str, object]]) -> RunAnalysis:
    trials = pd.DataFrame(rows)
    return analyse(RunData("e", Path("e"), trials, select_learning_rate(trials)), draws=0)


def arms(**differences: tuple[float, float]) -> RunAnalysis:
    """Runs in which an arm's error is so much above that of analog-tl: mean and deviation."""
    rows = [trial_row("analog-tl", seed, 20 + OFFSET[seed]) for seed in range(N)]
    for number, (arm, (mean, sd)) in enumerate(differences.items()):
        found = 20 + OFFSET + mean + sd * SHAPES[number]
        rows += [trial_row(arm.replace("_", "-"), seed, found[seed]) for seed in range(N)]
    return analysed(rows)


def judged(analysis: RunAnalysis) -> dict[str, JudgedFinding]:
    found = judge_findings([analysis], published=True)
    return {one.finding.id: one for one in found if one.n_classes in (None, 2)}


def p_above(mean: float, sd: float) -> float:
    return float(stats.t.sf(mean / (sd / math.sqrt(N)), N - 1))


def test_arms_of_one_run_are_corrected_together_by_holm() -> None:
    # Each for itself is below 5 %; three at a time not all of them are.
    scratch, digital, frozen = (p_above(mean, 1) for mean in (2.0, 1.1, 1.0))
    assert max(scratch, digital, frozen) < 0.05
    found = judged(arms(analog_scratch=(2.0, 1), digital_scratch=(1.1, 1), frozen_array=(1.0, 1)))
    ids = ("analog-tl-beats-analog-scratch", "analog-tl-beats-digital-scratch", "arrays-learn")
    expected = (3 * scratch, 2 * digital, max(2 * digital, frozen))
    assert [found[one].p_holds for one in ids] == pytest.approx(expected)
    assert {found[one].n_compared for one in ids} == {3}
    verdicts = [found[one].verdict for one in ids]
    assert verdicts == [FindingVerdict.HOLDS, FindingVerdict.OPEN, FindingVerdict.OPEN]
    # Alone, each would hold.
    assert judged(arms(frozen_array=(1.0, 1)))["arrays-learn"].verdict is FindingVerdict.HOLDS


def test_the_contrary_is_corrected_as_well() -> None:
    # It does not hold where a difference below 1 point is shown.
    means = (-0.9, -0.05, 0.0)
    raw = [p_above(1 - mean, 1) for mean in means]
    assert raw[0] < 0.05 / 3
    assert 0.025 < max(raw) < 0.05
    given = dict(zip(("analog_scratch", "digital_scratch", "frozen_array"), means, strict=True))
    found = judged(arms(**{arm: (mean, 1.0) for arm, mean in given.items()}))
    ids = ("analog-tl-beats-analog-scratch", "analog-tl-beats-digital-scratch", "arrays-learn")
    expected = (3 * raw[0], 2 * raw[1], max(2 * raw[1], raw[2]))
    assert [found[one].p_fails for one in ids] == pytest.approx(expected)
    reasons = [found[one].reason for one in ids]
    assert reasons == [Reason.NO_DIFFERENCE, Reason.UNDECIDED, Reason.UNDECIDED]


@pytest.mark.parametrize(("gap", "sd"), [(2.0, 1.2), (0.8, 1.0), (3.4, 1.0), (5.0, 0.5)])
def test_a_range_is_held_to_on_both_sides_within_seeds(gap: float, sd: float) -> None:
    one = judged(arms(digital_tl=(-gap, sd)))["digital-tl-ahead"]
    assert one.p_holds == pytest.approx(max(p_above(gap, sd), p_above(4 - gap, sd)))
    assert one.p_fails == pytest.approx(min(p_above(-gap, sd), p_above(gap - 4, sd)))
    half = stats.t.ppf(0.95, N - 1) * sd / math.sqrt(N)
    assert one.estimate[:4] == pytest.approx((gap, gap - half, gap + half, 0.9))


def little(top: float, sd: float) -> JudgedFinding:
    """A sweep that is flat but for its last level, which costs so much more."""
    levels = AXES["spv"].levels
    rng = np.random.default_rng(0)
    rows = []
    for place, level in enumerate(levels):
        errors = 20 + OFFSET + sd * rng.permuted(SHAPES[0]) + top * (place == len(levels) - 1)
        rows += [trial_row("analog-tl", s, errors[s], spv=level) for s in range(N)]
    return judged(analysed(rows))["spv-little-effect-2-class"]


def test_a_cost_at_one_of_several_levels_is_corrected_for_their_number() -> None:
    seen = set()
    for top in np.arange(2.5, 5.0, 0.1):
        one = little(top, 1.0)
        assert one.curve is not None
        tests = one.curve.point.levels
        least = min(1 - test.p_harmless for test in tests)
        assert (one.reason is Reason.COSTLY) == (least * len(tests) < 0.05)
        seen.add((least < 0.05, one.reason is Reason.COSTLY))
    assert (True, False) in seen  # below 5 % for itself, and not shown
    assert (True, True) in seen


# -- curves ----------------------------------------------------------------------------------------


def test_each_curve_is_judged_by_the_level_and_on_the_scale_that_are_given() -> None:
    levels = (500.0, 100.0, 50.0, 20.0, 10.0, 5.0)
    rng = np.random.default_rng(1)
    rows = [
        trial_row(
            "analog-tl", seed, 17 + max(0, 1 / level - 1 / 20) * 200 + rng.normal(0, 0.7),
            n_states=level,
        )
        for level in levels
        for seed in range(N)
    ]  # fmt: skip
    chosen = select_learning_rate(pd.DataFrame(rows))
    (curve,) = curves(chosen)
    (found,) = judge_curves([curve], alpha=0.2, margin=3.0, draws=199)
    expected = critical_point(
        curve.levels, curve.blocks, curve.errors, reference=500.0, scale="reciprocal",
        control=curve.control,
        alpha=0.2, margin=3.0, draws=199,
    )  # fmt: skip
    assert found.point == expected
    assert found.point.hinge.elbow is not None
    assert (found.point.alpha, found.point.margin) == (0.2, 3.0)


# -- means and spreads -----------------------------------------------------------------------------


def outcomes() -> pd.DataFrame:
    """Errors whose mean, median and deviations are all different."""
    errors = {0.0: (10.0, 11.0, 18.0), 5.0: (20.0, 22.0, 33.0)}
    rows = [
        trial_row("analog-tl", seed, error, wtn=level)
        for level, found in errors.items()
        for seed, error in enumerate(found)
    ]
    base = (5.0, 6.0, 10.0)
    rows += [trial_row("digital-tl", s, error, wtn=None) for s, error in enumerate(base)]
    return pd.DataFrame(rows)


def test_lines_and_baselines_are_means_and_sample_deviations() -> None:
    table = summaries.levels(outcomes())
    (line,) = summaries.series(table, "wtn", "error_final", [])
    assert line.mean == pytest.approx((13.0, 25.0))
    assert line.sd == pytest.approx([np.std(one, ddof=1) for one in ((10, 11, 18), (20, 22, 33))])
    assert (line.x, line.n) == ((0, 5), (3, 3))
    (base,) = summaries.baselines(table, "wtn", "error_final")
    assert (base.mean, base.n) == (pytest.approx((7.0,)), (3,))
    assert base.sd == pytest.approx([np.std((5, 6, 10), ddof=1)])


def test_one_seed_has_no_deviation_and_what_is_empty_stays_empty() -> None:
    table = summaries.levels(outcomes().query("seed == 0"))
    assert table["error_final_sd"].isna().all()
    assert table["error_final_mean"].tolist() == [5.0, 10.0, 20.0]
    assert table["error_best_mean"].isna().all()


def test_a_part_of_the_network_of_which_a_layer_is_unknown_is_unknown() -> None:
    trials = pd.DataFrame({"trial": ["a"], "arm": ["analog-tl"]})
    rows = [
        {"trial": "a", "layer": layer, "shape": "2x2", "weights_changed": share}
        for layer, share in (("s.0.x", 0.5), ("s.0.y", math.nan), ("head", 0.25))
    ]
    found = summaries.stages(pd.DataFrame(rows), trials).set_index("stage")
    assert math.isnan(found.loc["s.0", "weights_changed_mean"])
    assert found.loc["head", "weights_changed_mean"] == 0.25


# -- the interval of an elbow ----------------------------------------------------------------------


class Recording(np.random.Generator):
    """A generator that keeps what was drawn from, and what was drawn."""

    def choice(self, a: Any, size: Any = None, *rest: Any, **more: Any) -> Any:
        self.source, self.drawn = a, super().choice(a, size, *rest, **more)
        return self.drawn


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_interval_of_an_elbow_is_two_sided_and_of_corrected_residuals(alpha: float) -> None:
    levels, n_blocks = np.array([0.0, 2, 5, 10, 15, 20, 30]), 5
    noise = np.random.default_rng(2).normal(0, 1.0, (n_blocks, len(levels)))
    errors = 17 + OFFSET[:, None] + np.maximum(0, levels - 10) + noise
    sweep = BlockDesign.of(
        np.tile(levels, n_blocks), np.repeat(np.arange(n_blocks), len(levels)), errors.ravel(), 0.0
    )
    rng = Recording(np.random.PCG64(0))
    found = fit_hinge(sweep, "linear", alpha, 299, rng, harm_shown=True)
    assert found.elbow is not None

    # One offset per seed and the hinge; elbow and slope were fitted too.
    shape = np.maximum(0, levels - found.elbow)
    design = np.column_stack(
        [np.kron(np.eye(n_blocks), np.ones((len(levels), 1))), np.tile(shape, n_blocks)]
    )
    best, (squares,), *_ = np.linalg.lstsq(design, errors.ravel(), rcond=None)
    assert found.slope == pytest.approx(best[-1])
    left = errors.size - n_blocks - 2
    assert float((rng.source**2).mean()) == pytest.approx(squares / left)

    # The elbow of each draw, by trying them all.
    gaps = [np.linspace(a, b, 20, endpoint=False) for a, b in itertools.pairwise(levels[:-1])]
    candidates = np.concatenate([*gaps, levels[-2:-1]])
    lines = np.maximum(0, levels[None] - candidates[:, None])
    lines -= lines.mean(1, keepdims=True)
    means = (found.slope * shape + rng.drawn).mean(1)  # over the seeds, which share the line
    products = (means - means.mean(1, keepdims=True)) @ lines.T
    gain = np.maximum(products, 0) ** 2 / (lines**2).sum(1)
    low, high = np.quantile(candidates[gain.argmax(1)], [alpha / 2, 1 - alpha / 2])
    assert high < levels[-2]
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_published_levels_and_ranges_are_those_that_findings_are_held_to() -> None:
    critical = {f.id: (f.level, f.band) for f in FINDINGS if isinstance(f, CriticalFinding)}
    assert critical == {
        "wtn-critical-2-class": (15.0, (10.0, 20.0)),
        "wtn-critical-5-class": (10.0, (5.0, 15.0)),
        "spv-critical-5-class": (10.0, (5.0, 15.0)),
    }
    arms = {f.id: (f.below, f.fails_below) for f in FINDINGS if isinstance(f, ArmsFinding)}
    assert arms == {
        "analog-tl-beats-analog-scratch": (math.inf, 1.0),
        "analog-tl-beats-digital-scratch": (math.inf, 1.0),
        "digital-tl-ahead": (4, 0),
        "agad-close-to-digital": (1, -math.inf),
        "arrays-learn": (math.inf, 1.0),
        "gradients-teach": (math.inf, 1.0),
    }


def test_arms_without_an_algorithm_or_a_known_task_have_curves_too() -> None:
    rows = [
        trial_row("digital-tl", seed, 20.0 + level, n_classes=None, **{"finetune.augment": level})
        for level in (0.0, 1.0)
        for seed in range(3)
    ]
    (curve,) = curves(select_learning_rate(pd.DataFrame(rows)))
    assert (curve.arm, curve.algorithm, curve.n_classes) == ("digital-tl", None, None)
    assert len(curve.errors) == 6


def test_trials_with_and_without_a_second_level_are_two_curves() -> None:
    rows = [
        trial_row("analog-tl", seed, 20.0 + level + (spv or 0.0), wtn=level, spv=spv)
        for spv in (None, 5.0)
        for level in (0.0, 10.0)
        for seed in range(3)
    ]
    found = {curve.at: sorted(set(curve.errors)) for curve in
             curves(select_learning_rate(pd.DataFrame(rows)))}  # fmt: skip
    assert found == {"": [20.0, 30.0], "spv=5": [25.0, 35.0]}


def test_the_step_down_ends_at_the_first_level_that_is_not_worse() -> None:
    levels, n_blocks = np.array([0.0, 5, 10, 20, 30]), 5
    excess = np.array([0.0, 20, 0, 20, 20])  # at 5 a level is worse, and 10 is not
    noise = np.random.default_rng(0).normal(0, 0.5, (n_blocks, len(levels)))
    found = critical_point(
        np.tile(levels, n_blocks), np.repeat(np.arange(n_blocks), len(levels)),
        (20 + OFFSET[:, None] + excess + noise).ravel(), draws=0,
    )  # fmt: skip
    assert [test.p_worse < 0.05 for test in found.levels] == [True, False, True, True]
    assert [test.shown_worse for test in found.levels] == [False, False, True, True]
    assert (found.critical, found.first_worse) == (10, 20)
