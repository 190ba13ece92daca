"""Commands with an algorithm in a Python file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import call

from analogtl.config.load import load_experiment, with_settings
from analogtl.config.rule_file import shipped_rules
from analogtl.errors import ExperimentError
from analogtl.study.basis import no_look
from analogtl.study.study import Study
from analogtl.vocabulary import algorithm_label

PROGRAMMING = """\
name = "mine"
kind = "weight-programming"
[analog]
algorithm = "mine.py:Rule"
[programming]
size = 3
epochs = 1
vectors = 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = next(file for file in shipped_rules() if file.stem == "c_ttv2")
    shutil.copy(source, tmp_path / "mine.py")
    (tmp_path / "exp.toml").write_text(PROGRAMMING)
    return tmp_path


def test_the_text_of_a_rule_is_part_of_the_trial_and_its_place_is_not(folder, tmp_path_factory):
    def key(where: Path) -> str:
        return Study.open(where / "exp.toml", sweep=True, look=no_look).trials[0].key

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("exp.toml", "mine.py"):
        shutil.copy(folder / name, elsewhere)
    assert key(folder) == key(elsewhere)
    with (elsewhere / "mine.py").open("a") as file:
        file.write("# another\n")
    assert key(folder) != key(elsewhere)


def test_an_experiment_needs_its_rule_file_only_to_be_read(folder):
    experiment = load_experiment(folder / "exp.toml")
    shutil.rmtree(folder)
    again = with_settings(experiment, {"programming.epochs": 2})
    assert again.analog.values("compound")["in_chop_prob"] == 0.1
    assert again.analog.algorithm == "mine.py:Rule"


def test_a_rule_takes_the_parameters_that_it_names(folder):
    with pytest.raises(ExperimentError, match="in_chop_prob"):
        load_experiment(folder / "exp.toml", ["analog.compound.in_chop_pro=0.2"])
    made = load_experiment(folder / "exp.toml", ["analog.compound.in_chop_prob=0.2"])
    assert made.analog.values("compound")["in_chop_prob"] == 0.2


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("none.py:Rule", "no such file"),
        ("mine.py:Other", "there is Rule"),
        ("torn.py", "torn.py:2: not Python"),
        ("literal.py", "literal.py:2: parameters"),
    ],
)
def test_a_rule_that_cannot_be_read_is_one_line(folder, name, word):
    (folder / "torn.py").write_text("class Rule:\n    def read(:\n")
    (folder / "literal.py").write_text("class Rule:\n    parameters = dict(a=1)\n")
    with pytest.raises(ExperimentError, match=word) as caught:
        load_experiment(folder / "exp.toml", [f"analog.algorithm={name}"])
    assert len(caught.value.problems) == 1


def test_a_rule_file_that_has_changed_since_the_run_began_is_refused(folder, tmp_path):
    def study() -> Study:
        return Study.open(folder / "exp.toml", root=tmp_path / "runs", sweep=True, look=no_look)

    study().prepare()
    study().prepare()
    with (folder / "mine.py").open("a") as file:
        file.write("# another\n")
    before = json.loads((tmp_path / "runs/mine/plan.json").read_text())
    with pytest.raises(ExperimentError, match=r"mine\.py"):
        study().prepare()
    assert json.loads((tmp_path / "runs/mine/plan.json").read_text()) == before


def test_init_writes_a_rule_that_works_and_never_over_another(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "init", "--yes", "--algorithm", "own.py:Mine").code == 0
    text = Path("own.py").read_text()
    assert load_experiment("exp.toml").analog.algorithm == "own.py:Mine"
    assert call(capsys, "init", "other.toml", "--yes", "--algorithm", "own.py:Mine").code == 0
    assert Path("own.py").read_text() == text
    result = call(capsys, "init", "third.toml", "--yes", "--algorithm", "own.py:Another")
    assert (result.code, len(result.problems)) == (2, 1)
    assert not Path("third.toml").exists()


@pytest.mark.slow
def test_selftest_tries_a_rule(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(capsys, "init", "--yes", "--algorithm", "own.py")
    assert call(capsys, "selftest", "--algorithm", "own.py").code == 0
    own = Path("own.py")
    own.write_text(own.read_text().replace("np.trunc(h)", "h / (h - h)"))
    result = call(capsys, "selftest", "--algorithm", "own.py")
    assert (result.code, len(result.problems)) == (2, 1)
    assert "own.py:" in result.err


@pytest.mark.parametrize(
    ("command", "change", "line"),
    [
        ("validate", ("cell.H +", "cell.G +"), 42),
        ("finetune", ("ZERO,), pulses", "ZERO, ONE), pulses"), 37),
        ("convert", ("np.trunc(h)", "np.float32(len(globals()))"), 43),
        ("finetune", ("np.trunc(h)", "h / ZERO * ZERO"), 37),
    ],
)
def test_an_error_in_a_rule_is_told_before_anything_is_written(
    capsys, tmp_path, monkeypatch, command, change, line
):
    monkeypatch.chdir(tmp_path)
    call(capsys, "init", "--yes", "--algorithm", "own.py", "--model", "mlp_digits")
    own = Path("own.py")
    assert change[0] in own.read_text()
    own.write_text(own.read_text().replace(*change))
    result = call(capsys, command)
    told = [problem for problem in result.problems if f"own.py:{line}: " in problem]
    assert (result.code, len(told)) == (2, 1), result.err
    assert not (tmp_path / "runs").exists()


def test_reports_call_a_rule_by_its_file():
    assert algorithm_label("folder/my_rule.py:Rule") == "my_rule"
    assert algorithm_label("my_rule.py:Second") == "my_rule:Second"
    assert algorithm_label("agad") == "AGAD"
