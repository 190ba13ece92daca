"""The experiment: a frozen, validated description of everything that a run depends on.

Every field's docstring says what it means, in which unit, and what it sets in aihwkit; the key
reference of the documentation is made from them. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from analogtl.config import catalog
from analogtl.config.class_names import class_problems
from analogtl.config.device_file import DeviceFile, device_problems
from analogtl.config.hardware import hardware_presets
from analogtl.config.network_file import check_network_file, imports
from analogtl.config.parameters import (
    SECTIONS,
    Problem,
    Table,
    defaults_of,
    device_conflicts,
    is_number,
    table_problems,
)
from analogtl.config.python_file import parsed
from analogtl.config.retention import NOISE_MODELS, OF_DEVICE, retention_problems, seconds
from analogtl.config.rule_file import RuleFacts, rule_facts
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import (
    AXES,
    RUN_FOLDERS,
    Algorithm,
    Arm,
    Dataset,
    FileAlgorithm,
    FileNetwork,
    Network,
    file_algorithm,
    file_network,
    key_of,
)
from analogtl.vocabulary import Device as ComputeDevice

T = TypeVar("T")


Bool = Annotated[bool, Field(strict=True)]
Int = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
PositiveInt = Annotated[Int, Field(ge=1, le=10**9)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, le=2**31 - 1)]
# Which classes: how many (the first ones by label order), or which by name or label number.
Classes = (
    Annotated[Int, Field(ge=2)]
    | Text
    | Annotated[tuple[Int | Text, ...], Field(min_length=2)]
    | None
)
ClassSet = Text | Annotated[tuple[Int | Text, ...], Field(min_length=2)]
Augmentation = Literal["crop", "flip"]
Schedule = Literal["constant", "cosine", "onecycle"]
Level = Bool | Int | Number | Text
# One of the built-in algorithms, or a `FileAlgorithm`, which can all that they can.
AnyAlgorithm = Annotated[
    Algorithm,
    WrapValidator(lambda name, built_in: file_algorithm(name) or built_in(name)),
    PlainSerializer(str, return_type=str),
]
TransferArm = Literal[
    Arm.DIGITAL_TL,
    Arm.ANALOG_TL,
    Arm.DIGITAL_SCRATCH,
    Arm.ANALOG_SCRATCH,
    Arm.FROZEN_ARRAY,
    Arm.SHUFFLED_GRADIENTS,
]

SWEPT_SECTIONS = ("model", "data", "pretrain", "convert", "finetune", "analog", "programming")
# Arguments of timm's create_model that are not the user's to give.
FOLLOW_FROM_DATA = ("num_classes", "in_chans", "img_size")
FETCH_WEIGHTS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
)
GIVEN_TO_BUILD = ("n_classes", "image_size", "in_channels")  # by analogtl
# No candidates of a choice by error: they say what the task is, and what it is chosen by.
TASK_KEYS = (
    *("finetune.dataset", "finetune.classes", "finetune.samples_per_class", "finetune.arms"),
    *("finetune.test_samples_per_class", "finetune.validation_fraction"),
)
MAX_CANDIDATES = 10_000
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".npz", ".h5", ".onnx")
PROGRAMMING_SECTIONS = ("analog", "programming")  # what weight programming depends on


def _raise(problems: Iterable[Problem], value: T) -> T:
    """Raise all problems of one section as a single validation error, or return the value."""
    found = list(problems)
    if found:
        raise PydanticCustomError("problems", "several problems", {"problems": found})
    return value


def kwargs_problems(kwargs: Iterable[str]) -> Iterator[Problem]:
    """Find what would load weights behind our back, or contradict the data set, in [model]."""
    for key in kwargs:
        if key in FOLLOW_FROM_DATA:
            yield f"kwargs.{key}", "follows from the data set; remove it"
        elif key in FETCH_WEIGHTS:
            yield f"kwargs.{key}", "would load weights; name them in model.weights instead"


def is_published(name: str) -> bool:
    """Whether a name is of the kind that published weights have, and not that of a file."""
    of_hub = re.fullmatch(r"hf[-_]hub:[\w.-]+/[\w.-]+", name)
    of_timm = re.fullmatch(r"\w+\.\w+", name) and not name.lower().endswith(WEIGHT_SUFFIXES)
    return bool(of_hub or of_timm)


class Section(BaseModel):
    """A section of the file: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class Model(Section):
    """The network."""

    architecture: Text = "swin_digits"
    """`swin_cifar_tiny` (the paper's), `swin_cifar_desk`, `swin_digits`, `mlp_digits`, or any timm
    model name. With a tag, as in `resnet18.a1_in1k`, it names published weights as well."""
    file: Text | None = None
    """In place of an architecture: a network of your own, `my_net.py:build`, the Python file
    (beside the experiment file) and the function in it. The file is run as it is
    (`analogtl explain models`)."""
    kwargs: dict[Text, Any] = {}
    """Further arguments for the model's constructor, e.g. `{ depths = [2, 2] }`."""
    files: dict[Text, Text] = {}
    """The text of each network file that is named, by its name: filled in when the experiment is
    read, so that what was planned is what runs."""

    weights: Text | None = None
    """Weights that the pretrained arms start from, in place of random ones: a safetensors or
    PyTorch file beside the experiment file, timm's name of published ones (`resnet18.a1_in1k`), or
    a repository of the Hugging Face hub (`hf_hub:owner/name`). With [pretrain] epochs = 0 these are
    the pretrained network."""
    mean: Annotated[tuple[Number, ...], Field(min_length=1)] | None = None
    """Mean of each colour channel by which images are normalised, 1 being white. As the weights say
    if absent, else that of the training images."""
    std: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)] | None = None
    """Standard deviation of each colour channel, likewise; given together with the mean."""
    weight_files: dict[Text, Text] = {}
    """Where each file of weights lies that is named, by its name: filled in when the experiment is
    read. For results the content counts, not the place."""

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        return _raise(self._problems(), self)

    def _problems(self) -> Iterator[Problem]:
        yield from self._weight_problems()
        if self.file is None:
            yield from kwargs_problems(self.kwargs)
            return
        if (network := self.own) is None:
            yield (
                "file",
                f"expected a Python file and a function, my_net.py:build; got {self.file!r}",
            )
        elif network.file not in self.files:
            yield "file", f"{network.file}: no such file beside the experiment"
        else:
            try:
                check_network_file(network, self.files[network.file])
            except ExperimentError as error:
                yield "file", error.problems[0]
        for key in GIVEN_TO_BUILD:
            if key in self.kwargs:
                yield f"kwargs.{key}", "follows from the data set; remove it"

    def _weight_problems(self) -> Iterator[Problem]:
        if self.weights is not None and self.start != self.weights:
            yield "weights", f"{self.architecture!r} names weights already: give one of the two"
        elif self.weights and not (self.weights in self.weight_files or is_published(self.weights)):
            yield "weights", f"{self.weights}: no such file beside the experiment"
        if (self.mean is None) != (self.std is None):
            yield "mean" if self.std is None else "std", "expected mean and std, or neither"
        elif self.mean and self.std and len(self.mean) != len(self.std):
            yield "std", f"expected as many numbers as mean has, {len(self.mean)}"

    @property
    def own(self) -> FileNetwork | None:
        """The network of the user's own; None for one that has a name."""
        return file_network(self.file)

    @property
    def network(self) -> str:
        """The architecture without the tag."""
        return self.architecture.partition(".")[0]

    @property
    def start(self) -> str | None:
        """The name of the weights that the pretrained arms start from, if any."""
        return self.architecture if self.file is None and "." in self.architecture else self.weights

    @property
    def uses_timm(self) -> bool:
        """Whether its outcome can depend on timm's version."""
        if self.own is not None:
            return "timm" in dict(imports(parsed(self.own.file, self.files[self.own.file])))
        return self.network not in set(Network)

    def resolved(self) -> dict[str, Any]:
        """What counts, defaults filled in, as JSON-able values."""
        unset = {name for name in ("weights", "mean", "std") if getattr(self, name) is None}
        rest = {"weight_files", "files", *unset}
        if self.own is None:
            return self.model_dump(mode="json", exclude={"file", *rest})
        key = content_key(self.own.inside, self.files[self.own.file])
        return {**self.model_dump(mode="json", exclude={"architecture", *rest}), "network": key}


