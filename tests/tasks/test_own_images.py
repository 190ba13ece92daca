"""Folders of images of one's own: split by a seed, classes of different sizes."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from command_line import call
from PIL import Image
from torch import nn

from analogtl.errors import ExperimentError
from analogtl.study.basis import fingerprint_of
from analogtl.study.data import check_choosable, data_of
from analogtl.study.study import Study
from analogtl.tasks.counts import held_out
from analogtl.tasks.folders import find_images
from analogtl.tasks.images import ImageTask, Split, load_task
from analogtl.training.loop import evaluate
from analogtl.training.run_trial import run_trial

CLASSES = {"big cat": 60, "dog": 20, "ox": 10}
EXPERIMENT = """\
name = "own"
model.architecture = "mlp_digits"
data = { root = "images", image_size = 8, min_test_images = 1 }
pretrain = { dataset = "image_folder", epochs = 0 }
finetune = { dataset = "image_folder", classes = ["big cat", "ox"], epochs = 1 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number, (name, count) in enumerate(CLASSES.items()):
        for i in range(count):
            file = tmp_path / "images" / name / ("more" if i % 3 else ".") / f"{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 80 * number, 0)).save(file)
    (tmp_path / "exp.toml").write_text(EXPERIMENT)
    return tmp_path / "images"


def drawn(folder: Path, seed: int | None) -> list[set[str]]:
    found = find_images(folder, seed)
    return [{str(path.relative_to(folder)) for path in one} for one in found.test]


def test_a_seed_draws_one_in_five_of_each_class(folder):
    first, other = drawn(folder, 1), drawn(folder, 2)
    assert [len(one) for one in first] == [12, 4, 2]
    assert first != other
    found = find_images(folder, 1)
    for train, test, count in zip(found.train, found.test, CLASSES.values(), strict=True):
        assert len({*train, *test}) == len(train) + len(test) == count
    assert drawn(folder, None) != first


def test_the_draw_is_the_same_elsewhere_and_beside_other_classes(folder, tmp_path):
    before = drawn(folder, 1)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "big cat")
    assert drawn(tmp_path / "copy", 1) == before[1:]


def test_the_split_is_part_of_every_key(folder):
    keys = [
        {one.key for one in Study.open("exp.toml", settings).trials}
        for settings in ([], ["data.split_seed=1"], ["data.split_seed=2"])
    ]
    assert len(set.union(*keys)) == sum(map(len, keys))
    again = Study.open("exp.toml", ["data.split_seed=1"]).experiment
    task = load_task("image_folder", root=folder, image_size=8, split_seed=1)
    assert len(task.test) == 18
    assert fingerprint_of(again, "finetune") != fingerprint_of(again, "pretrain")


def test_what_is_split_already_is_not_split_again(folder):
    for split in ("train", "test"):
        shutil.copytree(folder, folder.with_name("split") / split)
    with pytest.raises(ExperimentError, match="split_seed"):
        find_images(folder.with_name("split"), 1)


def test_the_images_of_each_class_are_counted(folder, capsys):
    result = call(capsys, "validate", "exp.toml")
    assert result.code == 0
    assert "big cat 43/5/12, ox 7/1/2" in result.err
    assert "imbalanced" in result.err
    (one,) = call(capsys, "validate", "exp.toml", "--json").records
    assert [each["train"] for each in one["data"]["pretrain"][0]["classes"]] == [48, 16, 8]
    even = ("--set", "finetune.samples_per_class=5", "--set", "finetune.test_samples_per_class=2")
    dry = call(capsys, "finetune", "exp.toml", "--dry-run", *even).out
    line = next(line for line in dry.splitlines() if "finetune on" in line)
    assert "big cat" in line
    assert "imbalanced" not in line


class Same(nn.Module):
    """Answers the first class, whatever it sees."""

    def forward(self, images):
        return torch.tensor([1.0, 0.0, 0.0]).expand(len(images), -1)


def test_the_balanced_error_is_the_mean_of_the_errors_of_the_classes():
    labels = torch.tensor([0] * 7 + [1] * 2)  # and none of the third class
    split = Split(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), labels)
    task = ImageTask(split, split, split, ("a", "b", "c"), (0.5,), (0.5,))
    score = evaluate(Same(), split, task)
    assert score.error == pytest.approx(100 * 2 / 9)
    assert score.balanced_error == pytest.approx(50.0)


def test_trials_have_a_balanced_error_where_classes_are_imbalanced(folder, run_dir):
    settings = ["finetune.arms=digital-scratch"]
    row = run_trial(Study.open("exp.toml", settings).trials[0], run_dir)
    assert 0 <= row["balanced_error_final"] <= 100
    assert row["balanced_error_final"] != pytest.approx(row["error_final"])
    assert "balanced_error_validation" in row
    even = [*settings, "finetune.test_samples_per_class=2"]
    row = run_trial(Study.open("exp.toml", even).trials[0], run_dir)
    assert "balanced_error_final" not in row


def test_what_is_judged_by_the_balanced_error_is_shown_and_chosen_by_it(folder, capsys, in_process):
    asked = ["report.metric=balanced-error", "finetune.arms=digital-scratch"]
    flags = [part for one in asked for part in ("--set", one)]
    assert "Balanced test" in call(capsys, "finetune", "exp.toml", *flags).out
    tune = ["sweep.tune.seeds=9", 'sweep.tune.candidates={"finetune.lr" = [0.01, 0.1]}']
    for margin, fits in ((20, False), (60, True)):  # one validation image of 6, of 1 of the oxen
        study = Study.open("exp.toml", [*asked, *tune, f"report.margin={margin}"])
        data = data_of([(study.experiment, "finetune")], at_hand=False)
        with nullcontext() if fits else pytest.raises(ExperimentError, match="margin"):
            check_choosable(study.experiment, data)


def test_a_class_of_few_images_is_validated_on_one_of_them():
    assert [held_out(3, 0.1), held_out(30, 0.1), held_out(3, 0.0)] == [1, 3, 0]
