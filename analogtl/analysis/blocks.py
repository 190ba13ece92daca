"""A sweep as a table of blocks x levels, complete or with gaps, and the fits to it.

A block is a seed, or a seed and a set of classes where an experiment has several: it runs at every
level, and what makes it easy or hard cancels within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

MIN_BLOCKS: Final = 3
"""Blocks that a level must share with the reference to be tested at all."""

_ROUNDING: Final = 1e-9


def blocks_of(trials: pd.DataFrame) -> pd.Series[str]:
    """The block of each trial: ``3``, or ``3 bear+cattle`` where it is of one of several tasks."""
    seeds = trials["seed"].astype(str)
    if "class_set" not in trials or trials["class_set"].isna().all():
        return seeds
    return (seeds + " " + trials["class_set"].fillna("")).str.rstrip()


@dataclass(frozen=True)
class LevelGap:
    """A level at which trials failed, or too few finished.

    Attributes:
        n_blocks: Blocks finished there and at the reference.
        n_failed: Trials that failed there.
        left_out: Whether too few blocks finished for a test.
    """

    level: float
    n_blocks: int
    n_failed: int
    left_out: bool


@dataclass(frozen=True)
class BlockDesign:
    """A sweep as a table of B blocks x L levels: the reference first, the harshest level last.

    Attributes:
        levels: The levels [L].
        errors_BL: The errors, NaN where missing.
        reference: The level that the others are compared with.
        n_unpaired: Blocks left out because they have not finished at the reference.
        n_alone: Blocks that were run at the reference and at no other level.
        gaps: Levels at which trials failed or too few finished.
        at_reference: The error at the reference of every block that has finished there.
    """

    levels: Floats
    errors_BL: Floats
    reference: float
    n_unpaired: int = 0
    n_alone: int = 0
    gaps: tuple[LevelGap, ...] = ()
    at_reference: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        levels: ArrayLike,
        blocks: Sequence[object] | NDArray[np.generic],
        errors: ArrayLike,
        reference: float | None,
    ) -> BlockDesign:
        """Arrange trials [N] into the table; see `critical_point` for arguments and errors.

        Blocks without the reference are left out, as are those that have only this, which tell
        nothing of a difference; and levels that share too few blocks with it.
        """
        level_N = np.asarray(levels, dtype=float).ravel()
        error_N = np.asarray(errors, dtype=float).ravel()
        block_N = [str(block) for block in blocks]
        if not len(level_N) == len(error_N) == len(block_N):
            raise ValueError(
                f"{len(level_N)} levels, {len(block_N)} blocks and {len(error_N)} errors: "
                "one of each per trial is needed"
            )
        if not np.isfinite(level_N).all():
            raise ValueError("every level must be a finite number")
        distinct = np.unique(level_N)
        if reference is None:
            reference = 0.0 if 0.0 in distinct or not len(distinct) else float(distinct[0])
        if len(distinct) and distinct[0] < reference < distinct[-1]:
            raise ValueError(
                f"levels lie on both sides of {reference:g}: give the two sides separately"
            )
        ordered = distinct[np.argsort(np.abs(distinct - reference))]
        columns = {float(level): place for place, level in enumerate(ordered)}
        rows = {name: place for place, name in enumerate(dict.fromkeys(block_N))}
        cells = [(rows[n], columns[x]) for n, x in zip(block_N, level_N.tolist(), strict=True)]
        if len(set(cells)) < len(cells):
            place = next(place for place, cell in enumerate(cells) if cell in cells[:place])
            raise ValueError(
                f"block {block_N[place]} has more than one error at level {level_N[place]:g}"
            )
        table_BL = np.full((len(rows), len(columns)), np.nan)
        tried_BL = np.zeros(table_BL.shape, dtype=bool)
        failed_L = np.zeros(len(columns), dtype=int)
        for cell, error in zip(cells, error_N, strict=True):
            table_BL[cell] = error if np.isfinite(error) else np.nan
            tried_BL[cell] = True
            failed_L[cell[1]] += not np.isfinite(error)
        if not len(ordered) or ordered[0] != reference:
            return cls(ordered, np.empty((0, len(ordered))), float(reference))
        paired_B = np.isfinite(table_BL[:, 0])
        n_unpaired = int((~paired_B & np.isfinite(table_BL).any(axis=1)).sum())
        at_reference = {n: float(table_BL[row, 0]) for n, row in rows.items() if paired_B[row]}
        alone_B = paired_B & ~tried_BL[:, 1:].any(axis=1)
        table_BL = table_BL[paired_B & ~alone_B]
        n_blocks_L = np.isfinite(table_BL).sum(axis=0)
        keep_L = n_blocks_L >= min(MIN_BLOCKS, max(1, len(table_BL)))
        gaps = [
            LevelGap(float(level), int(n_blocks), int(n_failed), not keep)
            for level, n_blocks, n_failed, keep in zip(
                ordered, n_blocks_L, failed_L, keep_L, strict=True
            )
            if n_failed or not keep
        ]
        return cls(
            ordered[keep_L],
            table_BL[:, keep_L],
            float(reference),
            n_unpaired,
            int(alone_B.sum()),
            tuple(gaps),
            at_reference,
        )

    @property
    def n_blocks(self) -> int:
        """Blocks finished at the reference and run at a further level."""
        return len(self.errors_BL)

    def up_to(self, n_levels: int) -> BlockDesign:
        """The sweep's first levels."""
        return replace(self, levels=self.levels[:n_levels], errors_BL=self.errors_BL[:, :n_levels])


