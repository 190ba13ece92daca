"""Networks that are kept: the weights of trials and pretrainings, taken up again; their arrays."""

import json

import numpy as np
import pytest
from command_line import call
from pages import EXPLAIN, blocks
from probes import ended
from safetensors import safe_open

from analogtl.config.schema import Experiment
from analogtl.errors import ExperimentError
from analogtl.scheduling.sweep import run_trials
from analogtl.study.export import export
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.tables import read_rows
from analogtl.study.trial import trials_of
from analogtl.training.run_trial import run_trial
from analogtl.training.stages import pretrain

SAVED = {"save_model": True}
PCM = {"noise_model": "PCMLikeNoiseModel", "repeats": 1, "times": [0]}


def a_trial(tiny, arm="analog-scratch", run=SAVED, **sections):
    finetune = {"arms": [arm], "epochs": 1, "batch_size": 10}
    [trial] = trials_of(tiny(**{"finetune": finetune, "run": run, **sections}), sweep=False)
    return trial


def saved(run, trial, name="weights.safetensors"):
    return run.trial_path(trial.id) / name


def metadata(file):
    with safe_open(file, "numpy") as opened:
        return opened.metadata()


def taken_up(tiny, file, tmp_path, **sections):
    """The test row of a digital network that starts from a file, before any training."""
    model = {"weights": "it", "weight_files": {"it": str(file)}}
    classes = {"classes": [3, 4, 5], "samples_per_class": 20, "epochs": 0}
    sections = {"pretrain": classes, **sections, "model": {**sections.get("model", {}), **model}}
    run = RunDir(tmp_path / "again", "tiny")
    ended(pretrain(tiny(**sections), run))
    [row] = [r for r in read_rows(run.path / "pretrain" / "epochs.csv") if r["split"] == "test"]
    return row


def last_row(run, trial):
    return read_rows(run.trial_path(trial.id) / "epochs.csv")[-1]


@pytest.mark.parametrize(
    ("arm", "analog"),
    [
        ("digital-scratch", {}),
        ("analog-scratch", {"engine": "fast"}),
        ("analog-scratch", {"engine": "aihwkit"}),
        ("frozen-array", {"algorithm": "sgd"}),
        ("lora-digital", {}),
        ("lora-analog", {}),
    ],
)
def test_the_weights_of_a_trial_give_its_error_in_another_experiment(
    tiny, run_dir, tmp_path, arm, analog
):
    # The digital network has no noise in its passes; let the arrays have none.
    analog = {**analog, "forward": {"is_perfect": True}}
    trial = a_trial(tiny, arm, analog=analog)
    assert run_trial(trial, run_dir)["status"] == "done"
    row, before = taken_up(tiny, saved(run_dir, trial), tmp_path), last_row(run_dir, trial)
    assert row["error"] == before["error"]
    assert float(row["loss"]) == pytest.approx(float(before["loss"]), rel=1e-5)


def test_the_weights_of_a_pretraining_do_too(tiny, tmp_path):
    run, swin = RunDir(tmp_path / "runs", "tiny"), {"model": {"architecture": "swin_digits"}}
    found = ended(pretrain(tiny(**swin), run))
    [file], notes = export(run, tmp_path / "out")
    assert (file.name, notes) == ("pretrained.safetensors", [])
    classes = {"classes": [0, 1, 2], "samples_per_class": 9, "epochs": 0}
    row = taken_up(tiny, file, tmp_path, pretrain=classes, **swin)
    assert float(row["error"]) == pytest.approx(found.error, rel=1e-6)
    assert export(run, tmp_path / "twice")[0][0].read_bytes() == file.read_bytes()


def test_files_say_what_they_are(tiny, run_dir):
    trial = a_trial(tiny, analog={"algorithm": "agad"})
    run_trial(trial, run_dir)
    model = metadata(saved(run_dir, trial))
    assert json.loads(model["classes"]) == ["3", "4", "5"]
    assert (model["trial"], model["network"]) == (trial.id, "mlp_digits")
    arrays = metadata(saved(run_dir, trial, "arrays.safetensors"))
    assert arrays["algorithm"] == "agad"
    assert json.loads(arrays["analog"]) == trial.experiment.resolved()["analog"]
    assert set(json.loads(arrays["tiles"])) == {"body.1.0", "body.3.0", "head.0"}


def test_a_trial_that_kept_its_final_state_needs_no_training_for_it(tiny, tmp_path, monkeypatch):
    at_once, later = RunDir(tmp_path / "a", "tiny"), RunDir(tmp_path / "b", "tiny")
    trial, before = a_trial(tiny), a_trial(tiny, run={}, evaluate=PCM)
    assert trial.key == before.key
    run_trial(trial, at_once)
    run_trial(before, later)
    assert not saved(later, trial).exists()
    monkeypatch.setattr("analogtl.training.run_trial.finetune", None)  # a training would fail
    for _ in range(2):
        assert run_trial(trial, later)["status"] == "done"
        assert {"evaluation.csv", "weights.safetensors"} < set(later.checked_record(trial.id).files)
    for name in ("weights.safetensors", "arrays.safetensors"):
        assert saved(later, trial, name).read_bytes() == saved(at_once, trial, name).read_bytes()


