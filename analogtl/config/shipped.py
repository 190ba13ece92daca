"""The experiments that come with analogtl; no schema is loaded to list them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_folder() -> Path:
    """The folder of the experiments that come with analogtl."""
    inside = Path(str(resources.files("analogtl"))) / "experiments"
    return inside if inside.is_dir() else inside.parent.parent / "experiments"


def shipped_experiments() -> list[str]:
    """Names of the shipped experiments, e.g. ``quickstart`` or ``paper/fig2``."""
    folder = shipped_folder()
    files = (file.relative_to(folder) for file in folder.rglob("*.toml"))
    return sorted(f.with_suffix("").as_posix() for f in files if f.parts[0] != "results")
