"""Trials of language models: what they record, and that nothing is asked of a network."""

import shutil

import pytest
from probes import ended
from tiny_language import tiny_language

from analogtl.config.load import load_experiment
from analogtl.errors import ExperimentError
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training import stages
from analogtl.training.preflight import Need, planned_layers, preflight

FILE = """
name = "tiny"
objective = "next-token"
[model]
architecture = "hf:net"
[data]
context = 8
root = "text.txt"
[pretrain]
dataset = "text_folder"
epochs = 0
[finetune]
dataset = "text_folder"
epochs = 1
lr = 0.05
samples_per_class = 40
test_samples_per_class = 30
"""
TEXT = "In the beginning was a text, and the text was short. " * 40


@pytest.fixture
def load(tmp_path):
    """Reads the experiment of a folder with a tiny GPT-2 in it."""
    tiny_language(tmp_path / "net", "gpt2")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "exp.toml").write_text(FILE)
    return lambda *settings: load_experiment(tmp_path / "exp.toml", settings)


@pytest.mark.parametrize("arm", ["digital-tl", "analog-tl", "digital-scratch"])
def test_a_trial_of_a_decoder_is_judged_in_nats_per_token(load, run_dir, arm):
    (trial,) = trials_of(load(f"finetune.arms={arm}"), sweep=False)
    assert preflight([Need.of(trial)]) == []
    row = ended(stages.finetune(trial, run_dir))
    assert row["metric"] == "cross-entropy"
    assert row["transformers"]
    assert row["timm"] == ""
    assert 2 < row["error_final"] < row["error_transfer"] < 6
    if arm == "analog-tl":
        layers = read_rows(run_dir.trial_path(trial.id) / "layers.csv")
        assert {one["tokens_per_image"] for one in layers} == {"8"}
        assert len(layers) == 8


def test_arms_start_from_the_weights_that_the_folder_has(load, run_dir):
    found = {}
    for arm in ("digital-tl", "digital-scratch"):
        (trial,) = trials_of(load(f"finetune.arms={arm}", "finetune.epochs=0"), sweep=False)
        found[arm] = ended(stages.finetune(trial, run_dir))["error_final"]
        assert len(trial.basis.weights) == 64
    assert found["digital-tl"] != found["digital-scratch"]


def test_other_weights_or_another_tokenizer_are_another_basis(load, tmp_path):
    def key(folder="net"):
        settings = ("finetune.arms=digital-scratch", f"model.architecture=hf:{folder}")
        return trials_of(load(*settings), sweep=False)[0].key

    first = key()
    shutil.copytree(tmp_path / "net", tmp_path / "the.same")
    assert key("the.same") == first
    tokenizer = tmp_path / "net" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    second = key()
    tiny_language(tmp_path / "net", "gpt2", initializer_range=0.1)
    assert len({first, second, key()}) == 3


def test_frozen_blocks_are_on_no_array_and_a_key_says_how_many(load):
    for blocks, layers in ((1, 4), (2, 8)):
        surveyed, _ = planned_layers(load(f"model.kwargs.trainable_blocks={blocks}"))
        assert len(surveyed.arrays) == layers
        assert "wte" in str(surveyed)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["data.context=33"], "32 tokens"),
        (["model.architecture=hf:gone"], "gone.*(cache|HF_HUB_OFFLINE)"),
        (["model.architecture=hf:/gone/x/y"], "no such folder"),
        (["model.architecture=hf:text.txt"], "not a folder"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(load, monkeypatch, settings, says):
    def called(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", called)
    with pytest.raises(ExperimentError, match=says) as error:
        preflight([Need(load(*settings), ("finetune",), True)])
    assert len(error.value.problems) == 1


def test_a_tokenizer_with_more_tokens_than_the_model_does_not_fit(load, tmp_path):
    tiny_language(tmp_path / "other", "gpt2", vocab_size=100)
    (tmp_path / "net" / "config.json").write_bytes(
        (tmp_path / "other" / "config.json").read_bytes()
    )
    with pytest.raises(ExperimentError, match=r"128 tokens.*100"):
        preflight([Need(load(), ("finetune",), True)])
    (tmp_path / "net" / "tokenizer.json").write_text("{}")
    with pytest.raises(ExperimentError, match="not a tokenizer"):
        preflight([Need(load(), ("finetune",), True)])


def test_without_the_extra_a_line_says_how_to_get_it(load, monkeypatch):
    import sys

    experiment = load()
    for name in ("transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExperimentError, match=r"analogtl\[text\]") as error:
        preflight([Need(experiment, ("finetune",), True)])
    assert len(error.value.problems) == 1
