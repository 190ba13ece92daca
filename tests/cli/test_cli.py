"""The commands as a user meets them: what they print, their exit codes, wrong input."""

import json
import re
import shlex
import sys

import pytest
from command_line import call, written
from fake_cifar import cifar100_files, write_folder
from report_data import write_run

from analogtl.cli import output
from analogtl.config.load import load_experiment
from analogtl.files import read_json, read_sealed
from analogtl.study.basis import no_look
from analogtl.study.provenance import code_version
from analogtl.study.run_dir import RunDir
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import preflight
from analogtl.vocabulary import AXES

pytestmark = pytest.mark.usefixtures("elsewhere")
SMALL = """
name = "small"
model.architecture = "mlp_digits"
analog.granularity_per_token = 50
[finetune]
arms = ["digital-tl", "analog-tl"]
[sweep]
seeds = [0, 1]
"""


@pytest.fixture
def small(tmp_path, fake):
    """The small experiment as exp.toml, whose trials are not trained."""
    written(tmp_path, SMALL)
    return fake


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        # typing mistakes: the nearest right word
        (["fintune"], "'finetune'"),
        (["sweep", "--parm", "spv"], "--param"),
        (["runs", "shw"], "'show'"),
        (["show", "ReRamArrayHfO2PresetDevise"], "'ReRamArrayHfO2PresetDevice'"),
        (["finetune", "quikstart"], "'quickstart'"),
        (["sweep", "--param", "spvv", "--values", "1"], "'spv'"),
        (["sweep", "--backend", "rya"], "'ray'"),
        (["init", "--device", "EcRamPresetDevise", "--yes"], "'EcRamPresetDevice'"),
        # what is wrong, and where
        (["sweep", "--max-hours", "-1"], "--max-hours"),
        (["sweep", "--values", "1,2"], "--values 1,2"),
        (["sweep", "--param", "spv", "--values", "1,,2"], "--values 1,,2"),
        (["sweep", "--param", "spv", "--values", "low,high"], "['low', 'high']"),
        (["sweep", "--param", "finetune.batch_size"], "--param finetune.batch_size"),
        (["sweep", "--param", "spv", "--param", "spv"], "--param spv"),
        (["sweep", "--param", "spv", "--param", "wtn", "--values", "1"], "2 --param"),
        (["sweep", "--param", "spv", "--set", "analog.device.preset=EcRamPresetDevice"], "HfO2"),
        (["sweep", "--backend-option", "address"], "NAME=VALUE"),
        (["sweep", "--param", "spv", "--backend-option", "a=b"], "--backend-option a"),
        (["finetune", "."], "a folder"),
        (["finetune", "\x1b[2Jevil.toml"], "evil.toml"),
        (["show"], "DEVICE"),
        (["show", "EcRamPresetDevice", "--out", "x.doc"], ".pdf"),
        (["report", "nowhere"], "nowhere"),
        (["report", "--format", "htlm"], "runs"),
        (["runs", "show", "nothing"], "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, argv, part):
    result = call(capsys, *argv)
    assert (result.code, result.out) == (2, "")
    problems = [line for line in result.problems if "using the bundled" not in line]
    assert len(problems) == 1, result.err
    assert part in problems[0]
    assert "\x1b" not in result.err


def test_all_problems_of_a_file_come_at_once_with_their_lines(capsys, tmp_path):
    written(tmp_path, 'name = "x"\nfintune = 1\n[finetune]\nepochs = -1\narms = ["analog-t1"]\n')
    result = call(capsys, "finetune")
    assert result.code == 2
    for place in (
        "exp.toml:2: fintune",
        "exp.toml:4: finetune.epochs",
        "exp.toml:5: finetune.arms",
    ):
        assert [line for line in result.problems if place in line]


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (KeyError("what\nnow"), "ANALOGTL_DEBUG=1"),
        (MemoryError(), "--jobs"),
        (ImportError("rpu_base.so: undefined symbol: _ZN3c1017SymbolicShape"), "analogtl doctor"),
        (RuntimeError("Invalid weights dimensions: expected [4,8]"), "analogtl doctor"),
        (ModuleNotFoundError("No module named 'aihwkit'"), "analogtl doctor"),
    ],
)
def test_an_error_inside_is_a_line_and_what_to_do(capsys, monkeypatch, error, part):
    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("analogtl.study.study.Study.open", broken)
    result = call(capsys, "validate", "quickstart")
    assert (result.code, len(result.problems)) == (1, 1)
    assert part in result.err
    monkeypatch.setenv("ANALOGTL_DEBUG", "1")
    assert "Traceback" in call(capsys, "validate", "quickstart").err


