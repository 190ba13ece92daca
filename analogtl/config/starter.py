"""The experiment file that ``analogtl init`` writes: small, commented, and ready to run.

The comments are the docstrings of the schema, so they cannot say anything else than the reference.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from analogtl.config import catalog
from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError, did_you_mean
from analogtl.vocabulary import AXES, TRANSFER_ARMS, Algorithm

WIDTH = 92
# What a key that is not in force shows, where its default says nothing.
SHOWN: dict[str, Any] = {
    "samples_per_class": 100,
    "n_states": 100,
    "symmetry_point_variability": 5.0,
    "digital_layers": ["head"],
    "lr": [0.003, 0.01, 0.03],
}
DEFAULT_TASK = "digits"
DEFAULT_DEVICE = "ReRamArrayHfO2PresetDevice"
DEFAULT_ALGORITHM = "c-ttv2"


@dataclass(frozen=True)
class Task:
    """A pair of source and target task to start from.

    Attributes:
        title: What it is, in a line.
        model: The network that fits it.
        time: How long it takes, roughly.
        data, pretrain, finetune: Keys of these sections.
    """

    title: str
    model: str
    time: str
    pretrain: Mapping[str, Any]
    finetune: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)


_DIGITS = {"dataset": "digits", "classes": [0, 1, 2, 3, 4], "epochs": 20, "batch_size": 8}
_CIFAR = {
    "dataset": "cifar10",
    "epochs": 10,
    "batch_size": 64,
    "optimizer": "adamw",
    "lr": 0.002,
    "schedule": "onecycle",
    "weight_decay": 0.05,
    "label_smoothing": 0.05,
    "augment": ["crop", "flip"],
}
_TARGET = {"epochs": 10, "batch_size": 8, "lr": 0.01, "validation_fraction": 0.1}

TASKS = {
    "digits": Task(
        "digits 0-4 to digits 5-9; bundled, no download",
        "swin_digits",
        "about a minute",
        {**_DIGITS, "lr": 0.01, "momentum": 0.9, "schedule": "cosine"},
        {"dataset": "digits", "classes": [5, 6, 7, 8, 9], **_TARGET, "epochs": 6},
    ),
    "cifar-2": Task(
        "CIFAR-10 to two classes of CIFAR-100: bear, cattle",
        "swin_cifar_desk",
        "about half an hour",
        _CIFAR,
        {"dataset": "cifar100", "classes": ["bear", "cattle"], **_TARGET},
    ),
    "cifar-5": Task(
        "CIFAR-10 to five classes of CIFAR-100",
        "swin_cifar_desk",
        "about an hour",
        _CIFAR,
        {
            "dataset": "cifar100",
            "classes": ["apple", "bicycle", "bear", "cattle", "rocket"],
            **_TARGET,
        },
    ),
    "images": Task(
        "CIFAR-10 to images of your own, in folders by class",
        "swin_cifar_desk",
        "as long as your images take",
        _CIFAR,
        {"dataset": "image_folder", **_TARGET},
        {"root": "images", "image_size": 32},
    ),
}


def starter(
    task: str = DEFAULT_TASK,
    *,
    model: str | None = None,
    device: str = DEFAULT_DEVICE,
    algorithm: str = DEFAULT_ALGORITHM,
    name: str = "exp",
    file: str = "exp.toml",
) -> str:
    """The text of an experiment file.

    Args:
        task: One of `TASKS`.
        model: Network; the task's own if None.
        device: Device preset or device class.
        algorithm: Training algorithm.
        name: Name of the experiment.
        file: The file it goes to, as the commands in its header name it.

    Raises:
        ExperimentError: With one line per choice that does not exist.
    """
    problems = [
        f"{what}: unknown {word!r}; {did_you_mean(word, known) or 'see `analogtl list`'}"
        for what, word, known in (
            ("--task", task, list(TASKS)),
            ("--device", device, [*catalog.presets(), *catalog.devices()]),
            ("--algorithm", algorithm, list(Algorithm)),
        )
        if word not in known
    ]
    if problems:
        raise ExperimentError(problems)
    chosen = TASKS[task]
    text = _text(chosen, model or chosen.model, device, algorithm, name, file)
    try:
        Experiment.model_validate(tomllib.loads(text))
    except ValidationError as error:
        details = error.errors()[0]
        key = ".".join(map(str, details["loc"]))
        raise ExperimentError(f"{key}: {details['msg']}; got {details['input']!r}") from None
    return text


def _text(task: Task, model: str, device: str, algorithm: str, name: str, file: str) -> str:
    parameters = catalog.device_parameters(device)
    axis = "spv" if "reference_std" in parameters else "wtn"
    arms = list(TRANSFER_ARMS)
    lines = [
        f"# {task.title[:1].upper()}{task.title[1:]}; {task.time} on 2 cores.",
        f"# Run:      analogtl finetune {file}",
        f"#           analogtl sweep {file}",
        "#           analogtl report",
        "# A line like `#lr = 0.1` is a key that is not in force; remove the # to set it.",
        f"# `analogtl explain keys` has every key; `analogtl validate {file}` checks this file.",
        "",
        *_keys("", {"name": name, "description": task.title}),
        *_section("model", {"architecture": model}),
    ]
    if task.data:
        lines += _section("data", task.data)
    lines += _section("pretrain", task.pretrain, optional=("samples_per_class", "seed"))
    lines += _section(
        "convert", {"weight_transfer_noise": 0.0, "relative_to": "absmax"}, ("digital_layers",)
    )
    lines += _section("finetune", {**task.finetune, "arms": arms}, ("samples_per_class",))
    lines += _section("analog", {"algorithm": algorithm}, ("engine", "granularity_per_token"))
    lines += _section("analog.device", {"preset": device})
    for parameter in ("dw_min", "dw_min_std"):
        if parameters.get(parameter) is not None:
            lines.append(f"#{parameter} = {_value(parameters[parameter])}")
    lines.append("")
    lines += _section(
        "analog.nonidealities",
        {},
        ("symmetry_point_skew", "symmetry_point_variability", "n_states"),
        without={"symmetry_point_variability"} if axis != "spv" else set(),
    )
    lines += _section("sweep", {"seeds": [0, 1, 2]}, ("lr",))
    levels = ", ".join(f"{level:g}" for level in AXES[axis].levels)
    lines += [
        *_comment(_field(Experiment, "sweep.axes")),
        "[sweep.axes]",
        *_comment(f"{AXES[axis].label}: {AXES[axis].sets}"),
        f"{axis} = [{levels}]",
    ]
    return "\n".join(lines) + "\n"


def _section(
    name: str,
    keys: Mapping[str, Any],
    optional: Sequence[str] = (),
    *,
    without: set[str] | frozenset[str] = frozenset(),
) -> list[str]:
    section = _model(name)
    lines = [*_comment((section.__doc__ or "").strip()), f"[{name}]", *_keys(name, keys)]
    for key in optional:
        if key not in without:
            shown = SHOWN.get(key, section.model_fields[key].default)
            lines += [*_comment(_field(Experiment, f"{name}.{key}")), f"#{key} = {_value(shown)}"]
    return [*lines, ""] if lines[-1] else lines


def _keys(section: str, keys: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for key, value in keys.items():
        dotted = f"{section}.{key}" if section else key
        lines += [*_comment(_field(Experiment, dotted)), f"{key} = {_value(value)}"]
    return [*lines, ""]


def _model(name: str) -> type[BaseModel]:
    model: type[BaseModel] = Experiment
    for part in name.split("."):
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        model = annotation
    return model


def _field(root: type[BaseModel], dotted: str) -> str:
    """The docstring of a key, of the base class where a section only changes its default."""
    *sections, key = dotted.split(".")
    model = _model(".".join(sections)) if sections else root
    for cls in model.__mro__:
        fields = getattr(cls, "model_fields", {})
        if key in fields and fields[key].description:
            return " ".join(str(fields[key].description).split())
    return ""


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH)]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)
