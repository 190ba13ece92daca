"""An objective, its networks and its data sets go together, or it is said what does."""

import pytest

from analogtl.config.load import load_experiment
from analogtl.errors import ExperimentError
from analogtl.vocabulary import Metric

DENOISING = 'objective = "denoising"\n[model]\narchitecture = "denoiser_2d"\n'
POINTS = '[pretrain]\ndataset = "points"\n[finetune]\ndataset = "points"\n'


def problems(tmp_path, text):
    file = tmp_path / "exp.toml"
    file.write_text(f'name = "mine"\n{text}')
    try:
        load_experiment(file)
    except ExperimentError as error:
        return [one for one in error.problems if ": " in one and "problems" not in one]
    return []


def test_what_goes_together_is_accepted(tmp_path):
    assert problems(tmp_path, DENOISING + POINTS) == []
    assert problems(tmp_path, "") == []
    assert problems(tmp_path, DENOISING + POINTS + 'classes = ["moons"]\n') == []


@pytest.mark.parametrize(
    ("text", "key", "offers"),
    [
        ('objective = "next-token"\n', "model.architecture", "gpt_bytes"),
        ('[model]\narchitecture = "gpt_bytes"\n', "model.architecture", "swin_digits"),
        (DENOISING.replace("_2d", "_2dd") + POINTS, "model.architecture", "mean 'denoiser_2d'"),
        ('[finetune]\ndataset = "kjv"\n', "model.architecture", "hf:FOLDER"),
        (
            '[model]\narchitecture = "hf:n"\n[pretrain]\ndataset = "kjv"\n',
            "finetune.dataset",
            "kjv",
        ),
        (DENOISING + POINTS.replace("points", "kjv", 1), "pretrain.dataset", "points"),
        (DENOISING.replace("denoiser_2d", "hf:n") + POINTS, "model.architecture", "language"),
        (DENOISING + POINTS + 'augment = ["flip"]\n', "finetune.augment", "classification"),
        (DENOISING + POINTS + "label_smoothing = 0.1\n", "finetune.label_smoothing", ""),
        ('objective = "next-tokn"\n', "objective", "next-token"),
        (DENOISING + POINTS + '[report]\nmetric = "balanced-error"\n', "report.metric", "classes"),
        (DENOISING + POINTS + 'classes = "cirle"\n', "finetune.classes", "circle"),
        ('[finetune]\nclasses = ["5"]\n', "finetune.classes", "2 classes"),
    ],
)
def test_what_does_not_is_told_with_what_does(tmp_path, text, key, offers):
    found = problems(tmp_path, text)
    mine = [one for one in found if f" {key}: " in one]
    assert len(mine) == 1, found
    assert offers in mine[0]


def test_metrics_write_their_values_in_their_unit():
    assert Metric.ERROR.text(14.52) == "14.5 %"
    assert Metric.ERROR.difference(1.24) == "1.2 points"
    assert Metric.CROSS_ENTROPY.text(1.8349) == "1.835 nats per token"
    assert Metric.DENOISING.text(0.5) == "0.500"
    assert Metric.ERROR.least(2.0) == "2 points"


@pytest.mark.parametrize("name", ["desk/lm_bytes", "desk/diffusion_digits", "desk/diffusion_2d"])
def test_shipped_experiments_have_a_metric_and_margin_of_their_own(name):
    experiment = load_experiment(name)
    assert not experiment.metric.is_percent
    assert experiment.margin == experiment.metric.margin < Metric.ERROR.margin
