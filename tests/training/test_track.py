"""Rows that are sent to trackers, and trackers that fail."""

import sys
from types import SimpleNamespace

import pytest

from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial


def a_trial(tiny, *track):
    finetune = {"arms": ["digital-scratch"], "epochs": 2}
    [trial] = trials_of(tiny(finetune=finetune, report={"track": list(track)}), sweep=False)
    return trial


def wandb_of(monkeypatch, log, finish=lambda: None):
    asked = {}

    def init(**settings):
        asked.update(settings)
        return SimpleNamespace(log=log, finish=finish)

    module = SimpleNamespace(init=init, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return asked


def test_each_epoch_is_sent_once_and_offline(tiny, run_dir, monkeypatch):
    sent, ended = [], []
    log = lambda numbers, step: sent.append((step, numbers))  # noqa: E731
    asked = wandb_of(monkeypatch, log, lambda: ended.append(1))
    row = run_trial(a_trial(tiny, "wandb"), run_dir)
    assert [epoch for epoch, _ in sent] == [0, 1, 2]
    assert sent[-1][1]["test/error"] == row["error_final"]
    assert asked["mode"] == "offline"
    assert ended == [1]


@pytest.mark.parametrize("where", ["missing", "log"])
def test_a_tracker_that_fails_is_a_note_and_the_trial_is_done(
    tiny, run_dir, monkeypatch, caplog, where
):
    def log(_numbers, step):
        raise OSError(f"no space at {step}")

    wandb_of(monkeypatch, log)
    if where == "missing":
        monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_trial(a_trial(tiny, "wandb"), run_dir)["status"] == "done"
    assert caplog.text.count("report.track: wandb") == 1


def test_trackers_change_no_trial(tiny):
    assert a_trial(tiny).key == a_trial(tiny, "mlflow", "tensorboard").key
