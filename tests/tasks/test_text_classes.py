"""Texts with classes: where they are read from, which are for testing, and what is refused."""

import json

import pytest
import torch
from tiny_language import letters

from analogtl.errors import ExperimentError
from analogtl.tasks.inventory import take_inventory
from analogtl.tasks.text_classes import load_text_classes
from analogtl.tasks.tokens import BYTES, Tokens

ROWS = [(f"{word} number {n}", word) for n in range(10) for word in ("good", "bad")]


def load(root, **how):
    how = {"classes": None, "columns": ("text", "label"), "context": 16, "tokens": BYTES, **how}
    limits = {"samples_per_class": None, "test_samples_per_class": None, "validation_fraction": 0.0}
    return load_text_classes("text_folder", root=root, **{**limits, **how})


def inventory(root, **how):
    return take_inventory("text_folder", root=root, classes=None, image_size=None, **how)


def write(folder, form):
    """The same texts in each of the forms that are read; returns the root."""
    if form == "csv":
        text = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
        (folder / "a.csv").write_text(text)
        return folder / "a.csv"
    if form == "jsonl":
        lines = [json.dumps({"label": label, "text": text}) for text, label in ROWS]
        (folder / "a.jsonl").write_text("\n".join(lines) + "\n\n")
        return folder / "a.jsonl"
    for label in ("good", "bad"):
        mine = [text for text, of in ROWS if of == label]
        if form == "lines":
            (folder / f"{label}.txt").write_text("\n".join(mine))
        else:
            (folder / label).mkdir()
            for n, text in enumerate(mine):
                (folder / label / f"{n}.txt").write_text(text)
    return folder


def words(split):
    return [bytes(row[row >= 0].tolist()).decode() for row in split.tokens]


@pytest.mark.parametrize("form", ["csv", "jsonl", "lines", "folders"])
def test_every_form_gives_the_same_classes_and_texts(tmp_path, form):
    root = write(tmp_path, form)
    task = load(root)
    assert task.class_names == ("bad", "good")
    assert words(task.test) == ["bad number 4", "bad number 9", "good number 4", "good number 9"]
    for split in (task.train, task.test):
        for text, label in zip(words(split), split.labels.tolist(), strict=True):
            assert text.startswith(task.class_names[label])
    assert len(task.train) == 16
    assert [(one.train, one.test) for one in inventory(root).classes] == [(8, 2)] * 2


def test_a_batch_is_padded_to_its_longest_text(tmp_path):
    task = load(write(tmp_path, "csv"))
    x, y = next(task.batches(task.test, 4, seed=0, epoch=0, shuffle=False))
    assert x.shape == (4, len("good number 4"))
    assert (x >= 0).sum(1).tolist() == [12, 12, 13, 13]
    assert y.tolist() == [0, 0, 1, 1]
    assert len(task.example()) == 16


def test_a_seed_draws_the_texts_for_testing(tmp_path):
    root = write(tmp_path, "csv")
    found = [words(load(root, split_seed=seed).test) for seed in (None, 0, 0, 1)]
    assert found[1] == found[2]
    assert found[0] != found[1] != found[3]
    prints = [inventory(root, split_seed=seed).fingerprint for seed in (None, 0, 1)]
    assert len(set(prints)) == 3


def test_long_texts_are_cut_and_counted(tmp_path):
    root = write(tmp_path, "csv")
    task = load(root, context=12)
    assert max(map(len, words(task.train))) == 12
    ((why, count),) = inventory(root, context=12).left_out.items()
    assert ("12 bytes" in why, count) == (True, 10)
    assert not inventory(root, context=13).left_out


def test_a_tokenizer_keeps_its_marks_where_a_text_is_cut(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra: pip install 'analogtl[text]'")
    (tmp_path / "tokenizer.json").write_text(json.dumps(letters(marks=True)))
    tokens = Tokens(128, tmp_path / "tokenizer.json")
    short, long = tokens.each(["ab", "abcdefgh"], 6)[0]
    assert short.tolist() == [1, 97, 98, 2]
    assert long.tolist() == [1, 97, 98, 99, 100, 2]
    assert tokens.each(["ab", "abcdefgh"], 6)[1] == 1
    assert tokens.whole(b"ab", "it").tolist() == [97, 98]


def test_texts_that_are_empty_are_left_out_and_counted(tmp_path):
    root = write(tmp_path, "csv")
    root.write_text(root.read_text() + ",good\n  ,bad\n")
    assert sum(inventory(root).left_out.values()) == 2
    assert len(load(root).train) == 16


def test_the_bundled_books_are_classes():
    found = take_inventory("kjv", root=None, classes=["genesis", "mark"], image_size=None)
    assert [one.name for one in found.classes] == ["genesis", "mark"]
    assert min(one.test for one in found.classes) >= 10


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.csv", "text,labels\na,b\n", r"a.csv:2: .*label_column.*did you mean 'labels'"),
        ("a.csv", "txt,label\na,b\n", r"text_column.*'txt'|text_column.*txt, label"),
        ("a.csv", "text,label\n" + "a,x\n" * 9 + "b,\nc\n", r"a.csv:11: no label"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "text,label\n" + "a,x\n" * 9, "2 at least"),
        ("a.csv", "text,label\n" + "a,x\n" * 9 + ",y\n" * 9, "class y: 0 texts"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", '["a"]\n', "a.jsonl:1: .*object"),
        ("a.jsonl", '{"text": 5, "label": 1}\n', "a.jsonl:1: expected text"),
        ("a.txt", "one\ntwo\n", "no classes"),
    ],
)
def test_what_is_no_texts_with_classes_is_refused(tmp_path, file, content, says):
    (tmp_path / file).write_text(content)
    with pytest.raises(ExperimentError, match=says):
        load(tmp_path / file)


def test_no_utf_8_is_told_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,x\n\xff,y\n")
    with pytest.raises(ExperimentError, match=r"a.csv:3: not UTF-8"):
        load(tmp_path / "a.csv")


def test_loss_and_error_are_of_the_classes(tmp_path):
    task = load(write(tmp_path, "csv"))
    _, y = next(task.batches(task.test, 4, seed=0, epoch=0, shuffle=False))
    logits = torch.tensor([[1.0, 0.0]] * 4)
    assert task.score(task.judged(logits, y).sum().item(), 4) == 50
    assert task.balanced(task.test, task.judged(logits, y)) == 50
