"""The training loop: what it yields, where it can be left and entered, what stops it."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, OneCycleLR

from analogtl.config.training import Finetune
from analogtl.errors import RunError
from analogtl.models.build import build_model
from analogtl.tasks.images import load_task
from analogtl.tasks.task import batch_count
from analogtl.training.loop import (
    EpochDone,
    Position,
    build_optimizer,
    evaluate,
    lr_at,
    train_epochs,
)


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=[0, 1, 2], samples_per_class=30)


def build(task, seed=0):
    torch.manual_seed(seed)
    sizes = {"image_size": task.image_size, "in_channels": task.in_channels}
    return build_model("mlp_digits", n_classes=task.n_classes, **sizes)


def train(task, section, *, start=None, pause=lambda: False, model=None, optimizer=None):
    model = model or build(task)
    optimizer = optimizer or build_optimizer(model, section, lr=section.lr, kind="digital")
    position = start or Position()
    events = train_epochs(
        model, optimizer, task, section, lr=section.lr, seed=0, start=position, pause=pause
    )
    return model, optimizer, events


def test_each_epoch_is_yielded_and_learning_lowers_the_error(task):
    section = Finetune(dataset="digits", epochs=4, lr=0.05)
    model, _, events = train(task, section)
    before = evaluate(model, task.test, task)
    done = list(events)
    assert [event.epoch for event in done] == [1, 2, 3, 4]
    assert all(event.train.n_samples == len(task.train) for event in done)
    assert done[-1].train.loss < done[0].train.loss
    assert evaluate(model, task.test, task).error < before.error / 2


def test_an_epoch_left_in_the_middle_goes_on_bit_for_bit(task):
    section = Finetune(dataset="digits", epochs=2, lr=0.05, momentum=0.9, schedule="onecycle")
    whole, _, events = train(task, section)
    expected = list(events)

    calls = iter(range(1000))
    model, optimizer, events = train(task, section, pause=lambda: next(calls) == 4)
    position = next(event for event in events if isinstance(event, Position))
    assert (position.epoch, position.batch) == (1, 5)
    torch.rand(3)  # the consumer may draw numbers of its own
    _, _, events = train(task, section, start=position, model=model, optimizer=optimizer)
    resumed = list(events)

    assert [e.train for e in resumed] == [e.train for e in expected]
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_pausing_does_not_change_the_training(task):
    section = Finetune(dataset="digits", epochs=1, lr=0.05)
    whole, _, events = train(task, section)
    list(events)
    paused, _, events = train(task, section, pause=lambda: True)
    for event in events:
        if not isinstance(event, EpochDone):
            torch.manual_seed(99)
    for a, b in zip(paused.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_names_epoch_and_step(task):
    section = Finetune(dataset="digits", epochs=1, lr=0.05)
    model = build(task)
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    _, _, events = train(task, section, model=model)
    with pytest.raises(RunError, match=r"epoch 1, step 1"):
        list(events)


def test_outputs_that_are_not_finite_do_not_score_as_chance(task):
    model = build(task)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        evaluate(model, task.test, task)


def test_evaluate_counts_errors(task):
    class First(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(x), 1)

    score = evaluate(First(), task.test, task)
    assert score.error == pytest.approx(100 * float((task.test.labels != 0).float().mean()))
    share = float((task.test.labels == 0).float().mean())
    log_sum = math.log(math.e + 2)
    assert score.loss == pytest.approx(log_sum - share, rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [
        ("constant", partial(ConstantLR, factor=1)),
        ("cosine", partial(CosineAnnealingLR, T_max=100)),
        ("onecycle", partial(OneCycleLR, max_lr=0.1, total_steps=100, cycle_momentum=False)),
    ],
)
def test_the_schedules_are_torchs(schedule, torchs):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torchs(optimizer)
    for step in range(100):
        assert lr_at(schedule, 0.1, step, 100) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        if step < 99:
            scheduler.step()


def test_a_rest_smaller_than_asked_for_joins_the_batch_before_it(task):
    images = task.train
    assert len(images) == 90
    for smallest, sizes in ((1, [89, 1]), (2, [90])):
        order = {"seed": 0, "epoch": 1, "shuffle": True}
        served = [y for _, y in task.batches(images, 89, smallest=smallest, **order)]
        assert [len(labels) for labels in served] == sizes
        assert batch_count(90, 89, smallest) == len(sizes)
        assert sorted(torch.cat(served).tolist()) == sorted(images.labels.tolist())
    assert [batch_count(n, 4, 2) for n in (0, 1, 3, 4, 5, 6, 8, 9)] == [0, 1, 1, 1, 1, 2, 2, 2]
