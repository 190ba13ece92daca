"""The complete state of a training as named tensors and JSON: saved and loaded without pickle.

aihwkit's own `load_state_dict` does not bring back the state of c-TTv2: the fast array is zeroed
and persistent weights are overwritten. Here a stock tile gets back all that its bindings reach (see
`_load_stock_state`), and its record says that it was resumed; on the fast engine all is restored.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aihwkit
import numpy as np
import safetensors
import safetensors.torch
import torch
from aihwkit.simulator.tiles.base import SimulatorTileWrapper
from torch import Tensor, nn

from analogtl.errors import RunError
from analogtl.fastsim import STATE_FORMAT, FastTile
from analogtl.files import HALF_WRITTEN, digest, read_sealed, write_sealed

Tensors = dict[str, Tensor]
Meta = dict[str, Any]

# What a state must have in common with the code that takes it up again.
FORMAT = f"training 2, fast {STATE_FORMAT}, aihwkit {aihwkit.__version__}"


def capture(model: nn.Module) -> tuple[Tensors, Meta]:
    """Collect a model's whole state: digital parameters and buffers, each tile's inner state.

    It is to be saved before the training goes on: the tensors are the model's own, as copies of a
    large network's would take as much memory once more.
    """
    tensors: Tensors = {}
    meta: Meta = {}
    seen: set[int] = set()
    for name, tensor in _digital(model).items():
        one = tensor.detach().cpu()
        storage = one.untyped_storage()
        # A file can hold neither a part of a storage nor the same one twice.
        alone = storage.nbytes() == one.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        tensors[f"digital/{name}"] = one if alone else one.clone()
    for name, tile in _tiles(model).items():
        is_fast = isinstance(tile, FastTile)
        state = tile.tile.state(copy=False) if is_fast else _stock_state(tile)
        pack(state, f"tile/{name}", tensors, meta)
    return tensors, meta


def restore(model: nn.Module, tensors: Tensors, meta: Meta) -> None:
    """Put a captured state into a model of the same structure.

    Raises:
        RunError: If the state belongs to another model.
    """
    current = _digital(model)
    saved = {n.removeprefix("digital/"): t for n, t in tensors.items() if n.startswith("digital/")}
    expected, found = ({n: t.shape for n, t in one.items()} for one in (current, saved))
    if expected != found:
        names = sorted(expected.keys() | found.keys())
        odd = [name for name in names if expected.get(name) != found.get(name)]
        raise RunError(f"the checkpoint is of another model: it differs in {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(saved[name])
    for name, tile in _tiles(model).items():
        state = unpack(f"tile/{name}", tensors, meta)
        if isinstance(tile, FastTile):
            tile.tile.load_state(state)
        else:
            _load_stock_state(tile, state)


def _digital(model: nn.Module) -> Tensors:
    """Find parameters and buffers other than the tiles' contexts."""
    contexts = {id(tile.analog_ctx) for tile in _tiles(model).values()}
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if id(tensor) not in contexts}


def _tiles(model: nn.Module) -> dict[str, SimulatorTileWrapper]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SimulatorTileWrapper)}


def _stock_state(tile: SimulatorTileWrapper) -> dict[str, Any]:
    return {
        "weights": tile.tile.get_weights().clone(),
        "hidden": tile.tile.get_hidden_parameters().clone(),
        "extra": tile.tile.dump_extra() or {},
        "learning_rate": tile.tile.get_learning_rate(),
    }


def _load_stock_state(tile: SimulatorTileWrapper, state: dict[str, Any]) -> None:
    """Put a stock tile's state back as far as aihwkit's bindings reach.

    Setting hidden parameters makes aihwkit overwrite persistent weights by the apparent ones,
    within the bounds. So the persistent weights are handed over in the apparent ones' place; the
    apparent weights of C are then written straight into the memory that the tile computes with.
    Not to be reached: the write noise on top of A (gone until a cell's next pulse), persistent
    weights beyond a bound (clipped to it), and the random streams.
    """
    names = tile.tile.get_hidden_parameter_names()
    hidden = state["hidden"].clone()
    for row, name in enumerate(names):
        persistent = name.replace("hidden_weights", "persistent_weights")
        if persistent != name and persistent in names:
            hidden[row] = hidden[names.index(persistent)]
    weights = state["weights"]
    tile.tile.set_weights(weights)
    if state["learning_rate"] is not None:
        tile.tile.set_learning_rate(state["learning_rate"])
    tile.tile.load_extra(state["extra"], False)
    tile.tile.set_hidden_parameters(hidden)
    if not torch.equal(tile.tile.get_weights(), weights):
        # The tile keeps a pointer only: the memory has to live as long as the tile does.
        memory = weights.clone().contiguous()
        tile.tile.set_shared_weights(memory)
        tile.analogtl_memory = memory
        memory.copy_(weights)


