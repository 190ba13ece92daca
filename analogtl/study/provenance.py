"""What a result came from: the code, installed versions, the machine, the memory it took."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha1
from importlib import metadata
from pathlib import Path
from typing import Any

from analogtl import __version__

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def code_version() -> str:
    """Name the code that runs: analogtl's version and the id of its files, ``0.1.0+1a2b3c4d5e6f``.

    A checkout, an archive and an installed copy of one state have the same id, without git; it is
    another one as soon as a file of the package is.
    """
    return f"{__version__}+{tree_id(PACKAGE).hex()[:12]}"


def tree_id(folder: Path) -> bytes:
    """Compute the id that git gives a folder: ``git rev-parse COMMIT:analogtl`` for the package's.

    Left out are hidden files, compiled ones, and the experiments that an installed copy holds.
    """
    entries = {}
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in ("__pycache__", "experiments"):
            continue
        if path.is_file():
            entries[path.name] = b"100644", _git_id(b"blob", path.read_bytes())
        elif path.is_dir() and (inner := tree_id(path)) != _git_id(b"tree", b""):
            entries[f"{path.name}/"] = b"40000", inner  # git sorts folders by this name
    lines = (b"%s %s\0%s" % (m, n.rstrip("/").encode(), i) for n, (m, i) in sorted(entries.items()))
    return _git_id(b"tree", b"".join(lines))


def _git_id(kind: bytes, content: bytes) -> bytes:
    return sha1(b"%s %d\0" % (kind, len(content)) + content, usedforsecurity=False).digest()


@cache
def versions() -> dict[str, str]:
    """Installed versions of what the results depend on, without importing any of it."""
    found = {"analogtl": code_version(), "python": platform.python_version()}
    for name in (
        "aihwkit",
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "numba",
        "numpy",
        "scipy",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Where, when, with what and by which command a run was started."""
    return {
        "argv": list(argv),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "python": sys.version.split()[0],
    }


def usage() -> dict[str, Any]:
    """What this process has needed so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    if sys.platform == "darwin":
        peak //= 1024
    return {"peak_memory_mb": round(peak / 1024), "host": platform.node()}


@cache
def commit() -> str | None:
    """The commit of a source checkout of analogtl, None for an installed package."""
    here = PACKAGE.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@cache
def processor() -> str:
    """The model of the processor, e.g. ``AMD EPYC 7763 64-Core Processor``."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
