"""Networks: any timm model by name, and this package's own, which timm's registry knows too.

Own models: ``swin_cifar_tiny`` (the paper's), ``swin_cifar_desk``, ``swin_digits``, ``mlp_digits``.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

import analogtl.models.swin  # noqa: F401 (registers its models with timm)
from analogtl.errors import ExperimentError

__all__ = ["build_model", "digital_only", "list_models", "replace_head"]

OWN_MODELS = ("swin_cifar_tiny", "swin_cifar_desk", "swin_digits", "mlp_digits")

# Arguments of timm's factory that the data set decides, or that would fetch weights.
_DECIDED_BY_DATA = ("num_classes", "in_chans", "img_size")
_FETCHES_WEIGHTS = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)


class PixelMLP(nn.Module):
    """Hidden layers with ReLU on the pixels of one image: the smallest model here.

    In: (B, C, H, W), H = W = ``img_size``. Out: logits (B, K).
    """

    def __init__(
        self,
        img_size: int = 8,
        in_chans: int = 1,
        num_classes: int = 10,
        hidden: Sequence[int] = (64, 32),
    ) -> None:
        super().__init__()
        widths = [in_chans * img_size**2, *hidden]
        self.num_features = widths[-1]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.reset_classifier(num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.body(x_BCHW))

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head of ``num_classes`` in place; 0 for none. ``global_pool`` is timm's."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


@register_model
def mlp_digits(pretrained: bool = False, **kwargs: Any) -> PixelMLP:
    """An MLP of two hidden layers (64 and 32) for the 8 x 8 digits of scikit-learn: seconds."""
    return PixelMLP(**{key: value for key, value in kwargs.items() if key not in _FETCHES_WEIGHTS})


def list_models() -> list[str]:
    """Names of this package's own models; ``timm.list_models()`` has the other 1200."""
    return list(OWN_MODELS)


