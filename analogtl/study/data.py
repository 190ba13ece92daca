"""Which images the stages of a study use: told before it runs, and kept beside its results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from analogtl.config.schema import Experiment
from analogtl.config.training import Training
from analogtl.errors import ExperimentError, counted
from analogtl.study.basis import inventory_of, is_at_hand
from analogtl.vocabulary import Dataset, Metric

if TYPE_CHECKING:  # numpy is too slow for completion
    from analogtl.tasks.counts import ClassCount


MAX_SHOWN = 12  # classes whose images are counted in a line


@dataclass(frozen=True)
class StageData:
    """The examples of one stage.

    Attributes:
        stage: ``pretrain`` or ``finetune``.
        fingerprint: Hash of the content of the chosen classes.
        classes: How many examples of each class are used, after all limits.
        left_out: Reason -> how many files of a folder, or texts, are not used as they are.
    """

    stage: str
    dataset: str
    fingerprint: str
    classes: tuple[ClassCount, ...]
    left_out: dict[str, int]

    def __str__(self) -> str:
        totals = (
            (sum(getattr(one, split) for one in self.classes), name)
            for split, name in (
                ("train", "training"),
                ("validation", "validation"),
                ("test", "test"),
            )
        )
        numbers = ", ".join(f"{total} {name}" for total, name in totals if total)
        source = Dataset(self.dataset)
        parts = counted(len(self.classes), *source.parts)
        text = f"{self.dataset}, {parts}: {numbers} {source.examples}"
        if source in (Dataset.IMAGE_FOLDER, Dataset.TEXT_FOLDER):
            text += f"; of each {source.parts[0]} {self._each()}"
        if self.left_out and source.of_texts:
            text += "".join(f"; {number} {reason}" for reason, number in self.left_out.items())
        elif self.left_out:
            reasons = ", ".join(f"{number} {reason}" for reason, number in self.left_out.items())
            text += f"; left out: {counted(sum(self.left_out.values()), 'file')} ({reasons})"
        return text

    def _each(self) -> str:
        """How many images of each class there are, of many the largest and the smallest."""
        from analogtl.tasks.counts import IMBALANCED, imbalance

        brought = [
            one
            for one in ("train", "validation", "test")
            if any(map(attrgetter(one), self.classes))
        ]
        known = sorted(self.classes, key=lambda one: (-one.train - one.test, one.name))
        shown = self.classes if len(known) <= MAX_SHOWN else [*known[:3], *known[-3:]]
        counts = [f"{one.name} {'/'.join(str(getattr(one, s)) for s in brought)}" for one in shown]
        if len(known) > MAX_SHOWN:
            counts.insert(3, "...")
        text = f"({', '.join(brought)}): {', '.join(counts)}"
        most = max(imbalance(getattr(one, split) for one in known) for split in brought)
        if most > IMBALANCED:
            text += (
                f"; imbalanced, {known[0].name} has up to {most:.1f} times as many as others: "
                'report.metric = "balanced-error" counts each class alike'
            )
        return text


def data_of(experiments: Iterable[tuple[Experiment, str]], *, at_hand: bool) -> list[StageData]:
    """Take stock of the images of stages; those that use the same ones count once.

    Args:
        experiments: Pairs of an experiment and one of its stages, ``pretrain`` or ``finetune``.
        at_hand: Leave out what would have to be downloaded.

    Raises:
        ExperimentError: images cannot be found or read, a class is not among them, or there are too
            few for testing.
    """
    found: dict[tuple[str, str], StageData | None] = {}
    problems: list[str] = []
    for experiment, stage in experiments:
        section, where = getattr(experiment, stage), experiment.data
        key = stage, repr([getattr(section, name) for name in _SETTINGS] + [where])
        if key not in found:
            found[key] = None
            try:
                found[key] = _stage_data(experiment, stage, at_hand)
            except ExperimentError as error:
                problems += error.problems
    if problems:
        raise ExperimentError(dict.fromkeys(problems))
    return [one for one in found.values() if one is not None]


def check_choosable(experiment: Experiment, found: Iterable[StageData]) -> None:
    """See that the validation images of a tuning tell candidates apart by less than the margin.

    Raises:
        ExperimentError: If one image of all blocks is more than the margin.
    """
    if not experiment.metric.is_share:
        return
    blocks = len(experiment.sweep.seeds) * max(1, len(experiment.sweep.class_sets))
    margin = experiment.margin
    for one in found:
        counts = [each.validation for each in one.classes]
        each_alike = experiment.judged_by is Metric.BALANCED_ERROR
        images = len(counts) * min(counts) if each_alike else sum(counts)
        if one.stage == "finetune" and images * blocks * margin < 100:
            seen = f"{100 / (images * blocks):.2g} points" if images else "nothing"
            raise ExperimentError(
                f"sweep.tune: {images} validation images on {counted(blocks, 'block')} show "
                f"differences from {seen} on, which is more than report.margin, {margin:g}: raise "
                "finetune.validation_fraction, or give more of sweep.tune.seeds"
            )


def as_data(found: Iterable[StageData], stages: Iterable[str]) -> dict[str, list[Any]]:
    """The content of ``data.json``: stage -> the images that it uses; several where they vary."""
    found = list(found)
    return {stage: [asdict(one) for one in found if one.stage == stage] for stage in stages}


_LIMITS = ("samples_per_class", "test_samples_per_class", "validation_fraction")
_SETTINGS = ("dataset", "classes", *_LIMITS)


def _stage_data(experiment: Experiment, stage: str, at_hand: bool) -> StageData | None:
    from analogtl.tasks.counts import check_test_size, used

    if at_hand and not is_at_hand(experiment, stage):
        return None
    section: Training = getattr(experiment, stage)
    found = inventory_of(experiment, stage)
    images = sum(one.test for one in found.classes)
    check_test_size(section.dataset, images, experiment.data.min_test_images)
    counts = used(found.classes, **{name: getattr(section, name) for name in _LIMITS})
    return StageData(stage, section.dataset, found.fingerprint, counts, dict(found.left_out))
