"""Turn an experiment file and `--set` overrides into an experiment, or into all their problems.

A problem reads ``file:line: dotted.key: what is wrong; what was expected``. Nothing here imports
torch.
"""

from __future__ import annotations

import copy
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from analogtl.config.device_file import DEVICE_FILES, find_device
from analogtl.config.network_file import embed_networks
from analogtl.config.python_file import values_of
from analogtl.config.rule_file import embed_rules
from analogtl.config.schema import Experiment
from analogtl.config.section import flatten
from analogtl.config.source import Source, read_files, resolve_data_root
from analogtl.errors import ExperimentError, counted, did_you_mean
from analogtl.vocabulary import AXES, LANGUAGE, key_of

MAX_ROUNDS = 5  # of looking for further problems once those found are out of the way
# Without these nothing can be said of the rest.
DECIDING = {
    "",
    "name",
    "kind",
    "objective",
    "model.architecture",
    "analog",
    "analog.algorithm",
    "analog.device",
    "analog.device.preset",
}


def load_experiment(
    path: str | Path, overrides: Sequence[str] = (), task: str | None = None
) -> Experiment:
    """Read an experiment file, or a shipped experiment by its name.

    Args:
        path: A TOML file, or the name of a shipped experiment, e.g. ``quickstart``.
        overrides: Settings that take the place of the file's, as ``a.b=c``.
        task: One of the file's tasks, e.g. ``5class``; None for the file's own choice.

    Raises:
        ExperimentError: With one line per problem.
    """
    return validate(read_source(path, overrides, task))


def read_source(path: str | Path, overrides: Sequence[str] = (), task: str | None = None) -> Source:
    """Read and merge, without validating; see `load_experiment`."""
    source = read_files(path, task)
    apply_overrides(source, overrides)
    return source


def validate(source: Source) -> Experiment:
    """Turn a merged source into an experiment; raise every problem at once."""
    if problems := [f"{source.place(key)}: {key}: not UTF-8 text" for key in _not_text(source)]:
        raise _told(source, problems)
    # What the command line names is looked for where it was typed, too.
    places, flat = (*source.folders, Path.cwd()), flatten(source.data)
    for embed in (embed_rules, embed_networks, _embed_devices, _find_weights):
        embed(source.data, flat, places)
    try:
        experiment = Experiment.model_validate(source.data)
    except ValidationError as error:
        raise _told(source, _all_problems(error, source)) from None
    problems = []
    for key, place in source.origin.items():
        own = experiment.taken_by(key) if place.startswith("--set ") else None
        if own:
            problems.append(f"{place}: has no effect, as {own} comes first; set that")
    for section, key in (("analog.device", "preset"), ("model", "architecture")):
        other, file = (source.origin.get(f"{section}.{one}", "") for one in (key, "file"))
        if other and file and other.rpartition(":")[0] == file.rpartition(":")[0]:
            problems.append(f"{file}: {section}.file: takes the place of {key}: give one of them")
    swept = experiment.sweep
    varied = [("sweep.axes", *one) for one in swept.axes.items()]
    varied += [("sweep.tune.candidates", *one) for one in swept.tune.candidates.items()]
    told: set[tuple[str, str]] = set()
    for table, key, levels in varied:
        name = f"{table}.{key}"
        for level in levels:
            try:
                with_settings(experiment, {key_of(key): level})
            except ExperimentError as error:
                place = source.place(name)
                new = [p for p in error.problems if (name, p) not in told]
                told |= {(name, p) for p in new}
                problems += [f"{place}: {name} = {level}: {p}" for p in new]
    try:
        in_some_layers(experiment)
    except ExperimentError as error:
        for problem in error.problems:
            key = f"per_layer.settings.{problem.partition(':')[0]}"
            problems.append(f"{source.place(key)}: per_layer.settings: {problem}")
    if problems:
        raise _told(source, problems)
    return experiment


