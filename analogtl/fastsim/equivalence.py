"""Is the fast engine the same stochastic process as aihwkit's? Both run side by side, many times.

One *case* is a configuration. A small tile with the same devices, the same start and the same
inputs is trained for a few batches on either engine, over and over; after the last batch every
quantity of every cell is compared: A and C (persistent and apparent weight) and the buffer H.
Forward and backward products are compared likewise, output by output and in sums.

aihwkit seeds its noise from the clock, so that the two sides can only be compared as distributions.
For each cell, five numbers are taken that a difference between distributions would move: the
standardised value u (the mean), u squared (the spread), and cos u, sin 2u, cos 3u (the shape). For
each of them there are two tests over all cells: the mean square of the cells' differences (any
pattern), and their plain sum (a small shift common to all cells). The repetitions are independent,
the cells are not, so that the distribution of these two under "no difference" comes from exchanging
repetitions between the engines at random.

All p-values of one call are judged together (Bonferroni): the chance that ``check`` reports a
difference although there is none is at most ``FALSE_ALARM``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from aihwkit.simulator.configs.configs import UnitCellRPUConfig
from aihwkit.simulator.tiles.analog import AnalogTile
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from analogtl.fastsim.cases import BASIC, CASES, PERIPHERIES, Case, compound_config
from analogtl.fastsim.config import fast_rpu_config
from analogtl.fastsim.spec import gammas_of
from analogtl.fastsim.tile import FastTile

FALSE_ALARM = 1e-4
REPETITIONS = 250
EXCHANGES = 200  # random exchanges of repetitions between the engines

OUT, IN = 52, 12
Array = NDArray[Any]
_QUANTITIES = {
    "persistent_weights_0": "A persistent",
    "hidden_weights_0": "A apparent",
    "buffered_FP_weight_0": "H",
    "buffered_FP_weight": "H",
    "running_mean_weight": "running mean",
    "past_mean_weight": "past mean",
    "persistent_weights_1": "C persistent",
    "hidden_weights_1": "C apparent",
    "persistent_weights": "persistent",
    "hidden_weights_chi": "chi",
    "weights": "seen by the products",
}


def check(
    cases: Iterable[str] = BASIC,
    *,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    products: bool = True,
) -> list[dict[str, Any]]:
    """Compare the engines on this machine; takes well under a minute.

    Args:
        cases: Names from ``CASES``.
        repetitions: Runs of each case on each engine.
        seed: Seed of the fast engine's runs (aihwkit's come from the clock).
        products: Whether to compare forward and backward products as well.

    Returns:
        One row per case and quantity: ``case``, ``about``, ``quantity``, ``repetitions``, ``cells``
        (that vary), ``mean_difference`` (mean over cells, in standard deviations),
        ``spread_ratio`` (standard deviation, fast / aihwkit, mean over cells), ``p_value`` (that of
        the most telling test, corrected for the number of tests in the row) and ``passed``.
    """
    rows: list[dict[str, Any]] = []
    for name in cases:
        rows += compare_updates(CASES[name], name=name, repetitions=repetitions, seed=seed)
    if products:
        rows += compare_products(repetitions=repetitions, seed=seed)
    return judged(rows)


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Judge all rows together: ``passed``."""
    for row in rows:
        row["passed"] = bool(row["p_value"] * len(rows) >= FALSE_ALARM)
    return rows


def compare_updates(
    case: Case,
    *,
    name: str = "",
    repetitions: int = REPETITIONS,
    seed: int = 0,
    alter: Callable[[FastTile], None] | None = None,
    fast: UnitCellRPUConfig | None = None,
) -> list[dict[str, Any]]:
    """Compare A, H and C after the batches of one case; rows as in ``check``, not yet judged.

    Args:
        case: What to compare.
        repetitions: Runs on each engine.
        seed: Seed of the fast engine's runs.
        alter: Makes the fast tile wrong, to see whether the comparison notices.
        fast: Configuration of the fast tile, where it is another than the case's: a rule's.
    """
    config = case.make()
    batches, weights = inputs(case)
    names = [*AnalogTile(OUT, IN, config).tile.get_hidden_parameter_names(), "weights"]
    stock_tiles = (AnalogTile(OUT, IN, config) for _ in range(repetitions))
    stock = _run(stock_tiles, batches, weights, case)
    made = fast_rpu_config(fast or config, seed=seed)
    tile = made.tile_class(OUT, IN, made)
    ours = _run(_seeded(tile, repetitions, seed, alter), batches, weights, case)
    own = tile.tile.get_hidden_parameter_names()
    if "hidden_weights_1" not in own or gammas_of(config.device) is not None:
        own = [*own, "weights"]  # which are not those of C
    return [
        {"case": name, "about": case.about, "quantity": quantity}
        | compare_samples(
            stock[:, names.index(parameter)].reshape(repetitions, -1),
            ours[:, own.index(parameter if parameter in own else quantity)].reshape(
                repetitions, -1
            ),
            seed=seed,
        )
        for parameter, quantity in _QUANTITIES.items()
        if parameter in names and {parameter, quantity} & set(own)  # a rule has names of its own
    ]


