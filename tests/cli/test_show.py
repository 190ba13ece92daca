"""`analogtl show` of device files and experiments, one or several, and the lists of devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call

from analogtl.config import catalog
from analogtl.config.arrays import Analog, Device
from analogtl.config.load import load_experiment
from analogtl.crossbar.rpu_config import build_rpu_config
from analogtl.fastsim.config import unsupported_reason
from analogtl.files import digest

DEVICE = """\
class = "LinearStepDevice"
[parameters]
dw_min = 0.02
gamma_up = 0.5
[fit.intervals]
dw_min = [0.019, 0.021]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(DEVICE)
    return tmp_path


def values(records: list[dict], device: str) -> dict:
    return {r["parameter"]: r["value"] for r in records if r["device"] == device and "value" in r}


def test_a_device_file_is_shown_with_what_it_sets_and_its_intervals(capsys):
    records = call(capsys, "show", "mine.toml", "--set", "analog.device.dw_min_std=0.1", "--json")
    found = values(records.records, "mine.toml")
    assert (found["dw_min"], found["gamma_up"], found["dw_min_std"]) == (0.02, 0.5, 0.1)
    text = call(capsys, "show", "mine.toml").out
    assert "[0.019, 0.021]" in text
    assert "gamma_down" not in text  # as in every device of the class


def test_several_devices_stand_side_by_side(capsys):
    devices = ("mine.toml", "EcRamPresetDevice", "SoftBoundsDevice")
    result = call(capsys, "show", *devices, "--out", "all.svg")
    assert result.code == 0, result.err
    (heading,) = [line for line in result.out.splitlines() if line.split() == [*devices]]
    (row,) = [line for line in result.out.splitlines() if line.startswith("gamma_up ")]
    assert "0.5" in row[heading.index("mine.toml") : heading.index("EcRam")]
    assert "0.1153" in row[heading.index("EcRam") : heading.index("Soft")]
    assert not row[heading.index("Soft") :].strip()  # has no such parameter
    assert Path("all.svg").exists()


def test_the_devices_of_an_experiment_are_those_of_its_arrays_and_its_sweep(capsys):
    Path("slow.toml").write_text('name="s"\n[analog.device]\nfile="mine.toml"\n'
                                 "[analog.slow_device]\ndw_min=0.3\n")  # fmt: skip
    records = call(capsys, "show", "slow.toml", "--json").records
    assert values(records, "slow.toml")["dw_min"] == 0.02
    assert values(records, "slow.toml, slow array")["dw_min"] == 0.3
    sgd = call(capsys, "show", "slow.toml", "--set", "analog.algorithm=sgd", "--json").records
    assert {r["device"] for r in sgd} == {"slow.toml"}
    axis = "\"analog.device.file\" = ['mine.toml', 'EcRamPresetDevice']"
    Path("swept.toml").write_text(f'name="s"\n[analog.nonidealities]\nn_states=50\n'
                                  f"[sweep.axes]\n{axis}\n")  # fmt: skip
    records = call(capsys, "show", "swept.toml", "--json").records
    states = {r["device"]: r["nominal"] for r in records if r.get("name") == "number of states"}
    assert states == {f"swept.toml: {one}": 50 for one in ("mine.toml", "EcRamPresetDevice")}


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["none.toml"], "none.toml: no such file"),
        (["EcRamPresetDevic"], "'EcRamPresetDevice'"),
        (["quikstart"], "'quickstart'"),
        (["."], "plain file"),
        (["torn.toml"], "torn.toml:1:"),
        (["bare.toml"], "class"),
        (["mine.toml", "--set", "analog.device.dw_mn=1"], "'dw_min'"),
        (["mine.toml", *catalog.presets()], "11 devices"),
    ],
)
def test_what_is_no_device_is_one_line(capsys, argv, part):
    Path("torn.toml").write_text("class = ,")
    Path("bare.toml").write_text("[parameters]\ndw_min = 0.1\n")
    result = call(capsys, "show", *argv)
    assert (result.code, len(result.problems)) == (2, 1), result.err
    assert part in result.err


