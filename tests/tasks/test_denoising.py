"""Denoising: what is seen, what is asked for, and what sampling makes of an exact answer."""

import math

import pytest
import torch
from torch import nn

from analogtl.tasks.denoising import LEVELS, load_points, of_images, sample
from analogtl.tasks.images import load_task
from analogtl.tasks.inventory import take_inventory
from analogtl.training.loop import evaluate
from analogtl.vocabulary import Metric


@pytest.fixture(scope="module")
def points():
    limits = {"samples_per_class": 200, "test_samples_per_class": 50, "validation_fraction": 0.1}
    return load_points(classes="circle", **limits)


class Zero(nn.Module):
    """Finds no noise."""

    def forward(self, x):
        return torch.zeros(len(x), x.shape[1] - 1)


class ExactForNormal(nn.Module):
    """The best answer where examples are from N(0, 1): the noise's share of what is seen."""

    def forward(self, x):
        return torch.sin(math.pi / 2 * x[:, :1]) * x[:, 1:]


def test_what_is_seen_is_the_example_and_the_noise_in_the_shares_of_the_time(points):
    for x, noise in points.batches(points.train, 60, seed=0, epoch=1, shuffle=False):
        angle = math.pi / 2 * x[:, :1]
        clean = (x[:, 1:] - angle.sin() * noise) / angle.cos().clamp(min=0.2)
        early = x[:, 0] < 0.8
        on_circle = clean[early].norm(dim=1)
        assert on_circle.sub(2**0.5).abs().max() < 0.3  # 6 standard deviations of a point
    whole = torch.cat(
        [n for _, n in points.batches(points.train, 60, seed=0, epoch=1, shuffle=False)]
    )
    assert whole.std().item() == pytest.approx(1, abs=0.15)


def test_training_noise_is_new_in_each_epoch_and_held_out_noise_is_not(points):
    def first(split, **how):
        return next(points.batches(split, 16, seed=0, shuffle=False, **how))[1]

    assert not torch.equal(first(points.train, epoch=1), first(points.train, epoch=2))
    assert torch.equal(first(points.train, epoch=1), first(points.train, epoch=1))
    assert torch.equal(first(points.test, epoch=0), first(points.test, epoch=0))
    order = {"seed": 0, "epoch": 4, "shuffle": True}
    whole = list(points.batches(points.train, 16, **order))
    rest = list(points.batches(points.train, 16, **order, start=3))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[3:], rest, strict=True))


def test_held_out_examples_are_seen_once_at_each_time(points):
    assert len(points.test) == 50 * LEVELS
    (x, _), *_ = points.batches(points.test, len(points.test), seed=0, epoch=0, shuffle=False)
    times, counts = x[:, 0].unique(return_counts=True)
    assert len(times) == LEVELS
    assert set(counts.tolist()) == {50}


def test_who_finds_nothing_has_the_variance_of_the_noise_as_loss(points):
    score = evaluate(Zero(), points.test, points)
    assert points.metric is Metric.DENOISING
    assert score.error == pytest.approx(score.loss)
    assert score.loss == pytest.approx(1, abs=0.25)  # 5 standard errors of 800 squares
    told = points.details(Zero())
    assert len(told["by_noise"]) == LEVELS
    mean = sum(one["loss"] for one in told["by_noise"]) / LEVELS
    assert mean == pytest.approx(score.loss, rel=1e-5)


def test_samples_of_an_exact_network_have_the_distribution_of_the_examples():
    drawn = sample(ExactForNormal(), 4000, 2, seed=0)
    assert drawn.mean(0).abs().max() < 0.08  # 5 standard errors
    assert (drawn.std(0) - 1).abs().max() < 0.08
    assert torch.equal(drawn, sample(ExactForNormal(), 4000, 2, seed=0))


def test_images_become_numbers_of_unit_variance():
    images = load_task("digits", classes=[0, 1], validation_fraction=0.1)
    task = of_images(images, "digits")
    assert task.features == 64
    assert len(task.train) == len(images.train)
    assert task.train.x_ND.std().item() == pytest.approx(1, abs=0.01)


def test_shapes_have_unit_variance_and_their_own_fingerprints():
    limits = {"samples_per_class": None, "test_samples_per_class": None, "validation_fraction": 0}
    seen = set()
    for shape in ("circle", "moons", "spiral"):
        task = load_points(classes=shape, **limits)
        assert task.train.x_ND.std(0).tolist() == pytest.approx([1, 1], abs=0.25)
        found = take_inventory("points", root=None, classes=shape, image_size=None)
        assert found.classes[0].train == len(task.train)
        seen.add(found.fingerprint)
    assert len(seen) == 3
