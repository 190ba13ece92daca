"""Tab: what is offered, that it is offered quickly, and that the scripts are the generated ones."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from analogtl.cli import completion, generate
from analogtl.cli import report as command
from analogtl.config import catalog
from analogtl.config.shipped import shipped_experiments
from analogtl.report import build as report
from analogtl.vocabulary import Algorithm, Backend, Dataset

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "aihwkit", "timm", "pandas", "seaborn", "matplotlib", "scipy", "numba", "numpy")


def offered(line: str, cwd: Path) -> list[str]:
    """What Bash is offered at the end of a line, by a process as Bash starts it."""
    words = line.replace("=", " = ").split(" ")
    environment = {
        **os.environ,
        "_ANALOGTL_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
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
    (path / "exp.toml").write_text('name = "exp"\n[tasks.one]\n[tasks.two]\n')
    (path / "pyproject.toml").write_text("")
    (path / "more").mkdir()
    (path / "more" / "other.toml").write_text("")
    (path / "runs" / "first").mkdir(parents=True)
    (path / "runs" / "first" / "plan.json").write_text("{}")
    (path / "runs" / "pretrained").mkdir()
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("analogtl p", ["pretrain"]),
        ("analogtl sweep --param s", ["sps", "spv"]),
        ("analogtl sweep --backend ", list(Backend)),
        ("analogtl report ", ["runs/first"]),
        ("analogtl runs show ", ["first"]),
        ("analogtl finetune exp.toml --task ", ["one", "two"]),
        # bash takes `--set KEY=VALUE` apart, and an answer as what stands behind the `=`
        ("analogtl finetune --set report.al", ["report.alpha=", "report.alpha=0.05"]),
        ("analogtl finetune --set finetune.arms=analog-tl,fr", ["analog-tl,frozen-array"]),
        ("analogtl finetune --set analog.device.preset=EcRamM", ["EcRamMOPresetDevice"]),
        ("analogtl finetune --set analog.forward.is_perfect=", ["true", "false"]),
    ],
)  # fmt: skip
def test_bash_is_offered(folder, line, expected):
    assert offered(line, folder) == expected


@pytest.mark.parametrize(
    ("function", "incomplete", "expected"),
    [
        (completion.experiments, "", ["exp.toml", *shipped_experiments()]),
        (completion.experiments, "mo", ["more/other.toml"]),
        (completion.axes, "finetune.ep", ["finetune.epochs"]),
        (completion.settings, "finetune.ep", ["finetune.epochs=", "finetune.epochs=10"]),
        (completion.settings, "analog.algorithm=", [f"analog.algorithm={a}" for a in Algorithm]),
        (completion.settings, "pretrain.dataset=", [f"pretrain.dataset={d}" for d in Dataset]),
        (completion.settings, "analog.device.dw_min_d", ["analog.device.dw_min_dtod=",
                                                         "analog.device.dw_min_dtod_log_normal="]),
        (completion.settings, "spv=", []),
        (completion.presets, "SoftBoundsP", ["SoftBoundsPmaxDevice"]),
    ],
)  # fmt: skip
def test_offers(folder, monkeypatch, function, incomplete, expected):
    monkeypatch.chdir(folder)
    offers = function(incomplete)
    assert [word for word, _ in offers] == expected
    assert all(help for _, help in offers)


def test_every_key_below_analog_is_offered():
    keys = {word.rstrip("=") for word, _ in completion.settings("analog.")}
    parameters = [catalog.device_parameters(name) for name in catalog.devices()]
    known = {f"analog.device.{name}" for one in parameters for name in one}
    known |= {f"analog.forward.{name}" for name in catalog.catalog()["io"]}
    known |= {f"analog.compound.{n}" for one in Algorithm for n in catalog.compound_parameters(one)}
    assert known <= keys
    assert completion.settings("analog.algorithms.agad.compound.fast")


def test_the_choices_that_are_offered_are_the_ones_that_are_taken():
    assert set(command.FORMATS) == set(report.FORMATS)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["sweep", "--help"],
        ["finetune", "--nonsense"],
        ["list", "presets"],
        ["explain", "keys"],
        ["runs", "list"],
    ],
)
def test_nothing_heavy_is_imported(argv, tmp_path):
    # What looks at the images may load numpy, which takes a tenth of a second.
    heavy = [name for name in HEAVY if name != "numpy" or "quickstart" not in argv]
    code = (
        "import sys\nfrom analogtl.cli.app import run\n"
        f"run({argv!r})\n"
        f"print('HEAVY', [m for m in {heavy!r} if m in sys.modules])"
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
    """Under 0.25 s on a machine where ``python -c pass`` takes 0.015 s."""
    python = [sys.executable]
    limit = 0.25 * max(1.0, cpu_seconds([*python, "-c", "pass"]) / 0.015)
    assert cpu_seconds([*python, "-m", "analogtl", "--help"]) < limit
    line = {"COMP_WORDS": "analogtl sweep --set analog.", "COMP_CWORD": "3"}
    line["_ANALOGTL_COMPLETE"] = "complete_bash"
    assert cpu_seconds([*python, "-m", "analogtl"], **line) < limit


@pytest.mark.parametrize("path", list(generate.generated()), ids=lambda path: path.name)
def test_generated_files_are_in_step(path):
    """`python -m analogtl.cli.generate` writes them again."""
    text = path.read_text(encoding="utf-8")
    if path.parent.name == "completions" and generate.MADE_BY not in text:
        pytest.skip("the scripts are Typer's own, and another version of it is installed")
    assert text == generate.generated()[path]
