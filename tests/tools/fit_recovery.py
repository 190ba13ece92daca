"""Fit devices that aihwkit simulates, again and again: are their parameters found?

    python tests/tools/fit_recovery.py [CLASS ...] [--repetitions 100] [--devices 20]

Each repetition draws devices, gives them cycles of pulses up and down, and fits them. A parameter
is found if it is within 10 % of the truth or the truth within its interval. A row a parameter:
share of the repetitions in which it was; a line a class: the classes that were chosen, and seconds.
"""

import argparse
import time
from collections import Counter
from dataclasses import asdict

import numpy as np
from aihwkit.simulator.configs import devices as aihwkit_devices

from analogtl.crossbar.pulsed_tile import PulsedTile
from analogtl.fitting.choose import fit_pulses
from analogtl.fitting.pulses import Pulses, Trace

SPREAD = {"dw_min_dtod": 0.2, "up_down_dtod": 0.05, "w_max_dtod": 0.1, "w_min_dtod": 0.1}
COMMON = {"up_down": 0.1, "dw_min_std": 0.3, "w_max": 0.9, "w_min": -0.8} | SPREAD
LINEAR = {"gamma_up": 0.6, "gamma_down": 0.5, "gamma_up_dtod": 0.05, "gamma_down_dtod": 0.05}
POW = {"pow_gamma": 1.6, "pow_gamma_dtod": 0.1, "pow_up_down": 0.1, "pow_up_down_dtod": 0.05}
EXP = {"A_up": 0.05, "A_down": 0.08, "gamma_up": 2.5, "gamma_down": 2.2, "a": 1.0, "b": 0.0}
CURVES = {"piecewise_up": [1.6, 0.8, 1, 1.3, 0.4], "piecewise_down": [0.3, 1.4, 1, 0.6, 1.5]}
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


def within(population, name, truth):
    value = population.parameters.get(name)
    if not isinstance(value, float) or not isinstance(truth, float):
        return None
    low, high = population.intervals.get(name, (value, value))
    return low <= truth <= high or abs(value - truth) <= 0.1 * abs(truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*", default=[*TRUTHS])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--pulses", type=int, default=200)
    options = parser.parse_args()
    for name in options.classes:
        device = getattr(aihwkit_devices, name)(**COMMON, **TRUTHS[name])
        truth, chosen, found, seconds = asdict(device), Counter(), {}, 0.0
        for seed in range(1, options.repetitions + 1):
            data = simulate(device, options.devices, options.cycles, options.pulses, seed)
            start = time.process_time()
            chosen[fit_pulses(data).device_class] += 1
            seconds += time.process_time() - start
            population = fit_pulses(data, name).population
            for parameter in population.intervals:
                inside = within(population, parameter, truth.get(parameter))
                if inside is not None:
                    found.setdefault(parameter, []).append(inside)
        print(f"{name}: {seconds / options.repetitions:.1f} s a fit; chosen: {dict(chosen)}")
        for parameter, inside in found.items():
            print(f"    {parameter:20s} {100 * np.mean(inside):5.1f} %", flush=True)


if __name__ == "__main__":
    main()
