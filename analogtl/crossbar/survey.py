"""Survey a network: which of its weights arrays can hold, and what stays digital and why.

A *weight* of a network is a number in a parameter that is a factor of a matrix product or of a
convolution in a forward pass (see `analogtl.crossbar.products`). The *share on arrays* is the
number of weights in layers that are put on arrays, over the number of all weights.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from aihwkit.nn import AnalogConv2d, AnalogLinear
from aihwkit.nn.modules.base import AnalogLayerBase
from torch import Tensor, nn

from analogtl.crossbar.convolution import UnfoldedConv, pad_as_given, pad_to_same
from analogtl.crossbar.products import product_weights
from analogtl.vocabulary import MIN_SHARE

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # what arrays can hold, with subclasses
MAX_NAMED = 3  # digital parts that a warning names
BASE = "base_layer"  # of a layer with an adapter beside it; see `analogtl.crossbar.lora`
NO_LAYER = "not a linear layer or convolution"

# Makes the analog layer of a digital one: (layer, rpu_config) -> analog layer.
Maker: TypeAlias = Callable[[Any, Any], AnalogLayerBase]


@dataclass(frozen=True)
class ArrayLayer:
    """A layer that goes onto arrays."""

    make: Maker
    weights: int
    vectors: int  # input vectors that it sees per image


@dataclass(frozen=True)
class DigitalPart:
    """A layer or parameter whose weights stay digital."""

    name: str
    kind: str  # its class
    weights: int
    share: float  # of all weights of the network, 0 to 1
    reason: str
    vectors: int = 0  # input vectors that it sees per image, where it is a layer


@dataclass(frozen=True)
class Survey:
    """What of a network arrays hold.

    Attributes:
        arrays: The layers on arrays by name, in the network's order.
        digital: What stays digital, the largest part first.
    """

    arrays: dict[str, ArrayLayer]
    digital: tuple[DigitalPart, ...]

    @property
    def share_on_arrays(self) -> float:
        """The share (0 to 1) of the network's weights that arrays hold."""
        held = sum(layer.weights for layer in self.arrays.values())
        return held / max(1, held + sum(part.weights for part in self.digital))

    def __str__(self) -> str:
        named = [f"{p.name} ({p.kind}, {100 * p.share:.3g} %)" for p in self.digital[:MAX_NAMED]]
        more = len(self.digital) - len(named)
        rest = f" and {more} more" if more > 0 else ""
        text = f"{100 * self.share_on_arrays:.3g} % of the network's weights"
        return f"{text}; digital: {', '.join(named)}{rest}" if named else text

    def warning(self) -> str:
        """Say which large part of the network stays digital; "" if arrays hold nearly all."""
        return "" if self.share_on_arrays >= MIN_SHARE else f"arrays hold {self}"


def survey(
    model: nn.Module, example: Tensor, chosen: Mapping[str, str] = MappingProxyType({})
) -> Survey:
    """Find out which weights of a network arrays can hold.

    Args:
        model: The digital model; it is left as it is.
        example: A batch of images (B, C, H, W); nothing is learned from it.
        chosen: Names of layers that stay digital by choice -> why.
    """
    use, weights = _observe(model, example)
    own: Mapping[str, str] = getattr(model, "stays_digital", {})  # by the network's own wish
    arrays: dict[str, ArrayLayer] = {}
    reasons: dict[str, str] = {}
    shared = _shared(model)
    for name, layer in candidates(model).items():
        reason = chosen.get(name, "") or own.get(name, "")
        reason = reason or _unfit(layer) or ("its weight is shared" if name in shared else "")
        reason = reason or use[name].problem()
        make = None if reason else _maker(layer, use[name].shape)
        if make:
            count = layer.weight.numel()
            arrays[name] = ArrayLayer(make, count, use[name].vectors)
        else:
            reasons[name] = reason or f"its forward is not that of {_parent(layer).__name__}"
    return Survey(arrays, _digital_parts(model, weights, arrays, reasons, use))


def shown_name(name: str) -> str:
    """What tables call a layer: one with an adapter beside it as without."""
    return name.removesuffix(f".{BASE}")


def candidates(model: nn.Module) -> dict[str, Any]:
    """Linear layers and convolutions, by name; not all of them fit arrays."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LAYERS)}


# -- what a forward pass does with each layer ------------------------------------------------------


@dataclass
class _Use:
    """What a forward pass did with a layer."""

    shape: tuple[int, ...] = ()  # of its input
    vectors: int = 0  # input vectors that it sees per image
    read: bool = False  # whether something else than the layer itself read its parameters
    plain: bool = True  # whether it was called with one tensor, and nothing else

    def problem(self) -> str:
        """Why no analog layer can take the layer's place; "" if one can."""
        if self.read:
            return "its weight is read directly, not through its forward"
        if not self.vectors:
            return "it is not called"
        return "" if self.plain else "it is called with more than its input"


def _observe(model: nn.Module, example: Tensor) -> tuple[dict[str, _Use], dict[str, int]]:
    """Send a batch through: what each layer is used for, and the weights of the network."""
    layers = candidates(model)
    use = {name: _Use() for name in layers}
    training = model.training
    with contextlib.ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(_watched(layer, use[name], len(example)))
        stack.callback(model.train, training)
        return use, product_weights(model.eval(), example)


