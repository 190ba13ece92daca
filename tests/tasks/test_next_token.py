"""Texts: which bytes are windows, which split they are in, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F

from analogtl.errors import ExperimentError
from analogtl.tasks.inventory import take_inventory
from analogtl.tasks.next_token import load_texts
from analogtl.vocabulary import Metric, Objective

TEXT = bytes(range(1, 201))  # every byte tells where it is


def load(root, classes=None, context=8, **limits):
    limits = {"samples_per_class": None, "test_samples_per_class": None, **limits}
    limits.setdefault("validation_fraction", 0.25)
    return load_texts("text_folder", root=root, classes=classes, context=context, **limits)


def inventory(root, classes=None, dataset="text_folder", context=8):
    how = {"image_size": None, "objective": Objective.NEXT_TOKEN, "context": context}
    return take_inventory(dataset, root=root, classes=classes, **how)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "one.txt"
    file.write_bytes(TEXT)
    return file


def test_windows_follow_one_another_and_the_end_is_for_testing(file):
    task = load(file)
    starts = [set(split.starts.tolist()) for split in (task.train, task.validation, task.test)]
    assert sorted(set().union(*starts)) == [8 * n for n in range(24)]
    assert sum(map(len, starts)) == 24
    assert starts[2] == {160, 168, 176, 184}
    assert len(starts[1]) == 5
    (counted,) = inventory(file).classes
    assert (counted.train, counted.test) == (20, 4)


def test_targets_are_the_bytes_after_the_inputs(file):
    task = load(file)
    served = task.batches(task.train, 4, seed=0, epoch=1, shuffle=True)
    seen = []
    for x, y in served:
        assert torch.equal(y, x + 1)  # of this text
        assert x.shape[1] == 8
        seen += (x[:, 0] - 1).tolist()
    assert sorted(seen) == sorted(task.train.starts.tolist())
    assert seen != task.train.starts.tolist()


def test_which_windows_validate_is_by_seed_and_which_test_is_not(file):
    one, two = load(file, seed=0), load(file, seed=1)
    assert one.validation.starts.tolist() != two.validation.starts.tolist()
    assert one.test.starts.tolist() == two.test.starts.tolist()


def test_loss_and_metric_are_nats_per_byte(file):
    task = load(file)
    assert task.metric is Metric.CROSS_ENTROPY
    _, y = next(task.batches(task.test, 3, seed=0, epoch=0, shuffle=False))
    logits = torch.randn(3, 8, 256, generator=torch.Generator().manual_seed(0))
    by_hand = F.cross_entropy(logits.reshape(24, 256), y.reshape(24)).item()
    assert task.loss(logits, y).item() == pytest.approx(by_hand)
    assert task.score(task.judged(logits, y).sum().item(), 3) == pytest.approx(by_hand)
    assert task.loss(torch.zeros_like(logits), y).item() == pytest.approx(math.log(256))
    assert task.guessing == pytest.approx(math.log(256))


def test_files_of_a_folder_are_chosen_by_name(tmp_path, file):
    (tmp_path / "two.txt").write_bytes(TEXT[::-1])
    both = inventory(tmp_path)
    assert [one.name for one in both.classes] == ["one", "two"]
    (alone,) = inventory(tmp_path, "two.txt").classes
    assert alone.name == "two"
    assert inventory(tmp_path, "one").fingerprint == inventory(file).fingerprint
    assert inventory(tmp_path, "one").fingerprint != inventory(tmp_path, "two").fingerprint
    task = load(tmp_path, "two")
    x, y = next(task.batches(task.test, 1, seed=0, epoch=0, shuffle=False))
    assert torch.equal(y, x - 1)


def test_a_window_does_not_reach_into_the_next_file(tmp_path, file):
    (tmp_path / "two.txt").write_bytes(TEXT)
    task = load(tmp_path, validation_fraction=0.0)
    for split in (task.train, task.test):
        for x, y in task.batches(split, 100, seed=0, epoch=0, shuffle=False):
            assert torch.equal(y, x + 1)


def test_bundled_books_are_text():
    found = inventory(None, dataset="kjv", context=64)
    assert [one.name for one in found.classes] == ["genesis", "proverbs", "mark"]
    assert min(one.test for one in found.classes) > 100


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b" \n", "empty"), (b"\0" * 500, "zero bytes"), (b"short", "41")],
)
def test_what_is_no_text_is_refused(tmp_path, content, says):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ExperimentError, match=says) as error:
        inventory(tmp_path)
    assert len(error.value.problems) == 1


def test_places_without_text_are_refused(tmp_path):
    with pytest.raises(ExperimentError, match="no \\.txt"):
        inventory(tmp_path)
    with pytest.raises(ExperimentError, match="not exist"):
        inventory(tmp_path / "gone")
    with pytest.raises(ExperimentError, match="root"):
        inventory(None)
    (tmp_path / "one.txt").write_bytes(TEXT)
    with pytest.raises(ExperimentError, match="'one'"):
        inventory(tmp_path, "onne")
