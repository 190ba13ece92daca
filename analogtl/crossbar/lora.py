"""Low-rank adapters: what is trained in the place of a network's own weights.

Beside a layer's weight W, which is held fixed, a product of two small matrices is learned: W +
alpha / rank B A, with A random and B zero at first (LoRA: Hu et al., ICLR 2022, arXiv 2106.09685).
The layers are named as peft names them, ``base_layer``, ``lora_A`` and ``lora_B``: these have
nothing to do with the arrays A and C of an algorithm.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from analogtl.config.training import Lora
from analogtl.crossbar.survey import BASE, Survey
from analogtl.errors import ExperimentError, counted

MAX_NAMED = 8  # layers that a message names


class AdaptedLayer(nn.Module):
    """A layer with an adapter beside it: ``base_layer(x) + alpha / rank * lora_B(lora_A(x))``."""

    def __init__(self, base_layer: Any, lora: Lora) -> None:
        """Draw the adapter from torch's generator, as a linear layer's weights are drawn.

        Args:
            base_layer: A linear layer or convolution. The adapter of a convolution is one to
                ``rank`` channels, with its kernel, and one of these with a kernel of 1.
            lora: Its rank and scale.
        """
        super().__init__()
        self.scale = lora.alpha / lora.rank
        self.base_layer = base_layer
        out_size, *shape = base_layer.weight.shape
        # A copy computes what the layer does, also where its class is one of its own.
        self.lora_A: Any = copy.deepcopy(base_layer)
        self.lora_A.weight = nn.Parameter(base_layer.weight.new_empty(lora.rank, *shape))
        self.lora_A.register_parameter("bias", None)
        if isinstance(base_layer, nn.Linear):
            self.lora_A.out_features = lora.rank
            self.lora_B: Any = nn.Linear(lora.rank, out_size, bias=False)
        else:
            self.lora_A.out_channels = lora.rank
            kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
            kind: Any = next(kind for kind in kinds if isinstance(base_layer, kind))
            self.lora_B = kind(lora.rank, out_size, 1, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=5**0.5)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x)
        return y + self.scale * self.lora_B(self.lora_A(x))


@dataclass(frozen=True)
class Adapters:
    """The parts of a network with adapters.

    Attributes:
        trained: Layers that are trained, the adapters' and the head's; all others are held.
        digital: Layers that stay digital -> why.
    """

    trained: frozenset[str]
    digital: Mapping[str, str]

    def hold(self, model: nn.Module) -> None:
        """Hold all parameters fixed that are not of a layer that is trained."""
        trained = tuple(f"{name}." for name in self.trained)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trained))


def add_adapters(
    model: nn.Module, lora: Lora, fit: Survey, head: Collection[str], *, on_arrays: bool
) -> Adapters:
    """Put an adapter beside each layer that [lora] names, in the order of the network.

    Args:
        model: The digital network, which is changed; nothing is held fixed yet.
        lora: Rank, scale, targets, and where the base is if adapters are on arrays.
        fit: The survey of the network, with no layer that stays digital by choice.
        head: The layers that are new for the task, which are trained whole, without adapter.
        on_arrays: Whether adapters and head are; else the base is.

    Raises:
        ExperimentError: If no layer can have an adapter, a pattern names none, or the rank is more
            than a layer has.
    """
    able = [name for name in fit.arrays if name not in head]
    reasons = {part.name: part.reason for part in fit.digital}
    if not able:
        why = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:3])
        raise ExperimentError(f"lora: no layer of the network can have an adapter: {why or 'none'}")
    problems, chosen = [], set()
    for pattern in lora.targets:
        found = fnmatch.filter(able, pattern)
        chosen |= set(found)
        unable = fnmatch.filter(reasons, pattern)
        if not found and unable:
            problems.append(f"lora.targets: {pattern!r}: {unable[0]}: {reasons[unable[0]]}")
        elif not found:
            shown = ", ".join(able[:MAX_NAMED]) + (", ..." if len(able) > MAX_NAMED else "")
            problems.append(f"lora.targets: {pattern!r} matches no layer; layers: {shown}")
    weights: Any = {name: model.get_submodule(name).weight for name in able if name in chosen}
    sides = {name: min(one.shape[0], one[0].numel()) for name, one in weights.items()}
    small = [name for name, side in sides.items() if side < lora.rank]
    if small:
        name = min(small, key=lambda one: sides[one])
        more = f" and {counted(len(small) - 1, 'more layer')}" if len(small) > 1 else ""
        problems.append(
            f"lora.rank: {lora.rank} is more than the smaller side of {name}, {sides[name]}{more}; "
            "expected less, or other layers in lora.targets"
        )
    if problems:
        raise ExperimentError(problems)
    for name in sides:
        owner, _, attribute = name.rpartition(".")
        setattr(
            model.get_submodule(owner), attribute, AdaptedLayer(model.get_submodule(name), lora)
        )
    adapters = [f"{name}.{part}" for name in sides for part in ("lora_A", "lora_B")]
    base_is_digital = on_arrays and lora.base == "digital"
    rest = [f"{name}.{BASE}" if name in sides else name for name in able]
    digital = dict.fromkeys(rest, "the base is digital: lora.base") if base_is_digital else {}
    if not on_arrays:
        digital = dict.fromkeys([*adapters, *head], "trained digitally")
    return Adapters(frozenset([*adapters, *head]), digital)
