"""Tables: every format shows the same rows, and nothing from a file becomes markup."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pandas as pd
import pytest

from analogtl.analysis import summaries
from analogtl.report import run_tables, tables
from analogtl.report.tables import Column, Table


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (14.52, 1.23, "14.5 ± 1.2"),
        (14.52, float("nan"), "14.5"),
        (14.5234, 0.04, "14.52 ± 0.04"),
        (14.5234, 0.0, "14.5 ± 0.0"),
        (14.5234, 1e-9, "14.5 ± 0.0"),
        (float("nan"), 1.0, "–"),
        (0.06, 0.96, "0.1 ± 1.0"),
    ],
)
def test_a_mean_shows_as_many_decimals_as_its_spread_needs(
    mean: float, sd: float, text: str
) -> None:
    assert tables.mean_text(mean, sd, Column("x", "x", "%", "number")) == text


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
        "h", "Title_1 & 50 %", frame, (Column("name", "na|me"), Column("v", "v", "%", "number"))
    )


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
    table = run_tables.outcomes_table(summaries.levels(trials))
    text = tables.to_latex(replace(table, experiment="fig3_wtn"))
    assert r"\label{tab:fig3-wtn-outcomes}" in text
    assert r"\caption{fig3\_wtn: " in text


def test_columns_without_a_value_are_left_out(trials: pd.DataFrame) -> None:
    digital = trials[trials["arm"] == "digital-tl"]
    keys = [column.key for column in run_tables.outcomes_table(summaries.levels(digital)).columns]
    assert "weights_changed" not in keys
    assert "error_judged" in keys


def test_cells_sort_by_their_unrounded_value(trials: pd.DataFrame) -> None:
    levels = summaries.levels(trials)
    table = run_tables.outcomes_table(levels)
    place = [column.key for column in table.columns].index("error_judged")
    assert [row[place].value for row in table.rows()] == pytest.approx(
        levels["error_judged_mean"].tolist()
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


def test_where_the_symmetry_point_lies_is_told_where_levels_move_it(trials: pd.DataFrame) -> None:
    analog = trials["arm"].eq("analog-tl")
    for places, shown in (({0: 0.5}, False), ({0: 0.5, 5: 0.444}, True)):
        measured = trials.assign(
            symmetry_point=trials["wtn"].map(places).fillna(0.5).where(analog), symmetry_spread=0.18
        )
        table = run_tables.outcomes_table(summaries.levels(measured))
        cells = {column.key: place for place, column in enumerate(table.columns)}
        assert ("symmetry_point" in cells) == shown
        assert "symmetry_spread" not in cells
        if shown:
            assert "44" in {row[cells["symmetry_point"]].text for row in table.rows()}
