"""Summaries: the numbers are recomputed here, independently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_data import LAYERS

from analogtl.analysis import summaries
from analogtl.study.tables import read_table


def test_levels_are_mean_and_sample_deviation_over_seeds(trials: pd.DataFrame) -> None:
    found = summaries.levels(trials).set_index(["arm", "wtn"])
    for level in (0, 5, 10):
        errors = [
            float(row.error_final)
            for row in trials.itertuples()
            if row.arm == "analog-tl" and row.wtn == level
        ]
        row = found.loc[("analog-tl", level)]
        assert row["n"] == len(errors) == 4
        assert row["error_final_mean"] == pytest.approx(sum(errors) / 4)
        assert row["error_final_sd"] == pytest.approx(np.std(errors, ddof=1))


def test_traces_average_the_test_rows_of_fine_tuning(sweep: Path, trials: pd.DataFrame) -> None:
    epochs = read_table(sweep / "epochs.csv")
    # Rows that must not count: another split, another stage, a trial that is not asked for.
    noise = epochs.assign(error=99.0)
    extra = [noise.assign(stage="pretrain"), noise.assign(split="train"), noise.assign(trial="x")]
    found = summaries.traces(pd.concat([epochs, *extra]), trials)
    row = found[(found["arm"] == "analog-tl") & (found["wtn"] == 5) & (found["epoch"] == 3)]
    expected = [
        float(e.error)
        for e in epochs.itertuples()
        if e.arm == "analog-tl" and e.wtn == 5 and e.epoch == 3 and e.split == "test"
    ]
    assert len(row) == 1
    assert row["n"].item() == 4
    assert row["error_mean"].item() == pytest.approx(np.mean(expected))


def test_layers_keep_the_order_of_the_network(sweep: Path, trials: pd.DataFrame) -> None:
    rows = read_table(sweep / "layers.csv")
    found = summaries.layers(rows, trials)
    one = found[found["wtn"] == 0].sort_values("position")
    assert list(one["layer"]) == list(LAYERS)
    mine = rows[rows["layer"] == "head"].merge(trials[["trial", "wtn"]], on="trial")
    expected = mine.loc[mine["wtn"] == 10, "relative_error"].mean()
    head = found[(found["layer"] == "head") & (found["wtn"] == 10)]
    assert head["relative_error_mean"].item() == pytest.approx(expected)
    assert head["n"].item() == 4


def test_stages_weigh_layers_by_their_cells() -> None:
    trials = pd.DataFrame({"trial": ["a", "b", "c"], "arm": ["analog-tl"] * 2 + ["frozen-array"]})
    moved = {"a": (0.5, 0.0, 1.0), "b": (0.1, 0.0, 0.5), "c": (0.0, 0.0, 0.0)}
    rows = pd.DataFrame(
        [
            {"trial": trial, "layer": layer, "shape": shape, "weights_changed": share}
            for trial, shares in moved.items()
            for layer, shape, share in zip(
                ("s.0.x", "s.0.y.1", "head.fc"), ("2x5", "6x5", "2x2"), shares, strict=True
            )
        ]
    )
    found = summaries.stages(rows, trials).set_index(["arm", "stage"])
    first = found.loc[("analog-tl", "s.0")]
    assert (first["layers"], first["cells"], first["n"]) == (2, 40, 2)
    assert first["weights_changed_mean"] == pytest.approx((5 / 40 + 1 / 40) / 2)
    assert first["weights_changed_sd"] == pytest.approx(np.std([5 / 40, 1 / 40], ddof=1))
    assert found.loc[("analog-tl", "head"), "weights_changed_mean"] == pytest.approx(0.75)
    assert found.loc["frozen-array", "weights_changed_mean"].eq(0).all()


def test_arms_come_in_one_order_whatever_the_order_of_the_rows(trials: pd.DataFrame) -> None:
    shuffled = trials.sample(frac=1, random_state=0)
    assert summaries.arms_of(shuffled) == ["digital-tl", "analog-tl"]
    pd.testing.assert_frame_equal(summaries.levels(shuffled), summaries.levels(trials))
    odd = pd.DataFrame({"arm": ["zeta", "frozen-array", "alpha", "digital-tl"]})
    assert summaries.arms_of(odd) == ["digital-tl", "frozen-array", "alpha", "zeta"]


def test_arrays_that_move_no_further_than_noise_are_found() -> None:
    def rows(trial: str, change: float) -> list[dict[str, object]]:
        return [
            {
                "trial": trial,
                "layer": layer,
                "shape": shape,
                "weights_changed": 0.5,
                "rms_change": change,
                "noise_walk": walk,
            }
            for layer, shape, walk in (("body", "100x10", 0.02), ("head", "5x10", 0.3))
        ]

    trials = pd.DataFrame(
        {
            "trial": ["a", "b", "c", "d"],
            "arm": ["analog-tl", "analog-tl", "frozen-array", "shuffled-gradients"],
            "preset": ["fine", "coarse", "coarse", "coarse"],
        }
    )
    changes = {"a": 0.2, "b": 0.07, "c": 0.0, "d": 0.07}
    table = pd.DataFrame([row for trial, change in changes.items() for row in rows(trial, change)])
    found = summaries.lost_in_noise(summaries.layers(table, trials))
    assert found[["arm", "preset"]].to_numpy().tolist() == [["analog-tl", "coarse"]]
    # Over all cells: (1,000 x 0.02^2 + 50 x 0.3^2) / 1,050.
    assert found["noise_walk"].item() == pytest.approx(0.0683, rel=0.01)
    older = table.drop(columns=["rms_change", "noise_walk"])
    assert summaries.lost_in_noise(summaries.layers(older, trials)).empty
