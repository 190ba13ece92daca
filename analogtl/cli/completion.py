"""What Tab offers: words with their meanings. Typer's scripts ask, and these functions answer.

Each answers in milliseconds: no torch, no pandas, no schema. The keys of an experiment file are
read off the reference page, which is made from the schema.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from glob import escape
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import typer

from analogtl.config import catalog
from analogtl.config.parameters import PARAMETERS_OF
from analogtl.config.shipped import shipped_experiments
from analogtl.errors import ExperimentError
from analogtl.vocabulary import AXES, Algorithm, Dataset, Network

DEFAULT_FILE = "exp.toml"  # what is taken in a folder where no experiment is named
MAX_MEANING = 70  # characters
Offers = list[tuple[str, str]]  # word, and what it stands for

_split_key = ""  # the KEY of a `KEY=VALUE` that bash has taken apart


def choices(known: Callable[[], Iterable[tuple[str, str]]]) -> Callable[[str], Offers]:
    """A completion that offers a closed set of words, each with its meaning."""

    def offered(incomplete: str) -> Offers:
        return _starting(incomplete, known())

    return offered


def meanings(nouns: Iterable[Any]) -> Offers:
    """Each member of an enumeration with its meaning."""
    return [(each.value, each.meaning) for each in nouns]


def _starting(incomplete: str, offers: Iterable[tuple[str, str]]) -> Offers:
    return [(word, _line(meaning)) for word, meaning in offers if word.startswith(incomplete)]


def _line(meaning: str) -> str:
    """A meaning as Typer takes it: it reads markup, and breaks what is long into several offers."""
    return textwrap.shorten(meaning, MAX_MEANING, placeholder=" ...").replace("[", r"\[")


def _safe(names: Iterable[str]) -> list[str]:
    """Of names that others gave, those that no shell can take for more than a word."""
    return [name for name in names if re.fullmatch(r"[\w@%+=:,./~ -]+", name)]


# -- keys of an experiment file, and their values --------------------------------------------------


@dataclass(frozen=True)
class _Key:
    """A key: its meaning, the values it takes if they are few, its default as text."""

    meaning: str
    values: tuple[str, ...] = ()
    default: str = ""
    is_list: bool = False


def settings(incomplete: str) -> Offers:
    """``KEY=``, and ``KEY=VALUE`` once there is one key: its values, or else its default."""
    if _split_key:
        return _values(_split_key, incomplete)
    key, equals, value = incomplete.partition("=")
    if equals:
        return [(f"{key}={word}", meaning) for word, meaning in _values(key, value)]
    keys = _keys(incomplete)
    offers = [(name if name.endswith(".") else f"{name}=", meaning) for name, meaning in keys]
    if len(keys) == 1:  # a second offer keeps bash from ending the word with a space
        name = keys[0][0]
        offers += [(f"{name}={word}", meaning) for word, meaning in _values(name, "")]
    return offers


def axes(incomplete: str) -> Offers:
    """Sweep axes, and dotted keys once a dot is typed."""
    named = _starting(incomplete, ((axis.name, axis.label) for axis in AXES.values()))
    return named or _keys(incomplete)


def _keys(incomplete: str) -> Offers:
    keys = chain(_documented().items(), _aihwkit(incomplete))
    return _starting(incomplete, ((name, key.meaning) for name, key in keys))


def _values(name: str, incomplete: str) -> Offers:
    name = AXES[name].key if name in AXES else name
    key = _documented().get(name) or dict(_aihwkit(name)).get(name) or _Key("")
    before, comma, _ = incomplete.rpartition(",") if key.is_list else ("", "", incomplete)
    if name == "analog.device.preset":
        return presets(incomplete)
    if name.endswith(".dataset"):
        values: Iterable[tuple[str, str]] = meanings(Dataset)
    elif name == "model.architecture":
        values = meanings(Network)
    elif key.values:
        left = (each for each in key.values if each not in before.split(","))
        values = ((before + comma + each, key.meaning) for each in left)
    else:
        values = [(key.default, "the default")] if key.default else []
    return _starting(incomplete, values)


@cache
def _documented() -> Mapping[str, _Key]:
    page = resources.files("analogtl").joinpath("explain/keys.md").read_text(encoding="utf-8")
    found = re.findall(r"^- \*\*`([a-z_.]+)`\*\* \(([^)]*)\): (.*)$", page, re.MULTILINE)
    return {name: _key(kind, meaning) for name, kind, meaning in found}


def _key(kind: str, meaning: str) -> _Key:
    kind, _, default = kind.partition(", default ")
    values = re.findall("`([^`]+)`", kind) if "one of " in kind else []
    if kind == "true or false":
        values = ["true", "false"]
    default = "" if default[1:2] in "[{" else default.strip('`"')
    return _Key(meaning.replace("`", ""), tuple(values), default, kind.startswith("list"))


def _aihwkit(incomplete: str) -> Iterator[tuple[str, _Key]]:
    """aihwkit's parameters, once [analog] is typed: they are many."""
    section = re.match(r"analog\.(?:algorithms\.([\w-]+)\.)?", incomplete)
    if section is None:
        return
    devices = [catalog.device_parameters(name) for name in catalog.devices()]
    compounds = [catalog.compound_parameters(one) for one in Algorithm]
    tables = {"compound": compounds, "device": devices, "slow_device": devices}
    tables |= {name: [catalog.catalog()[kind]] for name, (kind, _owner) in PARAMETERS_OF.items()}
    for table, known in tables.items():
        parameters = {name: value for one in known for name, value in one.items()}
        for name, value in sorted(parameters.items()):
            dotted = f"{section[0]}{table}.{name}"
            if dotted not in _documented():
                names = value["enum"] if isinstance(value, dict) else ()
                values = ("true", "false") if isinstance(value, bool) else tuple(names)
                yield dotted, _Key("aihwkit parameter", values)
    if not section[1]:
        for algorithm in Algorithm:
            yield f"analog.algorithms.{algorithm}.", _Key(f"what differs for {algorithm}")


