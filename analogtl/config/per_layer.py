"""[per_layer]: settings that only some layers have, and the levels of its axis."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import field_validator

from analogtl.config.parameters import SECTIONS
from analogtl.config.section import Section, Text, flatten
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import key_of

NONE, ALL = "none", "all"
EACH_LAYER, EACH_STAGE = "each-layer", "each-stage"
_TABLES = ("device", "slow_device", "nonidealities", *SECTIONS)
_KEYS = (
    *("convert.weight_transfer_noise", "convert.relative_to"),
    *("analog.drive", "analog.granularity_per_token"),
)


class PerLayer(Section):
    """Settings that some layers have in place of the network's. Swept, it tells which layer it is
    that hurts (`analogtl explain
    devices-and-nonidealities`)."""

    layer: Text = NONE
    """Which layers on arrays: `none`, `all`, a name or shell pattern, or a stage (`stages.0`: what
    is below it). The axis `per_layer` sets it, and knows `each-layer` and `each-stage`."""
    settings: dict[Text, Any] = {}
    """Axis name or dotted key -> value in those layers, e.g. `{ wtn = 20 }`. Keys of [analog], but
    for algorithm, engine and device files, and how weights are transferred."""

    @field_validator("settings", mode="before")
    @classmethod
    def _by_key(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        return {key_of(name): value for name, value in flatten(settings).items()}

    @property
    def text(self) -> str:
        """The settings in words."""
        return "; ".join(f"{key} = {value}" for key, value in self.settings.items())

    def problems(self) -> Iterator[tuple[str, str]]:
        """Find keys that cannot differ from layer to layer."""
        for key in self.settings:
            table = key.removeprefix("analog.").partition(".")[0]
            own_table = key.startswith("analog.") and table in _TABLES and key.count(".") == 2
            if not (own_table or key in _KEYS) or key.endswith(".file"):
                what = "cannot differ from layer to layer; expected a setting of arrays, such as"
                yield f"settings.{key}", f"{what} wtn, spv or analog.device.dw_min_std"


def stage_of(layer: str) -> str:
    """The part of the network that a layer is in: ``stages.2``, ``blocks.5``, ``head``."""
    found = re.match(r"[^.]*(?:\.\d+(?=\.|$))?", layer)
    return found[0] if found else layer


def meant(level: str, layers: Iterable[str]) -> list[str]:
    """The layers that a level means, in their order.

    Args:
        level: ``none``, ``all``, a name or a shell pattern of names, or what layers lie below: a
            stage.

    Raises:
        ExperimentError: If it means none of them and is not ``none``.
    """
    layers = list(layers)
    if level == NONE:
        return []
    if level in (EACH_LAYER, EACH_STAGE):
        raise ExperimentError(f"per_layer.layer: {level!r} is a word of the axis per_layer only")
    patterns = ("*",) if level == ALL else (level, f"{level}.*")
    found = [one for one in layers if any(fnmatch.fnmatchcase(one, p) for p in patterns)]
    if not found:
        known = dict.fromkeys([NONE, ALL, *map(stage_of, layers), *layers])
        hint = did_you_mean(level, known)
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
    found = dict.fromkeys(one for level in levels for one in each.get(level, (level,)))
    problems = []
    for level in found:
        try:
            meant(level, layers)
        except ExperimentError as error:
            problems += [f"sweep.axes.per_layer = {level}: {error.problems[0]}"]
    if problems:
        raise ExperimentError(problems)
    return list(found)
