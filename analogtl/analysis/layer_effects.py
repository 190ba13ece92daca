"""Which layers hurt: the error where one of them differs above that where none does.

A sweep of the axis ``per_layer`` has a level where no layer has the non-ideality in question, one
for each layer (or stage) that alone has it, and one where all have it. The same blocks run at each,
so that what makes a block easy or hard cancels. The layers of an arm are one family: a layer is
called harmful if it is after Holm's correction of one-sided tests at alpha, so that the chance of
calling any harmless one harmful is alpha at most. How noisy a trial is, the other layers tell, with
a variance of its own for the layer tested (`WelchContrast`). All layers together are left out of
that, and are a question of their own: their test is not corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import special

from analogtl.analysis import summaries
from analogtl.analysis.blocks import (
    MIN_BLOCKS,
    BlockDesign,
    TwoWayFit,
    WelchContrast,
    blocks_of,
    holm,
    p_above,
)
from analogtl.config.per_layer import ALL, NONE
from analogtl.vocabulary import PER_LAYER

NUMBERS: Final = ("n_blocks", "n_failed", "excess", "low", "high", "p")


def layer_effects(trials: pd.DataFrame, metric: str, alpha: float) -> pd.DataFrame:
    """What each level of the axis ``per_layer`` costs, arm by arm.

    Args:
        trials: Finished and failed trials, the levels ordered (`summaries.with_ordered_levels`).
        metric: Column of the test error, percent; missing where a trial failed.
        alpha: Error probability of each arm's family of tests.

    Returns:
        Columns arm, the other swept axes, then per_layer: the level; n_blocks that have finished
        there and at ``none``, and n_failed; excess: points of error above ``none``, within blocks;
        low, high: its bounds, each at 1 - alpha, not corrected; p: one-sided, corrected for the
        layers; hurts: whether that is below alpha. Bounds and p are missing where fewer than
        `MIN_BLOCKS` blocks are. No rows without the level ``none``.
    """
    swept = PER_LAYER in trials and trials[PER_LAYER].eq(NONE).any()
    rows: list[dict[str, Any]] = []
    axes = [axis for axis in summaries.swept_axes(trials) if axis != PER_LAYER]
    if swept:
        known = trials[trials[PER_LAYER].notna()]
        by = ["arm", *axes]
        for key, group in known.groupby(by, dropna=False, sort=False, observed=True):
            where = dict(zip(by, key, strict=True))
            rows += [where | row for row in _effects(group, metric, alpha)]
    columns = ["arm", *axes, PER_LAYER, *NUMBERS, "hurts"]
    return summaries.in_arm_order(pd.DataFrame(rows, columns=columns))


def _effects(trials: pd.DataFrame, metric: str, alpha: float) -> list[dict[str, Any]]:
    """The rows of one arm at one setting of the other axes."""
    levels = [str(level) for level in summaries.sorted_levels(trials[PER_LAYER])]
    layers = [level for level in levels if level not in (NONE, ALL)]
    rows = _above_none(trials, layers, metric, alpha)
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
    if ALL in levels:
        rows += _above_none(trials, [*layers, ALL], metric, alpha)[-1:]
    return [row | {"hurts": row["p"] is not None and row["p"] < alpha} for row in rows]


def _above_none(
    trials: pd.DataFrame, levels: Sequence[str], metric: str, alpha: float
) -> list[dict[str, Any]]:
    """Each of these levels against ``none``."""
    place = {level: float(number) for number, level in enumerate([NONE, *levels])}
    rows = trials.assign(block=blocks_of(trials), place=trials[PER_LAYER].astype(str).map(place))
    rows = rows.dropna(subset="place").drop_duplicates(["place", "block"])  # of copies of a run
    design = BlockDesign.of(rows["place"], rows["block"].tolist(), rows[metric], 0.0)
    gaps = {gap.level: gap for gap in design.gaps}
    columns = {float(level): number for number, level in enumerate(design.levels)}
    found = []
    for level in levels:
        gap, column = gaps.get(place[level]), columns.get(place[level])
        row: dict[str, Any] = {PER_LAYER: level, **dict.fromkeys(NUMBERS)}
        row["n_failed"], row["n_blocks"] = (gap.n_failed, gap.n_blocks) if gap else (0, 0)
        if column is not None and design.n_blocks:
            row["n_blocks"] = int(np.isfinite(design.errors_BL[:, column]).sum())
            row["excess"] = float(TwoWayFit.fit(design).effect_L[column])
        if row["n_blocks"] >= MIN_BLOCKS and column is not None:
            welch = WelchContrast.at(design, column)
            half = float(special.stdtrit(welch.df, 1 - alpha)) * welch.se
            row |= {"low": welch.value - half, "high": welch.value + half}
            row["p"] = p_above(welch.value, welch.se, welch.df)
        found.append(row)
    return found
