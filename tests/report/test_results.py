"""The README's results are those of the CSV files in experiments/results, to the last digit."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial

import pandas as pd
import pytest
from pages import README, ROOT
from scipy.stats import ttest_rel

from analogtl import read_epochs, read_trials
from analogtl.analysis.critical_point import CriticalPoint, critical_point_of
from analogtl.analysis.curves import curves
from analogtl.analysis.findings import evaluate
from analogtl.analysis.seed_blocks import p_text
from analogtl.analysis.select_lr import select_learning_rate
from analogtl.analysis.summaries import ARM_LABELS, ARM_ORDER, stages
from analogtl.report.build import build_report
from analogtl.report.sections import slug
from analogtl.study.columns import read_layers
from analogtl.vocabulary import AXES

RESULTS = ROOT / "experiments" / "results"
RUNS = sorted(file.parent.name for file in RESULTS.glob("*/trials.csv"))
TEXT = README.read_text(encoding="utf-8")

Rows = list[list[str]]

# --- the README -----------------------------------------------------------------------------------


def results(text: str) -> str:
    """What stands between the markers."""
    return text.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0]


def table(text: str, after: str) -> Rows:
    """The cells of the first table at or after some words of the results, without its rule."""
    before, found, rest = results(text).partition(after)
    assert found, f"{after!r} is not in the results"
    lines = (before.rpartition("\n")[2] + found + rest).splitlines()
    start = next(place for place, line in enumerate(lines) if line.lstrip().startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.lstrip().startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    assert all(set(cell) <= set("-: ") for cell in rows[1])
    return [rows[0], *rows[2:]]


def prose(text: str) -> str:
    """The results' words with single spaces."""
    return " ".join(results(text).split())


# --- the CSV files --------------------------------------------------------------------------------


@cache
def chosen(run: str) -> pd.DataFrame:
    """The trials of a run, each level at the learning rate with the lowest validation error."""
    return select_learning_rate(read_trials(RESULTS / run)).rows


def where(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows with these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def mean_sd(values: pd.Series[float]) -> str:
    """``17.9 ± 0.9``, with the sample's standard deviation; a single value has none."""
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def percent(share: float) -> str:
    """A share as ``19`` or, below 1, ``0.15``; nothing where there are no cells."""
    if pd.isna(share):
        return ""
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.2g}"


ARMS = {arm: ARM_LABELS[arm] for arm in ARM_ORDER}


def arms(*runs: str) -> Rows:
    """One row per arm that ran: error after the last epoch of each run, cells that moved."""
    rows = []
    for arm, words in ARMS.items():
        mine = [where(chosen(run), arm=arm) for run in runs]
        if all(trials.empty for trials in mine):
            continue
        moved = [percent(trials["weights_changed"].mean()) for trials in mine]
        errors = [mean_sd(trials["error_final"]) for trials in mine]
        rows.append([words, *errors, "; ".join(dict.fromkeys(moved))])
    return rows


def analog_tl(run: str) -> pd.DataFrame:
    """The trials of analog TL that are kept."""
    return where(chosen(run), arm="analog-tl")


def by_level(axis: str, tables: dict[str, pd.DataFrame]) -> Rows:
    """The levels of an axis, and one row per table: error after the last epoch."""
    rows = []
    for words, trials in tables.items():
        errors_at = trials.groupby(axis)["error_final"]
        rows.append([words, *(mean_sd(errors) for _, errors in errors_at)])
    return [[f"{level:g}" for level, _ in errors_at], *rows]


def levels(axis: str, runs: dict[str, str]) -> Rows:
    """The levels of an axis, and one row per run: error of analog TL after the last epoch."""
    return by_level(axis, {words: analog_tl(run) for words, run in runs.items()})