class Data(Section):
    """Where the images are."""

    root: Text | None = None
    """For `image_folder`: the folder of class folders. CIFAR is looked for here first, then in the
    folder that the environment variable `ANALOGTL_DATA` names, then in the user's cache folder.
    Relative to the file; with `--set`, to the current folder."""
    download: Bool = True
    """Download a missing CIFAR archive from its official address (its checksum is verified), and
    published weights from the Hugging Face hub."""
    image_size: Annotated[Int, Field(ge=4, le=1024)] | None = None
    """Resize images to this many pixels a side; `image_folder` needs it (default 32)."""
    split_seed: Seed | None = None
    """For an `image_folder` without folders `train` and `test`: the seed that draws one image in
    five of each class for testing. If absent it is every fifth by file name."""
    min_test_images: PositiveInt = 25
    """Fewer test images of the chosen classes are refused. The test error of 25 images has a
    standard error of up to 10 percentage points. `test_samples_per_class` may keep fewer."""


class Training(Section):
    """What pretraining and fine-tuning have in common."""

    dataset: Dataset
    """`cifar10`, `cifar100`, `digits` or `image_folder`."""
    classes: Classes = None
    """How many classes (the first ones by label order), or which: a list of names or label
    numbers; a superclass name for CIFAR-100. All if absent."""
    samples_per_class: PositiveInt | None = None
    """Keep at most this many training images of each class."""
    test_samples_per_class: PositiveInt | None = None
    """Keep at most this many test images of each class."""
    epochs: Annotated[Int, Field(ge=0, le=100_000)]
    """Passes over the training images."""
    batch_size: PositiveInt = 8
    """Images per step."""
    lr: PositiveNumber = 0.01
    """Learning rate."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Momentum of digital SGD."""
    weight_decay: NonNegative = 0.0
    """Weight decay of the digital optimizer."""
    schedule: Schedule = "constant"
    """Learning rate over the epochs: `constant`, `cosine` (to zero) or `onecycle` (warm-up over
    the first 30 % of the steps, then to zero)."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of the target probability spread over all classes."""
    augment: tuple[Augmentation, ...] = ()
    """Random changes of the training images: `crop` (shift by up to 12.5 % of the side), `flip`
    (left and right)."""
    validation_fraction: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of the training images of each class that is held out as validation data."""

    @field_validator("classes", "augment", "arms", check_fields=False)
    @classmethod
    def _distinct(cls, values: Any) -> Any:
        if isinstance(values, tuple) and len(set(values)) < len(values):
            _raise([("", f"expected each entry once; got {list(map(str, values))}")], values)
        return values

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        found = class_problems(self.dataset, self.classes)
        return _raise([("classes", problem) for problem in found], self)


class Pretrain(Training):
    """The digital pretraining on the source task."""

    dataset: Dataset = Dataset.DIGITS
    epochs: Annotated[Int, Field(ge=0, le=100_000)] = 20
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The digital optimizer."""
    seed: Seed = 0
    """Seed of the initial weights and the order of the images."""


