"""Tables, figures and words of runs that are judged by something else than an error in percent."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from report_data import as_losses, write_run

from analogtl.analysis import denoising
from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.cli import main
from analogtl.errors import ExperimentError
from analogtl.files import write_sealed
from analogtl.report.build import build_report
from analogtl.report.drawing import styled
from analogtl.report.results import rewrite
from analogtl.report.samples import samples_figure
from analogtl.report.sections import section_of
from analogtl.vocabulary import Metric


@pytest.fixture
def run_of(tmp_path):
    """A made-up sweep whose errors are a hundredth, and of a metric."""

    def make(metric, **options):
        options = {"arms": ("digital-tl", "analog-tl"), "seeds": 4, "epochs": 6, **options}
        return read_run(as_losses(write_run(tmp_path / "run", **options), metric), "run")

    return make


def test_a_loss_is_told_in_its_unit_with_its_perplexity(run_of):
    analysis = analyse(run_of(Metric.CROSS_ENTROPY, axes={"wtn": [0, 5, 10]}), draws=0)
    assert analysis.error is Metric.CROSS_ENTROPY
    assert analysis.margin == Metric.CROSS_ENTROPY.margin
    section = section_of(analysis)
    outcomes = section.tables[0]
    heads = {column.key: column.heading for column in outcomes.columns}
    assert "nats" in heads["error_judged"]
    assert "perplexity" in heads
    one = outcomes.frame.iloc[0]
    assert one["perplexity"] == pytest.approx(math.exp(one["error_judged_mean"]))
    assert not any("points" in words for words in section.words)
    (figure,) = [spec for spec in section.figures if spec.stem == "error-wtn"]
    assert "nats" in styled(figure.draw).figure.axes[0].get_ylabel()


@pytest.mark.parametrize(("metric", "from_zero"), [(Metric.ERROR, True), (Metric.DENOISING, False)])
def test_only_a_share_is_drawn_from_zero(run_of, metric, from_zero):
    section = section_of(analyse(run_of(metric, axes={"wtn": [0, 5, 10]}, elbow=1000), draws=0))
    drawn = [one for one in section.figures if one.stem in ("error-wtn", "traces-analog-tl")]
    assert len(drawn) == 2
    for figure in drawn:
        axes = styled(figure.draw).figure.axes[0]
        low, high = axes.get_ylim()
        assert (low <= 0) == from_zero
        assert low <= axes.dataLim.y0 < axes.dataLim.y1 <= high


def test_shares_on_arrays_that_differ_are_told_as_a_range(tmp_path):
    path = write_run(tmp_path / "run", arms=("analog-tl",), axes={"wtn": [0, 5]}, seeds=3)
    trials = pd.read_csv(path / "trials.csv")
    trials["share_on_arrays"] = trials["wtn"].map({0: 0.026, 5: 0.105})
    trials.to_csv(path / "trials.csv", index=False)
    section = section_of(analyse(read_run(path, "run"), draws=0))
    assert "2.6 to 10.5 % on arrays" in " ".join(section.limits)


@pytest.mark.parametrize("other", [Metric.CROSS_ENTROPY, Metric.BALANCED_ERROR])
def test_runs_of_several_metrics_are_not_drawn_together(tmp_path, other):
    for name, arms in (("images", ("digital-tl",)), ("texts", ("digital-tl",)), ("none", ())):
        write_run(tmp_path / name, arms=arms, seeds=1, epochs=1)
    as_losses(tmp_path / "texts", other)
    with pytest.raises(ExperimentError) as caught:
        build_report([tmp_path], tmp_path / "out", together=True)
    [line] = caught.value.problems
    assert Metric.ERROR.axis in line
    assert other.axis in line
    assert not (tmp_path / "out").exists()
    as_losses(tmp_path / "images", other)
    build_report([tmp_path], tmp_path / "out", together=True, formats=["csv"])


def test_results_pages_and_comparisons_of_runs_tell_losses_in_their_unit(
    tmp_path, monkeypatch, capsys
):
    axes = {"analog.device.preset": ["EcRamPresetDevice", "PCMPresetDevice"]}
    arms = ("analog-tl", "frozen-array", "shuffled-gradients")
    for name, start in (("one", 0), ("two", 10)):
        path = write_run(
            tmp_path / "runs" / name, arms=arms, axes=axes, seeds=3, epochs=6, start=start
        )
        as_losses(path, Metric.CROSS_ENTROPY)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- table one rows=arm -->\n<!-- end -->\n<!-- controls one -->\n<!-- end -->\n"
    )
    rewrite(page, tmp_path / "runs")
    heads = [line for line in page.read_text().splitlines() if line.startswith("| ")][:1]
    assert "(nats" in heads[0]
    text = page.read_text()
    assert "%)" not in text
    assert "points" not in text
    assert re.search(r"\| +0\.\d{3} ± 0\.\d{3} \|", text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")  # each row on one line
    with pytest.raises(SystemExit) as end:
        main(["runs", "diff", "one", "two"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert "nats" in told
    assert re.search(r"0\.\d{3} ± 0\.\d{3} \(3\) +[-+]0\.\d{3}", told)


def test_a_run_without_the_column_has_errors_in_percent(run_of):
    analysis = analyse(run_of(None), draws=0)
    assert analysis.error is Metric.ERROR
    heads = [column.heading for column in section_of(analysis).tables[0].columns]
    assert "judged error (%)" in heads
    assert "perplexity" not in heads


def test_published_findings_are_not_held_against_losses(run_of):
    from analogtl.analysis.findings import CONTROLS, judge_findings

    analysis = analyse(run_of(Metric.DENOISING), draws=0)
    told = [one for one in judge_findings([analysis], published=True) if one.experiment]
    assert {one.finding for one in told} <= set(CONTROLS)


def test_differences_of_losses_are_told_with_their_digits(run_of):
    from analogtl.analysis.findings import judge_findings
    from analogtl.report.run_tables import findings_table

    run = run_of(Metric.DENOISING, arms=("analog-tl", "frozen-array"))
    table = findings_table(judge_findings([analyse(run, draws=0)]))
    digits = {column.key: column.digits for column in table.columns}
    assert digits["estimate"] == digits["low"] == Metric.DENOISING.decimals


def test_losses_by_noise_and_samples_come_from_the_records(run_of):
    run = run_of(Metric.DENOISING)
    for number, trial in enumerate(run.chosen.rows["trial"]):
        folder = run.path / "trials" / trial
        folder.mkdir(parents=True, exist_ok=True)
        told = [{"time": t, "noise_share": t, "loss": t + number} for t in (0.25, 0.75)]
        details = {"by_noise": told, "samples": [[0.0, 1.0], [2.0, 3.0]]}
        write_sealed(folder / "trial.json", {"details": details})
    losses = denoising.by_noise(run)
    assert losses["n"].tolist() == [4] * 4
    first = losses[losses["arm"] == "digital-tl"].sort_values("noise_share")
    assert first["loss_mean"].diff().iloc[1] == pytest.approx(0.5)
    drawn = denoising.samples(run)
    assert set(drawn) == {("digital-tl", ""), ("analog-tl", "")}
    assert np.array_equal(drawn["analog-tl", ""], [[0, 1], [2, 3]])
    figures = {spec.stem: spec for spec in section_of(analyse(run, draws=0)).figures}
    assert "samples" in figures
    (ax,) = styled(figures["noise"].draw).figure.axes
    assert [list(line.get_xdata()) for line in ax.lines[:1]] == [[0.25, 0.75]]


def test_records_that_are_damaged_or_absent_are_left_out(run_of):
    run = run_of(Metric.DENOISING)
    folder = run.path / "trials" / run.chosen.rows["trial"].iloc[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trial.json").write_text(json.dumps({"details": {"by_noise": [{}]}}))
    assert denoising.by_noise(run).empty
    assert denoising.samples(run) == {}


def test_images_are_tiled_and_points_are_dots():
    images, points = np.zeros((7, 64)), np.zeros((9, 2))
    samples = {("analog-tl", "drive = 5"): images, ("digital-tl", ""): points}
    drawing = styled(lambda: samples_figure(samples))
    first, second = drawing.figure.axes[:2]
    assert len(first.images) == 1
    assert len(second.lines) == 1
