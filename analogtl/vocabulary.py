"""The nouns, each defined once: arms, algorithms, trial states, data sets, networks, axes, ...

Every name is a string, as it stands in experiment files and CSV columns, that also knows its label,
its meaning and how it is drawn; whatever shows one to a person takes them from here. Nothing heavy
is imported: experiment files are checked, and names completed, without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

RUN_AXIS = "run"  # the axis of several runs that are reported as one
# Folders of a run directory, or beside them, that hold no run of their own.
RUN_FOLDERS = frozenset({"trials", "pretrain", "pretrained", "report", "replaced", "damaged"})


class _Noun(StrEnum):
    """A name that knows its facts: the attributes that its class annotates, in their order."""

    def __new__(cls, name: str, *facts: Any) -> Self:
        noun = str.__new__(cls, name)
        noun._value_ = name
        for attribute, fact in zip(cls.__annotations__, facts, strict=True):
            setattr(noun, attribute, fact)
        return noun

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The one of this name; None if there is none."""
        found: Self | None = cls._value2member_map_.get(name)  # type: ignore[assignment]
        return found


@dataclass(frozen=True)
class Style:
    """How an arm is drawn: on paper (``color``) and on a dark screen (``dark``)."""

    color: str
    dark: str
    dash: str
    marker: str
    filled: bool = True


OTHER_STYLE = Style("#6B4FA0", "#B49BE8", "-.", "D")


class Arm(_Noun):
    """How a network comes to its weights: what an experiment compares (paper, Fig. 2).

    In this order in every table and figure: the rivals first, the control last.

    Attributes:
        label: As tables and figures call it.
        meaning: In words.
        pretrained: Whether it starts from the pretrained model.
        analog: Whether its weights are on arrays.
        trains_arrays: Whether those are trained.
        style: How it is drawn.
    """

    label: str
    meaning: str
    pretrained: bool
    analog: bool
    trains_arrays: bool
    style: Style

    # name, label, meaning, pretrained, analog, trains_arrays, style
    DIGITAL_TL = (
        "digital-tl",
        "digital TL",
        "pretrained, then fine-tuned digitally",
        True,
        False,
        False,
        Style("#0B5FA5", "#6CB6F5", "-", "o"),
    )
    ANALOG_TL = (
        "analog-tl",
        "analog TL",
        "pretrained, programmed onto the arrays, fine-tuned there",
        True,
        True,
        True,
        Style("#C2410C", "#FF8F61", "-", "s"),
    )
    DIGITAL_SCRATCH = (
        "digital-scratch",
        "digital from scratch",
        "trained digitally from a random start",
        False,
        False,
        False,
        Style("#2B86C5", "#4FA3E3", "--", "o", filled=False),
    )
    ANALOG_SCRATCH = (
        "analog-scratch",
        "analog from scratch",
        "a random start programmed onto the arrays, trained there",
        False,
        True,
        True,
        Style("#C66A00", "#E5A23D", "--", "s", filled=False),
    )
    FROZEN_ARRAY = (
        "frozen-array",
        "frozen arrays (control)",
        "analog-tl with the arrays held fixed: the control that tells if they learn",
        True,
        True,
        False,
        Style("#5F6773", "#A3ABB8", ":", "^"),
    )
    WEIGHT_PROGRAMMING = (
        "weight-programming",
        "weight programming",
        "one array trained until it holds a matrix: the one arm of experiments of that kind",
        False,
        True,
        True,
        OTHER_STYLE,
    )

    @property
    def digital(self) -> bool:
        """Whether its weights are plain numbers."""
        return not self.analog


TRANSFER_ARMS = tuple(arm for arm in Arm if arm is not Arm.WEIGHT_PROGRAMMING)


def arm_label(name: str) -> str:
    """What tables and figures call an arm; one that this version does not know, as it is."""
    arm = Arm.named(name)
    return arm.label if arm else name


def arm_style(name: str) -> Style:
    """How an arm is drawn; those that this version does not know share one style."""
    arm = Arm.named(name)
    return arm.style if arm else OTHER_STYLE


