"""[convert], [analog] and [programming]: the arrays, how networks get onto them, how they learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WrapValidator

from analogtl.config import catalog
from analogtl.config.device_file import DeviceFile, device_problems
from analogtl.config.parameters import (
    SECTIONS,
    Problem,
    Table,
    defaults_of,
    device_conflicts,
    table_problems,
)
from analogtl.config.rule_file import RuleFacts, rule_facts
from analogtl.config.section import (
    Bool,
    Int,
    NonNegative,
    Number,
    PositiveInt,
    PositiveNumber,
    Section,
    Seed,
    Text,
    content_key,
)
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import Algorithm, FileAlgorithm, file_algorithm

# One of the built-in algorithms, or a `FileAlgorithm`, which can all that they can.
AnyAlgorithm = Annotated[
    Algorithm,
    WrapValidator(lambda name, built_in: file_algorithm(name) or built_in(name)),
    PlainSerializer(str, return_type=str),
]


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
