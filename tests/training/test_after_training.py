"""Arrays that are left alone after training: what is drawn, what is kept, what is done again."""

import math

import aihwkit.inference
import pytest
import torch

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.config.load import with_settings
from analogtl.config.run import Evaluate
from analogtl.crossbar.convert import analog_tiles, to_analog
from analogtl.crossbar.retention import Ageing
from analogtl.errors import ExperimentError, RunError
from analogtl.report.build import build_report
from analogtl.scheduling.sweep import run_trials
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial

PCM = {"noise_model": "PCMLikeNoiseModel", "repeats": 2}
CAPACITOR = {"preset": "CapacitorPresetDevice", "lifetime_dtod": 0.0, "reset_dtod": 0.0}


def a_trial(tiny, times, arm="analog-scratch", **asked):
    evaluate = {**PCM, **asked, "times": times}
    finetune = {"arms": [arm], "epochs": 1, "batch_size": 10}
    [trial] = trials_of(tiny(finetune=finetune, evaluate=evaluate), sweep=False)
    return trial


def rows_of(run, trial):
    return read_rows(run.trial_path(trial.id) / "evaluation.csv")


def ageing_of(tiny, device=None, forward=None, engine="auto", analog=None, **asked):
    """A converted network of one small layer, and how it ages."""
    arrays = {"device": device or {}, "forward": forward or {}, "engine": engine}
    experiment = tiny(analog={**arrays, **(analog or {})})
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 10))
    example = torch.randn(2, 1, 4, 5)
    convert = experiment.convert
    model = to_analog(model, experiment.analog, convert, seed=1, example=example).model.eval()
    return Ageing(model, Evaluate(**asked), seed=1), next(analog_tiles(model)), example


@pytest.mark.parametrize("arm", ["analog-scratch", "frozen-array"])
def test_a_trial_keeps_its_final_state_and_is_evaluated_again_without_training(
    tiny, run_dir, monkeypatch, arm
):
    first = a_trial(tiny, [0, 3600], arm)
    assert run_trial(first, run_dir)["status"] == "done"
    before = rows_of(run_dir, first)
    assert [(row["time"], row["repeat"]) for row in before] == [
        (time, repeat) for time in ("0", "3600") for repeat in ("0", "1")
    ]
    monkeypatch.setattr("analogtl.training.run_trial.finetune", None)  # a training would fail
    more = a_trial(tiny, [86400, 3600], arm)
    assert more.key == first.key
    assert run_trial(more, run_dir)["status"] == "done"
    after = rows_of(run_dir, more)
    assert after[2:] == before[2:]  # whatever else is asked for
    assert {row["time"] for row in after} == {"86400", "3600"}
    assert run_dir.checked_record(more.id).done


@pytest.mark.parametrize("model", [{}, {"mean": [0.1], "std": [3.0]}])
def test_the_first_time_is_the_test_after_the_last_epoch_where_passes_have_no_noise(
    tiny, run_dir, model
):
    perfect = {"is_perfect": True}
    finetune = {"arms": ["analog-scratch"], "epochs": 1, "batch_size": 10}
    analog, evaluate = {"forward": perfect}, {**PCM, "times": [0, 3.0e8]}
    experiment = tiny(model=model, finetune=finetune, analog=analog, evaluate=evaluate)
    [trial] = trials_of(experiment, sweep=False)
    row = run_trial(trial, run_dir)
    at_once, later = (float(rows_of(run_dir, trial)[place]["error"]) for place in (0, 2))
    last = list(read_rows(run_dir.trial_path(trial.id) / "epochs.csv"))[-1]
    assert last["split"] == "test"
    assert math.isclose(at_once, row["error_final"], rel_tol=1e-6)
    assert {one["loss"] for one in rows_of(run_dir, trial)[:2]} == {last["loss"]}
    assert later != at_once or rows_of(run_dir, trial)[2]["loss"] != last["loss"]


@pytest.mark.slow
def test_a_sweep_evaluates_what_is_finished_and_no_more(tiny, tmp_path):
    run = RunDir(tmp_path, "tiny")
    run_trial(a_trial(tiny, [0]), run)
    told = list(run_trials(Study.open(a_trial(tiny, [0, 60]).experiment, root=tmp_path)))
    assert [one.kind for one in told if one.kind in ("done", "epoch", "skipped")] == ["done"]
    assert len(read_rows(run.path / "evaluation.csv")) == 4
    told = list(run_trials(Study.open(a_trial(tiny, [0, 60]).experiment, root=tmp_path)))
    assert [one.kind for one in told] == ["skipped"]


