"""One thread for every test, set before torch is imported; small experiments to run."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# On the CPU, whatever the machine has.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Figures without a display, wherever a library decides.
os.environ.setdefault("MPLBACKEND", "Agg")

# What a developer's shell may say of the terminal and of this package.
for _name in (
    *("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"),
    *(name for name in os.environ if name.startswith("ANALOGTL_")),
):
    os.environ.pop(_name, None)

import sys
from pathlib import Path
from typing import Any

import pytest

from analogtl.analysis.read import read_run
from analogtl.config.schema import Experiment
from analogtl.study.run_dir import RunDir

# Processes that tests start import the same code, the stand-ins in tests/support among it.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {"architecture": "mlp_digits"},
    "pretrain": {
        "dataset": "digits",
        "classes": [0, 1, 2],
        "epochs": 2,
        "samples_per_class": 40,
        "lr": 0.05,
    },
    # So fine that some cells move in a few dozen steps.
    "analog": {"drive": 0.5, "granularity_per_token": 0.2},
    "finetune": {
        "dataset": "digits",
        "classes": [3, 4, 5],
        "samples_per_class": 30,
        "epochs": 2,
        "arms": ["digital-tl", "analog-tl"],
    },
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with changes put over it, section by section."""
    out = {**base}
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


@pytest.fixture
def tiny() -> Any:
    """Makes a small experiment on digits that runs in about a second: ``tiny(section={...})``."""

    def make(**changes: Any) -> Experiment:
        return Experiment.model_validate(merged(TINY, changes))

    return make


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An empty run directory."""
    return RunDir(tmp_path / "runs", "tiny")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """An empty run directory for the trials of `fake_trials`."""
    return RunDir(tmp_path / "runs", "fake")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process, and not in workers, which take seconds to start."""
    from in_process import InProcess

    monkeypatch.setattr("analogtl.scheduling.sweep.LocalPool", InProcess)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run: a digital baseline, and analog transfer at three levels of wtn."""
    from report_data import write_run

    return write_run(
        tmp_path_factory.mktemp("runs") / "sweep",
        arms=("digital-tl", "analog-tl"),
        axes={"wtn": [0, 5, 10]},
        seeds=4,
        epochs=6,
    )


@pytest.fixture
def trials(sweep: Path) -> Any:
    """The trials of `sweep`."""
    return read_run(sweep, "sweep").chosen.rows


@pytest.fixture(autouse=True)
def _denormals_back() -> Any:
    """Training flushes denormals for the whole process; other tests are not to notice."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
