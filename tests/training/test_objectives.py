"""Trials of other objectives than classification: what they record, and that they resume."""

import itertools

import pytest
from probes import ended

from analogtl.errors import ExperimentError
from analogtl.files import read_sealed
from analogtl.study.columns import rule_broken
from analogtl.study.limits import RunLimits
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import stages
from analogtl.training.preflight import Need, preflight, stand_in_of
from analogtl.vocabulary import Metric

SMALL = {"width": 8, "depth": 1, "heads": 2}
TEXT = {
    "objective": "next-token",
    "model": {"architecture": "gpt_bytes", "kwargs": SMALL},
    "data": {"context": 16},
    "pretrain": {"dataset": "kjv", "classes": "genesis", "samples_per_class": 40},
    "finetune": {"dataset": "kjv", "classes": "proverbs", "samples_per_class": 40},
}
POINTS = {
    "objective": "denoising",
    "model": {"architecture": "denoiser_2d", "kwargs": {}},
    "pretrain": {"dataset": "points", "classes": "circle", "samples_per_class": 40},
    "finetune": {"dataset": "points", "classes": "moons", "samples_per_class": 40},
}
CASES = pytest.mark.parametrize(
    ("settings", "metric"), [(TEXT, Metric.CROSS_ENTROPY), (POINTS, Metric.DENOISING)]
)


@CASES
@pytest.mark.parametrize(
    "arm", ["digital-tl", "analog-tl", "frozen-array", "lora-digital", "lora-analog"]
)
def test_a_trial_is_judged_by_the_metric_of_its_objective(tiny, run_dir, settings, metric, arm):
    section = {**settings["finetune"], "test_samples_per_class": 20, "arms": [arm]}
    lora = {"lora": {"rank": 2}} if arm.startswith("lora") else {}
    experiment = tiny(**{**settings, "finetune": section, **lora})
    assert experiment.metric is metric
    (trial,) = trials_of(experiment, sweep=False)
    assert preflight([Need.of(trial)]) == []
    row = ended(stages.finetune(trial, run_dir))
    assert row["metric"] == metric
    assert row["n_classes"] is None
    epochs = read_rows(run_dir.trial_path(trial.id) / "epochs.csv")
    for one in epochs:
        assert one["metric"] == metric
        assert one["accuracy"] == ""
        if one["split"] != "train" or not experiment.finetune.label_smoothing:
            assert float(one["error"]) == pytest.approx(float(one["loss"]), rel=1e-5)
    if arm != "digital-tl":
        layers = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
        vectors = {one["tokens_per_image"] for one in layers}
        assert vectors == ({"16"} if metric is Metric.CROSS_ENTROPY else {"1"})
    told = read_sealed(run_dir.trial_path(trial.id) / "trial.json").get("details", {})
    assert bool(told.get("samples")) == (metric is Metric.DENOISING)
    assert "frechet_distance" not in row


def test_what_a_denoiser_of_digits_draws_is_judged_in_the_tables(tiny, run_dir):
    digits = {"dataset": "digits", "classes": [5, 6], "samples_per_class": 20}
    few = {"test_samples_per_class": 15, "epochs": 1}
    experiment = tiny(
        objective="denoising",
        model={"architecture": "denoiser_digits", "kwargs": {"hidden": [8]}},
        pretrain=digits | few,
        finetune=digits | few | {"arms": ["digital-tl"]},
    )
    (trial,) = trials_of(experiment, sweep=False)
    row = ended(stages.finetune(trial, run_dir))
    assert row["frechet_distance"] > 0
    assert 0 <= row["in_classes"] <= 1


@CASES
def test_a_trial_that_was_interrupted_ends_as_if_it_had_not_been(
    tiny, run_dir, tmp_path, settings, metric
):
    section = {**settings["finetune"], "test_samples_per_class": 20, "arms": ["analog-tl"]}
    (trial,) = trials_of(tiny(**{**settings, "finetune": section}), sweep=False)
    ended(stages.pretrain(trial.experiment, run_dir))
    steps = itertools.count()
    with pytest.raises(stages.Stopped):
        ended(stages.finetune(trial, run_dir, RunLimits(stop=lambda: next(steps) >= 7)))
    resumed = ended(stages.finetune(trial, run_dir))
    assert resumed["resumed"]
    whole = ended(stages.finetune(trial, type(run_dir)(tmp_path / "other", "tiny")))
    for name in ("error_transfer", "error_final", "error_best", "error_validation"):
        assert resumed[name] == whole[name]


def test_what_is_planned_for_is_what_is_learned_from(tiny):
    for settings in (TEXT, POINTS):
        experiment = tiny(**settings)
        task, real = stand_in_of(experiment, "finetune"), stages.task_of(experiment, "finetune")
        assert task.sizes == real.sizes
        for split in ("train", "validation", "test"):
            assert len(getattr(task, split)) == len(getattr(real, split))
        assert task.example().shape == real.example().shape


def test_keys_of_images_know_nothing_of_objectives_and_those_of_text_do(tiny):
    (image,) = trials_of(tiny(), sweep=False)[:1]
    assert image.settings()["data"] == {"image_size": None}
    assert "objective" not in image.settings()
    (text,) = trials_of(tiny(**TEXT), sweep=False)[:1]
    (longer,) = trials_of(tiny(**{**TEXT, "data": {"context": 32}}), sweep=False)[:1]
    assert text.settings()["objective"] == "next-token"
    assert text.key != longer.key
    assert text.pretrain_key != longer.pretrain_key


def test_contexts_or_sizes_that_differ_between_stages_are_refused(tiny):
    wrong = {**POINTS, "finetune": {"dataset": "digits", "classes": [5, 6]}}
    (trial,) = trials_of(tiny(**wrong), sweep=False)[:1]
    with pytest.raises(ExperimentError, match="features"):
        preflight([Need.of(trial)])


def test_a_loss_above_a_hundred_is_no_error_in_percent():
    row = {"arm": "analog-tl", "error": 250.0}
    assert rule_broken(row)
    assert not rule_broken({**row, "metric": "denoising-loss"})
    assert rule_broken({**row, "metric": "error"})
