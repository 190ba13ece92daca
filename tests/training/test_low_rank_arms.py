"""The arms with low-rank adapters: what is trained, what is held, what is recorded."""

import itertools
from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError
from told import problems_of

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.config.schema import Experiment
from analogtl.crossbar.checkpoint import capture
from analogtl.scheduling.sweep import run_trials
from analogtl.study.limits import RunLimits
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import resumable, stages
from analogtl.training.preflight import Need, planned_layers, preflight
from analogtl.training.run_trial import run_trial
from analogtl.vocabulary import Arm

ARMS = ("lora-digital", "lora-analog")
CASES = [("lora-digital", "arrays"), ("lora-analog", "arrays"), ("lora-analog", "digital")]
# 64-64-32-3: what adapters of rank 2 hold.
CELLS = 2 * (64 + 64) + 2 * (64 + 32)


def a_trial(tiny, arm, base="arrays", engine="fast", **more):
    settings = {"finetune": {"arms": [arm], "lr": 0.05}, "lora": {"rank": 2, "base": base}}
    settings["analog"] = {"engine": engine}
    (trial,) = trials_of(tiny(**(settings | more)), sweep=False)
    return trial


def run_watched(trial, run_dir, monkeypatch):
    """Run a trial: its state before and after training, and its record."""
    states = []
    real = resumable.ResumableTraining.run

    def run(self):
        if self.kind == "digital":  # the pretraining
            yield from real(self)
            return
        states.append(deepcopy(capture(self.model)[0]))
        yield from real(self)
        states.append(deepcopy(capture(self.model)[0]))

    monkeypatch.setattr(resumable.ResumableTraining, "run", run)
    row = run_trial(trial, run_dir)
    assert row["status"] == "done", row["message"]
    return *states, row


@pytest.mark.parametrize("engine", ["fast", "aihwkit"])
@pytest.mark.parametrize(("arm", "base"), CASES)
def test_adapters_and_head_move_and_nothing_else(tiny, run_dir, monkeypatch, arm, base, engine):
    trial = a_trial(tiny, arm, base, engine)
    before, after, row = run_watched(trial, run_dir, monkeypatch)
    table = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
    rows = {one["layer"]: one for one in table}
    names = [f"body.{n}{part}" for n in (1, 3) for part in ("", ".lora_A", ".lora_B")]
    assert list(rows) == [*names, "head"]
    analog = arm == "lora-analog"
    for name, one in rows.items():
        is_base = name in ("body.1", "body.3")
        assert one["trained"] == ("false" if is_base else "true")
        on_arrays = (base == "arrays") if is_base else analog
        assert (one["engine"] == "digital") != on_arrays
        if on_arrays:
            assert (float(one["weights_changed"]) > 0) == (not is_base), name
    kept = [name for name in before if not name.endswith("/counts")]  # of passes
    moved = {name for name in kept if not torch.equal(before[name], after[name])}
    weights = {name for name in moved if name.startswith("digital/")}
    assert not [name for name in weights if "base_layer" in name]
    if not analog:
        parts = [f"body.{n}.lora_{x}.weight" for n in (1, 3) for x in "AB"]
        assert weights == {f"digital/{p}" for p in (*parts, "head.weight", "head.bias")}
        assert moved == weights
    head = 32 * 3
    expected = (0, CELLS + head + 3) if not analog else (CELLS + head, 3)
    assert (row["trained_cells"], row["trained_digital"]) == expected


@pytest.mark.parametrize("arm", ARMS)
def test_it_begins_as_the_pretrained_network_and_learns(tiny, run_dir, arm):
    quiet = {"is_perfect": True}
    fine = {"preset": "ConstantStepDevice", "dw_min": 0.002}
    experiment = tiny(
        finetune={"arms": ["digital-tl", arm], "lr": 0.1, "epochs": 4},
        lora={"rank": 4},
        analog={"forward": quiet, "backward": quiet, "algorithm": "sgd", "device": fine},
    )
    errors = {}
    for trial in trials_of(experiment, sweep=False):
        row = run_trial(trial, run_dir)
        errors[trial.arm] = row["error_transfer"], row["error_final"]
    assert abs(errors["digital-tl"][0] - errors[arm][0]) < 10  # but for the clipping of a few cells
    assert errors[arm][1] < errors[arm][0] - 10


@pytest.mark.parametrize(("arm", "base"), CASES)
def test_it_goes_on_bit_for_bit(tiny, run_dir, arm, base):
    momentum = {"arms": [arm], "lr": 0.05, "momentum": 0.5}
    trial = a_trial(tiny, arm, base, finetune=momentum)
    whole = run_trial(trial, run_dir)
    final = run_dir.trial_path(trial.id) / "epochs.csv"
    layers = run_dir.trial_path(trial.id) / "layers.csv"
    expected = [{**row, "wall_s": "", "resumed": ""} for row in read_rows(final)], read_rows(layers)
    (run_dir.trial_path(trial.id) / "trial.json").unlink()
    steps = itertools.count()
    stop = RunLimits(stop=lambda: next(steps) >= 7)
    with pytest.raises(stages.Stopped):
        list(stages.finetune(trial, run_dir, stop))
    again = run_trial(trial, run_dir)
    assert again["resumed"]
    found = [{**row, "wall_s": "", "resumed": ""} for row in read_rows(final)], read_rows(layers)
    assert found == expected
    assert whole["error_final"] == again["error_final"]


