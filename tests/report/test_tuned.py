"""What reports say of settings that were tuned, and of comparisons that were not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_data import write_run

from analogtl.analysis.read import RunData, read_run
from analogtl.errors import ExperimentError
from analogtl.report import words
from analogtl.report.build import build_report
from analogtl.report.results import rewrite
from analogtl.report.together import joined
from analogtl.vocabulary import Metric

KEYS: dict[str, list[Any]] = {"finetune.lr": [0.01, 0.02, 0.04], "analog.drive": ["auto", 5]}
PRESETS = ["ReRamArrayHfO2PresetDevice", "EcRamPresetDevice"]
PRESET = "analog.device.preset"


def tuned_run(folder: Path, errors: dict[float, float], images: int = 100) -> RunData:
    """A run whose tuning has these validation errors (learning rate -> percent) at drive 5."""
    path = write_run(folder, arms=("analog-tl",), axes={"wtn": [0, 10]}, seeds=2)
    rows = [
        {"experiment": "x", "arm": "analog-tl", "algorithm": "c-ttv2", "wtn": level, "seed": seed}
        | {"finetune.lr": lr, "analog.drive": drive, "rung": 1, "done": True}
        | {"trial": f"{level}{lr}{drive}{seed}", "n_validation": images}
        | {"error_validation": error + (30 if drive == "auto" else 0) + seed - 100.5}
        | {"chosen": lr == min(errors, key=lambda one: errors[one]) and drive != "auto"}
        for level in (0, 10)
        for lr, error in errors.items()
        for drive in KEYS["analog.drive"]
        for seed in (100, 101)
    ]
    pd.DataFrame(rows).to_csv(path / "tuning.csv", index=False)
    edit(path, {"tune": {"candidates": KEYS}})
    return read_run(path, folder.name)


def edit(path: Path, sweep: dict[str, Any]) -> None:
    file = path / "experiment.resolved.json"
    content = json.loads(file.read_text())
    content.setdefault("sweep", {}).update(sweep)
    file.write_text(json.dumps(content))


def test_a_choice_has_its_lead_and_what_the_images_resolve(tmp_path: Path) -> None:
    run = tuned_run(tmp_path / "run", {0.01: 14.0, 0.02: 10.0, 0.04: 11.0})
    assert run.tuning["wtn"].tolist() == [0, 10]
    choice = run.tuning.iloc[0]
    assert choice["kept"] == "finetune.lr = 0.02; analog.drive = 5"
    assert (choice["tried"], choice["n_blocks_compared"]) == (6, 2)
    assert choice["error_validation"] == pytest.approx(10.0)
    assert choice["lead"] == pytest.approx(1.0)
    # Two proportions of about 10.5 % of 200 images each.
    assert choice["resolution"] == pytest.approx(100 * (2 * 0.105 * 0.895 / 200) ** 0.5)
    assert choice["edge"] == ""  # the smallest number of one is no edge
    (unclear,) = words.tuning_limits(run.tuning)
    assert "2 of 2" in unclear


@pytest.mark.parametrize(("best", "end"), [(0.01, "smallest"), (0.04, "largest")])
def test_a_choice_at_the_edge_of_the_grid_is_said(tmp_path: Path, best: float, end: str) -> None:
    run = tuned_run(tmp_path / "run", {0.01: 30.0, 0.02: 30.0, 0.04: 30.0} | {best: 10.0})
    assert run.tuning["edge"].tolist() == [f"finetune.lr = {best:g}, the {end}"] * 2
    (edge,) = words.tuning_limits(run.tuning)
    assert end in edge


def test_the_report_has_the_choices(tmp_path: Path) -> None:
    run = tuned_run(tmp_path / "run", {0.01: 14.0, 0.02: 10.0, 0.04: 30.0})
    report = build_report([run.path], tmp_path / "out", formats=["csv", "markdown"])
    table = pd.read_csv(tmp_path / "out" / "tuning_choices.csv")
    assert table["kept"].eq("finetune.lr = 0.02; analog.drive = 5").all()
    assert "analog.drive = 5" in (tmp_path / "out" / "report.md").read_text()
    assert not report.damaged


def test_devices_at_settings_of_another_are_said_not_to_be_tuned(tmp_path: Path) -> None:
    arms = ("digital-tl", "analog-tl", "frozen-array")
    path = write_run(tmp_path / "run", arms=arms, axes={PRESET: PRESETS}, seeds=2)
    assert read_run(path, "run").untuned == (PRESET,)
    table = pd.read_csv(path / "trials.csv")
    table["tuned"] = table["arm"].map({"analog-tl": "finetune.lr = 0.02"})
    table.to_csv(path / "trials.csv", index=False)
    assert read_run(path, "run").untuned == ()  # frozen arrays have nothing to tune
    other = write_run(tmp_path / "other", arms=arms, axes={"wtn": [0, 10]}, seeds=2)
    assert read_run(other, "other").untuned == ()


def test_runs_of_several_algorithms_together_are_said_not_to_be_tuned(tmp_path: Path) -> None:
    runs = []
    for name in ("c-ttv2", "agad"):
        path = write_run(tmp_path / name, arms=("analog-tl",), seeds=2)
        file = path / "experiment.resolved.json"
        content = json.loads(file.read_text())
        content["analog"] = {**content.get("analog", {}), "algorithm": name}
        file.write_text(json.dumps(content))
        runs.append(read_run(path, name))
    assert joined(runs).untuned == ("run",)
    assert joined([runs[0], runs[0]]).untuned == ()


def test_a_wrong_row_of_the_tuning_is_left_out_and_told(tmp_path: Path) -> None:
    run = tuned_run(tmp_path / "run", {0.01: 14.0, 0.02: 10.0})
    file = run.path / "tuning.csv"
    file.write_text(file.read_text().replace("13.5", "13,5"))
    assert "tuning.csv" in read_run(run.path, "run").unreadable[0]


@pytest.mark.parametrize("metric", [Metric.DENOISING, Metric.BALANCED_ERROR])
def test_what_images_resolve_is_known_of_plain_shares_alone(tmp_path: Path, metric: Metric) -> None:
    tuned_run(tmp_path / "run", {0.01: 0.40, 0.02: 0.38})
    table = pd.read_csv(tmp_path / "run" / "tuning.csv").assign(metric=str(metric))
    table.to_csv(tmp_path / "run" / "tuning.csv", index=False)
    choices = read_run(tmp_path / "run", "run").tuning
    assert choices["resolution"].isna().all()
    assert not any("do not resolve" in line for line in words.tuning_limits(choices))


def test_a_results_page_shows_what_was_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    tuned_run(folder / "tuned", {0.01: 14.0, 0.02: 10.0, 0.04: 11.0})
    page = tmp_path / "page.md"
    page.write_text("<!-- tuning tuned -->\n<!-- end -->\n")
    assert rewrite(page, folder)
    rows = [line for line in page.read_text().splitlines() if "finetune.lr = 0.02" in line]
    assert len(rows) == 2  # a choice at each level
    write_run(folder / "plain", arms=("analog-tl",), axes={"wtn": [0]})
    page.write_text("<!-- tuning plain -->\n<!-- end -->\n")
    with pytest.raises(ExperimentError, match="nothing was tuned"):
        rewrite(page, folder)
