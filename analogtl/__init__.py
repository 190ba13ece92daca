"""Analog transfer learning experiments on simulated resistive crossbars, from one TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_experiment", "read_epochs", "read_trials", "run"]

if TYPE_CHECKING:
    from analogtl.experiment_file import load_experiment
    from analogtl.records import read_epochs, read_trials
    from analogtl.stages import run

_HOME = {
    "load_experiment": "analogtl.experiment_file",
    "read_epochs": "analogtl.records",
    "read_trials": "analogtl.records",
    "run": "analogtl.stages",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `analogtl --help` and completion load neither torch nor pandas.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'analogtl' has no attribute {name!r}")
