"""Every setting that a trial reads arrives where it acts: none is read and then not used.

Each row of the tables changes one key and says what has to come of it, in what the loss, the
batches, the optimizer, the loader, the network or aihwkit are given. What these then do with it is
theirs to test. A key without a row fails `test_every_setting_has_a_row`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from aihwkit.simulator.configs import SingleRPUConfig
from probes import Shared, Watched, small_task
from pydantic import BaseModel
from told import problems_of
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from analogtl.config.arrays import Analog, Convert
from analogtl.config.load import with_settings
from analogtl.config.schema import SWEPT_SECTIONS, Experiment
from analogtl.config.training import Finetune, Lora, Pretrain
from analogtl.crossbar import convert as transfer
from analogtl.crossbar.rpu_config import set_parameters
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import trials_of
from analogtl.tasks.images import ImageTask
from analogtl.training import loop, stages
from analogtl.training.loop import build_optimizer
from analogtl.training.programming import WeightProgrammingRun

SMALL: dict[str, Any] = {
    "name": "settings",
    "pretrain": {"epochs": 2, "batch_size": 4, "lr": 0.05},
    "finetune": {"epochs": 2, "batch_size": 4, "lr": 0.05, "arms": ["digital-scratch"]},
}
STEPS = 2 * 3  # two epochs of twelve images, four at a time


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Runs a stage of an experiment on the small task; returns what everything was given."""
    given = SimpleNamespace(seen=Shared())
    served, entropy = ImageTask.batches, F.cross_entropy

    def load(dataset, **more):
        given.load.append({"dataset": dataset, **more})
        return small_task()

    def build(architecture, **more):
        given.build.append({"architecture": architecture, **more})
        return Watched(given.seen)

    def serve(task, split, batch_size, **more):
        if more["shuffle"]:
            given.batches.append({"batch_size": batch_size, **more})
        return served(task, split, batch_size, **more)

    def loss(logits, labels, **more):
        if logits.requires_grad:
            given.loss.append(more)
        return entropy(logits, labels, **more)

    def step(optimizer, *_):
        (group,) = optimizer.param_groups
        names = ("lr", "momentum", "weight_decay")
        given.steps.append({n: group.get(n) for n in names} | {"kind": type(optimizer).__name__})

    def run(stage: str, settings: dict[str, Any]) -> SimpleNamespace:
        given.load, given.build, given.batches, given.loss, given.steps = [], [], [], [], []
        given.seen.clear()
        experiment = with_settings(Experiment.model_validate(SMALL), settings)
        directory = RunDir(tmp_path / "runs", experiment.name)
        if stage == "pretrain":
            list(stages.pretrain(experiment, directory))
        else:
            list(stages.finetune(trials_of(experiment, sweep=False)[0], directory))
        return given

    stages._cached_task.cache_clear()
    monkeypatch.setattr(stages, "task_for", load)
    content = SimpleNamespace(fingerprint="0" * 32)
    monkeypatch.setattr("analogtl.tasks.inventory.take_inventory", lambda *_, **__: content)
    monkeypatch.setattr("analogtl.study.network.build_model", build)
    monkeypatch.setattr(ImageTask, "batches", serve)
    monkeypatch.setattr(F, "cross_entropy", loss)
    hook = register_optimizer_step_pre_hook(step)
    yield run
    hook.remove()
    stages._cached_task.cache_clear()


def of_load(name):
    return lambda given: given.load[0][name]


def of_steps(name):
    return lambda given: [step[name] for step in given.steps]


