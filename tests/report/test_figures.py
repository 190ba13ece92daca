"""Figures: they show the numbers, nothing overlaps or is hidden, and they survive grey."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox
from report_data import DEEP, contrast, write_run

from analogtl.analysis import summaries
from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.critical_point import CriticalPoint
from analogtl.analysis.read import read_run
from analogtl.report import drawing as drawings
from analogtl.report import figures, style
from analogtl.report.drawing import Drawing, styled
from analogtl.report.layer_effects import layer_figure, parts_of
from analogtl.vocabulary import PER_LAYER, TRANSFER_ARMS, Metric, arm_label, arm_style

Maker = Callable[[], Drawing]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunAnalysis]:
    folder = tmp_path_factory.mktemp("runs")
    both = ("digital-tl", "analog-tl")
    algorithms = ["c-ttv2", "agad", "ttv2", "tt", "sgd", "mp"]
    grid: dict[str, Any] = {"n_states": [4.327, 10, 20, 50, 500], "spv": [0, 5, 10, 20]}
    grid["analog.algorithm"] = algorithms[2:5]
    written = {
        "arms": partial(write_run, seeds=3, layers=DEEP),
        "sweep": partial(
            write_run,
            arms=both,
            axes={"wtn": [0, 2, 5, 10, 15, 20, 30]},
            seeds=3,
            slope=2,
            noise=0.5,
        ),
        "names": partial(write_run, arms=both, axes={"analog.algorithm": algorithms}, seeds=3),
        "grid": partial(write_run, arms=("analog-tl",), axes=grid, seeds=2, epochs=3, elbow=1000),
        "effects": partial(
            write_run,
            arms=("analog-tl", "frozen-array"),
            axes={PER_LAYER: ["none", *DEEP, "all"]},
            seeds=3,
            epochs=2,
        ),
    }
    for name, write in written.items():
        write(folder / name)
    return {name: analyse(read_run(folder / name, name)) for name in written}


@pytest.fixture(scope="module")
def makers(runs: dict[str, RunAnalysis]) -> dict[str, Maker]:
    arms, sweep, names, grid, effects = runs.values()
    (part,) = parts_of(effects.layer_effects, {"convert.weight_transfer_noise": 20})
    point = critical_point_of(sweep)
    marks = {("analog-tl", ""): point, ("digital-tl", ""): point}
    everyone = summaries.with_ordered_levels(
        sweep.trials.assign(wtn=sweep.trials["wtn"].fillna(0)), {}
    )
    levels = partial(figures.error_vs_level, sweep.levels, sweep.trials, "wtn")
    return {
        "traces": partial(figures.error_traces, arms.traces),
        "traces of levels": partial(figures.error_traces, sweep.traces),
        "cells": partial(
            figures.error_traces, arms.traces, quantity="weights_changed", label="(%)", scale=100
        ),
        "levels": partial(levels, marks),
        "plain": levels,
        "two points": partial(
            figures.error_vs_level, summaries.levels(everyone), everyone, "wtn",
            marks,
        ),
        "names": partial(figures.error_vs_level, names.levels, names.trials, "analog.algorithm"),
        "layers": partial(figures.layer_dots, arms.layers, "weights_changed"),
        "programming": partial(figures.layer_dots, arms.layers, "relative_error"),
        "map": partial(figures.layer_map, sweep.layers, "wtn", "relative_error"),
        "grid": partial(
            figures.level_maps, grid.levels, grid.trials, "n_states", "spv", ["analog.algorithm"]
        ),
        "effects": partial(layer_figure, part, Metric.ERROR, 0.05),
    }  # fmt: skip


FIGURES = (
    "traces", "traces of levels", "cells", "levels", "plain", "two points", "names", "layers",
    "programming", "map", "grid", "effects",
)  # fmt: skip


def critical_point_of(run: RunAnalysis) -> CriticalPoint:
    (one,) = run.curves
    assert one.point.critical is not None
    return one.point


def legend(drawing: Drawing) -> list[str]:
    return [text.get_text() for one in drawing.figure.legends for text in one.get_texts()]


def turned_back(text: Text, renderer: Any) -> Bbox:
    """The box of a text in a figure that is turned so that the text is level."""
    box, angle = text.get_window_extent(renderer), text.get_rotation()
    if text.get_rotation_mode() != "anchor" or not angle:
        return box
    anchor = text.get_transform().transform(text.get_position())
    text.set_rotation(0)
    level = text.get_window_extent(renderer)
    text.set_rotation(angle)
    return level.translated(*(Affine2D().rotate_deg(-angle).transform(anchor) - anchor))


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_or_leaves_a_figure_of_a_column_width(
    makers: dict[str, Maker], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, Bbox, float, Bbox]] = []
    draw_text = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            turned = turned_back(self, renderer)
            drawn.append(
                (self.get_text(), self.get_window_extent(renderer), self.get_rotation(), turned)
            )
        draw_text(self, renderer)

    figure = styled(makers[name]).figure
    monkeypatch.setattr(Text, "draw", record)
    FigureCanvasAgg(figure).draw()
    width, height = figure.get_size_inches() * figure.dpi
    assert figure.get_size_inches()[0] == 3.5
    assert len(drawn) > 5
    for content, box, *_ in drawn:
        assert -1 <= box.x0 <= box.x1 <= width + 1, content
        assert -1 <= box.y0 <= box.y1 <= height + 1, content
    for (one, a, angle, along_a), (other, b, angle_b, along_b) in itertools.combinations(drawn, 2):
        if angle == angle_b:  # names aslant run beside one another: their upright boxes do not
            a, b = along_a, along_b
        overlap_x = min(a.x1, b.x1) - max(a.x0, b.x0)
        overlap_y = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert overlap_x <= 0.5 or overlap_y <= 0.5, f"{one!r} and {other!r} overlap"


def test_drawing_leaves_matplotlib_as_it_was(makers: dict[str, Maker]) -> None:
    before = dict(mpl.rcParams)
    for make in makers.values():
        styled(make)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_curves_are_the_numbers(runs: dict[str, RunAnalysis], makers: dict[str, Maker]) -> None:
    (axes,) = styled(makers["traces"]).figure.axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    traces = runs["arms"].traces
    for arm in summaries.arms_of(traces):
        rows = traces[traces["arm"] == arm]
        line = drawn[arm_label(arm)]
        assert list(line.get_xdata()) == rows["epoch"].tolist()
        assert np.asarray(line.get_ydata()) == pytest.approx(rows["error_mean"].to_numpy())


# ------------------------------------------------------------------------------------ levels


def test_every_trial_is_a_dot_beside_the_mean(
    runs: dict[str, RunAnalysis], makers: dict[str, Maker]
) -> None:
    (axes,) = styled(makers["levels"]).figure.axes
    (dots,) = [line for line in axes.lines if line.get_marker() == "."]
    trials = runs["sweep"].trials
    mine = trials[trials["arm"] == "analog-tl"]
    expected = sorted(zip(mine["wtn"].astype(float), mine["error_judged"], strict=True))
    assert np.array(sorted(zip(*dots.get_data(), strict=True))) == pytest.approx(np.array(expected))
    moved = dots.get_transform().transform((0, 0)) - axes.transData.transform((0, 0))
    assert moved[0] > 5  # pixels


def test_the_critical_point_is_marked_below_the_data(
    runs: dict[str, RunAnalysis], makers: dict[str, Maker]
) -> None:
    drawing, point = styled(makers["levels"]), critical_point_of(runs["sweep"])
    (axes,) = drawing.figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    bend = [point.hinge.low, point.hinge.high]
    places = {"no harm": [point.critical], "costs": [point.certified], "bend": bend}
    for word, place in places.items():
        (label,) = [label for label in lines if word in label]
        assert list(lines[label].get_xdata()) == place
        assert max(lines[label].get_ydata()) < 0
        assert label in legend(drawing)
    assert not axes.patches[1:]  # nothing but the baseline's band behind the data
    assert min(tick for tick in axes.get_yticks()) >= 0


def test_a_plain_figure_has_its_lines_alone(makers: dict[str, Maker]) -> None:
    drawing = styled(makers["plain"])
    assert legend(drawing) == ["analog TL", "digital TL"]
    assert drawing.figure.legends[0]._ncols == 2  # on one line
    assert drawing.figure.axes[0].get_ylim()[0] == 0


def test_two_annotated_lines_have_a_row_and_a_colour_each(makers: dict[str, Maker]) -> None:
    drawing = styled(makers["two points"])
    lines = [line for line in drawing.figure.axes[0].lines if "bend" in str(line.get_label())]
    assert len({line.get_ydata()[0] for line in lines}) == 2
    assert {line.get_color() for line in lines} == {
        arm_style(arm).color for arm in ("digital-tl", "analog-tl")
    }


def test_names_keep_the_order_of_the_file_and_have_no_line_between_them(
    runs: dict[str, RunAnalysis],
) -> None:
    run = runs["names"]
    marks = {("analog-tl", ""): critical_point_of(runs["sweep"])}
    draw = partial(figures.error_vs_level, run.levels, run.trials, "analog.algorithm", marks)
    drawing = styled(draw)
    (axes,) = drawing.figure.axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["c-TTv2", "AGAD", "TTv2", "Tiki-Taka", "pulsed SGD", "mixed precision"]
    joined = [
        x for x in axes.lines if x.get_linestyle() not in ("None", "none") and x.get_visible()
    ]
    assert all(len(line.get_xdata()) == 2 for line in joined)  # baselines and error bars
    assert legend(drawing) == ["analog TL", "digital TL"]


def test_levels_over_decades_get_a_logarithmic_axis(runs: dict[str, RunAnalysis]) -> None:
    trials = runs["grid"].trials
    one = trials[(trials["spv"] == 0) & (trials["analog.algorithm"] == "sgd")]
    levels = summaries.levels(one)
    drawing = styled(partial(figures.error_vs_level, levels, one, "n_states"))
    assert drawing.figure.axes[0].get_xscale() == "log"
    assert not figures.is_log([0, 1, 100])
    assert not figures.is_log([5, 10, 20])


def test_long_layer_names_keep_their_end_and_stay_apart() -> None:
    name = "model.backbone.stages.2.blocks.5.mlp.fc2"
    (short,) = figures.short_names([name], 28)
    assert len(short) == 28
    assert short.endswith("blocks.5.mlp.fc2")
    alike = [f"encoder.{part}.layer.attention.self.query.weight" for part in ("left", "right")]
    assert len(set(figures.short_names([*alike, "head"]))) == 3


# ----------------------------------------------------------------------------------- colours


def test_arms_differ_without_colour() -> None:
    looks = [(a.style.dash, a.style.marker, a.style.filled) for a in TRANSFER_ARMS]
    assert len(set(looks)) == len(looks)


def test_colours_stand_out_from_paper_and_from_a_dark_screen() -> None:
    for light, dark in style.DARK.items():
        assert contrast(light, "#ffffff") >= 2, light
        assert contrast(dark, "#14171b") >= 3, dark
    for arm in (*TRANSFER_ARMS, "another"):
        assert contrast(arm_style(arm).color, "#ffffff") >= 3  # WCAG 2.2, 1.4.11: graphics


def test_numbers_on_a_heat_map_can_be_read() -> None:
    for share in np.linspace(0, 1, 50):
        cell = mpl.colors.to_hex(mpl.colormaps[style.MAP_COLORS](share))
        assert contrast(cell, style.readable_on(cell)) >= 4.5


# ------------------------------------------------------------------------------------- files


def test_saved_files_are_what_they_say_and_the_same_every_time(
    makers: dict[str, Maker], tmp_path: Path
) -> None:
    first, again = (
        drawings.save(styled(makers["traces"]).figure, tmp_path / name, ["png", "svg", "pdf"])
        for name in ("a", "b")
    )
    assert [path.suffix for path in first] == [".png", ".svg", ".pdf"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    png, vector, pdf = (path.read_bytes() for path in first)
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf  # publishers refuse Type 3 fonts
    width = re.search(rb'width="([\d.]+)pt"', vector)
    assert width
    assert float(width[1]) == pytest.approx(3.5 * 72)
    assert b"reading" not in vector  # what the page needs is not in files for papers


@pytest.mark.parametrize("name", FIGURES)
def test_the_svg_of_the_page_tells_every_number(
    makers: dict[str, Maker], name: str, tmp_path: Path
) -> None:
    drawing = styled(makers[name])
    drawings.save(drawing.figure, tmp_path / "x", [])
    text = drawings.inline_svg(drawing, "f7", 'A "title"')
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert str(root.get("aria-label")).startswith('A "title"')
    titles = [element.text for element in root.iter("title")]
    told = [value for row in drawing.table()[1:] for value in row[1:] if value]
    assert len(titles) == len(told) > 5
    for title, value in zip(sorted(map(str, titles)), sorted(told), strict=False):
        assert title
        assert value
    assert {str(title).rpartition(": ")[2] for title in titles} == set(told)
    ids = [element.get("id", "") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(one.startswith("f7-") for one in ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used == set(ids)
    assert any(element.tag == "text" for element in root.iter())
    assert set(drawings.page_colors([text])) == set(re.findall(r"var\(--(c-[0-9a-f]+)\)", text))
    assert not any(color in text for color in style.DARK)
