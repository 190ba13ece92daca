"""How the best of several candidates is chosen: by validation error alone.

Candidates are learning rates that a sweep tries at a level, or settings that are tuned before it.
Choosing on the test error would make every level look better than it is, and the level with the
most candidates best of all; here the test error plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Set
from typing import Final, Generic, NamedTuple, TypeVar

C = TypeVar("C", bound=Hashable)

CHOSEN: Final = "chosen"
ONLY_ONE: Final = "only one candidate"
NO_VALIDATION: Final = "no validation error: the middle candidate, not the best"
NOTHING_SHARED: Final = "no block in common: the candidate with most blocks, not the best"
ALL_FAILED: Final = "every trial failed"


class Choice(NamedTuple, Generic[C]):
    """The best candidate.

    Attributes:
        how: How it was chosen: one of the words in this module.
        blocks: The blocks on which candidates were compared.
        means: Mean validation error over these blocks, percent, of each that was compared.
    """

    best: C
    how: str
    blocks: Set[str]
    means: Mapping[C, float]


def choose(tried: Mapping[C, Set[str]], errors: Mapping[C, Mapping[str, float]]) -> Choice[C]:
    """Choose the candidate of the lowest mean validation error.

    The rule, in order:

    1. A candidate that failed on blocks where another one finished is out (all but those with the
       fewest such blocks): a mean over the blocks that happened to survive would favour the
       candidate that diverges on the hard ones.
    2. A candidate that has finished fewer than half the blocks of the furthest one waits: it would
       reduce the comparison to the few blocks it has.
    3. The rest are compared on the blocks that all of them have finished, so that none wins through
       an easy block. Equal means: the one that comes first.

    Args:
        tried: Candidate -> blocks that it was run on; their order decides between equals.
        errors: Candidate -> block that it has finished -> validation error, NaN if unknown.
    """
    anyone = set().union(*errors.values())
    lost = {one: len(tried[one] & anyone - errors[one].keys()) for one in errors}
    left = [one for one in tried if one in errors and lost[one] == min(lost.values())]
    most = max((len(errors[one]) for one in left), default=0)
    left = [one for one in left if 2 * len(errors[one]) >= most]
    shared = anyone.intersection(*(errors[one] for one in left)) if left else set()
    means = {one: _mean(errors[one], shared) for one in left}
    if len(tried) == 1 or not left:
        best, how = next(iter(tried)), ONLY_ONE if len(tried) == 1 else ALL_FAILED
    elif len(left) == 1:
        best, how = left[0], CHOSEN
    elif not shared:
        best, how = max(left, key=lambda one: len(errors[one])), NOTHING_SHARED
    elif any(math.isnan(mean) for mean in means.values()):
        best, how = left[(len(left) - 1) // 2], NO_VALIDATION
    else:
        best, how = min(left, key=lambda one: means[one]), CHOSEN
    return Choice(best, how, shared, means)


def _mean(errors: Mapping[str, float], blocks: Set[str]) -> float:
    compared = [error for block, error in errors.items() if block in blocks]
    return sum(compared) / len(compared) if compared else math.nan
