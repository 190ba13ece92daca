"""What the statistics found, in words: one snapshot of each family of sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from trial_rows import trial_row

from analogtl.analysis.critical_point import JudgedCurve, judge_curves
from analogtl.analysis.curves import curves
from analogtl.analysis.findings import FINDINGS, Estimate, JudgedFinding, Reason
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.report import words

LEVELS = (0, 5, 10, 15, 20)
NOISE = np.array([[0, 1, -1, 0, 1], [1, -1, 0, 1, -1], [-1, 0, 1, -1, 0]]) / 4


def judged(
    rises: tuple[float, ...],
    axis: str = "wtn",
    levels: tuple[float, ...] = LEVELS,
    n_seeds: int = 3,
    failed: tuple[float, ...] = (),
) -> JudgedCurve:
    """A curve whose error rises by so many points, with fixed noise."""
    rows = [
        trial_row(
            "analog-tl",
            seed,
            20 + rises[place] + NOISE[seed, place],
            **{axis: level, "status": "failed" if level in failed and seed else "done"},
        )
        for place, level in enumerate(levels)
        for seed in range(n_seeds)
    ]
    chosen = select_learning_rate(pd.DataFrame(rows))
    (one,) = judge_curves(curves(chosen), draws=99)
    return one


@pytest.mark.parametrize(
    ("one", "headline", "said"),
    [
        (
            judged((0, 0, 0, 5, 10)),
            "no harm shown up to 10 %; worse from 15 % on",
            "No harm shown up to 10 %; worse from 15 % on: +5.0 points of test error, p < 0.001. "
            "The error starts to rise at about 10 % (95 % interval 9.61 to 10.8): a fit of a "
            "flat, then rising line, p = 0.01. Shown: costs less than 2 points up to 10 %. "
            "3 seeds (5 or more are recommended).",
        ),
        (
            judged((0, 9, 9, 9, 9), failed=(20,)),
            "worse from 5 % on",
            "Worse from 5 % on: +9.0 points of test error, p < 0.001. "
            "No level between 0 % and 5 % was tested. "
            "Shown: costs less than 2 points at no level. 3 seeds (5 or more are recommended). "
            "Left out: 20 % (1 seed finished, 2 trials failed).",
        ),
        (
            judged((0, 0, 0, 0, 0), "io_bits", (9, 8, 7, 6, 5), failed=(5,)),
            "no harm shown down to 6 bits; trials fail at 5 bits",
            "No harm shown down to 6 bits; trials fail at 5 bits: +0.0 points of test error, "
            "p = 0.5 at 6 bits, compared with 9 bits. A rise of 0.6 points there would have been "
            "found with a probability of 80 %. Shown: costs less than 2 points down to 6 bits. "
            "3 seeds (5 or more are recommended). "
            "Left out: 5 bits (1 seed finished, 2 trials failed).",
        ),
        (
            judged((0, 0, 0, 0, 0), n_seeds=2),
            "not enough data",
            "Not enough data: 2 seeds finished at 0 %; at least 3 are needed, there and at a "
            "further level.",
        ),
    ],
)
def test_a_critical_point_in_words(one: JudgedCurve, headline: str, said: str) -> None:
    assert words.headline(one) == headline
    assert words.sentences(one) == said


def test_findings_state_themselves() -> None:
    assert [f"{words.statement(finding)} ({words.published(finding)})" for finding in FINDINGS] == [
        "Analog TL beats analog from scratch. (lower test error)",
        "Analog TL beats digital from scratch. (lower test error)",
        "Digital TL beats analog TL by about 2 points. (about 2 points)",
        "Weight transfer noise hurts the 2-class task beyond 15 %. (15 %)",
        "Weight transfer noise hurts the 5-class task beyond 10 %. (10 %)",
        "Symmetry point variability has little effect on the 2-class task. (little effect)",
        "Symmetry point variability hurts the 5-class task beyond 10 %. (10 %)",
        "Pulse update noise has little effect. (little effect)",
        "Mean pulse device-to-device variability has little effect. (little effect)",
        "The arrays learn: analog TL beats frozen arrays (control). (not published: a control)",
    ]


def test_every_reason_is_told_with_its_numbers() -> None:
    curve = judged((0, 0, 0, 5, 10))
    noise, little, ahead = FINDINGS[3], FINDINGS[5], FINDINGS[2]
    numbers = {"errors": (15, 18), "estimate": Estimate(3, 1, 5, 0.9), "p_holds": 0, "p_fails": 1}
    arms = [Reason.UNDECIDED, Reason.DIFFERENCE, Reason.NO_DIFFERENCE, Reason.NOTHING_CHANGED]
    told = [
        JudgedFinding(ahead, Reason.NO_RUN, n_classes=2),
        JudgedFinding(ahead, Reason.FEW_SEEDS),
    ]
    told += [JudgedFinding(ahead, reason, n_compared=4, **numbers) for reason in arms]
    for finding in (noise, little):
        told += [
            JudgedFinding(finding, reason, curve=curve, levels=(10.0,), seeds_needed=48)
            for reason in Reason
            if reason not in (Reason.NO_RUN, *arms[1:])
        ]
    for one in told:
        said = words.says(one)
        assert said.endswith(".")
        assert "{" not in said
        assert "None" not in said


def test_how_far_the_arrays_moved() -> None:
    finding = JudgedFinding(FINDINGS[0], Reason.UNDECIDED)
    assert words.movement(finding) == ""
    assert words.movement(JudgedFinding(**vars(finding) | {"weights_changed": 0.0})).startswith(
        "No"
    )
    assert "6 %" in words.movement(JudgedFinding(**vars(finding) | {"weights_changed": 0.06}))
