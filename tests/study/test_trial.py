"""From an experiment to its trials, their order, names and keys."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pages import shipped

from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.config.shipped import shipped_experiments
from analogtl.errors import ExperimentError, RunError
from analogtl.study.basis import Basis, no_look
from analogtl.study.trial import MAX_ID, Trial, common_key, trials_of
from analogtl.vocabulary import Arm

BASIS = Basis(("0" * 32,), 1, "1.1.0", "2.10.0", "")


def experiment(sweep: Mapping[str, Any], **sections: Any) -> Experiment:
    return Experiment.model_validate({"name": "grid", "sweep": sweep, **sections})


def test_the_trials_are_the_product_of_arms_levels_rates_and_seeds() -> None:
    one = experiment(
        {"seeds": [0, 1], "lr": [0.01, 0.02], "axes": {"wtn": [0, 5, 10], "spv": [0, 5]}},
        finetune={"arms": ["analog-tl", "frozen-array"]},
    )
    trials = trials_of(one, sweep=True)
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 3 * 2 * 2
    assert len({trial.key for trial in trials}) == len(trials)
    assert {trial.experiment.convert.weight_transfer_noise for trial in trials} == {0, 5, 10}
    assert {trial.experiment.finetune.lr for trial in trials} == {0.01, 0.02}


def test_all_levels_come_at_one_seed_before_the_next() -> None:
    one = experiment({"seeds": [3, 1], "axes": {"wtn": [0, 5]}})
    seeds = [trial.seed for trial in trials_of(one, sweep=True)]
    assert [seed for seed, _ in itertools.groupby(seeds)] == [3, 1]


def test_a_digital_arm_runs_once_and_not_once_per_analog_level() -> None:
    one = experiment({"axes": {"wtn": [0, 5, 10]}}, finetune={"arms": ["digital-tl", "analog-tl"]})
    arms = [trial.arm for trial in trials_of(one, sweep=True)]
    assert arms.count("digital-tl") == 1
    assert arms.count("analog-tl") == 3
    [digital] = [trial for trial in trials_of(one, sweep=True) if trial.arm == "digital-tl"]
    assert digital.axes == {}


def test_finetune_takes_the_experiment_as_it_is_written() -> None:
    one = experiment({"seeds": [0, 1], "lr": [0.1], "axes": {"wtn": [5]}})
    trials = trials_of(one, sweep=False)
    assert {trial.id for trial in trials} == {
        f"arm={arm},lr=0.01,seed={seed}" for arm in ("digital-tl", "analog-tl") for seed in (0, 1)
    }


def test_the_key_depends_on_what_the_outcome_depends_on() -> None:
    def key(**sections: Any) -> str:
        arms = {"arms": ["digital-tl"]}
        sections["finetune"] = arms | sections.get("finetune", {})
        return trials_of(experiment({}, **sections), sweep=False)[0].key

    assert key() == key(analog={"algorithm": "tt"}), "a digital arm has no arrays"
    assert key() == key(description="other words", report={"margin": 3})
    assert key() == key(finetune={"arms": ["digital-tl", "analog-tl"]})
    assert key() != key(finetune={"epochs": 99})
    assert key() != key(pretrain={"epochs": 99})
    assert key() != key(model={"architecture": "mlp_digits"})


@pytest.mark.parametrize("name", shipped_experiments())
def test_a_trial_survives_as_data(name: str) -> None:
    for trial in trials_of(shipped(name), sweep=True, look=no_look)[:20]:
        again = Trial.from_data(json.loads(json.dumps(trial.as_data())))
        assert again == trial
        assert (again.id, again.key, again.axes) == (trial.id, trial.key, trial.axes)


@pytest.mark.parametrize("name", shipped_experiments())
def test_trials_of_an_experiment_have_all_but_axes_seed_and_rate_in_common(name: str) -> None:
    one = shipped(name)
    resolved = json.loads(json.dumps(one.resolved()))
    for trial in trials_of(one, sweep=True, look=no_look)[:40]:
        varied = [*trial.axes, *(["class_set"] if trial.class_set else [])]
        ours = common_key(trial.experiment.resolved(), trial.arm, varied)
        assert ours == common_key(resolved, trial.arm, varied)
    if one.kind == "transfer-learning":
        other = load_experiment(name, ["finetune.batch_size=3"])
        assert common_key(other.resolved(), Arm.ANALOG_TL, ()) != common_key(
            resolved, Arm.ANALOG_TL, ()
        )


@pytest.mark.parametrize(
    "change",
    [{"arm": None}, {"experiment": {}}, {"experiment": 5}, {"lr": "x"}, {"key": "0"}, {"axes": 3}],
)
def test_data_that_is_no_trial_is_refused(change: Mapping[str, Any]) -> None:
    data = trials_of(experiment({}), sweep=False)[0].as_data()
    with pytest.raises(RunError):
        Trial.from_data({**data, **change})
    with pytest.raises(RunError):
        Trial.from_data({})


levels = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=80),
    st.booleans(),
)


@given(st.lists(levels, min_size=1, max_size=6, unique_by=lambda v: (str(type(v)), repr(v))))
@example(["false", False, "5", 5, "1e3", 1000.0])
def test_names_are_safe_and_differ_where_the_levels_do(values: list[Any]) -> None:
    base = experiment({})
    trials = [
        Trial(base, Arm.ANALOG_TL, {"model.kwargs.../a b": value}, 0.01, 0, BASIS)
        for value in values
    ]
    ids = {trial.id for trial in trials}
    for name in ids:
        assert "/" not in name
        assert "\0" not in name
        assert name.isprintable()
        assert name.isascii()
        assert len(name) <= MAX_ID
        assert name not in ("", ".", "..")
    # 1 and 1.0 and true may share a name only where they are equal as levels of an axis.
    assert len(ids) >= len({(v if isinstance(v, str) else float(v)) for v in values})


def test_a_name_stays_within_what_a_file_system_takes() -> None:
    axes: dict[str, Any] = {f"model.kwargs.some_rather_long_key_{n}": n for n in range(9)}
    one = Trial(experiment({}), Arm.ANALOG_TL, axes, 0.01, 0, BASIS)
    other = Trial(experiment({}), Arm.ANALOG_TL, {**axes, "model.kwargs.x": 1}, 0.01, 0, BASIS)
    assert len(one.id) == len(other.id) == MAX_ID
    assert one.id != other.id


def test_more_trials_than_anybody_can_run_are_refused_at_once() -> None:
    axes = {f"model.kwargs.k{n}": list(range(100)) for n in range(5)}
    with pytest.raises(ExperimentError, match="10,000,000,000 trials"):
        trials_of(experiment({"axes": axes}, finetune={"arms": ["analog-tl"]}), sweep=True)