class Convert(Section):
    """How the pretrained weights get onto the arrays."""

    weight_transfer_noise: NonNegative = 0.0
    """Weight transfer noise p in percent, added once, before fine-tuning:
    w_analog = w_digital + p/100 * N(0, 1) * scale (paper, eq. 1, Fig. 3)."""
    relative_to: Literal["absmax", "std", "absolute"] = "absmax"
    """Scale of the weight transfer noise: the layer's largest |w|, the standard deviation of its
    weights, or 1."""
    digital_layers: tuple[Text, ...] = ()
    """Layers that stay digital: names or shell patterns, e.g. `["head", "*.mlp.*"]`."""


class Finetune(Training):
    """The target task and the arms that are compared on it."""

    dataset: Dataset = Dataset.DIGITS
    epochs: Annotated[Int, Field(ge=0, le=100_000)] = 10
    arms: Annotated[tuple[TransferArm, ...], Field(min_length=1)] = (
        Arm.DIGITAL_TL,
        Arm.ANALOG_TL,
    )
    """`digital-tl`, `analog-tl`, `digital-scratch`, `analog-scratch`, `frozen-array`,
    `shuffled-gradients`."""
    validation_fraction: Annotated[Number, Field(ge=0, lt=1)] = 0.1


class Device(BaseModel):
    """The resistive device; every parameter of the aihwkit device can be set here by its name."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    preset: Text = "ReRamArrayHfO2PresetDevice"
    """aihwkit preset device (`analogtl list presets`) or pulsed device class."""
    file: Text | None = None
    """In place of a preset: a device file beside the experiment file (see `analogtl explain
    devices-and-nonidealities`), or the name of a preset. Parameters that are set here come over
    those of the file."""
    apply_write_noise_on_set: Bool = False
    """Whether programming a weight adds write noise. aihwkit's default is true, which destroys a
    pretrained network on the ReRAM array presets; hence off unless asked."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The device parameters that the file sets, by aihwkit's names."""
        return dict(self.model_extra or {})


class Nonidealities(Section):
    """Non-idealities in the paper's terms; each stands for the aihwkit parameters named."""

    symmetry_point_skew: Annotated[Number, Field(gt=-100, lt=100)] = 0.0
    """Symmetry point skew, where the symmetry point lies within the range, set by the bound, in
    percent of it: w_max = (1 - p/100) x the preset's (paper, Fig. 4)."""
    symmetry_point_skew_bound: Literal["upper", "lower", "both"] = "upper"
    """Which bound the skew moves: w_max, w_min, or both in the same direction."""
    symmetry_point_variability: NonNegative | None = None
    """Symmetry point variability in percent: reference_std = 2 p/100 (paper, Fig. 4)."""
    n_states: Annotated[Number, Field(gt=1)] | None = None
    """Number of states: dw_min = (w_max - w_min) / n_states, which is 2 / n_states for bounds of
    1 and -1."""
    out_noise: NonNegative | None = None
    """Output noise: out_noise of the forward and the backward pass."""
    io_bits: Annotated[Number, Field(ge=2, le=24)] | None = None
    """I/O resolution in bits: inp_res = out_res = 1 / (2^bits - 2), forward and backward."""


