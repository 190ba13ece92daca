"""The report as one HTML file: it loads nothing, and runs only the script that it carries.

What comes from files is escaped by the template; the drawings escape their own text. As a second
line of defence the page's content security policy names its one script by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from analogtl.report.figures import shorten
from analogtl.report.svg import Chart
from analogtl.report.tables import Cell, Table


@dataclass(frozen=True)
class Answer:
    """What one experiment says about a finding.

    Attributes:
        verdict: The answer in a few words.
        kind: ``good`` (it holds), ``bad`` (it does not), ``open`` (not enough data).
        where: Experiment and task.
        says: What its runs say, with the numbers and their intervals.
        trials: The trials that the answer rests on.
    """

    verdict: str
    kind: str
    where: str
    says: str
    trials: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A published finding and the answers of the experiments that can speak to it.

    Attributes:
        claim: The finding, as published.
        source: Where, and the published number.
        answers: One per experiment and setting.
    """

    claim: str
    source: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Run:
    """One experiment's section.

    Attributes:
        id: Anchor, unique in the page: letters, digits, hyphens.
        name, description: What the experiment is.
        facts: Short facts: (term, value).
        words: What the statistics say, a sentence each.
        charts, tables: Error per epoch, per level.
        layer_charts: What was programmed and what moved, layer by layer.
        more_tables: Long tables, folded away.
        resolved: The experiment with its defaults, as JSON text; "" if unknown.
        provenance: Versions, hardware, command: (term, value).
    """

    id: str
    name: str
    description: str = ""
    facts: Sequence[tuple[str, str]] = ()
    words: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    layer_charts: Sequence[Chart] = ()
    more_tables: Sequence[Table] = ()
    resolved: str = ""
    provenance: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Attributes:
        title, subtitle: Heading.
        glance: The study in numbers: (value, what it counts).
        notices: What is missing or failed, a sentence each.
        findings: What the runs say about the published findings.
        findings_note: Which of them no run speaks to.
        tables: Tables over all runs.
        runs: The experiments.
        trials: Every trial; None if there are too many to list.
        again, again_note: The commands that make these runs.
        citations: BibTeX.
        version: Of analogtl.
        made: Date of the report.
        sources: Which runs it was made from.
    """

    title: str
    runs: Sequence[Run]
    version: str
    made: str
    sources: str
    again: str
    again_note: str
    citations: str
    subtitle: str = ""
    glance: Sequence[tuple[str, str]] = ()
    notices: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    findings_note: str = ""
    tables: Sequence[Table] = ()
    trials: Table | None = field(default=None)


def render(page: Page) -> str:
    """The page as HTML text."""
    script = _asset("report.js")
    # The policy hashes the exact text between the script tags.
    digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
    return _template().render(
        page=page,
        style=_asset("report.css"),
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
    import shlex

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


def _asset(name: str) -> str:
    templates = resources.files("analogtl.report").joinpath("templates")
    return templates.joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shorten"] = shorten
    environment.globals["sort_key"] = _sort_key
    return environment.from_string(_asset("report.html"))


def _sort_key(cell: Cell, is_number: bool) -> Markup | str:
    """The number behind a cell whose text is more than a number."""
    if is_number and isinstance(cell.value, float) and " " in cell.text:
        return Markup(' data-v="{}"').format(f"{cell.value:.6g}")
    return ""
