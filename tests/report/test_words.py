"""What the statistics found, in words: one snapshot of the family of sentences, in words.txt.

To write it again: PYTHONPATH=tests/support python tests/report/test_words.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from trial_rows import trial_row

from analogtl.analysis.critical_point import JudgedCurve, judge_curves
from analogtl.analysis.curves import curves
from analogtl.analysis.findings import FINDINGS, Estimate, JudgedFinding, Reason
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.report import words

SNAPSHOT = Path(__file__).with_name("words.txt")
LEVELS = (0, 5, 10, 15, 20)
NOISE = np.array([[0, 1, -1, 0, 1], [1, -1, 0, 1, -1], [-1, 0, 1, -1, 0]]) / 4


def judged(
    rises: tuple[float, ...],
    axis: str = "wtn",
    levels: tuple[float, ...] = LEVELS,
    n_blocks: int = 3,
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
        for seed in range(n_blocks)
    ]
    chosen = select_learning_rate(pd.DataFrame(rows))
    (one,) = judge_curves(curves(chosen), draws=99)
    return one


CURVES = [
    judged((0, 0, 0, 5, 10)),
    judged((0, 9, 9, 9, 9), failed=(20,)),
    judged((0, 0, 0, 0, 0), "io_bits", (9, 8, 7, 6, 5), failed=(5,)),
    judged((0, 0, 0, 0, 0), n_blocks=2),
    judged((9, 9, 0, 5, 10)),
    judged((31, 31, 30, 31, 31)),
]


def sentences() -> str:
    """What is said of every curve, and the findings as published."""
    of_curves = [f"# {words.headline(one)}\n{words.sentences(one)}\n" for one in CURVES]
    findings = [f"- {words.statement(one)} ({words.published(one)})" for one in FINDINGS]
    return "\n".join([*of_curves, *findings]) + "\n"


def test_critical_points_and_findings_in_words() -> None:
    assert sentences() == SNAPSHOT.read_text()


def test_every_reason_is_told_with_its_numbers() -> None:
    curve = judged((0, 0, 0, 5, 10))
    noise, little, ahead = FINDINGS[3], FINDINGS[5], FINDINGS[2]
    numbers = {"errors": (15, 18), "estimate": Estimate(3, 1, 5, 0.9), "p_holds": 0, "p_fails": 1}
    arms = [Reason.UNDECIDED, Reason.DIFFERENCE, Reason.NO_DIFFERENCE, Reason.NOTHING_CHANGED]
    told = [
        JudgedFinding(ahead, Reason.NO_RUN, n_classes=2),
        JudgedFinding(ahead, Reason.FEW_BLOCKS),
    ]
    told += [JudgedFinding(ahead, reason, n_compared=4, **numbers) for reason in arms]
    for finding in (noise, little):
        told += [
            JudgedFinding(finding, reason, curve=curve, levels=(10.0,), blocks_needed=48)
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


if __name__ == "__main__":
    SNAPSHOT.write_text(sentences())
