"""What a result rests on beside its settings: the images, the numerics, the packages' versions."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogtl.config.schema import Experiment
from analogtl.config.training import Training
from analogtl.errors import RunError
from analogtl.models.published import is_offline
from analogtl.study.device import device_of
from analogtl.study.provenance import versions
from analogtl.study.weights import WEIGHTS, find_weights, tokens_of, weights_fingerprint
from analogtl.vocabulary import Arm, Device

if TYPE_CHECKING:  # numpy is too slow for completion
    from analogtl.tasks.inventory import Inventory

# Raise it by one with every change after which the same settings, images and versions give other
# numbers than before, in any arm: a training, a conversion or an evaluation that computes otherwise
# or in another order, other streams of random numbers, other kernels of the fast engine. What is
# finished is then run again, and never averaged with what comes after.
NUMERICS = 2
_HASHES = ("settings", "data")
CPU = Device.CPU.value
# Of trials.csv.
BASIS_COLUMNS = ("data", "numerics", "aihwkit", "torch", "timm", "transformers", "device")


@dataclass(frozen=True)
class Basis:
    """What a trial, or a pretrained model, rests on beside its settings."""

    # Fingerprint of the images of each stage: of fine-tuning, then of pretraining, where it has
    # them. Of their content alone: where they lie is no matter.
    data: tuple[str, ...]
    numerics: int
    aihwkit: str  # versions, without what comes after a plus
    torch: str
    timm: str  # empty for a network of this package's own
    # What each of these stages computes on; empty for the CPU everywhere.
    devices: tuple[str, ...] = ()
    weights: str = ""  # fingerprint of the weights that are given to start from; empty for none
    transformers: str = ""  # its version; empty for a network that is none of its

    @classmethod
    def here(
        cls,
        experiment: Experiment,
        data: tuple[str, ...],
        devices: tuple[str, ...] = (),
        weights: str = "",
    ) -> Basis:
        """What a result of this installation rests on."""
        found = {name: versions()[name].partition("+")[0] for name in ("aihwkit", "torch", "timm")}
        if experiment.is_weight_programming or not experiment.model.uses_timm:
            found["timm"] = ""
        if experiment.model.is_language:
            found["transformers"] = versions()["transformers"]
        if set(devices) <= {CPU}:
            devices = ()
        return cls(data, NUMERICS, **found, devices=devices, weights=weights)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Basis:
        """The basis that `as_data` described, e.g. on another machine.

        Raises:
            TypeError: If it is none.
        """
        data = {"devices": (), "weights": "", "transformers": "", **data}
        lists = {name: tuple(map(str, data[name])) for name in ("data", "devices")}
        return cls(**{**data, **lists})

    def as_data(self) -> dict[str, Any]:
        """The basis as JSON-able data: what keys are made of, without what is not used."""
        optional = ("devices", "weights", "transformers")
        unused = {name for name in optional if not getattr(self, name)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in unused}

    @property
    def device(self) -> str:
        """What its first stage computes on."""
        return self.devices[0] if self.devices else CPU

    def of_pretraining(self) -> Basis:
        """The basis of the pretrained model that a trial with this one starts from."""
        devices = self.devices[1:]
        if set(devices) <= {CPU}:
            devices = ()
        return dataclasses.replace(self, data=self.data[1:], devices=devices)

    def columns(self) -> dict[str, Any]:
        """Its cells of ``trials.csv``."""
        seen = (*self.data, *([self.weights] if self.weights else []))
        short = "+".join(fingerprint[:8] for fingerprint in seen)
        device = "+".join(dict.fromkeys(self.devices)) or CPU
        same = {name: getattr(self, name) for name in BASIS_COLUMNS[1:-1]}
        return {"data": short, **same, "device": device}


def stages_of(experiment: Experiment, arm: Arm) -> tuple[str, ...]:
    """The stages whose images a trial of this arm sees, in the order of `Basis.data`."""
    if arm is Arm.WEIGHT_PROGRAMMING:
        return ()
    pretrains = arm.pretrained and experiment.pretrains
    return ("finetune", "pretrain") if pretrains else ("finetune",)


def inventory_of(experiment: Experiment, stage: str) -> Inventory:
    """The images of a stage, ``pretrain`` or ``finetune``, as they are now.

    Raises:
        ExperimentError: If they cannot be found or read.
    """
    from analogtl.tasks.inventory import take_inventory

    section: Training = getattr(experiment, stage)
    where = experiment.data
    return take_inventory(
        section.dataset,
        root=_root(experiment),
        classes=section.classes,
        image_size=where.image_size,
        objective=experiment.objective,
        columns=(where.text_column, where.label_column),
        context=where.context,
        tokens=tokens_of(experiment),
        download=where.download,
        split_seed=where.split_seed,
    )


def task_settings(experiment: Experiment, stage: str) -> dict[str, Any]:
    """What `analogtl.tasks.load.task_for` takes for a stage, ``pretrain`` or ``finetune``.

    Raises:
        ExperimentError: There is no tokenizer where one is needed.
    """
    section: Training = getattr(experiment, stage)
    names = ("dataset", "classes", "samples_per_class", "test_samples_per_class")
    found = {name: getattr(section, name) for name in (*names, "validation_fraction")}
    where = ("image_size", "context", "download", "split_seed", "min_test_images")
    found |= {name: getattr(experiment.data, name) for name in where}
    return found | {
        "objective": experiment.objective,
        "root": _root(experiment),
        "columns": (experiment.data.text_column, experiment.data.label_column),
        "tokens": tokens_of(experiment),
    }


# Three ways to look at the images of a stage, or at the WEIGHTS to start from: their fingerprint,
# or "" where it is not known.
Look = Callable[[Experiment, str], str]


def fingerprint_of(experiment: Experiment, stage: str) -> str:
    """Fingerprint of the images of a stage, or of the weights; downloaded if need be.

    Raises:
        ExperimentError: If they cannot be found or read.
    """
    if stage == WEIGHTS:
        return weights_fingerprint(experiment)
    return inventory_of(experiment, stage).fingerprint


def fingerprint_at_hand(experiment: Experiment, stage: str) -> str:
    """As `fingerprint_of`, but "" for images that would have to be downloaded."""
    return fingerprint_of(experiment, stage) if is_at_hand(experiment, stage) else ""


def is_at_hand(experiment: Experiment, stage: str) -> bool:
    """Whether the images of a stage, or the weights, can be looked at without a download."""
    if stage == WEIGHTS:
        absent = find_weights(experiment, download=False) is None
        return not (experiment.data.download and absent) or is_offline()
    from analogtl.tasks.sources import is_absent

    dataset = getattr(experiment, stage).dataset
    return not (experiment.data.download and is_absent(dataset, _root(experiment)))


def no_look(experiment: Experiment, stage: str) -> str:
    """Look at nothing: enough to count trials and to name them, but not to run any."""
    return ""


def _root(experiment: Experiment) -> Path | None:
    root = experiment.data.root
    return Path(os.path.expanduser(root)) if root else None


def basis_of(
    experiment: Experiment, *stages: str, arm: Arm | None = None, look: Look = fingerprint_of
) -> Basis:
    """What a result that sees the images of these stages rests on, here and now.

    Args:
        look: How to look at the images.

    Raises:
        ExperimentError: If images cannot be found or read.
    """
    devices = tuple(device_of(experiment, stage, arm) for stage in stages)
    model, pretrained = experiment.model, arm.pretrained if arm else "pretrain" in stages
    # A language model's configuration and tokenizer count for every arm.
    starts = model.is_language or (model.start and pretrained)
    weights = look(experiment, WEIGHTS) if starts else ""
    seen = tuple(look(experiment, stage) for stage in stages)
    return Basis.here(experiment, seen, devices, weights)


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    columns: Iterable[str] = ("settings", *BASIS_COLUMNS),
) -> list[str]:
    """In words, in what one row of ``trials.csv`` rests on something else than another.

    For example ``other settings``, ``other data``, ``torch 2.9.0 instead of 2.10.0``.
    """
    words = []
    for column in columns:
        # Earlier tables, without this column, are of the CPU.
        unknown = CPU if column == "device" else ""
        was, is_now = (str(row.get(column) or unknown) for row in (before, now))
        if was == is_now or column not in (*_HASHES, *BASIS_COLUMNS, "engine"):
            continue
        if column in _HASHES:
            words.append(f"{'other' if was and is_now else 'unknown'} {column}")
        else:
            words.append(f"{column} {was or 'unknown'} instead of {is_now or 'unknown'}")
    return words


def check_versions(basis: Basis, experiment: Experiment) -> None:
    """See that this installation is what a result is to rest on.

    Raises:
        RunError: If it has another version of something; the line names both.
    """
    here = Basis.here(experiment, basis.data, basis.devices, basis.weights)
    words = differences(basis.columns(), here.columns())
    if words:
        raise RunError(
            f"planned with {' and '.join(words)}, which is installed on {platform.node()}: install "
            "the same everywhere, or start the command from there"
        )
