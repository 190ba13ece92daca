"""The pages of `analogtl explain`: complete, true to the code, and readable in a terminal."""

import tomllib

import pytest
from pages import EXPLAIN, PAGES, README, blocks, code, is_key, keys, links, parse
from told import problems_of

from analogtl import load_experiment
from analogtl.analysis.findings import FINDINGS
from analogtl.cli.catalogue import titles
from analogtl.config.device_file import read_device
from analogtl.config.section import flatten
from analogtl.report.results import BLOCK
from analogtl.study.columns import (
    EPOCH_COLUMNS,
    EVALUATION_COLUMNS,
    LAYER_COLUMNS,
    PULSE_COLUMNS,
    TRIAL_COLUMNS,
)
from analogtl.vocabulary import AXES, TRANSFER_ARMS, Algorithm, Dataset, Network

WRITTEN = [page for page in sorted(EXPLAIN.glob("*.md")) if page.stem not in ("keys", "commands")]
BY_NAME = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)


def text(topic: str) -> str:
    return (EXPLAIN / f"{topic}.md").read_text(encoding="utf-8")


def test_every_topic_has_a_title():
    assert all(len(title) > 10 for title in titles().values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert [target for target in links(page) if not (page.parent / target).is_file()] == []


def test_every_figure_is_shown_somewhere_and_small():
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    for figure in (EXPLAIN / "figures").iterdir():
        assert figure.resolve() in shown, figure.name
        assert figure.stat().st_size < 150_000, figure.name


@pytest.mark.parametrize("page", [README, *WRITTEN], ids=lambda page: page.stem)
def test_every_key_exists(page):
    assert [name for name in keys(page) if not is_key(name)] == []


def test_a_key_that_does_not_exist_would_be_found():
    assert not is_key("finetune.epoch")
    assert not is_key("analog.compound.fast_learning_rate")
    assert is_key("analog.compound.fast_lr")
    assert is_key("analog.device.dw_min")


@BY_NAME
def test_every_command_exists_with_its_options(page):
    for block in blocks(page, "bash"):
        for command in block.commands:
            if not command.startswith("pip install "):
                parse(command)
    for command in code(page):
        if command.startswith("analogtl ") and not set("[.") & set(command.split()[-1]):
            parse(command.replace("RUN", "runs").replace("NAME", "quickstart"))


@BY_NAME
def test_every_experiment_file_is_valid(page, tmp_path):
    for number, block in enumerate(blocks(page, "toml")):
        if block.text.startswith("class = "):
            (tmp_path / "mine.toml").write_text(block.text)
            read_device(tmp_path / "mine.toml")
            continue
        file = tmp_path / f"{number}.toml"
        name = "" if "name = " in block.text else 'name = "x"\n'
        file.write_text(name + block.text)
        load_experiment(file)


@BY_NAME
def test_the_python_is_python(page):
    for block in blocks(page, "python"):
        compile(block.text, page.name, "exec")


@BY_NAME
def test_lines_fit_a_terminal(page):
    # A table's row is one line in Markdown, and laid out when it is shown; blocks are generated.
    long = [line for line in BLOCK.sub("", page.read_text()).splitlines() if len(line) > 105]
    assert [line for line in long if not line.startswith(("|", "**"))] == []


def test_every_column_is_described():
    page = text("csv")
    for columns in (
        TRIAL_COLUMNS,
        EPOCH_COLUMNS,
        LAYER_COLUMNS,
        PULSE_COLUMNS,
        EVALUATION_COLUMNS,
    ):
        for column in columns:
            assert f"{column} " in page or f"{column}," in page, column


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("c-ttv2", Algorithm),
        ("devices-and-nonidealities", [axis for axis in AXES if axis != "lr"]),
        ("first-steps", TRANSFER_ARMS),
        ("data", Dataset),
        ("models", Network),
    ],
)
def test_nothing_is_left_out(topic, names):
    for name in names:
        assert name in text(topic), name


def test_every_finding_is_in_the_list():
    rows = [line for line in text("findings").splitlines() if line.startswith("| ")]
    assert len(rows) == len(FINDINGS) + 1  # and the header


def test_table_one_is_what_the_papers_experiments_use():
    """`papers` says which key each line of Table I is, and `paper/base` has its value."""
    resolved = flatten(load_experiment("paper/base").resolved())
    table = text("papers").partition("## Table I, key by key")[2].partition("\n\n| elsewhere")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "`" in line]
    seen = 0
    for _words, named, value in rows:
        for key in named.replace("`", "").split(", "):
            if key in resolved:
                assert resolved[key] == tomllib.loads(f"x = {value}")["x"], key
                seen += 1
    assert seen >= 13


@pytest.mark.parametrize(
    "file",
    [
        '[model]\narchtecture = "swin_digits"',
        "spv = [0, 5]",
        "[finetune]\nepochs = ",
        '[analog.device]\npreset = "EcRamPresetDevice"\n[sweep.axes]\nspv = [0, 5]',
        "[analog]\ngranularity_per_token = 5\n[analog.compound]\nauto_granularity = 10000",
        "[finetune]\nvalidation_fraction = 0.0\n[sweep]\nlr = [0.1, 0.01]",
        "[analog.device]\nw_maxx = 1",
    ],
)
def test_troubleshooting_has_the_messages_of_a_wrong_file(file, tmp_path):
    path = tmp_path / "exp.toml"
    path.write_text('name = "x"\n' + file)
    message = problems_of(load_experiment, path)[0].partition(": ")[2]
    known = [" ".join(one.split("...")[0].split()) for one in code(EXPLAIN / "troubleshooting.md")]
    assert any(len(one) > 20 and (one in message or message in one) for one in known), message


@pytest.mark.slow
def test_the_programming_error_is_as_the_page_says(capsys):
    """The example of `weight-transfer` gives the number of its table."""
    (block,) = blocks(EXPLAIN / "weight-transfer.md", "python")
    exec(compile(block.text, "weight-transfer.md", "exec"), {})
    error, clipped = map(float, capsys.readouterr().out.split())
    row = next(line for line in text("weight-transfer").splitlines() if "HfO2, no write" in line)
    assert error == pytest.approx(float(row.split("|")[3]), abs=0.005)
    assert 0 < clipped < 0.2
