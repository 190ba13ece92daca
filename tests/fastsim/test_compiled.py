"""Kept machine code: used again while it is as it was written, compiled anew where it is not."""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import config

from analogtl import fastsim
from analogtl.fastsim import compiled as keeping
from analogtl.fastsim.compiled import compiled


def twice(x):  # in a file, as numba keeps nothing of a function without one
    return 2 * x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    keeping._tell.cache_clear()
    yield tmp_path
    keeping._tell.cache_clear()


def found_kept() -> bool:
    """Call a function as a new process would; whether its machine code was there, and was used."""
    function = compiled(twice)
    assert function(np.float32(21)) == 42
    return sum(function.stats.cache_hits.values()) == 1


def files(folder: Path, suffix: str) -> list[Path]:
    return list(folder.rglob(f"*{suffix}"))


def test_machine_code_is_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not found_kept()
    assert found_kept()
    assert not caplog.records


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 3],
    "garbage": lambda content: os.urandom(len(content)),
    "a flipped bit": flipped,
    "another pickle": lambda content: pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_machine_code_is_told_once_and_compiled_anew(
    folder: Path, caplog: pytest.LogCaptureFixture, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    found_kept()
    [file] = files(folder, suffix)
    file.write_bytes(damage(file.read_bytes()))
    assert not found_kept()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert str(folder) in record.getMessage()
    assert found_kept(), "it was kept again"
    assert len(caplog.records) == 1


def test_a_folder_in_the_place_of_a_file_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found_kept()
    [index] = files(folder, ".nbi")
    index.unlink()
    index.mkdir()
    assert not found_kept()
    assert not found_kept()
    assert any("NUMBA_CACHE_DIR" in record.getMessage() for record in caplog.records)


def test_code_of_another_numba_or_other_sources_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found_kept()
    monkeypatch.setattr(keeping, "_sources", lambda path: "changed")
    assert not found_kept()
    monkeypatch.setattr("numba.__version__", "0.0.1")
    assert not found_kept()
    assert not caplog.records


def test_what_speaks_of_classes_that_are_gone_is_no_damage(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found_kept()
    [index] = files(folder, ".nbi")
    content = pickle.dumps(numba.__version__) + b"cgone_with_older_sources\nClass\n."
    index.write_bytes(content + hashlib.sha256(content).digest())
    assert not found_kept()
    assert not caplog.records


def test_only_the_text_that_a_function_can_reach_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_PACKAGE", "engine.")
    texts = {
        "kernels": "from engine import other, streams\n",
        "streams": "from engine.numbers import mix\n",
        "numbers": "import engine.kernels\n",
        "other": "",
        "config": "from engine import kernels\n",
    }

    def stamps(folder: Path, **changed: str) -> dict[str, str]:
        folder.mkdir()
        monkeypatch.setattr(keeping, "_FOLDER", folder)
        for name, text in (texts | changed).items():
            (folder / f"{name}.py").write_text(text)
        return {name: keeping._sources(folder / f"{name}.py") for name in texts}

    before = stamps(tmp_path / "before")
    numbers, config_ = (
        stamps(tmp_path / name, **{name: texts[name] + "x = 1\n"}) for name in ("numbers", "config")
    )
    assert {n for n in texts if numbers[n] != before[n]} == set(texts) - {"other"}
    assert {n for n in texts if config_[n] != before[n]} == {"config"}


def test_without_any_folder_it_runs_and_tells(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert not found_kept()
    assert not found_kept()
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_a_disk_that_is_full_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    assert not found_kept()
    assert "No space" in caplog.text


def test_a_file_that_was_written_for_other_types_meanwhile_is_not_used(folder: Path) -> None:
    found_kept()
    file = keeping._Cache(twice)._cache_file
    [(key, name)] = file._load_index().items()
    file._save_data(name, ("another key", b"another machine code"))
    assert file.load(key) is None
    assert not found_kept()


COMPILED = {"compiled", "inner", "intrinsic", "overload"}
TEMPLATES = {"read_cells", "flush", "read_events", "update", "bring_to_now", "see"}


def marks(node: ast.FunctionDef) -> set[str]:
    """Name the decorators of a function."""
    given = (getattr(mark, "func", mark) for mark in node.decorator_list)
    return {getattr(mark, "id", "") for mark in given}


def calls_of_python(file: Path) -> Iterator[str]:
    """Name what a file's functions call that are not compiled."""
    todo: list[ast.AST] = [ast.parse(file.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef) and (
            marks(node) & COMPILED or (file.stem == "driver" and node.name in TEMPLATES)
        ):
            continue
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", ""))
        todo += ast.iter_child_nodes(node)


def test_python_calls_no_function_that_has_no_way_in() -> None:
    """numba does not refuse such a call: the process dies."""
    files = [*Path(str(fastsim.__file__)).parent.rglob("*.py")]
    without = {
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and "inner" in marks(node)
    }
    called = {name: file.name for file in files for name in calls_of_python(file)}
    assert len(without) > 30
    assert called.keys() & without == set()