def error_name(arms: Iterable[str]) -> str:
    """What the error of trials of these arms is: of test images, or of programmed weights."""
    return "programming error" if set(arms) == {Arm.WEIGHT_PROGRAMMING} else "test error"


class Algorithm(_Noun):
    """A training algorithm of arrays.

    Attributes:
        label: As tables and figures call it.
        meaning: In words, with its source.
        compound: aihwkit's device class that runs it; None where the weights' own device does.
        fast: Whether the fast engine runs it.
    """

    label: str
    meaning: str
    compound: str | None
    fast: bool

    # name, label, meaning, compound, fast
    C_TTV2 = (
        "c-ttv2",
        "c-TTv2",
        "chopped Tiki-Taka v2 (Rasch et al. 2024), the paper's",
        "ChoppedTransferCompound",
        True,
    )
    AGAD = (
        "agad",
        "AGAD",
        "analog gradient accumulation with dynamic reference",
        "DynamicTransferCompound",
        True,
    )
    TTV2 = (
        "ttv2",
        "TTv2",
        "Tiki-Taka v2 (Gokmen 2021): c-TTv2 without the chopper",
        "ChoppedTransferCompound",
        True,
    )
    TT = ("tt", "Tiki-Taka", "Tiki-Taka (Gokmen & Haensch 2020)", "TransferCompound", False)
    SGD = (
        "sgd",
        "pulsed SGD",
        "stochastic pulsed SGD straight on the device (Gokmen & Vlasov 2016)",
        None,
        False,
    )
    MP = (
        "mp",
        "mixed precision",
        "mixed precision: digital gradient, analog weights",
        "MixedPrecisionCompound",
        False,
    )

    @property
    def granular(self) -> bool:
        """Whether it has an auto_granularity, which sets the transfers from its hidden matrix."""
        return self in (Algorithm.C_TTV2, Algorithm.AGAD, Algorithm.TTV2)


class TrialStatus(_Noun):
    """What has become of a trial."""

    meaning: str

    DONE = "done", "finished; its record is whole"
    FAILED = "failed", "ended with an error, which its message tells"
    STOPPED = "stopped", "saved before its end; the next call goes on"
    BUSY = "busy", "another process has it"
    QUEUED = "queued", "handed to a cluster that runs it later"
    MISSING = "missing", "planned, without a record"


class Dataset(_Noun):
    """A data set that images come from."""

    meaning: str

    CIFAR10 = "cifar10", "CIFAR-10: 32x32 colour images, 10 classes"
    CIFAR100 = "cifar100", "CIFAR-100: 32x32 colour images, 100 classes in 20 superclasses"
    DIGITS = "digits", "scikit-learn's bundled 8x8 digits, 10 classes; no download"
    IMAGE_FOLDER = (
        "image_folder",
        "your own images: [data] root/train/<class>/*.png and root/test/<class>/*.png",
    )


class Network(_Noun):
    """A network that comes with analogtl; beside these, any timm model name."""

    meaning: str

    SWIN_CIFAR_TINY = (
        "swin_cifar_tiny",
        "the paper's Swin-T for 32x32 images, 26.6 million parameters",
    )
    SWIN_CIFAR_DESK = (
        "swin_cifar_desk",
        "a small Swin for 32x32 images that trains on a laptop, 208,862 parameters",
    )
    SWIN_DIGITS = "swin_digits", "a very small Swin for the 8x8 digits"
    MLP_DIGITS = "mlp_digits", "a small MLP for the 8x8 digits"


class Backend(_Noun):
    """Where trials run."""

    meaning: str

    LOCAL = "local", "processes on this machine"
    RAY = "ray", "tasks on a Ray cluster; needs analogtl[ray]"
    SLURM = "slurm", "an array job of Slurm, through submitit; needs analogtl[slurm]"


class CriticalPointVerdict(_Noun):
    """What a sweep of one axis says about its critical point."""

    label: str

    CRITICAL = "critical point", "worse from some level on"
    NONE = "no critical point", "no harm shown"
    NO_DATA = "not enough data", "not enough data"


