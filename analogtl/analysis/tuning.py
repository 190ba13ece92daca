"""What was tuned: each choice, by how much it was the best, and what was not tuned at all.

Reads ``tuning.csv``, which `analogtl sweep` writes where an experiment has [sweep.tune].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analogtl.analysis.blocks import blocks_of
from analogtl.errors import RunError
from analogtl.study.checked import Problems
from analogtl.study.choice import choose
from analogtl.study.columns import axis_columns
from analogtl.study.tables import read_table
from analogtl.vocabulary import Arm, key_of, metric_of

COMPARED: Final = (
    *("analog.algorithm", "analog.device.preset", "analog.device.file"),
    *("analog.nonidealities.n_states", "analog.device.dw_min", "model.architecture"),
)
"""Keys whose levels are devices, algorithms or networks: each may need other settings."""


def read_tuning(
    file: Path, keys: Iterable[str], problems: Problems, **options: Any
) -> pd.DataFrame:
    """The choices of a run, from its ``tuning.csv``; empty where there is none.

    Args:
        keys: The keys that are tuned.
        problems: Where what cannot be read is told.
        options: Of `analogtl.study.tables.read_table`.

    Returns:
        One row per arm x level with `kept` (the settings chosen), `tried` (number of candidates),
        `n_blocks_compared`, `error_validation` (of the candidate chosen), `lead` (by how much the
        next best one has more), `resolution` (standard error of a difference of two errors on as
        many images; of shares of images alone), `edge` (which values are the smallest or largest
        that were tried), `how`.
    """
    if not file.is_file():
        return pd.DataFrame()
    try:
        rows = read_table(file, problems, **options)
    except RunError as error:
        problems.other(f"left out: {error}")
        return pd.DataFrame()
    tuned = [key for key in keys if key in rows]
    axes = [axis for axis in axis_columns(rows.columns) if axis not in tuned]
    chosen = rows["chosen"].fillna(False).astype(bool)
    found = []
    for _, group in rows.groupby(["arm", *axes], dropna=False, sort=False):
        if chosen[group.index].any():
            first = group.iloc[0]
            where = {name: first[name] for name in ("arm", "algorithm", *axes)}
            found.append(where | _choice(group, chosen[group.index], tuned))
    return pd.DataFrame(found)


def _choice(group: pd.DataFrame, chosen: pd.Series[bool], keys: Sequence[str]) -> dict[str, Any]:
    """What was chosen from the candidates of one arm at one level."""
    last = group[chosen]["rung"].max()
    own = [key for key in keys if group[key].notna().any()]
    values = {key: group.loc[chosen, key].iloc[0] for key in own}
    # Compared are the candidates of the last rung, on all their blocks.
    names = group[own].astype(str).agg("; ".join, axis=1)
    kept = names.isin(names[group["rung"] == last])
    mine = group[kept].assign(name=names, block=blocks_of(group))
    done = mine[mine["done"].fillna(False).astype(bool)]
    tried = {name: set(rows["block"]) for name, rows in mine.groupby("name", sort=False)}
    errors = {
        name: dict(zip(rows["block"], rows["error_validation"].astype(float), strict=True))
        for name, rows in done.groupby("name", sort=False)
    }
    choice = choose(tried, errors)
    name = names[chosen].iloc[0]
    best = choice.means.get(name, math.nan)
    next_best = min((e for other, e in choice.means.items() if other != name), default=math.nan)
    per_block = done.loc[done["name"] == name, "n_validation"].astype(float)
    share = (best + next_best) / 200
    # How far chance moves a loss, or a balanced error, the number of images does not tell.
    metric = metric_of(group.get("metric", ()))
    images = float(per_block.sum()) if metric.is_share else 0.0
    spread = 2 * share * (1 - share) / images if images and 0 <= share <= 1 else math.nan
    return {
        "kept": settings_text(values),
        "tried": int(names.nunique()),
        "n_blocks_compared": len(choice.blocks),
        "error_validation": best,
        "lead": next_best - best,
        "resolution": 100 * math.sqrt(spread) if spread == spread else math.nan,
        "edge": "; ".join(_edges(group, values)),
        "how": choice.how,
    }


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings as ``finetune.lr = 0.05; analog.drive = 5``."""
    shown = {key: f"{v:g}" if isinstance(v, float) else v for key, v in values.items()}
    return "; ".join(f"{key} = {value}" for key, value in shown.items())


def _edges(group: pd.DataFrame, values: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in values.items():
        numbers = pd.to_numeric(group[key], errors="coerce").dropna()
        number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
        if numbers.nunique() > 1 and number in (numbers.min(), numbers.max()):
            end = "smallest" if number == numbers.min() else "largest"
            found.append(f"{settings_text({key: value})}, the {end}")
    return found


def untuned_axes(trials: pd.DataFrame) -> tuple[str, ...]:
    """Axes along which devices, algorithms or networks are compared at settings not tuned for each.

    Args:
        trials: The trials that count; column `tuned` says what was chosen for each.
    """
    axes = [axis for axis in axis_columns(trials.columns) if key_of(axis) in COMPARED]
    trained = trials[trials["arm"].isin([arm for arm in Arm if arm.trains_arrays])]
    trained = trials if trained.empty else trained
    tuned = "tuned" in trained and trained["tuned"].notna().all()
    return () if tuned else tuple(axis for axis in axes if trained[axis].nunique() > 1)
