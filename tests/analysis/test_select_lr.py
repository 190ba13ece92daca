"""The learning rate of each level: chosen on validation data, and never through a lost seed."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from trial_rows import trial_row

from analogtl.analysis.select_lr import select_learning_rate
from analogtl.study import choice as selection

VALIDATION = {0.005: 20.0, 0.01: 15.0, 0.02: 18.0}


def trial(lr: float, seed: int, **changes: object) -> dict[str, object]:
    validation = VALIDATION.get(lr, 50.0)
    # The test error says the opposite of the validation error: using it would show.
    row = trial_row("analog-tl", seed, 100.0 - validation, lr=lr, wtn=5.0)
    return row | {"error_validation": validation + seed} | changes


def table(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def grid(seeds: int = 3, **changes: object) -> list[dict[str, object]]:
    return [trial(lr, seed, **changes) for lr in VALIDATION for seed in range(seeds)]


def only_choice(trials: pd.DataFrame) -> pd.Series:
    choices = select_learning_rate(trials).choices
    assert len(choices) == 1
    return choices.iloc[0]


def test_lowest_mean_validation_error_is_kept_whatever_the_test_error() -> None:
    trials = table(*grid())
    kept = select_learning_rate(trials)
    assert set(kept.rows["lr"]) == {0.01}
    assert list(kept.rows["seed"]) == [0, 1, 2]
    pd.testing.assert_frame_equal(kept.rows, trials[trials["lr"] == 0.01])
    choice = kept.choices.iloc[0]
    assert (choice["lr"], choice["lrs"], choice["n_lrs"]) == (0.01, "0.005 0.01 0.02", 3)
    assert (choice["how"], choice["n_blocks_compared"]) == (selection.CHOSEN, 3)
    assert choice["error_validation"] == pytest.approx(16.0)

    shuffled = trials.copy()
    shuffled[["error_final", "error_best"]] = 0.0
    assert set(select_learning_rate(shuffled).rows["lr"]) == {0.01}


def test_every_arm_level_task_and_experiment_chooses_for_itself() -> None:
    other = [
        trial(0.005, s, error_validation=1.0, **where) | {"trial": f"{i}-{s}"}
        for i, where in enumerate(
            [{"wtn": 10.0}, {"arm": "digital-tl", "wtn": None}, {"n_classes": 5}]
        )
        for s in range(2)
    ]
    kept = select_learning_rate(table(*grid(), *other, *grid(experiment="f")))
    assert len(kept.choices) == 5
    by = kept.choices.set_index(["experiment", "arm", "n_classes", "wtn"])["lr"].to_dict()
    assert by[("e", "analog-tl", 2, 5.0)] == 0.01
    assert by[("f", "analog-tl", 2, 5.0)] == 0.01
    assert by[("e", "analog-tl", 2, 10.0)] == 0.005
    digital = kept.choices[kept.choices["arm"] == "digital-tl"]
    assert math.isnan(digital["wtn"].iloc[0])
    assert digital["how"].iloc[0] == selection.ONLY_ONE


def test_a_learning_rate_that_loses_a_seed_does_not_win_through_the_others() -> None:
    # 0.02 is far ahead on the seeds it survives.
    rows = [
        trial(lr, s, error_validation=1.0 if lr == 0.02 else VALIDATION[lr], n_classes=2.0)
        for lr in VALIDATION
        for s in range(3)
    ]
    rows[-1] |= {"status": "failed", "error_validation": None}
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["how"], choice["n_failed"]) == (0.01, selection.CHOSEN, 0)
    # The failed trial counts for its level although it cannot tell the classes.
    rows[-1]["n_classes"] = None
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["n_classes"]) == (0.01, 2)
    lost = [row | {"status": "failed", "n_classes": None} for row in grid(wtn=10.0)]
    assert list(select_learning_rate(table(*rows, *lost)).choices["n_classes"]) == [2, 2]


def test_a_seed_that_fails_everywhere_rules_nothing_out() -> None:
    rows = [r | ({"status": "failed"} if r["seed"] == 1 else {}) for r in grid()]
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["n_failed"], choice["n_blocks_compared"]) == (0.01, 1, 2)


def test_an_easy_seed_does_not_make_a_learning_rate_win() -> None:
    # Seed 2 is hard (40 % more); 0.005 has not run it yet, and so has the lowest raw mean.
    rows = [r | {"error_validation": r["error_validation"] + 40 * (r["seed"] == 2)} for r in grid()]
    rows = [r for r in rows if not (r["lr"] == 0.005 and r["seed"] == 2)]
    raw = table(*rows).groupby("lr")["error_validation"].mean()
    assert raw.idxmin() == 0.005
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["n_blocks_compared"]) == (0.01, 2)


def test_a_learning_rate_that_has_barely_begun_waits() -> None:
    rows = [*grid(5), trial(0.04, 0, error_validation=0.0)]
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["n_blocks_compared"], choice["n_lrs"]) == (0.01, 5, 4)
    # nor does it push out one that failed on a seed it has not reached
    lost = [r | ({"status": "failed"} if r["seed"] == 3 else {}) for r in grid(5)]
    assert only_choice(table(*lost, trial(0.04, 0, error_validation=0.0)))["lr"] == 0.01


def test_one_learning_rate_is_flagged_and_kept() -> None:
    kept = select_learning_rate(table(trial(0.01, 0), trial(0.01, 1, status="failed")))
    choice = kept.choices.iloc[0]
    assert (choice["how"], choice["n_done"], choice["n_failed"]) == (selection.ONLY_ONE, 1, 1)
    assert list(kept.rows["seed"]) == [0]


def test_without_validation_errors_nothing_is_chosen_on_the_test_set() -> None:
    choice = only_choice(table(*grid(error_validation=None)))
    assert (choice["lr"], choice["how"]) == (0.01, selection.NO_VALIDATION)  # the middle one
    one_missing = [r | ({"error_validation": None} if r["lr"] == 0.02 else {}) for r in grid()]
    assert only_choice(table(*one_missing))["how"] == selection.NO_VALIDATION


def test_no_seed_in_common() -> None:
    rows = [trial(0.01, 0), trial(0.02, 1), trial(0.02, 2)]
    choice = only_choice(table(*rows))
    assert (choice["lr"], choice["how"]) == (0.02, selection.NOTHING_SHARED)


def test_everything_failed_and_nothing_there() -> None:
    kept = select_learning_rate(table(*grid(status="failed")))
    assert len(kept.rows) == 0
    assert kept.choices["how"].tolist() == [selection.ALL_FAILED]
    assert kept.choices["n_failed"].tolist() == [3]
    empty = select_learning_rate(table(*grid()).iloc[:0])
    assert len(empty.rows) == 0
    assert len(empty.choices) == 0


def test_learning_rates_equal_but_for_rounding_are_one() -> None:
    kept = select_learning_rate(table(trial(0.3, 0), trial(0.1 + 0.2, 1)))
    assert len(kept.rows) == 2
    assert kept.choices["n_lrs"].tolist() == [1]


def test_equal_means_keep_the_smaller_learning_rate() -> None:
    rows = [trial(lr, s, error_validation=10.0) for lr in (0.02, 0.01) for s in range(2)]
    assert only_choice(table(*rows))["lr"] == 0.01


def test_levels_may_be_names_or_dotted_keys() -> None:
    rows = [
        trial(lr, s, **{"analog.algorithm": name})
        for name in ("agad", "c-ttv2")
        for lr in VALIDATION
        for s in range(2)
    ]
    trials = table(*rows)
    assert select_learning_rate(trials).choices["lr"].tolist() == [0.01, 0.01]
