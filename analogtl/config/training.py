"""[data], [pretrain] and [finetune]: what is learned from, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from analogtl.config.class_names import class_problems
from analogtl.config.parameters import Problem
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
    checked,
)
from analogtl.vocabulary import Arm, Dataset

# Which classes: how many (the first ones by label order), or which by name or label number.
Classes = (
    Annotated[Int, Field(ge=2)]
    | Text
    | Annotated[tuple[Int | Text, ...], Field(min_length=1)]
    | None
)
ClassSet = Text | Annotated[tuple[Int | Text, ...], Field(min_length=1)]
Augmentation = Literal["crop", "flip"]
Schedule = Literal["constant", "cosine", "onecycle"]
TransferArm = Literal[
    Arm.DIGITAL_TL,
    Arm.ANALOG_TL,
    Arm.DIGITAL_SCRATCH,
    Arm.ANALOG_SCRATCH,
    Arm.LORA_DIGITAL,
    Arm.LORA_ANALOG,
    Arm.FROZEN_ARRAY,
    Arm.SHUFFLED_GRADIENTS,
]


class Data(Section):
    """Where images and texts are."""

    root: Text | None = None
    """For `image_folder`: the folder of class folders; for `text_folder`: a `.txt`, CSV or JSONL
    file, or a folder of texts. CIFAR is looked for here first, then in the folder that the
    environment variable `ANALOGTL_DATA` names, then in the user's cache folder. Relative to the
    file; with `--set`, to the current folder."""
    download: Bool = True
    """Download a missing CIFAR archive from its official address (its checksum is verified), and
    published weights from the Hugging Face hub."""
    image_size: Annotated[Int, Field(ge=4, le=1024)] | None = None
    """Resize images to this many pixels a side; `image_folder` needs it (default 32)."""
    split_seed: Seed | None = None
    """For an `image_folder` without folders `train` and `test`, and for texts with classes: the
    seed that draws one example in five of each class for testing. If absent it is every fifth by
    file name, or in the order of the file."""
    text_column: Text = "text"
    """Column of a CSV or JSONL file that holds texts."""
    label_column: Text = "label"
    """Column of a CSV or JSONL file that holds the classes of its texts."""
    context: Annotated[Int, Field(ge=2, le=4096)] = 64
    """Bytes of a text that the network sees at once, or tokens of a language model. For the next
    token texts are cut into windows of that length; to be classified, longer texts are cut."""
    min_test_images: PositiveInt = 25
    """Fewer test images of the chosen classes are refused. The test error of 25 images has a
    standard error of up to 10 percentage points. `test_samples_per_class` may keep fewer."""


class Training(Section):
    """What pretraining and fine-tuning have in common."""

    dataset: Dataset
    """Images: `cifar10`, `cifar100`, `digits` or `image_folder`; texts: `kjv` or `text_folder`; and
    `points`."""
    classes: Classes = None
    """How many classes (the first ones by label order), or which: a list of names or label
    numbers; a superclass name for CIFAR-100. Of texts and points: the name of one, or a list.
    All if absent."""
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
            checked([("", f"expected each entry once; got {list(map(str, values))}")], values)
        return values

    def _problems(self) -> Iterator[Problem]:
        for problem in class_problems(self.dataset, self.classes):
            yield "classes", problem


class Pretrain(Training):
    """The digital pretraining on the source task."""

    dataset: Dataset = Dataset.DIGITS
    epochs: Annotated[Int, Field(ge=0, le=100_000)] = 20
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The digital optimizer."""
    seed: Seed = 0
    """Seed of the initial weights and the order of the images."""


class Finetune(Training):
    """The target task and the arms that are compared on it."""

    dataset: Dataset = Dataset.DIGITS
    epochs: Annotated[Int, Field(ge=0, le=100_000)] = 10
    arms: Annotated[tuple[TransferArm, ...], Field(min_length=1)] = (
        Arm.DIGITAL_TL,
        Arm.ANALOG_TL,
    )
    """`digital-tl`, `analog-tl`, `digital-scratch`, `analog-scratch`, `lora-digital`,
    `lora-analog`, `frozen-array`, `shuffled-gradients`."""
    validation_fraction: Annotated[Number, Field(ge=0, lt=1)] = 0.1


class Lora(Section):
    """The adapters of the arms lora-digital and lora-analog (LoRA: Hu et al. 2021): beside a
    layer's weight W, which is held fixed, two small matrices are trained, W + alpha / rank B A. A
    is random and B zero at first. A new head is trained whole (`analogtl explain lora`)."""

    rank: PositiveInt = 4
    """Rows of A and columns of B; at most the smaller side of each layer that has an adapter."""
    alpha: PositiveNumber = 4.0
    """Scale: what an adapter puts out is multiplied by alpha / rank. On arrays it is also what one
    step of a cell of B, and the noise of reading it, count for."""
    targets: Annotated[tuple[Text, ...], Field(min_length=1)] = ("*",)
    """Which layers have an adapter: names or shell patterns, e.g. `["*.qkv", "*.mlp.*"]`. Of those
    that arrays can hold, linear ones and convolutions, without a new head."""
    base: Literal["arrays", "digital"] = "arrays"
    """lora-analog: where the fixed weights are, `arrays` or `digital`. lora-digital has them on
    arrays."""
