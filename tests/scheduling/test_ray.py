"""Trials as Ray tasks, on a real cluster of several nodes on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_trials as fake
import pytest

from analogtl.errors import ExperimentError
from analogtl.scheduling.sweep import Update, run_trials
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'analogtl[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster: a head that runs no trial, and two nodes of two CPUs each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=2) for _ in range(2)]
    made.trial_nodes = nodes
    yield made
    ray.shutdown()
    made.shutdown()


def start(run: RunDir, behaviour: dict[str, str], **given: Any) -> Iterator[Update]:
    sweep = {"seeds": given.pop("seeds")} if "seeds" in given else {}
    return run_trials(
        fake.study(run, behaviour, **sweep), backend="ray", function=fake.FUNCTION, **given
    )


def test_a_cluster_runs_trials_side_by_side_and_survives_the_loss_of_a_node(
    run: RunDir, cluster: Any
) -> None:
    behaviour = {"arm": "held"}
    seeds = [0, 1, 2, 3]
    updates = start(run, behaviour, seeds=seeds, address=cluster.address)
    seen: list[Update] = []
    for update in updates:
        seen.append(update)
        side_by_side = {u.trial for u in seen if u.kind == "epoch"}
        if len(cluster.trial_nodes) == 2 and len(side_by_side) == 4:
            cluster.remove_node(cluster.trial_nodes.pop(), allow_graceful=False)
        if update.kind == "message":  # the loss was noticed
            fake.release(run)
    done = [u.trial for u in seen if u.kind == "done"]
    trials = fake.trials(behaviour, seeds=seeds)
    assert sorted(done) == sorted(trial.id for trial in trials)
    lost = [u for u in seen if u.kind == "message" and "was lost" in u.text]
    assert 1 <= len(lost) <= 2, "the trials of the node that died"
    assert {u.trial for u in lost} <= set(done)
    rows = read_rows(run.path / "trials.csv")
    assert [row["status"] for row in rows] == ["done"] * len(trials)


def test_failures_are_like_those_of_any_backend(run: RunDir, cluster: Any) -> None:
    behaviour = {
        "wtn=0,lr=0.01,seed=0": "fail",
        "wtn=5,lr=0.01,seed=0": "bug",
        "seed=1": "segfault",
    }
    updates = list(start(run, behaviour, seeds=[0, 1, 2], address=cluster.address))
    failed = {
        u.trial[-len("wtn=0,lr=0.01,seed=0") :]: u.text for u in updates if u.kind == "failed"
    }
    assert failed["wtn=0,lr=0.01,seed=0"] == fake.PROBLEM
    assert failed["wtn=5,lr=0.01,seed=0"].startswith("TypeError:")
    assert "was lost" in failed["wtn=0,lr=0.01,seed=1"]
    assert len(failed) == 4
    assert sum(u.kind == "done" for u in updates) == 2


def test_closing_saves_and_stops_the_tasks(run: RunDir, cluster: Any) -> None:
    updates = start(run, {"arm": "steps 3000"}, address=cluster.address)
    for update in updates:
        if update.kind == "epoch":
            break
    updates.close()  # type: ignore[attr-defined]
    for trial in fake.trials():
        with run.trial_lock(trial.id, wait=False) as held:
            assert held, "nobody is at it any more"
    assert not list((run.path / ".locks").glob("stop-*"))
    assert [u.kind for u in start(run, {"arm": "sleep 0"}, address=cluster.address)].count(
        "done"
    ) == 2


def test_real_trials_give_what_the_local_backend_gives(
    tmp_path: Path, tiny: Any, cluster: Any
) -> None:
    experiment = tiny(analog={"engine": "fast"})
    tables = []
    for backend, options in (("local", {}), ("ray", {"address": cluster.address})):
        run = RunDir(tmp_path / backend, "tiny")
        updates = list(run_trials(Study(experiment, run), jobs=2, backend=backend, **options))
        assert [u.text for u in updates if u.kind == "failed"] == []
        rows = read_rows(run.path / "epochs.csv")
        tables.append([{k: v for k, v in row.items() if k != "wall_s"} for row in rows])
    assert tables[0] == tables[1]


def test_without_an_address_a_cluster_is_made_and_ended(run: RunDir) -> None:
    assert [u.kind for u in start(run, {}, jobs=1)].count("done") == 2
    assert not ray.is_initialized()


def test_the_cluster_that_the_environment_names_is_taken(
    run: RunDir, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    assert [u.kind for u in start(run, {})].count("done") == 2


def test_no_cluster_is_one_clear_line(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_GCS_RPC_TIMEOUT_S", "2")
    with pytest.raises(ExperimentError) as caught:
        list(start(run, {}, address="nothing-there"))
    assert "\n" not in str(caught.value)
    assert "nothing-there" in str(caught.value)


def test_without_ray_the_way_to_get_it_is_said(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExperimentError, match=r"analogtl\[ray\]"):
        list(start(run, {}))