COSINE = [0.05 * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS)]
# Key -> another value, where to look, what is to be found there.
BOTH: dict[str, tuple[Any, Any, Any]] = {
    "dataset": ("cifar10", of_load("dataset"), "cifar10"),
    "classes": ([1, 2], of_load("classes"), (1, 2)),
    "samples_per_class": (7, of_load("samples_per_class"), 7),
    "test_samples_per_class": (5, of_load("test_samples_per_class"), 5),
    "validation_fraction": (0.25, of_load("validation_fraction"), 0.25),
    "epochs": (3, lambda given: [one["epoch"] for one in given.batches], [1, 2, 3]),
    "batch_size": (6, lambda given: [len(x) for x, *_ in given.seen], [6, 6] * 2),
    "lr": (0.02, of_steps("lr"), [0.02] * STEPS),
    "momentum": (0.3, of_steps("momentum"), [0.3] * STEPS),
    "weight_decay": (0.1, of_steps("weight_decay"), [0.1] * STEPS),
    "schedule": ("cosine", of_steps("lr"), pytest.approx(COSINE)),
    "label_smoothing": (
        0.2,
        lambda given: [one["label_smoothing"] for one in given.loss],
        [0.2] * STEPS,
    ),
    "augment": (
        ["flip"],
        lambda given: [list(one["augment"]) for one in given.batches],
        [["flip"]] * 2,
    ),
}
PRETRAIN = BOTH | {
    "optimizer": ("adamw", of_steps("kind"), ["AdamW"] * STEPS),
    "seed": (5, lambda given: [one["seed"] for one in given.batches], [5] * 2),
}
SHARED = {
    "data.root": ("/images", of_load("root"), Path("/images")),
    "data.download": (False, of_load("download"), False),
    "data.image_size": (12, of_load("image_size"), 12),
    "data.min_test_images": (3, of_load("min_test_images"), 3),
    "model.architecture": (
        "mlp_digits",
        lambda given: given.build[0]["architecture"],
        "mlp_digits",
    ),
    "model.kwargs": ({"depth": 3}, lambda given: given.build[0]["kwargs"], {"depth": 3}),
}
TRAINING = {f"pretrain.{key}": row for key, row in PRETRAIN.items()}
TRAINING |= {f"finetune.{key}": row for key, row in BOTH.items()}
CASES = [(key.split(".")[0], key, *row) for key, row in TRAINING.items()]
CASES += [(stage, key, *row) for key, row in SHARED.items() for stage in ("pretrain", "finetune")]


@pytest.mark.parametrize(
    ("stage", "key", "value", "look", "expected"),
    CASES,
    ids=[f"{case[1]}-{case[0]}" for case in CASES],
)
def test_a_setting_of_the_training_arrives(watch, stage, key, value, look, expected):
    assert look(watch(stage, {})) != expected
    assert look(watch(stage, {key: value})) == expected


def test_the_arms_of_the_file_are_run():
    experiment = with_settings(
        Experiment.model_validate(SMALL), {"finetune.arms": ["frozen-array", "analog-tl"]}
    )
    arms = [trial.arm.value for trial in trials_of(experiment, sweep=False)]
    assert arms == ["frozen-array", "analog-tl"]


# -- optimizers ------------------------------------------------------------------------------------


def on_arrays() -> nn.Module:
    layers = nn.Sequential(OrderedDict(array=nn.Linear(4, 3), norm=nn.LayerNorm(3)))
    settings = Analog(engine="fast", granularity_per_token=0.1)
    example = torch.zeros(1, 4)
    return transfer.to_analog(layers, settings, Convert(), seed=0, example=example).model


@pytest.mark.parametrize(
    ("kind", "optimizer", "expected"),
    [
        ("digital", "sgd", "SGD"),
        ("digital", "adamw", "AdamW"),
        ("analog", "sgd", "AnalogSGD"),
        ("frozen", "sgd", "AnalogSGD"),
    ],
)
def test_every_optimizer_has_rate_momentum_and_weight_decay(kind, optimizer, expected):
    model = nn.Linear(4, 3) if kind == "digital" else on_arrays()
    section: Any = Pretrain(optimizer=optimizer, momentum=0.3, weight_decay=0.1)
    if kind != "digital":
        section = Finetune(momentum=0.3, weight_decay=0.1)
    built = build_optimizer(model, section, lr=0.07, kind=kind)
    assert type(built).__name__ == expected
    for group in built.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.07, 0.1)
        assert optimizer == "adamw" or group["momentum"] == 0.3


