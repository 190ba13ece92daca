"""A whole training step on the fast engine against the stock engine and against digital training.

    ANALOGTL_DATA=... python tests/benchmarks/bench_step.py [--model swin_cifar_desk] [--batch 8]

Images of the bear / cattle task or of the digits (random ones where there is no CIFAR-100), HfO2
devices and c-TTv2 unless others are named, one thread. The networks are stepped in turn in one
process; of each the median of the processor time is printed, and the ratios. Conversion is timed
once. ``--model`` and ``--batch`` take several; ``--only NAME`` measures one network in a process of
its own, for its peak memory.
"""

import argparse
import itertools
import os
import resource
import statistics
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch
import torch.nn.functional as F

from analogtl.config.arrays import Analog, Convert
from analogtl.config.training import Finetune
from analogtl.crossbar.convert import to_analog
from analogtl.errors import ExperimentError
from analogtl.models.build import build_model
from analogtl.tasks.images import load_task
from analogtl.training.loop import build_optimizer
from analogtl.vocabulary import Algorithm

MAPPED = {"weight_scaling_omega": 0.6}
UNMAPPED = {"weight_scaling_omega": 0.0}
NETWORKS = {
    "digital": None,
    "fast": ("fast", MAPPED),
    "stock": ("aihwkit", MAPPED),
    "fast, default mapping": ("fast", UNMAPPED),
    "stock, default mapping": ("aihwkit", UNMAPPED),
}
# The fast engine does a column's pulses when the column is read: after as many steps as a tile has
# columns per vector, each step has the work of one step. The stock engine needs one to warm up.
WARM_UP = {"cifar": 6, "digits": 60}
RATIOS = (
    ("stock", "fast"),
    ("stock, default mapping", "fast, default mapping"),
    ("fast", "digital"),
)


def images(kind, batch, count):
    """The first so many batches of images, the same for every network."""
    name, shape = ("cifar100", (3, 32, 32)) if kind == "cifar" else ("digits", (1, 8, 8))
    try:
        classes = ["bear", "cattle"] if kind == "cifar" else None
        task = load_task(name, classes=classes, download=False)
    except ExperimentError:
        print(f"no {name} found: random images")
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(count, batch, *shape, generator=generator)
        return [(x_BCHW, torch.arange(batch) % 2) for x_BCHW in x]
    served = itertools.chain.from_iterable(
        task.batches(task.train, batch, seed=0, epoch=epoch, shuffle=True)
        for epoch in itertools.count(1)
    )
    return list(itertools.islice(served, count))


def measure(model_name, batch, arguments):
    """Step the networks of one model in turn and print what they take."""
    kind = "digits" if "digits" in model_name else "cifar"
    size, channels, classes = (32, 3, 2) if kind == "cifar" else (8, 1, 10)
    section, warm_up = Finetune(dataset="digits"), WARM_UP[kind]
    data = images(kind, batch, warm_up + arguments.steps)
    print(f"{model_name}, batches of {batch}, {arguments.device}, {arguments.algorithm}")
    built = {}
    for name in arguments.only or NETWORKS:
        torch.manual_seed(0)
        model = build_model(model_name, n_classes=classes, image_size=size, in_channels=channels)
        began = time.process_time()
        if network := NETWORKS[name]:
            engine, mapping = network
            analog = Analog(
                engine=engine,
                mapping=mapping,
                algorithm=arguments.algorithm,
                device={"preset": arguments.device},
            )
            example = data[0][0][:2]
            model = to_analog(model, analog, Convert(), seed=1, example=example).model
            print(f"{name}: conversion {time.process_time() - began:.1f} s", flush=True)
        model.train()
        arrays = "analog" if network else "digital"
        built[name] = (model, build_optimizer(model, section, lr=section.lr, kind=arrays))
    times: dict[str, list[float]] = {name: [] for name in built}
    for number, (x, y) in enumerate(data):
        for name, (model, optimizer) in built.items():
            if name.startswith("stock") and number < warm_up - 1:
                continue
            began = time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if number >= warm_up:
                times[name].append(time.process_time() - began)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        spread = f"{1000 * min(seconds):.2f} to {1000 * max(seconds):.2f}"
        print(f"{name:24} {1000 * median[name]:9.2f} ms a step ({spread})")
    for slow, fast in RATIOS:
        if slow in median and fast in median:
            print(f"{slow} / {fast}: {median[slow] / median[fast]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["swin_cifar_tiny"])
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="ReRamArrayHfO2PresetDevice")
    parser.add_argument("--algorithm", choices=list(Algorithm), default="c-ttv2")
    parser.add_argument("--only", choices=NETWORKS, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for model, batch in itertools.product(arguments.model, arguments.batch):
        measure(model, batch, arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
