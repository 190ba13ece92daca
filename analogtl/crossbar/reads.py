"""What a read of the fast array A tells about the gradient, measured on a small simulated tile.

The transfer algorithms learn from reads of single columns of A into the hidden matrix H. Between
the gradient and H stand the device (step, bounds, asymmetry, noise, spread) and the read (noise,
resolution, bounds, choppers). How strongly A is pulsed is its *drive*: ``fast_lr`` times
``update.desired_bl``, the pulses that a vector of average size sends to the cell of its largest
input and its largest gradient. Too low a drive, and H collects the noise of the reads; too high,
and A holds the last vectors only. Which is best follows from the device and from the number of
columns, as a column is read once in ``in_size`` vectors.

The tile is trained with random vectors whose gradient agrees, in a few columns, with the input.
Lines that the small tile lacks are stood in for by their largest value, which sets the pulse rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from analogtl.config.arrays import Analog
from analogtl.crossbar.rpu_config import build_rpu_config, split_drive
from analogtl.fastsim import FastTile, fast_rpu_config, layout

DRIVES = (0.5, 1.0, 2.5, 5.0, 10.0, 31.0)
CLOSE_ENOUGH = 0.9  # of the best signal to noise: less drive takes less time
MAX_COLUMNS, MAX_ROWS, TUNED = 32, 47, 4
WARM_UP, READS, MAX_VECTORS = 60, 160, 100_000
SEED, LR = 7, 0.01


class Reads(NamedTuple):
    """What reads of A bring to H at a drive; in weight units, per read of a cell.

    ``signal``: the mean, for a correlation of 1 between input and gradient (the slope at small
    ones). ``noise``: what a read adds to H at random; a sum over n reads spreads by sqrt(n) times
    this. ``loudest``: the mean where every pulse has the same direction. ``step``: of a pulse onto
    A. ``slow_step``, ``slow_range``: of C, the step and the width between its bounds.
    ``slow_noise``: of a pulse onto C, from cycle to cycle. ``erosion``: the share of a weight of C
    that a pulse takes away on average, where as many go up as down (soft bounds, linear steps).
    """

    drive: float
    signal: float
    noise: float
    loudest: float
    step: float
    slow_step: float
    slow_range: float
    slow_noise: float
    erosion: float

    @property
    def snr(self) -> float:
        """Signal to noise of one read."""
        return self.signal / self.noise if self.noise else math.inf


def best_reads(analog: Analog, in_size: int, out_size: int) -> Reads:
    """Find the smallest of ``DRIVES`` whose signal to noise is close to the best."""
    tried = [reads_at(analog, in_size, out_size, drive) for drive in DRIVES]
    best = max(reads.snr for reads in tried)
    return next(reads for reads in tried if reads.snr >= CLOSE_ENOUGH * best)


def reads_at(analog: Analog, in_size: int, out_size: int, drive: float) -> Reads:
    """Measure reads of a tile at a drive, once; the same for the same arguments."""
    key = (analog.model_dump_json(), in_size, out_size, drive)
    if key not in _known:
        _known[key] = _measured(analog, in_size, out_size, drive)
    return _known[key]


_known: dict[tuple[str, int, int, float], Reads] = {}


def _measured(analog: Analog, in_size: int, out_size: int, drive: float) -> Reads:
    tile = _Tile(analog, in_size, out_size, drive)
    count = max(40, min(READS * MAX_ROWS // tile.rows, MAX_VECTORS // in_size))
    tuned = min(TUNED, tile.columns // 2) or 1
    tile.train(WARM_UP, tuned, share=0.5)
    gained = tile.train(count, tuned, share=0.5)
    signal = -(gained[:tuned] * tile.sign).mean() / math.sqrt(0.5 / tuned)
    noise = math.sqrt(np.square(gained[tuned:]).mean() * count) if tuned < tile.columns else 0.0
    tile.train(20, 1, share=1.0)
    loudest = -(tile.train(40, 1, share=1.0)[0] * tile.sign).mean()
    spec, simulator = tile.simulator.spec, tile.simulator
    top, bottom, up, down = (
        simulator.get(simulator.cells.slow, place)
        for place in (layout.C_MAX, layout.C_MIN, layout.C_UP, layout.C_DOWN)
    )
    erosion = np.zeros_like(top)
    if spec.slow.response == layout.SOFT_BOUNDS:
        with np.errstate(divide="ignore", invalid="ignore"):
            erosion = (up / top - down / bottom) / 2
    elif spec.slow.response == layout.LINEAR and simulator.has_more(layout.C):
        slopes = (simulator.get(simulator.more(layout.C), direction) for direction in range(2))
        erosion = -(next(slopes) - next(slopes)) / 2
    return Reads(
        drive,
        float(signal),
        float(noise),
        max(float(loudest), 0.0),
        float(spec.fast.granularity),
        float(spec.slow.granularity),
        float((top - bottom).mean()),
        float(spec.slow.dw_min_std * spec.slow.granularity),
        max(0.0, float(np.median(np.nan_to_num(erosion)))),
    )


class _Tile:
    """A small tile in the place of one of ``in_size`` x ``out_size``; H keeps all that it gets."""

    def __init__(self, analog: Analog, in_size: int, out_size: int, drive: float) -> None:
        every = -(-in_size // MAX_COLUMNS)
        self.columns = max(2, round(in_size / every))
        self.rows = min(out_size, MAX_ROWS)
        self._beyond = (in_size - self.columns, out_size - self.rows)
        config = build_rpu_config(analog, construction_seed=SEED)
        config.device.fast_lr, config.update.desired_bl = split_drive(drive)
        config.device.auto_granularity = 1e9
        config.device.transfer_every *= every
        tile = FastTile(self.rows + 1, self.columns + 1, fast_rpu_config(config, seed=SEED))
        self.simulator = tile.tile
        self.simulator.set_learning_rate(LR)
        self._period = (self.columns + 1) * max(1, round(config.device.transfer_every))
        self._rng = np.random.default_rng(SEED)
        self.sign = self._rng.choice(np.array([-1, 1], np.float32), self.rows)

    def train(self, reads: int, tuned: int, *, share: float) -> NDArray[np.float64]:
        """Train for so many reads of each column; return what one of them brought, [in, out].

        The gradient's ``share`` of power goes along the inputs of the first ``tuned`` columns.
        """
        before = self._buffer()
        left = reads * self._period
        while left > 0:
            n = min(left, 2048)
            left -= n
            x = self._rng.standard_normal((n, self.columns + 1), np.float32)
            d = self._rng.standard_normal((n, self.rows + 1), np.float32)
            along = x[:, :tuned].sum(axis=1, keepdims=True) * self.sign
            d[:, :-1] *= math.sqrt(1 - share)
            d[:, :-1] += math.sqrt(share / tuned) * along
            x[:, -1], d[:, -1] = (self._largest(count, n) for count in self._beyond)
            self.simulator.update_rows(torch.from_numpy(x), torch.from_numpy(d))
        return (self._buffer() - before) / reads

    def _largest(self, among: int, n: int) -> NDArray[np.float64] | float:
        """Draw the largest of ``among`` sizes of normal numbers, ``n`` times."""
        if among <= 0:
            return 0.0
        return np.asarray(ndtri((1 + self._rng.random(n) ** (1 / among)) / 2)).clip(max=8.0)

    def _buffer(self) -> NDArray[np.float64]:
        h = self.simulator.get(self.simulator.cells.fast, layout.BUFFER)[:-1, :-1]
        spec = self.simulator.spec
        rate = float(spec.transfer_lr) * (LR if spec.scale_transfer_lr else 1.0)
        scale = float(spec.buffer_granularity) / rate
        return np.asarray(h, np.float64) * scale
