"""What ``import analogtl`` offers: run an experiment from Python, and read what runs wrote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.scheduling.progress import follow
from analogtl.scheduling.sweep import run_trials
from analogtl.study.checked import Problems
from analogtl.study.run_dir import DEFAULT_ROOT
from analogtl.study.study import Study
from analogtl.study.tables import find_all_tables, read_table, read_tables

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Experiment",
    "Study",
    "load_experiment",
    "read_epochs",
    "read_evaluation",
    "read_layers",
    "read_pulses",
    "read_trials",
    "run",
    "run_trials",
]


def run(
    experiment: str | Path | Experiment,
    *,
    sweep: bool = False,
    root: str | Path = DEFAULT_ROOT,
    jobs: int = 1,
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """Run an experiment from Python: the same as `analogtl finetune` or `analogtl sweep`.

    In a notebook, bars below the cell show how far it is.

    Args:
        experiment: File, name of a shipped experiment, or an experiment.
        sweep: Whether to run the sweep's axes and learning rates.
        root: Folder of the run directories.
        jobs: Trials at the same time.
        overrides: Settings as ``a.b=c``, over those of the file or the experiment.

    Returns:
        One row per trial of this call, failed ones too, as in ``trials.csv``.

    Raises:
        ExperimentError: If the experiment or a setting is wrong, with one line per problem.
    """
    study = Study.open(experiment, overrides, root, sweep=sweep)
    for phase in study.phases():
        follow(phase.run.name, phase.trials, run_trials(phase, jobs=jobs))
    table = read_table(study.run.path / "trials.csv")
    return table[table["key"].isin([trial.key for trial in study.trials])].reset_index(drop=True)


def read_trials(*where: str | Path, everything: bool = False) -> pd.DataFrame:
    """The trials that a report of these runs counts, one row each.

    Those are the finished ones of the experiment as it stands, at the learning rate kept for each
    level; a warning tells of trials that are left out because they rest on other settings, images
    or versions. ``experiment`` is the name of the run.

    Args:
        where: Run directories, folders of them, or ``trials.csv`` files.
        everything: Every row of the files instead, as it is there: all learning rates, failed
            trials, and those of earlier settings.

    Raises:
        ExperimentError: If there is none.
        RunError: If a file cannot be read.
    """
    return _read("trials.csv", where, everything)


def read_epochs(*where: str | Path, everything: bool = False) -> pd.DataFrame:
    """The epochs of the trials of `read_trials`, and of the pretraining.

    One row per trial, stage, epoch and split; see `read_trials` for the arguments.
    """
    return _read("epochs.csv", where, everything)


def read_layers(*where: str | Path, everything: bool = False) -> pd.DataFrame:
    """The analog layers of the trials of `read_trials`: one row per trial and layer."""
    return _read("layers.csv", where, everything)


def read_pulses(*where: str | Path, everything: bool = False) -> pd.DataFrame:
    """The pulses in the trials of `read_trials`: one row per trial, layer and epoch."""
    return _read("pulses.csv", where, everything)


def read_evaluation(*where: str | Path, everything: bool = False) -> pd.DataFrame:
    """The trials of `read_trials` a while after training: one row per trial, time and repeat."""
    return _read("evaluation.csv", where, everything)


def _read(name: str, where: Sequence[str | Path], everything: bool) -> pd.DataFrame:
    if everything:
        return read_tables(name, where)
    import pandas as pd

    from analogtl.analysis.one_study import each_once
    from analogtl.analysis.read import read_run, run_names

    folders = [file.parent for file in find_all_tables(name, where)]
    tables = []
    for folder, run_name in zip(folders, run_names(folders), strict=True):
        found, problems = read_run(folder, run_name), Problems()
        rows = found.chosen.rows
        if name != "trials.csv":
            table = read_table(folder / name, Problems())  # what is wrong, `found` has told
            shared = table["stage"].eq("pretrain") if "stage" in table else False
            rows = table[table["trial"].isin(rows["trial"]) | shared]
            of_row = ("trial", "stage", "epoch", "split", "layer", "time", "repeat")
            same = [column for column in of_row if column in rows]
            rows = each_once(rows.assign(experiment=run_name), same, folder / name, problems)
        for line in dict.fromkeys([*found.notes, *found.unreadable, *problems.all()]):
            warnings.warn(line, stacklevel=3)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)
