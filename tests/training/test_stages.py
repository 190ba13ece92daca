"""The stages: what each runs, reuses, resumes and records."""

import itertools
import os
import shutil
from dataclasses import replace

import pytest
import torch
from threadpoolctl import threadpool_info

from analogtl.errors import ExperimentError
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import resumable, stages
from analogtl.training.run_trial import run_trial


def result(steps):
    """Run a stage to its end: what it yielded, and what it returned."""
    yielded = []
    while True:
        try:
            yielded.append(next(steps))
        except StopIteration as stop:
            return yielded, stop.value


def trial_of(experiment, arm, seed=0):
    return next(t for t in trials_of(experiment, sweep=False) if (t.arm, t.seed) == (arm, seed))


def interrupt(trial, run, after=7):
    """Run a trial until it is asked to stop, after some steps."""
    steps = itertools.count()
    with pytest.raises(stages.Stopped):
        result(stages.finetune(trial, run, RunLimits(stop=lambda: next(steps) >= after)))


def test_pretraining_runs_once_and_is_reused_by_content(tiny, run_dir):
    epochs, first = result(stages.pretrain(tiny(), run_dir))
    assert [[r["split"] for r in rows] for rows in epochs] == [["test"], *2 * [["train", "test"]]]
    assert not first.reused
    assert epochs[-1][-1]["error"] < epochs[0][-1]["error"]
    epochs, again = result(stages.pretrain(tiny(finetune={"epochs": 9}), run_dir))
    assert epochs == []
    assert again.reused
    assert again.path == first.path
    _, other = result(stages.pretrain(tiny(pretrain={"epochs": 1}), run_dir))
    assert not other.reused
    assert other.key != first.key


def emptied(path):
    path.write_bytes(b"")


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = pytest.mark.parametrize("damage", [emptied, a_folder])


@DAMAGES
def test_every_file_of_a_pretrained_model_is_missed(tiny, run_dir, tmp_path, damage):
    _, first = result(stages.pretrain(tiny(), run_dir))
    model = first.path.parent
    whole = shutil.copytree(model, tmp_path / "whole")
    for number, file in enumerate(sorted(whole.iterdir()), 1):
        damage(model / file.name)
        steps = stages.pretrain(tiny(), run_dir)
        assert next(steps), "it is trained again"
        steps.close()
        assert (run_dir.pretrained / "damaged" / f"{model.name}.{number}").is_dir()
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(whole, model)
    assert result(stages.pretrain(tiny(), run_dir))[1].reused


@DAMAGES
def test_every_file_of_a_saved_state_is_missed(tiny, run_dir, tmp_path, damage):
    trial = trial_of(tiny(finetune={"arms": ["analog-scratch"]}), "analog-scratch")
    interrupt(trial, run_dir)
    state = run_dir.state_path(trial)
    whole = shutil.copytree(state, tmp_path / "whole")
    for number, file in enumerate(sorted(whole.iterdir()), 1):
        damage(state / file.name)
        steps = stages.finetune(trial, run_dir)
        assert {row["epoch"] for row in next(steps)} == {0}, "it begins anew"
        steps.close()
        assert (run_dir.damaged / f"{state.name}.{number}").is_dir()
        shutil.copytree(whole, state)
    _, row = result(stages.finetune(trial, run_dir))
    assert row["resumed"]


def test_a_state_of_other_settings_is_left_for_them(tiny, run_dir):
    trial = trial_of(tiny(finetune={"arms": ["digital-scratch"]}), "digital-scratch")
    interrupt(trial, run_dir)
    other = tiny(finetune={"arms": ["digital-scratch"], "epochs": 1})
    _, row = result(stages.finetune(trial_of(other, "digital-scratch"), run_dir))
    assert not row["resumed"]
    _, row = result(stages.finetune(trial, run_dir))
    assert row["resumed"]


def test_convert_does_without_the_images_of_fine_tuning(tiny, run_dir, tmp_path):
    absent = {"dataset": "image_folder", "classes": ["a", "b"], "samples_per_class": None}
    experiment = tiny(finetune=absent, data={"root": str(tmp_path / "absent"), "image_size": 8})
    _, conversion = result(stages.convert(experiment, run_dir, seed=0))
    assert {row["bound_by"] for row in conversion.layers} == {"file"}


