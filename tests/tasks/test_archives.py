"""Untrusted archives: what is plain is read, what would run or write is refused."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cifar import cifar100_files, python2_pickle, write_archive, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from analogtl.errors import ExperimentError
from analogtl.tasks.archives import download, read_files
from analogtl.tasks.pickles import load_pickle

FOLDER = "cifar-100-python"
NAMES = ("train", "test", "meta")
REPEATABLE = settings(deadline=None, derandomize=True)


def only_problem(error: pytest.ExceptionInfo[ExperimentError]) -> str:
    (problem,) = error.value.problems
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize("dtype", ["u1", "i8", "<f4", ">i2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_they_were(dtype: str, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4) % 5, dtype=dtype, order=order)
    for content in (python2_pickle(array), *(pickle.dumps(array, n) for n in (2, 3, 4))):
        read = load_pickle(content, "it")
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_plain_containers_come_back_with_python_2_strings_as_bytes() -> None:
    value = {"a": [1, -2, "x" * 300], "b": (True, "y"), "c": {"d": []}}
    expected = {b"a": [1, -2, b"x" * 300], b"b": (True, b"y"), b"c": {b"d": []}}
    assert load_pickle(python2_pickle(value), "it") == expected


class Calls:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def named(module: str, name: str, args: bytes = b")") -> bytes:
    """A pickle that calls ``module.name``, which need not exist here."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + args + b"R."


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"data": x}, lambda x: [[x]]], ids=["bare", "dict", "list"]
)
def test_a_pickle_that_calls_something_is_refused_before_it_calls(
    tmp_path: Path, wrap: Any, protocol: int
) -> None:
    made = tmp_path / "made"
    for call in (Calls(os.system, f"touch {made}"), Calls(eval, f"open({str(made)!r}, 'w')")):
        with pytest.raises(
            ExperimentError, match=f"it: refused: .*{call.call[0].__name__};"
        ) as error:
            load_pickle(pickle.dumps(wrap(call), protocol), "it")
        only_problem(error)
    assert not made.exists()


FORBIDDEN = """
    os system, posix system, nt system, builtins eval, __builtin__ eval, builtins getattr,
    numpy load, numpy fromfile, numpy memmap, numpy save, numpy.core.multiarray scalar,
    numpy.core.multiarray fromfile, numpy.lib.npyio load, numpy.testing runstring,
    numpy.testing._private.utils runstring, numpy.f2py compile,
    numpy.distutils.exec_command exec_command, numpy os.system, numpy.ndarray tofile,
    numpy.core.multiarray _reconstruct.__globals__, codecs encode, _codecs decode,
    copyreg _reconstructor, torch load, analogtl.tasks.archives download
"""


@pytest.mark.parametrize("name", [name.strip() for name in FORBIDDEN.split(",")])
def test_no_other_name_is_available_not_even_numpys(name: str) -> None:
    with pytest.raises(ExperimentError, match="refused"):
        load_pickle(named(*name.split()), "it")


def test_names_of_protocol_4_are_refused_too() -> None:
    spelt = b"\x80\x04\x8c\x05numpy\x8c\x11testing.runstring\x93."
    with pytest.raises(ExperimentError, match=r"refused: .* numpy\.testing\.runstring"):
        load_pickle(spelt, "it")


