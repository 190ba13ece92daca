"""The experiment file that ``analogtl init`` writes: small, commented, and ready to run.

The comments are the meanings of the keys, as in the reference.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import tomli
from pydantic import ValidationError

from analogtl.config import catalog
from analogtl.config.reference import keys, toml_value
from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError, did_you_mean, shell_command
from analogtl.vocabulary import AXES, Algorithm, file_algorithm, file_network

WIDTH = 92
DEFAULT_TASK = "digits"
DEFAULT_DEVICE = "ReRamArrayHfO2PresetDevice"
DEFAULT_ALGORITHM = Algorithm.C_TTV2.value
_DATA = tomli.loads(resources.files("analogtl.config").joinpath("starters.toml").read_text("utf-8"))
TASKS: dict[str, dict[str, Any]] = _DATA["tasks"]


def starter(
    task: str = DEFAULT_TASK,
    *,
    model: str | None = None,
    device: str = DEFAULT_DEVICE,
    algorithm: str = DEFAULT_ALGORITHM,
    name: str = "exp",
    file: str = "exp.toml",
    texts: Mapping[str, str] | None = None,
) -> str:
    """The text of an experiment file.

    Args:
        task: One of `TASKS`.
        model: Network, or a file with one; the task's own if None.
        file: The file it goes to, as the commands in its header name it.
        texts: The text of each file that an algorithm or a network is in, by its name.

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
        if word not in known and not file_algorithm(word)
    ]
    if problems:
        raise ExperimentError(problems)
    text = _text(TASKS[task], model, device, algorithm, name, file)
    try:
        data = tomli.loads(text)
        for section, table in (("analog", "rules"), ("model", "files")):
            data[section][table] = dict(texts or {})
        Experiment.model_validate(data)
    except ValidationError as error:
        details = error.errors()[0]
        if told := details.get("ctx", {}).get("problems"):
            raise ExperimentError(f"{key}: {what}" for key, what in told) from None
        key = ".".join(map(str, details["loc"]))
        raise ExperimentError(f"{key}: {details['msg']}; got {details['input']!r}") from None
    return text


def _text(
    task: Mapping[str, Any], model: str | None, device: str, algorithm: str, name: str, file: str
) -> str:
    parameters = catalog.device_parameters(device)
    axis = AXES["spv" if "reference_std" in parameters else "wtn"]
    variability = {"symmetry_point_variability": 5.0} if axis.name == "spv" else {}
    title = str(task["title"])
    named = {"file": str(net)} if (net := file_network(model)) else {"architecture": model}
    given = {
        "": {"name": name, "description": title},
        "model": task["model"] if model is None else named,  # one of them
        "analog": {"algorithm": algorithm},
        "analog.device": {"preset": device},
        "sweep.axes": {axis.name: list(axis.levels)},
    }
    shown = {
        "analog.device": {
            key: parameters[key] for key in ("dw_min", "dw_min_std") if parameters.get(key)
        },
        "analog.nonidealities": {"symmetry_point_skew": 0.0, **variability, "n_states": 100},
    }
    file = shell_command([file])
    lines = [
        f"# {title[:1].upper()}{title[1:]}; {task['time']} on 2 cores.",
        f"# Run:      analogtl finetune {file}",
        f"#           analogtl sweep {file}",
        "#           analogtl report",
        "# A line like `#lr = 0.1` is a key that is not in force; remove the # to set it.",
        f"# `analogtl explain keys` has every key; `analogtl validate {file}` checks this file.",
    ]
    for section in ("", *(name for name, key in keys().items() if not key.kind), "sweep.axes"):
        mine = given.get(section) or task.get(section, {})
        own = {**mine, **_DATA["all"].get(section, {})}
        more = {**_DATA["shown"].get(section, {}), **shown.get(section, {})}
        if own or more:
            lines += ["", *_section(section, own, more)]
    return "\n".join(lines) + "\n"


def _section(section: str, given: Mapping[str, Any], more: Mapping[str, Any]) -> Iterator[str]:
    if section:
        yield from _comment(section)
        yield f"[{section}]"
    for key, value in {**given, **more}.items():
        yield from _comment(f"{section}.{key}" if section else key)
        yield f"{'' if key in given else '#'}{key} = {toml_value(value)}"


def _comment(name: str) -> list[str]:
    """The meaning of a key, a section or an axis, as comment lines; aihwkit's keys have none."""
    known, axis = keys().get(name), AXES.get(name.removeprefix("sweep.axes."))
    text = known.meaning if known else f"{axis.label}: {axis.sets}" if axis else ""
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]
