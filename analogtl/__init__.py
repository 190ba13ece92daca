"""Analog transfer learning experiments on simulated resistive crossbars, from one TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_experiment", "read_epochs", "read_trials", "run"]

if TYPE_CHECKING:
    from analogtl.config.load import load_experiment
    from analogtl.study.columns import read_epochs, read_trials
    from analogtl.training.stages import run

_HOME = {
    "load_experiment": "analogtl.config.load",
    "read_epochs": "analogtl.study.columns",
    "read_trials": "analogtl.study.columns",
    "run": "analogtl.training.stages",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `analogtl --help` and completion load neither torch nor pandas.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'analogtl' has no attribute {name!r}")
