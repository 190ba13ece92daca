"""The nouns, each defined once: arms, algorithms, trial states, data sets, networks, axes, ...

Every name is a string, as it stands in experiment files and CSV columns, that also knows its label,
its meaning and how it is drawn; whatever shows one to a person takes them from here. Nothing heavy
is imported: experiment files are checked, and names completed, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, Self

import tomli

RUN_AXIS = "run"  # the axis of several runs that are reported as one
PER_LAYER = "per_layer"  # the axis of layers that have settings of their own
# Folders of a run directory, or beside them, that hold no run of their own.
RUN_FOLDERS = frozenset(
    {"trials", "pretrain", "pretrained", "report", "replaced", "damaged", "tuning"}
)

LANGUAGE = "hf:"
"""What the name of a language model begins with: its folder, or its name on the hub, follows."""

MIN_SHARE = 0.9
"""Of a network's weights on arrays; with less, a user is warned and a table says so."""


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
    """How a line is drawn: on paper (``color``) and on a dark screen (``dark``).

    ``dash`` is one that Matplotlib knows, by its name or as offset and lengths.
    """

    color: str
    dark: str
    dash: str | tuple[float, tuple[float, ...]]
    marker: str
    filled: bool = True


OTHER_STYLE = Style("#6B4FA0", "#B49BE8", "-.", "D")


