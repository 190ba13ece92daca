"""The run directory: where everything of one experiment lies, and what is finished in it.

runs/<name>/
  experiment.toml            as it was written
  experiment.resolved.json   defaults filled in, overrides applied
  provenance.json            command line, commit, versions, hardware, start (UTC)
  plan.json                  the trials that were asked for
  pretrain/                  epochs.csv, and which shared checkpoint was used
  trials/<trial>/            trial.json (written last), epochs.csv, layers.csv, resume/
  epochs.csv trials.csv layers.csv   all trials together
runs/pretrained/<key>/       checkpoints, shared by all experiments with the same pretraining
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from analogtl import __version__
from analogtl.config.schema import Experiment, content_key
from analogtl.errors import RunError
from analogtl.files import (
    digest,
    lock_file,
    never,
    read_json,
    set_aside,
    unused,
    write_atomically,
    write_json,
)
from analogtl.study import columns as records
from analogtl.study.trial import Trial

DEFAULT_ROOT = Path("runs")
TRIAL_TABLES = {"epochs.csv": records.EPOCH_COLUMNS, "layers.csv": records.LAYER_COLUMNS}


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it changes a result.

    Attributes:
        checkpoint_minutes: In the middle of an epoch, save at least this often.
        deadline: Time (as of `time.time`) at which to save and stop; None for never.
        max_trial_hours: Hours after which one trial fails; None for no limit.
        stop_on_divergence: End a trial as failed when its training loss has grown beyond twice
            that of guessing.
        stop: Asked after every step; when true, save and stop.
    """

    checkpoint_minutes: float = 10.0
    deadline: float | None = None
    max_trial_hours: float | None = None
    stop_on_divergence: bool = False
    stop: Callable[[], bool] = never

    def over(self) -> bool:
        """Whether it is time to save and stop."""
        return self.stop() or (self.deadline is not None and time.time() >= self.deadline)

    def as_data(self) -> dict[str, Any]:
        """The options as JSON-able data, for another process; `stop` stays behind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stop"}


@dataclass(frozen=True)
class RunDir:
    """The directory of one experiment below a root (default ``runs/``)."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def pretrained(self) -> Path:
        """Folder of the checkpoints that all experiments below the root share."""
        return self.root / "pretrained"

    def find_pretrained(self, experiment: Experiment) -> Path | None:
        """Folder of a finished checkpoint of this pretraining, whatever its images; or None."""
        key = content_key(pretrain_settings(experiment))
        found = sorted(self.pretrained.glob(f"{key}-*/checkpoint.json"))
        return found[0].parent if found else None

    def trial_path(self, trial_id: str) -> Path:
        """Directory of a trial.

        Raises:
            RunError: If the name, or a link on the way, would lead out of the run directory.
        """
        return self.inside("trials", trial_id)

    def inside(self, *parts: str) -> Path:
        """A path below the run directory, made of plain names and through no link.

        Raises:
            RunError: If it could lie elsewhere.
        """
        path = self.path
        for part in parts:
            strange = part in ("", ".", "..") or Path(part).name != part or not part.isprintable()
            if strange or len(part.encode(errors="replace")) > 255:
                raise RunError(f"{part!r}: not a name of something in a run directory")
            path /= part
            if path.is_symlink():
                raise RunError(f"{path}: is a link; expected a part of this run")
        return path

    def create(
        self,
        experiment: Experiment,
        trials: Sequence[Trial],
        *,
        written: str = "",
        argv: Sequence[str] = (),
        keep_plan: bool = False,
    ) -> None:
        """Write what describes the run, before anything is run.

        Args:
            experiment: The experiment, overrides applied.
            trials: The trials that are about to run.
            written: Text of the experiment file.
            argv: The command line, for the provenance.
            keep_plan: Add to the trials that an earlier call planned instead of replacing them.

        Raises:
            RunError: If the directory cannot be written.
        """
        with self.lock("plan"):  # two sweeps may start at the same moment
            earlier = self.planned() if keep_plan else []
            planned = list(dict.fromkeys([*earlier, *(trial.id for trial in trials)]))
            if written:
                write_atomically(self.path / "experiment.toml", written)
            write_json(self.path / "experiment.resolved.json", experiment.resolved())
            write_json(self.path / "provenance.json", provenance(argv))
            write_json(self.path / "plan.json", {"trials": planned})

    def planned(self) -> list[str]:
        """Names of the trials that were asked for; none if no readable plan is there."""
        with contextlib.suppress(RunError):
            plan = read_json(self.path / "plan.json")
            names = plan.get("trials") if isinstance(plan, dict) else None
            if isinstance(names, list):
                return [name for name in names if isinstance(name, str)]
        return []

    def finished(self, trial: Trial, notes: list[str] | None = None) -> dict[str, Any] | None:
        """The record of a trial that is done and whole, or None if it has to run (again)."""
        record = self.record(trial.id, notes)
        if record is None or record.get("key") != trial.key() or record.get("status") != "done":
            return None
        return record

    def record(self, trial_id: str, notes: list[str] | None = None) -> dict[str, Any] | None:
        """The content of a trial's ``trial.json`` if it and the files it vouches for are whole.

        A damaged trial is set aside under ``damaged/``, so that it is run again.

        Args:
            trial_id: The trial.
            notes: Gets a line about each damaged trial.
        """
        try:
            return self.checked_record(trial_id)
        except RunError:
            # Torn, or another process is replacing the files this moment: that one has the lock.
            with self.trial_lock(trial_id, wait=False) as held:
                if not held:
                    return None
                try:
                    return self.checked_record(trial_id)
                except RunError as error:
                    place = set_aside(self.trial_path(trial_id), self.path / "damaged")
                    if notes is not None:
                        notes.append(f"{error}; set aside as {place}, to be run again")
                    return None

    def checked_record(self, trial_id: str) -> dict[str, Any] | None:
        """The content of a trial's ``trial.json``, None if there is none; nothing is changed.

        Raises:
            RunError: If it, or a file that it vouches for, is damaged.
        """
        path = self.trial_path(trial_id)
        file = path / "trial.json"
        if not file.is_file():
            return None
        record = read_json(file)
        if (
            not isinstance(record, dict)
            or record.get("trial") != trial_id
            or not isinstance(record.get("row"), dict)
            or record["row"].get("trial") != trial_id
            or not isinstance(record.get("files"), dict)
        ):
            raise RunError(f"{file}: not the record of this trial")
        for name, expected in record["files"].items():
            if name not in TRIAL_TABLES:
                raise RunError(f"{file}: vouches for {name!r}, which no trial has")
            try:
                whole = digest(path / name) == expected
            except OSError as error:
                raise RunError(f"{path / name}: {error.strerror or error}") from None
            if not whole:
                raise RunError(f"{path / name}: checksum does not match")
        return record

    def progress(self, trial_id: str) -> dict[str, Any]:
        """What a running trial last wrote about itself; empty if there is nothing readable."""
        with contextlib.suppress(RunError):
            progress = read_json(self.trial_path(trial_id) / "progress.json")
            if isinstance(progress, dict):
                return progress
        return {}

    def write_trial(
        self,
        trial: Trial,
        row: Mapping[str, Any],
        epochs: Sequence[Mapping[str, Any]],
        layers: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a trial's records; ``trial.json`` comes last and vouches for the others."""
        path = self.trial_path(trial.id)
        self._keep_earlier(trial, path)
        # From here to the end nothing vouches for the tables; a crash means: run it again.
        with contextlib.suppress(FileNotFoundError):
            (path / "trial.json").unlink()
        axes = list(trial.axes)
        files = {}
        tables = {
            "epochs.csv": ([*records.EPOCH_COLUMNS, *axes], epochs),
            "layers.csv": (records.LAYER_COLUMNS, layers),
        }
        for name, (columns, rows) in tables.items():
            if rows:
                records.write_rows(path / name, columns, rows)
                files[name] = digest(path / name)
        content = {
            "trial": trial.id,
            "key": trial.key(),
            "status": row["status"],
            "settings": trial.settings(),
            "row": dict(row),
            "files": files,
            "usage": usage(),
        }
        write_json(path / "trial.json", content)

    def _keep_earlier(self, trial: Trial, path: Path) -> None:
        """Move a finished trial of other settings out of the way: its hours are not thrown away."""
        with contextlib.suppress(RunError):
            record = self.checked_record(trial.id)
            if record and record["status"] == "done" and record["key"] != trial.key():
                place = unused(self.path / "replaced", trial.id)
                place.mkdir(parents=True)
                for name in (*record["files"], "trial.json"):
                    os.replace(path / name, place / name)

    def collect(self) -> list[dict[str, Any]]:
        """Write the tables of all recorded trials together; return the rows of ``trials.csv``.

        Safe to call at any time and from several processes: each table is replaced as a whole.
        """
        folder = self.path / "trials"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        rows: list[dict[str, Any]] = []
        parts: dict[str, list[Path]] = {"epochs.csv": [], "layers.csv": []}
        with self.lock("collect"):
            parts["epochs.csv"].append(self.path / "pretrain" / "epochs.csv")
            for name in names:
                record = self.record(name)
                if record is None:
                    continue
                rows.append(record["row"])
                for table in record["files"]:
                    parts[table].append(folder / name / table)
            records.write_rows(
                self.path / "trials.csv", records.columns_of(records.TRIAL_COLUMNS, rows), rows
            )
            for table, base in TRIAL_TABLES.items():
                records.write_joined(self.path / table, base, parts[table])
        return rows

    def trial_lock(
        self, trial_id: str, *, wait: bool = True
    ) -> contextlib.AbstractContextManager[bool]:
        """The lock that whoever runs a trial, or replaces its files, holds."""
        return self.lock(f"trial-{content_key(trial_id)}", wait=wait)

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a named lock of this run; see `lock_file`."""
        with lock_file(self.path / ".locks" / f"{name}.lock", wait=wait) as held:
            yield held


def usage() -> dict[str, Any]:
    """What this process has needed so far: the basis of later estimates."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    if sys.platform == "darwin":
        peak //= 1024
    return {"peak_memory_mb": round(peak / 1024), "host": platform.node()}


def trial_row(trial: Trial, n_classes: int | None = None, engine: str = "") -> dict[str, Any]:
    """What the row of ``trials.csv`` says before there is any result."""
    installed, commit = versions(), _commit()
    if commit:  # a run directory may have seen several states of a checkout
        installed["analogtl"] += f"+{commit}"
    return {
        "experiment": trial.experiment.name,
        "trial": trial.id,
        "seed": trial.seed,
        "arm": trial.arm,
        **trial.axes,
        "lr": trial.lr,
        "algorithm": trial.experiment.analog.algorithm if trial.is_analog else "",
        "engine": engine,
        "n_classes": n_classes,
        "settings": trial.common_key(),
        **{name: installed[name] for name in ("analogtl", "aihwkit", "torch")},
    }


def pretrain_settings(experiment: Experiment) -> dict[str, Any]:
    """What a pretrained model depends on beside the images themselves."""
    whole = experiment.resolved()
    return {
        "model": whole["model"],
        "pretrain": whole["pretrain"],
        "size": whole["data"]["image_size"],
    }


# -- provenance ------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Installed versions of what the results depend on, without importing any of it."""
    found = {"analogtl": __version__, "python": platform.python_version()}
    for name in ("aihwkit", "torch", "torchvision", "timm", "numba", "numpy", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Where, when, with what and by which command a run was started."""
    return {
        "argv": list(argv),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": versions(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "python": sys.version.split()[0],
    }


@cache
def _commit() -> str | None:
    """The commit of a source checkout of analogtl, None for an installed package."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
