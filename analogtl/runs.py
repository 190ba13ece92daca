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
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from analogtl import __version__, records
from analogtl.errors import RunError
from analogtl.experiment import Experiment
from analogtl.grid import Trial

DEFAULT_ROOT = Path("runs")


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

    def trial_path(self, trial_id: str) -> Path:
        return self.path / "trials" / trial_id

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
        planned = [trial.id for trial in trials]
        if keep_plan and (self.path / "plan.json").is_file():
            earlier = records.read_json(self.path / "plan.json").get("trials", [])
            planned = list(dict.fromkeys([*earlier, *planned]))
        if written:
            records.write_atomically(self.path / "experiment.toml", written)
        records.write_json(self.path / "experiment.resolved.json", experiment.resolved())
        records.write_json(self.path / "provenance.json", provenance(argv))
        records.write_json(self.path / "plan.json", {"trials": planned})

    def finished(self, trial: Trial) -> dict[str, Any] | None:
        """The record of a trial that is done and whole, or None if it has to run (again)."""
        record = self.record(trial.id)
        if record is None or record.get("key") != trial.key() or record.get("status") != "done":
            return None
        return record

    def record(self, trial_id: str) -> dict[str, Any] | None:
        """The content of a trial's ``trial.json`` if it and the files it vouches for are whole.

        A damaged trial is set aside under ``damaged/``, so that it is run again.
        """
        path = self.trial_path(trial_id)
        if not (path / "trial.json").is_file():
            return None
        try:
            record: dict[str, Any] = records.read_json(path / "trial.json")
            if not isinstance(record, dict) or not isinstance(record.get("row"), dict):
                raise RunError(f"{path / 'trial.json'}: not a trial's record")
            for name, digest in dict(record.get("files", {})).items():
                if Path(name).name != name or records.digest(path / name) != digest:
                    raise RunError(f"{path / name}: checksum does not match")
        except (RunError, OSError, TypeError, ValueError):
            set_aside(path, self.path / "damaged")
            return None
        return record

    def write_trial(
        self,
        trial: Trial,
        row: Mapping[str, Any],
        epochs: Sequence[Mapping[str, Any]],
        layers: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a trial's records; ``trial.json`` comes last and vouches for the others."""
        path = self.trial_path(trial.id)
        axes = list(trial.axes)
        files = {}
        tables = {
            "epochs.csv": ([*records.EPOCH_COLUMNS, *axes], epochs),
            "layers.csv": (records.LAYER_COLUMNS, layers),
        }
        for name, (columns, rows) in tables.items():
            if rows:
                records.write_rows(path / name, columns, rows)
                files[name] = records.digest(path / name)
        content = {
            "trial": trial.id,
            "key": trial.key(),
            "status": row["status"],
            "settings": trial.settings(),
            "row": dict(row),
            "files": files,
        }
        records.write_json(path / "trial.json", content)

    def collect(self) -> list[dict[str, Any]]:
        """Write the tables of all recorded trials together; return the rows of ``trials.csv``.

        Safe to call at any time and from several processes: each table is replaced as a whole.
        """
        folder = self.path / "trials"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        rows, epochs, layers = [], [], []
        with self.lock("collect"):
            if (self.path / "pretrain" / "epochs.csv").is_file():
                epochs += records.read_rows(self.path / "pretrain" / "epochs.csv")
            for name in names:
                record = self.record(name)
                if record is None:
                    continue
                rows.append(record["row"])
                files = record.get("files", {})
                if "epochs.csv" in files:
                    epochs += records.read_rows(folder / name / "epochs.csv")
                if "layers.csv" in files:
                    layers += records.read_rows(folder / name / "layers.csv")
            for table, base, content in (
                ("trials.csv", records.TRIAL_COLUMNS, rows),
                ("epochs.csv", records.EPOCH_COLUMNS, epochs),
                ("layers.csv", records.LAYER_COLUMNS, layers),
            ):
                columns = records.columns_of(base, content)
                records.write_rows(self.path / table, columns, content)
        return rows

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a named lock of this run; see `lock_file`."""
        with lock_file(self.path / ".locks" / f"{name}.lock", wait=wait) as held:
            yield held


@contextlib.contextmanager
def lock_file(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that ends with the process, however it ends.

    Args:
        path: The lock file.
        wait: Wait until it is free; otherwise yield False at once if another process holds it.

    Raises:
        RunError: If the lock file cannot be made.
    """
    import filelock

    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be written: {error.strerror or error}") from None
    try:
        yield True
    finally:
        lock.release()


def set_aside(path: Path, folder: Path) -> Path:
    """Move something damaged out of the way, keeping it for inspection; return where to."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        target = folder / f"{path.name}.{number}"
        if not target.exists():
            shutil.move(path, target)
            return target
    raise RunError(f"{folder}: full of damaged files; look at them and remove them")


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


def _commit() -> str | None:
    """The commit of a source checkout of analogtl, None for an installed package."""
    here = Path(__file__).resolve().parent.parent
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