def granularities(*runs: str) -> Rows:
    """One row per granularity: error of analog TL and cells that moved, of each run."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        for level, trials in analog_tl(run).groupby("analog.granularity_per_token"):
            cells = [mean_sd(trials["error_final"]), percent(trials["weights_changed"].mean())]
            rows.setdefault(f"{level:g}", []).extend(cells)
    return [[level, *cells] for level, cells in rows.items()]


ALGORITHMS = {
    "c-ttv2": "c-TTv2",
    "mp": "mixed precision",
    "agad": "AGAD",
    "ttv2": "TTv2",
    "tt": "Tiki-Taka",
    "sgd": "pulsed SGD",
}


def algorithms(run: str) -> Rows:
    """One row per algorithm, at the learning rate kept."""
    rows = []
    for algorithm, words in ALGORITHMS.items():
        trials = where(chosen(run), algorithm=algorithm)
        (rate,) = trials["lr"].unique()
        rows.append(
            [
                words,
                f"{rate:g}",
                mean_sd(trials["error_final"]),
                mean_sd(trials["error_best"]),
                percent(trials["weights_changed"].mean()),
                f"{trials['wall_s'].mean():.0f} s",
            ]
        )
    return rows


@cache
def figures() -> pd.DataFrame:
    """The trials of the paper's figures at desk scale."""
    return pd.concat([read_trials(RESULTS / run) for run in RUNS if run.startswith("desk_fig")])


@cache
def points(metric: str = "error_final") -> dict[str, CriticalPoint]:
    """The critical point of each desk run that varies an axis."""
    return {
        curve.experiment: critical_point_of(curve)
        for curve in curves(figures(), metric=metric)
        if curve.arm == "analog-tl"
    }


@cache
def answers(metric: str = "error_final") -> pd.DataFrame:
    """What the desk runs say about the findings, by finding, experiment and task."""
    found = evaluate(figures(), metric=metric)
    return found.set_index(["finding", "experiment", "n_classes"]).sort_index()


FINDINGS = {
    "analog TL beats analog from scratch": ("analog-tl-beats-analog-scratch", "desk_fig2"),
    "analog TL beats digital from scratch": ("analog-tl-beats-digital-scratch", "desk_fig2"),
    "digital TL ahead by about 2 points": ("digital-tl-ahead", "desk_fig2"),
    "critical weight transfer noise 15 %; 10 %": ("wtn-critical-{}-class", "desk_fig3_wtn"),
    "spv has little effect; hurts beyond 10 %": (
        {2: "spv-little-effect-2-class", 5: "spv-critical-5-class"},
        "desk_fig4_spv",
    ),
    "dw_min_std has little effect": ("dw-min-std-little-effect", "desk_fig5_dw_min_std"),
    "dw_min_dtod has little effect": ("dw-min-dtod-little-effect", "desk_fig5_dw_min_dtod"),
    "(control) analog TL beats frozen arrays": ("arrays-learn", "desk_fig2"),
}


def axis_of(run: str) -> str:
    """The axis that a run of Figs. 3 to 5 varies."""
    return re.sub(r"desk_fig\d_|_\dclass", "", run)


def level_in_words(run: str, level: float) -> str:
    """``20 %`` or ``0.3``: a level of the axis that a run varies."""
    return f"{level:g}" + (" %" if AXES[axis_of(run)].unit == "%" else "")


def answer_in_words(finding: str, run: str, task: int) -> str:
    """``holds: 9.4 [5.3, 13.5]``."""
    if run not in RUNS:
        return "not run"
    answer = answers().loc[(finding, run, task)]
    verdict = str(answer["verdict"]).replace("not enough data", "open")
    interval = f"[{answer['low']:.1f}, {answer['high']:.1f}]"
    if run not in points():
        return f"{verdict}: {answer['estimate']:.1f} {interval}"
    point = points()[run]
    if "critical" in finding and point.critical is None:
        return f"{verdict}: none up to {point.max_level:g} %"
    if "critical" in finding:
        bend = f"bend {point.hinge.low:.0f} to {point.hinge.high:.0f} %"
        return f"{verdict}: level {point.critical:g} %, {bend}"
    worst = max(point.levels, key=lambda test: test.excess)
    return f"{verdict}: {answer['estimate']:+.1f} {interval} at {level_in_words(run, worst.level)}"


def findings() -> Rows:
    """One row per finding, one column per task."""
    rows = []
    for words, (finding, folder) in FINDINGS.items():
        row = [words]
        for task in (2, 5):
            name = finding[task] if isinstance(finding, dict) else finding.format(task)
            row.append(answer_in_words(name, f"{folder}_{task}class", task))
        rows.append(row)
    return rows


