"""From an experiment to its trials: arms x levels x learning rates x blocks, in a useful order."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Container, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from analogtl.config.arrays import Programming
from analogtl.config.device_file import DEVICE_FILES
from analogtl.config.load import with_settings
from analogtl.config.per_layer import NONE
from analogtl.config.schema import PROGRAMMING_SECTIONS, Experiment
from analogtl.config.section import Level, content_key, flatten
from analogtl.config.training import Finetune
from analogtl.errors import ExperimentError, RunError
from analogtl.study.basis import Basis, Look, basis_of, fingerprint_of, stages_of
from analogtl.vocabulary import LANGUAGE, Arm, Objective, key_of

MAX_ID = 180  # characters of a trial's name
MAX_TRIALS = 20_000


@dataclass(frozen=True)
class Trial:
    """One arm at one level, one learning rate and one seed."""

    experiment: Experiment  # with the level and the learning rate applied
    arm: Arm
    # Axis name -> level; empty for a digital arm in a sweep of analog axes.
    axes: dict[str, Level] = field(hash=False)
    lr: float
    seed: int  # seed of the replicate: initial weights, order of the images, device draw
    basis: Basis  # what its outcome rests on beside these
    class_set: str = ""  # the classes told apart, where the experiment has several sets of them

    @cached_property
    def id(self) -> str:
        """Name of the trial and of its directory, e.g. ``arm=analog-tl,wtn=5,lr=0.01,seed=0``."""
        classes = {"classes": self.class_set} if self.class_set else {}
        parts = {"arm": self.arm.value, **self.axes, **classes, "lr": self.lr, "seed": self.seed}
        name = ",".join(f"{_safe(name)}={_shown(value)}" for name, value in parts.items())
        if len(name) > MAX_ID:  # a file system takes 255 bytes
            name = f"{name[: MAX_ID - 17]}~{content_key(parts)}"
        return name

    @property
    def section(self) -> Finetune | Programming:
        """The section with the trial's epochs, batch size and learning rate."""
        experiment = self.experiment
        return experiment.programming if self.arm is Arm.WEIGHT_PROGRAMMING else experiment.finetune

    def settings(self) -> dict[str, Any]:
        """All settings that the outcome of the trial depends on, as JSON-able values."""
        kept = _settings_of(self.experiment.resolved(), self.arm)
        return {**kept, "arm": self.arm.value, "lr": self.lr, "seed": self.seed}

    @cached_property
    def key(self) -> str:
        """A hash of `settings` and basis: a finished trial with the same key is not run again."""
        return content_key(self.settings(), self.basis.as_data())

    @property
    def evaluation_key(self) -> str:
        """A hash of the evaluation after training; empty if none is asked for."""
        asked = self.experiment.evaluate
        wanted = self.arm.analog and asked.times
        return content_key(asked.model_dump(mode="json")) if wanted else ""

    @cached_property
    def pretrain_key(self) -> str:
        """`pretrain_key` of the model that a pretrained arm starts from."""
        return pretrain_key(self.experiment, self.basis.of_pretraining())

    @property
    def pretrains(self) -> bool:
        """Whether it starts from a model that is pretrained here."""
        return self.arm.pretrained and self.experiment.pretrains

    def as_data(self) -> dict[str, Any]:
        """The trial as JSON-able data, frozen: what a queue or another machine runs later."""
        return {
            "experiment": self.experiment.as_written(),
            "arm": self.arm.value,
            "axes": dict(self.axes),
            "lr": self.lr,
            "class_set": self.class_set,
            "seed": self.seed,
            "basis": self.basis.as_data(),
            "key": self.key,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Trial:
        """The trial that `as_data` described.

        Raises:
            RunError: If the data is not a trial, or not the same trial for this version.
        """
        try:
            trial = cls(
                experiment=Experiment.model_validate(data["experiment"]),
                arm=Arm(data["arm"]),
                axes=dict(data["axes"]),
                lr=float(data["lr"]),
                class_set=str(data["class_set"]),
                seed=int(data["seed"]),
                basis=Basis.from_data(data["basis"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"not a trial that this version of analogtl can run: {error}") from None
        if trial.key != data.get("key"):
            raise RunError(
                f"{trial.id}: the installed analogtl gives this trial other settings than it was "
                "submitted with; submit it again"
            )
        return trial


def _settings_of(whole: Mapping[str, Any], arm: Arm, varied: Container[str] = ()) -> dict[str, Any]:
    """What the outcome of an arm depends on, of a resolved experiment.

    The settings of some layers count where there are such layers, at some level of what is varied.

    Of a device file that is what it says of the device: not its name, nor where it comes from. The
    content of the weights that pretrained arms start from is in the `Basis`.
    """
    analog = {key: value for key, value in whole["analog"].items() if key != "device_files"}
    for name in {"device", "slow_array"} & set(analog):
        analog[name] = {key: value for key, value in analog[name].items() if key != "file"}
    model = whole["model"]
    given = model.get("weights") or "." in model.get("architecture", "")
    whole = {**whole, "analog": analog, "model": _network_of(whole)}
    if arm is Arm.WEIGHT_PROGRAMMING:
        return {key: whole[key] for key in PROGRAMMING_SECTIONS}
    kept = {key: whole[key] for key in ("model", "finetune")}
    kept["finetune"] = {k: v for k, v in kept["finetune"].items() if k != "arms"}
    if arm.pretrained and not (given and whole["pretrain"]["epochs"] == 0):
        kept["pretrain"] = whole["pretrain"]
    if arm.analog:
        kept["analog"], kept["convert"] = whole["analog"], whole["convert"]
        own = whole.get("per_layer", {})
        if own.get("settings") and (own["layer"] != NONE or "per_layer.layer" in varied):
            kept["per_layer"] = own
    if arm.has_adapters:
        where = set() if arm.trains_arrays else {"base"}
        kept["lora"] = {key: one for key, one in whole["lora"].items() if key not in where}
    return {**kept, **_seen(whole)}


def _seen(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is learned, and how its examples are seen; classification goes without saying."""
    data, objective = whole["data"], whole.get("objective", Objective.CLASSIFICATION)
    seen: dict[str, Any] = {"data": {"image_size": data["image_size"]}}
    if objective != Objective.CLASSIFICATION:
        seen["objective"] = objective
    if objective == Objective.NEXT_TOKEN:
        seen["data"] = {"context": data["context"]}
    return seen


def _network_of(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of the network: of a file its content, not its name; not what it starts from."""
    model = {key: one for key, one in whole["model"].items() if key not in ("file", "weights")}
    if "architecture" in model:
        name = model["architecture"]
        # The folder of a language model may lie anywhere: its fingerprint is in the basis.
        model["architecture"] = LANGUAGE if name.startswith(LANGUAGE) else name.partition(".")[0]
    return model


def common_key(whole: Mapping[str, Any], arm: Arm, axes: Iterable[str]) -> str:
    """A hash of what trials of one arm along the same axes have in common.

    That is everything but seed, learning rate, the axes' own keys (and the classes, if
    ``class_set`` is among the axes) and what is tuned, so that trials with different hashes belong
    to different experiments.

    Raises:
        KeyError: If `whole` is not what `Experiment.resolved` gives.
    """
    varied = {"finetune.lr", "programming.lr", *(key_of(axis) for axis in axes)}
    varied |= set(whole.get("sweep", {}).get("tune", {}).get("candidates", ()))
    if "class_set" in varied:
        varied.add("finetune.classes")
    if "analog.algorithm" in varied:  # most settings of [analog] follow from it
        varied.add("analog")
    follows = {**DEVICE_FILES, "model.file": "model.network"}
    varied |= {follows[key] for key in follows.keys() & varied}
    flat = {
        key: value
        for key, value in flatten(_settings_of(whole, arm, varied)).items()
        if not any(key == one or key.startswith(f"{one}.") for one in varied)
    }
    return content_key(flat)


def pretrain_settings(experiment: Experiment) -> dict[str, Any]:
    """What a pretrained model depends on beside the images themselves."""
    whole = experiment.resolved()
    seen = _seen(whole)
    return {
        "model": _network_of(whole),
        "pretrain": whole["pretrain"],
        "size": seen["data"].get("image_size"),
        **({"objective": seen} if "objective" in seen else {}),
    }


def pretrain_key(experiment: Experiment, basis: Basis) -> str:
    """A hash of all that a pretrained model depends on: the name of its folder."""
    return content_key(pretrain_settings(experiment), basis.as_data())


def trials_of(
    experiment: Experiment,
    *,
    sweep: bool,
    look: Look = fingerprint_of,
    chosen: Mapping[str, Mapping[str, Level]] | None = None,
) -> list[Trial]:
    """All trials of an experiment, ordered so that a part of them is already useful.

    All levels come at the first seed, with all sets of classes, before any at the second; a digital
    arm, which no analog axis touches, runs once per block and not once per level.

    Args:
        experiment: Its arms, axes, learning rates and seeds.
        sweep: Whether its axes and learning rates are swept (`analogtl sweep`) or it is run as
            written (`analogtl finetune`).
        look: How to look at the images.
        chosen: `level_key` -> further settings there, by dotted key, that tuning has chosen.

    Raises:
        ExperimentError: If there are more than anybody can run, levels that do not go together, or
            images that cannot be found.
    """
    swept = experiment.sweep
    rates = (swept.lr or (None,)) if sweep else (None,)
    sets = swept.class_sets or (None,)
    axes = swept.axes.values() if sweep else ()
    check_count(swept.seeds, sets, experiment.arms, rates, *axes)
    levels = levels_of(experiment) if sweep else [{}]
    # The seeds share what does not depend on them: a level's settings are validated once.
    bases: dict[object, Basis] = {}  # and images are looked at once
    at_one_seed = [
        trial_at(
            experiment, arm, level, lr=rate, classes=classes, chosen=chosen, bases=bases, look=look
        )
        for classes in sets
        for rate in rates
        for level in levels
        for arm in experiment.arms
    ]
    trials: dict[str, Trial] = {}
    for seed in swept.seeds:
        for one in at_one_seed:
            trial = dataclasses.replace(one, seed=seed)
            trials.setdefault(trial.id, trial)
    return list(trials.values())


def check_count(*factors: Sized) -> None:
    """See that the combinations of some lists are no more trials than anybody can run.

    Raises:
        ExperimentError: If they are.
    """
    if (count := math.prod(map(len, factors))) > MAX_TRIALS:
        raise ExperimentError(
            f"sweep: {count:,} trials; expected at most {MAX_TRIALS:,}: take fewer levels or axes"
        )


def levels_of(experiment: Experiment) -> list[dict[str, Level]]:
    """Every combination of the axes' levels."""
    axes = experiment.sweep.axes
    return [dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())]


def level_key(arm: Arm, axes: Mapping[str, Level]) -> str:
    """What stands for an arm at a level, as `Trial.axes` has it."""
    return content_key(arm.value, list(axes.items()))


def trial_at(
    experiment: Experiment,
    arm: Arm,
    axes: Mapping[str, Level],
    *,
    bases: dict[object, Basis],
    look: Look,
    lr: float | None = None,
    classes: str | tuple[int | str, ...] | None = None,
    chosen: Mapping[str, Mapping[str, Level]] | None = None,
) -> Trial:
    """The trial of an arm at a level, with seed 0.

    Args:
        axes: The level of each axis; those that leave the arm as it is are left out.
        bases: What was looked at already, which is kept here.
        look: How to look at the images.
        lr: Learning rate; None for the experiment's own.
        classes: One of several sets; None for the experiment's own.
        chosen: See `trials_of`.

    Raises:
        ExperimentError: As `trials_of`.
    """
    axes = {name: level for name, level in axes.items() if not arm.ignores(name)}
    own_axes = {("finetune.lr" if name == "lr" else name): level for name, level in axes.items()}
    settings: dict[str, Any] = {key_of(name): level for name, level in axes.items()}
    settings |= (chosen or {}).get(level_key(arm, own_axes), {})
    if lr is not None:
        settings[experiment.lr_key] = lr
    class_set = ""
    if classes is not None:
        settings["finetune.classes"] = classes
        class_set = classes if isinstance(classes, str) else "+".join(map(str, classes))
    if settings:
        experiment = with_settings(experiment, settings)
    stages = stages_of(experiment, arm)
    seen = [(getattr(experiment, one).dataset, getattr(experiment, one).classes) for one in stages]
    where = (experiment.run.device, experiment.analog.engine, arm.analog)
    model = experiment.model
    network = (model.file or model.network, model.start, arm.pretrained)
    what = (*network, experiment.data, *where, *seen)
    if what not in bases:
        bases[what] = basis_of(experiment, *stages, arm=arm, look=look)
    # `lr` is a column of every table: as an axis it goes by its dotted key.
    trial = Trial(experiment, arm, own_axes, 0.0, 0, bases[what], class_set)
    return dataclasses.replace(trial, lr=trial.section.lr)


_LIKE_A_NUMBER = re.compile(r"true|false|[+-]?[0-9.]+(e[+-]?[0-9]+)?")


def _shown(value: Level) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:.10g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, str) and _LIKE_A_NUMBER.fullmatch(value):
        value = f'"{value}"'  # the text "5" is another level than the number 5
    return _safe(str(value))


def _safe(text: str) -> str:
    """Text as a part of a directory's name: it can neither leave the folder nor clash."""
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", text)[:60]
    if safe != text:  # two different texts must not share a directory
        safe += "~" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:6]
    return safe
