"""The unit cell that a rule drives, as a device of an aihwkit configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aihwkit.simulator.configs.compounds import ChoppedTransferCompound

from analogtl.fastsim.rules.contract import DRIVEN, RuleText, load_rule


@dataclass
class RuleCompound(ChoppedTransferCompound):
    """Arrays that a rule drives; only fast tiles can be made of it.

    Its ``unit_cell_devices`` are one for each of the rule's arrays, its ``transfer_forward`` and
    ``transfer_update`` the reads and the pulses from array to array.
    """

    rule: RuleText | None = None
    """The rule."""

    values: dict[str, Any] = field(default_factory=dict)
    """Values of the rule's parameters; those not given have the rule's defaults."""

    def __post_init__(self) -> None:
        assert self.rule is not None
        values = {**load_rule(self.rule).parameters, **self.values}
        for name, default in DRIVEN.items():
            setattr(self, name, type(default)(values[name]))
        # What is read is always handed to the rule.
        self.transfer_lr, self.scale_transfer_lr = 1.0, False
        self.in_chop_prob = self.out_chop_prob = 0.0
