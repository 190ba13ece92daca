"""The columns of the tidy tables: one row type for each, in the order of its columns.

A row may have further columns, one for each swept axis. A missing value is an empty cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, get_type_hints

Row = Mapping[str, Any]


class EpochRow(TypedDict, total=False):
    """One row of ``epochs.csv``: a split of the images after an epoch."""

    experiment: str
    trial: str
    seed: int
    arm: str
    stage: str
    epoch: int
    split: str
    loss: float
    accuracy: float
    error: float
    lr: float
    n_samples: int
    wall_s: float
    weights_changed: float
    resumed: bool


class TrialRow(TypedDict, total=False):
    """One row of ``trials.csv``: what became of a trial."""

    experiment: str
    trial: str
    seed: int
    arm: str
    lr: float
    algorithm: str
    engine: str
    n_classes: int
    status: str
    error_transfer: float
    error_final: float
    error_best: float
    epoch_best: int
    error_validation: float
    weights_changed: float
    wall_s: float
    resumed: bool
    settings: str
    analogtl: str
    aihwkit: str
    torch: str
    message: str


class LayerRow(TypedDict, total=False):
    """One row of ``layers.csv``: a layer on arrays, as it was programmed and trained."""

    experiment: str
    trial: str
    seed: int
    layer: str
    shape: str
    tiles: int
    relative_error: float
    share_clipped: float
    fast_lr: float
    transfer_lr: float
    granularity: float
    tokens_per_image: int
    engine: str
    weights_changed: float


EPOCH_COLUMNS = tuple(EpochRow.__annotations__)
TRIAL_COLUMNS = tuple(TrialRow.__annotations__)
LAYER_COLUMNS = tuple(LayerRow.__annotations__)
TYPES = get_type_hints(EpochRow) | get_type_hints(TrialRow) | get_type_hints(LayerRow)
TEXT = {column for column, kind in TYPES.items() if kind is str}


def axis_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a table that are sweep axes: those that no table has by itself."""
    return [column for column in columns if column not in TYPES]


def columns_of(base: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """The base columns, then every further key of the rows in the order of appearance."""
    columns = dict.fromkeys(base)
    for row in rows:
        columns.update(dict.fromkeys(row))
    return list(columns)
