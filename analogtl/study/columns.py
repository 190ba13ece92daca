"""The columns of the tidy tables: one row type for each, in the order of its columns.

A row may have further columns, one for each swept axis. A missing value is an empty cell. What is
annotated beside a type is checked where a table is read, not where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from analogtl.vocabulary import Arm, Metric, metric_of

Row = Mapping[str, Any]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Size = Annotated[float, Field(ge=0)]  # seconds, percent, ...: a rate that diverges may be large
Share = Annotated[float, Field(ge=0, le=1)]
MAX_ERROR = 100.0  # percent, of images: a weight may be further from its target
_ARMS = frozenset(Arm)
_ERRORS = (
    *("error", "error_transfer", "error_final", "error_best", "error_validation"),
    *("balanced_error", "balanced_error_final", "balanced_error_validation"),
)
_CHECKS = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(_CHECKS)
class EpochRow(TypedDict, total=False):
    """One row of ``epochs.csv``: a split of the images after an epoch."""

    experiment: str
    trial: str
    seed: Seed
    arm: str
    stage: Literal["pretrain", "finetune"]
    epoch: Count
    split: Literal["train", "validation", "test"]
    loss: float
    accuracy: Share
    error: Size
    balanced_error: Size
    metric: str
    lr: Size
    n_samples: Count
    wall_s: Size
    weights_changed: Share
    resumed: bool


@with_config(_CHECKS)
class TrialRow(TypedDict, total=False):
    """One row of ``trials.csv``: what became of a trial."""

    experiment: str
    trial: str
    seed: Seed
    arm: str
    lr: Size
    algorithm: str
    engine: str
    n_classes: Count
    class_set: str
    tuned: str
    status: Literal["done", "failed"]
    metric: str
    error_transfer: Size
    error_final: Size
    error_best: Size
    epoch_best: Count
    error_validation: Size
    balanced_error_final: Size
    balanced_error_validation: Size
    frechet_distance: Size
    in_classes: Share
    share_on_arrays: Share
    trained_cells: Count
    trained_digital: Count
    weights_changed: Share
    symmetry_point: Share
    symmetry_spread: Size
    wall_s: Size
    resumed: bool
    settings: str
    data: str
    numerics: int
    analogtl: str
    aihwkit: str
    torch: str
    timm: str
    transformers: str
    device: str
    cpu: str
    key: str
    message: str


@with_config(_CHECKS)
class TuningRow(TypedDict, total=False):
    """One row of ``tuning.csv``: what a candidate came to on a block.

    A column for each axis and for each key that is tuned stands beside these.
    """

    experiment: str
    arm: str
    algorithm: str
    seed: Seed
    class_set: str
    rung: Count
    trial: str
    done: bool
    metric: str
    error_validation: Size
    n_validation: Count
    chosen: bool


class _Pulses(TypedDict, total=False):
    """Pulses on the arrays of a layer: sum, mean, median and maximum over the cells."""

    a_up_sum: Count
    a_up_mean: Size
    a_up_median: Size
    a_up_max: Count
    a_down_sum: Count
    a_down_mean: Size
    a_down_median: Size
    a_down_max: Count
    c_up_sum: Count
    c_up_mean: Size
    c_up_median: Size
    c_up_max: Count
    c_down_sum: Count
    c_down_mean: Size
    c_down_median: Size
    c_down_max: Count


class _Layer(TypedDict, total=False):
    """A layer on arrays, as it was programmed, and what became of its weights."""

    experiment: str
    trial: str
    seed: Seed
    layer: str
    shape: str
    tiles: Count
    relative_error: Size
    share_clipped: Share
    fast_lr: float
    transfer_lr: float
    granularity: float
    desired_bl: Count
    transfer_bl: Count
    read_snr: float
    reach: float
    noise_walk: Size
    noise_changed: Share
    bound_by: str
    own_settings: str
    kept_all: float
    kept_programming: float
    kept_noise: float
    kept_resolution: float
    kept_bounds: float
    tokens_per_image: Count
    engine: str
    trained: bool
    weights_changed: Share
    rms_change: Size


@with_config(_CHECKS)
class LayerRow(_Layer, _Pulses, total=False):
    """One row of ``layers.csv``: a layer on arrays, as it was programmed and trained."""

    reads: Count
    read_conversions: Count
    pass_conversions: Count


class _LayerAndEpoch(TypedDict, total=False):
    """Names of a layer and an epoch."""

    experiment: str
    trial: str
    seed: Seed
    layer: str
    epoch: Count


@with_config(_CHECKS)
class PulseRow(_LayerAndEpoch, _Pulses, total=False):
    """One row of ``pulses.csv``: the pulses on a layer's arrays in an epoch of fine-tuning."""


