"""Is the fast engine the same stochastic process as aihwkit's? Both run side by side, many times.

One *case* is a configuration. A small tile with the same devices, the same start and the same
inputs is trained for a few batches on either engine, over and over; after the last batch every
quantity of every cell is compared: A and C (persistent and apparent weight) and the buffer H.
Forward and backward products are compared likewise, output by output.

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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from aihwkit.simulator.configs.compounds import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
)
from aihwkit.simulator.configs.configs import UnitCellRPUConfig
from aihwkit.simulator.configs.devices import SoftBoundsDevice
from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.parameters.training import UpdateParameters
from aihwkit.simulator.presets.devices import (
    ReRamArrayHfO2PresetDevice,
    ReRamArrayOMPresetDevice,
    ReRamSBPresetDevice,
)
from aihwkit.simulator.presets.utils import PresetIOParameters, PresetUpdateParameters
from aihwkit.simulator.tiles.analog import AnalogTile
from scipy import stats

from analogtl.fastsim import FastTile, fast_rpu_config

FALSE_ALARM = 1e-4
REPETITIONS = 250
EXCHANGES = 200  # random exchanges of repetitions between the engines

OUT, IN, BATCHES, VECTORS = 52, 12, 6, 40
_QUANTITIES = {
    "persistent_weights_0": "A persistent",
    "hidden_weights_0": "A apparent",
    "buffered_FP_weight_0": "H",
    "buffered_FP_weight": "H",
    "running_mean_weight": "running mean",
    "past_mean_weight": "past mean",
    "persistent_weights_1": "C persistent",
    "hidden_weights_1": "C apparent",
}


@dataclass(frozen=True)
class Case:
    """A configuration to compare.

    Attributes:
        about: What it tests.
        make: Makes the configuration.
        lr: The learning rate.
        batches: Number of calls of the update.
        vectors: Input vectors in a call.
        signs: Whether all inputs and gradients are 1 or -1. Every vector then pulses every cell,
            and what varies is the noise alone.
    """

    about: str
    make: Callable[[], Any]
    lr: float = 0.1
    batches: int = BATCHES
    vectors: int = VECTORS
    signs: bool = False


def compound_config(
    device: Any = ReRamArrayHfO2PresetDevice,
    slow_device: Any = None,
    compound: Any = ChoppedTransferCompound,
    update: UpdateParameters | None = None,
    transfer_update: UpdateParameters | None = None,
    write_noise_on_set: bool = False,
    **settings: Any,
) -> UnitCellRPUConfig:
    """A c-TTv2 configuration with preset periphery in which the weights of C move often.

    Args:
        device: Device class of both arrays, or of A.
        slow_device: Device class of C, if it is another.
        compound: Compound class.
        update: Pulse trains onto A (default: up to 5 pulses).
        transfer_update: Pulse trains onto C (default: one pulse).
        write_noise_on_set: The devices' ``apply_write_noise_on_set``.
        **settings: Parameters of the compound.
    """
    values: dict[str, Any] = {"transfer_every": 1.0, "fast_lr": 0.1, "transfer_lr": 10.0}
    if compound is not BufferedTransferCompound:
        values |= {"in_chop_prob": 0.1, "auto_scale": True, "units_in_mbatch": False}
    values |= {"transfer_forward": PresetIOParameters()} | settings
    devices = [
        make(apply_write_noise_on_set=write_noise_on_set)
        for make in (device, slow_device or device)
    ]
    single = PresetUpdateParameters(
        desired_bl=1, update_bl_management=False, update_management=False
    )
    return UnitCellRPUConfig(
        device=compound(
            unit_cell_devices=devices,
            construction_seed=97,
            transfer_update=transfer_update or single,
            **values,
        ),
        forward=PresetIOParameters(),
        backward=PresetIOParameters(),
        update=update or PresetUpdateParameters(desired_bl=5),
    )


def _soft_bounds(**values: Any) -> SoftBoundsDevice:
    return SoftBoundsDevice(dw_min=0.05, write_noise_std=0.5, **values)


def _additive(**values: Any) -> SoftBoundsDevice:
    return _soft_bounds(mult_noise=False, **values)


def _quiet(**values: Any) -> SoftBoundsDevice:
    return SoftBoundsDevice(dw_min=0.05, dw_min_std=0.01, mult_noise=False, **values)


def _certain_pulses(device: Any, **settings: Any) -> UnitCellRPUConfig:
    """Vectors of 1 and -1 give every cell one pulse each (but for one in a thousand)."""
    devices = device(), settings.get("slow_device", device)()
    rate = 0.999 * (devices[0].dw_min + devices[1].dw_min) / 2
    return compound_config(device, auto_scale=False, fast_lr=rate, in_chop_prob=0.0, **settings)


CASES: dict[str, Case] = {
    "HfO2": Case("c-TTv2 as in the paper, HfO2", compound_config),
    "OM": Case("the same, OM device", lambda: compound_config(ReRamArrayOMPresetDevice)),
    "SB": Case(
        "the same, SB device (many small steps, no write noise)",
        lambda: compound_config(ReRamSBPresetDevice, fast_lr=0.5, transfer_lr=0.05),
    ),
    "choppers": Case(
        "regular input choppers, output choppers",
        lambda: compound_config(in_chop_prob=0.4, in_chop_random=False, out_chop_prob=0.3),
    ),
    "transfer_bl": Case(
        "up to 5 pulses onto C, buffer kept, momentum",
        lambda: compound_config(
            transfer_update=PresetUpdateParameters(desired_bl=5),
            transfer_lr=20.0,
            forget_buffer=False,
            momentum=0.3,
        ),
    ),
    "every": Case(
        "a read every 3 vectors, multiplicative noise, buffer with momentum",
        lambda: compound_config(_soft_bounds, transfer_every=3, momentum=0.2, fast_lr=0.5),
    ),
    "AGAD": Case(
        "DynamicTransferCompound",
        lambda: compound_config(
            compound=DynamicTransferCompound, in_chop_prob=0.4, transfer_lr=20.0
        ),
    ),
    "TTv2": Case(
        "BufferedTransferCompound",
        lambda: compound_config(
            compound=BufferedTransferCompound, units_in_mbatch=False, fast_lr=0.5
        ),
        lr=0.3,
    ),
    "noise": Case(
        "pulse and write noise of A, with certain pulses",
        lambda: _certain_pulses(ReRamArrayHfO2PresetDevice, transfer_lr=0.01),
        signs=True,
    ),
    "slow_noise": Case(
        "pulse and write noise of C, which is another device than A, after perfect reads",
        lambda: _certain_pulses(
            _quiet,
            slow_device=ReRamArrayHfO2PresetDevice,
            transfer_lr=1e3,
            transfer_forward=IOParameters(is_perfect=True),
        ),
        signs=True,
    ),
    "read_noise": Case(
        "noise of the read, with certain pulses and little other noise",
        lambda: _certain_pulses(_quiet, slow_device=ReRamArrayHfO2PresetDevice, transfer_lr=1e-3),
        signs=True,
    ),
    # options of the update onto A
    "plain_lr": Case(
        "no auto_scale, the SGD learning rate on A",
        lambda: compound_config(auto_scale=False, fast_lr=0.0),
    ),
    "mbatch": Case(
        "transfer_every in mini-batches",
        lambda: compound_config(transfer_every=0.1, units_in_mbatch=True, transfer_lr=20.0),
    ),
    "magnitudes": Case(
        "correct_gradient_magnitudes, auto_granularity",
        lambda: compound_config(
            correct_gradient_magnitudes=True, auto_granularity=100, transfer_lr=1.0
        ),
    ),
    "no_buffer": Case("no_buffer", lambda: compound_config(no_buffer=True, transfer_lr=20.0)),
    "long_trains": Case(
        "long pulse trains, some at their limit",
        lambda: compound_config(
            _additive,
            fast_lr=0.8,
            update=PresetUpdateParameters(desired_bl=31),
            transfer_lr=0.5,
        ),
    ),
    "rare_reads": Case(
        "so many pulses between two reads that the history must be cleared in between",
        lambda: compound_config(
            _additive,
            fast_lr=0.8,
            update=PresetUpdateParameters(desired_bl=31),
            transfer_every=10,
            transfer_lr=1.0,
        ),
    ),
    "one_call": Case("all vectors in one call", compound_config, batches=1, vectors=1100),
    "fixed_trains": Case(
        "no update management, trains of free length",
        lambda: compound_config(
            _additive,
            auto_scale=False,
            transfer_lr=0.5,
            fast_lr=0.06,
            update=UpdateParameters(
                desired_bl=3, update_bl_management=False, update_management=False, fixed_bl=False
            ),
        ),
    ),
    "resolution": Case(
        "discretised pulse probabilities, stochastic rounding, gradient scale",
        lambda: compound_config(
            update=UpdateParameters(
                desired_bl=7,
                res=0.15,
                sto_round=True,
                um_grad_scale=0.6,
                update_bl_management=False,
            )
        ),
    ),
    "transfer_train": Case(
        "pulse trains of 4 onto C without management, steps of 0.7",
        lambda: compound_config(
            transfer_update=UpdateParameters(
                desired_bl=4, update_bl_management=False, update_management=False
            ),
            transfer_lr=20.0,
            step=0.7,
        ),
    ),
    "write_on_set": Case(
        "write noise when weights are set", lambda: compound_config(write_noise_on_set=True)
    ),
    "AGAD_random": Case(
        "DynamicTransferCompound, random choppers, buffer kept and capped",
        lambda: compound_config(
            compound=DynamicTransferCompound,
            in_chop_prob=0.3,
            in_chop_random=True,
            forget_buffer=False,
            buffer_cap=0.5,
            transfer_lr=20.0,
            experimental_correct_accumulation=True,
        ),
    ),
    "perfect_read": Case(
        "a perfect read of A, output choppers at random",
        lambda: compound_config(
            out_chop_prob=0.5, transfer_forward=IOParameters(is_perfect=True, out_scale=0.7)
        ),
    ),
}
_PERIPHERIES = {
    "preset converters": PresetIOParameters(),
    "bound management": PresetIOParameters(out_bound=1.5, out_noise=0.05),
    "input noise, no output converter": IOParameters(inp_noise=0.05, out_res=-1.0, out_bound=0.0),
    "constant scale that clips": IOParameters(
        noise_management=NoiseManagementType.CONSTANT,
        nm_thres=1.5,
        bound_management=BoundManagementType.NONE,
    ),
}
BASIC = (
    "HfO2",
    "OM",
    "SB",
    "choppers",
    "transfer_bl",
    "AGAD",
    "TTv2",
    "noise",
    "slow_noise",
    "read_noise",
)
"""The cases that ``check`` runs unless told otherwise."""


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
    reverse: bool = False,
) -> list[dict[str, Any]]:
    """Compare A, H and C after the batches of one case; rows as in ``check``, not yet judged.

    Args:
        case: What to compare.
        name: The rows' ``case``.
        repetitions: Runs on each engine.
        seed: Seed of the fast engine's runs.
        alter: Makes the fast tile wrong, to see whether the comparison notices.
        reverse: Whether to give each batch to the fast engine in reverse order, likewise.
    """
    config = case.make()
    xs, ds, weights = _inputs(case)
    stock, names = _run_stock(config, xs, ds, weights, case.lr, repetitions)
    if reverse:
        xs, ds = [x.flip(0) for x in xs], [d.flip(0) for d in ds]
    fast = _run_fast(config, xs, ds, weights, case.lr, repetitions, seed, alter)
    rows = []
    for i, parameter in enumerate(names):
        a, b = stock[:, i].reshape(repetitions, -1), fast[:, i].reshape(repetitions, -1)
        if parameter in _QUANTITIES:
            row = {"case": name, "about": case.about, "quantity": _QUANTITIES[parameter]}
            rows.append(row | compare_samples(a, b, seed=seed))
    return rows


def compare_products(
    *,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    alter: Callable[[FastTile], None] | None = None,
) -> list[dict[str, Any]]:
    """Compare forward and backward products, among them some that need bound management.

    aihwkit draws its noise from a list of numbers of its own for each tile, so that every
    repetition takes a new one.
    """
    rows = []
    generator = torch.Generator().manual_seed(3)
    weights = 0.3 * torch.randn(OUT, IN, generator=generator)
    vectors = {
        "forward": torch.randn(8, IN, generator=generator),
        "backward": torch.randn(8, OUT, generator=generator),
    }
    seeds = np.random.default_rng(seed).integers(0, 2**63, repetitions)
    for about, io in _PERIPHERIES.items():
        config = compound_config()
        config.forward = config.backward = io
        fast = FastTile(OUT, IN, fast_rpu_config(config, seed=seed))
        fast.tile.set_weights(weights)
        start = fast.tile.state()
        results: dict[tuple[str, str], list[np.ndarray]] = {}
        for own in seeds:
            stock = AnalogTile(OUT, IN, config)
            stock.tile.set_weights(weights)
            fast.tile.load_state(start | {"seed": str(own)})
            if alter is not None:
                alter(fast)
            for engine, tile in (("stock", stock), ("fast", fast)):
                for direction, given in vectors.items():
                    out = getattr(tile.tile, direction)(given, False)
                    results.setdefault((engine, direction), []).append(out.numpy().ravel())
        for direction in vectors:
            a, b = (np.stack(results[engine, direction]) for engine in ("stock", "fast"))
            row = {"case": "products", "about": about, "quantity": direction}
            rows.append(row | compare_samples(a, b, seed=seed))
    return rows


def compare_samples(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Compare two samples of vectors, ``a`` and ``b`` [repetitions, cells].

    Repetitions are independent, cells need not be.
    """
    n = len(a)
    both = np.concatenate([a, b]).astype(np.float64)
    varies = both.std(0) > 1e-7
    fixed = both[:, ~varies]
    if fixed.size and np.abs(fixed[0] - fixed).max() > 1e-6:
        raise AssertionError("a cell that does not vary differs")  # pragma: no cover
    both = both[:, varies]
    rng = np.random.default_rng(seed)
    signs = np.concatenate([np.ones(n), -np.ones(n)]) / n
    exchanged = np.stack([signs, *(rng.permutation(signs) for _ in range(EXCHANGES))])
    smallest, tests = 1.0, 0
    if both.size:
        u = (both - both.mean(0)) / both.std(0)
        for feature in (u, u * u, np.cos(u), np.sin(2 * u), np.cos(3 * u)):
            spread = feature.std(0)
            usable = spread > 1e-9
            if not usable.any():
                continue
            z = exchanged @ (feature[:, usable] / spread[usable]) / np.sqrt(2.0 / n)
            squares, sums = (z**2).mean(1), z.sum(1)
            smallest = min(smallest, _gamma_tail(squares[0], squares[1:]))
            smallest = min(smallest, _normal_tail(sums[0], sums[1:]))
            tests += 2
    spread_a, spread_b = a[:, varies].std(0), b[:, varies].std(0)
    usual = (spread_a > 0) & (spread_b > 0)
    shift = (b[:, varies].mean(0) - a[:, varies].mean(0)) / (both.std(0) if both.size else 1.0)
    return {
        "repetitions": n,
        "cells": int(varies.sum()),
        "mean_difference": float(shift.mean()) if both.size else 0.0,
        "spread_ratio": float(np.exp(np.log(spread_b[usual] / spread_a[usual]).mean()))
        if usual.any()
        else 1.0,
        "p_value": float(min(1.0, smallest * max(tests, 1))),
    }


