"""The command line as a process: signals, pipes, terminals, and a whole study on real digits."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analogtl.cli import toml_text
from analogtl.study import columns as records

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "analogtl"]
PATIENCE = 300.0  # seconds; a loaded machine imports torch slowly


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "ANALOGTL_DEBUG")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def start(folder: Path, *argv: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *argv],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt_when(process: subprocess.Popen, wanted) -> tuple[list[dict], str]:
    """Press Ctrl-C once an event is as wanted; return all events and standard error."""
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if wanted(events[-1]):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=PATIENCE)
    return events + [json.loads(line) for line in out.splitlines()], err


def experiment(tiny, folder: Path, **changes) -> None:
    text = toml_text.text(tiny(**changes).as_written())
    (folder / "exp.toml").write_text(text)


def test_a_wrong_experiment_leaves_nothing_behind(tmp_path):
    wrong = ["--set", "model.architecture=mlp_digit", "--runs", str(tmp_path / "runs")]
    for command in ("finetune", "pretrain"):
        done = subprocess.run(
            [sys.executable, "-m", "analogtl", command, "quickstart", *wrong],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "did you mean mlp_digits" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


def test_ctrl_c_keeps_what_is_finished_and_the_next_call_goes_on(tiny, tmp_path):
    """A study that is interrupted and then finished: the whole of the main job, for real."""
    experiment(tiny, tmp_path, finetune={"epochs": 20})
    process = start(tmp_path, "finetune", "--json")
    events, err = interrupt_when(
        process, lambda e: e["event"] == "epoch" and "analog" in e["trial"] and e["epoch"] >= 1
    )
    assert process.returncode == 130, err
    assert any(event["event"] == "done" for event in events)
    assert "1 of 2 trials are done and kept" in err
    assert "go on with: analogtl finetune" in err
    assert "Traceback" not in err
    finished = records.read_rows(tmp_path / "runs" / "tiny" / "trials.csv")
    assert [row["status"] for row in finished] == ["done"]

    process = start(tmp_path, "finetune", "--json")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["trial"] for e in events if e["event"] == "skipped"] == [finished[0]["trial"]]
    analog = next(e for e in events if e["event"] == "done")
    assert analog["resumed"]
    epochs = records.read_rows(tmp_path / "runs" / "tiny" / "epochs.csv")
    reached = [int(r["epoch"]) for r in epochs if "analog" in r["trial"] and r["split"] == "test"]
    assert reached == list(range(21))


def test_ctrl_c_in_pretraining_saves(tiny, tmp_path):
    experiment(tiny, tmp_path, pretrain={"epochs": 3000})
    process = start(tmp_path, "pretrain", "--json")
    events, err = interrupt_when(process, lambda e: e["event"] == "pretrain" and e["epoch"] >= 2)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted: saved" in err
    assert max(event["epoch"] for event in events) < 3000
    # `finetune` above shows that a saved state is gone on with.
    assert list((tmp_path / "runs" / "pretrained").glob("*/resume/state.json"))


@pytest.mark.parametrize("argv", [["list", "axes"], ["explain", "keys"], ["--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, argv):
    with start(tmp_path, *argv) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(timeout=PATIENCE)


def terminal(folder: Path, *argv: str, **more: str) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and everything it wrote there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *argv],
        cwd=folder,
        env=environment(**{"TERM": "xterm", "COLUMNS": "80", "LINES": "24", **more}),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        close_fds=True,
    )
    os.close(follower)
    text, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ready, _, _ = select.select([leader], [], [], 0.2)
        if not ready:
            if process.poll() is not None:
                break
            continue
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        text += chunk
    os.close(leader)
    return process.wait(timeout=PATIENCE), text.decode(errors="replace")


def test_a_terminal_gets_the_live_view_and_a_dumb_one_plain_text(tiny, tmp_path):
    experiment(tiny, tmp_path, finetune={"arms": ["digital-scratch"]})
    code, text = terminal(tmp_path, "finetune")
    assert code == 0, text
    assert "\x1b[?25l" in text  # the cursor is hidden while the frame is drawn
    assert "\x1b[?25h" in text  # and comes back
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "tiny: 1 of 1 trials done" in plain
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 80
    assert "digital scratch" in text
    # All is finished now; what is left to show is the table.
    code, text = terminal(tmp_path, "finetune", TERM="dumb")
    assert code == 0
    assert "\x1b" not in text
    assert "digital from" in text


@pytest.mark.parametrize("argv", [["list", "presets"], ["explain", "keys"], ["sweep", "--help"]])
def test_a_terminal_without_unicode_is_served(tmp_path, argv):
    code, text = terminal(tmp_path, *argv, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0, text
    assert text.isascii()
    assert "internal error" not in text
