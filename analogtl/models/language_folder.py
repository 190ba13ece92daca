"""The folder of a language model, as transformers writes it: what it says, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analogtl.errors import ExperimentError, one_line
from analogtl.files import check_regular

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # the first kind that is there counts
LACKS_TEXT = (
    "model.architecture: a language model needs the extra text: pip install 'analogtl[text]'"
)
HELP = "`analogtl explain objectives` tells how to get one"
MAX_CONFIG = 10_000_000  # bytes


@dataclass(frozen=True)
class LanguageFolder:
    """A folder that holds a language model and its tokenizer.

    Attributes:
        config: What ``config.json`` says.
        weights: Its files of weights.
    """

    path: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer, in the format of the library tokenizers."""
        return self.path / TOKENIZER

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that results depend on."""
        return (self.path / CONFIG, self.tokenizer, *self.weights)

    @property
    def vocabulary(self) -> int:
        """How many tokens the network knows."""
        return int(self.config["vocab_size"])

    @property
    def longest(self) -> int | None:
        """How many tokens the network takes at once, where it says so."""
        names = ("max_position_embeddings", "n_positions")
        said = (self.config.get(name) for name in names)
        return next((one for one in said if isinstance(one, int) and one > 0), None)


def read_folder(path: Path) -> LanguageFolder:
    """Look at the folder of a language model.

    Raises:
        ExperimentError: It is none; the line says what it lacks.
    """
    where = f"model.architecture: {path}"
    if not path.is_dir():
        raise ExperimentError(f"{where}: not a folder; expected that of a language model: {HELP}")
    try:
        size = check_regular(path / CONFIG)
        if size > MAX_CONFIG:
            raise ValueError(f"{size:,} bytes")
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"{where}: holds no model: no {CONFIG} in it; {HELP}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExperimentError(f"{where}/{CONFIG}: cannot be read: {one_line(error)}") from None
    vocabulary = config.get("vocab_size") if isinstance(config, dict) else None
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise ExperimentError(
            f"{where}/{CONFIG}: has no vocab_size; expected an encoder of texts or a causal decoder"
        )
    weights: tuple[Path, ...] = ()
    for pattern in WEIGHTS:
        weights = weights or tuple(sorted(path.glob(pattern)))
    if not weights:
        raise ExperimentError(
            f"{where}: no weights in it; expected model.safetensors beside {CONFIG}: {HELP}"
        )
    if not (path / TOKENIZER).is_file():
        raise ExperimentError(
            f"{where}: no {TOKENIZER} in it; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return LanguageFolder(path, config, weights)
