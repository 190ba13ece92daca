"""One drawing, written as a file for papers and put into the page as SVG that can be read.

Each place of a figure that has a value carries an invisible mark; in the page's SVG that mark has
the value as its title, which a browser shows when the pointer rests on it, without a script.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import joblib
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analogtl.files import write_atomically
from analogtl.report.style import DARK, GRID, INK, MUTED, PAPER, paper_style

FIGURE_FORMATS = ("png", "svg", "pdf")
FIGURES_PER_PROCESS = 12  # at the least: a process takes as long to start as to draw that many
_READING = "reading-"
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


@dataclass
class Drawing:
    """A figure and the values that it shows.

    Attributes:
        corner: What the rows of the table of numbers are: epochs, levels, layers.
        rows, columns: Names of its rows and columns, in their order.
        caption: What a reader must know: what the spread is, how many trials.
        numbers: (row, column) -> the value as text.
        readings: Titles of the invisible marks, by the id of the artist that holds them.
    """

    figure: Figure
    corner: str
    rows: Sequence[str]
    columns: Sequence[str]
    caption: str = ""
    numbers: dict[tuple[str, str], str] = field(default_factory=dict)
    readings: dict[str, list[str]] = field(default_factory=dict)

    def tell(
        self,
        ax: Axes,
        x: Sequence[Any],
        y: Sequence[Any],
        values: Iterable[tuple[str, str, str]],
        **where: Any,
    ) -> None:
        """Let the places x, y of some axes be read.

        Args:
            values: For each the row and the column of the table, and the value as text.
            where: How the places are given, e.g. ``transform``.
        """
        name = f"{_READING}{len(self.readings)}"
        titles = []
        for row, column, text in values:
            self.numbers[row, column] = text
            titles.append(f"{column}, {row}: {text}" if column != row else f"{row}: {text}")
        ax.plot(
            x, y, "o", markersize=8, color=INK, visible=False, zorder=10, gid=name, clip_on=False,
            scalex=False, scaley=False, **where,
        )  # fmt: skip
        self.readings[name] = titles

    def table(self) -> list[tuple[str, ...]]:
        """A heading row and the others: the numbers of the figure as text."""
        body = [
            (row, *(self.numbers.get((row, column), "") for column in self.columns))
            for row in self.rows
        ]
        return [(self.corner, *self.columns), *body]


@dataclass(frozen=True)
class Drawn:
    """What was made of a drawing.

    Attributes:
        svg: For the page; "" if it was not asked for.
        caption, table: As in `Drawing`.
    """

    paths: list[Path]
    svg: str
    caption: str
    table: list[tuple[str, ...]]


Draw = Callable[[], Drawing]


def save_all(
    figures: Sequence[tuple[Draw, Path, str]], formats: Sequence[str], *, page: bool = False
) -> list[Drawn]:
    """`save` of many figures, on all cores if there are enough of them.

    Each drawing function must be picklable. One after the other or side by side, the files are the
    same.

    Args:
        figures: What draws each, the stem of its files, and what it shows, in words.
        formats: Any of `FIGURE_FORMATS`.
        page: Whether SVG for the page is wanted as well.
    """
    processes = min(joblib.cpu_count(), len(figures) // FIGURES_PER_PROCESS)
    jobs = (
        joblib.delayed(_draw_and_save)(draw, stem, formats, f"f{number}" if page else "", title)
        for number, (draw, stem, title) in enumerate(figures)
    )
    drawn: list[Drawn] = joblib.Parallel(n_jobs=max(1, processes), max_nbytes=None)(jobs)
    return drawn


def styled(draw: Draw) -> Drawing:
    """Draw in the style of a paper, and leave Matplotlib's own as it was."""
    with paper_style():
        return draw()


