"""Every shipped experiment, with each of its tasks: it loads, says what it is, and plans trials."""

from __future__ import annotations

import re

import pytest
from pages import shipped

from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.config.source import tasks_of
from analogtl.study.basis import no_look
from analogtl.study.trial import pretrain_settings, trials_of
from analogtl.vocabulary import AXES, PER_LAYER

NAMES = shipped_experiments()
PAIRS = [(name, task) for name in NAMES for task in (None, *tasks_of(name)[1])]
FULL_SIZE = [name for name in NAMES if name.startswith(("paper/", "published/"))]
LABELS = ("Source", "Run", "Expected", "Time")


def header_of(name: str) -> dict[str, str]:
    """The title and the labelled parts of a file's header."""
    text = (shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    parts, label = {"title": ""}, "title"
    for line in re.match(r"(#.*\n)*", text)[0].splitlines():
        found = re.match(rf"# ({'|'.join(LABELS)}): +(.+)", line)
        label = found[1] if found else label
        parts[label] = f"{parts.get(label, '')}\n{found[2] if found else line[1:]}".strip()
    return parts


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_its_trials_are_different_ones_of_several_blocks(name, task):
    experiment = shipped(name, task)
    trials = trials_of(experiment, sweep=True, look=no_look)
    assert len({trial.key for trial in trials}) == len({t.id for t in trials}) == len(trials)
    if (name, task) == ("desk/base", None):
        return  # there to be extended; its tasks have the blocks
    assert len(experiment.sweep.seeds) * max(1, len(experiment.sweep.class_sets)) >= 3


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_it_is_named_after_its_file_and_its_task(name, task):
    task = task or tasks_of(name)[0]
    assert shipped(name, task).name == name.replace("/", "_") + (f"_{task}" if task else "")
    if task and task.endswith("class"):
        classes = shipped(name, task).finetune.classes
        assert task == f"{classes if isinstance(classes, int) else len(classes)}class"


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_it_is(name):
    header = header_of(name)
    assert tuple(header) == ("title", *LABELS)
    assert re.fullmatch(r"(?s)\w.+\.", header["title"])
    experiment = shipped(name)
    swept = experiment.sweep.axes or len(experiment.sweep.lr) > 1
    runs, *reports = header["Run"].splitlines()
    assert runs.split()[:3] == ["analogtl", "sweep" if swept else "finetune", name]
    if "to be extended" not in runs:
        assert reports[0].split() == ["analogtl", "report", f"runs/{experiment.name}"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_paper_s_settings_hold(name):
    """Table I and Section III of arXiv 2505.11067."""
    experiment = shipped(name)
    if experiment.kind != "transfer-learning":
        return
    for stage in (experiment.pretrain, experiment.finetune):
        assert (stage.epochs, stage.batch_size, stage.lr) == (100, 8, 0.01)
    assert (experiment.pretrain.dataset, experiment.finetune.dataset) == ("cifar10", "cifar100")
    assert experiment.model.architecture == ("resnet18" if "resnet" in name else "swin_cifar_tiny")
    base = shipped("paper/base")  # held to Table I where the page `papers` is
    assert experiment.analog.values("compound") == base.analog.values("compound")
    assert experiment.analog.granularity is None
    assert experiment.analog.algorithm == "c-ttv2"
    assert experiment.analog.device.preset == "ReRamArrayHfO2PresetDevice"


def test_every_axis_has_an_experiment_for_both_tasks():
    for axis in set(AXES) - {"lr", PER_LAYER}:
        having = [name for name in FULL_SIZE if axis in shipped(name).sweep.axes]
        assert any({"2class", "5class"} <= set(tasks_of(name)[1]) for name in having), axis


def test_the_desk_experiments_share_one_pretrained_model():
    desk = [shipped(*pair) for pair in PAIRS if pair[0].startswith("desk/")]
    desk = [e for e in desk if e.kind == "transfer-learning"]
    desk = [e for e in desk if e.objective == "classification" and not e.model.is_language]
    assert len(desk) > 10
    assert all(pretrain_settings(e) == pretrain_settings(desk[0]) for e in desk)
