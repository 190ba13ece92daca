"""The fields of a run's JSON files that reports use: their types and ranges, checked when read.

A file may have any others; see `analogtl.study.checked.read_fields`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from analogtl.study.columns import Count


class _Report(TypedDict, total=False):
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    alpha: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)]
    judged_epochs: Annotated[int, Field(ge=1)] | None
    metric: str
    findings: bool


class _Tune(TypedDict, total=False):
    candidates: dict[str, list[Any]]


class _Sweep(TypedDict, total=False):
    axes: dict[str, list[Any]]
    tune: _Tune


class ExperimentFields(TypedDict, total=False):
    """``experiment.resolved.json``."""

    name: str
    description: str
    kind: str
    objective: str
    data: dict[str, Any]
    model: dict[str, Any]
    pretrain: dict[str, Any]
    convert: dict[str, Any]
    finetune: dict[str, Any]
    programming: dict[str, Any]
    analog: dict[str, Any]
    sweep: _Sweep
    hardware: dict[str, Any]
    report: _Report


def _with_keys(trials: Any) -> Any:
    """The trials of a plan of an earlier version, a list, with unknown keys."""
    if isinstance(trials, list) and all(isinstance(name, str) for name in trials):
        return dict.fromkeys(trials, "")
    return trials


class _Images(TypedDict, total=False):
    name: str
    train: Count
    validation: Count
    test: Count


class _Stage(TypedDict, total=False):
    stage: str
    dataset: str
    classes: list[_Images]
    left_out: dict[str, Count]


class DataFields(TypedDict, total=False):
    """``data.json``: the images that each stage uses; several entries where an axis varies them."""

    pretrain: list[_Stage]
    finetune: list[_Stage]


class PlanFields(TypedDict, total=False):
    """``plan.json``."""

    trials: Annotated[dict[str, str], BeforeValidator(_with_keys)]


class ProvenanceFields(TypedDict, total=False):
    """``provenance.json``."""

    argv: list[str]
    versions: dict[str, str]
    hardware: dict[str, Any]
