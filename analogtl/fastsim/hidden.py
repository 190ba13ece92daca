"""The hidden parameters of a fast tile, by aihwkit's names: devices, weights, buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim.spec import device_class

if TYPE_CHECKING:
    from analogtl.fastsim.arrays import ArraysTile

_BOUNDS_AND_STEPS = ("max_bound", "min_bound", "dwmin_up", "dwmin_down")


def _suffix(tile: ArraysTile, n: int) -> str:
    """How the names of device ``n`` end: by its number, where there are two."""
    return f"_{n}" if len(tile.devices) > 1 else ""


def _device_names(tile: ArraysTile, n: int) -> list[str]:
    device, known = tile.devices[n], device_class(tile.devices[n])
    assert known is not None
    names = [*_BOUNDS_AND_STEPS, "decay_scales", "diffusion_rates", "reset_bias", "drift_nu"]
    if getattr(device, "write_noise_std", 0.0) > 0.0:
        names.append("persistent_weights")
    weights = ["hidden_weights"] if len(tile.devices) > 1 else []  # else the tile's own weights
    return [f"{name}{_suffix(tile, n)}" for name in [*names, *known.hidden, *weights]]


def names(tile: ArraysTile) -> list[str]:
    """Name the slices of `values`."""
    devices = [name for n in tile.devices for name in _device_names(tile, n)]
    return [*devices, *tile.hidden_arrays()]


def values(tile: ArraysTile) -> Tensor:
    """Collect devices, weights and buffer ``[names, out, in]``, A as it is now."""
    found: dict[str, Any] = {}
    bias = tile.reset_bias()
    for n in tile.devices:
        cells = tile.current(n)
        reference, top, bottom, up, down = (
            tile.get(cells, k.REFERENCES[min(n, k.C)] + i) for i in range(5)
        )
        decay, diffusion = tile.decay.get(n), tile.diffusion.get(n)
        if tile.has_more(n):
            more_up, more_down = (tile.get(tile.more(n), i) for i in range(2))
        else:  # the slopes of soft bounds follow from bounds and steps
            more_up, more_down = np.zeros_like(top), np.zeros_like(top)
            np.divide(-up, top, out=more_up, where=top != 0.0)
            np.divide(-down, bottom, out=more_down, where=bottom != 0.0)
        device = {
            **dict(zip(_BOUNDS_AND_STEPS, (top, bottom, up, down), strict=True)),
            "decay_scales": np.float32(1.0) if decay is None else decay,
            "diffusion_rates": np.float32(0.0) if diffusion is None else diffusion,
            "reset_bias": bias[n],
            "drift_nu": np.float32(0.0),
            "persistent_weights": tile.get(cells, k.PERSISTENT),
            "reference": reference,
            "slope_up": more_up,
            "slope_down": more_down,
            "gamma_up": more_up,
            "gamma_down": more_down,
            "hidden_weights": tile.apparent(n, cells),
        }
        found |= {f"{name}{_suffix(tile, n)}": value for name, value in device.items()}
    found |= tile.hidden_arrays()
    own = names(tile)
    chosen = np.empty((len(own), tile.d_size, tile.x_size), np.float32)
    for place, name in zip(chosen, own, strict=True):
        place[...] = found[name].T
    return torch.from_numpy(chosen)


def set_values(tile: ArraysTile, params: Tensor) -> None:
    """Set devices, weights and buffer from ``[names, out, in]``, exactly as given.

    Raises:
        RuntimeError: if they are of another tile.
        TileError: if they hold slopes that do not belong to soft bounds.
    """
    own = names(tile)
    if tuple(params.shape) != (len(own), tile.d_size, tile.x_size):
        raise RuntimeError("hidden parameters of another tile")
    given = {
        name: value.detach().to(torch.float32).T.contiguous().numpy()
        for name, value in zip(own, params, strict=True)
    }
    tile.kept_reset_bias = np.stack([given[f"reset_bias{_suffix(tile, n)}"] for n in tile.devices])
    for n, device in tile.devices.items():
        end = _suffix(tile, n)
        p = {name.removesuffix(end): given[name] for name in _device_names(tile, n)}
        cells = tile.cells_of(n)
        for i, name in enumerate(_BOUNDS_AND_STEPS):
            tile.put(cells, k.REFERENCES[min(n, k.C)] + 1 + i, p[name])
        if "reference" in p:
            tile.put(cells, k.REFERENCES[min(n, k.C)], p["reference"])
        if tile.has_more(n):
            kind = "gamma" if "gamma_up" in p else "slope"
            tile.put(tile.more(n), 0, p[f"{kind}_up"])
            tile.put(tile.more(n), 1, p[f"{kind}_down"])
        elif "slope_up" in p and not _slopes_follow(p):
            raise TileError("slopes of a soft-bounds device that its bounds do not give")
        if n in tile.decay:
            tile.decay[n] = p["decay_scales"]
        if n in tile.diffusion:
            tile.diffusion[n] = p["diffusion_rates"]
        persistent = p.get("persistent_weights", p.get("hidden_weights"))
        if persistent is not None:
            tile.put(cells, k.PERSISTENT, persistent)
        if "hidden_weights" in p:
            tile.put_apparent(n, p["hidden_weights"])
        # Another device than the tile's own, if the mean step is further off than by its spread.
        mean = float((np.abs(p["dwmin_up"]) + np.abs(p["dwmin_down"])).mean() / 2)
        if abs(mean - tile.dw_min[n]) / tile.dw_min[n] > 2 * device.dw_min_dtod + 1e-5:
            tile.dw_min[n] = mean
            tile.renew_spec()
    tile.set_hidden_arrays({name: given[name] for name in tile.hidden_arrays()})


def _slopes_follow(p: dict[str, k.Array]) -> bool:
    """Whether a device's slopes are those of soft bounds: 0 at the bounds."""
    up = p["slope_up"] * p["max_bound"] + p["dwmin_up"]
    down = p["slope_down"] * p["min_bound"] + p["dwmin_down"]
    scale = 1e-4 * float(np.abs(p["dwmin_up"]).max() + 1e-12)
    return bool(np.abs(up).max() <= scale and np.abs(down).max() <= scale)