class Analog(Section):
    """The arrays and the algorithm that trains them."""

    algorithm: AnyAlgorithm = Algorithm.C_TTV2
    """`c-ttv2`, `agad`, `ttv2`, `tt`, `sgd`, `mp` (`analogtl list algorithms`), or a rule in a
    Python file beside the experiment file: `my_rule.py:Rule`, the file and the class in it. The
    file is run as it is (`analogtl explain rules`)."""
    engine: Literal["auto", "aihwkit", "fast"] = "auto"
    """`aihwkit` (stock), `fast` (the same process, about ten times faster), or `auto`: fast where
    it is exact."""
    drive: PositiveNumber | Literal["auto"] = "auto"
    """Pulses onto the fast array per average vector, `fast_lr` x `update.desired_bl`, for the
    algorithms with a hidden matrix. `auto`: for each layer what a read of it hears best."""
    granularity_per_token: NonNegative | Literal["auto"] = "auto"
    """auto_granularity of each layer = this x the vectors that the layer sees per image, for the
    algorithms that have one. `auto`: from the planned training and the noise of the reads (a rule
    in a file: 10). 0: off, [analog.compound] auto_granularity is what counts."""
    device: Device = Device()
    slow_device: dict[Text, Any] = {}
    """Parameters in which the device of the slow array, which holds the weights, differs from
    [analog.device]; they also come after the non-idealities. Algorithms with one array (sgd, mp)
    have no slow one. With `file`, a device file, it is a device of its own."""
    compound: dict[Text, Any] = {}
    """Parameters of the algorithm's aihwkit compound, e.g. ChoppedTransferCompound for c-ttv2:
    fast_lr, transfer_every, auto_granularity, in_chop_prob, ..."""
    forward: dict[Text, Any] = {}
    """Forward pass: parameters of aihwkit's IOParameters."""
    backward: dict[Text, Any] = {}
    """Backward pass: parameters of aihwkit's IOParameters."""
    update: dict[Text, Any] = {}
    """Parallel update of the fast array (sgd: of the weights): parameters of aihwkit's
    UpdateParameters. desired_bl is 5 unless set (tt, sgd, mp: 31)."""
    transfer_forward: dict[Text, Any] = {}
    """Reads of the fast array: parameters of aihwkit's IOParameters. Noise and bound management
    are off unless set (agad: on)."""
    transfer_update: dict[Text, Any] = {}
    """Pulses of a transfer: parameters of aihwkit's UpdateParameters. desired_bl is 1 unless set
    (tt: 31)."""
    mapping: dict[Text, Any] = {}
    """How weights map to arrays: parameters of aihwkit's MappingParameter (weight_scaling_omega
    0.6 unless set)."""
    nonidealities: Nonidealities = Nonidealities()
    algorithms: dict[AnyAlgorithm, dict[Table, dict[Text, Any]]] = {}
    """What differs for one algorithm, e.g. `[analog.algorithms.agad.compound]`: it takes the place
    of the same key of [analog] where that algorithm runs, so that one file can compare several."""
    rules: dict[Text, Text] = {}
    """The text of each rule file that is named, by its name: filled in when the experiment is read,
    so that what was planned is what runs."""
    device_files: dict[Text, dict[Text, Any]] = {}
    """The content of each device file that is named, by its name: filled in likewise."""

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        return _raise(self._problems(), self)

    def _problems(self) -> Iterator[Problem]:
        unread = False
        for algorithm in (self.algorithm, *self.algorithms):
            try:
                self.rule_of(algorithm)
            except ExperimentError as error:
                unread = True
                for line in error.problems:
                    yield "algorithm", line
        wrong = list(self._file_problems())
        yield from wrong
        if unread or wrong:
            return
        preset, known = self._base("device").preset, catalog.presets() + catalog.devices()
        if preset not in known:
            hint = did_you_mean(preset, known) or "see `analogtl list presets`"
            yield "device.preset", f"unknown device preset {preset!r}; {hint}"
        classes = {"device": preset, "slow_device": self._base("slow_device").preset}
        tables: dict[tuple[str, Algorithm], dict[str, Any]]
        tables = {(name, self.algorithm): getattr(self, name) for name in SECTIONS}
        tables["device", self.algorithm] = self.device.parameters
        tables["slow_device", self.algorithm] = _without_file(self.slow_device)
        for algorithm, own in self.algorithms.items():
            for table, values in own.items():
                tables[f"algorithms.{algorithm}.{table}", algorithm] = values
        for (name, algorithm), values in tables.items():
            kind = name.rpartition(".")[2]
            if preset in known or not kind.endswith("device"):
                rule, of = self.rule_of(algorithm), classes.get(kind, preset)
                for key, problem in table_problems(kind, values, algorithm, of, rule):
                    wrong.append((f"{name}.{key}", problem))
        yield from wrong
        yield from () if wrong or preset not in known else self._conflicts()
        if self.engine == "aihwkit" and self.rule_of(self.algorithm):
            yield "engine", f"aihwkit does not run {self.algorithm}; expected 'auto' or 'fast'"
        wanted = self.granularity_per_token not in ("auto", 0)
        if wanted and "auto_granularity" in self.values("compound"):
            reason = "takes the place of compound.auto_granularity: give one of the two"
            yield "granularity_per_token", reason
        if self.drive != "auto" and self.algorithm.granular and self.drive_is_given:
            reason = "takes the place of compound.fast_lr and update.desired_bl: give one of these"
            yield "drive", reason

    def rule_of(self, algorithm: Algorithm | FileAlgorithm) -> RuleFacts | None:
        """What a rule file says of an algorithm; None for a built-in one.

        Raises:
            ExperimentError: If there is no such file, or it is no rule.
        """
        if not isinstance(algorithm, FileAlgorithm):
            return None
        if algorithm.file not in self.rules:
            what = "no such file beside the experiment, and no shipped rule of that name"
            raise ExperimentError(f"{algorithm.file}: {what}")
        return rule_facts(algorithm, self.rules[algorithm.file])

    def _file_problems(self) -> Iterator[Problem]:
        for name, content in self.device_files.items():
            for key, problem in device_problems(content):
                yield f"device_files.{name}", f"{key}: {problem}"
        for key, file in (("device", self.device.file), ("slow_device", self._slow_file)):
            if file is not None and not isinstance(file, str):
                yield f"{key}.file", f"expected the name of a device file; got {file!r}"
            elif file is not None and file not in self.device_files:
                hint = did_you_mean(file, catalog.presets())
                what = "no such file beside the experiment, and no preset of that name"
                yield f"{key}.file", f"{file}: {what}" + (f"; {hint}" if "?" in hint else "")

    def _conflicts(self) -> Iterator[Problem]:
        """Parameters of the devices that do not go together."""
        fast = self.array_device
        slow = self.slow_array_device or fast
        for key, problem in device_conflicts(fast.preset, fast.parameters):
            yield f"device.{key}", problem
        own = {**slow.parameters, **self.values("slow_device")}
        for key, problem in device_conflicts(slow.preset, own) if own != fast.parameters else ():
            yield f"slow_device.{key}", problem

    @property
    def _slow_file(self) -> Any:
        return self.slow_device.get("file")

    def _base(self, table: Literal["device", "slow_device"]) -> Device:
        """The device of a table before the algorithm's own changes, with what its file says."""
        file, own = self.device.file, self.device.model_dump(exclude_unset=True)
        if table == "slow_device" and self._slow_file is not None:
            file, own = self._slow_file, {}
        if file is None:
            return self.device
        said = DeviceFile.from_table(self.device_files[file])
        return Device(**{**said.parameters, **own, "preset": said.device_class, "file": file})

    @property
    def array_device(self) -> Device:
        """The device of all arrays, as it is for the algorithm; see `slow_device`."""
        own = self.algorithms.get(self.algorithm, {}).get("device", {})
        return Device(**{**self._base("device").model_dump(), **own})

    @property
    def slow_array_device(self) -> Device | None:
        """The slow array's own device, from its file, before `slow_device`; None without one."""
        return self._base("slow_device") if self._slow_file is not None else None

    def values(self, table: str) -> dict[str, Any]:
        """Return the parameters of one of aihwkit's tables: the file's over analogtl's defaults.

        Args:
            table: One of SECTIONS, or "slow_device".
        """
        defaults = defaults_of(self.algorithm, self.rule_of(self.algorithm)).get(table, {})
        own: Mapping[Any, dict[str, Any]] = self.algorithms.get(self.algorithm, {})
        given = _without_file(getattr(self, table))
        return {**defaults, **given, **own.get(table, {})}

    @property
    def granularity(self) -> float | Literal["auto"] | None:
        """granularity_per_token where it is in force, else None."""
        rule = self.rule_of(self.algorithm)
        granular = "auto_granularity" in rule.parameters if rule else self.algorithm.granular
        in_force = granular and "auto_granularity" not in self.values("compound")
        return (self.granularity_per_token or None) if in_force else None

    @property
    def drive_is_given(self) -> bool:
        """Whether the file gives aihwkit's own keys for the drive."""
        return "fast_lr" in self.values("compound") or "desired_bl" in self.values("update")

    def resolved(self) -> dict[str, Any]:
        """Everything that counts for the algorithm, defaults filled in, as JSON-able values."""
        data: dict[str, Any] = self.model_dump(mode="json")
        del data["algorithms"], data["rules"]
        if not self.device_files:
            del data["device_files"]
        if isinstance(self.algorithm, FileAlgorithm):
            data["rule"] = content_key(self.rules[self.algorithm.file])
        for section in (*SECTIONS, "slow_device"):
            data[section] = self.values(section)
        devices = {"device": self.array_device, "slow_array": self.slow_array_device}
        for name, device in devices.items():
            if device is not None:
                data[name] = device.model_dump(mode="json", exclude_none=True)
        return data


