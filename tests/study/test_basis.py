"""Content of images, numerics and versions are in the key of a result; paths are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError, RunError
from analogtl.scheduling.plan import plan
from analogtl.study import basis
from analogtl.study.basis import Basis, check_versions, differences, fingerprint_at_hand
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial, trials_of
from analogtl.vocabulary import Arm

SETTINGS = {"dataset": "image_folder", "classes": None, "validation_fraction": 0.2}


def fill(folder: Path, *names: str) -> Path:
    """A folder of images, a class of each name."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (20 * number, i, i)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def on_images(tiny: Any, tmp_path: Path) -> Callable[[Path], Study]:
    """A study of both kinds of arm on a folder of images."""

    def make(folder: Path) -> Study:
        arms = {"arms": ["digital-tl", "digital-scratch"]}
        data = {"root": str(folder), "image_size": 8}
        made = tiny(data=data, pretrain=SETTINGS, finetune={**SETTINGS, **arms})
        return Study(made, RunDir(tmp_path / "runs", "tiny"))

    return make


def keys(study: Study) -> list[str]:
    return [trial.key for trial in study.trials] + [study.pretrain_key]


def finish(study: Study) -> None:
    for trial in study.trials:
        row = {**trial_row(trial), "status": "done", "error_final": 10.0}
        study.run.write_trial(trial, row, [], [])


def test_the_content_of_the_images_decides_and_not_their_place(
    on_images: Callable[[Path], Study], tmp_path: Path
) -> None:
    folder = fill(tmp_path / "images", "a", "b")
    first = on_images(folder)
    finish(first)
    moved = on_images(Path(shutil.copytree(folder, tmp_path / "elsewhere")))
    assert keys(moved) == keys(first)
    assert len(plan(moved).finished) == 2
    fill(folder, "c")
    changed = on_images(folder)
    assert not set(keys(changed)) & set(keys(first)), "trials and the pretrained model"
    assert set(plan(changed).changed.values()) == {"other data"}
    assert plan(changed).finished == set()


@pytest.mark.parametrize("what", ["numerics", "torch", "aihwkit", "timm"])
def test_versions_decide_what_is_done(
    tiny: Any, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    experiment = tiny(model={"architecture": "resnet10t"}) if what == "timm" else tiny()
    before = Study(experiment, run_dir)
    finish(before)
    earlier = keys(before)
    found = before.trials[0].basis
    if what == "numerics":
        monkeypatch.setattr(basis, "NUMERICS", found.numerics + 1)
    else:
        others = {**basis.versions(), what: "0.0.1"}
        monkeypatch.setattr(basis, "versions", lambda: others)
    after = Study(experiment, run_dir)
    assert not set(keys(after)) & set(earlier)
    [words] = set(plan(after).changed.values())
    assert words.startswith(f"{what} ")
    assert str(getattr(found, what)) in words
    with pytest.raises(RunError, match=str(getattr(found, what))):
        check_versions(found, experiment)


def test_what_comes_after_a_plus_is_no_other_version(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Basis.here(tiny(), ())
    others = {**basis.versions(), "torch": f"{before.torch}+cu129"}
    monkeypatch.setattr(basis, "versions", lambda: others)
    assert Basis.here(tiny(), ()) == before


def test_a_network_of_our_own_does_not_rest_on_timm(tiny: Any) -> None:
    assert Basis.here(tiny(), ()).timm == ""
    assert Basis.here(tiny(model={"architecture": "resnet10t"}), ()).timm != ""


def test_a_trial_carries_what_it_was_planned_with(tiny: Any, monkeypatch: Any) -> None:
    trial = trials_of(tiny(), sweep=False)[0]
    data = json.loads(json.dumps(trial.as_data()))
    monkeypatch.setattr(basis, "NUMERICS", 99)
    again = Trial.from_data(data)
    assert (again.basis, again.key) == (trial.basis, trial.key), "that of the submission"


def test_an_arm_rests_on_the_images_that_it_sees(tiny: Any) -> None:
    arms = ["digital-tl", "digital-scratch"]
    pretrained, scratch = trials_of(tiny(finetune={"arms": arms}), sweep=False)
    assert pretrained.basis.data[0] == scratch.basis.data[0]
    assert [len(one.basis.data) for one in (pretrained, scratch)] == [2, 1]
    other = tiny(finetune={"arms": arms}, pretrain={"classes": [0, 1]})
    changed, same = trials_of(other, sweep=False)
    assert changed.key != pretrained.key
    assert same.key == scratch.key
    assert basis.stages_of(tiny(), Arm.WEIGHT_PROGRAMMING) == ()


def test_what_would_be_downloaded_is_not_by_a_dry_run(tiny: Any, tmp_path: Path) -> None:
    absent = {"root": str(tmp_path)}
    one: Experiment = tiny(data=absent, finetune={"dataset": "cifar10", "classes": None})
    assert fingerprint_at_hand(one, "finetune") == ""
    assert fingerprint_at_hand(one, "pretrain") != ""
    never: Experiment = tiny(
        data={**absent, "download": False}, finetune={"dataset": "cifar10", "classes": None}
    )
    with pytest.raises(ExperimentError, match="not found"):
        fingerprint_at_hand(never, "finetune")
    dry = Study(one, RunDir(tmp_path / "runs", "tiny"), look=fingerprint_at_hand)
    assert "downloaded" in plan(dry).notes[0]


def test_differences_are_named_with_both_sides() -> None:
    before = {"settings": "a", "data": "x", "numerics": 1, "torch": "2.9.0", "timm": ""}
    now = {"settings": "b", "data": "y", "numerics": 2, "torch": "2.10.0", "timm": None}
    words = differences(before, now)
    assert words[:2] == ["other settings", "other data"]
    assert ["2.9.0" in word and "2.10.0" in word for word in words] == [False] * 3 + [True]
    assert differences({}, now)[1] == "unknown data"
    assert differences(now, now) == []
