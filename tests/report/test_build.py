"""The report as a whole: what it says of complete, partial, broken and hostile run directories."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from report_data import write_run
from told import problems_of

from analogtl.analysis.summaries import AS_IN_FILE
from analogtl.config.load import load_experiment, with_settings
from analogtl.errors import ExperimentError, RunError
from analogtl.report.build import FORMATS, Report, build_report
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.tables import read_table
from analogtl.study.trial import trials_of

WTN = {"wtn": [0, 5, 10, 15, 20, 25, 30]}
ANALOG = ("digital-tl", "analog-tl")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fig3_wtn"
    return write_run(folder, arms=ANALOG, axes=WTN, noise=0.5, slope=2.0, epochs=6, start=1)


@pytest.fixture(scope="module")
def whole(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of the sweep in every format."""
    return build_report([sweep], tmp_path_factory.mktemp("report") / "out", formats=FORMATS)


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------ what is written


def test_every_format_is_written_where_it_is_expected(whole: Report) -> None:
    assert whole.out.name == "out"
    assert sorted(whole.paths) == sorted(p for p in whole.out.rglob("*") if p.is_file())
    names = {path.name for path in whole.paths}
    assert {"report.html", "report.md", "outcomes.csv", "outcomes.tex"} <= names
    assert {"critical_points.csv", "layer_summary.csv", "stage_summary.csv"} <= names
    for stem in ("error-wtn", "traces-analog-tl", "changed-analog-tl"):
        assert {f"{stem}.png", f"{stem}.svg", f"{stem}.pdf"} <= names
    assert whole.messages == []
    assert {"outcomes", "critical_points"} <= {table.name for table in whole.tables}


def test_one_format_alone_writes_no_other(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=("digital-tl",), seeds=2, epochs=2)
    suffixes = {
        "html": {".html"},
        "csv": {".csv"},
        "markdown": {".md", ".png"},  # its figures
        "latex": {".tex", ".pdf"},
        "svg": {".svg"},
    }
    for kind, expected in suffixes.items():
        result = build_report([run], tmp_path / kind, formats=[kind])
        assert {path.suffix for path in result.paths} == expected


def test_the_default_place_is_in_the_run_or_in_the_folder_of_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, arms=("digital-tl",), seeds=2, epochs=2)
    assert build_report([tmp_path / "runs" / "a"], formats=["html"]).out.name == "report"
    assert (tmp_path / "runs" / "a" / "report" / "report.html").is_file()
    result = build_report([tmp_path / "runs"], formats=["html", "csv"])
    assert result.out == tmp_path / "runs" / "report"
    assert (result.out / "a" / "outcomes.csv").is_file()
    # Its own files are no runs: a second report reads the same two.
    again = build_report([tmp_path / "runs"], formats=["html"])
    assert len(re.findall(r'<section id="run-', page(again.out))) == 2


def test_the_planted_elbow_is_found_and_said(whole: Report) -> None:
    points = pd.read_csv(whole.out / "critical_points.csv")
    (row,) = points[points["arm"] == "analog-tl"].to_dict("records")
    assert row["verdict"] == "critical point"
    assert row["critical"] == 15
    document = (whole.out / "report.md").read_text(encoding="utf-8")
    assert row["sentence"].replace("<", "&lt;") in document
    assert read(page(whole.out)).text.count(row["sentence"]) == 1


def test_published_findings_are_told_on_request_and_after_the_runs_own_results(
    sweep: Path, whole: Report, tmp_path: Path
) -> None:
    def told(result: Report) -> bool:
        return any(table.name == "findings" for table in result.tables)

    assert not told(whole)
    assert not (whole.out / "findings.csv").exists()
    assert 'id="findings"' not in page(whole.out)
    path = sweep / "experiment.resolved.json"
    content = path.read_text()
    path.write_text(json.dumps(json.loads(content) | {"report": {"findings": True}}))
    try:
        asked = build_report([sweep], tmp_path, formats=["html", "csv"])
        assert told(asked)
        assert (asked.out / "findings.csv").exists()
        text = page(asked.out)
        assert text.index('id="run-fig3-wtn"') < text.index('id="findings"')
    finally:
        path.write_text(content)


