"""The board behind the live view, its frames, plain lines, and the characters of both."""

import itertools

import pytest
from command_line import EPOCHS, FakeTrials, errors_of
from rich.console import Console

from analogtl.cli import live, textplot
from analogtl.cli.board import Board
from analogtl.cli.output import duration
from analogtl.config.schema import Experiment
from analogtl.scheduling.sweep import Update
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def study(tmp_path):
    """Trials of a small sweep, their board, and a clock that stands still."""

    def make(arms=("digital-tl", "analog-tl"), seeds=(0, 1), wtn=(0, 20), **options):
        experiment = Experiment.model_validate(
            {
                "name": "study",
                "finetune": {"arms": arms},
                "sweep": {"axes": {"wtn": wtn}, "seeds": seeds},
            }
        )
        study = Study(experiment, RunDir(tmp_path / "runs", "study"), sweep=True)
        study.prepare()
        clock = Clock()
        trials = study.trials
        return trials, Board("study", trials, study.run, clock=clock, **options), clock

    return make


def progress(trial, epoch, stage="finetune"):
    error = errors_of(trial)[epoch]
    row = {"stage": stage, "epoch": epoch, "epochs": EPOCHS, "loss": 0.5, "error": error}
    row |= {"wall_s": 2.0, "seconds_left": 2.0 * (EPOCHS - epoch)}
    return Update("pretrain" if stage == "pretrain" else "epoch", trial.id, row)


def finish(board, trials):
    run = board._run
    for update in FakeTrials().updates(run, trials):
        board.apply(update)


def text_of(frame):
    return [line.plain for line in frame]


def test_the_board_follows_the_updates(study):
    trials, board, _ = study()
    first = trials[0]
    board.apply(Update("started", first.id))
    assert board.running()[0].epoch is None
    board.apply(progress(first, 0))
    board.apply(progress(first, 1))
    assert board.running()[0].curve == dict(enumerate(errors_of(first)[:2]))
    board.apply(Update("failed", first.id, {"status": "failed"}, "not finite"))
    assert [state.message for state in board.failures()] == ["not finite"]
    assert board.apply(Update("message", "", text="hello")) is None
    assert board.done == 0


def test_groups_are_arms_and_levels_and_curves_are_means_over_seeds(study):
    trials, board, _ = study()
    assert list(board.groups) == ["digital TL", "analog TL, wtn = 0 %", "analog TL, wtn = 20 %"]
    finish(board, trials)
    assert board.done == len(trials) == 6
    both = [t for t in trials if t.arm == "analog-tl" and t.axes == {"wtn": 20}]
    expected = [sum(pair) / 2 for pair in zip(*map(errors_of, both), strict=True)]
    assert list(board.curve("analog TL, wtn = 20 %").values()) == pytest.approx(expected)


def test_time_left_comes_from_finished_trials_then_from_what_was_expected(study):
    trials, board, clock = study(jobs=2)
    assert board.seconds_left() is None
    finish(board, [t for t in trials if t.arm == "digital-tl"])  # 8 s each
    assert board.seconds_left() == pytest.approx(4 * 8 / 2)
    analog = [t for t in trials if t.arm == "analog-tl"]
    board.apply(Update("started", analog[0].id))
    board.apply(progress(analog[0], 1))  # 4 s left
    assert board.seconds_left() == pytest.approx(
        (4 + 3 * 6) / 2
    )  # they will last as long as this one
    clock.now += 3.0
    assert board.seconds_left() == pytest.approx((1 + 3 * 6) / 2)
    _, board, _ = study(expected={trial.id: 50.0 for trial in trials})
    assert board.seconds_left() == pytest.approx(6 * 50)


def test_time_left_of_a_pretraining_is_measured_not_believed(study):
    trials, board, clock = study()
    board.apply(progress(trials[0], 0, "pretrain"))
    clock.now += 10.0
    board.apply(progress(trials[0], 1, "pretrain"))
    assert board.running()[0].status == "pretraining"
    assert board.running()[0].left_s == pytest.approx(10.0 * (EPOCHS - 1))
    assert not board.running()[0].curve


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(("width", "height"), [(80, 23), (60, 15), (40, 8), (200, 60), (80, 5)])
def test_a_frame_fits_its_terminal_at_every_moment(study, width, height, unicode):
    arms = ("digital-tl", "analog-tl", "digital-scratch", "analog-scratch", "frozen-array")
    trials, board, _ = study(arms=arms, wtn=(0, 5, 10, 20))
    for trial in trials[:9]:
        for update in itertools.chain(
            [Update("started", trial.id)], (progress(trial, e) for e in range(EPOCHS + 1))
        ):
            board.apply(update)
            lines = text_of(live.frame(board, width, height, unicode=unicode))
            assert len(lines) <= height
            assert all(len(line) <= width for line in lines)
            if not unicode:
                assert all(line.isascii() for line in lines), lines
    assert "study: 0 of" in lines[0]


