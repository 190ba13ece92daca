"""Kill a sweep again and again, and compare what it ends in with a sweep that nobody disturbed.

    python tests/tools/kill_test.py [--kills 100] [--jobs 2] [--seed 0] [--levels 3] [--seeds 4]

A sweep of short trials on the digits (fast engine, every arm) runs once undisturbed. Then the same
sweep runs in a fresh directory and is killed with SIGKILL, which no process can prepare for:

- the whole process group, at a random moment of its first seconds of work,
- the same, in the moment in which it writes some file,
- the same, at a random moment before there is any work (imports, planning),
- a single worker, while the sweep goes on.

After each kill of the group the same command is given again. When a sweep is through before there
were enough kills, another fresh directory is taken. In the end, every table of every directory must
hold what the undisturbed one does, cell for cell, but for times (``wall_s``) and for ``resumed``.
Exit code 0 means that it does. Linux only (it finds workers in /proc).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

EXPERIMENT = """
name = "kills"

[model]
architecture = "mlp_digits"

[pretrain]
classes = [0, 1, 2, 3, 4]
epochs = 15
batch_size = 16

[finetune]
classes = [5, 6, 7, 8, 9]
samples_per_class = 100
epochs = 4
batch_size = 8
arms = ["digital-tl", "analog-tl", "digital-scratch", "analog-scratch", "frozen-array"]

[analog]
engine = "fast"

[sweep]
seeds = {seeds}

[sweep.axes]
wtn = {levels}
"""
TABLES = ("trials.csv", "epochs.csv", "layers.csv")


class Sweep:
    """The sweep command on one folder of runs."""

    def __init__(self, experiment: Path, runs: Path, jobs: int) -> None:
        self.run = runs / "kills"
        self.log = runs.with_suffix(".log")
        self.command = [
            *(sys.executable, "-m", "analogtl", "sweep", str(experiment), "--runs", str(runs)),
            *("--jobs", str(jobs), "--quiet"),
            *("--checkpoint-minutes", "0.002"),  # many checkpoints: many moments to hit
        ]

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(self.command, start_new_session=True, stdout=log, stderr=log)

    def finish(self) -> None:
        """Give the command until it says that all is done."""
        for _ in range(5):
            if self.start().wait() == 0:
                return
        raise SystemExit(f"the sweep does not end well: {self.log}")


def main() -> int:
    """Run the test; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill a sweep again and again.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    with tempfile.TemporaryDirectory() as folder:
        return _test(parser.parse_args(), Path(folder))


def _test(options: argparse.Namespace, folder: Path) -> int:
    dice = random.Random(options.seed)
    experiment = folder / "kills.toml"
    levels = [5 * level for level in range(options.levels)]
    text = EXPERIMENT.format(seeds=list(range(options.seeds)), levels=levels)
    experiment.write_text(text, encoding="utf-8")

    undisturbed = Sweep(experiment, folder / "undisturbed", options.jobs)
    began = time.monotonic()
    process = undisturbed.start()
    before = _wait_for_work(process, undisturbed.run)
    process.wait()
    undisturbed.finish()
    length = time.monotonic() - began
    expected = {name: _table(undisturbed.run / name) for name in TABLES}
    trials = set(expected["trials.csv"]["trial"])
    print(f"undisturbed: {len(trials)} trials in {length:.0f} s on {options.jobs} workers")

    kills: Counter[str] = Counter()
    sweeps: list[Sweep] = []
    starts = 0
    began = time.monotonic()
    while kills.total() < options.kills:
        sweeps.append(Sweep(experiment, folder / f"disturbed-{len(sweeps)}", options.jobs))
        done = False
        while not done and kills.total() < options.kills:
            process = sweeps[-1].start()
            starts += 1
            before_it = kills.total()
            done = _disturb(process, sweeps[-1].run, dice, before, kills, options.kills)
            if kills.total() // 10 > before_it // 10:
                print(f"  {kills.total()} kills, sweep {len(sweeps)}", flush=True)
        sweeps[-1].finish()
    print(
        f"killed {kills.total()} times in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{count} x {kind}" for kind, count in sorted(kills.items()))
        + f"; {starts} starts of {len(sweeps)} sweeps"
    )

    wrong = 0
    counts: Counter[str] = Counter()
    for sweep in sweeps:
        tables = {name: _table(sweep.run / name) for name in TABLES}
        for name, table in tables.items():
            counts[f"rows of {name}"] += len(table)
            if not table.equals(expected[name]):
                wrong += 1
                print(f"{sweep.run / name}: {len(table)} rows, expected {len(expected[name])}")
                both = table.merge(expected[name], how="outer", indicator="side")
                print(both[both["side"] != "both"])
        found = tables["trials.csv"]["trial"]
        counts["trials"] += len(found)
        counts["lost"] += len(trials.difference(found))
        counts["doubled"] += int(found.duplicated().sum())
        counts["resumed"] += int(pd.read_csv(sweep.run / "trials.csv")["resumed"].sum())
        counts["torn files"] += len(list((sweep.run / "damaged").glob("*")))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print("every table is identical" if not wrong else f"{wrong} tables differ")
    return 1 if wrong or counts["lost"] or counts["doubled"] or counts["torn files"] else 0