def test_convert_reports_layers_and_both_errors(tiny, run_dir):
    _, conversion = result(stages.convert(tiny(), run_dir, seed=0))
    assert conversion.engine == "fast"
    assert 0 <= conversion.error_digital < 50  # it has learnt, and programming spares it
    assert 0 <= conversion.error_analog < 50
    table = read_rows(run_dir.path / "convert" / "layers.csv")
    assert [row["layer"] for row in table] == [row["layer"] for row in conversion.layers]


@pytest.mark.parametrize(
    "arm", ["digital-tl", "analog-tl", "digital-scratch", "frozen-array", "shuffled-gradients"]
)
def test_a_trial_records_its_epochs_and_its_row(tiny, run_dir, arm):
    experiment = tiny(finetune={"arms": [arm]})
    trial = trial_of(experiment, arm)
    row = run_trial(trial, run_dir)
    assert row["status"] == "done", row
    assert row["n_classes"] == 3
    record = run_dir.finished(trial)
    assert record is not None
    path = run_dir.trial_path(trial.id)
    epochs = read_rows(path / "epochs.csv")
    tests = [float(r["error"]) for r in epochs if r["split"] == "test" and r["stage"] == "finetune"]
    assert len(tests) == 3
    assert row["error_transfer"] == pytest.approx(tests[0])
    assert row["error_final"] == pytest.approx(tests[-1])
    assert row["error_best"] == pytest.approx(min(tests[1:]))
    assert not (path / "resume").exists()
    if arm.startswith("digital"):
        assert row["weights_changed"] is None
        assert row["engine"] == ""
    else:
        assert (row["weights_changed"] > 0) == (arm != "frozen-array")
        assert row["error_final"] != row["error_transfer"]
        layers = read_rows(path / "layers.csv")
        assert len(layers) == 3


def test_a_finished_trial_is_not_run_again_and_a_changed_one_is(tiny, run_dir, monkeypatch):
    trial = trial_of(tiny(), "digital-tl")
    first = run_trial(trial, run_dir)
    with monkeypatch.context() as patched:
        patched.setattr("analogtl.training.run_trial.finetune", None)  # not called
        assert run_trial(trial, run_dir)["error_final"] == first["error_final"]
    changed = trial_of(tiny(finetune={"epochs": 1}), "digital-tl")
    assert changed.id == trial.id
    assert run_trial(changed, run_dir)["error_final"] != pytest.approx(first["error_final"])


@pytest.mark.parametrize("arm", ["analog-tl", "digital-scratch"])
def test_a_trial_stopped_in_the_middle_of_an_epoch_goes_on_bit_for_bit(tiny, run_dir, arm):
    experiment = tiny(finetune={"arms": [arm], "momentum": 0.5})
    trial = trial_of(experiment, arm)
    _, whole = result(stages.finetune(trial, run_dir))
    final = run_dir.trial_path(trial.id) / "epochs.csv"
    expected = [{**row, "wall_s": "", "resumed": ""} for row in read_rows(final)]

    interrupt(trial, run_dir)
    assert (run_dir.trial_path(trial.id) / "resume").is_dir()
    _, resumed = result(stages.finetune(trial, run_dir))
    assert resumed["resumed"]
    assert not whole["resumed"]
    rows = [{**row, "wall_s": "", "resumed": ""} for row in read_rows(final)]
    assert rows == expected
    assert resumed["weights_changed"] == whole["weights_changed"]


def test_a_state_of_another_simulator_is_not_taken_up(tiny, run_dir, monkeypatch):
    trial = trial_of(tiny(), "analog-tl")
    _, whole = result(stages.finetune(trial, run_dir))
    with monkeypatch.context() as patched:
        patched.setattr(resumable.state, "FORMAT", "of another day")
        interrupt(trial, run_dir)
    _, again = result(stages.finetune(trial, run_dir))
    assert not again["resumed"]
    assert again["error_final"] == whole["error_final"]


