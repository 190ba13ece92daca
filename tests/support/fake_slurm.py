"""A Slurm of one machine, for tests: `sbatch`, `srun`, `sacct`, `scontrol` and `scancel`.

Put its folder of commands on the PATH (`install`). The tasks of an array run as processes, all at
once; the options of each submission are kept in ``submissions.jsonl``. It knows just what submitit
asks of a Slurm.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 120.0  # seconds; only a failure takes them
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")


def install(folder: Path) -> Path:
    """Write the commands into a folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        script = folder / name
        script.write_text(
            f"#!/bin/sh\nFAKE_SLURM={shlex.quote(str(folder))} exec {shlex.quote(sys.executable)} "
            f'{shlex.quote(__file__)} {name} "$@"\n'
        )
        script.chmod(0o755)
    return folder


def keep_busy(folder: Path) -> None:
    """Let what is submitted from now on wait in the queue until `make_room`."""
    (folder / "busy").touch()


def make_room(folder: Path) -> None:
    """Run what waits in the queue."""
    (folder / "busy").unlink()
    for pending in sorted(folder.glob("*.pending")):
        pending.unlink()
        launch(folder, pending.stem)


def submissions(folder: Path) -> list[dict[str, str]]:
    """The options of each call of sbatch."""
    file = folder / "submissions.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def sbatch(folder: Path, script: Path) -> None:
    options = _options(script)
    job = 1000 + len(submissions(folder))
    with open(folder / "submissions.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(options) + "\n")
    kept = folder / f"{job}.sh"
    kept.write_text(script.read_text())
    array = re.match(r"(\d+)-(\d+)", options.get("array", ""))
    tasks = range(int(array[1]), int(array[2]) + 1) if array else [0]
    if "dependency" not in options:  # what depends on others is never run here
        for task in tasks:
            job_id = f"{job}_{task}" if array else str(job)
            if (folder / "busy").exists():
                (folder / f"{job_id}.pending").touch()
            else:
                launch(folder, job_id)
    print(f"Submitted batch job {job}")


def launch(folder: Path, job_id: str) -> None:
    """Run one task, in the background."""
    job, _, task = job_id.partition("_")
    script = folder / f"{job}.sh"
    out = _filled(_options(script)["output"].strip("'\""), job_id)
    env = {**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    env |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    env |= {"SLURM_JOB_NODELIST": "localhost", "FAKE_SLURM_JOB": job_id}
    if task:
        env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": task}
    with open(out, "ab") as log:
        process = subprocess.Popen(
            ["/bin/bash", str(script)], env=env, stdout=log, stderr=log, start_new_session=True
        )
    _note(folder / f"{job_id}.shell", process.pid)


def srun(folder: Path, words: list[str]) -> None:
    """Run what comes after the options, into the files that they name."""
    out = ""
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word.startswith("--output"):
            out = word.partition("=")[2] or words.pop(0)
        elif word.startswith("--error") and "=" not in word:
            words.pop(0)
    job_id = os.environ["FAKE_SLURM_JOB"]
    with open(_filled(out, job_id) or os.devnull, "ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    _note(folder / f"{job_id}.task", process.pid)
    sys.exit(process.wait())


def sacct(folder: Path, words: list[str]) -> None:
    print("JobID|State|NodeList")
    for pending in folder.glob("*.pending"):
        print(f"{pending.stem}|PENDING|")
    for job_id in _jobs(folder):
        print(f"{job_id}|{'RUNNING' if _runs(folder, job_id) else 'COMPLETED'}|here")


def scancel(folder: Path, words: list[str]) -> None:
    """Send a signal to what the job runs (``scancel JOB --signal NAME``)."""
    name = words[words.index("--signal") + 1].removeprefix("SIG")
    task = folder / f"{words[0]}.task"
    end = time.monotonic() + PATIENCE
    while not task.exists() and time.monotonic() < end:  # the job's shell is still on its way
        time.sleep(0.05)
    subprocess.run(["kill", f"-{name}", task.read_text()], check=True)


def scontrol(folder: Path, words: list[str]) -> None:
    """``scontrol requeue JOB``: the task starts anew when the one that asked has ended."""
    if words[0] == "requeue":
        launch(folder, words[1])
        with open(folder / "requeued", "a", encoding="utf-8") as file:
            file.write(words[1] + "\n")


def wait(folder: Path) -> None:
    """Wait until no job runs any more."""
    end = time.monotonic() + PATIENCE
    while any(_runs(folder, job_id) for job_id in _jobs(folder)):
        assert time.monotonic() < end
        time.sleep(0.05)


def _jobs(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.shell"))


def _runs(folder: Path, job_id: str) -> bool:
    """Whether a job's shell runs, or the task that it started."""
    files = [folder / f"{job_id}.{kind}" for kind in ("shell", "task")]
    return any(alive(int(file.read_text())) for file in files if file.exists())


def _note(file: Path, process: int) -> None:
    """Write a process's number so that nobody finds half of it."""
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(str(process))
    os.replace(part, file)


def _options(script: Path) -> dict[str, str]:
    return dict(
        re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), flags=re.MULTILINE)
    )


def _filled(name: str, job_id: str) -> str:
    """The name of a log file, with the job's numbers put in."""
    job, _, task = job_id.partition("_")
    for sign, value in (("%A", job), ("%a", task), ("%j", job), ("%t", "0")):
        name = name.replace(sign, value)
    return name


def alive(process: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


if __name__ == "__main__":
    here, given = Path(os.environ["FAKE_SLURM"]), sys.argv[2:]
    if sys.argv[1] == "sbatch":
        sbatch(here, Path(given[-1]))
    else:
        {"srun": srun, "sacct": sacct, "scontrol": scontrol, "scancel": scancel}[sys.argv[1]](
            here, given
        )