def compare_products(
    *,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    alter: Callable[[FastTile], None] | None = None,
) -> list[dict[str, Any]]:
    """Compare forward and backward products, among them some that need bound management.

    Every product is computed twice. Beside the outputs themselves, their sum over both calls and
    their sum over the vectors are compared: noise that repeated would add up there, though each
    output by itself would look right. aihwkit draws its noise from a list of numbers of its own for
    each tile, so that every repetition takes a new one.
    """
    rows = []
    generator = torch.Generator().manual_seed(3)
    weights = 0.3 * torch.randn(OUT, IN, generator=generator)
    vectors = {
        "forward": torch.randn(8, IN, generator=generator),
        "backward": torch.randn(8, OUT, generator=generator),
    }
    for about, io in PERIPHERIES.items():
        config = compound_config()
        config.forward = config.backward = io
        tile = FastTile(OUT, IN, fast_rpu_config(config, seed=seed))
        tile.tile.set_weights(weights)
        results: dict[tuple[str, str], list[Array]] = {}
        for fast in _seeded(tile, repetitions, seed, alter):
            stock = AnalogTile(OUT, IN, config)
            stock.tile.set_weights(weights)
            for engine, either in (("stock", stock), ("fast", fast)):
                for direction, given in vectors.items():
                    first, second = (
                        getattr(either.tile, direction)(given, False).numpy() for _ in range(2)
                    )
                    parts = (first.ravel(), (first + second).ravel(), first.sum(0))
                    results.setdefault((engine, direction), []).append(np.concatenate(parts))
        for direction in vectors:
            a, b = (np.stack(results[engine, direction]) for engine in ("stock", "fast"))
            row = {"case": "products", "about": about, "quantity": direction}
            rows.append(row | compare_samples(a, b, seed=seed))
    return rows


def compare_samples(a: Array, b: Array, *, seed: int = 0) -> dict[str, Any]:
    """Compare two samples of vectors, ``a`` and ``b`` [repetitions, cells].

    Repetitions are independent, cells need not be.
    """
    n = len(a)
    both = np.concatenate([a, b]).astype(np.float64)
    varies = both.std(0) > 1e-6  # beyond what the order of additions makes
    if not varies.any():
        same = {"mean_difference": 0.0, "spread_ratio": 1.0, "p_value": 1.0}
        return {"repetitions": n, "cells": 0} | same
    a, b, both = a[:, varies], b[:, varies], both[:, varies]
    rng = np.random.default_rng(seed)
    signs = np.concatenate([np.ones(n), -np.ones(n)]) / n
    exchanged = np.stack([signs, *(rng.permutation(signs) for _ in range(EXCHANGES))])
    p_values = []
    u = (both - both.mean(0)) / both.std(0)
    for feature in (u, u * u, np.cos(u), np.sin(2 * u), np.cos(3 * u)):
        spread = feature.std(0)
        usable = spread > 1e-9
        if usable.any():
            z = exchanged @ (feature[:, usable] / spread[usable]) / np.sqrt(2.0 / n)
            squares, sums = (z**2).mean(1), z.sum(1)
            of_sum = float(2 * stats.norm.sf(abs(sums[0]) / sums[1:].std(ddof=1)))
            p_values += [_gamma_tail(squares[0], squares[1:]), of_sum]
    spread_a, spread_b = a.std(0), b.std(0)
    usual = (spread_a > 0) & (spread_b > 0)
    ratio = np.exp(np.log(spread_b[usual] / spread_a[usual]).mean()) if usual.any() else 1.0
    return {
        "repetitions": n,
        "cells": int(varies.sum()),
        "mean_difference": float(((b.mean(0) - a.mean(0)) / both.std(0)).mean()),
        "spread_ratio": float(ratio),
        "p_value": float(min(1.0, min(p_values) * len(p_values))),
    }


def _gamma_tail(value: float, null: Array) -> float:
    """P(a gamma variable with the mean and variance of ``null`` exceeds ``value``)."""
    mean, variance = null.mean(), null.var(ddof=1)
    return float(stats.gamma.sf(value, mean**2 / variance, scale=variance / mean))


def inputs(case: Case) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Draw batches of inputs and gradients, some vectors zero, and the weights at the start."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(case.batches):
        x = torch.randn(case.vectors, IN, generator=generator)
        d = torch.randn(case.vectors, OUT, generator=generator)
        size = torch.exp(0.7 * torch.randn(case.vectors, 1, generator=generator))
        batches.append((x.sign(), d.sign()) if case.signs else (x, d * size))
    (first_x, first_d), (last_x, last_d) = batches[0], batches[-1]
    first_x[3], first_d[5], last_x[7], last_d[7] = 0.0, 0.0, 0.0, 0.0
    return batches, 0.2 * torch.randn(OUT, IN, generator=generator)


def _seeded(
    tile: FastTile, repetitions: int, seed: int, alter: Callable[[FastTile], None] | None
) -> Iterator[FastTile]:
    """Yield the tile at its start, with another seed each time, altered if asked."""
    start = tile.tile.state()
    for own in np.random.default_rng(seed).integers(0, 2**63, repetitions):
        tile.tile.load_state(start | {"seed": str(own)})
        if alter is not None:
            alter(tile)
        yield tile


def _run(
    tiles: Iterable[Any], batches: list[tuple[Tensor, Tensor]], weights: Tensor, case: Case
) -> Array:
    """Train each tile on the batches: hidden parameters, weights [tiles, names + 1, out, in]."""
    results = []
    for tile in tiles:
        tile.tile.set_learning_rate(case.lr)
        tile.tile.set_weights(weights)
        for x, d in batches:
            tile.tile.update(x, d, False)
            if case.ageing:
                tile.tile.decay_weights(1.0)
                tile.tile.diffuse_weights()
        hidden, weights_now = tile.tile.get_hidden_parameters(), tile.tile.get_weights()
        results.append(torch.cat([hidden, weights_now[None]]).numpy())
    return np.stack(results)
