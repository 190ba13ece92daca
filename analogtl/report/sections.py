"""What the runs come to: reading them, and the tables, charts and figures of each.

Reads CSV and the JSON beside it: never a checkpoint, never torch. A sweep can be read at any
moment; what is missing is said, and means are over what is there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analogtl.analysis import summaries
from analogtl.analysis.critical_point import ALPHA, MARGIN, critical_points
from analogtl.analysis.select_lr import Selection, select_learning_rate
from analogtl.errors import ExperimentError, RunError, counted
from analogtl.files import read_json
from analogtl.report import charts, tables
from analogtl.report import figures as plots
from analogtl.report.figures import Marks
from analogtl.report.svg import Chart
from analogtl.report.tables import Table
from analogtl.study import columns as records
from analogtl.study.trial import common_key
from analogtl.vocabulary import Arm, arm_label, label_of

MAX_LINES = 10  # more lines than this make a figure that nobody can read
QUANTITY = "error_final"  # `error_best` picks its epoch on the test set


@dataclass(frozen=True)
class RunData:
    """One run as read: its tables, and the JSON beside them ({} where there is none).

    Attributes:
        name: Name of the run, unique in the report.
        path: Its directory.
        trials: The rows of ``trials.csv``; ``experiment`` is the run's name.
        chosen: The finished trials at the learning rate kept, and how it was chosen.
        epochs: Test error and changed cells per fine-tuning epoch of the chosen trials.
        layers: The rows of ``layers.csv`` of the chosen trials.
        pretrained: Test error after pretraining, percent; None if unknown.
        planned: Ids of the trials that were asked for; None if unknown.
        experiment: Resolved experiment.
        provenance: Versions, hardware, command.
        unreadable: What could not be read, a line each.
    """

    name: str
    path: Path
    trials: pd.DataFrame
    chosen: Selection
    epochs: pd.DataFrame
    layers: pd.DataFrame
    pretrained: float | None = None
    planned: list[str] | None = None
    experiment: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @property
    def axes(self) -> list[str]:
        """The axes that the chosen trials vary."""
        return summaries.swept_axes(self.chosen.rows)

    @property
    def description(self) -> str:
        """The experiment's own line about itself."""
        return str(self.experiment.get("description") or "")

    def judged_by(self, key: str, default: float) -> float:
        """The experiment's own margin or alpha."""
        section = self.experiment.get("report")
        value = section.get(key) if isinstance(section, dict) else None
        return float(value) if isinstance(value, (int, float)) and value > 0 else default

    def unfinished(self) -> pd.DataFrame:
        """Trials that failed or were planned and are missing: experiment, trial, state, message."""
        failed = self.trials[self.trials["status"] != "done"]
        rows = [
            (self.name, trial, status, "" if summaries.is_empty(message) else message)
            for trial, status, message in zip(
                failed["trial"], failed["status"], failed["message"], strict=True
            )
        ]
        known = set(self.trials["trial"])
        rows += [(self.name, t, "missing", "") for t in self.planned or [] if t not in known]
        return pd.DataFrame(rows, columns=["experiment", "trial", "state", "message"])


# ------------------------------------------------------------------------------------- reading


def find_runs(where: Sequence[Path]) -> list[Path]:
    """The run directories at or below the given ones.

    Raises:
        ExperimentError: If a folder does not exist or holds no run.
    """
    problems, found = [], {}
    for place in where:
        if not place.is_dir():
            problems.append(
                f"{place}: {'not a' if place.exists() else 'no such'} folder; expected a run "
                "directory or a folder of runs"
            )
            continue
        files = [
            file
            for name in ("trials.csv", "epochs.csv", "plan.json")
            for file in records.find_tables(name, place)
        ]
        if not files:
            problems.append(
                f"{place}: no run found (no trials.csv below it); "
                "`analogtl finetune` and `analogtl sweep` write one"
            )
        for file in files:
            found[file.parent.resolve()] = file.parent
    if problems:
        raise ExperimentError(problems)
    return sorted(found.values(), key=lambda path: _natural(path.as_posix()))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts fig2 before fig10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def read_run(path: Path, name: str) -> RunData:
    """Read a run's tables and the JSON beside them.

    Without ``trials.csv`` there is no run; what else cannot be read is left out, and noted.

    Raises:
        RunError: If ``trials.csv`` cannot be read.
    """
    experiment = _json(path / "experiment.resolved.json")
    trials, unreadable = _of_one_experiment(_trials(path, name), experiment)
    chosen = select_learning_rate(trials)
    ids = set(chosen.rows["trial"])
    epochs, pretrained = pd.DataFrame(columns=_EPOCHS_NEEDED), None
    try:
        epochs, pretrained = _epochs(path / "epochs.csv", ids)
    except RunError as error:
        unreadable.append(f"left out: {error}")
    layers = pd.DataFrame(columns=list(records.LAYER_COLUMNS))
    try:
        layers = _read(path / "layers.csv", records.LAYER_COLUMNS)
        layers = layers[layers["trial"].isin(ids)]
    except (RunError, KeyError) as error:
        unreadable.append(f"left out: {error}")
    plan = _json(path / "plan.json").get("trials")
    return RunData(
        name=name,
        path=path,
        trials=trials,
        chosen=chosen,
        epochs=epochs,
        layers=layers,
        pretrained=pretrained,
        planned=[str(trial) for trial in plan] if isinstance(plan, list) else None,
        experiment=experiment,
        provenance=_json(path / "provenance.json"),
        unreadable=tuple(unreadable),
    )


