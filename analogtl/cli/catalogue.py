"""``analogtl list`` and ``explain``: what there is, and pages to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from typing import Annotated, Any

from analogtl.cli import completion, options, output
from analogtl.cli.completion import meanings
from analogtl.cli.options import argument, checked
from analogtl.cli.show import show
from analogtl.config import catalog
from analogtl.config.hardware import hardware_presets, preset_constants
from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.vocabulary import AXES, TRANSFER_ARMS, Algorithm, Dataset, FileAlgorithm, Network

# -- list ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Something that can be listed: its title, where it goes, and its table."""

    title: str
    more: str
    headings: tuple[str, ...]
    rows: Callable[[], Iterable[tuple[Any, ...]]]


def _presets() -> Iterator[tuple[Any, ...]]:
    for name in catalog.presets():
        values = catalog.device_parameters(name)
        states = (values["w_max"] - values["w_min"]) / values["dw_min"]
        write_noise = values.get("write_noise_std", 0.0) * values["dw_min"]
        yield name, catalog.device_class(name), states, values["dw_min_std"], write_noise


def _devices() -> Iterator[tuple[Any, ...]]:
    for name in catalog.devices():
        yield name, catalog.device_meaning(name), "fast, aihwkit"  # a test holds them to it


def _device_parameters() -> Iterator[tuple[Any, ...]]:
    from analogtl.config.reference import toml_value

    rows: dict[tuple[str, str, str], list[str]] = {}
    for device in catalog.devices():
        for name, default in catalog.device_parameters(device).items():
            row = name, toml_value(default), catalog.parameter_meaning(device, name)
            rows.setdefault(row, []).append(device.removesuffix("Device"))
    everywhere = [device.removesuffix("Device") for device in catalog.devices()]
    for (name, default, meaning), devices in sorted(rows.items()):
        lacking = [device for device in everywhere if device not in devices]
        many = "all but " + ", ".join(lacking) if lacking else "all"
        yield name, default, meaning, many if len(lacking) < 4 else ", ".join(devices)


def _hardware() -> Iterator[tuple[Any, ...]]:
    for preset in hardware_presets():
        for one in preset_constants(preset):
            yield preset, one.name, f"{one.value:g} {one.unit}", one.source


def _classes() -> Iterator[tuple[Any, ...]]:
    from analogtl.config.class_names import CLASS_NAMES, SUPERCLASSES

    group_of = {name: group for group, names in SUPERCLASSES.items() for name in names.split()}
    for dataset, names in CLASS_NAMES.items():
        for label, name in enumerate(names):
            yield name, label, dataset, group_of[name] if dataset == Dataset.CIFAR100 else ""


def _algorithms() -> Iterator[tuple[Any, ...]]:
    from analogtl.config.rule_file import rule_facts, shipped_rules

    for each in Algorithm:
        yield each, each.meaning, each.compound or ""
    for file in shipped_rules():
        text, rule = file.read_text(encoding="utf-8"), FileAlgorithm(file.name)
        about = text.removeprefix('"""').split(":" if ":" in text.split("\n")[0] else "\n")[0]
        yield rule, about.rstrip("."), rule_facts(rule, text).counterpart


