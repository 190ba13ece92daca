"""Summaries and tables: the numbers are recomputed here, independently."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_data import LAYERS, write_run

from analogtl.analysis import summaries
from analogtl.report import run_tables, tables
from analogtl.report.tables import Column, Table
from analogtl.study.tables import read_table


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("runs") / "sweep",
        arms=("digital-tl", "analog-tl"),
        axes={"wtn": [0, 5, 10]},
        seeds=4,
        epochs=6,
    )


@pytest.fixture(scope="module")
def trials(sweep: Path) -> pd.DataFrame:
    return read_table(sweep / "trials.csv")


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


def test_a_digital_arm_has_no_level_and_is_a_baseline(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials)
    (base,) = summaries.baselines(levels, "wtn", "error_final")
    errors = trials.loc[trials["arm"] == "digital-tl", "error_final"]
    assert (base.arm, base.x, base.n) == ("digital-tl", (), (4,))
    assert base.mean[0] == pytest.approx(errors.mean())
    lines = summaries.series(levels, "wtn", "error_final", [])
    assert [line.arm for line in lines] == ["analog-tl"]
    assert lines[0].x == (0, 5, 10)


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
    assert [summaries.stage_of(name) for name in ("stages.3.0.linear", "head", "patch.proj")] == [
        *("stages.3", "head", "patch")
    ]
    trials = pd.DataFrame({"trial": ["a", "b", "c"], "arm": ["analog-tl"] * 2 + ["frozen-array"]})
    moved = {"a": (0.5, 0.0, 1.0), "b": (0.1, 0.0, 0.5), "c": (0.0, 0.0, 0.0)}
    rows = pd.DataFrame(
        [
            {"trial": trial, "layer": layer, "shape": shape, "weights_changed": share}
            for trial, shares in moved.items()
            for layer, shape, share in zip(
                ("s.0.x", "s.0.y", "head"), ("2x5", "6x5", "2x2"), shares, strict=True
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
    table = run_tables.stages_table(found.reset_index())
    assert [row[0].text for row in table.rows()][:2] == ["s.0", "head"]
    assert [c.header for c in table.columns] == [
        *("stage", "arm", "layers", "cells", "n", "cells changed")
    ]


def test_one_seed_has_no_spread(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials[trials["seed"] == 0])
    assert levels["error_final_sd"].isna().all()
    table = run_tables.outcomes_table(levels)
    final = [column.key for column in table.columns].index("error_final")
    assert all("±" not in row[final].text for row in table.rows())


def test_arms_come_in_one_order_whatever_the_order_of_the_rows(trials: pd.DataFrame) -> None:
    shuffled = trials.sample(frac=1, random_state=0)
    assert summaries.arms_of(shuffled) == ["digital-tl", "analog-tl"]
    pd.testing.assert_frame_equal(summaries.levels(shuffled), summaries.levels(trials))
    odd = pd.DataFrame({"arm": ["zeta", "frozen-array", "alpha", "digital-tl"]})
    assert summaries.arms_of(odd) == ["digital-tl", "frozen-array", "alpha", "zeta"]


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (14.52, 1.23, "14.5 ± 1.2"),
        (14.52, float("nan"), "14.5"),
        (14.5234, 0.04, "14.52 ± 0.04"),
        (14.5234, 0.0, "14.5 ± 0.0"),
        (float("nan"), 1.0, "–"),
        (0.06, 0.96, "0.1 ± 1.0"),
    ],
)
def test_a_mean_shows_as_many_decimals_as_its_spread_needs(
    mean: float, sd: float, text: str
) -> None:
    assert tables.mean_text(mean, sd, Column("x", "x", "%", "mean")) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.8, "9.8 s"),
        (59.7, "1 min"),
        (48, "48 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_csv_keeps_every_digit_and_no_index(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials)
    text = tables.to_csv(run_tables.outcomes_table(levels))
    back = pd.read_csv(io.StringIO(text))
    assert list(back.columns) == list(levels.columns)
    pd.testing.assert_frame_equal(back, levels, check_dtype=False, check_exact=False, rtol=1e-12)


HOSTILE = "a|b <script>&_$%#{}~^\\ `x` *y*"


@pytest.fixture
def hostile() -> Table:
    names = [HOSTILE, "line\nbreak"]
    frame = pd.DataFrame({"name": names, "v_mean": [1.0, -2.0], "v_sd": [0.1, 2]})
    return Table(
        "h", "Title_1 & 50 %", frame, (Column("name", "na|me"), Column("v", "v", "%", "mean"))
    )


def test_markdown_text_cannot_break_out_of_its_cell(hostile: Table) -> None:
    lines = tables.to_markdown(hostile).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4  # heading, rule, two rows: the line break is gone
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert "<script>" not in "\n".join(lines)


def test_latex_escapes_text_and_sets_spreads_in_math(hostile: Table) -> None:
    text = tables.to_latex(hostile)
    assert r"Title\_1 \& 50 \%" in text
    assert r"$1.00 \pm 0.10$" in text or r"$1.0 \pm 0.1$" in text
    assert r"$-2.0 \pm 2.0$" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    for line in body.strip().splitlines():
        assert line.endswith(r"\\")
        assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert not re.search(r"(?<!\\)[%#_]", line)
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption", r"\label{tab:h}"):
        assert command in text


def test_the_label_and_caption_name_the_experiment(trials: pd.DataFrame) -> None:
    table = run_tables.outcomes_table(summaries.levels(trials), experiment="fig3_wtn")
    text = tables.to_latex(table)
    assert r"\label{tab:fig3-wtn-outcomes}" in text
    assert r"\caption{fig3\_wtn: Test error against weight transfer noise (\%)." in text


def test_columns_without_a_value_are_left_out(trials: pd.DataFrame) -> None:
    digital = trials[trials["arm"] == "digital-tl"]
    keys = [column.key for column in run_tables.outcomes_table(summaries.levels(digital)).columns]
    assert "weights_changed" not in keys
    assert "error_final" in keys


def test_cells_sort_by_their_unrounded_value(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials)
    table = run_tables.outcomes_table(levels)
    place = [column.key for column in table.columns].index("error_final")
    assert [row[place].value for row in table.rows()] == pytest.approx(
        levels["error_final_mean"].tolist()
    )


def test_shares_are_shown_in_percent_with_the_unit_in_the_heading(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials)
    table = run_tables.outcomes_table(levels)
    column = next(c for c in table.columns if c.key == "weights_changed")
    assert column.heading == "cells changed (%)"
    place = table.columns.index(column)
    row = levels.index[levels["arm"] == "analog-tl"][0]
    shown = float(table.rows()[row][place].text.split(" ± ")[0])
    assert shown == pytest.approx(100 * levels.loc[row, "weights_changed_mean"], abs=0.05)
