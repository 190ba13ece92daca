"""The report as one HTML file: it loads nothing, and runs only the script that it carries.

What comes from files is escaped by the template; the drawings escape their own text. As a second
line of defence the page's content security policy names its one script by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from analogtl import __version__
from analogtl.analysis.findings import Finding, JudgedFinding
from analogtl.report import words
from analogtl.report.drawing import Drawn, page_colors
from analogtl.report.sections import Section
from analogtl.report.tables import Cell, Table


@dataclass(frozen=True)
class PageFigure:
    """A figure as it stands on the page."""

    title: str
    about: str
    drawn: Drawn


@dataclass(frozen=True)
class PageSection:
    """One run's part of the page.

    Attributes:
        id: Anchor, unique in the page: letters, digits, hyphens.
        section: Its tables and words.
        figures: Its figures.
        facts: What the experiment is: (term, value).
        resolved: The experiment with its defaults, as JSON text; "" if unknown.
    """

    id: str
    section: Section
    figures: Sequence[PageFigure]
    facts: Sequence[tuple[str, str]]
    resolved: str

    def figures_about(self, about: str) -> list[PageFigure]:
        """The figures of one group."""
        return [figure for figure in self.figures if figure.about == about]

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Versions, hardware, command."""
        return flatten(self.section.run.run.provenance)


def render(
    *,
    title: str,
    glance: Sequence[tuple[str, str]],
    notices: Sequence[str],
    runs: Sequence[PageSection],
    tables: Sequence[Table],
    findings: Sequence[JudgedFinding],
    trials: Table | None,
    commands: str,
    made: str,
) -> str:
    """The page as HTML text.

    Args:
        title: Heading.
        glance: The study in numbers: (value, what it counts).
        notices: What is missing or failed, a sentence each.
        runs: The experiments.
        tables: Tables over all runs.
        findings: What the runs say about findings.
        trials: Every trial; None if there are too many to list.
        commands: The commands that make these runs.
        made: Date of the report.
    """
    script = _asset("report.js")
    # The policy hashes the exact text between the script tags.
    digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
    told: dict[Finding, list[JudgedFinding]] = {one.finding: [] for one in findings}
    for one in findings:
        told[one.finding] += [one] if one.experiment else []
    return _template().render(
        title=title,
        glance=glance,
        notices=notices,
        runs=runs,
        tables=tables,
        findings={finding: answers for finding, answers in told.items() if answers},
        silent=[words.statement(finding) for finding, answers in told.items() if not answers],
        trials=trials,
        commands=commands,
        made=made,
        version=__version__,
        citations=_asset("citations.bib").replace("@VERSION@", __version__),
        style=_asset("report.css"),
        colors=page_colors(figure.drawn.svg for run in runs for figure in run.figures),
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )


def pretty_json(content: object, indent: str = "") -> str:
    """JSON for people: indented, and on one line what fits there."""
    line = json.dumps(content, ensure_ascii=False)
    if len(indent) + len(line) <= 90 and not (isinstance(content, dict) and not indent):
        return line
    deeper = indent + "  "
    if isinstance(content, dict):
        items = [
            f"{deeper}{json.dumps(key, ensure_ascii=False)}: {pretty_json(value, deeper)}"
            for key, value in content.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
    if isinstance(content, list):
        items = [deeper + pretty_json(value, deeper) for value in content]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return line


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, value) pairs; a command line as one would type it."""
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            pairs.append((name, shlex.join(str(item) for item in value)))
        elif value is not None and value != "":
            pairs.append((name, str(value)))
    return pairs


def unique_ids(names: Iterable[str]) -> list[str]:
    """The names, those that were there before with a number."""
    ids: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in ids:
            candidate, number = f"{name}-{number}", number + 1
        ids.append(candidate)
    return ids


def _asset(name: str) -> str:
    templates = resources.files("analogtl.report").joinpath("templates")
    return templates.joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(sort_key=_sort_key, words=words)
    return environment.from_string(_asset("report.html"))


def _sort_key(cell: Cell, is_number: bool) -> Markup | str:
    """The number behind a cell whose text is more than a number."""
    if is_number and isinstance(cell.value, float) and " " in cell.text:
        return Markup(' data-v="{}"').format(f"{cell.value:.6g}")
    return ""