class Arm(_Noun):
    """How a network comes to its weights: what an experiment compares (paper, Fig. 2).

    In this order in every table and figure: the rivals first, the control last.
    """

    label: str  # as tables and figures call it
    meaning: str  # in words
    pretrained: bool  # whether it starts from the pretrained model
    analog: bool  # whether its weights are on arrays
    trains_arrays: bool  # whether those are trained
    style: Style

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
    LORA_DIGITAL = (
        "lora-digital",
        "LoRA digital",
        "frozen arrays with low-rank adapters beside them, which are digital and trained digitally",
        True,
        True,
        False,
        Style("#00875A", "#2DEBB0", "-", "D"),
    )
    LORA_ANALOG = (
        "lora-analog",
        "LoRA analog",
        "frozen weights with low-rank adapters beside them, which are on arrays and trained there",
        True,
        True,
        True,
        Style("#6A0D26", "#F2547F", "-", "P"),
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
    SHUFFLED_GRADIENTS = (
        "shuffled-gradients",
        "shuffled gradients (control)",
        "analog-tl with a random sign for every gradient vector: as many pulses, and no signal",
        True,
        True,
        True,
        Style("#7A6A8E", "#B5A6C9", ":", "v"),
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
    def has_adapters(self) -> bool:
        """Whether low-rank adapters are trained in the place of the network's own weights."""
        return self in (Arm.LORA_DIGITAL, Arm.LORA_ANALOG)

    def ignores(self, name: str) -> bool:
        """Whether a sweep axis, by its name or dotted key, leaves the arm as it is."""
        if (key := key_of(name)).startswith("lora."):
            return not (self.has_adapters and (self.trains_arrays or key != "lora.base"))
        return not self.analog and analog_only(name)


TRANSFER_ARMS = tuple(arm for arm in Arm if arm is not Arm.WEIGHT_PROGRAMMING)


def arm_label(name: str) -> str:
    """What tables and figures call an arm; one that this version does not know, as it is."""
    arm = Arm.named(name)
    return arm.label if arm else name


def arm_style(name: str) -> Style:
    """How an arm is drawn; those that this version does not know share one style."""
    arm = Arm.named(name)
    return arm.style if arm else OTHER_STYLE


class Metric(_Noun):
    """What trials are judged by, on examples that were held out: lower is better."""

    label: str  # as tables and figures call it
    unit: str  # of a value; "" for a plain number
    gap: str  # unit of a difference
    decimals: int  # to show
    margin: float  # what counts as no harm where an experiment does not say

    ERROR = "error", "test error", "%", "points", 1, 2.0
    BALANCED_ERROR = "balanced-error", "balanced test error", "%", "points", 1, 2.0
    PROGRAMMING = "programming-error", "programming error", "%", "points", 1, 2.0
    CROSS_ENTROPY = "cross-entropy", "test loss", "nats per token", "nats per token", 3, 0.05
    DENOISING = "denoising-loss", "denoising loss", "", "", 3, 0.02

    @property
    def is_share(self) -> bool:
        """Whether it is a share in percent, and an accuracy is what is missing to 100 %."""
        return self is Metric.ERROR

    @property
    def is_percent(self) -> bool:
        """Whether it is given in percent, and differences in points."""
        return self.unit == "%"

    @property
    def axis(self) -> str:
        """Label and unit, as on a figure's axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def number(self, value: float | None, form: str = "") -> str:
        """A value or a difference without its unit."""
        return "–" if value is None else f"{value:{form}.{self.decimals}f}"

    def text(self, value: float) -> str:
        """A value with its unit: ``14.5 %``."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def difference(self, value: float | None, sign: str = "") -> str:
        """A difference with its unit: ``1.2 points``."""
        return f"{self.number(value, sign)} {self.gap}".rstrip()

    def least(self, margin: float) -> str:
        """A margin in as few digits as it has, with its unit: ``2 points``."""
        return f"{margin:g} {self.gap}".rstrip()


def metric_of(names: Iterable[Any], arms: Iterable[str] = ()) -> Metric:
    """The metric of trials by the cells of the column ``metric``, which earlier tables lack."""
    for name in names:
        if found := Metric.named(name):
            return found
    return Metric.PROGRAMMING if set(arms) == {Arm.WEIGHT_PROGRAMMING} else Metric.ERROR


class Objective(_Noun):
    """What a network learns to do."""

    meaning: str
    metric: Metric

    CLASSIFICATION = "classification", "tell the classes of images or texts apart", Metric.ERROR
    NEXT_TOKEN = (
        "next-token",
        "predict the next byte, or token, of a text from those before it",
        Metric.CROSS_ENTROPY,
    )
    DENOISING = (
        "denoising",
        "find the noise in noisy images or points: what a diffusion model learns",
        Metric.DENOISING,
    )


class Algorithm(_Noun):
    """A training algorithm of arrays."""

    label: str  # as tables and figures call it
    meaning: str  # in words, with its source
    # The device class of aihwkit that runs it; None where the weights' own device does.
    compound: str | None

    C_TTV2 = (
        "c-ttv2",
        "c-TTv2",
        "chopped Tiki-Taka v2 (Rasch et al. 2024), the paper's",
        "ChoppedTransferCompound",
    )
    AGAD = (
        "agad",
        "AGAD",
        "analog gradient accumulation with dynamic reference",
        "DynamicTransferCompound",
    )
    TTV2 = (
        "ttv2",
        "TTv2",
        "Tiki-Taka v2 (Gokmen 2021): c-TTv2 without the chopper",
        "ChoppedTransferCompound",
    )
    TT = ("tt", "Tiki-Taka", "Tiki-Taka (Gokmen & Haensch 2020)", "TransferCompound")
    SGD = (
        "sgd",
        "pulsed SGD",
        "stochastic pulsed SGD straight on the device (Gokmen & Vlasov 2016)",
        None,
    )
    MP = (
        "mp",
        "mixed precision",
        "mixed precision: digital gradient, analog weights",
        "MixedPrecisionCompound",
    )

    @property
    def granular(self) -> bool:
        """Whether it has an auto_granularity, which sets the transfers from its hidden matrix."""
        return self in (Algorithm.C_TTV2, Algorithm.AGAD, Algorithm.TTV2)


class Defined(str):
    """What a Python file of the user's own defines: ``my_rule.py:Rule``, the file and the name.

    The name may be left out where it is the usual one.
    """

    usual = ""

    def __new__(cls, name: str) -> Self:
        return super().__new__(cls, f"{name}:{cls.usual}" if name.endswith(".py") else name)

    @property
    def file(self) -> str:
        """The file, as the experiment names it."""
        return self.rpartition(":")[0]

    @property
    def inside(self) -> str:
        """The name in the file."""
        return self.rpartition(":")[2]

    @property
    def label(self) -> str:
        """As tables and figures call it: without folder and ending, and without the usual name."""
        name = self.file.rpartition("/")[2].removesuffix(".py")
        return name if self.inside == self.usual else f"{name}:{self.inside}"

    @classmethod
    def named(cls, name: Any) -> Self | None:
        """What a text names; None if it names nothing of this form."""
        is_one = isinstance(name, str) and re.fullmatch(r"[^:]+\.py(:[^\W\d]\w*)?", name)
        return cls(name) if is_one else None


class FileAlgorithm(Defined):
    """A training algorithm in a Python file: ``my_rule.py:Rule``.

    It knows of itself what an `Algorithm` knows.
    """

    usual = "Rule"
    compound = None
    granular = False  # its pulses are its own matter
    meaning = "a rule in a Python file"

    @property
    def value(self) -> str:
        return str(self)


class FileNetwork(Defined):
    """A network in a Python file: ``my_net.py:build``."""

    usual = "build"


file_algorithm = FileAlgorithm.named
file_network = FileNetwork.named


def algorithm_label(name: str) -> str:
    """What tables and figures call an algorithm; what is none, as it is."""
    algorithm = Algorithm.named(name) or file_algorithm(name)
    return algorithm.label if algorithm else name


class TrialStatus(_Noun):
    """What has become of a trial."""

    meaning: str

    DONE = "done", "finished; its record is whole"
    FAILED = "failed", "ended with an error, which its message tells"
    STOPPED = "stopped", "saved before its end; the next call goes on"
    BUSY = "busy", "another process has it"
    QUEUED = "queued", "handed to a cluster that runs it later"
    MISSING = "missing", "planned, without a record"


_IMAGES = ("images", ("class", "classes"), (Objective.CLASSIFICATION, Objective.DENOISING))
_TEXTS = ("pieces", ("text", "texts"), (Objective.NEXT_TOKEN, Objective.CLASSIFICATION))


class Dataset(_Noun):
    """A data set that examples come from."""

    meaning: str
    examples: str  # what its examples are called
    parts: tuple[str, str]  # what `classes` chooses among: one, several
    objectives: tuple[Objective, ...]  # what can be learned from it

    CIFAR10 = "cifar10", "CIFAR-10: 32x32 colour images, 10 classes", *_IMAGES
    CIFAR100 = (
        "cifar100",
        "CIFAR-100: 32x32 colour images, 100 classes in 20 superclasses",
        *_IMAGES,
    )
    DIGITS = (
        "digits",
        "scikit-learn's bundled 8x8 digits, 10 classes; no download",
        *_IMAGES,
    )
    IMAGE_FOLDER = (
        "image_folder",
        "your own images: [data] root/train/<class>/*.png and root/test/<class>/*.png",
        *_IMAGES,
    )
    KJV = (
        "kjv",
        "three books of the King James Bible, bundled; `classes` chooses genesis, proverbs or mark",
        *_TEXTS,
    )
    TEXT_FOLDER = (
        "text_folder",
        "your own texts: [data] root is a .txt, CSV or JSONL file, or a folder of texts",
        *_TEXTS,
    )
    POINTS = (
        "points",
        "points in the plane: `classes` chooses among circle, moons and spiral",
        "points",
        ("shape", "shapes"),
        (Objective.DENOISING,),
    )

    @property
    def of_texts(self) -> bool:
        """Whether its examples are texts, or parts of them."""
        return Objective.NEXT_TOKEN in self.objectives


class Network(_Noun):
    """A network that comes with analogtl; beside these, any timm model name."""

    meaning: str
    objective: Objective

    SWIN_CIFAR_TINY = (
        "swin_cifar_tiny",
        "the paper's Swin-T for 32x32 images, 26.6 million parameters",
        Objective.CLASSIFICATION,
    )
    SWIN_CIFAR_DESK = (
        "swin_cifar_desk",
        "a small Swin for 32x32 images that trains on a laptop, 208,862 parameters",
        Objective.CLASSIFICATION,
    )
    SWIN_DIGITS = (
        "swin_digits",
        "a very small Swin for the 8x8 digits",
        Objective.CLASSIFICATION,
    )
    MLP_DIGITS = "mlp_digits", "a small MLP for the 8x8 digits", Objective.CLASSIFICATION
    GPT_BYTES = (
        "gpt_bytes",
        "a small GPT on bytes, 478,272 parameters",
        Objective.NEXT_TOKEN,
    )
    DENOISER_DIGITS = (
        "denoiser_digits",
        "an MLP that finds the noise in 8x8 digits",
        Objective.DENOISING,
    )
    DENOISER_2D = (
        "denoiser_2d",
        "the 2-14-14-2 score network of arXiv 2404.05648",
        Objective.DENOISING,
    )


def objective_of(architecture: str) -> Objective:
    """What a network is made for; one of timm's is for classification."""
    network = Network.named(architecture)
    return network.objective if network else Objective.CLASSIFICATION


class Backend(_Noun):
    """Where trials run."""

    meaning: str

    LOCAL = "local", "processes on this machine"
    RAY = "ray", "tasks on a Ray cluster; needs analogtl[ray]"
    SLURM = "slurm", "an array job of Slurm, through submitit; needs analogtl[slurm]"


class Device(_Noun):
    """What a trial computes on."""

    meaning: str

    AUTO = "auto", "CUDA where torch has it, else the CPU"
    CPU = "cpu", "the CPU"
    CUDA = "cuda", "a GPU, by CUDA; the fast engine's arrays stay on the CPU"


class CriticalPointVerdict(_Noun):
    """What a sweep of one axis says about its critical point."""

    label: str

    CRITICAL = "critical point", "worse from some level on"
    NONE = "no critical point", "no harm shown"
    UNFIT_REFERENCE = "unfit reference", "the reference does not train or is worse than a level"
    NO_DATA = "not enough data", "not enough data"


class FindingVerdict(_Noun):
    """What the runs say about a finding."""

    label: str  # as pages call it
    color: str  # of the label, on paper
    dark: str  # on a dark screen

    HOLDS = "holds", "holds", "#0d5f30", "#8fdcae"
    FAILS = "does not hold", "does not hold", "#9a2409", "#ffab92"
    OPEN = "not enough data", "open: not enough data", "#4a5360", "#c0c8d2"


PAPER = "arXiv 2505.11067"


@dataclass(frozen=True)
class Axis:
    """One sweep axis: a short name for one key of the file. Any other key can be swept, too.

    All are in ``axes.toml``.
    """

    name: str  # short name, the column in the CSV files
    key: str  # dotted key of the experiment that a level is written to
    meaning: str  # what is varied, in words; the label of a figure's x axis
    sets: str  # what a level sets in aihwkit
    levels: tuple[Any, ...]  # levels taken when none are given
    source: str  # where the axis was published
    unit: str = ""  # unit of the levels ("" for a plain number)
    published: tuple[float, ...] = ()  # levels that the source's text names
    # Device parameters that must exist on the chosen device.
    device_parameters: tuple[str, ...] = ()
    analog_only: bool = True  # whether it leaves the digital arms untouched
    # Whether it harms by getting smaller; its highest level is the reference.
    harsher_below: bool = False
    # Whether its harm is linear, if at all, in 1 / level (dw_min = 2 / n_states).
    reciprocal: bool = False
    named: bool = False  # whether its levels are names; of the others, numbers

    @property
    def label(self) -> str:
        """Meaning and unit, as on a figure's axis."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning

    def marked_levels(self, mark: str = "{}*") -> str:
        """The levels taken when none are given, those of the source's text in this format."""
        shown = {x: x if self.named else f"{x:g}" for x in self.levels}
        return ", ".join((mark if x in self.published else "{}").format(shown[x]) for x in shown)


def _read_axes() -> dict[str, Axis]:
    text = resources.files("analogtl").joinpath("axes.toml").read_text(encoding="utf-8")
    lists = ("levels", "published", "device_parameters")
    return {
        name: Axis(name, **facts | {key: tuple(facts[key]) for key in lists if key in facts})
        for name, facts in tomli.loads(text).items()
    }


AXES = _read_axes()
NUMBERED = frozenset(name for name, axis in AXES.items() if not axis.named)


def key_of(name: str) -> str:
    """The dotted key that an axis name stands for; a dotted key stands for itself."""
    table, found, name = name.rpartition(f"{PER_LAYER}.settings.")
    return table + found + (AXES[name].key if name in AXES else name)


def label_of(name: str) -> str:
    """The label of an axis on a figure; a dotted key is its own label."""
    return AXES[name].label if name in AXES else name


def analog_only(name: str) -> bool:
    """Whether an axis leaves the digital arms as they are."""
    if name in AXES:
        return AXES[name].analog_only
    return name.split(".", 1)[0] in ("analog", "convert", PER_LAYER)
