"""Costs on paper and page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from command_line import call
from counted_run import HARDWARE, write

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.report.build import build_report
from analogtl.report.cost_figure import cost_bars
from analogtl.report.cost_tables import arms_table, layers_table, unit_of
from analogtl.report.drawing import styled
from analogtl.report.tables import to_csv


def test_a_report_writes_every_number_with_its_constant(tmp_path: Path) -> None:
    report = build_report([write(tmp_path / "run")], formats=["csv", "html", "markdown", "latex"])
    terms = pd.read_csv(report.out / "cost_terms.csv")
    used = terms.dropna(subset=["value"])
    assert set(used["constant"]) == set(HARDWARE) - {"parallel_arrays", "endurance"}
    energies = used.dropna(subset=["energy"])
    assert energies["energy"].tolist() == pytest.approx(
        (used["count"] * used["value"])[energies.index]
    )
    whole = pd.read_csv(report.out / "costs_of_arms.csv")["energy"].sum()
    by_epoch = pd.read_csv(report.out / "costs.csv")
    assert by_epoch["energy"].sum() == pytest.approx(whole)
    assert set(by_epoch["epoch"]) == {1, 2}
    page = (report.out / "report.html").read_text()
    assert "it costs" in page
    assert any(path.name == "costs.pdf" for path in report.paths)


def test_without_constants_a_report_is_as_it_was(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    (folder / "experiment.resolved.json").write_text(json.dumps({"name": "run"}))
    report = build_report([folder], formats=["csv", "html"])
    assert not [path for path in report.paths if path.name.startswith("cost")]
    assert report.messages == []


def test_runs_share_a_table_of_costs_if_their_constants_are_the_same(
    tmp_path: Path,
) -> None:
    runs = [write(tmp_path / name) for name in ("one", "two")]
    both = build_report(runs, tmp_path / "out", formats=["csv"], together=True)
    assert len(pd.read_csv(both.out / "costs_of_arms.csv")) == 2
    settings = {"name": "two", "hardware": HARDWARE | {"pulse_energy": 1.0}}
    (runs[1] / "experiment.resolved.json").write_text(json.dumps(settings))
    other = build_report(runs, tmp_path / "other", formats=["csv"], together=True)
    assert not (other.out / "costs_of_arms.csv").exists()


@pytest.mark.parametrize(
    ("values", "unit", "factor"),
    [
        ([2e-6, 5e-4], "µJ", 1e6),
        ([1.0], "J", 1),
        ([], "J", 1),
        ([math.nan, 0.0], "J", 1),
        ([3e-21], "aJ", 1e18),
        ([5e12], "MJ", 1e-6),
    ],
)
def test_a_prefix_fits_the_largest_value(values: list[float], unit: str, factor: float) -> None:
    assert unit_of(values, "J") == (unit, pytest.approx(factor))


def test_shares_of_worn_cells_are_a_number_or_a_range(tmp_path: Path) -> None:
    costs = analyse(read_run(write(tmp_path / "run"), "run")).costs
    assert costs is not None
    assert layers_table(costs).frame["worn"].tolist() == ["0 %", "6.2 to 50 %"]
    assert arms_table(costs).columns[-1].key == "worn"
    assert "worn," not in to_csv(arms_table(costs))


def test_the_bars_of_the_figure_are_the_energies(tmp_path: Path) -> None:
    costs = analyse(read_run(write(tmp_path / "run"), "run")).costs
    assert costs is not None
    names = costs.layers["layer"].tolist()
    drawing = styled(lambda: cost_bars(costs.layers, names, "layer"))
    _, factor = unit_of(costs.layers["energy"], "J")
    ends: dict[float, float] = {}
    for bar in drawing.figure.axes[0].patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0.0), bar.get_x() + bar.get_width())
    assert list(ends.values()) == pytest.approx((factor * costs.layers["energy"]).tolist())


def test_costs_without_counts_end_with_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "run", engine="aihwkit")
    ended = call(capsys, "report", str(folder), "--set", "hardware.preset=li-ecram")
    assert ended.code == 2
    (line,) = ended.problems
    assert "aihwkit" in line
    assert not (folder / "report").exists()
    assert call(capsys, "report", str(folder), "--format", "csv").code == 0
