"""The findings that runs are held to, as data.

They are those that arXiv 2505.11067 states in words or numbers, and one of our own: that the arrays
learn at all. Its Fig. 4 also varies the symmetry point skew, and the published version
(DOI 10.1109/tcsii.2025.3596457) further axes, without a claim recorded here to hold them to; their
critical points are in critical_points.csv like everyone's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from analogtl.vocabulary import AXES, PAPER


@dataclass(frozen=True)
class Finding:
    """A statement that runs can support or contradict.

    Attributes:
        id: Short name, for the CSV.
        statement: In a sentence.
        published: The published number or effect.
        figure: Where: "Fig. 2"; "" for our own.
        source: The publication.
        n_classes: Tasks that it is stated for, by their number of classes; () for any.
    """

    id: str
    statement: str
    published: str
    figure: str
    source: str
    n_classes: tuple[int, ...]

    @property
    def needs(self) -> str:
        """The runs that it takes, in words."""
        raise NotImplementedError


@dataclass(frozen=True)
class ArmsFinding(Finding):
    """Two arms compared: ``difference`` is the test error of `worse` less that of `better`, points.

    Attributes:
        better, worse: The arms.
        above, below: It holds for a difference in between.
        fails_below: It does not hold for a difference below this (or above `below`).
        must_move: Whether it is void unless analog weights moved.
    """

    better: str
    worse: str
    above: float = 0.0
    below: float = math.inf
    fails_below: float = 1.0
    must_move: bool = False

    @property
    def needs(self) -> str:
        return f"the arms {self.better} and {self.worse}"


@dataclass(frozen=True)
class CriticalFinding(Finding):
    """A critical level of one axis, for the analog-tl arm.

    Attributes:
        axis: The axis.
        level: The published critical level.
        tolerance: How far from it still agrees.
    """

    axis: str
    level: float
    tolerance: float = 5.0

    @property
    def needs(self) -> str:
        return f"a sweep of {self.axis} with the arm analog-tl"


@dataclass(frozen=True)
class LittleEffectFinding(Finding):
    """An axis that hardly matters, for the analog-tl arm.

    Attributes:
        axis: The axis; levels up to the last of the registry's must have been tested.
    """

    axis: str

    @property
    def needs(self) -> str:
        return f"a sweep of {self.axis} up to {self.reach:g} with the arm analog-tl"

    @property
    def reach(self) -> float:
        """Harshest level that must have been tested."""
        return max(AXES[self.axis].levels)


BOTH: Final = (2, 5)

FINDINGS: Final[tuple[Finding, ...]] = (
    ArmsFinding(
        "analog-tl-beats-analog-scratch",
        "Analog transfer learning beats analog training from scratch.",
        "lower test error",
        "Fig. 2",
        PAPER,
        BOTH,
        better="analog-tl",
        worse="analog-scratch",
    ),
    ArmsFinding(
        "analog-tl-beats-digital-scratch",
        "Analog transfer learning beats digital training from scratch.",
        "lower test error",
        "Fig. 2",
        PAPER,
        BOTH,
        better="analog-tl",
        worse="digital-scratch",
    ),
    ArmsFinding(
        "digital-tl-ahead",
        "Digital transfer learning beats analog transfer learning by about 2 points.",
        "about 2 points",
        "Fig. 2",
        PAPER,
        BOTH,
        better="digital-tl",
        worse="analog-tl",
        below=4.0,
        fails_below=0.0,
    ),
    CriticalFinding(
        "wtn-critical-2-class",
        "The critical weight transfer noise of the 2-class task is 15 %.",
        "15 %",
        "Fig. 3",
        PAPER,
        (2,),
        axis="wtn",
        level=15.0,
    ),
    CriticalFinding(
        "wtn-critical-5-class",
        "The critical weight transfer noise of the 5-class task is 10 %.",
        "10 %",
        "Fig. 3",
        PAPER,
        (5,),
        axis="wtn",
        level=10.0,
    ),
    LittleEffectFinding(
        "spv-little-effect-2-class",
        "Symmetry point variability has little effect on the 2-class task.",
        "little effect",
        "Fig. 4",
        PAPER,
        (2,),
        axis="spv",
    ),
    CriticalFinding(
        "spv-critical-5-class",
        "Symmetry point variability hurts the 5-class task beyond about 10 %.",
        "about 10 %",
        "Fig. 4",
        PAPER,
        (5,),
        axis="spv",
        level=10.0,
    ),
    LittleEffectFinding(
        "dw-min-std-little-effect",
        "Pulse update noise has little effect.",
        "little effect",
        "Fig. 5",
        PAPER,
        BOTH,
        axis="dw_min_std",
    ),
    LittleEffectFinding(
        "dw-min-dtod-little-effect",
        "Device-to-device variability of the mean pulse has little effect.",
        "little effect",
        "Fig. 5",
        PAPER,
        BOTH,
        axis="dw_min_dtod",
    ),
    ArmsFinding(
        "arrays-learn",
        "The arrays learn: analog transfer learning beats the same network with frozen arrays.",
        "not published: a control",
        "",
        "analogtl",
        (),
        better="analog-tl",
        worse="frozen-array",
        must_move=True,
    ),
)
