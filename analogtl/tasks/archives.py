"""Read untrusted archives in memory, within bounds, and fetch official ones.

CIFAR comes as a ``.tar.gz``. What is in one can make a naive reader overwrite files, or fill memory
or time from a few kilobytes, so the headers are read here one by one and nothing is extracted.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from analogtl.errors import ExperimentError
from analogtl.files import check_regular, lock_file

# CIFAR has 186 MB in at most seven files: what is far beyond is no data set but a bomb.
MAX_SIZE = 1 << 28
MAX_MEMBERS = 1000
_BLOCK = 512  # bytes; a tar consists of such
_CHUNK = 1 << 20
_TIMEOUT_S = 30
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
# Headers about the next header: long names and exact times. None is needed for CIFAR's files.
_ABOUT_THE_NEXT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)


class _RefusedError(Exception):
    """The archive holds what no data set does."""


def read_files(place: Path, folder: str, names: Sequence[str], what: str) -> dict[str, bytes]:
    """Read ``folder``'s files ``names``, from ``place``: that folder itself or a ``.tar.gz`` of it.

    Nothing is extracted to disk. A tar that holds links, devices or paths that leave it is refused,
    and so is what unpacks to more than `MAX_SIZE` bytes.

    Args:
        place: The extracted folder, or the archive.
        folder: What the folder is called inside the archive.
        what: The data set, for messages.

    Raises:
        ExperimentError: a file is missing or no file, too large, or the archive is damaged.
    """
    try:
        if place.is_dir():
            found = _read_folder(place, names)
        else:
            check_regular(place)
            with gzip.open(place) as stream:
                found = _read_tar(stream, {f"{folder}/{name}": name for name in names})
    except _RefusedError as error:
        raise ExperimentError(f"{what}: {place}: refused: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"{place} is not a complete .tar.gz archive ({error}); remove or replace it"
        raise ExperimentError(f"{what}: {problem}") from error
    except OSError as error:
        reason = f"cannot read {error.filename or place}: {error.strerror}"
        raise ExperimentError(f"{what}: {reason}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise ExperimentError(f"{what}: {place} lacks {', '.join(missing)}")
    return found


def _read_folder(place: Path, names: Sequence[str]) -> dict[str, bytes]:
    files = {name: place / name for name in names if (place / name).exists()}
    size = sum(map(check_regular, files.values()))
    if size > MAX_SIZE:
        raise _RefusedError(f"{size} bytes; at most {MAX_SIZE} were expected")
    return {name: file.read_bytes() for name, file in files.items()}


def _read_tar(stream: gzip.GzipFile, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Read members of a tar, path -> name to return it under; check all the others."""
    found = {}
    left = MAX_SIZE

    def read(size: int) -> bytes:
        nonlocal left
        left -= size
        if left < 0:
            raise _RefusedError(f"it unpacks to more than {MAX_SIZE} bytes")
        return stream.read(size)

    for number in range(MAX_MEMBERS):
        block = read(_BLOCK)
        if not block.strip(b"\0") and (block or number):
            break
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        path = PurePosixPath(member.name)
        whose = f"member {member.name[:100]!r}"
        if not 0 <= member.size <= MAX_SIZE:
            raise _RefusedError(f"{whose} claims {member.size} bytes")
        if member.isdir():
            member.size = 0  # the room that it needs on disk, not in the archive
        elif member.type not in (*_FILES, *_ABOUT_THE_NEXT):
            raise _RefusedError(f"{whose} is neither a file nor a folder")
        if member.type not in _ABOUT_THE_NEXT and (path.is_absolute() or ".." in path.parts):
            raise _RefusedError(f"{whose} would leave the archive's folder")
        content = read(member.size)
        if len(content) < member.size:
            raise EOFError(f"it ends within {member.name[:100]!r}")
        read(-member.size % _BLOCK)
        if member.type in _FILES and (name := wanted.get(str(path))) is not None:
            found[name] = content
    else:
        raise _RefusedError(f"it has more than {MAX_MEMBERS} members")
    while read(_BLOCK):  # to the end, where gzip compares its checksum
        pass
    return found


def download(url: str, sha256: str, target: Path) -> None:
    """Fetch ``url`` to ``target``, which then exists complete and with the right checksum, or not.

    Several processes may ask at once: one fetches, the others wait and find it there.

    Raises:
        OSError: no network, no room, no permission, or another content than expected.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(target.with_name(f"{target.name}.lock")):
        if target.exists():
            return
        part = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        try:
            with (
                urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source,
                part.open("wb") as sink,
            ):
                while chunk := source.read(_CHUNK):
                    if sink.tell() > MAX_SIZE:
                        raise OSError(f"more than {MAX_SIZE} bytes")
                    digest.update(chunk)
                    sink.write(chunk)
            if digest.hexdigest() != sha256:
                raise OSError("its checksum is not the official one")
            os.replace(part, target)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