def test_a_frame_shows_curves_against_the_digital_baseline(study):
    trials, board, clock = study(seeds=(0,), wtn=(20,))
    finish(board, [t for t in trials if t.arm == "digital-tl"])
    (analog,) = [t for t in trials if t.arm == "analog-tl"]
    board.apply(Update("started", analog.id))
    for epoch in range(3):
        board.apply(progress(analog, epoch))
    clock.now += 65
    lines = text_of(live.frame(board, 80, 30))
    assert lines[0].startswith("study: 1 of 2 trials done, 1 running")
    assert lines[0].endswith("65 s")  # its 2 s are over
    (row,) = [line for line in lines if line.startswith("analog TL, wtn = 20 %  ")]
    error = errors_of(analog)[2]
    baseline = errors_of(trials[0])[2]
    assert f"{error:.1f}" in row
    assert row.split()[-1] == f"{error - baseline:+.1f}"
    assert "● digital TL   ■ analog TL, wtn = 20 %" in " ".join(lines)
    assert any("fine-tuning 2/3, loss 0.5" in line for line in lines)


def test_the_live_view_shows_failures_and_messages_above_the_frame(study):
    trials, board, _ = study()
    console = Console(force_terminal=True, width=80, height=20, file=__import__("io").StringIO())
    with live.live_view(board, console) as view:
        for update in (
            Update("message", "", text="set aside: [bold]x[/bold]"),
            Update("failed", trials[0].id, {}, "loss is not finite"),
        ):
            view.update(update, board.apply(update))
    text = console.file.getvalue()
    assert "set aside: [bold]x[/bold]" in text
    assert "digital TL, seed 0: failed: loss is not finite" in text


def test_plain_lines_have_no_control_codes_and_are_not_too_many(study, capsys):
    trials, board, _ = study()
    view = live.PlainView(board)
    first = trials[0]
    updates = [Update("started", first.id), *(progress(first, e) for e in range(EPOCHS + 1))]
    updates += [Update("message", first.id, text="died; it goes on"), Update("message", text="up")]
    for update in updates:
        view.update(update, board.apply(update))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("epoch ")[2][:3] for line in lines[:2]] == ["0/3", "3/3"]
    assert lines[2:] == [f"{first.id}: died; it goes on", "up"]
    assert "\x1b" not in "".join(lines)


# -- characters ------------------------------------------------------------------------------------


def test_sparkline():
    assert textplot.sparkline([0, 50, 100], 0, 100, 10) == "▁▅█"
    assert textplot.sparkline([0, float("nan"), 100], 0, 100, 10, unicode=False) == "_ #"
    assert textplot.sparkline([5, 5], 5, 5, 10) == "▁▁"
    long = textplot.sparkline(list(range(100)), 0, 99, 10)
    assert len(long) == 10
    assert long[-1] == "█"


def test_a_chart_puts_points_where_they_belong():
    line = textplot.Line("a", [0, 1, 2], [0, 5, 10], dots=True)
    rows = [t.plain for t in textplot.chart([line], width=30, height=11, legend=False)]
    field = [row.partition("│")[2] for row in rows[:11]]
    places = [(field[row].index("●"), row) for row in (10, 5, 0)]
    columns = max(column for column, _ in places)
    assert places == [(0, 10), (pytest.approx(columns / 2, abs=0.5), 5), (columns, 0)]
    assert rows[0].split()[0] == "10"
    assert rows[10].split()[0] == "0"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 83.1, (0, 100, 20)), (-0.9, 1.25, (-1, 1.5, 0.5)), (0, 0, (0, 1, 0.2)), (0, 7, (0, 8, 2))],
)
def test_scales_are_round(low, high, expected):
    assert textplot._scale(low, high) == pytest.approx(expected)


def test_a_chart_of_nothing_is_nothing():
    assert textplot.chart([], width=80, height=8) == []
    empty = textplot.Line("a", [float("nan")], [1.0])
    assert textplot.chart([empty], width=80, height=8) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.2, "0 s"), (99, "99 s"), (150, "2 min"), (7500, "2 h 5 min"),
     (3 * 86400 + 4 * 3600, "3 d 4 h")],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text
