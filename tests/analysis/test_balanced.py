"""Trials that are judged by the balanced error, on classes of different sizes."""

import json

import pandas as pd
import pytest
from report_data import write_run

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.analysis.tuning import read_tuning
from analogtl.report.build import build_report
from analogtl.study.checked import Problems
from analogtl.study.tables import read_table

WTN = {"wtn": [0, 5, 10, 15, 20]}


def unbalanced_run(folder, **options):
    """A run whose balanced error is 50 points minus its error: the other way round."""
    run = write_run(folder, arms=("analog-tl",), seeds=2, epochs=4, **options)
    epochs = read_table(run / "epochs.csv")
    epochs.assign(balanced_error=50 - epochs["error"]).to_csv(run / "epochs.csv", index=False)
    judge_by(run, "balanced-error")
    return run


def judge_by(run, metric):
    file = run / "experiment.resolved.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"report": {"metric": metric}}))


def test_it_chooses_the_learning_rate_and_is_what_is_compared(tmp_path):
    run = unbalanced_run(tmp_path / "run", lrs=(0.01, 0.1), noise=0.1)
    found = read_run(run, "run")
    assert set(found.chosen.rows["lr"]) == {0.1}, "of the higher error"
    rows = found.chosen.rows.set_index("trial")
    epochs = read_table(run / "epochs.csv").query("split == 'test'").groupby("trial")
    for name, row in rows.iterrows():
        errors = epochs.get_group(name)["balanced_error"].tolist()
        assert row["error_judged"] == pytest.approx(sum(errors[-2:]) / 2)
        assert row["error_final"] == pytest.approx(errors[-1])
        assert row["error_transfer"] == pytest.approx(errors[0])
        assert row["error_best"] == pytest.approx(min(errors[1:]))
        assert errors[int(row["epoch_best"])] == pytest.approx(min(errors[1:]))
    traced = analyse(found).traces
    assert traced["error_mean"].iloc[-1] == pytest.approx(rows["error_final"].mean())
    judge_by(run, "error")
    assert set(read_run(run, "run").chosen.rows["lr"]) == {0.01}


def test_tables_and_figures_have_it_under_its_name(tmp_path):
    run = unbalanced_run(tmp_path / "run", axes=WTN)
    report = build_report([run], formats=["csv", "markdown", "svg"])
    outcomes = pd.read_csv(report.out / "outcomes.csv")
    expected = read_run(run, "run").chosen.rows.groupby("wtn")["error_judged"].mean()
    assert outcomes["error_judged_mean"].tolist() == pytest.approx(expected.tolist())
    assert "balanced test" in (report.out / "error-wtn.svg").read_text()
    assert "Balanced test" in (report.out / "report.md").read_text()


@pytest.mark.parametrize("damage", ["of an earlier version", "one cell", "no last epoch"])
def test_tables_without_it_are_judged_by_the_error_and_say_so(tmp_path, damage):
    run = unbalanced_run(tmp_path / "run")
    epochs = read_table(run / "epochs.csv")
    if damage == "of an earlier version":
        epochs = epochs.drop(columns="balanced_error")
    elif damage == "one cell":
        epochs.loc[epochs["split"].eq("validation").idxmax(), "balanced_error"] = None
    else:
        first = epochs["trial"].iloc[0]
        epochs = epochs[~(epochs["epoch"].eq(4) & epochs["trial"].eq(first))]
    epochs.to_csv(run / "epochs.csv", index=False)
    found = read_run(run, "run")
    [note] = [note for note in found.notes if "balanced" in note]
    assert ("2 trials of 2" if damage == "of an earlier version" else "1 trial of 2") in note
    raw = read_table(run / "trials.csv")
    assert found.chosen.rows["error_final"].tolist() == pytest.approx(raw["error_final"].tolist())
    assert analyse(found).error.label == "test error"


def test_after_training_it_is_the_balanced_error_or_nothing(tmp_path):
    run = unbalanced_run(tmp_path / "run")
    aged = pd.DataFrame({"trial": read_table(run / "trials.csv")["trial"], "time": 1.0})
    aged = aged.assign(repeat=0, error=10.0, balanced_error=30.0)
    aged.to_csv(run / "evaluation.csv", index=False)
    assert analyse(read_run(run, "run")).ages["error_mean"].tolist() == [30.0]
    aged.drop(columns="balanced_error").to_csv(run / "evaluation.csv", index=False)
    found = read_run(run, "run")
    assert found.evaluation.empty
    assert any("evaluation.csv" in note for note in found.notes)


@pytest.mark.parametrize(("metric", "known"), [("error", True), ("balanced-error", False)])
def test_how_far_chance_moves_a_balanced_choice_is_not_claimed(tmp_path, metric, known):
    rows = pd.DataFrame({"arm": "analog-tl", "algorithm": "c-ttv2", "finetune.lr": [0.01, 0.02]})
    rows = rows.assign(seed=100, class_set="", rung=1, trial=["a", "b"], done=True, metric=metric)
    rows = rows.assign(error_validation=[10.0, 20.0], n_validation=50, chosen=[True, False])
    rows.to_csv(tmp_path / "tuning.csv", index=False)
    [found] = read_tuning(tmp_path / "tuning.csv", ["finetune.lr"], Problems())["resolution"]
    assert (found == found) is known
