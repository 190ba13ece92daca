"""What is built and installed is what is in the repository."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import analogtl
from analogtl.study.provenance import tree_id, versions

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What an earlier build, an installation and a run leave beside the source.
STALE = (
    "build/lib/analogtl/stale.py",
    "analogtl.egg-info/stale.py",
    "runs/x/stale.py",
    "venv/stale.py",
)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"not in a checkout: {done.stderr.strip()}")
    return done.stdout


def sources() -> dict[str, Path]:
    """The files of the package and its experiments by their names in a wheel."""
    package = [f for f in (ROOT / "analogtl").rglob("*") if "__pycache__" not in f.parts]
    found = {f.relative_to(ROOT).as_posix(): f for f in package if f.is_file()}
    for file in (ROOT / "experiments").rglob("*.toml"):
        found[f"analogtl/{file.relative_to(ROOT).as_posix()}"] = file
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist of this tree and the wheel made from it; what earlier builds left lies around."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", ".*_cache", ".hypothesis", "*venv", "runs"
    )
    shutil.copytree(ROOT, tree, ignore=ignored)
    for stale in STALE:
        (tree / stale).parent.mkdir(parents=True, exist_ok=True)
        (tree / stale).touch()
    build(tree, "sdist", folder)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    (unpacked / "build/lib/analogtl").mkdir(parents=True)
    (unpacked / "build/lib/analogtl/stale.py").touch()
    build(unpacked, "wheel", folder)
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def build(tree: Path, target: str, where: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(where)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)


def test_a_wheel_made_from_the_sdist_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        found = {n: wheel.read(n) for n in wheel.namelist() if ".dist-info/" not in n}
    wanted = {name: file.read_bytes() for name, file in sources().items()}
    assert set(found) == set(wanted)
    assert found == wanted


def test_the_sdist_carries_every_file_of_the_repository(built):
    with tarfile.open(built[0]) as archive:
        found = {member.name.partition("/")[2] for member in archive.getmembers()}
        [script] = [m for m in archive.getmembers() if m.name.endswith(".ci/run")]
    assert not [name for name in found if "stale" in name or "__pycache__" in name]
    assert script.mode & 0o100
    assert set(git(ROOT, "ls-files").split()) <= found


def test_the_id_of_the_code_is_that_of_git_and_of_the_installed_package(built, tmp_path):
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(tmp_path)
    package = tmp_path / "analogtl"
    found = tree_id(package).hex()
    assert found == tree_id(ROOT / "analogtl").hex()
    assert versions()["analogtl"] == f"{analogtl.__version__}+{found[:12]}"
    git(tmp_path, "init", "-q")
    (tmp_path / ".git/info/exclude").write_text("experiments\n")
    git(tmp_path, "add", "-A", "analogtl")
    assert found == git(tmp_path, "write-tree", "--prefix=analogtl/").strip()
    (package / "__pycache__").mkdir()
    (package / "__pycache__/x.pyc").touch()
    assert tree_id(package).hex() == found
    (package / "fastsim/kernels.py").write_text("x = 1\n")
    assert tree_id(package).hex() != found


def test_few_modules_stand_beside_the_rooms():
    flat = {file.name for file in (ROOT / "analogtl").glob("*.py")}
    assert len(flat - {"__init__.py", "__main__.py"}) <= 6


def test_torch_torchvision_and_aihwkit_are_pinned_in_pairs():
    pinned = [d for d in PROJECT["project"]["dependencies"] if "python_version" in d]
    assert len(pinned) == 6
    for marker in ("< '3.12'", ">= '3.12'"):
        names = {d.split("==")[0] for d in pinned if marker in d}
        assert names == {"torch", "torchvision", "aihwkit"}


def test_all_that_cites_names_one_version_and_one_year():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    bibtex = (ROOT / "analogtl/report/templates/citations.bib").read_text()
    software = bibtex.partition("@software{analogtl,")[2].partition("\n}")[0]
    years = re.findall(r"\b20\d\d\b", (ROOT / "LICENSE").read_text() + software)
    assert years == [str(citation["preferred-citation"]["year"])] * 2
    assert citation["version"] == citation["preferred-citation"]["version"] == analogtl.__version__
    assert citation["title"] == citation["preferred-citation"]["title"]
    assert citation["title"] in software
    dois = re.findall(r"10\.\d+/[\w.]+", bibtex)
    assert {doi.lower() for doi in dois} == {r["doi"].lower() for r in citation["references"]}


def test_every_python_that_is_admitted_is_named():
    names = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if " 3." in c]
    first, last = names[0], names[-1]
    after = f"3.{int(last.partition('.')[2]) + 1}"
    assert PROJECT["project"]["requires-python"] == f">={first},<{after}"
    [tried] = re.findall(r'^pythons="(.*)"$', (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert tried.split() == names


def test_the_public_names_are_there():
    for name in analogtl.__all__:
        assert getattr(analogtl, name)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = analogtl.nothing
