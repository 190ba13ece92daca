"""Reading an experiment file: TOML, `extends`, `--set` overrides, and every problem in one go.

A problem reads ``file:line: dotted.key: what is wrong; what was expected``. Nothing here imports
torch.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from analogtl.config.schema import Experiment
from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.errors import ExperimentError, counted, did_you_mean
from analogtl.vocabulary import AXES, key_of

LARGEST_FILE = 1_000_000  # bytes; an experiment is a page of text
LONGEST_CHAIN = 10  # files that extend one another
MOST_ROUNDS = 5  # of looking for further problems once those found are out of the way
# Without these nothing can be said of the rest.
DECIDING = {
    "",
    "name",
    "kind",
    "analog",
    "analog.algorithm",
    "analog.device",
    "analog.device.preset",
}


class Source:
    """A merged experiment before validation, and where each key came from."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.origin: dict[str, str] = {}  # dotted key -> "file:line" or "--set a.b"
        self.file = ""

    def place(self, key: str) -> str:
        """Where a key, or the nearest table above it, was written."""
        while key:
            if key in self.origin:
                return self.origin[key]
            key = key.rpartition(".")[0]
        return self.file


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file, or a shipped experiment by its name.

    Args:
        path: A TOML file, or the name of a shipped experiment, e.g. ``quickstart``.
        overrides: Settings that take the place of the file's, as ``a.b=c``.

    Raises:
        ExperimentError: With one line per problem.
    """
    source = read_source(path, overrides)
    return validate(source)


def read_source(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Read and merge, without validating; see `load_experiment`."""
    source = Source()
    file = find_experiment(path)
    source.file = str(file)
    _read_into(source, file, chain=())
    problems: list[str] = []
    for override in overrides:
        try:
            apply_override(source, override)
        except ExperimentError as error:
            problems += error.problems
    if problems:
        raise ExperimentError(problems)
    return source


def validate(source: Source) -> Experiment:
    """Turn a merged source into an experiment; raise every problem at once."""
    try:
        experiment = Experiment.model_validate(source.data)
    except ValidationError as error:
        problems = _all_problems(error, source)
        raise ExperimentError(_titled(source.file, problems)) from None
    problems = []
    for key, place in source.origin.items():
        own = experiment.taken_by(key) if place.startswith("--set ") else None
        if own:
            problems.append(f"{place}: has no effect, as {own} comes first; set that")
    for name, levels in experiment.sweep.axes.items():
        for level in levels:
            try:
                with_settings(experiment, {key_of(name): level})
            except ExperimentError as error:
                place = source.place(f"sweep.axes.{name}")
                problems += [f"{place}: sweep.axes.{name} = {level}: {p}" for p in error.problems]
    if problems:
        raise ExperimentError(_titled(source.file, problems))
    return experiment


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """A copy of an experiment with some dotted keys set, validated again.

    Raises:
        ExperimentError: If a key or value does not fit.
    """
    data = experiment.as_written()
    for key, value in settings.items():
        set_dotted(data, key, value)
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        source = Source()
        problems = [p.removeprefix(": ") for p in _found(error, source).values()]
        raise ExperimentError(problems) from None


def set_dotted(data: dict[str, Any], key: str, value: Any) -> None:
    """Write a value at a dotted key, making the tables on the way.

    Raises:
        ExperimentError: If something on the way is not a table.
    """
    *tables, last = key.split(".")
    for table in tables:
        inner = data.setdefault(table, {})
        if not isinstance(inner, dict):
            raise ExperimentError(f"{key}: {table} is a value, not a section")
        data = inner
    data[last] = value


# -- finding files ---------------------------------------------------------------------------------


def find_experiment(path: str | Path) -> Path:
    """The file that a path or the name of a shipped experiment stands for.

    Raises:
        ExperimentError: If there is none.
    """
    file = Path(path)
    try:
        if not str(path):
            raise ExperimentError("expected an experiment file; got an empty name")
        if file.is_file():
            return file
        is_folder = file.is_dir()
    except (OSError, ValueError):
        raise ExperimentError(f"{path!r}: not a usable file name") from None
    name = file.as_posix().removesuffix(".toml").removeprefix("experiments/")
    if name in shipped_experiments():  # also where a folder has that name, as a run's may
        return shipped_folder() / f"{name}.toml"
    if is_folder:
        raise ExperimentError(f"{path}: expected an experiment file, found a folder")
    hint = did_you_mean(name, shipped_experiments())
    hint = hint if hint.startswith("did") else "`analogtl list experiments` shows the shipped ones"
    raise ExperimentError(f"{path}: no such file, and no shipped experiment of that name; {hint}")


