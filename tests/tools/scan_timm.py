"""Survey every network of timm: which share of it arrays hold, and whether anything is left out.

    python tests/tools/scan_timm.py [--match 'resnet*'] [--part 0/4] > timm.csv

Networks are built without memory (torch's meta device) at their own image size, so each takes about
a second. One row per network:

    weights      numbers in factors of products
    on_arrays    share of them that arrays hold
    exact        share of them in layers of torch's own classes: what a look at classes would find
    left_out     share of the numbers in all parameters of two or more dimensions that are neither
                 on arrays nor named: position tables, tokens and embeddings, if all is right
    largest      the largest parameter among those left out
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from typing import Any

import timm
import torch

from analogtl.crossbar import survey as surveying

TYPES = surveying.LAYERS


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--match", default="", help="pattern of names")
    options.add_argument("--part", default="0/1", help="which part of all networks: I/N")
    chosen = options.parse_args()
    part, parts = map(int, chosen.part.split("/"))
    remember_trials()
    warnings.simplefilter("ignore")
    columns = ("model", "weights", "on_arrays", "exact", "left_out", "largest", "reasons", "error")
    out = csv.DictWriter(sys.stdout, columns)
    out.writeheader()
    for name in timm.list_models(chosen.match)[part::parts]:
        try:
            row = scan(name)
        except Exception as error:  # some cannot be built without memory
            row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        out.writerow({"model": name, **row})
        sys.stdout.flush()


def remember_trials() -> None:
    """Try each class of layer once per geometry, not once per layer."""
    known: dict[Any, bool] = {}
    compare = surveying._same

    def same(layer: Any, shape: tuple[int, ...], forward: Any) -> bool:
        geometry = [getattr(layer, n, None) for n in ("kernel_size", "stride", "padding")]
        key = str((type(layer), forward, geometry, [size % 8 for size in shape[2:]]))
        if key not in known:
            known[key] = compare(layer, (1, *shape[1:]), forward)
        return known[key]

    surveying._same = same


def scan(name: str) -> dict[str, Any]:
    """Survey one network."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
        example = torch.zeros(2, *model.pretrained_cfg["input_size"])
    found = surveying.survey(model, example)
    modules = dict(model.named_modules())
    named = {part.name for part in found.digital} | set(found.arrays)
    exact = {n for n, module in modules.items() if type(module) in TYPES}
    weights = surveying.product_weights(model.eval(), example)
    total = sum(weights.values())
    in_exact = sum(count for n, count in weights.items() if n.rpartition(".")[0] in exact)
    matrices = {n: p.numel() for n, p in model.named_parameters() if p.squeeze().ndim > 1}
    lost = {
        n: count
        for n, count in matrices.items()
        if n not in named and not any(n.startswith(f"{one}.") for one in named)
    }
    reasons = sorted({part.reason for part in found.digital if part.weights})
    return {
        "weights": total,
        "on_arrays": round(found.share_on_arrays, 4),
        "exact": round(in_exact / max(1, total), 4),
        "left_out": round(sum(lost.values()) / max(1, sum(matrices.values())), 4),
        "largest": max(lost, key=lambda n: lost[n]) if lost else "",
        "reasons": "; ".join(reasons),
    }


if __name__ == "__main__":
    main()
