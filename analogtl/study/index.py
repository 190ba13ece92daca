"""Runs as things to look at: list them, show one, compare two, remove what nobody needs.

Everything here reads what runs wrote, and believes none of it: files may be torn, or come from
somebody else. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analogtl.config.schema import flatten
from analogtl.errors import ExperimentError, RunError, did_you_mean
from analogtl.files import lock_file, read_json
from analogtl.study.checked import row_problem
from analogtl.study.columns import TrialRow
from analogtl.study.run_dir import DEFAULT_ROOT, RunDir
from analogtl.vocabulary import TrialStatus

State = Literal["running", "complete", "failed", "partial", "empty"]
STALE = 3600.0  # seconds after which a half-written file belongs to nobody


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


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed, its size, and what it is."""

    path: Path
    bytes: int
    why: str


# -- finding and showing ---------------------------------------------------------------------------


def find_runs(root: Path) -> list[RunDir]:
    """The run directories below a folder, sorted by name."""
    return [RunDir(root, name) for name in _names(root) if _is_run(root / name)]


def open_run(where: str | Path, root: Path = DEFAULT_ROOT) -> RunDir:
    """The run of a name below a root, or in a directory.

    Raises:
        ExperimentError: If there is none.
    """
    for path in (Path(where), root / where):
        if _is_run(path):
            whole = path.resolve()
            return RunDir(whole.parent, whole.name)
    known = [run.name for run in find_runs(root)]
    hint = f"; {did_you_mean(str(where), known)}" if known else ""
    raise ExperimentError(f"{where}: no run of that name in {root}/, and not a run directory{hint}")


def _is_run(path: Path) -> bool:
    try:
        return any((path / name).is_file() for name in ("plan.json", "provenance.json"))
    except (OSError, ValueError):
        return False


def recorded_rows(run: RunDir) -> list[dict[str, Any]]:
    """The rows of the recorded trials, by name, without wrong ones; no checksum is compared."""
    rows = []
    for name in _names(run.path / "trials"):
        with contextlib.suppress(RunError, KeyError, TypeError, AttributeError):
            row = read_json(run.trial_path(name) / "trial.json")["row"]
            if row["trial"] == name and not row_problem(row, TrialRow):
                rows.append({key: value if value == value else None for key, value in row.items()})
    return rows


def state_of(run: RunDir, rows: Sequence[dict[str, Any]] | None = None) -> RunState:
    """Where a run stands, from its `recorded_rows`, which are read if they are not given."""
    rows = recorded_rows(run) if rows is None else rows
    names, planned = _names(run.path / "trials"), run.planned()
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
        bytes=_size(run.path),
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


# -- removing --------------------------------------------------------------------------------------


def removable(
    root: Path, only: Sequence[RunDir] | None = None, *, everything: bool = False
) -> list[Removable]:
    """What can be removed without losing a result.

    Leftovers of killed processes, and checkpoints of trials that are done. With `everything` also
    what was set aside (damaged files, results of earlier settings), logs, and pretrained models
    that no run below the root refers to. With `only` in these runs alone, which leaves pretrained
    models alone, too.
    """
    kinds = {
        "damaged": "damaged files, set aside",
        "replaced": "results of earlier settings",
        "logs": "logs of worker processes",
    }
    found: list[Removable] = []
    for run in find_runs(root) if only is None else only:
        found += _half_written(run.path)
        found += _left_by_done_trials(run)
        for name, why in kinds.items() if everything else ():
            if (run.path / name).is_dir() and not (run.path / name).is_symlink():
                found.append(_removable(run.path / name, why))
    if only is None:
        found += _half_written(root / "pretrained")
        found += _unused_models(root) if everything else ()
    return found


def remove(things: Sequence[Removable]) -> int:
    """Remove what `removable` found; return the bytes that became free.

    Raises:
        RunError: If something cannot be removed.
    """
    for thing in things:
        try:
            if thing.path.is_dir() and not thing.path.is_symlink():
                shutil.rmtree(thing.path)
            else:
                thing.path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{thing.path}: cannot be removed: {error.strerror or error}") from None
    return sum(thing.bytes for thing in things)


def _left_by_done_trials(run: RunDir) -> Iterator[Removable]:
    for row in recorded_rows(run):
        if row.get("status") != TrialStatus.DONE:
            continue
        folder = run.trial_path(row["trial"])
        with run.trial_lock(row["trial"], wait=False) as held:
            for leftover in (folder / "resume", folder / "progress.json") if held else ():
                if leftover.exists() and not leftover.is_symlink():
                    yield _removable(leftover, "left by a trial that is done")


def _half_written(folder: Path) -> Iterator[Removable]:
    old = time.time() - STALE
    for path in _files(folder):
        half = path.name.startswith(".") and path.name.endswith(".part")
        if half and path.lstat().st_mtime < old:
            yield _removable(path, "half-written by a process that was killed")


def _unused_models(root: Path) -> Iterator[Removable]:
    used = {run.read("pretrain", "checkpoint.json").get("key") for run in find_runs(root)}
    for name in _names(root / "pretrained"):
        folder = root / "pretrained" / name
        if folder.is_symlink() or not folder.is_dir() or name.startswith(".") or name in used:
            continue
        with lock_file(root / "pretrained" / ".locks" / f"{name}.lock", wait=False) as held:
            if held:
                yield _removable(folder, "pretrained model that no run refers to")


def _removable(path: Path, why: str) -> Removable:
    return Removable(path, _size(path), why)


def _size(path: Path) -> int:
    """Bytes of a file, or of everything in a folder; links are not followed."""
    total = 0
    for file in _files(path) if path.is_dir() and not path.is_symlink() else [path]:
        with contextlib.suppress(OSError):  # it was removed this moment
            total += file.lstat().st_size
    return total


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
