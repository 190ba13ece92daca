"""A run that varied the layer with settings of its own: what its report says of the layers."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from report_data import LAYERS, write_run

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.report.drawing import styled
from analogtl.report.sections import Section, section_of
from analogtl.vocabulary import PER_LAYER

LEVELS = ["none", *LAYERS, "all"]
HARM = {LAYERS[4]: 15.0, "all": 30.0}


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Of 18 layers one hurts; the rows are in no order that would help."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    axes = {PER_LAYER: sorted(LEVELS)}
    run = write_run(folder, arms=("digital-tl", "analog-tl"), axes=axes, seeds=5, epochs=4)
    for name, columns in (("epochs.csv", ["error"]), ("trials.csv", ["error_final"])):
        table = pd.read_csv(run / name)
        for column in columns:
            table[column] += table[PER_LAYER].map(HARM).fillna(0)
        table.to_csv(run / name, index=False)
    file = run / "experiment.resolved.json"
    told = json.loads(file.read_text())
    told["sweep"] = {"axes": {PER_LAYER: LEVELS}}
    told["per_layer"] = {"layer": "none", "settings": {"convert.weight_transfer_noise": 20}}
    file.write_text(json.dumps(told))
    return section_of(analyse(read_run(run, "run")))


def test_the_layer_that_hurts_is_named_and_only_it(section: Section) -> None:
    (line,) = (one for one in section.words if "Holm" in one)
    named = [layer for layer in LAYERS if f"{layer} +" in line]
    assert named == [LAYERS[4]]
    assert "wtn = 20 %" in line


def test_table_and_figure_have_every_layer_in_the_network_s_order(section: Section) -> None:
    (table,) = (one for one in section.tables if one.name == "layer_effects")
    assert table.frame[PER_LAYER].astype(str).tolist() == LEVELS[1:]
    hurt = table.frame.loc[table.frame["hurts"] == "yes", PER_LAYER]
    assert hurt.astype(str).tolist() == [LAYERS[4], "all"]
    (figure,) = (one for one in section.figures if one.stem == "per-layer")
    drawing = styled(figure.draw)
    assert list(drawing.rows[:-1]) == LEVELS[1:-1]
    assert len(drawing.numbers) == len(LEVELS) - 1
    upper, lower = drawing.figure.axes
    assert upper.get_ylim()[0] > upper.get_ylim()[1]
    assert len(lower.get_yticks()) == 1


def test_no_figure_has_a_line_or_column_for_each_of_so_many_levels(section: Section) -> None:
    stems = [one.stem for one in section.figures]
    assert stems == ["per-layer"]
