"""The record of a trial: believed only if it, and each table that it vouches for, is whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analogtl.errors import RunError
from analogtl.files import digest, read_sealed
from analogtl.study.checked import row_problem
from analogtl.study.columns import (
    EPOCH_COLUMNS,
    EVALUATION_COLUMNS,
    LAYER_COLUMNS,
    PULSE_COLUMNS,
    TrialRow,
)
from analogtl.vocabulary import TrialStatus

TRIAL_TABLES = {
    "epochs.csv": EPOCH_COLUMNS,
    "layers.csv": LAYER_COLUMNS,
    "pulses.csv": PULSE_COLUMNS,
    "evaluation.csv": EVALUATION_COLUMNS,
}
CELLS = "pulses.safetensors"
"""File of a trial with the pulses of every cell, where they were asked for."""
WEIGHTS, ARRAYS = "weights.safetensors", "arrays.safetensors"
"""Files with its weights and the conductances of its arrays, likewise."""
FILES = (CELLS, ARRAYS, WEIGHTS)


@dataclass(frozen=True)
class Record:
    """What a trial's ``trial.json`` says, once it and the tables it vouches for are found whole."""

    key: str  # `Trial.key` of what it was run with
    done: bool  # finished, as opposed to failed
    row: dict[str, Any]  # its row of ``trials.csv``
    files: dict[str, str]  # name of each of its tables, and of `FILES` -> SHA-256
    evaluation: str = ""  # `Trial.evaluation_key` of what it was evaluated with after training


def state_of_files(path: Path) -> object:
    """What changes whenever a trial's record or one of its files does; None without a record."""
    states: list[tuple[int, int, int] | None] = []
    for name in ("trial.json", *TRIAL_TABLES, *FILES):
        try:
            about = (path / name).stat()
            states.append((about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError:
            states.append(None)
    return tuple(states) if states[0] else None


def read_record(path: Path, trial_id: str) -> Record:
    """Read the record of a trial from its directory.

    Raises:
        RunError: If it, or a file that it vouches for, is damaged.
    """
    file = path / "trial.json"
    content = read_sealed(file)
    if (
        content.get("trial") != trial_id
        or not isinstance(content.get("row"), dict)
        or content["row"].get("trial") != trial_id
        or not isinstance(content.get("files"), dict)
    ):
        raise RunError(f"{file}: not the record of this trial")
    if wrong := row_problem(content["row"], TrialRow):
        raise RunError(f"{file}: row.{wrong}")
    for name, expected in content["files"].items():
        if name not in (*TRIAL_TABLES, *FILES):
            raise RunError(f"{file}: vouches for {name!r}, which no trial has")
        try:
            whole = digest(path / name) == expected
        except OSError as error:
            raise RunError(f"{path / name}: {error.strerror or error}") from None
        if not whole:
            raise RunError(f"{path / name}: checksum does not match")
    evaluation = str(content.get("evaluation", ""))
    done = content.get("status") == TrialStatus.DONE
    return Record(str(content.get("key")), done, content["row"], content["files"], evaluation)


def is_plain(value: Any) -> bool:
    """Whether a value can be shown: text, nothing, or a number that is one."""
    return (
        value is None
        or isinstance(value, str | int)
        or (isinstance(value, float) and math.isfinite(value))
    )
