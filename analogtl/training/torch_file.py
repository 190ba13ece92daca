"""Read the tensors of a PyTorch file; nothing that its pickle names is imported or called.

Such a file (``torch.save``, since torch 1.6) is a ZIP archive: a pickle, and the raw bytes of each
storage beside it, not compressed. The pickle is read as those of CIFAR are, by
`analogtl.tasks.pickles`; the names that make up a tensor have inert stand-ins. So memory and time
stay in proportion to the size of the file, whatever it claims.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analogtl.errors import ExperimentError
from analogtl.tasks.pickles import Inert, PlainUnpickler, RefusedError, read_pickle

PICKLE = "data.pkl"
MAX_PICKLE = 1 << 26  # bytes; a network's has some tens of thousands
MAX_DIMENSIONS = 8
# Where a training keeps its network in what it saves.
INSIDE = ("state_dict", "model_state_dict", "model")
_TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


def read_torch_file(path: Path, where: str) -> dict[str, Tensor]:
    """Read a state dict: at the top of the file, or under one of the names `INSIDE`.

    Args:
        path: A ZIP archive.
        where: What to call it in messages.

    Raises:
        ExperimentError: It is no such file, damaged, or asks for anything but tensors.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = _pickle_of(archive, where)
            folder = entry.filename.removesuffix(PICKLE)
            reader = _Unpickler(archive.read(entry), archive, folder)
            return _tensors(read_pickle(reader.load, where), where)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ExperimentError(f"{where}: not a whole PyTorch file: {error}") from None


def _pickle_of(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo:
    entries = archive.infolist()
    found = [one for one in entries if one.filename.rpartition("/")[2] == PICKLE]
    if len(found) != 1:
        raise ExperimentError(f"{where}: a ZIP archive, but not one that torch.save wrote")
    for one in entries:
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            raise ExperimentError(f"{where}: refused: compressed; torch.save does not compress")
    claimed = sum(one.file_size for one in entries)
    if claimed > Path(str(archive.filename)).stat().st_size:
        raise ExperimentError(f"{where}: refused: it claims {claimed:,} bytes, and has fewer")
    if found[0].file_size > MAX_PICKLE:
        raise ExperimentError(f"{where}: refused: its pickle has more than {MAX_PICKLE:,} bytes")
    return found[0]


class _Tensor:
    """A tensor of the pickle: a view of a storage; its state, if it is given any, is ignored."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, _: Any, storage: Any, offset: Any, shape: Any, strides: Any, *__: Any):
        if not isinstance(storage, _Storage):
            raise RefusedError("a tensor without a storage")
        numbers = [offset, *shape, *strides]
        if len(numbers) > 1 + 2 * MAX_DIMENSIONS or not all(
            isinstance(one, int) and 0 <= one < 1 << 40 for one in numbers
        ):
            raise RefusedError("a tensor of impossible shape")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def build(self) -> Tensor:
        return self.storage.values().as_strided(self.shape, self.strides, self.offset)


class _Storage:
    """The numbers of a storage, read from the archive when they are needed."""

    __slots__ = ("archive", "name", "of_type", "read")

    def __init__(self, archive: zipfile.ZipFile, name: str, of_type: torch.dtype) -> None:
        self.archive, self.name, self.of_type = archive, name, of_type
        self.read: Tensor | None = None

    def values(self) -> Tensor:
        if self.read is None:
            raw = bytearray(self.archive.read(self.name))
            size = torch.empty(0, dtype=self.of_type).element_size()
            if not raw or len(raw) % size:
                self.read = torch.empty(0, dtype=self.of_type)
            else:
                self.read = torch.frombuffer(raw, dtype=self.of_type)
        return self.read


class _Dict(dict[Any, Any]):
    """An ordered dict of the pickle, which may hang attributes on it: they are ignored."""

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int):
            raise RefusedError(f"a {type(key).__name__} for a key")
        super().__setitem__(key, value)


def _ordered(_: Any, *given: Any) -> _Dict:
    if given:
        raise RefusedError("an ordered dict that is made of something")
    return _Dict()


class _Unpickler(PlainUnpickler):
    """Knows what a state dict consists of."""

    operations = pickle.BINPERSID
    stand_ins: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): _ordered,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): lambda _, data, *__: data,
        **{("torch", f"{name}Storage"): lambda *_: None for name in _TYPES},
    }

    def __init__(self, content: bytes, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(content, "utf-8")
        self.archive, self.folder = archive, folder
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module == "torch":
            return _Type(name.removesuffix("Storage"))
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise RefusedError("something from outside the file")
        _, of_type, key, _, _ = pid
        if not (isinstance(of_type, _Type) and isinstance(key, str)):
            raise RefusedError("a storage without a type")
        name = f"{self.folder}data/{key}"
        return self.storages.setdefault(name, _Storage(self.archive, name, _TYPES[of_type.name]))


class _Type:
    """The type of a storage, which nothing can be done with."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _tensors(found: Any, where: str) -> dict[str, Tensor]:
    for name in INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping):
        raise ExperimentError(f"{where}: holds no state dict: save model.state_dict() instead")
    return read_pickle(lambda: dict(_built(found)), where)


def _built(found: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in found.items():
        if isinstance(value, _Tensor) and isinstance(name, str):
            yield name, value.build()
        elif isinstance(value, Inert | Mapping | list | tuple) or not isinstance(name, str):
            raise RefusedError(
                "it holds other things than tensors: save model.state_dict() instead"
            )
