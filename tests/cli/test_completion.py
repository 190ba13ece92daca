"""Tab: what is offered, that it is offered quickly, and that the scripts are the generated ones."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from analogtl.cli import app, complete, generate
from analogtl.cli.reference import walk
from analogtl.config.shipped import shipped_experiments
from analogtl.vocabulary import AXES, Algorithm, Backend, Network

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "aihwkit", "timm", "pandas", "seaborn", "matplotlib", "scipy", "numba", "numpy")
COMMANDS = [path for path, _ in walk(typer.main.get_command(app), "analogtl")][1:]


def offered(line: str, cwd: Path) -> list[str]:
    """What Bash is offered at the end of a line, by a process as Bash starts it."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_ANALOGTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "analogtl"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an experiment file and a run."""
    path = tmp_path_factory.mktemp("completion")
    (path / "exp.toml").write_text('name = "exp"\n')
    (path / "pyproject.toml").write_text("")
    (path / "more").mkdir()
    (path / "more" / "other.toml").write_text("")
    (path / "runs" / "first").mkdir(parents=True)
    (path / "runs" / "first" / "plan.json").write_text("{}")
    (path / "runs" / "pretrained").mkdir()
    return path


def test_bash_is_offered_commands_and_values(folder):
    top = [path.split()[1] for path in COMMANDS if path.count(" ") == 1]
    assert offered("analogtl ", folder) == top
    assert offered("analogtl sweep --param s", folder) == ["sps", "spv"]


@pytest.mark.parametrize(
    ("function", "incomplete", "expected"),
    [
        (complete.experiments, "", ["exp.toml", *shipped_experiments()]),
        (complete.experiments, "more/", ["more/other.toml"]),
        (complete.experiments, "mo", ["more/"]),
        (complete.axes, "", list(AXES)),
        (complete.axes, "finetune.ep", ["finetune.epochs"]),
        (complete.settings, "convert.weight", ["convert.weight_transfer_noise="]),
        (complete.settings, "analog.compound.fast", ["analog.compound.fast_lr="]),
        (complete.settings, "analog.device.dw_min_d", ["analog.device.dw_min_dtod=",
                                                       "analog.device.dw_min_dtod_log_normal="]),
        (complete.presets, "ReRamA", ["ReRamArrayHfO2PresetDevice", "ReRamArrayOMPresetDevice"]),
        (complete.presets, "SoftBoundsP", ["SoftBoundsPmaxDevice"]),
        (complete.models, "", list(Network)),
        (complete.algorithms, "", list(Algorithm)),
        (complete.kinds, "ax", ["axes"]),
        (complete.formats, "la", ["latex"]),
        (complete.backends, "", ["local", "ray", "slurm"]),
        (complete.failed, "o", ["only"]),
        (complete.topics, "k", ["keys"]),
        (complete.tasks, "cifar", ["cifar-2", "cifar-5"]),
    ],
)  # fmt: skip
def test_offers(folder, monkeypatch, function, incomplete, expected):
    monkeypatch.chdir(folder)
    assert [word for word, _ in function(incomplete)] == expected
    assert all(help for _, help in function(incomplete))


def test_runs_are_offered_from_the_folder_that_was_asked_for(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    context = type("Context", (), {"params": {"runs": folder / "runs"}})()
    assert complete.run_names(context, "") == [("first", "run")]
    assert complete.run_dirs(context, "")[0][0] == str(folder / "runs" / "first")
    assert complete.run_dirs(type("Context", (), {"params": {}})(), "") == []


def test_the_choices_that_are_offered_are_the_ones_that_are_taken():
    from analogtl.report import build as report

    assert dict.fromkeys(complete.BACKENDS) == dict.fromkeys(Backend)
    from analogtl.cli.report import FORMATS

    assert set(FORMATS) == set(report.FORMATS)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["sweep", "--help"],
        ["finetune", "--nonsense"],
        ["list", "presets"],
        ["explain", "keys"],
        ["validate", "quickstart"],
        ["finetune", "quickstart", "--dry-run"],
    ],
)
def test_nothing_heavy_is_imported(argv, tmp_path):
    code = (
        "import sys\nfrom analogtl.cli import run\n"
        f"run({argv!r})\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr


def cpu_seconds(command: list[str], **environment: str) -> float:
    """Processor time of a command, the least of three: other processes do not count."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        env = {**os.environ, **environment, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run(command, capture_output=True, env=env, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_and_completion_are_quick():
    """Under 0.4 s on a machine where ``python -c pass`` takes 0.02 s."""
    python = [sys.executable]
    unit = max(0.02, cpu_seconds([*python, "-c", "pass"]))
    limit = 0.4 * unit / 0.02
    assert cpu_seconds([*python, "-m", "analogtl", "--help"]) < limit
    line = {"COMP_WORDS": "analogtl sweep --set fine", "COMP_CWORD": "3"}
    line["_ANALOGTL_COMPLETE"] = "complete_bash"
    assert cpu_seconds([*python, "-m", "analogtl"], **line) < limit


@pytest.mark.parametrize("path", list(generate.generated()), ids=lambda path: path.name)
def test_generated_files_are_in_step(path):
    """`python -m analogtl.cli.generate` writes them again."""
    assert path.read_text(encoding="utf-8") == generate.generated()[path]


# -- the scripts in their shells -------------------------------------------------------------------


@pytest.fixture(scope="module")
def path_with_command(tmp_path_factory):
    """A PATH on which `analogtl` is this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "analogtl"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m analogtl "$@"\n'
    )
    command.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def shell(name: str, script: str, path: str) -> list[str]:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    done = subprocess.run(
        [name, *flags, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_script(path_with_command):
    script = f"""
        source {REPOSITORY}/completions/analogtl.bash
        COMP_WORDS=(analogtl list ax); COMP_CWORD=2
        _analogtl analogtl
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p analogtl
    """
    assert shell("bash", script, path_with_command) == [
        "axes",
        "complete -o default -F _analogtl analogtl",
    ]


def test_zsh_script(path_with_command):
    script = f"""
        _arguments() {{ print -r -- "$*" }}
        compdef() {{ print -r -- "compdef $*" }}
        source {REPOSITORY}/completions/_analogtl
        words=(analogtl list ax); CURRENT=3
        _analogtl
    """
    first, *offers = shell("zsh", script, path_with_command)
    assert first == "compdef _analogtl analogtl"
    assert '"axes":"what can be swept"' in " ".join(offers)


def test_fish_script(path_with_command):
    script = f"""
        source {REPOSITORY}/completions/analogtl.fish
        complete --do-complete "analogtl list ax"
    """
    assert shell("fish", script, path_with_command) == ["axes\twhat can be swept"]
