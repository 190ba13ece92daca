"""The published findings against simulated runs: never "holds" without the seeds for it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analogtl.analysis.claims import FINDINGS, ArmsFinding, CriticalFinding, LittleEffectFinding
from analogtl.analysis.critical_point import MARGIN
from analogtl.analysis.findings import COLUMNS, evaluate, holm
from analogtl.study import columns as records
from analogtl.vocabulary import AXES

ARMS = {
    "digital-tl": 15.0,
    "analog-tl": 17.0,
    "digital-scratch": 30.0,
    "analog-scratch": 34.0,
    "frozen-array": 25.0,
}
ANALOG = ("analog-tl", "analog-scratch", "frozen-array")
FALSE_ALARM = 1e-4
LEVELS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0)


def trial(arm: str, seed: int, error: float, **changes: object) -> dict[str, object]:
    analog = arm in ANALOG
    levels = "".join(f",{k}={v}" for k, v in changes.items() if k in AXES or "." in k)
    row: dict[str, object] = {
        "experiment": "fig2",
        "trial": f"arm={arm}{levels},lr=0.01,seed={seed}",
        "seed": seed,
        "arm": arm,
        "lr": 0.01,
        "algorithm": "c-ttv2" if analog else None,
        "n_classes": 2,
        "status": "done",
        "error_final": error,
        "error_validation": error,
        "weights_changed": (0.06 if arm != "frozen-array" else 0.0) if analog else None,
    }
    return row | changes


def fig2(
    n_seeds: int = 5,
    errors: Mapping[str, float] = ARMS,
    sd: float = 1.5,
    seed: int = 0,
    **changes: object,
) -> pd.DataFrame:
    """All arms; seeds share an offset, so that differences are less noisy than errors."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 3, n_seeds)
    return pd.DataFrame(
        [
            trial(arm, s, mean + offset[s] + rng.normal(0, sd), **changes)
            for arm, mean in errors.items()
            for s in range(n_seeds)
        ]
    )


def sweep(
    axis: str,
    excess: np.ndarray,
    n_seeds: int = 5,
    levels: tuple[float, ...] = LEVELS,
    sd: float = 3.0,
    seed: int = 0,
    **changes: object,
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 2, n_seeds)
    return pd.DataFrame(
        [
            trial(
                "analog-tl",
                s,
                17.0 + offset[s] + rise + rng.normal(0, sd),
                **{"experiment": axis, axis: level} | changes,
            )
            for level, rise in zip(levels, excess, strict=True)
            for s in range(n_seeds)
        ]
    )


