"""What ``import analogtl`` offers: run an experiment from Python, and read what runs wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.scheduling.sweep import run_trials
from analogtl.study.run_dir import DEFAULT_ROOT
from analogtl.study.study import Study
from analogtl.study.tables import read_epochs, read_layers, read_trials

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Experiment",
    "Study",
    "load_experiment",
    "read_epochs",
    "read_layers",
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

    Args:
        experiment: File, name of a shipped experiment, or an experiment.
        sweep: Whether to run the sweep's axes and learning rates.
        root: Folder of the run directories.
        jobs: Trials at the same time.
        overrides: Settings as ``a.b=c``.

    Returns:
        One row per trial, as in ``trials.csv``.
    """
    study = Study.open(experiment, overrides, root, sweep=sweep)
    study.prepare()
    for _ in run_trials(study, jobs=jobs):
        pass
    return read_trials(study.run.path)
