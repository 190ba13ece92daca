"""The run directory: where everything of one experiment lies, and what is finished in it.

runs/<name>/
  experiment.toml            as it was written
  experiment.resolved.json   defaults filled in, overrides applied
  provenance.json            command line, commit, versions, hardware, start (UTC)
  plan.json                  the trials that were asked for, each with its key
  pretrain/                  epochs.csv, and which shared checkpoint was used
  trials/<trial>/            trial.json (written last), epochs.csv, layers.csv, resume/
  epochs.csv trials.csv layers.csv   all trials together
runs/pretrained/<key>/       checkpoints, shared by all experiments with the same pretraining
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analogtl.config.schema import content_key
from analogtl.errors import RunError
from analogtl.files import digest, lock_file, read_json, set_aside, unused, write_json
from analogtl.study.checked import row_problem
from analogtl.study.columns import (
    EPOCH_COLUMNS,
    LAYER_COLUMNS,
    TRIAL_COLUMNS,
    TrialRow,
    columns_of,
)
from analogtl.study.provenance import processor, usage, versions
from analogtl.study.tables import write_joined, write_rows
from analogtl.study.trial import Trial, common_key
from analogtl.vocabulary import TrialStatus

DEFAULT_ROOT = Path("runs")
TRIAL_TABLES = {"epochs.csv": EPOCH_COLUMNS, "layers.csv": LAYER_COLUMNS}


@dataclass(frozen=True)
class Record:
    """What a trial's ``trial.json`` says, once it and the tables it vouches for are found whole."""

    key: str  # `Trial.key` of what it was run with
    done: bool  # finished, as opposed to failed
    row: dict[str, Any]  # its row of ``trials.csv``
    files: dict[str, str]  # name of each of its tables -> SHA-256


