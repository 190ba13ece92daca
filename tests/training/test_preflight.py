"""What is found before anything is trained: whatever a training would fail of at once."""

import shutil
from pathlib import Path

import pytest
import torch
from fake_cifar import cifar100_files, write_folder
from PIL import Image

from analogtl.errors import ExperimentError
from analogtl.study.basis import no_look
from analogtl.study.data import data_of
from analogtl.study.trial import trials_of
from analogtl.tasks.stand_in import stand_in
from analogtl.training import preflight as module
from analogtl.training.preflight import Need, Preflight, planned_layers, preflight
from analogtl.training.stages import task_of

REFUSED = {"compound": {"n_reads_per_transfer": 3}}  # by aihwkit, when an array is made
DIGITAL = {"finetune": {"arms": ["digital-scratch"]}}


def problems(experiment, *, sweep: bool = False, **more) -> list[str]:
    try:
        preflight(map(Need.of, trials_of(experiment, sweep=sweep, look=no_look)), **more)
    except ExperimentError as error:
        return error.problems
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of three classes; the third has one for training."""
    for split, counts in (("train", (8, 5, 1)), ("test", (3, 3, 3))):
        for name, count in zip("abc", counts, strict=True):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (9, 9), (number * 20, 50, 90))
                image.save(tmp_path / "images" / split / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"architecture": "mlp_digit"}}, "'mlp_digits'"),
        ({"data": {"image_size": 7}, "model": {"architecture": "swin_digits"}}, "7 x 7"),
        ({"model": {"kwargs": {"depht": 3}}}, "depht"),
        ({"convert": {"digital_layers": ["nothing"]}}, "convert.digital_layers"),
        ({"convert": {"digital_layers": ["*"]}}, "convert.digital_layers"),
        ({"finetune": {"validation_fraction": 0.999}}, "validation_fraction"),
        ({"finetune": {"samples_per_class": 1}}, "samples_per_class"),
        ({"finetune": {"dataset": "image_folder", "classes": 2}}, "[data] root"),
        ({"data": {"root": "/nowhere"}, "finetune": {"dataset": "image_folder", "classes": 2}},
         "/nowhere"),
        ({"data": {"root": "~nobody_/x"}, "finetune": {"dataset": "image_folder", "classes": 2}},
         "~nobody_/x"),
        ({"analog": REFUSED}, "analog"),
        ({"analog": {"engine": "fast", "forward": {"mv_type": "PosNegSeparate"}}}, "engine"),
    ],
)  # fmt: skip
def test_what_fails_at_once_is_found(tiny, changes, said):
    (problem,) = problems(tiny(**changes))
    assert said in problem


def test_all_problems_come_at_once_and_each_once(tiny):
    experiment = tiny(
        model={"architecture": "nothing"},
        analog=REFUSED,
        finetune={"validation_fraction": 0.999},
        sweep={"seeds": [0, 1, 2]},
    )
    assert len(problems(experiment)) == 2  # without images no network can be built
    experiment = tiny(model={"architecture": "nothing"}, analog=REFUSED)
    assert len(problems(experiment)) == 2


def test_a_level_that_is_wrong_is_named(tiny):
    experiment = tiny(sweep={"axes": {"analog.compound.n_reads_per_transfer": [1, 3]}})
    (problem,) = problems(experiment, sweep=True)
    assert "analog.compound.n_reads_per_transfer = 3" in problem


def test_an_arm_is_not_blamed_for_what_it_does_not_use(tiny):
    wrong = {"analog": REFUSED, "pretrain": {"dataset": "image_folder"}}
    assert problems(tiny(**wrong, **DIGITAL)) == []
    experiment = tiny(kind="weight-programming", model={"architecture": "nothing"})
    assert problems(experiment, sweep=True) == []


def test_a_class_that_the_copy_lacks_is_found(tiny, tmp_path):
    write_folder(cifar100_files(), tmp_path / "cifar-100-python")
    changes = {"finetune": {"dataset": "cifar100", "classes": ["bear", "bed"]}}
    experiment = tiny(
        data={"root": str(tmp_path), "image_size": 8, "min_test_images": 1},
        finetune={**changes["finetune"], "arms": ["digital-scratch"]},
    )
    (problem,) = problems(experiment)
    assert "bed" in problem


def test_data_that_is_not_here_is_a_note_unless_it_is_needed(tiny, tmp_path):
    experiment = tiny(
        data={"root": str(tmp_path / "none"), "download": False},
        model={"architecture": "swin_cifar_desk"},
        finetune={"dataset": "cifar100", "classes": "trees", "arms": ["digital-scratch"]},
    )
    trials = trials_of(experiment, sweep=False, look=no_look)
    (note,) = preflight(map(Need.of, trials), need_data=False)
    assert "cifar100" in note
    with pytest.raises(ExperimentError):
        preflight(map(Need.of, trials), need_data=True)


@pytest.mark.parametrize(
    ("dataset", "changes"),
    [
        ("digits", {}),
        ("digits", {"samples_per_class": 5, "test_samples_per_class": 3}),
        ("digits", {"validation_fraction": 0.3}),
        ("image_folder", {"classes": ["a", "b"]}),
        ("cifar100", {"classes": None}),
    ],
)
def test_a_stand_in_is_as_large_as_the_task(tiny, tmp_path, folder, dataset, changes):
    write_folder(cifar100_files(), tmp_path / "cifar-100-python")
    root = folder if dataset == "image_folder" else tmp_path
    section = {"dataset": dataset, "samples_per_class": None, **changes}
    data = {"root": str(root), "min_test_images": 1}
    experiment = tiny(data=data, finetune=section)
    real = task_of(experiment, "finetune")
    (counts,) = data_of([(experiment, "finetune")], at_hand=True)
    black = stand_in(dataset, counts.classes, None)
    assert black.class_names == real.class_names
    for split in ("train", "validation", "test"):
        one, other = getattr(black, split), getattr(real, split)
        assert one.images.shape == other.images.shape
        assert torch.equal(one.labels.bincount(), other.labels.bincount())


def test_random_numbers_and_the_run_are_left_alone(tiny):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert problems(tiny()) == []
    assert torch.rand(1) == expected


def test_the_same_thing_is_checked_once(tiny, monkeypatch):
    calls = []
    real = module._try_array
    monkeypatch.setattr(module, "_try_array", lambda analog: (calls.append(1), real(analog)))
    axes = {"convert.weight_transfer_noise": [0, 1, 2, 3], "finetune.lr": [0.1, 0.2]}
    assert problems(tiny(sweep={"axes": axes, "seeds": [0, 1]}), sweep=True) == []
    assert len(calls) == 1


def test_it_needs_no_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problems(tiny()) == []
    assert not any(tmp_path.iterdir())
    shutil.rmtree(tmp_path)


def test_a_network_is_built_once_for_its_checks_and_for_the_table_of_its_layers(tiny, monkeypatch):
    built, fresh = [], module.fresh_model
    monkeypatch.setattr(module, "fresh_model", lambda *args: built.append(1) or fresh(*args))
    axes = {"wtn": [0, 5], "analog.transfer_forward.out_noise": [0.06, 30.0]}
    analog = {"drive": "auto", "granularity_per_token": "auto"}
    experiment = tiny(sweep={"axes": axes}, finetune={"arms": ["analog-tl"]}, analog=analog)
    needs = [Need.of(trial) for trial in trials_of(experiment, sweep=True)]
    checks = Preflight(need_data=False)
    checks.check(needs)
    quiet, deaf, *others = [checks.layers(need)[1] for need in needs]
    assert len(built) == 1
    assert [row["layer"] for row in quiet] == ["body.1", "body.3", "head"]
    assert quiet[0]["read_snr"] > 10 * deaf[0]["read_snr"]
    assert others == [quiet, deaf]
    assert quiet == planned_layers(needs[0].experiment)[1]
