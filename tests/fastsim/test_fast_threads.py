"""Several threads: the same bits, and no error that gets lost."""

import copy
import hashlib

import numpy as np
import pytest
import torch
from aihwkit.nn import AnalogLinear
from aihwkit.optim import AnalogSGD
from torch import nn

from analogtl.fastsim import FastTile, fast_rpu_config, threads, use_threads
from analogtl.fastsim.cases import CASES
from analogtl.fastsim.pulsed import PulsedTile


@pytest.fixture(autouse=True)
def one_thread_afterwards():
    yield
    use_threads(1)


def network():
    config = fast_rpu_config(CASES["HfO2"].make(), seed=3)
    torch.manual_seed(0)
    return nn.Sequential(
        AnalogLinear(24, 40, rpu_config=config), nn.Tanh(), AnalogLinear(40, 16, rpu_config=config)
    )


def trained(steps=5, vectors=96):
    model = network()
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    optimizer.regroup_param_groups(model)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, y = torch.randn(vectors, 24, generator=generator), torch.ones(vectors, 16)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


def digest(model):
    found = hashlib.sha256()
    for tile in model.modules():
        if isinstance(tile, FastTile):
            for value in tile.tile.state().values():
                found.update(
                    value.numpy().tobytes() if torch.is_tensor(value) else repr(value).encode()
                )
    return found.hexdigest()


def test_every_number_of_threads_gives_the_same_state():
    states = set()
    for count in (1, 2, 4):
        use_threads(count)
        states.add(digest(trained()))
    assert len(states) == 1


def test_an_update_is_left_to_another_thread(monkeypatch):
    who = []
    update = PulsedTile.update_rows

    def watched(self, *args):
        who.append(threads.threading.current_thread().name)
        update(self, *args)

    monkeypatch.setattr(PulsedTile, "update_rows", watched)
    use_threads(2)
    model = trained(steps=20)
    digest(model)
    assert len(who) == 40
    assert "fastsim" in who


def test_an_error_of_an_update_reaches_the_caller(monkeypatch):
    def fails(self, *args):
        raise MemoryError("no room for the pulses")

    monkeypatch.setattr(PulsedTile, "update_rows", fails)
    use_threads(2)
    model = trained(steps=1)
    with pytest.raises(MemoryError, match="pulses"):
        model(torch.zeros(4, 24))


def test_a_copy_has_the_update_that_was_still_to_come():
    use_threads(2)
    model = trained(steps=1)
    assert digest(copy.deepcopy(model)) == digest(model)


@pytest.mark.parametrize(
    "shape", [(128, 24, 16), (96, 300, 40), (130, 20, 20), (64, 1, 16), (0, 16, 16)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_in_blocks_have_the_bits_of_whole_ones(shape, transposed):
    rows, size, outputs = shape
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(rows, size, generator=generator)
    matrix = torch.randn(size, outputs, generator=generator)
    if transposed:
        matrix = torch.randn(outputs, size, generator=generator).T
    for count in (1, 2, 4):
        use_threads(count)
        out = torch.full((rows, outputs), np.nan)
        threads.multiply(given, matrix, out)
        assert torch.equal(out, given @ matrix)
    assert torch.get_num_threads() == 1


def test_a_machine_that_adds_otherwise_in_blocks_multiplies_in_one(monkeypatch):
    monkeypatch.setattr(threads, "_multiply_blocks", lambda rows, matrix, out, n: out.fill_(1.0))
    threads._rows_are_independent.cache_clear()
    use_threads(2)
    out = torch.empty(64, 16)
    threads.multiply(torch.zeros(64, 16), torch.zeros(16, 16), out)
    threads._rows_are_independent.cache_clear()
    assert not out.any()


@pytest.mark.parametrize("flush", [False, True])
def test_denormal_numbers_are_the_same_in_every_thread(flush):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush them")
    use_threads(2)
    seen = []
    try:
        for wanted in (not flush, flush):
            torch.set_flush_denormal(wanted)
            # Not finished by us, so that the other thread does it.
            task = threads.Task(lambda: seen.append(threads._flushes_denormals()))
            task._running.acquire()
    finally:
        torch.set_flush_denormal(False)
    assert seen == [not flush, flush]


def test_there_is_at_least_one_thread():
    with pytest.raises(ValueError, match="1 thread"):
        use_threads(0)
