"""Runs in numbers: means and spreads over trials, per arm, level, epoch and layer.

The tables, the figures and the HTML report all draw what these functions return, so they cannot
disagree. Each takes the tidy frames of one experiment (see `analogtl.study.columns`) and returns
a tidy frame; a quantity ``q`` becomes ``q_mean`` and ``q_sd`` (the sample standard deviation over
trials, empty for one), and ``n`` counts the trials behind it. Errors are in percent, shares in
0..1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analogtl.errors import check_known
from analogtl.study import columns as records
from analogtl.study.columns import DIGITAL_ENGINE, JUDGED
from analogtl.vocabulary import AXES, MIN_SHARE, RUN_AXIS, Arm, algorithm_label, arm_label

# Columns that a summary adds.
_ADDED, _SUMMARIES = ("n", "position", "stage", "layers", "cells"), ("_mean", "_sd")


def axis_columns(frame: pd.DataFrame) -> list[str]:
    """The sweep axes of a tidy frame or a summary: every column that is not a fixed one."""
    return [
        name
        for name in records.axis_columns(str(column) for column in frame.columns)
        if "." in name or not (name in _ADDED or name.endswith(_SUMMARIES))
    ]


def swept_axes(trials: pd.DataFrame) -> list[str]:
    """The axes along which these trials differ: at least two levels, empty cells aside."""
    return [axis for axis in axis_columns(trials) if trials[axis].nunique() > 1]


def is_numeric(column: pd.Series) -> bool:
    """Whether the levels are numbers (an axis may also hold names, such as algorithms)."""
    return bool(pd.api.types.is_numeric_dtype(column)) and not bool(
        pd.api.types.is_bool_dtype(column)
    )


def arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms of a frame, in their fixed order; unknown ones follow by name."""
    present = {str(arm) for arm in frame["arm"].dropna().unique()}
    known = [arm.value for arm in Arm if arm in present]
    return known + sorted(present.difference(known))


def with_ordered_levels(trials: pd.DataFrame, asked: Any) -> pd.DataFrame:
    """The trials with each axis of names as ordered categories, so that all that follows keeps it.

    Args:
        asked: The levels of each axis in the order of the experiment's file, as its JSON has them:
            whatever that is; any others follow as they come.
    """
    for axis in axis_columns(trials):
        present = list(trials[axis].dropna().drop_duplicates())
        if not present or is_numeric(trials[axis]):
            continue
        wanted = asked.get(axis) if isinstance(asked, dict) else None
        wanted = wanted if isinstance(wanted, list) else []
        place = {str(level): number for number, level in enumerate(wanted)}
        present.sort(key=lambda level: place.get(str(level), len(place)))
        trials = trials.assign(**{axis: pd.Categorical(trials[axis], present, ordered=True)})
    return trials


def sorted_levels(column: pd.Series) -> list[Any]:
    """The levels of an axis, without empty cells: numbers ascending, names in their order."""
    present = column.dropna().drop_duplicates()
    ordered = is_numeric(column) or _is_ordered(column)
    return (present.sort_values() if ordered else present).tolist()


