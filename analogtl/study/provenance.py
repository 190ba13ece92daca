"""What a result came from: installed versions, the commit, the machine, the memory it took."""

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
from importlib import metadata
from pathlib import Path
from typing import Any

from analogtl import __version__


@cache
def versions() -> dict[str, str]:
    """Installed versions of what the results depend on, without importing any of it."""
    found = {"analogtl": __version__, "python": platform.python_version()}
    for name in ("aihwkit", "torch", "torchvision", "timm", "numba", "numpy", "scipy"):
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
            "processor": _processor(),
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
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
