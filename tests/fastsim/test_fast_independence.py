"""No draw of the fast engine repeats: calls, vectors, rows, columns and tiles have their own.

Every number is a function of a seed, a purpose and a counter. So two things make draws independent:
each call moves the counters on that it draws by, and each counter and the seed are part of what is
drawn. Both are tested here, draw by draw, without statistics where there need be none.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from aihwkit.simulator.parameters.io import IOParameters
from torch import Tensor

from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim import layout as k
from analogtl.fastsim.cases import compound_config

OUT, IN = 52, 12
VECTORS = 2 * IN  # a read of every column, twice
X = torch.ones(VECTORS, IN)
D = -torch.ones(VECTORS, OUT)
# Fixed seeds; two samples of 1000 independent numbers correlate by more than this once in 1e9.
CORRELATED = 0.2


def tile(**settings: Any) -> FastTile:
    config = compound_config(**settings)
    config.forward = config.backward = IOParameters(inp_res=-1.0, out_res=-1.0, out_noise=0.1)
    made = FastTile(OUT, IN, fast_rpu_config(config, seed=0))
    made.tile.set_learning_rate(0.1)
    return made


def updated(fast: FastTile) -> dict[str, Any]:
    fast.tile.update(X, D)
    return fast.tile.state()


# What is drawn, how the tile has to be, and where it is seen after an update.
DRAWN: dict[str, tuple[dict[str, Any], Any]] = {
    "pulses of the columns": ({}, lambda state: state["x_bits"]),
    "pulses of the rows": ({}, lambda state: state["d_bits"]),
    "noise of pulses and reads": ({"in_chop_prob": 0.0}, lambda state: state["fast"]),
    "input choppers": ({"in_chop_prob": 0.5}, lambda state: state["in_chop"]),
    "output choppers": ({"out_chop_prob": 0.5}, lambda state: state["out_chop"]),
}
# The counters that a draw goes by; the pulses' slots lie at the same places of the ring after one
# round of it.
COUNTERS = {
    "pulses of the columns": [k.SLOT],
    "pulses of the rows": [k.SLOT],
    "noise of pulses and reads": [k.POOLS, k.READS],
    "input choppers": [k.READS],
    "output choppers": [k.SWEEPS],
}


@pytest.mark.parametrize("drawn", DRAWN)
def test_the_seed_is_part_of_every_draw(drawn):
    settings, look = DRAWN[drawn]
    start = tile(**settings).tile.state()
    results = []
    for seed in (1, 1, 2):
        fast = tile(**settings)
        fast.tile.load_state(start | {"seed": str(seed)})
        results.append(look(updated(fast)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("drawn", "counter"), [(name, one) for name, found in COUNTERS.items() for one in found]
)
def test_the_counter_is_part_of_every_draw(drawn, counter):
    settings, look = DRAWN[drawn]
    start = tile(**settings).tile.state()
    rounds = start["d_bits"].shape[1]
    results = []
    for more in (0, rounds):
        fast = tile(**settings)
        state = {name: v.clone() if torch.is_tensor(v) else v for name, v in start.items()}
        state["counts"][counter] += more
        if counter == k.SLOT:
            state["start"] += more
        fast.tile.load_state(state)
        results.append(look(updated(fast)))
    assert not torch.equal(results[0], results[1])


def test_every_update_moves_its_counters_on():
    fast = tile(out_chop_prob=0.5)
    before = fast.tile.state()["counts"]
    for _ in range(2):
        after = updated(fast)["counts"]
        for counter in (k.SLOT, k.READS, k.POOLS, k.SWEEPS):
            assert after[counter] > before[counter]
        assert after[k.READS] - before[k.READS] == VECTORS
        assert after[k.SWEEPS] - before[k.SWEEPS] == VECTORS // IN
        before = after


def test_looking_at_pulses_that_are_due_takes_the_noise_that_they_will_have():
    fast = tile(transfer_every=1000)  # nothing is read: all pulses stay in the ring
    updated(fast)
    first, again = (fast.tile.current(k.A) for _ in range(2))
    assert np.array_equal(first, again)
    pools = int(fast.tile.counts[k.POOLS])
    fast.tile.settle()
    assert np.array_equal(first, fast.tile.cells.fast)
    assert int(fast.tile.counts[k.POOLS]) == pools + 1


def uncorrelated(samples: list[Tensor]) -> bool:
    pairs = itertools.combinations([sample.flatten().double().numpy() for sample in samples], 2)
    return all(abs(np.corrcoef(one, other)[0, 1]) < CORRELATED for one, other in pairs)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_no_call_of_a_product_and_no_vector_repeats_its_noise(direction):
    fast = tile()
    given = torch.ones(100, IN if direction == "forward" else OUT)
    fast.tile.set_weights(torch.zeros(OUT, IN))
    calls = [getattr(fast.tile, direction)(given) for _ in range(3)]
    assert uncorrelated(calls)
    first, second = calls[0].chunk(2)
    assert uncorrelated([first, second])
    assert len(torch.unique(calls[0], dim=0)) == 100


def test_no_vector_repeats_the_noise_of_its_inputs():
    config = compound_config()
    config.forward = IOParameters(inp_noise=0.1, inp_res=-1.0, out_res=-1.0, out_noise=0.0)
    fast = FastTile(OUT, IN, fast_rpu_config(config, seed=0))
    fast.tile.set_weights(0.1 * torch.ones(OUT, IN))
    outputs = [fast.tile.forward(torch.ones(400, IN))[:, 0] for _ in range(2)]
    assert len(torch.unique(torch.cat(outputs))) == 800


def test_forward_and_backward_products_are_drawn_apart():
    fast = tile()
    fast.tile.set_weights(torch.zeros(OUT, IN))
    before = int(fast.tile.counts[k.PRODUCTS])
    forward = fast.tile.forward(torch.ones(100, IN)).flatten()[:1000]
    backward = fast.tile.backward(torch.ones(100, OUT)).flatten()[:1000]
    assert int(fast.tile.counts[k.PRODUCTS]) == before + 2
    assert uncorrelated([forward, backward])


def test_every_pass_of_bound_management_has_noise_of_its_own():
    config = compound_config()
    config.forward = IOParameters(inp_res=-1.0, out_res=-1.0, out_bound=0.5, out_noise=0.01)
    fast = FastTile(OUT, IN, fast_rpu_config(config, seed=0))
    fast.tile.set_weights(0.3 * torch.ones(OUT, IN))
    before = int(fast.tile.counts[k.PRODUCTS])
    fast.tile.forward(torch.ones(3, IN))
    assert int(fast.tile.counts[k.PRODUCTS]) > before + 1


def test_programming_draws_its_write_noise_anew():
    fast = tile(write_noise_on_set=True)
    written = []
    for _ in range(3):
        fast.tile.set_weights(torch.zeros(OUT, IN))
        written.append(fast.tile.get_weights())
    assert uncorrelated(written)


def test_rows_and_columns_pulse_apart():
    size = 64
    config = compound_config(transfer_every=10_000, auto_scale=False, fast_lr=0.5)
    fast = FastTile(size, size, fast_rpu_config(config, seed=0))
    fast.tile.set_learning_rate(0.1)
    fast.tile.update(torch.ones(20, size), torch.ones(20, size))
    slots = int(fast.tile.counts[k.SLOT])
    assert 20 <= slots <= 1024
    ring = fast.tile.ring
    columns = np.unpackbits(
        ring.x_bits[:, 0].T.copy().view(np.uint8).reshape(size, -1), axis=1, bitorder="little"
    )[:, :slots]
    either = ring.d_bits[:, :slots, 0] | ring.d_bits[:, :slots, 1]
    rows = np.unpackbits(either.view(np.uint8), axis=2, bitorder="little")
    rows = rows.reshape(len(rows), slots, -1, 64)[..., :48].transpose(0, 2, 3, 1)
    rows = rows.reshape(-1, slots)[:size]
    assert 0.05 < columns.mean() < 0.95
    assert 0.05 < rows.mean() < 0.95
    assert abs(np.corrcoef(columns.ravel(), rows.ravel())[0, 1]) < CORRELATED


def test_tiles_of_one_configuration_draw_apart():
    config = compound_config()
    config.forward = IOParameters(out_noise=0.1)
    fast = fast_rpu_config(config, seed=3)
    outputs = []
    for _ in range(2):
        one = FastTile(OUT, IN, fast)
        one.tile.set_weights(torch.zeros(OUT, IN))
        outputs.append(one.tile.forward(torch.ones(100, IN)))
    assert uncorrelated(outputs)


@pytest.mark.parametrize("operation", ["decay_weights", "diffuse_weights"])
def test_what_ages_the_arrays_draws_their_write_noise_anew(operation):
    fast = tile()
    seen = []
    for _ in range(3):
        getattr(fast.tile, operation)()
        hidden = fast.get_hidden_parameters()
        seen.append(torch.stack([hidden["hidden_weights_0"], hidden["hidden_weights_1"]]))
        assert not hidden["persistent_weights_1"].any()
    assert uncorrelated(seen)
    assert uncorrelated([part for one in seen for part in one])


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_reset_draws_its_noise_and_its_cells_anew(probability):
    def reset(fast):
        fast.tile.set_weights(torch.zeros(OUT, IN))
        fast.tile.reset_columns(0, -1, probability)
        return fast.get_hidden_parameters()["persistent_weights_0"]

    fast, other = tile(), tile()
    other.tile.seed += np.uint64(1)
    first, second, third = reset(fast), reset(fast), reset(other)
    bias = fast.get_hidden_parameters()["reset_bias_0"]
    if probability == 1.0:
        assert uncorrelated([one - bias for one in (first, second, third)])
    else:
        chosen = [(one != 0).float() for one in (first, third)]
        assert all(0.4 < float(one.mean()) < 0.6 for one in chosen)
        assert uncorrelated(chosen)
