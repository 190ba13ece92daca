"""Locks where a file system has no flock, files that tell whether they are whole, and links."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from pathlib import Path

import pytest

from analogtl import files
from analogtl.errors import RunError
from analogtl.files import below, lock_file, read_sealed, write_sealed

ELSEWHERE = "4711\nanother-machine\n"  # a marker of a process that nobody here can ask for


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file in a folder on a file system without flock."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    path = tmp_path / ".locks" / "x.lock"
    path.parent.mkdir()
    return path


def test_without_flock_a_lock_still_excludes_and_ends(lock: Path) -> None:
    with lock_file(lock) as held:
        assert held
        with lock_file(lock, wait=False) as again:
            assert not again
    with lock_file(lock, wait=False) as held:
        assert held


def test_a_left_over_lock_is_refused_with_what_to_remove(lock: Path) -> None:
    lock.touch()  # what a lock on a file system with flock leaves behind
    with lock_file(lock, wait=False) as held:
        assert not held, "its owner may be about to write its name"
    os.utime(lock, (1, 1))
    for wait in (True, False):
        with pytest.raises(RunError, match="remove") as caught, lock_file(lock, wait=wait):
            pass
        assert str(lock) in str(caught.value)
    lock.unlink()
    with lock_file(lock) as held:
        assert held


def test_a_lock_of_a_process_that_is_gone_is_taken_over(lock: Path) -> None:
    lock.write_text(f"{2**22 + 1}\n{platform.node()}\n")  # above any process id
    with lock_file(lock, wait=False) as held:
        assert held


def test_who_waits_says_for_what_and_what_to_remove(
    lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lock.write_text(ELSEWHERE)
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    rounds = iter([False, False, True])
    with lock_file(lock, until=lambda: next(rounds)) as held:
        assert not held
    [record] = caplog.records
    assert str(lock) in record.getMessage()
    assert "remove" in record.getMessage()


def test_removing_the_file_lets_the_waiting_go_on(lock: Path) -> None:
    lock.write_text(ELSEWHERE)

    def until() -> bool:
        lock.unlink()
        return False

    with lock_file(lock, until=until) as held:
        assert held


def test_a_lock_that_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="No locks"), lock_file(tmp_path / "x.lock"):
        pass


def test_a_sealed_file_reads_as_it_was_written(tmp_path: Path) -> None:
    content = {"a": [1.5, None, float("inf")], "b": {"seal": "x"}}
    write_sealed(tmp_path / "x", content)
    assert read_sealed(tmp_path / "x") == content


def test_any_changed_byte_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_sealed(path, {"a": 1, "b": [2, "x"]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for changed in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        ):
            path.write_bytes(changed)
            with pytest.raises(RunError):
                read_sealed(path)


def test_only_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "b").symlink_to(tmp_path / "disk" / "a")
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert below(tmp_path / "root", "a", "x") == tmp_path / "root" / "a" / "x"
    with pytest.raises(RunError, match="link"):
        below(tmp_path / "root", "b", "x")