def bend(at: float, slope: float, levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    return np.maximum(0.0, np.array(levels) - at) * slope


def quick(trials: pd.DataFrame, **options: object) -> pd.DataFrame:
    return evaluate(trials, n_permutations=199, n_bootstrap=199, **options)  # type: ignore[arg-type]


def answer(trials: pd.DataFrame, finding: str, n_classes: int = 2, **options: object) -> pd.Series:
    table = quick(trials, **options)
    table = table[table["finding"].eq(finding)]
    if finding != "arrays-learn":
        table = table[table["n_classes"].eq(n_classes)]
    assert len(table) == 1
    return table.iloc[0]


# --- the findings as data -------------------------------------------------------------------------


def test_every_published_finding_is_there_once() -> None:
    ids = [finding.id for finding in FINDINGS]
    assert len(set(ids)) == len(ids)
    critical = {(f.axis, f.n_classes): f.level for f in FINDINGS if isinstance(f, CriticalFinding)}
    assert critical == {("wtn", (2,)): 15, ("wtn", (5,)): 10, ("spv", (5,)): 10}
    little = {(f.axis, f.n_classes) for f in FINDINGS if isinstance(f, LittleEffectFinding)}
    assert little == {("spv", (2,)), ("dw_min_std", (2, 5)), ("dw_min_dtod", (2, 5))}
    pairs = {(f.better, f.worse) for f in FINDINGS if isinstance(f, ArmsFinding)}
    assert pairs == {
        ("analog-tl", "analog-scratch"),
        ("analog-tl", "digital-scratch"),
        ("digital-tl", "analog-tl"),
        ("analog-tl", "frozen-array"),
    }


def test_without_runs_every_finding_says_what_it_needs() -> None:
    table = quick(fig2().iloc[:0])
    assert list(table.columns) == COLUMNS
    assert table["verdict"].eq("not enough data").all()
    assert set(table["finding"]) == {finding.id for finding in FINDINGS}
    assert table["says"].str.startswith("No run has ").all()
    says = table.set_index(["finding", "n_classes"])["says"]
    assert says["wtn-critical-5-class", 5] == (
        "No run has a sweep of wtn with the arm analog-tl on a 5-class task."
    )
    assert (table["n_seeds"] == 0).all()


# --- arms -----------------------------------------------------------------------------------------


def test_arms_in_the_published_order() -> None:
    trials = fig2(5)
    table = quick(trials).set_index("finding")
    row = answer(trials, "analog-tl-beats-analog-scratch")
    assert row["verdict"] == "holds"
    errors = trials.pivot(index="seed", columns="arm", values="error_final")
    difference = errors["analog-scratch"] - errors["analog-tl"]
    half = stats.t.ppf(0.95, 4) * difference.std(ddof=1) / math.sqrt(5)
    assert row["estimate"] == pytest.approx(difference.mean())
    assert row["low"] == pytest.approx(difference.mean() - half)
    assert row["high"] == pytest.approx(difference.mean() + half)
    assert (row["confidence"], row["unit"], row["n_seeds"]) == (0.9, "points", 5)
    assert row["n_trials"] == 10
    assert "arm=analog-tl,lr=0.01,seed=4; " in row["trials"]
    assert "6 % of the analog weights moved" in row["note"]
    assert "Holm's correction for 4 comparisons" in row["says"]
    assert table.loc["arrays-learn", "verdict"] == "holds"
    assert table.loc["arrays-learn", "experiment"] == "fig2"


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_nothing_holds_on_fewer_than_three_seeds(n_seeds: int) -> None:
    clear = pd.concat(
        [
            fig2(n_seeds, sd=0.01),
            sweep("wtn", bend(15, 5), n_seeds, sd=0.01),
            sweep("spv", np.zeros(5), n_seeds, AXES["spv"].levels, sd=0.01),
        ]
    )
    table = quick(clear)
    assert table["verdict"].eq("not enough data").all()
    assert table["min_seeds"].eq(3).all()
    row = answer(clear, "analog-tl-beats-analog-scratch")
    assert "at least 3 are needed" in row["says"]
    assert row["n_seeds"] == n_seeds
    three = fig2(3, sd=0.01)
    assert answer(three, "analog-tl-beats-analog-scratch")["verdict"] == "holds"
    assert "5 or more are recommended" in answer(three, "digital-tl-ahead")["says"]


def test_an_advantage_that_is_not_there_is_refuted_or_left_open() -> None:
    equal = ARMS | {"analog-scratch": 17.0}
    seeds = range(100)
    found = Counter(
        answer(fig2(5, equal, seed=s), "analog-tl-beats-analog-scratch")["verdict"] for s in seeds
    )
    assert found["holds"] <= stats.binom.ppf(1 - FALSE_ALARM, 100, 0.05)
    reversed_order = ARMS | {"analog-scratch": 12.0}
    row = answer(fig2(5, reversed_order), "analog-tl-beats-analog-scratch")
    assert row["verdict"] == "does not hold"
    assert row["estimate"] < 0
    assert "points worse" in row["says"]
    # Little noise shows that there is less than a point to gain.
    row = answer(fig2(5, equal, sd=0.1, seed=1), "analog-tl-beats-analog-scratch")
    assert row["verdict"] == "does not hold"
    assert "less than 1 point better" in row["says"]
    row = answer(fig2(3, ARMS | {"analog-scratch": 19.0}, sd=6), "analog-tl-beats-analog-scratch")
    assert row["verdict"] == "not enough data"
    assert "leaves it open" in row["says"]


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [(2.0, "holds"), (8.0, "does not hold"), (-3.0, "does not hold"), (3.9, "not enough data")],
)
def test_about_two_points_is_between_nought_and_four(gap: float, verdict: str) -> None:
    row = answer(fig2(5, ARMS | {"analog-tl": 15 + gap}, sd=0.4), "digital-tl-ahead")
    assert row["verdict"] == verdict
    assert row["low"] < gap < row["high"]


