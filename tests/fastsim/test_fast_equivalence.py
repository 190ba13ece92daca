"""The fast engine is the same process as aihwkit's, and the comparison would notice if it were not.

The fast side runs on fixed seeds; aihwkit's comes from the clock. A test that expects agreement
fails by chance with a probability below ``FALSE_ALARM``, corrected for all the comparisons in it.
A wrong engine is far beyond what `analogtl selftest` tolerates: at the fewest by a p-value of
1e-25, so that a test that expects a difference fails by chance as rarely.
"""

import numpy as np
import pytest
import torch
from aihwkit.nn import AnalogLinear
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.presets.devices import ReRamArrayOMPresetDevice
from scipy import stats

from analogtl.fastsim import equivalence, fast_rpu_config
from analogtl.fastsim import layout as k
from analogtl.fastsim.cases import CASES, compound_config
from analogtl.fastsim.equivalence import compare_products, compare_updates

FALSE_ALARM = 1e-6
REPETITIONS = 120
ROWS = 80  # of the check in the default suite: a wrong engine must be noticed among as many


def least_p(rows, count=None):
    """The p-value of all rows together, among ``count`` (Bonferroni)."""
    return min(row["p_value"] for row in rows) * (count or len(rows))


def changed(change):
    """A fast tile that is wrong: ``change`` makes another of its numbers."""
    return lambda tile: tile.tile.set_spec(change(tile.tile.spec))


def scaled(part, name):
    """The variance that belongs to one number 20 % off."""

    def change(spec):
        numbers = getattr(spec, part)
        wrong = np.float32(getattr(numbers, name) * 1.2**0.5)
        return spec._replace(**{part: numbers._replace(**{name: wrong})})

    return changed(change)


def replaced(**values):
    return changed(lambda spec: spec._replace(**values))


def test_both_engines_run_the_same_process():
    rows = equivalence.check(repetitions=REPETITIONS, products=False, seed=1)
    assert len(rows) <= ROWS
    assert {row["quantity"] for row in rows} >= {"A persistent", "H", "C apparent"}
    assert all(row["cells"] > 500 for row in rows if row["case"] == "HfO2")
    assert least_p(rows) > FALSE_ALARM


def test_both_engines_compute_the_same_products():
    rows = compare_products(repetitions=REPETITIONS, seed=1)
    assert least_p(rows) > FALSE_ALARM


WRONG = {
    "pulse noise of A, variance 20 % off": ("noise", scaled("fast", "dw_min_std")),
    "write noise of A, variance 20 % off": ("noise", scaled("fast", "write_noise")),
    "pulse noise of C, variance 20 % off": ("slow_noise", scaled("slow", "dw_min_std")),
    "write noise of C, variance 20 % off": ("slow_noise", scaled("slow", "write_noise")),
    "read noise, variance 20 % off": ("read_noise", scaled("read", "noise")),
    "input choppers ignored": ("HfO2", replaced(in_chop_prob=np.float32(0))),
    "output choppers ignored": ("choppers", replaced(out_chop_prob=np.float32(0))),
    "regular choppers of another period": ("choppers", replaced(in_chop_prob=np.float32(0.3))),
    "multiplicative noise": (
        "noise",
        changed(lambda spec: spec._replace(fast=spec.fast._replace(mult_noise=True))),
    ),
    "momentum of the buffer ignored": ("transfer_bl", replaced(momentum=np.float32(0))),
    "average follows 10 x too fast": ("HfO2", replaced(auto_momentum=np.float32(0.9))),
    "AGAD without the weight on the tail": ("AGAD", replaced(tail_weightening=np.float32(1))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_engine_is_noticed(wrong):
    case, alter = WRONG[wrong]
    rows = compare_updates(CASES[case], repetitions=REPETITIONS, seed=2, alter=alter)
    assert least_p(rows, ROWS) < equivalence.FALSE_ALARM


def test_pulses_in_reverse_order_are_noticed():
    def alter(tile):
        update = type(tile.tile).update
        tile.tile.update = lambda x, d, bias: update(tile.tile, x.flip(0), d.flip(0), bias)

    rows = compare_updates(CASES["mbatch"], repetitions=REPETITIONS, seed=2, alter=alter)
    assert least_p(rows, ROWS) < equivalence.FALSE_ALARM


def test_wrong_output_noise_is_noticed():
    def alter(tile):
        io = tile.tile.forward_io
        tile.tile.forward_io = io._replace(out_noise=np.float32(io.out_noise * 1.2**0.5))

    rows = compare_products(repetitions=REPETITIONS, seed=2, alter=alter)
    forward = [row for row in rows if row["quantity"] == "forward"]
    assert least_p(forward, ROWS) < equivalence.FALSE_ALARM


def test_product_noise_that_repeats_from_call_to_call_is_noticed():
    def alter(tile):
        tile.tile._next_product = lambda: 0

    rows = compare_products(repetitions=REPETITIONS, seed=2, alter=alter)
    assert all(least_p([row], ROWS) < equivalence.FALSE_ALARM for row in rows)


def test_read_noise_that_repeats_from_call_to_call_is_noticed():
    def alter(tile):
        update = type(tile.tile).update

        def repeat(x, d, bias):
            for counter in (k.READS, k.POOLS):
                tile.tile.counts[counter] = 0
            update(tile.tile, x, d, bias)

        tile.tile.update = repeat

    rows = compare_updates(CASES["read_noise"], repetitions=REPETITIONS, seed=2, alter=alter)
    assert least_p(rows, ROWS) < equivalence.FALSE_ALARM


def test_without_a_difference_small_p_values_are_rare():
    # The comparison itself, on two samples of one distribution with dependent cells.
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(30, 200)) / 5 + np.eye(30, 200)
    p = []
    for _ in range(100):
        a, b = (np.exp(0.5 * rng.normal(size=(100, 30)) @ mix) for _ in range(2))
        p.append(equivalence.compare_samples(a, b)["p_value"])
    assert min(p) > 1e-5
    assert np.mean(np.array(p) < 0.05) < 0.15


@pytest.mark.slow
def test_every_option_runs_the_same_process():
    assert least_p(equivalence.check(CASES, repetitions=250, seed=3)) > FALSE_ALARM


def loss_curve(config, seed):
    """Losses of a linear regression trained for 200 steps."""
    torch.manual_seed(seed)
    target = torch.randn(12, 16) * 0.2
    layer = AnalogLinear(16, 12, bias=False, rpu_config=config)
    layer.set_weights(torch.zeros(12, 16))
    optimizer = AnalogSGD(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        x = torch.randn(8, 16)
        loss = ((layer(x) - x @ target.T) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_learning_curves_agree_to_five_percent():
    config = compound_config(ReRamArrayOMPresetDevice, transfer_lr=0.3)
    seeds = range(150)
    curves = {}
    for engine in ("stock", "fast"):
        runs = []
        for seed in seeds:
            config.device.construction_seed = seed + 1
            own = config if engine == "stock" else fast_rpu_config(config, seed=seed)
            runs.append(loss_curve(own, seed))
        curves[engine] = np.array(runs).reshape(len(seeds), 5, 40).mean(2)
    stock = curves["stock"].mean(0)
    assert stock[-1] < 0.9 * stock[0]  # it learns
    # The same devices and data in pairs; five windows, judged together.
    difference = curves["fast"] - curves["stock"]
    error = difference.std(0, ddof=1) / np.sqrt(len(seeds))
    assert (3 * error < 0.05 * stock).all()  # 5 % would show
    z = stats.norm.isf(FALSE_ALARM / 2 / 5)
    assert (abs(difference.mean(0)) < z * error).all()