def test_without_a_command_the_help_is_shown(capsys):
    result = call(capsys)
    assert result.code == 0
    assert "analogtl sweep" in result.out
    assert call(capsys, "--version").out.strip() == f"analogtl {code_version()}"


# -- which experiment, and what would run ----------------------------------------------------------


def test_without_exp_it_takes_exp_toml_else_the_quickstart_and_says_which(capsys, tmp_path):
    result = call(capsys, "finetune", "--dry-run")
    assert "quickstart" in result.err
    assert 'name = "quickstart"' in result.out
    written(tmp_path, SMALL)
    result = call(capsys, "finetune", "--dry-run")
    assert "exp.toml" in result.err
    assert 'name = "small"' in result.out
    assert call(capsys, "finetune", "--dry-run", "--quiet").err == ""


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["analog.compound.auto_granularity=10000"],
        ["analog.algorithm=sgd", "finetune.classes=[1, 2]"],
        ["model.kwargs={ depths = [1, 1] }", 'description=a "b" \\ [c]'],
    ],
)
def test_dry_run_prints_an_experiment_that_means_the_same(capsys, tmp_path, settings):
    words = [word for one in settings for word in ("--set", one)]
    again = written(tmp_path, call(capsys, "finetune", "quickstart", "--dry-run", *words).out)
    expected = load_experiment("quickstart", settings)
    assert load_experiment(again).resolved() == expected.resolved()


@pytest.mark.parametrize(
    "name", [pytest.param("desk/algorithms", marks=pytest.mark.slow), "desk/weight_programming"]
)
def test_dry_run_of_a_sweep_over_algorithms_can_be_run_itself(capsys, tmp_path, name):
    again = written(tmp_path, call(capsys, "sweep", name, "--dry-run").out, "again.toml")
    trials, expected = (
        trials_of(load_experiment(e), sweep=True, look=no_look) for e in (again, name)
    )
    assert [trial.key for trial in trials] == [trial.key for trial in expected]


def test_dry_run_counts_trials_and_says_what_is_finished(capsys, tmp_path, small):
    assert "4: 2 arms x 2 seeds" in call(capsys, "finetune", "--dry-run").out
    assert not (tmp_path / "runs").exists()
    call(capsys, "finetune")
    assert "4 finished; 0 " in call(capsys, "finetune", "--dry-run").out
    (record,) = call(capsys, "sweep", "--param", "wtn", "--dry-run", "--json").records
    levels = len(AXES["wtn"].levels)
    assert len(record["trials"]) == 2 * levels + 2  # the digital arm has no level
    assert len(record["finished"]) == 2  # the digital ones


# -- finetune and sweep ----------------------------------------------------------------------------


def test_finetune_prints_progress_results_and_the_next_step(capsys, tmp_path, small):
    result = call(capsys, "finetune")
    assert result.code == 0, result.err
    assert re.search(r"\[4/4\] analog TL, .* 1: ", result.out)
    assert re.search(r"digital TL +2 .*10\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +2 .*15\.5 ± 0\.7", result.out)
    assert "analogtl report runs/small" in result.err
    assert "\x1b" not in result.out + result.err
    assert max(map(len, result.out.splitlines())) <= 120
    assert load_experiment("runs/small/experiment.toml").name == "small"
    assert read_json(tmp_path / "runs/small/provenance.json")["argv"] == ["analogtl", "finetune"]
    again = call(capsys, "finetune")
    assert "4 trials finished" in again.out
    assert re.search(r"analog TL +2 .*15\.5 ± 0\.7", again.out)
    assert "4 trials" in call(capsys, "finetune", "--set", "finetune.epochs=7").err  # run anew


