"""Pulses, reads and changes of the arrays in the table of layers."""

import pandas as pd
import pytest
import torch
from aihwkit.optim import AnalogSGD
from torch import nn

from analogtl.analysis import summaries
from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import analog_tiles, programmed_weights, to_analog
from analogtl.crossbar.pulses import KINDS, wear
from analogtl.report.run_tables import wear_table
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial


def test_the_columns_are_those_of_all_cells_of_a_split_layer():
    analog = Analog(granularity_per_token=0.05, mapping={"max_input_size": 8})
    torch.manual_seed(0)
    made = to_analog(
        nn.Sequential(nn.Linear(20, 6)), analog, Convert(), seed=1, example=torch.randn(2, 20)
    ).model
    before = programmed_weights(made)
    optimizer = AnalogSGD(made.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        (made(torch.randn(4, 20)) ** 2).sum().backward()
        optimizer.step()
    (row,) = wear(made, before).values()
    tiles = list(analog_tiles(made))
    assert len(tiles) == 3
    for kind in KINDS:
        name = kind[0].upper() + kind[1:]
        cells = torch.cat([torch.from_numpy(t.pulse_counts()[name]).ravel() for t in tiles])
        assert cells.sum() > 0
        assert row[f"{kind}_sum"] == int(cells.sum())
        assert row[f"{kind}_mean"] == pytest.approx(float(cells.double().mean()))
        assert row[f"{kind}_median"] == pytest.approx(float(cells.double().quantile(0.5)))
        assert row[f"{kind}_max"] == int(cells.max())
    vectors = 30 * 4
    assert row["reads"] == 3 * vectors
    assert row["read_conversions"] == 3 * vectors * 6
    assert row["pass_conversions"] == vectors * (20 + 3 * 6)
    (start,) = before.values()
    change = torch.cat(
        [(a - t.tile.get_weights()).ravel() for a, t in zip(start, tiles, strict=True)]
    )
    hidden = [t.get_hidden_parameters() for t in tiles]
    width = torch.cat([(h["max_bound_1"] - h["min_bound_1"]).ravel() for h in hidden]).mean()
    assert row["rms_change"] == pytest.approx(float((change**2).mean().sqrt() / width), rel=1e-4)


@pytest.mark.parametrize(
    ("arm", "engine"), [("analog-tl", "fast"), ("analog-tl", "aihwkit"), ("frozen-array", "fast")]
)
def test_a_trial_writes_them_where_they_are_known(tiny, run_dir, arm, engine):
    experiment = tiny(finetune={"arms": [arm]}, analog={"engine": engine})
    (trial,) = (t for t in trials_of(experiment, sweep=False) if (t.arm, t.seed) == (arm, 0))
    run_trial(trial, run_dir)
    layers = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
    for row in layers:
        outputs, inputs = map(int, row["shape"].split("x"))
        if engine == "aihwkit":
            assert row["a_up_sum"] == row["reads"] == ""
            assert float(row["rms_change"]) > 0
            continue
        mean = int(row["a_up_sum"]) / (outputs * inputs)
        assert float(row["a_up_mean"]) == pytest.approx(mean, rel=1e-6)
        assert (mean > 0) == (arm == "analog-tl")
        assert (int(row["reads"]) > 0) == (arm == "analog-tl")
        assert int(row["c_up_max"]) <= int(row["c_up_sum"])


def test_the_report_has_means_over_trials_beside_the_cells_that_changed():
    trials = pd.DataFrame({"trial": ["a", "b"], "arm": "analog-tl", "seed": [0, 1]})
    rows = pd.DataFrame({"trial": ["a", "b"], "layer": "head", "a_up_mean": [10.0, 30.0],
                         "weights_changed": [0.1, 0.3], "rms_change": [0.01, 0.03]})  # fmt: skip
    summary = summaries.layers(rows, trials)
    assert summary["a_up_mean_mean"].tolist() == [20.0]
    (table,) = [wear_table(summary)]
    assert any("A up" in text for text in map(str, vars(table).values()))
