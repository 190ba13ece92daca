"""A sweep as blocks: seeds x levels, complete or with gaps, and the additive fit to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

MIN_SEEDS: Final = 3
"""Seeds that a level must share with the reference to be tested at all."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Blocks:
    """A sweep as a table of seeds x levels.

    S seeds, L levels; the reference is level 0 and harm grows with the index.
    """

    levels: Floats  # [L]
    errors_SL: Floats  # NaN where missing
    reference: float
    notes: list[str]

    @classmethod
    def of(
        cls,
        levels: ArrayLike,
        seeds: Sequence[object] | NDArray[np.generic],
        errors: ArrayLike,
        reference: float | None,
    ) -> Blocks:
        """Arrange trials [N] into the table; see `critical_point` for arguments and errors."""
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
        order = np.argsort(np.abs(distinct - reference))
        columns = {float(level): place for place, level in enumerate(distinct[order])}
        rows = {name: place for place, name in enumerate(dict.fromkeys(seed_N))}
        table_SL = np.full((len(rows), len(columns)), np.nan)
        seen: set[tuple[int, int]] = set()
        for level, name, error in zip(level_N, seed_N, error_N, strict=True):
            cell = (rows[name], columns[float(level)])
            if cell in seen:
                raise ValueError(f"seed {name} has more than one error at level {level:g}")
            seen.add(cell)
            table_SL[cell] = error if np.isfinite(error) else np.nan
        return cls._usable(distinct[order], table_SL, float(reference))

    @classmethod
    def _usable(cls, levels: Floats, table_SL: Floats, reference: float) -> Blocks:
        """Leave out seeds without the reference, and levels that share too few seeds with it."""
        notes = []
        if not len(levels) or levels[0] != reference:
            empty = np.empty((0, len(levels)))
            return cls(levels, empty, reference, [f"No trial has finished at {reference:g}."])
        here_S = np.isfinite(table_SL[:, 0])
        unpaired = int((~here_S & np.isfinite(table_SL).any(axis=1)).sum())
        if unpaired:
            notes.append(f"Left out: {count(unpaired, 'seed')} not finished at {reference:g}.")
        table_SL = table_SL[here_S]
        paired_L = np.isfinite(table_SL).sum(axis=0)
        keep_L = paired_L >= min(MIN_SEEDS, max(1, len(table_SL)))
        if not keep_L.all():
            few = ", ".join(
                f"{level:g} ({count(int(n), 'seed')})"
                for level, n in zip(levels[~keep_L], paired_L[~keep_L], strict=True)
            )
            notes.append(f"Left out: too few finished trials at level {few}.")
        return cls(levels[keep_L], table_SL[:, keep_L], reference, notes)

    @property
    def n_seeds(self) -> int:
        return len(self.errors_SL)

    @property
    def n_missing(self) -> int:
        return int(np.isnan(self.errors_SL).sum())

    def up_to(self, n_levels: int) -> Blocks:
        """The sweep's first levels."""
        return Blocks(
            self.levels[:n_levels], self.errors_SL[:, :n_levels], self.reference, self.notes
        )


def centred(values: Floats, present_SL: NDArray[np.bool_]) -> Floats:
    """Values [..., S, L] less their mean over each seed's finished levels; 0 where missing."""
    kept = np.where(present_SL, values, 0.0)
    mean = kept.sum(axis=-1, keepdims=True) / present_SL.sum(axis=-1, keepdims=True)
    return np.where(present_SL, kept - mean, 0.0)


@dataclass(frozen=True)
class Additive:
    """Least squares of seed + level, complete or with gaps."""

    effect_L: Floats  # against the first level, whose own effect is 0
    covariance_LL: Floats  # in units of the residual variance
    sum_of_squares: float
    df: int

    @classmethod
    def fit(cls, sweep: Blocks) -> Additive:
        """Fit at least two levels, each of which shares a seed with the first."""
        present_SL = np.isfinite(sweep.errors_SL)
        n_levels = len(sweep.levels)
        # One indicator per level but the first, centred within seeds: this removes the offsets.
        indicators = np.eye(n_levels)[1:, None, :]
        shape = (n_levels - 1, *present_SL.shape)
        design = centred(np.broadcast_to(indicators, shape), present_SL).reshape(n_levels - 1, -1).T
        response = centred(sweep.errors_SL, present_SL).ravel()
        inverse = np.linalg.inv(design.T @ design)
        effect = inverse @ (design.T @ response)
        residual = response - design @ effect
        covariance = np.zeros((n_levels, n_levels))
        covariance[1:, 1:] = inverse
        df = int(present_SL.sum()) - len(present_SL) - (n_levels - 1)
        return cls(np.concatenate([[0.0], effect]), covariance, float(residual @ residual), df)


def p_above(difference: float, se: float, df: int) -> float:
    """One-sided p value of a difference above 0; noise-free data decide by its sign."""
    if se < _ROUNDING:
        return 0.0 if difference > _ROUNDING else 1.0
    return float(special.stdtr(df, -difference / se))


def p_text(p_value: float) -> str:
    """``p = 0.03``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def count(n: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
