"""Training elsewhere than on the CPU, as far as that can be seen without a GPU; and on threads."""

from typing import Any

import pytest
import torch
from torch import nn

from analogtl.config.training import Finetune
from analogtl.errors import ExperimentError
from analogtl.fastsim import threads as threads_module
from analogtl.models.build import build_model
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.tasks.images import load_task
from analogtl.training import stages
from analogtl.training.loop import build_optimizer, evaluate, train_epochs
from analogtl.training.network import on_device


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=[0, 1], samples_per_class=10, download=False)


@pytest.fixture
def model():
    return build_model("mlp_digits", n_classes=2, image_size=8, in_channels=1)


# Tensors on "meta" have no numbers: the first one that is asked for is an error, which comes after
# the images went through the network there.
def test_images_are_judged_where_the_network_is(task, model):
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.device.type))
    with pytest.raises(RuntimeError, match="meta"):
        evaluate(model.to("meta"), task.test, task)
    assert seen == ["meta"]


def test_images_are_trained_on_where_the_network_is(task, model):
    section = Finetune(epochs=1)
    optimizer = build_optimizer(model.to("meta"), section, lr=0.1, kind="digital")
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.device.type))
    with pytest.raises(RuntimeError, match="meta"):
        next(train_epochs(model, optimizer, task, section, lr=0.1, seed=0))
    assert seen == ["meta"]


def test_only_for_a_gpu_is_a_network_moved(model, monkeypatch):
    moved = []
    monkeypatch.setattr(nn.Module, "to", lambda self, where: moved.append(where) or self)
    assert on_device(model, "cpu") is model
    assert on_device(model, "cuda") is model
    assert moved == ["cuda"]


def test_the_generator_of_a_gpu_is_kept_for_dropout(monkeypatch):
    from analogtl.training import loop

    state = torch.arange(16, dtype=torch.uint8)
    kept = {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, device: kept.update({device: s}))
    cuda = torch.device("cuda")
    assert loop._rng_state(cuda) is state
    loop._set_rng_state(cuda, state)
    assert kept == {cuda: state}


def test_a_trial_planned_for_a_gpu_does_not_run_without_one(tiny: Any, run_dir: RunDir):
    trial = trials_of(tiny(run={"device": "cuda"}), sweep=False)[0]
    assert trial.basis.device == "cuda"
    with pytest.raises(ExperimentError, match="CUDA"):
        next(stages.finetune(trial, run_dir))
    with pytest.raises(ExperimentError, match="CUDA"):
        next(stages.pretrain(trial.experiment, run_dir))


def test_a_trial_on_several_threads_has_the_same_rows(tiny: Any, tmp_path):
    arms = {"arms": ["analog-scratch"], "samples_per_class": 20, "batch_size": 40}
    found = []
    for threads in (1, 2):
        experiment = tiny(finetune=arms, analog={"engine": "fast"}, run={"threads": threads})
        [trial] = trials_of(experiment, sweep=False)
        run = RunDir(tmp_path / str(threads), "tiny")
        rows: list[dict[str, Any]] = []
        for new in stages.finetune(trial, run, RunLimits(threads=threads)):
            rows += [{k: v for k, v in row.items() if k != "wall_s"} for row in new]
            assert threads_module.several() == (threads > 1)
        found.append(rows)
    assert found[0] == found[1]
    assert found[0][-1]["weights_changed"] > 0
    stages.prepare_torch()
