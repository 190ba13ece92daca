"""Synthetic run directories for the report's tests: tidy CSV with a planted elbow, no training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analogtl.report.style import luminance
from analogtl.study.columns import LAYER_COLUMNS
from analogtl.study.tables import read_rows, write_rows
from analogtl.vocabulary import TRANSFER_ARMS, Arm

START_AND_FLOOR = {  # test error before fine-tuning and after it, percent
    Arm.DIGITAL_TL: (30.0, 13.0),
    Arm.ANALOG_TL: (34.0, 17.0),
    Arm.DIGITAL_SCRATCH: (48.0, 26.0),
    Arm.ANALOG_SCRATCH: (49.0, 31.0),
    Arm.FROZEN_ARRAY: (34.0, 27.0),
    Arm.SHUFFLED_GRADIENTS: (34.0, 28.0),
    Arm.LORA_DIGITAL: (34.0, 16.0),
    Arm.LORA_ANALOG: (34.0, 22.0),
    Arm.WEIGHT_PROGRAMMING: (60.0, 5.0),
}
PARTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def layer_names(*depths: int) -> list[str]:
    """The layers of a Swin-like network with so many blocks in each stage."""
    return [
        f"stages.{stage}.blocks.{block}.{part}"
        for stage, depth in enumerate(depths)
        for block in range(depth)
        for part in PARTS
    ]


LAYERS = ("patch.proj", *layer_names(2, 2), "head")
DEEP = layer_names(2, 2, 6, 2)


def write_run(
    folder: Path,
    *,
    arms: Sequence[str] = TRANSFER_ARMS,
    axes: dict[str, Sequence[Any]] | None = None,
    lrs: Sequence[float] = (0.01,),
    seeds: int = 5,
    epochs: int = 12,
    elbow: float = 15.0,
    slope: float = 0.8,
    noise: float = 1.5,
    n_classes: int = 2,
    layers: Sequence[str] = LAYERS,
    failed: Sequence[str] = (),
    missing: Sequence[str] = (),
    start: int = 0,
    name: str | None = None,
) -> Path:
    """Write a run's CSV and JSON: the error is flat up to ``elbow``, then rises by ``slope``.

    ``failed`` and ``missing`` name trials that failed, or that were planned and did not run.
    """
    rng = np.random.default_rng(start)
    name = name or folder.name
    axes = axes or {}
    trials: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    layer_rows: list[dict[str, Any]] = []
    planned: list[str] = []
    for seed, arm in itertools.product(range(seeds), arms):
        analog = Arm(arm).analog
        start_error, floor_error = START_AND_FLOOR[Arm(arm)]
        grid = itertools.product(*axes.values()) if analog else [(None,) * len(axes)]
        for values, lr in itertools.product(list(grid), lrs):
            level = dict(zip(axes, values, strict=True))
            named = [f"{axis}={value}" for axis, value in level.items() if value is not None]
            trial = ",".join([f"arm={arm}", *named, f"lr={lr}", f"seed={seed}"])
            planned.append(trial)
            if trial in missing:
                continue
            base = {"experiment": name, "trial": trial, "seed": seed, "arm": arm, **level}
            numbers = [v for v in values if isinstance(v, (int, float))]
            excess = slope * max(0.0, sum(numbers) - elbow)
            worse = 4.0 * abs(np.log10(lr / 0.01))
            first = start_error + excess + rng.normal(0, noise)
            floor = floor_error + 0.7 * excess + worse + rng.normal(0, noise)
            curve = [
                max(0.0, floor + (first - floor) * np.exp(-e / 3) + rng.normal(0, noise / 3))
                for e in range(epochs + 1)
            ]
            share_end = 0.0 if arm == "frozen-array" else rng.uniform(0.35, 0.45)
            moved = [share_end * (1 - np.exp(-e / 8)) for e in range(epochs + 1)]
            fails = trial in failed
            for epoch, error in enumerate(curve[:3] if fails else curve):
                changed = moved[epoch] if analog else None
                here = base | {"stage": "finetune", "epoch": epoch, "weights_changed": changed}
                rows += [
                    here | {"split": split, "error": error}
                    for split in ("train", "validation", "test")
                ]
            best = int(np.argmin(curve))
            outcome: dict[str, Any] = {"status": "failed", "message": "loss is not finite"}
            if not fails:
                outcome = {
                    "status": "done",
                    "error_final": curve[-1],
                    "error_best": curve[best],
                    "epoch_best": best,
                    "error_validation": curve[-1] + rng.normal(0, noise / 3),
                    "weights_changed": moved[-1] if analog else None,
                }
            trials.append(
                base
                | {
                    "lr": lr,
                    "algorithm": level.get("analog.algorithm", "c-ttv2") if analog else None,
                    "engine": "fast" if analog else "",
                    "n_classes": n_classes,
                    "error_transfer": curve[0],
                    "wall_s": 9.8 * epochs,
                    "message": None,
                }
                | outcome
            )
            for place, layer in enumerate(layers if analog and not fails else ()):
                share = min(1.0, (place + 1) / len(layers)) * rng.uniform(0.8, 1.0)
                layer_rows.append(
                    {
                        **{key: base[key] for key in ("experiment", "trial", "seed")},
                        "layer": layer,
                        "shape": "96x48",
                        "tiles": 1,
                        "relative_error": 0.2 + 0.01 * sum(numbers) + rng.uniform(0, 0.05),
                        "share_clipped": 0.01 * rng.uniform(),
                        "weights_changed": 0.0 if arm == "frozen-array" else share,
                    }
                )
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(trials).to_csv(folder / "trials.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / "epochs.csv", index=False)
    pd.DataFrame(layer_rows, columns=list(LAYER_COLUMNS)).to_csv(folder / "layers.csv", index=False)
    beside: dict[str, Any] = {
        "plan.json": {"trials": planned},
        "experiment.resolved.json": {
            "name": name,
            "model": {"architecture": "swin_cifar_desk"},
            "finetune": {"dataset": "cifar100", "classes": ["bear", "cattle"], "arms": list(arms)},
            "sweep": {"seeds": list(range(seeds)), "lr": list(lrs), "axes": axes},
        },
        "provenance.json": {
            "argv": ["analogtl", "sweep", f"experiments/desk/{name}.toml", "--jobs", "2"],
            "versions": {"python": "3.11.9", "torch": "2.10.0", "aihwkit": "1.1.0"},
            "hardware": {"cpu": "Some CPU @ 2.5 GHz", "cores": 2, "memory_gib": 16},
        },
    }
    for file, content in beside.items():
        (folder / file).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def as_losses(path: Path, metric: str | None) -> Path:
    """Make the errors of a run a hundredth of themselves, and of a metric; its folder."""
    for name in ("trials.csv", "epochs.csv"):
        rows = read_rows(path / name)
        for row in rows:
            row["metric"] = metric
            for key in row:
                if key.startswith("error") and row[key]:
                    row[key] = float(row[key]) / 100
        write_rows(path / name, list(rows[0]), rows)
    return path