def _experiments() -> Iterator[tuple[Any, ...]]:
    from analogtl.config.source import tasks_of

    for name in shipped_experiments():
        text = (shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")
        header = takewhile(lambda line: line.startswith("#"), text.splitlines())
        prose = takewhile(lambda line: not ENDS.match(line), header)
        about = re.split(r"\.(?= [A-Z]|$)", " ".join(line.lstrip("# ") for line in prose))[0]
        yield name, ", ".join(tasks_of(name)[1]), f"{about}."


ENDS = re.compile(r"# (Source|Run|Expected|Time): ")  # of the prose in a header
WHAT = "what it is"
KINDS = {
    "presets": Kind(
        "device presets",
        "analogtl show PRESET draws one",
        ("preset", "device", "states", "update noise", "write noise"),
        _presets,
    ),
    "devices": Kind(
        "device classes",
        "[analog.device] preset, or the class of a device file; analogtl show CLASS draws one",
        ("device class", "what a pulse does", "engines"),
        _devices,
    ),
    "device-parameters": Kind(
        "parameters of device classes",
        "[analog.device], or [parameters] of a device file; both engines simulate all of them, the "
        "fast one where 0 lies between the bounds",
        ("parameter", "default", WHAT, "classes"),
        _device_parameters,
    ),
    "models": Kind(
        "networks",
        "[model] architecture; or any timm name, e.g. resnet18, vit_tiny_patch16_224, mixer_s16; "
        "or hf:FOLDER, a language model of transformers",
        ("model", WHAT),
        lambda: meanings(Network),
    ),
    "datasets": Kind(
        "data sets", "[finetune] dataset", ("data set", WHAT), lambda: meanings(Dataset)
    ),
    "classes": Kind(
        "classes of the data sets",
        "[pretrain] classes, [finetune] classes",
        ("class", "label", "data set", "superclass"),
        _classes,
    ),
    "algorithms": Kind(
        "training algorithms",
        "[analog] algorithm; those in Python files are rules to use or to copy",
        ("algorithm", WHAT, "aihwkit compound"),
        _algorithms,
    ),
    "arms": Kind(
        "what is compared", "[finetune] arms", ("arm", WHAT), lambda: meanings(TRANSFER_ARMS)
    ),
    "axes": Kind(
        "what can be swept",
        "* named in the source's text; analogtl sweep --param AXIS, or [sweep.axes]",
        ("axis", "meaning", "levels", "what a level sets", "source"),
        lambda: (
            (one.name, one.label, one.marked_levels(), one.sets, one.source)
            for one in AXES.values()
        ),
    ),
    "hardware": Kind(
        "constants of hardware",
        "[hardware] preset, or a key of one's own; what training costs (analogtl explain cost)",
        ("preset", "key", "value", "source"),
        _hardware,
    ),
    "experiments": Kind(
        "shipped experiments",
        "analogtl finetune NAME",
        ("experiment", "tasks", WHAT),
        _experiments,
    ),
}


def list_(
    kind: Annotated[
        str | None,
        argument(
            "KIND",
            "presets, devices, device-parameters, models, datasets, classes, algorithms, arms, "
            "axes, hardware or experiments.",
            completion.choices(lambda: ((name, one.title) for name, one in KINDS.items())),
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List what an experiment can be made of: devices, networks, data, algorithms, arms, axes.

    Without KIND it says what there is to list.
    """
    headings: tuple[str, ...] = ("kind", "title")
    rows: list[tuple[Any, ...]] = [(name, one.title) for name, one in KINDS.items()]
    if kind is not None:
        chosen = KINDS[checked("kind", kind, KINDS)]
        headings, rows = chosen.headings, [*chosen.rows()]
    if as_json:
        names = [heading.replace(" ", "_") for heading in headings]
        for row in rows:
            output.emit(dict(zip(names, row, strict=True)))
        return
    cells = [[_text(value) for value in row] for row in rows]
    numbers = [place for place, value in enumerate(rows[0]) if isinstance(value, float)]
    output.rows_table(headings, cells, right=numbers, styles={0: "bold"})
    output.note(KINDS[kind].more if kind else "analogtl list KIND lists them")


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


# -- explain ---------------------------------------------------------------------------------------

MAX_WIDTH = 100  # columns; longer lines are hard to read


def titles() -> dict[str, str]:
    """Topic -> the title of its page."""
    pages = resources.files("analogtl").joinpath("explain").iterdir()
    return {
        page.name.removesuffix(".md"): page.read_text(encoding="utf-8")
        .partition("\n")[0]
        .strip("# ")
        for page in sorted(pages, key=lambda page: page.name)
        if page.name.endswith(".md")
    }


def explain(
    topic: Annotated[
        str | None,
        argument(
            "TOPIC",
            "The page to read; without it: what there is.",
            completion.choices(lambda: titles().items()),
        ),
    ] = None,
) -> None:
    """Read about the method, the settings and the commands.

    On a terminal the page is laid out; in a pipe it is plain Markdown.
    """
    known = titles()
    if topic is None:
        output.rows_table(("topic", "title"), list(known.items()), styles={0: "bold"})
        output.note("analogtl explain TOPIC")
        return
    page = f"{checked('topic', topic, known)}.md"
    text = resources.files("analogtl").joinpath("explain", page).read_text(encoding="utf-8")
    console = output.console()
    if not console.is_terminal:
        output.say(text.rstrip())
        return
    from rich.markdown import Markdown

    console.print(Markdown(text), width=min(console.width, MAX_WIDTH))


COMMANDS: dict[str, Any] = {"list": list_, "show": show, "explain": explain}