@contextlib.contextmanager
def _watched(layer: Any, use: _Use, images: int) -> Iterator[None]:
    """Note calls of a layer, and reads of its parameters by anything but the layer itself."""
    own = type(layer)
    calls = 0

    def enter(_layer: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        use.plain &= len(args) == 1 and not kwargs and isinstance(args[0], Tensor)

    def leave(_layer: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls -= 1
        if isinstance(output, Tensor) and args:
            use.shape = tuple(args[0].shape)
            features = output.shape[-1] if isinstance(layer, nn.Linear) else output.shape[1]
            use.vectors += max(1, output.numel() // max(1, features) // images)

    def parameter(name: str) -> property:
        def read(self: nn.Module) -> Any:
            use.read |= calls == 0
            return self._parameters[name]

        return property(read)

    names = [name for name in ("weight", "bias") if name in layer._parameters]
    handles = [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        layer.register_forward_hook(leave),
    ]
    layer.__class__ = type(own.__name__, (own,), {name: parameter(name) for name in names})
    try:
        yield
    finally:
        layer.__class__ = own
        for handle in handles:
            handle.remove()


# -- which layer arrays can hold -------------------------------------------------------------------


def _unfit(layer: Any) -> str:
    """Why a layer does not fit arrays, whatever it is used for; "" if nothing is in the way."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other parameters"
    if set(layer._parameters) != {"weight", "bias"} or layer._buffers or layer._modules:
        return "it has more than weights and a bias"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks"
    if getattr(layer, "groups", 1) > 1:
        return "a convolution with groups"
    if weight.dtype != torch.float32 or not weight.numel():
        return f"its weight is {tuple(weight.shape)} of {weight.dtype}"
    return "" if weight.requires_grad else "its weight is not trained"


def _shared(model: nn.Module) -> set[str]:
    """Names of the layers that are used, or whose parameters are, under a second name."""
    named = list(model.named_modules(remove_duplicate=False))
    modules = Counter(id(module) for _, module in named)
    parameters = Counter(
        id(p) for _, module in model.named_modules() for p in module._parameters.values()
    )
    return {
        name
        for name, layer in candidates(model).items()
        if modules[id(layer)] > 1 or parameters[id(layer._parameters.get("weight"))] > 1
    }


def _parent(layer: Any) -> Any:
    """Find the class of torch that a layer is of or derived from."""
    return next(kind for kind in LAYERS if isinstance(layer, kind))


def _maker(layer: Any, shape: tuple[int, ...]) -> Maker | None:
    """Find the analog layer that does what a digital one does; None if there is none."""
    parent = _parent(layer)
    own = type(layer) is parent
    if parent is nn.Linear:
        return AnalogLinear.from_digital if own or _same(layer, shape, parent.forward) else None
    if own or _same(layer, shape, parent.forward):
        plain = parent is nn.Conv2d and layer.padding_mode == "zeros"
        if plain and not isinstance(layer.padding, str):
            return AnalogConv2d.from_digital
        return partial(UnfoldedConv, pad=pad_as_given)
    if _same(layer, shape, _same_padded):
        return partial(UnfoldedConv, pad=pad_to_same)
    return None


def _same_padded(layer: Any, x: Tensor) -> Tensor:
    """Run a convolution after TensorFlow's padding."""
    convolve = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}[x.dim()]
    padded = pad_to_same(layer, x)
    return convolve(padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation)


def _same(layer: Any, shape: tuple[int, ...], forward: Callable[[Any, Tensor], Tensor]) -> bool:
    """Whether a layer of a class of its own computes what a known forward pass does.

    Both are tried with random weights and inputs, in training and in evaluation. The layer has
    nothing but a weight and a bias (see `_unfit`), so there is little else that it could do.
    """
    twin = copy.deepcopy(layer).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), contextlib.suppress(RuntimeError, TypeError, ValueError):
        for parameter in twin.parameters():
            parameter.normal_(generator=generator)
        x = torch.randn(shape, generator=generator)
        expected = forward(twin, x)
        tolerance = 1e-4 * float(expected.abs().max())
        for training in (True, False):
            twin.train(training)
            if not torch.allclose(twin(x), expected, rtol=1e-4, atol=tolerance):
                return False
        return True
    return False


# -- what stays digital ----------------------------------------------------------------------------


def _digital_parts(
    model: nn.Module,
    weights: Mapping[str, int],
    arrays: Collection[str],
    reasons: Mapping[str, str],
    use: Mapping[str, _Use],
) -> tuple[DigitalPart, ...]:
    """Gather the weights that no array holds, by layer."""
    total = sum(weights.values())
    modules = dict(model.named_modules())
    counts: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for parameter, count in weights.items():
        owner = _owner(parameter, modules)
        if owner in arrays:
            continue
        kinds[owner] = type(modules[owner]).__name__ if owner in modules else "parameter"
        counts[owner] = counts.get(owner, 0) + count
    for name in reasons:
        counts.setdefault(name, 0)
        kinds.setdefault(name, type(modules[name]).__name__)
    parts = [
        DigitalPart(
            shown_name(name),
            kinds[name],
            count,
            count / max(1, total),
            reasons.get(name, NO_LAYER),
            use[name].vectors if name in use else 0,
        )
        for name, count in counts.items()
    ]
    return tuple(sorted(parts, key=lambda part: -part.weights))


def _owner(parameter: str, modules: Mapping[str, nn.Module]) -> str:
    """Name what a parameter is listed under: its layer, or itself in a module with other parts."""
    path = parameter.split(".")[:-1]
    above = [".".join(path[:length]) for length in range(len(path), 0, -1)]
    for name in above:
        if isinstance(modules[name], LAYERS):
            return name
    return above[0] if above and not modules[above[0]]._modules else parameter
