"""Start a network from weights of a file: read them, and see that they are this network's.

Two kinds of file are read, told apart by their content: safetensors, and what ``torch.save`` wrote
of a state dict. Neither can run code.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import safetensors
import torch
from torch import Tensor, nn

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError, counted, one_line, printable
from analogtl.files import check_regular
from analogtl.models.language import LanguageModel
from analogtl.models.published import WeightFile
from analogtl.study.weights import weights_at_hand, weights_fingerprint
from analogtl.tasks.classification import Classification
from analogtl.tasks.images import ImageTask
from analogtl.tasks.task import Task
from analogtl.training.network import adapt
from analogtl.training.torch_file import read_torch_file

MAX_NAMED = 3  # tensors that a message names
# How what somebody took for weights begins -> what it is.
KNOWN = {
    b"\x80": "a bare pickle, or of a PyTorch before 1.6: load it there and save it again",
    b"version https://git-lfs": "the pointer of a large file, not the file: `git lfs pull` gets it",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "an array of NumPy",
    b"<": "a web page",
}


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, and what it says of itself."""

    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    about: Mapping[str, str]  # the metadata of a safetensors file


def read_weights(file: WeightFile) -> Weights:
    """Read a file of weights.

    Raises:
        ExperimentError: It is none, damaged, or asks for more than tensors.
    """
    path, where = file.path, f"model.weights: {file.path}"
    try:
        size = check_regular(path)
        with open(path, "rb") as file_opened:
            start = file_opened.read(24)
        about: dict[str, str] = {}
        if start.startswith(b"PK\x03\x04"):
            tensors = read_torch_file(path, where)
        elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
            with safetensors.safe_open(path, "pt") as opened:
                names = opened.keys()
                tensors = {name: opened.get_tensor(name) for name in names}
                about = opened.metadata() or {}
        else:
            what = next((known for head, known in KNOWN.items() if start.startswith(head)), "")
            what = f"; it is {what}" if what else "" if size else "; it is empty"
            raise ExperimentError(f"{where}: neither safetensors nor a PyTorch file{what}")
    except OSError as error:
        reason = "not a plain file" if path.exists() and not path.is_file() else error.strerror
        raise ExperimentError(f"{where}: cannot be read: {reason or error}") from None
    except safetensors.SafetensorError as error:
        raise ExperimentError(f"{where}: damaged: {one_line(error)}") from None
    mean, std = file.mean or _numbers(about, "mean"), file.std or _numbers(about, "std")
    return Weights(tensors, mean, std, about)


def _numbers(about: Mapping[str, str], name: str) -> tuple[float, ...] | None:
    try:
        return tuple(map(float, json.loads(about[name])))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def weights_of(experiment: Experiment) -> Weights:
    """The weights that an experiment starts from; trials in one process share them.

    Raises:
        ExperimentError: If they cannot be had or read.
    """
    return _read(weights_at_hand(experiment), weights_fingerprint(experiment))


@lru_cache(maxsize=1)
def _read(file: WeightFile, _fingerprint: str) -> Weights:
    return read_weights(file)


def normalised(task: Task, experiment: Experiment, *, started: bool) -> Task:
    """A task whose images are normalised as the experiment, or what it starts from, wants them.

    Args:
        task: With the statistics of its training images.
        experiment: Its keys come first, then its weights.
        started: Whether the network starts from the weights that are given, if any are.

    Raises:
        ExperimentError: If that is for another number of colour channels.
    """
    mean, std = experiment.model.mean, experiment.model.std
    source = "model.mean"
    if mean is None and started and experiment.model.start and not experiment.model.is_language:
        weights = weights_of(experiment)
        mean, std, source = weights.mean, weights.std, f"model.weights: {experiment.model.start}"
    if mean is None or std is None:
        return task
    if not isinstance(task, ImageTask):
        raise ExperimentError(f"{source}: is of images, and there are none")
    if not len(mean) == len(std) == task.in_channels:
        raise ExperimentError(
            f"{source}: images of {counted(len(mean), 'channel')} are expected, but those of the "
            f"data set have {task.in_channels}"
        )
    return replace(task, mean=tuple(mean), std=tuple(std))


def start_from(model: nn.Module, experiment: Experiment, task: Task) -> None:
    """Put the weights that an experiment names into its network for a task, where it has any.

    The head stays as it is where the file has none, or one for other classes.

    Raises:
        ExperimentError: If they cannot be had, or are not this network's; the line names tensors.
    """
    if (name := experiment.model.start) is None:
        return
    if isinstance(model, LanguageModel):
        model.load()
        return
    given = weights_of(experiment).tensors
    state, head = model.state_dict(), head_of(model, experiment, task)
    if all(one.startswith("module.") for one in given):  # of a network on several GPUs
        given = {one.removeprefix("module."): tensor for one, tensor in given.items()}
    if set(given) - head != set(state) - head:
        given = _renamed(given, model)
    optional = head | {one for one in state if one.endswith("num_batches_tracked")}
    missing = [one for one in state if one not in given and one not in optional]
    unexpected = [one for one in given if one not in state and one not in head]
    common = [one for one in state if one in given]
    other = [one for one in common if given[one].shape != state[one].shape and one not in head]
    odd = [
        one for one in common if given[one].is_floating_point() != state[one].is_floating_point()
    ]
    shapes = (f"{one} {_shape(given[one])}, not {_shape(state[one])}" for one in other)
    lists = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": list(shapes),
        "of another type": odd,
    }
    found = [f"{len(ones)} {what} ({_some(ones)})" for what, ones in lists.items() if ones]
    if found:
        raise ExperimentError(
            f"model.weights: {name}: not of the network {experiment.model.network}: "
            f"{'; '.join(found)}; of {len(state)} tensors"
        )
    fitting = {one: given[one] for one in common if given[one].shape == state[one].shape}
    # The head of other classes is no use by halves.
    if any(one in head and one not in fitting for one in state):
        fitting = {one: tensor for one, tensor in fitting.items() if one not in head}
    broken = [one for one, tensor in fitting.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ExperimentError(
            f"model.weights: {name}: numbers that are not finite: {_some(broken)}"
        )
    model.load_state_dict({**state, **fitting})


def head_of(model: nn.Module, experiment: Experiment, task: Task) -> set[str]:
    """Names of the tensors of the part that is replaced for other classes."""
    if not isinstance(task, Classification):
        return set()
    shapes = []
    with torch.random.fork_rng():
        for classes in (3, 5):
            other = replace(task, class_names=("",) * classes)
            try:
                made = adapt(copy.deepcopy(model), experiment, other)
            except ExperimentError:  # which is told where a head is replaced
                return set()
            shapes.append({name: tensor.shape for name, tensor in made.state_dict().items()})
    few, many = shapes
    return {name for name in many if few.get(name) != many[name]}


def _renamed(given: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Names of the original code as timm has them, where it knows of some."""
    rename = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if rename is None:
        return given
    try:
        found = rename(dict(given), model)
    except Exception:  # of a file that is nothing it knows
        return given
    return found if isinstance(found, dict) else given


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MAX_NAMED
    shown = ", ".join(printable(name)[:60] for name in names[:MAX_NAMED])
    return shown + (f" and {more} more" if more > 0 else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
