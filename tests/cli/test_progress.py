"""What is shown of trials while they run: bars, plain lines, JSON, and the time left."""

import io
import re

import pytest
from command_line import EPOCHS, FakeTrials, errors_of
from rich.console import Console

from analogtl.cli.progress import LINE_EVERY, TerminalWatcher
from analogtl.config.schema import Experiment
from analogtl.errors import duration
from analogtl.scheduling.sweep import Update
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.vocabulary import Arm, TrialStatus


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def study(tmp_path):
    """A small sweep: three trials at each of two seeds."""
    experiment = Experiment.model_validate(
        {
            "name": "study",
            "finetune": {"arms": ("digital-tl", "analog-tl")},
            "sweep": {"axes": {"wtn": (0, 20)}, "seeds": (0, 1)},
        }
    )
    study = Study(experiment, RunDir(tmp_path / "runs", "study"), sweep=True)
    study.prepare()
    return study


def epoch(trial, number, kind="epoch"):
    row = {"epoch": number, "epochs": EPOCHS, "loss": 0.5, "error": errors_of(trial)[number]}
    return Update(kind, trial.id, row)


def test_trials_are_counted_and_called_by_arm_level_and_seed(study, capsys, clock):
    watcher = TerminalWatcher.of("study", study.trials, clock=clock)
    first, second = study.trials[:2]
    watcher.apply(Update("started", first.id))
    watcher.apply(Update("failed", first.id, {"status": "failed"}, "not finite"))
    for update in FakeTrials().updates(study.run, [second]):
        watcher.apply(update)
    assert watcher.count(TrialStatus.FAILED) == watcher.count(TrialStatus.DONE) == 1
    assert watcher.messages[first.id] == "not finite"
    assert watcher.rows[second.id]["error_final"] == errors_of(second)[-1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"[0/6] {Arm.DIGITAL_TL.label}, seed 0: failed")
    arm, level, seed = lines[-1].split(", ")[:3]
    assert (arm, level) == (f"[1/6] {Arm.ANALOG_TL.label}", "wtn = 0 %")
    assert seed.startswith("seed 0: done")


def test_plain_lines_are_not_too_many_and_have_no_control_codes(study, capsys, clock):
    watcher = TerminalWatcher.of("study", study.trials, clock=clock)
    first, second = study.trials[:2]
    for number in range(EPOCHS + 1):
        clock.now += LINE_EVERY / 2.5
        watcher.apply(epoch(first, number))
    watcher.apply(Update("message", first.id, text="died"))
    watcher.apply(Update("message", text="up"))
    with watcher:
        watcher.apply(Update("skipped", second.id, {"status": "done"}))
    *epochs, died, up, earlier = capsys.readouterr().out.splitlines()
    assert [line.partition("epoch ")[2][:3] for line in epochs] == ["0/3", "3/3"]
    assert died.endswith("seed 0: died")
    assert up == "up"
    assert earlier.startswith("1 trial ")
    assert "\x1b" not in "".join(epochs)


def test_the_time_left_is_that_of_the_epochs_so_far(study, clock):
    watcher = TerminalWatcher.of("study", study.trials, clock=clock)
    assert watcher.seconds_left() is None
    trials = study.trials
    watcher.apply(Update("skipped", trials[5].id, {}))  # it takes no time
    for number in range(EPOCHS + 1):
        watcher.apply(epoch(trials[0], number))
        clock.now += 2.0
    assert watcher.seconds_left() == pytest.approx(4 * EPOCHS * 2.0)
    watcher.apply(Update("failed", trials[1].id, {}, "no"))
    assert watcher.seconds_left() == pytest.approx(3 * EPOCHS * 2.0)


def test_bars_show_what_runs_and_messages_stay_above(study, clock):
    console = Console(force_terminal=True, width=80, height=20, file=io.StringIO())
    trials = study.trials
    with TerminalWatcher.of("study", trials, console=console, clock=clock) as watcher:
        watcher.apply(Update("message", text="set aside: [bold]x[/bold]"))
        watcher.apply(epoch(trials[1], 2, "pretrain"))
        watcher.apply(epoch(trials[2], 1))
        watcher.apply(Update("failed", trials[0].id, {}, "nan"))
        watcher.bars.refresh()
    text = console.file.getvalue()
    assert "[bold]x[/bold]" in text
    assert "pretraining 2/3" in text
    assert f"epoch 1/3, {errors_of(trials[2])[1]:.1f} %" in text
    assert f"{Arm.DIGITAL_TL.label}, seed 0: failed" in text
    assert "failed: nan" in text
    assert re.search(r"\b0 of 6 .*\b2 running", text)
    assert "1 failed" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.8, "9.8 s"), (59.7, "1 min"), (48, "48 s"), (200, "3 min 20 s"),
     (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text