TUNING_COLUMNS = tuple(TuningRow.__annotations__)


@with_config(_CHECKS)
class EvaluationRow(TypedDict, total=False):
    """One row of ``evaluation.csv``: the test images, a time after training."""

    experiment: str
    trial: str
    seed: Seed
    time: Size
    repeat: Count
    loss: float
    error: Size
    balanced_error: Size
    metric: str
    n_samples: Count


EPOCH_COLUMNS = tuple(EpochRow.__annotations__)
TRIAL_COLUMNS = tuple(TrialRow.__annotations__)
LAYER_COLUMNS = tuple(LayerRow.__annotations__)
PULSE_COLUMNS = tuple(PulseRow.__annotations__)
EVALUATION_COLUMNS = tuple(EvaluationRow.__annotations__)
TYPES = get_type_hints(EpochRow) | get_type_hints(TrialRow) | get_type_hints(LayerRow)
TYPES |= get_type_hints(TuningRow) | get_type_hints(EvaluationRow)
JUDGED = "error_judged"
"""What trials are judged by, in the unit of their metric; `analogtl.analysis.judged` adds it when a
run is read."""
JUDGED_EPOCHS = "judged_epochs"
"""Over how many epochs that is the mean."""
MOST_EPOCHS = 5
DIGITAL_ENGINE = "digital"
"""Engine in ``layers.csv`` of what is no array, in arms with adapters."""
METRICS = (JUDGED, *(name for name in TRIAL_COLUMNS if name.startswith("error_")))
"""Columns that hold an error: the metric of the trial, in its unit."""
ROWS_OF: dict[str, type] = {
    "epochs.csv": EpochRow,
    "trials.csv": TrialRow,
    "layers.csv": LayerRow,
    "pulses.csv": PulseRow,
    "tuning.csv": TuningRow,
    "evaluation.csv": EvaluationRow,
}


def epochs_judged(epochs: int, asked: int | None) -> int:
    """How many of the last epochs of a training count.

    Args:
        epochs: Its epochs.
        asked: ``[report] judged_epochs``; without it `MOST_EPOCHS`, but at most half of the
            training, and at least one.
    """
    return min(MOST_EPOCHS, max(1, epochs // 2)) if asked is None else asked


def axis_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a table that are sweep axes: those that no table has by itself."""
    own = {*TYPES, JUDGED, JUDGED_EPOCHS}
    return [column for column in columns if column not in own]


def columns_of(base: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """The base columns, then every further key of the rows in the order of appearance."""
    columns = dict.fromkeys(base)
    for row in rows:
        columns.update(dict.fromkeys(row))
    return list(columns)


def rule_broken(row: Row) -> str:
    """What is wrong with a row whose cells are each right by themselves; "" if nothing."""
    arm = row.get("arm")
    if arm is not None and arm not in _ARMS:
        return f"arm: expected one of {', '.join(Arm)}; got {arm!r}"
    if row.get("status") == "done" and row.get("error_final") is None:
        return "error_final: empty, although the trial is done"
    if metric_of([row.get("metric")], [str(arm)]) is Metric.ERROR:
        for column in _ERRORS:
            if (error := row.get(column, 0.0)) > MAX_ERROR:
                return f"{column}: expected {MAX_ERROR:g} or less; got {error:g}"
    return ""