def test_a_wide_interval_around_two_points_is_no_equivalence() -> None:
    assert answer(fig2(3, sd=4.0), "digital-tl-ahead")["verdict"] == "not enough data"


def test_arrays_that_did_not_move_have_not_learned() -> None:
    trials = fig2(5, weights_changed=0.0)
    row = answer(trials, "arrays-learn")
    assert row["verdict"] == "does not hold"  # though the errors differ by 8 points
    assert "not one analog weight moved" in row["says"]
    other = answer(trials, "analog-tl-beats-analog-scratch")
    assert other["verdict"] == "holds"
    assert "Not one analog weight moved" in other["note"]
    assert answer(fig2(2, weights_changed=0.0), "arrays-learn")["verdict"] == "not enough data"


def test_only_common_seeds_are_compared() -> None:
    trials = fig2(5)
    lost = trials["arm"].eq("analog-scratch") & trials["seed"].lt(3)
    row = answer(trials[~lost], "analog-tl-beats-analog-scratch")
    assert (row["n_seeds"], row["verdict"]) == (2, "not enough data")
    failed = trials.assign(status=trials["status"].mask(lost, "failed"))
    row = answer(failed, "analog-tl-beats-analog-scratch")
    assert (row["n_seeds"], row["experiment"]) == (2, "fig2")
    assert answer(trials[~lost], "analog-tl-beats-digital-scratch")["n_seeds"] == 5


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_tasks_and_experiments_are_judged_apart() -> None:
    trials = pd.concat(
        [
            fig2(5),
            fig2(5, n_classes=5, errors=ARMS | {"analog-scratch": 10.0}),
            fig2(5, experiment="full"),
            fig2(5, experiment="ten", n_classes=10),
        ]
    )
    table = quick(trials)
    rows = table[table["finding"].eq("analog-tl-beats-analog-scratch")]
    assert list(zip(rows["experiment"], rows["n_classes"], rows["verdict"], strict=True)) == [
        ("fig2", 2, "holds"),
        ("full", 2, "holds"),
        ("fig2", 5, "does not hold"),
    ]
    learn = table[table["finding"].eq("arrays-learn")]  # stated for any task
    assert set(learn["n_classes"]) == {2, 5, 10}


def test_arms_of_a_sweep_are_compared_at_the_reference() -> None:
    noisy = fig2(5, {"analog-tl": 60.0}, wtn=30.0)
    clean = fig2(5)
    clean["wtn"] = clean["arm"].isin(ANALOG).map({True: 0.0, False: np.nan})
    row = answer(pd.concat([noisy, clean]), "digital-tl-ahead")
    assert row["n_seeds"] == 5
    assert abs(row["estimate"] - 2) < 2
    # without the reference nothing is compared
    row = answer(pd.concat([noisy, clean[~clean["arm"].eq("analog-tl")]]), "digital-tl-ahead")
    assert row["verdict"] == "not enough data"


def test_other_settings_are_judged_one_by_one() -> None:
    key = "analog.compound.auto_granularity"
    rows = fig2(5)
    digital = rows[~rows["arm"].isin(ANALOG)]
    moved = rows[rows["arm"].isin(ANALOG)].assign(**{key: 160})
    frozen = moved.assign(**{key: 10000, "weights_changed": 0.0})
    table = quick(pd.concat([digital, frozen, moved]))
    learn = table[table["finding"].eq("arrays-learn")].set_index("at")["verdict"]
    assert learn.to_dict() == {f"{key}=160": "holds", f"{key}=10000": "does not hold"}
    assert list(learn.index) == [f"{key}=160", f"{key}=10000"], "in the order of the levels"
    ahead = table[table["finding"].eq("digital-tl-ahead") & table["n_classes"].eq(2)]
    assert len(ahead) == 2  # the digital arm, without a level, belongs to both


