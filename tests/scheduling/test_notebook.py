"""What a notebook shows of trials while they run."""

import re
import sys
from types import SimpleNamespace

import pytest

from analogtl.scheduling import progress
from analogtl.scheduling.progress import follow
from analogtl.scheduling.sweep import Update
from analogtl.vocabulary import Metric

TRIALS = [
    SimpleNamespace(
        id=f"t{seed}",
        arm="analog-tl",
        axes={"wtn": 5},
        lr=0.01,
        seed=seed,
        experiment=SimpleNamespace(metric=Metric.ERROR),
    )
    for seed in range(3)
]


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn, one text after the other: each takes the place of the one before."""
    texts = []

    def draw(shown):
        texts.append(shown._repr_mimebundle_((), ())["text/html"])

    def display(shown, display_id):
        assert display_id
        draw(shown)
        return SimpleNamespace(update=draw)

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=None))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr(progress, "get_console", lambda: SimpleNamespace(is_jupyter=True))
    monkeypatch.setattr(progress, "DRAW_EVERY", 0.0)
    return texts


def epochs_of(trial):
    yield Update("started", trial)
    for epoch in (1, 2):
        yield Update("epoch", trial, {"epoch": epoch, "epochs": 2, "error": 25.0})


def a_run():
    yield Update("skipped", "t0", {"status": "done"})
    yield from epochs_of("t1")
    yield Update("done", "t1", {"error_final": 25.0})
    yield Update("failed", "t2", {"status": "failed"}, "<b>loss</b> is not finite")


def test_bars_of_what_runs_and_lines_of_what_ended(drawn):
    follow("study", TRIALS, a_run())
    [running] = [text for text in drawn if "epoch 1/2, 25.0 %" in text]
    assert re.search("1 of 3 .* 1 running", running)
    last = drawn[-1]
    assert re.search("2 of 3 .* 1 failed", last)
    assert "epoch" not in last
    assert "seed 2: failed: &lt;b&gt;loss" in last


def test_it_is_not_drawn_too_often_and_ends_as_it_is(drawn, monkeypatch):
    monkeypatch.setattr(progress, "DRAW_EVERY", 3600.0)
    follow("study", TRIALS, a_run())
    first, last = drawn
    assert "failed" not in first
    assert "1 failed" in last


def test_elsewhere_nothing_is_drawn(drawn, monkeypatch, capsys):
    monkeypatch.setattr(progress, "get_console", lambda: SimpleNamespace(is_jupyter=False))
    follow("study", TRIALS, a_run())
    assert not drawn
    assert not "".join(capsys.readouterr())


def test_what_is_interrupted_while_it_draws_stops_what_runs(drawn, monkeypatch):
    stopped = []

    def a_run():
        try:
            yield from epochs_of("t0")
        finally:
            stopped.append(True)

    def interrupted(_watcher, _update):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.NotebookWatcher, "apply", interrupted)
    with pytest.raises(KeyboardInterrupt) as held:  # as a notebook holds its traceback
        follow("study", TRIALS, a_run())
    assert stopped, held
