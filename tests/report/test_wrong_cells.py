"""One wrong cell or field costs its row or itself, never the report, and is always told."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call
from report_data import write_run
from wrong_cells import Change, changes

from analogtl.analysis.read import read_run
from analogtl.errors import RunError
from analogtl.report.build import build_report
from analogtl.study.checked import MAX_TOLD

SAMPLED = 8


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of which one gets wrong cells."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("good", "wrong"):
        write_run(
            root / name, arms=("digital-tl", "analog-tl"), axes={"wtn": [0, 5]}, seeds=2, epochs=1,
            layers=("body", "head"),
        )  # fmt: skip
    return root


def applied(runs: Path, change: Change, folder: Path) -> Path:
    root = folder / "runs"
    shutil.copytree(runs, root)
    (root / "wrong" / change.file).write_text(change.content, encoding="utf-8")
    return root


def rows_of(path: Path) -> dict[str, int]:
    run = read_run(path, "wrong")
    return {
        "trials.csv": len(run.trials), "epochs.csv": len(run.epochs), "layers.csv": len(run.layers)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "column", "cell"),
    [
        ("trials.csv", "error_final", "12,5"),
        ("trials.csv", "error_final", ""),
        ("trials.csv", "error_final", "101"),
        ("trials.csv", "error_best", "inf"),
        ("trials.csv", "wall_s", "-3"),
        ("trials.csv", "seed", "2.5"),
        ("trials.csv", "seed", ""),
        ("trials.csv", "arm", "analog-t1"),
        ("trials.csv", "status", "dne"),
        ("trials.csv", "wtn", "much"),
        ("trials.csv", "trial", '"'),
        ("epochs.csv", "error", "text"),
        ("epochs.csv", "epoch", "nan"),
        ("epochs.csv", "split", "tset"),
        ("layers.csv", "relative_error", "1e999"),
        ("layers.csv", "tiles", "-1"),
    ],
)
def test_a_wrong_cell_costs_its_row_and_is_named(
    runs: Path, tmp_path: Path, file: str, column: str, cell: str
) -> None:
    path = runs / "wrong" / file
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    # The last row is the test error of an analog trial's last epoch.
    cells = pd.read_csv(path, dtype=str, keep_default_na=False).iloc[-1].tolist()
    cells[header.index(column)] = cell
    quoted = ",".join(f'"{c}"' if "," in c else c for c in cells)
    change = Change(file, column, cell, "\n".join([*lines[:-1], quoted]) + "\n")
    root = applied(runs, change, tmp_path)
    assert rows_of(root / "wrong")[file] == rows_of(runs / "wrong")[file] - 1
    (told,) = read_run(root / "wrong", "wrong").unreadable
    assert told.startswith(f"{root / 'wrong' / file}:{len(lines)}: ")
    assert cell == '"' or column in told


def test_a_report_goes_on_and_ends_with_exit_code_1(
    runs: Path, tmp_path: Path, capsys: Any
) -> None:
    (change,) = [one for one in changes(runs / "wrong") if one.name == "trials.csv seed '12,5'"]
    root = applied(runs, change, tmp_path)
    result = call(capsys, "report", root, "--format", "csv", "--out", tmp_path / "out")
    assert result.code == 1
    place = f"{root / 'wrong' / 'trials.csv'}:{change.line}: seed"
    assert len([line for line in result.err.splitlines() if place in line]) == 1
    for name in ("good", "wrong"):
        assert (tmp_path / "out" / name / "outcomes.csv").is_file()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("report", '{"alpha": 0.9}'),
        ("report", '{"margin": "2"}'),
        ("report", "[]"),
        ("sweep", '{"axes": {"wtn": 5}}'),
        ("description", "7"),
    ],
)
def test_a_wrong_field_is_left_out_and_named(
    runs: Path, tmp_path: Path, key: str, value: str
) -> None:
    change = Change("experiment.resolved.json", key, value, f'{{"name": "x", "{key}": {value}}}')
    root = applied(runs, change, tmp_path)
    (line,) = build_report([root], tmp_path / "out", formats=["csv"]).damaged
    assert f"{change.file}: {key}" in line


def test_a_column_that_is_gone_or_empty_costs_the_run_or_its_rows(
    runs: Path, tmp_path: Path
) -> None:
    gone = {one.name: one for one in changes(runs / "wrong") if one.file == "trials.csv"}
    root = applied(runs, gone["trials.csv error_final gone"], tmp_path / "gone")
    with pytest.raises(RunError, match="error_final"):
        read_run(root / "wrong", "wrong")
    assert len(build_report([root], formats=["csv"]).damaged) == 1
    root = applied(runs, gone["trials.csv error_final all ''"], tmp_path / "empty")
    run = read_run(root / "wrong", "wrong")
    assert run.trials.empty
    assert len(run.unreadable) == MAX_TOLD + 1  # the first few, and how many more


def sample(runs: Path, number: int) -> list[Change]:
    return random.Random(0).sample(list(changes(runs / "wrong")), number)


def test_a_sample_of_changes_ends_in_a_report_or_a_line(
    runs: Path, tmp_path: Path, capsys: Any
) -> None:
    for number, change in enumerate(sample(runs, SAMPLED)):
        folder = tmp_path / str(number)
        root = applied(runs, change, folder)
        result = call(capsys, "report", root, "--format", "csv", "--out", folder / "out")
        assert result.code in (0, 1), (change.name, result.err)
        assert "internal error" not in result.err, (change.name, result.err)
        assert list((folder / "out").rglob("outcomes.csv"))


@pytest.mark.slow
def test_every_change_ends_in_a_report_or_a_line(runs: Path, tmp_path: Path, capsys: Any) -> None:
    for number, change in enumerate(changes(runs / "wrong")):
        folder = tmp_path / str(number)
        root = applied(runs, change, folder)
        result = call(capsys, "report", root, "--format", "csv", "--out", folder / "out")
        assert "internal error" not in result.err, (change.name, result.err)
        shutil.rmtree(folder)
