"""Weight programming: how exactly an algorithm brings one array to a given matrix.

The task of Rasch et al. 2024 (Nat. Commun. 15, 7133, Fig. 4): an array starts at zero and is
trained, one input vector after the other, to answer like a target matrix. No data, no network: what
is left of the deviation is what devices and algorithm do. It tests the simulation as a whole.

Shape suffixes: O output rows, I input columns, B vectors.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from aihwkit.optim import AnalogSGD
from torch import Tensor, nn

from analogtl.config.arrays import Analog, Convert, Programming
from analogtl.crossbar import convert as transfer
from analogtl.crossbar.defaults import Plan
from analogtl.crossbar.pulses import wear
from analogtl.errors import RunError

VALIDATION_VECTORS = 500


@dataclass(frozen=True)
class Measure:
    """Where the array stands after an epoch."""

    epoch: int  # 0 is before any update
    # Mean of half the squared output error over the epoch's vectors, while they were trained on;
    # None for epoch 0.
    loss: float | None
    # Programming error in percent: root mean square of the deviation from the target over all
    # cells, relative to a weight of 1, the nominal bound of the devices.
    error: float
    output_error: float  # error of the outputs for other inputs, in percent of the outputs' size
    weights_changed: float  # share (0 to 1) of the cells that changed since epoch 0
    n_samples: int  # vectors
    wall_s: float


class WeightProgrammingRun:
    """One array on its way to a target matrix."""

    def __init__(self, section: Programming, analog: Analog, *, lr: float, seed: int) -> None:
        """Build the array.

        Args:
            lr: Learning rate, per vector.
            seed: Seed of the devices; target and inputs follow `section.seed`.

        Raises:
            ExperimentError: If the engine or the installed aihwkit cannot run the settings.
        """
        self.section = section
        self.target_OI = target_matrix(section)  # in weight units
        layer = nn.Linear(section.size, section.size, bias=False)
        nn.init.zeros_(layer.weight)
        conversion = transfer.to_analog(
            nn.Sequential(OrderedDict(array=layer)),
            analog,
            Convert(),
            seed=seed,
            example=torch.zeros(1, section.size),
            plan=Plan(section.vectors * section.epochs, section.lr),
        )
        self.model = conversion.model
        # Columns of ``layers.csv``, without those that name the trial.
        self.layers: list[dict[str, Any]] = conversion.layers
        self.engine = conversion.engine
        self._start = transfer.programmed_weights(self.model)
        self._optimizer = AnalogSGD(self.model.parameters(), lr=lr)
        self._optimizer.regroup_param_groups(self.model)

    def run(self) -> Iterator[Measure]:
        """Train; yield epoch 0, then each epoch.

        Raises:
            RunError: If the loss is not finite; it names the epoch.
        """
        yield self._measure(0, None, 0, time.perf_counter())
        for epoch in range(1, self.section.epochs + 1):
            began = time.perf_counter()
            torch.manual_seed(transfer.derived_seed(self.section.seed, "epoch", str(epoch)))
            x_BI = input_vectors(self.section, self.section.vectors, f"epoch {epoch}")
            total = 0.0
            for batch_BI in torch.split(x_BI, self.section.batch_size):
                self._optimizer.zero_grad()
                error_BO = self.model(batch_BI) - batch_BI @ self.target_OI.T
                # A sum over vectors: each is an update of its own, whatever the batch.
                loss = 0.5 * (error_BO**2).sum()
                if not math.isfinite(value := loss.item()):
                    raise RunError(f"the loss became {value} at epoch {epoch}")
                loss.backward()
                self._optimizer.step()
                total += value
            yield self._measure(epoch, total / len(x_BI), len(x_BI), began)

    def wear(self) -> dict[str, dict[str, Any]]:
        """What happened to the array: pulses, reads, change of weights."""
        return wear(self.model, self._start)

    def _measure(self, epoch: int, loss: float | None, count: int, began: float) -> Measure:
        wall_s = time.perf_counter() - began
        weight_OI: Tensor = transfer.analog_layers(self.model)["array"].get_weights()[0]
        deviation_OI = weight_OI.detach() - self.target_OI
        x_BI = input_vectors(self.section, VALIDATION_VECTORS, "validation")
        wrong, right = x_BI @ deviation_OI.T, x_BI @ self.target_OI.T
        changed, _ = transfer.share_changed(self._start, transfer.programmed_weights(self.model))
        return Measure(
            epoch=epoch,
            loss=loss,
            error=100 * float(deviation_OI.square().mean().sqrt()),
            output_error=100 * float(wrong.norm() / right.norm()),
            weights_changed=changed,
            n_samples=count,
            wall_s=wall_s,
        )


def target_matrix(section: Programming) -> Tensor:
    """The matrix to program (O, I): normal numbers, clipped; a function of the section alone."""
    generator = _generator(section, "target")
    target_OI = section.target_std * torch.randn(section.size, section.size, generator=generator)
    return target_OI.clamp(-section.target_max, section.target_max)


def input_vectors(section: Programming, count: int, purpose: str) -> Tensor:
    """Input vectors (B, I); a function of the section and the purpose alone."""
    generator = _generator(section, purpose)
    if section.inputs == "uniform":
        return 2 * torch.rand(count, section.size, generator=generator) - 1
    return torch.randn(count, section.size, generator=generator)


def _generator(section: Programming, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(transfer.derived_seed(section.seed, purpose))
