"""How far digital fine-tuning moves weights, in steps of devices, and what is left of it in steps.

``python tests/tools/needed_steps.py desk/diffusion_digits`` trains digitally, on one seed, and
prints for devices of so many states: the rms change in a layer (least and most), the largest share
of a layer's cells that change by half a step or more, and the metric where every change is rounded
to whole steps.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from analogtl.config.load import load_experiment
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.training import stages
from analogtl.training.loop import evaluate, train_epochs
from analogtl.vocabulary import Arm

STATES = (4.327, 21, 100, 1000)  # of HfO2, OM, and finer ones; a device's range is 2


def ended(steps):
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def main(name: str) -> None:
    """Train, round and print."""
    experiment = load_experiment(name, ["finetune.arms=digital-tl"])
    trial = next(one for one in trials_of(experiment, sweep=False) if one.arm is Arm.DIGITAL_TL)
    stages.prepare_torch()
    task = stages.task_of(experiment, "finetune")
    with TemporaryDirectory() as folder:
        run = RunDir(Path(folder), "steps")
        model = ended(stages._start_model(trial, run, task, stages.RunLimits()))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.lr)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    matrices = [key for key, tensor in before.items() if tensor.dim() == 2 and ".weight" in key]
    matrices = [key for key in matrices if "embedding" not in key]
    print(f"before: {evaluate(model, task.test, task).error:.4g}")
    for _ in train_epochs(
        model, optimizer, task, experiment.finetune, lr=trial.lr, seed=trial.seed
    ):
        pass
    after = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    print(f"after: {evaluate(model, task.test, task).error:.4g}")
    omega = experiment.analog.mapping.get("weight_scaling_omega", 0.6)
    for states in STATES:
        told, mixed = [], dict(after)
        for key in matrices:
            step = 2 / states * before[key].abs().max() / omega
            moved = (after[key] - before[key]) / step
            far = (moved.abs() >= 0.5).float().mean().item()
            told.append((moved.square().mean().sqrt().item(), far))
            mixed[key] = before[key] + moved.round() * step
        model.load_state_dict(mixed)
        rms, share = zip(*told, strict=True)
        print(
            f"{states:g} states: {min(rms):.2g} to {max(rms):.2g} steps, {100 * max(share):.2g} % "
            f"by half a step; rounded {evaluate(model, task.test, task).error:.4g}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
