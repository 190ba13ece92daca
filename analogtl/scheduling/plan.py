"""Before a sweep: what will run, what it will need, how long it will take.

Plain functions and data; the command line shows them. Nothing here imports torch.
"""

from __future__ import annotations

import heapq
import os
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from analogtl.config.schema import Experiment, content_key, flatten
from analogtl.errors import RunError, counted
from analogtl.files import read_json
from analogtl.study import run_dir as runs
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import Trial, trials_of
from analogtl.vocabulary import Arm

LOOKED_AT = 400  # records of other runs that an estimate reads at most: it must stay quick
ROW_BYTES = 230  # of one line of epochs.csv, measured
RECORD_BYTES = 6000  # of a trial.json with its layers.csv, measured


# -- what will run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a call will do.

    Attributes:
        trials: All trials that were asked for, in the order in which they run.
        finished: Those that are done.
        failed: Those that failed in an earlier call, and why.
        begun: Those that were begun and will go on from a checkpoint.
        changed: Those that were finished with other settings and run anew.
        pretrain: Whether the pretrained model has to be made, is there, or is not needed.
        reason: Why, in words.
        notes: What was found damaged.
    """

    trials: list[Trial]
    finished: frozenset[str]
    failed: dict[str, str]
    begun: frozenset[str]
    changed: frozenset[str]
    pretrain: Literal["run", "reuse", "not needed"]
    reason: str
    notes: list[str] = field(default_factory=list)

    @property
    def left(self) -> list[Trial]:
        """The trials that are not done, failed ones among them."""
        return [trial for trial in self.trials if trial.id not in self.finished]


def plan(experiment: Experiment, run: RunDir, *, sweep: bool) -> Plan:
    """Compare the trials of an experiment with what a run directory holds; nothing is changed.

    Raises:
        ExperimentError: If the experiment has no valid list of trials.
        RunError: If a link in the run directory leads out of it.
    """
    trials = trials_of(experiment, sweep=sweep)
    finished, failed, begun, changed = set(), {}, set(), set()
    notes: list[str] = []
    for trial in trials:
        try:
            record = run.checked_record(trial.id)
        except RunError as error:
            notes.append(f"{error}; {trial.id} will be run again")
            record = None
        if record is not None and record.get("key") != trial.key():
            if record.get("status") == "done":
                changed.add(trial.id)
        elif record is not None and record.get("status") == "done":
            finished.add(trial.id)
        elif record is not None:
            failed[trial.id] = str(record["row"].get("message") or "")
        if trial.id not in finished and (run.trial_path(trial.id) / "resume").is_dir():
            begun.add(trial.id)
    pretrain, reason = _pretraining(
        [trial for trial in trials if trial.id not in finished], trials, run
    )
    return Plan(
        trials,
        frozenset(finished),
        failed,
        frozenset(begun),
        frozenset(changed),
        pretrain,
        reason,
        notes,
    )


def _pretraining(
    left: Sequence[Trial], trials: Sequence[Trial], run: RunDir
) -> tuple[Literal["run", "reuse", "not needed"], str]:
    if not any(trial.is_pretrained for trial in trials):
        return "not needed", "no arm starts from a pretrained model"
    wanted = {_pretrain_key(t.experiment): t.experiment for t in left if t.is_pretrained}
    if not wanted:
        return "not needed", "every trial that starts from a pretrained model is done"
    missing = [one for one in wanted.values() if run.find_pretrained(one) is None]
    if not missing:
        return "reuse", "trained before with the same model, settings and data set"
    if len(wanted) > 1:
        return "run", f"{len(missing)} of {len(wanted)} pretrained models are not there yet"
    return "run", _why_again(missing[0], run)


def _why_again(experiment: Experiment, run: RunDir) -> str:
    """Why a model is pretrained: never done, or which settings changed since."""
    try:
        earlier = read_json(run.inside("pretrain", "checkpoint.json"))["settings"]
        before = flatten(earlier)
    except (RunError, KeyError, TypeError, AttributeError):
        return "no such model was pretrained yet"
    now = flatten(runs.pretrain_settings(experiment))
    changes = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if not changes:
        return "the checkpoint is gone"
    return "settings changed: " + "; ".join(changes[:3]) + ("; ..." if len(changes) > 3 else "")


def _pretrain_key(experiment: Experiment) -> str:
    return content_key(runs.pretrain_settings(experiment))


# -- what it will need -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What a trial needed, or a short measurement says that it will.

    Attributes:
        settings: `Trial.settings` of the trial.
        seconds: Wall time of the whole trial.
        memory_mb: Peak memory of its process, if known.
        where: Where the sample comes from, in words.
    """

    settings: Mapping[str, Any]
    seconds: float
    memory_mb: float | None
    where: str