def test_a_trial_that_kept_no_state_is_not_run_again_for_it_and_that_is_said(tiny, tmp_path):
    run_trial(a_trial(tiny, []), RunDir(tmp_path, "tiny"))
    told = list(run_trials(Study.open(a_trial(tiny, [0]).experiment, root=tmp_path)))
    assert [one.kind for one in told] == ["skipped", "message"]


def test_a_damaged_final_state_leaves_the_trial_as_it_is(tiny, run_dir, caplog):
    trial = a_trial(tiny, [0])
    run_trial(trial, run_dir)
    [state] = run_dir.final_path(trial.id).parent.glob("*.safetensors")
    state.write_bytes(b"nothing")
    again = a_trial(tiny, [0, 1])
    assert run_trial(again, run_dir)["status"] == "done"
    assert "evaluation.csv" in caplog.text
    assert len(rows_of(run_dir, trial)) == 2


def test_the_arrays_are_as_before_afterwards(tiny):
    ageing, tile, _ = ageing_of(tiny, **PCM, times=[1e7])
    before, scales = tile.tile.get_weights().clone(), tile.get_mapping_scales().clone()
    with ageing.at(1e7, 0):
        assert not torch.equal(tile.tile.get_weights(), before)
        assert not torch.equal(tile.get_mapping_scales(), scales)
    assert torch.equal(tile.tile.get_weights(), before)
    assert torch.equal(tile.get_mapping_scales(), scales)


@pytest.mark.parametrize("engine", ["fast", "aihwkit"])
def test_drift_without_noise_is_a_power_law_on_both_engines(tiny, engine):
    parameters = {"drift_nu_mean": 0.1, "drift_nu_std": 0.0, "read_noise_scale": 0.0, "t_0": 10.0}
    experiment = {"noise_model": "StateIndependentNoiseModel", "parameters": parameters}
    ageing, tile, _ = ageing_of(
        tiny, engine=engine, times=[990], **experiment, drift_compensation="none"
    )
    before = tile.tile.get_weights().clone()
    with ageing.at(990.0, 0):
        expected = before * (1000 / 10) ** -0.1
        torch.testing.assert_close(tile.tile.get_weights(), expected)


def of_model(compensation="none", **parameters):
    """A state-independent model of aihwkit without what is not asked for."""
    still = {"drift_nu_mean": 0.0, "drift_nu_std": 0.0, "read_noise_scale": 0.0}
    asked = {"noise_model": "StateIndependentNoiseModel", "parameters": {**still, **parameters}}
    return {**asked, "drift_compensation": compensation, "times": [1]}


def shown_at(ageing, tile, time, repeat):
    with ageing.at(time, repeat):
        return tile.tile.get_weights().clone()


@pytest.mark.parametrize("omega", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["GlobalDriftCompensation", "PerColumnDriftCompensation"])
def test_compensation_undoes_a_decay_that_all_weights_share(tiny, kind, omega):
    ageing, tile, x = ageing_of(
        tiny,
        forward={"is_perfect": True},
        analog={"mapping": {"weight_scaling_omega": omega}},
        **of_model(kind, drift_nu_mean=0.2),
    )
    outputs = []
    for time in (0.0, 1e6):
        with ageing.at(time, 0), torch.no_grad():
            outputs.append(tile(x.flatten(1)))
    torch.testing.assert_close(outputs[1], outputs[0])


def test_devices_drift_in_their_own_way_and_are_read_with_new_noise(tiny):
    drifting, tile, _ = ageing_of(tiny, **of_model(drift_nu_mean=0.1, drift_nu_std=0.05))
    weights = tile.tile.get_weights()
    whole = weights.abs() > 0.01

    def exponents(time, repeat):
        shares = (shown_at(drifting, tile, time, repeat) / weights)[whole].double()
        return -shares.log() / math.log((time + 20) / 20)  # aihwkit's t_0

    once = exponents(1e3, 0)
    torch.testing.assert_close(exponents(1e6, 0), once, atol=1e-4, rtol=1e-4)
    assert abs(torch.corrcoef(torch.stack([once, exponents(1e3, 1)]))[0, 1]) < 0.5
    read, tile, _ = ageing_of(tiny, **of_model(read_noise_scale=1.0))
    moved = [
        (shown_at(read, tile, *when) - tile.tile.get_weights()).flatten()
        for when in ((1e3, 0), (1e6, 0), (1e3, 1))
    ]
    # 200 cells: by chance above 0.36 once in 4 million times.
    correlation = torch.corrcoef(torch.stack(moved)) - torch.eye(3)
    assert correlation.abs().max() < 0.36


