"""Sweeps of real trainings on the digits, through the same workers as a user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from analogtl.config.schema import Experiment
from analogtl.scheduling.sweep import Update, run_trials
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows

ARMS = ["digital-tl", "analog-tl", "digital-scratch", "analog-scratch", "frozen-array"]
TIMES = ("wall_s", "resumed")


def table(run: RunDir, name: str) -> list[dict[str, str]]:
    """A table without what may differ between two runs."""
    rows = read_rows(run.path / name)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def sweep(experiment: Experiment, run: RunDir, **given: Any) -> list[Update]:
    return list(run_trials(Study(experiment, run, sweep=True), **given))


@pytest.mark.slow
def test_the_number_of_workers_changes_no_result(tmp_path: Path, tiny: Any) -> None:
    experiment = tiny(
        finetune={"arms": ARMS}, analog={"engine": "fast"}, sweep={"axes": {"wtn": [0, 10]}}
    )
    one, two = RunDir(tmp_path / "one", "tiny"), RunDir(tmp_path / "two", "tiny")
    for run, jobs in ((one, 1), (two, 2)):
        updates = sweep(experiment, run, jobs=jobs)
        assert [u.text for u in updates if u.kind == "failed"] == []
    for name in ("trials.csv", "epochs.csv", "layers.csv"):
        assert table(one, name) == table(two, name)
        assert table(one, name)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_result(tmp_path: Path, tiny: Any) -> None:
    (tmp_path / "exp.toml").write_text(tomli_w.dumps(tiny().as_written()))
    tables = []
    for threads in ("1", "4"):
        root = tmp_path / threads
        for command in ("pretrain", "sweep"):
            subprocess.run(
                [sys.executable, "-m", "analogtl", command, "exp.toml", "--runs", str(root)],
                env={**os.environ, "OMP_NUM_THREADS": threads},
                cwd=tmp_path,
                check=True,
                capture_output=True,
            )
        tables.append(
            [table(RunDir(root, "tiny"), f"{name}.csv") for name in ("trials", "epochs", "layers")]
        )
    assert tables[0] == tables[1]


def test_a_sweep_pretrains_once_and_a_second_one_at_the_same_moment_not_at_all(
    tmp_path: Path, tiny: Any
) -> None:
    experiment = tiny(
        pretrain={"epochs": 15},
        finetune={"arms": ["digital-tl"], "epochs": 1},
        sweep={"seeds": [0, 1, 2]},
    )
    other = tiny(
        name="other",
        pretrain={"epochs": 15},
        finetune={"arms": ["digital-tl"], "epochs": 2},
        sweep={"seeds": [0, 1, 2]},
    )
    runs = [RunDir(tmp_path, "tiny"), RunDir(tmp_path, "other")]
    seen: list[list[Update]] = [[], []]

    def work(number: int) -> None:
        seen[number] = sweep([experiment, other][number], runs[number], jobs=1)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [u.kind for updates in seen for u in updates].count("done") == 6
    pretrained = {u.trial for updates in seen for u in updates if u.kind == "pretrain"}
    assert len(pretrained) <= 1, "at most one trial was seen to pretrain"
    folders = [p for p in (tmp_path / "pretrained").iterdir() if not p.name.startswith(".")]
    assert len(folders) == 1
    for run in runs:
        rows = [row for row in table(run, "epochs.csv") if row["stage"] == "pretrain"]
        epochs = [row["epoch"] for row in rows if row["split"] == "test"]
        assert epochs == [str(epoch) for epoch in range(16)], "each epoch once, in both tables"


@pytest.mark.slow
def test_a_killed_sweep_ends_where_an_undisturbed_one_does() -> None:
    # The script says more, and is for more kills: python tests/tools/kill_test.py
    script = Path(__file__).parents[1] / "tools" / "kill_test.py"
    command = [*(sys.executable, str(script), "--kills", "5"), *("--levels", "2", "--seeds", "1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is identical" in done.stdout


@pytest.mark.slow
def test_on_the_stock_engine_a_resumed_trial_says_so(tmp_path: Path, tiny: Any) -> None:
    experiment = tiny(
        finetune={"arms": ["analog-scratch"], "epochs": 60, "samples_per_class": 100},
        analog={"engine": "aihwkit"},
    )
    run = RunDir(tmp_path, "tiny")
    updates = run_trials(Study(experiment, run))
    for update in updates:
        if update.kind == "epoch" and update.row["epoch"] >= 3:
            os.kill(update.row["pid"], signal.SIGKILL)
            break
    texts = [update.text for update in updates if update.kind == "message"]
    assert "last checkpoint" in texts[0]
    [row] = read_rows(run.path / "trials.csv")
    assert (row["status"], row["resumed"], row["engine"]) == ("done", "true", "aihwkit")
    rows = read_rows(run.path / "epochs.csv")
    epochs = [row["epoch"] for row in rows if row["split"] == "test"]
    assert epochs == [str(epoch) for epoch in range(61)], "each epoch once"
