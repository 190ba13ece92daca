"""Build networks: this package's own, and any timm model by name.

timm is imported only for a model that is not this package's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from analogtl.config.network import kwargs_problems
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.models.denoiser import Denoiser
from analogtl.models.fit import fit_of
from analogtl.models.gpt import SmallGPT
from analogtl.models.mlp import PixelMLP
from analogtl.models.swin import SmallImageSwin
from analogtl.vocabulary import Network

# Class and sizes of this package's own networks; `vocabulary.Network` says what each is for.
OWN_MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    Network.SWIN_CIFAR_TINY: (SmallImageSwin, {}),
    Network.SWIN_CIFAR_DESK: (
        SmallImageSwin,
        {
            "embed_dim": 48,
            "depths": (2, 2),
            "num_heads": (3, 6),
            "head_dim": 16,
            "downscaling": (4, 2),
            "mlp_ratio": 2.0,
        },
    ),
    Network.SWIN_DIGITS: (
        SmallImageSwin,
        {
            "img_size": 8,
            "in_chans": 1,
            "embed_dim": 16,
            "depths": (2, 2),
            "num_heads": (2, 4),
            "head_dim": 8,
            "downscaling": (2, 2),
            "window_size": 2,
            "mlp_ratio": 2.0,
        },
    ),
    Network.MLP_DIGITS: (PixelMLP, {}),
    Network.GPT_BYTES: (SmallGPT, {}),
    Network.DENOISER_DIGITS: (Denoiser, {"hidden": (256, 256)}),
    Network.DENOISER_2D: (Denoiser, {}),
}


def build_model(
    architecture: str, *, kwargs: Mapping[str, Any] | None = None, **sizes: int
) -> nn.Module:
    """Build a network for the examples of a data set.

    The weights are drawn from torch's generator: seed it first. One example of zeros is sent
    through, so that a model too deep for such small images fails here and not in the first epoch.

    Args:
        architecture: One of `OWN_MODELS`, or a name in timm's registry, without a tag.
        kwargs: What else the model takes, e.g. ``{"embed_dim": 48, "depth": 4}``.
        sizes: Of the task; see `fit_of`.

    Raises:
        ExperimentError: unknown name, arguments the model does not take, sizes that do not fit.
    """
    kwargs = dict(kwargs or {})
    problems = [f"model.{key}: {reason}" for key, reason in kwargs_problems(kwargs)]
    if "." in architecture:
        problems.append(f"model.architecture: {architecture}: a tag names weights, not a network")
    if problems:
        raise ExperimentError(problems)
    if architecture not in OWN_MODELS:
        _require_timm_name(architecture)
    fit = fit_of(sizes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on renamed models: not the user's concern
            model = _build(architecture, dict(fit.arguments), kwargs)
            fit.try_out(model)
    except Exception as error:  # timm's models fail on what they cannot take in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ExperimentError(
            f"model {architecture}: cannot be built for {fit.words[0]}s with "
            f"{kwargs or 'its default kwargs'}: {reason}"
        ) from error
    return model


def _require_timm_name(architecture: str) -> None:
    import timm

    if not timm.is_model(architecture):
        near = did_you_mean(architecture, [*OWN_MODELS, *timm.list_models()])
        hint = near or f"own: {', '.join(OWN_MODELS)}"
        raise ExperimentError(
            f"model {architecture!r}: unknown to this package and to timm; {hint}"
        )


def _build(architecture: str, sizes: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    """Build a network; a timm model that takes any ``img_size`` is built without."""
    if architecture in OWN_MODELS:
        network, own_sizes = OWN_MODELS[architecture]
        return network(**{**own_sizes, **sizes, **kwargs})
    import timm

    try:
        return timm.create_model(architecture, **sizes, **kwargs)
    except TypeError:
        del sizes["img_size"]
        return timm.create_model(architecture, **sizes, **kwargs)
