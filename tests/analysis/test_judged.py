"""The judged error: what it is, and that the promised error rates hold for it.

The simulated trainings go up and down from epoch to epoch by 3.5 points, with a correlation of 0.5,
as those of experiments/results do; what is judged is the mean of their last epochs. Every bound on
a rate is checked with a false-alarm rate of 1e-4 per check.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_data import write_run
from scipy import stats

from analogtl.analysis.analyse import analyse
from analogtl.analysis.critical_point import MARGIN, CriticalPoint, critical_point
from analogtl.analysis.curves import references
from analogtl.analysis.judged import epochs_judged, epochs_text
from analogtl.analysis.read import read_run
from analogtl.analysis.reference import Control
from analogtl.errors import RunError
from analogtl.vocabulary import CriticalPointVerdict as Verdict

LEVELS = np.array([0.0, 5.0, 10.0, 15.0, 20.0, 30.0])
EPOCHS = 10
FALSE_ALARM = 1e-4
N = 250


def at_most(rate: float, hits: int, n: int = N) -> bool:
    return bool(hits <= stats.binom.ppf(1 - FALSE_ALARM, n, rate))


def trained(rng: np.random.Generator, means: np.ndarray) -> np.ndarray:
    """The judged error of trainings that end at these means, percent."""
    noise = rng.normal(0, 1, means.shape)
    epochs = []
    for _ in range(EPOCHS):
        noise = 0.5 * noise + np.sqrt(0.75) * rng.normal(0, 1, means.shape)
        epochs.append(np.round(2 * (means + 3.5 * noise)) / 2)  # of 200 images
    return np.mean(epochs[-epochs_judged(EPOCHS, None) :], axis=0)


def sweeps(
    n_blocks: int, rise: np.ndarray, control: float | None = None, seed: int = 0
) -> list[CriticalPoint]:
    """Sweeps whose error rises by so much at each level; the control ends at this error."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(N):
        blocks = 17 + rng.normal(0, 2, (n_blocks, 1))
        errors = trained(rng, blocks + rng.normal(0, 1, (n_blocks, len(LEVELS))) + rise)
        frozen = trained(rng, blocks[:, 0] + rng.normal(0, 1, n_blocks) + (control or 0))
        its = {str(block): float(error) for block, error in enumerate(frozen)}
        found.append(
            critical_point(
                np.tile(LEVELS, n_blocks),
                np.repeat(np.arange(n_blocks), len(LEVELS)),
                errors.ravel(),
                control=Control("the frozen arrays", its)
                if control is not None
                else Control("chance", 50.0),
                draws=0,
            )
        )
    return found


def unfit(found: list[CriticalPoint]) -> int:
    return sum(one.verdict is Verdict.UNFIT_REFERENCE for one in found)


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "asked", "counted"),
    [
        (30, None, 5),
        (10, None, 5),
        (8, None, 4),
        (3, None, 1),
        (1, None, 1),
        (0, None, 1),
        (8, 7, 7),
    ],
)
def test_at_most_half_of_a_training_and_five_epochs_count(epochs, asked, counted):
    assert epochs_judged(epochs, asked) == counted


@pytest.mark.parametrize(("asked", "count"), [(None, 3), (1, 1), (6, 6)])
def test_it_is_the_mean_of_the_last_epochs_of_the_csv(tmp_path: Path, asked, count):
    write_run(tmp_path / "run", arms=("analog-tl",), seeds=2, epochs=6)
    rows = read_run(tmp_path / "run", "run", asked).chosen.rows
    epochs = pd.read_csv(tmp_path / "run" / "epochs.csv")
    for trial, judged, epoch_count in zip(
        rows["trial"], rows["error_judged"], rows["judged_epochs"], strict=True
    ):
        test = epochs[(epochs["trial"] == trial) & (epochs["split"] == "test")]["error"]
        assert judged == pytest.approx(test.tolist()[-count:] and np.mean(test.tolist()[-count:]))
        assert epoch_count == count
    assert str(count) in epochs_text(rows) or count == 1


def test_the_experiment_s_own_number_counts(tmp_path: Path):
    run = write_run(tmp_path / "run", arms=("analog-tl",), seeds=1, epochs=6)
    resolved = run / "experiment.resolved.json"
    for value, count in (("2", 2), ("null", 3), ('"two"', 3)):
        text = f'{{"name": "run", "report": {{"judged_epochs": {value}}}}}'
        resolved.write_text(text)
        read = read_run(run, "run")
        assert set(read.chosen.rows["judged_epochs"]) == {count}
        assert len(read.unreadable) == (value == '"two"')


def test_more_epochs_than_there_are_is_one_line(tmp_path: Path):
    write_run(tmp_path / "run", arms=("analog-tl",), seeds=2, epochs=6)
    with pytest.raises(RunError, match="6 epochs") as caught:
        read_run(tmp_path / "run", "run", 7)
    assert "\n" not in str(caught.value)


def test_where_epochs_are_lost_all_trials_are_judged_by_the_last(tmp_path: Path):
    run = write_run(tmp_path / "run", arms=("analog-tl",), seeds=3, epochs=6)
    epochs = pd.read_csv(run / "epochs.csv")
    lost = epochs["seed"].eq(1) & epochs["epoch"].eq(5)
    for kept in (epochs[~lost], epochs[epochs["seed"].ne(1) | epochs["epoch"].lt(6)]):
        kept.to_csv(run / "epochs.csv", index=False)
        read = read_run(run, "run")
        assert read.chosen.rows["error_judged"].equals(read.chosen.rows["error_final"])
        assert set(read.chosen.rows["judged_epochs"]) == {1}
        (note,) = read.notes
        assert "1 trial" in note