_AGAIN = "the command that made the run writes it again, and trains nothing twice"


def _trials(path: Path, name: str) -> pd.DataFrame:
    file = path / "trials.csv"
    if not file.is_file() and any(path.glob("trials/*/trial.json")):
        raise RunError(f"{file}: missing, although trials are recorded; {_AGAIN}")
    trials = _read(file, records.TRIAL_COLUMNS)
    missing = {"trial", "arm", "seed", "status", QUANTITY} - set(trials.columns)
    if missing:
        raise RunError(f"{path / 'trials.csv'}: no column {', '.join(sorted(missing))}")
    if trials["status"].isna().any():
        raise RunError(f"{file}: damaged (a row without status); {_AGAIN}")
    # A name of its own in this report, also where two runs hold the same experiment.
    return trials.assign(experiment=name)


def _of_one_experiment(
    trials: pd.DataFrame, experiment: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    """The trials without those that an earlier form of the experiment left in the run directory.

    Trials of one arm along the same axes are averaged, so they must have all else in common: they
    are left out where the run holds others whose settings are the experiment's, or, if nothing
    tells, where others are in the majority. Returns also a line for each such group.
    """
    if "settings" not in trials or not trials["settings"].notna().any():
        return trials, []
    name = trials["experiment"].iloc[0]
    axes = records.axis_columns(trials.columns)
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    present = trials[axes].notna().to_numpy()
    for place, arm in enumerate(trials["arm"]):
        along = tuple(itertools.compress(axes, present[place]))
        groups.setdefault((str(arm), along), []).append(place)
    left_out, notes = [], []
    for (arm, along), places in groups.items():
        settings = trials["settings"].iloc[places]
        found = settings.value_counts()
        try:
            now = common_key(experiment, Arm(arm), along)
        except (KeyError, TypeError, ValueError):
            now = ""
        if len(found) < 2:
            if now and len(found) and now not in found:
                of = f" along {', '.join(along)}" if along else ""
                notes.append(
                    f"{name}: {arm}{of}: {counted(len(places), 'trial')}, run with other settings "
                    "than the experiment has now; compare them with nothing else"
                )
            continue
        kept = now if now in found else found.index[0]
        other = settings[settings.ne(kept).fillna(False)]
        left_out += list(other.index)
        notes.append(
            f"{name}: {arm}: {counted(len(other), 'trial')} left out, run with other settings than "
            f"the {len(places) - len(other)} shown"
        )
    return trials.drop(index=left_out), notes


def _read(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=list(columns))
    return records.read_table(file)


_EPOCHS_NEEDED = ["trial", "stage", "epoch", "split", "error", "weights_changed"]


def _epochs(file: Path, trials: set[str]) -> tuple[pd.DataFrame, float | None]:
    """The test rows of the chosen trials, and the last test error of pretraining.

    Read in pieces: of a large study this is the only large file, and most of it is not needed.
    """
    kept, pretrained = [pd.DataFrame(columns=_EPOCHS_NEEDED)], None
    if file.is_file():
        try:
            with pd.read_csv(
                file,
                usecols=lambda column: column in _EPOCHS_NEEDED,
                dtype={"trial": "string", "stage": "string", "split": "string"},
                chunksize=100_000,
            ) as pieces:
                for piece in pieces:
                    test = piece[piece["split"] == "test"]
                    first = test[(test["stage"] == "pretrain") & test["error"].notna()]
                    if len(first):
                        pretrained = float(first["error"].iloc[-1])
                    tuned = test[(test["stage"] == "finetune") & test["trial"].isin(trials)]
                    kept.append(tuned.astype(dict.fromkeys(("trial", "stage", "split"), object)))
        except (OSError, ValueError, KeyError, pd.errors.ParserError) as error:
            raise RunError(f"{file}: not a readable table: {error}") from None
    rows = pd.concat([k for k in kept if len(k)] or kept, ignore_index=True)
    return rows.reindex(columns=_EPOCHS_NEEDED), pretrained


def _json(file: Path) -> dict[str, Any]:
    """What a JSON file holds; {} if it is not there, not whole or not an object."""
    try:
        content = read_json(file)
    except RunError:
        return {}
    return content if isinstance(content, dict) else {}


def run_names(paths: Sequence[Path]) -> list[str]:
    """A name per run: its folder's; with the folders above it where two would be the same."""
    resolved = [path.resolve() for path in paths]
    depth = 1
    while True:
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names) or depth > 20:
            return names
        depth += 1


