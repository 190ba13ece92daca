"""How a sweep behaves when it has thousands of finished trials behind it.

    python tests/tools/many_trials.py [--trials 2000] [--epochs 100]

Records that many finished trials (made up; as large as real ones of that many epochs), and then
asks ``analogtl sweep`` for one more seed of them. It prints how long it takes until the first new
trial is handed to a worker and until that has evaluated its epoch 0, how long the tables take to
write and ``analogtl report`` to read and draw them, and the memory of the sweep's process then, and
of one that runs as many (empty) trials. Exit code 0: the first new trial within 5 s, the report
within 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

import fake_trials as fake

from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.scheduling.sweep import run_trials
from analogtl.study.provenance import usage
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.trial import trials_of

EXPERIMENT = """
name = "many"
[model]
architecture = "mlp_digits"
[finetune]
epochs = {epochs}
samples_per_class = 20
arms = ["analog-scratch"]
[sweep]
seeds = {seeds}
[sweep.axes]
wtn = [0, 2, 5, 10, 15, 20, 25, 30, 35, 40]
"""


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description="A sweep with thousands of finished trials.")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    seeds = options.trials // 10
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "many.toml")
        text = EXPERIMENT.format(epochs=options.epochs, seeds=list(range(seeds)))
        file.write_text(text, encoding="utf-8")
        run = RunDir(Path(folder, "runs"), "many")
        _record(load_experiment(file), run, options.epochs)
        began = time.perf_counter()
        run.collect()
        size = sum((run.path / name).stat().st_size for name in ("trials.csv", "epochs.csv"))
        print(f"tables: {time.perf_counter() - began:.1f} s for {size / 1e6:.0f} MB")

        command = [sys.executable, "-m", "analogtl", "report", str(run.path)]
        began = time.perf_counter()
        subprocess.run([*command, "--out", str(Path(folder, "report"))], check=True)
        report = time.perf_counter() - began
        print(f"report: {report:.1f} s")

        text = EXPERIMENT.format(epochs=options.epochs, seeds=list(range(seeds + 1)))
        file.write_text(text, encoding="utf-8")
        started, trained, memory = _first_new_trial(file, run)
        print(
            f"first new trial after {options.trials} finished: handed over after {started:.1f} s,"
        )
        print(f"its epoch 0 done after {trained:.1f} s; memory of the sweep {memory:.0f} MB")
        print(f"memory while {options.trials} trials run: {_memory(run, seeds)}")
    return 0 if started < 5 and report < 10 else 1


def _record(experiment: Experiment, run: RunDir, epochs: int) -> None:
    for trial in trials_of(experiment, sweep=True):
        error = 10 + 0.1 * trial.axes["wtn"] + trial.seed % 7
        row = {
            **trial_row(trial),
            "n_classes": 10,
            "engine": "fast",
            "status": "done",
            "error_final": error,
            "wall_s": 5.0,
        }
        run.write_trial(trial, row, fake.epochs_of(trial, epochs + 1), [])


def _first_new_trial(file: Path, run: RunDir) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "analogtl", "sweep", str(file), "--runs", str(run.root)]
    began = time.perf_counter()
    started = trained = memory = 0.0
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "started" and not started:
            started = time.perf_counter() - began
        if event["event"] == "epoch":
            trained = time.perf_counter() - began
            memory = _resident(process.pid)
            break
    process.kill()
    process.wait()
    process.stdout.close()
    return started, trained, memory


def _resident(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _memory(run: RunDir, seeds: int) -> str:
    """Resident memory of this process after each quarter of as many trials."""
    fresh = RunDir(run.root, "fresh")
    sweep = {"seeds": list(range(seeds)), "axes": {"wtn": list(range(10))}}
    study = fake.study(fresh, **sweep)
    updates = run_trials(study, jobs=2, function=fake.FUNCTION)
    seen = []
    done = 0
    for update in updates:
        done += update.kind == "done"
        if update.kind == "done" and done % (len(study.trials) // 4) == 0:
            seen.append(f"{_resident(os.getpid()):.0f}")
    workers = {
        json.loads(file.read_text())["usage"]["peak_memory_mb"]
        for file in fresh.path.glob("trials/*/trial.json")
    }
    return (
        f"{', '.join(seen)} MB after each quarter (peak {usage()['peak_memory_mb']}); "
        f"workers {min(workers)} to {max(workers)} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
