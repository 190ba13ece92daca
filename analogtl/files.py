"""Files that are never left half-written, locks that end with their process, bounded reading."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from analogtl.errors import RunError

MAX_JSON = 100_000_000  # bytes; a trial's record has thousands


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends well.

    At any moment, also after a crash, either the old or the new content is there, whole.

    Raises:
        RunError: If it cannot be written (disk full, read-only, ...).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that at any moment either the old or the new content is there, whole.

    Raises:
        RunError: If it cannot be written (disk full, read-only, ...).
    """
    with atomic_file(path) as file:
        if isinstance(content, str):  # a path may hold bytes that are no text: their escapes are
            content = content.encode(errors="backslashreplace")
        file.write(content)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(data, indent=1) + "\n")


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: If it cannot be read, or is no file: a pipe or a device would never end.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_regular(path: Path) -> int:
    """Size in bytes of a plain file.

    Raises:
        OSError: If it is a pipe, a device, a folder, or not there.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return about.st_size


def nearest_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: If it is not there, not whole, or too large to be one of ours.
    """
    try:
        if check_regular(path) > MAX_JSON:
            raise RunError(f"{path}: too large for a file of a run")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not a readable JSON file: {error}") from None


@contextlib.contextmanager
def lock_file(
    path: Path, *, wait: bool = True, until: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock that ends with the process, however it ends.

    Args:
        path: The lock file.
        wait: Wait while another process holds it.
        until: Asked meanwhile; when true, give up.

    Yields:
        Whether it is held.

    Raises:
        RunError: If the lock file cannot be made.
    """
    import filelock

    if path.is_symlink() or path.parent.is_symlink():
        raise RunError(f"{path}: is a link; expected a lock file of this run")
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                lock.acquire(timeout=0.25 if wait else 0)
                break
            except filelock.Timeout:
                if not wait or until():
                    yield False
                    return
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be written: {error.strerror or error}") from None
    try:
        yield True
    finally:
        lock.release()


def set_aside(path: Path, folder: Path) -> Path:
    """Move something damaged out of the way, keeping it for inspection; return where to.

    Raises:
        RunError: If it cannot be moved.
    """
    target = unused(folder, path.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    except OSError as error:
        raise RunError(
            f"{path}: damaged, and cannot be moved to {target}: {error.strerror or error}"
        ) from None
    return target


def unused(folder: Path, name: str) -> Path:
    """A path in a folder that nothing has yet: the name and a number.

    Raises:
        RunError: If the folder would lie outside the run, or is full.
    """
    if folder.is_symlink():
        raise RunError(f"{folder}: is a link; expected a folder of this run")
    for number in range(1, 10_000):
        target = folder / f"{name}.{number}"
        if not os.path.lexists(target):
            return target
    raise RunError(f"{folder}: full; look at what is in there and remove it")
