"""What judges drawn digits: a classifier that is the same every time, and Fréchet's distance."""

import numpy as np
import pytest
import torch

from analogtl.tasks.denoising import of_images
from analogtl.tasks.digit_classifier import digit_classifier, frechet_distance, judge_digits
from analogtl.tasks.images import load_task


@pytest.fixture(scope="module")
def digits():
    def pixels(split):
        return split.images.flatten(1).float() / 255

    later, earlier = (load_task("digits", classes=part) for part in ([5, 6, 7], [0, 1, 2]))
    return later, *map(pixels, (later.train, later.test, earlier.test))


def test_the_classifier_is_the_same_every_time_and_leaves_the_generator_alone():
    state = torch.random.get_rng_state()
    first, task = digit_classifier()
    digit_classifier.cache_clear()
    torch.rand(3)
    again, _ = digit_classifier()
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.random.set_rng_state(state)
    images, labels = next(task.batches(task.test, 1000, seed=0, epoch=0, shuffle=False))
    with torch.no_grad():
        assert (first(images).argmax(1) == labels).float().mean() > 0.95


def test_real_digits_are_near_and_others_are_far(digits):
    task, train, test, other = digits
    near, far = (judge_digits(some, test, task.class_names) for some in (train, other))
    assert near["in_classes"] > 0.95
    assert far["in_classes"] < 0.05
    assert far["frechet_distance"] > 20 * near["frechet_distance"]


def test_frechets_distance_of_normal_distributions_is_known():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20_000, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.array([1, 2, 2])) == pytest.approx(9)
    # Covariances s I and t I: 3 (s^(1/2) - t^(1/2))^2, within 10 standard errors.
    assert frechet_distance(a, 3 * rng.normal(size=a.shape)) == pytest.approx(12, rel=0.05)


def test_only_the_bundled_digits_are_judged(digits):
    assert of_images(digits[0], "digits").digits
    assert of_images(digits[0], "image_folder").digits is None
