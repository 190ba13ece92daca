"""A short real training that tells what a trial will take, where nothing like it was run yet."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analogtl.scheduling.jobs import Job
from analogtl.scheduling.local import LocalPool
from analogtl.scheduling.plan import Sample
from analogtl.study.run_dir import Options, RunDir
from analogtl.study.trial import Trial
from analogtl.vocabulary import Arm

FUNCTION = "analogtl.scheduling.measuring:train_briefly"
STEP_SECONDS = 5.0  # of training steps that are timed, at most
EVALUATED = 256  # images that the evaluation is timed on, at most


def measure(trial: Trial, *, timeout: float = 600.0) -> Sample | None:
    """Time a few steps of a trial in a process of its own, and extrapolate.

    A pretrained start costs what a random one does, so nothing is pretrained for it.

    Args:
        trial: The trial.
        timeout: Seconds after which it is given up.

    Returns:
        The sample, for `analogtl.scheduling.plan.estimate`; None if it did not work out.
    """
    with TemporaryDirectory() as folder:
        run = RunDir(Path(folder), "measured")
        pool = LocalPool(run, 1, function=FUNCTION)
        try:
            pool.submit(Job.of(trial, run, Options(), FUNCTION))
            end = time.monotonic() + timeout
            outcomes = pool.poll(0.2)
            while not outcomes and time.monotonic() < end:
                outcomes = pool.poll(0.2)
        finally:
            pool.close()
    row = outcomes[0].row if outcomes else None
    if not row or row.get("status") != "measured":
        return None
    return Sample(trial.settings(), row["seconds"], row["memory_mb"], "a short measurement")


def train_briefly(trial: Trial, run: RunDir, options: Options) -> dict[str, Any]:
    """What the process of `measure` does."""
    from analogtl.study import run_dir as runs

    programs = trial.arm is Arm.WEIGHT_PROGRAMMING
    seconds = _program_briefly(trial) if programs else _fit_briefly(trial)
    return {
        "trial": trial.id,
        "status": "measured",
        "seconds": seconds,
        "memory_mb": runs.usage()["peak_memory_mb"],
    }


def _program_briefly(trial: Trial) -> float:
    """Seconds that a trial of weight programming takes, by its first epochs."""
    from analogtl.training.programming import Program

    section = trial.experiment.programming
    began = time.perf_counter()
    job = Program(section, trial.experiment.analog, lr=trial.lr, seed=trial.seed)
    epochs = (measure.wall_s for measure in job.run() if measure.epoch)
    next(epochs, None)  # the first one compiles and allocates
    once, spent, done = time.perf_counter() - began, 0.0, 0
    for seconds in epochs:
        spent, done = spent + seconds, done + 1
        if spent > STEP_SECONDS:
            break
    return once + (section.epochs - 1) * spent / max(1, done)


def _fit_briefly(trial: Trial) -> float:
    """Seconds that a training takes, by a few of its steps and images."""
    from analogtl.crossbar import convert as transfer
    from analogtl.tasks.images import Split
    from analogtl.training import stages
    from analogtl.training.loop import build_optimizer, evaluate, train_epochs

    stages.prepare_torch()
    experiment = trial.experiment
    section = experiment.finetune
    task = stages.task_of(experiment, "finetune")
    began = time.perf_counter()
    model = stages.fresh_model(experiment, task)
    if trial.is_analog:
        model = transfer.to_analog(
            model,
            experiment.analog,
            experiment.convert,
            seed=trial.seed,
            example=stages.example_of(task),
        ).model
    once = time.perf_counter() - began

    steps = -(-len(task.train) // section.batch_size)
    kind = stages.kind_of(trial)
    optimizer = build_optimizer(model, section, lr=trial.lr, kind=kind)
    training = train_epochs(
        model, optimizer, task, section, lr=trial.lr, seed=trial.seed, pause=lambda: True
    )
    done, spent = 0, 0.0
    next(training, None)  # the first step compiles and allocates
    began = time.perf_counter()
    for _ in training:
        done, spent = done + 1, time.perf_counter() - began
        if spent > STEP_SECONDS or done >= steps:
            break
    step = spent / max(1, done)

    images = [split for split in (task.validation, task.test) if len(split)]
    began = time.perf_counter()
    timed = Split(images[-1].images[:EVALUATED], images[-1].labels[:EVALUATED])
    evaluate(model, timed, task)
    image = (time.perf_counter() - began) / max(1, len(timed))
    evaluated = sum(len(split) for split in images)
    epoch = steps * step + evaluated * image
    return once + section.epochs * epoch + evaluated * image
