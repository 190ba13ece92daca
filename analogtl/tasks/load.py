"""The task of a stage: what its objective makes of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from analogtl.tasks.classes import Classes
from analogtl.tasks.counts import ClassCount
from analogtl.tasks.denoising import LEVELS, Clean, DenoisingTask, load_points, of_images
from analogtl.tasks.images import load_task
from analogtl.tasks.next_token import TextTask, Windows, load_texts
from analogtl.tasks.stand_in import stand_in
from analogtl.tasks.task import Task
from analogtl.tasks.text_classes import load_text_classes
from analogtl.tasks.tokens import Tokens
from analogtl.vocabulary import Dataset, Objective


def task_for(
    objective: Objective,
    dataset: str,
    *,
    root: Path | None,
    classes: Classes,
    samples_per_class: int | None,
    test_samples_per_class: int | None,
    validation_fraction: float,
    image_size: int | None,
    columns: tuple[str, str],
    context: int,
    tokens: Tokens,
    download: bool,
    split_seed: int | None,
    min_test_images: int,
) -> Task:
    """Read a data set and make a task of it.

    Args:
        objective: What is to be learned; one of those of the data set.
        columns: Of a table of texts: of the text, and of its label.
        context: Tokens of a text that a network sees at once.
        tokens: How texts become tokens.
        dataset, root, classes, samples_per_class, test_samples_per_class, validation_fraction,
            image_size, download, split_seed, min_test_images: As
            `analogtl.tasks.images.load_task` has them.

    Raises:
        ExperimentError: no such data, or too little of it.
    """
    limits: dict[str, Any] = {
        "classes": classes,
        "samples_per_class": samples_per_class,
        "test_samples_per_class": test_samples_per_class,
        "validation_fraction": validation_fraction,
    }
    if dataset == Dataset.POINTS:
        return load_points(**limits)
    limits |= {"root": root, "min_test_images": min_test_images}
    if objective is Objective.NEXT_TOKEN:
        limits |= {"text_column": columns[0], "context": context, "tokens": tokens}
        return load_texts(dataset, **limits)
    if Dataset(dataset).of_texts:
        limits |= {"columns": columns, "context": context, "tokens": tokens}
        return load_text_classes(dataset, **limits, split_seed=split_seed)
    how: dict[str, Any] = {"download": download, "split_seed": split_seed}
    images = load_task(dataset, **limits, image_size=image_size, **how)
    return of_images(images, dataset) if objective is Objective.DENOISING else images


def stand_in_for(
    objective: Objective,
    dataset: str,
    counts: Sequence[ClassCount],
    *,
    image_size: int | None,
    context: int,
    tokens: Tokens,
) -> Task:
    """A task with so many examples in each split, all zeros, which takes next to no memory.

    Raises:
        ExperimentError: If a class is left without images.
    """
    many = {
        split: sum(getattr(one, split) for one in counts)
        for split in ("train", "validation", "test")
    }
    if objective is Objective.NEXT_TOKEN:
        text = torch.zeros(context + 1, dtype=torch.int32)
        start = torch.zeros(1, dtype=torch.int64)
        windows = {split: Windows(text, start.expand(n)) for split, n in many.items()}
        return TextTask(**windows, context=context, vocabulary=tokens.vocabulary)
    features = 2
    if dataset != Dataset.POINTS:
        images = stand_in(dataset, counts, image_size)
        if objective is Objective.CLASSIFICATION:
            return images
        features = images.in_channels * images.image_size**2
    zero = torch.zeros(1, features)
    splits = {
        split: Clean(zero.expand(n, -1), 0 if split == "train" else LEVELS)
        for split, n in many.items()
    }
    return DenoisingTask(splits["train"], splits["validation"], splits["test"])