def build_model(
    architecture: str,
    *,
    n_classes: int,
    image_size: int,
    in_channels: int,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model, or one of this package's own, for images and classes of a data set.

    The weights are drawn from torch's generator: seed it first. A model that fixes its image size
    is told it, the others are not. One image of zeros is sent through, so that a model too deep
    for such small images fails here and not in the first epoch.

    Args:
        architecture: A name in timm's registry. A tag after a dot, which names published weights,
            is ignored: none are loaded.
        n_classes: Outputs of the head.
        image_size: Height and width of the images, in pixels.
        in_channels: Channels of the images.
        kwargs: What else the model takes, e.g. ``{"embed_dim": 48, "depth": 4}``.

    Raises:
        ExperimentError: unknown name, arguments the model does not take, sizes that do not fit.
    """
    kwargs = dict(kwargs or {})
    architecture = architecture.split(".")[0]  # the tag names published weights: none here
    _require_known(architecture)
    _require_allowed(architecture, kwargs)
    sizes = {"num_classes": n_classes, "in_chans": in_channels, "img_size": image_size}
    what = f"model {architecture}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on renamed models: not the user's concern
            model = _create(architecture, sizes | kwargs)
            _try_out(model, (in_channels, image_size, image_size), n_classes)
    except Exception as error:  # whatever a model of timm's 1200 does with what it cannot take
        if argument := _unexpected_argument(error):
            hint = _suggest_argument(architecture, error, argument)
            raise ExperimentError(f"{what}: kwargs: {argument} is unknown to it{hint}") from error
        raise ExperimentError(
            f"{what}: cannot be built for {in_channels} x {image_size} x {image_size} images "
            f"with {kwargs or 'its default kwargs'}: {_first_line(error)}"
        ) from error
    return model


def replace_head(model: nn.Module, n_classes: int) -> nn.Module:
    """Give ``model`` a new, random head of ``n_classes`` (in place) and return it.

    The weights are drawn from torch's generator: seed it first.

    Raises:
        ExperimentError: if the model has no ``reset_classifier``, as timm's all have.
    """
    if not hasattr(model, "reset_classifier"):
        raise ExperimentError(
            f"model {type(model).__name__}: no reset_classifier(n_classes), so its head cannot be "
            "replaced for another task"
        )
    model.reset_classifier(n_classes)
    return model


def digital_only(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, str]:
    """Linear and convolution layers that aihwkit cannot put on arrays: module name -> why.

    They are the convolutions with groups or a padding of other than zeros, which aihwkit refuses,
    and the layers whose owner reads ``.weight`` and computes by itself (timm's BEiT and EVA do so
    with qkv): on an array they would have none to read. The latter are found by sending one image
    of zeros through, with shape (channels, height, width).
    """
    candidates = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    }
    called: set[nn.Module] = set()
    hooks = [
        layer.register_forward_hook(lambda layer, *_: called.add(layer))
        for layer in candidates.values()
    ]
    try:
        _forward_zeros(model, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    reasons = {}
    for name, layer in candidates.items():
        if getattr(layer, "groups", 1) > 1:
            reasons[name] = "a convolution with groups"
        elif getattr(layer, "padding_mode", "zeros") != "zeros":
            reasons[name] = "a convolution with a padding of other than zeros"
        elif layer not in called:
            reasons[name] = "its weight is read directly, not through its forward"
    return reasons


def _require_known(architecture: str) -> None:
    if timm.is_model(architecture):
        return
    close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"own: {', '.join(OWN_MODELS)}"
    raise ExperimentError(f"model {architecture!r}: unknown to this package and to timm; {hint}")


def _require_allowed(architecture: str, kwargs: Mapping[str, Any]) -> None:
    problems = [
        f"model {architecture}: kwargs: {key} follows from the data set; remove it"
        for key in _DECIDED_BY_DATA
        if key in kwargs
    ] + [
        f"model {architecture}: kwargs: {key} would load published weights; "
        "weights come from the pretrain stage here; remove it"
        for key in _FETCHES_WEIGHTS
        if key in kwargs
    ]
    if problems:
        raise ExperimentError(problems)


def _create(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """Call the entry point, working around what entry points do not let through.

    Convolutional models refuse ``img_size``, so they are built without. Some entry points fix
    arguments by writing ``dict(patch_size=16, **kwargs)``, which fails when the caller gives one;
    those are handed over one call further down, where the model's class is called.
    """
    entry = timm.model_entrypoint(architecture)
    below: dict[str, Any] = {}
    while True:
        try:
            with _passed_further_down(sys.modules[entry.__module__], below):
                return timm.create_model(architecture, **arguments)
        except TypeError as error:
            if _unexpected_argument(error) == "img_size" and "img_size" in arguments:
                del arguments["img_size"]
            elif (fixed := _fixed_argument(error)) in arguments:
                below[fixed] = arguments.pop(fixed)
            else:
                raise


@contextmanager
def _passed_further_down(module: ModuleType, arguments: dict[str, Any]) -> Iterator[None]:
    """Let ``arguments`` override what ``module`` hands to timm's builder, for a while."""
    builder = getattr(module, "build_model_with_cfg", None)
    if builder is None or not arguments:
        yield
        return

    def build(*args: Any, **kwargs: Any) -> nn.Module:
        return builder(*args, **{**kwargs, **arguments})

    module.build_model_with_cfg = build  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.build_model_with_cfg = builder  # type: ignore[attr-defined]


def _try_out(model: nn.Module, image_shape: tuple[int, int, int], n_classes: int) -> None:
    logits = _forward_zeros(model, image_shape)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, n_classes):
        raise ValueError(f"its output is {shape}, not (1, {n_classes})")


def _forward_zeros(model: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    """Send one image of zeros through, in evaluation mode; no statistics are updated."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return model(torch.zeros(1, *image_shape))
    finally:
        model.train(training)


def _unexpected_argument(error: Exception) -> str | None:
    match = re.search(r"unexpected keyword argument(?:\(s\): \[| )'(\w+)'", str(error))
    return match[1] if match and isinstance(error, TypeError) else None


def _fixed_argument(error: TypeError) -> str:
    match = re.search(r"multiple values for keyword argument '(\w+)'", str(error))
    return match[1] if match else ""


def _suggest_argument(architecture: str, error: Exception, argument: str) -> str:
    taken = _arguments_of_class_in(error, architecture)
    if close := difflib.get_close_matches(argument, taken, n=1):
        return f"; did you mean {close[0]}?"
    return f"; it takes {', '.join(taken)}" if taken else ""


def _arguments_of_class_in(error: Exception, architecture: str) -> list[str]:
    """Arguments of the class whose ``__init__`` refused, found through the entry point's module."""
    match = re.match(r"(\w+)\.__init__\(\)", str(error))
    entry = timm.model_entrypoint(architecture)
    refused = getattr(sys.modules[entry.__module__], match[1], None) if match else None
    if refused is None:
        return []
    hidden = {"self", "kwargs", "args", "device", "dtype", *_DECIDED_BY_DATA}
    return [name for name in inspect.signature(refused).parameters if name not in hidden]


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
