"""Turn texts into tokens: their bytes, or what the tokenizer of a language model makes of them.

It needs no torch. The library ``tokenizers`` comes with the extra analogtl[text].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from analogtl.errors import ExperimentError, one_line
from analogtl.files import decoded, digest
from analogtl.models.language_folder import LACKS_TEXT, LanguageFolder

if TYPE_CHECKING:  # numpy is too slow for completion
    import numpy as np
    from numpy.typing import NDArray

Ids: TypeAlias = "NDArray[np.int32]"
BYTE_VALUES = 256


@dataclass(frozen=True)
class Tokens:
    """How texts become tokens.

    Attributes:
        vocabulary: How many tokens the network knows.
        file: The tokenizer; None for bytes.
        longest: Most tokens that the network takes; None where it does not say.
    """

    vocabulary: int = BYTE_VALUES
    file: Path | None = None
    longest: int | None = None

    @classmethod
    def of(cls, folder: LanguageFolder) -> Tokens:
        """Those of a language model."""
        return cls(folder.vocabulary, folder.tokenizer, folder.longest)

    @property
    def unit(self) -> str:
        """What they are called."""
        return "tokens" if self.file else "bytes"

    @property
    def fingerprint(self) -> str:
        """Hash of the tokenizer; "" for bytes."""
        return digest(self.file) if self.file else ""

    def check(self, context: int) -> None:
        """See that a network takes so many tokens at once.

        Raises:
            ExperimentError: It does not.
        """
        if self.longest is not None and context > self.longest:
            raise ExperimentError(
                f"data.context: {context}; the network of [model] takes {self.longest} "
                f"{self.unit} at most"
            )

    def whole(self, text: bytes, where: str) -> Ids:
        """The tokens of one long text, without marks of beginning and end.

        Raises:
            ExperimentError: It is no UTF-8 text, or the tokenizer cannot be used.
        """
        if self.file is None:
            return _bytes(text)
        return self._encoded((decoded(text, where),), False)[0]

    def each(self, texts: Sequence[str], most: int) -> tuple[list[Ids], int]:
        """The tokens of each text, with the marks that the network knows; how many were cut.

        Args:
            texts: Short ones.
            most: Tokens that are kept of each.
        """
        if self.file is None:
            found = [_bytes(one.encode()) for one in texts]
            return [one[:most] for one in found], sum(len(one) > most for one in found)
        found = list(self._encoded(tuple(texts), True))
        long = [at for at, one in enumerate(found) if len(one) > most]
        tokenizer = _read(self.file, self.vocabulary)
        tokenizer.enable_truncation(most)  # which keeps the mark of the end
        try:
            for at in long:
                found[at] = _ids(tokenizer.encode(texts[at]))
        finally:
            tokenizer.no_truncation()
        return found, len(long)

    def _encoded(self, texts: tuple[str, ...], marks: bool) -> tuple[Ids, ...]:
        assert self.file is not None
        return _encode(self.file, self.fingerprint, self.vocabulary, texts, marks)


BYTES = Tokens()


@lru_cache(maxsize=8)
def _encode(
    file: Path, _fingerprint: str, vocabulary: int, texts: tuple[str, ...], marks: bool
) -> tuple[Ids, ...]:
    tokenizer = _read(file, vocabulary)
    found = tuple(map(_ids, tokenizer.encode_batch(list(texts), add_special_tokens=marks)))
    largest = max((int(one.max(initial=0)) for one in found), default=0)
    if largest >= vocabulary:
        raise ExperimentError(_misfit(file, largest + 1, vocabulary))
    return found


def _read(file: Path, vocabulary: int) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread, also after a fork
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ExperimentError(LACKS_TEXT) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # whatever its parser finds
        raise ExperimentError(f"{file}: not a tokenizer: {one_line(error)}") from None
    known = tokenizer.get_vocab_size()
    if known > vocabulary:
        raise ExperimentError(_misfit(file, known, vocabulary))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _misfit(file: Path, tokens: int, vocabulary: int) -> str:
    return (
        f"{file}: does not fit the model: it has {tokens} tokens, and vocab_size in config.json "
        f"is {vocabulary}; take both from one model"
    )


def _bytes(text: bytes) -> Ids:
    import numpy as np

    return np.frombuffer(text, np.uint8).astype(np.int32)


def _ids(encoding: Any) -> Ids:
    import numpy as np

    return np.asarray(encoding.ids, np.int32)
