"""The reference of all keys, made from the schema: ``explain/keys.md``.

A test compares the file with `keys_markdown`; ``python -m analogtl.cli.generate`` writes it again.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from analogtl.config import catalog
from analogtl.config.schema import SWEPT_SECTIONS, Analog, Experiment
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
NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
HFO2 = "ReRamArrayHfO2PresetDevice"


def keys_markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Top level\n", *_section(Experiment, "")]
    parts += [*_aihwkit(), *_axes()]
    return "\n".join(parts).rstrip() + "\n"


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = _inner(field)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    sections = []
    for name, field in model.model_fields.items():
        inner = _inner(field)
        if inner is not None:
            sections.append((f"{prefix}{name}", inner, field))
            continue
        kind = ", ".join(filter(None, [describe(field), _default(field)]))
        yield f"- **`{prefix}{name}`** ({kind}): {describe_meaning(model, name)}"
    yield ""
    for dotted, inner, field in sections:
        yield f"## [{dotted}]\n"
        text = field.description or inner.__doc__ or ""
        yield " ".join(text.split()) + "\n"
        yield from _section(inner, f"{dotted}.")


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def describe_meaning(model: type[BaseModel], name: str) -> str:
    """The docstring of a field; of the base class where a section only changes the default."""
    for cls in model.__mro__:
        fields: Mapping[str, FieldInfo] = getattr(cls, "model_fields", {})
        if name in fields and fields[name].description:
            return " ".join(str(fields[name].description).split())
    return ""


def describe(field: FieldInfo) -> str:
    """The type of a field in words, with its limits; without parentheses."""
    return _type(field.annotation, field.metadata)


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], _unpacked(inner[1:]))
    if origin is Literal:
        return "one of " + ", ".join(f"`{one}`" for one in inner)
    if origin in (Union, types.UnionType):
        words = [_type(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(words))
    if origin is tuple:
        return f"list of {_plural(_type(inner[0]))}{_limits(metadata, ' entries')}"
    if origin is dict:
        return "table"
    return NAMES.get(annotation, "value") + _limits(metadata)


def _plural(words: str) -> str:
    for one in ("whole number", "number", "text"):
        if words.startswith(one) and not words.startswith(one + "s"):
            many = "texts" if one == "text" else one + "s"
            return many + words[len(one) :]
    return words


def _unpacked(metadata: Iterable[Any]) -> Iterator[Any]:
    for one in metadata:
        yield from one.metadata if isinstance(one, FieldInfo) else [one]


def _limits(metadata: Iterable[Any], what: str = "") -> str:
    words = []
    for one in metadata:
        for kind, sign in (
            (annotated_types.Ge, "from"),
            (annotated_types.Gt, "above"),
            (annotated_types.Le, "to"),
            (annotated_types.Lt, "below"),
            (annotated_types.MinLen, "at least"),
        ):
            if isinstance(one, kind):
                words.append(f"{sign} {getattr(one, _ATTRIBUTE[sign])}{what}")
    return ", " + " ".join(words) if words else ""


_ATTRIBUTE = {"from": "ge", "above": "gt", "to": "le", "below": "lt", "at least": "min_length"}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is PydanticUndefined and field.default_factory is not None:
        default = field.get_default(call_default_factory=True)
    if default is None:
        return "not set"
    return f"default `{_toml(default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{ }" if not value else str(dict(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def axes_table() -> str:
    """The axes as a Markdown table: the part of the page experiment-file between markers."""
    lines = [
        "| axis | what is varied | key that a level sets | in aihwkit | default levels | source |",
        "|---|---|---|---|---|---|",
    ]
    for axis in AXES.values():
        # Bold: named in the source's text. The other levels of the papers are in figures only.
        levels = axis.marked_levels("**{:g}**")
        cells = (
            *(f"`{axis.name}`", axis.label, f"`{axis.key}`", axis.sets.replace("*", "\\*")),
            *(levels, axis.source),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


# -- aihwkit's own parameters ----------------------------------------------------------------------


def _aihwkit() -> Iterator[str]:
    yield "## aihwkit's parameters\n"
    yield (
        "These keys have aihwkit's names and meanings; its documentation describes them. In "
        "brackets: the value in force when a file does not set the key.\n"
    )
    yield f"- `[analog.device]` and `[analog.slow_device]`, with the preset {HFO2}: " + _values(
        catalog.device_parameters(HFO2) | {"apply_write_noise_on_set": False}
    )
    for algorithm in Algorithm:
        if algorithm.compound is None:
            continue
        ours = Analog(algorithm=algorithm).values("compound")
        values = catalog.compound_parameters(algorithm) | ours
        yield f"- `[analog.compound]` with {algorithm} ({algorithm.compound}): {_values(values)}"
    data = catalog.catalog()
    for sections, kind in (
        (("forward", "backward", "transfer_forward"), "io"),
        (("update", "transfer_update"), "update"),
        (("mapping",), "mapping"),
    ):
        names = ", ".join(f"`[analog.{section}]`" for section in sections)
        yield f"- {names}: {_values(data[kind])}"
        for section in sections:
            ours = Analog().values(section)
            if ours:
                yield f"  - `[analog.{section}]` with c-ttv2: {_values(ours)}"
    yield ""


def _values(values: Mapping[str, Any]) -> str:
    shown = []
    for name, value in values.items():
        default = value["default"] if isinstance(value, Mapping) else value
        shown.append(f"`{name}` [{_toml(default)}]")
    return ", ".join(shown) + "."


def _axes() -> Iterator[str]:
    yield "## Axes of a sweep\n"
    yield (
        "A key of `[sweep.axes]`, or `analogtl sweep --param AXIS`. Any dotted key of "
        f"{', '.join(f'`[{section}]`' for section in SWEPT_SECTIONS)} is an axis too.\n"
    )
    for axis in AXES.values():
        levels = ", ".join(f"{level:g}" for level in axis.levels)
        yield (
            f"- **{axis.name}**: {axis.label}. Sets `{axis.key}`: {axis.sets}. "
            f"Levels: {levels}. Source: {axis.source}."
        )
