"""The training loop as a generator, the learning-rate schedules, and evaluation.

Nothing here prints, records or saves: the consumer of the iterator decides. Everything random is a
function of (seed, epoch), so an epoch can be left and entered again at any step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from aihwkit.optim import AnalogSGD
from aihwkit.optim.context import AnalogContext
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from analogtl.config.training import Pretrain, Training
from analogtl.crossbar.defaults import Plan
from analogtl.errors import RunError
from analogtl.models.own import told_with_line
from analogtl.tasks.task import Task, batch_count


@dataclass(frozen=True)
class Score:
    """How a model does on a split: mean loss, the task's metric, number of examples.

    ``balanced_error``: the mean of the classes' own errors, percent; None while it is trained, and
    where there are no classes.
    """

    loss: float
    error: float
    n_samples: int
    balanced_error: float | None = None


@dataclass(frozen=True)
class Position:
    """A place in the training, before a step."""

    epoch: int = 1  # epoch that the next step belongs to, from 1
    batch: int = 0  # batches of it that are done
    loss_sum: float = 0.0  # this, judged and seen: over those batches
    judged: float = 0  # sum of `Task.judged`
    seen: int = 0
    wall_s: float = 0.0  # seconds spent on them
    # State of the device's generator there (dropout); None at the start of an epoch.
    rng: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class EpochDone:
    """One epoch is over; ``next`` is where the training stands."""

    epoch: int
    train: Score
    lr: float
    wall_s: float
    next: Position


def train_epochs(
    model: nn.Module,
    optimizer: Optimizer,
    task: Task,
    section: Training,
    *,
    lr: float,
    seed: int,
    smallest_batch: int = 1,
    start: Position = Position(),
    pause: Callable[[], bool] = lambda: False,
) -> Iterator[EpochDone | Position]:
    """Train, and yield after every epoch, and in the middle of one wherever `pause` says so.

    Args:
        model: Digital or analog.
        optimizer: Its learning rate is set here, by the schedule.
        task: The examples, and what is to be learned from them.
        section: Epochs, batch size, schedule, augmentation, label smoothing.
        lr: Peak learning rate.
        seed: Seed of the order of the examples, their random changes and dropout.
        smallest_batch: Fewest examples of a step; see `Task.batches`.
        start: Where to go on.
        pause: Asked after each step; when true, the position is yielded, so that it can be saved.

    Yields:
        EpochDone after an epoch, Position where `pause` asked for it.

    Raises:
        RunError: If the loss is not finite; it names epoch and step.
    """
    steps = max(1, batch_count(len(task.train), section.batch_size, smallest_batch))
    total = steps * section.epochs
    position = start
    device = _device(model)
    while position.epoch <= section.epochs:
        epoch = position.epoch
        if position.rng is None:
            torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
        else:
            _set_rng_state(device, position.rng)
        model.train()
        loss_sum, judged, seen = position.loss_sum, position.judged, position.seen
        before = position.wall_s
        began = time.perf_counter()
        served = task.batches(
            task.train,
            section.batch_size,
            seed=seed,
            epoch=epoch,
            shuffle=True,
            augment=section.augment,
            start=position.batch,
            smallest=smallest_batch,
        )
        rate = lr
        for step, (inputs, targets) in enumerate(served, position.batch):
            rate = lr_at(section.schedule, lr, (epoch - 1) * steps + step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            inputs, targets = inputs.to(device), targets.to(device)
            with told_with_line():
                outputs = model(inputs)
            loss = task.loss(outputs, targets, label_smoothing=section.label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                raise RunError(f"the loss became {value} at epoch {epoch}, step {step + 1}")
            loss.backward()
            optimizer.step()
            count = len(targets)
            loss_sum += value * count
            judged += task.judged(outputs, targets).sum().item()
            seen += count
            if step + 1 < steps and pause():
                spent = before + time.perf_counter() - began
                rng = _rng_state(device)
                yield Position(epoch, step + 1, loss_sum, judged, seen, spent, rng)
                _set_rng_state(device, rng)  # whatever the consumer drew meanwhile
                before, began = spent, time.perf_counter()
        wall_s = before + time.perf_counter() - began
        position = Position(epoch + 1)
        train = Score(loss_sum / max(1, seen), task.score(judged, seen), seen)
        yield EpochDone(epoch, train, rate, wall_s, position)


def evaluate(model: nn.Module, split: Sized, task: Task) -> Score:
    """Loss and metric of a model on a split, without learning.

    Raises:
        RunError: If the outputs are not finite: they would silently score as chance.
    """
    model.eval()
    loss_sum, judged = 0.0, []
    device = _device(model)
    with torch.no_grad():
        size = task.evaluated_at_once
        for inputs, targets in task.batches(split, size, seed=0, epoch=0, shuffle=False):
            inputs, targets = inputs.to(device), targets.to(device)
            with told_with_line():
                outputs = model(inputs)
            loss_sum += task.loss(outputs, targets, mean=False).item()
            judged.append(task.judged(outputs, targets).cpu())
    if not math.isfinite(loss_sum):
        raise RunError("the network's outputs are not finite")
    judged_N = torch.cat(judged) if judged else torch.zeros(0)
    count = len(split)
    return Score(
        loss_sum / max(1, count),
        task.score(judged_N.sum().item(), count),
        count,
        task.balanced(split, judged_N),
    )


def planned(section: Training, task: Task) -> Plan:
    """Sum up a training for the choice of the arrays' settings."""
    total = 1000  # steps; what a schedule is on average hardly depends on it
    rates = [lr_at(section.schedule, 1.0, step, total) for step in range(total)]
    mean = sum(rates) / total
    rms = math.sqrt(sum(rate * rate for rate in rates) / total)
    return Plan(section.epochs * len(task.train), section.lr, mean, rms)


