"""The command line as a process: signals, pipes, terminals, and a whole study on real digits."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import call

from analogtl.cli import output
from analogtl.study.tables import read_rows
from analogtl.vocabulary import Arm

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "analogtl"]
PATIENCE = 900.0  # seconds; a loaded machine imports torch slowly


def start(folder: Path, *argv: str, stdio=subprocess.PIPE, **more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **more},
        stdin=subprocess.DEVNULL if stdio == subprocess.PIPE else stdio,
        stdout=stdio,
        stderr=stdio,
        text=True,
    )


def interrupt_when(process: subprocess.Popen, wanted) -> tuple[list[dict], str]:
    """Press Ctrl-C once an event is as wanted; return all events and standard error.

    One reader has each pipe to its end: what a second one found there would lack what the first
    had read ahead.
    """
    events: list[dict] = []
    pressed = False
    too_long = threading.Timer(PATIENCE, process.kill)
    too_long.start()
    try:
        with ThreadPoolExecutor(1) as pool, process:
            errors = pool.submit(process.stderr.read)
            for line in process.stdout:
                events.append(json.loads(line))
                if not pressed and wanted(events[-1]):
                    process.send_signal(signal.SIGINT)
                    pressed = True
            err = errors.result()
    finally:
        too_long.cancel()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return events, err


def experiment(tiny, folder: Path, **changes) -> None:
    (folder / "exp.toml").write_text(output.toml(tiny(**changes).as_written()))


def test_ctrl_c_keeps_what_is_finished_and_the_next_call_goes_on(
    tiny, tmp_path, monkeypatch, capsys
):
    """A study that is interrupted and then finished: the whole of the main job, for real."""
    # So many that it is still at work when the signal comes, on any machine.
    wanted = 60
    experiment(tiny, tmp_path, finetune={"epochs": wanted})
    events, err = interrupt_when(
        start(tmp_path, "finetune", "--json"),
        lambda e: e["event"] == "epoch" and "analog" in e["trial"],
    )
    assert any(event["event"] == "done" for event in events)
    assert "1 of 2" in err
    assert "analogtl finetune" in err
    finished = read_rows(tmp_path / "runs" / "tiny" / "trials.csv")
    assert [row["status"] for row in finished] == ["done"]

    monkeypatch.chdir(tmp_path)
    again = call(capsys, "finetune", "--json")
    assert again.code == 0, again.err
    events = again.records
    assert [e["trial"] for e in events if e["event"] == "skipped"] == [finished[0]["trial"]]
    assert next(e for e in events if e["event"] == "done")["resumed"]
    epochs = read_rows(tmp_path / "runs" / "tiny" / "epochs.csv")
    reached = [int(r["epoch"]) for r in epochs if "analog" in r["trial"] and r["split"] == "test"]
    assert reached == list(range(wanted + 1))


def test_ctrl_c_in_pretraining_saves(tiny, tmp_path, monkeypatch, capsys):
    experiment(tiny, tmp_path, pretrain={"epochs": 3000})
    monkeypatch.chdir(tmp_path)
    emit = output.emit

    def pressed(event):
        emit(event)
        if (event["epoch"], event["split"]) == (2, "test"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(output, "emit", pressed)
    ended = call(capsys, "pretrain", "--json")
    assert ended.code == 130
    assert "saved" in ended.err
    assert ended.records[-1]["epoch"] < 3000
    # `finetune` above shows that a saved state is gone on with.
    assert list((tmp_path / "runs" / "pretrained").glob("*/resume/state.json"))


@pytest.mark.parametrize("argv", [["list", "axes"], ["explain", "keys"], ["--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, argv):
    with start(tmp_path, *argv) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=PATIENCE) == 141


def terminal(folder: Path, *argv: str, **more: str) -> str:
    """Run a command on a terminal; return everything it wrote there."""
    leader, follower = pty.openpty()
    screen = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", **more}
    process = start(folder, *argv, stdio=follower, **screen)
    os.close(follower)
    text, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ready, _, _ = select.select([leader], [], [], 0.2)
        try:
            chunk = os.read(leader, 65536) if ready else b""
        except OSError:  # nobody writes any more
            break
        text += chunk
        if not chunk and (ready or process.poll() is not None):
            break
    os.close(leader)
    assert process.wait(timeout=PATIENCE) == 0, text
    return text.decode(errors="replace")


def test_a_terminal_gets_bars_and_a_dumb_one_plain_text(tiny, tmp_path):
    experiment(tiny, tmp_path, finetune={"arms": ["digital-scratch", "digital-tl"]})
    text = terminal(tmp_path, "finetune")
    assert "\x1b[?25l" in text  # the cursor is hidden while bars are drawn
    assert "\x1b[?25h" in text  # and comes back
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "tiny: 1 of 2 " in plain
    assert f"{Arm.DIGITAL_SCRATCH.label}, seed 0: done" in plain
    for kind, drawn in (("xterm", True), ("dumb", False)):
        text = terminal(tmp_path, "runs", "show", "tiny", TERM=kind)
        assert ("\x1b" in text) == drawn
        assert "digital-scratch" in text


@pytest.mark.parametrize("argv", [["list", "presets"], ["explain", "keys"], ["sweep", "--help"]])
def test_a_terminal_without_unicode_is_served(tmp_path, argv):
    text = terminal(tmp_path, *argv, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert text.isascii()
    assert "internal error" not in text