def _draw_and_save(
    draw: Draw, stem: Path, formats: Sequence[str], prefix: str, title: str
) -> Drawn:
    drawing = styled(draw)
    paths = save(drawing.figure, stem, formats)
    svg = inline_svg(drawing, prefix, title) if prefix else ""
    return Drawn(paths, svg, drawing.caption, drawing.table())


def save(figure: Figure, stem: Path, formats: Iterable[str]) -> list[Path]:
    """Write ``stem.png``, ``.svg``, ``.pdf``, each at once or not at all; the paths written.

    The same numbers give the same bytes: no dates, no random ids.
    """
    paths = []
    with paper_style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # so that the layout is made once
        for kind in formats:
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=_UNDATED.get(kind))
            path = stem.with_name(f"{stem.name}.{kind}")
            write_atomically(path, content.getvalue())
            paths.append(path)
    return paths


# ------------------------------------------------------------------------------- SVG for the page

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    color: f"c-{color[1:]}" for color in DARK
}
_COLOR = re.compile("|".join(_VARIABLES))
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font: ([\d.]+px)[^;]*")
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+")


def inline_svg(drawing: Drawing, prefix: str, title: str) -> str:
    """A drawing that was laid out before (`save`), as an SVG element for an HTML page.

    Text stays text; colours are the page's variables; the ids begin with the prefix, as several
    drawings share a page; every value is the title of a mark.
    """
    marks = drawing.figure.findobj(lambda artist: artist.get_gid() in drawing.readings)
    for mark in marks:
        mark.set_visible(True)
    with paper_style(), mpl.rc_context({"svg.fonttype": "none"}):
        content = io.BytesIO()
        drawing.figure.savefig(content, format="svg", metadata=_UNDATED["svg"])
        root = ElementTree.fromstring(content.getvalue())
    for mark in marks:
        mark.set_visible(False)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    ids = {name: f"{prefix}-{name}" for name in _referenced(root)}
    for element in root.iter():
        name = element.attrib.get("id", "")
        if name in drawing.readings:
            _add_titles(element, drawing.readings[name])
        _adapt(element, ids)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": f"{title}. The numbers are in the table below.",
    }
    return ElementTree.tostring(root, encoding="unicode")


def page_colors(svgs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The variables that these drawings use beside the page's own: on paper, on a dark screen."""
    used = {name for svg in svgs for name in re.findall(r"var\(--(c-[0-9a-f]{6})\)", svg)}
    return {name: (color, DARK[color]) for color, name in _VARIABLES.items() if name in used}


def _referenced(root: ElementTree.Element) -> set[str]:
    names = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                names.add(value.removeprefix("#"))
            names.update(_REFERENCE.findall(value))
    return names


def _add_titles(group: ElementTree.Element, titles: Sequence[str]) -> None:
    """Make the marks of a group readable; in their order, they are its ``use`` elements."""
    group.attrib["class"] = "reading"
    marks = [element for element in group.iter() if element.tag.endswith("}use")]
    for mark, text in zip(marks, titles, strict=True):
        mark.attrib.pop("style", None)
        ElementTree.SubElement(mark, "title").text = text
    for path in group.iter():
        if path.tag.endswith("}path"):
            path.attrib.pop("style", None)


def _adapt(element: ElementTree.Element, ids: Mapping[str, str]) -> None:
    """One element of Matplotlib's for a page: short, with the page's colours and ids."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id" and value not in ids:
            continue
        if key == "id":
            value = ids[value]
        elif key == "href" and value.startswith("#"):  # not the picture of a colour bar
            value = f"#{ids[value.removeprefix('#')]}"
        elif key == "style":
            value = _FONT.sub(r"font-size: \1", _page_colored(element.tag, value))
        value = _REFERENCE.sub(lambda found: ids[found[0]], value)
        attributes[key] = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
    element.attrib = attributes


def _page_colored(tag: str, style: str) -> str:
    # White text stands on a coloured cell, which keeps its colour on a dark screen.
    if tag == "text" and PAPER in style:
        return style
    return _COLOR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", style)
