"""A sweep on a disk that fills up or becomes read-only: one clear error, and then it goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_trials as fake
import pytest

from analogtl.errors import RunError
from analogtl.scheduling.sweep import run_trials
from analogtl.study.run_dir import RunDir
from analogtl.study.tables import read_rows

SEEDS = list(range(12))
Remount = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[RunDir, Remount]]:
    """A run on a disk of its own, and a function that mounts it with other options."""
    folder = tmp_path / "runs"
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    try:
        mount("size=160k")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small disk")
    yield RunDir(folder, "fake"), lambda options: mount(f"remount,{options}")
    while subprocess.run(["umount", "-l", str(folder)], capture_output=True).returncode == 0:
        pass  # also what a test that failed has left on top of it


def sweep(run: RunDir, behaviour: dict[str, str]) -> Iterator[object]:
    return run_trials(fake.study(run, behaviour, seeds=SEEDS), jobs=2, function=fake.FUNCTION)


def finished(run: RunDir) -> set[str]:
    return {t.id for t in fake.trials(seeds=SEEDS) if run.record(t.id) is not None}


def test_a_full_disk_ends_the_sweep_and_loses_nothing(disk: tuple[RunDir, Remount]) -> None:
    run, remount = disk
    with pytest.raises(RunError) as caught:
        list(sweep(run, {}))
    assert "\n" not in str(caught.value)
    assert "No space" in str(caught.value) or "is full" in str(caught.value)
    before = finished(run)
    assert 1 <= len(before) < 2 * len(SEEDS), "some fitted, some did not"
    remount("size=20m")
    list(sweep(run, {}))
    assert len(finished(run)) == 2 * len(SEEDS)
    rows = read_rows(run.path / "trials.csv")
    assert sorted(row["trial"] for row in rows) == sorted(finished(run))
    assert {row["status"] for row in rows} == {"done"}
    for name in before:
        assert len(fake.attempts(run, name)) == 1, "what was finished is not run again"


def test_a_disk_that_becomes_read_only_ends_the_sweep(
    disk: tuple[RunDir, Remount], tmp_path: Path
) -> None:
    run, remount = disk
    remount("size=20m")
    view = tmp_path / "read-only view of it"
    view.mkdir()

    def mount(*arguments: object) -> None:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)

    mount("--bind", run.root, view)
    mount("-o", "remount,bind,ro", view)
    behaviour = {"arm": "sleep 0.1"}
    updates = sweep(run, behaviour)
    for update in updates:
        if getattr(update, "kind", "") == "done":
            mount("--bind", view, run.root)  # over it, as the workers' logs are open
            break
    with pytest.raises(RunError, match=r"Read-only|be written"):
        list(updates)
    with pytest.raises(RunError, match=r"Read-only|be written"):
        list(sweep(run, behaviour))
    for folder in (run.root, view):
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert len(finished(run)) >= 1
    list(sweep(run, behaviour))
    assert len(finished(run)) == 2 * len(SEEDS)


def test_little_space_left_after_a_failure_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint may not fit where the small record of the failure does; each trial would fail.
    run = RunDir(tmp_path / "runs", "fake")
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)  # type: ignore[attr-defined]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(RunError, match=r"full \(1 MB"):
        list(sweep(run, {"seed=1": "fail"}))
    statuses = [row["status"] for row in read_rows(run.path / "trials.csv")]
    assert statuses.count("failed") <= 2, "one failed, another may have been running"