def level_or_none(point: CriticalPoint) -> str:
    """The critical level, if there is one."""
    return "none" if point.critical is None else f"{point.critical:g}"


def critical_levels() -> Rows:
    """Published, after the last epoch and at the best one."""
    runs = [f"desk_{name}_{task}class" for name in ("fig3_wtn", "fig4_spv") for task in (2, 5)]
    return [
        ["published", "15", "10", "little effect", "10"],
        *(
            [words, *(level_or_none(points(metric)[run]) for run in runs)]
            for words, metric in (("last epoch", "error_final"), ("best epoch", "error_best"))
        ),
    ]


def programming(states: int) -> Rows:
    """The reference variations, and one row per algorithm: error of the programmed weights."""
    trials = where(read_trials(RESULTS / "desk_weight_programming"), n_states=states)
    names = ("sgd", "ttv2", "c-ttv2", "agad")
    return by_level("spv", {ALGORITHMS[name]: where(trials, algorithm=name) for name in names})


FULL_SIZE = {"50 per token": "full_size_fig2_2class", "Table I": "full_size_fig2_2class_table1"}


def full_size() -> Rows:
    """One row per arm and granularity: errors and cells that moved."""
    rows = []
    for arm, words in ARMS.items():
        for granularity, run in FULL_SIZE.items():
            trials = where(chosen(run), arm=arm)
            if trials.empty:
                continue
            name = f"{words}, {granularity}" if arm in ("analog-tl", "analog-scratch") else words
            errors = [
                mean_sd(trials[column])
                for column in ("error_transfer", "error_final", "error_best")
            ]
            moved = trials["weights_changed"].mean()
            rows.append([name, str(len(trials)), *errors, significant(moved)])
    return rows


def significant(share: float) -> str:
    """A share in percent in two digits; nothing where there are no cells."""
    return "" if pd.isna(share) else f"{float(f'{100 * share:.2g}'):.10g}"


def stages_moved() -> Rows:
    """One row per stage: share of its cells that moved, per granularity and arm."""
    columns = []
    for arm in ("analog-tl", "analog-scratch"):
        for run in FULL_SIZE.values():
            trials = where(chosen(run), arm=arm)
            moved = stages(read_layers(RESULTS / run), trials).set_index("stage")
            columns.append(moved["weights_changed_mean"])
    return [
        [
            f"stage {int(name[-1]) + 1}" if name[-1].isdigit() else name,
            *(significant(column[name]) for column in columns),
        ]
        for name in columns[0].index
    ]


# Words at or before a table, and the rows it must have.
TABLES: list[tuple[str, Callable[[], Rows]]] = [
    ("**Fig. 2,", partial(arms, "desk_fig2_2class", "desk_fig2_5class")),
    (
        "**Fig. 3,",
        partial(
            levels,
            "wtn",
            {"2 classes, %": "desk_fig3_wtn_2class", "5 classes, %": "desk_fig3_wtn_5class"},
        ),
    ),
    (
        "**Fig. 4, symmetry point skew",
        partial(
            levels,
            "sps",
            {"2 classes, %": "desk_fig4_sps_2class", "5 classes, %": "desk_fig4_sps_5class"},
        ),
    ),
    (
        "**Fig. 4, symmetry point var",
        partial(
            levels,
            "spv",
            {"2 classes, %": "desk_fig4_spv_2class", "5 classes, %": "desk_fig4_spv_5class"},
        ),
    ),
    (
        "**Fig. 5, pulse update noise",
        partial(levels, "dw_min_std", {"analog TL, %": "desk_fig5_dw_min_std_2class"}),
    ),
    (
        "**Fig. 5, mean pulse",
        partial(levels, "dw_min_dtod", {"analog TL, %": "desk_fig5_dw_min_dtod_2class"}),
    ),
    ("**Granularity", partial(granularities, "desk_granularity_2class", "desk_granularity_5class")),
    ("**Algorithms**", partial(algorithms, "desk_algorithms")),
    ("**Weight programming", partial(programming, 20)),
    ("| published finding", findings),
    ("| critical level", critical_levels),
    ("**Full size", full_size),
    ("| cells moved, % | analog TL,", stages_moved),
]


