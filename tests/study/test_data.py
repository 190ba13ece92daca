"""The images of a study: told, kept, and refused before anything runs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from fake_cifar import cifar100_files, write_archive
from PIL import Image

from analogtl.errors import ExperimentError
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study

EXPERIMENT = """
name = "x"
[pretrain]
dataset = "cifar100"
classes = ["apple", "bear"]
[finetune]
dataset = "image_folder"
samples_per_class = 10
arms = ["digital-tl"]
[data]
root = "images"
image_size = 32
min_test_images = 8
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment on 2 x 20 images of one's own and a small CIFAR-100 elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    archive = tmp_path / "data" / "cifar-100-python.tar.gz"
    write_archive(cifar100_files(), "cifar-100-python", archive)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "images" / name / f"{i:02}.bmp")
    (tmp_path / "images" / "a" / "notes.txt").touch()
    (tmp_path / "exp.toml").write_text(EXPERIMENT)
    return tmp_path


def test_each_stage_says_and_keeps_how_many_images_it_uses(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = json.loads(call(capsys, "finetune", "exp.toml", "--dry-run", "--json").out)
    Study.open("exp.toml", root="runs").prepare()
    kept = json.loads((here / "runs" / "x" / "data.json").read_text())
    assert kept == dry["data"]
    (finetune,) = kept["finetune"]
    counts = [(one["train"], one["validation"], one["test"]) for one in finetune["classes"]]
    assert counts == [(9, 1, 4), (9, 1, 4)]
    assert sum(finetune["left_out"].values()) == 1
    (pretrain,) = kept["pretrain"]
    assert [one["name"] for one in pretrain["classes"]] == ["apple", "bear"]
    Study.open("exp.toml", root="runs").prepare(with_trials=False)  # forgets nothing
    assert json.loads((here / "runs" / "x" / "data.json").read_text()) == kept


WRONG = {
    "an absent class": (["pretrain.classes=apple,bed"], "bed"),
    "an absent folder": (["data.root=nowhere"], "nowhere"),
    "few test images": (["data.min_test_images=9"], "8 test images"),
    "no such class of one's own": (["finetune.classes=a,c"], "'c'"),
    "nothing to download": (
        ["pretrain.dataset=cifar10", "pretrain.classes=2", "data.download=false"],
        "cifar-10",
    ),
}


@pytest.mark.parametrize(("settings", "part"), WRONG.values(), ids=WRONG)
def test_what_cannot_run_is_told_by_validate_and_by_a_dry_run(
    here: Path, capsys: pytest.CaptureFixture[str], settings: list[str], part: str
) -> None:
    assert call(capsys, "validate", "exp.toml").code == 0
    options = [word for setting in settings for word in ("--set", setting)]
    # Without --need-data an absent data set is a note to `validate`: a login node may lack them.
    commands = (["validate", "exp.toml", "--need-data"], ["finetune", "exp.toml", "--dry-run"])
    for command in commands:
        result = call(capsys, *command, *options)
        assert result.code == 2
        assert [line for line in result.problems if part in line]
        assert len(set(result.problems)) == len(result.problems)
    with pytest.raises(ExperimentError):
        Study.open("exp.toml", settings, root="runs").prepare()
    assert not RunDir(Path("runs"), "x").path.exists()


def test_what_would_be_downloaded_is_no_problem(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: list[Any] = ["--set", "pretrain.dataset=cifar10", "--set", "pretrain.classes=2"]
    assert call(capsys, "validate", "exp.toml", *options).code == 0


def test_a_data_folder_is_relative_to_the_file_and_on_the_command_line_to_the_current_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    os.rename(here / "images", here / "elsewhere" / "mine")
    read = Study.open(here / "exp.toml").experiment.data.root
    given = Study.open(here / "exp.toml", ["data.root=mine"]).experiment.data.root
    assert read == str(here / "images")
    assert given == str(here / "elsewhere" / "mine")
