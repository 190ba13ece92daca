"""Tell whether files are as they were, and remember meanwhile what was found in them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from analogtl.errors import RunError
from analogtl.files import read_json, write_json

# Two changes so close together can bear the same time: what is this young is not remembered.
_SETTLED_NS = 2_000_000_000

_remembered: dict[Path, Any] = {}  # for this process, also where nothing can be written


class Stamp(NamedTuple):
    """The state of some files: equal as long as none is changed, added, removed or renamed."""

    text: str
    settled: bool


def stamp(files: Iterable[Path]) -> Stamp:
    """Take the stamp of files: of their paths, sizes and times of change, without reading them.

    The time at which anything about a file last changed is in it beside the modification time,
    which programs set as they like.
    """
    digest, newest = hashlib.blake2b(digest_size=16), 0
    for file in files:
        digest.update(os.fsencode(file.absolute()) + b"\0")
        with contextlib.suppress(OSError):
            about = file.stat()
            digest.update(f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode())
            newest = max(newest, about.st_mtime_ns, about.st_ctime_ns)
        digest.update(b"\n")
    return Stamp(digest.hexdigest(), newest + _SETTLED_NS < time.time_ns())


def cache_folder() -> Path:
    """The user's cache folder for analogtl, whether it exists or not."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "analogtl"


def recall(name: str, found: Stamp) -> Any:
    """What was remembered under a name of files with this stamp; None if nothing was."""
    file = _file(name)
    if file not in _remembered:
        with contextlib.suppress(RunError):
            _remembered[file] = read_json(file)
    entry = _remembered.get(file)
    if not isinstance(entry, dict):
        return None
    value = entry.get("value")
    return value if entry == _entry(found, value) else None  # a damaged file is as good as none


def remember(name: str, found: Stamp, value: Any) -> None:
    """Remember JSON-able data about files with this stamp, in one file per name if possible."""
    entry = _remembered[_file(name)] = _entry(found, value)
    if found.settled:
        with contextlib.suppress(RunError):  # a cache that cannot be written
            write_json(_file(name), entry)


def _entry(found: Stamp, value: Any) -> dict[str, Any]:
    text = json.dumps([found.text, value], sort_keys=True)
    check = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return {"stamp": found.text, "value": value, "check": check}


def _file(name: str) -> Path:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / "inventories" / f"{digest}.json"
