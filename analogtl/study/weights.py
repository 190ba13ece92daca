"""The weights that an experiment starts from: where they are, and a fingerprint of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError
from analogtl.files import digest
from analogtl.models.published import WeightFile, find_published
from analogtl.tasks.stamps import stamp

WEIGHTS = "weights"  # beside the stages, what an experiment looks at


def find_weights(experiment: Experiment, *, download: bool) -> WeightFile | None:
    """Find the weights of an experiment that names some.

    Args:
        experiment: As written.
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
    return find_published(model.start, download=download)


def weights_at_hand(experiment: Experiment) -> WeightFile:
    """The file of the weights, which are downloaded if need be.

    Raises:
        ExperimentError: If they cannot be had.
    """
    found = find_weights(experiment, download=experiment.data.download)
    if found is None:
        raise ExperimentError(
            f"model.weights: {experiment.model.start}: not in the cache, and data.download is false"
        )
    return found


def weights_fingerprint(experiment: Experiment) -> str:
    """SHA-256 of the file of the weights.

    Raises:
        ExperimentError: If they cannot be had or read.
    """
    path = weights_at_hand(experiment).path
    try:
        return _digest(path, stamp([path]).text)
    except OSError as error:
        reason = error.strerror or error
        raise ExperimentError(f"model.weights: {path}: cannot be read: {reason}") from None


@lru_cache(maxsize=64)
def _digest(path: Path, _stamp: str) -> str:
    return digest(path)