def _without_file(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "file"}


class Programming(Section):
    """Weight programming: one array is trained until it holds a target matrix (Rasch et al. 2024,
    Nat. Commun. 15, 7133, Fig. 4). Used where kind = "weight-programming"."""

    size: Annotated[Int, Field(ge=1, le=512)] = 20
    """Rows and columns of the matrix."""
    target_std: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """Standard deviation of the target weights, drawn from N(0, target_std) and clipped to
    target_max, in weight units."""
    target_max: Annotated[Number, Field(gt=0)] = 1.0
    """Largest size of a target weight, in weight units."""
    inputs: Literal["normal", "uniform"] = "normal"
    """Distribution of the inputs: N(0, 1), or uniform from -1 to 1."""
    vectors: PositiveInt = 1000
    """Input vectors per epoch."""
    epochs: Annotated[Int, Field(ge=1, le=100_000)] = 40
    """Epochs; the programming error is measured after each."""
    batch_size: PositiveInt = 10
    """Vectors that see the same weights before they are updated."""
    lr: PositiveNumber = 0.1
    """Learning rate, per vector."""
    seed: Seed = 0
    """Seed of the target and the inputs: the same for every trial, as [sweep] seeds draw only the
    devices."""


class Tune(Section):
    """Settings that are chosen before the sweep, for each arm at each level of its axes (so for
    each device or algorithm, where these are axes), by validation error."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (100, 101)
    """Seeds of the replicates that candidates are compared on: none of `sweep.seeds`, so that
    nothing is chosen on what is tested."""
    class_sets: tuple[ClassSet, ...] = ()
    """Sets of classes, each of which is run with every seed, as `sweep.class_sets`, in whose place
    they come. Empty: the same sets as in the sweep."""
    method: Literal["grid", "halving"] = "grid"
    """`grid`: every candidate on every block (a seed and a set of classes). `halving`: every
    candidate on the first blocks, the better half on the next ones, and so on."""
    budget: PositiveInt | None = None
    """`halving`: how many trainings each choice (of an arm at a level) may take. Half of those of
    the grid if absent."""
    candidates: dict[Text, tuple[Any, ...]] = {}
    """Dotted key -> the values to choose among; of several keys, every combination is a candidate.
    A key is left out where it changes nothing: of [analog] in digital arms, `analog.drive` in
    algorithms without one. The shuffled control takes what analog-tl has."""

    @model_validator(mode="before")
    @classmethod
    def _flatten_candidates(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("candidates"), Mapping):
            return {**data, "candidates": flatten(data["candidates"])}
        return data

    @model_validator(mode="after")
    def _candidates_fit(self) -> Self:
        return _raise(self._problems(), self)

    def _problems(self) -> Iterator[Problem]:
        if self.model_fields_set and "candidates" not in self.model_fields_set:
            yield (
                "candidates",
                'expected a key and its values, e.g. { "finetune.lr" = [0.01, 0.02] }',
            )
        for key, values in self.candidates.items():
            wrong = [v for v in values if not (is_number(v) or isinstance(v, bool | str))]
            if wrong:
                yield f"candidates.{key}", f"expected numbers or names; got {wrong}"
            elif len(values) < 2:
                yield f"candidates.{key}", f"expected two values or more; got {list(values)}"
            elif len({(type(value) is bool, value) for value in values}) < len(values):
                yield f"candidates.{key}", f"expected each value once; got {list(values)}"
        for name in ("seeds", "class_sets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                yield name, f"expected each value once; got {list(values)}"
        first = math.prod(map(len, self.candidates.values()))
        if first > MAX_CANDIDATES:
            yield "candidates", f"{first:,} combinations; expected at most {MAX_CANDIDATES:,}"
        if self.method == "grid" and self.budget is not None:
            yield "budget", "the grid has none: every candidate runs; expected method = 'halving'"
        if self.method == "halving" and self.budget is not None and self.budget < first:
            yield "budget", f"expected {first} or more, for each candidate once; got {self.budget}"


class Evaluate(Section):
    """The test error after training, of the arrays as they are when they have been left alone. It
    changes no trial: each that ends keeps its final state, which is evaluated, also later on."""

    times: tuple[Annotated[NonNegative, BeforeValidator(seconds)], ...] = ()
    """How long after training: seconds, or text such as `"1 day"` or `"10 years"`. 0: as trained.
    Empty: no evaluation."""
    noise_model: Literal[tuple(NOISE_MODELS)] = OF_DEVICE  # type: ignore[valid-type]
    """What happens to the weights meanwhile: `device` (the lifetime and diffusion of
    [analog.device], where it has any), or aihwkit's model for inference of this name, with its
    drift and read noise (the weights are those that were trained: none are programmed anew)."""
    parameters: dict[Text, Any] = {}
    """Parameters of the noise model by aihwkit's names, e.g. `{ drift_scale = 0.5 }`."""
    batch_s: PositiveNumber | None = None
    """Seconds that a mini-batch takes on the hardware: the unit of a device's lifetime and
    diffusion."""
    drift_compensation: Literal["none", "GlobalDriftCompensation", "PerColumnDriftCompensation"] = (
        "GlobalDriftCompensation"
    )
    """Digital factor that undoes the mean decay of a tile's outputs, or of each output, as aihwkit
    has it: from reads of the tile at the end of training and at each time."""
    repeats: Annotated[Int, Field(ge=1, le=1000)] = 10
    """How often everything random is drawn anew."""
    seed: Seed = 0
    """Seed of these draws, beside the trial's own."""

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        found = retention_problems(self.times, self.noise_model, self.parameters, self.batch_s)
        return _raise(found, self)

    @field_validator("times")
    @classmethod
    def _each_once(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(times)) < len(times):
            _raise([("", f"expected each time once; got {[f'{t:g} s' for t in times]}")], times)
        return times


