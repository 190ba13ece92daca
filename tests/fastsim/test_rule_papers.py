"""The shipped rules of 2025 and 2026, each against a statement of its paper.

One array of 20 x 20 learns a matrix: every vector is one input at a time, so that the gradient of a
cell is its own residual, as in the papers' theory. Reads and passes are perfect; devices are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aihwkit.simulator.configs.configs import UnitCellRPUConfig
from aihwkit.simulator.configs.devices import SoftBoundsDevice, SoftBoundsReferenceDevice
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.parameters.training import UpdateParameters

from analogtl.fastsim import fast_rpu_config
from analogtl.fastsim.rules import RuleCompound, RuleText, load_rule

SIZE = 20


def tile_of(file: str, device: Any, seed: int, **values: float) -> Any:
    text, perfect = RuleText.read(f"{file}.py:Rule"), IOParameters(is_perfect=True)
    single = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
    compound = RuleCompound(
        rule=text,
        values=values,
        unit_cell_devices=[device] * len(load_rule(text).array_names(values)),
        transfer_forward=perfect,
        transfer_update=single,
        construction_seed=3 + seed,
    )
    config = UnitCellRPUConfig(device=compound, forward=perfect, backward=perfect)
    made = fast_rpu_config(config, seed=seed)
    return made.tile_class(SIZE, SIZE, made).tile


def learn(tile: Any, updates: int, lr: float, target: torch.Tensor, noise: float = 0.0) -> float:
    """Learn the target; return the root mean square of what the passes see beside it."""
    generator = torch.Generator().manual_seed(int(tile.seed) % 2**31)
    tile.set_learning_rate(lr)
    for _ in range(updates):
        x = torch.eye(SIZE)[torch.randperm(SIZE, generator=generator)]
        error = tile.forward(x) - x @ target.T
        tile.update(x, error + noise * torch.randn(error.shape, generator=generator))
    return float((tile.get_weights() - target).square().mean().sqrt())


def target_of(seed: int) -> torch.Tensor:
    return (0.3 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed))).clamp(
        -0.6, 0.6
    )


@pytest.mark.slow
def test_each_array_of_residual_learning_leaves_gamma_times_the_residual():
    """arXiv 2510.02516: what is left falls geometrically with the number of arrays."""
    device = SoftBoundsDevice(dw_min=2 / 10, w_max_dtod=0.0, w_min_dtod=0.0)  # 10 states
    values = {"n_arrays": 8, "gamma": 0.5, "transfer_every": 20.0, "warm_start": 50.0}
    values |= {"transfer_lr": 0.05, "transfer_lr_growth": 1.0}
    residuals = []
    for seed in range(4):
        tile = tile_of("multi_tile_residual", device, seed, **values)
        residuals.append([learn(tile, 1000, 1.0, target_of(seed)) for _ in range(4)])
    left = np.exp(np.log(residuals).mean(0))  # after the turns of W0, W1, W2 and W3
    ratios = left[1:] / left[:-1]
    assert (np.abs(ratios - 0.5) < 0.12).all()
    # On one array of weights, with as many updates, it stays where its step leaves it.
    alone = tile_of("multi_tile_residual", device, 0, **values | {"n_arrays": 2})
    assert learn(alone, 4000, 1.0, target_of(0)) > 1.5 * left[-1]


def symmetry_points(tile: Any) -> np.ndarray[Any, Any]:
    """Where soft bounds step as far up as down, from the cells of P."""
    names = tile.get_hidden_parameter_names()
    found = dict(zip(names, tile.get_hidden_parameters().numpy(), strict=True))
    keys = ("dwmin_up", "dwmin_down", "max_bound", "min_bound", "reference")
    up, down, top, bottom, reference = (found[f"{key}_0"] for key in keys)
    point: np.ndarray[Any, Any] = (up - down) / (up / top - down / bottom) - reference
    return point


def tracked(in_chop_prob: float, seed: int) -> tuple[float, float, float, float]:
    """Root mean squares of the symmetry points, of P and of Q beside them, and of the error."""
    device = SoftBoundsReferenceDevice(
        dw_min=2 / 100, w_max=1.0, w_min=-1.0, reference_mean=-0.3, reference_std=0.2,
        subtract_symmetry_point=True,
    )  # fmt: skip
    tile = tile_of("symmetry_tracking", device, seed, in_chop_prob=in_chop_prob)
    error = learn(tile, 3000, 0.1, target_of(seed), noise=0.3)
    point = symmetry_points(tile)
    p, q = tile.weights(0) - point, tile.own("Q") - point
    size, of_p, of_q = (float(np.sqrt((values**2).mean())) for values in (point, p, q))
    return size, of_p, of_q, error


@pytest.mark.slow
def test_the_symmetry_point_is_tracked_while_training():
    """arXiv 2602.21321: Q goes to the symmetry point, nearer than P (Lemma 3.5); a chopper helps
    (Fig. 5)."""
    size, of_p, of_q, error = np.mean([tracked(0.05, seed) for seed in range(4)], axis=0)
    assert of_q < 0.6 * size
    assert of_q < 0.8 * of_p
    _, _, without, error_without = np.mean([tracked(0.0, seed) for seed in range(4)], axis=0)
    assert of_q < 0.5 * without
    assert error < 0.5 * error_without
