"""What Tab offers. Each function answers in milliseconds: no torch, no pandas, no schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

import typer

from analogtl.vocabulary import Algorithm, Network

Offers = list[tuple[str, str]]  # word, and what it stands for


def _starting(incomplete: str, offers: Iterable[tuple[str, str]]) -> Offers:
    return [(word, help) for word, help in offers if word.startswith(incomplete)]


def experiments(incomplete: str) -> Offers:
    """Shipped experiments, and the experiment files below what has been typed so far."""
    from analogtl.config.shipped import shipped_experiments

    shipped = ((name, "shipped with analogtl") for name in shipped_experiments())
    return [*_files(incomplete), *_starting(incomplete, shipped)]


def files(incomplete: str) -> Offers:
    """Experiment files below what has been typed so far."""
    return list(_files(incomplete))


def _files(incomplete: str) -> Iterator[tuple[str, str]]:
    folder, _, start = incomplete.rpartition("/")
    here = Path(folder or ("/" if incomplete.startswith("/") else "."))
    prefix = incomplete[: len(incomplete) - len(start)]
    try:
        entries = sorted(here.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.suffix == ".toml" and entry.name != "pyproject.toml":
            yield prefix + entry.name, "experiment file"
        elif start and entry.is_dir():
            yield f"{prefix}{entry.name}/", "folder"


def axes(incomplete: str) -> Offers:
    """Sweep axes, and dotted keys once a dot is typed."""
    from analogtl.vocabulary import AXES

    named = _starting(incomplete, ((axis.name, axis.label) for axis in AXES.values()))
    return named or _keys(incomplete)


def settings(incomplete: str) -> Offers:
    """Dotted keys of the experiment, each with the ``=`` that comes next."""
    return [(f"{key}=", help) for key, help in _keys(incomplete)]


def _keys(incomplete: str) -> Offers:
    # The reference is made from the schema, and reading it takes no pydantic.
    text = resources.files("analogtl").joinpath("explain/keys.md").read_text(encoding="utf-8")
    keys = re.findall(r"^- \*\*`([a-z_.]+)`\*\* \([^)]*\): (.*)$", text, re.MULTILINE)
    offers = [(key, meaning.replace("`", "")) for key, meaning in keys]
    return _starting(incomplete, [*offers, *_aihwkit_keys(incomplete)])


def _aihwkit_keys(incomplete: str) -> Iterator[tuple[str, str]]:
    """aihwkit's parameters, once the section is typed: they are many."""
    from analogtl.config import catalog

    section, _, _ = incomplete.rpartition(".")
    if section in ("analog.device", "analog.slow_device"):
        names = {name for preset in catalog.presets() for name in catalog.device_parameters(preset)}
    elif section == "analog.compound":
        names = {n for one in Algorithm for n in catalog.compound_parameters(one)}
    else:
        last = section.removeprefix("analog.")
        kinds = {"forward": "io", "backward": "io", "transfer_forward": "io", "mapping": "mapping"}
        kinds |= {"update": "update", "transfer_update": "update"}
        names = set(catalog.catalog()[kinds[last]]) if last in kinds else set()
    for name in sorted(names - {"apply_write_noise_on_set"}):
        yield f"{section}.{name}", "aihwkit parameter"


def presets(incomplete: str) -> Offers:
    """Device presets, and aihwkit's plain device classes once something of one is typed."""
    from analogtl.config import catalog

    offers = [(name, catalog.device_class(name)) for name in catalog.presets()]
    return _starting(incomplete, offers) or _starting(
        incomplete, ((name, "device class") for name in catalog.devices())
    )


def models(incomplete: str) -> Offers:
    """analogtl's own models; any timm name works too."""

    return _starting(incomplete, ((each, each.meaning) for each in Network))


def algorithms(incomplete: str) -> Offers:
    """Training algorithms."""

    return _starting(incomplete, ((each, each.meaning) for each in Algorithm))


def backends(incomplete: str) -> Offers:
    """Where trials run."""
    return _starting(incomplete, BACKENDS.items())


BACKENDS = {
    "local": "processes on this machine",
    "ray": "tasks on a Ray cluster",
    "slurm": "an array job of Slurm",
}


def failed(incomplete: str) -> Offers:
    """What to do with failed trials."""
    return _starting(incomplete, FAILED.items())


FAILED = {
    "again": "run them again",
    "skip": "leave them",
    "only": "run nothing else",
}


def kinds(incomplete: str) -> Offers:
    """What `analogtl list` lists."""
    from analogtl.cli.list import KINDS

    return _starting(incomplete, ((name, kind.title) for name, kind in KINDS.items()))


def tasks(incomplete: str) -> Offers:
    """What `analogtl init` offers."""
    from analogtl.config.starter import TASKS

    return _starting(incomplete, ((name, task.title) for name, task in TASKS.items()))


def topics(incomplete: str) -> Offers:
    """What `analogtl explain` explains."""
    from analogtl.cli.explain import titles

    return _starting(incomplete, titles().items())


def formats(incomplete: str) -> Offers:
    """Formats of a report."""
    from analogtl.cli.report import FORMATS

    return _starting(incomplete, FORMATS.items())


def run_dirs(ctx: typer.Context, incomplete: str) -> Offers:
    """Run directories below `--runs`, as paths."""
    offers = ((str(path), "run directory") for path in _runs(ctx))
    return _starting(incomplete, offers)


def run_names(ctx: typer.Context, incomplete: str) -> Offers:
    """Run directories below `--runs`, by name."""
    return _starting(incomplete, ((path.name, "run") for path in _runs(ctx)))


def _runs(ctx: typer.Context) -> list[Path]:
    root = Path(str(ctx.params.get("runs") or "runs"))
    try:
        return sorted(path for path in root.iterdir() if (path / "plan.json").is_file())
    except OSError:
        return []
