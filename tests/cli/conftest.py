"""Where the commands of the tests run, and what they run."""

import pytest
from command_line import FakeTrials

from analogtl.scheduling import sweep


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder: no exp.toml and no runs of anybody."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake(monkeypatch):
    """Trials that are not trained."""
    trials = FakeTrials()
    monkeypatch.setattr(sweep, "run_trials", trials)
    return trials
