"""Nothing from a file or a name becomes a command of whatever shows it."""

from __future__ import annotations

import csv
import json
import re
import warnings
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from report_data import write_run

from analogtl.report import tables
from analogtl.report.build import FORMATS, build_report
from analogtl.study.tables import read_rows, write_rows

HOSTILE = (
    "=HYPERLINK(\"http://x.example\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1",
    "\x1b[2J\x1b]8;;http://x.example\x07click\x1b]8;;\x07", "\x9b31m", "a\u202eb", "a\0b",
    "[red]x[/red] [link=http://x.example]y[/link]", "[a](http://x.example)",
    "![a](http://x.example/i.png)", "[a]: http://x.example", "[1, 2]: http://x.example", "[1, 2](http://x.example)",
    "<http://x.example>",
    "https://x.example/", "www.x.example", "<img src=x onerror=alert(1)>", "</script><script>1",
    "</title></svg><script>1", "&lt;b&gt;", "`x` *y* __z__", "# x", "1. x", "- x", "~~~", "===",
    "\\input{/etc/passwd}", "$\\frac{", "$x$", "[5pt] x", "* x", "%", "^^5cinput", "a_b & c#d {e}",
    "x\ny", "x\r\nanalogtl y", "a|b", '"', "é ü 中",
)  # fmt: skip


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report, in every format, of a run whose every text is hostile."""
    folder = tmp_path_factory.mktemp("runs")
    levels = list(HOSTILE)
    run = write_run(
        folder / "[x](http:)_$x$&lt;b", arms=("digital-tl", "analog-tl"), seeds=1, epochs=1,
        axes={"analog.algorithm": levels}, layers=HOSTILE,
    )  # fmt: skip
    for name in ("trials.csv", "layers.csv"):
        table = read_rows(run / name)
        for number, row in enumerate(table):
            row["experiment"] = HOSTILE[number % len(HOSTILE)]
            if "engine" in row:
                row["engine"] = HOSTILE[-1 - number % len(HOSTILE)]
            if "message" in row and number % 2:
                row["status"], row["message"] = "failed", HOSTILE[number % len(HOSTILE)]
        write_rows(run / name, list(table[0]), table)
    for name in ("experiment.resolved.json", "provenance.json"):
        content = json.loads((run / name).read_text())
        content |= {"description": HOSTILE[11], "argv": ["analogtl", *HOSTILE]}
        content |= {text: text for text in HOSTILE}
        (run / name).write_text(json.dumps(content))
    (run / "plan.json").write_text(json.dumps({"trials": list(HOSTILE)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        return build_report([run], folder / "out", formats=FORMATS).out


def files(report: Path, suffix: str) -> list[str]:
    found = [path.read_text(encoding="utf-8") for path in sorted(report.rglob(f"*{suffix}"))]
    assert found
    return found


def test_no_file_of_a_report_has_a_code_for_a_terminal(report: Path) -> None:
    for suffix in (".md", ".tex", ".html", ".svg", ".csv"):
        for text in files(report, suffix):
            bad = [c for c in text if not c.isprintable() and c != "\n"]
            assert not [c for c in bad if c not in "\u200b\u202f\xa0"], (suffix, bad[:5])


def test_a_page_has_its_own_tags_only(report: Path) -> None:
    (text,) = files(report, ".html")
    tags = Tags(text).found
    assert [tag for tag, _ in tags].count("script") == 1
    assert "img" not in {tag for tag, _ in tags}
    assert not [key for _, attrs in tags for key in attrs if key.startswith("on")]
    for tag, attrs in tags:
        target = attrs.get("xlink:href") or attrs.get("href") or "#"
        assert target.startswith(("#", "data:"))
        assert tag != "image" or target.startswith("data:image/")  # a colour bar
    for svg in files(report, ".svg"):
        for element in ElementTree.fromstring(svg).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "a", "foreignObject")
            for key, value in element.attrib.items():
                assert not key.endswith("href") or value.startswith(("#", "data:"))


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_prints_a_text_as_it_is(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    shown = tables.printable(" ".join(text.split()))
    cell = tables.markdown_escape(text)
    for source in (
        tables.markdown_paragraph(text),
        f"| {cell} | b |\n|---|---|\n| {cell} | b |",
        f"![{cell}](figure.png)",
    ):
        html = parser.render(source)
        found = Tags(html).found
        allowed = {"p", "table", "thead", "tbody", "tr", "th", "td", "img"}
        assert {tag for tag, _ in found} <= allowed, html
        assert [a["src"] for tag, a in found if tag == "img"] in ([], ["figure.png"])
        visible = unescape(re.sub(r"<[^>]*>", "", html)) + " ".join(
            a.get("alt") or "" for _, a in found
        )
        assert shown in visible
        # What GitHub makes a link of by itself.
        assert not re.search(r"(?<!\\):\/\/|www\.|(?<!\\)@", source)


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_takes_no_command_or_option_from_a_text(text: str) -> None:
    frame = pd.DataFrame({"name": [text], "other": [text]})
    columns = (tables.Column("name", text), tables.Column("other", "o"))
    source = tables.to_latex(tables.Table("t", text, frame, columns, note=text, experiment=text))
    ours = (
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|char34)\{}"
    )
    for line in source.splitlines():
        assert not re.match(r"\s*[\[*]", line)
        assert not re.search(r"\\\\\s*[\[*]", line)
    assert "\\input" not in source
    assert "^^" not in source
    escaped = re.sub(ours, "", tables.latex_escape(text))
    assert not re.search(r"(?<!\\)[%$#&_^~]|\\[A-Za-z]", re.sub(r"\$\\\w+\$", "", escaped))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_spreadsheet_finds_no_formula_and_the_text_comes_back(text: str, tmp_path: Path) -> None:
    text = text.replace("\r\n", "\n")
    own, table = tmp_path / "own.csv", tmp_path / "table.csv"
    write_rows(own, ["name", text, "number"], [{"name": text, text: text, "number": -1.5}])
    frame = pd.DataFrame({"name": [text], text: [text], "number": [-1.5]})
    table.write_text(tables.to_csv(tables.Table("t", "t", frame, ())), encoding="utf-8")
    for file in (own, table):
        assert read_rows(file) == [{"name": text, text: text, "number": "-1.5"}]
        with open(file, newline="", encoding="utf-8") as stream:
            cells = [cell for line in csv.reader(stream) for cell in line]
        assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")] == ["-1.5"]