def test_rival_algorithms_do_not_count() -> None:
    trials = fig2(5)
    rival = trials["arm"].isin(ANALOG)
    agad = trials.assign(algorithm=trials["algorithm"].mask(rival, "agad"))
    assert answer(agad, "analog-tl-beats-analog-scratch")["experiment"] == ""
    both = pd.concat([trials, agad.assign(error_final=90.0)])
    assert answer(both, "analog-tl-beats-analog-scratch")["verdict"] == "holds"
    agad_sweep = sweep("wtn", bend(15, 3), algorithm="agad")
    assert answer(agad_sweep, "wtn-critical-2-class")["experiment"] == ""


def test_the_learning_rate_is_chosen_first() -> None:
    good = fig2(5)
    bad = good.assign(
        lr=0.1,
        error_final=good["error_final"] - 50,  # tempting on the test set
        error_validation=good["error_validation"] + 20,
    )
    row = answer(pd.concat([good, bad]), "analog-tl-beats-analog-scratch")
    assert row["estimate"] == pytest.approx(
        answer(good, "analog-tl-beats-analog-scratch")["estimate"]
    )
    assert "lr=0.1" not in row["trials"]


# --- critical levels and little effect ------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "at", "n_classes", "verdict"),
    [
        ("wtn-critical-2-class", 15, 2, "holds"),
        ("wtn-critical-2-class", 2, 2, "does not hold"),
        ("wtn-critical-5-class", 10, 5, "holds"),
        ("wtn-critical-5-class", 0, 5, "does not hold"),
        ("spv-critical-5-class", 10, 5, "holds"),
    ],
)
def test_critical_levels(finding: str, at: float, n_classes: int, verdict: str) -> None:
    axis = finding.split("-")[0]
    row = answer(sweep(axis, bend(at, 2.5), n_classes=n_classes), finding, n_classes)
    assert row["verdict"] == verdict
    assert row["low"] <= row["estimate"] <= row["high"]
    assert (row["unit"], row["n_seeds"], row["n_trials"]) == ("%", 5, 35)
    assert row["figure"] == {"wtn": "Fig. 3", "spv": "Fig. 4"}[axis]
    assert "% of the analog weights moved" in row["note"]


def test_a_flat_sweep_refutes_a_critical_level_only_if_the_noise_allows() -> None:
    flat = np.zeros(7)
    quiet = answer(sweep("wtn", flat, sd=0.5), "wtn-critical-2-class")
    assert quiet["verdict"] == "does not hold"
    assert "Harmless up to 30" in quiet["says"]
    noisy = answer(sweep("wtn", flat, n_seeds=3, sd=4), "wtn-critical-2-class")
    assert noisy["verdict"] == "not enough data"


def test_a_sweep_that_ends_too_early_says_so() -> None:
    short = sweep("wtn", np.zeros(4), levels=LEVELS[:4])
    row = answer(short, "wtn-critical-2-class")
    assert row["verdict"] == "not enough data"
    assert "ends at 10" in row["says"]


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_critical_level_verdicts_are_seldom_wrong(n_seeds: int) -> None:
    n = 40

    def verdicts(at: float) -> Counter[str]:
        return Counter(
            answer(sweep("wtn", bend(at, 1.5), n_seeds, seed=s), "wtn-critical-2-class")["verdict"]
            for s in range(n)
        )

    few = stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    right, low, high = verdicts(15), verdicts(5), verdicts(99)
    assert right["does not hold"] <= few
    assert right["holds"] >= {3: 0.5, 5: 0.8}[n_seeds] * n
    assert low["holds"] <= few
    assert low["does not hold"] > 0.8 * n
    assert high["holds"] <= few


