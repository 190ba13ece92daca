"""The run directory: where everything of one experiment lies, and what is finished in it.

runs/<name>/
  experiment.toml            as it was written
  experiment.resolved.json   defaults filled in, overrides applied
  provenance.json            command line, commit, versions, hardware, start (UTC)
  plan.json                  the trials that were asked for, each with its key
  pretrain/                  epochs.csv, and which shared checkpoint was used
  trials/<trial>/            trial.json (written last), epochs.csv, layers.csv, pulses.csv;
                             pulses.safetensors where asked for (`run.save_pulses`)
                             weights.safetensors, arrays.safetensors likewise (`run.save_model`)
                             evaluation.csv, final/ where asked for (`evaluate.times`)
  trials/<trial>/resume/<key>/   what a training that was interrupted goes on from
  epochs.csv trials.csv layers.csv pulses.csv   all trials together
runs/pretrained/<key>/       checkpoints, shared by all experiments with the same pretraining
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from analogtl.config.section import content_key
from analogtl.errors import RunError
from analogtl.files import (
    below,
    digest,
    lock_file,
    make_way,
    names_in,
    read_json,
    read_sealed,
    set_aside,
    unused,
    write_atomically,
    write_sealed,
)
from analogtl.study.columns import EPOCH_COLUMNS, TRIAL_COLUMNS, columns_of
from analogtl.study.provenance import processor, usage, versions
from analogtl.study.record import (
    FILES,
    TRIAL_TABLES,
    WEIGHTS,
    Record,
    is_plain,
    read_record,
    state_of_files,
)
from analogtl.study.tables import read_rows, write_joined, write_rows
from analogtl.study.trial import Trial, common_key

_LOG = logging.getLogger(__name__)
DEFAULT_ROOT = Path("runs")
_AT_WORK = "at-work-"  # what the locks of `RunDir.working` begin with
TABLES_OF_RUN = ("experiment.resolved.json", "provenance.json", "plan.json")


@dataclass(frozen=True)
class RunDir:
    """The directory of one experiment below a root (default ``runs/``).

    A record that was read once is kept, and read again only when a file of its trial has changed.
    Each of its paths is made of plain names and goes through no link; one that would lead out of it
    is a `RunError`.
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
        return below(self.root, "pretrained")

    @property
    def trials(self) -> Path:
        """Folder of the trials.

        Raises:
            RunError: If it is a link or a file.
        """
        folder = self.inside("trials")
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder}: not a folder; remove it, the trials are run again")
        return folder

    @property
    def damaged(self) -> Path:
        """Folder of what was found damaged and set aside."""
        return self.path / "damaged"

    def find_pretrained(self, key: str) -> Path | None:
        """Folder of the finished model of this `pretrain_key`, None if there is none."""
        folder = below(self.pretrained, key)
        return folder if (folder / "checkpoint.json").is_file() else None

    def trial_path(self, trial_id: str) -> Path:
        """Directory of a trial."""
        return self.inside("trials", trial_id)

    def inside(self, *parts: str) -> Path:
        """A path below the run directory."""
        return below(self.path, *parts)

    def state_path(self, trial: Trial) -> Path:
        """Folder of the saved state of a trial that was interrupted."""
        return self.inside("trials", trial.id, "resume", trial.key)

    def final_path(self, trial_id: str) -> Path:
        """Stem of the files of the final state of a trial; see `evaluate.times`."""
        return self.inside("trials", trial_id, "final") / "state"

    def lacking(self, trial: Trial, record: Record) -> list[str]:
        """What is asked for of a trial that is done, and made of its final state: names of files.

        ``evaluation.csv`` stands for one with other settings, too.
        """
        lacks = {
            "evaluation.csv": trial.evaluation_key not in ("", record.evaluation),
            WEIGHTS: trial.experiment.run.save_model and WEIGHTS not in record.files,
        }
        return [name for name, lacking in lacks.items() if lacking]

    def is_due(self, trial: Trial, record: Record) -> bool:
        """Whether what a trial that is done is `lacking` can be made: its final state is kept."""
        kept = self.final_path(trial.id).with_suffix(".json")
        return bool(self.lacking(trial, record)) and kept.is_file()

    def read(self, *parts: str) -> dict[str, Any]:
        """A JSON table of the run; empty if there is none that can be read."""
        with contextlib.suppress(RunError):
            content = read_json(self.inside(*parts))
            if isinstance(content, dict):
                return content
        return {}

    def unreadable(self) -> list[str]:
        """What describes the run and is damaged or gone, a line each."""
        lines = []
        for name in (*TABLES_OF_RUN, "data.json"):
            there = os.path.lexists(self.path / name)
            if not self.read(name) and (there or name in TABLES_OF_RUN):
                what = "damaged" if there else "missing"
                lines.append(f"{self.path / name}: {what}; the command that made the run writes it")
        return lines

    def planned(self) -> dict[str, str]:
        """Name -> key of the trials that were asked for; none if no readable plan is there."""
        trials = self.read("plan.json").get("trials")
        if isinstance(trials, list):  # of an earlier version, which knew no keys
            trials = {name: "" for name in trials if isinstance(name, str)}
        return {n: str(key) for n, key in trials.items()} if isinstance(trials, dict) else {}

    def planned_models(self) -> list[str]:
        """Names of the pretrained models that the trials need; none if no plan tells."""
        models = self.read("plan.json").get("pretrained")
        return [str(name) for name in models] if isinstance(models, list) else []

    def finished(self, trial: Trial) -> Record | None:
        """The record of a trial that is done and whole, or None if it has to run (again)."""
        record = self.record(trial.id)
        return record if record and record.done and record.key == trial.key else None

    def record(self, trial_id: str, notes: list[str] | None = None) -> Record | None:
        """The record of a trial, None if there is none.

        A damaged trial is set aside under ``damaged/``, so that it is run again, which a line in
        `notes` tells, or in the log.
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
                    place = set_aside(self.trial_path(trial_id), self.damaged)
                    line = f"{error}; set aside as {place}, to be run again"
                    if notes is None:
                        _LOG.warning("%s", line)
                    else:
                        notes.append(line)
                    return None

    def checked_record(self, trial_id: str) -> Record | None:
        """The record of a trial, None if there is none; nothing is changed.

        Raises:
            RunError: If it, or a file that it vouches for, is damaged.
        """
        path = self.trial_path(trial_id)
        now = state_of_files(path)
        if now is None:
            if path.exists() and not path.is_dir():
                raise RunError(f"{path}: not a folder")
            return None
        before, record = self._known.get(trial_id, (None, None))
        if record is None or before != now:
            record = read_record(path, trial_id)
            self._known[trial_id] = now, record
        return record

    def progress(self, trial_id: str) -> dict[str, Any]:
        """What a running trial last wrote about itself; empty if there is nothing readable."""
        found = self.read("trials", trial_id, "progress.json")
        return {key: value for key, value in found.items() if is_plain(value)}

    def write_trial(
        self,
        trial: Trial,
        row: Mapping[str, Any],
        epochs: Sequence[Mapping[str, Any]],
        layers: Sequence[Mapping[str, Any]],
        pulses: Sequence[Mapping[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a trial's records; ``trial.json`` comes last and vouches for the others.

        ``epochs``, ``layers``, ``pulses``: the rows of its tables; ``files``: the content of any
        of `FILES`. What is empty has no file. ``details``: what else the record tells
        (`analogtl.tasks.task.Task.details`).
        """
        path = self.trial_path(trial.id)
        self._keep_earlier(trial, path)
        # From here to the end nothing vouches for the tables; a crash means: run it again.
        with contextlib.suppress(FileNotFoundError):
            (path / "trial.json").unlink()
        self._known.pop(trial.id, None)
        checksums = {}
        tables = {"epochs.csv": epochs, "layers.csv": layers, "pulses.csv": pulses}
        for name, rows in tables.items():
            if rows:
                axes = trial.axes if name == "epochs.csv" else ()
                write_rows(path / name, [*TRIAL_TABLES[name], *axes], rows)
                checksums[name] = digest(path / name)
        for name in FILES:
            make_way(path / name, self.damaged)
            if content := (files or {}).get(name):
                write_atomically(path / name, content)
                checksums[name] = digest(path / name)
            else:  # of an attempt before
                (path / name).unlink(missing_ok=True)
        record = {
            "trial": trial.id,
            "key": trial.key,
            "status": row["status"],
            "settings": trial.settings(),
            "row": dict(row),
            "files": checksums,
            "usage": usage(),
            **({"details": dict(details)} if details else {}),
        }
        write_sealed(path / "trial.json", record)

    def write_evaluation(self, trial: Trial, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the evaluation of a trial that is done, whose record vouches for it from then on.

        Raises:
            RunError: If the record is damaged, or nothing can be written.
        """
        name = "evaluation.csv"
        write = partial(write_rows, columns=TRIAL_TABLES[name], rows=rows)
        self._add(trial, name, write, evaluation=trial.evaluation_key)

    def write_files(self, trial: Trial, files: Mapping[str, bytes]) -> None:
        """Write some of `FILES` of a trial that is done, for which its record vouches from then on.

        Raises:
            RunError: As `write_evaluation`.
        """
        for name, content in files.items():
            if content:
                self._add(trial, name, partial(write_atomically, content=content))

    def _add(self, trial: Trial, name: str, write: Callable[[Path], None], **noted: str) -> None:
        path = self.trial_path(trial.id)
        record = read_sealed(path / "trial.json")
        if record["files"].pop(name, None):  # a crash must not make the trial look damaged
            write_sealed(path / "trial.json", record | dict.fromkeys(noted, ""))
        make_way(path / name, self.damaged)
        write(path / name)
        record["files"][name] = digest(path / name)
        write_sealed(path / "trial.json", record | noted)

    def _keep_earlier(self, trial: Trial, path: Path) -> None:
        """Move a finished trial of other settings out of the way: its hours are not thrown away."""
        record = self.record(trial.id)
        if record is None or not record.done or record.key == trial.key:
            return
        place = unused(self.inside("replaced"), trial.id)
        try:
            place.mkdir(parents=True)
            for name in (*record.files, "trial.json"):
                os.replace(path / name, place / name)
        except OSError as error:
            raise RunError(f"{place}: cannot be written: {error.strerror or error}") from None

    def collect(self) -> list[dict[str, Any]]:
        """Write the tables of all recorded trials together; return the rows of ``trials.csv``.

        Safe to call at any time and from several processes: each table is replaced as a whole.
        """
        folder = self.trials
        planned, tuned = self.planned(), self.read("plan.json").get("tuned")
        names = [one for one in names_in(folder) if (folder / one).is_dir() or one in planned]
        rows: list[dict[str, Any]] = []
        parts: dict[str, list[Path]] = {table: [] for table in TRIAL_TABLES}
        with self.lock("collect"):
            parts["epochs.csv"] += self._pretraining_table()
            for name in names:
                record = self.record(name)
                if record is None:
                    continue
                row = record.row
                if isinstance(tuned, dict) and record.key == planned.get(name):
                    row = {**row, "tuned": tuned.get(name)}
                rows.append(row)
                for table in TRIAL_TABLES.keys() & record.files:
                    parts[table].append(folder / name / table)
            for table in ("trials.csv", *TRIAL_TABLES):
                make_way(self.path / table, self.damaged)
            write_rows(self.path / "trials.csv", columns_of(TRIAL_COLUMNS, rows), rows)
            for table, base in TRIAL_TABLES.items():
                write_joined(self.path / table, base, parts[table])
        return rows

    def about_pretrained(self, key: str) -> dict[str, Any]:
        """What a pretrained model's record says of it, once the table beside it is found whole.

        Raises:
            RunError: If one of them is damaged, or there is no such model.
        """
        model = below(self.pretrained, key)
        try:
            about: dict[str, Any] = read_sealed(model / "checkpoint.json")["meta"]["about"]
            if digest(model / "epochs.csv") != about["epochs"]:
                raise RunError(f"{model / 'epochs.csv'}: checksum does not match")
        except (KeyError, TypeError, OSError) as error:
            raise RunError(f"{model}: not a pretrained model: {error}") from None
        return about

    def note_pretraining(self, key: str) -> None:
        """Keep a copy of the epochs of a pretrained model in the run, and which model it is.

        Raises:
            RunError: If the model's record or table is damaged, or the copy cannot be written.
        """
        model, folder = below(self.pretrained, key), self.inside("pretrain")
        with self.lock("pretrain"):
            about = self.about_pretrained(key)
            note = {"key": key, "settings": about.get("settings"), "basis": about.get("basis")}
            with contextlib.suppress(RunError, OSError, KeyError):
                noted = read_sealed(folder / "checkpoint.json")
                if digest(folder / "epochs.csv") == noted.pop("epochs") and noted == note:
                    return
            if os.path.lexists(folder) and not folder.is_dir():
                set_aside(folder, self.damaged)
            for name in ("epochs.csv", "checkpoint.json"):
                make_way(folder / name, self.damaged)
            # From here to the end nothing vouches for the table; a crash means: copy it again.
            (folder / "checkpoint.json").unlink(missing_ok=True)
            rows = [{**row, "experiment": self.name} for row in read_rows(model / "epochs.csv")]
            write_rows(folder / "epochs.csv", EPOCH_COLUMNS, rows)
            note["epochs"] = digest(folder / "epochs.csv")
            write_sealed(folder / "checkpoint.json", note)

    def _pretraining_table(self) -> list[Path]:
        """The table of the pretraining, if there was one; a damaged one is made again."""
        folder, problem = self.inside("pretrain"), ""
        with self.lock("pretrain"):
            try:
                broken = os.path.lexists(folder) and not folder.is_dir()
                if broken or os.path.lexists(folder / "checkpoint.json"):
                    noted = read_sealed(folder / "checkpoint.json")
                    if digest(folder / "epochs.csv") == noted["epochs"]:
                        return [folder / "epochs.csv"]
                    problem = f"{folder / 'epochs.csv'}: checksum does not match"
            except (RunError, OSError, KeyError) as error:
                problem = str(error)
            if problem:
                problem += f"; set aside as {set_aside(folder, self.damaged)}"
        for key in self.planned_models():
            with contextlib.suppress(RunError):
                self.note_pretraining(key)
                if problem:
                    _LOG.warning("%s, and made again", problem)
                return [folder / "epochs.csv"]
        if problem:
            _LOG.warning("%s; the next pretraining writes it again", problem)
        return []

    # -- who is at work ----------------------------------------------------------------------------

    def trial_lock(
        self, trial_id: str, *, wait: bool = True
    ) -> contextlib.AbstractContextManager[bool]:
        """The lock that whoever runs a trial, or replaces its files, holds."""
        return lock_file(self.trial_lock_path(trial_id), wait=wait)

    def trial_lock_path(self, trial_id: str) -> Path:
        """The file of a trial's lock."""
        return self.inside(".locks") / f"trial-{content_key(trial_id)}.lock"

    def lock(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """A named lock of this run; see `lock_file`."""
        return lock_file(self.inside(".locks") / f"{name}.lock")

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Let other processes see, while the block runs, that this one is at work here."""
        mark = self.inside(".locks") / f"{_AT_WORK}{uuid.uuid4().hex}.lock"
        with lock_file(mark):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # the next one that looks removes it
                    mark.unlink()

    def others_at_work(self) -> bool:
        """Whether some `working` block runs here; marks of processes that are gone are removed."""
        found = False
        for mark in (self.inside(".locks")).glob(f"{_AT_WORK}*.lock"):
            with lock_file(mark, wait=False) as held:
                found = found or not held
                if held:
                    with contextlib.suppress(OSError):
                        mark.unlink()
        return found


def trial_row(trial: Trial) -> dict[str, Any]:
    """What the row of ``trials.csv`` says before there is any result."""
    varied = [*trial.axes, *(["class_set"] if trial.class_set else [])]
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
        "metric": trial.experiment.metric,
        "class_set": trial.class_set,
        "settings": common_key(trial.experiment.resolved(), trial.arm, varied),
        "analogtl": versions()["analogtl"],
        **trial.basis.columns(),
        "cpu": processor(),
        "key": trial.key,
    }
