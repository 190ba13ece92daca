"""Names, values and surroundings that nobody expects: no code reaches a terminal or a shell."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, written

from analogtl.cli import completion, output
from analogtl.cli.progress import TerminalWatcher
from analogtl.config.load import load_experiment
from analogtl.errors import shell_command
from analogtl.scheduling.sweep import Update

pytestmark = pytest.mark.usefixtures("elsewhere")
REPOSITORY = Path(__file__).parents[2]
# Clears the screen, does so by one character, rings, turns the direction of text, is no text.
CODES = ("\x1b[2J", "\x9b2J", "\x07", "\u202e", "\u2066", "\udcff", "\r")
MARKUP = "[bold red]x[/] [/y] :boom:"
SMALL = """
name = "small"
model.architecture = "mlp_digits"
finetune.arms = ["digital-tl", "analog-tl"]
"""


@pytest.fixture
def small(tmp_path, fake):
    """The small experiment as exp.toml, whose trials are not trained."""
    written(tmp_path, SMALL)
    return fake


@pytest.fixture
def screen(monkeypatch):
    """Makes standard output and error those of a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


def run(folder: Path, command: str, **more: str) -> subprocess.CompletedProcess:
    """A command line in Bash; `analogtl` is this one."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}
    program = shell_command([sys.executable, "-m", "analogtl"])
    text = f'analogtl() {{ {program} "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", text], cwd=folder, env=environment, capture_output=True)


# -- the terminal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_no_code_and_no_markup_reaches_a_terminal(capsys, screen, code):
    text = f"a{code}b {MARKUP}"
    for say in (output.say, output.note, output.warn, output.problem):
        say(text)
    output.rows_table((text,), [(text,)], title=text)
    shown = capsys.readouterr()
    assert code not in shown.out + shown.err
    assert shown.out.count(MARKUP) == 4
    assert shown.err.count(MARKUP) == 3


@pytest.mark.parametrize("code", CODES)
def test_no_code_of_a_level_or_message_reaches_the_bars(capsys, screen, code):
    text = f"a{code}b {MARKUP}"
    with TerminalWatcher(text, {"one": text, "two": text}) as watcher:
        watcher.apply(Update("started", "one"))
        watcher.apply(Update("epoch", "one", {"epoch": 1, "epochs": 2, "error": 5.0}))
        watcher.apply(Update("message", "one", text=text))
        watcher.apply(Update("failed", "one", {}, text))
    shown = capsys.readouterr().out
    drawn = shown.replace("\r\x1b[2K", "").replace("\r", "", 1) if code == "\r" else shown
    assert f"a{code}b" not in drawn
    assert MARKUP in shown


def test_json_is_ascii_on_one_line(capsys):
    record = {"".join(CODES): ["\n".join(CODES), Path("r\udcff")]}
    output.emit(record)
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line) == {"".join(CODES): ["\n".join(CODES), "r\udcff"]}


# -- the shell -------------------------------------------------------------------------------------


def test_a_command_to_copy_is_one_line_and_means_the_words(tmp_path):
    rng = random.Random(0)
    letters = ["a", "1", " ", "\n", "\r", "'", '"', "\\", "$", "`", "!", "#", ";", "é", *CODES]
    words = ["", "-x", "a\ntouch made", "$(touch made)", "';touch made;'", "\\\n'x"]
    words += ["".join(rng.choices(letters, k=rng.randint(1, 8))) for _ in range(300)]
    line = shell_command(["printf", "%s\\0", *words])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    assert not (tmp_path / "made").exists()


def test_the_command_that_goes_on_is_one_line(capsys, small):
    small.interrupt = 1
    setting = "description=a\ntouch made"
    last = call(capsys, "finetune", "--set", setting).problems[-1]
    assert last.endswith(shell_command(["analogtl", "finetune", "--set", setting]))
    small.interrupt = None
    result = call(capsys, "finetune", "--set", setting, "--runs", "-r\nx")
    assert shell_command(["report", "./-r\nx/small"]) in result.problems[-1]
    shown = call(capsys, "runs", "show", "small", "--runs=-r\nx").out
    assert "touch made" in shown
    assert "\ntouch made" not in shown


@pytest.mark.parametrize(
    "name", ["a\nname = 1\n.toml", "a\x1b[2J.toml", "a\udcff.toml", "-x;.toml"]
)
def test_init_writes_a_file_that_can_be_read_whatever_its_name(capsys, name):
    result = call(capsys, "init", "--yes", "--", name)
    assert result.code == 0, result.err
    assert load_experiment(name).name
    assert result.out.count("\n") == 1 + name.count("\n")
    assert len(result.problems) == 1


def test_tab_offers_no_name_that_a_shell_would_run(tmp_path):
    names = ["$(x).toml", "a`x`.toml", "a\nb.toml", "a;b.toml", "a\\$(x).toml", "ünï 漢.toml"]
    for name in names:
        (tmp_path / name).write_text("")
    offered = [word for word, _ in completion.experiments("")]
    assert [word for word in offered if word in names] == ["ünï 漢.toml"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_tab_tells_a_meaning_on_one_line_with_its_brackets(tmp_path, shell):
    asked = {"_ANALOGTL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for key, told in (("sweep.lr=", b"rates"), ("convert.digital_layers=", b"e.g. [")):
        typed = f"analogtl sweep --set {key[:-1]}"
        done = run(tmp_path, "analogtl", **asked, _TYPER_COMPLETE_ARGS=typed)
        (line,) = done.stdout.splitlines()
        assert key.encode() in line
        assert told in line


# -- bytes that are no text ------------------------------------------------------------------------


def test_bytes_that_are_no_text_are_fine_in_a_path(capsys, tmp_path, small):
    assert call(capsys, "finetune", "--runs", "r\udcff").code == 0
    assert "r\\udcff" not in call(capsys, "finetune", "--runs", "r\udcff").err  # a shell's word
    assert [r["name"] for r in call(capsys, "runs", "--runs", "r\udcff", "--json").records]
    result = call(capsys, "report", "--runs", "r\udcff", "--format", "html", "--format", "markdown")
    assert result.code == 0, result.err
    assert r"$&#39;r\377" in (tmp_path / "r\udcff/small/report/report.html").read_text(
        encoding="utf-8"
    )
    (record,) = call(capsys, "finetune", "--dry-run", "--json", "--runs", "r\udcff").records
    assert record["run"] == "r\udcff/small"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--set", "description=\udcff"], "description"),
        (["--set", "data.root=/\udcff"], "data.root"),
        (["--set", 'model.kwargs={ a = ["\udcff"] }'], "model.kwargs"),
        (["--param", "model.architecture", "--values", "a,\udcff"], "sweep.axes.model"),
        (["--set", "finetune.classes=a,\udcff"], "finetune.classes"),
    ],
)
def test_bytes_that_are_no_text_are_refused_in_a_setting(capsys, small, words, key):
    result = call(capsys, "sweep", *words)
    assert result.code == 2
    assert key in result.err
    assert not Path("runs").exists()


# -- streams and surroundings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("analogtl list axes > /dev/full", 1, b"standard output"),
        ("analogtl explain keys > /dev/full", 1, b"standard output"),
        ("analogtl finetune --help > /dev/full", 1, b"standard output"),
        ("analogtl list axes --json > /dev/full", 1, b"standard output"),
        ("analogtl list axes >&-", 0, b""),
        ("analogtl --help >&-", 0, b""),
        ("analogtl finetune nowhere 2> /dev/full", 2, b""),
        ("analogtl finetune nowhere 2>&-", 2, b""),
        ("analogtl list axes 2> /dev/full", 0, b""),
        ("analogtl init made.toml <&-", 0, b""),
        ("mkdir gone; cd gone; rmdir ../gone; analogtl finetune quickstart --dry-run", 1, b"fold"),
    ],
)
def test_a_stream_or_folder_that_is_not_there_is_no_bug(tmp_path, command, code, said):
    done = run(tmp_path, command)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert b"internal error" not in done.stderr
    assert done.stderr.count(b"\n") <= 1 + bool(code == 0)


@pytest.mark.parametrize("width", ["0", "1", "-5", "x", "9" * 30])
def test_a_width_that_is_none_hides_nothing(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert "cifar100" in call(capsys, "list", "datasets").out


@pytest.mark.parametrize(
    "argv",
    [
        ["finetune", "--runs", ""],
        ["runs", "--runs", ""],
        ["report", ""],
        ["report", "--out", ""],
        ["init", "--yes", ""],
        ["show", "EcRamPresetDevice", "--out", ""],
    ],
)
def test_an_empty_path_is_a_mistake_and_not_this_folder(capsys, tmp_path, argv):
    result = call(capsys, *argv)
    assert (result.code, len(result.problems)) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_words_beyond_all_reason_end_in_a_short_line(capsys, small):
    many = "[finetune]\n" + "".join(f"k{number} = 1\n" for number in range(1000))
    written(Path.cwd(), 'name = "many"\n' + many, "many.toml")
    for argv in (
        ["finetune", "x" * 100_000],
        ["finetune", "--" + "x" * 100_000],
        ["finetune", "--set", "a." * 20_000 + "b=1"],
        ["finetune", "--set", "finetune.classes=" + "[" * 5000 + "]" * 5000],
        ["finetune", "--set", "finetune.epochs=" + "9" * 5000],
        ["finetune", "--runs", "x" * 5000, "--dry-run"],
        ["finetune", "many.toml"],
    ):
        result = call(capsys, *argv)
        assert result.code in (1, 2), argv[1][:20]
        assert "internal error" not in result.err
        assert max(map(len, result.problems)) < 3000
        assert len(result.problems) <= 102
