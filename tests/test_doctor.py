"""The doctor: what it finds here, and what it says on machines that are not well."""

import os
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from numba.core import config
from numba.core.caching import UserProvidedCacheLocator

from analogtl import doctor
from analogtl.doctor import Check, diagnose, is_mismatch

TORCH_RUNS = '{"name": "torch runs", "status": "ok", "found": "1 threads, MKL"}\n'
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.fixture
def ended(monkeypatch):
    """Lets the probe's process end as the test says, without starting one."""

    def end(stdout="", stderr="", code=0):
        def run(command, **_):
            return subprocess.CompletedProcess(command, code, stdout, stderr)

        monkeypatch.setattr(subprocess, "run", run)

    return end


def found(tmp_path) -> dict[str, Check]:
    return {check.name: check for check in diagnose(tmp_path)}


def test_this_machine_is_well(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path / "nothing"))
    result = call(capsys, "doctor", "--json", "--runs", tmp_path)
    checks = {record["name"]: record for record in result.records}
    assert result.code == 0, result.out
    assert "learns" in checks["aihwkit tile"]["found"]
    assert checks["torch"]["found"] == doctor.installed("torch")
    assert checks["cifar10"]["status"] == "note"
    assert "ANALOGTL_DATA" in checks["cifar10"]["advice"]
    assert all(record["advice"] for record in checks.values() if record["status"] != "ok")


def test_damaged_machine_code_is_told_and_mended(tmp_path, monkeypatch):
    from analogtl.fastsim import streams

    streams.stream(np.uint64(1), 0, 0)  # so that some machine code is kept, whatever ran before
    kept = streams.stream.stats.cache_path
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    locator = UserProvidedCacheLocator(streams.stream.py_func, streams.__file__)
    copy = Path(shutil.copytree(kept, locator.get_cache_path()))
    indices = list(copy.glob("checked-streams.stream*.nbi"))
    for index in indices:
        index.write_bytes(b"")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    [check] = [check for check in doctor.probe() if check.name == "numba"]
    assert check.status == "note"
    assert str(copy) in check.advice
    assert indices
    assert all(index.stat().st_size for index in indices)


def test_the_pairs_are_those_of_the_package():
    wanted = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    pinned = {line.split(";")[0].strip() for line in wanted if "==" in line}
    ours = set()
    for aihwkit, (torch, torchvision) in doctor.PAIRS.items():
        ours |= {f"aihwkit=={aihwkit}", f"torch=={torch}", f"torchvision=={torchvision}"}
    assert pinned == ours


def test_a_crash_of_the_tile_is_an_answer(ended, tmp_path):
    ended(stdout=TORCH_RUNS, code=-signal.SIGSEGV)
    checks = found(tmp_path)
    assert checks["torch runs"].status == "ok"
    assert checks["aihwkit tile"].status == "bad"
    assert "SIGSEGV" in checks["aihwkit tile"].found
    assert "pip install" in checks["aihwkit tile"].advice


def test_a_mismatch_is_told_with_the_pair_to_install(ended, tmp_path, monkeypatch, capsys):
    versions = {"torch": "2.13.0+cpu", "torchvision": "0.28.0", "aihwkit": "1.1.0"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    ended(
        stdout=TORCH_RUNS,
        stderr="Traceback (most recent call last):\nRuntimeError: Invalid weights dimensions\n",
        code=1,
    )
    checks = found(tmp_path)
    assert checks["pair"].status == "bad"
    assert "2.10.0" in checks["pair"].found
    assert "'torch==" in checks["pair"].advice
    assert "Invalid weights" in checks["aihwkit tile"].found
    result = call(capsys, "doctor", "--runs", tmp_path)
    assert result.code == 1
    assert "aihwkit tile" in result.out
    assert "-> pip install" in result.out


def test_what_is_not_installed_is_told_without_a_tile(ended, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda _name: None)
    ended(stderr="ModuleNotFoundError: No module named 'torch'", code=1)
    checks = found(tmp_path)
    assert {checks[name].status for name in ("torch", "torchvision", "aihwkit")} == {"bad"}
    assert "aihwkit tile" not in checks


def test_a_hanging_probe_is_given_up(monkeypatch):
    def run(command, **_):
        raise subprocess.TimeoutExpired(command, 1.0)

    monkeypatch.setattr(subprocess, "run", run)
    [check] = doctor.probe(1.0)
    assert (check.name, check.status) == ("torch runs", "bad")
    assert "within 1 s" in check.found


def test_a_pair_that_nobody_tried_counts_if_its_tile_runs(ended, tmp_path, monkeypatch):
    versions = {"torch": "3.0", "torchvision": "1.0", "aihwkit": "9.9"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    ended()
    assert found(tmp_path)["pair"].status == "note"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_bad(ended, tmp_path):
    ended()
    tmp_path.chmod(0o500)
    try:
        assert found(tmp_path / "runs")["disk"].status == "bad"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("x.so: undefined symbol: _ZN"), True),
        (ModuleNotFoundError("No module named 'torch'"), True),
        (ValueError("loss is not finite"), False),
    ],
)
def test_is_mismatch(error, expected):
    assert is_mismatch(error) is expected