def test_a_trial_that_kept_nothing_is_not_run_again_and_that_is_said(tiny, tmp_path):
    trial = a_trial(tiny, "digital-scratch", run={})
    run_trial(trial, RunDir(tmp_path, "tiny"))
    wanted = a_trial(tiny, "digital-scratch").experiment
    told = list(run_trials(Study.open(wanted, root=tmp_path)))
    assert [one.kind for one in told] == ["skipped", "message"]
    assert "weights.safetensors" in told[-1].text


def test_digital_arms_have_no_arrays_and_weight_programming_has(tiny, tmp_path, run_dir):
    trial = a_trial(tiny, "digital-scratch")
    left = saved(run_dir, trial, "arrays.safetensors")  # by a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    run_trial(trial, run_dir)
    assert saved(run_dir, trial).exists()
    assert not left.exists()
    settings = {"size": 8, "vectors": 20, "epochs": 1, "lr": 0.1}
    sections = {"kind": "weight-programming", "programming": settings, "run": SAVED}
    [trial] = trials_of(Experiment.model_validate({"name": "matrix", **sections}), sweep=True)
    run = RunDir(tmp_path, "matrix")
    assert run_trial(trial, run)["status"] == "done"
    with safe_open(saved(run, trial, "arrays.safetensors"), "numpy") as file:
        assert file.get_tensor("array.0.C").shape == (8, 8)
    with safe_open(saved(run, trial), "numpy") as file:
        assert file.keys() == ["array.weight"]


def test_what_is_damaged_is_not_exported(tiny, run_dir, tmp_path):
    trial = a_trial(tiny)
    run_trial(trial, run_dir)
    file = saved(run_dir, trial)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ExperimentError, match=r"weights\.safetensors"):
        export(run_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_candidates_of_a_tuning_keep_none(tiny):
    tune = {"seeds": [9], "candidates": {"finetune.lr": [0.01, 0.02]}}
    study = Study.open(tiny(sweep={"tune": tune}, run=SAVED), sweep=True)
    assert not study.tuning.own_experiment.run.save_model
    assert study.experiment.run.save_model


@pytest.fixture
def kept(tiny, run_dir):
    """A run with two arms, one of which kept its model."""
    arms = {"analog-tl": SAVED, "digital-tl": {}}
    for arm, run in arms.items():
        run_trial(a_trial(tiny, arm, run), run_dir)
    return run_dir


def test_the_command_collects_what_there_is_and_names_what_is_not(capsys, tmp_path, kept):
    out = tmp_path / "out"
    found = call(capsys, "runs", "export", str(kept.path), "--out", str(out), "--json")
    assert found.code == 0
    [trial] = [path.name for path in kept.trials.glob("arm=analog*")]
    expected = ["pretrained.safetensors", f"{trial}.safetensors", f"{trial}.arrays.safetensors"]
    assert [one["file"] for one in found.records] == [str(out / name) for name in expected]
    assert (out / expected[1]).read_bytes() == (
        kept.trial_path(trial) / "weights.safetensors"
    ).read_bytes()
    [line] = found.problems
    assert "run.save_model" in line
    only = call(capsys, "runs", "export", str(kept.path), "-o", str(out), "--trial", trial)
    assert only.code == 0
    assert len(only.out.splitlines()) == 2


def test_the_page_s_program_reads_a_layer(tmp_path, monkeypatch, capsys, kept):
    export(kept, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    [program] = [b.text for b in blocks(EXPLAIN / "models.md", "python") if "safe_open" in b.text]
    found = {}
    exec(compile(program, "models.md", "exec"), found)
    assert found["expected"].any()
    np.testing.assert_allclose(found["weight"], found["expected"], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--trial", "nonsense"], "nonsense"),
        (["--trial", "../x"], "../x"),
        (["--arm", "digital-tl"], "run.save_model"),
        (["--arm", "frozen-array"], "done"),
        (["--arm", "digitl-tl"], "digital-tl"),
        ([], "--out"),
    ],
)
def test_what_cannot_be_exported_is_one_line(capsys, tmp_path, kept, words, named):
    out = tmp_path / "out"
    target = ["--out", str(out)] if words else []
    found = call(capsys, "runs", "export", str(kept.path), *words, *target)
    assert found.code == 2
    [line] = found.problems
    assert named in line
    assert not out.exists()