def _embed_devices(data: dict[str, Any], flat: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Take what each device file says that an experiment names into ``analog.device_files``."""
    for name in (one for key in DEVICE_FILES for one in values_of(flat, key)):
        section = data.setdefault("analog", {}) if isinstance(name, str) else None
        known = section.setdefault("device_files", {}) if isinstance(section, dict) else None
        if isinstance(known, dict) and name not in known and (found := find_device(name, folders)):
            known[name] = found.as_table()


def _find_weights(data: dict[str, Any], flat: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Take the place of each file of weights that an experiment names into the section [model]."""
    models = (str(one) for one in values_of(flat, "model.architecture"))
    models = (one for one in models if one.startswith(LANGUAGE))
    for name in (*values_of(flat, "model.weights"), *models):
        model = data.setdefault("model", {}) if isinstance(name, str) and name else None
        known = model.setdefault("weight_files", {}) if isinstance(model, dict) else None
        if isinstance(known, dict) and name not in known and "\0" not in name:
            path = os.path.expanduser(name.removeprefix(LANGUAGE))
            places = (folder / path for folder in folders)
            if found := next(filter(os.path.lexists, places), None):
                known[name] = str(found.absolute())


def _not_text(source: Source) -> Iterator[str]:
    """Keys with bytes of the command line that are no text: no file of a run could hold them."""
    for key, value in flatten(source.data).items():
        try:
            json.dumps([key, value], ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            yield key


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Make a copy of an experiment with some dotted keys set, validated again.

    Raises:
        ExperimentError: If a key or value does not fit.
    """
    data = experiment.as_written()
    for key, value in settings.items():
        _set_dotted(data, key, value)
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        found = _problems_of(error, Source()).values()
        raise ExperimentError(problem.removeprefix(": ") for problem in found) from None


def in_some_layers(experiment: Experiment) -> Experiment:
    """Make the experiment that has everywhere what [per_layer] sets in some layers.

    Raises:
        ExperimentError: If a key or value does not fit.
    """
    return with_settings(experiment, experiment.per_layer.settings)


def _set_dotted(data: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        inner = data.setdefault(table, {})
        if not isinstance(inner, dict):
            raise ExperimentError(f"{key}: {table} is a value, not a section")
        data = inner
    data[last] = value


# -- overrides -------------------------------------------------------------------------------------


def apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    """Put the ``key=value`` of a command line over what the files say.

    Raises:
        ExperimentError: If one is not of this form, or its key cannot hold anything.
    """
    problems = []
    for override in overrides:
        key, equals, raw = override.partition("=")
        key = key.strip()
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+){0,20}", key):
            problems.append(f"--set {override}: expected key=value, e.g. --set finetune.epochs=5")
            continue
        if key == "lr" and source.data.get("kind") == "weight-programming":
            key = "programming.lr"
        key = key_of(key)
        try:
            if key == "task":
                raise ExperimentError("--task chooses a task")
            annotation = reduce(_below, key.split("."), Experiment)
            _set_dotted(source.data, key, parse_value(raw.strip(), annotation))
            if key.startswith("data"):
                resolve_data_root(source.data, Path.cwd())
        except ExperimentError as error:
            problems.append(f"--set {override}: {error.problems[0]}")
        source.origin[key] = f"--set {override}"
    if problems:
        raise ExperimentError(problems)


def parse_value(raw: str, annotation: Any = None) -> Any:
    """Read the value that text on the command line stands for.

    It is read as a TOML value; what is none is a string. Where the schema wants a list, commas
    separate its items, and where it wants text, a number stays text.
    """
    wants_list, wants_number = _wants(annotation, tuple), _wants(annotation, int)
    if wants_list and not raw.startswith("[") and ("," in raw or not wants_number):
        return [parse_value(item.strip()) for item in raw.split(",") if item.strip()]
    wants_text = _wants(annotation, str) and not (wants_list or wants_number)
    if wants_text and raw[:1] not in ("'", '"'):
        return raw
    try:
        return tomli.loads(f"value = {raw}")["value"]
    except (tomli.TOMLDecodeError, KeyError, RecursionError, ValueError):
        if wants_list and raw.startswith("[") and raw.endswith("]") and "[" not in raw[1:]:
            return parse_value(raw[1:-1], annotation)  # the shell has taken the quotes away
        return raw


def _wants(annotation: Any, kind: type) -> bool:
    """Whether an annotation takes values of a kind, itself or by a branch of its union."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is kind or origin is kind:
        return True
    if origin is typing.Annotated:
        inner = inner[:1]
    return origin not in (tuple, dict) and any(_wants(one, kind) for one in inner)


# -- the schema below a key ------------------------------------------------------------------------


def _below(annotation: Any, part: int | str) -> Any:
    """The type under a key of a section or a table; None where there is none."""
    if _is_section(annotation):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    return typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


# -- problems --------------------------------------------------------------------------------------


def _told(source: Source, problems: list[str]) -> ExperimentError:
    unique = sorted(dict.fromkeys(problems), key=_line)
    title = [f"{source.file}: {len(unique)} problems"] if len(unique) > 1 else []
    return ExperimentError([*title, *unique])


def _line(problem: str) -> int:
    found = re.match(r"[^:]*:(\d+): ", problem)
    return int(found[1]) if found else 0


def _all_problems(error: ValidationError, source: Source) -> list[str]:
    """A line per problem, those among them that the schema sees only when others are gone."""
    data = copy.deepcopy(source.data)
    lines: dict[str, str] = {}
    for _ in range(MAX_ROUNDS):
        told = {where.split(" ")[0] for where in lines}  # of its default there is nothing to tell
        found = _problems_of(error, source)
        found = {where: line for where, line in found.items() if where.split(" ")[0] not in told}
        lines = {**found, **lines}
        keys = {where.split(" ")[0] for where in found}
        if keys & DECIDING or not all(_removed(data, key) for key in keys):
            break
        try:
            Experiment.model_validate(data)
            break
        except ValidationError as next_error:
            error = next_error
    return list(lines.values())


def _removed(data: dict[str, Any], key: str) -> bool:
    """Remove a dotted key; tell whether it was there."""
    first, _, rest = key.partition(".")
    if not rest or key in data:  # the key of an axis has dots in it
        return data.pop(key, None) is not None
    inner = data.get(first)
    return isinstance(inner, dict) and _removed(inner, rest)


def _problems_of(error: ValidationError, source: Source) -> dict[str, str]:
    """One line per problem, by dotted key (and, after a blank, what tells them apart).

    The branches of a union count as one.
    """
    lines: dict[str, str] = {}
    for details in error.errors():
        if details["type"] == "problems":
            above, _ = _place_of(details["loc"])
            for key, message in details["ctx"]["problems"]:
                dotted = ".".join(filter(None, (above, key)))
                lines[f"{dotted} {message}"] = f"{source.place(dotted)}: {dotted}: {message}"
            continue
        key, section = _place_of(details["loc"])
        if all(told.partition(" ")[0] != key for told in lines):
            message = _message(details, key, section)
            lines[key] = f"{source.place(key)}: {key or 'the file'}: {message}"
    return lines


def _place_of(location: Sequence[int | str]) -> tuple[str, Any]:
    """The dotted key of a location, and the section that it is in.

    The names of union branches and the positions in lists are left out.
    """
    key: list[str] = []
    section: Any = Experiment
    below: Any = Experiment
    for part in location:
        # "[key]" is pydantic's name for the key of a table, as opposed to its value.
        if part == "[key]" or not (_is_section(below) or typing.get_origin(below) is dict):
            break
        section = below
        key.append(str(part))
        below = _below(section, part)
    return ".".join(key), section


EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a section",
    "model_attributes_type": "a section",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "string_pattern_mismatch": "letters, digits, '.', '_' or '-' (at most 100)",
}


def _message(details: ErrorDetails, key: str, section: Any) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if kind == "extra_forbidden":
        name = str(details["loc"][-1])
        if section is Experiment and name in AXES:
            return f"unknown key; an axis belongs under [sweep.axes] ({name} = [...])"
        known = [*getattr(section, "model_fields", ())]
        files_own = ["extends", "task", "tasks"] if section is Experiment else []
        hint = did_you_mean(name, [*known, *files_own])
        return f"unknown key; {hint}" if hint else "unknown key"
    if kind == "missing":
        return "missing; every experiment needs it"
    if kind in ("literal_error", "enum"):
        expected = re.sub(r"<[\w.]+: |[>']", "", context["expected"])  # of an enum, its value
        listed = expected.replace(" or ", ", ")
        hint = did_you_mean(value, listed.split(", ")) if isinstance(value, str) else ""
        hint = f"; {hint}" if hint.startswith("did") else ""
        return f"expected one of {listed}; got {shown}{hint}"
    if key.endswith(".classes"):
        expected = "a number of classes (2 or more) or a list of names or numbers"
    elif key == "evaluate.times" and kind.startswith("float"):
        expected = "seconds, or text such as '1 day' or '10 years'"
    elif kind == "too_short":
        expected = f"at least {counted(context['min_length'], 'entry', 'entries')}"
    elif kind in EXPECTED:
        expected = EXPECTED[kind].format(**context)
    else:
        return f"{details['msg'][:1].lower()}{details['msg'][1:]}; got {shown}"
    return f"expected {expected}; got {shown}"
