"""Commands with a network in a Python file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import call
from told import problems_of

from analogtl.config.load import load_experiment, with_settings
from analogtl.config.network_file import network_template
from analogtl.errors import ExperimentError
from analogtl.study.basis import no_look
from analogtl.study.study import Study
from analogtl.study.trial import Trial
from analogtl.training.run_trial import run_trial
from analogtl.vocabulary import Arm

TEXT = network_template().read_text()
EXPERIMENT = """\
name = "mine"
[model]
file = "net.py"
kwargs = { width = 2 }
[pretrain]
classes = [0, 1, 2]
samples_per_class = 20
epochs = 1
[finetune]
classes = [3, 4, 5]
samples_per_class = 20
epochs = 1
arms = ["digital-tl", "analog-tl", "analog-scratch", "frozen-array"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(TEXT)
    (tmp_path / "exp.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(file: Path, **options) -> list[Trial]:
    return Study.open(file, look=no_look, **options).trials


def test_what_counts_is_the_content_and_the_function_and_not_the_name(folder):
    keys = {one.key for one in trials(folder / "exp.toml")}
    pretrained = {one.pretrain_key for one in trials(folder / "exp.toml")}
    Path("other.py").write_text(TEXT)
    same = trials("exp.toml", settings=["model.file=other.py"])
    assert {one.key for one in same} == keys
    assert {one.pretrain_key for one in same} == pretrained
    for name, text in (("net.py", TEXT + "# more\n"), ("other.py:again", TEXT + "again = build\n")):
        Path(name.partition(":")[0]).write_text(text)
        found = trials("exp.toml", settings=[f"model.file={name}"])
        assert not keys & {one.key for one in found}
        assert not pretrained & {one.pretrain_key for one in found}


def test_timm_counts_where_the_file_imports_it(folder):
    assert {one.basis.timm for one in trials("exp.toml")} == {""}
    (folder / "net.py").write_text(TEXT + "from timm.layers import Mlp\n")
    assert all(one.basis.timm for one in trials("exp.toml"))


def test_a_trial_needs_no_file_once_it_is_planned(folder, run_dir):
    data = [
        json.loads(json.dumps(one.as_data()))
        for one in Study.open("exp.toml").trials
        if one.arm is not Arm.FROZEN_ARRAY
    ]
    (folder / "net.py").unlink()
    rows = [run_trial(Trial.from_data(one), run_dir) for one in data]
    assert [(row["status"], row.get("message")) for row in rows][:1] == [("done", None)]
    assert {row["status"] for row in rows} == {"done"}
    assert all(row["share_on_arrays"] == 1.0 for row in rows[1:])
    again = with_settings(Trial.from_data(data[0]).experiment, {"finetune.epochs": 2})
    assert again.model.own.inside == "build"


def test_nothing_runs_while_an_experiment_is_only_read(folder, capsys):
    (folder / "net.py").write_text("open('ran', 'w').close()\n" + TEXT)
    assert load_experiment("exp.toml").model.own.inside == "build"
    assert trials("exp.toml")
    assert call(capsys, "list", "models").code == 0
    assert not Path("ran").exists()
    assert call(capsys, "validate").code == 0
    assert Path("ran").exists()


def test_a_file_that_has_changed_since_the_run_began_is_refused(folder):
    Study.open("exp.toml", look=no_look).prepare()
    (folder / "net.py").write_text(TEXT + "# more\n")
    with pytest.raises(ExperimentError, match=r"net\.py"):
        Study.open("exp.toml", look=no_look).prepare()


def test_a_sweep_over_networks_compares_them(folder):
    shutil.copy("net.py", "wide.py")
    with Path("wide.py").open("a") as file:
        file.write("# wide\n")
    found = trials("exp.toml", sweep=True, axes={"model.file": ["net.py", "wide.py"]})
    assert {one.axes["model.file"] for one in found} == {"net.py", "wide.py"}
    assert len({one.key for one in found}) == len(found) == 8


WRONG = {
    "no file": ({}, "model.file=none.py", "no such file"),
    "no function": ({}, "model.file=net.py:biuld", "'build'"),
    "no name of a file": ({}, "model.file=net", "my_net.py"),
    "torn": ({"torn.py": "def build(:\n"}, "model.file=torn.py", "torn.py:1: not Python"),
    "a file beside it": (
        {"more.py": "", "net.py": "import torch\nfrom more import x\n" + TEXT},
        "model.file=net.py",
        "net.py:2: imports more",
    ),
    "its own package": ({"net.py": "from . import x\n" + TEXT}, "model.file=net.py", "net.py:1: "),
    "a size": ({}, "model.kwargs.n_classes=3", "kwargs.n_classes"),
    "architecture too": ({}, "model.architecture=mlp_digits", "model.file"),
    "too large": ({"net.py": "#" * 300_000}, "model.file=net.py", "net.py: 300,000"),
}


@pytest.mark.parametrize(("files", "setting", "word"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_one_line(folder, files, setting, word):
    for name, text in files.items():
        (folder / name).write_text(text)
    (problem,) = problems_of(load_experiment, "exp.toml", [setting])
    assert word in problem


LATER = {
    "fails": ("validate", "import os\nos.nothing\n" + TEXT, "net.py:2: "),
    "no module": ("finetune", "def build(**_):\n    return 3\n", "net.py:1: "),
    "no layers": (
        "convert",
        "import torch\nfrom torch import nn\nclass build(nn.Module):\n"
        "    def __init__(self, n_classes, **_):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.ones(64, n_classes))\n"
        "    def forward(self, x):\n        return x.flatten(1) @ self.w\n",
        "arrays",
    ),
}


@pytest.mark.parametrize(("command", "text", "word"), LATER.values(), ids=LATER)
def test_what_only_shows_when_it_runs_is_told_before_anything_is_written(
    folder, capsys, command, text, word
):
    (folder / "net.py").write_text(text)
    result = call(capsys, command, "exp.toml", "--set", "model.kwargs={}")
    told = [problem for problem in result.problems if word in problem]
    assert (result.code, len(told)) == (2, 1), result.err
    assert not Path("runs").exists()


def test_init_writes_a_network_that_works_and_never_over_another(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "init", "--yes", "--model", "own.py:mine").code == 0
    text = Path("own.py").read_text()
    assert load_experiment("exp.toml").model.file == "own.py:mine"
    assert call(capsys, "validate").code == 0
    assert call(capsys, "init", "other.toml", "--yes", "--model", "own.py:mine").code == 0
    assert Path("own.py").read_text() == text
    result = call(capsys, "init", "third.toml", "--yes", "--model", "own.py:another")
    assert (result.code, len(result.problems)) == (2, 1)
    assert not Path("third.toml").exists()
