"""The run directory and its index: what is finished, what is whole, who is at work."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import fake_trials as fake
import pytest

from analogtl.config.load import with_settings
from analogtl.errors import ExperimentError, RunError
from analogtl.files import lock_file, read_json, read_sealed, write_json, write_sealed
from analogtl.study import index as run_index
from analogtl.study.clean import removable, remove
from analogtl.study.provenance import versions
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import write_rows
from analogtl.study.trial import Trial

ROWS = [{"trial": "x", "epoch": 0}]
HOSTILE = ["../outside", "..", ".", "", "/etc/passwd", "a/b", "a\0b", "x" * 300, "a\nb", "\ud800"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of two finished trials."""
    made = RunDir(tmp_path / "runs", "fake")
    fill(made)
    return made


def fill(run: RunDir, behaviour: dict[str, str] | None = None, **sweep: Any) -> list[Trial]:
    study = fake.study(run, behaviour, **sweep)
    study.prepare(argv=["x"])
    for trial in study.trials:
        fake.run_trial(trial, run)
    run.collect()
    return study.trials


def state_of(run: RunDir) -> run_index.RunState:
    return run_index.state_of(run, *run_index.recorded_rows(run))


def first(run: RunDir) -> Path:
    return run.trial_path(fake.trials()[0].id)


# -- what is whole ---------------------------------------------------------------------------------


def test_a_record_comes_last_and_vouches_for_its_tables(run: RunDir) -> None:
    trial = fake.trials()[0]
    record = run.finished(trial)
    assert record is not None
    assert record.row["error_final"] == 10.0
    content = read_sealed(first(run) / "trial.json")
    assert content["settings"] == json.loads(json.dumps(trial.settings()))
    assert content["usage"]["peak_memory_mb"] > 5
    assert run.finished(fake.trials(seeds=[7])[0]) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "epochs.csv").unlink(),
        lambda path: (path / "epochs.csv").write_bytes(b""),
        lambda path: (path / "trial.json").write_bytes((path / "trial.json").read_bytes()[:-20]),
        lambda path: (path / "trial.json").write_text("[]"),
        lambda path: change_a_digit(path / "trial.json"),
        lambda path: change_a_digit(path / "epochs.csv"),
        lambda path: replace_by_a_folder(path / "trial.json"),
        lambda path: replace_by_a_folder(path / "epochs.csv"),
        lambda path: (path / "trial.json").write_text('{"row": 3}'),
        lambda path: edit(path, trial="another"),
        lambda path: edit(path, files={"../../plan.json": "0"}),
        lambda path: edit(path, files=["epochs.csv"]),
        lambda path: edit(path, row={"trial": "another", "status": "done"}),
    ],
)
def test_whatever_is_torn_is_set_aside_and_run_again(run: RunDir, damage: Any) -> None:
    damage(first(run))
    notes: list[str] = []
    assert run.record(fake.trials()[0].id, notes) is None
    assert len(notes) == 1
    assert "run again" in notes[0]
    assert not first(run).exists()
    assert os.listdir(run.path / "damaged") == [f"{first(run).name}.1"]
    assert len(run.collect()) == 1, "the tables go on without it"


def change_a_digit(file: Path) -> None:
    text = file.read_text()
    assert "10" in text
    file.write_text(text.replace("10", "11", 1))


def replace_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def edit(path: Path, **changes: Any) -> None:
    write_sealed(path / "trial.json", {**read_sealed(path / "trial.json"), **changes})


def test_what_another_process_is_writing_is_left_alone(run: RunDir) -> None:
    (first(run) / "epochs.csv").write_text("half")
    with run.trial_lock(fake.trials()[0].id) as held:
        assert held
        assert run.record(fake.trials()[0].id) is None
    assert (first(run) / "epochs.csv").read_text() == "half"