def test_every_parameter_of_every_class_is_listed_with_its_meaning(capsys):
    known = {one for cls in catalog.devices() for one in catalog.device_parameters(cls)}
    records = call(capsys, "list", "device-parameters", "--json").records
    assert {record["parameter"] for record in records} == known
    assert all(record["what_it_is"] for record in records)
    classes = call(capsys, "list", "devices", "--json").records
    assert [record["device_class"] for record in classes] == catalog.devices()


@pytest.mark.parametrize("cls", catalog.devices())
def test_the_fast_engine_takes_every_parameter_of_every_class(cls):
    fits = {"pow_gamma": 0.5, "n_estimation_steps": 10}
    for name, default in catalog.device_parameters(cls).items():
        other = not default if isinstance(default, bool) else [0.5]
        if isinstance(default, int | float) and not isinstance(default, bool):
            other = fits.get(name, default * 1.1 or 0.1)
        analog = Analog(device=Device(preset=cls, **{name: other}))
        assert unsupported_reason(build_rpu_config(analog)) is None, name


def test_what_a_dry_run_prints_is_the_same_experiment(capsys):
    Path("exp.toml").write_text(
        'name="s"\nkind="weight-programming"\n[analog.device]\nfile="mine.toml"\n'
        "dw_min_std=0.1\n[analog.slow_device]\nfile='mine.toml'\ndw_min=0.3\n"
        "[sweep.axes]\n'analog.device.file'=['mine.toml', 'EcRamPresetDevice']\n"
    )
    Path("again.toml").write_text(call(capsys, "sweep", "--dry-run").out)
    resolved = [load_experiment(one).resolved() for one in ("exp.toml", "again.toml")]
    assert resolved[0] == resolved[1]


def test_the_report_names_the_device_files(capsys, in_process):
    Path("exp.toml").write_text(
        'name="s"\nkind="weight-programming"\n[programming]\nsize=3\nvectors=4\nepochs=1\n'
        "[analog.device]\nfile='mine.toml'\n"
    )
    call(capsys, "finetune")
    assert call(capsys, "report", "runs/s", "--format", "html").code == 0
    assert "device file" in Path("runs/s/report/report.html").read_text()


PULSES = "device,cycle,pulse,direction,conductance\n" + "".join(
    f"d,0,{n},{'up' if n < 40 else 'down'},{20 + 10 * 0.02 * ((n if n < 40 else 79 - n) - 20)}\n"
    for n in range(80)
)


def inside(result) -> list[float]:
    return [r["measured"] for r in result.records if "central 90" in r.get("name", "")]


def test_a_device_file_is_shown_beside_the_data_that_it_names(capsys):
    Path("data").mkdir()
    Path("data/pulses.csv").write_text(PULSES)
    sha256 = digest(Path("data/pulses.csv"))
    fit = f'[fit]\nsource="pulses.csv"\nsha256="{sha256}"\ng_min=10.0\ng_max=30.0\n'
    Path("data/own.toml").write_text(DEVICE.partition("[fit")[0].replace("0.5", "0.0") + fit)
    Path("exp.toml").write_text('name="s"\n[analog.device]\nfile="data/own.toml"\n')
    for word in ("data/own.toml", "exp.toml"):
        (share,) = inside(call(capsys, "show", word, "--json"))
        assert share > 80
    assert call(capsys, "show", "data/own.toml", "--out", "own.svg").code == 0
    with Path("data/pulses.csv").open("a") as file:
        file.write("d,0,80,down,12\n")
    changed = call(capsys, "show", "data/own.toml", "--json")
    assert inside(changed) == []
    assert "has changed" in changed.err
    assert (
        len(inside(call(capsys, "show", "mine.toml", "--data", "data/pulses.csv", "--json"))) == 1
    )
    Path("data/pulses.csv").unlink()
    assert "--data" in call(capsys, "show", "data/own.toml").err
    missing = call(capsys, "show", "mine.toml", "--data", "none.csv")
    assert (missing.code, len(missing.problems)) == (2, 1)