def test_start_weights_of_a_process_that_died_are_not_taken_for_those_of_the_next(tiny, run_dir):
    trial = trial_of(tiny(), "analog-tl")
    result(stages.pretrain(trial.experiment, run_dir))
    interrupt(trial, run_dir)
    resume = run_dir.state_path(trial)
    for file in resume.glob("state*"):  # it died between the two
        file.unlink()
    assert list(resume.glob("start*"))
    other = trial_of(tiny(analog={"device": {"w_max_dtod": 0.0, "w_min_dtod": 0.0}}), "analog-tl")
    _, whole = result(stages.finetune(other, RunDir(run_dir.root, "other")))
    interrupt(other, run_dir)
    _, resumed = result(stages.finetune(other, run_dir))
    assert resumed["resumed"]
    assert resumed["weights_changed"] == whole["weights_changed"]


def test_a_layer_that_does_not_exist_is_named_before_the_pretraining(tiny, run_dir, monkeypatch):
    monkeypatch.setattr(stages, "pretrain", None)  # not called
    experiment = tiny(convert={"digital_layers": ["nothere"]})
    with pytest.raises(ExperimentError, match="no layer"):
        result(stages.convert(experiment, run_dir, seed=0))
    with pytest.raises(ExperimentError, match="no layer"):
        result(stages.finetune(trial_of(experiment, "analog-tl"), run_dir))


def test_the_limit_of_a_trial_is_none_of_the_pretraining(tiny, run_dir, monkeypatch):
    asked = []
    pretrain = stages.pretrain

    def watched(experiment, run, limits, basis):
        asked.append(limits.max_trial_hours)
        return pretrain(experiment, run, limits, basis)

    monkeypatch.setattr(stages, "pretrain", watched)
    run_trial(trial_of(tiny(), "digital-tl"), run_dir, RunLimits(max_trial_hours=5))
    assert asked == [None]


def test_a_stopped_trial_says_so_and_the_next_call_finishes(tiny, run_dir):
    trial = trial_of(tiny(), "digital-tl")
    assert run_trial(trial, run_dir, RunLimits(deadline=0))["status"] == "stopped"
    assert run_dir.record(trial.id) is None
    assert run_trial(trial, run_dir)["status"] == "done"


@pytest.mark.parametrize(
    ("settings", "limits", "reason"),
    [
        ({"lr": 1e30}, RunLimits(), "loss became"),
        ({"lr": 1.5, "momentum": 0.99}, RunLimits(stop_on_divergence=True), "diverged"),
    ],
)
def test_a_failure_is_recorded_with_its_reason_and_can_be_run_again(
    tiny, run_dir, settings, limits, reason
):
    experiment = tiny(finetune={"arms": ["digital-scratch"], **settings})
    trial = trial_of(experiment, "digital-scratch")
    row = run_trial(trial, run_dir, limits)
    assert row["status"] == "failed"
    assert reason in row["message"]
    assert run_dir.finished(trial) is None


def test_a_busy_trial_is_left_alone(tiny, run_dir):
    trial = trial_of(tiny(), "digital-tl")
    with run_dir.trial_lock(trial.id, wait=False) as held:
        assert held
        assert run_trial(trial, run_dir)["status"] == "busy"


def test_data_sets_of_different_sizes_are_refused(tiny, run_dir, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i}.png")
    experiment = tiny(
        finetune={"dataset": "image_folder", "classes": None, "arms": ["digital-tl"]},
        data={"root": str(tmp_path / "images"), "image_size": 8, "min_test_images": 8},
    )
    with pytest.raises(ExperimentError, match="in_channels is 3"):
        result(stages.finetune(trial_of(experiment, "digital-tl"), run_dir))


def test_denormals_are_flushed():
    stages.prepare_torch()
    tiny_number = torch.tensor(1e-40) * 1.0
    assert float(tiny_number) == 0.0


def test_one_thread_computes_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    stages.prepare_torch()
    assert torch.get_num_threads() == 1
    assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert os.environ["OMP_NUM_THREADS"] == "1", "and so do processes that are started"