def test_little_effect_needs_a_margin_not_a_large_p_value() -> None:
    levels = AXES["spv"].levels
    flat = np.zeros(len(levels))
    quiet = answer(sweep("spv", flat, levels=levels, sd=0.8), "spv-little-effect-2-class")
    assert quiet["verdict"] == "holds"
    assert quiet["high"] < MARGIN
    # Nothing is significant here either, and yet little is known.
    noisy = answer(sweep("spv", flat, 3, levels, sd=3.0), "spv-little-effect-2-class")
    assert noisy["verdict"] == "not enough data"
    assert re.search(r"takes about \d+ seeds", noisy["says"])
    steep = answer(
        sweep("spv", bend(0, 1, levels), levels=levels, sd=1), "spv-little-effect-2-class"
    )
    assert steep["verdict"] == "does not hold"
    assert steep["estimate"] == pytest.approx(20, abs=3)
    generous = answer(
        sweep("spv", flat, 3, levels, sd=3.0), "spv-little-effect-2-class", margin=15.0
    )
    assert generous["verdict"] == "holds"


def test_a_rise_counts_by_the_margin_and_not_by_being_real() -> None:
    levels = AXES["spv"].levels

    def verdict(top: float, seed: int) -> pd.Series:
        rise = np.array([0.0, 0.0, 0.0, 0.5, 1.0]) * top
        return answer(
            sweep("spv", rise, levels=levels, sd=0.3, seed=seed), "spv-little-effect-2-class"
        )

    n = 60
    small = [verdict(MARGIN / 2, seed) for seed in range(n)]
    assert sum(row["low"] > 0 for row in small) > 0.9 * n  # real, and yet little
    assert sum(row["verdict"] == "holds" for row in small) > 0.9 * n
    few = stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    at_the_margin = Counter(verdict(MARGIN, seed)["verdict"] for seed in range(n))
    assert at_the_margin["holds"] <= few
    assert at_the_margin["does not hold"] <= few
    large = Counter(verdict(2 * MARGIN, seed)["verdict"] for seed in range(n))
    assert large["does not hold"] > 0.9 * n


def test_levels_at_which_trials_failed_are_not_taken_for_harmless() -> None:
    levels = AXES["dw_min_std"].levels
    trials = sweep("dw_min_std", np.zeros(len(levels)), 5, levels, sd=0.3)
    assert answer(trials, "dw-min-std-little-effect")["verdict"] == "holds"
    for seeds in (1, 3):  # the level is kept, or left out
        failed = trials["dw_min_std"].eq(0.5) & trials["seed"].lt(seeds)
        lost = trials.assign(
            status=trials["status"].mask(failed, "failed"),
            error_final=trials["error_final"].mask(failed),
        )
        row = answer(lost, "dw-min-std-little-effect")
        assert row["verdict"] == "not enough data"
        assert row["says"].startswith("Not all trials finished at 0.5.")


def test_levels_past_the_range_of_a_finding_do_not_decide_it() -> None:
    levels = (*AXES["dw_min_std"].levels, 5.0)
    steep = np.where(np.array(levels) > 1, 20.0, 0.0)
    row = answer(sweep("dw_min_std", steep, 5, levels, sd=0.3), "dw-min-std-little-effect")
    assert row["verdict"] == "holds"
    assert row["high"] < MARGIN


@pytest.mark.slow
def test_the_number_of_seeds_that_is_suggested_is_enough() -> None:
    levels = AXES["spv"].levels
    flat = np.zeros(len(levels))
    row = answer(sweep("spv", flat, 5, levels, sd=3.0, seed=1), "spv-little-effect-2-class")
    suggested = re.search(r"takes about (\d+) seeds", row["says"])
    assert suggested
    n = 200
    needed = 48  # by the formula at the true standard deviation of 3 points
    assert int(suggested[1]) == pytest.approx(needed, rel=0.6)
    found = [little_effect(needed, levels, seed=s) for s in range(n)]
    assert found.count("holds") / n == pytest.approx(0.8, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "right", "flat"), [(3, 0.75, 0.02), (5, 0.92, 0.06)])
