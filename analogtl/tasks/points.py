"""Points in the plane: shapes drawn from fixed generators, for the smallest diffusion models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.config.class_names import CLASS_NAMES
from analogtl.tasks.classes import Classes, ClassList, choose_classes
from analogtl.vocabulary import Dataset

TRAIN, TEST = 2000, 500  # points of a shape
VERSION = 1  # of the shapes: raised whenever they change
Points = NDArray[Any]  # (N, 2) float64


def chosen_shapes(classes: Classes) -> list[str]:
    """Names of the chosen shapes.

    Raises:
        ExperimentError: no such shape.
    """
    names = CLASS_NAMES[Dataset.POINTS]
    listed = ClassList(names, tuple(range(len(names))))
    return [names[at] for at in choose_classes(Dataset.POINTS, listed, classes, fewest=1)]


def draw(shape: str) -> tuple[Points, Points]:
    """Training and test points of a shape, with a variance of about 1 per coordinate."""
    number = CLASS_NAMES[Dataset.POINTS].index(shape)
    points: Points = _SHAPES[shape](np.random.default_rng([number, VERSION]))
    return points[:TRAIN], points[TRAIN:]


_MANY = TRAIN + TEST


def _circle(rng: np.random.Generator) -> Points:
    angle = rng.uniform(0, 2 * np.pi, _MANY)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    return float(np.sqrt(2)) * ring + rng.normal(0, 0.05, (_MANY, 2))


def _moons(rng: np.random.Generator) -> Points:
    angle = rng.uniform(0, np.pi, _MANY)
    upper = rng.random(_MANY) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return np.stack([x / 0.87, y / 0.5], 1) + rng.normal(0, 0.05, (_MANY, 2))


def _spiral(rng: np.random.Generator) -> Points:
    turn = np.sqrt(rng.random(_MANY))
    angle = 3 * np.pi * turn
    arm = np.stack([turn * np.cos(angle), turn * np.sin(angle)], 1)
    return 2 * arm + rng.normal(0, 0.05, (_MANY, 2))


_SHAPES = {"circle": _circle, "moons": _moons, "spiral": _spiral}