@pytest.mark.parametrize(("kind", "moves"), [("analog", True), ("frozen", False)])
def test_what_is_digital_is_trained_beside_the_arrays(kind, moves):
    model = on_arrays()
    section = Finetune(weight_decay=0.5)
    built = build_optimizer(model, section, lr=0.05, kind=kind)
    arrays = transfer.programmed_weights(model)
    for _ in range(20):
        built.zero_grad()
        (model(torch.ones(8, 4)) * torch.arange(3.0)).sum().backward()
        before = model.norm.weight.detach().clone()
        gradient = model.norm.weight.grad + 0.5 * before
        built.step()
        torch.testing.assert_close(model.norm.weight.detach(), before - 0.05 * gradient)
    changed, _ = transfer.share_changed(arrays, transfer.programmed_weights(model))
    assert (changed > 0) == moves


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_the_schedule_goes_through_all_epochs_once(watch, schedule):
    rates = of_steps("lr")(watch("finetune", {"finetune.schedule": schedule}))
    assert len(set(rates)) == STEPS
    assert rates == [loop.lr_at(schedule, 0.05, step, STEPS) for step in range(STEPS)]


def test_gradients_of_one_step_do_not_count_in_the_next(watch):
    seen = watch("finetune", {}).seen
    whole = Watched(Shared())
    start = seen[0][2]
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.copy_(start[name])
    labels = {int(n): int(y) for n, y in zip(small_task().train.images[:, 0, 1, 1],
                                             small_task().train.labels, strict=True)}  # fmt: skip
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.05)
    for x, _, weights in seen:
        for name, parameter in whole.named_parameters():
            torch.testing.assert_close(parameter.detach(), weights[name])
        y = torch.tensor([labels[int(n)] for n in x[:, 0, 1, 1].round()])
        optimizer.zero_grad()
        F.cross_entropy(whole(x), y).backward()
        optimizer.step()


# -- arrays ----------------------------------------------------------------------------------------


def converted(settings: dict[str, Any], engine: str) -> transfer.Conversion:
    experiment = with_settings(
        Experiment.model_validate(SMALL), {"analog.engine": engine} | settings
    )
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(OrderedDict(first=nn.Linear(6, 5), second=nn.Linear(5, 4)))
    for layer in model:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    return transfer.to_analog(
        model, experiment.analog, experiment.convert, seed=1, example=torch.zeros(1, 6)
    )


def config(path: str):
    """Look at an attribute of what the first tile was built from."""

    def look(conversion: transfer.Conversion) -> Any:
        found: Any = next(transfer.analog_tiles(conversion.model)).rpu_config
        for name in path.split("."):
            found = found[int(name)] if name.isdigit() else getattr(found, name)
        return found

    return look


def written(conversion: transfer.Conversion) -> float:
    return round(conversion.layers[0]["relative_error"], 6)