def _disturb(
    process: subprocess.Popen[bytes],
    run: Path,
    dice: random.Random,
    before: float,
    kills: Counter[str],
    most: int,
) -> bool:
    """Kill a sweep once, and perhaps some of its workers first; return whether it ended by itself.

    Args:
        process: The sweep.
        run: Its run directory.
        dice: What decides.
        before: Seconds that it takes until there is work, about.
        kills: Where kills are counted, until there are `most`.
    """
    while kills.total() < most:
        kind = dice.choice(["work", "work", "work", "write", "write", "worker", "start"])
        if kind == "start":
            _sleep(process, dice.uniform(0, before))
        else:
            _wait_for_work(process, run)
            _sleep(process, dice.uniform(0, 5))
        end = time.monotonic() + 10
        while kind == "write" and process.poll() is None and time.monotonic() < end:
            if _writing(run):
                break
        if process.poll() is not None:
            return True
        if kind != "worker":
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moment = {"work": "at work", "write": "in a write", "start": "while it starts"}[kind]
            kills[f"the group {moment}"] += 1
            return False
        workers = _workers(process.pid)
        if workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
            kills["one worker"] += 1
    return process.wait() == 0


def _sleep(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


def _wait_for_work(process: subprocess.Popen[bytes], run: Path) -> float:
    """Wait until a trial (or the pretraining) writes something; return how long that took."""
    began = time.monotonic()
    newest = _newest(run)
    while process.poll() is None and _newest(run) <= newest:
        time.sleep(0.05)
    return time.monotonic() - began


def _newest(run: Path) -> float:
    """When a trial last wrote something."""
    patterns = ("trials/*", "trials/*/resume/*", "../pretrained/*", "../pretrained/*/resume")
    newest = 0.0
    for folder in (folder for pattern in patterns for folder in run.glob(pattern)):
        with contextlib.suppress(OSError):
            newest = max(newest, folder.stat().st_mtime)
    return newest


def _writing(run: Path) -> bool:
    """Whether some file of the run is half-written this moment."""
    recent = time.time() - 0.05
    for place, folders, names in os.walk(run):
        folders[:] = [name for name in folders if name not in ("logs", ".locks")]
        for name in names:
            with contextlib.suppress(OSError):
                half = name.endswith(".part")
                if half and os.lstat(os.path.join(place, name)).st_mtime > recent:
                    return True
    return False


def _workers(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"analogtl.scheduling.worker" in command:
            found.append(int(folder.name))
    return found


def _table(path: Path) -> pd.DataFrame:
    """A table as text, without what may differ between two sweeps."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.drop(columns=["wall_s", "resumed"], errors="ignore")


if __name__ == "__main__":
    sys.exit(main())
