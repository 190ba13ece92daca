"""The weights that an experiment starts from: where they are, and a fingerprint of them.

Those of a language model are in a folder, with its configuration and its tokenizer.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError
from analogtl.files import digest
from analogtl.models.language_folder import LanguageFolder, read_folder
from analogtl.models.published import REMEDY, WeightFile, find_published, find_snapshot
from analogtl.tasks.stamps import stamp
from analogtl.tasks.tokens import BYTES, Tokens
from analogtl.vocabulary import LANGUAGE

WEIGHTS = "weights"  # beside the stages, what an experiment looks at


def find_weights(experiment: Experiment, *, download: bool) -> WeightFile | None:
    """Find the weights of an experiment that names some.

    Args:
        download: Whether published ones may be fetched, if the experiment does not forbid it.

    Returns:
        Their file; None if they would have to be downloaded.

    Raises:
        ExperimentError: If they cannot be had.
    """
    model = experiment.model
    assert model.start is not None
    if place := model.weight_files.get(model.start):
        return WeightFile(Path(place))
    if model.is_language:
        folder = find_snapshot(model.start.removeprefix(LANGUAGE), download=download)
        return WeightFile(folder) if folder else None
    return find_published(model.start, download=download)


def weights_at_hand(experiment: Experiment) -> WeightFile:
    """The file of the weights, which are downloaded if need be.

    Raises:
        ExperimentError: If they cannot be had.
    """
    found = find_weights(experiment, download=experiment.data.download)
    if found is None:
        key = "architecture" if experiment.model.is_language else "weights"
        raise ExperimentError(
            f"model.{key}: {experiment.model.start}: not in the cache, and data.download is false: "
            f"set it to true, {REMEDY}"
        )
    return found


def language_folder(experiment: Experiment) -> LanguageFolder:
    """The folder of the language model of an experiment, downloaded if need be.

    Raises:
        ExperimentError: It cannot be had, or is none.
    """
    return read_folder(weights_at_hand(experiment).path)


def tokens_of(experiment: Experiment) -> Tokens:
    """How texts become tokens for the network of an experiment.

    Raises:
        ExperimentError: As `language_folder` does.
    """
    return Tokens.of(language_folder(experiment)) if experiment.model.is_language else BYTES


def weights_fingerprint(experiment: Experiment) -> str:
    """SHA-256 of the file of the weights; of a language model, of all that it is made of.

    Raises:
        ExperimentError: If they cannot be had or read.
    """
    path = weights_at_hand(experiment).path
    try:
        if not experiment.model.is_language:
            return _digest(path, stamp([path]).text)
        files = read_folder(path).files
        found = [f"{file.name} {_digest(file, stamp([file]).text)}" for file in files]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()
    except OSError as error:
        reason = error.strerror or error
        raise ExperimentError(f"model.weights: {path}: cannot be read: {reason}") from None


@lru_cache(maxsize=64)
def _digest(path: Path, _stamp: str) -> str:
    return digest(path)
