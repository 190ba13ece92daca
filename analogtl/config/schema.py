"""The experiment: a frozen, validated description of everything that a run depends on.

Every field's docstring says what it means, in which unit, and what it sets in aihwkit; the key
reference of the documentation is made from them. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from analogtl.config import catalog
from analogtl.config.arrays import Analog, Convert, Programming
from analogtl.config.class_names import class_problems
from analogtl.config.network import Model
from analogtl.config.parameters import Problem
from analogtl.config.per_layer import NONE, PerLayer
from analogtl.config.retention import NOISE_MODELS, OF_DEVICE
from analogtl.config.run import Evaluate, Hardware, Report, Run
from analogtl.config.section import Section, Text
from analogtl.config.sweep import Sweep, Tune
from analogtl.config.training import ClassSet, Data, Finetune, Lora, Pretrain, Training
from analogtl.errors import did_you_mean
from analogtl.vocabulary import (
    AXES,
    PER_LAYER,
    RUN_FOLDERS,
    Arm,
    Dataset,
    Metric,
    Network,
    Objective,
    key_of,
    objective_of,
)

SWEPT_SECTIONS = (
    *("model", "data", "pretrain", "convert", "finetune", "lora", "analog", "per_layer"),
    "programming",
)
# No candidates of a choice by error: they say what the task is, and what it is chosen by.
TASK_KEYS = (
    *("finetune.dataset", "finetune.classes", "finetune.samples_per_class", "finetune.arms"),
    *("objective", "data.context"),
    *("finetune.test_samples_per_class", "finetune.validation_fraction"),
)
PROGRAMMING_SECTIONS = ("analog", "programming")  # what weight programming depends on


class Experiment(Section):
    """One experiment file."""

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the experiment and of its run directory: letters, digits, `.`, `_`, `-`; not the name
    of a folder of this tool (`report`, `trials`, `pretrained`, ...)."""
    description: Text = ""
    """One line about the experiment, shown in reports."""
    kind: Literal["transfer-learning", "weight-programming"] = "transfer-learning"
    """`transfer-learning`, or `weight-programming`: how well one array can be programmed with a
    matrix by training; it uses [programming], [analog] and [sweep] only."""
    objective: Objective = Objective.CLASSIFICATION
    """What the network learns: `classification`, `next-token` (of texts) or `denoising` (of images
    or points). It decides what trials are judged by (`analogtl explain objectives`)."""
    model: Model = Model()
    data: Data = Data()
    pretrain: Pretrain = Pretrain()
    convert: Convert = Convert()
    finetune: Finetune = Finetune()
    lora: Lora = Lora()
    analog: Analog = Analog()
    per_layer: PerLayer = PerLayer()
    programming: Programming = Programming()
    evaluate: Evaluate = Evaluate()
    sweep: Sweep = Sweep()
    run: Run = Run()
    hardware: Hardware = Hardware()
    report: Report = Report()

    def _problems(self) -> Iterator[Problem]:
        if self.name in RUN_FOLDERS:
            yield "name", f"{self.name!r} is the name of a folder of this tool"
        for name in self.sweep.axes:
            for problem in self._axis_problems(name):
                yield f"sweep.axes.{name}", problem
        if self.sweep.lr and {"lr", self.lr_key} & set(self.sweep.axes):
            yield "sweep.lr", "the learning rate is an axis already: give one of the two"
        variability = self.analog.nonidealities.symmetry_point_variability
        if variability is not None and (lacks := self._lacks("reference_std")):
            yield "analog.nonidealities.symmetry_point_variability", lacks
        yield from self._per_layer_problems()
        yield from self._objective_problems()
        yield from self._class_set_problems()
        yield from self._evaluate_problems()
        if "lora" in self.model_fields_set and not self.has_adapters:
            arms = f"{Arm.LORA_DIGITAL} or {Arm.LORA_ANALOG}"
            yield "lora", f"no arm has adapters; expected {arms} in finetune.arms, or no [lora]"
        judged, epochs = self.report.judged_epochs, max(1, self.epochs)
        if self.report.metric != Metric.ERROR.value and self.metric is not Metric.ERROR:
            yield (
                "report.metric",
                f"expected classes to tell apart; trials have a {self.metric.label}",
            )
        if judged is not None and judged > epochs:
            yield "report.judged_epochs", f"expected at most the epochs, {epochs}; got {judged}"
        if len(self.sweep.lr) > 1 and not self.finetune.validation_fraction:
            key = "finetune.validation_fraction"
            yield key, "expected more than 0: sweep.lr is chosen on validation data"
        if self.sweep.tune.candidates:
            yield from self._tune_problems(self.sweep.tune)

    def _per_layer_problems(self) -> Iterator[Problem]:
        own, axes = self.per_layer, self.sweep.axes
        for key, problem in own.problems():
            yield f"per_layer.{key}", problem
        for key in own.settings:
            if first := self.taken_by(key):
                yield f"per_layer.settings.{key}", f"{first} of this experiment comes first"
        chosen = "layer" in own.model_fields_set or "per_layer.layer" in map(key_of, axes)
        if own.settings and not chosen:
            what = "of which layers? Set per_layer.layer to all, a layer or a stage, or sweep it"
            yield "per_layer.settings", what
        differ = own.settings or any(axis.startswith("per_layer.settings.") for axis in axes)
        given = own.layer != NONE and "settings" not in own.model_fields_set
        used = {"per_layer.layer": given, "sweep.axes.per_layer": PER_LAYER in axes}
        for key in (key for key, is_used in used.items() if is_used and not differ):
            yield key, "no layer differs from others: give per_layer.settings, e.g. { wtn = 20 }"

    def _tune_problems(self, tune: Tune) -> Iterator[Problem]:
        for key in tune.candidates:
            for problem in self._candidate_problems(key):
                yield f"sweep.tune.candidates.{key}", problem
        if self.sweep.lr:
            yield "sweep.lr", f"expected {self.lr_key} among the candidates of sweep.tune instead"
        if not (self.finetune.validation_fraction or self.is_weight_programming):
            key = "finetune.validation_fraction"
            yield key, "expected more than 0: sweep.tune chooses on validation data"
        for problem in self._problems_of_sets(tune.class_sets):
            yield "sweep.tune.class_sets", problem
        own = tune.class_sets or self.sweep.class_sets or (self.finetune.classes,)
        tested = self.sweep.class_sets or (self.finetune.classes,)
        both = set(tune.seeds) & set(self.sweep.seeds)
        if both and {*map(_as_set, own)} & {*map(_as_set, tested)}:
            seeds = ", ".join(map(str, sorted(both)))
            yield "sweep.tune.seeds", f"expected none that is tested, in sweep.seeds; got {seeds}"

    def _candidate_problems(self, key: str) -> Iterator[str]:
        section = key.split(".")[0]
        if key in AXES:
            yield f"expected a dotted key: {key_of(key)!r}"
        elif "." not in key or section not in SWEPT_SECTIONS:
            yield f"unknown key; expected one of {', '.join(f'{s}.*' for s in SWEPT_SECTIONS)}"
        if key in TASK_KEYS:
            yield "what the task is, or who judges it, is not to be chosen by the error"
        if key in map(key_of, self.sweep.axes):
            yield "is an axis already: give one of the two"
        if own := self.taken_by(key):
            yield f"{own} of this experiment comes first; tune that"
        if self.is_weight_programming and section not in PROGRAMMING_SECTIONS:
            yield f"sets [{section}], which {self.kind} does not use"

    def _evaluate_problems(self) -> Iterator[Problem]:
        asked, device = self.evaluate, self.analog.array_device
        if asked.times and self.is_weight_programming:
            yield "evaluate.times", f"{self.kind} has no network to test"
        elif asked.times and asked.noise_model == OF_DEVICE:
            known = catalog.device_parameters(device.preset)
            values = {**known, **device.parameters, **self.analog.slow_device}
            if not (values.get("lifetime") or values.get("diffusion")):
                others = ", ".join(name for name in NOISE_MODELS if name != OF_DEVICE)
                what = "has neither lifetime nor diffusion: nothing would change with time"
                yield "evaluate.noise_model", f"{device.preset} {what}; expected one of {others}"
            elif asked.batch_s is None:
                yield "evaluate.batch_s", "missing: lifetime and diffusion are in mini-batches"

    def _objective_problems(self) -> Iterator[Problem]:
        if self.is_weight_programming:
            return
        objective, architecture = self.objective, self.model.architecture
        yield from self._text_problems()
        named = not (self.model.file or self.model.is_language)
        if named and (made_for := objective_of(architecture)) is not objective:
            own = [one.value for one in Network if one.objective is objective]
            what = f"is for objective = {made_for.value!r}, not {objective.value!r}"
            if Network.named(architecture) is None:
                what = f"is no network for objective = {objective.value!r}"
            hint = did_you_mean(architecture, own) or f"known: {', '.join(own)}"
            yield "model.architecture", f"{architecture} {what}; {hint}"
        for stage in ("pretrain", "finetune"):
            section: Training = getattr(self, stage)
            if objective not in section.dataset.objectives:
                fit = ", ".join(one for one in Dataset if objective in one.objectives)
                yield (
                    f"{stage}.dataset",
                    f"{section.dataset.value} is not for objective = {objective.value!r}; "
                    f"expected {fit}",
                )
            if section.augment and objective is not Objective.CLASSIFICATION:
                yield f"{stage}.augment", f"is for classification, not for {objective.value}"
            if section.label_smoothing and objective is Objective.DENOISING:
                yield f"{stage}.label_smoothing", f"has no meaning for {objective.value}"

    def _text_problems(self) -> Iterator[Problem]:
        """What does not go with texts: networks for images; and with images: those for texts."""
        model, sections = self.model, {"pretrain": self.pretrain, "finetune": self.finetune}
        if model.is_language and self.objective is Objective.DENOISING:
            yield "model.architecture", f"a language model is not for {self.objective.value}"
        if self.objective is not Objective.CLASSIFICATION:
            return
        for stage, section in sections.items():
            if model.is_language and not section.dataset.of_texts:
                fit = ", ".join(one for one in Dataset if one.of_texts)
                yield f"{stage}.dataset", f"{section.dataset} is of images; expected {fit}"
            elif section.dataset.of_texts and not (model.is_language or model.file):
                yield (
                    "model.architecture",
                    f"{model.architecture} is for images, and {stage}.dataset = "
                    f"{section.dataset.value!r} is of texts; for these there is hf:FOLDER",
                )

    def _class_set_problems(self) -> Iterator[Problem]:
        sets = self.sweep.class_sets
        for problem in self._problems_of_sets(sets):
            yield "sweep.class_sets", problem
        for axis in self.sweep.axes if sets else ():
            if key_of(axis) in ("finetune.classes", "finetune.dataset"):
                yield f"sweep.axes.{axis}", "sets the same as sweep.class_sets: give one of the two"

    def _problems_of_sets(self, sets: tuple[ClassSet, ...]) -> Iterator[str]:
        problems = [each for one in sets for each in class_problems(self.finetune.dataset, one)]
        yield from problems
        sizes = [len(one) for one in sets if not isinstance(one, str)]
        if len(set(sizes)) > 1 and not problems:
            yield f"expected sets of one size; got {sizes} classes"
        if sets and self.is_weight_programming:
            yield f"{self.kind} has no classes"

    def _axis_problems(self, name: str) -> Iterator[str]:
        key = key_of(name)
        section = key.split(".")[0]
        if name in AXES:
            lacking = filter(None, map(self._lacks, AXES[name].device_parameters))
            yield from list(lacking)[:1]
        elif "." not in name or section not in SWEPT_SECTIONS:
            yield f"unknown axis {name!r}; {did_you_mean(name, AXES)}"
        twin = next(other for other in self.sweep.axes if key_of(other) == key)
        if name != twin:
            yield f"sets the same as {twin}: give one of the two"
        if own := self.taken_by(key):
            yield f"{own} of this experiment comes first; sweep that"
        if key == "per_layer.layer" and name != PER_LAYER:
            yield f"expected {PER_LAYER}, the name of this axis"
        passes = [self.analog.values(each) for each in ("forward", "backward")]
        if name in ("out_noise", "io_bits") and all(one.get("is_perfect") for one in passes):
            yield "has no effect: forward and backward pass are is_perfect"
        if self.is_weight_programming and section not in PROGRAMMING_SECTIONS:
            yield f"sets [{section}], which {self.kind} does not use"

    def _lacks(self, parameter: str) -> str:
        """That a device has no such parameter, and which do; "" where they have it."""
        for device in filter(None, (self.analog.array_device, self.analog.slow_array_device)):
            if parameter not in catalog.device_parameters(device.preset):
                have = ", ".join(catalog.presets_with(parameter))
                return f"{device.preset} has no {parameter}; presets that do: {have}"
        return ""

    def taken_by(self, key: str) -> str | None:
        """The key that makes this dotted key ineffective, or None.

        It is one of an algorithm's own table, or that of a device file.
        """
        axes = set(map(key_of, self.sweep.axes))
        for other, by_file, file in (
            ("analog.device.preset", "analog.device.file", self.analog.device.file),
            ("model.architecture", "model.file", self.model.file),
        ):
            if key == other and (file or by_file in axes):
                return by_file
        algorithms = {self.analog.algorithm, *self.sweep.axes.get("analog.algorithm", ())}
        for algorithm, own in self.analog.algorithms.items():
            for table, values in own.items() if algorithm in algorithms else ():
                if key.removeprefix(f"analog.{table}.") in values:
                    return f"analog.algorithms.{algorithm}{key.removeprefix('analog')}"
        return None

    @property
    def is_weight_programming(self) -> bool:
        """Whether one array is programmed with a matrix; else networks are transferred."""
        return self.kind == "weight-programming"

    @property
    def pretrains(self) -> bool:
        """Whether the pretrained arms begin with a pretraining; else their weights are given."""
        return not (self.model.start and self.pretrain.epochs == 0)

    @property
    def metric(self) -> Metric:
        """What the errors of trials are."""
        return Metric.PROGRAMMING if self.is_weight_programming else self.objective.metric

    @property
    def judged_by(self) -> Metric:
        """What trials are judged and chosen by."""
        balanced = self.report.metric == Metric.BALANCED_ERROR.value
        return Metric.BALANCED_ERROR if balanced else self.metric

    @property
    def margin(self) -> float:
        """What counts as no harm, in the metric's unit."""
        return self.report.margin or self.metric.margin

    @property
    def epochs(self) -> int:
        """The epochs of a trial."""
        return self.programming.epochs if self.is_weight_programming else self.finetune.epochs

    @property
    def lr_key(self) -> str:
        """The dotted key of the learning rate that [sweep] lr sets."""
        return "programming.lr" if self.is_weight_programming else "finetune.lr"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that are run."""
        return (Arm.WEIGHT_PROGRAMMING,) if self.is_weight_programming else self.finetune.arms

    @property
    def has_adapters(self) -> bool:
        """Whether some arm has low-rank adapters; else [lora] is of no use."""
        return any(arm.has_adapters for arm in self.arms)

    def resolved(self) -> dict[str, Any]:
        """Everything, defaults filled in, as JSON-able values; computed once, not to be changed."""
        return self._resolved

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        own = {"model": self.model.resolved(), "analog": self.analog.resolved()}
        unused = set() if self.has_adapters else {"lora"}
        return {**self.model_dump(mode="json", exclude=unused), **own}

    def as_written(self) -> dict[str, Any]:
        """Only what the file and the overrides set, as JSON-able values."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_unset=True)
        return data


def _as_set(classes: Any) -> Any:
    """Classes in any order: what tells whether two sets are one task."""
    return frozenset(map(str, classes)) if isinstance(classes, tuple) else classes
