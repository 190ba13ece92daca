"""The hidden parameters of a fast tile, by aihwkit's names: devices, weights, buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from aihwkit.exceptions import TileError
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim.config import device_class

if TYPE_CHECKING:
    from analogtl.fastsim.simulator import FastSimulatorTile

_BOUNDS_AND_STEPS = ("max_bound", "min_bound", "dwmin_up", "dwmin_down")


def device_names(tile: FastSimulatorTile, n: int) -> list[str]:
    device, known = tile.devices[n], device_class(tile.devices[n])
    assert known is not None
    names = [*_BOUNDS_AND_STEPS, "decay_scales", "diffusion_rates", "reset_bias", "drift_nu"]
    if getattr(device, "write_noise_std", 0.0) > 0.0:
        names.append("persistent_weights")
    return [f"{name}_{n}" for name in [*names, *known.hidden, "hidden_weights"]]


def names(tile: FastSimulatorTile) -> list[str]:
    """Name the slices of `values`."""
    devices = device_names(tile, 0) + device_names(tile, 1)
    if tile.spec.dynamic:
        return [*devices, "buffered_FP_weight", "running_mean_weight", "past_mean_weight"]
    return [*devices, "buffered_FP_weight_0"]


def device_values(
    tile: FastSimulatorTile, n: int, cells: k.Array, apparent: k.Array, bias: k.Array
) -> dict[str, k.Array]:
    """Collect the hidden parameters of device ``n`` by name, ``[in, out]`` each."""
    first = k.REFERENCE if n == 0 else k.C_REFERENCE
    reference, top, bottom, up, down = (tile.get(cells, first + i) for i in range(5))
    decay, diffusion = tile.decay[n], tile.diffusion[n]
    if tile.has_more(n):
        more_up, more_down = (tile.get(tile.more(n), i) for i in range(2))
    else:  # the slopes of soft bounds follow from bounds and steps
        with np.errstate(divide="ignore", invalid="ignore"):
            more_up = np.where(top != 0.0, -up / top, np.zeros_like(top))
            more_down = np.where(bottom != 0.0, -down / bottom, np.zeros_like(top))
    device = {
        **dict(zip(_BOUNDS_AND_STEPS, (top, bottom, up, down), strict=True)),
        "decay_scales": np.ones_like(top) if decay is None else decay,
        "diffusion_rates": np.zeros_like(top) if diffusion is None else diffusion,
        "reset_bias": bias,
        "drift_nu": np.zeros_like(top),
        "persistent_weights": tile.get(cells, k.PERSISTENT),
        "reference": reference,
        "slope_up": more_up,
        "slope_down": more_down,
        "gamma_up": more_up,
        "gamma_down": more_down,
        "hidden_weights": apparent,
    }
    return {f"{name}_{n}": value for name, value in device.items()}


def stacked(names: list[str], found: dict[str, k.Array]) -> Tensor:
    """Stack what was found in the order of the names, ``[names, out, in]``."""
    chosen = (np.ascontiguousarray(found[name].T) for name in names)
    return torch.stack([torch.from_numpy(value) for value in chosen])


def values(tile: FastSimulatorTile) -> Tensor:
    """Collect devices, weights and buffer ``[names, out, in]``, A as it is now."""
    fast = tile.current_fast()
    bias = tile.reset_bias()
    weight = tile.cells.weight[:, : tile.d_size]
    found = device_values(tile, 0, fast, tile.get(fast, k.APPARENT), bias[0])
    found |= device_values(tile, 1, tile.cells.slow, weight, bias[1])
    found["buffered_FP_weight"] = found["buffered_FP_weight_0"] = tile.get(fast, k.BUFFER)
    if tile.spec.dynamic:
        found["running_mean_weight"] = tile.get(tile.cells.means, 0)
        found["past_mean_weight"] = tile.get(tile.cells.means, 1)
    return stacked(names(tile), found)


def set_values(tile: FastSimulatorTile, params: Tensor) -> None:
    """Set devices, weights and buffer from ``[names, out, in]``, exactly as given.

    Raises:
        RuntimeError: if they are of another tile.
        TileError: if they hold slopes that do not belong to soft bounds.
    """
    p = unstacked(tile, names(tile), params)
    fast = tile.cells.fast
    tile.kept_reset_bias = np.stack([p["reset_bias_0"], p["reset_bias_1"]])
    set_device_values(tile, 0, fast, p)
    set_device_values(tile, 1, tile.cells.slow, p)
    tile.put(fast, k.APPARENT, p["hidden_weights_0"])
    tile.cells.weight[:, : tile.d_size] = p["hidden_weights_1"]
    if tile.spec.dynamic:
        tile.put(fast, k.BUFFER, p["buffered_FP_weight"])
        tile.put(tile.cells.means, 0, p["running_mean_weight"])
        tile.put(tile.cells.means, 1, p["past_mean_weight"])
    else:
        tile.put(fast, k.BUFFER, p["buffered_FP_weight_0"])
    tile.ring.start[:] = tile.counts[k.SLOT]


def unstacked(tile: FastSimulatorTile, names: list[str], params: Tensor) -> dict[str, k.Array]:
    """Take ``[names, out, in]`` apart: name -> ``[in, out]``.

    Raises:
        RuntimeError: if they are of another tile.
    """
    if tuple(params.shape) != (len(names), tile.d_size, tile.x_size):
        raise RuntimeError("hidden parameters of another tile")
    return {
        name: value.detach().to(torch.float32).T.contiguous().numpy()
        for name, value in zip(names, params, strict=True)
    }


def set_device_values(
    tile: FastSimulatorTile, n: int, cells: k.Array, p: dict[str, k.Array]
) -> None:
    """Set what `device_values` collects of device ``n``, but for its apparent weights.

    Raises:
        TileError: if they hold slopes that do not belong to soft bounds.
    """
    reference = k.REFERENCE if n == 0 else k.C_REFERENCE
    for i, name in enumerate(_BOUNDS_AND_STEPS):
        tile.put(cells, reference + 1 + i, p[f"{name}_{n}"])
    if f"reference_{n}" in p:
        tile.put(cells, reference, p[f"reference_{n}"])
    if tile.has_more(n):
        kind = "gamma" if f"gamma_up_{n}" in p else "slope"
        tile.put(tile.more(n), 0, p[f"{kind}_up_{n}"])
        tile.put(tile.more(n), 1, p[f"{kind}_down_{n}"])
    elif f"slope_up_{n}" in p and not _slopes_follow(p, n):
        raise TileError("slopes of a soft-bounds device that its bounds do not give")
    if tile.decay[n] is not None:
        tile.decay[n] = p[f"decay_scales_{n}"]
    if tile.diffusion[n] is not None:
        tile.diffusion[n] = p[f"diffusion_rates_{n}"]
    persistent = p.get(f"persistent_weights_{n}", p[f"hidden_weights_{n}"])
    tile.put(cells, k.PERSISTENT, persistent)
    # Another device than the tile's own, if the mean step is further off than by its spread.
    mean = float((np.abs(p[f"dwmin_up_{n}"]) + np.abs(p[f"dwmin_down_{n}"])).mean() / 2)
    if abs(mean - tile.dw_min[n]) / tile.dw_min[n] > 2 * tile.devices[n].dw_min_dtod + 1e-5:
        tile.dw_min[n] = mean
        tile.renew_spec()


def _slopes_follow(p: dict[str, k.Array], n: int) -> bool:
    """Whether the slopes given for device ``n`` are those of soft bounds: 0 at the bounds."""
    up = p[f"slope_up_{n}"] * p[f"max_bound_{n}"] + p[f"dwmin_up_{n}"]
    down = p[f"slope_down_{n}"] * p[f"min_bound_{n}"] + p[f"dwmin_down_{n}"]
    scale = 1e-4 * float(np.abs(p[f"dwmin_up_{n}"]).max() + 1e-12)
    return bool(np.abs(up).max() <= scale and np.abs(down).max() <= scale)
