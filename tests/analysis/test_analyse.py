"""A run as one object: in the order of its file, each choice and each fit made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_data import write_run

from analogtl.analysis import critical_point, select_lr, summaries
from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.curves import curves
from analogtl.analysis.read import find_runs, read_run, run_names
from analogtl.errors import ExperimentError
from analogtl.report.build import build_report

ALGORITHMS = ["sgd", "c-ttv2", "agad"]


def analysed(folder: Path, **options: Any) -> RunAnalysis:
    run = write_run(folder, arms=("digital-tl", "analog-tl"), epochs=2, **options)
    return analyse(read_run(run, folder.name))


def test_one_report_chooses_each_rate_and_fits_each_curve_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"wtn": [0, 5, 10, 15, 20], "spv": [0, 10]}
    run = write_run(tmp_path / "run", arms=("digital-tl", "analog-tl"), axes=axes, epochs=2)
    calls = {"_choose": 0, "_test_levels": 0}

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def count(*args: Any) -> Any:
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(module, name, count)

    counted(select_lr, "_choose")
    counted(critical_point, "_test_levels")
    build_report([run], formats=["html", "csv", "markdown"])
    assert calls == {"_choose": 10 + 1, "_test_levels": 2 + 5}  # levels and digital; curves


def test_names_keep_the_order_of_the_file_and_numbers_ascend(tmp_path: Path) -> None:
    axes = {"analog.algorithm": ALGORITHMS, "n_states": [50, 4, 10]}
    analysis = analysed(tmp_path / "run", axes=axes, seeds=2)
    path = analysis.run.path / "trials.csv"
    pd.read_csv(path).sort_values("analog.algorithm").to_csv(path, index=False)
    analysis = analyse(read_run(analysis.run.path, "run"))
    expected = [(name, states) for name in ALGORITHMS for states in (4, 10, 50)]
    for frame in (analysis.levels, analysis.stages, analysis.traces, analysis.layers):
        found = frame[frame["arm"] == "analog-tl"][list(axes)].drop_duplicates()
        assert list(found.itertuples(index=False, name=None)) == expected
    assert analysis.levels["arm"].iloc[0] == "digital-tl"
    assert analysis.axes == list(axes)


def test_the_experiments_margin_and_alpha_count_unless_given(tmp_path: Path) -> None:
    run = analysed(tmp_path / "run", axes={"wtn": [0, 5]}, seeds=2).run
    assert (analyse(run).margin, analyse(run).alpha) == (2.0, 0.05)
    run.experiment["report"] = {"margin": 4.5, "alpha": -1, "findings": True}
    assert (analyse(run).margin, analyse(run).alpha) == (4.5, 0.05)
    given = analyse(run, margin=3, alpha=0.1)
    assert (given.margin, given.alpha, given.asks_for_findings) == (3, 0.1, True)
    assert {one.point.margin for one in given.curves} == {3}


def test_another_error_can_be_judged(tmp_path: Path) -> None:
    run = analysed(tmp_path / "run", axes={"wtn": [0, 5]}, seeds=3).run
    (last,), (first,) = analyse(run).curves, analyse(run, metric="error_transfer").curves
    assert sum(first.curve.errors) > sum(last.curve.errors)


def test_runs_are_found_in_the_order_of_their_numbers_and_named_apart(tmp_path: Path) -> None:
    for name in ("fig10", "fig2", "a/same", "b/same"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "trials.csv").write_text("")
    found = find_runs([tmp_path, tmp_path / "fig2"])
    assert [path.name for path in found] == ["same", "same", "fig2", "fig10"]
    assert run_names(found[2:]) == ["fig2", "fig10"]
    assert run_names(found) == ["/".join(path.resolve().parts[-2:]) for path in found]


def test_an_unknown_column_or_axis_is_an_error_with_the_nearest_right_one(tmp_path: Path) -> None:
    analysis = analysed(tmp_path / "run", axes={"wtn": [0, 5]}, seeds=2)
    chosen, levels = analysis.run.chosen, analysis.levels
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: analyse(analysis.run, metric="eror_final"), "error_final"),
        (lambda: list(curves(chosen, metric="eror_best")), "error_best"),
        (lambda: list(curves(chosen, metric="arm")), "error_final"),
        (lambda: summaries.series(levels, "wtm", "error_final", []), "wtn"),
        (lambda: summaries.series(levels, "wtn", "error_finl", []), "error_final"),
        (lambda: summaries.series(levels, "wtn", "error_final", ["svp"]), "svp"),
        (lambda: summaries.baselines(levels, "wtm", "error_final"), "wtn"),
        (lambda: summaries.baselines(levels, "wtn", "error_finl"), "error_final"),
    ]
    for call, near in calls:
        with pytest.raises(ExperimentError, match=near):
            call()
