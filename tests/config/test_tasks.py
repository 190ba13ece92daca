"""Tasks: what differs between the variants of one experiment file."""

from pathlib import Path

import pytest
from told import problems_of

from analogtl.config.load import load_experiment
from analogtl.config.source import tasks_of

BASE = """\
name = "base"
[finetune]
epochs = 3
[tasks]
few.finetune.classes = [0, 1]
many.finetune.classes = [0, 1, 2]
[tasks.many.sweep]
seeds = [1, 2]
"""
TOP = 'name = "top"\nextends = "base.toml"\ntask = "few"\n'


@pytest.fixture
def files(tmp_path: Path):
    def files(top: str = TOP, base: str = BASE) -> Path:
        (tmp_path / "base.toml").write_text(base)
        (tmp_path / "top.toml").write_text(top)
        return tmp_path / "top.toml"

    return files


def problem(*args, **kwargs) -> str:
    (line,) = problems_of(load_experiment, *args, **kwargs)
    return line


def test_a_task_comes_over_the_file_and_names_the_run(files):
    file = files()
    assert tasks_of(file) == ("few", ["few", "many"])
    few, many = load_experiment(file), load_experiment(file, task="many")
    assert (few.name, few.finetune.classes, few.sweep.seeds) == ("top_few", (0, 1), (0,))
    assert (many.name, many.finetune.classes, many.sweep.seeds) == ("top_many", (0, 1, 2), (1, 2))
    assert many.finetune.epochs == few.finetune.epochs == 3
    assert load_experiment(file, ["name=mine"], "many").name == "mine"
    assert load_experiment(file.with_name("base.toml")).name == "base"


def test_a_file_comes_over_the_task_of_the_one_that_it_extends_and_an_override_over_all(files):
    file = files(f"{TOP}[finetune]\nclasses = [7, 8]\n[tasks.many]\nfinetune.epochs = 9\n")
    assert load_experiment(file).finetune.classes == (7, 8)
    many = load_experiment(file, ["sweep.seeds=5"], "many")
    assert (many.finetune.classes, many.finetune.epochs) == ((7, 8), 9)
    assert many.sweep.seeds == (5,)


def test_an_unknown_task_is_one_line(files):
    assert "'many'?" in problem(files(), task="mani")
    assert problem(files(), ["task=many"]).startswith("--set task")
    assert problem("quickstart", task="few").endswith("no tasks")
    wrong = files(TOP.replace("few", "fewer"))
    assert problem(wrong).startswith(f"{wrong}:3: task: ")


@pytest.mark.parametrize(
    ("wrong", "line", "key"),
    [
        ("task = 3\n", 4, "task"),
        ("tasks = 3\n", 4, "tasks"),
        ("[tasks]\nfew = 3\n", 5, "tasks.few"),
        ("[tasks.few]\nname = 'y'\n", 5, "tasks.few.name"),
        ("[tasks.few.finetune]\nepochs = 'x'\n", 5, "finetune.epochs"),
    ],
)
def test_a_wrong_task_is_named_with_its_line(files, wrong, line, key):
    top = TOP if "task =" not in wrong else TOP.replace('task = "few"', "description = ''")
    file = files(top + wrong)
    assert problem(file).startswith(f"{file}:{line}: {key}: ")