def test_a_crash_while_writing_leaves_no_record(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = fake.trials()[0]
    write = write_rows

    def crash(path: Path, *args: Any) -> None:
        write(path, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr("analogtl.study.run_dir.write_rows", crash)
    with pytest.raises(KeyboardInterrupt):
        run.write_trial(trial, {"trial": trial.id, "status": "done"}, fake.epochs_of(trial, 9), [])
    assert run.record(trial.id) is None
    assert not (run.path / "damaged").exists()


def test_collecting_again_and_again_changes_nothing(run: RunDir) -> None:
    tables = ("trials.csv", "epochs.csv", "layers.csv")
    before = [(run.path / name).read_bytes() for name in tables]
    threads = [threading.Thread(target=run.collect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(run.path / name).read_bytes() for name in tables] == before
    assert not [name for name in os.listdir(run.path) if name.endswith(".part")]


def test_a_plan_grows_or_is_replaced(run: RunDir) -> None:
    more = fake.trials(seeds=[5])
    fake.study(run, seeds=[5]).prepare(with_trials=False)
    assert run.planned() == {trial.id: trial.key for trial in fake.trials()}
    fake.study(run, seeds=[5]).prepare()
    assert run.planned() == {trial.id: trial.key for trial in more}


# -- locks -----------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom analogtl.files import lock_file\n"
        "with lock_file(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with lock_file(path, wait=False) as held:
            assert not held
        with lock_file(path, until=lambda: True) as held:
            assert not held
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    with lock_file(path) as held:
        assert held


# -- nothing leaves the run directory --------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(run: RunDir, name: str) -> None:
    with pytest.raises(RunError, match="not a name"):
        run.trial_path(name)
    with pytest.raises(RunError):
        run.record(name)


def test_hostile_names_in_files_harm_nothing(run: RunDir, tmp_path: Path) -> None:
    victim = tmp_path / "outside"
    victim.mkdir()
    (victim / "trial.json").write_text("precious")
    (run.path / "plan.json").write_text(json.dumps({"trials": [*HOSTILE[:8], 3, None, {}]}))
    edit(first(run), files={"../../../outside/trial.json": "0"})
    run.collect()
    state_of(run)
    remove(removable(run.root, everything=True)[0])
    assert (victim / "trial.json").read_text() == "precious"


@pytest.mark.parametrize(
    "part",
    [
        *("trials", "trials/{trial}", "trials/{trial}/resume", "damaged", "replaced", ".locks"),
        *("logs", "pretrain", "../pretrained"),
    ],
)
def test_links_out_of_the_run_are_not_written_through(
    run: RunDir, tmp_path: Path, part: str
) -> None:
    trial = fake.trials()[0]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    link = run.path / part.format(trial=trial.id)
    if link.exists():
        os.rename(link, tmp_path / "moved")
    link.symlink_to(outside)
    before = sorted(os.listdir(outside))
    for act in (
        lambda: run.write_trial(trial, {"trial": trial.id, "status": "done"}, [], []),
        lambda: edit(first(run), trial="another"),
        lambda: run.record(trial.id),
        lambda: run.collect(),
        lambda: run.note_pretraining("0123456789abcdef"),
        lambda: fill(run),
        lambda: remove(removable(run.root, everything=True)[0]),
        lambda: _start_worker(run),
    ):
        try:
            act()
        except (RunError, OSError):
            continue
    assert sorted(os.listdir(outside)) == before
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    [
        *("experiment.resolved.json", "plan.json", "provenance.json"),
        *("trials.csv", "epochs.csv", "layers.csv"),
        *("trials/{trial}/trial.json", "trials/{trial}/epochs.csv"),
    ],
)
def test_no_file_is_written_through_a_link(run: RunDir, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    trial = fake.trials()[0]
    link = run.path / name.format(trial=trial.id)
    os.rename(link, victim)
    link.symlink_to(victim)
    before = victim.read_bytes()
    study = Study(with_settings(fake.experiment(), {"finetune.epochs": 99}), run, sweep=True)
    for act in (
        study.prepare,
        lambda: run.write_trial(study.trials[0], {"trial": trial.id, "status": "done"}, ROWS, []),
        run.collect,
    ):
        with contextlib.suppress(RunError):
            act()
    assert victim.read_bytes() == before


def test_an_earlier_result_that_cannot_be_kept_is_not_thrown_away(
    run: RunDir, tmp_path: Path
) -> None:
    before = (first(run) / "trial.json").read_bytes()
    (run.path / "replaced").symlink_to(tmp_path)
    trial = fake.trials()[0]
    other = Study(with_settings(fake.experiment(), {"finetune.epochs": 99}), run, sweep=True)
    with pytest.raises(RunError, match="link"):
        run.write_trial(other.trials[0], {"trial": trial.id, "status": "done"}, [], [])
    assert (first(run) / "trial.json").read_bytes() == before


def _start_worker(run: RunDir) -> None:
    from analogtl.scheduling.local import LocalPool

    pool = LocalPool(run, 1, function=fake.FUNCTION)
    try:
        pool.warm()
    finally:
        pool.close()


def test_a_checkpoint_is_not_written_through_a_link(tmp_path: Path) -> None:
    import torch

    from analogtl.crossbar import checkpoint as state

    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "resume"
    folder.mkdir()
    for name in (".state.1.part", "state.1.safetensors", "state.json"):
        (folder / name).symlink_to(victim)
    state.save(folder / "state", {"w": torch.ones(3)}, {"about": 1})
    assert victim.read_text() == "precious"
    loaded = state.load(folder / "state")
    assert loaded is not None
    assert loaded[1] == {"about": 1}


def test_a_lock_that_is_a_link_is_refused(run: RunDir, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run.path / ".locks").mkdir(exist_ok=True)
    (run.path / ".locks" / "collect.lock").unlink(missing_ok=True)
    (run.path / ".locks" / "collect.lock").symlink_to(victim)
    with pytest.raises(RunError, match="is a link"):
        run.collect()
    assert victim.read_text() == "precious"


def test_no_code_of_a_run_directory_is_run(run: RunDir, tmp_path: Path) -> None:
    # A pickle under any name that analogtl reads is not JSON and not CSV, and that is all.
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    bomb = pickle.dumps(Bomb())
    for file in list(run.path.rglob("*")):
        if file.is_file() and file.suffix != ".lock":
            file.write_bytes(bomb)
    (run.path / "plan.json.pkl").write_bytes(bomb)
    assert [state_of(one).done for one in run_index.find_runs(run.root)] == [0]
    with pytest.raises(RunError, match="readable JSON"):
        run_index.diff_runs(run, run)
    removable(run.root, everything=True)
    run.collect()
    assert not (tmp_path / "exploded").exists()


# -- the index -------------------------------------------------------------------------------------


def test_states_of_runs(run: RunDir) -> None:
    fill(RunDir(run.root, "some"), {"wtn=0": "fail"})
    partial = RunDir(run.root, "partial")
    fake.study(partial).prepare()
    fake.run_trial(fake.trials()[0], partial)
    fake.study(RunDir(run.root, "empty")).prepare()
    (run.root / "not a run").mkdir()
    (run.root / "pretrained" / "x").mkdir(parents=True)
    states = {state.name: state for state in map(state_of, run_index.find_runs(run.root))}
    assert {name: state.state for name, state in states.items()} == {
        "fake": "complete", "some": "failed", "partial": "partial", "empty": "empty",
    }  # fmt: skip
    assert (states["some"].done, states["some"].planned) == (1, 2)
    assert list(states["some"].failed.values()) == [fake.PROBLEM]
    assert states["partial"].missing == [fake.trials()[1].id]
    assert states["fake"].bytes > 1000
    assert run_index.find_runs(run.root / "nothing here") == []


def test_a_trial_is_running_while_a_process_holds_it(run: RunDir) -> None:
    trial = fake.trials()[0]
    write_json(first(run) / "progress.json", {"epoch": 3})
    assert state_of(run).running == {}, "left by a process that is gone"
    with run.trial_lock(trial.id):
        state = state_of(run)
    assert state.state == "running"
    assert state.running == {trial.id: {"epoch": 3}}


def test_recorded_rows_are_sorted_by_trial(run: RunDir) -> None:
    rows, _ = run_index.recorded_rows(run)
    assert [row["trial"] for row in rows] == sorted(t.id for t in fake.trials())


def test_runs_differ_in_settings_and_versions(run: RunDir) -> None:
    other = RunDir(run.root, "other")
    experiment = with_settings(fake.experiment(), {"finetune.epochs": 99, "name": "other"})
    Study(experiment, other, sweep=True).prepare()
    provenance = read_json(other.path / "provenance.json")
    provenance["versions"]["torch"] = "9.9"
    write_json(other.path / "provenance.json", provenance)
    torch = versions()["torch"]
    assert run_index.diff_runs(run, other) == {
        "name": ("fake", "other"),
        "finetune.epochs": (10, 99),
        "versions.torch": (torch, "9.9"),
    }
    assert run_index.diff_runs(run, run) == {}


def test_a_run_is_found_by_name_and_by_folder(run: RunDir) -> None:
    assert run_index.open_run("fake", run.root).path == run.path
    assert run_index.open_run(run.path).path.samefile(run.path)
    with pytest.raises(ExperimentError, match=r"mean .fake."):
        run_index.open_run("fke", run.root)


def test_results_of_other_settings_are_kept(run: RunDir) -> None:
    trial = fake.trials()[0]
    changed = Trial(
        with_settings(trial.experiment, {"finetune.epochs": 99}),
        trial.arm, trial.axes, trial.lr, trial.seed, trial.basis,
    )  # fmt: skip
    assert changed.id == trial.id
    assert run.finished(changed) is None
    fake.run_trial(changed, run)
    assert run.finished(changed) is not None
    kept = run.path / "replaced" / f"{trial.id}.1"
    assert read_sealed(kept / "trial.json")["key"] == trial.key
    assert (kept / "epochs.csv").is_file()


def test_what_was_done_with_other_settings_does_not_complete_a_run(run: RunDir) -> None:
    assert state_of(run).state == "complete"
    changed = with_settings(fake.experiment(), {"finetune.epochs": 99})
    study = Study(changed, run, sweep=True)
    study.prepare()
    state = state_of(run)
    assert (state.state, state.done, state.planned) == ("partial", 0, 2)
    assert set(state.missing) == {trial.id for trial in study.trials}
    fake.run_trial(study.trials[0], run)
    assert state_of(run).done == 1