FAST, SLOW = "device.unit_cell_devices.0.", "device.unit_cell_devices.1."
ARRAYS: dict[str, tuple[Any, Any, Any]] = {
    "analog.algorithm": ("agad", lambda c: type(config("device")(c)).__name__[:7], "Dynamic"),
    "analog.drive": (
        4.0,
        lambda c: config("device.fast_lr")(c) * config("update.desired_bl")(c),
        4.0,
    ),
    "analog.granularity_per_token": (7.0, config("device.auto_granularity"), 7.0),
    "analog.device.preset": (
        "ReRamArrayOMPresetDevice",
        lambda c: type(config(FAST[:-1])(c)).__name__,
        "ReRamArrayOMPresetDevice",
    ),
    "analog.device.apply_write_noise_on_set": (
        True,
        config(SLOW + "apply_write_noise_on_set"),
        True,
    ),
    "analog.device": (
        {"dw_min_std": 0.7},
        lambda c: [config(array + "dw_min_std")(c) for array in (FAST, SLOW)],
        [0.7, 0.7],
    ),
    "analog.slow_device": (
        {"dw_min_std": 0.7},
        lambda c: [config(array + "dw_min_std")(c) == 0.7 for array in (FAST, SLOW)],
        [False, True],
    ),
    "analog.compound": ({"fast_lr": 0.33}, config("device.fast_lr"), 0.33),
    "analog.forward": (
        {"out_noise": 0.01},
        lambda c: [config(f"{one}.out_noise")(c) == 0.01 for one in ("forward", "backward")],
        [True, False],
    ),
    "analog.backward": (
        {"out_noise": 0.01},
        lambda c: [config(f"{one}.out_noise")(c) == 0.01 for one in ("forward", "backward")],
        [False, True],
    ),
    "analog.update": ({"desired_bl": 7}, config("update.desired_bl"), 7),
    "analog.transfer_forward": (
        {"out_noise": 0.03},
        config("device.transfer_forward.out_noise"),
        0.03,
    ),
    "analog.transfer_update": ({"desired_bl": 3}, config("device.transfer_update.desired_bl"), 3),
    "analog.mapping": (
        {"weight_scaling_omega": 0.9},
        config("mapping.weight_scaling_omega"),
        0.9,
    ),
    "analog.nonidealities.symmetry_point_skew": (20.0, config(SLOW + "w_max"), 0.8),
    "analog.nonidealities.symmetry_point_variability": (
        10.0,
        config(SLOW + "reference_std"),
        0.2,
    ),
    "analog.nonidealities.n_states": (40.0, config(SLOW + "dw_min"), 0.05),
    "analog.nonidealities.out_noise": (
        0.02,
        lambda c: [config(f"{one}.out_noise")(c) for one in ("forward", "backward")],
        [0.02] * 2,
    ),
    "analog.nonidealities.io_bits": (
        4.0,
        lambda c: [config(f"{a}.{b}_res")(c) for a in ("forward", "backward") for b in
                   ("inp", "out")],
        [1 / 14] * 4,
    ),
    "analog.algorithms": (
        {"c-ttv2": {"compound": {"fast_lr": 0.44}}},
        config("device.fast_lr"),
        0.44,
    ),
    "convert.digital_layers": (
        ["first"],
        lambda c: [row["layer"] for row in c.layers],
        ["second"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["aihwkit", "fast"])
@pytest.mark.parametrize(("key", "row"), ARRAYS.items(), ids=ARRAYS)
def test_a_setting_of_the_arrays_arrives(key, row, engine):
    value, look, expected = row
    assert look(converted({}, engine)) != expected
    settings = {key: value}
    if isinstance(value, dict) and key != "analog.algorithms":
        settings = {f"{key}.{name}": one for name, one in value.items()}
    assert look(converted(settings, engine)) == expected


@pytest.mark.parametrize("engine", ["aihwkit", "fast"])
def test_the_engine_is_the_one_asked_for(engine):
    assert converted({}, engine).engine == engine


def test_the_skew_s_bound_and_the_noise_s_size_arrive():
    skew = {"analog.nonidealities.symmetry_point_skew": 20.0}
    bound = "analog.nonidealities.symmetry_point_skew_bound"
    found = {
        side: [config(SLOW + end)(converted(skew | {bound: side}, "fast"))
               for end in ("w_max", "w_min")]
        for side in ("upper", "lower", "both")
    }  # fmt: skip
    assert found == {"upper": [0.8, -1.0], "lower": [1.0, -0.8], "both": [0.8, -1.2]}
    wtn = {"convert.weight_transfer_noise": 20.0}
    errors = [
        written(converted(wtn | {"convert.relative_to": to}, "fast"))
        for to in ("absmax", "std", "absolute")
    ]
    assert len({*errors, written(converted({}, "fast"))}) == 4


# -- weight programming ----------------------------------------------------------------------------


def programmed(settings: dict[str, Any], monkeypatch) -> SimpleNamespace:
    small = {"size": 4, "vectors": 12, "epochs": 2, "batch_size": 4, "lr": 0.1}
    experiment = with_settings(
        Experiment.model_validate(
            {"name": "p", "kind": "weight-programming", "programming": small}
        ),
        settings,
    )
    given = SimpleNamespace(batches=[], steps=[])
    (trial,) = trials_of(experiment, sweep=False)
    run = WeightProgrammingRun(trial.section, experiment.analog, lr=trial.lr, seed=trial.seed)
    forward = run.model.forward
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: given.steps.append(optimizer.param_groups[0]["lr"])
    )
    monkeypatch.setattr(
        run.model, "forward", lambda x: given.batches.append(x.clone()) or forward(x)
    )
    given.measures = list(run.run())
    hook.remove()
    given.target = run.target_OI
    return given


PROGRAMMING: dict[str, tuple[Any, Any, Any]] = {
    "size": (5, lambda g: tuple(g.target.shape), (5, 5)),
    "target_std": (0.03, lambda g: float(g.target.abs().max()) < 0.15, True),
    "target_max": (0.01, lambda g: float(g.target.abs().max()), pytest.approx(0.01)),
    "inputs": ("uniform", lambda g: max(float(x.abs().max()) for x in g.batches) <= 1, True),
    "vectors": (8, lambda g: [m.n_samples for m in g.measures], [0, 8, 8]),
    "epochs": (3, lambda g: len(g.measures), 4),
    "batch_size": (6, lambda g: [len(x) for x in g.batches], [6] * 4),
    "lr": (0.02, lambda g: {*g.steps}, {0.02}),
}


@pytest.mark.parametrize(("key", "row"), PROGRAMMING.items(), ids=PROGRAMMING)
def test_a_setting_of_weight_programming_arrives(key, row, monkeypatch):
    value, look, expected = row
    assert look(programmed({}, monkeypatch)) != expected
    assert look(programmed({f"programming.{key}": value}, monkeypatch)) == expected


def test_target_and_inputs_follow_the_section_s_seed_and_every_epoch_has_its_own(monkeypatch):
    one, again, other = (programmed({"programming.seed": seed}, monkeypatch) for seed in (1, 1, 2))
    assert torch.equal(one.target, again.target)
    assert not torch.equal(one.target, other.target)
    inputs = [torch.cat(given.batches) for given in (one, again, other)]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
    first, second = inputs[0].chunk(2)
    assert not torch.equal(first, second)


# -- none is forgotten -----------------------------------------------------------------------------


def settings_of(section: type[BaseModel], prefix: str) -> set[str]:
    found: set[str] = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= settings_of(kind, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_every_setting_has_a_row():
    elsewhere = {
        "finetune.arms", "convert.weight_transfer_noise", "convert.relative_to", "analog.engine",
        "analog.nonidealities.symmetry_point_skew_bound", "programming.seed", "analog.rules",
        "model.file", "model.files", "model.weights", "model.weight_files", "model.mean",
        "model.std", "data.split_seed", "analog.device.file", "analog.device_files",
        "data.context", "data.text_column", "data.label_column",
        "per_layer.layer", "per_layer.settings",
    }  # fmt: skip
    elsewhere |= {f"lora.{key}" for key in Lora.model_fields}
    rows = {*TRAINING, *SHARED, *ARRAYS, *(f"programming.{key}" for key in PROGRAMMING)}
    fields = Experiment.model_fields
    known = set().union(
        *(settings_of(fields[name].annotation, f"{name}.") for name in SWEPT_SECTIONS)
    )
    assert known == (rows | elsewhere) - {"analog.device"}


def test_a_parameter_that_the_installed_aihwkit_lacks_is_named_and_not_passed_over():
    values = {"nothere": 1, "neither": 2}
    first, second = problems_of(set_parameters, SingleRPUConfig(), values, "analog.update")
    assert first.startswith("analog.update.nothere: ")
    assert second.startswith("analog.update.neither: ")