# ------------------------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Section:
    """What one run comes to: tables, charts for the page, and makers of the figures.

    Attributes:
        run: The run.
        tables: The tables everybody wants.
        more_tables: Long tables about learning rates and layers.
        points: Rows of `critical_points`.
        figures: Stem of the file -> the call that draws it (drawing is slow, so only on demand).
        words: What the statistics say.
    """

    run: RunData
    tables: list[Table]
    more_tables: list[Table]
    charts: list[Chart]
    layer_charts: list[Chart]
    points: pd.DataFrame
    figures: dict[str, Callable[[], Figure]]
    words: list[str]


def study(run: RunData, *, margin: float | None = None, alpha: float | None = None) -> Section:
    """Everything that one run comes to; ``margin`` and ``alpha`` default to the experiment's."""
    margin = run.judged_by("margin", MARGIN) if margin is None else margin
    alpha = run.judged_by("alpha", ALPHA) if alpha is None else alpha
    section = Section(
        run, [], [], [], [], critical_points(run.trials, alpha=alpha, margin=margin), {}, []
    )
    if run.chosen.rows.empty:
        return section
    _add_errors(section)
    if not run.layers.empty:
        _add_layers(section)
    return section


def _add_errors(section: Section) -> None:
    run = section.run
    trials, axes = run.chosen.rows, run.axes
    levels = summaries.levels(trials)
    several = bool((run.chosen.choices["n_lrs"] > 1).any())
    note = "At each level the learning rate with the lowest validation error." if several else ""
    section.tables.append(tables.outcomes_table(levels, experiment=run.name, note=note))
    if several:
        section.more_tables.append(
            tables.learning_rates_table(run.chosen.choices, axes, experiment=run.name)
        )
    drawn = [axis for axis in axes if _add_level_figure(section, levels, axis)]
    if len(axes) > 1 and not drawn:
        _add_level_maps(section, levels)
    told = section.points[section.points["verdict"] != "not enough data"]
    for arm, axis, at, words in zip(
        told["arm"], told["axis"], told["at"], told["sentence"], strict=True
    ):
        where = arm_label(str(arm)) + (f" at {at}" if at else "")
        section.words.append(f"{where}, {label_of(str(axis))}: {words}")
    untold = len(section.points) - len(told)
    if untold:
        section.words.append(f"Curves without enough data for a critical point: {untold}.")
    if len(told):
        section.tables.append(tables.critical_points_table(section.points, experiment=run.name))
    traces = summaries.traces(run.epochs, trials)
    if traces.empty or traces["epoch"].nunique() < 2:
        return
    for arm, rows in _readable_traces(traces, axes):
        _add_trace_figures(section, rows, arm)


def _add_level_figure(section: Section, levels: pd.DataFrame, axis: str) -> bool:
    """Error against one axis; whether the lines are few enough for it."""
    others = [a for a in section.run.axes if a != axis]
    if len(summaries.series(levels, axis, QUANTITY, others)) > MAX_LINES:
        return False
    marks = list(_marks(section.points, axis))
    trials = section.run.chosen.rows
    section.charts.append(charts.level_chart(levels, axis, marks=marks))
    section.figures[f"error-{slug(axis)}"] = partial(
        plots.error_vs_level, levels, trials, axis, marks=marks
    )
    return True


def _add_level_maps(section: Section, levels: pd.DataFrame) -> None:
    """Error over the two axes with most levels, a map for each setting of the others."""
    axes = section.run.axes
    numbers = [axis for axis in axes if summaries.is_numeric(levels[axis].dropna())]
    x, y = sorted(numbers or axes, key=lambda axis: -levels[axis].nunique())[:2]
    by = [axis for axis in axes if axis not in (x, y)]
    rows = levels[levels[x].notna() & levels[y].notna()]
    panels = list(plots.panels_of(rows, by))
    if len(panels) > MAX_LINES:
        return
    section.charts.extend(charts.level_map(frame, x, y, title=name) for name, frame in panels)
    section.figures[f"map-{slug(x)}-{slug(y)}"] = partial(plots.level_maps, rows, x, y, by)


