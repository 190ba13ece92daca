"""Help that teaches: every command has an example that runs, every option and key is explained."""

import re
import shlex

import pytest
import typer
from command_line import call

from analogtl.cli import app, reference
from analogtl.config.reference import describe_meaning, keys, keys_markdown
from analogtl.config.schema import Experiment
from analogtl.vocabulary import AXES

ALL = list(reference.walk(typer.main.get_command(app), "analogtl"))
PATHS = [path for path, _ in ALL]


@pytest.mark.parametrize(("path", "command"), ALL, ids=PATHS)
def test_every_command_explains_itself_with_an_example(capsys, monkeypatch, path, command):
    monkeypatch.setenv("COLUMNS", "80")
    result = call(capsys, *path.split()[1:], "--help")
    assert result.code == 0
    assert result.err == ""
    assert command.examples
    for example, meaning in command.examples:
        assert example in result.out
        assert meaning in result.out
    for typed, parameter in reference.parameters(command):
        assert parameter.help, f"{path} {typed} has no help"
        if typed.startswith("-"):
            assert typed.split()[0].rstrip(",") in result.out


@pytest.mark.parametrize("path", PATHS)
def test_boxes_of_the_help_fit_80_columns(capsys, monkeypatch, path):
    monkeypatch.setenv("COLUMNS", "80")
    lines = call(capsys, *path.split()[1:], "--help").out.splitlines()
    boxed = [line for line in lines if line.startswith(("│", "╭", "╰"))]
    assert boxed
    assert all(len(line) == 80 for line in boxed)
    assert not any("…" in line for line in boxed)


@pytest.mark.parametrize("example", sorted({e for _, command in ALL for e, _ in command.examples}))
def test_examples_are_commands_that_parse(example):
    """Each example is parsed as it would be; nothing is run."""
    words = shlex.split(re.sub(r"\|.*", "", example))
    assert words[0] == "analogtl"
    command = typer.main.get_command(app)
    arguments = words[1:]
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments.pop(0)]
    command.make_context("analogtl", list(arguments))  # raises a usage error


def test_the_command_reference_has_every_command_and_option():
    page = reference.commands_markdown()
    for path, command in ALL:
        assert f"\n## {path}\n" in page
        section = page.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in reference.EVERY_COMMAND_HAS:
                    assert option in section, f"{path} {option}"


def test_the_key_reference_has_every_key_with_its_meaning():
    page = keys_markdown()
    models = {"": Experiment}
    for key in keys():
        section, _, name = key.rpartition(".")
        model = models[section]
        inner = model.model_fields[name].annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            models[key] = inner
            assert f"\n## [{key}]\n" in page
            continue
        assert describe_meaning(model, name), f"{key} has no docstring"
        assert re.search(rf"^- \*\*`{re.escape(key)}`\*\* \([^)]+\): \S", page, re.MULTILINE), key
    for axis in AXES.values():
        assert f"- **{axis.name}**: {axis.label}" in page


def test_the_sweep_help_names_where_the_axes_are_listed(capsys):
    assert "list axes" in " ".join(call(capsys, "sweep", "--help").out.split())
    listed = call(capsys, "list", "axes").out
    for axis in AXES.values():
        assert axis.name in listed
