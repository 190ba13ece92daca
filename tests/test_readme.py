"""The README is true: its commands run, its tables are complete."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from pages import EXPLAIN, README, ROOT, blocks, code, links, parse

from analogtl.cli.app import app
from analogtl.config.schema import Experiment

BASH = blocks(README, "bash")
TEXT = README.read_text(encoding="utf-8")
# What makes a study of minutes one of seconds; every one is an option that the README explains.
SHORT = (
    "--set model.architecture=mlp_digits --set pretrain.epochs=1 --set finetune.epochs=1 "
    "--set finetune.samples_per_class=20 --set sweep.seeds=0"
)


def test_every_command_exists_with_its_options():
    commands = [one for block in BASH for one in block.commands]
    assert {"pip install .", "analogtl finetune experiments/quickstart.toml"} <= set(commands)
    for command in commands:
        if command.startswith("analogtl "):
            parse(command)
        else:
            assert command == "pytest" or command.startswith("pip install "), command


@pytest.mark.parametrize(
    "command", ["analogtl fintune quickstart", "analogtl sweep --parm spv", "analogtl runs shw x"]
)
def test_a_command_that_does_not_exist_would_be_found(command):
    with pytest.raises(typer.BadParameter.__base__):
        parse(command)


def test_every_extra_that_a_page_installs_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pages = [TEXT, *(page.read_text(encoding="utf-8") for page in EXPLAIN.glob("*.md"))]
    found = re.findall(r"pip install '(?:analogtl|\.)\[([\w,]+)\]'", "\n".join(pages))
    named = {extra for extras in found for extra in extras.split(",")}
    assert {"test", "ray", "slurm"} <= named <= set(project["optional-dependencies"])


def test_every_page_is_linked():
    assert {f"analogtl/explain/{page.name}" for page in EXPLAIN.glob("*.md")} <= set(links(README))


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 160


def test_the_table_of_commands_is_complete():
    table = TEXT.partition("## Commands")[2].partition("## ")[0]
    for name in typer.main.get_command(app).commands:
        assert re.search(rf"`(analogtl )?{name}\b", table), name


def test_the_table_of_sections_is_complete():
    found = {text.strip("[]").split(".")[0] for text in code(EXPLAIN / "experiment-file.md")}
    fields = Experiment.model_fields
    assert {n for n, field in fields.items() if hasattr(field.annotation, "model_fields")} <= found


@pytest.mark.slow
def test_the_commands_run(tmp_path):
    """All shell blocks in order, in one folder. `pip` and `pytest` are only noted."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    noted = tmp_path / "noted"
    _script(tmp_path / "bin" / "pip", f'echo "pip $*" >> {noted}')
    _script(tmp_path / "bin" / "pytest", f'echo "pytest $*" >> {noted}')
    _script(
        tmp_path / "bin" / "analogtl",
        "case $1 in pretrain|convert|finetune|sweep) short='" + SHORT + "';; esac\n"
        f'exec "{sys.executable}" -m analogtl "$@" $short',
    )
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    for block in BASH:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
    assert noted.read_text().splitlines() == ["pip install .", "pip install .[test]", "pytest "]
    for file in re.findall(r"`(runs/[\w./-]+\.(?:html|svg))`", TEXT):
        assert (tmp_path / file).stat().st_size > 1000, file


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(EXPLAIN / "python.md", "python")
    exec(compile(block.text, "python.md", "exec"), {})
