"""Device files: what is read is what was written, what is wrong has a line, and what counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from analogtl.config.device_file import DeviceFile, read_device, write_device
from analogtl.config.load import load_experiment, with_settings
from analogtl.errors import ExperimentError
from analogtl.study.basis import no_look
from analogtl.study.run_dir import trial_row
from analogtl.study.study import Study
from analogtl.study.trial import Trial

DEVICE = """\
class = "SoftBoundsReferenceDevice"
[parameters]
dw_min = 0.02
w_max_dtod = 0.1
[fit]
source = "pulses.csv"
"""
EXPERIMENT = """\
name = "mine"
kind = "weight-programming"
[analog]
algorithm = "ttv2"
[analog.device]
file = "mine.toml"
dw_min_std = 0.1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(DEVICE)
    (tmp_path / "exp.toml").write_text(EXPERIMENT)
    return tmp_path


def key(folder: Path, *settings: str) -> str:
    return Study.open(folder / "exp.toml", settings, sweep=True, look=no_look).trials[0].key


def test_what_is_written_is_read_again(tmp_path):
    fit = {"source": "a.csv", "g_min": 1e-6, "intervals": {"dw_min": [0.019, 0.021]}}
    parameters = {
        "piecewise_up": [1.0, 0.5],
        "piecewise_down": [1, 2],
        "dw_min": 0.02,
        "dw_min_dtod_log_normal": True,
    }
    device = DeviceFile("PiecewiseStepDevice", parameters, fit)
    write_device(tmp_path / "d.toml", device, "two\nlines")
    assert read_device(tmp_path / "d.toml") == device
    with pytest.raises(ExperimentError, match="dw_min"):
        write_device(tmp_path / "e.toml", DeviceFile("PowStepDevice", {"dw_mim": 1.0}))
    assert not (tmp_path / "e.toml").exists()


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('class = "SoftBoundsDevise"', ["1: class"]),
        ("class = 3", ["1: class"]),
        ("[parameters]\ndw_min = 1.0", ["bad.toml: class"]),
        (EXPERIMENT, ["bad.toml: class"]),
        ('class = "PowStepDevice"\nparameters = 3', ["2: parameters"]),
        ('class = "PowStepDevice"\ndw_min = 0.1', ["2: dw_min"]),
        ('class = "PowStepDevice"\nfits = 1', ["2: fits"]),
        (
            'class = "PowStepDevice"\n[parameters]\ndw_mim = 1\npow_gamma = "a"\nw_max = -1\n'
            "mult_noise = 1\npow_up_down = inf",
            [f"{n}: parameters." for n in (3, 4, 5, 6, 7)],
        ),
        ('class = "PowStepDevice"\n[fit]\nsource = 1\ng_min = "1 uS"', ["3: fit", "4: fit"]),
        ('class = "PowStepDevice"\n[fit.intervals]\ndw_min = [0.1, inf]', ["2: fit.intervals"]),
        (
            'class = "SoftBoundsPmaxDevice"\n[parameters]\nrange_min = 0.1\nalpha = 0\n'
            "p_max = 1.5\ndw_min_std = 1e300",
            [f"{n}: parameters." for n in (3, 4, 5, 6)],
        ),
        ('class = "PiecewiseStepDevice"\n[parameters]\npiecewise_up = [1, 2]', ["2: parameters"]),
        ('class = "PowStepDevice"\n[parameters]\nw_min = 0.1', ["3: parameters.w_min"]),
        ("class = ,", ["1: not valid"]),
        ("", ["empty"]),
        ("a = " + 2000 * "[", ["nested"]),
        ("#" + 1_000_001 * "x", ["too large"]),
        ("class = '\ud800'", ["1: not UTF-8"]),
    ],
)
def test_what_is_wrong_with_a_device_file_is_told_with_its_line(folder, text, places):
    (folder / "bad.toml").write_bytes(text.encode(errors="surrogatepass"))
    for read in (
        lambda: read_device(Path("bad.toml")),
        lambda: load_experiment("exp.toml", ["analog.device.file=bad.toml"]),
    ):
        with pytest.raises(ExperimentError) as caught:
            read()
        assert len(caught.value.problems) == len(places)
        for problem, place in zip(caught.value.problems, places, strict=True):
            assert "bad.toml" in problem
            assert place in problem


def test_a_setting_of_the_experiment_comes_over_the_file(folder):
    device = load_experiment("exp.toml", ["analog.device.dw_min=0.3"]).analog.array_device
    assert device.preset == "SoftBoundsReferenceDevice"
    assert device.parameters == {"dw_min": 0.3, "dw_min_std": 0.1, "w_max_dtod": 0.1}


def test_the_content_of_a_device_file_counts_and_its_name_and_origin_do_not(folder):
    before = key(folder)
    shutil.copy("mine.toml", "other.toml")
    with Path("other.toml").open("a") as file:
        file.write("rows = 12\n")
    assert key(folder, "analog.device.file=other.toml") == before
    Path("other.toml").write_text(DEVICE.replace("0.02", "0.03"))
    assert key(folder, "analog.device.file=other.toml") != before