def _read_into(source: Source, file: Path, chain: tuple[Path, ...]) -> None:
    here = file.resolve()
    if here in chain:
        names = " -> ".join(p.name for p in (*chain, here))
        raise ExperimentError(f"{file}: extends: the files extend one another in a circle: {names}")
    if len(chain) >= LONGEST_CHAIN:
        raise ExperimentError(f"{file}: extends: more than {LONGEST_CHAIN} files in a row")
    text = _read_text(file)
    data = _parse(text, file)
    base = data.pop("extends", None)
    if base is not None:
        if not isinstance(base, str) or not base:
            raise ExperimentError(f"{file}: extends: expected a file name; got {base!r}")
        beside = file.parent / base
        try:
            file_below = beside if _is_file(beside) else find_experiment(base)
            _read_into(source, file_below, (*chain, here))
        except ExperimentError as error:
            if chain or not error.problems[0].startswith(f"{base}:"):
                raise
            raise ExperimentError(f"{file}: extends: {error.problems[0]}") from None
    lines = key_lines(text)
    _merge(source.data, data)
    for key, line in lines.items():
        source.origin[key] = f"{file}:{line}"
    _resolve_paths(source.data, data, file)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no possible name of a file
        return False


def _read_text(file: Path) -> str:
    try:
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise ExperimentError(f"{file}: {size:,} bytes is too large for an experiment file")
        raw = file.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{file}: cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ExperimentError(f"{file}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if not text.strip():
        raise ExperimentError(f"{file}: empty; `analogtl init` writes one to start from")
    return text


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        match = re.search(r"^(.*) \(at line (\d+), column \d+\)$", str(error))
        if match:
            raise ExperimentError(f"{file}:{match[2]}: not valid TOML: {match[1]}") from None
        raise ExperimentError(f"{file}: not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ExperimentError(f"{file}: not valid TOML: {reason}") from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _resolve_paths(merged: dict[str, Any], data: Mapping[str, Any], file: Path) -> None:
    # A relative data folder means "beside the file that names it", wherever the command runs.
    section = data.get("data")
    root = section.get("root") if isinstance(section, dict) else None
    if isinstance(root, str) and "\0" not in root and not Path(root).expanduser().is_absolute():
        merged["data"]["root"] = str((file.parent / root).resolve())


_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> line, as far as a line-by-line reading tells."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _plain(header[1])
            lines.setdefault(table, number)
        elif key:
            lines.setdefault(f"{table}.{_plain(key[1])}" if table else _plain(key[1]), number)
    return lines


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


# -- overrides -------------------------------------------------------------------------------------


def apply_override(source: Source, override: str) -> None:
    """Put one ``key=value`` of the command line over what the file says.

    Raises:
        ExperimentError: If it is not of this form, or the key cannot hold anything.
    """
    key, equals, raw = override.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ExperimentError(f"--set {override}: expected key=value, e.g. --set finetune.epochs=5")
    if key == "lr" and source.data.get("kind") == "weight-programming":
        key = "programming.lr"
    key = key_of(key)
    value = parse_value(raw.strip(), _annotation(key))
    try:
        set_dotted(source.data, key, value)
    except ExperimentError as error:
        raise ExperimentError(f"--set {override}: {error.problems[0]}") from None
    source.origin[key] = f"--set {override}"


def _annotation(key: str) -> Any:
    """The schema's type at a dotted key, or None."""
    current: Any = Experiment
    for part in key.split("."):
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
        field = current.model_fields.get(part)
        if field is None:
            return None
        current = field.annotation
    return current


def parse_value(raw: str, annotation: Any = None) -> Any:
    """The value that text on the command line stands for.

    It is read as a TOML value; what is none is a string. Where the schema wants a list, commas
    separate its items, and where it wants text, a number stays text.
    """
    if annotation is not None and _wants(annotation, tuple) and not raw.startswith("["):
        if not _wants(annotation, int) or "," in raw:
            return [parse_value(item.strip()) for item in raw.split(",") if item.strip()]
    elif annotation is not None and _only_text(annotation) and raw[:1] not in ("'", '"'):
        return raw
    try:
        return tomli.loads(f"value = {raw}")["value"]
    except (tomli.TOMLDecodeError, KeyError, RecursionError, ValueError):
        return raw


def _wants(annotation: Any, kind: type) -> bool:
    origin = typing.get_origin(annotation)
    if annotation is kind or origin is kind:
        return True
    inner = typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = inner[:1]
    return origin not in (tuple, dict) and any(_wants(a, kind) for a in inner)


def _only_text(annotation: Any) -> bool:
    return _wants(annotation, str) and not (_wants(annotation, int) or _wants(annotation, tuple))


# -- problems --------------------------------------------------------------------------------------


def _titled(file: str, problems: list[str]) -> list[str]:
    unique = list(dict.fromkeys(problems))
    if len(unique) < 2:
        return unique
    return [f"{file}: {len(unique)} problems", *unique]


def _all_problems(error: ValidationError, source: Source) -> list[str]:
    """A line per problem, those among them that the schema sees only when others are gone."""
    data = copy.deepcopy(source.data)
    lines: dict[str, str] = {}
    for _ in range(MOST_ROUNDS):
        found = _found(error, source)
        lines |= {where: line for where, line in found.items() if where not in lines}
        keys = {where.partition(" ")[0] for where in found}
        if keys & DECIDING or not all(_removed(data, key) for key in keys):
            break
        try:
            Experiment.model_validate(data)
            break
        except ValidationError as next_error:
            error = next_error
    return list(lines.values())


def _removed(data: dict[str, Any], key: str) -> bool:
    """Whether a dotted key was there to be removed."""
    *tables, last = key.split(".")
    for number, table in enumerate(tables):
        inner = data.get(table)
        if not isinstance(inner, dict):
            return False
        rest = ".".join([*tables[number + 1 :], last])
        data = inner
        if rest in data:  # a key with dots in it
            last = rest
            break
    return data.pop(last, None) is not None


def _found(error: ValidationError, source: Source) -> dict[str, str]:
    """One line per problem, by dotted key (and, after a blank, what tells them apart).

    The branches of a union count as one.
    """
    lines: dict[str, str] = {}
    for details in error.errors():
        if details["type"] == "problems":
            above = ".".join(str(part) for part in details["loc"])
            for key, message in details["ctx"]["problems"]:
                dotted = ".".join(filter(None, (above, key)))
                lines[f"{dotted} {message}"] = f"{source.place(dotted)}: {dotted}: {message}"
            continue
        key, section = _place_of(details["loc"])
        message = _message(details, key, section)
        lines.setdefault(key, f"{source.place(key)}: {key or 'the file'}: {message}")
    return lines


def _place_of(location: Sequence[int | str]) -> tuple[str, Any]:
    """The dotted key of a location, and the section that it is in.

    The names of union branches and the positions in lists are left out.
    """
    key: list[str] = []
    section: Any = Experiment
    below = section
    for part in location:
        if part == "[key]":  # pydantic's name for the key of a table, as opposed to its value
            break
        section = below
        key.append(str(part))
        below = _below(section, part)
        if below is None:
            break
    return ".".join(key), section


def _below(section: Any, part: int | str) -> Any:
    """The section, or table of sections, under a key; None where the schema has a value."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        field = section.model_fields.get(str(part))
        section = field.annotation if field else None
    else:
        section = typing.get_args(section)[1]
    inner = typing.get_args(section)[1:] if typing.get_origin(section) is dict else (section,)
    is_section = isinstance(inner[0], type) and issubclass(inner[0], BaseModel)
    return section if is_section else None


def _message(details: ErrorDetails, key: str, section: Any) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if kind == "extra_forbidden":
        name = str(details["loc"][-1])
        if section is Experiment and name in AXES:
            return f"unknown key; an axis belongs under [sweep.axes] ({name} = [...])"
        known = [*getattr(section, "model_fields", ())]
        hint = did_you_mean(name, [*known, "extends"] if section is Experiment else known)
        return f"unknown key; {hint}" if hint else "unknown key"
    if kind == "missing":
        return "missing; every experiment needs it"
    if key == "finetune.classes" or key == "pretrain.classes":
        return (
            f"expected a number of classes (2 or more) or a list of names or numbers; got {shown}"
        )
    if kind == "too_short":
        return (
            f"expected at least {counted(context['min_length'], 'entry', 'entries')}; got {shown}"
        )
    if kind in ("literal_error", "enum"):
        listed = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        hint = did_you_mean(value, listed.split(", ")) if isinstance(value, str) else ""
        hint = f"; {hint}" if hint.startswith("did") else ""
        return f"expected one of {listed}; got {shown}{hint}"
    if kind == "string_pattern_mismatch":
        return f"expected letters, digits, '.', '_' or '-' (at most 100); got {shown}"
    expected = {
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
        "greater_than": "more than {gt}",
        "greater_than_equal": "{ge} or more",
        "less_than": "less than {lt}",
        "less_than_equal": "{le} or less",
    }.get(kind)
    if expected is None:
        return f"{details['msg'][:1].lower()}{details['msg'][1:]}; got {shown}"
    return f"expected {expected.format(**context)}; got {shown}"
