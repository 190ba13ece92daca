"""Find the weights of a network: the parameters that enter matrix products and convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_aten = torch.ops.aten
# Operations that are products, and which of their arguments are factors. The others,
# such as the bias of `addmm`, are added. Whatever is not here is made of these by torch itself.
_FACTORS: dict[Any, tuple[int, ...]] = {
    _aten.mm: (0, 1),
    _aten.bmm: (0, 1),
    _aten.mv: (0, 1),
    _aten.dot: (0, 1),
    _aten.vdot: (0, 1),
    _aten.addmm: (1, 2),
    _aten.addbmm: (1, 2),
    _aten.baddbmm: (1, 2),
    _aten.addmv: (1, 2),
    _aten.linear: (0, 1),
    _aten.convolution: (0, 1),
    _aten._trilinear: (0, 1, 2),
    _aten._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2),
    _aten._scaled_dot_product_attention_math: (0, 1, 2),
    _aten.mkldnn_rnn_layer: (1, 2),
}


def product_weights(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Find the weights of a network by one forward pass: name of a parameter -> how many numbers.

    A parameter is a weight if it is a factor of a matrix product or convolution, as it is or after
    operations on parameters alone (a reshape, a standardisation). What is added (biases, position
    tables), looked up (embeddings) or multiplied element by element (norms, scales) is none.

    Args:
        model: The digital network, in evaluation mode.
        example: A batch of inputs.
    """
    trace = _ProductTrace(model, example)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that hides the products
    try:
        with torch.no_grad(), trace:
            model(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {name: p.numel() for name, p in model.named_parameters() if name in trace.found}


class _ProductTrace(TorchDispatchMode):
    """Follows which tensors are made of parameters alone, and notes those that are factors."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.found: set[str] = set()
        # Names of the parameters that a tensor is made of; None once data has entered it. A tensor
        # that is not here is a constant.
        self._made_of: Any = WeakTensorKeyDictionary()
        for name, parameter in model.named_parameters():
            self._made_of[parameter] = frozenset({name})
        self._made_of[example] = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for place in _FACTORS.get(func.overloadpacket, ()):
            self.found |= self._names(args[place]) or frozenset()
        sources = [self._names(leaf) for leaf in tree_leaves((args, kwargs))]
        named = [names for names in sources if names is not None]
        whole = frozenset().union(*named) if len(named) == len(sources) else None
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and whole != frozenset():
                self._made_of[leaf] = whole
        return result

    def _names(self, leaf: Any) -> frozenset[str] | None:
        if not isinstance(leaf, Tensor):
            return frozenset()
        names: frozenset[str] | None = self._made_of.get(leaf, frozenset())
        return names
