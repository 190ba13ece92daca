"""What an epoch costs beside its steps: analogtl's loop against a bare loop over the same batches.

    python tests/benchmarks/bench_training.py [--engine aihwkit] [--rounds 9]

Both loops train one converted `swin_digits` on the same images, in turn, in one process with one
thread; the medians' ratio is printed. The bound is 1.03 on the stock engine.
"""

import argparse
import os
import statistics
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch
import torch.nn.functional as F

from analogtl.config.schema import Analog, Convert, Finetune
from analogtl.crossbar.convert import to_analog
from analogtl.models.build import build_model
from analogtl.tasks.images import batches, load_task
from analogtl.training.loop import build_optimizer, train_epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="aihwkit", choices=["aihwkit", "fast"])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    task = load_task("digits", classes=[5, 6, 7, 8, 9], samples_per_class=60)
    section = Finetune(dataset="digits", epochs=1, lr=0.01)

    def model():
        torch.manual_seed(0)
        sizes = {"image_size": task.image_size, "in_channels": task.in_channels}
        digital = build_model("swin_digits", n_classes=task.n_classes, **sizes)
        analog, example = Analog(engine=arguments.engine), torch.zeros(2, 1, 8, 8)
        made = to_analog(digital, analog, Convert(), seed=0, example=example).model
        return made, build_optimizer(made, section, lr=section.lr, kind="analog")

    # The batches are made beforehand: the bare loop has nothing but the steps.
    served = list(batches(task.train, 8, task=task, seed=0, epoch=1, shuffle=True))

    def bare(network, optimizer):
        network.train()
        for x, y in served:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    def ours(network, optimizer):
        for _ in train_epochs(network, optimizer, task, section, lr=section.lr, seed=0):
            pass

    times = {bare: [], ours: []}
    network, optimizer = model()
    for round_ in range(arguments.rounds + 1):
        for loop, seconds in times.items():
            began = time.perf_counter()
            loop(network, optimizer)
            if round_:  # the first round warms up
                seconds.append(time.perf_counter() - began)
    medians = {loop: statistics.median(seconds) for loop, seconds in times.items()}
    for loop, seconds in times.items():
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{loop.__name__:5} {medians[loop]:.3f} s an epoch of {len(served)} steps ({spread})")
    print(f"ratio {medians[ours] / medians[bare]:.3f} (engine {arguments.engine})")


if __name__ == "__main__":
    main()
