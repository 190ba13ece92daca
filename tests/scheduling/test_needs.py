"""What a trial needs, threads and a GPU, and how each backend provides it."""

from __future__ import annotations

from typing import Any

import fake_trials as fake
import pytest

from analogtl.config.load import with_settings
from analogtl.errors import ExperimentError
from analogtl.scheduling import local, sweep
from analogtl.scheduling.jobs import Needs
from analogtl.scheduling.local import LocalPool
from analogtl.scheduling.plan import threads_that_fit
from analogtl.scheduling.sweep import needs_of, run_trials
from analogtl.study import device
from analogtl.study.device import VISIBLE
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)


def on_gpu() -> Any:
    settings = {"finetune.arms": ["digital-scratch"], "run.device": "cuda", "sweep.axes": {}}
    return with_settings(fake.experiment(), settings)


@pytest.mark.parametrize(
    ("wanted", "jobs", "given"), [(2, 2, 2), (4, 1, 4), (4, 2, 2), (3, 4, 1), (2, 9, 1), (8, 1, 4)]
)
def test_threads_fit_the_cores_and_less_is_said(
    wanted: int, jobs: int, given: int, cores: None
) -> None:
    threads, line = threads_that_fit(wanted, jobs=jobs)
    assert threads == given
    assert bool(line) == (given < wanted)
    assert not line or f"takes {given}" in line


def test_trials_are_told_their_threads(
    run: RunDir, cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(LocalPool):
        def submit(self, job: Any) -> None:
            seen.append(job.data["limits"]["threads"])
            super().submit(job)

    monkeypatch.setattr(sweep, "LocalPool", Watched)
    experiment = with_settings(fake.experiment(), {"run.threads": 4})
    updates = list(run_trials(Study(experiment, run), jobs=2, function=fake.FUNCTION))
    assert seen == [2]
    [message] = [update.text for update in updates if update.kind == "message"]
    assert message.startswith("cores: ")


def test_without_a_gpu_here_only_another_machine_can_have_one(run: RunDir) -> None:
    study = Study(on_gpu(), run)
    with pytest.raises(ExperimentError, match="CUDA"):
        needs_of(study, "local")
    assert needs_of(study, "slurm")[0] == Needs(threads=1, gpus=1)
    assert needs_of(fake.study(run), "ray")[0] == Needs()


def test_workers_take_turns_with_the_gpus(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: 2)
    monkeypatch.delenv(VISIBLE)
    started = []

    class Process:
        stdin, stdout = None, None

        def __init__(self, command: Any, env: dict[str, str], **_: Any) -> None:
            started.append(env.get(VISIBLE))
            raise InterruptedError

    monkeypatch.setattr(local.subprocess, "Popen", Process)
    monkeypatch.setattr(local, "visible_gpus", device.visible_gpus)
    pool = LocalPool(run, None, Needs(gpus=1))
    assert pool.free() == 2, "one trial on each"
    pool = LocalPool(run, 3, Needs(gpus=1))
    for number in range(3):
        with pytest.raises(InterruptedError):
            pool._start()
        pool._workers.append(local._Worker(number + 1, None, None, None))  # type: ignore[arg-type]
    assert started == ["0", "1", "0"]
    monkeypatch.setenv(VISIBLE, "5")
    with pytest.raises(InterruptedError):
        LocalPool(run, 1, Needs())._start()
    assert started[-1] == "5", "as it is where no trial needs one"


def test_ray_reserves_threads_and_a_gpu(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from analogtl.scheduling.ray import RayPool

    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lambda **given: asked.append(given) or (lambda f: f))
    RayPool(run, 1, Needs(threads=3, gpus=1))
    RayPool(run, 1, Needs(threads=3, gpus=1), cpus=4.0, gpus=0.5)
    found = [(given["num_cpus"], given["num_gpus"]) for given in asked]
    assert found == [(3, 1), (4.0, 0.5)]


def test_slurm_reserves_threads_and_a_gpu(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    from analogtl.scheduling.slurm import SlurmPool

    asked = []
    monkeypatch.setattr(
        submitit.AutoExecutor, "update_parameters", lambda self, **given: asked.append(given)
    )
    SlurmPool(run, 1, Needs(threads=3, gpus=1), cluster="local")
    SlurmPool(run, 1, Needs(gpus=1), gpus=2, cluster="local")
    found = [(given["cpus_per_task"], given["gpus_per_node"]) for given in asked]
    assert found == [(3, 1), (1, 2)]