@pytest.mark.parametrize(("after", "expected"), TABLES, ids=[after for after, _ in TABLES])
def test_a_table_of_the_readme_is_what_the_csv_files_say(after, expected):
    header, *rows = table(TEXT, after)
    rows = [[cell.replace(" points [", " [") for cell in row] for row in rows]
    wanted = expected()
    if len(wanted[0]) < len(header):  # levels, which are the header's
        assert header[1:] == wanted.pop(0)
    assert rows == wanted


@pytest.mark.parametrize("run", [run for run in RUNS if re.match(r"desk_fig[345]", run)])
def test_a_critical_point_is_told_as_it_is_found(run):
    point = points()[run]
    shown = point.levels[-1]
    if point.critical is not None:
        shown = next(test for test in point.levels if test.level == point.first_worse)
        assert f"from {level_in_words(run, shown.level)} on" in prose(TEXT)
    else:
        assert f"No critical point up to {point.max_level:g} " in prose(TEXT)
        assert f"only a rise of {point.detectable:.0f} points" in prose(TEXT)
    excess = re.escape(f"{shown.excess:+.1f}")
    rise = rf"{excess} points(?: there)?, {re.escape(p_text(shown.p_worse))}\b"
    assert re.search(rise, prose(TEXT)), rise


def leads(run: str, ahead: str, behind: str, metric: str = "error_final") -> pd.Series[float]:
    """By how many points one arm is below another, for each seed."""
    by_arm = chosen(run).pivot(index="seed", columns="arm", values=metric)
    return by_arm[behind] - by_arm[ahead]


@cache
def course(run: str, arm: str, split: str, column: str) -> dict[int, float]:
    """The mean over seeds after each epoch of fine-tuning."""
    mine = where(read_epochs(RESULTS / run), stage="finetune", arm=arm, split=split)
    return mine.groupby("epoch")[column].mean().to_dict()


def test_the_lead_of_digital_transfer_learning_by_the_best_epoch():
    two, five = (
        leads(f"desk_fig2_{n}class", "digital-tl", "analog-tl", "error_best").mean() for n in (2, 5)
    )
    words = f"ahead by {two:.1f} points with 2 classes and by {five:.1f} with 5"
    assert words in prose(TEXT)


def test_the_bump_after_eight_epochs():
    epochs = where(read_epochs(RESULTS / "desk_fig2_2class"), stage="finetune", split="test")
    analog = where(epochs, arm="analog-tl")
    eighth, last = (where(analog, epoch=epoch)["error"] for epoch in (8, 10))
    assert f"analog TL is at {mean_sd(eighth)} % with 2 classes" in prose(TEXT)
    assert f"two epochs later it is at {mean_sd(last)} %" in prose(TEXT)
    for name, level in (("wtn", 0), ("sps", 0), ("dw_min_std", 0.2174), ("dw_min_dtod", 0.7125)):
        (run,) = (run for run in RUNS if re.fullmatch(rf"desk_fig\d_{name}_2class", run))
        same = where(analog_tl(run), **{name: level})["error_final"]
        assert sorted(same) == sorted(eighth)


def test_weight_transfer_noise_by_the_best_epoch():
    best = analog_tl("desk_fig3_wtn_2class").groupby("wtn")["error_best"].mean()
    words = f"By the best epoch the error rises from {best[0]:.1f} to {best[30]:.1f} %"
    assert words in prose(TEXT)


def test_why_digital_transfer_learning_leads_with_five_classes():
    analog = course("desk_fig2_5class", "analog-tl", "test", "error")
    digital = course("desk_fig2_5class", "digital-tl", "test", "error")
    moved = course("desk_fig2_5class", "analog-tl", "test", "weights_changed")
    loss = course("desk_fig2_5class", "analog-tl", "train", "loss")
    best = min(analog, key=analog.__getitem__)
    words = f"at {analog[best]:.1f} % after {best} epochs and at {analog[10]:.1f} % after 10"
    assert words in prose(TEXT)
    assert f"goes on from {digital[best]:.1f} to {digital[10]:.1f} %" in prose(TEXT)
    assert f"goes from {percent(moved[best])} to {percent(moved[10])} %" in prose(TEXT)
    assert loss[10] > 1.1 * loss[best]