def test_rates_stated_in_the_module(n_seeds: int, right: float, flat: float) -> None:
    n = 300
    found = Counter(
        answer(sweep("wtn", bend(15, 1.5), n_seeds, seed=s), "wtn-critical-2-class")["verdict"]
        for s in range(n)
    )
    assert found["does not hold"] <= stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    assert found["holds"] / n == pytest.approx(right, abs=0.10)  # 4 standard errors
    levels = AXES["spv"].levels
    little = Counter(little_effect(n_seeds, levels, seed=s) for s in range(n))
    assert little["does not hold"] <= stats.binom.ppf(1 - FALSE_ALARM, n, 0.05)
    assert little["holds"] / n == pytest.approx(flat, abs=0.05)


def little_effect(n_seeds: int, levels: tuple[float, ...], seed: int) -> str:
    """The verdict on a flat sweep of spv whose trials have a standard deviation of 3 points."""
    flat = sweep("spv", np.zeros(len(levels)), n_seeds, levels, sd=3.0, seed=seed)
    table = evaluate(flat, n_permutations=0).set_index(["finding", "n_classes"])
    return str(table.loc[("spv-little-effect-2-class", 2), "verdict"])


def test_little_effect_must_reach_the_end_of_the_range() -> None:
    levels = AXES["dw_min_std"].levels
    for n_classes in (2, 5):
        full = sweep("dw_min_std", np.zeros(5), 5, levels, sd=0.5, n_classes=n_classes)
        assert answer(full, "dw-min-std-little-effect", n_classes)["verdict"] == "holds"
        short = full[full["dw_min_std"] < 0.6]
        row = answer(short, "dw-min-std-little-effect", n_classes)
        assert row["verdict"] == "not enough data"
        assert "short of 1" in row["says"]


def test_arrays_that_did_not_move_are_noted_on_sweeps() -> None:
    row = answer(sweep("wtn", bend(15, 2.5), weights_changed=0.0), "wtn-critical-2-class")
    assert "Not one analog weight moved" in row["note"]


def test_partial_sweeps_and_bare_tables() -> None:
    trials = sweep("wtn", bend(15, 2.5))
    partial = trials[trials["seed"].lt(2) | (trials["seed"].eq(2) & trials["wtn"].lt(12))]
    row = answer(partial, "wtn-critical-2-class")
    assert row["verdict"] == "not enough data"
    bare = trials[["experiment", "trial", "seed", "arm", "lr", "wtn", "error_final", "n_classes"]]
    assert answer(bare, "wtn-critical-2-class")["verdict"] == "holds"
    with pytest.raises(ValueError, match="no column 'error_best'"):
        quick(bare, metric="error_best")


def test_the_table_survives_csv(tmp_path: Path) -> None:
    table = quick(pd.concat([fig2(5), sweep("wtn", bend(15, 2.5))]))
    path = f"{tmp_path}/findings.csv"
    table.to_csv(path, index=False)
    back = pd.read_csv(path, keep_default_na=True)
    assert back["verdict"].tolist() == table["verdict"].tolist()
    assert back["estimate"].tolist() == pytest.approx(table["estimate"].tolist(), nan_ok=True)
    assert back["n_classes"].dropna().astype(int).tolist() == table["n_classes"].dropna().tolist()


def test_tables_as_records_reads_them(tmp_path: Path) -> None:
    digital = fig2(5)
    digital.loc[digital["seed"].eq(4) & digital["arm"].eq("digital-tl"), "status"] = None
    for name, trials in (("a", digital), ("b", sweep("wtn", bend(15, 2.5)))):
        (tmp_path / name).mkdir()
        trials.to_csv(tmp_path / name / "trials.csv", index=False)
    table = quick(records.read_trials(tmp_path)).set_index("finding")
    assert table.loc["wtn-critical-2-class", "verdict"] == "holds"
    beats = table[table["n_classes"].eq(2)].loc["analog-tl-beats-analog-scratch"]
    assert (beats["verdict"], beats["n_seeds"]) == ("holds", 5)
    assert table[table["n_classes"].eq(2)].loc["digital-tl-ahead", "n_seeds"] == 4
