"""Several runs as one, so that one figure and one table compare them: the run is an axis."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from analogtl.analysis.curves import metric_in
from analogtl.analysis.read import RunData
from analogtl.analysis.select_lr import Selection
from analogtl.analysis.tuning import COMPARED
from analogtl.errors import ExperimentError
from analogtl.report.page import flatten
from analogtl.vocabulary import RUN_AXIS

MAX_NAME: Final = 60


def joined(runs: Sequence[RunData]) -> RunData:
    """Runs as one run, in which each trial has its run as a level of the axis `RUN_AXIS`.

    The learning rate of each run is chosen within it, and its curves stay its own.

    Raises:
        ExperimentError: If they are not judged by the same metric.
    """
    judged = {run.name: metric_in(run.chosen.rows) for run in runs if len(run.chosen.rows)}
    if len(set(judged.values())) > 1:
        told = ", ".join(f"{name} by {metric.axis}" for name, metric in judged.items())
        raise ExperimentError(
            f"--together: one figure takes one metric, and the runs are judged by several: {told}; "
            "report them without --together"
        )
    name = " and ".join(run.name for run in runs)
    runs = [replace(run, name=part) for run, part in zip(runs, _own_parts(runs), strict=True)]
    axes: dict[str, list[Any]] = {RUN_AXIS: [run.name for run in runs]}
    for run in runs:
        asked = run.setting("sweep", "axes")
        for axis, levels in asked.items() if isinstance(asked, dict) else ():
            known = axes.setdefault(axis, [])
            known += [level for level in levels if level not in known]
    same = all(run.hardware == runs[0].hardware for run in runs)
    hardware = runs[0].hardware if same else {}
    return RunData(
        name=name if len(name) <= MAX_NAME else f"{len(runs)} runs together",
        path=runs[0].path,
        trials=_stacked(runs, lambda run: run.trials),
        chosen=Selection(
            rows=_stacked(runs, lambda run: run.chosen.rows),
            failed=_stacked(runs, lambda run: run.chosen.failed),
            choices=_stacked(runs, lambda run: run.chosen.choices),
        ),
        epochs=_stacked(runs, lambda run: run.epochs),
        layers=_stacked(runs, lambda run: run.layers),
        evaluation=_stacked(runs, lambda run: run.evaluation),
        hardware=hardware,
        work=_stacked(runs, lambda run: run.work) if hardware else pd.DataFrame(),
        untuned=_untuned(runs),
        notes=tuple(note for run in runs for note in run.notes),
        experiment={
            "sweep": {"axes": axes},
            "report": runs[0].experiment.get("report"),
            "evaluate": {"noise_model": _noise_models(runs)},
        },
    )


def _noise_models(runs: Sequence[RunData]) -> str:
    """What the runs were evaluated with after training, and which with what where they differ."""
    models: dict[str, list[str]] = {}
    for run in runs:
        if len(run.evaluation):
            models.setdefault(str(run.setting("evaluate", "noise_model")), []).append(run.name)
    if len(models) < 2:
        return "".join(models)
    return "; ".join(f"{model} ({', '.join(names)})" for model, names in models.items())


def _untuned(runs: Sequence[RunData]) -> tuple[str, ...]:
    """Their untuned axes, and the run itself where runs of other devices are not all tuned."""
    found = {axis: None for run in runs for axis in run.untuned}
    kinds = {repr([run.setting(*key.split(".")) for key in COMPARED]) for run in runs}
    if len(kinds) > 1 and any(run.tuning.empty for run in runs):
        found[RUN_AXIS] = None
    return tuple(found)


def _stacked(runs: Sequence[RunData], frame_of: Callable[[RunData], pd.DataFrame]) -> pd.DataFrame:
    """The tables of the runs as one; a trial's name is told from that of the other runs."""
    frames = []
    for run in runs:
        frame = frame_of(run).assign(experiment=run.name, **{RUN_AXIS: run.name})
        if "trial" in frame:
            frame["trial"] = [f"{run.name}/{trial}" for trial in frame["trial"]]
        frames.append(frame)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def _own_parts(runs: Sequence[RunData]) -> list[str]:
    """What tells the names of the runs from each other: ``2class`` and ``5class``."""
    names = [re.split(r"(?<=[_/-])", run.name) for run in runs]
    shared = 0
    while all(len(name) > shared + 1 for name in names) and len({n[shared] for n in names}) == 1:
        shared += 1
    return ["".join(name[shared:]) for name in names]


def differences(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """The settings in which the runs differ, with what each has."""
    settings = [dict(flatten(run.experiment)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    found = []
    for key in keys:
        values = [one.get(key, "not set") for one in settings]
        if len(set(values)) > 1 and key not in ("name", "description"):
            found.append((key, "; ".join(dict.fromkeys(values))))
    return found
