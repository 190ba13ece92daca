"""Weights from outside: what is taken of a file, what is refused, and what a trial rests on."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from command_line import call, written
from safetensors.torch import save, save_file
from told import problems_of
from torch import nn

from analogtl.config.load import load_experiment
from analogtl.errors import ExperimentError, RunError
from analogtl.models.build import build_model
from analogtl.models.published import WeightFile, find_published
from analogtl.study.basis import basis_of, fingerprint_at_hand
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.study.weights import WEIGHTS
from analogtl.training import stages, weights
from analogtl.training.run_trial import run_trial

EXPERIMENT = """
name = "given"
[model]
architecture = "mlp_digits"
weights = "{file}"
{keys}
[pretrain]
classes = [0, 1, 2]
samples_per_class = 20
epochs = {epochs}
[finetune]
classes = [3, 4, 5, 6]
samples_per_class = 20
epochs = 1
arms = ["digital-tl", "digital-scratch"]
"""


def a_network(n_classes=3, name="mlp_digits", image_size=8, in_channels=1):
    torch.manual_seed(5)
    return build_model(name, n_classes=n_classes, image_size=image_size, in_channels=in_channels)


@pytest.fixture
def given(tmp_path):
    """Writes an experiment file whose weights are in a file with these tensors."""

    def make(tensors, file="net.safetensors", epochs=0, keys="", metadata=None):
        if file.endswith(".safetensors"):
            save_file(tensors, tmp_path / file, metadata)
        elif ":" not in file:  # of a hub
            torch.save(tensors, tmp_path / file)
        return written(tmp_path, EXPERIMENT.format(file=file, epochs=epochs, keys=keys))

    return make


def loaded(experiment_file):
    """The network of the experiment after its weights were put in."""
    torch.manual_seed(6)
    experiment, model = load_experiment(experiment_file), a_network()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    weights.start_from(model, experiment, stages.task_of(experiment, "pretrain"))
    return model.state_dict()


def problem(experiment_file):
    [line] = problems_of(loaded, experiment_file)
    return line


def same(a, b, but=()):
    return all(torch.equal(a[name], b[name]) for name in a if not name.startswith(but))


@pytest.mark.parametrize("file", ["net.safetensors", "net.pt"])
def test_every_tensor_is_that_of_the_file(given, file):
    state = a_network().state_dict()
    assert same(loaded(given(state, file)), state, but=("nothing",))


@pytest.mark.parametrize("inside", ["state_dict", "model", "model_state_dict"])
def test_a_training_s_own_file_is_read_with_what_is_beside_the_network(given, inside):
    network = a_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    saved = {
        "epoch": 3,
        inside: {f"module.{name}": one for name, one in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }
    assert same(loaded(given(saved, "net.pth")), network.state_dict(), but=("nothing",))


def test_halves_and_views_are_read_as_torch_reads_them(given):
    state = {name: tensor.half() for name, tensor in a_network().state_dict().items()}
    whole = torch.zeros(100, 64, dtype=torch.bfloat16)
    whole[:] = torch.arange(64)
    state["body.1.weight"] = whole[3:67].T  # of a storage that holds more, and not contiguous
    found = loaded(given(state, "net.pt"))
    assert torch.equal(found["body.1.weight"], whole[3:67].T.float())
    assert torch.equal(found["body.3.bias"], state["body.3.bias"].float())


def test_a_head_of_other_classes_is_left_as_it_is_and_all_else_taken(given):
    state = a_network(n_classes=7).state_dict()
    found = loaded(given(state))
    assert same(found, state, but=("head",))
    assert found["head.weight"].shape == (3, 32)
    assert not found["head.weight"].any()
    assert torch.equal(found["body.3.weight"], state["body.3.weight"])


def test_half_a_head_is_left_as_if_there_were_none(given):
    state = a_network().state_dict()
    del state["head.bias"]
    found = loaded(given(state))
    assert not found["head.weight"].any()
    assert same(found, {**state, "head.bias": 0}, but=("head",))


def test_a_file_without_a_head_will_do(given):
    state = {name: t for name, t in a_network().state_dict().items() if "head" not in name}
    assert torch.equal(loaded(given(state))["body.3.weight"], state["body.3.weight"])


def test_what_does_not_match_is_listed_in_one_line(given):
    state = a_network().state_dict()
    del state["body.1.bias"]
    state |= {"extra.weight": torch.zeros(2), "body.3.weight": torch.zeros(32, 63)}
    line = problem(given(state))
    for word in ("1 missing (body.1.bias)", "1 unexpected (extra.weight)", "32x63, not 32x64"):
        assert word in line


def test_a_deeper_network_of_the_same_kind_is_refused(given, tmp_path):
    state = a_network(name="resnet34", image_size=32, in_channels=3).state_dict()
    file = given(state)
    file.write_text(file.read_text().replace("mlp_digits", "resnet18"))
    experiment = load_experiment(file)
    model = a_network(name="resnet18", image_size=32, in_channels=3)
    with pytest.raises(ExperimentError, match="unexpected"):
        weights.start_from(model, experiment, stages.task_of(experiment, "pretrain"))


def test_numbers_that_are_not_finite_are_refused(given):
    state = a_network().state_dict()
    state["body.3.bias"][4] = float("nan")
    assert "body.3.bias" in problem(given(state))


class Evil:
    def __init__(self, ran):
        self.ran = ran

    def __reduce__(self):
        return (os.mkdir, (self.ran,))


def archive(path, content, data=b"\0" * 40, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("net/data.pkl", content)
        file.writestr("net/data/0", data)


def a_tensor(shape, strides):
    """A pickle of one tensor over the storage of ten numbers."""
    numbers = b"".join(b"\x8a\x06" + n.to_bytes(6, "little") for n in shape)
    steps = b"".join(b"\x8a\x06" + n.to_bytes(6, "little") for n in strides)
    return (
        b"\x80\x02}X\x0d\x00\x00\x00body.1.weightctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        b"K\ntQK\x00(" + numbers + b"t(" + steps + b"t\x89}tRs."
    )


NESTED = b"\x80\x02)" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))  # twice itself, ...


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\x80\x04\x95", "bare pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs"),
        (b"<!DOCTYPE html><html></html> and more", "web page"),
        (struct.pack("<Q", 1 << 40) + b"{" + b" " * 30, "neither"),
        (struct.pack("<Q", 20) + b"{" + b" " * 30, "damaged"),
        (b"PK\x03\x04" + b"\0" * 60, "whole"),
    ],
)
def test_what_is_no_file_of_weights_is_told_in_a_line(given, tmp_path, content, word):
    file = given({"x": torch.zeros(1)})
    (tmp_path / "net.safetensors").write_bytes(content)
    assert word in problem(file)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_told_in_a_line(given, tmp_path, name, part):
    file = given(a_network().state_dict(), name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(part * len(whole))])
    assert name in problem(file)


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not(given, tmp_path, capsys):
    ran = tmp_path / "ran"
    file = given({"x": Evil(str(ran))}, "net.pt")
    result = call(capsys, "finetune", file, "--quiet", "--runs", tmp_path / "runs")
    assert result.code == 2
    [line] = result.problems
    assert "mkdir" in line
    assert not ran.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "data", "how"),
    [
        (NESTED + b"}q\xfe0h\xfeh\x3bK\x01s.", b"", zipfile.ZIP_STORED),  # whose hash never ends
        (NESTED + b".", b"", zipfile.ZIP_STORED),
        (a_tensor([1 << 39, 64], [0, 0]), b"\0" * 40, zipfile.ZIP_STORED),
        (a_tensor([64, 64], [64, 1]), b"\0" * 40, zipfile.ZIP_STORED),  # beyond its storage
        (a_tensor([64, 64], [64, 1]), b"\0" * 10**8, zipfile.ZIP_DEFLATED),  # a bomb
        (b"\x80\x02ctorch\nload\n(X\x01\x00\x00\x00xtR.", b"", zipfile.ZIP_STORED),
        (b"\x80\x02ctorch\nFloatStorage\n(K\ntR.", b"", zipfile.ZIP_STORED),
        (b"\x80\x02(K\x01K\x02tQ.", b"", zipfile.ZIP_STORED),
        (b"\x80\x02]q\x00.", b"", zipfile.ZIP_STORED),
        (pickle.dumps({"x": 1}, 2)[:-1] + b"\x85.", b"", zipfile.ZIP_STORED),
    ],
)
def test_a_hostile_archive_ends_in_a_line(given, tmp_path, content, data, how):
    file = given({}, "net.pt")
    archive(tmp_path / "net.pt", content, data, how)
    assert "net.pt" in problem(file)


def test_the_tensor_of_those_archives_is_read_where_it_is_right(tmp_path):
    archive(tmp_path / "net.pt", a_tensor([2, 5], [5, 1]), bytes(range(40)))
    [(name, tensor)] = weights.read_weights(WeightFile(tmp_path / "net.pt")).tensors.items()
    assert (name, tensor.shape) == ("body.1.weight", (2, 5))
    assert tensor.numpy().tobytes() == bytes(range(40))


def test_a_folder_a_pipe_and_nothing_at_all(given, tmp_path):
    file = given({"x": torch.zeros(1)})
    place = tmp_path / "net.safetensors"
    place.unlink()
    with pytest.raises(ExperimentError, match="beside"):
        load_experiment(file)
    place.mkdir()
    assert "plain file" in problem(file) or "not a file" in problem(file)
    place.rmdir()
    os.mkfifo(place)
    assert "not a" in problem(file)


# -- trials ----------------------------------------------------------------------------------------


def test_trials_start_from_the_weights_with_a_head_of_their_own(given, tmp_path):
    state = a_network().state_dict()
    experiment = load_experiment(given(state), ["finetune.epochs=0"])
    run, [tl, scratch] = RunDir(tmp_path / "runs", "given"), trials_of(experiment, sweep=False)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        resumable = stages.ResumableTraining

        def watch(**more):
            seen[more["key"]] = more["model"].state_dict()
            return resumable(**more)

        patch.setattr(stages, "ResumableTraining", watch)
        for trial in (tl, scratch):
            assert run_trial(trial, run)["status"] == "done"
    assert same(seen[tl.key], state | {"head.weight": 0}, but=("head",))
    assert seen[tl.key]["head.weight"].shape == (4, 32)
    assert not torch.equal(seen[scratch.key]["body.1.weight"], state["body.1.weight"])
    assert not run.pretrained.exists()


def test_pretraining_begins_with_the_weights_and_shows_them_at_epoch_0(given, tmp_path):
    state = {name: torch.zeros_like(one) for name, one in a_network().state_dict().items()}
    run = RunDir(tmp_path / "runs", "given")
    file = given(state, epochs=1)
    rows = next(stages.pretrain(load_experiment(file), run))
    assert {round(row["loss"], 4) for row in rows} == {1.0986}  # of three classes, guessed


def test_the_content_counts_and_neither_name_nor_place(given, tmp_path):
    def keys(file):
        experiment = load_experiment(file)
        return [trial.key for trial in trials_of(experiment, sweep=False)]

    state = a_network().state_dict()
    before = keys(given(state))
    assert keys(given(state, "other.safetensors")) == before
    state["body.3.bias"][0] += 1
    after = keys(given(state))
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, True]
    assert "weights" not in load_experiment(given(state)).resolved()["pretrain"]


def test_a_file_that_changed_after_planning_is_refused(given, tmp_path):
    state = a_network().state_dict()
    [trial, _] = trials_of(load_experiment(given(state)), sweep=False)
    given({name: one + 1 for name, one in state.items()})
    with pytest.raises(RunError, match="planned"):
        next(stages.finetune(trial, RunDir(tmp_path / "runs", "given")))


def test_without_weights_keys_are_as_before(tiny):
    [trial, *_] = trials_of(tiny(), sweep=False)
    assert sorted(trial.settings()["model"]) == ["architecture", "kwargs"]
    assert "weights" not in trial.basis.as_data()


# -- normalisation ---------------------------------------------------------------------------------


def normalised_as(file, arm=0, settings=()):
    trial = trials_of(load_experiment(file, settings), sweep=False)[arm]
    task = stages.task_of(trial.experiment, "finetune")
    found = weights.normalised(task, trial.experiment, started=trial.arm.pretrained)
    return found.mean, found.std, task.mean


def test_images_are_normalised_as_the_file_says_then_as_the_keys_say(given):
    state, said = a_network().state_dict(), {"mean": "[0.25]", "std": "[0.5]"}
    file = given(state, metadata=said)
    assert normalised_as(file)[:2] == ((0.25,), (0.5,))
    mean, _, own = normalised_as(file, arm=1)  # from scratch
    assert mean == own
    keys = ["model.mean=[0.125]", "model.std=[0.75]"]
    for arm in (0, 1):
        assert normalised_as(file, arm, keys)[:2] == ((0.125,), (0.75,))
    with pytest.raises(ExperimentError, match="channels"):
        normalised_as(given(state, metadata={"mean": "[0, 0, 0]", "std": "[1, 1, 1]"}))
    mean, _, own = normalised_as(given(state, metadata={"mean": "[[", "std": "7"}))
    assert mean == own


# -- published -------------------------------------------------------------------------------------


def cached(repository, files):
    """Put files into the hub's cache as its client lays it out: content, and links to it."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    for folder in ("blobs", "refs", "snapshots/c0ffee"):
        (place / folder).mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    for number, (name, content) in enumerate(files.items()):
        (place / "blobs" / str(number)).write_bytes(content)
        (place / "snapshots" / "c0ffee" / name).symlink_to(f"../../blobs/{number}")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub's cache of our own that holds a ResNet with a tag of timm's; no network."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    state = a_network(1000, "resnet18", 32, 3).state_dict()
    cached("timm/resnet18.a1_in1k", {"model.safetensors": save(state)})
    return state


