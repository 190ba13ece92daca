"""Every key of an experiment file: its type, default and meaning, read off the schema.

`keys` is the one walk over the schema. ``explain/keys.md``, which completion reads in turn, and the
comments of a new experiment file are made from it; ``python -m analogtl.cli.generate`` writes the
pages again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import tomli_w

from analogtl.config import catalog
from analogtl.config.arrays import Analog
from analogtl.config.parameters import PARAMETERS_OF
from analogtl.config.schema import SWEPT_SECTIONS, Experiment
from analogtl.config.training import Training
from analogtl.vocabulary import AXES, Algorithm

INTRODUCTION = """\
# Every key of an experiment file

An experiment file is TOML. Every key may be left out except `name`; each line here gives the
type and the default, what the key means, and what it sets in aihwkit. Any key can be set on the
command line too: `--set finetune.epochs=5`. A wrong key or value is reported with its line, and
`analogtl validate FILE` reports all of them at once.

`extends = "other.toml"` at the top takes everything from another file (a path relative to this
one, or the name of a shipped experiment); what this file sets takes its place.

`[tasks.NAME]` holds the keys in which one task differs, e.g. `[tasks.5class] finetune.classes = 5`.
`task = "5class"` at the top, or `--task 5class`, chooses it: its keys come over those of the file
that they stand in, and the run is named after experiment and task, e.g. `desk_fig2_5class`.
"""
AXES_PAGE = f"""\
## Axes of a sweep

A key of `[sweep.axes]`, or `analogtl sweep --param AXIS`: one of the short names of `analogtl list
axes`, or any dotted key of {", ".join(f"`[{section}]`" for section in SWEPT_SECTIONS)}.
"""
HFO2 = "ReRamArrayHfO2PresetDevice"
TYPES = {"boolean": "true or false", "integer": "whole number", "number": "number"}
TYPES |= {"string": "text", "object": "table"}
LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "minItems": "{} or more entries",
}


@dataclass(frozen=True)
class Key:
    """One key of an experiment file, or a section of keys.

    Attributes:
        meaning: What it means, in words.
        kind: The type, with its limits; "" for a section.
        required: Whether a file has to set it.
        default: The value where the file does not set it; None for not set.
    """

    meaning: str
    kind: str = ""
    required: bool = False
    default: Any = None


@cache
def keys() -> dict[str, Key]:
    """Dotted name -> key, sections included, each followed by what is in it."""
    schema = Experiment.model_json_schema()
    shared = Training.model_json_schema()["properties"]
    return dict(_walk(schema, "", schema["$defs"], shared))


def _walk(
    schema: Mapping[str, Any], prefix: str, named: Mapping[str, Any], shared: Mapping[str, Any]
) -> Iterator[tuple[str, Key]]:
    fields = {
        name: (field, _resolved(field, named)) for name, field in schema["properties"].items()
    }
    for name, (field, inner) in sorted(fields.items(), key=lambda one: "properties" in one[1][1]):
        # A section that only changes the default of a shared key says nothing of its meaning.
        about = next(
            one["description"]
            for one in (field, shared.get(name, {}), inner)
            if "description" in one
        )
        meaning = " ".join(about.split())
        if "properties" in inner:
            yield prefix + name, Key(meaning)
            yield from _walk(inner, f"{prefix}{name}.", named, shared)
        else:
            required = name in schema.get("required", ())
            kind = _kind(field, named)
            yield prefix + name, Key(meaning, kind, required, field.get("default"))


def _resolved(field: Mapping[str, Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = named[field["$ref"].split("/")[-1]] if "$ref" in field else field
    return found


def _kind(field: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """The type of a field in words, with its limits; without parentheses."""
    field = _resolved(field, named)
    if "anyOf" in field:
        kinds = [_kind(one, named) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        words = "one of " + ", ".join(f"`{one}`" for one in field["enum"])
    elif field.get("type") == "array":
        words = f"list, each {_kind(field['items'], named)}"
    else:
        words = TYPES[field["type"]]
    limits = [text.format(field[name]) for name, text in LIMITS.items() if name in field]
    return words + (", " + " ".join(limits) if limits else "")


# -- as a page -------------------------------------------------------------------------------------


def keys_markdown() -> str:
    """The page of all keys, in Markdown."""
    parts = [INTRODUCTION, "## Top level\n", *_keys(), *_aihwkit(), AXES_PAGE]
    return "\n".join(parts).rstrip() + "\n"


def toml_value(value: Any) -> str:
    """A number, a text, true or false, or a list of these, on one line of TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")


def _keys() -> Iterator[str]:
    for name, key in keys().items():
        if not key.kind:
            yield f"\n## [{name}]\n\n{key.meaning}\n"
            continue
        default = "required" if key.required else "not set"
        if key.default is not None:
            default = (
                "default `{}`" if key.default == {} else f"default `{toml_value(key.default)}`"
            )
        yield f"- **`{name}`** ({key.kind}, {default}): {key.meaning}"


def _aihwkit() -> Iterator[str]:
    yield "\n## aihwkit's parameters\n"
    yield (
        "These keys have aihwkit's names and meanings; its documentation describes them. In "
        "brackets: the value in force when a file does not set the key; where nothing else is said "
        "it is that of c-ttv2, and of the paper's device.\n"
    )
    device = catalog.device_parameters(HFO2) | {"apply_write_noise_on_set": False}
    yield _parameters("`[analog.device]`, `[analog.slow_device]`", device)
    for algorithm in Algorithm:
        values = catalog.compound_parameters(algorithm)
        if values:
            ours = Analog(algorithm=algorithm).values("compound")
            about = f"`[analog.compound]` with {algorithm} ({algorithm.compound})"
            yield _parameters(about, values | ours)
    for section, (kind, _owner) in PARAMETERS_OF.items():
        values = catalog.catalog()[kind] | Analog().values(section)
        yield _parameters(f"`[analog.{section}]`", values)
    yield ""


def _parameters(about: str, values: Mapping[str, Any]) -> str:
    shown = []
    for name, value in values.items():
        default = value["default"] if isinstance(value, Mapping) else value
        short = float(f"{default:.6g}") if isinstance(default, float) else default
        shown.append(f"`{name}` [{toml_value(short)}]")
    return f"- {about}: {', '.join(shown)}."


def axes_table() -> str:
    """The axes as a Markdown table: the part of the page experiment-file between its markers."""
    lines = [
        "| axis | what is varied | key that a level sets | in aihwkit | default levels | source |",
        "|---|---|---|---|---|---|",
    ]
    for axis in AXES.values():
        # Bold: named in the source's text. The other levels of the papers are in figures only.
        levels = axis.marked_levels("**{}**")
        cells = (
            *(f"`{axis.name}`", axis.label, f"`{axis.key}`", axis.sets.replace("*", "\\*")),
            *(levels, axis.source),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
