"""Weights that others published: timm's by their tag, and those of the Hugging Face hub.

Language models come from there too, as a folder with their tokenizer.

They are looked for in the hub's cache on this machine first. Only a download goes to the network,
after one short question whether there is any: the hub's own client asks many times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analogtl.errors import ExperimentError, did_you_mean, one_line
from analogtl.vocabulary import LANGUAGE

FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository, the first one that is there
# Of a language model: all that may be needed.
PATTERNS = ("*.json", "*.safetensors", "pytorch_model*.bin")
PATIENCE = 10.0  # seconds that the hub has for its first answer
REMEDY = "or put it into the cache of Hugging Face"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, and how they want images to be normalised, where that is known."""

    path: Path
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def find_published(name: str, *, download: bool) -> WeightFile | None:
    """Find published weights, in the cache or, if need be and allowed, on the hub.

    Args:
        name: timm's, with a tag (``resnet18.a1_in1k``), or ``hf_hub:owner/name``.
        download: Whether they may be fetched.

    Returns:
        Their file; None if it would have to be downloaded.

    Raises:
        ExperimentError: There are no such weights, or they cannot be had.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository, said = _repository(name)
    cached = (try_to_load_from_cache(repository, file) for file in FILES)
    path = next((found for found in cached if isinstance(found, str)), None)
    if path is None:
        if not download:
            return None
        _see_hub(f"model.weights: {name}", "name a file of weights")
        try:
            path = _first(lambda file: hf_hub_download(repository, file))
        except Exception as error:  # of the network, the hub, the disk
            raise ExperimentError(
                f"model.weights: {name}: cannot be had: {one_line(error)}"
            ) from None
    if not said:
        said = _configured(Path(path).with_name("config.json"))
    return WeightFile(Path(path), _numbers(said.get("mean")), _numbers(said.get("std")))


def find_snapshot(name: str, *, download: bool) -> Path | None:
    """Find the folder of a language model, in the cache or, if need be and allowed, on the hub.

    Args:
        name: ``owner/name``, or a name alone.
        download: Whether it may be fetched.

    Returns:
        The folder; None if it would have to be downloaded.

    Raises:
        ExperimentError: It cannot be had.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    shown = f"model.architecture: {LANGUAGE}{name}"
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise ExperimentError(
            f"{shown}: no such folder beside the experiment, and no name that the Hugging Face hub "
            "could have"
        ) from None
    if isinstance(found, str):
        return Path(found).parent
    if not download:
        return None
    _see_hub(shown, "give the folder of a model")
    try:
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS)))
    except Exception as error:  # of the network, the hub, the disk
        raise ExperimentError(f"{shown}: cannot be had: {one_line(error)}") from None


def _repository(name: str) -> tuple[str, dict[str, Any]]:
    """The repository of weights, and what timm says of them."""
    _, colon, repository = name.partition(":")
    if colon:
        return repository, {}
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise ExperimentError(f"model.weights: {name}: timm has no such model; {hint}")
    known: Sequence[str] = timm.list_pretrained(f"{architecture}.*")
    if name not in known:
        there = f"it has {', '.join(known)}" if known else "it has none of this model"
        raise ExperimentError(f"model.weights: {name}: timm has no such weights; {there}")
    about: Any = timm.models.get_pretrained_cfg(name)
    if not about.hf_hub_id:
        raise ExperimentError(
            f"model.weights: {name}: not on the Hugging Face hub; get {about.url} and name the file"
        )
    said = {"mean": about.mean, "std": about.std}
    return about.hf_hub_id, said


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that the hub is not to be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _see_hub(shown: str, instead: str) -> None:
    """Ask the hub for an answer, once.

    Args:
        shown: The key and what it names, for the message.
        instead: What else to do.
    """
    from huggingface_hub import constants, get_session

    remedy = f"{instead}, {REMEDY}"
    if is_offline():
        where = "not in the cache, and HF_HUB_OFFLINE is set"
        raise ExperimentError(f"{shown}: {where}; {remedy}")
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # whichever client it uses
        raise ExperimentError(
            f"{shown}: not in the cache, and {constants.ENDPOINT} cannot be reached "
            f"({one_line(error)}); {remedy}"
        ) from None


def _first(get: Any) -> str:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in FILES[:-1]:
        try:
            return str(get(file))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return str(get(FILES[-1]))


def _configured(file: Path) -> dict[str, Any]:
    """What timm's ``config.json`` beside the weights says of images."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))["pretrained_cfg"]
        return about if isinstance(about, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _numbers(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(map(float, value))
    except (TypeError, ValueError):
        return None