def test_quiet_prints_results_only(capsys, small):
    result = call(capsys, "finetune", "--quiet")
    assert result.err == ""
    assert "epoch 3/3" not in result.out
    assert "analog TL" in result.out


def test_json_is_one_object_per_line_with_a_summary(capsys, small):
    result = call(capsys, "finetune", "--json")
    assert result.err == ""
    events = [record["event"] for record in result.records]
    assert events[0] == "started"
    assert events.count("done") == 4
    summary = result.records[-1]
    assert (summary["event"], summary["done"], summary["failed"]) == ("summary", 4, 0)
    assert [row["error_final"] for row in summary["results"]] == [10, 15, 11, 16]


def test_sweep_takes_the_levels_of_the_axis_or_those_given(capsys, fake):
    result = call(capsys, "sweep", "--param", "spv", "--set", "sweep.seeds=0", "--json")
    assert levels(result, "spv") == {"0", "5", "10", "15", "20"}
    result = call(capsys, "sweep", "--param", "wtn", "--values", "0, 7.5", "--json")
    assert levels(result, "wtn") == {"0", "7.5"}
    call_ = ("sweep", "--param", "analog.algorithm", "--values", "agad,ttv2", "--json")
    assert levels(call(capsys, *call_), "analog.algorithm") == {"agad", "ttv2"}


def levels(result, axis):
    trials = [r["trial"] for r in result.records if r["event"] == "started"]
    return {found[1] for t in trials if (found := re.search(rf"{re.escape(axis)}=([^,]+)", t))}


def test_param_takes_the_place_of_the_axes_in_the_file(capsys, tmp_path, fake):
    written(tmp_path, SMALL + "lr = [0.1, 0.2]\n[sweep.axes]\nwtn = [1, 2]\n")
    result = call(capsys, "sweep", "--param", "spv", "--values", "3", "--json")
    assert levels(result, "wtn") == set()
    assert levels(result, "spv") == {"3"}
    # The learning rate as the axis: the file's list of learning rates gives way.
    result = call(capsys, "sweep", "--param", "lr", "--values", "0.3", "--json")
    assert levels(result, "lr") == {"0.3"}
    assert "sweep.lr" in call(capsys, "sweep", "--param", "lr", "--values", "0.3").err


def test_a_sweep_ends_with_a_table_of_levels_at_the_best_rate(capsys, tmp_path, fake):
    written(tmp_path, SMALL + "lr = [0.1, 0.2]\n")
    result = call(capsys, "sweep", "--param", "wtn", "--values", "0,20")
    assert re.search(r"digital TL +– .*10\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +0 .*15\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +20 .*17\.5 ± 0\.7", result.out)
    assert "validation error" in result.out


def test_a_failed_trial_is_told_and_the_exit_code_is_1(capsys, small):
    small.fail = ["arm=analog-tl,lr=0.01,seed=1"]
    result = call(capsys, "finetune")
    assert result.code == 1
    assert re.search("arm=analog-tl,lr=0.01,seed=1: failed: .* step 7", result.err)
    assert "analogtl finetune" in result.err
    assert re.search(r"digital TL +2 ", result.out)  # the rest went on
    assert not small.options["skip_failed"]
    call(capsys, "finetune", "--skip-failed")
    assert small.options["skip_failed"]


def test_ctrl_c_says_what_is_kept_and_exits_with_130(capsys, small):
    small.interrupt = 3
    result = call(capsys, "finetune", "exp.toml", "--set", "finetune.lr=0.02")
    assert result.code == 130
    assert "3 of 4" in result.err
    assert result.err.endswith("analogtl finetune exp.toml --set finetune.lr=0.02\n")
    typed = ["sweep", "--param", "wtn", "--values", "0,5", "--backend", "ray"]
    typed += ["--runs", "else where", "--jobs", "2"]
    assert call(capsys, *typed).err.endswith(f"{shlex.join(['analogtl', *typed])}\n")


def test_the_limits_reach_the_trials(capsys, small):
    argv = ["sweep", "-p", "spv", "--jobs", "3", "--max-hours", "2", "--checkpoint-minutes", "5"]
    argv += ["--backend", "slurm", "--backend-option", "hours=1.5"]
    assert call(capsys, *argv).code == 0
    given, limits = small.options, small.options["limits"]
    assert (given["jobs"], given["backend"], given["hours"]) == (3, "slurm", 1.5)
    assert limits.checkpoint_minutes == 5
    assert limits.deadline is not None


