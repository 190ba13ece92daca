"""Reads of A, measured on a small tile: what drive suits a device and a number of columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from analogtl.config.arrays import Analog
from analogtl.crossbar.reads import DRIVES, best_reads, reads_at
from analogtl.crossbar.rpu_config import Pulsing, build_rpu_config
from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim import layout as k

HFO2 = Analog()


def of(preset: str, **more: object) -> Analog:
    return Analog.model_validate({"device": {"preset": f"{preset}PresetDevice"}, **more})


def test_the_more_columns_the_less_drive() -> None:
    """A column of few is read often: more pulses a vector bring as many between two reads."""
    few, many = (best_reads(HFO2, size, 48) for size in (8, 256))
    assert few.drive > many.drive
    assert many.drive <= 1.0


@pytest.mark.slow
def test_fine_devices_need_all_the_drive_there_is() -> None:
    for preset in ("EcRam", "ReRamSB", "Capacitor"):
        assert best_reads(of(preset), 32, 48).drive == DRIVES[-1], preset


def test_a_drive_that_a_read_does_not_hear_leaves_its_own_noise() -> None:
    """10,000 states at half a pulse a vector: A stays near 0, and H collects output noise."""
    reads = reads_at(of("Idealized"), 16, 48, 0.5)
    io = build_rpu_config(HFO2).device.transfer_forward
    resolution = 2 * io.out_bound * io.out_res
    # The noise is rounded to the resolution; 16 x 47 cells give the rms to 3 % (one sd).
    assert reads.noise == pytest.approx(math.hypot(io.out_noise, resolution / 12**0.5), rel=0.12)
    assert reads.snr < 0.2


def test_what_reads_bring_is_what_a_training_gets() -> None:
    """A tile of another seed, trained without and with signal: spread and mean of H as foretold."""
    in_size, out_size, count = 24, 47, 400
    reads = reads_at(HFO2, in_size, out_size, 1.0)
    config = build_rpu_config(HFO2, Pulsing(1.0, 1e9, 1), construction_seed=3)
    tile = FastTile(out_size, in_size, fast_rpu_config(config, seed=3)).tile
    tile.set_learning_rate(0.01)
    rng = np.random.default_rng(3)

    def train(correlation: float) -> np.ndarray:
        before = tile.get(tile.cells.fast, k.BUFFER).copy()
        x = rng.standard_normal((count * in_size, in_size), np.float32)
        d = rng.standard_normal((count * in_size, out_size), np.float32)
        d = math.sqrt(1 - correlation**2) * d - correlation * x[:, :1]
        tile.update_rows(torch.from_numpy(x), torch.from_numpy(d.astype(np.float32)))
        gained = tile.get(tile.cells.fast, k.BUFFER) - before
        return gained * float(tile.spec.buffer_granularity) / 0.01

    train(0.0)
    noise = train(0.0) / math.sqrt(count)
    signal = train(0.3)[0].mean() / count / 0.3
    # Two measurements on 1,100 cells and 47 cells x 400 reads; 20 % is more than 4 of their
    # standard errors (spread: 4 %; mean: noise / sqrt(47 * 400) / 0.3 = 2.5 % of the signal).
    assert np.sqrt(np.square(noise).mean()) == pytest.approx(reads.noise, rel=0.2)
    assert signal == pytest.approx(reads.signal, rel=0.2)


def test_the_same_twice() -> None:
    from analogtl.crossbar import reads

    first = reads_at(HFO2, 8, 8, 2.5)
    reads._known.clear()
    assert reads_at(HFO2, 8, 8, 2.5) == first