class Sweep(Section):
    """The trials: every combination of axes, learning rates and seeds, for every arm."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of the replicates; `finetune` runs them too. The same seeds draw the same devices at
    every level."""
    class_sets: tuple[ClassSet, ...] = ()
    """Sets of classes, each as [finetune] classes has one, in whose place they are run: every seed
    with every set, at every level. A seed and a set are one block: levels and arms are compared
    within blocks, and a verdict rests on more than one task. All of one size."""
    lr: tuple[PositiveNumber, ...] = ()
    """Learning rates to try at every level; the best one on validation data is kept. Empty:
    [finetune] lr alone (weight programming: [programming] lr)."""
    axes: dict[Text, tuple[Any, ...]] = {}
    """Axis name or dotted key -> levels; see `analogtl list axes`."""
    tune: Tune = Tune()

    @model_validator(mode="before")
    @classmethod
    def _flatten_axes(cls, data: Any) -> Any:
        # TOML reads an unquoted dotted key as nested tables; both spellings mean the same axis.
        if isinstance(data, Mapping) and isinstance(data.get("axes"), Mapping):
            return {**data, "axes": flatten(data["axes"])}
        return data

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        return _raise(self._problems(), self)

    def _problems(self) -> Iterator[Problem]:
        axes = {f"axes.{name}": levels for name, levels in self.axes.items()}
        for key, values in axes.items():
            # Checked here, as the schema's own words for one of four types help nobody.
            names = () if key.removeprefix("axes.") in AXES else (bool, str)
            if wrong := [v for v in values if not (is_number(v) or isinstance(v, names))]:
                yield key, f"expected numbers{' or names' if names else ''}; got {wrong}"
                return
            if not values:
                yield key, "expected at least one level; got none"
        lists: dict[str, tuple[Any, ...]] = {"seeds": self.seeds, "lr": self.lr, **axes}
        for key, values in {**lists, "class_sets": self.class_sets}.items():
            if len(set(values)) < len(values):
                yield key, f"expected each value once; got {list(values)}"


