"""Experiment files: what is read, what is refused, and how it is said."""

from pathlib import Path

import pytest

from analogtl.config.load import load_experiment, parse_value, with_settings
from analogtl.config.schema import Experiment, content_key
from analogtl.config.shipped import shipped_experiments
from analogtl.config.source import key_lines
from analogtl.errors import ExperimentError
from analogtl.study.trial import trials_of


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes, name: str = "exp.toml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path, overrides)
    return caught.value.problems


def test_a_name_is_enough(write):
    experiment = load_experiment(write('name = "x"'))
    assert experiment.finetune.dataset == "digits"
    assert experiment.analog.granularity == 10


def test_every_problem_is_reported_at_once_with_its_line(write):
    file = write(
        'name = "a b"\n'
        "[model]\narchitectur = 1\n"
        "[finetune]\ndataset = 'cifar'\nclasses = true\narms = ['digtal-tl']\nepochs = 'x'\n"
        "[analog.device]\npreset = 'ReRamArrayHfO2Preset'\n"
        "[analog.compound]\nfast_lrr = 1\n"
        "[sweep.axes]\nspv = ['a']\n"
    )
    lines = problems(file)
    assert lines[0] == f"{file}: 9 problems"
    by_key = {line.split(": ")[1]: line for line in lines[1:]}
    assert by_key["name"].startswith(f"{file}:1: ")
    assert "did you mean 'architecture'?" in by_key["model.architectur"]
    assert by_key["model.architectur"].startswith(f"{file}:3: ")
    assert "did you mean 'cifar10'?" in by_key["finetune.dataset"]
    assert "list of names or numbers" in by_key["finetune.classes"]
    assert "did you mean 'digital-tl'?" in by_key["finetune.arms"]
    assert "expected a whole number" in by_key["finetune.epochs"]
    assert "did you mean 'ReRamArrayHfO2PresetDevice'?" in by_key["analog.device.preset"]
    assert "did you mean 'fast_lr'?" in by_key["analog.compound.fast_lrr"]
    assert "expected numbers" in by_key["sweep.axes.spv"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (b"name = '\xff'", "not UTF-8"),
        ("x = 1\nname = ,", ":2: not valid TOML"),
        ("name = 'x'\nname = 'y'", "not valid TOML"),
        ("epochs = 3\nname = 'x'", "epochs: unknown key"),
        ("wtn = [1]\nname = 'x'", "[sweep.axes]"),
        ("[finetune]\nepochs = 1", "name: missing"),
        ("name = 'x'\nfinetune = 3", "expected a section"),
        ("name = 'x'\n[finetune]\nlr = -1", "finetune.lr: expected more than 0"),
        ("name = 'x'\n[finetune]\nlr = nan", "finite"),
        ("name = 'x'\n[finetune]\nepochs = true", "whole number"),
        ("name = 'x'\n[sweep]\nseeds = [1, 1]", "each value once"),
        ("name = 'x'\n[sweep]\nseeds = []", "at least 1 entry;"),
        ("name = 'x'\n[sweep.axes]\nwtnn = [1]", "did you mean 'wtn'?"),
        (
            "name='x'\n[analog]\nforward.is_perfect=true\nbackward.is_perfect=true\n"
            "[sweep.axes]\nout_noise=[0, 1]",
            "sweep.axes.out_noise: has no effect",
        ),
        ("name = 'x'\n[sweep.axes]\nwtn = []", "at least one level"),
        ("name = 'x'\n[sweep.axes]\nwtn = [-5]", "wtn = -5"),
        ("name = 'x'\n[sweep.axes]\nanalog.device.foo = [1]", "no parameter 'foo'"),
        ("name = 'x'\n[sweep]\nlr=[0.1]\n[sweep.axes]\nlr = [1]", "give one of the two"),
        ("name='x'\n[analog]\ngranularity_per_token=3\ncompound.auto_granularity=3", "one of the"),
        ("name = 'x'\n[analog.device]\ndw_min = 'big'", "expected a finite number"),
        ("name = 'x'\n[analog.forward]\nnoise_management = 'Most'", "expected one of"),
        ("name = 'x'\n[analog]\nalgorithm = 'sgd'\ncompound.fast_lr = 1", "no compound"),
        ("name = 'x'\nextends = 3", "expected a file name"),
        ("name = 'x'\nextends = 'gone.toml'", "extends: gone.toml: no such file"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_bad_files_get_one_clear_line(write, text, said):
    lines = problems(write(text))
    assert any(said in line for line in lines), lines
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("dataset", "classes", "said"),
    [
        ("cifar100", ["baer", "cattle"], "no class 'baer'; did you mean beaver or bear?"),
        ("cifar100", ["superclass:peple", 1], "did you mean people"),
        ("cifar100", ["superclass:bear", 1], "no class 'superclass:bear'"),
        ("cifar10", ["cat", "xyz"], "no class 'xyz'; `analogtl list classes` shows them"),
        ("cifar10", [3, 10], "10 is no label of cifar10: they are 0 to 9"),
        ("digits", ["3", -1], "-1 is no label"),
        ("cifar10", 11, "cifar10 has 10 classes; got 11"),
    ],
)
def test_a_class_that_does_not_exist_is_found_without_the_data(write, dataset, classes, said):
    file = write(f"name='x'\n[finetune]\ndataset = '{dataset}'\n\nclasses = {classes}")
    (line,) = problems(file)
    assert line.startswith(f"{file}:5: finetune.classes: ")
    assert said in line


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


def test_an_axis_that_the_device_does_not_have_names_those_that_do(write):
    file = write(
        "name = 'x'\n[analog.device]\npreset = 'EcRamPresetDevice'\n[sweep.axes]\nspv = [0, 5]"
    )
    (line,) = problems(file)
    assert "EcRamPresetDevice has no reference_std" in line
    assert "ReRamArrayHfO2PresetDevice" in line


def test_a_folder_is_not_a_file(tmp_path):
    (line,) = problems(tmp_path)
    assert "found a folder" in line


def test_a_misspelt_shipped_name_gets_a_hint():
    (line,) = problems(Path("quickstrat"))
    assert "did you mean 'quickstart'?" in line


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
    with pytest.raises(ExperimentError, match=r"c-ttv2\.compound\.fast_lr of this experiment"):
        load_experiment(write(OWN + axis))
    load_experiment(write(OWN.replace("c-ttv2", "agad") + axis))
    own = axis.replace("analog.compound", "analog.algorithms.c-ttv2.compound")
    levels = [
        trial.experiment.analog.values("compound")["fast_lr"]
        for trial in trials_of(load_experiment(write(OWN + own)), sweep=True)
        if trial.arm == "analog-tl"
    ]
    assert levels == [0.1, 1.0]


def test_every_problem_is_named_with_its_own_line_also_those_behind_others(write):
    file = write(
        "name = 'x'\nexteds = 'quickstart'\n[finetune]\nepochs = 'many'\n[analog.device]\n"
        "w_max = 'big'\ndw_min_stdd = 3\n[sweep]\nseeds = [-1]\n[sweep.axes]\nspw = [1]\n"
        "spv = [[1]]\nwtn = 5\n"
    )
    with pytest.raises(ExperimentError) as raised:
        load_experiment(file)
    title, *problems = raised.value.problems
    assert title.endswith("8 problems")
    wanted = {
        2: "exteds: unknown key; did you mean 'extends'",
        4: "finetune.epochs: expected a whole number; got 'many'",
        6: "analog.device.w_max: expected a finite number; got 'big'",
        7: "analog.device.dw_min_stdd: ReRamArrayHfO2PresetDevice",
        9: "sweep.seeds: expected 0 or more; got -1",
        11: "sweep.axes.spw: unknown axis 'spw'; did you mean 'spv'?",
        12: "sweep.axes.spv: expected numbers; got [[1]]",
        13: "sweep.axes.wtn: expected a list; got 5",
    }
    for line, text in wanted.items():
        assert any(problem.startswith(f"{file}:{line}: {text}") for problem in problems), text


def test_what_follows_from_a_deciding_key_is_not_guessed(write):
    with pytest.raises(ExperimentError) as raised:
        load_experiment(
            write("name='x'\n[analog]\nalgorithm='agadd'\n[analog.compound]\nbuffer_cap=3")
        )
    [problem] = raised.value.problems
    assert "did you mean 'agad'" in problem


def test_one_axis_under_two_names_is_refused(write):
    file = write("name='x'\n[sweep.axes]\nwtn = [0, 1]\n'convert.weight_transfer_noise' = [0, 1]\n")
    with pytest.raises(ExperimentError, match=r":4: .*sets the same as wtn: give one of the two"):
        load_experiment(file)


def test_the_fast_engine_is_refused_where_it_cannot_run(write):
    with pytest.raises(ExperimentError, match="fast does not run mp"):
        load_experiment("quickstart", ["analog.engine=fast", "analog.algorithm=mp"])


def test_a_folder_that_has_the_name_of_a_shipped_experiment_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "quickstart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_experiment("quickstart").name == "quickstart"
    with pytest.raises(ExperimentError, match="found a folder"):
        load_experiment(tmp_path)


def test_an_override_without_effect_is_refused(write):
    with pytest.raises(ExperimentError, match=r"has no effect, as analog\.algorithms\.c-ttv2"):
        load_experiment(write(OWN), ["analog.compound.fast_lr=0.1"])
    own = "analog.algorithms.c-ttv2.compound.fast_lr=0.1"
    assert load_experiment(write(OWN), [own]).analog.values("compound")["fast_lr"] == 0.1


@pytest.mark.parametrize("name", ["report", "pretrained", "trials"])
def test_a_name_that_the_tool_uses_itself_is_refused(write, name):
    with pytest.raises(ExperimentError, match=r"name: .* is the name of a folder of this tool"):
        load_experiment(write(f"name = '{name}'"))


def test_lr_is_the_learning_rate_of_the_kind():
    assert load_experiment("desk/weight_programming", ["lr=0.5"]).programming.lr == 0.5
    assert load_experiment("quickstart", ["lr=0.5"]).finetune.lr == 0.5


def test_extends_in_a_circle_is_refused(write):
    write("name='a'\nextends='b.toml'", "a.toml")
    file = write("name='b'\nextends='a.toml'", "b.toml")
    (line,) = problems(file)
    assert "circle" in line


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
        ("finetune.epoch=3", "did you mean 'epochs'?"),
        ("finetune.epochs", "expected key=value"),
        ("finetune.epochs=many", "expected a whole number"),
        ("name.x=1", "name is a value, not a section"),
        ("=3", "expected key=value"),
    ],
)
def test_a_bad_override_is_named(write, override, said):
    lines = problems(write("name = 'x'"), override)
    assert any(said in line and override in line for line in lines), lines


def test_parse_value_reads_toml_and_falls_back_to_text():
    assert parse_value("3") == 3
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value("true") is True
    assert parse_value("bear") == "bear"


def test_key_lines_follow_tables_and_dotted_keys():
    text = "a = 1\n[b]\nc.d = 2\n\n[b.'e']  # note\nf = 3\n"
    assert key_lines(text) == {"a": 1, "b": 2, "b.c.d": 3, "b.e": 5, "b.e.f": 6}


def test_settings_make_a_new_experiment_and_leave_the_old():
    experiment = Experiment(name="x")
    changed = with_settings(experiment, {"convert.weight_transfer_noise": 5})
    assert changed.convert.weight_transfer_noise == 5
    assert experiment.convert.weight_transfer_noise == 0


def test_content_keys_follow_content_not_order():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})


def test_the_quickstart_is_shipped():
    assert "quickstart" in shipped_experiments()
    assert load_experiment("quickstart").name == "quickstart"


def test_a_relative_data_folder_is_beside_the_file(write, tmp_path):
    experiment = load_experiment(write("name = 'x'\n[data]\nroot = 'images'"))
    assert experiment.data.root == str(tmp_path / "images")
