"""What can be removed from runs without losing a result, or work that could go on.

Each thing carries the proof that nobody needs it, which is asked for again, under the lock of
whoever could need it, when it is removed. Only in folders that are certainly ours (see `is_ours`)
is anything removed, never through a link, and a model only if it carries our mark.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from analogtl.errors import RunError
from analogtl.files import HALF_WRITTEN, below, lock_file, names_in, read_sealed
from analogtl.study.index import files_in, find_runs, is_ours, size_of
from analogtl.study.run_dir import RunDir

Proofs = dict[str, Callable[[], bool]]  # why something could go -> whether that is (still) so
STALE = 3600.0  # seconds after which a half-written file belongs to nobody
SET_ASIDE = {
    "damaged": "damaged files, set aside",
    "replaced": "results of earlier settings",
    "logs": "logs of worker processes",
}


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed, its size, and what it is."""

    path: Path
    bytes: int
    why: str
    unneeded: Callable[[], bool]  # whether that is (still) so
    lock: Path | None = None  # that whoever could need it holds


def removable(
    root: Path, only: Sequence[RunDir] | None = None, *, everything: bool = False
) -> tuple[list[Removable], list[str]]:
    """What can be removed, and what was left alone because nobody knows: a line each.

    Leftovers of killed processes, and saved states of trials that are done with the settings that
    the state was saved with. With `everything` also saved states of other settings than the trials
    that were asked for have, final states that nothing is asked of, what was set aside (damaged
    files, results of earlier settings), logs, and pretrained models that no run below the root
    refers to. With `only` in these runs alone,
    which leaves pretrained models alone, too.
    """
    found: list[Removable] = []
    left_alone: list[str] = []
    for run in find_runs(root) if only is None else only:
        if not is_ours(run):
            left_alone.append(f"{run.path}: its provenance.json is damaged or not ours")
            continue
        found += _half_written(run.path)
        found += _left_by_trials(run, everything)
        if everything:
            found += _set_aside(run)
    if only is None and (root / "pretrained").is_dir():
        try:
            pretrained, locks = below(root, "pretrained"), below(root, "pretrained", ".locks")
        except RunError as error:
            left_alone.append(str(error))
        else:
            found += _half_written(pretrained)
            if everything:
                models, why_not = _unused_models(root, pretrained, locks)
                found += models
                left_alone += why_not
    return found, left_alone


