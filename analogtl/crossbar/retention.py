"""Arrays that are left alone after training: drift, retention and read noise, and what undoes it.

aihwkit's models turn the weights of a tile into conductances, let these drift, and turn them back;
the forward pass is the experiment's own, with its noise and resolution. A weight that has drifted
is where it is: it is not cut at the bounds that pulses cannot take it beyond.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from aihwkit import inference
from aihwkit.inference.compensation import drift as compensations
from aihwkit.simulator.tiles.base import SimulatorTileWrapper
from torch import Tensor, nn

from analogtl.config.retention import OF_DEVICE
from analogtl.config.run import Evaluate
from analogtl.crossbar.convert import analog_layers, analog_tiles, derived_seed
from analogtl.errors import ExperimentError, RunError, one_line
from analogtl.fastsim import FastTile

# The weights of a tile [out, in] after a time in seconds; the seeds of what is drawn once, and of
# what is drawn at each time.
Aged = Callable[[SimulatorTileWrapper, Tensor, float, int, int], Tensor]


def aged_weights(asked: Evaluate) -> Aged:
    """Make the function that lets weights age.

    Raises:
        ExperimentError: If aihwkit refuses the parameters.
    """
    if asked.noise_model == OF_DEVICE:
        return _Device(asked.batch_s or 1.0)
    given = {name: _with_numbers(value) for name, value in asked.parameters.items()}
    if asked.noise_model == "CustomDriftPCMLikeNoiseModel":  # it asks its converter for bounds
        converter = inference.SinglePairConductanceConverter(g_max=given.get("g_max"))
        given["g_converter"] = converter
    try:
        aged = _Inference(getattr(inference, asked.noise_model)(**given))
        weights = torch.tensor([[-0.5, 0.0, 0.5]])
        for time in asked.times:
            aged(None, weights, time, 0, 0)
    except Exception as error:  # of aihwkit's, which has many
        where = "evaluate.parameters: aihwkit refuses these"
        raise ExperimentError(f"{where}: {one_line(error)}") from error
    return aged


def _with_numbers(value: Any) -> Any:
    """A table whose keys are numbers where they can be: TOML has text only."""
    if not isinstance(value, dict):
        return list(value) if isinstance(value, tuple) else value
    with contextlib.suppress(ValueError):
        return {float(key): one for key, one in value.items()}
    return value


@dataclass(frozen=True)
class _Inference:
    """One of aihwkit's models for inference."""

    model: Any

    def __call__(
        self, tile: Any, weights: Tensor, time: float, device_seed: int, time_seed: int
    ) -> Tensor:
        convert = self.model.g_converter
        conductances, scales = convert.convert_to_conductances(weights)
        if isinstance(conductances, Tensor):  # of a single device
            conductances = [conductances]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(device_seed)
            drifts = [self.model.generate_drift_coefficients(g.clone()) for g in conductances]
            torch.manual_seed(time_seed)
            aged = [
                self.model.apply_drift_noise_to_conductance(g.clone(), drift, time)
                for g, drift in zip(conductances, drifts, strict=True)
            ]
        found: Tensor = convert.convert_back_to_weights(aged, scales)
        return found.reshape(weights.shape).to(weights)


@dataclass(frozen=True)
class _Device:
    """The lifetime and the diffusion of the device that holds the weights, as aihwkit has them.

    In a mini-batch a weight w becomes (w - b) share + b + rate N(0, 1), b being its reset bias;
    here in one step for all of them. A walk is cut at the bounds where it ends.
    """

    batch_s: float

    def __call__(
        self, tile: Any, weights: Tensor, time: float, device_seed: int, time_seed: int
    ) -> Tensor:
        cells = _last_device(tile)
        steps, share = time / self.batch_s, cells["decay_scales"].double()
        bias, rate = cells["reset_bias"].double(), cells["diffusion_rates"].double()
        left = share**steps
        # The variance of so many steps, each of which the later ones shrink.
        lost = 1 - share**2
        walked = torch.where(lost > 0, (1 - left**2) / lost.clamp(min=1e-300), steps)
        generator = torch.Generator().manual_seed(time_seed)
        noise = torch.randn(weights.shape, generator=generator).double()
        aged = (weights.double() - bias) * left + bias + rate * walked.sqrt() * noise
        low, high = cells["min_bound"].double(), cells["max_bound"].double()
        inside = torch.minimum(torch.maximum(aged, low), high)
        return torch.where(rate > 0, inside, aged).to(weights)