class Run(Section):
    """Where and how trials compute; of this, only the device changes results."""

    device: ComputeDevice = ComputeDevice.AUTO
    """`auto` (CUDA where torch has it, else the CPU), `cpu` or `cuda`. Pretraining and digital arms
    follow it; arrays too with engine = "aihwkit", where aihwkit is compiled for CUDA. The fast
    engine is one for the CPU: with it, analog arms compute there."""
    threads: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Threads of one trial, for arrays on the fast engine: tiles are updated beside the next
    pass, and products divided. Every number gives the same results, bit for bit."""
    save_pulses: Bool = False
    """Whether each trial that ends writes the pulses of every cell on the fast engine's arrays,
    `pulses.safetensors` (`analogtl explain csv`). A trial that is done is not run again for it."""


class Hardware(Section):
    """What the arrays, their converters and digital operations cost: from it and from what was
    counted, reports compute energy, time and wear (`analogtl explain cost`). It changes no result
    and no trial is run again for it."""

    preset: Text | None = None
    """Published constants (`analogtl list hardware`); the keys below come over them."""
    pulse_energy: PositiveNumber | None = None
    """Energy of one pulse at one cell, in J."""
    read_energy: PositiveNumber | None = None
    """Energy of one cell in one read of its array, forward, backward or of a transfer, in J."""
    adc_energy: PositiveNumber | None = None
    """Energy of one A/D conversion, in J."""
    dac_energy: PositiveNumber | None = None
    """Energy of one D/A conversion, in J."""
    digital_energy: PositiveNumber | None = None
    """Energy of one digital operation, a multiplication with its addition, in J."""
    memory_energy: PositiveNumber | None = None
    """Energy of moving a byte to or from the digital part's memory, in J; not set: not counted."""
    pulse_time: PositiveNumber | None = None
    """Time of one pulse slot, in s."""
    read_time: PositiveNumber | None = None
    """Time of one read of an array with its conversions, in s."""
    digital_rate: PositiveNumber | None = None
    """Digital operations per second; not set: no time for them."""
    parallel_arrays: PositiveNumber | None = None
    """How many arrays are at work at the same time, on average; not set: 1."""
    endurance: PositiveNumber | None = None
    """Pulses that a cell stands."""

    @model_validator(mode="after")
    def _known_preset(self) -> Self:
        known = hardware_presets()
        if self.preset is None or self.preset in known:
            return self
        hint = did_you_mean(self.preset, known)
        return _raise([("preset", f"unknown hardware {self.preset!r}; {hint}")], self)


