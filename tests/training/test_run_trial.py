"""What a worker says of a trial while it runs, and in its row."""

from __future__ import annotations

import os

import pytest

from analogtl.study.trial import trials_of
from analogtl.training import run_trial as module


@pytest.fixture
def told(tiny, run_dir, monkeypatch):
    """The contents of ``progress.json`` in their order, and the row."""
    written = []
    monkeypatch.setattr(module, "write_json", lambda _, content: written.append(content))
    settings = {"arms": ["digital-tl"], "epochs": 3, "validation_fraction": 0.2}
    (trial,) = trials_of(tiny(finetune=settings), sweep=False)
    return written, module.run_trial(trial, run_dir)


def test_progress_names_the_stage_and_what_is_left_of_it(told):
    written, row = told
    assert [(one["stage"], one["epoch"], one["epochs"]) for one in written] == [
        *(("pretrain", epoch, 2) for epoch in range(3)),
        *(("finetune", epoch, 3) for epoch in range(4)),
    ]
    for one in written:
        left = one["epochs"] - one["epoch"]
        expected = one["wall_s"] * left if one["epoch"] else None
        assert one["seconds_left"] == pytest.approx(expected)
        assert one["trial"] == row["trial"]
        assert one["pid"] == os.getpid()
        # The time of a trial begins after the pretraining.
        assert (one["began_at"] is None) == (one["stage"] == "pretrain")
    assert written[-1]["error"] == row["error_final"]
