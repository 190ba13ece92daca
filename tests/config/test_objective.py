"""Objectives, their networks and data sets; what does not go together is in problems.txt."""

import pytest

from analogtl.config.load import load_experiment
from analogtl.vocabulary import Metric

DENOISING = 'objective = "denoising"\n[model]\narchitecture = "denoiser_2d"\n'
POINTS = '[pretrain]\ndataset = "points"\n[finetune]\ndataset = "points"\n'


def test_what_goes_together_is_accepted(tmp_path):
    file = tmp_path / "exp.toml"
    for text in (DENOISING + POINTS, "", DENOISING + POINTS + 'classes = ["moons"]\n'):
        file.write_text(f'name = "mine"\n{text}')
        load_experiment(file)


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
