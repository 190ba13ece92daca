"""A whole training step on the fast engine against the stock engine and against digital training.

    ANALOGTL_DATA=... python tests/benchmarks/bench_step.py [--model swin_cifar_desk] [--steps 3]
        [--algorithm c-ttv2] [--device PRESET]

Batches of 8 images of the bear / cattle task (random images where there is no CIFAR-100), HfO2
devices and c-TTv2 unless said, one thread. The networks are stepped in turn in one process; of each
the median of the processor time is printed, and the ratios. Conversion is timed once. `--only NAME`
measures one network in a process of its own, for its peak memory.
"""

import argparse
import os
import resource
import statistics
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch
import torch.nn.functional as F

from analogtl.config.schema import Analog, Convert, Finetune
from analogtl.crossbar.convert import to_analog
from analogtl.errors import ExperimentError
from analogtl.models.build import build_model
from analogtl.tasks.images import batches, load_task
from analogtl.training.loop import build_optimizer

MAPPED = {"weight_scaling_omega": 0.6}
UNMAPPED = {"weight_scaling_omega": 0.0}
NETWORKS = {
    "digital": None,
    "fast": Analog(engine="fast", mapping=MAPPED),
    "stock": Analog(engine="aihwkit", mapping=MAPPED),
    "fast, default mapping": Analog(engine="fast", mapping=UNMAPPED),
    "stock, default mapping": Analog(engine="aihwkit", mapping=UNMAPPED),
}
# The fast engine does a column's pulses when the column is read: after as many steps as a tile has
# columns per vector, each step has the work of one step. The stock engine needs one to warm up.
WARM_UP = 6
RATIOS = (
    ("stock", "fast"),
    ("stock, default mapping", "fast, default mapping"),
    ("fast", "digital"),
)


def images(count):
    """Batches of 8 images, the same for every network."""
    try:
        task = load_task("cifar100", classes=["bear", "cattle"], download=False)
    except ExperimentError:
        print("no CIFAR-100 found: random images")
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(count, 8, 3, 32, 32, generator=generator)
        return [(x_BCHW, torch.arange(8) % 2) for x_BCHW in x]
    served = batches(task.train, 8, task=task, seed=0, epoch=1, shuffle=True)
    return [next(served) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="swin_cifar_tiny")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--algorithm", default="c-ttv2")
    parser.add_argument("--device", default="ReRamArrayHfO2PresetDevice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    section = Finetune(dataset="cifar100")
    data = images(WARM_UP + arguments.steps)
    built = {}
    for name in arguments.only or NETWORKS:
        torch.manual_seed(0)
        model = build_model(arguments.model, n_classes=2, image_size=32, in_channels=3)
        began = time.process_time()
        kind = "digital"
        if NETWORKS[name] is not None:
            kind = "analog"
            example = data[0][0][:2]
            own = {"algorithm": arguments.algorithm, "device": {"preset": arguments.device}}
            analog = Analog(**NETWORKS[name].model_dump(exclude_unset=True), **own)
            model = to_analog(model, analog, Convert(), seed=1, example=example).model
            print(f"{name}: conversion {time.process_time() - began:.1f} s", flush=True)
        model.train()
        built[name] = (model, build_optimizer(model, section, lr=section.lr, kind=kind))
    times: dict[str, list[float]] = {name: [] for name in built}
    for number, (x, y) in enumerate(data):
        for name, (model, optimizer) in built.items():
            if name.startswith("stock") and number < WARM_UP - 1:
                continue
            began = time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if number >= WARM_UP:
                times[name].append(time.process_time() - began)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        spread = f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f}"
        print(f"{name:24} {1000 * median[name]:8.0f} ms a step ({spread})")
    for slow, fast in RATIOS:
        if slow in median and fast in median:
            print(f"{slow} / {fast}: {median[slow] / median[fast]:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB ({', '.join(built)})")


if __name__ == "__main__":
    main()
