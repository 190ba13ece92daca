"""What `analogtl init` writes."""

import re

import pytest
import tomli
from told import problems_of

from analogtl.config import catalog
from analogtl.config.reference import keys
from analogtl.config.schema import Experiment
from analogtl.config.starter import TASKS, starter
from analogtl.errors import ExperimentError
from analogtl.vocabulary import Algorithm

TOGGLE = re.compile(r"^#(\w+ = )", re.MULTILINE)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("device", [*catalog.presets(), *catalog.devices()])
def test_every_choice_validates_also_with_all_its_keys_in_force(task, device):
    text = starter(task, device=device)
    Experiment.model_validate(tomli.loads(text))
    Experiment.model_validate(tomli.loads(TOGGLE.sub(r"\1", text)))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_algorithm_validates(algorithm):
    made = Experiment.model_validate(tomli.loads(starter(algorithm=algorithm)))
    assert made.analog.algorithm == algorithm


def test_the_comments_are_the_meanings_of_the_keys():
    text = starter()
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("# "))
    for key in ("dataset", "classes", "epochs", "lr", "arms", "validation_fraction"):
        assert keys()[f"finetune.{key}"].meaning in comments
    assert max(map(len, text.splitlines())) <= 100


def test_a_number_of_wrong_choices_is_told_at_once():
    task, _device, algorithm = problems_of(starter, "digit", device="EcRam", algorithm="sdg")
    assert "'digits'" in task
    assert "'sgd'" in algorithm


def test_any_model_name_stays_text():
    made = Experiment.model_validate(tomli.loads(starter(model='a"b\\c\x7f')))
    assert made.model.architecture == 'a"b\\c\x7f'


def test_a_name_that_no_file_can_have_is_a_problem_of_its_own():
    with pytest.raises(ExperimentError, match="name"):
        starter(name="../x")