def test_passes_are_drawn_anew_for_each_repeat_and_training_s_own_noise_goes_on(tiny):
    (ageing, tile, x), (_, other, _) = (ageing_of(tiny, **of_model()) for _ in range(2))
    x = x.flatten(1)

    def passed(time, repeat):
        with ageing.at(time, repeat):
            return tile(x)

    with torch.no_grad():
        first = passed(0, 0)
        assert torch.equal(passed(0, 0), first)
        assert not torch.equal(passed(0, 1), first)
        assert torch.equal(tile(x), other(x))


def test_compensation_reads_anew_for_each_repeat(tiny, monkeypatch):
    from aihwkit.inference.compensation import drift

    read = []
    readout = drift.GlobalDriftCompensation.readout

    def seen(self, outputs):
        read.append(float(readout(self, outputs)))
        return readout(self, outputs)

    monkeypatch.setattr(drift.GlobalDriftCompensation, "readout", seen)
    ageing, tile, _ = ageing_of(tiny, **of_model("GlobalDriftCompensation"))
    for repeat in (0, 1, 0):
        shown_at(ageing, tile, 1.0, repeat)
    assert len(set(read[:4])) == 4
    assert read[4:] == read[:2]


@pytest.mark.parametrize("analog", [{}, {"algorithm": "sgd"}, {"slow_device": {"lifetime": 1e6}}])
@pytest.mark.parametrize("reset", [0.0, 0.3])
def test_a_lifetime_takes_the_weights_back_by_the_share_of_each_batch(tiny, analog, reset):
    device = {**CAPACITOR, "reset": reset}
    if "slow_device" in analog:  # which holds the weights
        device["lifetime"] = 1e3
    ageing, tile, _ = ageing_of(
        tiny, device, analog=analog, times=["1 min"], batch_s=1e-3, drift_compensation="none"
    )
    before = tile.tile.get_weights().clone()
    with ageing.at(60.0, 0):
        # 60,000 mini-batches of a lifetime of a million, in float32 steps of 6e-8.
        expected = reset + (before - reset) * (1 - 1e-6) ** 60_000
        torch.testing.assert_close(tile.tile.get_weights(), expected, atol=2e-3, rtol=0)


def test_a_walk_spreads_with_the_root_of_time(tiny):
    device = {"preset": "IdealizedPresetDevice", "diffusion": 1e-3, "diffusion_dtod": 0.0}
    ageing, tile, _ = ageing_of(tiny, device, times=[1], batch_s=1.0, drift_compensation="none")
    before = tile.tile.get_weights().clone()
    moved = []
    for repeat in range(20):
        with ageing.at(900.0, repeat):
            moved.append(tile.tile.get_weights() - before)
    # 4,000 draws: the spread of their spread is 1.1 %; five of these.
    assert math.isclose(float(torch.stack(moved).std()), 1e-3 * 30, rel_tol=0.056)
    torch.testing.assert_close(shown_at(ageing, tile, 900.0, 19) - before, moved[-1])


