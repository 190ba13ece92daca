"""The commands as a user meets them: what they print, their exit codes, wrong input."""

import json
import os
import re
import shlex
import sys
import tomllib

import pytest
from command_line import FakeTrials, call, written
from fake_cifar import cifar100_files, write_folder
from report_data import write_run

from analogtl.config.load import load_experiment
from analogtl.files import read_json
from analogtl.scheduling import sweep as executor
from analogtl.study import columns as records
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.vocabulary import AXES

SMALL = """
name = "small"
[finetune]
arms = ["digital-tl", "analog-tl"]
[sweep]
seeds = [0, 1]
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """An empty folder, as wide as a file or pipe: no exp.toml and no runs of anybody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("ANALOGTL_DEBUG", raising=False)


@pytest.fixture
def fake(monkeypatch):
    trials = FakeTrials()
    monkeypatch.setattr(executor, "run_trials", trials)
    return trials


# -- the command line itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "suggestion"),
    [
        (["fintune"], "'finetune'"),
        (["sweep", "--parm", "spv"], "--param"),
        (["finetune", "--quit"], "--quiet"),
        (["runs", "shw"], "'show'"),
        (["show", "ReRamArrayHfO2PresetDevise"], "ReRamArrayHfO2PresetDevice"),
        (["show", "hfo2"], "ReRamArrayHfO2PresetDevice"),
        (["finetune", "quikstart"], "'quickstart'"),
        (["sweep", "--param", "spvv", "--values", "1"], "'spv'"),
        (["finetune", "--set", "finetune.epohcs=3"], "'epochs'"),
        (["finetune", "--set", "analog.device.preset=ReRamArrayHfO3PresetDevice"], "HfO2"),
        (["finetune", "--set", "finetune.dataset=cifar11"], "'cifar1"),
        (["finetune", "--set", "analog.algorithm=agda"], "'agad'"),
        (["list", "axis"], "axes"),
        (["explain", "keyz"], "keys"),
        (["sweep", "--backend", "rya"], "ray"),
        (["finetune", "--failed", "ony"], "only"),
        (["init", "--device", "EcRamPresetDevise", "--yes"], "EcRamPresetDevice"),
    ],
)
def test_typos_get_a_suggestion_in_one_line(capsys, argv, suggestion):
    result = call(capsys, *argv)
    assert result.code == 2
    problems = [line for line in result.problems if "using the bundled" not in line]
    assert len(problems) == 1, result.err
    assert re.search(rf"[Dd]id you mean .*{re.escape(suggestion)}", problems[0])
    assert result.out == ""


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["finetune", "a", "b"], "unexpected extra argument"),
        (["sweep", "--jobs", "0"], "--jobs"),
        (["sweep", "--jobs", "many"], "--jobs"),
        (["sweep", "--max-hours", "-1"], "--max-hours"),
        (["sweep", "--values", "1,2"], "levels of what?"),
        (["sweep", "--param", "finetune.batch_size"], "no default levels"),
        (["sweep", "--param", "spv", "--param", "spv"], "more than once"),
        (["sweep", "--param", "spv", "--param", "wtn", "--values", "1"], "one for each"),
        (["sweep", "--param", "spv", "--values", "low,high"], "expected numbers"),
        (["sweep", "--param", "spv", "--set", "analog.device.preset=EcRamPresetDevice"], "HfO2"),
        (["sweep", "--backend-option", "address"], "NAME=VALUE"),
        (["finetune", "nothing.toml"], "no such file"),
        (["finetune", "."], "found a folder"),
        (["finetune", "--set", "epochs"], "key=value"),
        (["show"], "PRESET"),
        (["show", "EcRamPresetDevice", "--out", "x.doc"], ".pdf"),
        (["report"], "no runs there"),
        (["report", "nowhere"], "nowhere"),
        (["runs", "show", "nothing"], "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, argv, part):
    result = call(capsys, *argv)
    assert result.code == 2
    problems = [line for line in result.problems if "using the bundled" not in line]
    assert len(problems) == 1, result.err
    assert part in problems[0]
    assert "Traceback" not in result.err


def test_all_problems_of_a_file_come_at_once_with_their_lines(capsys, tmp_path):
    written(tmp_path, 'name = "x"\nfintune = 1\n[finetune]\nepochs = -1\narms = ["analog-t1"]\n')
    result = call(capsys, "finetune")
    assert result.code == 2
    assert [line for line in result.problems if "exp.toml:2: fintune" in line]
    assert [line for line in result.problems if "exp.toml:4: finetune.epochs" in line]
    assert [line for line in result.problems if "exp.toml:5: finetune.arms" in line]


def test_a_bug_is_a_line_and_the_way_to_its_traceback(capsys, monkeypatch):
    def broken(*_args, **_kwargs):
        raise KeyError("what\nnow")

    monkeypatch.setattr("analogtl.config.load.load_experiment", broken)
    result = call(capsys, "validate", "quickstart")
    assert result.code == 1
    assert len(result.problems) == 1
    assert "KeyError" in result.err
    assert "ANALOGTL_DEBUG=1" in result.err
    monkeypatch.setenv("ANALOGTL_DEBUG", "1")
    assert "Traceback" in call(capsys, "validate", "quickstart").err


@pytest.mark.parametrize(
    "error",
    [
        ImportError("rpu_base.so: undefined symbol: _ZN3c1017SymbolicShape"),
        RuntimeError("Invalid weights dimensions: expected [4,8]"),
        ModuleNotFoundError("No module named 'aihwkit'"),
    ],
)
def test_a_mismatch_of_torch_and_aihwkit_points_to_the_doctor(capsys, monkeypatch, error):
    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("analogtl.config.load.load_experiment", broken)
    result = call(capsys, "validate", "quickstart")
    assert result.code == 1
    assert len(result.problems) == 1
    assert "analogtl doctor" in result.err


def test_without_a_command_the_help_is_shown(capsys):
    result = call(capsys)
    assert result.code == 0
    assert "finetune" in result.out
    assert "analogtl sweep --param spv" in result.out


def test_version(capsys):
    import analogtl

    assert call(capsys, "--version").out.strip() == f"analogtl {analogtl.__version__}"


# -- which experiment ------------------------------------------------------------------------------


def test_without_exp_it_takes_exp_toml_else_the_quickstart_and_says_which(capsys, tmp_path):
    result = call(capsys, "finetune", "--dry-run")
    assert "bundled quickstart" in result.err
    assert 'name = "quickstart"' in result.out
    written(tmp_path, SMALL)
    result = call(capsys, "finetune", "--dry-run")
    assert "exp.toml" in result.err
    assert 'name = "small"' in result.out
    assert call(capsys, "finetune", "--dry-run", "--quiet").err == ""


def test_dry_run_prints_an_experiment_that_means_the_same(capsys, tmp_path):
    for settings in (
        [],
        ["--set", "analog.compound.auto_granularity=10000"],
        ["--set", "analog.algorithm=sgd", "--set", "finetune.classes=[1, 2]"],
        ["--set", "model.kwargs={ depths = [1, 1] }", "--set", 'description=a "b" \\ [c]'],
    ):
        result = call(capsys, "finetune", "quickstart", "--dry-run", *settings)
        assert result.code == 0, result.err
        again = written(tmp_path, result.out, "again.toml")
        overrides = [one for one in settings if one != "--set"]
        expected = load_experiment("quickstart", overrides).resolved()
        assert load_experiment(again).resolved() == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--param", "spv", "--values", "1,,2"), "--values 1,,2: a level is missing"),
        (("--param", "spv", "--backend-option", "a=b"), "the backend local has none"),
        (("--param", "spv", "--values", "nan"), "--param spv: sweep.axes.spv: expected numbers"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(capsys, words, said):
    result = call(capsys, "sweep", "quickstart", *words)
    assert result.code == 2
    assert said in result.err


@pytest.mark.parametrize("name", ["desk/algorithms", "desk/weight_programming"])
def test_dry_run_of_a_sweep_over_algorithms_can_be_run_itself(capsys, tmp_path, name):
    again = written(tmp_path, call(capsys, "sweep", name, "--dry-run").out, "again.toml")
    trials, expected = (trials_of(load_experiment(e), sweep=True) for e in (again, name))
    assert [trial.key for trial in trials] == [trial.key for trial in expected]


def test_dry_run_counts_trials_and_says_what_is_finished(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    assert "4: 2 arms x 2 seeds" in call(capsys, "finetune", "--dry-run").out
    assert not (tmp_path / "runs").exists()
    call(capsys, "finetune")
    assert "4 finished, 0 to run" in call(capsys, "finetune", "--dry-run").out
    (record,) = call(capsys, "sweep", "--param", "wtn", "--dry-run", "--json").records
    levels = len(AXES["wtn"].levels)
    assert len(record["trials"]) == 2 * levels + 2  # the digital arm has no level
    assert len(record["finished"]) == 2  # the digital ones


# -- finetune and sweep ----------------------------------------------------------------------------


def test_finetune_prints_progress_results_and_the_next_step(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    result = call(capsys, "finetune")
    assert result.code == 0, result.err
    assert "[4/4] analog TL, seed 1: done, test error 16.0 %" in result.out
    assert re.search(r"digital TL +2 .*10\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +2 .*15\.5 ± 0\.7", result.out)
    assert "next: analogtl report runs/small" in result.err
    assert "\x1b" not in result.out + result.err
    assert max(map(len, result.out.splitlines())) <= 120
    assert load_experiment("runs/small/experiment.toml").name == "small"
    assert read_json(tmp_path / "runs/small/provenance.json")["argv"] == sys.argv


def test_finished_trials_are_told_and_not_run_again(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    call(capsys, "finetune")
    result = call(capsys, "finetune")
    assert "done, test error" not in result.out
    assert re.search(r"analog TL +2 .*15\.5 ± 0\.7", result.out)


def test_quiet_prints_results_only(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    result = call(capsys, "finetune", "--quiet")
    assert result.err == ""
    assert "fine-tuning" not in result.out
    assert "analog TL" in result.out


def test_json_is_one_object_per_line_with_a_summary(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    result = call(capsys, "finetune", "--json")
    assert result.err == ""
    events = [record["event"] for record in result.records]
    assert events[0] == "started"
    assert events.count("done") == 4
    assert result.records[-1]["event"] == "summary"
    assert [row["error_final"] for row in result.records[-1]["results"]] == [10, 15, 11, 16]


def test_sweep_takes_the_levels_of_the_axis_or_those_given(capsys, fake):
    result = call(capsys, "sweep", "--param", "spv", "--set", "sweep.seeds=0", "--json")
    assert result.code == 0, result.err
    assert levels(result, "spv") == {0, 5, 10, 15, 20}
    result = call(capsys, "sweep", "--param", "wtn", "--values", "0, 7.5", "--json")
    assert levels(result, "wtn") == {0, 7.5}
    call_ = ("sweep", "--param", "analog.algorithm", "--values", "agad,ttv2", "--json")
    assert levels(call(capsys, *call_), "analog.algorithm") == {"agad", "ttv2"}


def levels(result, axis):
    trials = [r["trial"] for r in result.records if r["event"] == "started"]
    found = {re.search(rf"{re.escape(axis)}=([^,]+)", trial) for trial in trials}
    return {parsed(match[1]) for match in found if match}


def parsed(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_param_takes_the_place_of_the_axes_in_the_file(capsys, tmp_path, fake):
    written(tmp_path, SMALL + "lr = [0.1, 0.2]\n[sweep.axes]\nwtn = [1, 2]\n")
    result = call(capsys, "sweep", "--param", "spv", "--values", "3", "--json")
    trials = [r["trial"] for r in result.records if r["event"] == "started"]
    assert all("wtn" not in trial for trial in trials)
    assert any("spv=3,lr=0.2" in trial for trial in trials)
    # The learning rate as the axis: the file's list of learning rates gives way.
    result = call(capsys, "sweep", "--param", "lr", "--values", "0.3", "--json")
    assert result.code == 0
    assert all("lr=0.3" in r["trial"] for r in result.records if r["event"] == "started")
    told = call(capsys, "sweep", "--param", "lr", "--values", "0.3")
    assert "sweep.lr" in told.err


def test_a_sweep_ends_with_a_table_of_levels(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    result = call(capsys, "sweep", "--param", "wtn", "--values", "0,20")
    assert re.search(r"digital TL +– +2 .*10\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +0 +2 .*15\.5 ± 0\.7", result.out)
    assert re.search(r"analog TL +20 +2 .*17\.5 ± 0\.7", result.out)


def test_the_best_learning_rate_is_kept_and_the_note_says_so(capsys, tmp_path, fake):
    written(tmp_path, SMALL + "lr = [0.1, 0.2]\n")
    result = call(capsys, "sweep")
    assert "lowest validation error is kept" in result.out


def test_a_failed_trial_is_told_and_the_exit_code_is_1(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    fake.fail = ["arm=analog-tl,lr=0.01,seed=1"]
    result = call(capsys, "finetune")
    assert result.code == 1
    assert "arm=analog-tl,lr=0.01,seed=1: failed: loss is not finite at step 7" in result.err
    assert "retry what failed with: analogtl finetune --failed only" in result.err
    assert re.search(r"digital TL +2 ", result.out)  # the rest went on
    call(capsys, "finetune", "--failed", "only")
    assert fake.options["failed"] == "only"


def test_ctrl_c_says_what_is_kept_and_exits_with_130(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    fake.interrupt = 3
    result = call(capsys, "finetune", "exp.toml", "--set", "finetune.lr=0.02")
    assert result.code == 130
    assert "3 of 4 trials are done and kept" in result.err
    assert "go on with: analogtl finetune exp.toml --set finetune.lr=0.02" in result.err
    typed = ["sweep", "--param", "wtn", "--values", "0,5", "--runs", "else where", "--jobs", "2"]
    typed = [typed[0], *typed[1:5], "--backend", "ray", *typed[5:]]
    result = call(capsys, *typed)
    assert f"go on with: {shlex.join(['analogtl', *typed])}" in result.err
    fake.interrupt = None
    assert call(capsys, "finetune", "exp.toml", "--set", "finetune.lr=0.02").code == 0


def test_the_limits_reach_the_trials(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    argv = ["sweep", "-p", "spv", "--jobs", "3", "--max-hours", "2", "--trial-timeout", "1"]
    argv += ["--checkpoint-minutes", "5", "--stop-on-divergence", "--backend", "slurm"]
    assert call(capsys, *argv, "--backend-option", "hours=1.5").code == 0
    options = fake.options["limits"]
    assert (fake.options["jobs"], fake.options["backend"], fake.options["hours"]) == (
        3,
        "slurm",
        1.5,
    )
    assert options.max_trial_hours == 1
    assert options.checkpoint_minutes == 5
    assert options.stop_on_divergence
    assert options.deadline is not None


def test_other_settings_in_the_same_run_are_announced(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    call(capsys, "finetune")
    result = call(capsys, "finetune", "--set", "finetune.epochs=7")
    assert "4 trials finished with other settings" in result.err


def test_a_run_directory_that_cannot_be_written_is_one_line(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    (tmp_path / "runs").write_text("a file")
    result = call(capsys, "finetune", "--quiet")
    assert result.code == 1
    assert len(result.problems) == 1
    assert "runs" in result.err


def test_names_with_control_characters_cannot_touch_the_terminal(capsys):
    result = call(capsys, "finetune", "\x1b[2Jevil.toml")
    assert result.code == 2
    assert "\x1b" not in result.err


# -- the commands around it ------------------------------------------------------------------------


def test_init_writes_a_file_that_validates_and_is_not_overwritten(capsys, tmp_path):
    assert call(capsys, "init", "--yes").code == 0
    assert call(capsys, "validate").code == 0
    result = call(capsys, "init", "--yes")
    assert result.code == 2
    assert "--force" in result.err
    before = (tmp_path / "exp.toml").read_text()
    assert call(capsys, "init", "--task", "cifar-2", "--device", "EcRamPresetDevice", "--force",
                "--algorithm", "agad").code == 0  # fmt: skip
    assert (tmp_path / "exp.toml").read_text() != before
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
    assert "agda: none of these; did you mean agad?" in result.err
    made = load_experiment("exp.toml")
    assert made.model.architecture == "my_own_timm_net"
    assert made.analog.device.preset == "EcRamPresetDevice"
    assert made.analog.algorithm == "agad"


def test_validate_checks_every_file_and_reports_all(capsys, tmp_path):
    good = written(tmp_path, SMALL, "good.toml")
    bad = written(tmp_path, 'name = "x"\n[finetune]\nepocs = 3\n', "bad.toml")
    result = call(capsys, "validate", good, bad, "quickstart")
    assert result.code == 2
    assert "good.toml: ok: small, 4 trials" in result.out
    assert "quickstart: ok" in result.out
    assert "bad.toml:3: finetune.epocs: unknown key; did you mean 'epochs'?" in result.err
    ok, wrong = call(capsys, "validate", good, bad, "--json").records
    assert (ok["ok"], ok["trials"], wrong["ok"]) == (True, 4, False)


@pytest.mark.parametrize(
    "kind",
    ["presets", "models", "datasets", "classes", "algorithms", "arms", "axes", "experiments"],
)
def test_list(capsys, kind):
    assert kind in call(capsys, "list").out
    table = call(capsys, "list", kind)
    rows = call(capsys, "list", kind, "--json").records
    assert table.code == 0
    names = [next(iter(row.values())) for row in rows]
    assert names
    assert all(name in table.out for name in names)


def test_explain(capsys):
    topics = call(capsys, "explain").out
    assert "analogtl explain keys" in topics
    page = call(capsys, "explain", "keys").out
    assert page.startswith("# Every key")
    assert "`finetune.epochs`" in page


def test_runs(capsys, tmp_path, fake):
    assert "no runs in runs/" in call(capsys, "runs").out
    written(tmp_path, SMALL)
    fake.fail = ["analog-tl,lr=0.01,seed=1"]
    call(capsys, "finetune")
    call(capsys, "finetune", "--set", "name=other", "--set", "finetune.lr=0.02")
    listed = call(capsys, "runs").out
    assert re.search(r"small +failed +3/4 +1", listed)
    assert [r["name"] for r in call(capsys, "runs", "--json").records] == ["other", "small"]
    shown = call(capsys, "runs", "show", "small")
    assert "arm=digital-tl,lr=0.01,seed=0" in shown.out
    assert "loss is not finite at step 7" in shown.err
    (whole,) = call(capsys, "runs", "show", "runs/small", "--json").records
    assert whole["settings"]["finetune.lr"] == 0.01
    differs = call(capsys, "runs", "diff", "small", "other")
    assert re.search(r"finetune\.lr +0\.01 +0\.02", differs.out)
    assert "finetune.epochs" not in differs.out


def test_runs_clean_removes_leftovers_only_when_told(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    call(capsys, "finetune")
    (leftover,) = list((tmp_path / "runs/small/trials").glob("*digital*seed=0"))
    (leftover / "resume").mkdir()
    (leftover / "resume" / "state.json").write_text("{}")
    assert "resume" in call(capsys, "runs", "clean", "--dry-run").out
    assert "--yes does it" in call(capsys, "runs", "clean").err
    assert (leftover / "resume").exists()
    assert call(capsys, "runs", "clean", "--yes").code == 0
    assert not (leftover / "resume").exists()
    assert (leftover / "trial.json").exists()
    assert "nothing to remove" in call(capsys, "runs", "clean").out


def test_report_prints_tables_and_where_the_page_is(capsys, tmp_path, fake):
    written(tmp_path, SMALL)
    call(capsys, "sweep", "--param", "wtn", "--values", "0,20")
    result = call(capsys, "report", "runs/small", "--format", "html", "--format", "csv")
    assert result.code == 0, result.err
    assert re.search(r"analog TL +20 ", result.out)
    assert "runs/small/report/report.html" in result.out
    assert (tmp_path / "runs/small/report/report.html").is_file()
    result = call(capsys, "report", "--out", "elsewhere", "--format", "csv", "--json")
    (record,) = result.records
    assert record["out"] == "elsewhere"
    assert all(name.startswith("elsewhere/") for name in record["files"])
    result = call(capsys, "report", "--format", "htlm")
    assert result.code == 2
    assert "html" in result.err


def test_a_finding_is_told_with_the_setting_that_it_is_about(capsys, tmp_path):
    axes = {"analog.granularity_per_token": [5, 200]}
    write_run(tmp_path / "runs" / "granularity", axes=axes, elbow=20, slope=0.2, epochs=2)
    result = call(capsys, "report", "runs/granularity", "--format", "csv")
    _, _, said = result.out.partition("Published findings")
    said = "".join(said.split())
    assert "granularity_per_token=5" in said
    assert "granularity_per_token=200" in said


def test_show_prints_numbers_and_draws(capsys, tmp_path):
    result = call(capsys, "show", "EcRamPresetDevice", "--out", "device.svg")
    assert result.code == 0, result.err
    assert re.search(r"number of states +1000 ", result.out)
    assert "symmetry point" in result.out
    assert (tmp_path / "device.svg").read_text().startswith("<?xml")
    facts = call(capsys, "show", "EcRamPresetDevice", "--json").records
    assert {"number of states", "write noise"} & {fact["name"] for fact in facts}
    few = call(
        capsys, "show", "ReRamArrayHfO2PresetDevice", "--json",
        "--set", "analog.nonidealities.n_states=50",
    ).records  # fmt: skip
    assert few[0]["nominal"] == pytest.approx(50)


def test_selftest_compares_the_engines_here(capsys, monkeypatch):
    from analogtl.fastsim import cases

    monkeypatch.setattr(cases, "BASIC", ("HfO2",))
    result = call(capsys, "selftest", "--repetitions", "60")
    assert result.code == 0, result.out + result.err
    assert "the engines agree in all" in result.out
    assert "C apparent" in result.out
    assert call(capsys, "selftest", "--repetitions", "5").code == 2


def test_selftest_that_finds_a_difference_says_what_to_do(capsys, monkeypatch):
    from analogtl.fastsim import equivalence

    row = {"case": "HfO2", "about": "c-TTv2", "quantity": "H", "repetitions": 60, "cells": 9}
    row |= {"mean_difference": 0.9, "spread_ratio": 1.5, "p_value": 1e-9, "passed": False}
    monkeypatch.setattr(equivalence, "check", lambda *_a, **_k: [row, {**row, "passed": True}])
    result = call(capsys, "selftest")
    assert result.code == 1
    assert "DIFFERS" in result.out
    assert "analog.engine=aihwkit" in result.err
    assert [record["passed"] for record in call(capsys, "selftest", "--json").records] == [
        False,
        True,
    ]


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_and_numbers_are_never_broken(capsys, monkeypatch, width):
    from analogtl.cli import output

    monkeypatch.setenv("COLUMNS", str(width))
    rows = [("analog from scratch", "14.7 ± 2.9", "c-TTv2"), ("a" * 50, "6.0 ± 0.7", "[bold]x")]
    output.rows_table(("arm", "final error (%)", "note"), rows, right=(1,), title="errors")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "14.7 ± 2.9" in out
    assert "[bold]x" in out
    output.rows_table(("a",), [])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("natural", "least", "room", "widths"),
    [
        ([5, 10], [5, 4], 20, [5, 10]),  # all fit
        ([5, 10], [5, 4], 12, [5, 7]),  # text gives way
        ([5, 30, 30], [5, 10, 10], 45, [5, 20, 20]),  # fairly
        ([9, 9], [9, 9], 10, [5, 5]),  # nothing fits
    ],
)
def test_widths_of_columns(natural, least, room, widths):
    from analogtl.cli.output import _fit

    assert _fit(natural, least, room) == widths


def test_the_least_needed_columns_go_first(capsys, monkeypatch):
    import pandas as pd

    from analogtl.cli import output
    from analogtl.report.tables import Column, Table

    names = ("arm", "final", "best", "time")
    frame = pd.DataFrame([{name: f"{name}-value" for name in names}])
    columns = tuple(Column(name, name, essential=name != "best") for name in names)
    for width, shown in ((80, names), (38, ("arm", "final", "time")), (25, ("arm", "final"))):
        monkeypatch.setenv("COLUMNS", str(width))
        output.show_table(Table("t", "Title", frame, columns), drop=["time"])
        out = capsys.readouterr().out
        assert [name for name in names if f"{name}-value" in out] == list(shown)


# -- the real thing, in this process ---------------------------------------------------------------


def tiny_file(tiny, folder, **changes):
    from analogtl.cli import toml_text

    return written(folder, toml_text.text(tiny(**changes).as_written()), "tiny.toml")


def test_pretrain_and_convert_on_digits(capsys, tmp_path, tiny):
    file = tiny_file(tiny, tmp_path)
    tomllib.loads(file.read_text())
    assert "run: 2 epochs" in call(capsys, "pretrain", file, "--dry-run").out
    result = call(capsys, "pretrain", file)
    assert result.code == 0, result.err
    assert "pretraining epoch 2/2" in result.out
    assert re.search(r"trained: test error [\d.]+ %, in runs/pretrained/", result.out)
    assert "found trained" in call(capsys, "pretrain", file).out
    assert "reuse runs/pretrained/" in call(capsys, "convert", file, "--dry-run").out
    result = call(capsys, "convert", file)
    assert result.code == 0, result.err
    layers = records.read_rows(RunDir(tmp_path / "runs", "tiny").path / "convert" / "layers.csv")
    assert all(layer["layer"] in result.out for layer in layers)
    assert re.search(r"[\d.]+ % digital, [\d.]+ % on the arrays", result.out)
    events = call(capsys, "convert", file, "--json", "--seed", "3").records
    assert events[-1]["event"] == "converted"
    assert len(events) == len(layers) + 1


def test_threads_are_one_unless_asked_for(monkeypatch):
    from analogtl.cli.common import THREAD_VARIABLES, use_threads

    monkeypatch.setattr(os, "environ", environment := {})
    use_threads(None)
    assert environment == dict.fromkeys(THREAD_VARIABLES, "1")
    use_threads(4)
    assert environment == dict.fromkeys(THREAD_VARIABLES, "4")
    environment.clear()
    environment["OMP_NUM_THREADS"] = "3"
    use_threads(None)
    assert environment == dict.fromkeys(THREAD_VARIABLES, "3")


def test_a_class_that_a_copy_lacks_is_a_mistake_of_the_experiment(capsys, tmp_path, tiny):
    file = tiny_file(tiny, tmp_path, pretrain={"dataset": "cifar100", "classes": ["bear", "bed"]})
    write_folder(cifar100_files(), tmp_path / "data" / "cifar-100-python")
    result = call(capsys, "pretrain", file, "--quiet", "--set", f"data.root={tmp_path / 'data'}")
    assert result.code == 2
    assert len(result.problems) == 1
    assert "bed is not in this copy" in result.err


def test_json_survives_odd_values(capsys):
    from analogtl.cli import output

    output.emit({"a": float("nan"), "b": (1, None), "c": {"d": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1, None], "c": {"d": None}}
