"""What a stage computes on: the CPU, or a GPU where torch has CUDA.

The name of a device is a part of what a result rests on: a GPU adds in another order.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from functools import cache

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError
from analogtl.vocabulary import Arm, Device

VISIBLE = "CUDA_VISIBLE_DEVICES"


@cache
def gpus() -> int:
    """Count the GPUs that torch can use; where there is no driver, torch is not imported."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def visible_gpus() -> list[str]:
    """Name the GPUs that torch can use, as ``CUDA_VISIBLE_DEVICES`` does."""
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(gpus())]


@cache
def has_cuda_arrays() -> bool:
    """Whether aihwkit is compiled for CUDA; its wheels on PyPI are not."""
    from aihwkit.simulator.rpu_base import cuda

    return bool(cuda.is_compiled())


def device_of(experiment: Experiment, stage: str, arm: Arm | None = None) -> str:
    """Choose what a stage computes on, ``cpu`` or ``cuda``."""
    wanted = experiment.run.device
    if wanted is Device.CPU or (wanted is Device.AUTO and not gpus()):
        return Device.CPU.value
    on_arrays = stage == "finetune" and arm is not None and arm.analog
    # With engine = "auto" a layer may be on either engine, and one network is on one device.
    if on_arrays and (experiment.analog.engine != "aihwkit" or not has_cuda_arrays()):
        return Device.CPU.value
    return Device.CUDA.value


def check_device(wanted: str) -> None:
    """See that this machine has a device.

    Raises:
        ExperimentError: If it has not.
    """
    if wanted == Device.CUDA and not gpus():
        raise ExperimentError(
            f"run.device = 'cuda': torch finds no GPU on {platform.node()}: no driver, no GPU that "
            "is visible, or a torch without CUDA; expected 'auto' or 'cpu' here"
        )


def arrays_stay(experiment: Experiment, arms: Iterable[Arm]) -> str:
    """Say, where the rest is on a GPU, that arrays are not, and why; else \"\"."""
    arms = list(arms)
    analog = [arm for arm in arms if arm.analog and device_of(experiment, "finetune", arm) == "cpu"]
    rest = {device_of(experiment, "pretrain")} if any(arm.pretrained for arm in arms) else set()
    rest |= {device_of(experiment, "finetune", arm) for arm in arms if not arm.analog}
    if not analog or Device.CUDA.value not in rest:
        return ""
    why = "the fast engine is one for the CPU"
    if experiment.analog.engine == "aihwkit":
        why = "this aihwkit is not compiled for CUDA"
    return f"device: {', '.join(analog)} on the CPU, the rest on CUDA: {why}"
