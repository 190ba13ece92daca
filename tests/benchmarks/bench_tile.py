"""One tile on the fast engine against the stock engine: update, forward, backward by shape.

    python tests/benchmarks/bench_tile.py [--rounds 5] [--heavy-tailed] [--mean]
        [--algorithm c-ttv2] [--device PRESET] [--gamma 0] [--shape IN OUT VECTORS] [--rules]

HfO2 devices, c-TTv2 with the defaults of an experiment unless said, one thread; the shapes are
those of the paper's Swin for a batch of 8 images unless one is given. Both engines take the same
inputs in turn in one process; the medians of the processor time and their ratios are printed.
``--heavy-tailed`` draws the gradients from Student's t with 2 degrees of freedom in place of a
Gaussian. The fast engine does a column's pulses when the column is read, once in as many vectors as
there are inputs: it is warmed up for as long, so that each update has the work of one update. Not
so for Tiki-Taka, which reads one column in a batch: ``--mean`` and many rounds measure it fairly.

``--rules`` compares the updates of the built-in c-TTv2 and AGAD with those of the same algorithms
as rules in Python files, in the same way.
"""

import argparse
import os
import statistics
import time
from functools import partial

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch

from analogtl.config.arrays import Analog
from analogtl.crossbar.rpu_config import Pulsing, build_rpu_config
from analogtl.fastsim import fast_rpu_config
from analogtl.fastsim.rules import RuleText
from analogtl.fastsim.rules.check import as_rule

SHAPES = (  # inputs, outputs, vectors of a batch
    (96, 288, 2048),
    (96, 96, 2048),
    (384, 96, 2048),
    (192, 768, 512),
    (768, 192, 512),
    (384, 1536, 128),
    (1536, 384, 128),
    (768, 3072, 128),
    (3072, 768, 128),
)


def tiles(inputs, outputs, vectors, arguments):
    """The same array on either engine, with weights set."""
    unsplit = Analog(
        algorithm=arguments.algorithm,
        device={"preset": arguments.device},
        compound={"gamma": arguments.gamma} if arguments.gamma else {},
        mapping={"max_input_size": 0, "max_output_size": 0},
    )
    config = build_rpu_config(
        unsplit, Pulsing.given(unsplit, -(-vectors // 8)), construction_seed=1
    )
    weight = 0.2 * torch.randn(outputs, inputs)
    made = {}
    for engine, rpu_config in (("fast", fast_rpu_config(config, seed=1)), ("stock", config)):
        tile = rpu_config.tile_class(outputs, inputs, rpu_config)
        tile.set_weights(weight)
        tile.set_learning_rate(0.01)
        made[engine] = tile
    return made


def compare_rules(rounds):
    """The update of the built-in algorithms against that of the rules which are the same."""
    print("ms of processor time of an update, built in -> as a rule (ratio)")
    for algorithm, file in (("c-ttv2", "c_ttv2.py:Rule"), ("agad", "agad.py:Rule")):
        for inputs, outputs, vectors in ((96, 288, 2048), (384, 96, 2048), (96, 96, 2048)):
            unsplit = Analog(
                algorithm=algorithm, mapping={"max_input_size": 0, "max_output_size": 0}
            )
            config = build_rpu_config(
                unsplit, Pulsing.given(unsplit, -(-vectors // 8)), construction_seed=1
            )
            configs = [config, as_rule(config, RuleText.read(file))]
            made = [fast_rpu_config(one, seed=1) for one in configs]
            pair = [one.tile_class(outputs, inputs, one).tile for one in made]
            times = [[], []]
            for tile in pair:
                tile.set_learning_rate(0.01)
            for round_ in range(rounds + 1):
                x, d = torch.randn(vectors, inputs), torch.randn(vectors, outputs)
                for tile, own in zip(pair, times, strict=True):
                    began = time.process_time()
                    tile.update(x, d)
                    if round_:  # the first round warms up
                        own.append(1000 * (time.process_time() - began))
            built_in, rule = map(statistics.median, times)
            same = torch.equal(*(tile.get_weights() for tile in pair))
            print(
                f"{algorithm:>7} {f'{inputs}x{outputs}, {vectors}':>16} {built_in:6.2f} -> "
                f"{rule:6.2f} (x{rule / built_in:4.2f}){'' if same else ', OTHER BITS'}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--heavy-tailed", action="store_true")
    parser.add_argument("--mean", action="store_true", help="print means, not medians")
    parser.add_argument("--algorithm", default="c-ttv2")
    parser.add_argument("--device", default="ReRamArrayHfO2PresetDevice")
    parser.add_argument("--gamma", type=float, default=0.0)
    parser.add_argument("--shape", type=int, nargs=3, help="inputs, outputs, vectors")
    parser.add_argument("--rules", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    if arguments.rules:
        compare_rules(arguments.rounds)
        return
    kind = "Student t(2)" if arguments.heavy_tailed else "Gaussian"
    print(f"ms of processor time, stock -> fast (ratio); {kind} gradients")
    print(f"{'in x out, vectors':>22} {'update':>26} {'forward':>26} {'backward':>26}")
    student = torch.distributions.StudentT(2.0)
    for shape in [arguments.shape] if arguments.shape else SHAPES:
        inputs, outputs, vectors = shape
        both = tiles(*shape, arguments)
        times = {
            (engine, part): [] for engine in both for part in ("update", "forward", "backward")
        }
        ahead = inputs // vectors + 1
        for round_ in range(-ahead, arguments.rounds + 1):
            x = torch.randn(vectors, inputs)
            heavy = arguments.heavy_tailed
            d = student.sample((vectors, outputs)) if heavy else torch.randn(vectors, outputs)
            if round_ < 0:
                both["fast"].tile.update(x, d, False, False, False, False)
                continue
            for engine, made in both.items():
                tile = made.tile
                parts = {
                    "forward": partial(tile.forward, x, False, False, False, False),
                    "backward": partial(tile.backward, d, False, False, False),
                    "update": partial(tile.update, x, d, False, False, False, False),
                }
                for part, call in parts.items():
                    began = time.process_time()
                    call()
                    if round_:  # the first round warms up
                        times[engine, part].append(1000 * (time.process_time() - began))
        cells = []
        for part in ("update", "forward", "backward"):
            middle = statistics.fmean if arguments.mean else statistics.median
            stock, fast = (middle(times[e, part]) for e in ("stock", "fast"))
            cells.append(f"{stock:8.3f} -> {fast:7.3f} (x{stock / fast:4.1f})")
        print(f"{f'{inputs}x{outputs}, {vectors}':>22} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
