"""Reading run directories: the tables of a run, and the JSON beside them, as one object.

Reads CSV and JSON only: never a checkpoint, never torch. A run can be read at any moment; what is
missing is told, and trials that an earlier form of the experiment left behind are set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analogtl.analysis.costs import hardware_of
from analogtl.analysis.judged import with_balanced, with_judged
from analogtl.analysis.one_study import each_once, of_one_study
from analogtl.analysis.select_lr import Selection, finished, select_learning_rate
from analogtl.analysis.tuning import read_tuning, untuned_axes
from analogtl.analysis.work import work_of
from analogtl.config.hardware import Constant
from analogtl.errors import ExperimentError, RunError, printable
from analogtl.study.checked import Problems, read_checked, read_fields, visible
from analogtl.study.columns import (
    EVALUATION_COLUMNS,
    LAYER_COLUMNS,
    TRIAL_COLUMNS,
    EpochRow,
    axis_columns,
)
from analogtl.study.fields import DataFields, ExperimentFields, PlanFields, ProvenanceFields
from analogtl.study.tables import find_tables, read_table
from analogtl.vocabulary import Metric

_NEEDED: Final = ("trial", "arm", "seed", "status")
_LAYER_COLUMNS: Final = list(LAYER_COLUMNS)
_EPOCH_COLUMNS: Final = [
    *("trial", "stage", "epoch", "split", "error", "balanced_error", "weights_changed"),
]
_REMEDY: Final = "the command that made the run writes it again, and trains nothing twice"


@dataclass(frozen=True)
class RunData:
    """One run as read: its tables, and the JSON beside them ({} where there is none).

    Attributes:
        trials: The rows of ``trials.csv``; ``experiment`` is the run's name.
        chosen: The trials at the learning rate kept, with what they are judged by, and how it was
            chosen.
        epochs: Test error and changed cells per fine-tuning epoch of the chosen trials.
        layers: The rows of ``layers.csv`` of the chosen trials.
        hardware: What [hardware] sets, by key; {} for nothing.
        work: What the arrays of the chosen trials did (`analogtl.analysis.work`), where it does.
        tuning: What was chosen by [sweep.tune]; see `analogtl.analysis.tuning.read_tuning`.
        untuned: Axes along which devices or algorithms are compared that were not tuned.
        evaluation: The rows of ``evaluation.csv`` of the chosen trials.
        pretrained: Test error after pretraining, percent; None if unknown.
        planned: Ids of the trials that were asked for; None if unknown.
        experiment: Resolved experiment.
        provenance: Versions, hardware, command.
        images: Stage -> the images that it uses, as in ``data.json``.
        notes: What was left out because it does not belong to the others, a line each.
        unreadable: What is damaged and was left out, a line each.
    """

    name: str
    path: Path
    trials: pd.DataFrame
    chosen: Selection
    epochs: pd.DataFrame = field(default_factory=partial(pd.DataFrame, columns=_EPOCH_COLUMNS))
    layers: pd.DataFrame = field(default_factory=partial(pd.DataFrame, columns=_LAYER_COLUMNS))
    hardware: dict[str, Constant] = field(default_factory=dict)
    work: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)
    untuned: tuple[str, ...] = ()
    evaluation: pd.DataFrame = field(
        default_factory=partial(pd.DataFrame, columns=list(EVALUATION_COLUMNS))
    )
    pretrained: float | None = None
    planned: list[str] | None = None
    experiment: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The experiment's own line about itself."""
        return str(self.experiment.get("description") or "")

    def setting(self, *keys: str) -> Any:
        """A value of the resolved experiment, by its keys from the outside in; None if absent."""
        value: Any = self.experiment
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def unfinished(self) -> pd.DataFrame:
        """Trials that failed or were planned and are missing: experiment, trial, state, message."""
        failed = self.trials[~finished(self.trials)]
        told = zip(failed["trial"], failed["status"], failed["message"].fillna(""), strict=True)
        rows = [(self.name, *row) for row in told]
        known = set(self.trials["trial"])
        rows += [(self.name, t, "missing", "") for t in self.planned or [] if t not in known]
        return pd.DataFrame(rows, columns=["experiment", "trial", "state", "message"])


