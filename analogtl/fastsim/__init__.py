"""The fast engine: the same stochastic processes as aihwkit's pulsed training, many times faster.

Where the fast array of a compound is hidden, a column of it matters only when it is read; between
two reads the engine keeps the pulse trains as bits and applies them, in their order, when the
column is read. Nothing is approximated. Every random number comes from the seed, so that a run
repeats bit for bit.

The package imports nothing of analogtl: it could be a distribution of its own.
"""

from __future__ import annotations

from analogtl.fastsim.config import (
    FastRPUConfig,
    UnsupportedConfig,
    fast_rpu_config,
    unsupported_reason,
)
from analogtl.fastsim.convert import to_fast
from analogtl.fastsim.simulator import STATE_FORMAT
from analogtl.fastsim.threads import use_threads
from analogtl.fastsim.tile import FastTile

__all__ = [
    "STATE_FORMAT",
    "FastRPUConfig",
    "FastTile",
    "UnsupportedConfig",
    "fast_rpu_config",
    "to_fast",
    "unsupported_reason",
    "use_threads",
]
