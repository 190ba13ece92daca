"""A sweep as a table of seeds x levels, complete or with gaps, and the fits to it.

A seed is a block: it runs at every level, and what makes it easy or hard cancels within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

MIN_SEEDS: Final = 3
"""Seeds that a level must share with the reference to be tested at all."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class LevelGap:
    """A level at which trials failed, or too few finished.

    Attributes:
        level: The level.
        n_seeds: Seeds finished there and at the reference.
        n_failed: Trials that failed there.
        left_out: Whether too few seeds finished for a test.
    """

    level: float
    n_seeds: int
    n_failed: int
    left_out: bool


@dataclass(frozen=True)
class SeedBlockDesign:
    """A sweep as a table of S seeds x L levels: the reference first, the harshest level last.

    Attributes:
        levels: The levels [L].
        errors_SL: The errors, NaN where missing.
        reference: The level that the others are compared with.
        n_unpaired: Seeds left out because they have not finished at the reference.
        gaps: Levels at which trials failed or too few finished.
    """

    levels: Floats
    errors_SL: Floats
    reference: float
    n_unpaired: int = 0
    gaps: tuple[LevelGap, ...] = ()

    @classmethod
    def of(
        cls,
        levels: ArrayLike,
        seeds: Sequence[object] | NDArray[np.generic],
        errors: ArrayLike,
        reference: float | None,
    ) -> SeedBlockDesign:
        """Arrange trials [N] into the table; see `critical_point` for arguments and errors.

        Seeds without the reference are left out, and levels that share too few seeds with it.
        """
        level_N = np.asarray(levels, dtype=float).ravel()
        error_N = np.asarray(errors, dtype=float).ravel()
        seed_N = [str(seed) for seed in seeds]
        if not len(level_N) == len(error_N) == len(seed_N):
            raise ValueError(
                f"{len(level_N)} levels, {len(seed_N)} seeds and {len(error_N)} errors: "
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
        rows = {name: place for place, name in enumerate(dict.fromkeys(seed_N))}
        cells = [(rows[n], columns[x]) for n, x in zip(seed_N, level_N.tolist(), strict=True)]
        if len(set(cells)) < len(cells):
            place = next(place for place, cell in enumerate(cells) if cell in cells[:place])
            raise ValueError(
                f"seed {seed_N[place]} has more than one error at level {level_N[place]:g}"
            )
        table_SL = np.full((len(rows), len(columns)), np.nan)
        failed_L = np.zeros(len(columns), dtype=int)
        for cell, error in zip(cells, error_N, strict=True):
            table_SL[cell] = error if np.isfinite(error) else np.nan
            failed_L[cell[1]] += not np.isfinite(error)
        if not len(ordered) or ordered[0] != reference:
            return cls(ordered, np.empty((0, len(ordered))), float(reference))
        paired_S = np.isfinite(table_SL[:, 0])
        n_unpaired = int((~paired_S & np.isfinite(table_SL).any(axis=1)).sum())
        table_SL = table_SL[paired_S]
        n_seeds_L = np.isfinite(table_SL).sum(axis=0)
        keep_L = n_seeds_L >= min(MIN_SEEDS, max(1, len(table_SL)))
        gaps = [
            LevelGap(float(level), int(n_seeds), int(n_failed), not keep)
            for level, n_seeds, n_failed, keep in zip(
                ordered, n_seeds_L, failed_L, keep_L, strict=True
            )
            if n_failed or not keep
        ]
        kept = table_SL[:, keep_L]
        return cls(ordered[keep_L], kept, float(reference), n_unpaired, tuple(gaps))

    @property
    def n_seeds(self) -> int:
        """Seeds finished at the reference."""
        return len(self.errors_SL)

    def up_to(self, n_levels: int) -> SeedBlockDesign:
        """The sweep's first levels."""
        return replace(self, levels=self.levels[:n_levels], errors_SL=self.errors_SL[:, :n_levels])


def centred(values: Floats, present_SL: NDArray[np.bool_]) -> Floats:
    """Values [..., S, L] less their mean over each seed's finished levels; 0 where missing."""
    kept = np.where(present_SL, values, 0.0)
    mean = kept.sum(axis=-1, keepdims=True) / present_SL.sum(axis=-1, keepdims=True)
    return np.where(present_SL, kept - mean, 0.0)


@dataclass(frozen=True)
class TwoWayFit:
    """Least squares of seed + level, complete or with gaps.

    Attributes:
        effect_L: Each level's effect against the first, whose own is 0.
        weights_LSL: The weight of each trial in each effect.
        sum_of_squares, df: Of the residuals.
    """

    effect_L: Floats
    weights_LSL: Floats
    sum_of_squares: float
    df: int

    @property
    def variance(self) -> float:
        """Residual variance of one trial."""
        return self.sum_of_squares / self.df

    @classmethod
    def fit(cls, sweep: SeedBlockDesign) -> TwoWayFit:
        """Fit at least two levels, each of which shares a seed with the first."""
        present_SL = np.isfinite(sweep.errors_SL)
        n_levels = len(sweep.levels)
        # One indicator per level but the first, centred within seeds: this removes the offsets.
        indicators = np.eye(n_levels)[1:, None, :]
        shape = (n_levels - 1, *present_SL.shape)
        design = centred(np.broadcast_to(indicators, shape), present_SL).reshape(n_levels - 1, -1).T
        response = centred(sweep.errors_SL, present_SL).ravel()
        weights = np.linalg.inv(design.T @ design) @ design.T
        effect = weights @ response
        residual = response - design @ effect
        df = int(present_SL.sum()) - len(present_SL) - (n_levels - 1)
        return cls(
            np.concatenate([[0.0], effect]),
            np.concatenate([np.zeros((1, *present_SL.shape)), weights.reshape(shape)]),
            float(residual @ residual),
            df,
        )


@dataclass(frozen=True)
class WelchContrast:
    """The error at one level above that at the reference, within seeds.

    The level under test has a variance of its own, next to one that the other levels share
    (Welch; degrees of freedom by Satterthwaite): training is often noisier where it is worse.
    """

    value: float
    se: float
    df: float

    @classmethod
    def at(cls, sweep: SeedBlockDesign, place: int) -> WelchContrast:
        """Of the level at a place of a sweep; its other levels say how noisy a trial is."""
        whole = TwoWayFit.fit(sweep)
        value = float(whole.effect_L[place])
        error_S = sweep.errors_SL[:, place]
        here_S = np.isfinite(error_S)
        n = int(here_S.sum())
        others = replace(
            sweep,
            levels=np.delete(sweep.levels, place),
            errors_SL=np.delete(sweep.errors_SL, place, axis=1),
        )
        if len(others.levels) < 2:  # a plain paired test
            paired = (error_S - others.errors_SL[:, 0])[here_S]
            return cls(value, float(paired.std(ddof=1) / np.sqrt(n)), n - 1)
        fit = TwoWayFit.fit(others)
        offset_S = np.nanmean(others.errors_SL - fit.effect_L, axis=1)
        n_others_S = np.isfinite(others.errors_SL).sum(axis=1)
        spread = float((error_S - offset_S)[here_S].var(ddof=1))
        own = max(0.0, spread - fit.variance * float((1 / n_others_S[here_S]).mean()))
        squares_L = (whole.weights_LSL[place] ** 2).sum(axis=0)
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