@pytest.mark.parametrize(
    "array",
    [np.array([{"a": 1}, None], object), np.zeros(3, [("a", "i4"), ("b", "O")])],
    ids=["objects", "structured"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_other_than_numbers_are_refused(array: Any, protocol: int) -> None:
    with pytest.raises(ExperimentError, match=r"refused: .* array"):
        load_pickle(pickle.dumps({"data": array}, protocol), "it")


BUILD_TRICKS = {
    "state of ndarray": b"cnumpy\nndarray\n}U\x01aK\x01sb.",
    "attributes of _reconstruct": (
        b"cnumpy.core.multiarray\n_reconstruct\nN}U\x0c__defaults__NsU\x01xNs\x86b."
    ),
    "half an array": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "a bare type": b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR.",
    "a bare name": b"cnumpy\nndarray\n.",
    "new object": b"cnumpy\nndarray\n)\x81.",
    "persistent": b"Pabc\n.",
    "extension": b"\x82\x01.",
    "other encoding": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
}


@pytest.mark.parametrize("content", BUILD_TRICKS.values(), ids=BUILD_TRICKS)
def test_tricks_with_what_is_available_are_refused(content: bytes) -> None:
    with pytest.raises(ExperimentError) as error:
        load_pickle(b"\x80\x02" + content, "it")
    assert only_problem(error).startswith("it: ")
    # and the next pickle is read as if nothing had been
    np.testing.assert_array_equal(load_pickle(python2_pickle(np.arange(3)), "it"), np.arange(3))


def test_a_shape_larger_than_its_content_is_refused() -> None:
    content = python2_pickle(np.zeros((2, 2), np.uint8))
    shape, huge = b"K\x02K\x02\x86", b"J" + struct.pack("<i", 2**30)
    assert content.count(shape) == 1
    with pytest.raises(ExperimentError, match="readable pickle"):
        load_pickle(content.replace(shape, 2 * huge + b"\x86"), "it")


def test_an_absurd_memo_index_costs_nothing() -> None:
    assert load_pickle(b"\x80\x02K\x01r\xff\xff\xff\xff.", "it") == 1


@REPEATABLE
@given(st.binary(max_size=60))
def test_random_bytes_never_escape_as_another_error(content: bytes) -> None:
    with contextlib.suppress(ExperimentError):
        load_pickle(b"\x80\x02" + content, "it")


@REPEATABLE
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_flipped_byte_never_escapes_as_another_error(place: int, value: int) -> None:
    content = bytearray(python2_pickle({"data": np.arange(12), "labels": [1, 2], "n": "x"}))
    content[place % len(content)] = value
    with contextlib.suppress(ExperimentError):
        load_pickle(bytes(content), "it")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    files = {"train": b"x"}
    archive = write_archive(files, FOLDER, tmp_path / "it.tar.gz")
    for place in (archive, write_folder(files, tmp_path / FOLDER)):
        with pytest.raises(ExperimentError, match=r" test, meta$") as error:
            read_files(place, FOLDER, NAMES, "it")
        assert str(place) in only_problem(error)


def test_truncated_archives_are_told_from_complete_ones(tmp_path: Path) -> None:
    content = write_archive(cifar100_files(), FOLDER, tmp_path / "whole.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in (0, 1, 20, len(content) // 3, len(content) // 2, len(content) - 5):
        cut.write_bytes(content[:length])
        with pytest.raises(ExperimentError, match="not a complete") as error:
            read_files(cut, FOLDER, NAMES, "it")
        assert str(cut) in only_problem(error)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    cut.write_bytes(flipped)
    with pytest.raises(ExperimentError, match="not a complete"):
        read_files(cut, FOLDER, NAMES, "it")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("cifar-100-python/../../outside"),
        member("/etc/passwd"),
        member("cifar-100-python/train", tarfile.SYMTYPE, "/etc/passwd"),
        member("cifar-100-python/train", tarfile.LNKTYPE, "/etc/passwd"),
        member("cifar-100-python/train", tarfile.FIFOTYPE),
        member("cifar-100-python/train", tarfile.CHRTYPE),
    ],
    ids=["up", "inside up", "absolute", "symlink", "hard link", "fifo", "device"],
)
def test_hostile_members_are_refused_and_nothing_is_written(
    tmp_path: Path, hostile: tarfile.TarInfo
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "it.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(hostile)
    with pytest.raises(ExperimentError, match=r"refused: member") as error:
        read_files(path, FOLDER, NAMES, "it")
    only_problem(error)
    assert sorted(tmp_path.rglob("*")) == [inside, path]


def test_a_member_that_claims_to_be_huge_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "it.tar.gz"
    info = member("cifar-100-python/train")
    info.size = 1 << 40
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(ExperimentError, match="claims 1099511627776 bytes"):
        read_files(path, FOLDER, NAMES, "it")


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise KeyboardInterrupt
            return super().read(size)

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Interrupted(b"x" * 3_000_000))
    target = tmp_path / "it"
    with pytest.raises(KeyboardInterrupt):
        download("https://nowhere.invalid/it", "0" * 64, target)
    assert not target.exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_second_process_takes_what_the_first_one_fetched(tmp_path: Path) -> None:
    target = tmp_path / "it"
    target.write_bytes(b"already here")
    download("https://nowhere.invalid/it", "0" * 64, target)
    assert target.read_bytes() == b"already here"
