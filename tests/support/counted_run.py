"""A run of one trial whose counts are known, to be costed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

# Two layers; 10 images of two vectors in epoch 1, 20 in epoch 2; 4 images a step.
HARDWARE: dict[str, Any] = {
    "pulse_energy": 2.0,
    "read_energy": 3.0,
    "adc_energy": 5.0,
    "dac_energy": 7.0,
    "digital_energy": 11.0,
    "memory_energy": 13.0,
    "pulse_time": 0.5,
    "read_time": 0.25,
    "digital_rate": 8.0,
    "parallel_arrays": 2.0,
    "endurance": 100.0,
}


def kinds(array: str, numbers: str) -> dict[str, float]:
    """Columns of one array: sum, mean and max of its pulses up, then of those down."""
    names = [f"{array}_{way}_{what}" for way in ("up", "down") for what in ("sum", "mean", "max")]
    return dict(zip(names, map(float, numbers.split()), strict=True))


def write(folder: Path, arm: str = "analog-tl", algorithm: str = "c-ttv2", **changed: Any) -> Path:
    """Write a run of one trial whose counts are known; ``changed``: columns of its layers."""
    base = {"experiment": "run", "trial": "t", "seed": 0}
    trial = {**base, "arm": arm, "lr": 0.1, "algorithm": algorithm, "engine": "fast"}
    trial |= {"status": "done", "error_final": 10.0}
    epochs = [
        {**base, "arm": arm, "stage": "finetune", "epoch": epoch, "split": split, "error": 10.0,
         "n_samples": n}
        for epoch, split, n in [(0, "test", 9), (1, "train", 10), (1, "test", 9),
                                (2, "train", 20), (2, "test", 9)]
    ]  # fmt: skip
    layer = {"engine": "fast", "desired_bl": 5, "transfer_bl": 1, "tokens_per_image": 2}
    one = {**base, **layer, "layer": "one", "shape": "3x4", "tiles": 1, "reads": 60}
    one |= {"read_conversions": 180, "pass_conversions": 60 * 7}
    one |= kinds("a", "120 10 40 240 20 50") | kinds("c", "12 1 3 0 0 0")
    # Two tiles side by side: 60 vectors x (4 inputs + 2 x 2 outputs).
    two = {**base, **layer, "layer": "two", "shape": "2x4", "tiles": 2, "reads": 120}
    two |= {"read_conversions": 240, "pass_conversions": 60 * 8}
    two |= kinds("a", "960 120 150 80 10 10") | kinds("c", "0 0 0 8 1 2")
    pulses = [
        {**base, "layer": "one", "epoch": 1, **kinds("a", "60 5 30 60 5 30"),
         **kinds("c", "12 1 3 0 0 0")},
        {**base, "layer": "one", "epoch": 2, **kinds("a", "60 5 30 180 15 30"),
         **kinds("c", "0 0 0 0 0 0")},
        {**base, "layer": "two", "epoch": 1, **kinds("a", "320 40 60 0 0 0"),
         **kinds("c", "0 0 0 8 1 2")},
        {**base, "layer": "two", "epoch": 2, **kinds("a", "640 80 90 80 10 10"),
         **kinds("c", "0 0 0 0 0 0")},
    ]  # fmt: skip
    folder.mkdir(exist_ok=True)
    tables = {"trials": [trial], "epochs": epochs, "layers": [one | changed, two | changed]}
    for name, rows in {**tables, "pulses": pulses}.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    settings = {"name": "run", "hardware": HARDWARE, "finetune": {"batch_size": 4}}
    (folder / "experiment.resolved.json").write_text(json.dumps(settings))
    return folder