@pytest.mark.parametrize("key", ["save_model", "save_pulses"])
@pytest.mark.parametrize("command", [["finetune"], ["sweep", "--param", "wtn", "--values", "0"]])
def test_what_a_trial_is_to_keep_has_an_option_and_a_key(capsys, small, command, key):
    kept = []
    for option in ([], [f"--{key.replace('_', '-')}"]):
        call(capsys, *command, *option, "--quiet")
        kept.append(getattr(small.experiment.run, key))
    assert kept == [False, True]


def test_a_run_directory_that_cannot_be_written_is_one_line(capsys, tmp_path, small):
    (tmp_path / "runs").write_text("a file")
    result = call(capsys, "finetune", "--quiet")
    assert (result.code, len(result.problems)) == (1, 1)
    assert "runs" in result.err


# -- the commands around it ------------------------------------------------------------------------


def test_init_writes_a_file_that_validates_and_is_not_overwritten(capsys, tmp_path):
    assert call(capsys, "init", "--yes").code == 0
    assert call(capsys, "validate").code == 0
    result = call(capsys, "init", "--yes")
    assert result.code == 2
    assert "--force" in result.err
    call_ = ["init", "--task", "cifar-2", "--device", "EcRamPresetDevice", "--force"]
    assert call(capsys, *call_, "--algorithm", "agad").code == 0
    made = load_experiment("exp.toml")
    assert made.analog.algorithm == "agad"
    assert made.analog.device.preset == "EcRamPresetDevice"
    assert made.finetune.classes == ("bear", "cattle")


def test_init_asks_what_no_option_says(capsys, monkeypatch, tmp_path):
    answers = iter(["digits", "my_own_timm_net", "3", "agda", "agad"])
    monkeypatch.setattr("typer.prompt", lambda *_a, **_k: next(answers))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    result = call(capsys, "init")
    assert result.code == 0, result.err
    assert "'agad'" in result.err  # after the mistake
    made = load_experiment("exp.toml")
    assert made.model.architecture == "my_own_timm_net"
    assert made.analog.device.preset == "EcRamPresetDevice"
    assert made.analog.algorithm == "agad"


def test_validate_checks_every_file_and_reports_all(capsys, tmp_path):
    good = written(tmp_path, SMALL, "good.toml")
    bad = written(tmp_path, 'name = "x"\n[finetune]\nepocs = 3\n', "bad.toml")
    result = call(capsys, "validate", good, bad, "quickstart")
    assert result.code == 2
    assert "good.toml: ok" in result.out
    assert "quickstart: ok" in result.out
    assert "bad.toml:3: finetune.epocs" in result.err
    ok, wrong = call(capsys, "validate", good, bad, "--json").records
    assert (ok["ok"], ok["trials"], wrong["ok"]) == (True, 4, False)


@pytest.mark.parametrize(
    "kind",
    ["presets", "models", "datasets", "classes", "algorithms", "arms", "axes", "experiments"],
)
def test_list(capsys, kind):
    assert kind in call(capsys, "list").out
    table = call(capsys, "list", kind).out
    rows = call(capsys, "list", kind, "--json").records
    names = [next(iter(row.values())) for row in rows]
    assert names
    assert all(name in table for name in names)


def test_explain(capsys):
    assert re.search("keys +Every", call(capsys, "explain").out)
    page = call(capsys, "explain", "keys").out
    assert page.startswith("# Every")
    assert "`finetune.epochs`" in page


def test_runs(capsys, small):
    assert "analogtl finetune" in call(capsys, "runs").out  # there is none
    small.fail = ["analog-tl,lr=0.01,seed=1"]
    call(capsys, "finetune")
    call(capsys, "finetune", "--set", "name=other", "--set", "finetune.lr=0.02")
    assert re.search(r"small +failed +3/4 +1", call(capsys, "runs").out)
    assert [r["name"] for r in call(capsys, "runs", "--json").records] == ["other", "small"]
    shown = call(capsys, "runs", "show", "small")
    assert "arm=digital-tl,lr=0.01,seed=0" in shown.out
    assert "not finite" in shown.err
    (whole,) = call(capsys, "runs", "show", "runs/small", "--json").records
    assert whole["settings"]["finetune.lr"] == 0.01


