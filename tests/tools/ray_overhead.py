"""What a Ray cluster adds to a trial: 4 workers on two nodes of this machine, trials of 30 s.

    python tests/tools/ray_overhead.py [--trials 16] [--seconds 30]

A trial imports what a real one does (torch, aihwkit) and then waits, so that four of them fit on a
machine with fewer cores. The overhead is the wall time of the whole sweep beyond the trials' own
time, per trial and worker. Exit code 0 means under 3 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

import fake_trials as fake

from analogtl.scheduling.sweep import run_trials
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import Trial

WORKERS = 4


def wait(trial: Trial, run: RunDir, limits: RunLimits) -> dict[str, Any]:
    """The trial."""
    began = time.time()
    import analogtl.training.run_trial  # noqa: F401

    imported = time.time()
    row = fake.run_trial(trial, run, limits)
    with open(run.root / "log", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {began} {imported} {time.time()}\n")
    return row


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description="What a Ray cluster adds to a trial.")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()

    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=WORKERS // 2)
    behaviour = {"arm": f"sleep {options.seconds}"}
    sweep: dict[str, Any] = {"seeds": list(range(options.trials)), "axes": {}}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder), "fake")
        began = time.time()
        updates = run_trials(
            fake.study(run, behaviour, **sweep),
            backend="ray",
            address=cluster.address,
            function="ray_overhead:wait",
        )
        done = sum(update.kind == "done" for update in updates)
        wall = time.time() - began
        lines = [line.split() for line in (run.root / "log").read_text().splitlines()]
    ray.shutdown()
    cluster.shutdown()

    rounds = -(-options.trials // WORKERS)
    first = max(float(line[2]) for line in lines[:WORKERS]) - began
    steady = (wall - first - options.seconds * rounds) / max(1, rounds)
    whole = wall / rounds / options.seconds - 1
    print(f"{done} trials of {options.seconds:g} s on {WORKERS} workers: {wall:.1f} s in all")
    print(f"until all workers had started and imported: {first:.1f} s, once")
    print(f"then {steady:.2f} s per trial beyond its own time: {steady / options.seconds:.2%}")
    print(f"with the start spread over {rounds} trials per worker: {whole:.2%}")
    return 0 if done == options.trials and steady < 0.03 * options.seconds else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    sys.exit(main())
