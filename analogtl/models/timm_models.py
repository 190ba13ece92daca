"""timm with this package's networks in its registry. Importing this imports timm: over a second."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import register_model
from torch import nn

from analogtl.models.build import OWN_MODELS, own_model

# What timm's create_model hands to every entry point, and means nothing to weights of one's own.
_TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def create_model(architecture: str, sizes: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    """Build a timm model of these sizes; one that takes any ``img_size`` is built without."""
    try:
        return timm.create_model(architecture, **sizes, **kwargs)
    except TypeError:
        sizes = {name: value for name, value in sizes.items() if name != "img_size"}
        return timm.create_model(architecture, **sizes, **kwargs)


def _register(name: str) -> None:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise ValueError("pretrained: no published weights exist; pretrain the model here")
        return own_model(name, **{k: v for k, v in kwargs.items() if k not in _TIMM_ONLY})

    entry.__name__ = str(name)
    register_model(entry)


for _name in OWN_MODELS:
    _register(_name)
