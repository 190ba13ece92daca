"""The tables of what training costs: arms, terms with their constants, layers, epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from analogtl.analysis.costs import ENERGIES, Costs
from analogtl.report.tables import Column, Table, level_columns

_PREFIXES: Final = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M"}
NOTE: Final = (
    "Counted: pulses, forward and backward passes of training, transfers, the hidden matrix. Not "
    "counted: evaluation, programming, layers that are digital, and what is digital in either "
    "case: normalisation, attention products, activations, loss; wires, buffers and leakage. "
    "Time: one step after the other."
)
WORN: Final = (
    "Worn out: cells with more pulses than the endurance. A range: what mean and maximum allow; "
    "with --save-pulses the share is exact."
)


def unit_of(values: Iterable[Any], unit: str) -> tuple[str, float]:
    """Choose the prefix in which the largest value is read best: the unit, and the factor to it."""
    largest = max((abs(float(one)) for one in values if not pd.isna(one)), default=0.0)
    power = 3 * math.floor(math.log10(largest) / 3) if 0 < largest < math.inf else 0
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    return f"{_PREFIXES[power]}{unit}", 10.0**-power


def _scaled(frame: pd.DataFrame, key: str, header: str, unit: str, like: str = "") -> Column:
    """A column in the unit that fits its values, or those of another column."""
    known = [name for name in (key, like) if name in frame]
    shown, factor = unit_of(frame[known].to_numpy(dtype=float, na_value=math.nan).ravel(), unit)
    return Column(key, header, shown, "share", scale=factor)


def _worn(frame: pd.DataFrame) -> list[str]:
    """The share of worn cells as text: one number, or a range."""
    texts = []
    for low, high in zip(frame["worn_low"], frame["worn_high"], strict=True):
        ends = [f"{100 * one:.2g}" for one in (low, high) if not pd.isna(one)]
        texts.append(" to ".join(dict.fromkeys(ends)) + " %" if ends else "")
    return texts


def _table(costs: Costs, name: str, title: str, frame: pd.DataFrame, first: list[Column]) -> Table:
    frame = frame.assign(worn=_worn(frame))
    levels = level_columns(frame, costs.axes)
    energies = [
        _scaled(frame, f"energy_{term.name}", term.label, "J", "energy") for term in ENERGIES
    ]
    listed = [
        *(Column("arm", "arm", kind="arm"), *levels, *first),
        Column("n", "n", kind="count", essential=False),
        _scaled(frame, "energy", "energy", "J"),
        *energies,
        _scaled(frame, "same_energy", "the same digitally", "J"),
        _scaled(frame, "time", "time", "s"),
        _scaled(frame, "same_time", "digitally", "s"),
        Column("tops_per_w", "efficiency", "TOPS/W", "share"),
        Column("most_pulses", "most pulses of a cell", kind="count"),
        Column("worn", "worn out"),
    ]
    kept = tuple(column for column in listed if column.is_needed(frame))
    whole = frame.drop(columns="worn")
    return Table(name, title, frame, kept, f"{NOTE} {WORN}", whole=whole)


def arms_table(costs: Costs) -> Table:
    """What each arm costs in all."""
    title = "What the training of the arrays costs"
    return _table(costs, "costs_of_arms", title, costs.totals, [])


def layers_table(costs: Costs) -> Table:
    """What each layer costs, shown over all epochs; the CSV file has every epoch."""
    first = [Column("layer", "layer")]
    table = _table(costs, "costs", "Costs by layer", costs.layers, first)
    return replace(table, whole=costs.epochs)


def terms_table(costs: Costs) -> Table:
    """Each term with its count, its constant and where that is from."""
    terms = costs.terms()
    frame = terms.assign(
        value_text=[
            "" if pd.isna(value) else f"{value:.4g} {unit}"
            for value, unit in zip(terms["value"], terms["unit"], strict=True)
        ],
        count_text=[f"{count:.5g}" if not pd.isna(count) else "" for count in terms["count"]],
    )
    columns = (
        Column("arm", "arm", kind="arm"),
        *level_columns(frame, costs.axes),
        Column("term", "what"),
        Column("count_text", "count"),
        Column("constant", "constant"),
        Column("value_text", "value"),
        _scaled(frame, "energy", "energy", "J"),
        _scaled(frame, "time", "time", "s"),
        Column("source", "source"),
    )
    kept = tuple(column for column in columns if column.is_needed(frame))
    title = "Costs, term by term, with their constants"
    note = "Energy or time = count x constant; time over arrays at work at the same time."
    return Table("cost_terms", title, frame, kept, note, whole=terms)
