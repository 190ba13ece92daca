"""Whether the level that others are compared with is one: it trains, and no level is better.

A sweep whose reference does not train would certify that nothing costs anything. Both tests are t
tests on differences within blocks, which need no spread to be alike: each has an error probability
of alpha at most. So a reference that does not train is taken for one that does with at most alpha,
and one that is as good as every level is called worse than some with at most alpha. A level that is
better by less than the margin, which counts as no difference, does not make it unfit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from analogtl.analysis.blocks import BlockDesign, Floats, p_above


@dataclass(frozen=True)
class Control:
    """What training at the reference level has to beat.

    Attributes:
        name: What it is, in words.
        errors: Its test error in each block, or in all of them, percent.
    """

    name: str
    errors: Mapping[str, float] | float


@dataclass(frozen=True)
class ReferenceCheck:
    """Whether the reference is a level that others can be held to. Differences are in points.

    Attributes:
        control: What it has to beat; "" for nothing.
        lead: Error of the control above that of the reference.
        p_lead: Of the test that there is no lead.
        rival: The best of the levels that beat the reference, else the most clearly better.
        excess: Error of the reference above that at the rival, within blocks.
        p_excess: Of the test that the reference is worse than no level.
    """

    control: str = ""
    lead: float | None = None
    p_lead: float = 0.0
    rival: float | None = None
    excess: float | None = None
    p_excess: float = 1.0

    def beaten(self, alpha: float, margin: float) -> bool:
        """Whether some level is shown to be better, and is so by the margin at least."""
        return self.p_excess < alpha and self.excess is not None and self.excess >= margin

    def fails(self, alpha: float, margin: float) -> bool:
        """Whether it is not shown to beat its control, or is beaten by some level."""
        return not self.p_lead < alpha or self.beaten(alpha, margin)


UNCHECKED: Final = ReferenceCheck()


def check_reference(
    sweep: BlockDesign, control: Control | None, alpha: float, margin: float
) -> ReferenceCheck:
    """The reference against its control, and against every level."""
    gains_L = [
        _t_test(errors_B[np.isfinite(errors_B)])
        for errors_B in (sweep.errors_BL[:, :1] - sweep.errors_BL[:, 1:]).T
    ]
    n_levels = len(gains_L)
    checks = [
        ReferenceCheck(rival=float(level), excess=excess, p_excess=min(1.0, p * n_levels))
        for level, (excess, p) in zip(sweep.levels[1:], gains_L, strict=True)
    ]
    # Of the levels that beat it the best, else what comes next to it.
    beating = [one for one in checks if one.beaten(alpha, margin)]
    check = (
        max(beating, key=lambda one: one.excess or 0.0)
        if beating
        else min(checks, key=lambda one: one.p_excess)
    )
    if control is None:
        return check
    its = control.errors
    leads = [
        (its[block] if isinstance(its, Mapping) else its) - error
        for block, error in sweep.at_reference.items()
        if not isinstance(its, Mapping) or block in its
    ]
    lead, p_lead = _t_test(np.array(leads))
    return replace(check, control=control.name, lead=lead, p_lead=p_lead)


def _t_test(differences: Floats) -> tuple[float, float]:
    """The mean, and the one-sided p value of its being above 0."""
    n, mean = len(differences), float(differences.mean())
    return mean, p_above(mean, float(differences.std(ddof=1)) / math.sqrt(n), n - 1)
