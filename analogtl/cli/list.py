"""``analogtl list``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Any

import typer

from analogtl.cli import complete, output
from analogtl.cli.options import Json
from analogtl.errors import ExperimentError
from analogtl.vocabulary import TRANSFER_ARMS, Algorithm, Dataset, Network

EXAMPLES = (
    ("analogtl list presets", "devices: class, number of states, noise"),
    ("analogtl list axes", "what can be swept, and what each level sets in aihwkit"),
    ("analogtl list experiments", "the experiments that come with analogtl"),
)

Row = Mapping[str, Any]


def _presets() -> Iterator[Row]:
    from analogtl.config import catalog

    for name in catalog.presets():
        values = catalog.device_parameters(name)
        yield {
            "preset": name,
            "device": catalog.device_class(name),
            "states": (values["w_max"] - values["w_min"]) / values["dw_min"],
            "update noise": values["dw_min_std"],
            "write noise": values.get("write_noise_std", 0.0) * values["dw_min"],
        }


def _models() -> Iterator[Row]:

    for name, text in ((each, each.meaning) for each in Network):
        yield {"model": name, "what it is": text}
    yield {"model": "any timm name", "what it is": "e.g. resnet18, vit_tiny_patch16_224, mixer_s16"}


def _datasets() -> Iterator[Row]:

    for name, text in ((each, each.meaning) for each in Dataset):
        yield {"data set": name, "what it is": text}


def _classes() -> Iterator[Row]:
    from analogtl.config.class_names import CLASS_NAMES, SUPERCLASSES

    group_of = {name: group for group, names in SUPERCLASSES.items() for name in names.split()}
    for dataset, names in CLASS_NAMES.items():
        for label, name in enumerate(names):
            superclass = group_of[name] if dataset == "cifar100" else ""
            yield {"class": name, "label": label, "data set": dataset, "superclass": superclass}


def _algorithms() -> Iterator[Row]:

    for algorithm in Algorithm:
        yield {
            "algorithm": algorithm,
            "what it is": algorithm.meaning,
            "aihwkit compound": algorithm.compound or "",
        }


def _arms() -> Iterator[Row]:

    for arm in TRANSFER_ARMS:
        yield {"arm": arm, "what it is": arm.meaning}


def _axes() -> Iterator[Row]:
    from analogtl.vocabulary import AXES

    for axis in AXES.values():
        yield {
            "axis": axis.name,
            "meaning": axis.label,
            "levels": axis.levels_text,
            "what a level sets": axis.sets,
            "source": axis.source,
        }


def _experiments() -> Iterator[Row]:
    from analogtl.config.shipped import shipped_experiments, shipped_folder
    from analogtl.config.source import tasks_of

    for name in shipped_experiments():
        text = (shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")
        tasks = ", ".join(tasks_of(name)[1])
        yield {"experiment": name, "tasks": tasks, "what it is": _first_sentence(text)}


def _first_sentence(text: str) -> str:
    """The first sentence of a file's header."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    prose = takewhile(lambda line: not re.match(r"# (Source|Run|Expected|Time): ", line), lines)
    return re.split(r"\.(?= [A-Z]|$)", " ".join(line.lstrip("# ") for line in prose))[0] + "."


@dataclass(frozen=True)
class Kind:
    """Something that can be listed."""

    title: str
    rows: Callable[[], Iterator[Row]]
    more: str


KINDS = {
    "presets": Kind("device presets", _presets, "analogtl show PRESET draws one"),
    "models": Kind("networks", _models, "[model] architecture"),
    "datasets": Kind("data sets", _datasets, "[pretrain] dataset, [finetune] dataset"),
    "classes": Kind("classes of the data sets", _classes, "[pretrain] classes, [finetune] classes"),
    "algorithms": Kind("training algorithms", _algorithms, "[analog] algorithm"),
    "arms": Kind("what is compared", _arms, "[finetune] arms"),
    "axes": Kind(
        "what can be swept",
        _axes,
        "* named in the source's text; analogtl sweep --param AXIS, or [sweep.axes]",
    ),
    "experiments": Kind("shipped experiments", _experiments, "analogtl finetune NAME"),
}


def command(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="presets, models, datasets, classes, algorithms, arms, axes or experiments.",
            autocompletion=complete.kinds,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what an experiment can be made of: devices, networks, data, algorithms, arms, axes.

    Without KIND it says what there is to list.
    """
    if kind is None:
        for name, what in KINDS.items():
            if as_json:
                output.emit({"kind": name, "title": what.title})
            else:
                output.say(f"analogtl list {name:<12} {what.title}")
        return
    if kind not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KINDS)}"
        raise ExperimentError(f"analogtl list: nothing of the kind {kind!r}; {hint}")
    rows = [*KINDS[kind].rows()]
    if as_json:
        for row in rows:
            output.emit({key.replace(" ", "_"): value for key, value in row.items()})
        return
    if not rows:
        output.say("none")
        return
    headings = [*rows[0]]
    cells = [[_text(row[heading]) for heading in headings] for row in rows]
    numbers = [i for i, heading in enumerate(headings) if isinstance(rows[0][heading], float)]
    output.rows_table(headings, cells, right=numbers, styles={0: "bold"})
    output.note(KINDS[kind].more)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
