"""What is installed is what is in the repository."""

import tomllib
from pathlib import Path

import pytest

import analogtl

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_of_the_source_is_listed_for_the_wheel():
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "analogtl").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    assert names | {"analogtl.experiments"} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_other_file_of_the_package_is_shipped():
    shipped = {
        file
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        if package != "analogtl.experiments"
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    found = {
        file
        for file in (ROOT / "analogtl").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc", ".nbi", ".nbc")
    }
    assert found <= shipped, sorted(found - shipped)


def test_every_experiment_is_shipped():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["analogtl.experiments"]
    shipped = {f for pattern in patterns for f in (ROOT / "experiments").glob(pattern)}
    assert set((ROOT / "experiments").rglob("*.toml")) == shipped


def test_few_modules_stand_beside_the_rooms():
    flat = {file.name for file in (ROOT / "analogtl").glob("*.py")}
    assert len(flat - {"__init__.py", "__main__.py"}) <= 6


def test_torch_torchvision_and_aihwkit_are_pinned_in_pairs():
    pinned = [d for d in PROJECT["project"]["dependencies"] if "python_version" in d]
    assert len(pinned) == 6
    for marker in ("< '3.12'", ">= '3.12'"):
        names = {d.split("==")[0] for d in pinned if marker in d}
        assert names == {"torch", "torchvision", "aihwkit"}


def test_one_version():
    assert PROJECT["project"]["version"] == analogtl.__version__


def test_the_public_names_are_there():
    for name in analogtl.__all__:
        assert getattr(analogtl, name)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = analogtl.nothing
