"""Figures for papers: they show the numbers, nothing overlaps, and they survive grey."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from report_data import write_run

from analogtl.analysis import summaries
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.report import figures as plots
from analogtl.report import svg
from analogtl.report.figures import Marks
from analogtl.study import columns as records
from analogtl.vocabulary import TRANSFER_ARMS, arm_label, arm_style

MARKS = Marks(
    "analog-tl", "critical point at 10", "…", 10.0, 12.0, 9.0, 14.5, certified=5.0, margin=2.0
)
DEEP = [
    f"layers.{stage}.blocks.{block}.{part}"
    for stage, depth in enumerate((2, 2, 6, 2))
    for block in range(depth)
    for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
]


class Run:
    """A synthetic run, read and summarised."""

    def __init__(self, folder: Path) -> None:
        self.trials = select_learning_rate(records.read_table(folder / "trials.csv")).rows
        self.levels = summaries.levels(self.trials)
        self.traces = summaries.traces(records.read_table(folder / "epochs.csv"), self.trials)
        self.layers = summaries.layers(records.read_table(folder / "layers.csv"), self.trials)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("a") / "arms", seeds=3, layers=DEEP))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("s") / "sweep"
    axes = {"wtn": [0, 2, 5, 10, 15, 20, 30]}
    return Run(write_run(folder, arms=("digital-tl", "analog-tl"), axes=axes, seeds=3))


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("n") / "names"
    axes = {"analog.algorithm": ["c-ttv2", "agad", "ttv2", "tt", "sgd", "mp"]}
    return Run(write_run(folder, arms=("digital-tl", "analog-tl"), axes=axes, seeds=3))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("g") / "grid"
    axes = {"n_states": [4.327, 10, 20, 50, 500], "spv": [0, 5, 10, 20]}
    axes["analog.algorithm"] = ["sgd", "ttv2", "agad"]  # type: ignore[list-item]
    return Run(write_run(folder, arms=("analog-tl",), axes=axes, seeds=2, epochs=3, elbow=1000))


def every_figure(arms: Run, sweep: Run, names: Run, grid: Run) -> dict[str, Figure]:
    second = Marks("digital-tl", "no critical point up to 30", "…")
    return {
        "traces": plots.error_traces(arms.traces),
        "traces of levels": plots.error_traces(sweep.traces),
        "moved": plots.error_traces(
            arms.traces, quantity="weights_changed", label="cells changed (%)", scale=100
        ),
        "levels": plots.error_vs_level(sweep.levels, sweep.trials, "wtn", marks=[MARKS]),
        "two marks": plots.error_vs_level(sweep.levels, sweep.trials, "wtn", marks=[MARKS, second]),
        "names": plots.error_vs_level(names.levels, names.trials, "analog.algorithm"),
        "layers": plots.layer_bars(arms.layers, "weights_changed"),
        "programming": plots.layer_bars(arms.layers, "relative_error"),
        "map": plots.layer_map(sweep.layers, "analog-tl", "wtn", "relative_error"),
        "grid": plots.level_maps(grid.levels, "n_states", "spv", ["analog.algorithm"]),
    }


@pytest.fixture(scope="module")
def figures(arms: Run, sweep: Run, names: Run, grid: Run) -> dict[str, Figure]:
    return every_figure(arms, sweep, names, grid)


FIGURES = (
    "traces",
    "traces of levels",
    "moved",
    "levels",
    "two marks",
    "names",
    "layers",
    "programming",
    "map",
    "grid",
)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_or_leaves_the_figure(
    figures: dict[str, Figure], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, Bbox]] = []
    draw_text = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append((self.get_text(), self.get_window_extent(renderer)))
        draw_text(self, renderer)

    monkeypatch.setattr(Text, "draw", record)
    figure = figures[name]
    FigureCanvasAgg(figure).draw()
    width, height = figure.get_size_inches() * figure.dpi
    assert len(drawn) > 5
    for content, box in drawn:
        assert box.x0 >= -1, content
        assert box.y0 >= -1, content
        assert box.x1 <= width + 1, content
        assert box.y1 <= height + 1, content
    for (one, a), (other, b) in itertools.combinations(drawn, 2):
        overlap_x = min(a.x1, b.x1) - max(a.x0, b.x0)
        overlap_y = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert overlap_x <= 0.5 or overlap_y <= 0.5, f"{one!r} and {other!r} overlap"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_a_paper_column_wide(figures: dict[str, Figure], name: str) -> None:
    assert figures[name].get_size_inches()[0] == 3.5


def test_plotting_leaves_matplotlib_as_it_was(arms: Run, sweep: Run, names: Run, grid: Run) -> None:
    before = dict(mpl.rcParams)
    every_figure(arms, sweep, names, grid)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_curves_are_the_numbers(arms: Run, figures: dict[str, Figure]) -> None:
    (axes,) = figures["traces"].axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    for arm in summaries.arms_of(arms.traces):
        rows = arms.traces[arms.traces["arm"] == arm]
        line = drawn[arm_label(arm)]
        assert list(line.get_xdata()) == rows["epoch"].tolist()
        assert np.asarray(line.get_ydata()) == pytest.approx(rows["error_mean"].to_numpy())


def test_every_seed_is_a_dot_on_the_level_figure(sweep: Run, figures: dict[str, Figure]) -> None:
    (axes,) = figures["levels"].axes
    dots = [
        (float(x), float(y))
        for line in axes.lines
        if line.get_marker() == "."
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    mine = sweep.trials[sweep.trials["arm"] == "analog-tl"]
    expected = list(zip(mine["wtn"].astype(float), mine["error_final"], strict=True))
    assert np.array(sorted(dots)) == pytest.approx(np.array(sorted(expected)))


def test_the_critical_point_is_marked_where_it_is(figures: dict[str, Figure]) -> None:
    figure = figures["levels"]
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines["critical level 10 %"].get_xdata()) == [10.0, 10.0]
    assert list(lines["costs < 2 points up to 5 %"].get_xdata()) == [5.0]
    (band,) = [p for p in axes.patches if "elbow" in str(p.get_label())]
    assert (band.get_x(), band.get_x() + band.get_width()) == (9.0, 14.5)
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert "elbow of the fit 12 [9, 14.5]" in words


def test_names_have_no_line_between_them_and_no_critical_point(names: Run) -> None:
    figure = plots.error_vs_level(names.levels, names.trials, "analog.algorithm", marks=[MARKS])
    (axes,) = figure.axes
    joined = [
        line
        for line in axes.lines
        if line.get_linestyle() not in ("None", "none") and len(line.get_xdata()) > 2
    ]
    assert joined == []
    assert not any("critical" in str(line.get_label()) for line in axes.lines)


def test_levels_over_decades_get_a_logarithmic_axis(grid: Run) -> None:
    one = grid.trials[(grid.trials["spv"] == 0) & (grid.trials["analog.algorithm"] == "sgd")]
    figure = plots.error_vs_level(summaries.levels(one), one, "n_states")
    assert figure.axes[0].get_xscale() == "log"
    assert plots.is_log([0, 1, 100]) is False
    assert plots.is_log([5, 10, 20]) is False


def test_arms_differ_without_colour() -> None:
    looks = [(a.style.dash, a.style.marker, a.style.filled) for a in TRANSFER_ARMS]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("arm", [*TRANSFER_ARMS, "another"])
def test_arm_colours_stand_out_from_paper_and_from_a_dark_screen(arm: str) -> None:
    style = arm_style(arm)
    assert svg.contrast(style.color, "#ffffff") >= 3  # WCAG 2.2, 1.4.11: graphics
    assert svg.contrast(style.dark, "#14171b") >= 3


@pytest.mark.parametrize("count", [2, 5, 10])
def test_the_lines_of_a_sweep_stand_out_too(count: int) -> None:
    for place in range(count):
        look = svg.setting_look(place, count)
        assert svg.contrast(look.color, "#ffffff") >= 2
        assert svg.contrast(look.dark, "#14171b") >= 3


def test_saved_files_are_what_they_say_and_the_same_every_time(arms: Run, tmp_path: Path) -> None:
    first = plots.save(plots.error_traces(arms.traces), tmp_path / "a", ["png", "svg", "pdf"])
    again = plots.save(plots.error_traces(arms.traces), tmp_path / "b", ["png", "svg", "pdf"])
    assert [path.suffix for path in first] == [".png", ".svg", ".pdf"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    png, vector, pdf = (path.read_bytes() for path in first)
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in vector
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf  # publishers refuse Type 3 fonts
    width = re.search(rb'width="([\d.]+)pt"', vector)
    assert width
    assert float(width[1]) == pytest.approx(3.5 * 72)


def test_long_layer_names_keep_their_end() -> None:
    name = "model.backbone.stages.2.blocks.5.mlp.fc2"
    short = plots.shorten(name, 28)
    assert len(short) == 28
    assert short.endswith("blocks.5.mlp.fc2")
    assert plots.shorten("head") == "head"


def test_an_arm_with_one_seed_has_no_band(arms: Run) -> None:
    trials = arms.trials[arms.trials["seed"] == 0]
    rows = arms.traces.assign(error_sd=float("nan"))
    figure = plots.error_traces(rows[rows["arm"].isin(trials["arm"])])
    for band in figure.axes[0].collections:
        for path in band.get_paths():
            assert np.ptp(path.vertices[:, 0]) >= 0  # drawn, and of no height
    assert isinstance(figure, Figure)


def test_empty_levels_do_not_break_the_figure() -> None:
    rows = pd.DataFrame(
        {
            "arm": ["analog-tl"] * 2,
            "wtn": [0.0, 5.0],
            "lr": [0.01] * 2,
            "n": [1, 1],
            "error_final_mean": [20.0, float("nan")],
            "error_final_sd": [float("nan")] * 2,
        }
    )
    (line,) = summaries.series(rows, "wtn", "error_final", [])
    assert line.x == (0.0,)