def test_the_lead_of_digital_transfer_learning_holds_at_other_granularities():
    trials = read_trials(RESULTS / "desk_granularity_5class")
    column = "analog.granularity_per_token"
    found = evaluate(trials).query("finding == 'digital-tl-ahead' and n_classes == 5")
    by_level = found.set_index("at").rename(lambda at: at.partition("=")[2])
    verdicts = by_level["verdict"].to_dict()
    refuted = "does not hold"
    assert verdicts == {"10": refuted, "20": "holds", "50": "holds", "200": refuted}
    for level in ("20", "50"):
        answer = by_level.loc[level]
        words = (
            f"{answer['estimate']:.1f} points [{answer['low']:.1f}, {answer['high']:.1f}], "
            f"{p_text(answer['p_holds'])}"
        )
        assert words in prose(TEXT)
    validation = trials.groupby(column)["error_validation"].mean().sort_values()
    first, second = validation.index[:2]
    words = f"{validation[first]:.1f} % against {validation[second]:.1f} % at {second:g}"
    assert f"At {first:g}, which validation data would choose ({words})" in prose(TEXT)


def test_the_lead_over_frozen_arrays_in_standard_errors():
    lead = [leads(f"desk_fig2_{n}class", "analog-tl", "frozen-array") for n in (2, 5)]
    two, five = (one.mean() / one.sem() for one in lead)
    words = f"{two:.1f} standard errors (paired) with 2 classes, {five:.1f} with 5"
    assert words in prose(TEXT)


@cache
def by_algorithm(column: str = "error_final") -> pd.DataFrame:
    """A column of the trials kept: seed x algorithm."""
    return chosen("desk_algorithms").pivot(index="seed", columns="algorithm", values=column)


def test_c_ttv2_against_agad():
    behind = by_algorithm()["agad"] - by_algorithm()["c-ttv2"]
    p = ttest_rel(by_algorithm()["agad"], by_algorithm()["c-ttv2"]).pvalue
    assert f"is {behind.mean():.1f} points lower with c-TTv2" in prose(TEXT)
    assert f"(paired t test, {p_text(p)})" in prose(TEXT)
    assert sum(behind < 0) == 1
    assert f"ahead with one seed and {behind.max():.0f} points behind" in prose(TEXT)
    best, moved = by_algorithm("error_best").mean(), by_algorithm("weights_changed").mean()
    assert f"only {best['agad'] - best['c-ttv2']:.0f} points above c-TTv2's" in prose(TEXT)
    assert round(moved["agad"] / moved["c-ttv2"]) == 4


def test_weight_programming_beyond_the_published_variation():
    (row,) = (row for row in programming(50) if row[0] == ALGORITHMS["c-ttv2"])
    assert f"with 50 states it is at {row[-1].partition(' ')[0]} % beyond, spv 50" in prose(TEXT)


def test_the_gap_between_the_better_and_the_worse_algorithms():
    errors = by_algorithm()
    better, worse = list(ALGORITHMS)[:3], list(ALGORITHMS)[3:]
    gap = (errors[worse].min(axis=1) - errors[better].max(axis=1)).min()
    assert f"by {gap:.1f} points at the closest" in prose(TEXT)


def test_the_example_of_the_critical_point_is_a_result():
    page = (ROOT / "analogtl" / "explain" / "critical-point.md").read_text(encoding="utf-8")
    quoted = " ".join(line[2:] for line in page.splitlines() if line.startswith("> "))
    assert quoted == points()["desk_fig4_spv_5class"].sentence


# --- the report -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_has_a_table_and_a_figure_of_every_run(tmp_path):
    build_report([RESULTS], out=tmp_path, formats=["csv", "svg", "html"])
    for run in RUNS:
        folder = tmp_path / slug(run)
        assert len(pd.read_csv(folder / "outcomes.csv")) > 0, run
        assert list(folder.glob("*.svg")), run
    assert set(pd.read_csv(tmp_path / "findings.csv")["experiment"].dropna()) <= set(RUNS)
    assert (tmp_path / "report.html").stat().st_size > 10_000
