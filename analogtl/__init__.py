"""Analog transfer learning experiments on simulated resistive crossbars, from one TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from analogtl.api import (
        load_experiment,
        read_epochs,
        read_evaluation,
        read_layers,
        read_pulses,
        read_trials,
        run,
    )

# From `analogtl.api`, which is imported when one of them is asked for: `analogtl --help` and
# completion are to load neither pydantic nor pandas.
__all__ = [
    "__version__",
    "load_experiment",
    "read_epochs",
    "read_evaluation",
    "read_layers",
    "read_pulses",
    "read_trials",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from analogtl import api

        return getattr(api, name)
    raise AttributeError(f"module 'analogtl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