def remove(things: Sequence[Removable]) -> int:
    """Remove what `removable` found and nobody has come to need since; return the bytes freed.

    Raises:
        RunError: If something cannot be removed.
    """
    freed = 0
    for thing in things:
        with contextlib.ExitStack() as stack:
            lock = thing.lock and stack.enter_context(lock_file(thing.lock, wait=False))
            if lock is False or not thing.unneeded() or thing.path.is_symlink():
                continue
            try:
                if thing.path.is_dir():
                    shutil.rmtree(thing.path)
                else:
                    thing.path.unlink(missing_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise RunError(f"{thing.path}: cannot be removed: {reason}") from None
            freed += thing.bytes
    return freed


def _half_written(folder: Path) -> Iterator[Removable]:
    for path in files_in(folder):
        if fnmatch(path.name, HALF_WRITTEN) and _is_stale(path):
            why = "half-written by a process that was killed"
            yield Removable(path, size_of(path), why, partial(_is_stale, path))


def _is_stale(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime < time.time() - STALE
    return False


def _left_by_trials(run: RunDir, everything: bool) -> Iterator[Removable]:
    for trial in names_in(run.path / "trials"):
        with contextlib.suppress(RunError):
            lock = run.trial_lock_path(trial)
            for path, proofs in _of_trial(run, trial, everything).items():
                with lock_file(lock, wait=False) as held:
                    for why, unneeded in proofs.items() if held and path.exists() else ():
                        if unneeded():
                            yield Removable(path, size_of(path), why, unneeded, lock)
                            break


def _of_trial(run: RunDir, trial: str, everything: bool) -> dict[Path, Proofs]:
    """What a trial may have left -> why it could go, each with its proof."""
    resume = run.inside("trials", trial, "resume")
    states = [run.inside("trials", trial, "resume", key) for key in names_in(resume)]
    found: dict[Path, Proofs] = {}
    for path in (*states, run.inside("trials", trial, "progress.json")):
        found[path] = {"left by a trial that is done": partial(_is_done, run, trial, path.name)}
    if everything:
        for path in states:
            superseded = partial(_is_superseded, run, trial, path.name)
            found[path]["saved state of earlier settings"] = superseded
        idle = partial(_is_idle_final, run, trial)
        found[run.inside("trials", trial, "final")] = {"final state, asked nothing of": idle}
    return found


def _is_done(run: RunDir, trial: str, name: str) -> bool:
    """Whether a trial is recorded as done with the very settings that a state was saved with."""
    try:
        record = run.checked_record(trial)
    except RunError:
        return False
    return record is not None and record.done and name in (record.key, "progress.json")


def _is_superseded(run: RunDir, trial: str, name: str) -> bool:
    """Whether a state was saved with other settings than those that the trial is asked for with."""
    planned = run.planned().get(trial)
    return bool(planned) and name != planned


def _is_idle_final(run: RunDir, trial: str) -> bool:
    """Whether a final state is not that of the result, or the run evaluates nothing any more."""
    try:
        record = run.checked_record(trial)
        of_trial = read_sealed(run.final_path(trial).with_suffix(".json"))["meta"]["trial"]
    except (RunError, KeyError, TypeError):
        return False
    evaluate = run.read("experiment.resolved.json").get("evaluate")
    evaluates = not isinstance(evaluate, dict) or evaluate.get("times") != []
    return record is not None and record.done and not (of_trial == record.key and evaluates)


def _set_aside(run: RunDir) -> Iterator[Removable]:
    for name, why in SET_ASIDE.items():
        path = run.path / name
        if path.is_dir() and not path.is_symlink():
            yield Removable(path, size_of(path), why, lambda: not run.others_at_work())


def _unused_models(root: Path, pretrained: Path, locks: Path) -> tuple[list[Removable], list[str]]:
    """The pretrained models that no run refers to, or why that is not known."""
    used = _used_models(root)
    if isinstance(used, str):
        return [], [f"{pretrained}: models are left alone: {used}"]

    found = []
    for name in names_in(pretrained):
        folder = pretrained / name
        if folder.is_symlink() or name in used:
            continue
        if name == "damaged":
            found.append(Removable(folder, size_of(folder), SET_ASIDE[name], folder.is_dir))
        elif _is_model(folder):
            lock = locks / f"{name}.lock"
            with lock_file(lock, wait=False) as held:
                if held:
                    why = "pretrained model that no run refers to"
                    unused = partial(_is_unused, root, name)
                    found.append(Removable(folder, size_of(folder), why, unused, lock))
    return found, []


def _is_unused(root: Path, name: str) -> bool:
    used = _used_models(root)
    return not isinstance(used, str) and name not in used


def _is_model(folder: Path) -> bool:
    """Whether a folder is a pretrained model, or one half-trained, of ours."""
    if not re.fullmatch(r"[0-9a-f]{16}(-[0-9a-f]+)?", folder.name):
        return False
    with contextlib.suppress(RunError, OSError):
        for file in (folder / "checkpoint.json", folder / "resume" / "state.json"):
            if file.is_file():
                return "meta" in read_sealed(file)
    return False


def _used_models(root: Path) -> set[str] | str:
    """Names of the pretrained models that runs refer to, or why they are not all known."""
    used: set[str] = set()
    for run in find_runs(root):
        wanted = run.read("plan.json").get("pretrained")
        if not isinstance(wanted, list):
            return f"{run.path / 'plan.json'} does not tell which ones it needs"
        used.update(map(str, wanted))
        used.add(str(run.read("pretrain", "checkpoint.json").get("key")))
    return used