def test_only_what_counts_is_in_the_key(tiny):
    def keys(**lora):
        arms = [*ARMS, "digital-tl", "analog-tl", "frozen-array"]
        trials = trials_of(tiny(finetune={"arms": arms}, lora=lora), sweep=False)
        return {trial.arm: trial.key for trial in trials}

    plain, other, digital = keys(), keys(rank=2), keys(base="digital")
    assert {arm for arm in plain if plain[arm] != other[arm]} == {*ARMS}
    assert {arm for arm in plain if plain[arm] != digital[arm]} == {"lora-analog"}
    alone = trials_of(tiny(finetune={"arms": ["digital-tl", "analog-tl"]}), sweep=False)
    assert {trial.arm: trial.key for trial in alone}.items() <= plain.items()


def test_an_axis_of_the_adapters_leaves_the_other_arms_alone(tiny):
    experiment = tiny(
        finetune={"arms": [*ARMS, "digital-tl", "analog-tl"]},
        sweep={"axes": {"lora.rank": [1, 2], "lora.base": ["arrays", "digital"]}},
    )
    counts: dict[str, int] = {}
    for trial in trials_of(experiment, sweep=True):
        counts[trial.arm] = counts.get(trial.arm, 0) + 1
    assert counts == {"digital-tl": 1, "analog-tl": 1, "lora-digital": 2, "lora-analog": 4}


@pytest.mark.parametrize(
    ("lora", "key"),
    [
        ({"rank": 33}, "lora.rank"),
        ({"targets": ["nothing"]}, "lora.targets"),
        ({"rank": 40, "targets": ["body.1", "no.*"]}, "lora.targets"),
    ],
)
def test_what_does_not_fit_the_network_is_found_before_training(tiny, lora, key):
    experiment = tiny(finetune={"arms": ["lora-analog", "digital-tl"]}, lora=lora)
    (line,) = problems_of(preflight, map(Need.of, trials_of(experiment, sweep=False)))
    assert line.startswith(key)


def test_adapters_without_an_arm_and_a_rank_of_none_are_refused(tiny):
    arms = {"arms": ["lora-analog"]}
    for settings in ({"lora": {"rank": 2}}, {"lora": {"rank": 0}, "finetune": arms}):
        with pytest.raises(ValidationError):
            tiny(**settings)
    assert "lora" not in tiny().resolved()
    assert tiny(finetune=arms).resolved()["lora"]["rank"] == 4


def test_each_tile_of_an_adapter_has_settings_of_its_own(tiny):
    experiment = tiny(
        finetune={"arms": ["lora-analog"]},
        lora={"rank": 2},
        analog={"drive": "auto", "granularity_per_token": "auto"},
    )
    _, layers = planned_layers(experiment, Arm.LORA_ANALOG)
    rows = {row["layer"]: row for row in layers}
    assert list(rows) == [
        *(f"body.{n}.lora_{x}" for n in (1, 3) for x in "AB"),
        "head",
    ]
    assert all(row["read_snr"] > 0 for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_run_is_reported_with_what_is_trained_and_what_it_costs(tiny, run_dir, arm):
    experiment: Experiment = tiny(
        finetune={"arms": [arm, "frozen-array"], "epochs": 1, "batch_size": 6},
        lora={"rank": 2},
        hardware={"preset": "hfox-reram"},
        evaluate={"times": [0, 10], "noise_model": "PCMLikeNoiseModel", "repeats": 1},
        analog={"engine": "fast"},
    )
    study = Study.open(experiment, root=run_dir.root)
    list(run_trials(study))
    assert len(read_rows(run_dir.path / "evaluation.csv")) == 4
    found = analyse(read_run(run_dir.path, "run"))
    levels = found.levels.set_index("arm")
    in_all = levels.loc[arm, ["trained_cells", "trained_digital"]].sum()
    assert in_all == CELLS + 32 * 3 + 3
    assert levels.loc["frozen-array", "trained_cells"] == 0
    costs = found.costs.layers.set_index(["arm", "layer"])
    down, base = costs.loc[arm, "body.1.lora_A"], costs.loc[arm, "body.1"]
    assert down["macs"] == 3 * 81 * 2 * 64
    assert base["macs"] == 2 * 81 * 64 * 64
    assert (base["cell_reads"], base["pulse_slots"]) == (2 * 81 * 64 * 64, 0)
    frozen = costs.loc["frozen-array", "body.1"]
    assert (base["da_conversions"], base["energy"]) == (frozen["da_conversions"], frozen["energy"])
    if arm == "lora-digital":
        assert down["digital_operations"] == down["macs"]
        assert down["ad_conversions"] == down["pulse_slots"] == down["cell_reads"] == 0
    else:
        assert down["cell_reads"] > 2 * 81 * 2 * 64
        assert down["pulse_slots"] > 0
    assert found.costs.totals["energy"].notna().all()
    assert set(found.layers.loc[found.layers["arm"] == arm, "layer"]) >= {"body.1"}