# -- nested values <-> tensors and JSON --


def pack(value: Any, name: str, tensors: Tensors, meta: Meta) -> None:
    """Store a nested value: tensors and arrays under slash-separated names, the rest as JSON."""
    meta[name] = _pack(value, name, tensors)


def _pack(value: Any, name: str, tensors: Tensors) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(v, f"{name}/{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        if len(value) > 64 and all(type(v) is float for v in value):
            tensors[name] = torch.tensor(value, dtype=torch.float64)
            return {"floats": name}
        return {"list": [_pack(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise RunError(f"cannot store {type(value).__name__} in a checkpoint ({name})")


def unpack(name: str, tensors: Tensors, meta: Meta) -> Any:
    """Read the value that `pack` stored under a name.

    Raises:
        RunError: If it is not there or not whole.
    """
    try:
        return _unpack(meta[name], tensors)
    except (KeyError, TypeError, ValueError, IndexError):
        raise RunError(f"the checkpoint has no usable {name}") from None


def _unpack(node: Any, tensors: Tensors) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "floats":
        return tensors[content].tolist()
    if kind == "dict":
        return {key: _unpack(value, tensors) for key, value in content}
    if kind == "list":
        return [_unpack(value, tensors) for value in content]
    return content


# -- files --


def save(path: Path, tensors: Tensors, meta: Meta) -> None:
    """Write a checkpoint: ``<path>.safetensors``, then ``<path>.json``, which vouches for it.

    The tensors' file carries a generation in its name, so the JSON of the last whole checkpoint
    always finds the tensors that it was written with.

    Raises:
        RunError: If it cannot be written; the last checkpoint stays.
    """
    generation = 1
    previous = None
    if path.with_suffix(".json").is_file():
        try:
            old = read_sealed(path.with_suffix(".json"))
            generation, previous = int(old["generation"]) + 1, str(old["tensors"])
        except (RunError, KeyError, TypeError, ValueError):
            previous = None
    file = path.with_name(f"{path.name}.{generation}.safetensors")
    part = path.with_name(HALF_WRITTEN.replace("*", f"{path.name}.{generation}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # left by a crash, or a link that leads elsewhere
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, part)
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        checksum = digest(part)
        os.replace(part, file)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{file}: cannot be written: {reason}") from None
    content = {"generation": generation, "tensors": file.name, "sha256": checksum, "meta": meta}
    write_sealed(path.with_suffix(".json"), content)
    if previous and previous != file.name and Path(previous).name == previous:
        path.with_name(previous).unlink(missing_ok=True)


def load(path: Path) -> tuple[Tensors, Meta] | None:
    """Read a checkpoint; None if there is none.

    Raises:
        RunError: If it is damaged.
    """
    file = path.with_suffix(".json")
    if not os.path.lexists(file):
        return None
    content = read_sealed(file)
    try:
        name, checksum, meta = content["tensors"], content["sha256"], content["meta"]
        if Path(name).name != name or not isinstance(meta, dict):
            raise ValueError("not a checkpoint")
        tensors_file = path.with_name(name)
        if digest(tensors_file) != checksum:
            raise ValueError("its checksum does not match")
        return safetensors.torch.load_file(tensors_file), meta
    except (KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{file}: damaged checkpoint: {error}") from None


def save_weights(path: Path, weights: dict[str, list[Tensor]]) -> None:
    """Write the weights on the arrays (see `programmed_weights`) as a checkpoint."""
    tensors: Tensors = {}
    meta: Meta = {}
    pack(weights, "weights", tensors, meta)
    save(path, tensors, meta)