class FindingVerdict(_Noun):
    """What the runs say about a finding.

    Attributes:
        label: As pages call it.
        color, dark: Of the label, on paper and on a dark screen.
    """

    label: str
    color: str
    dark: str

    HOLDS = "holds", "holds", "#0d5f30", "#8fdcae"
    FAILS = "does not hold", "does not hold", "#9a2409", "#ffab92"
    OPEN = "not enough data", "open: not enough data", "#4a5360", "#c0c8d2"


PAPER = "arXiv 2505.11067"
PUBLISHED = "DOI 10.1109/tcsii.2025.3596457"


@dataclass(frozen=True)
class Axis:
    """One sweep axis: a short name for one key of the file. Any other key can be swept, too.

    The papers show most of their levels in figures only. So ``published`` holds the levels that a
    text names, ``own`` what the paper's device has by itself (aihwkit's HfO2 preset; for the
    periphery, aihwkit's default), and the other default levels are this tool's choice.

    Attributes:
        name: Short name, the column in the CSV files.
        key: Dotted key of the experiment that a level is written to.
        meaning: What is varied, in words; the label of a figure's x axis.
        unit: Unit of the levels ("" for a plain number).
        sets: What a level sets in aihwkit.
        levels: Levels taken when none are given.
        source: Where the axis was published.
        published: Levels that the source's text names.
        own: Levels that the HfO2 preset, or aihwkit's periphery, has where nothing is set.
        device_parameters: Device parameters that must exist on the chosen device.
        analog_only: Whether it leaves the digital arms untouched.
        harsher_below: Whether it harms by getting smaller; its highest level is the reference.
        reciprocal: Whether its harm is linear, if at all, in 1 / level (dw_min = 2 / n_states).
    """

    name: str
    key: str
    meaning: str
    unit: str
    sets: str
    levels: tuple[float, ...]
    source: str
    published: tuple[float, ...] = ()
    own: tuple[float, ...] = ()
    device_parameters: tuple[str, ...] = ()
    analog_only: bool = True
    harsher_below: bool = False
    reciprocal: bool = False

    @property
    def label(self) -> str:
        """Meaning and unit, as on a figure's axis."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning

    @property
    def levels_text(self) -> str:
        """The levels taken when none are given; a star marks those that the source's text names."""
        return self.marked_levels("{:g}*")

    def marked_levels(self, mark: str) -> str:
        """The levels taken when none are given, those of the source's text in this format."""
        return ", ".join((mark if x in self.published else "{:g}").format(x) for x in self.levels)

    def origin(self, level: float) -> str:
        """Where a level comes from: "published", "the device's own" or "this tool's choice"."""
        if level in self.published:
            return "published"
        return "the device's own" if level in self.own else "this tool's choice"


