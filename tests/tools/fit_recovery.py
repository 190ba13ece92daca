"""Fit devices that aihwkit simulates, again and again: are their parameters found?

    python tests/tools/fit_recovery.py FILE.csv [CLASS ...] [--repetitions 100] [--devices 20]

Each repetition draws devices, gives them cycles of pulses up and down, and fits them; its rows, one
a parameter, are added to FILE.csv. What is in the file is not run again, so that the command goes
on where it was stopped. A parameter is found if it is within 10 % of the truth, or the truth within
its interval. Printed are, for each class, which were chosen and how often the true one was told
among those that tie; for each kind of parameter the share found, the share whose interval holds the
truth, and half the width of the interval relative to the truth (median).
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from aihwkit.simulator.configs import devices as aihwkit_devices

from analogtl.crossbar.pulsed_tile import PulsedTile
from analogtl.fitting.choose import fit_pulses
from analogtl.fitting.pulses import Pulses, Trace

SPREAD = {"dw_min_dtod": 0.2, "up_down_dtod": 0.05, "w_max_dtod": 0.1, "w_min_dtod": 0.1}
COMMON = {"up_down": 0.1, "dw_min_std": 0.3, "w_max": 0.9, "w_min": -0.8} | SPREAD
LINEAR = {"gamma_up": 0.6, "gamma_down": 0.5, "gamma_up_dtod": 0.05, "gamma_down_dtod": 0.05}
POW = {"pow_gamma": 1.6, "pow_gamma_dtod": 0.1, "pow_up_down": 0.1, "pow_up_down_dtod": 0.05}
EXP = {"A_up": 0.05, "A_down": 0.08, "gamma_up": 2.5, "gamma_down": 2.2, "a": 1.0, "b": 0.0}
CURVES = {  # with nodes where the fit has them
    "piecewise_up": [1.6, 1.3, 1.0, 0.8, 0.9, 1.0, 1.1, 1.2, 1.1, 0.8, 0.4],
    "piecewise_down": [0.3, 0.7, 1.1, 1.3, 1.2, 1.0, 0.8, 0.6, 0.9, 1.2, 1.5],
}
TRUTHS = {
    "ConstantStepDevice": {"dw_min": 0.02},
    "SoftBoundsReferenceDevice": {"dw_min": 0.04, "write_noise_std": 0.5},
    "LinearStepDevice": dict(dw_min=0.03, write_noise_std=0.5, **LINEAR),
    "PowStepDevice": dict(dw_min=0.06, write_noise_std=0.3, **POW),
    "ExpStepDevice": dict(dw_min=0.03, write_noise_std=0.3, **EXP),
    "PiecewiseStepDevice": dict(dw_min=0.03, write_noise_std=0.3, **CURVES),
}


def simulate(device, n, cycles, pulses, seed):
    tile = PulsedTile(device, n, seed)
    tile.saturate(-1)
    signs = np.tile(np.repeat([1, -1], pulses // 2), cycles)
    marks = np.repeat(np.arange(cycles), 2 * (pulses // 2))
    readings = []
    for sign in signs:
        tile.pulse(int(sign))
        readings.append(tile.weights())
    starts = np.diff(marks, prepend=-1) != 0
    columns = np.ascontiguousarray(np.array(readings).T)
    traces = [Trace(str(i), one, signs, marks, starts) for i, one in enumerate(columns)]
    return Pulses(tuple(traces), -1.0, 1.0, "weight", columns.size)


def true_values(truth):
    for name, value in truth.items():
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", one) for i, one in enumerate(value))
        elif isinstance(value, float):
            yield name, value


def repetition(name, device, data, seed, given):
    """Rows of one: the choice in each, and a parameter's truth, value and interval."""
    start = time.process_time()
    result = fit_pulses(data, name if given else None)
    seconds = time.process_time() - start
    told = {"class": name, "seed": seed, "seconds": seconds, "chosen": result.device_class}
    told["ties"] = " ".join([result.device_class, *result.ties])
    if result.device_class != name:
        result = fit_pulses(data, name)
    found = result.population
    for parameter, truth in true_values(asdict(device)):
        if parameter in found.intervals:
            low, high = found.intervals[parameter]
            curve, _, node = parameter.rstrip("]").partition("[")
            value = found.parameters[curve][int(node)] if node else found.parameters[parameter]
            numbers = {"truth": truth, "value": value, "low": low, "high": high}
            yield told | {"parameter": parameter} | numbers


def kind(parameter):
    endings = {"_dtod": "spreads", "_std": "noise", "]": "curves"}
    names = {"dw_min": "step", "up_down": "asymmetry", "w_max": "bounds", "w_min": "bounds"}
    ends = (of for end, of in endings.items() if parameter.endswith(end))
    return names.get(parameter) or next(ends, "shape")


def summary(rows, by):
    """Shares of parameters found and inside, in percent, and the median of relative widths."""
    truth = rows["truth"]
    inside = (rows["low"] <= truth) & (truth <= rows["high"])
    near = (rows["value"] - truth).abs() <= 0.1 * truth.abs()
    below = (rows["high"] < truth) & ~near
    above = (rows["low"] > truth) & ~near
    width = (rows["high"] - rows["low"]) / 2 / truth.abs()
    of = rows.assign(found=inside | near, inside=inside, below=below, above=above, width=width)
    shares = of.groupby(by, sort=False)[["found", "inside", "below", "above"]].mean() * 100
    counts = of.groupby(by, sort=False).agg(
        number=("found", "size"), half_width=("width", "median")
    )
    return counts.join(shares).round({"half_width": 3, **dict.fromkeys(shares, 1)})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("classes", nargs="*", default=[*TRUTHS])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--pulses", type=int, default=200)
    parser.add_argument("--given", action="store_true", help="the class is given, not chosen")
    options = parser.parse_args()
    rows = pd.read_csv(options.file) if options.file.exists() else None
    done = set() if rows is None else {*zip(rows["class"], rows["seed"], strict=True)}
    for seed in range(1, options.repetitions + 1):  # all classes get equally far
        for name in options.classes:
            if (name, seed) in done:
                continue
            device = getattr(aihwkit_devices, name)(**COMMON, **TRUTHS[name])
            draw = len(TRUTHS) * seed + [*TRUTHS].index(name)  # other devices in each class
            data = simulate(device, options.devices, options.cycles, options.pulses, draw)
            new = pd.DataFrame(repetition(name, device, data, seed, options.given))
            with options.file.open("a") as file:
                file.write(new.to_csv(index=False, header=file.tell() == 0))
    rows = pd.read_csv(options.file)
    fits = rows.drop_duplicates(["class", "seed"])
    for name, of in fits.groupby("class", sort=False):
        right, told = (of["chosen"] == name).sum(), [name in one.split() for one in of["ties"]]
        seconds, chosen = of["seconds"].median(), of["chosen"].value_counts().to_dict()
        print(
            f"{name}: {len(of)} fits of {seconds:.1f} s; right {right}, told {sum(told)}; {chosen}"
        )
    for by in (["class"], ["class", "parameter"], ["kind"]):
        print("", summary(rows.assign(kind=rows["parameter"].map(kind)), by).to_string(), sep="\n")


if __name__ == "__main__":
    main()
