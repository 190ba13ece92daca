"""`validate`, dry runs and the start of a run know what can be known without training."""

import sys

import pytest
from command_line import call, written

SMALL = """
name = "small"
[model]
architecture = "mlp_digits"
[finetune]
arms = ["digital-scratch", "analog-scratch"]
"""
SWEEP = ("sweep", "--param", "wtn", "--values", "0,5")


@pytest.fixture(autouse=True)
def _small(elsewhere, tmp_path):
    written(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.architecture=mlp_digit", "'mlp_digits'"),
        ("model.kwargs={ depht = 3 }", "depht"),
        ("model.kwargs={ pretrained = true }", "pretrained"),
        ("finetune.validation_fraction=0.999", "validation_fraction"),
        ("analog.device.w_min=0.5", "w_min"),
        ("convert.digital_layers=nothing", "convert.digital_layers"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("validate", "exp.toml"), ("finetune", "--dry-run"), ("finetune",), (*SWEEP, "--dry-run")],
    ids=" ".join,
)
def test_every_way_in_knows_it_and_tells_it_once(capsys, tmp_path, command, setting, said):
    result = call(capsys, *command, "--set", setting)
    told = [line for line in (result.out + result.err).splitlines() if said in line]
    assert (result.code, len(told)) == (2, 1), result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["pretrain", "convert"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_first_stages_know_it_too(capsys, tmp_path, command, more):
    result = call(capsys, command, *more, "--set", "model.architecture=mlp_digit")
    assert (result.code, len(result.problems)) == (2, 2)
    result = call(capsys, command, *more, "--set", "kind=weight-programming", "--quiet")
    assert (result.code, len(result.problems)) == (2, 1)
    assert not (tmp_path / "runs").exists()


def test_a_backend_that_is_not_there_is_known(capsys, monkeypatch):
    for name in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    for backend in ("ray", "slurm"):
        for command in (("validate", "exp.toml"), (*SWEEP, "--dry-run"), SWEEP):
            result = call(capsys, *command, "--backend", backend)
            assert result.code == 2
            assert f"analogtl[{backend}]" in result.err
    option = ("--backend", "local", "--backend-option", "a=b")
    assert call(capsys, *SWEEP, "--dry-run", *option).code == 2


def test_data_that_is_not_here_is_a_note_unless_it_is_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path / "none"))
    setting = ("--set", "finetune.dataset=cifar10", "--set", "finetune.classes=2")
    setting += ("--set", "model.architecture=swin_cifar_desk", "--set", "data.download=false")
    result = call(capsys, "validate", "exp.toml", *setting)
    assert (result.code, len(result.problems)) == (0, 1)
    assert "cifar10" in result.err
    assert call(capsys, "validate", "exp.toml", "--need-data", *setting).code == 2
    (record,) = call(capsys, "validate", "exp.toml", "--json", *setting).records
    assert record["ok"]
    assert record["notes"]


def test_validate_looks_at_the_sweep_and_at_the_file_as_it_is(capsys, tmp_path):
    written(tmp_path, SMALL + "[sweep.axes]\n'analog.compound.n_reads_per_transfer' = [1, 3]\n")
    result = call(capsys, "validate", "exp.toml")
    assert (result.code, len(result.problems)) == (2, 1)
    assert "exp.toml: " in result.err
    assert "n_reads_per_transfer = 3" in result.err
    written(tmp_path, SMALL + "[analog.compound]\nn_reads_per_transfer = 3\n[sweep.axes]\n"
            "'analog.compound.n_reads_per_transfer' = [1]\n")  # fmt: skip
    assert call(capsys, "validate", "exp.toml").code == 2


def test_a_dry_run_tells_of_each_level_what_bodes_ill_once(capsys):
    noise = "analog.transfer_forward.out_noise"
    swept = ("--param", "wtn", "--values", "0,5", "--param", noise, "--values", "0.06,30")
    result = call(capsys, "sweep", *swept, "--set", "finetune.arms=analog-tl", "--dry-run")
    told = [line for line in result.problems if "transfer_forward" in line]
    [line] = [line for line in told if "hear" in line]
    assert line.count(f"{noise} = 30") == 2
    assert f"{noise} = 0.06" not in line
    assert result.code == 0
