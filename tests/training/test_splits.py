"""Each split counts for what its name says, in the mode that it belongs to; so do the summaries."""

from __future__ import annotations

import pytest
import torch
from probes import SIZES, WRONG, Oracle, Watched, ended, small_task

from analogtl.config.training import Finetune
from analogtl.study import network
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import resumable, stages
from analogtl.training.loop import Score, build_optimizer, evaluate, train_epochs

# `Oracle` is wrong on the images with a wrong label, and in training mode on all the others.
ERROR = {"validation": 100 * WRONG["validation"], "test": 100 * WRONG["test"]}
ERROR["train"] = 100 * (1 - WRONG["train"])


@pytest.fixture
def task(monkeypatch):
    """The small task in place of any other, and `Oracle` in place of any network."""
    task = small_task()
    stages._cached_task.cache_clear()
    monkeypatch.setattr(stages, "task_for", lambda *_, **__: task)
    monkeypatch.setattr(network, "build_model", lambda *_, **__: Oracle())
    yield task
    stages._cached_task.cache_clear()


@pytest.mark.parametrize("arm", ["digital-tl", "digital-scratch", "analog-tl", "frozen-array"])
def test_every_row_is_of_its_own_split_in_the_mode_it_belongs_to(tiny, run_dir, task, arm):
    experiment = tiny(finetune={"arms": [arm], "classes": None, "batch_size": 5})
    (trial,) = trials_of(experiment, sweep=False)
    row = ended(stages.finetune(trial, run_dir))
    epochs = read_rows(run_dir.trial_path(trial.id) / "epochs.csv")
    assert len(epochs) == 2 + 2 * 3
    for epoch in epochs:
        assert float(epoch["error"]) == pytest.approx(ERROR[epoch["split"]]), epoch
        assert int(epoch["n_samples"]) == SIZES[epoch["split"]]
    assert row["error_validation"] == pytest.approx(ERROR["validation"])
    for name in ("error_transfer", "error_final", "error_best"):
        assert row[name] == pytest.approx(ERROR["test"])


def test_convert_compares_on_the_test_images_before_and_after(tiny, run_dir, task, monkeypatch):
    scored = []

    def watched(model, split, task):
        scored.append((type(model.layer).__name__, split))
        return Score(0.0, 10.0 * len(scored), len(split))

    monkeypatch.setattr(stages, "evaluate", watched)
    found = ended(stages.convert(tiny(pretrain={"classes": None}), run_dir, seed=0))
    assert [split is task.test for _, split in scored] == [True, True]
    assert [name.startswith("Analog") for name, _ in scored] == [False, True]
    assert (found.error_digital, found.error_analog) == (10, 20)


def test_pretraining_and_fine_tuning_each_have_their_own_task(tiny, run_dir, monkeypatch):
    stages._cached_task.cache_clear()
    asked = {}

    def load(dataset, *, classes, **_):
        asked[str(classes)] = small_task()
        return asked[str(classes)]

    trained = []
    real = resumable.train_epochs

    def watched(model, optimizer, task, *rest, **more):
        trained.append(task)
        return real(model, optimizer, task, *rest, **more)

    monkeypatch.setattr(stages, "task_for", load)
    monkeypatch.setattr(network, "build_model", lambda *_, **__: Oracle())
    monkeypatch.setattr(resumable, "train_epochs", watched)
    (trial,) = trials_of(tiny(finetune={"arms": ["digital-tl"]}), sweep=False)
    ended(stages.finetune(trial, run_dir))
    stages._cached_task.cache_clear()
    source, target = trained
    assert source is asked["(0, 1, 2)"]
    assert target is asked["(3, 4, 5)"]


def test_training_serves_training_images_alone_and_all_of_them():
    task = small_task()
    section = Finetune(dataset="digits", epochs=2, batch_size=5)
    seen: list = []
    model = Watched(seen)
    list(train_epochs(model, build_optimizer(model, section, lr=0.01, kind="digital"), task,
                      section, lr=0.01, seed=0))  # fmt: skip
    numbers = torch.cat([x[:, 0, 1, 1] for x, *_ in seen]).round().long().tolist()
    assert sorted(numbers) == sorted([*range(SIZES["train"])] * 2)


def test_evaluation_draws_nothing_and_trains_nothing():
    task = small_task()
    model = Watched([])
    model.train()
    before = torch.get_rng_state()
    scores = [evaluate(model, task.test, task) for _ in range(2)]
    assert scores[0] == scores[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert model.seen == []


# -- the summary of the epochs ---------------------------------------------------------------------


def scripted(monkeypatch, task, **errors):
    """Evaluation gives these errors, epoch by epoch from epoch 0 on."""
    left = {name: iter(values) for name, values in errors.items()}

    def evaluate(_model, split, _task):
        (name,) = (name for name in left if getattr(task, name) is split)
        return Score(1.0, float(next(left[name])), len(split))

    monkeypatch.setattr(resumable, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("test", "best", "epoch_best"),
    [([50, 20, 30], 20, 1), ([10, 40, 30], 30, 2), ([50, 30, 30], 30, 1)],
)
def test_what_sums_up_a_trial(tiny, run_dir, task, monkeypatch, test, best, epoch_best):
    scripted(monkeypatch, task, test=test, validation=[60, 15, 40])
    (trial,) = trials_of(tiny(finetune={"arms": ["digital-scratch"]}), sweep=False)
    row = ended(stages.finetune(trial, run_dir))
    assert row["error_transfer"] == test[0]
    assert row["error_final"] == 30
    assert (row["error_best"], row["epoch_best"]) == (best, epoch_best)
    assert row["error_validation"] == 40


def test_without_epochs_the_start_is_all_there_is(tiny, run_dir, task, monkeypatch):
    scripted(monkeypatch, task, test=[50], validation=[60])
    experiment = tiny(finetune={"arms": ["digital-scratch"], "epochs": 0})
    row = ended(stages.finetune(trials_of(experiment, sweep=False)[0], run_dir))
    assert (row["error_transfer"], row["error_final"], row["error_best"]) == (50, 50, 50)
    assert (row["epoch_best"], row["error_validation"]) == (0, 60)


def test_the_error_of_a_pretraining_is_the_last_one_on_test_images(
    tiny, run_dir, task, monkeypatch
):
    scripted(monkeypatch, task, test=[50, 20, 30], validation=[1, 2, 3])
    assert ended(stages.pretrain(tiny(), run_dir)).error == 30


def test_every_layer_has_its_own_share_of_changed_cells(tiny, run_dir, task, monkeypatch):
    monkeypatch.setattr(network, "build_model", lambda *_, **__: Watched([]))
    shares = {"body": 0.25, "head": 0.75}
    monkeypatch.setattr(resumable.ResumableTraining, "changed", lambda _: (0.5, shares))
    (trial,) = trials_of(tiny(finetune={"arms": ["analog-scratch"]}), sweep=False)
    row = ended(stages.finetune(trial, run_dir))
    layers = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
    assert {layer["layer"]: float(layer["weights_changed"]) for layer in layers} == shares
    assert row["weights_changed"] == 0.5