_AXES = (
    Axis(
        "wtn",
        "convert.weight_transfer_noise",
        "weight transfer noise",
        "%",
        "w_analog = w_digital + p/100 * N(0, 1) * max|w| (eq. 1; relative_to), once, at conversion",
        (0, 2, 5, 10, 15, 20, 30),
        f"{PAPER}, Fig. 3",
        published=(10, 15),
        own=(0,),
    ),
    Axis(
        "sps",
        "analog.nonidealities.symmetry_point_skew",
        "symmetry point skew",
        "%",
        # With aihwkit's soft bounds up and down steps are equal at 0 whatever the bounds (as long
        # as up_down is 0), so that the skew changes range and slopes, not where they are equal.
        "w_max = (1 - p/100) w_max of the preset; or w_min, or both (symmetry_point_skew_bound)",
        (0, 5, 10, 15, 20),
        f"{PAPER}, Fig. 4",
        own=(0,),
        device_parameters=("w_max", "w_min"),
    ),
    Axis(
        "spv",
        "analog.nonidealities.symmetry_point_variability",
        "symmetry point variability",
        "%",
        "reference_std = 2 p/100 (5 % is 0.10)",
        (0, 5, 10, 15, 20),
        f"{PAPER}, Fig. 4",
        published=(5, 10),
        own=(2.5,),
        device_parameters=("reference_std",),
    ),
    Axis(
        "dw_min_std",
        "analog.device.dw_min_std",
        "pulse update noise",
        "dw_min",
        "dw_min_std: cycle-to-cycle noise of one pulse, relative to dw_min",
        (0, 0.1, 0.2174, 0.5, 1.0),
        f"{PAPER}, Fig. 5",
        own=(0.2174,),
        device_parameters=("dw_min_std",),
    ),
    Axis(
        "dw_min_dtod",
        "analog.device.dw_min_dtod",
        "mean pulse device-to-device variability",
        "dw_min",
        "dw_min_dtod: spread of the mean pulse size over the devices, relative to dw_min (of its "
        "logarithm where dw_min_dtod_log_normal is on, as on the ReRAM arrays)",
        (0, 0.1, 0.3, 0.7125, 1.0),
        f"{PAPER}, Fig. 5",
        own=(0.7125,),
        device_parameters=("dw_min_dtod",),
    ),
    Axis(
        "write_noise_std",
        "analog.device.write_noise_std",
        "write noise",
        "dw_min",
        "write_noise_std: noise of the apparent weight after each pulse, relative to dw_min",
        (0, 0.25, 0.5841, 1.0, 2.0),
        PUBLISHED,
        own=(0.5841,),
        device_parameters=("write_noise_std",),
    ),
    Axis(
        "n_states",
        "analog.nonidealities.n_states",
        "number of states",
        "",
        "dw_min = (w_max - w_min) / n_states of the preset: 2 / n_states for bounds of 1 and -1",
        (4.327, 10, 20, 50, 100, 500),
        PUBLISHED,
        own=(4.327,),
        device_parameters=("dw_min", "w_max", "w_min"),
        harsher_below=True,
        reciprocal=True,
    ),
    Axis(
        "out_noise",
        "analog.nonidealities.out_noise",
        "output noise",
        "",
        "out_noise of the forward and the backward pass",
        (0, 0.03, 0.06, 0.12, 0.24),
        PUBLISHED,
        own=(0.06,),
    ),
    Axis(
        "io_bits",
        "analog.nonidealities.io_bits",
        "I/O resolution",
        "bits",
        "inp_res = out_res = 1 / (2^bits - 2), forward and backward (aihwkit: 7 in, 9 out)",
        (4, 5, 6, 7, 8, 9),
        PUBLISHED,
        own=(7, 9),
        harsher_below=True,
    ),
    Axis(
        "w_max_dtod",
        "analog.device.w_max_dtod",
        "upper bound device-to-device variability",
        "w_max",
        "w_max_dtod: spread of w_max over the devices, relative to w_max",
        (0, 0.1, 0.2, 0.4295, 0.6),
        PUBLISHED,
        own=(0.4295,),
        device_parameters=("w_max_dtod",),
    ),
    Axis(
        "w_min_dtod",
        "analog.device.w_min_dtod",
        "lower bound device-to-device variability",
        "w_min",
        "w_min_dtod: spread of w_min over the devices, relative to w_min",
        (0, 0.1, 0.3, 0.599, 0.8),
        PUBLISHED,
        own=(0.599,),
        device_parameters=("w_min_dtod",),
    ),
    Axis(
        "lr",
        "finetune.lr",
        "learning rate",
        "",
        "finetune.lr of every arm",
        (0.001, 0.003, 0.01, 0.03, 0.1),
        f"{PAPER}, Table I",
        published=(0.01,),
        analog_only=False,
    ),
)

AXES: dict[str, Axis] = {axis.name: axis for axis in _AXES}


def key_of(name: str) -> str:
    """The dotted key that an axis name stands for; a dotted key stands for itself."""
    return AXES[name].key if name in AXES else name


def label_of(name: str) -> str:
    """The label of an axis on a figure; a dotted key is its own label."""
    return AXES[name].label if name in AXES else name


def analog_only(name: str) -> bool:
    """Whether an axis leaves the digital arms as they are."""
    if name in AXES:
        return AXES[name].analog_only
    return name.split(".", 1)[0] in ("analog", "convert")
