"""Networks of transformers: built, loaded, frozen; what arrays hold of them, and what they see."""

import pytest
import torch
from tiny_language import tiny_language
from torch import nn

from analogtl.crossbar.survey import survey
from analogtl.errors import ExperimentError
from analogtl.models.language import build_language
from analogtl.models.language_folder import read_folder

NEXT = {"context": 12, "vocabulary": 128}
CLASSES = {**NEXT, "n_classes": 3}
KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama"])


def build(folder, sizes=NEXT, **kwargs):
    torch.manual_seed(5)
    return build_language(read_folder(folder), kwargs=kwargs, sizes=sizes)


def tokens(rows=3, length=12):
    return torch.randint(32, 128, (rows, length), generator=torch.Generator().manual_seed(0))


def padded():
    """Texts of 12, 7 and 3 tokens."""
    x = tokens()
    x[1, 7:] = -1
    x[2, 3:] = -1
    return x


@KINDS
def test_weights_of_the_folder_give_what_transformers_computes(tmp_path, kind):
    model = build(tiny_language(tmp_path, kind))
    before = model.eval()(tokens())
    model.load()
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    found = model(tokens())
    assert torch.allclose(found, own(tokens()).logits, atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-3)


def test_layers_of_gpt2_go_onto_arrays_and_its_head_does_not(tmp_path):
    tiny_language(tmp_path, "gpt2")
    found = survey(build(tmp_path), tokens())
    names = {name.rpartition("h.")[2] for name in found.arrays}
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"{block}.{part}" for block in (0, 1) for part in parts}
    assert {layer.vectors for layer in found.arrays.values()} == {12}
    shared = {part.name.rpartition(".")[2] for part in found.digital}
    assert shared == {"wte", "lm_head"}
    asked = survey(build(tmp_path, tie_word_embeddings=False, analog_head=True), tokens())
    assert any(name.endswith("lm_head") for name in asked.arrays)
    untied = survey(build(tmp_path, tie_word_embeddings=False), tokens())
    assert [part.name for part in untied.digital] == ["body.lm_head"]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "own"])
def test_padding_changes_nothing_and_reaches_no_linear_layer(tmp_path, kind, pooling):
    model = build(tiny_language(tmp_path, kind), CLASSES, pooling=pooling).eval()
    x = padded()
    seen = []
    for layer in model.body.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _l, args, _y: seen.append(len(args[0])))
    together = model(x)
    assert set(seen) - {3} == {12 + 7 + 3}  # and what sees a vector for each text
    assert len(seen) == sum(isinstance(one, nn.Linear) for one in model.body.modules())
    alone = torch.cat([model(row[row >= 0][None]) for row in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_vectors_of_a_layer_are_the_tokens_without_padding(tmp_path):
    model = build(tiny_language(tmp_path, "bert"), CLASSES)
    vectors = {layer.vectors for layer in survey(model, padded()).arrays.values()}
    assert vectors == {(12 + 7 + 3) // 3}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_all_but_the_last_blocks_can_be_frozen(tmp_path, kind, blocks):
    model = build(tiny_language(tmp_path, kind), CLASSES, trainable_blocks=blocks)
    model.reset_classifier(4)
    model(tokens()).sum().backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert {f".{block}." for block in (0, 1) for n in trained if f".{block}." in n} == {
        f".{block}." for block in range(2 - blocks, 2)
    }
    assert not any("embed" in n or ".wte" in n or ".wpe" in n for n in trained)
    assert {"head.weight", "head.bias"} <= trained
    if blocks:
        assert (
            len(survey(model, tokens()).arrays) == blocks * {"bert": 6, "gpt2": 4, "llama": 7}[kind]
        )


@pytest.mark.parametrize("pooling", ["mean", "own"])
def test_a_new_head_leaves_the_rest_as_it_is(tmp_path, pooling):
    model = build(tiny_language(tmp_path, "bert"), CLASSES, pooling=pooling)
    model.load()
    before = {n: p.clone() for n, p in model.body.base_model.state_dict().items()}
    model.reset_classifier(5)
    assert model.eval()(padded()).shape == (3, 5)
    after = model.body.base_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"trainable_blocks": 3}, "0 to 2"),
        ({"trainable_block": 1}, "trainable_blocks"),
        ({"pooling": "max"}, "mean or own"),
        ({"n_embd": 17}, "17"),
    ],
)
def test_what_the_network_does_not_take_is_told_in_a_line(tmp_path, kwargs, says):
    with pytest.raises(ExperimentError, match=says) as error:
        build(tiny_language(tmp_path, "gpt2"), **kwargs)
    assert len(error.value.problems) == 1


def test_an_encoder_does_not_predict_what_it_sees(tmp_path):
    with pytest.raises(ExperimentError, match="causal"):
        build(tiny_language(tmp_path, "bert"))


def test_weights_of_another_network_are_refused(tmp_path):
    tiny_language(tmp_path / "one", "gpt2")
    tiny_language(tmp_path / "two", "llama")
    (tmp_path / "two" / "model.safetensors").rename(tmp_path / "one" / "model.safetensors")
    with pytest.raises(ExperimentError, match="lacks"):
        build(tmp_path / "one").load()
    (tmp_path / "one" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ExperimentError, match="cannot be read") as error:
        build(tmp_path / "one").load()
    assert len(error.value.problems) == 1


def test_a_folder_that_is_no_model_is_told_what_it_lacks(tmp_path):
    with pytest.raises(ExperimentError, match="not a folder"):
        read_folder(tmp_path / "gone")
    for file, content in (
        ("config.json", '{"vocab_size": 5}'),
        ("model.safetensors", ""),
        ("tokenizer.json", "{}"),
    ):
        with pytest.raises(ExperimentError, match=file) as error:
            read_folder(tmp_path)
        assert len(error.value.problems) == 1
        (tmp_path / file).write_text(content)
    assert read_folder(tmp_path).vocabulary == 5
    for content, says in (("{}", "vocab_size"), ("[", "cannot be read"), ("[]", "vocab_size")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ExperimentError, match=says):
            read_folder(tmp_path)