@dataclass(frozen=True)
class RunDir:
    """The directory of one experiment below a root (default ``runs/``).

    A record that was read once is kept, and read again only when a file of its trial has changed.
    """

    root: Path
    name: str
    _known: dict[str, tuple[object, Record]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def pretrained(self) -> Path:
        """Folder of the checkpoints that all experiments below the root share."""
        return self.root / "pretrained"

    def find_pretrained(self, key: str) -> Path | None:
        """Folder of the finished model of this `pretrain_key`, None if there is none."""
        folder = self.pretrained / key
        return folder if (folder / "checkpoint.json").is_file() else None

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

    def read(self, *parts: str) -> dict[str, Any]:
        """A JSON table of the run; empty if there is none that can be read."""
        with contextlib.suppress(RunError):
            content = read_json(self.inside(*parts))
            if isinstance(content, dict):
                return content
        return {}

    def planned(self) -> dict[str, str]:
        """Name -> key of the trials that were asked for; none if no readable plan is there."""
        trials = self.read("plan.json").get("trials")
        if isinstance(trials, list):  # of an earlier version, which knew no keys
            trials = {name: "" for name in trials if isinstance(name, str)}
        return {n: str(key) for n, key in trials.items()} if isinstance(trials, dict) else {}

    def finished(self, trial: Trial) -> Record | None:
        """The record of a trial that is done and whole, or None if it has to run (again)."""
        record = self.record(trial.id)
        return record if record and record.done and record.key == trial.key else None

    def record(self, trial_id: str, notes: list[str] | None = None) -> Record | None:
        """The record of a trial, None if there is none.

        A damaged trial is set aside under ``damaged/``, so that it is run again, which a line in
        `notes` tells.
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

    def checked_record(self, trial_id: str) -> Record | None:
        """The record of a trial, None if there is none; nothing is changed.

        Raises:
            RunError: If it, or a file that it vouches for, is damaged.
        """
        path = self.trial_path(trial_id)
        now = _state_of_files(path)
        if now is None:
            return None
        before, record = self._known.get(trial_id, (None, None))
        if record is None or before != now:
            record = _read_record(path, trial_id)
            self._known[trial_id] = now, record
        return record

    def progress(self, trial_id: str) -> dict[str, Any]:
        """What a running trial last wrote about itself; empty if there is nothing readable."""
        return self.read("trials", trial_id, "progress.json")

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
        self._known.pop(trial.id, None)
        files = {}
        tables = {
            "epochs.csv": ([*EPOCH_COLUMNS, *trial.axes], epochs),
            "layers.csv": (LAYER_COLUMNS, layers),
        }
        for name, (columns, rows) in tables.items():
            if rows:
                write_rows(path / name, columns, rows)
                files[name] = digest(path / name)
        content = {
            "trial": trial.id,
            "key": trial.key,
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
            if record and record.done and record.key != trial.key:
                place = unused(self.path / "replaced", trial.id)
                place.mkdir(parents=True)
                for name in (*record.files, "trial.json"):
                    os.replace(path / name, place / name)

    def collect(self) -> list[dict[str, Any]]:
        """Write the tables of all recorded trials together; return the rows of ``trials.csv``.

        Safe to call at any time and from several processes: each table is replaced as a whole.
        """
        folder = self.path / "trials"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        rows: list[dict[str, Any]] = []
        parts = {"epochs.csv": [self.path / "pretrain" / "epochs.csv"], "layers.csv": []}
        with self.lock("collect"):
            for name in names:
                record = self.record(name)
                if record is None:
                    continue
                rows.append(record.row)
                for table in record.files:
                    parts[table].append(folder / name / table)
            write_rows(self.path / "trials.csv", columns_of(TRIAL_COLUMNS, rows), rows)
            for table, base in TRIAL_TABLES.items():
                write_joined(self.path / table, base, parts[table])
        return rows

    def trial_lock(
        self, trial_id: str, *, wait: bool = True
    ) -> contextlib.AbstractContextManager[bool]:
        """The lock that whoever runs a trial, or replaces its files, holds."""
        return self.lock(f"trial-{content_key(trial_id)}", wait=wait)

    def lock(self, name: str, *, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
        """A named lock of this run; see `lock_file`."""
        return lock_file(self.path / ".locks" / f"{name}.lock", wait=wait)


def trial_row(trial: Trial) -> dict[str, Any]:
    """What the row of ``trials.csv`` says before there is any result."""
    return {
        "experiment": trial.experiment.name,
        "trial": trial.id,
        "seed": trial.seed,
        "arm": trial.arm,
        **trial.axes,
        "lr": trial.lr,
        "algorithm": trial.experiment.analog.algorithm if trial.arm.analog else "",
        "engine": "",
        "n_classes": None,
        "settings": common_key(trial.experiment.resolved(), trial.arm, trial.axes),
        "analogtl": versions()["analogtl"],
        **trial.basis.columns(),
        "cpu": processor(),
        "key": trial.key,
    }


def _state_of_files(path: Path) -> object:
    """What changes whenever a trial's record or one of its tables does; None without a record."""
    states: list[tuple[int, int, int] | None] = []
    for name in ("trial.json", *TRIAL_TABLES):
        try:
            about = (path / name).stat()
            states.append((about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError:
            states.append(None)
    return tuple(states) if states[0] else None


def _read_record(path: Path, trial_id: str) -> Record:
    file = path / "trial.json"
    content = read_json(file)
    if (
        not isinstance(content, dict)
        or content.get("trial") != trial_id
        or not isinstance(content.get("row"), dict)
        or content["row"].get("trial") != trial_id
        or not isinstance(content.get("files"), dict)
    ):
        raise RunError(f"{file}: not the record of this trial")
    if wrong := row_problem(content["row"], TrialRow):
        raise RunError(f"{file}: row.{wrong}")
    for name, expected in content["files"].items():
        if name not in TRIAL_TABLES:
            raise RunError(f"{file}: vouches for {name!r}, which no trial has")
        try:
            whole = digest(path / name) == expected
        except OSError as error:
            raise RunError(f"{path / name}: {error.strerror or error}") from None
        if not whole:
            raise RunError(f"{path / name}: checksum does not match")
    done = content.get("status") == TrialStatus.DONE
    return Record(str(content.get("key")), done, content["row"], content["files"])
