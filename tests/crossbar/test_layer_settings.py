"""Settings of one layer: it is as if all had them, and the others are as if none had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.config.per_layer import EACH_LAYER, EACH_STAGE, in_full, meant
from analogtl.crossbar.convert import Conversion, analog_tiles, programmed_weights, to_analog
from analogtl.crossbar.defaults import Plan
from analogtl.crossbar.layer_settings import Variant
from analogtl.errors import ExperimentError

ENGINES = ("fast", "aihwkit")
SIZE = 6
EXAMPLE = torch.zeros(2, 3, SIZE)
PLAN = Plan(images=500, lr=0.05)
NAMES = ("stages.0.a", "stages.0.b", "stages.1.a", "head")


class Block(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(SIZE, SIZE))

    def forward(self, x):
        for layer in self.children():
            x = torch.relu(layer(x))
        return x


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Block("a", "b"), Block("a"))
        self.head = nn.Linear(SIZE, 2)

    def forward(self, x):
        return self.head(self.stages(x).mean(1))


def converted(
    level: str = "none",
    *,
    engine: str = "fast",
    convert: Any = None,
    plan: Plan | None = PLAN,
    **own: Any,
) -> Conversion:
    torch.manual_seed(0)
    model, plain = Staged(), Analog(engine=engine)
    other = Analog.model_validate({"engine": engine, **own})
    variant = Variant(level, other, Convert.model_validate(convert or {}), "theirs")
    chosen = None if level == "none" else variant
    return to_analog(model, plain, Convert(), seed=3, example=EXAMPLE, plan=plan, variant=chosen)


def seen_on(conversion: Conversion, read: Any) -> dict[str, Any]:
    """What is read from the configuration of each layer's tile."""
    tiles = analog_tiles(conversion.model)
    rows = [row["layer"] for row in conversion.layers]
    return {name: read(tile.rpu_config) for name, tile in zip(rows, tiles, strict=True)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("own", "read"),
    [
        ({"device": {"dw_min_std": 3.0}}, lambda c: c.device.unit_cell_devices[0].dw_min_std),
        (
            {"nonidealities": {"symmetry_point_variability": 20}},
            lambda c: c.device.unit_cell_devices[1].reference_std,
        ),
        (
            {"nonidealities": {"symmetry_point_skew": 40}},
            lambda c: c.device.unit_cell_devices[1].w_max,
        ),
        ({"nonidealities": {"n_states": 10}}, lambda c: c.device.unit_cell_devices[0].dw_min),
        ({"nonidealities": {"out_noise": 0.7}}, lambda c: c.forward.out_noise),
        ({"nonidealities": {"io_bits": 3}}, lambda c: c.backward.inp_res),
        ({"slow_device": {"dw_min_std": 4.0}}, lambda c: c.device.unit_cell_devices[1].dw_min_std),
    ],
    ids=["dw_min_std", "spv", "sps", "n_states", "out_noise", "io_bits", "slow"],
)
def test_the_arrays_of_one_stage_have_settings_of_their_own(engine, own, read):
    without, everywhere = (
        seen_on(converted(level, engine=engine, **own), read) for level in ("none", "all")
    )
    assert not set(without.values()) & set(everywhere.values())
    found = seen_on(converted("stages.0", engine=engine, **own), read)
    assert found == {n: (everywhere if "stages.0" in n else without)[n] for n in NAMES}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "own",
    [
        {"convert": {"weight_transfer_noise": 20}},
        {"nonidealities": {"symmetry_point_variability": 40}},
        {"nonidealities": {"n_states": 8}},
    ],
    ids=["wtn", "spv", "n_states"],
)
@pytest.mark.parametrize("name", ["stages.0.b", "head"])
def test_the_layer_is_as_if_all_were_so_and_the_others_as_if_none(engine, own, name):
    conversions = [converted(level, engine=engine, **own) for level in ("none", "all", name)]
    without, everywhere, found = (programmed_weights(one.model) for one in conversions)
    rows = [{row["layer"]: row for row in one.layers} for one in conversions]
    for other in NAMES:
        expected, expected_row = (everywhere, rows[1]) if other == name else (without, rows[0])
        pairs = zip(found[other], expected[other], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert rows[2][other] == expected_row[other]
    everything = {**rows[1][name], "own_settings": None}
    assert everything != {**rows[0][name], "own_settings": None}
    assert [row.get("own_settings") for row in conversions[2].layers].count("theirs") == 1


def test_settings_of_all_layers_are_the_settings_of_the_network():
    own = {"nonidealities": {"n_states": 8, "out_noise": 0.3}}
    everywhere = converted("all", convert={"weight_transfer_noise": 5}, **own)
    analog, convert = Analog.model_validate(own), Convert(weight_transfer_noise=5)
    torch.manual_seed(0)
    plain = to_analog(Staged(), analog, convert, seed=3, example=EXAMPLE, plan=PLAN)
    x = torch.rand(4, 3, SIZE)
    assert torch.equal(everywhere.model(x), plain.model(x))
    told = [{k: v for k, v in row.items() if k != "own_settings"} for row in everywhere.layers]
    assert told == plain.layers


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", ()),
        ("all", NAMES),
        ("head", ("head",)),
        ("stages.0", NAMES[:2]),
        ("stages", NAMES[:3]),
        ("stages.*.a", ("stages.0.a", "stages.1.a")),
    ],
)
def test_what_a_level_means(level, expected):
    assert tuple(meant(level, NAMES)) == expected


@pytest.mark.parametrize("level", ["heads", "stages.2", "stage", "b", ""])
def test_a_level_that_means_no_layer_is_refused(level):
    with pytest.raises(ExperimentError, match=r"per_layer\.layer") as told:
        converted(level, device={"dw_min_std": 1.0})
    assert len(told.value.problems) == 1


def test_words_for_each_layer_and_each_stage_are_put_in_full_in_the_network_s_order():
    assert in_full(["none", EACH_LAYER, "all"], NAMES) == ["none", *NAMES, "all"]
    assert in_full([EACH_STAGE], NAMES) == ["stages.0", "stages.1", "head"]
    assert in_full(["head", EACH_LAYER], NAMES) == ["head", *NAMES[:3]]
    with pytest.raises(ExperimentError):
        in_full(["none", "heads"], NAMES)