def test_a_tag_loads_the_weights_of_the_cache(cache, tmp_path):
    text = EXPERIMENT.format(file="x", epochs=0, keys="").replace('weights = "x"', "")
    text = text.replace("mlp_digits", "resnet18.a1_in1k")
    experiment = load_experiment(written(tmp_path, text))
    model = a_network(3, "resnet18", 32, 3)
    nn.init.zeros_(model.layer1[0].conv1.weight)
    weights.start_from(model, experiment, stages.task_of(experiment, "pretrain"))
    assert torch.equal(model.layer1[0].conv1.weight, cache["layer1.0.conv1.weight"])
    assert weights.weights_of(experiment).mean == (0.485, 0.456, 0.406)
    assert basis_of(experiment, "pretrain").weights
    assert experiment.model.network == "resnet18"


def test_a_repository_of_the_hub_loads_from_the_cache(cache, given):
    state, content = a_network().state_dict(), io.BytesIO()
    torch.save(state, content)
    images = {"pretrained_cfg": {"mean": [0.25], "std": [0.5]}}
    files = {"pytorch_model.bin": content.getvalue(), "config.json": json.dumps(images).encode()}
    cached("someone/net", files)
    file = given({}, "hf_hub:someone/net")
    assert same(loaded(file), state, but=("nothing",))
    assert normalised_as(file)[:2] == ((0.25,), (0.5,))


