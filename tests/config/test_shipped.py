"""Every shipped experiment: it loads, says what it is, and plans what it should."""

from __future__ import annotations

import re

import pytest

from analogtl.config.load import load_experiment
from analogtl.config.schema import Experiment
from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.study.run_dir import pretrain_settings
from analogtl.study.trial import trials_of
from analogtl.vocabulary import AXES

# Trials of `analogtl sweep`: arms x levels x learning rates x seeds. A new file needs a line here.
TRIALS = {
    "quickstart": 5 * 3,
    "desk/base": 2 * 5,
    "desk/fig2_2class": 5 * 5,
    "desk/fig2_5class": 5 * 5,
    "desk/fig3_wtn_2class": (1 + 6) * 5,  # the digital arm has no levels
    "desk/fig3_wtn_5class": (1 + 6) * 5,
    "desk/fig4_sps_2class": (1 + 5) * 5,
    "desk/fig4_sps_5class": (1 + 5) * 5,
    "desk/fig4_spv_2class": (1 + 5) * 5,
    "desk/fig4_spv_5class": (1 + 5) * 5,
    "desk/fig5_dw_min_std_2class": (1 + 4) * 5,
    "desk/fig5_dw_min_std_5class": (1 + 4) * 5,
    "desk/fig5_dw_min_dtod_2class": (1 + 4) * 5,
    "desk/fig5_dw_min_dtod_5class": (1 + 4) * 5,
    "desk/algorithms": 6 * 2 * 5,
    "desk/granularity_2class": (1 + 4) * 5,
    "desk/granularity_5class": (1 + 4) * 5,
    "desk/weight_programming": 4 * 3 * 5 * 3,
    "desk/weight_programming_lr": 6 * 3,
    "full_size/base": 3,
    "full_size/fig2_2class": 5 * 3,
    "full_size/fig2_2class_table1": 2 * 3,
    "paper/base": 5,
    "paper/fig2_2class": 5 * 5,
    "paper/fig2_5class": 5 * 5,
    "paper/fig3_wtn_2class": 7 * 3 * 5,
    "paper/fig3_wtn_5class": 7 * 3 * 5,
    "paper/fig4_sps_2class": 5 * 3 * 5,
    "paper/fig4_sps_5class": 5 * 3 * 5,
    "paper/fig4_spv_2class": 5 * 3 * 5,
    "paper/fig4_spv_5class": 5 * 3 * 5,
    "paper/fig5_dw_min_std_2class": 5 * 3 * 5,
    "paper/fig5_dw_min_std_5class": 5 * 3 * 5,
    "paper/fig5_dw_min_dtod_2class": 5 * 3 * 5,
    "paper/fig5_dw_min_dtod_5class": 5 * 3 * 5,
    "published/base": 5,
    "published/resnet": 5,
    "published/resnet_2class": 5 * 5,
    "published/resnet_5class": 5 * 5,
    "published/write_noise_std_2class": 5 * 3 * 5,
    "published/write_noise_std_5class": 5 * 3 * 5,
    "published/n_states_2class": 6 * 3 * 5,
    "published/n_states_5class": 6 * 3 * 5,
    "published/out_noise_2class": 5 * 3 * 5,
    "published/out_noise_5class": 5 * 3 * 5,
    "published/io_bits_2class": 6 * 3 * 5,
    "published/io_bits_5class": 6 * 3 * 5,
    "published/w_max_dtod_2class": 5 * 3 * 5,
    "published/w_max_dtod_5class": 5 * 3 * 5,
    "published/w_min_dtod_2class": 5 * 3 * 5,
    "published/w_min_dtod_5class": 5 * 3 * 5,
    "published/weight_programming": 4 * 5 * 6 * 3,
}
NAMES = shipped_experiments()
LABELS = ("Source", "Run", "Expected", "Time")


@pytest.fixture(scope="module")
def loaded() -> dict[str, Experiment]:
    return {name: load_experiment(name) for name in NAMES}


