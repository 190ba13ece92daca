"""Whatever becomes of a file of a run: it is made again, set aside, or named; no row is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fake_trials as fake
import pytest
from command_line import call

from analogtl.errors import RunError
from analogtl.files import digest, write_sealed
from analogtl.study.columns import EPOCH_COLUMNS
from analogtl.study.run_dir import RunDir
from analogtl.study.tables import read_rows, write_rows

MODEL = "0123456789abcdef"
TABLES = ("trials.csv", "epochs.csv", "layers.csv")
FILES = (
    *("experiment.resolved.json", "provenance.json", "plan.json", *TABLES),
    *("pretrain/epochs.csv", "pretrain/checkpoint.json", "trials/{trial}/trial.json"),
    *("trials/{trial}/epochs.csv", "trials/{trial}/progress.json"),
)
FOLDERS = ("pretrain", "trials/{trial}")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lines_gone(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def a_digit_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def a_list(path: Path) -> None:
    path.write_text("[1]")


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def other_types(path: Path) -> None:
    """Every value of a JSON object of another type; a table of one long cell."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        path.write_text("x" * 1000)
    else:
        path.write_text(json.dumps({key: [{"x": None}, value] for key, value in content.items()}))


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


DAMAGES = (
    *(emptied, cut, lines_gone, a_digit_changed, garbage, gone, a_folder, a_list, deep),
    other_types,
)


def finish(run: RunDir) -> None:
    """The command that makes the run, with a pretraining that is found trained."""
    study = fake.study(run)
    study.prepare()
    plan = json.loads((run.path / "plan.json").read_text())
    (run.path / "plan.json").write_text(json.dumps({**plan, "pretrained": [MODEL]}))
    for trial in study.trials:
        run.record(trial.id)
        assert fake.run_trial(trial, run)["status"] == "done"
    run.collect()


@pytest.fixture
def whole(run: RunDir) -> RunDir:
    rows = [
        {"trial": "pretrain", "stage": "pretrain", "epoch": epoch, "split": "test", "error": 9.5}
        for epoch in range(11)
    ]
    model = run.pretrained / MODEL
    write_rows(model / "epochs.csv", EPOCH_COLUMNS, rows)
    about = {"epochs": digest(model / "epochs.csv"), "settings": {}}
    write_sealed(model / "checkpoint.json", {"meta": {"about": about}})
    finish(run)
    run.note_pretraining(MODEL)
    run.collect()
    trial = fake.trials()[0]
    (run.trial_path(trial.id) / "progress.json").write_text('{"epoch": 1, "updated_at": 1.0}')
    return run


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in FILES for damage in DAMAGES),
        *((name, damage) for name in FOLDERS for damage in (a_file, shutil.rmtree)),
    ],
)
def test_a_damaged_file_costs_no_row(
    whole: RunDir, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    file = whole.path / name.format(trial=fake.trials()[0].id)
    expected = {table: read_rows(whole.path / table) for table in TABLES}
    assert len(expected["epochs.csv"]) > 11
    damage(file)

    for command in ("list", "show fake", "clean --dry-run --all", "diff fake fake"):
        looked = call(capsys, "runs", *command.split(), "--runs", whole.root)
        assert "internal error" not in looked.err, command
    for _ in range(2):  # the second time nothing is wrong any more
        capsys.readouterr()
        finish(whole)
    assert capsys.readouterr().err == ""
    again = {table: read_rows(whole.path / table) for table in TABLES}
    assert again == expected


@pytest.mark.parametrize("name", ["trials", ".locks"])
def test_a_file_in_the_place_of_a_folder_is_named(whole: RunDir, name: str) -> None:
    a_file(whole.path / name)
    with pytest.raises(RunError, match=rf"{name}"):
        finish(whole)


def test_a_pretraining_that_is_gone_with_its_model_is_told(
    whole: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(whole.pretrained)
    cut(whole.path / "pretrain" / "epochs.csv")
    whole.collect()
    assert "pretrain" in caplog.text
    assert os.listdir(whole.damaged) == ["pretrain.1"]


def test_runs_list_names_what_is_damaged(whole: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    cut(whole.path / "plan.json")
    cut(whole.trial_path(fake.trials()[0].id) / "trial.json")
    listed = call(capsys, "runs", "--runs", whole.root)
    assert listed.code == 0
    assert [name in listed.err for name in ("plan.json", "trial.json")] == [True, True]