def lr_at(schedule: str, lr: float, step: int, total: int) -> float:
    """Learning rate at a step.

    Args:
        schedule: "constant"; "cosine" to zero; "onecycle": from lr / 25 up to lr over the first
            30 % of the steps, then down to lr / 2.5e5, both along a cosine.
        lr: Peak learning rate.
        step: From 0.
        total: Number of steps.
    """

    def cosine(high: float, low: float, share: float) -> float:
        return low + (high - low) * (1 + math.cos(math.pi * share)) / 2

    if schedule == "cosine":
        return cosine(lr, 0.0, step / max(1, total))
    if schedule == "onecycle":
        turn = 0.3 * total - 1
        if step < turn:
            return cosine(lr / 25, lr, step / turn)
        return cosine(lr, lr / 2.5e5, (step - turn) / max(1.0, total - 1 - turn))
    return lr


def build_optimizer(model: nn.Module, section: Training, *, lr: float, kind: str) -> Optimizer:
    """The optimizer of a stage or arm.

    Args:
        section: Momentum and weight decay; for pretraining also the optimizer's name.
        kind: "digital", "analog" (AnalogSGD: arrays by their algorithm, the rest by SGD) or
            "frozen" (arrays stay as they are). What requires no gradient stays, too.
    """
    settings: dict[str, Any] = {
        "lr": lr,
        "momentum": section.momentum,
        "weight_decay": section.weight_decay,
    }
    if kind != "digital":
        held = [context for context in _contexts(model) if not _is_trained(context, kind)]
        ids = set(map(id, held))
        parameters = [one for one in model.parameters() if id(one) not in ids]
        optimizer = AnalogSGD(parameters, **settings)
        optimizer.regroup_param_groups(model)

        def forget(*_: Any) -> None:
            for context in held:  # what the passes have left for an update of it
                context.reset()

        optimizer.register_step_post_hook(forget)
        return optimizer
    if isinstance(section, Pretrain) and section.optimizer == "adamw":
        return AdamW(model.parameters(), lr=lr, weight_decay=section.weight_decay)
    return SGD(model.parameters(), **settings)


def trained_sizes(model: nn.Module, kind: str) -> dict[str, int]:
    """Count what is trained, as columns of ``trials.csv``: cells of arrays, digital parameters.

    A cell holds a weight, whatever number of arrays an algorithm has for it.
    """
    contexts = list(_contexts(model))
    tiles = [one.analog_tile for one in contexts if _is_trained(one, kind)]
    ids = set(map(id, contexts))
    return {
        "trained_cells": sum(tile.in_size * tile.out_size for tile in tiles),
        "trained_digital": sum(
            one.numel() for one in model.parameters() if one.requires_grad and id(one) not in ids
        ),
    }


def _contexts(model: nn.Module) -> Iterator[AnalogContext]:
    """What stands for each array among the parameters."""
    return (one for one in model.parameters() if isinstance(one, AnalogContext))


def _is_trained(context: AnalogContext, kind: str) -> bool:
    return bool(kind == "analog" and context.requires_grad)


def _device(model: nn.Module) -> torch.device:
    """What a model computes on."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _rng_state(device: torch.device) -> Tensor:
    """State of the generator that draws dropout."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_rng_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
