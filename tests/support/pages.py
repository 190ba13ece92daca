"""The pages that people read, taken apart: code blocks, links, commands, keys; experiments."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from analogtl.cli import completion
from analogtl.cli.app import app
from analogtl.config.load import load_experiment
from analogtl.config.parameters import SECTIONS
from analogtl.config.reference import keys as schema_keys
from analogtl.config.schema import Experiment

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
EXPLAIN = ROOT / "analogtl" / "explain"
PAGES = [README, *sorted(EXPLAIN.glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_KEY = re.compile(r"(?:\w+\.)+\w+")
_SUFFIXES = ("csv", "html", "json", "md", "toml")  # of files, which a dotted name may be, too


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and what is in it."""

    page: Path
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, each part of an `&&` on its own."""
        whole = self.text.replace("\\\n", " ")
        lines = [line.partition(" #")[0].strip() for line in whole.splitlines()]
        return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


@cache
def shipped(name: str, task: str | None = None) -> Experiment:
    """A shipped experiment, read once."""
    return load_experiment(name, task=task)


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of one language."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(page, kind, text) for kind, text in found if kind == language]


def links(page: Path) -> list[str]:
    """The targets of all links and figures, without those on the web."""
    found = _LINK.findall(_prose(page))
    return [target for target in found if "://" not in target and not target.startswith("#")]


def code(page: Path) -> list[str]:
    """What stands between single backticks."""
    return _CODE.findall(_prose(page))


def keys(page: Path) -> list[str]:
    """Dotted keys of an experiment file that a page names, whole: `[analog.]compound.fast_lr`."""
    found = []
    for text in code(page):
        name = text.partition(" = ")[0]
        if not _KEY.fullmatch(name) or name.rpartition(".")[2] in _SUFFIXES:
            continue
        if name.split(".")[0] in SECTIONS:
            name = f"analog.{name}"
        if name.split(".")[0] in Experiment.model_fields:
            found.append(name)
    return found


def is_key(name: str) -> bool:
    """Whether the schema, or an aihwkit class that a section sets parameters of, has a key."""
    return name in schema_keys() or f"{name}=" in dict(completion.settings(name))


def parse(command: str) -> Any:
    """Parse an `analogtl` command line without running it; an error says what is wrong with it."""
    words = shlex.split(command)
    assert words[0] == "analogtl", command
    group: Any = typer.main.get_command(app)
    context = group.make_context("analogtl", words[1:])
    while True:
        _name, group, rest = group.resolve_command(context, [*_protected(context), *context.args])
        context = group.make_context(group.name, rest, parent=context)
        if not hasattr(group, "commands") or not (context.args or _protected(context)):
            return context


def _protected(context: Any) -> list[str]:
    """The name of a subcommand, which the parser keeps apart from its arguments."""
    return list(getattr(context, "_protected_args", []))


def _prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))
