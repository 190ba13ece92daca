"""Take the networks of a run out of it: the pretrained ones, and those of its trials."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from analogtl.crossbar import checkpoint as state
from analogtl.crossbar.saved import as_file
from analogtl.errors import ExperimentError, RunError, counted
from analogtl.files import names_in, write_atomically
from analogtl.study.record import ARRAYS, WEIGHTS
from analogtl.study.run_dir import RunDir

HOW = "run.save_model (--save-model) keeps them"


def export(
    run: RunDir, out: Path, *, arms: Collection[str] = (), trials: Collection[str] = ()
) -> tuple[list[Path], list[str]]:
    """Write the networks of a run into a folder, as files of safetensors.

    Args:
        out: The folder, which is made if need be; files of the same names are replaced.
        arms: Only trials of these arms, and no pretrained network. Empty: all.
        trials: Only these trials, likewise.

    Returns:
        The files, and a line for each network that could not be had.

    Raises:
        ExperimentError: If there is nothing to export.
        RunError: If nothing can be written.
    """
    chosen, notes = _chosen(run, arms, trials)
    files: dict[str, bytes] = {}
    pretrained = [] if arms or trials else _pretrained(run)
    for key in pretrained:
        name = "pretrained" if len(pretrained) == 1 else f"pretrained-{key}"
        try:
            files[f"{name}.safetensors"] = _of_pretraining(run, key)
        except RunError as error:
            notes.append(str(error))
    without = 0
    for trial, names in chosen.items():
        without += WEIGHTS not in names
        for name in (one for one in (WEIGHTS, ARRAYS) if one in names):
            kind = "" if name == WEIGHTS else ".arrays"
            files[f"{trial}{kind}.safetensors"] = (run.trial_path(trial) / name).read_bytes()
    if without:
        notes.append(f"{counted(without, 'trial')} kept no model: {HOW}")
    if not files:
        raise ExperimentError(notes or [f"{run.path}: no trial is done"])
    for name, content in files.items():
        write_atomically(out / name, content)
    return [out / name for name in files], notes


def _chosen(
    run: RunDir, arms: Collection[str], trials: Collection[str]
) -> tuple[dict[str, set[str]], list[str]]:
    """The trials that are done and wanted, with the names of their files; and what is damaged."""
    found: dict[str, set[str]] = {}
    notes: list[str] = []
    for name in trials or names_in(run.trials):
        try:
            record = run.checked_record(name)
        except RunError as error:
            notes.append(str(error))
            continue
        if record is not None and record.done and (not arms or record.row.get("arm") in arms):
            found[name] = set(record.files)
        elif trials:
            what = "not of these arms" if record is not None and record.done else "not done"
            notes.append(f"{run.path / 'trials' / name}: {what if record else 'no such trial'}")
    return found, notes


def _pretrained(run: RunDir) -> list[str]:
    """Names of the pretrained models that the run rests on, and that are there."""
    noted = run.read("pretrain", "checkpoint.json").get("key")
    keys = dict.fromkeys([*run.planned_models(), *([str(noted)] if noted else [])])
    return [key for key in keys if run.find_pretrained(key) is not None]


def _of_pretraining(run: RunDir, key: str) -> bytes:
    about = run.about_pretrained(key)
    file = run.pretrained / key / "checkpoint"
    if (loaded := state.load(file)) is None:
        raise RunError(f"{file}: gone")
    tensors = {name.removeprefix("digital/"): one for name, one in loaded[0].items()}
    names = about.get("names", tensors)  # without buffers that the network makes anew
    told = {key: about[key] for key in {"mean", "std", "settings"} & about.keys()}
    return as_file({name: tensors[name] for name in names}, {**told, "format": "pt"})
