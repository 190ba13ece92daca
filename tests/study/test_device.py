"""What a stage computes on: chosen, checked, and a part of what a result rests on."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from analogtl.cli.app import run as analogtl
from analogtl.config.load import with_settings
from analogtl.errors import ExperimentError
from analogtl.study import device
from analogtl.study.basis import Basis, differences
from analogtl.study.device import arrays_stay, check_device, device_of
from analogtl.study.trial import Trial, trials_of
from analogtl.vocabulary import Arm


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: 1)


def basis(experiment: Any, arm: Arm) -> Basis:
    return next(t for t in trials_of(experiment, sweep=False) if t.arm is arm).basis


def test_without_a_gpu_all_is_on_the_cpu_and_keys_are_as_they_were(tiny: Any) -> None:
    for trial in trials_of(tiny(), sweep=False):
        assert trial.basis.devices == ()
        names = {field.name for field in dataclasses.fields(Basis)} - {
            "devices",
            "weights",
            "transformers",
        }
        assert set(trial.basis.as_data()) == names
        assert trial.basis.columns()["device"] == "cpu"


def test_a_gpu_takes_what_is_digital(tiny: Any, one_gpu: None) -> None:
    assert basis(tiny(), Arm.DIGITAL_TL).devices == ("cuda", "cuda")
    analog = basis(tiny(), Arm.ANALOG_TL)
    assert (analog.devices, analog.columns()["device"]) == (("cpu", "cuda"), "cpu+cuda")
    assert analog.of_pretraining().devices == ("cuda",)
    assert basis(tiny(run={"device": "cpu"}), Arm.DIGITAL_TL).devices == ()


def test_arrays_are_on_a_gpu_only_with_an_aihwkit_that_can(
    tiny: Any, one_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = tiny(analog={"engine": "aihwkit"})
    monkeypatch.setattr(device, "has_cuda_arrays", lambda: True)
    assert device_of(stock, "finetune", Arm.ANALOG_TL) == "cuda"
    assert device_of(tiny(), "finetune", Arm.ANALOG_TL) == "cpu"
    assert arrays_stay(stock, stock.arms) == ""
    assert "fast" in arrays_stay(tiny(), tiny().arms)
    monkeypatch.setattr(device, "has_cuda_arrays", lambda: False)
    assert device_of(stock, "finetune", Arm.ANALOG_TL) == "cpu"
    assert "aihwkit" in arrays_stay(stock, stock.arms)


def test_a_result_of_a_gpu_is_another_result(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trials_of(tiny(), sweep=False)
    monkeypatch.setattr(device, "gpus", lambda: 1)
    after = trials_of(tiny(), sweep=False)
    for mine, other in zip(before, after, strict=True):
        assert mine.key != other.key
        assert mine.pretrain_key != other.pretrain_key
        assert len(differences(mine.basis.columns(), other.basis.columns())) == 1
        assert Trial.from_data(json.loads(json.dumps(other.as_data()))).key == other.key
    row = before[0].basis.columns()
    earlier = {name: value for name, value in row.items() if name != "device"}
    assert differences(earlier, row) == []


def test_threads_change_no_key(tiny: Any) -> None:
    one, several = (trials_of(tiny(run={"threads": n}), sweep=False) for n in (1, 3))
    assert [trial.key for trial in one] == [trial.key for trial in several]


def test_a_gpu_that_is_not_there_is_said(tiny: Any) -> None:
    with pytest.raises(ExperimentError, match="CUDA"):
        check_device("cuda")
    check_device("cpu")


@pytest.mark.parametrize(
    "command", [["finetune"], ["pretrain"], ["convert"], ["sweep", "--param", "wtn"]]
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_command_for_a_gpu_that_is_not_there_is_refused(
    command: list[str], dry: list[str], tmp_path: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert analogtl([command[0], "quickstart", *command[1:], *dry, "-q", "--device", "cuda"]) == 2
    said = capsys.readouterr()
    [line] = said.err.strip().splitlines()
    assert "run.device" in line
    assert list(tmp_path.iterdir()) == []


def test_no_driver_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    device.gpus.cache_clear()
    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    assert device.gpus() == 0
    device.gpus.cache_clear()


def test_visible_gpus_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "gpus", lambda: 2)
    monkeypatch.setenv(device.VISIBLE, "3,GPU-8d")
    assert device.visible_gpus() == ["3", "GPU-8d"]
    monkeypatch.delenv(device.VISIBLE)
    assert device.visible_gpus() == ["0", "1"]


def test_a_basis_is_known_again(tiny: Any, one_gpu: None) -> None:
    found = basis(tiny(), Arm.ANALOG_TL)
    assert Basis.from_data(json.loads(json.dumps(found.as_data()))) == found
    assert dataclasses.replace(found, devices=()).device == "cpu"
    settings = with_settings(tiny(), {"run.device": "cpu"})
    assert Basis.from_data(basis(settings, Arm.ANALOG_TL).as_data()).device == "cpu"
