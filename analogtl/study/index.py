"""Runs as things to look at: list them, show one, compare two.

Everything here reads what runs wrote, and believes none of it: files may be torn, or come from
somebody else. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analogtl.config.section import flatten
from analogtl.errors import ExperimentError, RunError, did_you_mean
from analogtl.files import names_in, read_sealed
from analogtl.study.checked import row_problem
from analogtl.study.columns import TrialRow
from analogtl.study.run_dir import DEFAULT_ROOT, RunDir
from analogtl.study.tuning import FOLDER
from analogtl.vocabulary import TrialStatus

State = Literal["running", "complete", "failed", "partial", "empty"]


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    name: str
    path: Path
    # running: some process holds a trial; failed: nothing is left but failed trials.
    state: State
    planned: int  # number of trials that were asked for
    done: int  # number of those that are done
    failed: dict[str, str]  # trial -> why
    running: dict[str, dict[str, Any]]  # trial -> its latest progress
    missing: list[str]  # trials that were asked for and are neither done nor failed nor running
    started_at: str  # when the last call started (UTC, ISO 8601); empty if unknown
    bytes: int  # size on disk
    problems: list[str]  # what of it is damaged or gone, a line each


# -- finding and showing ---------------------------------------------------------------------------


def find_runs(root: Path) -> list[RunDir]:
    """The run directories below a folder, sorted by name, each before its tuning."""
    names = [one for name in names_in(root) for one in (name, f"{name}/{FOLDER}")]
    return [RunDir(root, name) for name in names if _is_run(root / name)]


def open_run(where: str | Path, root: Path = DEFAULT_ROOT) -> RunDir:
    """The run of a name below a root, or in a directory.

    Raises:
        ExperimentError: If there is none.
    """
    for path in (Path(where), root / where):
        if _is_run(path):
            whole = path.resolve()
            if whole.name == FOLDER:
                return RunDir(whole.parent.parent, f"{whole.parent.name}/{FOLDER}")
            return RunDir(whole.parent, whole.name)
    known = [run.name for run in find_runs(root)]
    hint = f"; {did_you_mean(str(where), known)}" if known else ""
    raise ExperimentError(f"{where}: no run of that name in {root}/, and not a run directory{hint}")


def _is_run(path: Path) -> bool:
    """Whether a folder carries the mark of a run, or what is left of it; see `is_ours`."""
    try:
        marks = ("plan.json", "provenance.json")
        found = any(os.path.lexists(path / name) for name in marks)
        return found or any(path.glob("trials/*/trial.json"))
    except (OSError, ValueError):
        return False


def is_ours(run: RunDir) -> bool:
    """Whether a folder is certainly a run of ours: only in such a one is anything removed."""
    versions = run.read("provenance.json").get("versions")
    return isinstance(versions, dict) and "analogtl" in versions


def recorded_rows(run: RunDir) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the recorded trials, by name, and a line for each record that is damaged.

    The checksums of the trials' tables are not compared.
    """
    rows, problems = [], []
    for name in names_in(run.path / "trials"):
        try:
            file = run.trial_path(name) / "trial.json"
            if not os.path.lexists(file):
                continue
            record = read_sealed(file)
            if record["trial"] != name:
                raise RunError(f"{file}: of another trial")
            if wrong := row_problem(record["row"], TrialRow):
                raise RunError(f"{file}: row.{wrong}")
            row = {key: value if value == value else None for key, value in record["row"].items()}
            rows.append({**row, "trial": name, "key": record["key"]})
        except (RunError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{error}; the command that made the run runs the trial again")
    return rows, problems


def state_of(
    run: RunDir, rows: Sequence[dict[str, Any]], damaged_records: Sequence[str] = ()
) -> RunState:
    """Where a run stands, from its `recorded_rows`."""
    names, planned = names_in(run.path / "trials"), run.planned()
    running = {name: run.progress(name) for name in names if _is_running(run, name)}
    # What was done with other settings, data or versions is none of the trials that were asked for.
    current = [row for row in rows if planned.get(row["trial"]) in (None, "", row.get("key"))]
    done = {row["trial"] for row in current if row.get("status") == TrialStatus.DONE}
    failed = {
        row["trial"]: str(row.get("message") or "")
        for row in current
        if row["trial"] not in done | set(running)
    }
    missing = [name for name in planned if name not in {*done, *failed, *running}]
    state: State = "failed" if failed else "complete"
    if running:
        state = "running"
    elif not rows:
        state = "empty"
    elif missing:
        state = "partial"
    return RunState(
        name=run.name,
        path=run.path,
        state=state,
        planned=len(planned),
        done=len(done),
        failed=failed,
        running=running,
        missing=missing,
        started_at=str(run.read("provenance.json").get("started_at") or ""),
        bytes=size_of(run.path),
        problems=[*run.unreadable(), *damaged_records],
    )


def _is_running(run: RunDir, name: str) -> bool:
    """Whether some process holds the lock of a trial that has left signs of life."""
    try:
        if not (run.trial_path(name) / "progress.json").is_file():
            return False
        with run.trial_lock(name, wait=False) as held:
            return not held
    except RunError:
        return False


def diff_runs(a: RunDir, b: RunDir) -> dict[str, tuple[Any, Any]]:
    """Settings, versions and parts of the machine in which two runs differ: key -> both values.

    None stands for a value that a run does not have.

    Raises:
        RunError: If a run's settings or provenance are not to be read.
    """
    mine, its = (_facts(run) for run in (a, b))
    pairs = {key: (mine.get(key), its.get(key)) for key in {**mine, **its}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _facts(run: RunDir) -> dict[str, Any]:
    found = {name: run.read(name) for name in ("experiment.resolved.json", "provenance.json")}
    for name, content in found.items():
        if not content:
            raise RunError(f"{run.path / name}: not a readable JSON table")
    settings, provenance = found.values()
    kept = {key: provenance.get(key) for key in ("commit", "versions", "hardware")}
    return flatten(settings) | flatten(kept)


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder; links are not followed."""
    total = 0
    for file in files_in(path) if path.is_dir() and not path.is_symlink() else [path]:
        with contextlib.suppress(OSError):  # it was removed this moment
            total += file.lstat().st_size
    return total


def files_in(folder: Path) -> Iterator[Path]:
    """All files in a folder and below it; links to folders are not followed."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
