"""Training algorithms as Python files: how the arrays of a cell drive one another, as a rule says.

``RuleText.read("my_rule.py:Rule")`` reads one, ``RuleCompound(rule=...)`` is the device of an
aihwkit configuration that it drives, and `fast_rpu_config` makes that a configuration of tiles.
"""

from __future__ import annotations

from analogtl.fastsim.rules.compound import RuleCompound
from analogtl.fastsim.rules.contract import Rule, RuleError, RuleText, load_rule
from analogtl.fastsim.rules.fields import fused

__all__ = ["Rule", "RuleCompound", "RuleError", "RuleText", "fused", "load_rule"]
