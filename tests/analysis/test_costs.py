"""Energy, time and wear from counts, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from counted_run import HARDWARE, kinds, write
from told import problems_of

from analogtl.analysis.analyse import analyse
from analogtl.analysis.costs import Costs, cost, costs_of, hardware_of
from analogtl.analysis.read import read_run
from analogtl.analysis.work import COUNTS
from analogtl.config.hardware import UNITS, Constant, hardware_presets, preset_constants
from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.study.trial import trials_of


def costs_in(folder: Path, *settings: str) -> Costs:
    found = analyse(read_run(folder, "run", settings=settings)).costs
    assert found is not None
    return found


def test_every_energy_and_time_is_a_count_times_a_constant(tmp_path: Path) -> None:
    epochs = costs_in(write(tmp_path / "run")).epochs.set_index(["layer", "epoch"])
    one = epochs.loc["one", 1]  # 20 of 60 vectors, so a third of the reads
    assert one["energy_pulses"] == 2 * (60 + 60 + 12)
    assert one["energy_reads"] == 3 * (2 * 20 * 12 + 180 / 3)
    assert one["energy_da"] == 7 * (20 * 7 + 60 / 3)
    assert one["energy_ad"] == 5 * (20 * 7 + 180 / 3)
    assert one["energy_digital"] == 11 * 180 / 3
    assert one["energy_memory"] == 13 * 8 * 180 / 3
    parts = [c for c in epochs if c.startswith("energy_") and "same" not in c]
    assert one["energy"] == one[parts].sum()
    assert one["time_array_reads"] == 0.25 * (2 * 20 + 60 / 3) / 2
    assert one["time_pulse_slots"] == 0.5 * (20 * 5 + 60 / 3) / 2
    assert one["time_digital"] == 60 / 8
    assert one["time"] == 7.5 + 30 + 7.5
    assert one["same_energy"] == 11 * 3 * 20 * 12 + 13 * 16 * 12 * 3  # three steps
    assert one["same_time"] == 3 * 20 * 12 / 8
    two = epochs.loc["two", 2]  # 40 of 60 vectors
    assert two["energy_da"] == pytest.approx(7 * (40 * 8 + 80))
    assert two["time_array_reads"] == pytest.approx(0.25 * (2 * 40 * 2 + 80) / 2)
    assert two["time_pulse_slots"] == pytest.approx(0.5 * (40 * 2 * 5 + 80) / 2)


def test_sums_over_layers_and_epochs_are_those_of_the_arm(tmp_path: Path) -> None:
    found = costs_in(write(tmp_path / "run"))
    (total,) = found.totals.to_dict("records")
    for name in ("energy", "time", "same_energy", "pulses"):
        assert total[name] == pytest.approx(found.epochs[name].sum())
        assert total[name] == pytest.approx(found.layers[name].sum())
    expected = 2e-12 * 3 * 60 * 20 / total["energy"]
    assert total["tops_per_w"] == pytest.approx(expected, rel=1e-9, abs=0)
    terms = found.terms()
    assert terms["energy"].sum() == pytest.approx(total["energy"] + total["same_energy"])
    for row in terms.dropna(subset=["energy"]).to_dict("records"):
        assert row["energy"] == pytest.approx(row["count"] * HARDWARE[row["constant"]])


def test_wear_is_bounded_by_maximum_and_mean_and_exact_with_saved_cells(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    epochs = costs_in(run).epochs.set_index(["layer", "epoch"])
    one, two = epochs.loc["one", 2], epochs.loc["two", 2]
    assert (one["worn_low"], one["worn_high"], one["most_pulses"]) == (0, 0, 90)
    # A: a cell had 150 pulses up, so one of 8 at least is worn; the mean, 130, allows all.
    # C has none worn: half of each.
    assert (two["worn_low"], two["worn_high"], two["most_pulses"]) == (1 / 16, 1 / 2, 160)
    assert epochs.loc["two", 1]["worn_high"] == 0
    up = np.array([[101, 100, 0, 0], [0, 0, 0, 250]])
    counts = {"A_up": up, "A_down": np.zeros_like(up), "C_up": up * 0, "C_down": up * 0}
    counts["A_down"][0, 1] = 1
    cells = run / "trials" / "t" / "pulses.safetensors"
    cells.parent.mkdir(parents=True)
    safetensors.numpy.save_file({f"two.0.{name}": one for name, one in counts.items()}, cells)
    exact = costs_in(run).epochs.set_index(["layer", "epoch"]).loc["two", 2]
    assert exact["worn_low"] == exact["worn_high"] == 3 / 16
    assert exact["most_pulses"] == 250
    total = costs_in(run).totals.iloc[0]
    assert total["worn_high"] == pytest.approx((12 * 0 + 8 * 3 / 16) / 20)


def test_frozen_arrays_are_read_and_convert_without_pulses(tmp_path: Path) -> None:
    nothing = kinds("a", "0 0 0 0 0 0") | kinds("c", "0 0 0 0 0 0")
    nothing |= {"reads": 0, "read_conversions": 0, "pass_conversions": 0}
    run = write(tmp_path / "run", arm="frozen-array", **nothing)
    found = costs_in(run)
    layers = found.layers.set_index("layer")
    assert layers.loc["one", "da_conversions"] == 60 * 7
    assert layers.loc["one", "pulse_slots"] == 0
    assert layers.loc["one", "macs"] == 2 * 60 * 12  # no gradient of the weights
    # How it is split is nowhere written: what is unknown of a layer is unknown of the arm.
    for lacking in (layers.loc["two"], found.totals.iloc[0]):
        assert lacking[["da_conversions", "energy", "tops_per_w"]].isna().all()
        assert lacking[["cell_reads", "time", "same_energy"]].notna().all()


@pytest.mark.parametrize(
    ("algorithm", "operations"), [("c-ttv2", 420), ("tt", 0), ("sgd", 0), ("mp", 60 * 20)]
)
def test_what_the_algorithm_computes_digitally(
    tmp_path: Path, algorithm: str, operations: float
) -> None:
    total = costs_in(write(tmp_path / "run", algorithm=algorithm)).totals.iloc[0]
    assert total["digital_operations"] == pytest.approx(operations)


def test_other_constants_need_no_new_run(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    before, after = costs_in(run), costs_in(run, "hardware.pulse_energy=4")
    assert (after.totals["energy_pulses"] == 2 * before.totals["energy_pulses"]).all()
    terms = after.terms().set_index("constant")
    of_line = terms.index[terms["source"].str.contains("--set")]
    assert set(of_line) == {"pulse_energy"}


def test_a_constant_that_is_not_set_leaves_its_term_out(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    settings = json.loads((run / "experiment.resolved.json").read_text())
    del settings["hardware"]["memory_energy"], settings["hardware"]["digital_rate"]
    (run / "experiment.resolved.json").write_text(json.dumps(settings))
    found = costs_in(run)
    assert "energy_memory" not in found.totals
    assert found.totals["energy"].notna().all()
    terms = found.terms().set_index("constant")
    assert terms.loc["memory_energy", "energy"].isna().all()


def constants(*names: str) -> dict[str, Constant]:
    return {name: Constant(name, HARDWARE[name], "") for name in names}


def test_what_is_told_with_some_of_the_constants() -> None:
    counts = pd.DataFrame([dict.fromkeys(COUNTS, 4.0)])
    needed = ("pulse_energy", "read_energy", "dac_energy", "adc_energy", "digital_energy")
    enough = cost(counts, constants(*needed)).iloc[0]
    assert enough["energy"] == 4 * (2 + 3 + 7 + 5 + 11)
    assert enough["tops_per_w"] == pytest.approx(2e-12 * 4 / enough["energy"], rel=1e-9, abs=0)
    assert np.isnan(enough["time"])
    less = cost(counts, constants(*needed[1:])).iloc[0]
    assert less["energy"] == enough["energy"] - 4 * 2
    assert np.isnan(less["tops_per_w"])
    times = cost(counts, constants("read_time")).iloc[0]
    assert times["time"] == 4 * 0.25  # arrays one after the other
    assert np.isnan(times["energy"])


def test_trials_and_layers_come_together_by_level() -> None:
    def rows(trial: str, times: float, worn: float) -> list[dict[str, Any]]:
        told = [  # layer, place, epoch, cells, count, most pulses, worn
            ("z", 0, 1, 10, 1, 5, 0.1), ("z", 0, 2, 10, 2, 9, 0.2),
            ("y", 1, 1, 30, 4, 3, 0.0), ("y", 1, 2, 30, 8, 4, 0.4),
        ]  # fmt: skip
        names = ("layer", "position", "epoch", "cells", "count", "most_pulses", "worn_high")
        made = [dict(zip(names, one, strict=True)) for one in told]
        for one in made:
            one |= {"trial": trial, **dict.fromkeys(COUNTS, one["count"] * times)}
            one |= {"most_pulses": one["most_pulses"] * times, "worn_from": f"of {one['layer']}"}
            one |= {"worn_high": one["worn_high"] * worn, "worn_low": one["worn_high"] / 2}
        return made

    work = pd.DataFrame([*rows("a", 1, 1), *rows("b", 10, 1), *rows("c", 3, 2), *rows("d", 1, 1)])
    level = {"a": 5.0, "b": np.nan, "c": 5.0, "d": 9.0}  # no axis touches the arm of b
    trials = pd.DataFrame(
        [{"trial": t, "arm": "analog-tl", "wtn": one} for t, one in level.items()]
    )
    found = costs_of(work, trials, constants("pulse_energy"))
    assert found is not None
    assert list(found.axes) == ["wtn"]
    totals = found.totals.set_index("wtn")
    swept, alone = totals.loc[5.0], totals[totals.index.isna()].iloc[0]
    assert (swept["n"], alone["n"]) == (2, 1)
    assert (swept["pulses"], alone["pulses"]) == ((15 + 45) / 2, 150)
    assert (swept["energy"], swept["most_pulses"]) == (2 * 30, 27)
    a, c = (0.2 * 10 + 0.4 * 30) / 40, (0.4 * 10 + 0.8 * 30) / 40
    assert swept["worn_high"] == pytest.approx((a + c) / 2)
    assert swept["worn_low"] == pytest.approx((a / 2 + c / 4) / 2)
    assert swept["worn_from"] == "of y, of z"
    assert found.layers["layer"].tolist() == ["z", "y"] * 3
    assert found.layers.loc[0, "worn_high"] == pytest.approx((0.2 + 0.4) / 2)
    assert len(found.epochs) == 12
    assert costs_of(work.iloc[:0], trials, found.hardware) is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"engine": "aihwkit"}, "aihwkit's own"),
        ({"a_up_sum": None}, "version"),
        ({"pass_conversions": None}, "version"),
    ],
)
def test_without_counts_a_line_says_which_are_lacking(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    run = read_run(write(tmp_path / "run", **changed), "run")
    assert run.work.empty
    (note,) = run.notes
    assert says in note
    assert "analog TL" in note


def test_without_the_table_of_pulses_a_line_says_so(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    (run / "pulses.csv").unlink()
    (note,) = read_run(run, "run").notes
    assert "pulses.csv" in note


@pytest.mark.parametrize(
    "wrong",
    ["hardware.pulse_energy=-1", "hardware.read_time=0", "hardware.endurence=5", "finetune.lr=1",
     "hardware.preset=reram", "hardware.adc_energy=inf"],
)  # fmt: skip
def test_wrong_constants_are_one_line_with_the_key(wrong: str) -> None:
    (line,) = problems_of(hardware_of, {}, [wrong], "run")
    assert wrong.partition("=")[0] in line


def test_presets_have_a_source_for_each_constant() -> None:
    for preset in hardware_presets():
        found = preset_constants(preset)
        assert {one.name for one in found} >= {"pulse_energy", "adc_energy", "endurance"}
        assert all(one.source and one.value > 0 and one.unit for one in found)
        assert Experiment(name="x", hardware={"preset": preset}).hardware.preset == preset
    assert set(UNITS) == set(Experiment(name="x").hardware.model_dump()) - {"preset"}


def test_what_is_derived_follows_from_what_its_source_gives() -> None:
    hfox, ecram = (
        {one.name: one.value for one in preset_constants(name)}
        for name in ("hfox-reram", "li-ecram")
    )
    adc, dac = 16e-3 / 8 / 1.2e9, 8 * 4e-3 / (8 * 128) / 12e6
    derived = {
        "pulse_energy": 1.6**2 * (1e-5 + 1e-6) / 2 * 50e-9,
        "read_energy": 0.5**2 * (1e-5 + 1e-6) / 2 * 10e-9,
        "adc_energy": adc,
        "dac_energy": dac,
        "digital_energy": 3.7e-12 + 0.9e-12,
    }
    for name, value in derived.items():
        assert hfox[name] == pytest.approx(value, rel=0.01)
    assert ecram["read_energy"] == pytest.approx(0.5**2 * (1 + 1 / 40) / 5e8 / 2 * 10e-9, rel=0.01)
    for name in ("adc_energy", "dac_energy", "digital_energy", "read_time"):
        assert ecram[name] == hfox[name]


def test_hardware_is_in_no_key_of_a_trial() -> None:
    plain = load_experiment("quickstart")
    costed = load_experiment("quickstart", ["hardware.preset=li-ecram", "hardware.endurance=5"])
    keys = [{t.id: t.key for t in trials_of(one, sweep=False)} for one in (plain, costed)]
    assert keys[0] == keys[1]
