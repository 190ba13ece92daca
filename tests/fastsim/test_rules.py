"""Rules: files that say how the arrays drive each other, and what is told of wrong ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from analogtl.fastsim import equivalence, fast_rpu_config, unsupported_reason
from analogtl.fastsim.cases import CASES
from analogtl.fastsim.rules import RuleError, RuleText, load_rule
from analogtl.fastsim.rules.check import as_rule, check_rule

IN, OUT = 12, 52
CHOPPED, DYNAMIC = (RuleText.read(f"{name}.py:Rule") for name in ("c_ttv2", "agad"))
SMALLEST = """\
import numpy as np


class Mine:
    cell = ("H",)
    column = ("reads",)
    parameters = {"rate": 0.5}

    def read(array, y, cell, column, p):
        h = cell.H + y * p.rate
        return (h,), np.trunc(h)
"""


def text_of(text: str) -> RuleText:
    return RuleText("mine.py", "Mine", text)


def trained(config: Any, case: Any, updates: int = 6) -> Any:
    made = fast_rpu_config(config, seed=3)
    tile = made.tile_class(OUT, IN, made).tile
    tile.set_learning_rate(case.lr)
    generator = torch.Generator().manual_seed(0)
    tile.set_weights(0.2 * torch.randn(OUT, IN, generator=generator))
    for _ in range(updates):
        x, d = (torch.randn(40, size, generator=generator) for size in (IN, OUT))
        tile.forward(x)
        tile.update(x, d)
    return tile


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        *((case, CHOPPED) for case in ("HfO2", "OM", "SB", "transfer_bl", "every", "magnitudes")),
        *((case, CHOPPED) for case in ("no_buffer", "rare_reads", "mbatch")),
        ("AGAD", DYNAMIC),
    ],
)
def test_a_built_in_algorithm_as_a_rule_gives_the_same_bits(case, rule):
    config = CASES[case].make()
    built_in, ruled = trained(config, CASES[case]), trained(as_rule(config, rule), CASES[case])
    expected, found = built_in.get_hidden_parameters(), ruled.get_hidden_parameters()
    assert torch.equal(expected, found[: len(expected)])
    assert torch.equal(built_in.forward(torch.ones(2, IN)), ruled.forward(torch.ones(2, IN)))


def test_a_rule_that_differs_a_little_is_noticed():
    case = CASES["HfO2"]
    wrong = as_rule(case.make(), CHOPPED, {"in_chop_prob": 0.0})
    rows = equivalence.compare_updates(case, repetitions=60, fast=wrong)
    assert not all(row["passed"] for row in equivalence.judged(rows))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [CHOPPED, DYNAMIC])
def test_the_check_compares_with_aihwkit(rule):
    rows = check_rule(rule)
    assert rows
    assert all(row["passed"] for row in rows)


# Where it is asked to, it ends in NaN at the fourth read of a column, or reads past its table.
FRAIL = """\
import numpy as np

TABLE = np.ones(3, np.float32)


class Mine:
    cell = ("H",)
    column = ("reads",)
    parameters = {"nan_at": -1.0, "stride": 0.0}

    def read(array, y, cell, column, p):
        h = cell.H + y * TABLE[int(column.reads * p.stride)]
        return (h,), np.trunc(h) + np.float32(0.0) / (column.reads - p.nan_at)

    def after_read(array, column, u, p):
        return (column.reads + 1,)
"""


def frail(**values: float) -> Any:
    return trained(as_rule(CASES["HfO2"].make(), text_of(FRAIL), values), CASES["HfO2"])


def test_a_small_rule_runs_and_repeats_itself():
    assert unsupported_reason(as_rule(CASES["HfO2"].make(), text_of(FRAIL))) is None
    first, second = (frail() for _ in range(2))
    assert torch.equal(first.get_hidden_parameters(), second.get_hidden_parameters())
    assert first.own("H").any()


def test_what_goes_wrong_in_a_training_is_one_line():
    with pytest.raises(Exception, match=r"mine\.py.*NaN"):
        frail(nan_at=3.0)


def test_reading_past_a_table_of_the_rule_is_an_error_and_no_number():
    with pytest.raises(IndexError):
        frail(stride=1.0)


def test_a_tile_goes_on_from_a_saved_state_with_the_same_bits():
    case = CASES["AGAD"]
    config = as_rule(case.make(), DYNAMIC)
    through, stopped = trained(config, case), trained(config, case)
    made = fast_rpu_config(config, seed=99)
    resumed = made.tile_class(OUT, IN, made).tile
    resumed.load_state(stopped.state())
    x, d = torch.randn(40, IN), torch.randn(40, OUT)
    for tile in (through, resumed):
        tile.update(x, d)
    assert torch.equal(through.get_hidden_parameters(), resumed.get_hidden_parameters())
    assert (through.own("reads") == resumed.own("reads")).all()


WRONG = {
    # what stands in the file: the line that is named, and a word of the reason
    "class Mine:\n    def read(array, y, cell, column, p):\n        return cell,\n": (
        2, "two values",
    ),
    "class Mine:\n    def read(y, cell):\n        return cell, 0\n": (2, "read(array"),
    "class Mine:\n    cell = ('H',)\n    def read(array, y, cell, column, p):\n"
    "        return (cell.H, cell.G), 0\n": (4, "AttributeError"),
    "class Mine:\n    cell = ('H', 'G')\n    def read(array, y, cell, column, p):\n"
    "        return (cell.H,), 0\n": (3, "2 values"),
    "class Mine:\n    def read(array, y, cell, column, p):\n        return cell, y / (y - y)\n": (
        2, "NaN",
    ),
    "class Mine:\n    def read(array, y, cell, column, p)\n": (2, "not Python"),
    "import os\nclass Mine:\n    pass\n": (1, "imports os"),
    "class Other:\n    pass\n": (1, "Other"),
    "class Mine:\n    pass\n": (1, "no function read"),
    "1 / 0\n": (1, "ZeroDivisionError"),
    SMALLEST + "\n    def after_reed(array, column, u, p):\n        return column\n": (
        13, "'after_read'",
    ),
    SMALLEST.replace('("reads",)', '"reads"'): (6, "tuple of names"),
    SMALLEST.replace('"rate": 0.5', '"rate": "a"'): (7, "numbers"),
    SMALLEST.replace('"rate": 0.5', '"lr": 0.5'): (7, "none of lr"),
    SMALLEST.replace("p.rate", "p.speed"): (10, "speed"),
    SMALLEST + "\n    def onto(array, column, p):\n        return 7\n": (13, "got 7"),
    SMALLEST.replace('    cell =', '    arrays = ("A",)\n    cell ='): (5, "arrays"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_rule_is_one_line_with_its_place(text):
    line, word = WRONG[text]
    with pytest.raises(RuleError, match=re.escape(f"mine.py:{line}: ")) as caught:
        load_rule(text_of(text))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("np.trunc(h)", "len(globals())"), 11),  # works in Python, not in compiled code
        (('{"rate": 0.5}', '{"rate": 0.5}\n    counterpart = "TransferCompound"'), 8),
    ],
)
def test_what_only_the_check_finds_has_its_place_too(change, line):
    with pytest.raises(RuleError, match=re.escape(f"mine.py:{line}: ")):
        check_rule(text_of(SMALLEST.replace(*change)))
