"""Settings chosen on validation data before a sweep: [sweep.tune]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from told import problems_of

from analogtl import api
from analogtl.analysis.read import read_run
from analogtl.config.load import with_settings
from analogtl.config.schema import Experiment
from analogtl.config.sweep import Tune
from analogtl.errors import RunError
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import Trial, trials_of
from analogtl.study.tuning import Tuning, rungs
from analogtl.training.run_trial import run_trial

LR = {"finetune.lr": [0.01, 0.02, 0.04]}
DRIVE = {"analog.drive": [0.5, 5.0]}
Errors = Callable[[Trial], float | None]


def study(tmp_path: Path, tune: dict[str, Any] | None = None, **more: Any) -> Study:
    swept = {"seeds": [0], **more.pop("sweep", {})}
    swept["tune"] = tune or {"candidates": {**LR, **DRIVE}}
    data = {"name": "tuned", "model": {"architecture": "mlp_digits"}, "sweep": swept, **more}
    data["finetune"] = {"arms": ["analog-scratch"], "epochs": 4, **data.get("finetune", {})}
    experiment = Experiment.model_validate(data)
    return Study(experiment, RunDir(tmp_path, "tuned"), sweep=True)


def tuning(study: Study) -> Tuning:
    assert study.tuning is not None
    return study.tuning


def train(run: RunDir, trials: list[Trial], errors: Errors) -> None:
    """Write what a training of each trial would; those of error None fail."""
    for trial in trials:
        if run.record(trial.id) is not None:
            continue
        row = {**trial_row(trial), "status": "done", "error_final": 50.0, "n_classes": 10}
        error = errors(trial)
        if error is None:
            run.write_trial(trial, {**row, "status": "failed", "message": "diverged"}, [], [])
            continue
        base = {"trial": trial.id, "stage": "finetune", "n_samples": 100}
        rows = [
            {
                **base,
                "epoch": epoch,
                "split": split,
                "error": {"validation": found, "test": 50}[split],
                "balanced_error": 100 - found,
            }
            for epoch, found in enumerate((90.0, 90.0, 90.0, error - 1, error + 1))
            for split in ("validation", "test")
        ]
        run.write_trial(trial, row, rows, [])


def tune_with(study: Study, errors: Errors) -> list[int]:
    """Run the tuning of a study; return how many trials each of its parts has."""
    found = []
    for trials in tuning(study).parts():
        train(tuning(study).run, trials, errors)
        found.append(len(trials))
    return found


def value(trial: Trial, key: str) -> float:
    return float(trial.axes[key])


def best_at(lr: float, drive: float = 5.0) -> Errors:
    def error(trial: Trial) -> float:
        far = abs(value(trial, "finetune.lr") - lr) * 100
        return (
            10 + far + abs(float(trial.axes.get("analog.drive", drive)) - drive) + trial.seed / 99
        )

    return error


def test_the_settings_of_the_lowest_validation_error_are_those_of_the_sweep(tmp_path: Path) -> None:
    one = study(tmp_path, sweep={"axes": {"wtn": [0, 5]}})
    with pytest.raises(RunError):
        _ = one.trials
    assert tune_with(one, best_at(0.02)) == [2 * 6 * 2]  # levels, candidates, seeds
    found = one.trials
    for trial in found:
        assert (trial.lr, trial.experiment.analog.drive) == (0.02, 5.0)
        assert not trial.axes.keys() & {*LR, *DRIVE}
    written = with_settings(one.experiment, {"finetune.lr": 0.02, "analog.drive": 5.0})
    plain = with_settings(written, {"sweep": {"seeds": [0], "axes": {"wtn": [0, 5]}}})
    assert [t.key for t in found] == [t.key for t in trials_of(plain, sweep=True)]
    assert [t.id for t in found] == [t.id for t in trials_of(plain, sweep=True)]


def test_the_error_that_counts_is_that_of_the_judged_epochs(tmp_path: Path) -> None:
    one = study(tmp_path, {"candidates": LR, "seeds": [100]})
    tune_with(one, lambda trial: 20.0)
    assert {row["error_validation"] for row in tuning(one).rows()} == {20.0}  # of the last two
    assert one.trials[0].lr == 0.01  # of equals the first


def test_what_is_judged_by_the_balanced_error_is_chosen_by_it(tmp_path: Path) -> None:
    tune = {"candidates": LR, "seeds": [100]}
    one = study(tmp_path, tune, report={"metric": "balanced-error"})
    tune_with(one, lambda trial: 20.0 - 100 * value(trial, "finetune.lr"))
    assert one.trials[0].lr == 0.01, "of the highest error"
    assert {row["metric"] for row in tuning(one).rows()} == {"balanced-error"}
    assert max(row["error_validation"] for row in tuning(one).rows()) == pytest.approx(84.0)


def test_each_arm_and_each_level_has_a_choice_of_its_own(tmp_path: Path) -> None:
    arms = ["digital-scratch", "analog-tl", "shuffled-gradients", "frozen-array"]
    axes = {"analog.algorithm": ["c-ttv2", "mp"]}
    one = study(tmp_path, finetune={"arms": arms}, sweep={"axes": axes})
    keys = {
        (contest.arm.value, *contest.level.values()): set(contest.candidates[0])
        for contest in tuning(one).contests
    }
    assert keys == {
        ("digital-scratch",): {*LR},
        ("analog-tl", "c-ttv2"): {*LR, *DRIVE},
        ("analog-tl", "mp"): {*LR},  # it has no hidden matrix to drive
        ("frozen-array", "c-ttv2"): {*LR},
        ("frozen-array", "mp"): {*LR},
    }

    def errors(trial: Trial) -> float | None:
        mp = trial.axes.get("analog.algorithm") == "mp"
        return best_at(0.04 if mp else 0.01, 0.5)(trial)

    tune_with(one, errors)
    for trial in one.trials:
        mp = trial.axes.get("analog.algorithm") == "mp"
        assert trial.lr == (0.04 if mp else 0.01)
        driven = trial.arm.trains_arrays and not mp
        assert trial.experiment.analog.drive == (0.5 if driven else "auto")


def test_blocks_are_seeds_and_sets_of_classes_that_are_not_tested(tmp_path: Path) -> None:
    sets = {"seeds": [7, 8], "class_sets": [["0", "1"], ["2", "3"]]}
    one = study(tmp_path, {"candidates": LR, **sets}, sweep={"class_sets": [["4", "5"]]})
    tune_with(one, best_at(0.02))
    rows = pd.DataFrame(tuning(one).rows())
    blocks = {(seed, name) for seed in (7, 8) for name in ("0+1", "2+3")}
    assert {*zip(rows["seed"], rows["class_set"], strict=True)} == blocks
    assert len(rows) == 3 * len(blocks)
    assert {(t.seed, t.class_set) for t in one.trials} == {(0, "4+5")}


@pytest.mark.parametrize(
    ("candidates", "blocks", "budget", "expected"),
    [
        (6, 2, None, [(6, 2)]),
        (1, 2, None, []),
        (8, 8, 24, [(8, 1), (4, 3), (2, 7)]),
        (8, 2, 100, [(8, 2)]),  # no further block tells the rest apart
        (4, 9, 4, [(4, 1)]),
        (3, 9, 12, [(3, 2), (2, 5)]),
        (2, 3, 9, [(2, 3)]),
    ],
)
def test_halving_spends_no_more_than_its_budget(
    candidates: int, blocks: int, budget: int | None, expected: list[tuple[int, int]]
) -> None:
    given = {"method": "halving", "budget": budget} if budget else {"method": "grid"}
    found = rungs(candidates, blocks, Tune.model_construct(**given))
    assert found == expected
    before, spent = 0, 0
    for left, done in found:
        spent += left * (done - before)
        before = done
    assert budget is None or spent <= budget


def test_halving_keeps_the_better_half_and_takes_the_best_of_the_rest(tmp_path: Path) -> None:
    candidates = {"finetune.lr": [0.01, 0.02, 0.03, 0.04]}
    given = {"method": "halving", "budget": 12, "seeds": [100, 101, 102, 103, 104]}
    one = study(tmp_path, {"candidates": candidates, **given})

    def errors(trial: Trial) -> float | None:
        lucky = trial.seed == 100 and trial.lr == 0.02
        return 10.0 if lucky else best_at(0.03)(trial)

    assert tune_with(one, errors) == [4, 10]
    assert tuning(one).trainings == 10
    rows = pd.DataFrame(tuning(one).rows())
    assert rows[rows["rung"] == 2]["finetune.lr"].unique().tolist() == [0.02, 0.03]
    assert rows.groupby("finetune.lr").size().to_dict() == {0.01: 1, 0.02: 4, 0.03: 4, 0.04: 1}
    assert one.trials[0].lr == 0.03  # which one lucky block does not decide


def test_a_candidate_that_diverges_is_not_chosen_and_is_tried_once_more(tmp_path: Path) -> None:
    one = study(tmp_path, {"candidates": LR})

    def errors(trial: Trial) -> float | None:
        return None if trial.lr == 0.04 and trial.seed == 101 else best_at(0.04)(trial)

    assert tune_with(one, errors) == [6]
    assert one.trials[0].lr == 0.02
    again = study(tmp_path, {"candidates": LR})
    assert len(list(tuning(again).parts())) == 1  # the next call runs what failed once more
    assert again.trials[0].lr == 0.02


def test_what_is_left_unfinished_is_not_chosen_from(tmp_path: Path) -> None:
    one = study(tmp_path, {"candidates": LR})
    parts = tuning(one).parts()
    trials = next(parts)
    train(tuning(one).run, trials[:-1], best_at(0.02))
    assert list(parts) == []
    assert [phase.run.name for phase in one.phases()] == ["tuned/tuning"]
    train(tuning(one).run, trials, best_at(0.02))
    assert [phase.run.name for phase in one.phases()] == ["tuned"]
    rows = read_rows(tmp_path / "tuned" / "tuning.csv")
    assert len(rows) == 6
    assert {row["finetune.lr"] for row in rows if row["chosen"] == "true"} == {"0.02"}


def run_here(study: Study) -> None:
    for phase in study.phases():
        with phase.at_work():
            for trial in phase.trials:
                assert run_trial(trial, phase.run)["status"] == "done"
            phase.run.collect()


def test_a_trial_that_was_run_with_what_is_chosen_is_not_run_again(tmp_path: Path) -> None:
    short = {"arms": ["digital-scratch"], "epochs": 2, "samples_per_class": 90, "lr": 0.005}
    tune = {"candidates": {"finetune.momentum": [0.0, 0.9]}, "seeds": [100]}
    tuned = study(tmp_path, tune, finetune=short, sweep={"seeds": [0, 1]})
    data = tuned.experiment.as_written() | {"sweep": {"seeds": [0]}}
    plain = Experiment.model_validate(data | {"finetune": {**short, "momentum": 0.9}})
    run_here(Study(plain, tuned.run))
    (record,) = tuned.run.path.glob("trials/*/trial.json")
    before = record.stat().st_mtime_ns
    run_here(tuned)
    assert record.stat().st_mtime_ns == before
    rows = api.read_trials(tuned.run.path, everything=True)
    assert rows["tuned"].tolist() == ["finetune.momentum = 0.9"] * 2
    assert (tuned.run.path / "tuning.csv").is_file()
    read = read_run(tuned.run.path, "tuned")
    assert len(read.chosen.rows) == 2  # however each came to its settings
    assert read.notes == ()


def test_trials_of_settings_that_were_not_chosen_do_not_count(tmp_path: Path) -> None:
    one = study(tmp_path, {"candidates": LR})
    tune_with(one, best_at(0.02))
    plain = Experiment.model_validate(one.experiment.as_written() | {"sweep": {"seeds": [0]}})
    with one.at_work():
        train(one.run, trials_of(plain, sweep=False), lambda trial: 1.0)
        train(one.run, one.trials, lambda trial: 20.0)
        one.run.collect()
    read = read_run(one.run.path, "tuned")
    assert read.chosen.rows["lr"].tolist() == [0.02]
    assert len(read.notes) == 1


def test_too_few_validation_images_to_choose_by_are_refused(tmp_path: Path) -> None:
    few = {"samples_per_class": 10}  # one validation image of each class
    one = study(tmp_path, {"candidates": LR, "seeds": [100]}, finetune=few)
    (problem,) = problems_of(next(one.phases()).data)
    assert "10 points" in problem
    more = study(tmp_path, {"candidates": LR, "seeds": [*range(100, 105)]}, finetune=few)
    assert next(more.phases()).data()
