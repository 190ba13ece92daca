"""The table of how the arrays of each layer are to be trained, for `convert` and ``--dry-run``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Column of ``layers.csv`` -> heading, format, factor.
_COLUMNS = {
    "fast_lr": ("fast lr", "{:.3g}", 1),
    "desired_bl": ("BL", "{:.0f}", 1),
    "granularity": ("granularity", "{:.4g}", 1),
    "transfer_bl": ("transfer BL", "{:.0f}", 1),
    "read_snr": ("read S/N", "{:.2g}", 1),
    "reach": ("reach", "{:.2g}", 1),
    "noise_walk": ("noise %", "{:.2g}", 100),
    "noise_changed": ("by chance %", "{:.2g}", 100),
}


OWN = "*"  # beside a layer that has settings of its own


def own_settings(layers: Iterable[Mapping[str, Any]]) -> str:
    """What the layers with settings of their own have; "" where none has any."""
    texts = {str(row["own_settings"]) for row in layers if row.get("own_settings")}
    return "".join(f"; {OWN}: with {text}" for text in texts)


def written(value: Any, text: str, factor: float = 1.0) -> str:
    """Write a number of a table; "" for none."""
    return "" if value in (None, "") else text.format(factor * float(value))


def layer_settings(
    layers: Iterable[Mapping[str, Any]],
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Make headings and rows of the table; columns that no layer has are left out."""
    layers = list(layers)
    used = {name: c for name, c in _COLUMNS.items() if any(row.get(name) for row in layers)}
    headings = ("layer", *(heading for heading, _, _ in used.values()), "granularity from")
    rows = [
        [
            str(row["layer"]) + (f" {OWN}" if row.get("own_settings") else ""),
            *(written(row.get(name), text, factor) for name, (_, text, factor) in used.items()),
            str(row.get("bound_by") or ""),
        ]
        for row in layers
    ]
    return headings, rows
