"""Weight programming: the task itself, its trials, and the published numbers as a check."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from analogtl.config.arrays import Analog, Programming
from analogtl.config.load import load_experiment, with_settings
from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError
from analogtl.scheduling.plan import plan
from analogtl.study.columns import EPOCH_COLUMNS, TRIAL_COLUMNS
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_table
from analogtl.study.trial import Trial, trials_of
from analogtl.training import programming, stages
from analogtl.training.programming import WeightProgrammingRun, input_vectors, target_matrix
from analogtl.training.run_trial import run_trial

QUICK = Programming(size=8, vectors=200, epochs=3, batch_size=10, lr=0.1)


def experiment(**more: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "programming",
            "kind": "weight-programming",
            "programming": QUICK.model_dump(),
            **more,
        }
    )


# -- the task --------------------------------------------------------------------------------------


def test_the_target_is_the_same_for_every_trial_and_clipped():
    section = Programming(size=200, target_std=0.4, target_max=0.8)
    target = target_matrix(section)
    assert target.equal(target_matrix(section.model_copy(update={"lr": 1.0, "epochs": 7})))
    assert not target.equal(target_matrix(section.model_copy(update={"seed": 1})))
    assert float(target.abs().max()) == pytest.approx(0.8)
    inside = target[target.abs() < 0.8]
    # Clipping at two sd leaves 95.4 % of 40,000 weights; one standard error is 0.1 %.
    assert len(inside) / target.numel() == pytest.approx(0.954, abs=0.005)


@pytest.mark.parametrize(("inputs", "spread"), [("normal", 1.0), ("uniform", 3**-0.5)])
def test_the_inputs_follow_their_distribution(inputs, spread):
    section = Programming(size=100, inputs=inputs)
    vectors = input_vectors(section, 1000, "epoch 1")
    assert vectors.shape == (1000, 100)
    assert float(vectors.std()) == pytest.approx(spread, rel=0.02)  # 1e5 numbers: 8 standard errors
    assert not vectors.equal(input_vectors(section, 1000, "epoch 2"))


def test_it_starts_at_zero_and_the_error_is_that_of_the_weights_on_the_array():
    program = WeightProgrammingRun(QUICK, Analog(), lr=0.1, seed=1)
    measures = list(program.run())
    assert [measure.epoch for measure in measures] == [0, 1, 2, 3]
    target = target_matrix(QUICK)
    assert measures[0].error == pytest.approx(100 * float((target**2).mean()) ** 0.5, rel=1e-5)
    assert measures[0].output_error == pytest.approx(100.0)
    assert measures[0].loss is None
    assert measures[0].weights_changed == 0.0
    off = program.model.array.get_weights()[0] - target
    assert measures[-1].error == pytest.approx(100 * float((off**2).mean()) ** 0.5, rel=1e-5)
    fresh = input_vectors(QUICK, 500, "validation")
    wrong, right = fresh @ off.T, fresh @ target.T
    assert measures[-1].output_error == pytest.approx(100 * float(wrong.norm() / right.norm()))
    assert measures[-1].n_samples == 200
    assert measures[-1].weights_changed > 0


def test_a_seed_draws_the_devices_and_nothing_else():
    devices = [
        WeightProgrammingRun(
            QUICK, Analog(engine="aihwkit"), lr=0.1, seed=seed
        ).model.array.analog_module
        for seed in (1, 1, 2)
    ]
    bounds = [tile.get_hidden_parameters()["max_bound_0"] for tile in devices]
    assert bounds[0].equal(bounds[1])
    assert not bounds[0].equal(bounds[2])


# -- the published numbers -------------------------------------------------------------------------
# Rasch et al. 2024, Fig. 4: at 20 states sgd is above 25 %, TTv2 near 5 %; c-TTv2 tolerates a
# reference variation up to sigma_r = 0.5, AGAD any. One device seed here; the bounds are wide.


def programmed(algorithm: str, sigma_r: float, epochs: int, **more: Any) -> float:
    """Programming error in percent at 20 states, as the shipped experiment has it."""
    setup = with_settings(
        load_experiment("desk/weight_programming"),
        {
            "analog.algorithm": algorithm,
            "analog.nonidealities.n_states": 20,
            "analog.nonidealities.symmetry_point_variability": 50 * sigma_r,
            "programming.epochs": epochs,
            **more,
        },
    )
    program = WeightProgrammingRun(setup.programming, setup.analog, lr=setup.programming.lr, seed=0)
    return [measure.error for measure in program.run()][-1]


def test_ttv2_reaches_the_published_error_and_needs_its_reference():
    assert 3.5 < programmed("ttv2", 0.0, epochs=12) < 7
    assert programmed("ttv2", 0.5, epochs=12) > 40


def test_c_ttv2_tolerates_a_reference_variation_of_one_half():
    assert programmed("c-ttv2", 0.0, epochs=30) < 7
    assert programmed("c-ttv2", 0.5, epochs=30) < 8


def test_agad_does_not_care_about_the_reference():
    assert 3 < programmed("agad", 0.0, epochs=12) < 7
    assert 3 < programmed("agad", 1.0, epochs=12) < 7


def test_sgd_is_far_worse_even_at_its_best_learning_rate():
    assert programmed("sgd", 0.0, epochs=5) > 13
    # The published error, above 25 %, comes without a learning rate; 0.07 gives it here, too:
    # 32.1 with a standard deviation of 1.3 over runs, so that 25 is five of them away.
    large = {"programming.lr": 0.07, "programming.batch_size": 10, "programming.vectors": 1000}
    assert programmed("sgd", 0.0, epochs=5, **large) > 25


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ttv2", "c-ttv2", "agad"])
def test_both_engines_agree(algorithm):
    errors = [
        programmed(algorithm, 0.25, epochs=30, **{"analog.engine": engine})
        for engine in ("aihwkit", "fast")
    ]
    # 400 cells: one standard error of each is about 4 % of it, and TTv2 is still drifting.
    assert errors[0] == pytest.approx(errors[1], rel=0.35)


# -- as an experiment ------------------------------------------------------------------------------


def test_its_trials_have_one_arm_and_depend_on_nothing_else():
    axes = {"n_states": [10, 20], "spv": [0, 25], "analog.algorithm": ["agad", "sgd"]}
    setup = experiment(sweep={"seeds": [0, 1], "lr": [0.01, 0.02], "axes": axes})
    trials = trials_of(setup, sweep=True)
    assert len(trials) == 2 * 2 * 2 * 2 * 2
    first = trials[0]
    assert first.arm == "weight-programming"
    assert first.experiment.programming.lr == first.lr == 0.01
    assert first.section == first.experiment.programming
    assert Trial.from_data(first.as_data()).key == first.key
    other = with_settings(first.experiment, {"finetune.epochs": 99, "convert.relative_to": "std"})
    same = [t for t in trials_of(other, sweep=False) if t.seed == first.seed]
    assert same[0].key == first.key
    longer = with_settings(first.experiment, {"programming.epochs": 99})
    assert trials_of(longer, sweep=False)[0].key != first.key


def test_the_learning_rate_may_be_an_axis():
    swept = experiment(sweep={"axes": {"programming.lr": [0.1, 0.2]}})
    assert [trial.lr for trial in trials_of(swept, sweep=True)] == [0.1, 0.2]


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path, "programming")


def test_a_trial_leaves_the_same_tables_as_every_other(run):
    setup = experiment(sweep={"axes": {"n_states": [20]}})
    (trial,) = trials_of(setup, sweep=True)
    row = run_trial(trial, run)
    assert row["status"] == "done", row["message"]
    assert row["arm"] == "weight-programming"
    assert row["n_states"] == 20
    assert row["algorithm"] == "c-ttv2"
    run.collect()
    trials = read_table(run.path / "trials.csv")
    epochs = read_table(run.path / "epochs.csv")
    layers = read_table(run.path / "layers.csv")
    assert set(TRIAL_COLUMNS) | {"n_states"} == set(trials.columns)
    assert set(EPOCH_COLUMNS) | {"n_states"} == set(epochs.columns)
    tested = epochs[epochs["split"] == "test"]
    assert list(tested["epoch"]) == [0, 1, 2, 3]
    assert tested["error"].iloc[-1] == pytest.approx(trials["error_final"].iloc[0])
    assert tested["error"].iloc[0] == pytest.approx(trials["error_transfer"].iloc[0])
    assert list(epochs[epochs["split"] == "train"]["n_samples"]) == [200] * 3
    assert trials["error_validation"].iloc[0] == pytest.approx(
        epochs[epochs["split"] == "validation"]["error"].iloc[-1]
    )
    assert list(layers["shape"]) == ["8x8"]
    assert layers["weights_changed"].iloc[0] > 0
    assert run.finished(trial) is not None


def test_it_stops_at_the_deadline_and_the_next_call_runs_it(run):
    (trial,) = trials_of(experiment(), sweep=False)
    row = run_trial(trial, run, RunLimits(deadline=0.0))
    assert row["status"] == "stopped"
    assert run.finished(trial) is None
    assert run_trial(trial, run)["status"] == "done"


def test_it_fails_with_one_line_where_the_numbers_explode(run, monkeypatch):
    infinite = torch.full((200, 8), float("inf"))
    monkeypatch.setattr(programming, "input_vectors", lambda *_: infinite)
    (trial,) = trials_of(experiment(analog={"engine": "aihwkit"}), sweep=False)
    row = run_trial(trial, run)
    assert row["status"] == "failed"
    assert re.search(r"\bnan\b.* epoch 1$", row["message"])


def test_there_is_nothing_to_pretrain(run):
    setup = experiment()
    with pytest.raises(ExperimentError, match="no network"):
        next(stages.pretrain(setup, run))
    with pytest.raises(ExperimentError, match="no network"):
        next(stages.convert(setup, run, seed=0))
    assert plan(Study(setup, run, sweep=True)).pretrain == "not needed"


def test_torch_s_generator_is_left_to_the_caller_between_epochs():
    program = WeightProgrammingRun(QUICK, Analog(engine="fast"), lr=0.1, seed=1)
    errors = []
    for measure in program.run():
        torch.rand(measure.epoch + 1)  # whatever the consumer draws changes nothing
        errors.append(measure.error)
    undisturbed = WeightProgrammingRun(QUICK, Analog(engine="fast"), lr=0.1, seed=1)
    assert errors == [measure.error for measure in undisturbed.run()]