def test_a_dry_run_says_what_would_be_downloaded_and_refuses_it_when_offline(
    cache, given, monkeypatch
):
    from huggingface_hub import constants

    experiment = load_experiment(given({}, "hf_hub:someone/net"))
    with pytest.raises(ExperimentError, match="OFFLINE"):
        fingerprint_at_hand(experiment, WEIGHTS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fingerprint_at_hand(experiment, WEIGHTS) == ""


def test_what_is_not_in_the_cache_is_not_asked_for_when_offline(cache, monkeypatch):
    import socket

    def refused(*_args, **_more):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert find_published("resnet18.a2_in1k", download=False) is None
    with pytest.raises(ExperimentError, match="HF_HUB_OFFLINE"):
        find_published("resnet18.a2_in1k", download=True)
    with pytest.raises(ExperimentError, match="a1_in1k"):
        find_published("resnet18.a9", download=True)
    with pytest.raises(ExperimentError, match="resnet18"):
        find_published("resnet81.a1_in1k", download=True)
    with pytest.raises(ExperimentError, match="OFFLINE"):
        find_published("hf_hub:nobody/nothing", download=True)


def test_a_hub_that_cannot_be_reached_is_asked_once(cache, monkeypatch):
    import huggingface_hub

    asked = []

    class Session:
        def head(self, address, timeout):
            asked.append(timeout)
            raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(ExperimentError, match="no route"):
        find_published("resnet18.a2_in1k", download=True)
    assert len(asked) == 1
    assert asked[0] <= 30


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ("mean = [0.5]", "model.mean"),
        ("mean = [0.5]\nstd = [0.5, 0.5]", "model.std"),
        ("std = [0.0]\nmean = [0.0]", "model.std"),
        ('architecture = "resnet18.a1_in1k"', "one of the two"),
    ],
)
def test_keys_that_do_not_go_together_are_told(given, keys, word):
    text = given(a_network().state_dict(), keys=keys)
    if "architecture" in keys:
        text.write_text(text.read_text().replace('architecture = "mlp_digits"\n', ""))
    assert word in "\n".join(problems_of(load_experiment, text))