def _marks(points: pd.DataFrame, axis: str) -> Iterator[Marks]:
    """What to mark on a figure: one mark per arm; several curves of an arm would be a thicket."""
    here = points[points["axis"] == axis]
    for arm, rows in here.groupby("arm", sort=False):
        if len(rows) > 1 or rows["verdict"].iloc[0] == "not enough data":
            continue
        row = rows.iloc[0]
        yield Marks(
            arm=str(arm),
            headline=str(row["headline"]),
            sentence=str(row["sentence"]),
            critical=_number(row["critical"]),
            elbow=_number(row["elbow"]),
            low=_number(row["elbow_low"]),
            high=_number(row["elbow_high"]),
            certified=_number(row["certified"]),
            margin=_number(row["margin"]),
        )


def _number(value: object) -> float | None:
    return None if summaries.is_empty(value) else float(value)  # type: ignore[arg-type]


def _readable_traces(
    traces: pd.DataFrame, axes: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Traces for one figure each: all arms; in a sweep, an arm's levels beside the digital arms.

    Yields:
        The arm that a figure is about, "" for all, and its rows.
    """
    if not axes:
        yield "", traces
        return
    swept = set(traces.loc[traces[list(axes)].notna().any(axis=1), "arm"])
    without = traces[~traces["arm"].isin(swept)]
    for arm in summaries.arms_of(traces[traces["arm"].isin(swept)]):
        rows = traces[traces["arm"] == arm]
        if len(rows[list(axes)].drop_duplicates()) <= MAX_LINES:
            yield arm, pd.concat([without, rows], ignore_index=True)


def _add_trace_figures(section: Section, traces: pd.DataFrame, arm: str) -> None:
    whose = f", {arm_label(arm)}" if arm else ""
    suffix = f"-{slug(arm)}" if arm else ""
    label = plots.error_label(traces)
    title = f"{label.partition(' (')[0].capitalize()} per epoch{whose}"
    section.charts.append(charts.trace_chart(traces, title=title, y_label=label))
    section.figures[f"traces{suffix}"] = partial(plots.error_traces, traces, label=label)
    # Only analog arms have cells; of a sweep, only the arm's own are of interest here.
    moved = traces[traces["weights_changed_mean"].notna()]
    if arm:
        moved = moved[moved["arm"] == arm]
    if not moved["weights_changed_mean"].any():
        return
    label = "cells changed since epoch 0 (%)"
    title = f"Analog cells changed per epoch{whose}"
    section.charts.append(
        charts.trace_chart(
            moved, quantity="weights_changed", title=title, y_label=label, scale=100.0
        )
    )
    section.figures[f"moved{suffix}"] = partial(
        plots.error_traces, moved, quantity="weights_changed", label=label, scale=100.0
    )


_LAYER_TITLES = {
    "weights_changed": "Cells changed by fine-tuning",
    "relative_error": "Programming error after conversion",
}


def _add_layers(section: Section) -> None:
    run = section.run
    rows, axes = summaries.layers(run.layers, run.chosen.rows), run.axes
    parts = summaries.stages(run.layers, run.chosen.rows)
    if parts["weights_changed_mean"].notna().any() and (parts["layers"] > 1).any():
        section.more_tables.append(tables.stages_table(parts, experiment=run.name))
    section.more_tables.append(tables.layers_table(rows, experiment=run.name))
    if rows["layer"].nunique() < 2:
        return  # one array is no network: its numbers are in the other figures
    for quantity, title in _LAYER_TITLES.items():
        if rows[f"{quantity}_mean"].isna().all():
            continue
        if not axes:
            section.layer_charts.append(charts.layer_chart(rows, quantity, title))
            section.figures[f"layers-{slug(quantity)}"] = partial(plots.layer_bars, rows, quantity)
        elif len(axes) == 1:
            arms = summaries.arms_of(rows[rows[axes[0]].notna()])
            if "analog-tl" in arms:
                arms = [arm for arm in arms if arm != "frozen-array"]  # programmed alike, and still
            for arm in arms:
                mine = rows[rows["arm"] == arm]
                if mine[f"{quantity}_mean"].fillna(0).eq(0).all():
                    continue  # frozen arrays do not move: an empty map says nothing
                whose = f"{title}, {arm_label(arm)}"
                section.layer_charts.append(charts.layer_map(mine, arm, axes[0], quantity, whose))
                stem = f"layers-{slug(quantity)}-{slug(arm)}"
                section.figures[stem] = partial(plots.layer_map, mine, arm, axes[0], quantity)


def slug(text: str) -> str:
    """A file name or anchor: letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "run"
