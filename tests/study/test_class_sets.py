"""Several sets of classes in one experiment: a seed and a set are one block."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analogtl import api
from analogtl.analysis.analyse import analyse
from analogtl.analysis.findings import judge_findings
from analogtl.analysis.read import read_run
from analogtl.config.schema import Experiment
from analogtl.report import words
from analogtl.study.trial import Trial, trials_of
from analogtl.vocabulary import Arm

SETS = [["0", "1"], ["2", "3"]]


def experiment(**sweep: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "sets",
            "model": {"architecture": "mlp_digits"},
            "finetune": {"arms": ["digital-scratch", "analog-scratch"], "epochs": 2},
            "sweep": {"seeds": [0, 1, 2], "class_sets": SETS, **sweep},
        }
    )


def test_every_seed_runs_with_every_set_at_every_level() -> None:
    trials = trials_of(experiment(axes={"wtn": [0, 5]}), sweep=True)
    blocks = {(trial.seed, trial.class_set) for trial in trials}
    assert blocks == {(seed, name) for seed in (0, 1, 2) for name in ("0+1", "2+3")}
    assert len(trials) == len(blocks) * (1 + 2)  # the digital arm has no level
    assert len({trial.key for trial in trials}) == len({t.id for t in trials}) == len(trials)
    for trial in trials:
        assert trial.experiment.finetune.classes == tuple(trial.class_set.split("+"))
        assert trial.class_set in trial.id
        assert Trial.from_data(trial.as_data()) == trial
    first = trials[: len(trials) // 3]
    assert {trial.seed for trial in first} == {0}  # all sets of a seed before the next seed
    assert len(trials_of(experiment(), sweep=False)) == len(blocks) * 2


def test_without_sets_a_trial_is_named_and_keyed_as_before() -> None:
    (one, *_) = trials_of(experiment(class_sets=[]), sweep=True)
    assert one.id == "arm=digital-scratch,lr=0.01,seed=0"
    assert "class_set" not in one.settings()


@pytest.mark.slow
def test_arms_are_compared_within_blocks(tmp_path: Path) -> None:
    table = api.run(experiment(), root=tmp_path)
    assert set(table["class_set"]) == {"0+1", "2+3"}
    assert set(table["status"]) == {"done"}
    assert table.groupby("class_set")["data"].nunique().eq(1).all()
    assert table["data"].nunique() == 2
    assert table["settings"].nunique() == 2  # one for each arm
    run = read_run(tmp_path / "sets", "sets")
    assert run.notes == ()  # nothing is left out for its other images
    rows = run.chosen.rows
    assert len(rows) == 12
    by_arm = rows.groupby("arm")["symmetry_point"]
    assert by_arm.count().to_dict() == {Arm.ANALOG_SCRATCH: 6, Arm.DIGITAL_SCRATCH: 0}
    controls = judge_findings([analyse(run)])
    assert [finding.n_blocks for finding in controls] == [0, 0]  # none was run here


def test_blocks_are_what_a_curve_rests_on(tmp_path: Path) -> None:
    from report_data import write_run

    path = write_run(tmp_path / "run", arms=("analog-tl",), axes={"wtn": [0, 10, 20]}, seeds=6)
    for name in ("trials.csv", "epochs.csv"):
        table = pd.read_csv(path / name)
        if name == "trials.csv":
            table["class_set"] = table["seed"].map(lambda seed: ["0+1", "2+3"][seed // 3])
        table["seed"] %= 3  # the seeds of both sets are the same
        table.to_csv(path / name, index=False)
    (one,) = analyse(read_run(path, "run")).curves
    assert (one.point.n_blocks, one.curve.class_sets) == (6, 2)
    assert re.search(r"\b6 blocks .*\b2 class", words.sentences(one))
