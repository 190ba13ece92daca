"""Which rows of a run belong together: those that rest on the same, and none of them twice.

A run directory may hold trials of earlier settings, of other images, of other versions or of the
other engine. Averages are taken over what rests on the same only; the rest is left out and said.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from analogtl.errors import counted
from analogtl.study.basis import BASIS_COLUMNS, CPU, differences
from analogtl.study.checked import Problems
from analogtl.study.columns import axis_columns
from analogtl.study.trial import common_key
from analogtl.vocabulary import Arm, arm_label, key_of

COMPARED: Final = ("settings", *BASIS_COLUMNS, "engine")
# What an axis may change from level to level is compared at each level alone: column -> the
# beginnings of such axes' keys.
_BY_LEVEL: Final = {
    "data": (
        "class_set",
        "data.",
        "finetune.dataset",
        "finetune.classes",
        "pretrain.dataset",
        "pretrain.classes",
    ),
    "timm": ("model.",),
    "transformers": ("model.",),
    "engine": ("",),
}
_OUTDATED: Final = "outdated"  # whether the plan has the trial with another key
# How a row stands to the experiment as it is now; by its key in the plan, else by its settings.
_OTHER_KEY, _OTHER_SETTINGS, _UNTOLD, _ITS_SETTINGS, _ITS_KEY = range(-2, 3)
# Columns in which two rows of the same result may differ.
_NO_RESULT: Final = ["trial", "key", "wall_s", "resumed", "cpu", "analogtl", "message"]
# Columns that may differ across arms and levels, which is told.
_MAY_DIFFER: Final = ("numerics", "aihwkit", "torch", "engine", "device", "cpu")


class _Row(NamedTuple):
    """What the choice needs to know of one trial."""

    index: Any
    arm: str
    levels: dict[str, str]  # of the axes that it has
    values: dict[str, str]  # what it rests on; empty where that is unknown
    standing: int
    done: bool


def of_one_study(
    trials: pd.DataFrame, experiment: Mapping[str, Any], planned: Mapping[str, str]
) -> tuple[pd.DataFrame, list[str]]:
    """The trials that count, and a line about each group that does not.

    Trials of one arm along the same axes are compared and averaged, so they must rest on the same:
    settings, images, numerics, versions and, at each level, the engine. Kept is the group of the
    experiment as it stands; where the run holds none of it, the largest.

    Args:
        trials: Rows of one run's ``trials.csv``.
        experiment: Its ``experiment.resolved.json``; {} if unknown.
        planned: Trial -> key of its ``plan.json``; keys are empty where they are unknown.
    """
    rows = _rows(trials, experiment, planned)
    axes = _varied(trials)
    deciding = {
        column: [axis for axis in axes if key_of(axis).startswith(prefixes)]
        for column, prefixes in _BY_LEVEL.items()
    }
    of_curve = [column for column in COMPARED if not deciding.get(column)]
    of_level = [column for column in COMPARED if deciding.get(column)]
    names = sorted(set(itertools.chain.from_iterable(deciding.values())))
    rows, notes = _separated(rows, [*of_curve, _OUTDATED], ())
    rows, more = _separated(rows, of_level, names)
    lines = [*notes, *more, *_mixed(rows, deciding["data"])]
    name = str(trials["experiment"].iloc[0]) if len(trials) else ""
    kept = trials.loc[[row.index for row in rows]]
    return kept, [f"{name}: {line}" for line in lines]


def _varied(trials: pd.DataFrame) -> list[str]:
    """The axes, and the sets of classes where there are several."""
    sets = "class_set" in trials and trials["class_set"].notna().any()
    return [*axis_columns(trials.columns), *(["class_set"] if sets else [])]


def _rows(
    trials: pd.DataFrame, experiment: Mapping[str, Any], planned: Mapping[str, str]
) -> list[_Row]:
    axes = _varied(trials)
    wanted = [*COMPARED, "cpu", "key", "status", "trial", "arm"]
    texts = trials.reindex(columns=[*wanted, *axes]).astype("string").fillna("")
    known: dict[tuple[str, tuple[str, ...]], str] = {}
    # Then a trial that is not asked for may be one of settings that were not chosen.
    tuned = experiment.get("sweep", {}).get("tune", {}).get("candidates")
    rows = []
    for index, cells in zip(texts.index, texts.to_dict("records"), strict=True):
        arm, levels = cells["arm"], {axis: cells[axis] for axis in axes if cells[axis]}
        along = (arm, tuple(levels))
        if along not in known:
            try:
                known[along] = common_key(experiment, Arm(arm), levels)
            except (KeyError, TypeError, ValueError):
                known[along] = ""
        key, settings = planned.get(cells["trial"], ""), cells["settings"]
        standing = _UNTOLD
        if (key and cells["key"]) or (tuned and planned):
            standing = _ITS_KEY if key == cells["key"] else _OTHER_KEY
        elif settings and known[along]:
            standing = _ITS_SETTINGS if settings == known[along] else _OTHER_SETTINGS
        values = {column: cells[column] for column in (*COMPARED, "cpu")}
        if standing == _ITS_KEY and known[along]:  # also where it was run before it was tuned
            values["settings"] = known[along]
        values["device"] = values["device"] or CPU  # earlier tables have no such column
        values["numerics"] = values["numerics"].removesuffix(".0")  # a float beside empty cells
        values[_OUTDATED] = "yes" if standing == _OTHER_KEY else ""
        rows.append(_Row(index, arm, levels, values, standing, cells["status"] == "done"))
    return rows


def _separated(
    rows: Sequence[_Row], columns: Sequence[str], by: Sequence[str]
) -> tuple[list[_Row], list[str]]:
    """The rows that are alike in these columns, arm by arm and level by level of the axes `by`."""
    cells: dict[tuple[Any, ...], list[_Row]] = {}
    for row in rows:
        here = tuple(row.levels.get(axis, "") for axis in by)
        cells.setdefault((row.arm, tuple(row.levels), here), []).append(row)
    kept, notes = [], []
    for (arm, along, here), members in cells.items():
        best, others = _largest_group(members, columns)
        kept += best
        at = [f"{axis} = {level}" for axis, level in zip(by, here, strict=True) if level]
        where = ", ".join(at or along)
        who = f"{arm} {'at' if at else 'along'} {where}" if where else arm
        for other in others:
            words = differences(other[0].values, best[0].values, columns) or ["other settings"]
            notes.append(
                f"{who}: {counted(len(other), 'trial')} left out, run with {' and '.join(words)}, "
                f"beside the {len(best)} shown"
            )
        if _OUTDATED in columns and max(row.standing for row in best) < _UNTOLD:
            notes.append(
                f"{who}: {counted(len(best), 'trial')}, run with other settings, images or "
                "versions than the experiment has now; compare them with nothing else"
            )
    order = {row.index: place for place, row in enumerate(rows)}
    return sorted(kept, key=lambda row: order[row.index]), notes


def _largest_group(
    rows: Sequence[_Row], columns: Sequence[str]
) -> tuple[list[_Row], list[list[_Row]]]:
    """The rows of the experiment as it stands, else the largest group of equal ones; the rest."""
    # A trial that failed early does not know its engine.
    engines = Counter(row.values["engine"] for row in rows if row.values["engine"])
    usual = {"engine": max(engines, key=engines.__getitem__)} if engines else {}
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        kind = tuple(row.values[column] or usual.get(column, "") for column in columns)
        groups.setdefault(kind, []).append(row)

    def rank(group: list[_Row]) -> tuple[int, int, int]:
        done = sum(row.done for row in group)
        return max(0, *(row.standing for row in group)), done, len(group)

    best = max(groups.values(), key=rank)
    return best, [group for group in groups.values() if group is not best]


def each_once(
    rows: pd.DataFrame, same: Sequence[str], file: Path, problems: Problems
) -> pd.DataFrame:
    """The rows without those that stand twice: of equal ones one is kept, of different ones none.

    Args:
        same: The columns that tell what a row is about.
        problems: Where each trial that stands twice is told.
    """
    again = rows.duplicated(same, keep=False)
    out: list[Any] = []
    told: dict[str, None] = {}
    for _, group in rows[again].groupby(list(same), dropna=False, sort=False):
        said = group.drop(columns=_NO_RESULT, errors="ignore")
        equal = len(said.drop_duplicates()) == 1
        out += list(group.index[1 if equal else 0 :])
        what = "counted once" if equal else "with different results: left out"
        told[f"{file}: {group['trial'].iloc[0]}: more than once, {what}"] = None
    for line in told:
        problems.other(line)
    return rows.drop(index=out)


def _mixed(rows: Sequence[_Row], data_axes: Sequence[str]) -> list[str]:
    """What the trials kept do not have in common from arm to arm or from level to level."""
    done = [row for row in rows if row.done]
    lines = []
    told: list[tuple[str, Callable[[_Row], str]]] = [
        (column, lambda row, column=column: row.values[column])  # type: ignore[misc]
        for column in _MAY_DIFFER
    ]
    if not data_axes:
        told.append(("images", lambda row: row.values["data"].partition("+")[0]))
        told.append(("pretraining's images", lambda row: row.values["data"].partition("+")[2]))
    for name, value in told:
        found: dict[str, list[str]] = {}
        for row in done:
            skipped = not value(row) and name in ("engine", "pretraining's images")
            if not skipped:
                found.setdefault(value(row) or "unknown", []).append(arm_label(row.arm))
        if len(found) > 1:
            groups = (f"{one} ({_listed(arms)})" for one, arms in found.items())
            lines.append(f"not all computed with the same {name}: {'; '.join(groups)}")
    return lines


def _listed(arms: Iterable[str]) -> str:
    return ", ".join(f"{arm}: {number}" for arm, number in Counter(arms).items())