@pytest.mark.slow
def test_a_report_is_the_same_every_time_and_by_several_processes(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = ["html", "csv", "svg", "png"]
    one = build_report([sweep], tmp_path / "one", formats=formats)
    monkeypatch.setattr("analogtl.report.drawing.FIGURES_PER_PROCESS", 2)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    try:
        other = build_report([sweep], tmp_path / "other", formats=formats)
        for a, b in zip(one.paths, other.paths, strict=True):
            assert a.relative_to(one.out) == b.relative_to(other.out)
            assert a.read_bytes() == b.read_bytes()
        figure = next(path for path in other.paths if path.suffix == ".png")
        figure.unlink()
        figure.mkdir()  # in the way of a file
        with pytest.raises(RunError, match=figure.name):
            build_report([sweep], tmp_path / "other", formats=formats)
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown()


def test_a_run_that_was_fine_tuned_and_swept_keeps_the_two_apart(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=ANALOG, axes={"spv": [0, 5, 10]}, seeds=2, epochs=3)
    for name in ("trials.csv", "epochs.csv", "layers.csv"):
        table = pd.read_csv(run / name)
        mine = table["trial"].str.contains("analog-tl,spv=0,")
        extra = table[mine].assign(trial=table["trial"].str.replace("spv=0,", ""))
        if "spv" in table:
            extra["spv"] = None
        if "error_final" in table:
            extra["error_final"] = 90.0
        pd.concat([table, extra]).to_csv(run / name, index=False)
    build_report([run], formats=["html", "csv"])
    outcomes = pd.read_csv(run / "report" / "outcomes.csv")
    analog = outcomes[outcomes["arm"] == "analog-tl"]
    assert analog["n"].tolist() == [2, 2, 2, 2]
    assert analog.loc[analog["spv"].isna(), "error_final_mean"].tolist() == [90.0]
    text = page(run / "report")
    assert AS_IN_FILE in text  # a line of its own among the traces
    figure = text.split("Test error per epoch")[0].split("Test error against")[1]
    assert "90.0" not in figure


@pytest.mark.parametrize("known", [True, False])
def test_trials_of_an_earlier_form_of_the_experiment_are_left_out(
    tmp_path: Path, known: bool
) -> None:
    now = load_experiment("quickstart", ["finetune.arms=analog-tl", "sweep.seeds=[0, 1]"])
    run = RunDir(tmp_path, now.name)
    before = with_settings(now, {"finetune.epochs": 1, "sweep.seeds": [1, 2, 3, 4, 5]})
    for one, error in ((before, 50.0), (now, 5.0)):
        trials = trials_of(one, sweep=False)
        Study(one, run).prepare()
        for trial in trials:
            outcome = {"status": "done", "error_final": error, "error_transfer": 60.0}
            run.write_trial(
                trial, {**trial_row(trial), "n_classes": 5, "engine": "fast", **outcome}, [], []
            )
    run.collect()
    if not known:
        (run.path / "experiment.resolved.json").unlink()
        (run.path / "plan.json").unlink()
    result = build_report([run.path], formats=["csv"])
    outcomes = pd.read_csv(run.path / "report" / "outcomes.csv")
    # What the experiment is tells which count; without it, the majority.
    assert outcomes[["n", "error_final_mean"]].values.tolist() == [[2, 5.0] if known else [4, 50.0]]
    assert any("other settings" in message for message in result.messages)


def test_three_axes_give_a_heat_map_per_algorithm(tmp_path: Path) -> None:
    axes = {
        "analog.algorithm": ["sgd", "c-ttv2", "agad"],
        "n_states": [4, 10, 20, 50],
        "analog.device.reference_std": [0, 0.1, 0.3, 0.5],
    }
    run = write_run(
        tmp_path / "wp", arms=("weight-programming",), axes=axes, seeds=2, epochs=2, layers=("a",)
    )
    result = build_report([run], formats=["html", "png"])
    assert "map-n-states-analog-device-reference-std.png" in {p.name for p in result.paths}
    text = page(result.out)
    for algorithm in ("pulsed SGD", "c-TTv2", "AGAD"):
        assert text.count(f">algorithm = {algorithm}</text>") == 1
    assert "test error" not in text.lower().split('id="cite"')[0].split("run-wp")[-1]


# -------------------------------------------------------------------------------- partial sweeps


def test_failed_and_missing_trials_are_said_and_left_out(tmp_path: Path) -> None:
    failed = "arm=analog-tl,wtn=5,lr=0.01,seed=1"
    missing = "arm=analog-tl,wtn=10,lr=0.01,seed=2"
    run = write_run(
        tmp_path / "run",
        arms=ANALOG,
        axes={"wtn": [0, 5, 10]},
        seeds=3,
        epochs=3,
        failed=[failed],
        missing=[missing],
    )
    result = build_report([run], formats=["html", "csv", "markdown"])
    (message,) = result.messages
    assert message.startswith("run: 10 of 12 ")
    assert message.endswith("1 failed, 1 missing")
    unfinished = pd.read_csv(result.out / "unfinished.csv").set_index("trial")
    assert unfinished.loc[failed, "state"] == "failed"
    assert "not finite" in unfinished.loc[failed, "message"]
    assert unfinished.loc[missing, "state"] == "missing"
    outcomes = pd.read_csv(result.out / "outcomes.csv")
    counts = outcomes[outcomes["arm"] == "analog-tl"].set_index("wtn")["n"]
    assert counts.to_dict() == {0: 3, 5: 2, 10: 2}
    text = page(result.out)
    assert message.removeprefix("run: ") in text
    assert failed in text
    assert missing in text
    assert "1 missing" in (result.out / "report.md").read_text(encoding="utf-8")


def test_a_run_without_a_finished_trial_still_gives_a_report(tmp_path: Path) -> None:
    run = tmp_path / "young"
    run.mkdir()
    (run / "plan.json").write_text(json.dumps({"trials": ["arm=analog-tl,lr=0.01,seed=0"]}))
    result = build_report([run])
    (message,) = result.messages
    assert message.startswith("young: 0 of 1 ")
    assert message.endswith(" 1 missing")
    assert "arm=analog-tl,lr=0.01,seed=0" in page(result.out)


def test_csv_alone_is_enough_and_torn_json_does_no_harm(tmp_path: Path) -> None:
    run = write_run(tmp_path / "results" / "run", arms=ANALOG, seeds=2, epochs=2)
    for name in ("plan.json", "provenance.json", "experiment.resolved.json"):
        (run / name).write_text('{"argv": ["analogtl", ')
    result = build_report([tmp_path / "results"], formats=["html"])
    assert len(result.damaged) == 3
    assert "analog TL" in page(result.out)
    for name in ("plan.json", "provenance.json", "experiment.resolved.json", "layers.csv"):
        (run / name).unlink()
    result = build_report([tmp_path / "results"], formats=["html"])
    assert result.messages == []
    assert "analog TL" in page(result.out)
    assert "not recorded" in page(result.out)  # its command


def test_a_torn_table_beside_the_trials_is_left_out_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=ANALOG, seeds=2, epochs=2)
    (run / "layers.csv").write_bytes(b"")
    (run / "epochs.csv").write_bytes(b"trial,stage\n\xff\xfe,x\n")
    result = build_report([run], formats=["html"])
    assert [m.split(":")[0] for m in result.messages] == ["left out", "left out", "run"]
    assert str(run / "epochs.csv") in result.messages[0]
    assert str(run / "layers.csv") in result.messages[1]
    assert "analog TL" in page(result.out)


