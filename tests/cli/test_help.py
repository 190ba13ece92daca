"""Help that teaches: every command has an example that runs, every option and key is explained."""

import re
import shlex

import pytest
import typer
from command_line import call

from analogtl.cli.app import app, examples_of
from analogtl.cli.generate import parameters, walk

ALL = list(walk(typer.main.get_command(app), "analogtl"))
PATHS = [path for path, _ in ALL]


@pytest.mark.parametrize(("path", "command"), ALL, ids=PATHS)
def test_every_command_explains_itself_with_an_example(capsys, monkeypatch, path, command):
    monkeypatch.setenv("COLUMNS", "80")
    result = call(capsys, *path.split()[1:], "--help")
    assert (result.code, result.err) == (0, "")
    assert examples_of(path)
    for example, meaning in examples_of(path):
        assert example in result.out
        assert meaning in result.out
    for typed, parameter in parameters(command):
        assert parameter.help, f"{path} {typed} has no help"
        if typed.startswith("-"):
            assert typed.split()[0].rstrip(",") in result.out
    boxed = [line for line in result.out.splitlines() if line.startswith(("│", "╭", "╰"))]
    assert {len(line) for line in boxed} == {80}
    assert not any("…" in line for line in boxed)


@pytest.mark.parametrize("example", sorted({e for path in PATHS for e, _ in examples_of(path)}))
def test_examples_are_commands_that_parse(example):
    """Each example is parsed as it would be; nothing is run."""
    _analogtl, *arguments = shlex.split(re.sub(r"\|.*", "", example))
    command = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments.pop(0)]
    command.make_context("analogtl", list(arguments))  # raises a usage error