def centred(values: Floats, present_BL: NDArray[np.bool_]) -> Floats:
    """Values [..., B, L] less their mean over each block's finished levels; 0 where missing."""
    kept = np.where(present_BL, values, 0.0)
    mean = kept.sum(axis=-1, keepdims=True) / present_BL.sum(axis=-1, keepdims=True)
    return np.where(present_BL, kept - mean, 0.0)


@dataclass(frozen=True)
class TwoWayFit:
    """Least squares of block + level, complete or with gaps.

    Attributes:
        effect_L: Each level's effect against the first, whose own is 0.
        weights_LBL: The weight of each trial in each effect.
        sum_of_squares, df: Of the residuals.
    """

    effect_L: Floats
    weights_LBL: Floats
    sum_of_squares: float
    df: int

    @property
    def variance(self) -> float:
        """Residual variance of one trial."""
        return self.sum_of_squares / self.df

    @classmethod
    def fit(cls, sweep: BlockDesign) -> TwoWayFit:
        """Fit at least two levels, each of which shares a block with the first."""
        present_BL = np.isfinite(sweep.errors_BL)
        n_levels = len(sweep.levels)
        # One indicator per level but the first, centred within blocks: this removes the offsets.
        indicators = np.eye(n_levels)[1:, None, :]
        shape = (n_levels - 1, *present_BL.shape)
        design = centred(np.broadcast_to(indicators, shape), present_BL).reshape(n_levels - 1, -1).T
        response = centred(sweep.errors_BL, present_BL).ravel()
        weights = np.linalg.inv(design.T @ design) @ design.T
        effect = weights @ response
        residual = response - design @ effect
        df = int(present_BL.sum()) - len(present_BL) - (n_levels - 1)
        return cls(
            np.concatenate([[0.0], effect]),
            np.concatenate([np.zeros((1, *present_BL.shape)), weights.reshape(shape)]),
            float(residual @ residual),
            df,
        )


@dataclass(frozen=True)
class WelchContrast:
    """The error at one level above that at the reference, within blocks.

    The level under test has a variance of its own, next to one that the other levels share
    (Welch; degrees of freedom by Satterthwaite): training is often noisier where it is worse.
    """

    value: float
    se: float
    df: float

    @classmethod
    def at(cls, sweep: BlockDesign, place: int) -> WelchContrast:
        """Of the level at a place of a sweep; its other levels say how noisy a trial is."""
        whole = TwoWayFit.fit(sweep)
        value = float(whole.effect_L[place])
        error_B = sweep.errors_BL[:, place]
        here_B = np.isfinite(error_B)
        n = int(here_B.sum())
        others = replace(
            sweep,
            levels=np.delete(sweep.levels, place),
            errors_BL=np.delete(sweep.errors_BL, place, axis=1),
        )
        if len(others.levels) < 2:  # a plain paired test
            paired = (error_B - others.errors_BL[:, 0])[here_B]
            return cls(value, float(paired.std(ddof=1) / np.sqrt(n)), n - 1)
        fit = TwoWayFit.fit(others)
        offset_B = np.nanmean(others.errors_BL - fit.effect_L, axis=1)
        n_others_B = np.isfinite(others.errors_BL).sum(axis=1)
        spread = float((error_B - offset_B)[here_B].var(ddof=1))
        own = max(0.0, spread - fit.variance * float((1 / n_others_B[here_B]).mean()))
        squares_L = (whole.weights_LBL[place] ** 2).sum(axis=0)
        shared_part = fit.variance * float(np.delete(squares_L, place).sum())
        own_part = own * float(squares_L[place])
        total = shared_part + own_part
        if total <= 0:
            return cls(value, 0.0, fit.df)
        df = total**2 / (shared_part**2 / fit.df + own_part**2 / (n - 1))
        return cls(value, float(np.sqrt(total)), max(1.0, df))


def p_above(difference: float, se: float, df: float) -> float:
    """One-sided p value of a difference above 0; noise-free data decide by its sign."""
    if se < _ROUNDING:
        return 0.0 if difference > _ROUNDING else 1.0
    return float(special.stdtr(df, -difference / se))


def holm(p_values: Sequence[float | None]) -> list[float]:
    """P values corrected by Holm's rule, in their order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]