def _last_device(tile: Any) -> dict[str, Tensor]:
    """Find what the cells of the array with the weights have, [out, in], by aihwkit's name."""
    hidden = tile.get_hidden_parameters()
    last = [name.removeprefix("max_bound") for name in hidden if name.startswith("max_bound")][-1]
    wanted = ("min_bound", "max_bound", "decay_scales", "reset_bias", "diffusion_rates")
    return {name: hidden[f"{name}{last}"] for name in wanted}


@dataclass
class Ageing:
    """A trained network whose arrays are shown as they are later, and at last as they were."""

    model: nn.Module
    asked: Evaluate
    seed: int  # of the trial
    _aged: Aged = field(init=False)
    _tiles: dict[str, SimulatorTileWrapper] = field(default_factory=dict)
    _weights: dict[str, Tensor] = field(default_factory=dict)  # as trained, [out, in]

    def __post_init__(self) -> None:
        self._aged = aged_weights(self.asked)
        for name, layer in analog_layers(self.model).items():
            for number, tile in enumerate(analog_tiles(layer)):
                self._tiles[f"{name}/{number}"] = tile
                self._weights[f"{name}/{number}"] = tile.tile.get_weights().clone()

    @contextlib.contextmanager
    def at(self, time: float, repeat: int) -> Iterator[None]:
        """Show all arrays as they are after a time, in seconds.

        What is drawn depends on the seeds, the repeat, the tile and, but for the devices' own
        drift, the time: not on what else is asked for.

        Raises:
            RunError: If the model gives weights that are not finite.
        """
        with contextlib.ExitStack() as stack, torch.no_grad():
            for name, tile in self._tiles.items():
                stack.enter_context(self._shown(name, tile, time, repeat))
            yield

    @contextlib.contextmanager
    def _shown(
        self, name: str, tile: SimulatorTileWrapper, time: float, repeat: int
    ) -> Iterator[None]:
        def seed(*what: str) -> int:
            return derived_seed(self.seed, f"evaluate {self.asked.seed}", name, str(repeat), *what)

        weights, moment = self._weights[name], f"{time:.12g} s"
        restart, resume = _streams(tile)
        scales = tile.get_mapping_scales()
        kept = None if scales is None else scales.clone()
        try:
            if time:
                kind = self.asked.drift_compensation
                compensation = None if kind == "none" else getattr(compensations, kind)()
                restart(seed("reads before"))
                before = _read(tile, compensation)
                aged = self._aged(tile, weights, time, seed("devices"), seed("noise", moment))
                if not torch.isfinite(aged).all():
                    raise RunError(f"{name}: {self.asked.noise_model} gives no finite weights")
                _show(tile, aged)
                if compensation is not None:
                    restart(seed("reads", moment))
                    factor = before / _read(tile, compensation)
                    scale = torch.ones(1) if kept is None else kept
                    tile.mapping_scales = scale * factor.reshape(-1).to(scale)
            restart(seed("passes", moment))
            yield
        finally:
            tile.mapping_scales = kept
            _show(tile, weights)
            resume()


def _read(tile: Any, compensation: Any) -> Tensor:
    """What the compensation sees of a tile: the mean size of its outputs for unit vectors."""
    if compensation is None:
        return torch.ones(1)
    units = compensation.get_readout_tensor(tile.in_size)
    found: Tensor = compensation.readout(tile.joint_forward(units.to(tile.device), True))
    return found


def _streams(tile: Any) -> tuple[Callable[[int], None], Callable[[], None]]:
    """How to begin the noise of a tile's passes at a seed, and how to go on with what there was.

    Stock tiles seed theirs from the clock.
    """
    if not isinstance(tile, FastTile):
        return (lambda _seed: None), (lambda: None)
    simulator = tile.tile
    kept = simulator.seed, simulator.counts.copy()

    def restart(seed: int) -> None:
        simulator.seed = np.uint64(seed)
        simulator.counts[...] = kept[1]

    def resume() -> None:
        simulator.seed = kept[0]
        simulator.counts[...] = kept[1]

    return restart, resume


def _show(tile: Any, weights: Tensor) -> None:
    """Let the passes of a tile see weights [out, in], whatever its devices could hold."""
    if isinstance(tile, FastTile):
        tile.tile.matrix().copy_(weights.T)
        return
    memory = getattr(tile, "analogtl_memory", None)
    if memory is None:  # a stock tile keeps a pointer only: see `checkpoint`
        memory = tile.tile.get_weights().clone().contiguous().to(tile.device)
        tile.tile.set_shared_weights(memory)
        tile.analogtl_memory = memory
    memory.copy_(weights)
