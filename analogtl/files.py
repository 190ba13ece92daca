"""Files that are never left half-written, locks that end with their process, bounded reading.

Nothing is written through a link: one in the place of a file gives way to the file, and one in the
place of a folder is refused. Only folders that a user names (``--runs``, a run's own, ``--out``)
may be links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from analogtl.errors import ExperimentError, RunError

MAX_JSON = 100_000_000  # bytes; a trial's record has thousands
HALF_WRITTEN = ".analogtl-*.part"  # names of files that are being written, by anybody of ours
PATIENCE = 5.0  # seconds that a lock is waited for in silence
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends well.

    At any moment, also after a crash, either the old or the new content is there, whole.

    Raises:
        RunError: If it cannot be written (disk full, read-only, ...).
    """
    temporary = None
    prefix, suffix = HALF_WRITTEN.split("*")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
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


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object, no empty one, with a checksum of itself; see `read_sealed`."""
    text = json.dumps(data, indent=1).removesuffix("\n}")
    write_atomically(path, f'{text},{_SEAL}{_seal(text)}"\n}}\n')


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        RunError: If it is not there, or not as it was written.
    """
    check_size(path)
    try:
        text, found, seal = path.read_text(encoding="utf-8").rpartition(f",{_SEAL}")
        if not found:
            raise ValueError("no checksum: cut off, or of an earlier version")
        if seal != f'{_seal(text)}"\n}}\n':
            raise ValueError("its checksum does not match")
        content: dict[str, Any] = json.loads(f"{text}\n}}")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {error}") from None


_SEAL = '\n "seal": "'


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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


def names_in(folder: Path) -> list[str]:
    """What a folder holds, sorted; nothing if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: If it is not there, not whole, or too large to be one of ours.
    """
    check_size(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not a readable JSON file: {error}") from None


def read_text(file: Path, most: int, what: str) -> str:
    """Read a text that a user wrote, of so many bytes at most.

    Raises:
        ExperimentError: If it cannot be read, is too large for what it should be, or not UTF-8.
    """
    try:
        if (size := file.stat().st_size) > most:
            raise ExperimentError(f"{file}: {size:,} bytes is too large for {what}")
        content = file.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{file}: cannot be read: {error.strerror or error}") from None
    return decoded(content, str(file))


def decoded(content: bytes, where: str) -> str:
    """The text that bytes are.

    Raises:
        ExperimentError: If they are no UTF-8 text; it names the place and the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ExperimentError(f"{where}:{line}: not UTF-8 text; save it as UTF-8") from None


def check_size(path: Path) -> None:
    """See that a file is one, and not too large to be one of ours.

    Raises:
        RunError: If it is not there, no file, or too large.
    """
    try:
        if check_regular(path) > MAX_JSON:
            raise RunError(f"{path}: too large for a file of a run")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None


# -- links -----------------------------------------------------------------------------------------


def refuse_link(path: Path) -> None:
    """See that a path is not itself a link.

    Raises:
        RunError: If it is one.
    """
    if path.is_symlink():
        raise RunError(
            f"{path}: is a link; expected a folder of this run's own: remove the link, or write "
            "elsewhere (--runs, --out)"
        )


def below(folder: Path, *names: str) -> Path:
    """A path below a folder (which may be a link), made of plain names and through no link.

    Raises:
        RunError: If it could lie elsewhere.
    """
    for name in names:
        strange = name in ("", ".", "..") or Path(name).name != name or not name.isprintable()
        if strange or len(name.encode(errors="replace")) > 255:
            raise RunError(f"{name!r}: not a name of something in a run directory")
        folder /= name
        refuse_link(folder)
    return folder


# -- locks -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock_file(
    path: Path, *, wait: bool = True, until: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock that ends with the process, however it ends.

    Args:
        until: Asked meanwhile; when true, give up.

    Yields:
        Whether it is held.

    Raises:
        RunError: If the lock file cannot be made, or was left over on a file system where a lock
            does not end with its process.
    """
    import filelock

    refuse_link(path)
    began, told = time.monotonic(), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        while True:
            try:
                with warnings.catch_warnings():
                    # Without flock a marker file is the lock, which this module makes up for.
                    warnings.simplefilter("ignore", UserWarning)
                    lock.acquire(timeout=0.25 if wait else 0)
                break
            except filelock.Timeout:
                _refuse_left_over(lock, path)
                if not wait or until():
                    yield False
                    return
                if not told and time.monotonic() - began >= PATIENCE:
                    told = True
                    _LOG.warning("waiting for %s, which another process holds; %s", path, _REMEDY)
    except NotImplementedError as error:  # what filelock before 3.21 says of no flock
        raise RunError(f"{path}: cannot be locked: {error}; choose another folder") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be locked: {error.strerror or error}") from None
    try:
        yield True
    finally:
        lock.release()


_REMEDY = "if no other analogtl is at work there, remove that file"


def _refuse_left_over(lock: Any, path: Path) -> None:
    """See that a marker file, the lock where there is no flock, names whoever holds it.

    An owner on this machine that is gone is found by filelock, and one on another machine may be at
    work. An empty marker is what a lock from a file system with flock leaves behind, for good.
    """
    if not hasattr(lock, "pid"):  # filelock has it where a marker is the lock
        return
    with contextlib.suppress(OSError):
        about = path.stat()
        if about.st_size == 0 and time.time() - about.st_mtime >= PATIENCE:
            raise RunError(f"{path}: left over from a process that is gone; {_REMEDY}")


# -- what is damaged -------------------------------------------------------------------------------


def make_way(path: Path, damaged: Path) -> None:
    """Set aside a folder that stands where a file is to be written; see `set_aside`."""
    if path.is_dir() and not path.is_symlink():
        _LOG.warning(
            "%s: a folder where a file belongs; moved to %s", path, set_aside(path, damaged)
        )


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
    refuse_link(folder)
    for number in range(1, 10_000):
        target = folder / f"{name}.{number}"
        if not os.path.lexists(target):
            return target
    raise RunError(f"{folder}: full; look at what is in there and remove it")