def _is_ordered(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def level_text(axis: str, level: object) -> str:
    """A level as people write it: 5.0 is ``5``, 0.005 is ``0.005``, a name is itself.

    An algorithm has its label. Of a preset only what tells it from the others is left:
    ``ReRamArrayHfO2``.
    """
    if axis == "analog.algorithm":
        return algorithm_label(str(level))
    if isinstance(level, (int, float)) and not isinstance(level, bool):
        return f"{level:.6g}"
    return str(level).removesuffix("PresetDevice") or str(level)


def spread(frame: pd.DataFrame, by: Sequence[str], quantities: Iterable[str]) -> pd.DataFrame:
    """Mean, sample standard deviation and count of each quantity within each group.

    Empty cells in ``by`` form a group of their own (a digital arm has no level); empty quantities
    are left out of the mean, and a quantity that is empty throughout stays empty.
    """
    by = list(by)
    quantities = [q for q in quantities if q in frame.columns]
    ordered = {key: frame[key].dtype for key in by if _is_ordered(frame[key])}
    # Grouped as plain names: by categories, pandas rounds a mean in another way.
    groups = frame.astype(dict.fromkeys(ordered, object)).groupby(by, dropna=False, sort=True)
    parts: list[pd.Series] = [groups.size().rename("n")]
    for quantity in quantities:
        parts.append(groups[quantity].mean().rename(f"{quantity}_mean"))
        parts.append(groups[quantity].std(ddof=1).rename(f"{quantity}_sd"))
    table = pd.concat(parts, axis=1).reset_index().astype(ordered)
    return in_arm_order(table.sort_values(by, kind="stable") if ordered else table)


def in_arm_order(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by arm in the fixed order; within an arm as they were."""
    rank = {arm: number for number, arm in enumerate(arms_of(frame))}
    order = frame["arm"].map(lambda arm: rank.get(str(arm), len(rank)))
    return frame.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def setting_text(levels: Mapping[str, Any]) -> str:
    """Levels in words, ``wtn = 5 %, spv = 10 %``; axes that do not apply are left out."""
    return ", ".join(
        str(level) if axis == RUN_AXIS else f"{axis.rpartition('.')[2]} = {with_unit(axis, level)}"
        for axis, level in levels.items()
        if not pd.isna(level)
    )


def with_unit(axis: str, level: object) -> str:
    """A level with the unit of its axis: ``15 %``."""
    unit = AXES[axis].unit if axis in AXES else ""
    return f"{level_text(axis, level)} {unit}".strip()


OUTCOMES = (
    *("error_transfer", JUDGED, "error_final", "error_best", "balanced_error_final"),
    *("frechet_distance", "in_classes"),
    *("weights_changed", "symmetry_point", "symmetry_spread", "wall_s"),
)
TRAINED = ("trained_cells", "trained_digital")
WITH_ADAPTERS = tuple(arm for arm in Arm if arm.has_adapters)


def levels(trials: pd.DataFrame) -> pd.DataFrame:
    """Outcomes per arm and setting, over seeds.

    Args:
        trials: Finished trials, one learning rate per arm and setting.

    Returns:
        Columns arm, the swept axes, lr, n, then mean and sd of each of `OUTCOMES`; share_on_arrays
        (0..1) if some arm has few of its weights on arrays, empty for the others; of runs with
        adapters also how much each arm trains, `TRAINED`.
    """
    by = ["arm", *swept_axes(trials)]
    summary = _with_low_shares(spread(trials, [*by, "lr"], OUTCOMES), trials)
    if not (trials["arm"].isin(WITH_ADAPTERS).any() and {*TRAINED} <= {*trials.columns}):
        return summary
    sizes = trials.groupby(by, dropna=False, observed=True)[list(TRAINED)].max().reset_index()
    return summary.merge(sizes, on=by, how="left")


def _with_low_shares(summary: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """The summary with the share of weights on arrays where it is below `MIN_SHARE`."""
    by = ["arm", *swept_axes(trials)]
    if "share_on_arrays" not in trials or not (trials["share_on_arrays"] < MIN_SHARE).any():
        return summary
    groups = trials.groupby(by, dropna=False, observed=True)["share_on_arrays"]
    lowest = groups.min().reset_index()
    return summary.merge(lowest[lowest["share_on_arrays"] < MIN_SHARE], on=by, how="left")


def traces(epochs: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Test error and share of changed cells at each fine-tuning epoch, over seeds.

    Args:
        epochs: The rows of ``epochs.csv``; other stages and splits are left out.
        trials: The trials to average over; an epoch that only some of them reached is averaged
            over those, and ``n`` says how many.

    Returns:
        Columns arm, the axes swept by ``trials``, epoch, n, error_mean, error_sd,
        weights_changed_mean, weights_changed_sd; share_on_arrays as in `levels`.
    """
    axes = swept_axes(trials)
    wanted = epochs[
        (epochs["stage"] == "finetune")
        & (epochs["split"] == "test")
        & epochs["trial"].isin(trials["trial"])
    ]
    # The levels come from the trials: they alone say which axes the sweep varied.
    rows = wanted[["trial", "epoch", "error", "weights_changed"]].merge(
        trials[["trial", "arm", *axes]], on="trial"
    )
    summary = spread(rows, ["arm", *axes, "epoch"], ("error", "weights_changed"))
    return _with_low_shares(summary, trials)


def ages(evaluation: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Test error at each time after training, over seeds.

    Args:
        evaluation: The rows of ``evaluation.csv``.
        trials: The trials to average over.

    Returns:
        Columns arm, the swept axes, time (seconds), n, then mean and sd of error over the trials,
        each the mean of its repeats, and of repeats_sd: the spread of a trial's repeats.
    """
    axes = swept_axes(trials)
    each = evaluation.groupby(["trial", "time"], sort=True)["error"]
    rows = each.agg(["mean", "std"]).reset_index()
    rows = rows.rename(columns={"mean": "error", "std": "repeats_sd"})
    rows = rows.merge(trials[["trial", "arm", *axes]], on="trial")
    return spread(rows, ["arm", *axes, "time"], ("error", "repeats_sd"))


_PULSES = [
    f"{kind}_{what}" for kind in ("a_up", "a_down", "c_up", "c_down") for what in ("mean", "max")
]
LAYER_QUANTITIES = (
    *("relative_error", "share_clipped", "weights_changed", "rms_change"),
    *("noise_changed", "noise_walk", *_PULSES),
)
MIN_ABOVE_NOISE = 1.25  # times as far as noise alone: less is hardly to be told from it


def layers(layers: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """What was programmed into each layer and how much of it moved, over seeds.

    Args:
        layers: The rows of ``layers.csv``, in the network's order within each trial.
        trials: The trials to average over.

    Returns:
        Columns arm, the swept axes, position (the layer's place in the network), layer, shape,
        tiles, tokens_per_image, granularity, fast_lr, transfer_lr, n, then mean and sd of
        LAYER_QUANTITIES; those that no layer has are left out.
    """
    rows, axes = _with_arms(layers, trials)
    rows["position"] = pd.factorize(rows["layer"])[0]
    by = ["arm", *axes, "position", "layer"]
    numbers = spread(rows, by, LAYER_QUANTITIES)
    facts = [
        name
        for name in ("shape", "tiles", "tokens_per_image", "granularity", "fast_lr", "transfer_lr")
        if name in rows.columns
    ]
    first = rows.groupby(by, dropna=False, sort=True, observed=True)[facts].first().reset_index()
    return numbers.merge(in_arm_order(first), on=by, how="left")


def lost_in_noise(layers: pd.DataFrame) -> pd.DataFrame:
    """Find where the arrays moved hardly further than noise alone was to take them.

    Args:
        layers: As `layers` returns it.

    Returns:
        Columns arm, the swept axes, rms_change and noise_walk: over all cells of the network, as
        shares of the range; a row for each level of which that is true.
    """
    known = {"rms_change_mean", "noise_walk_mean"} <= set(layers.columns)
    rows = layers.dropna(subset=["rms_change_mean", "noise_walk_mean"]) if known else layers[:0]
    rows = rows[rows["arm"] != Arm.SHUFFLED_GRADIENTS]
    by = ["arm", *axis_columns(rows)]
    found = []
    for level, part in rows.groupby(by, dropna=False, sort=False, observed=True):
        cells = _cells(part["shape"])
        change, walk = (
            float(((cells * part[name] ** 2).sum() / cells.sum()) ** 0.5)
            for name in ("rms_change_mean", "noise_walk_mean")
        )
        if 0 < change < MIN_ABOVE_NOISE * walk:
            found.append([*level, change, walk])
    return pd.DataFrame(found, columns=[*by, "rms_change", "noise_walk"])


def _cells(shapes: pd.Series) -> pd.Series:
    """Count the cells of layers by their shapes, ``outputs x inputs``; NaN for what is no shape."""
    sides = shapes.astype(str).str.extract(r"^(\d+)x(\d+)$").astype(float)
    return sides[0] * sides[1]


def stages(layers: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """How much of each part of the network moved, all its layers taken together, over seeds.

    Args:
        layers: The rows of ``layers.csv``, in the network's order within each trial.
        trials: The trials to average over.

    Returns:
        Columns arm, the swept axes, position, stage, layers and cells (how many of each), n, then
        mean and sd of weights_changed (share of the cells).
    """
    rows, axes = _with_arms(layers, trials)
    # The part of the network: "stages.2", "blocks.5", "head".
    part = r"^([^.]*(?:\.\d+(?=\.|$))?)"
    rows["stage"] = rows["layer"].astype(str).str.extract(part, expand=False)
    rows["position"] = pd.factorize(rows["stage"])[0]
    rows["cells"] = _cells(rows["shape"])
    rows["moved"] = rows["cells"] * rows["weights_changed"].astype(float)
    by = ["arm", *axes, "position", "stage"]
    whole = rows.groupby(["trial", *by], dropna=False, sort=False, observed=True)
    parts = whole.agg(
        layers=("layer", "size"),
        cells=("cells", "sum"),
        moved=("moved", lambda moved: moved.sum(skipna=False)),
    ).reset_index()
    parts["weights_changed"] = parts["moved"] / parts["cells"]
    return spread(parts, [*by, "layers", "cells"], ["weights_changed"])


def _with_arms(layers: pd.DataFrame, trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The layers on arrays of the trials, each with its arm and levels; and the swept axes."""
    axes = swept_axes(trials)
    if "engine" in layers:
        layers = layers[layers["engine"] != DIGITAL_ENGINE]
    rows = layers.merge(trials[["trial", "arm", *axes]], on="trial", suffixes=("_layer", ""))
    return rows, axes


@dataclass(frozen=True)
class Series:
    """One line of a figure: a quantity over x for one arm and setting.

    Attributes:
        arm: The arm; it decides the line's colour, dash and marker.
        setting: The levels that tell it from the arm's other lines; "" for its only one.
        x: Where the points are, ascending: numbers or names; none of a baseline, which is flat.
        mean, sd: The quantity's mean and sample standard deviation over seeds (nan: one seed).
        n: Trials behind each point.
        shares: Lowest and highest share of the weights on arrays, 0..1, where one is below
            `MIN_SHARE`; else empty.
    """

    arm: str
    setting: str
    x: tuple[float | str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    n: tuple[int, ...]
    shares: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """Arm and setting, as in a legend."""
        return arm_label(self.arm) + (f", {self.setting}" if self.setting else "")

    @property
    def on_arrays(self) -> str:
        """What a legend adds where few weights are on arrays: ``, 62 % on arrays``."""
        return f", {share_text(self.shares)}" if self.shares else ""


def share_text(shares: Iterable[float]) -> str:
    """``2.6 to 62 % on arrays``, rounded down: what is below `MIN_SHARE` is seen to be."""
    ends = (f"{math.floor(1000 * share) / 10:g}" for share in shares)
    return f"{' to '.join(dict.fromkeys(ends))} % on arrays"


AS_IN_FILE = "as in the file"  # the setting of a trial that was run without a level


def series(summary: pd.DataFrame, x: str, quantity: str, axes: Sequence[str]) -> list[Series]:
    """The lines of a figure, from a summary: one per arm and combination of ``axes``.

    Rows without a value of ``x`` or of the quantity are left out, and so are lines without rows. An
    arm that was run at levels and also without one has a line `AS_IN_FILE`.

    Raises:
        ExperimentError: If the summary has no such column.
    """
    check_known("column", [x, *axes], summary.columns)
    check_known("quantity", [quantity], _quantities(summary))
    rows = summary[summary[x].notna() & summary[f"{quantity}_mean"].notna()]
    swept = set(summary.loc[summary[list(axes)].notna().any(axis=1), "arm"])
    lines = []
    for key, group in rows.groupby(["arm", *axes], dropna=False, sort=True, observed=True):
        ordered = group.sort_values(x) if is_numeric(group[x]) else group
        lines.append(
            Series(
                arm=str(key[0]),
                setting=setting_text(dict(zip(axes, key[1:], strict=True)))
                or (AS_IN_FILE if key[0] in swept else ""),
                x=tuple(ordered[x].tolist()),
                mean=tuple(ordered[f"{quantity}_mean"].tolist()),
                sd=tuple(ordered[f"{quantity}_sd"].tolist()),
                n=tuple(ordered["n"].tolist()),
                shares=shares_of(ordered),
            )
        )
    place = {arm: number for number, arm in enumerate(arms_of(summary))}
    return sorted(lines, key=lambda line: place[line.arm])


def baselines(levels: pd.DataFrame, axis: str, quantity: str) -> list[Series]:
    """The arms of a sweep that the axis does not touch, such as the digital one: without an x.

    Raises:
        ExperimentError: If the levels have no such column.
    """
    check_known("axis", [axis], axis_columns(levels))
    check_known("quantity", [quantity], _quantities(levels))
    swept = levels.loc[levels[axis].notna(), "arm"]
    rows = levels[~levels["arm"].isin(swept) & levels[f"{quantity}_mean"].notna()]
    others = [other for other in axis_columns(levels) if other != axis]
    return [
        Series(
            arm=str(row["arm"]),
            setting=setting_text({other: row[other] for other in others}),
            x=(),
            mean=(float(row[f"{quantity}_mean"]),),
            sd=(float(row[f"{quantity}_sd"]),),
            n=(int(row["n"]),),
            shares=shares_of(pd.DataFrame([row])),
        )
        for row in rows.to_dict("records")
    ]


def shares_of(rows: pd.DataFrame) -> tuple[float, ...]:
    """Lowest and highest share of the weights on arrays; empty where nothing is known of it."""
    if "share_on_arrays" not in rows or rows["share_on_arrays"].isna().all():
        return ()
    return float(rows["share_on_arrays"].min()), float(rows["share_on_arrays"].max())


def _quantities(summary: pd.DataFrame) -> list[str]:
    return [name.removesuffix("_mean") for name in summary.columns if name.endswith("_mean")]
