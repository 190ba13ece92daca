"""Experiment files: what is read, what is refused, and how it is said."""

import os
from pathlib import Path

import pytest
from told import problems_of

from analogtl.config.load import load_experiment, with_settings
from analogtl.config.schema import Experiment
from analogtl.config.section import content_key
from analogtl.config.source import key_lines
from analogtl.study.trial import trials_of


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes, name: str = "exp.toml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def problems(path: Path, *overrides: str) -> list[str]:
    return problems_of(load_experiment, path, overrides)


def test_a_name_is_enough(write):
    experiment = load_experiment(write('name = "x"'))
    assert experiment.finetune.dataset == "digits"
    assert experiment.analog.granularity == "auto"


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        ("cifar100", ["bear", "superclass:people", "trees", 99]),
        ("cifar100", "vehicles_1"),
        ("cifar100", 100),
        ("digits", ["0", 9]),
        ("image_folder", ["whatever", 1234]),  # judged by the folder alone
    ],
)
def test_classes_that_exist_are_accepted(write, dataset, classes):
    text = repr(classes) if isinstance(classes, str) else str(classes)
    load_experiment(write(f"name='x'\n[finetune]\ndataset='{dataset}'\nclasses={text}"))


@pytest.mark.parametrize("text", [b"name = 'x'\nmodel = '\xff'", b"a = " + b"[" * 5000])
def test_what_is_no_toml_is_one_line(write, text):
    (line,) = problems(write(text))
    assert len(line) < 300


def test_extends_merges_section_by_section_and_keeps_the_line_of_each_file(write):
    base = write("name = 'base'\n[finetune]\nepochs = 3\nlr = 0.5\n", "base.toml")
    file = write("name = 'top'\nextends = 'base.toml'\n[finetune]\nepochs = 7\n")
    experiment = load_experiment(file)
    assert (experiment.name, experiment.finetune.epochs, experiment.finetune.lr) == ("top", 7, 0.5)
    base.write_text("name = 'base'\n[finetune]\nlr = 'fast'\n")
    (line,) = problems(file)
    assert line.startswith(f"{base}:3: finetune.lr")


OWN = "name='x'\n[analog.algorithms.c-ttv2.compound]\nfast_lr = 0.2\n"


def test_an_axis_that_an_algorithm_s_own_table_overrides_is_refused(write):
    axis = '[sweep.axes]\n"analog.compound.fast_lr" = [0.1, 1.0]\n'
    assert len(problems(write(OWN + axis))) == 1
    load_experiment(write(OWN.replace("c-ttv2", "agad") + axis))
    own = axis.replace("analog.compound", "analog.algorithms.c-ttv2.compound")
    levels = [
        trial.experiment.analog.values("compound")["fast_lr"]
        for trial in trials_of(load_experiment(write(OWN + own)), sweep=True)
        if trial.arm == "analog-tl"
    ]
    assert levels == [0.1, 1.0]


def test_a_folder_that_has_the_name_of_a_shipped_experiment_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "quickstart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_experiment("quickstart").name == "quickstart"
    assert len(problems(tmp_path)) == 1


def test_an_override_without_effect_is_refused(write):
    (line,) = problems(write(OWN), "analog.compound.fast_lr=0.1")
    assert line.startswith("--set analog.compound.fast_lr=0.1: ")
    assert "no effect" in line
    own = "analog.algorithms.c-ttv2.compound.fast_lr=0.1"
    assert load_experiment(write(OWN), [own]).analog.values("compound")["fast_lr"] == 0.1


def test_lr_is_the_learning_rate_of_the_kind():
    assert load_experiment("desk/weight_programming", ["lr=0.5"]).programming.lr == 0.5
    assert load_experiment("quickstart", ["lr=0.5"]).finetune.lr == 0.5


def test_a_list_whose_quotes_the_shell_took_is_that_list():
    asked = ["convert.digital_layers=[head, *.mlp.*]", "report.track=[wandb]"]
    experiment = load_experiment("quickstart", asked)
    assert experiment.convert.digital_layers == ("head", "*.mlp.*")
    assert experiment.report.track == ("wandb",)
    assert load_experiment("quickstart", ["convert.digital_layers="]).convert.digital_layers == ()
    [line] = problems_of(load_experiment, "quickstart", ["convert.digital_layers=[head"])
    assert "digital_layers" in line


def test_overrides_are_typed_by_the_schema(write):
    file = write("name = 'x'")
    experiment = load_experiment(
        file,
        [
            "finetune.epochs=3",
            "finetune.arms=digital-tl,analog-tl",
            "finetune.dataset=cifar100",
            "finetune.classes=bear,cattle",
            "pretrain.classes=2",
            "name=12",
            "wtn=5",
            "analog.device.dw_min=0.1",
            "sweep.seeds=1,2,3",
        ],
    )
    assert experiment.finetune.epochs == 3
    assert experiment.finetune.arms == ("digital-tl", "analog-tl")
    assert experiment.finetune.classes == ("bear", "cattle")
    assert experiment.pretrain.classes == 2
    assert experiment.name == "12"
    assert experiment.convert.weight_transfer_noise == 5
    assert experiment.analog.device.parameters == {"dw_min": 0.1}
    assert experiment.sweep.seeds == (1, 2, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("finetune.epoch=3", "'epochs'?"),
        ("finetune.epochs", "key=value"),
        ("finetune.epochs=many", "whole number"),
        ("name.x=1", "a value"),
        ("=3", "key=value"),
    ],
)
def test_a_bad_override_is_named(write, override, said):
    lines = problems(write("name = 'x'"), override)
    assert any(said in line and override in line for line in lines), lines


def test_key_lines_follow_tables_and_dotted_keys():
    text = "a = 1\n[b]\nc.d = 2\n\n[b.'e']  # note\nf = 3\n"
    assert key_lines(text) == {"a": 1, "b": 2, "b.c.d": 3, "b.e": 5, "b.e.f": 6}
    # TOML knows two ends of a line; Unicode more.
    assert key_lines("# x\u2028\x0c\r\na = 1\n") == {"a": 2}


def test_what_no_file_can_be_read_from_is_said(write, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        assert "expected a" in problems(path)[0]
    for number in range(30):
        write(f'extends = "chain{number + 1}.toml"', f"chain{number}.toml")
    assert "extend" in problems(tmp_path / "chain0.toml")[-1]
    file = write('extends = "\\u0000"')
    assert problems(file)[0].startswith(str(file))


def test_settings_make_a_new_experiment_and_leave_the_old():
    experiment = Experiment(name="x")
    changed = with_settings(experiment, {"convert.weight_transfer_noise": 5})
    assert changed.convert.weight_transfer_noise == 5
    assert experiment.convert.weight_transfer_noise == 0


def test_content_keys_follow_content_not_order():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})


def test_a_relative_data_folder_is_beside_the_file(write, tmp_path):
    experiment = load_experiment(write("name = 'x'\n[data]\nroot = 'images'"))
    assert experiment.data.root == str(tmp_path / "images")
