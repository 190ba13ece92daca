"""Pulses are counted exactly: pulse by pulse, over interruptions, and without changing the run."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from aihwkit.simulator.configs.compounds import DynamicTransferCompound, MixedPrecisionCompound
from aihwkit.simulator.configs.configs import DigitalRankUpdateRPUConfig, SingleRPUConfig
from aihwkit.simulator.configs.devices import ConstantStepDevice, PowStepDevice
from aihwkit.simulator.parameters.training import UpdateParameters

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim import layout as k
from analogtl.fastsim.cases import compound_config
from analogtl.fastsim.rules import RuleText
from analogtl.fastsim.rules.check import as_rule

IN = 7
KINDS = ["A_up", "A_down", "C_up", "C_down"]
FAR = {"w_max": 100.0, "w_min": -100.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}


def counted(out: int, config: Any, counts: bool = True, lr: float = 0.1) -> Any:
    config = deepcopy(config)
    device = config.device
    for one in getattr(device, "unit_cell_devices", [getattr(device, "device", device)]):
        one.count_pulses = counts
    own = fast_rpu_config(config, seed=3)
    tile = own.tile_class(out, IN, own).tile
    tile.set_learning_rate(lr)
    return tile


def vectors(n: int, out: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, IN, generator=generator), torch.randn(n, out, generator=generator)


def bits_of(tile: Any, first: int, last: int) -> tuple[Any, Any]:
    """The pulses of columns [slots, in] and rows [slots, out] that the ring holds."""
    slots = np.arange(first, last) % tile.ring.d_bits.shape[1]
    columns = tile.ring.x_bits[slots >> 5, 0] >> (slots & 31).astype(np.uint32)[:, None] & 1
    either = (tile.ring.d_bits[:, slots, 0] | tile.ring.d_bits[:, slots, 1]).astype("<u2")
    rows = np.unpackbits(either.view(np.uint8), axis=2, bitorder="little")
    rows = rows.reshape(*rows.shape[:2], -1, 64)[..., :48]
    return columns.astype(int), rows.transpose(1, 0, 2, 3).reshape(len(slots), -1)[:, : tile.d_size]


CONFIGS = {
    "c-TTv2": compound_config(in_chop_prob=0.3, out_chop_prob=0.3),
    "AGAD": compound_config(compound=DynamicTransferCompound, in_chop_prob=0.3),
    "rule": as_rule(compound_config(in_chop_prob=0.3), RuleText.read("c_ttv2.py:Rule")),
}


@pytest.mark.parametrize("out", [5, 48, 52, 150])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_pulse_onto_a_is_counted_in_its_direction(name, out):
    tile = counted(out, CONFIGS[name])
    x, d = vectors(60, out)
    expected = {"A_up": np.zeros((IN, out), int), "A_down": np.zeros((IN, out), int)}
    for x_N, d_N in zip(x.split(1), d.split(1), strict=True):
        first = int(tile.counts[k.SLOT])
        chop = 1.0 - 2.0 * (tile.own("chopped") if name == "rule" else tile.choppers.in_chop)
        turn = np.ones(out) if name == "rule" else tile.choppers.out_chop[:out].copy()
        tile.update(x_N, d_N)
        columns, rows = bits_of(tile, first, int(tile.counts[k.SLOT]))
        meet = (columns[:, :, None] & rows[:, None, :]).sum(0)
        up = np.outer(x_N.numpy() * chop, d_N.numpy() * turn) < 0
        expected["A_up"] += np.where(up, meet, 0)
        expected["A_down"] += np.where(up, 0, meet)
    found = tile.pulse_counts()
    assert list(found) == KINDS
    assert expected["A_up"].sum() > 50
    assert expected["A_down"].sum() > 50
    for kind, numbers in expected.items():
        np.testing.assert_array_equal(found[kind], numbers, err_msg=kind)


@pytest.mark.parametrize("name", ["c-TTv2", "rule", "sgd", "mp"])
def test_weights_are_the_sum_of_the_pulses_that_were_counted(name):
    """Steps without noise, of another size up than down in every cell, far from the bounds."""

    def device() -> ConstantStepDevice:
        return ConstantStepDevice(
            dw_min=0.01, dw_min_std=0.0, dw_min_dtod=0.3, up_down=0.2, up_down_dtod=0.3, **FAR
        )

    config = compound_config(device=device, transfer_update=UpdateParameters(desired_bl=3))
    if name == "rule":
        config = as_rule(config, RuleText.read("c_ttv2.py:Rule"))
    elif name == "sgd":
        config = SingleRPUConfig(device=device())
    elif name == "mp":
        config = DigitalRankUpdateRPUConfig(device=MixedPrecisionCompound(device=device()))
    tile = counted(52, config)
    for seed in range(4):
        tile.update(*vectors(50, 52, seed))
    found = tile.pulse_counts()
    hidden = dict(  # sgd's and mp's names have no number
        zip(tile.get_hidden_parameter_names(), tile.get_hidden_parameters().numpy(), strict=True)
    )
    for n, array in enumerate("A" if name in ("sgd", "mp") else "AC"):
        up, down = (found[f"{array}_{direction}"].T for direction in ("up", "down"))
        assert min(up.sum(), down.sum()) > 100
        steps_up, steps_down, weights = (
            hidden.get(f"{one}_{n}", hidden.get(one))
            for one in ("dwmin_up", "dwmin_down", "hidden_weights")
        )
        weights = tile.get_weights().numpy() if weights is None else weights
        np.testing.assert_allclose(up * steps_up - down * steps_down, weights, atol=5e-4)


def test_pulses_count_where_the_cell_rests_at_a_bound_or_cannot_move():
    found = []
    for bound in (100.0, 0.002, 0.0):
        range_ = {**FAR, "w_max": bound, "w_min": -bound}
        config = compound_config(device=lambda own=range_: ConstantStepDevice(dw_min=0.01, **own))
        tile = counted(52, config)
        tile.update(*vectors(100, 52))
        found.append(tile.pulse_counts())
    for kind in KINDS[:2]:
        assert found[0][kind].sum() > 500
        for other in found[1:]:
            np.testing.assert_array_equal(found[0][kind], other[kind])


def test_counting_does_not_change_the_run():
    def device() -> PowStepDevice:
        return PowStepDevice(dw_min=0.01, corrupt_devices_prob=0.3, corrupt_devices_range=0)

    config = compound_config(device=device, transfer_update=UpdateParameters(desired_bl=3))
    tiles = [counted(52, config, counts) for counts in (True, False)]
    for seed in range(5):
        for tile in tiles:
            tile.update(*vectors(60, 52, seed))
            tile.pulse_counts()
    with_counts, without = tiles
    found = with_counts.pulse_counts()
    corrupt = with_counts.get(with_counts.cells.slow, k.C_MAX) == with_counts.get(
        with_counts.cells.slow, k.C_MIN
    )
    assert found["C_up"][corrupt].sum() > 0
    assert without.pulse_counts() == {}
    assert without.planes.size == 0
    assert torch.equal(with_counts.get_hidden_parameters(), without.get_hidden_parameters())


def test_counts_are_the_same_for_every_split_into_calls():
    config = compound_config(
        device=lambda: ConstantStepDevice(dw_min=0.01, dw_min_std=0.0, **FAR),
        auto_scale=False,
        fast_lr=0.5,
    )
    config.device.transfer_forward.out_noise = 0.0
    x, d = vectors(120, 52)
    found = []
    for size in (120, 7, 1):
        tile = counted(52, config)
        for x_N, d_N in zip(x.split(size), d.split(size), strict=True):
            tile.update(x_N, d_N)
        found.append(tile.pulse_counts())
    for kind in KINDS:
        assert found[0][kind].sum() > 100
        for other in found[1:]:
            np.testing.assert_array_equal(found[0][kind], other[kind], err_msg=kind)


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_go_on_after_a_restart_and_over_a_flush(name):
    straight, stopped = (counted(52, CONFIGS[name]) for _ in range(2))
    for seed in range(3):
        for tile in (straight, stopped):
            tile.update(*vectors(40, 52, seed))
    resumed = counted(52, CONFIGS[name])
    resumed.load_state(stopped.state())
    for tile in (straight, resumed):
        tile.update(*vectors(40, 52, 9))
    for kind, numbers in straight.pulse_counts().items():
        np.testing.assert_array_equal(resumed.pulse_counts()[kind], numbers)
    before = straight.pulse_counts()
    straight.settle()
    for kind, numbers in straight.pulse_counts().items():
        np.testing.assert_array_equal(before[kind], numbers)


def test_counts_have_room_for_every_number_of_pulses():
    """Every vector pulses every cell five times; at 4096 the first planes are full."""
    update = UpdateParameters(
        desired_bl=5, fixed_bl=True, update_management=False, update_bl_management=False
    )
    config = compound_config(in_chop_prob=0.0, auto_scale=False, fast_lr=10.0, update=update)
    tile = counted(50, config)
    before = tile.planes.shape[2]
    for _ in range(9):
        tile.update(torch.ones(100, IN), torch.ones(100, 50))
    slots = int(tile.counts[k.SLOT])
    assert slots > 2**before
    found = tile.pulse_counts()
    assert (found["A_up"] + found["A_down"] == slots).all()
    resumed = counted(50, config)
    resumed.load_state(tile.state())
    assert (resumed.pulse_counts()["A_down"] == found["A_down"]).all()


def test_the_number_of_pulses_is_the_expected_one():
    """|x d| lr / dw_min pulses on average; a false alarm in 1e-6 of all seeds."""
    config = compound_config(
        device=lambda: ConstantStepDevice(dw_min=0.01, **FAR), auto_scale=False, fast_lr=0.02,
        update=UpdateParameters(
            desired_bl=10, update_management=False, update_bl_management=False
        ),
    )  # fmt: skip
    tile = counted(52, config)
    generator = torch.Generator().manual_seed(1)
    x, d = (torch.rand(1000, size, generator=generator) for size in (IN, 52))
    tile.update(x, -d)
    found = tile.pulse_counts()
    expected = (x.T @ d).numpy() * 2
    assert found["A_down"].sum() == 0 or config.device.in_chop_prob > 0
    z = (found["A_up"] + found["A_down"] - expected) / np.sqrt(expected)
    assert abs(z).max() < 5.8  # of 364 cells; the variance is at most the mean
    assert abs(z.mean()) < 4.9 * np.sqrt(3 / IN)  # cells of a row or column share pulses


def test_a_tile_in_a_layer_gives_its_counts():
    config = compound_config()
    config.device.unit_cell_devices[0].count_pulses = True
    tile = FastTile(6, 5, fast_rpu_config(config, seed=1))
    assert {numbers.shape for numbers in tile.pulse_counts().values()} == {(5, 6)}