def text_of(name: str) -> str:
    return (shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")


def header_of(name: str) -> dict[str, str]:
    """The title and the labelled parts of a file's header."""
    lines = []
    for line in text_of(name).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    parts = {"title": lines[0]}
    label = "title"
    for line in lines[1:]:
        found = re.match(r"(\w+):\s*(.+)", line)
        if found and found[1] in LABELS:
            label = found[1]
            parts[label] = found[2]
        else:
            parts[label] += f"\n{line}"
    return parts


def test_every_file_is_counted():
    assert set(NAMES) == set(TRIALS)


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_the_expected_trials(name, loaded):
    trials = trials_of(loaded[name], sweep=True)
    assert len(trials) == TRIALS[name]
    assert len({trial.id for trial in trials}) == TRIALS[name]
    assert len({trial.key() for trial in trials}) == TRIALS[name]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_named_after_its_file(name, loaded):
    assert loaded[name].name == name.replace("/", "_")


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_it_is(name, loaded):
    header = header_of(name)
    assert tuple(header) == ("title", *LABELS)
    assert re.fullmatch(r"(?s)\w.+\.", header["title"])
    swept = loaded[name].sweep.axes or len(loaded[name].sweep.lr) > 1
    runs, *reports = header["Run"].splitlines()
    assert runs.split()[:3] == ["analogtl", "sweep" if swept else "finetune", name]
    if "to be extended" not in runs:
        assert reports == [f"analogtl report runs/{loaded[name].name}"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_readable(name):
    assert all(len(line) <= 100 for line in text_of(name).splitlines())


@pytest.mark.parametrize("name", [n for n in NAMES if re.search(r"_[25]class$", n)])
def test_it_has_as_many_classes_as_its_name_says(name, loaded):
    classes = loaded[name].finetune.classes
    count = classes if isinstance(classes, int) else len(classes)
    assert name.endswith(f"_{count}class")
    assert f"{count}-class task" in header_of(name)["title"]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("paper/", "published/"))])
def test_the_paper_s_settings_hold(name, loaded):
    """Table I and Section III of arXiv 2505.11067."""
    experiment = loaded[name]
    if experiment.kind != "transfer-learning":
        return
    for stage in (experiment.pretrain, experiment.finetune):
        assert (stage.epochs, stage.batch_size, stage.lr) == (100, 8, 0.01)
    assert (experiment.pretrain.dataset, experiment.finetune.dataset) == ("cifar10", "cifar100")
    assert experiment.model.architecture == ("resnet18" if "resnet" in name else "swin_cifar_tiny")
    table_1 = {
        "transfer_every": 1.0,
        "auto_granularity": 10000,
        "momentum": 0.0,
        "auto_scale": True,
        "in_chop_prob": 0.1,
        "units_in_mbatch": False,
        "forget_buffer": True,
        "auto_momentum": 0.99,
    }
    compound = experiment.analog.values("compound")
    assert {key: compound[key] for key in table_1} == table_1
    assert experiment.analog.granularity is None
    assert experiment.analog.algorithm == "c-ttv2"
    assert experiment.analog.device.preset == "ReRamArrayHfO2PresetDevice"


def test_every_axis_has_an_experiment_for_both_tasks(loaded):
    for axis in set(AXES) - {"lr"}:
        for classes in (2, 5):
            assert any(
                axis in loaded[name].sweep.axes
                for name in NAMES
                if name.startswith(("paper/", "published/")) and name.endswith(f"_{classes}class")
            ), (axis, classes)


def test_the_desk_experiments_share_one_pretrained_model(loaded):
    desk = [e for name, e in loaded.items() if name.startswith("desk/")]
    desk = [e for e in desk if e.kind == "transfer-learning"]
    assert len(desk) > 10
    assert all(pretrain_settings(e) == pretrain_settings(desk[0]) for e in desk)


@pytest.mark.parametrize("name", NAMES)
def test_several_seeds_and_learning_rates_only_with_validation_data(name, loaded):
    assert len(loaded[name].sweep.seeds) >= 3
    if len(loaded[name].sweep.lr) > 1:
        assert loaded[name].finetune.validation_fraction > 0
