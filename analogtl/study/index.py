"""Runs as things to look at: list them, show one, compare two, remove what nobody needs.

Everything here reads what runs wrote, and believes none of it: files may be torn, or come from
somebody else. Nothing here imports torch.
"""

from __future__ import annotations

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
from analogtl.study import run_dir as runs
from analogtl.study.run_dir import RunDir

State = Literal["running", "complete", "failed", "partial", "empty"]
STALE = 3600.0  # seconds after which a half-written file belongs to nobody


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        name, path: Its name and directory.
        state: ``running`` (some process holds a trial), ``complete``, ``failed`` (nothing left but
            failed trials), ``partial`` or ``empty``.
        planned, done: Number of trials that were asked for, and of those that are done.
        failed: Trial -> why.
        running: Trial -> its latest progress.
        missing: Trials that were asked for and are neither done nor failed nor running.
        started_at: When the last call started (UTC, ISO 8601); empty if unknown.
        bytes: Size on disk.
    """

    name: str
    path: Path
    state: State
    planned: int
    done: int
    failed: dict[str, str]
    running: dict[str, dict[str, Any]]
    missing: list[str]
    started_at: str
    bytes: int


@dataclass(frozen=True)
class RunDetails:
    """A run in full: its state, and what it was run with.

    Attributes:
        state: Where it stands.
        rows: The rows of ``trials.csv``, as recorded, sorted by trial.
        settings: Dotted key -> value of the resolved experiment.
        provenance: Command line, versions, hardware.
    """

    state: RunState
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One key in which two runs differ; None where a run does not have it."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Removable:
    """Something that can be removed.

    Attributes:
        path: The file or folder.
        bytes: Its size.
        why: What it is, in words.
    """

    path: Path
    bytes: int
    why: str


def find_runs(root: Path) -> list[RunDir]:
    """The run directories below a folder, sorted by name."""
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [RunDir(root, name) for name in names if _is_run(root / name)]


def open_run(where: str | Path, root: Path = runs.DEFAULT_ROOT) -> RunDir:
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


def list_runs(root: Path = runs.DEFAULT_ROOT) -> list[RunState]:
    """Where every run below a folder stands."""
    return [state_of(run) for run in find_runs(root)]


def state_of(run: RunDir) -> RunState:
    """Where a run stands."""
    return _state(run, list(_rows(run)))


def show_run(run: RunDir) -> RunDetails:
    """A run in full."""
    rows = list(_rows(run))
    return RunDetails(
        state=_state(run, rows),
        rows=sorted(rows, key=lambda row: str(row["trial"])),
        settings=_flat(run, "experiment.resolved.json"),
        provenance=_json(run, "provenance.json"),
    )


def diff_runs(a: RunDir, b: RunDir) -> list[Difference]:
    """What differs between two runs in resolved settings, versions and machine.

    Raises:
        RunError: If a run's settings or provenance are not to be read.
    """
    known = []
    for run in (a, b):
        provenance = _table(run, "provenance.json")
        facts = flatten(_table(run, "experiment.resolved.json"))
        for key in ("commit", "versions", "hardware"):
            facts.update(flatten({key: provenance.get(key)}))
        known.append(facts)
    mine, its = known
    return [
        Difference(key, mine.get(key), its.get(key))
        for key in dict.fromkeys([*mine, *its])
        if mine.get(key) != its.get(key)
    ]


def removable(
    root: Path = runs.DEFAULT_ROOT,
    only: Sequence[RunDir] | None = None,
    *,
    everything: bool = False,
) -> list[Removable]:
    """What can be removed without losing a result.

    Leftovers of killed processes, and checkpoints of trials that are done. With `everything` also
    what was set aside (damaged files, results of earlier settings), logs, and pretrained models
    that no run below the root refers to.

    Args:
        root: Folder of the runs.
        only: Only in these runs; pretrained models are left alone then.
        everything: See above.
    """
    found: list[Removable] = []
    for run in find_runs(root) if only is None else only:
        found += _leftovers(run)
        if everything:
            for name, why in (
                ("damaged", "damaged files, set aside"),
                ("replaced", "results of earlier settings"),
                ("logs", "logs of worker processes"),
            ):
                if (run.path / name).is_dir() and not (run.path / name).is_symlink():
                    found.append(_removable(run.path / name, why))
    if only is None:
        found += _half_written(root / "pretrained")
        if everything:
            found += _unused_models(root)
    return found


def remove(things: Sequence[Removable]) -> int:
    """Remove what `removable` found; return the bytes that became free.

    Raises:
        RunError: If something cannot be removed.
    """
    freed = 0
    for thing in things:
        try:
            if thing.path.is_dir() and not thing.path.is_symlink():
                shutil.rmtree(thing.path)
            else:
                thing.path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{thing.path}: cannot be removed: {error.strerror or error}") from None
        freed += thing.bytes
    return freed


# -- inside ----------------------------------------------------------------------------------------


def _rows(run: RunDir) -> Iterator[dict[str, Any]]:
    """The rows of the recorded trials; without the checksums, which only a sweep needs."""
    for name in _trial_names(run):
        try:
            row = read_json(run.trial_path(name) / "trial.json")["row"]
            if row["trial"] == name:
                yield row
        except (RunError, KeyError, TypeError):
            continue


def _trial_names(run: RunDir) -> list[str]:
    try:
        return sorted(os.listdir(run.path / "trials"))
    except OSError:
        return []


def _state(run: RunDir, rows: list[dict[str, Any]]) -> RunState:
    planned = run.planned()
    done = {row["trial"] for row in rows if row.get("status") == "done"}
    failed = {r["trial"]: str(r.get("message") or "") for r in rows if r["trial"] not in done}
    running = {name: run.progress(name) for name in _trial_names(run) if _is_running(run, name)}
    ended = done | set(failed) | set(running)
    missing = [name for name in planned if name not in ended]
    failed = {name: why for name, why in failed.items() if name not in running}
    state: State = "partial"
    if running:
        state = "running"
    elif not rows:
        state = "empty"
    elif not missing:
        state = "failed" if failed else "complete"
    return RunState(
        name=run.name,
        path=run.path,
        state=state,
        planned=len(planned),
        done=len(done),
        failed=failed,
        running=running,
        missing=missing,
        started_at=str(_json(run, "provenance.json").get("started_at") or ""),
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


def _leftovers(run: RunDir) -> Iterator[Removable]:
    yield from _half_written(run.path)
    for name in _trial_names(run):
        try:
            folder = run.trial_path(name)
            record = read_json(folder / "trial.json")
        except RunError:
            continue
        if not isinstance(record, dict) or record.get("status") != "done":
            continue
        with run.trial_lock(name, wait=False) as held:
            if not held:
                continue
            for leftover in (folder / "resume", folder / "progress.json"):
                if leftover.exists() and not leftover.is_symlink():
                    yield _removable(leftover, "left by a trial that is done")


def _half_written(folder: Path) -> Iterator[Removable]:
    old = time.time() - STALE
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if name.startswith(".") and name.endswith(".part") and path.lstat().st_mtime < old:
                yield _removable(path, "half-written by a process that was killed")


def _unused_models(root: Path) -> Iterator[Removable]:
    used = {_json(run, "pretrain", "checkpoint.json").get("key") for run in find_runs(root)}
    try:
        folders = sorted((root / "pretrained").iterdir())
    except OSError:
        return
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
            continue
        if folder.name not in used:
            with lock_file(
                root / "pretrained" / ".locks" / f"{folder.name}.lock", wait=False
            ) as held:
                if held:
                    yield _removable(folder, "pretrained model that no run refers to")


def _removable(path: Path, why: str) -> Removable:
    return Removable(path, _size(path), why)


def _size(path: Path) -> int:
    """Bytes of a file, or of everything in a folder; links are not followed."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    except OSError:
        return 0
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:  # it was removed this moment
                continue
    return total


def _json(run: RunDir, *parts: str) -> dict[str, Any]:
    """A JSON table of a run; empty if it cannot be read."""
    try:
        return _table(run, *parts)
    except RunError:
        return {}


def _table(run: RunDir, *parts: str) -> dict[str, Any]:
    """A JSON table of a run."""
    path = run.inside(*parts)
    content = read_json(path)
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON table")
    return content


def _flat(run: RunDir, name: str) -> dict[str, Any]:
    return flatten(_json(run, name))