@dataclass(frozen=True)
class Estimate:
    """What the trials that are left will need.

    Attributes:
        trials: Number of trials left.
        seconds_by_trial: Trial -> seconds of one process; trials that nothing is known of are
            missing.
        seconds: Wall time of all of them together, on `jobs` processes; None if nothing is known
            of some of them.
        basis: Where the times come from, in words.
        disk: Bytes that will be written.
        disk_free: Bytes that the disk has left.
        memory: Bytes that one trial needs; None if unknown.
        memory_free: Bytes that this machine has left; None if it does not say.
        warnings: What will not fit, one line each.
    """

    trials: int
    seconds_by_trial: dict[str, float]
    seconds: float | None
    basis: str
    disk: int
    disk_free: int
    memory: int | None
    memory_free: int | None
    warnings: list[str]


def estimate(
    planned: Plan,
    run: RunDir,
    *,
    jobs: int = 1,
    max_hours: float | None = None,
    samples: Iterable[Sample] = (),
) -> Estimate:
    """What the trials that are left will need, judged by the nearest finished ones.

    Args:
        planned: The plan.
        run: The run directory; finished trials of its neighbours count, too.
        jobs: Trials at the same time.
        max_hours: Limit of the call, for the warnings.
        samples: Further samples; they win over finished trials.
    """
    left = planned.left
    known = [*samples, *finished_samples(run)] if left else []
    seconds: dict[str, float] = {}
    memory: list[float] = []
    sources: dict[str, int] = {}
    found: dict[str, tuple[list[Sample], str]] = {}
    for trial in left:
        settings = trial.settings()
        kind = content_key(_kinship(settings))
        if kind not in found:
            found[kind] = _nearest(settings, known)
        near, where = found[kind]
        if not near:
            continue
        per_epoch = [s.seconds / max(1, _training(s.settings)["epochs"]) for s in near]
        seconds[trial.id] = statistics.median(per_epoch) * max(1, trial.section.epochs)
        memory += [s.memory_mb for s in near if s.memory_mb]
        sources[where] = sources.get(where, 0) + 1
    complete = len(seconds) == len(left)
    total = makespan([seconds[t.id] for t in left], jobs) if complete else None
    basis = ", ".join(sources) or "nothing like it has been run yet"
    if sources and not complete:
        basis += f"; nothing is known of {counted(len(left) - len(seconds), 'trial')}"
    if total is not None and planned.pretrain == "run":
        basis += "; the pretraining comes on top"
    disk = sum(_disk(trial) for trial in left)
    result = Estimate(
        trials=len(left),
        seconds_by_trial=seconds,
        seconds=total,
        basis=basis,
        disk=disk,
        disk_free=_disk_free(run.path),
        memory=round(1e6 * max(memory)) if memory else None,
        memory_free=memory_free(),
        warnings=[],
    )
    result.warnings.extend(_warnings(result, jobs, max_hours))
    return result


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """Wall time of trials that run in this order, each on the first process that is free."""
    free = [0.0] * min(max(1, jobs), max(1, len(seconds)))
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def finished_samples(run: RunDir) -> Iterator[Sample]:
    """Finished trials of a run and then of its neighbours, newest run first."""
    yield from _samples_of(run.path, "this run", limit=LOOKED_AT)
    try:
        others = [p for p in run.root.iterdir() if p != run.path and (p / "trials").is_dir()]
    except OSError:
        return
    others.sort(key=_modified, reverse=True)
    for path in others[:20]:
        yield from _samples_of(path, f"run {path.name}", limit=LOOKED_AT // 10)


def _samples_of(path: Path, where: str, limit: int) -> Iterator[Sample]:
    try:
        names = os.listdir(path / "trials")
    except OSError:
        return
    for name in names[:limit]:
        try:
            record = read_json(path / "trials" / name / "trial.json")
            row, settings = record["row"], record["settings"]
            if row["status"] == "done" and not row.get("resumed"):
                memory = record.get("usage", {}).get("peak_memory_mb")
                yield Sample(settings, float(row["wall_s"]), memory and float(memory), where)
        except (RunError, KeyError, TypeError, ValueError, AttributeError):
            continue


def _training(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of a trial that has its epochs."""
    section: Mapping[str, Any] = settings.get("programming") or settings["finetune"]
    return section


def _kinship(settings: Mapping[str, Any]) -> list[Any]:
    """What the time and memory of a trial depend on, the most telling first."""
    try:
        arm = settings["arm"]
        analog = settings.get("analog") or {}
        task = _training(settings)
        if arm == Arm.WEIGHT_PROGRAMMING:
            return [
                [arm, analog["algorithm"], task["size"]],
                [task["vectors"], task["batch_size"]],
                [analog["engine"]],
                [analog["device"], analog["mapping"], analog["nonidealities"]],
            ]
        kind = (
            "digital" if arm.startswith("digital") else arm if arm == "frozen-array" else "analog"
        )
        size = {k: task[k] for k in ("dataset", "classes", "samples_per_class")}
        return [
            [kind, settings["model"], analog.get("algorithm")],
            [size, task["batch_size"], settings["data"]],
            [analog.get("engine"), task["test_samples_per_class"], task["augment"]],
            [analog.get("device"), analog.get("mapping"), analog.get("nonidealities")],
        ]
    except (KeyError, TypeError, AttributeError):  # of another version, or not a trial's
        return [None]


def _nearest(settings: Mapping[str, Any], known: Iterable[Sample]) -> tuple[list[Sample], str]:
    """The samples most like a trial (empty if none is of its kind), and where they come from."""
    wanted = _kinship(settings)
    best: list[Sample] = []
    most = 0
    for sample in known:
        same = 0
        for mine, its in zip(wanted, _kinship(sample.settings), strict=False):
            if mine != its:
                break
            same += 1
        if same > most:
            best, most = [], same
        if same == most and most > 0:
            best.append(sample)
    if not best:
        return [], ""
    best = [sample for sample in best if sample.where == best[0].where]
    likeness = "trials like these" if most >= 3 else "trials with the same model"
    return best, f"{likeness} in {best[0].where}" if "run" in best[0].where else best[0].where


def _disk(trial: Trial) -> int:
    """Bytes that a trial leaves behind, in its own directory and in the tables of the run."""
    rows = 3 * (trial.section.epochs + 1)
    return RECORD_BYTES + 2 * ROW_BYTES * rows


def _warnings(estimate: Estimate, jobs: int, max_hours: float | None) -> list[str]:
    lines = []
    if estimate.disk > 0.9 * estimate.disk_free:
        lines.append(
            f"disk: about {estimate.disk / 1e6:,.0f} MB will be written, "
            f"{estimate.disk_free / 1e6:,.0f} MB are free"
        )
    if estimate.memory and estimate.memory_free:
        fit = int(estimate.memory_free // estimate.memory)
        if fit < min(jobs, estimate.trials):
            lines.append(
                f"memory: a trial needs about {estimate.memory / 1e9:.1f} GB, "
                f"{estimate.memory_free / 1e9:.1f} GB are free: "
                + (f"use --jobs {fit}" if fit else "it may be killed")
            )
    if jobs > (os.cpu_count() or 1):
        lines.append(f"cores: {jobs} jobs on {os.cpu_count()} cores; each trial needs one")
    if max_hours and estimate.seconds and estimate.seconds > 3600 * max_hours:
        lines.append(
            f"time: about {estimate.seconds / 3600:.1f} hours, more than the limit of "
            f"{max_hours:g}; what is left then goes on with the next call"
        )
    return lines


def memory_free() -> int | None:
    """Bytes of memory that new processes can use here, within a container's limit as well."""
    free = None
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if free is not None and limit.strip().isdigit() and used.strip().isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _disk_free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