def test_runs_diff_compares_outcomes_and_settings(capsys, small):
    call(capsys, "sweep", "--param", "wtn", "--values", "0")
    call(capsys, "sweep", "--param", "wtn", "--values", "0,20", "--set", "name=other",
         "--set", "sweep.seeds=0")  # fmt: skip
    differs = call(capsys, "runs", "diff", "small", "other").out
    assert re.search(r"digital TL +10\.5 ± 0\.7 \(2\) +10\.0 \(1\) +-0\.5", differs)
    assert re.search(r"TL +wtn = 0 % +15\.5 ± 0\.7 \(2\) +15\.0 \(1\) +-0\.5", differs)
    assert re.search(r"TL +wtn = 20 % +17\.0 \(1\)", differs)
    assert re.search(r"sweep\.axes\.wtn +\[0\] +\[0, 20\]", differs)
    assert "finetune.epochs" not in differs
    first, *_ = call(capsys, "runs", "diff", "small", "other", "--json").records
    assert first["error_a"][0] - first["error_b"][0] == pytest.approx(0.5)


def test_runs_clean_removes_leftovers_only_when_told(capsys, tmp_path, small):
    call(capsys, "finetune")
    (leftover,) = list((tmp_path / "runs/small/trials").glob("*digital*seed=0"))
    key = read_sealed(leftover / "trial.json")["key"]
    (leftover / "resume" / key).mkdir(parents=True)
    assert "resume" in call(capsys, "runs", "clean", "--dry-run").out
    assert "--yes" in call(capsys, "runs", "clean").err
    assert (leftover / "resume" / key).exists()
    assert call(capsys, "runs", "clean", "--yes").code == 0
    assert not (leftover / "resume" / key).exists()
    assert (leftover / "trial.json").exists()
    assert "resume" not in call(capsys, "runs", "clean").out


def test_report_prints_tables_and_where_the_page_is(capsys, tmp_path, small):
    call(capsys, "sweep", "--param", "wtn", "--values", "0,20")
    result = call(capsys, "report", "runs/small", "--format", "html", "--format", "csv")
    assert result.code == 0, result.err
    assert re.search(r"analog TL +20 ", result.out)
    assert "runs/small/report/report.html" in result.out
    assert (tmp_path / "runs/small/report/report.html").is_file()
    (record,) = call(capsys, "report", "--out", "elsewhere", "--format", "csv", "--json").records
    assert record["out"] == "elsewhere"
    assert all(name.startswith("elsewhere/") for name in record["files"])


def test_a_finding_is_told_with_the_setting_that_it_is_about(capsys, tmp_path):
    axes = {"analog.granularity_per_token": [5, 200]}
    write_run(tmp_path / "runs" / "granularity", axes=axes, elbow=20, slope=0.2, epochs=2)
    result = call(capsys, "report", "runs/granularity", "--format", "csv")
    _, _, said = result.out.partition("The arrays learn")
    said = "".join(said.split())
    assert "granularity_per_token=5" in said
    assert "granularity_per_token=200" in said


def test_show_prints_numbers_and_draws(capsys, tmp_path):
    result = call(capsys, "show", "EcRamPresetDevice", "--out", "device.svg")
    assert result.code == 0, result.err
    assert re.search(r"of states +1000 ", result.out)
    assert "●" in result.out  # symmetry points in the plot
    assert (tmp_path / "device.svg").read_text().startswith("<?xml")
    few = call(
        capsys, "show", "ReRamArrayHfO2PresetDevice", "--json",
        "--set", "analog.nonidealities.n_states=50",
    ).records  # fmt: skip
    assert few[0]["nominal"] == pytest.approx(50)