def test_a_table_that_is_cut_off_or_gone_is_named_with_what_brings_it_back(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", seeds=2, epochs=2)
    table = (run / "trials.csv").read_text()
    (run / "trials.csv").write_text(table[: table.rindex("done") - 12])
    report = build_report([run], formats=["csv"])
    (line,) = report.damaged
    assert f"{run / 'trials.csv'}:{table.count(chr(10))}: " in line
    assert sum(pd.read_csv(report.out / "outcomes.csv")["n"]) == table.count("done") - 1
    (run / "trials.csv").unlink()
    record = run / "trials" / "one" / "trial.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(RunError, match=r"/trials\.csv: missing"):
        build_report([run])


def test_a_reference_that_failed_is_one_line(tmp_path: Path) -> None:
    failed = [f"arm=analog-tl,wtn=0,lr=0.01,seed={seed}" for seed in range(3)]
    axes = {"wtn": [0, 10, 20]}
    run = write_run(tmp_path / "run", arms=ANALOG, axes=axes, seeds=3, epochs=2, failed=failed)
    told = [line for line in build_report([run], formats=["html"]).messages if "0 %" in line]
    assert len(told) == 1
    assert "reference" in told[0]
    run = write_run(tmp_path / "one", arms=ANALOG, axes=axes, seeds=4, epochs=2, failed=failed[:1])
    assert not any("reference" in line for line in build_report([run], formats=["csv"]).messages)


@pytest.mark.parametrize(("asked", "problem"), [(0, ExperimentError), (3, RunError)])
def test_a_wrong_number_of_judged_epochs_is_one_line(
    tmp_path: Path, asked: int, problem: type[Exception]
) -> None:
    run = write_run(tmp_path / "run", arms=ANALOG, seeds=3, epochs=2)
    with pytest.raises(problem, match=f"judged.epochs {asked}") as caught:
        build_report([run], judged_epochs=asked)
    assert len(str(caught.value).splitlines()) == 1
    build_report([run], judged_epochs=2, formats=["csv"])
    points = pd.read_csv(run / "report" / "outcomes.csv")
    assert not points["error_judged_mean"].equals(points["error_final_mean"])


# ------------------------------------------------------------------------------------ many runs


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("monday", "tuesday"):
        write_run(tmp_path / parent / "same", arms=("digital-tl",), seeds=2, epochs=2, name="same")
    runs = [tmp_path / "monday", tmp_path / "tuesday"]
    result = build_report(runs, tmp_path / "out", formats=["html", "csv"])
    assert (tmp_path / "out" / "monday-same" / "outcomes.csv").is_file()
    assert (tmp_path / "out" / "tuesday-same" / "outcomes.csv").is_file()
    assert page(result.out).count("monday/same</h2>") == 1


def test_a_broken_run_is_left_out_and_the_others_are_reported(tmp_path: Path) -> None:
    write_run(tmp_path / "good", arms=("digital-tl",), seeds=2, epochs=2)
    bad = write_run(tmp_path / "bad", arms=("digital-tl",), seeds=2, epochs=2)
    (bad / "trials.csv").write_bytes(b"experiment,trial\n\x00\xff\xfe,1,2,3\n")
    result = build_report([tmp_path], formats=["html"])
    assert len(result.messages) == 1
    assert result.messages[0].startswith("left out: ")
    assert str(bad / "trials.csv") in result.messages[0]
    assert "good" in page(result.out)


def test_runs_together_share_figures_and_tables(tmp_path: Path) -> None:
    for name, elbow in (("soft", 5.0), ("hard", 20.0)):
        write_run(
            tmp_path / name, arms=ANALOG, axes=WTN, elbow=elbow, slope=2.0, noise=0.5, seeds=3,
            epochs=2,
        )  # fmt: skip
    result = build_report(
        [tmp_path / "soft", tmp_path / "hard"], tmp_path / "out", together=True, formats=FORMATS
    )
    outcomes = pd.read_csv(result.out / "outcomes.csv")
    for name in ("soft", "hard"):
        own = read_table(tmp_path / name / "trials.csv")
        for level in WTN["wtn"]:
            here = outcomes[(outcomes["run"] == name) & (outcomes["wtn"] == level)]
            mine = own[(own["arm"] == "analog-tl") & (own["wtn"] == level)]["error_final"]
            assert here["error_final_mean"].item() == pytest.approx(mine.mean())
    points = pd.read_csv(result.out / "critical_points.csv").set_index("experiment")
    assert points["critical"].to_dict() == {"soft": 5, "hard": 20}
    text = page(result.out)
    assert len(re.findall(r'<section id="run-', text)) == 1
    figure = text.split("<figure")[1]
    for line in ("analog TL, soft", "analog TL, hard", "digital TL, soft"):
        assert f">{line}<" in figure
    assert "--together" in text


@pytest.mark.parametrize(("axes", "figure"), [(None, "ages"), ({"wtn": [0, 9]}, "ages-analog-tl")])
def test_runs_together_share_what_became_of_them_after_training(
    tmp_path: Path, axes: Any, figure: str
) -> None:
    errors = {"soft": 20.0, "hard": 40.0}
    for name, error in errors.items():
        run = write_run(tmp_path / name, arms=("analog-tl",), axes=axes, seeds=2, epochs=2)
        rows = [
            {"trial": trial, "time": time, "repeat": repeat, "error": error + time + repeat}
            for trial in read_table(run / "trials.csv")["trial"]
            for time in (0.0, 3.0)
            for repeat in (0, 1)
        ]
        pd.DataFrame(rows).to_csv(run / "evaluation.csv", index=False)
        file = run / "experiment.resolved.json"
        told = json.loads(file.read_text()) | {"evaluate": {"noise_model": f"model_of_{name}"}}
        file.write_text(json.dumps(told))
    result = build_report(
        [tmp_path / "soft", tmp_path / "hard"], tmp_path / "out", together=True,
        formats=["csv", "svg", "markdown"],
    )  # fmt: skip
    ages = pd.read_csv(result.out / "ages.csv")
    assert dict(ages.groupby("run")["error_mean"].min()) == {k: v + 0.5 for k, v in errors.items()}
    assert set(ages["time"]) == {0, 3}
    assert [path.stem for path in result.paths if path.stem.startswith("ages-")] == (
        ["ages-analog-tl"] if axes else []
    )
    assert (result.out / f"{figure}.svg").is_file()
    text = (result.out / "report.md").read_text()
    assert all(f"model_of_{name} ({name})" in text.replace("\\", "") for name in errors)


# ------------------------------------------------------------------------------------ bad input


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    assert len(problems_of(build_report, [tmp_path / "no", tmp_path / "neither"])) == 2
    (problem,) = problems_of(build_report, [tmp_path])
    assert str(tmp_path) in problem
    assert "analogtl sweep" in problem
    wrong: dict[str, Any] = {"formats": ["htm", "docx"], "margin": -1, "alpha": 2}
    problems = problems_of(build_report, [tmp_path], **wrong)
    assert [p.split()[0] for p in problems] == ["format", "format", "margin", "alpha"]
    with pytest.raises(ExperimentError, match="no format"):
        build_report([tmp_path], formats=[])


def test_a_report_that_cannot_be_written_says_so(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"/file\b.*: cannot"):
        build_report([sweep], tmp_path / "file", formats=["csv"])
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------------------------- the HTML page


class Reader(HTMLParser):
    """Collects what a browser would see of tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_the_page_loads_nothing(whole: Report) -> None:
    text = page(whole.out)
    for tag, attrs in read(text).tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "fetch(" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'")


def test_anchors_and_labels_lead_somewhere(tmp_path: Path) -> None:
    for name in ("Fig 2", "fig-2"):  # two names that make the same anchor
        write_run(tmp_path / name, arms=ANALOG, seeds=2, epochs=2)
    text = page(build_report([tmp_path], formats=["html"]).out)
    tags = read(text).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in tags:
        for key in ("href", "aria-labelledby"):
            value = attrs.get(key) or ""
            if value.startswith("#") or key == "aria-labelledby":
                assert not value or value.removeprefix("#") in ids, value


def test_the_page_says_how_to_cite_and_how_to_run_again(sweep: Path, whole: Report) -> None:
    text = read(page(whole.out)).text
    assert "analogtl sweep experiments/desk/fig3_wtn.toml --jobs 2" in text
    assert f"analogtl report {sweep}" in text
    for part in ("arXiv:2505.11067", "10.1109/tcsii.2025.3596457", "@software{analogtl", "aihwkit"):
        assert part in text
    assert "swin_cifar_desk" in text  # the resolved experiment
    assert "2.5 GHz" in text  # the environment


# ------------------------------------------------------------------------------------------ size


def write_study(folder: Path, trials: int, epochs: int) -> Path:
    levels = [0, 2, 5, 10, 15, 20, 25, 30]
    seeds = trials // (2 * len(levels) + 1)
    arms = ("digital-tl", "analog-tl", "analog-scratch")
    write_run(folder, arms=arms, axes={"wtn": levels}, seeds=seeds, epochs=epochs)
    return folder


MEASURE = """
import sys
from pathlib import Path
from typing import Any
from analogtl.report.build import build_report
build_report([Path(sys.argv[1])])
assert "torch" not in sys.modules and "aihwkit" not in sys.modules
# Not getrusage: it also counts the process that this one was forked from.
status = Path("/proc/self/status").read_text()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(int(peak) // 1024)
"""


def peak_memory(run: Path) -> int:
    """The most memory (MiB) that a report takes in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(run)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_2000_trials_take_little_more_memory_than_200(tmp_path: Path) -> None:
    few = write_study(tmp_path / "few", 200, 20)
    many = write_study(tmp_path / "many", 2010, 20)
    assert len(pd.read_csv(many / "trials.csv")) >= 1900
    assert peak_memory(many) - peak_memory(few) < 100


# ------------------------------------------------------------------------- what a result rests on


def test_few_weights_on_arrays_and_the_images_used_are_said_where_the_result_is(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "run", arms=ANALOG, axes={"wtn": [0, 5]}, seeds=2, epochs=2)
    trials = pd.read_csv(run / "trials.csv")
    trials["share_on_arrays"] = trials["arm"].map({"analog-tl": 0.6249})
    trials.to_csv(run / "trials.csv", index=False)
    classes = [{"name": name, "train": 40, "validation": 10, "test": 20} for name in "ab"]
    stage = {"stage": "finetune", "dataset": "image_folder", "classes": classes}
    stage["left_out"] = {"not an image": 3}
    (run / "data.json").write_text(json.dumps({"pretrain": [], "finetune": [stage]}))
    result = build_report([run], formats=["html", "csv", "markdown"])
    outcomes = pd.read_csv(result.out / "outcomes.csv").set_index("arm")["share_on_arrays"]
    assert outcomes["analog-tl"].tolist() == [0.6249, 0.6249]
    assert pd.isna(outcomes["digital-tl"])
    (images,) = pd.read_csv(result.out / "images.csv").to_dict("records")
    assert (images["training"], images["validation"], images["test"]) == (80, 20, 40)
    assert images["left_out"] == "3 not an image"
    for text in (page(result.out), (result.out / "report.md").read_text(encoding="utf-8")):
        assert "62.4 % on arrays" in text
        assert "3 not an image" in text
    assert page(result.out).count("62.4 % on arrays") > 4  # in the figures, too
    trials["share_on_arrays"] = 0.95
    trials.to_csv(run / "trials.csv", index=False)
    result = build_report([run], formats=["html", "csv"])
    assert "on arrays" not in page(result.out).split("<main")[1].split('class="charts"')[0]
    assert "share_on_arrays" not in pd.read_csv(result.out / "outcomes.csv")
