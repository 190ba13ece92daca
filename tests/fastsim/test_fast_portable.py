"""The fast engine's devices, pulses and reads are the same on every processor, given equal inputs.

Matrix products are not: they are torch's, and add in the order that suits the processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import hashlib
import numpy as np
import torch
from analogtl.config.schema import Experiment
from analogtl.crossbar.rpu_config import Pulsing, build_rpu_config
from analogtl.fastsim import fast_rpu_config
from analogtl.fastsim.pulsed import PulsedTile

digest = hashlib.sha256()
for algorithm in ("c-ttv2", "agad"):
    analog = {"algorithm": algorithm, "granularity_per_token": 0.5}
    setup = Experiment.model_validate({"name": "x", "analog": analog}).analog
    config = build_rpu_config(setup, Pulsing.given(setup, 4), construction_seed=7)
    tile = PulsedTile(24, 20, fast_rpu_config(config, seed=9))
    rng = np.random.default_rng(1)
    tile.set_weights(torch.from_numpy((0.3 * rng.standard_normal((20, 24))).astype(np.float32)))
    for _ in range(20):
        x, d = (rng.standard_normal((16, size)).astype(np.float32) for size in (24, 20))
        tile.update(torch.from_numpy(x), torch.from_numpy(0.1 * d))
    for value in tile.state().values():
        digest.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else b"")
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_another_processor_gives_the_same_array(tmp_path: Path) -> None:
    """Compiled for this processor, and for one without fused or wide instructions."""
    found = set()
    for number, target in enumerate(({}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""})):
        cache = {"NUMBA_CACHE_DIR": str(tmp_path / str(number))}
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, **cache, **target},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
