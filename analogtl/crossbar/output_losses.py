"""What conversion loses: outputs of layers and of the network, on arrays and digital, by cause.

Everything is a correlation over one batch: the cosine between the outputs on arrays and the digital
ones, each output less its mean, so that a bias adds nothing. 1 is the same up to scale, 0 nothing
left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from analogtl.crossbar.convert import analog_layers, analog_tiles
from analogtl.fastsim import FastTile

MIN_KEPT = 0.7  # of the network's outputs: below, it is worth a warning
_INF, _NONE = np.float32(np.inf), np.float32(0.0)
# Cause -> the numbers of the forward periphery without it.
_WITHOUT: dict[str, dict[str, Any]] = {
    "noise": {"out_noise": _NONE, "inp_noise": _NONE},
    "resolution": {"out_res": _NONE, "inp_res": _NONE},
    "bounds": {"out_bound": _INF, "inp_bound": _INF},
}
_ALONE: dict[str, dict[str, Any]] = {
    "all": {},
    "programming": {"is_perfect": True},
    **{
        cause: {k: v for other, off in _WITHOUT.items() if other != cause for k, v in off.items()}
        for cause in _WITHOUT
    },
}
_KEYS = {
    "noise": "a lower analog.forward.out_noise",
    "resolution": "a finer analog.forward.out_res and inp_res",
    "bounds": "a larger analog.forward.out_bound",
    "programming": "analog.mapping.weight_scaling_omega nearer to 1, or a device of wider bounds",
}


class Kept(NamedTuple):
    """Correlation with the digital outputs: as it is, and with one cause alone.

    ``programming``: of the weights, with a perfect forward pass. The others: with a forward pass
    that has this one imperfection, on the weights as programmed.
    """

    all: float
    programming: float
    noise: float
    resolution: float
    bounds: float

    def row(self) -> dict[str, float]:
        """Make the columns of ``layers.csv``."""
        return {f"kept_{cause}": value for cause, value in self._asdict().items()}


class OutputLosses(NamedTuple):
    """What is kept of the outputs: by layer, on the digital network's inputs, and of the network.

    ``helps``: the cause without which the network keeps most, and how much that is.
    """

    layers: dict[str, Kept]
    network: float
    helps: tuple[str, float]

    def warning(self) -> str:
        """Say that the features are gone, and what would help most; "" if they are there."""
        if self.network >= MIN_KEPT:
            return ""
        cause, kept = self.helps
        return (
            f"conversion keeps little of what the network computes: its outputs correlate "
            f"{self.network:.2f} with the digital ones, {kept:.2f} without loss by {cause}; "
            f"{_KEYS[cause]} would help most"
        )


def output_losses(digital: nn.Module, converted: nn.Module, batch: Tensor) -> OutputLosses | None:
    """Compare a network on arrays with the digital one, on a batch of images (B, C, H, W).

    Neither is changed, nor their random streams. None unless all arrays are on the fast engine.
    """
    tiles = list(analog_tiles(converted))
    if not all(isinstance(tile, FastTile) for tile in tiles):
        return None
    counts = [tile.tile.counts.copy() for tile in tiles]
    modes = [(model, model.training) for model in (digital, converted)]
    try:
        with torch.no_grad():
            return _compare(digital.eval(), converted.eval(), batch)
    finally:
        for model, mode in modes:
            model.train(mode)
        for tile, before in zip(tiles, counts, strict=True):
            tile.tile.counts[:] = before


def _compare(digital: nn.Module, converted: nn.Module, batch: Tensor) -> OutputLosses:
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    arrays = analog_layers(converted)

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = inputs[0].detach(), output.detach()

        return hook

    handles = [digital.get_submodule(n).register_forward_hook(keep(n)) for n in arrays]
    try:
        right = digital(batch)
    finally:
        for handle in handles:
            handle.remove()

    layers = {}
    for name, layer in arrays.items():
        if name in seen:
            x, y = seen[name]
            dim = -1 if isinstance(digital.get_submodule(name), nn.Linear) else 1
            kept = {}
            for cause, changes in _ALONE.items():
                with _periphery(layer, changes):
                    kept[cause] = _agreement(layer(x), y, dim)
            layers[name] = Kept(**kept)
    network = _agreement(converted(batch), right)
    without = {}
    for cause, changes in {**_WITHOUT, "programming": _ALONE["programming"]}.items():
        with _periphery(converted, changes):
            without[cause] = _agreement(converted(batch), right)
    # A perfect forward pass leaves what programming costs; without programming's loss all is kept.
    without["programming"] = 1.0 - max(0.0, without["programming"] - network)
    helps = max(without, key=lambda cause: without[cause])
    return OutputLosses(layers, network, (helps, without[helps]))


@contextlib.contextmanager
def _periphery(model: nn.Module, changes: Mapping[str, Any]) -> Iterator[None]:
    """Change numbers of the forward periphery of all tiles, for a while."""
    simulators = [tile.tile for tile in analog_tiles(model)]
    before = [simulator.forward_io for simulator in simulators]
    for simulator in simulators:
        simulator.forward_io = simulator.forward_io._replace(**changes)
    try:
        yield
    finally:
        for simulator, io in zip(simulators, before, strict=True):
            simulator.forward_io = io


def _agreement(found: Tensor, right: Tensor, dim: int = -1) -> float:
    """Correlate outputs with the digital ones, each output (``dim``) less its mean."""
    pairs = []
    for outputs in (found, right):
        flat = outputs.movedim(dim, -1).reshape(-1, outputs.shape[dim]).double()
        pairs.append(flat - flat.mean(dim=0))
    size = float(pairs[0].norm() * pairs[1].norm())
    return float((pairs[0] * pairs[1]).sum()) / size if size > 0 else 0.0