def prepare() -> None:
    """Get ready to answer a shell: say nothing else, and put its words together.

    Bash takes words apart at ``=``, and an answer as the part after it. So Typer gets VALUE for the
    word, and the KEY of ``--set KEY=VALUE`` is kept aside for `settings`.
    """
    global _split_key
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    words = re.split(r"\s", os.environ.get("COMP_WORDS", ""))
    place = int(os.environ.get("COMP_CWORD") or 0)
    typed, now = words[:place], "".join(words[place : place + 1])
    if now == "=":
        typed, now = [*typed, "="], ""
    if typed[-1:] != ["="] or typed[-3:-2] != ["--set"]:
        return
    _split_key = typed[-2]
    kept = [*typed[:-2], now]
    os.environ.update(COMP_WORDS=" ".join(kept), COMP_CWORD=str(len(kept) - 1))


# -- names and paths -------------------------------------------------------------------------------


def experiments(incomplete: str) -> Offers:
    """Experiment files, also in a folder of which the first letters are typed, and shipped ones."""
    folder, slash, start = incomplete.rpartition("/")
    here = Path(folder + slash or ".")
    patterns = [f"{escape(start)}*.toml"] + ([f"{escape(start)}*/*.toml"] if start else [])
    files = [file for pattern in patterns for file in sorted(here.glob(pattern))]
    names = _safe(folder + slash + file.relative_to(here).as_posix() for file in files)
    offers = [(name, "experiment file") for name in names if not name.endswith("pyproject.toml")]
    shipped = ((name, "shipped with analogtl") for name in shipped_experiments())
    return [*offers, *_starting(incomplete, shipped)]


def tasks(incomplete: str) -> Offers:
    """The tasks of the experiment that is typed before."""
    from analogtl.config.source import tasks_of

    # Typer does not say what was typed before an option that has no value yet.
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    known = set(shipped_experiments())
    typed = [word for word in line.split() if word in known or word.endswith(".toml")]
    try:
        names = tasks_of((typed or [DEFAULT_FILE])[0])[1]
    except ExperimentError:
        return []
    return _starting(incomplete, ((name, "task") for name in names))


def presets(incomplete: str) -> Offers:
    """Device presets, and aihwkit's plain device classes once something of one is typed."""
    offers = [(name, catalog.device_class(name)) for name in catalog.presets()]
    return _starting(incomplete, offers) or _starting(
        incomplete, ((name, "device class") for name in catalog.devices())
    )


def devices(incomplete: str) -> Offers:
    """What a device stands in: presets, device classes, files, experiments."""
    return presets(incomplete) + experiments(incomplete)


def run_dirs(ctx: typer.Context, incomplete: str) -> Offers:
    """Run directories below `--runs`, as paths."""
    paths = _safe(map(str, _runs(ctx)))
    return _starting(incomplete, ((path, "run directory") for path in paths))


def run_names(ctx: typer.Context, incomplete: str) -> Offers:
    """Run directories below `--runs`, by name."""
    names = _safe(path.name for path in _runs(ctx))
    return _starting(incomplete, ((name, "run") for name in names))


def _runs(ctx: typer.Context) -> list[Path]:
    root = Path(str(ctx.params.get("runs") or "runs"))
    try:
        return sorted(path for path in root.iterdir() if (path / "plan.json").is_file())
    except OSError:
        return []
