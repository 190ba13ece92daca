"""A whole training step on the fast engine, on one thread and on several: wall time.

    ANALOGTL_DATA=... python tests/benchmarks/bench_threads.py [--threads 2] [--model NAME]

The same network is stepped on one thread and on several in turns, in one process, so that other
work on the machine meets both; printed are medians over the turns, of wall and of processor time.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from bench_step import MAPPED, WARM_UP, images

from analogtl.config.arrays import Analog, Convert
from analogtl.config.training import Finetune
from analogtl.crossbar.convert import to_analog
from analogtl.fastsim import use_threads
from analogtl.models.build import build_model
from analogtl.study.threads import use_one_thread
from analogtl.training.loop import build_optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="swin_cifar_tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of each turn")
    arguments = parser.parse_args()
    use_one_thread()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    data = images("cifar", 8, 10)
    model = build_model(arguments.model, n_classes=2, image_size=32, in_channels=3)
    analog = Analog(engine="fast", mapping=MAPPED)
    model = to_analog(model, analog, Convert(), seed=1, example=data[0][0][:2]).model
    model.train()
    optimizer = build_optimizer(model, Finetune(dataset="cifar100"), lr=0.01, kind="analog")

    def steps(count: int) -> None:
        for x, y in data[:count]:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    steps(WARM_UP["cifar"])
    wall: dict[int, list[float]] = {1: [], arguments.threads: []}
    spent: dict[int, list[float]] = {1: [], arguments.threads: []}
    for _ in range(arguments.turns):
        for threads in wall:
            use_threads(threads)
            steps(1)  # of which updates are left over, as they are after the last one timed
            began, cpu = time.perf_counter(), time.process_time()
            steps(arguments.steps)
            wall[threads].append((time.perf_counter() - began) / arguments.steps)
            spent[threads].append((time.process_time() - cpu) / arguments.steps)
    for threads, times in wall.items():
        middle, cpu = statistics.median(times), statistics.median(spent[threads])
        print(f"{threads} threads: {1000 * middle:.0f} ms a step, {1000 * cpu:.0f} ms of cores")
    ratio = statistics.median(wall[arguments.threads]) / statistics.median(wall[1])
    print(f"wall time, {arguments.threads} threads / 1: {ratio:.2f}")


if __name__ == "__main__":
    main()
