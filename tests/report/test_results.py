"""Results pages: their blocks are filled from the runs, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_data import write_run
from told import problems_of

from analogtl.report import results
from analogtl.study.tables import read_table
from analogtl.vocabulary import TRANSFER_ARMS, Arm

BOTH = ("digital-tl", "analog-tl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for classes in (2, 5):
        write_run(folder / f"fig2_{classes}", seeds=3, epochs=2, n_classes=classes, start=classes)
    levels = {"wtn": [0, 5, 10, 15, 20]}
    write_run(folder / "fig3", arms=BOTH, axes=levels, seeds=5, epochs=2, elbow=10, slope=2)
    algorithms = {"analog.algorithm": ["sgd", "c-ttv2"], "n_states": [10, 20]}
    write_run(folder / "algorithms", arms=BOTH, axes=algorithms, seeds=2, epochs=2)
    return folder


def filled(runs: Path, tmp_path: Path, block: str) -> list[str]:
    """The lines that a block is filled with."""
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n<!-- {block} -->\n<!-- end -->\n\nAfter.\n")
    assert results.rewrite(page, runs)
    text = page.read_text()
    assert not results.rewrite(page, runs)  # the same again
    assert page.read_text() == text
    before, _, rest = text.partition(f"<!-- {block} -->\n\n")
    content, _, after = rest.partition("\n\n<!-- end -->")
    assert (before, after) == ("# Before\n\n", "\n\nAfter.\n")
    return content.splitlines()


def cells(lines: list[str]) -> list[list[str]]:
    table = [line for line in lines if line.startswith("|")]  # a note may follow
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [rows[0], *rows[2:]]


def mean_sd(runs: Path, run: str, column: str = "error_final", **where: object) -> str:
    trials = read_table(runs / run / "trials.csv")
    for key, value in where.items():
        trials = trials[trials[key] == value]
    return f"{trials[column].mean():.1f} ± {trials[column].std():.1f}"


def test_an_arm_without_levels_has_a_row_beside_those_with_some(runs: Path, tmp_path: Path) -> None:
    block = "table algorithms rows=arm+analog.algorithm values=n"
    _, *rows = cells(filled(runs, tmp_path, block))
    assert [(row[0], row[1]) for row in rows] == [
        ("digital TL", "–"), ("analog TL", "pulsed SGD"), ("analog TL", "c-TTv2"),
    ]  # fmt: skip


def test_an_arm_without_a_level_has_no_unit_either(tmp_path: Path) -> None:
    arms, axes = ("digital-tl", "analog-tl"), {"wtn": [0, 20]}
    folder = write_run(tmp_path / "runs" / "r", arms=arms, axes=axes, epochs=2).parent
    rows = cells(filled(folder, tmp_path, "table r rows=arm+wtn"))[1:]
    assert [row[1] for row in rows] == ["–", "0 %", "20 %"]


def test_arms_by_tasks(runs: Path, tmp_path: Path) -> None:
    block = "table fig2_* rows=arm columns=n_classes values=error_final,weights_changed"
    head, *rows = cells(filled(runs, tmp_path, block))
    assert len(head) == 5
    assert [row[0] for row in rows][:2] == ["digital TL", "analog TL"]
    assert len(rows) == len(TRANSFER_ARMS)
    assert rows[1][1] == mean_sd(runs, "fig2_2", arm="analog-tl")
    assert rows[1][3] == mean_sd(runs, "fig2_5", arm="analog-tl")
    assert rows[0][2] == "–"  # no cells


def test_tasks_by_levels(runs: Path, tmp_path: Path) -> None:
    block = "table fig3 rows=n_classes columns=wtn where=arm=analog-tl"
    head, row = cells(filled(runs, tmp_path, block))
    assert head[1:] == ["0 %", "5 %", "10 %", "15 %", "20 %"]
    assert row[0] == "2 classes"
    assert row[4] == mean_sd(runs, "fig3", arm="analog-tl", wtn=15)


def test_settings_in_the_order_of_the_file_or_by_a_value(runs: Path, tmp_path: Path) -> None:
    block = "table algorithms rows=analog.algorithm values=n,error_final where=n_states=20"
    rows = cells(filled(runs, tmp_path, block))[1:]
    assert [row[:2] for row in rows] == [["pulsed SGD", "2"], ["c-TTv2", "2"]]
    rows = cells(filled(runs, tmp_path, f"{block} sort=error_final"))[1:]
    errors = [float(row[2].split()[0]) for row in rows]
    assert errors == sorted(errors)


def test_runs_by_names_of_ones_own_and_stages(runs: Path, tmp_path: Path) -> None:
    block = 'table "fig2_2:two" "fig2_5:five" rows=stage columns=arm+run values=weights_changed'
    head, *rows = cells(filled(runs, tmp_path, f"{block} where=arm=analog-tl"))
    assert [name.partition(" (")[0] for name in head] == [
        "stage", f"{Arm.ANALOG_TL.label}, two", f"{Arm.ANALOG_TL.label}, five",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["patch", "stages.0", "stages.1", "head"]


def test_what_the_statistics_say(runs: Path, tmp_path: Path) -> None:
    lines = filled(runs, tmp_path, "critical fig3 where=arm=analog-tl")
    assert len(lines) == 1
    assert "10 %" in lines[0]
    head, judged, last, best = cells(filled(runs, tmp_path, 'critical-levels "fig3:noise"'))
    assert head[1:] == ["noise"]
    assert judged[1] == last[1] == best[1] == "10 %"
    findings = cells(filled(runs, tmp_path, "findings fig2_2 fig2_5 fig3"))
    (beats,) = [row for row in findings if "analog from scratch" in row[0]]
    assert beats[1].startswith("holds")
    assert beats[2].startswith("holds")


def test_a_verdict_on_too_few_blocks_is_open(runs: Path, tmp_path: Path) -> None:
    def verdicts(block: str) -> dict[str, str]:
        return {row[0]: row[1] for row in cells(filled(runs, tmp_path, block))}

    judged, strict = verdicts("findings fig3"), verdicts("findings fig3 blocks=6")
    decided = [name for name, verdict in judged.items() if verdict.startswith("holds")]
    assert decided
    assert all(strict[name].startswith("open") and "5 blocks" in strict[name] for name in decided)
    assert verdicts("findings fig3 blocks=5") == judged


def test_an_arm_learns_where_it_is_ahead_of_both_controls(tmp_path: Path) -> None:
    arms = ("analog-tl", "frozen-array", "shuffled-gradients")
    folder = write_run(tmp_path / "runs" / "r", arms=arms, axes={"wtn": [0, 20]}, epochs=2).parent
    _, clean, noisy = cells(filled(folder, tmp_path, "controls r rows=wtn"))
    assert [clean[0], clean[-1], noisy[0]] == ["0 %", "yes", "20 %"]
    trials = read_table(folder / "r" / "trials.csv")
    clean_ones = trials[trials["wtn"].eq(0)].pivot(
        index="seed", columns="arm", values="error_final"
    )
    lead = clean_ones["frozen-array"] - clean_ones["analog-tl"]
    assert float(clean[2].split()[0]) == pytest.approx(lead.mean(), abs=0.06)
    assert float(clean[2].split()[-1]) == pytest.approx(lead.sem(), abs=0.06)
    # Nothing is said where a control was not run.
    write_run(folder / "one", arms=arms[:2], axes={"wtn": [0]}, epochs=2)
    assert cells(filled(folder, tmp_path, "controls one rows=wtn"))[1][-1] == "open"


def test_every_problem_is_told_with_its_line_and_nothing_is_written(
    runs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    text = (
        "<!-- table nothing -->\n<!-- end -->\n"
        "<!-- table fig3 values=mass rows=wtn colour=red -->\n<!-- end -->\n"
        "<!-- table fig3 rows=spv -->\n<!-- end -->\n"
        "<!-- table fig3 rows=arm -->\n<!-- end -->\n"
    )
    page.write_text(text)
    lines = [problem.split(":")[1] for problem in problems_of(results.rewrite, page, runs)]
    assert lines == ["1", "3", "5"]
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("block", "near"),
    [
        ("table fig3 rows=am", "'arm'"),
        ("table fig3 values=eror_final", "'error_final'"),
        ("table fig3 sort=n", "error_judged"),
        ("table fig3 where=wtm=0", "'wtn'"),
        ("critical fig3 where=arn=analog-tl", "'arm'"),
        ("critical fig3 where=arm=analog-tI", "'analog-tl'"),
        ("findings fig2_2 rows=arm", "blocks"),
        ("table fig2_* rows=arm", "fig2_5"),  # both in one cell
    ],
)
def test_an_unknown_name_gets_the_nearest_right_one(
    runs: Path, tmp_path: Path, block: str, near: str
) -> None:
    (problem,) = problems_of(filled, runs, tmp_path, block)
    assert near in problem
