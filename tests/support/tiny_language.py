"""Language models small enough for a test: random weights in a folder, letters for tokens."""

import json
from pathlib import Path

import pytest

VOCABULARY = 128


def tiny_language(folder: Path, kind: str, **config) -> Path:
    """Write a model of a kind, ``gpt2``, ``bert`` or ``llama``; skip where transformers is not."""
    reason = "needs the extra: pip install 'analogtl[text]'"
    transformers = pytest.importorskip("transformers", reason=reason)
    import torch

    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    common = {"vocab_size": VOCABULARY, **marks, **config}
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
    }
    made = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_inner=24, n_positions=32, **common
        ),
        "bert": lambda: transformers.BertConfig(**sizes, **common),
        "llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=1, **common),
    }[kind]()
    auto = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    transformers.logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto.from_config(made).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(letters(marks=kind == "bert")))
    return folder


def letters(size: int = VOCABULARY, *, marks: bool = False) -> dict:
    """A tokenizer in the format of the library tokenizers, by which each letter is a token."""
    vocab = {f"<{code}>" if code < 32 else chr(code): code for code in range(size)}
    ends = {
        name: {"id": name, "ids": [id], "tokens": [name]}
        for name, id in zip(("<1>", "<2>"), (1, 2), strict=True)
    }
    text = {"Sequence": {"id": "A", "type_id": 0}}
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ends]
    post = {
        "type": "TemplateProcessing",
        "single": [around[0], text, around[1]],
        "pair": [around[0], text, around[1]],
        "special_tokens": ends,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": post if marks else None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<3>"},
    }