def _gamma_tail(value: float, null: np.ndarray) -> float:
    """P(a gamma variable with the mean and variance of ``null`` exceeds ``value``)."""
    mean, variance = null.mean(), null.var(ddof=1)
    return float(stats.gamma.sf(value, mean**2 / variance, scale=variance / mean))


def _normal_tail(value: float, null: np.ndarray) -> float:
    return float(2 * stats.norm.sf(abs(value) / null.std(ddof=1)))


def _inputs(case: Case) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Batches of inputs and gradients, some vectors zero, and the weights at the start."""
    generator = torch.Generator().manual_seed(1)
    xs, ds = [], []
    for _ in range(case.batches):
        x = torch.randn(case.vectors, IN, generator=generator)
        d = torch.randn(case.vectors, OUT, generator=generator)
        size = torch.exp(0.7 * torch.randn(case.vectors, 1, generator=generator))
        xs.append(x.sign() if case.signs else x)
        ds.append(d.sign() if case.signs else d * size)
    xs[0][3], ds[0][5], xs[-1][7], ds[-1][7] = 0.0, 0.0, 0.0, 0.0
    return xs, ds, 0.2 * torch.randn(OUT, IN, generator=generator)


def _run_stock(
    config: Any, xs: list[Any], ds: list[Any], weights: torch.Tensor, lr: float, repetitions: int
) -> tuple[np.ndarray, list[str]]:
    results, names = [], []
    for _ in range(repetitions):
        tile = AnalogTile(OUT, IN, config)  # kept: the C++ tile lives in its memory
        tile.tile.set_learning_rate(lr)
        tile.tile.set_weights(weights)
        for x, d in zip(xs, ds, strict=True):
            tile.tile.update(x, d, False)
        results.append(tile.tile.get_hidden_parameters().numpy())
        names = tile.tile.get_hidden_parameter_names()
    return np.stack(results), names


def _run_fast(
    config: Any,
    xs: list[Any],
    ds: list[Any],
    weights: torch.Tensor,
    lr: float,
    repetitions: int,
    seed: int,
    alter: Callable[[FastTile], None] | None,
) -> np.ndarray:
    tile = FastTile(OUT, IN, fast_rpu_config(config, seed=seed))
    tile.tile.set_learning_rate(lr)
    start = tile.tile.state()
    seeds = np.random.default_rng(seed).integers(0, 2**63, repetitions)
    results = []
    for own in seeds:
        tile.tile.load_state(start | {"seed": str(own)})
        if alter is not None:
            alter(tile)
        tile.tile.set_weights(weights)
        for x, d in zip(xs, ds, strict=True):
            tile.tile.update(x, d)
        results.append(tile.tile.get_hidden_parameters().numpy())
    return np.stack(results)
