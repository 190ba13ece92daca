"""Try a rule on a small tile: does it compile, stay within its tile, repeat itself, agree?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from aihwkit.simulator.configs.configs import UnitCellRPUConfig

from analogtl.fastsim import equivalence
from analogtl.fastsim.cases import CASES, Case
from analogtl.fastsim.config import fast_rpu_config
from analogtl.fastsim.rules.compound import RuleCompound
from analogtl.fastsim.rules.contract import RuleError, RuleText, load_rule
from analogtl.fastsim.rules.tile import RuleSimulatorTile

GUARD = 64  # numbers before and after each array that must stay as they are
SENTINEL = 12345.0
# Of each counterpart, the cases in which it is compared.
COMPARED = {
    "ChoppedTransferCompound": ("HfO2", "OM", "transfer_bl"),
    "DynamicTransferCompound": ("AGAD",),
    "BufferedTransferCompound": ("TTv2",),
}


def as_rule(
    config: UnitCellRPUConfig, text: RuleText, values: Mapping[str, Any] | None = None
) -> UnitCellRPUConfig:
    """Make the configuration in which a rule drives the arrays of a compound of aihwkit.

    Parameters of the rule that the compound has, too, are taken from it.

    Args:
        config: The compound's.
        text: The rule.
        values: Parameters of the rule that take the place of the compound's.
    """
    compound: Any = config.device
    rule = load_rule(text)
    own = {name: getattr(compound, name) for name in rule.parameters if hasattr(compound, name)}
    own |= values or {}
    first, slow = compound.unit_cell_devices
    others = len(rule.array_names(own)) - 1
    driven = RuleCompound(
        rule=text,
        values=own,
        unit_cell_devices=[first, *[slow] * others],
        transfer_forward=compound.transfer_forward,
        transfer_update=compound.transfer_update,
        construction_seed=compound.construction_seed,
    )
    return replace(config, device=driven)


def check_rule(
    text: RuleText, *, repetitions: int = equivalence.REPETITIONS
) -> list[dict[str, Any]]:
    """Compile a rule, train a small tile with it, and compare it with its counterpart.

    Returns:
        The rows of `equivalence.check`, if the rule names a counterpart.

    Raises:
        RuleError: If anything is wrong with the rule, in one line.
    """
    rule = load_rule(text)
    rule.compile_each(len(rule.array_names({})))
    if rule.counterpart and rule.counterpart not in COMPARED:
        known = ", ".join(COMPARED)
        raise rule.error(
            f"counterpart: expected one of {known}; got {rule.counterpart!r}", "counterpart"
        )
    case = CASES["AGAD" if rule.counterpart == "DynamicTransferCompound" else "HfO2"]
    try:
        first, second = (_trained(text, case, seed=1) for _ in range(2))
    except (TileError, IndexError, ZeroDivisionError) as error:
        raise rule.error(str(error).removeprefix(f"{text.file}: ")) from None
    if not torch.equal(first, second):
        raise rule.error("the same seed gave other weights the second time")
    rows: list[dict[str, Any]] = []
    for name in COMPARED.get(rule.counterpart, ()):
        rows += equivalence.compare_updates(
            CASES[name],
            name=name,
            repetitions=repetitions,
            fast=as_rule(CASES[name].make(), text),
        )
    return equivalence.judged(rows)


def _trained(text: RuleText, case: Case, seed: int) -> torch.Tensor:
    """Train a small tile whose arrays lie between guards; return its hidden parameters."""
    rule = load_rule(text)
    config = fast_rpu_config(as_rule(case.make(), text), seed=seed)
    tile = RuleSimulatorTile(equivalence.IN, equivalence.OUT, config)
    memory = tile.guard(GUARD, SENTINEL)
    batches, weights = equivalence.inputs(case)
    tile.set_learning_rate(case.lr)
    tile.set_weights(weights)
    for x, d in batches:
        tile.forward(x)
        tile.backward(d)
        tile.update(x, d)
    for name, around in memory.items():
        if not (np.all(around[:GUARD] == SENTINEL) and np.all(around[-GUARD:] == SENTINEL)):
            raise rule.error(f"writes outside of its tile ({name})")
    found = tile.get_hidden_parameters()
    if not torch.isfinite(found).all() or not torch.isfinite(tile.get_weights()).all():
        raise rule.error("weights or numbers of a cell became infinite on a small tile")
    return found


__all__ = ["RuleError", "as_rule", "check_rule"]
