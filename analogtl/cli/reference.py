"""The reference of all commands, made from the command line itself: ``explain/commands.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

INTRODUCTION = """\
# Every command and option

`analogtl COMMAND --help` says the same on the terminal. EXP is an experiment file or the name of a
shipped experiment; without it a command takes exp.toml in the current folder, else the bundled
quickstart, and says which.

Exit codes: 0 done; 1 a run failed; 2 the experiment or the command line is wrong (one line per
problem); 130 interrupted (what was finished is kept, and the same command goes on).
`ANALOGTL_DEBUG=1` shows where an internal error comes from; `ANALOGTL_DATA` names the folder of
the data sets.
"""
EVERY_COMMAND_HAS = ("--help", "--install-completion", "--show-completion")


def commands_markdown() -> str:
    """The whole page."""
    from analogtl.cli import app

    root = typer.main.get_command(app)
    parts = [INTRODUCTION]
    for path, command in walk(root, "analogtl"):
        parts += _command(path, command)
    return "\n".join(parts).rstrip() + "\n"


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below one, and what is typed for it."""
    yield path, command
    children: Mapping[str, Any] = getattr(command, "commands", {})
    for name, child in children.items():
        yield from walk(child, f"{path} {name}")


def parameters(command: Any) -> Iterator[tuple[str, Any]]:
    """The arguments and options of a command as they are typed, and the parameters."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield _metavar(parameter), parameter
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        if names[0] in EVERY_COMMAND_HAS:
            continue
        value = "" if getattr(parameter, "is_flag", False) else f" {_metavar(parameter)}"
        yield ", ".join(sorted(names, key=len, reverse=True)) + value, parameter


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("[].")


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"## {path}\n"
    yield (command.help or "").replace(r"\[", "[") + "\n"
    for typed, parameter in parameters(command):
        text = " ".join((parameter.help or "").replace(r"\[", "[").split())
        default = _default(parameter)
        yield f"- `{typed}`: {text}{default}"
    examples = getattr(command, "examples", ())
    if examples:
        yield "\nExamples:\n"
        for example, meaning in examples:
            yield f"- `{example}`: {meaning}"
    yield ""


def _default(parameter: Any) -> str:
    default = parameter.default
    if default is None or default is False or callable(default) or parameter.required:
        return ""
    return f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
