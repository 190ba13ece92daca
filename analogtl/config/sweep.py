"""[sweep] and [sweep.tune]: which trials there are, and what is chosen before them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from analogtl.config.parameters import Problem, is_number
from analogtl.config.section import Dotted, PositiveInt, PositiveNumber, Section, Seed, Text
from analogtl.config.training import ClassSet
from analogtl.vocabulary import NUMBERED

MAX_CANDIDATES = 10_000


class Tune(Section):
    """Settings that are chosen before the sweep, for each arm at each level of its axes (so for
    each device or algorithm, where these are axes), by validation error."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (100, 101)
    """Seeds of the replicates that candidates are compared on: none of `sweep.seeds`, so that
    nothing is chosen on what is tested."""
    class_sets: tuple[ClassSet, ...] = ()
    """Sets of classes, each of which is run with every seed, as `sweep.class_sets`, in whose place
    they come. Empty: the same sets as in the sweep."""
    method: Literal["grid", "halving"] = "grid"
    """`grid`: every candidate on every block (a seed and a set of classes). `halving`: every
    candidate on the first blocks, the better half on the next ones, and so on."""
    budget: PositiveInt | None = None
    """`halving`: how many trainings each choice (of an arm at a level) may take. Half of those of
    the grid if absent."""
    candidates: Annotated[dict[Text, tuple[Any, ...]], Dotted] = {}
    """Dotted key -> the values to choose among; of several keys, every combination is a candidate.
    A key is left out where it changes nothing: of [analog] in digital arms, `analog.drive` in
    algorithms without one. The shuffled control takes what analog-tl has."""

    def _problems(self) -> Iterator[Problem]:
        if self.model_fields_set and "candidates" not in self.model_fields_set:
            yield (
                "candidates",
                'expected a key and its values, e.g. { "finetune.lr" = [0.01, 0.02] }',
            )
        for key, values in self.candidates.items():
            wrong = [v for v in values if not (is_number(v) or isinstance(v, bool | str))]
            if wrong:
                yield f"candidates.{key}", f"expected numbers or names; got {wrong}"
            elif len(values) < 2:
                yield f"candidates.{key}", f"expected two values or more; got {list(values)}"
            elif len({(type(value) is bool, value) for value in values}) < len(values):
                yield f"candidates.{key}", f"expected each value once; got {list(values)}"
        for name in ("seeds", "class_sets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                yield name, f"expected each value once; got {list(values)}"
        first = math.prod(map(len, self.candidates.values()))
        if first > MAX_CANDIDATES:
            yield "candidates", f"{first:,} combinations; expected at most {MAX_CANDIDATES:,}"
        if self.method == "grid" and self.budget is not None:
            yield "budget", "the grid has none: every candidate runs; expected method = 'halving'"
        if self.method == "halving" and self.budget is not None and self.budget < first:
            yield "budget", f"expected {first} or more, for each candidate once; got {self.budget}"


class Sweep(Section):
    """The trials: every combination of axes, learning rates and seeds, for every arm."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of the replicates; `finetune` runs them too. The same seeds draw the same devices at
    every level."""
    class_sets: tuple[ClassSet, ...] = ()
    """Sets of classes, each as [finetune] classes has one, in whose place they are run: every seed
    with every set, at every level. A seed and a set are one block: levels and arms are compared
    within blocks, and a verdict rests on more than one task. All of one size."""
    lr: tuple[PositiveNumber, ...] = ()
    """Learning rates to try at every level; the best one on validation data is kept. Empty:
    [finetune] lr alone (weight programming: [programming] lr)."""
    axes: Annotated[dict[Text, tuple[Any, ...]], Dotted] = {}
    """Axis name or dotted key -> levels; see `analogtl list axes`."""
    tune: Tune = Tune()

    def _problems(self) -> Iterator[Problem]:
        axes = {f"axes.{name}": levels for name, levels in self.axes.items()}
        for key, values in axes.items():
            # Checked here, as the schema's own words for one of four types help nobody.
            names = () if key.removeprefix("axes.") in NUMBERED else (bool, str)
            if wrong := [v for v in values if not (is_number(v) or isinstance(v, names))]:
                yield key, f"expected numbers{' or names' if names else ''}; got {wrong}"
                return
            if not values:
                yield key, "expected at least one level; got none"
        lists: dict[str, tuple[Any, ...]] = {"seeds": self.seeds, "lr": self.lr, **axes}
        for key, values in {**lists, "class_sets": self.class_sets}.items():
            if len(set(values)) < len(values):
                yield key, f"expected each value once; got {list(values)}"