def test_images_or_versions_that_changed_since_the_plan_are_refused(tiny, run_dir, monkeypatch):
    trial = trial_of(tiny(), "digital-tl")
    basis = replace(trial.basis, data=(trial.basis.data[0], "0" * 32))
    row = run_trial(replace(trial, basis=basis), run_dir)
    assert row["status"] == "failed"
    assert "pretrain.dataset" in row["message"]
    row = run_trial(replace(trial, basis=replace(trial.basis, torch="0.0.1")), run_dir)
    assert row["status"] == "failed"
    assert "0.0.1" in row["message"]
    assert trial.basis.torch in row["message"]
    assert run_trial(trial, run_dir)["status"] == "done"


def test_a_pretrained_model_of_other_numerics_is_not_taken(tiny, run_dir, monkeypatch):
    _, first = result(stages.pretrain(tiny(), run_dir))
    monkeypatch.setattr("analogtl.study.basis.NUMERICS", 99)
    _, other = result(stages.pretrain(tiny(), run_dir))
    assert not other.reused
    assert other.path != first.path


def test_an_experiment_that_turns_out_wrong_stops_after_two_trials_alike(
    tiny, run_dir, monkeypatch, in_process
):
    from analogtl.scheduling.sweep import run_trials
    from analogtl.training import preflight

    experiment = tiny(model={"kwargs": {"depht": 3}}, sweep={"seeds": [0, 1, 2]})
    kinds: list[str] = []
    with pytest.raises(ExperimentError, match="depht"):
        kinds.extend(update.kind for update in run_trials(Study(experiment, run_dir)))
    assert kinds == []
    monkeypatch.setattr(preflight, "preflight", lambda _needs: [])
    with pytest.raises(ExperimentError, match="depht"):
        kinds.extend(update.kind for update in run_trials(Study(experiment, run_dir)))
    assert kinds.count("failed") == 1  # the second is told as the error


BATCH_NORM = {"architecture": "resnet18", "kwargs": {"channels": [4, 4, 4, 4]}}
SMALL = {"epochs": 1, "samples_per_class": 7, "validation_fraction": 0, "batch_size": 20}


@pytest.mark.parametrize("arm", ["digital-tl", "analog-scratch"])
def test_batch_normalisation_trains_where_a_single_image_is_left_over(tiny, run_dir, arm):
    # 21 images: the last of two batches would have one, of which no variance can be taken.
    experiment = tiny(model=BATCH_NORM, pretrain=SMALL, finetune={**SMALL, "arms": [arm]})
    _, row = result(stages.finetune(trial_of(experiment, arm), run_dir))
    assert row["status"] == "done"
    epochs = read_rows(run_dir.trial_path(trial_of(experiment, arm).id) / "epochs.csv")
    assert [int(r["n_samples"]) for r in epochs if r["split"] == "train"] == [21]


@pytest.mark.parametrize("section", ["pretrain", "finetune"])
def test_batch_normalisation_over_one_image_is_refused_before_anything_is_trained(
    tiny, run_dir, section
):
    sections = {"pretrain": SMALL, "finetune": {**SMALL, "arms": ["digital-tl"]}}
    sections[section] = {**sections[section], "batch_size": 1}
    experiment = tiny(model=BATCH_NORM, **sections)
    with pytest.raises(ExperimentError, match=rf"{section}\.batch_size"):
        result(stages.finetune(trial_of(experiment, "digital-tl"), run_dir))
    assert run_dir.find_pretrained(Study(experiment, run_dir).pretrain_key) is None


def test_a_trial_says_which_share_of_its_network_is_on_arrays(tiny, run_dir):
    sizes = {"dims": [4, 4, 4, 4], "depths": [1, 1, 1, 1], "patch_size": 1}
    model = {"architecture": "convnext_atto", "kwargs": sizes}
    experiment = tiny(model=model, finetune={**SMALL, "arms": ["analog-scratch", "digital-tl"]})
    _, row = result(stages.finetune(trial_of(experiment, "analog-scratch"), run_dir))
    assert 0.4 < row["share_on_arrays"] < 0.5
    assert "conv_dw (Conv2d" in row["message"]
    _, row = result(stages.finetune(trial_of(experiment, "digital-tl"), run_dir))
    assert "share_on_arrays" not in row
    whole = trial_of(tiny(finetune={"arms": ["frozen-array"]}), "frozen-array")
    _, row = result(stages.finetune(whole, run_dir))
    assert row["share_on_arrays"] == 1
    assert "message" not in row