def test_a_walk_that_decays_spreads_as_its_steps_add_up_and_ends_within_the_bounds(tiny):
    device = {**CAPACITOR, "lifetime": 100.0, "reset": 0.0, "diffusion_dtod": 0.0}
    asked = {"times": [1], "batch_s": 1.0, "drift_compensation": "none"}
    ageing, tile, _ = ageing_of(tiny, {**device, "diffusion": 1e-3}, **asked)
    before, steps, kept = tile.tile.get_weights().clone(), 50, 0.99
    moved = [
        shown_at(ageing, tile, float(steps), repeat) - before * kept**steps for repeat in range(20)
    ]
    expected = 1e-3 * sum(kept ** (2 * step) for step in range(steps)) ** 0.5
    assert math.isclose(float(torch.stack(moved).std()), expected, rel_tol=0.056)  # as above
    bounds = {"w_max": 0.8, "w_min": -0.8, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
    ageing, tile, _ = ageing_of(tiny, {**device, **bounds, "diffusion": 0.3}, **asked)
    assert math.isclose(float(shown_at(ageing, tile, 50.0, 0).abs().max()), 0.8, rel_tol=1e-6)


@pytest.mark.parametrize(
    "model", ["PCMLikeNoiseModel", "ReRamWan2022NoiseModel", "ReRamCMONoiseModel"]
)
def test_weights_spread_as_the_model_of_aihwkit_spreads_them(tiny, model):
    time = 86_400.0
    ageing, tile, _ = ageing_of(tiny, noise_model=model, times=[time], drift_compensation="none")
    weights = tile.tile.get_weights().clone()
    found = []
    for repeat in range(200):
        with ageing.at(time, repeat):
            found.append(tile.tile.get_weights())
    theirs = getattr(aihwkit.inference, model)()
    torch.manual_seed(0)
    expected = []
    for _ in range(200):
        conductances, scales = theirs.g_converter.convert_to_conductances(weights)
        single = torch.is_tensor(conductances)
        aged = [
            theirs.apply_drift_noise_to_conductance(
                g.clone(), theirs.generate_drift_coefficients(g.clone()), time
            )
            for g in ([conductances] if single else conductances)
        ]
        expected.append(theirs.g_converter.convert_back_to_weights(aged, scales).view(10, 20))
    ours, aihwkits = torch.stack(found), torch.stack(expected)
    # Over 200 cells of 200 draws each the means differ by less than five standard errors.
    error = aihwkits.std(0) * (2 / 200) ** 0.5
    assert bool(((ours.mean(0) - aihwkits.mean(0)).abs() <= 5 * error + 1e-6).all())
    assert math.isclose(float(ours.std(0).mean()), float(aihwkits.std(0).mean()), rel_tol=0.03)


def test_the_times_change_no_trial(tiny):
    without, with_times = a_trial(tiny, []), a_trial(tiny, ["1 day"])
    assert without.key == with_times.key
    assert with_times.experiment.evaluate.times == (86_400.0,)
    assert not a_trial(tiny, [1], arm="digital-scratch").evaluation_key


def test_a_lifetime_needs_the_duration_of_a_batch(tiny):
    with pytest.raises(ExperimentError, match=r"evaluate\.batch_s"):
        with_settings(tiny(analog={"device": CAPACITOR}), {"evaluate.times": [1]})


TABLE = {"g_lst": [0.0, 10.0], "nu_mean_lst": [0.1, 0.1], "nu_std_lst": [0.0, 0.0]}
CUSTOM = "CustomDriftPCMLikeNoiseModel"


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (CUSTOM, {"custom_drift_model": TABLE}),  # conductances go from 0 to 25
        ("StateIndependentNoiseModel", {"t_0": 0.0}),  # which only shows when a time is asked for
    ],
)
def test_what_aihwkit_refuses_is_found_before_anything_is_trained(
    tiny, tmp_path, model, parameters
):
    asked = {"times": [1], "noise_model": model, "parameters": parameters}
    with pytest.raises(ExperimentError, match=r"evaluate\.parameters"):
        list(run_trials(Study.open(tiny(evaluate=asked), root=tmp_path)))


def test_a_drift_of_one_s_own_has_the_range_of_its_conductances(tiny):
    parameters = {"custom_drift_model": TABLE, "g_max": 10.0, "read_noise_scale": 0.0}
    asked = {"noise_model": CUSTOM, "parameters": parameters, "drift_compensation": "none"}
    ageing, tile, _ = ageing_of(tiny, times=[980], **asked)
    expected = tile.tile.get_weights() * ((980 + 20) / 20) ** -0.1
    torch.testing.assert_close(shown_at(ageing, tile, 980.0, 0), expected)


def test_weights_that_are_no_numbers_are_an_error_of_the_model(tiny):
    ageing, tile, _ = ageing_of(tiny, **of_model(read_noise_scale=1e300))
    before = tile.tile.get_weights().clone()
    with pytest.raises(RunError, match="StateIndependentNoiseModel"), ageing.at(1e3, 0):
        pass
    assert torch.equal(tile.tile.get_weights(), before)


def test_a_report_has_the_error_after_training(tiny, tmp_path):
    run = RunDir(tmp_path, "tiny")
    run_trial(a_trial(tiny, [0, 3600]), run)
    run.collect()
    ages = analyse(read_run(run.path, "tiny")).ages
    assert list(ages["time"]) == [0, 3600]
    errors = [float(row["error"]) for row in read_rows(run.path / "evaluation.csv")]
    assert math.isclose(ages["error_mean"][0], sum(errors[:2]) / 2)
    report = build_report([run.path], formats=["csv", "svg"])
    assert {"ages.csv", "ages.svg"} <= {path.name for path in report.paths}