# --- error rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_blocks", [3, 5])
def test_a_flat_curve_seldom_gets_a_critical_point_or_an_unfit_reference(n_blocks: int):
    found = sweeps(n_blocks, 0 * LEVELS)
    assert at_most(0.06, sum(one.verdict is Verdict.CRITICAL for one in found))
    assert at_most(0.05, unfit(found))
    costly = sweeps(n_blocks, np.where(LEVELS >= 10, MARGIN, 0.0))
    assert at_most(0.05, sum((one.certified or 0) >= 10 for one in costly))


@pytest.mark.parametrize(("n_blocks", "exact"), [(3, 0.55), (5, 0.80)])
def test_an_elbow_is_found_and_seldom_too_early(n_blocks: int, exact: float):
    found = sweeps(n_blocks, np.maximum(0, LEVELS - 10) * 1.5)
    assert at_most(0.05, sum((one.critical or 99) < 10 for one in found))
    assert at_most(1 - exact, sum(one.critical != 10 for one in found))
    assert at_most(0.05, unfit(found))


@pytest.mark.parametrize(("n_blocks", "ahead"), [(3, 20), (5, 8), (10, 5)])
def test_a_reference_that_does_not_train_is_recognised(n_blocks: int, ahead: float):
    at_chance = sweeps(n_blocks, np.full(len(LEVELS), 33.0))  # 50 % on average
    as_frozen = sweeps(n_blocks, 0 * LEVELS, control=0.0)
    behind = sweeps(n_blocks, np.where(LEVELS == 0, float(ahead), 0.0))
    for found in (at_chance, as_frozen, behind):
        assert at_most(0.05, N - unfit(found))
        assert all(one.certified is one.critical is None for one in found if one.unfit)
    # One that beats its control by as much is taken for what it is.
    assert at_most(0.05, unfit(sweeps(n_blocks, 0 * LEVELS, control=float(ahead))))


@pytest.mark.parametrize("n_blocks", [3, 5])
def test_unequal_noise_makes_no_reference_unfit(n_blocks: int):
    rng = np.random.default_rng(2)
    for place in (0, -1):  # the reference, the last level
        hits = 0
        for _ in range(N):
            errors = 20 + rng.normal(0, 1.5, (n_blocks, len(LEVELS)))
            errors[:, place] += rng.normal(0, 6, n_blocks)
            found = critical_point(
                np.tile(LEVELS, n_blocks), np.repeat(np.arange(n_blocks), len(LEVELS)),
                errors.ravel(), draws=0,
            )  # fmt: skip
            hits += found.unfit
        assert at_most(0.05, hits)


def test_a_level_that_is_better_by_less_than_the_margin_leaves_the_reference_fit():
    errors = 20 + np.random.default_rng(0).normal(0, 0.05, (5, len(LEVELS)))
    for gain, is_unfit in ((1.0, False), (3.0, True)):
        better = errors - np.where(LEVELS == 10, gain, 0.0)
        found = critical_point(
            np.tile(LEVELS, 5), np.repeat(np.arange(5), len(LEVELS)), better.ravel(), draws=0
        )
        assert found.unfit == is_unfit
        assert found.check.rival == 10


# --- in a run -------------------------------------------------------------------------------------


def test_frozen_arrays_are_the_control_where_they_were_run(tmp_path: Path):
    axes = {"wtn": [0, 5, 10]}
    arms = ("analog-tl", "frozen-array")
    run = write_run(tmp_path / "run", arms=arms, axes=axes, seeds=4)
    found = {one.curve.arm: one.point.check for one in analyse(read_run(run, "run")).curves}
    assert "frozen" in found["analog-tl"].control
    assert found["analog-tl"].lead == pytest.approx(10, abs=3)  # as the runs are written
    assert "50 %" in found["frozen-array"].control


def test_sweeps_that_start_from_the_same_trials_say_so(tmp_path: Path):
    runs = []
    for name, axis, start in (("a", "wtn", 0), ("b", "spv", 0), ("c", "sps", 1)):
        path = write_run(
            tmp_path / name, arms=("analog-tl",), axes={axis: [0, 10]}, seeds=3, start=start
        )
        runs.append(read_run(path, name))
    beside = references(run.chosen for run in runs)
    shared = [analyse(run, beside=beside).curves[0].shared_with for run in runs]
    assert shared[0] == ("b (spv)",)
    assert shared[1:] == [("a (wtn)",), ()]


def test_a_reference_with_more_blocks_is_no_gap(tmp_path: Path):
    run = write_run(tmp_path / "run", arms=("analog-tl",), axes={"wtn": [0, 10, 20]}, seeds=6)
    for name in ("trials.csv", "epochs.csv"):
        table = pd.read_csv(run / name)
        table[table["seed"].lt(3) | table["wtn"].eq(0)].to_csv(run / name, index=False)
    (one,) = analyse(read_run(run, "run")).curves
    assert (one.point.n_blocks, one.point.n_alone, one.point.n_missing) == (3, 3, 0)
    assert one.point.gaps == ()
