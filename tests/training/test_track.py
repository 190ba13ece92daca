"""Rows that are sent to trackers, and trackers that fail."""

import os
import sys
from types import SimpleNamespace

import pytest

from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial


def some_trials(tiny, *track, seeds=(0,)):
    changes = {"finetune": {"arms": ["digital-scratch"], "epochs": 2}, "sweep": {"seeds": seeds}}
    return trials_of(tiny(**changes, report={"track": list(track)}), sweep=False)


def a_trial(tiny, *track):
    [trial] = some_trials(tiny, *track)
    return trial


class Fake:
    """A tracker's library as far as it is used: what it is told, as (epoch, name, value)."""

    def __init__(self, name):
        self.told, self.ended, self.asked = [], [], {}
        end = lambda *_: self.ended.append(1)  # noqa: E731
        session = SimpleNamespace(log=self.log, finish=end)
        many = {"init": self.init(session), "Settings": dict}
        writer = SimpleNamespace(
            add_scalar=lambda key, value, epoch: self.told.append((epoch, key, value)),
            flush=lambda: self.told.append((0, "flush", 0)), close=end,
        )  # fmt: skip
        client = SimpleNamespace(
            get_experiment_by_name=lambda name: self.asked.get(name),
            create_experiment=self.experiment,
            create_run=self.run,
            log_param=lambda run, key, value: self.asked.update({key: value}),
            log_metric=lambda run, key, value, step: self.told.append((step, key, value)),
            set_terminated=end,
        )
        self.modules = {
            "tensorboard": {"torch.utils.tensorboard": {"SummaryWriter": self.init(writer)}},
            "wandb": {"wandb": many},
            "mlflow": {"mlflow": {"MlflowClient": self.init(client)}},
            "trackio": {"trackio": many},
        }[name]

    def experiment(self, name):
        assert name not in self.asked
        self.asked |= {name: SimpleNamespace(experiment_id="7"), "project": name}
        return "7"

    def run(self, number, run_name):
        assert number == "7"
        self.asked["name"] = run_name
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def init(self, made):
        def init(*args, **settings):
            self.asked |= {"place": args, **settings}
            return made

        return init

    def log(self, numbers, step):
        self.told += [(step, key, value) for key, value in numbers.items()]


@pytest.fixture
def fake(monkeypatch):
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)

    def install(name):
        made = Fake(name)
        for module, content in made.modules.items():
            monkeypatch.setitem(sys.modules, module, SimpleNamespace(**content))
        return made

    return install


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_each_epoch_is_sent_once_to_a_place_in_the_run(tiny, run_dir, fake, name):
    tracker = fake(name)
    for trial in some_trials(tiny, name, seeds=(0, 1)):
        row = run_trial(trial, run_dir)
    sent = [(epoch, value) for epoch, key, value in tracker.told if key == "test/error"]
    assert [epoch for epoch, _ in sent] == [0, 1, 2] * 2
    assert sent[-1][1] == row["error_final"]
    assert {key for _, key, _ in tracker.told} >= {"train/loss", "test/balanced_error"}
    assert tracker.ended == [1, 1]
    inside = str(run_dir.path / "tracking" / name)
    if name == "tensorboard":
        assert tracker.told[-1][1] == "flush"  # it can be watched while it runs
    else:
        assert (tracker.asked["project"], tracker.asked["name"]) == ("tiny", trial.id)
        settings = tracker.asked.get("config", tracker.asked)
        assert (settings["finetune.epochs"], settings["model.architecture"]) == (2, "mlp_digits")
    if name == "trackio":
        assert os.environ["TRACKIO_DIR"] == inside
    else:
        assert any(inside in str(value) for value in (tracker.asked, *tracker.asked.values()))
    if name == "wandb":
        # Several trials in a process are sessions of their own, and silent ones.
        own = {"mode": "offline", "group": "digital-scratch", "reinit": "create_new"}
        assert own.items() <= tracker.asked.items()
        assert tracker.asked["settings"] == {"silent": True, "console": "off"}
    if name in ("wandb", "mlflow"):  # which make no folder
        assert os.path.isdir(inside)


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [("wandb", "WANDB_MODE", "online"), ("mlflow", "MLFLOW_TRACKING_URI", "http://there:5000")],
)
def test_a_tracker_goes_where_its_own_variable_says(
    tiny, run_dir, fake, monkeypatch, name, variable, value
):
    tracker = fake(name)
    monkeypatch.setenv(variable, value)
    run_trial(a_trial(tiny, name), run_dir)
    assert value in (tracker.asked.get("mode"), *tracker.asked["place"])


@pytest.mark.parametrize("where", ["missing", "log", "close"])
def test_a_tracker_that_fails_is_a_note_and_others_go_on(
    tiny, run_dir, monkeypatch, caplog, fake, where
):
    def fails(*_args, **_more):
        raise OSError("no space")

    whole, broken = fake("tensorboard"), fake("wandb")
    session = {"log": broken.log, "finish": lambda: None}
    session |= {"log": fails} if where == "log" else {"finish": fails}
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: SimpleNamespace(**session))
    if where == "missing":
        monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_trial(a_trial(tiny, "wandb", "tensorboard"), run_dir)["status"] == "done"
    assert caplog.text.count("report.track: wandb") == 1
    assert {epoch for epoch, _, _ in whole.told} == {0, 1, 2}


def test_trackers_change_no_trial(tiny):
    assert a_trial(tiny).key == a_trial(tiny, "mlflow", "tensorboard").key
