"""Which trials of a run are averaged: those that rest on the same, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trial_rows import trial_row

from analogtl.analysis.one_study import each_once, of_one_study
from analogtl.analysis.read import read_run
from analogtl.study.checked import Problems
from analogtl.study.columns import TRIAL_COLUMNS

SAME: dict[str, Any] = {
    "settings": "s",
    "data": "aaaaaaaa",
    "numerics": 1,
    "aihwkit": "1.1.0",
    "torch": "2.10.0",
    "engine": "fast",
    "cpu": "x",
}


def rows(*seeds: int, arm: str = "analog-tl", **changes: Any) -> list[dict[str, Any]]:
    return [trial_row(arm, seed, 10.0, **{**SAME, "key": f"k{seed}", **changes}) for seed in seeds]


def kept(
    *groups: list[dict[str, Any]], planned: dict[str, str] | None = None
) -> tuple[list[int], list[str]]:
    """The seeds that count, and the notes."""
    table = pd.DataFrame([row for group in groups for row in group])
    found, notes = of_one_study(table, {}, planned or {})
    return found["seed"].tolist(), notes


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("settings", "t"),
        ("data", "bbbbbbbb"),
        ("data", None),
        ("numerics", 2),
        ("aihwkit", "1.2.0"),
        ("torch", "2.9.0"),
        ("timm", "1.0.0"),
        ("engine", "aihwkit"),
    ],
)
def test_what_rests_on_something_else_is_not_averaged(column: str, other: Any) -> None:
    seeds, notes = kept(rows(0, 1, 2), rows(3, **{column: other}))
    assert seeds == [0, 1, 2], "the larger group, where nothing tells"
    assert len(notes) == 1
    assert "1 trial" in notes[0]
    assert column in notes[0]


def test_the_experiment_as_it_stands_comes_before_the_larger_group() -> None:
    current = rows(3, data="bbbbbbbb", key="now")
    seeds, notes = kept(rows(0, 1, 2), current, planned={current[0]["trial"]: "now"})
    assert seeds == [3]
    assert "other data" in notes[0]
    planned = {row["trial"]: "now" for row in rows(0, 1, 2)}
    seeds, notes = kept(rows(0, 1, 2), planned=planned)
    assert seeds == [0, 1, 2], "there is nothing else to show"
    assert "other settings" in notes[0]
    # [analog] is no part of `settings` where the algorithm is an axis: the key tells all the same.
    seeds, notes = kept(rows(0, 1), rows(2, key="now"), planned={**planned, "x": ""})
    assert seeds == [2]


def test_levels_may_differ_in_what_their_axis_sets() -> None:
    algorithms = [
        rows(0, 1, **{"analog.algorithm": name, "engine": engine})
        for name, engine in (("c-ttv2", "fast"), ("sgd", "aihwkit"))
    ]
    seeds, notes = kept(*algorithms)
    assert seeds == [0, 1, 0, 1]
    assert "engine" in notes[0], "what a table mixes is said"
    classes = [rows(0, 1, **{"finetune.classes": number, "data": str(number)}) for number in (2, 5)]
    assert kept(*classes) == ([0, 1, 0, 1], [])
    other = rows(2, **{"finetune.classes": 2, "data": "3"})
    seeds, notes = kept(*classes, other)
    assert seeds == [0, 1, 0, 1]
    assert "data" in notes[0]
    wtn = [rows(0, 1, wtn=0), rows(0, wtn=5, data="bbbbbbbb")]
    assert kept(*wtn)[0] == [0, 1], "this axis sets no images"


def test_a_failed_trial_counts_against_its_level_whatever_its_engine() -> None:
    failed = rows(3, status="failed", engine="", error_final=None)
    assert kept(rows(0, 1), failed) == ([0, 1, 3], [])


@pytest.mark.parametrize("column", ["torch", "cpu", "data", "numerics"])
def test_what_is_mixed_across_arms_is_said(column: str) -> None:
    digital = rows(0, 1, arm="digital-tl", engine="")
    assert kept(rows(0, 1), digital) == ([0, 1, 0, 1], [])
    other = rows(0, 1, arm="digital-tl", engine="", **{column: 7})
    seeds, notes = kept(rows(0, 1), other)
    assert seeds == [0, 1, 0, 1]
    [note] = notes
    assert "7 (" in note
    assert "digital TL" in note


def test_columns_that_an_earlier_version_lacked_are_one_unknown_group() -> None:
    table = pd.DataFrame(rows(0, 1, 2)).drop(columns=["data", "numerics", "cpu", "key", "timm"])
    found, notes = of_one_study(table, {}, {})
    assert (len(found), notes) == (3, [])


def test_a_row_that_stands_twice_counts_once() -> None:
    table = pd.DataFrame([*rows(0, 1), *rows(1, wall_s=3.0), *rows(2), *rows(2, error_final=50.0)])
    problems = Problems()
    found = each_once(table, ["arm", "lr", "seed"], Path("trials.csv"), problems)
    assert found["seed"].tolist() == [0, 1], "of two different ones neither counts"
    assert ["seed=1" in line for line in problems.all()] == [True, False]
    assert "different" in problems.all()[1]


def test_a_run_with_rows_twice_gives_the_same_averages(sweep: Path, tmp_path: Path) -> None:
    whole = read_run(sweep, "a")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("trials.csv", "epochs.csv", "layers.csv"):
        text = (sweep / name).read_text()
        header, *lines = text.splitlines(keepends=True)
        (run / name).write_text(header + "".join(lines) * 2)
    twice = read_run(run, "a")
    for name in ("epochs", "layers"):
        assert len(getattr(twice, name)) == len(getattr(whole, name)) > 0
    assert len(twice.chosen.rows) == len(whole.chosen.rows)
    assert twice.unreadable
    assert not whole.unreadable


def test_the_keys_of_the_plan_reach_the_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    old, new = rows(0, 1, 2), rows(3, data="bbbbbbbb")
    table = pd.DataFrame([*old, *new], columns=list(TRIAL_COLUMNS))
    table.to_csv(run / "trials.csv", index=False)
    (run / "plan.json").write_text(json.dumps({"trials": {new[0]["trial"]: "k3"}}))
    assert read_run(run, "a").chosen.rows["seed"].tolist() == [3]
    (run / "plan.json").write_text(json.dumps({"trials": [new[0]["trial"]]}))
    assert read_run(run, "a").chosen.rows["seed"].tolist() == [0, 1, 2], "a plan without keys"