def test_selftest_compares_the_engines_here(capsys, monkeypatch):
    from analogtl.fastsim import cases, equivalence

    monkeypatch.setattr(cases, "BASIC", ("HfO2",))
    monkeypatch.setattr(equivalence, "REPETITIONS", 60)
    result = call(capsys, "selftest")
    assert result.code == 0, result.out + result.err
    assert "C apparent" in result.out
    row = {"case": "HfO2", "about": "c-TTv2", "quantity": "H", "repetitions": 60, "cells": 9}
    row |= {"mean_difference": 0.9, "spread_ratio": 1.5, "p_value": 1e-9, "passed": False}
    monkeypatch.setattr(equivalence, "check", lambda *_a, **_k: [row, {**row, "passed": True}])
    result = call(capsys, "selftest")
    assert result.code == 1
    assert "DIFFERS" in result.out
    assert "analog.engine=aihwkit" in result.err
    passed = [record["passed"] for record in call(capsys, "selftest", "--json").records]
    assert passed == [False, True]


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_and_numbers_are_never_broken(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [("analog from scratch", "14.7 ± 2.9", "c-TTv2"), ("a" * 50, "6.0 ± 0.7", "[bold]x")]
    output.rows_table(("arm", "final error (%)", "note"), rows, right=(1,), title="errors")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "14.7 ± 2.9" in out
    assert "[bold]x" in out
    output.rows_table(("a",), [])
    assert capsys.readouterr().out == ""


def test_the_least_needed_columns_go_first(capsys, monkeypatch):
    import pandas as pd

    from analogtl.report.tables import Column, Table

    names = ("arm", "final", "best", "wall_s")
    frame = pd.DataFrame([{name: f"{name}-value" for name in names}])
    columns = tuple(Column(name, name, essential=name != "best") for name in names)
    for width, shown in ((80, names), (38, ("arm", "final", "wall_s")), (25, ("arm", "final"))):
        monkeypatch.setenv("COLUMNS", str(width))
        output.show_table(Table("t", "Title", frame, columns))
        out = capsys.readouterr().out
        assert [name for name in names if f"{name}-value" in out] == list(shown)


def test_json_survives_odd_values(capsys):
    output.emit({"a": float("nan"), "b": (1, None), "c": {"d": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1, None], "c": {"d": None}}


# -- the real thing, in this process ---------------------------------------------------------------


def tiny_file(tiny, folder, **changes):
    return written(folder, output.toml(tiny(**changes).as_written()), "tiny.toml")


def test_pretrain_and_convert_on_digits(capsys, tmp_path, tiny):
    file = tiny_file(tiny, tmp_path)
    assert "run: 2 epochs" in call(capsys, "pretrain", file, "--dry-run").out
    result = call(capsys, "pretrain", file)
    assert result.code == 0, result.err
    assert "epoch 2/2" in result.out
    assert re.search(r"error [\d.]+ %, in runs/pretrained/", result.out)
    assert "found trained" in call(capsys, "pretrain", file).out
    assert "reuse runs/pretrained/" in call(capsys, "convert", file, "--dry-run").out
    result = call(capsys, "convert", file)
    assert result.code == 0, result.err
    layers = read_rows(RunDir(tmp_path / "runs", "tiny").path / "convert" / "layers.csv")
    assert all(layer["layer"] in result.out for layer in layers)
    assert re.search(r"[\d.]+ % digital, [\d.]+ %", result.out)
    events = call(capsys, "convert", file, "--json", "--set", "sweep.seeds=3").records
    assert events[-1]["event"] == "converted"
    assert len(events) == len(layers) + 1


def test_dry_run_of_convert_builds_the_network_once(capsys, tmp_path, tiny, monkeypatch):
    built, build = [], preflight.fresh_model
    monkeypatch.setattr(preflight, "fresh_model", lambda *of: built.append(of) or build(*of))
    assert "head" in call(capsys, "convert", tiny_file(tiny, tmp_path), "--dry-run").out
    assert len(built) == 1


def test_a_class_that_a_copy_lacks_is_a_mistake_of_the_experiment(capsys, tmp_path, tiny):
    file = tiny_file(tiny, tmp_path, pretrain={"dataset": "cifar100", "classes": ["bear", "bed"]})
    write_folder(cifar100_files(), tmp_path / "data" / "cifar-100-python")
    result = call(capsys, "pretrain", file, "--quiet", "--set", f"data.root={tmp_path / 'data'}")
    assert (result.code, len(result.problems)) == (2, 1)
    assert "bed" in result.err
