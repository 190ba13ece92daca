"""Which layers have settings of their own: the levels of the axis ``per_layer``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from analogtl.errors import ExperimentError, did_you_mean

NONE, ALL = "none", "all"
EACH_LAYER, EACH_STAGE = "each-layer", "each-stage"


def stage_of(layer: str) -> str:
    """The part of the network that a layer is in: ``stages.2``, ``blocks.5``, ``head``."""
    found = re.match(r"[^.]*(?:\.\d+(?=\.|$))?", layer)
    return found[0] if found else layer


def meant(level: str, layers: Iterable[str]) -> list[str]:
    """The layers that a level means, in their order.

    Args:
        level: ``none``, ``all``, a name or a shell pattern of names, or what layers lie below: a
            stage.
        layers: The names of the layers on arrays.

    Raises:
        ExperimentError: If it means none of them and is not ``none``.
    """
    layers = list(layers)
    if level == NONE:
        return []
    patterns = ("*",) if level == ALL else (level, f"{level}.*")
    found = [one for one in layers if any(fnmatch.fnmatchcase(one, p) for p in patterns)]
    if not found:
        hint = did_you_mean(level, [NONE, ALL, *dict.fromkeys(map(stage_of, layers)), *layers])
        hint = hint or f"there are {', '.join(layers[:5])}, ..."
        raise ExperimentError(f"per_layer.layer: {level!r} is no layer or stage on arrays; {hint}")
    return found


def in_full(levels: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Levels with a level for each layer, or stage, in the place of the word for it.

    Args:
        levels: As an experiment has them.
        layers: The names of the layers on arrays.

    Raises:
        ExperimentError: If a level means no layer.
    """
    each = {EACH_LAYER: layers, EACH_STAGE: [stage_of(layer) for layer in layers]}
    found = list(dict.fromkeys(one for level in levels for one in each.get(level, (level,))))
    for level in found:
        meant(level, layers)
    return found