class Report(Section):
    """How the results are judged."""

    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05
    """Significance level of the tests behind critical points and findings."""
    margin: PositiveNumber = 2.0
    """Percentage points of test error that count as no harm: for the certified level, and for the
    findings of little effect."""
    judged_epochs: PositiveInt | None = None
    """How many of the last epochs the test error that is judged is the mean of. 5 if absent, but
    at most half of the training, and at least 1. 1: the last epoch alone."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Trackers that get the numbers of each epoch, where they are installed: `tensorboard`,
    `wandb`, `mlflow`, `trackio`. They write to the run's folder `tracking`, and send nothing away
    unless their own environment variables say so. Changes no trial."""
    findings: Bool = False
    """Whether reports hold the runs to the published findings (`analogtl explain findings`)."""


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
    model: Model = Model()
    data: Data = Data()
    pretrain: Pretrain = Pretrain()
    convert: Convert = Convert()
    finetune: Finetune = Finetune()
    analog: Analog = Analog()
    programming: Programming = Programming()
    evaluate: Evaluate = Evaluate()
    sweep: Sweep = Sweep()
    run: Run = Run()
    hardware: Hardware = Hardware()
    report: Report = Report()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        return _raise(self._problems(), self)

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
        yield from self._class_set_problems()
        yield from self._evaluate_problems()
        judged, epochs = self.report.judged_epochs, max(1, self.epochs)
        if judged is not None and judged > epochs:
            yield "report.judged_epochs", f"expected at most the epochs, {epochs}; got {judged}"
        if len(self.sweep.lr) > 1 and not self.finetune.validation_fraction:
            key = "finetune.validation_fraction"
            yield key, "expected more than 0: sweep.lr is chosen on validation data"
        if self.sweep.tune.candidates:
            yield from self._tune_problems(self.sweep.tune)

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

    def _class_set_problems(self) -> Iterator[Problem]:
        sets = self.sweep.class_sets
        for problem in self._problems_of_sets(sets):
            yield "sweep.class_sets", problem
        for axis in self.sweep.axes if sets else ():
            if key_of(axis) in ("finetune.classes", "finetune.dataset"):
                yield f"sweep.axes.{axis}", "sets the same as sweep.class_sets: give one of the two"

    def _problems_of_sets(self, sets: tuple[ClassSet, ...]) -> Iterator[str]:
        for one in sets:
            yield from class_problems(self.finetune.dataset, one)
        sizes = [len(one) for one in sets if not isinstance(one, str)]
        if len(set(sizes)) > 1:
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

    def resolved(self) -> dict[str, Any]:
        """Everything, defaults filled in, as JSON-able values; computed once, not to be changed."""
        return self._resolved

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        own = {"model": self.model.resolved(), "analog": self.analog.resolved()}
        return {**self.model_dump(mode="json"), **own}

    def as_written(self) -> dict[str, Any]:
        """Only what the file and the overrides set, as JSON-able values."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_unset=True)
        return data


def _as_set(classes: Any) -> Any:
    """Classes in any order: what tells whether two sets are one task."""
    return frozenset(map(str, classes)) if isinstance(classes, tuple) else classes


def content_key(*parts: Any) -> str:
    """A short hash of JSON-able parts: equal content, equal key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