def test_a_device_file_is_the_same_as_its_class_and_parameters(folder):
    before = key(folder)
    (folder / "exp.toml").write_text(
        EXPERIMENT.replace('file = "mine.toml"', 'preset = "SoftBoundsReferenceDevice"')
        + "dw_min = 0.02\nw_max_dtod = 0.1\n"
    )
    assert key(folder) == before


def test_an_experiment_needs_its_device_file_only_to_be_read(folder):
    experiment = load_experiment("exp.toml")
    (folder / "mine.toml").unlink()
    again = with_settings(experiment, {"programming.epochs": 2})
    assert again.analog.array_device == experiment.analog.array_device


def test_a_trial_that_runs_elsewhere_has_its_device_with_it(folder):
    trial = Study.open(folder / "exp.toml", sweep=True, look=no_look).trials[0]
    frozen = json.loads(json.dumps(trial.as_data()))
    (folder / "mine.toml").write_text(DEVICE.replace("0.02", "0.03"))
    again = Trial.from_data(frozen)
    assert again.experiment.analog.array_device.parameters["dw_min"] == 0.02
    assert again.key == trial.key


def test_a_device_file_beside_the_experiment_is_found_from_anywhere(folder, tmp_path_factory):
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_experiment(folder / "exp.toml").analog.array_device.parameters["dw_min"] == 0.02


def test_device_files_and_presets_are_levels_of_a_sweep(folder):
    axes = {"analog.device.file": ["mine.toml", "ReRamSBPresetDevice"], "dw_min_std": [0.1, 0.2]}
    study = Study.open(folder / "exp.toml", sweep=True, axes=axes, look=no_look)
    devices = [trial.experiment.analog.array_device for trial in study.trials]
    classes = {device.preset for device in devices}
    assert classes == {"SoftBoundsReferenceDevice", "ReRamSBPresetDevice"}
    assert len({trial.key for trial in study.trials}) == 4
    common = {trial_row(trial)["settings"] for trial in study.trials}
    assert len(common) == 1  # else a report would not take them for one experiment
    axes["analog.device.file"][0] = "none.toml"
    with pytest.raises(ExperimentError, match="none"):
        Study.open(folder / "exp.toml", sweep=True, axes=axes, look=no_look)


def test_the_slow_array_has_a_device_of_its_own(folder):
    from analogtl.crossbar.rpu_config import build_rpu_config

    (folder / "slow.toml").write_text('class = "EcRamPresetDevice"\n')
    settings = ["analog.slow_device.file=slow.toml", "analog.slow_device.dw_min_dtod=0.2"]
    fast, slow = build_rpu_config(
        load_experiment("exp.toml", settings).analog
    ).device.unit_cell_devices
    assert type(fast).__name__ == "SoftBoundsReferenceDevice"
    assert type(slow).__name__ == "EcRamPresetDevice"
    assert (slow.dw_min_dtod, slow.dw_min, fast.dw_min) == (0.2, 0.002, 0.02)
    assert key(folder, *settings) != key(folder)
    with pytest.raises(ExperimentError, match="reference_std"):
        load_experiment("exp.toml", [*settings, "analog.slow_device.reference_std=0.1"])


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (["analog.device.file=none.toml"], "none.toml"),
        (["analog.device.file=EcRamPresetDevic"], "'EcRamPresetDevice'"),
        (["analog.device.file=."], "plain file"),
        (["analog.slow_device.file=3"], "slow_device.file"),
        (["analog.device.preset=EcRamPresetDevice"], "device.file"),
        (
            ["analog.device.file=PiecewiseStepDevice", "analog.device.piecewise_up=[1,2]"],
            "device.piecewise",
        ),
        (["analog.device.reference_std=0.1", "analog.device.file=EcRamPresetDevice"], "reference"),
        (["sweep.axes.spv=[1,2]", "analog.device.file=EcRamPresetDevice"], "reference_std"),
        (['sweep.axes={"analog.device.preset"=["EcRamPresetDevice"]}'], "device.file"),
    ],
)
def test_what_does_not_go_together_is_one_line(folder, settings, word):
    with pytest.raises(ExperimentError, match=word) as caught:
        load_experiment("exp.toml", settings)
    assert len(caught.value.problems) == 1


def test_a_file_with_both_a_preset_and_a_device_file_is_refused(folder):
    (folder / "exp.toml").write_text(EXPERIMENT + 'preset = "EcRamPresetDevice"\n')
    with pytest.raises(ExperimentError, match=r"exp\.toml:6: analog\.device\.file"):
        load_experiment("exp.toml")
    (folder / "above.toml").write_text('extends="quickstart"\n' + EXPERIMENT)
    assert load_experiment("above.toml").analog.array_device.parameters["dw_min"] == 0.02