def find_runs(where: Iterable[Path]) -> list[Path]:
    """The run directories at or below the given ones, fig2 before fig10.

    Raises:
        ExperimentError: If a folder does not exist or holds no run.
    """
    problems: list[str] = []
    found: dict[Path, Path] = {}
    for place in where:
        if not place.is_dir():
            problems.append(f"{place}: no such folder; expected a run directory or folder of runs")
            continue
        files = [
            file
            for name in ("trials.csv", "epochs.csv", "plan.json")
            for file in find_tables(name, place)
        ]
        if not files:
            problems.append(
                f"{place}: no run found (no trials.csv below it); "
                "`analogtl finetune` and `analogtl sweep` write one"
            )
        found |= {file.parent.resolve(): file.parent for file in files}
    if problems:
        raise ExperimentError(problems)
    return sorted(found.values(), key=_numbers_by_value)


def _numbers_by_value(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def run_names(paths: Iterable[Path]) -> list[str]:
    """A name per run: its folder's; with the folders above it where two would be the same."""
    parts = [tuple(map(printable, path.resolve().parts)) for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(part) for part in parts]


def read_run(
    path: Path, name: str, judged_epochs: int | None = None, settings: Sequence[str] = ()
) -> RunData:
    """Read a run's tables and the JSON beside them, choose its learning rates, judge its trials.

    Without ``trials.csv`` there is no run; what else cannot be read is left out, and noted.

    Args:
        judged_epochs: How many of the last epochs count; by default the experiment's own.
        settings: ``hardware.key=value`` over the experiment's own.

    Raises:
        ExperimentError: If a setting is wrong.
        RunError: If ``trials.csv`` cannot be read, or a trial has fewer epochs.
    """
    problems = Problems()
    experiment = visible(read_fields(path / "experiment.resolved.json", ExperimentFields, problems))
    plan = read_fields(path / "plan.json", PlanFields, problems).get("trials")
    if isinstance(plan, list):  # of an earlier version, which knew no keys
        plan = dict.fromkeys(plan, "")
    trials = _trials(path, name, _numeric_axes(experiment), problems)
    trials, notes = of_one_study(trials, experiment, plan or {})
    same = ["arm", *axis_columns(trials.columns), "lr", "seed", "class_set"]
    trials = each_once(trials, same, path / "trials.csv", problems)
    quantity = "error"
    if experiment.get("report", {}).get("metric") == Metric.BALANCED_ERROR:
        trials, lacking = with_balanced(trials, _every_epoch(path / "epochs.csv", trials))
        notes += [f"{name}: {lacking}"] if lacking else []
        quantity = "error" if lacking else "balanced_error"
    chosen = select_learning_rate(trials)
    ids = set(chosen.rows["trial"])
    found: dict[str, Any] = {}
    try:
        epochs, found["pretrained"] = _epochs(path / "epochs.csv", ids, problems, quantity)
        same = ["trial", "epoch"]
        found["epochs"] = each_once(epochs, same, path / "epochs.csv", problems)
    except RunError as error:
        problems.other(f"left out: {error}")
    try:
        layers = _table(path / "layers.csv", LAYER_COLUMNS, problems, needed=("trial", "layer"))
        layers = layers[layers["trial"].isin(ids)]
        same = ["trial", "layer"]
        found["layers"] = each_once(layers, same, path / "layers.csv", problems)
    except RunError as error:
        problems.other(f"left out: {error}")
    try:
        names = EVALUATION_COLUMNS
        needed = ("trial", "time", "error")
        aged = _table(path / "evaluation.csv", names, problems, needed=needed)
        aged = aged[aged["trial"].isin(ids)]
        if aged[quantity].isna().any():
            notes.append(f"{name}: evaluation.csv: left out: it has no {quantity}")
        else:
            found["evaluation"] = aged.assign(error=aged[quantity])
    except RunError as error:
        problems.other(f"left out: {error}")
    if judged_epochs is None:
        judged_epochs = experiment.get("report", {}).get("judged_epochs")
    epochs = found.get("epochs", pd.DataFrame(columns=_EPOCH_COLUMNS))
    rows, lacking = with_judged(chosen.rows, epochs, judged_epochs)
    chosen = replace(chosen, rows=rows)
    if lacking:
        notes.append(f"{name}: {lacking}")
    if hardware := hardware_of(experiment.get("hardware"), settings, name):
        lines = _add_work(found, path, chosen.rows, experiment, hardware, problems)
        notes += [f"{name}: {line}" for line in lines]
    provenance = read_fields(path / "provenance.json", ProvenanceFields, problems)
    tuned = experiment.get("sweep", {}).get("tune", {}).get("candidates", {})
    numeric = [*_numeric_axes(experiment), *_of_numbers(tuned)]
    return RunData(
        name=name,
        path=path,
        trials=trials,
        chosen=chosen,
        tuning=_shown(read_tuning(path / "tuning.csv", tuned, problems, numeric=numeric)),
        untuned=untuned_axes(rows),
        planned=None if plan is None else visible(list(plan)),
        experiment=experiment,
        provenance=provenance,
        images=visible(read_fields(path / "data.json", DataFields, problems)),
        notes=tuple(notes),
        unreadable=tuple(problems.all()),
        **found,
    )


def _add_work(
    found: dict[str, Any],
    path: Path,
    trials: pd.DataFrame,
    experiment: Mapping[str, Any],
    hardware: dict[str, Constant],
    problems: Problems,
) -> list[str]:
    """Add hardware and work to the parts of a `RunData`; tell which arms have no costs, and why."""
    layers = found.get("layers", pd.DataFrame(columns=_LAYER_COLUMNS))
    endurance = hardware["endurance"].value if "endurance" in hardware else None
    batch = experiment.get("finetune", {}).get("batch_size", 1)
    work, lines = work_of(
        path, trials, layers, batch_size=batch, endurance=endurance, problems=problems
    )
    if work.empty and not lines:
        lines = ["no costs: no trial has arrays"]
    found |= {"hardware": hardware, "work": work}
    return lines


def _numeric_axes(experiment: Mapping[str, Any]) -> list[str]:
    """The axes whose levels are all numbers in the experiment."""
    return _of_numbers(experiment.get("sweep", {}).get("axes", {}))


def _of_numbers(varied: Mapping[str, Iterable[Any]]) -> list[str]:
    return [key for key, values in varied.items() if all(type(x) in (int, float) for x in values)]


def _table(
    file: Path, names: Sequence[str], problems: Problems, **options: Iterable[str]
) -> pd.DataFrame:
    """A table that may be missing, with all its usual columns."""
    if not file.is_file():
        return pd.DataFrame(columns=list(names))
    table = _shown(read_table(file, problems, **options))
    return table.reindex(columns=[*dict.fromkeys([*table.columns, *names])])


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with names and text of visible characters only: it goes into figures and pages."""
    for name in table.columns:
        if table[name].dtype == object:
            texts = {x: printable(x) for x in table[name].unique() if isinstance(x, str)}
            if any(text != shown for text, shown in texts.items()):
                table[name] = table[name].map(lambda x, texts=texts: texts.get(x, x))
    return table.rename(columns=printable)


def _trials(path: Path, name: str, numeric: Iterable[str], problems: Problems) -> pd.DataFrame:
    file = path / "trials.csv"
    if not file.is_file() and any(path.glob("trials/*/trial.json")):
        raise RunError(f"{file}: missing, although trials are recorded; {_REMEDY}")
    options = {"header": ("error_final",), "needed": _NEEDED, "numeric": numeric}
    trials = _table(file, TRIAL_COLUMNS, problems, **options)
    # A name of its own in this report, also where two runs hold the same experiment.
    return trials.assign(experiment=name)


def _every_epoch(file: Path, trials: pd.DataFrame) -> pd.DataFrame:
    """The validation and test rows of all trials; what is wrong with others, `_epochs` tells."""
    try:
        return _epochs(file, set(trials["trial"]), Problems(), splits=("validation", "test"))[0]
    except RunError:
        return pd.DataFrame(columns=_EPOCH_COLUMNS)


def _epochs(
    file: Path,
    trials: set[str],
    problems: Problems,
    quantity: str = "error",
    splits: Sequence[str] = ("test",),
) -> tuple[pd.DataFrame, float | None]:
    """The test rows of the chosen trials, and the last test error of pretraining.

    Read in pieces: of a large study this is the only large file, and most of it is not needed.

    Args:
        quantity: The column that is taken for the error.
        splits: Other splits than the test images.
    """
    kept, pretrained = [pd.DataFrame(columns=_EPOCH_COLUMNS)], None
    needed = ("trial", "stage", "epoch", "split")
    only = (*_EPOCH_COLUMNS, "arm")
    pieces = read_checked(file, EpochRow, problems, header=("error",), needed=needed, only=only)
    for piece in pieces if file.is_file() else ():
        piece = piece.reindex(columns=[*dict.fromkeys([*piece.columns, *_EPOCH_COLUMNS])])
        test = piece[piece["split"] == "test"]
        first = test[(test["stage"] == "pretrain") & test[quantity].notna()]
        if len(first):
            pretrained = float(first[quantity].iloc[-1])
        asked = _shown(piece[piece["split"].isin(splits)].reset_index(drop=True))
        kept.append(asked[(asked["stage"] == "finetune") & asked["trial"].isin(trials)])
    rows = pd.concat([k for k in kept if len(k)] or kept, ignore_index=True)
    return rows.assign(error=rows[quantity]).reindex(columns=_EPOCH_COLUMNS), pretrained
