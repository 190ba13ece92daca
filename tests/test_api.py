"""What ``import analogtl`` offers: overrides reach an experiment, and tables are a report's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_trials as fake
import pandas as pd
import pytest
from report_data import write_run

import analogtl
from analogtl import api
from analogtl.errors import ExperimentError
from analogtl.study.study import Study


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that are not trained, in this process."""

    def run_trials(study: Study, **_: Any) -> Iterator[Any]:
        for trial in study.trials:
            fake.run_trial(trial, study.run)
        study.run.collect()
        yield from ()

    monkeypatch.setattr("analogtl.api.run_trials", run_trials)


def test_overrides_reach_an_experiment_that_was_made_before(
    untrained: None, tmp_path: Path
) -> None:
    experiment = fake.experiment()
    rows = analogtl.run(experiment, root=tmp_path, sweep=True, overrides=["sweep.seeds=4,5"])
    assert set(rows["seed"]) == {4, 5}
    for nonsense in ("finetune.nothing=1", "no setting at all", "finetune.epochs=many"):
        with pytest.raises(ExperimentError):
            analogtl.run(experiment, root=tmp_path / "other", overrides=[nonsense])
    assert not (tmp_path / "other").exists()


def test_nothing_that_is_given_beside_an_experiment_is_ignored() -> None:
    study = Study.open(fake.experiment(), sweep=True, axes={"spv": [1, 2, 3]})
    assert {tuple(trial.axes) for trial in study.trials} == {("spv",)}
    with pytest.raises(ExperimentError):
        Study.open(fake.experiment(), task="5class")


def test_a_run_gives_its_own_trials_and_no_earlier_ones(untrained: None, tmp_path: Path) -> None:
    analogtl.run(fake.experiment(), root=tmp_path, sweep=True)
    rows = analogtl.run(fake.experiment(), root=tmp_path, sweep=True, overrides=["sweep.seeds=1"])
    assert set(rows["seed"]) == {1}


def test_dir_names_what_there_is() -> None:
    readers = {name for name in api.__all__ if name.startswith("read_")}
    assert set(dir(analogtl)) == {"__version__", "load_experiment", "run", *readers}
    assert all(getattr(analogtl, name) for name in dir(analogtl))


def test_tables_are_those_of_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=("analog-tl",), lrs=(0.01, 0.1), seeds=2, epochs=2)
    everything = analogtl.read_trials(run, everything=True)
    assert set(everything["lr"]) == {0.01, 0.1}
    chosen = analogtl.read_trials(run)
    assert chosen["lr"].tolist() == [0.01, 0.01], "the better one on validation data"
    ids = set(chosen["trial"])
    aged = pd.DataFrame({"trial": everything["trial"], "error": 9.0})
    for column in ("time", "repeat"):
        aged = aged.merge(pd.DataFrame({column: [0, 1]}), how="cross")
    aged.to_csv(run / "evaluation.csv", index=False)
    for read in (analogtl.read_epochs, analogtl.read_layers, analogtl.read_evaluation):
        assert set(read(run)["trial"]) == ids
        assert set(read(run, everything=True)["trial"]) == set(everything["trial"])
    assert len(analogtl.read_evaluation(run)) == 2 * 2 * len(ids)
    assert len(analogtl.read_trials(run, tmp_path)) == 2, "a run that is named twice is read once"


def test_superseded_trials_are_left_out_with_a_warning(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=("analog-tl",), seeds=3, epochs=2)
    table = pd.read_csv(run / "trials.csv").assign(torch=["2.10.0", "2.10.0", "2.9.0"])
    table.to_csv(run / "trials.csv", index=False)
    with pytest.warns(UserWarning, match=r"2\.9\.0"):
        rows = analogtl.read_trials(run)
    assert rows["seed"].tolist() == [0, 1]
    assert len(analogtl.read_trials(run, everything=True)) == 3


def test_a_study_stays_what_and_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, elsewhere = tmp_path / "exp.toml", tmp_path / "elsewhere"
    file.write_text('name = "exp"\nextends = "quickstart"\n')
    study = Study.open("exp.toml", ["finetune.arms=digital-scratch"])
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    file.unlink()
    study.prepare()
    assert "quickstart" in (tmp_path / "runs" / "exp" / "experiment.toml").read_text()
    assert not list(elsewhere.iterdir())
