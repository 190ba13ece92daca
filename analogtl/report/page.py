"""The report as one HTML file: it loads nothing, and runs only the script that it carries.

What comes from files is escaped by the template; the drawings escape their own text. As a second
line of defence the page's content security policy names its one script by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from analogtl import __version__
from analogtl.analysis.findings import Finding, JudgedFinding
from analogtl.errors import printable, shell_command
from analogtl.report import words
from analogtl.report.drawing import page_colors
from analogtl.report.sections import Section
from analogtl.report.tables import Cell


@dataclass(frozen=True)
class PageSection:
    """One run's part of the page.

    Attributes:
        id: Anchor, unique in the page: letters, digits, hyphens.
        section: Its tables, words and figures.
        facts: What the experiment is: (term, value).
        resolved: The experiment with its defaults; {} if unknown.
    """

    id: str
    section: Section
    facts: Sequence[tuple[str, str]]
    resolved: Mapping[str, Any]


def render(
    *, runs: Sequence[PageSection], findings: Sequence[JudgedFinding], **content: Any
) -> str:
    """The page as HTML text.

    Args:
        content: ``title``; ``glance``, the study in numbers: (value, what it counts); ``notices``,
            what is missing, a sentence each; ``tables`` over all runs; ``trials``, the table of all
            (None: too many to list); ``commands`` that make these runs; ``made``, the date.
    """
    script = _asset("report.js")
    # The policy hashes the exact text between the script tags.
    digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
    told: dict[Finding, list[JudgedFinding]] = {one.finding: [] for one in findings}
    for one in findings:
        told[one.finding] += [one] if one.experiment else []
    return _template().render(
        **content,
        runs=runs,
        findings={finding: answers for finding, answers in told.items() if answers},
        silent=[words.statement(finding) for finding, answers in told.items() if not answers],
        version=__version__,
        citations=_asset("citations.bib").replace("@VERSION@", __version__),
        style=_asset("report.css"),
        colors=page_colors(drawn.svg for run in runs for drawn in run.section.drawn),
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, value) pairs; a command line as one would type it."""
    pairs: list[tuple[str, str]] = []
    for name, value in content.items():
        key = printable(name)
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}", shell_command(map(str, value))))
        elif value not in (None, ""):
            pairs.append((f"{prefix}{key}", printable(str(value))))
    return pairs


def unique_ids(names: Iterable[str]) -> list[str]:
    """The names, those that were there before with a number."""
    ids: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        ids.append(next(one for one in itertools.chain([name], numbered) if one not in ids))
    return ids


def _asset(name: str) -> str:
    templates = resources.files("analogtl.report").joinpath("templates")
    return templates.joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(dumps=json.dumps, flatten=flatten, sort_key=_sort_key, words=words)
    return environment.from_string(_asset("report.html"))


def _sort_key(cell: Cell, is_number: bool) -> Markup | str:
    """The number behind a cell whose text is more than a number."""
    if is_number and isinstance(cell.value, float) and " " in cell.text:
        return Markup(' data-v="{}"').format(f"{cell.value:.6g}")
    return ""
