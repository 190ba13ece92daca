"""The stages: pretrain, convert, finetune. Each runs, resumes or reuses what it needs.

A stage is a generator of rows for ``epochs.csv``; it prints nothing and returns its result.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from analogtl.config.per_layer import ALL
from analogtl.config.schema import Experiment
from analogtl.crossbar import checkpoint as state
from analogtl.crossbar import convert as transfer
from analogtl.crossbar.output_losses import output_losses
from analogtl.crossbar.pulse_response import symmetry_in_range
from analogtl.crossbar.pulses import pulses_between, pulses_so_far
from analogtl.crossbar.shuffled import shuffle_gradients
from analogtl.crossbar.survey import Survey
from analogtl.errors import ExperimentError, RunError
from analogtl.fastsim import use_threads
from analogtl.files import below, digest, lock_file, set_aside
from analogtl.study.basis import (
    Basis,
    basis_of,
    check_versions,
    inventory_of,
    stages_of,
    task_settings,
)
from analogtl.study.columns import EPOCH_COLUMNS, LAYER_COLUMNS
from analogtl.study.device import check_device
from analogtl.study.limits import RunLimits
from analogtl.study.network import fresh_model, variant_of
from analogtl.study.provenance import versions
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.tables import write_rows
from analogtl.study.threads import use_one_thread
from analogtl.study.trial import Trial, pretrain_key, pretrain_settings
from analogtl.study.weights import weights_fingerprint
from analogtl.tasks.classification import Classification
from analogtl.tasks.counts import IMBALANCED, imbalance
from analogtl.tasks.images import ImageTask
from analogtl.tasks.load import task_for
from analogtl.tasks.task import Task
from analogtl.training.adapters import adapted, with_digital_layers
from analogtl.training.loop import evaluate, planned, trained_sizes
from analogtl.training.network import (
    adapt,
    check_network,
    check_same_inputs,
    on_device,
    smallest_batch,
)
from analogtl.training.preflight import stand_in_of
from analogtl.training.programming import WeightProgrammingRun
from analogtl.training.resumable import ResumableTraining, Rows, Stopped, delete_checkpoint
from analogtl.training.saved import files_of
from analogtl.training.weights import normalised, start_from
from analogtl.vocabulary import Arm, TrialStatus


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model on disk."""

    path: Path  # stem of its files, for `analogtl.crossbar.checkpoint.load`
    key: str  # hash of the settings and the data that it was trained with
    reused: bool  # whether it was there already
    error: float  # metric of the test split after the last epoch


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` found: per-layer rows, and the metric on the pretraining task."""

    layers: Rows
    error_digital: float
    error_analog: float
    engine: str
    survey: Survey
    notes: list[str]
    outputs_kept: float | None  # correlation of the network's outputs with the digital ones


_LOG = logging.getLogger(__name__)
# Of a trial: its epochs, its layers, the pulses on these by epoch, and files (see
# `RunDir.write_trial`), what its row says of how it was run, and `Task.details`.
_Outcome = tuple[Rows, Rows, Rows, dict[str, bytes], dict[str, Any], dict[str, Any]]


def prepare_torch(threads: int = 1) -> None:
    """Settings every process needs before it computes anything that a result depends on.

    One thread, but for what comes out the same on several (the fast engine); denormal gradients
    (1e-45), which become NaN in aihwkit's backward pass, are flushed; and a GPU's convolutions take
    all of float32, as its other products do.
    """
    use_one_thread()
    use_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False


# -- pretrain --------------------------------------------------------------------------------------


def pretrain(
    experiment: Experiment,
    run: RunDir,
    limits: RunLimits = RunLimits(),
    basis: Basis | None = None,
) -> Generator[Rows, None, Checkpoint]:
    """Train the model digitally on the source task, or find it trained.

    The checkpoint is shared by all experiments below the root whose model, pretraining and images
    are the same; a lock makes sure that it is trained once. Without a basis it is trained on what
    is here.

    Yields:
        The rows of ``epochs.csv`` of each epoch; none if the checkpoint is there.

    Raises:
        RunError: If training fails or stops at the deadline.
        ExperimentError: If the experiment is of a kind without a network.
    """
    if experiment.is_weight_programming:
        raise ExperimentError("kind: weight-programming has no network; `analogtl sweep` runs it")
    prepare_torch()
    basis, section = basis or basis_of(experiment, "pretrain"), experiment.pretrain
    check_device(basis.device)
    task = normalised(task_of(experiment, "pretrain", *basis.data), experiment, started=True)
    folder = below(run.pretrained, pretrain_key(experiment, basis))
    lock = below(run.pretrained, ".locks") / f"{folder.name}.lock"
    with lock_file(lock, until=limits.should_stop) as held:
        if not held:
            raise Stopped("stopped while another process pretrains; the next call goes on")
        found = _find_pretrained(run, folder)
        if found is not None:
            return found
        torch.manual_seed(transfer.derived_seed(section.seed, "initial weights"))
        model = fresh_model(experiment, task)
        if experiment.model.start:
            _check_weights(experiment, basis)
            start_from(model, experiment, task)
        smallest = smallest_batch(model, task, section, "pretrain")
        training = ResumableTraining(
            model=on_device(model, basis.device),
            smallest_batch=smallest,
            task=task,
            section=section,
            lr=section.lr,
            seed=section.seed,
            kind="digital",
            base={
                **{"experiment": experiment.name, "trial": "pretrain", "seed": section.seed},
                **{"arm": "", "stage": "pretrain"},
            },
            checkpoint=below(folder, "resume") / "state",
            damaged=run.pretrained / "damaged",
            key=folder.name,
            limits=limits,
        )
        rows: Rows = []
        for new in training.run():
            rows += new
            yield new
        tensors, meta = state.capture(model)
        meta["about"] = {
            "settings": pretrain_settings(experiment),
            "basis": basis.as_data(),
            **task.sizes,
            "names": list(model.state_dict()),
            **({"mean": task.mean, "std": task.std} if isinstance(task, ImageTask) else {}),
            "error": [row for row in rows if row["split"] == "test"][-1]["error"],
            "versions": versions(),
        }
        write_rows(folder / "epochs.csv", EPOCH_COLUMNS, rows)
        meta["about"]["epochs"] = digest(folder / "epochs.csv")
        state.save(folder / "checkpoint", tensors, meta)
        delete_checkpoint(training.checkpoint)
        found = _find_pretrained(run, folder)
        if found is None:
            raise RunError(f"{folder}: the checkpoint just written cannot be read")
        return replace(found, reused=False)


def _find_pretrained(run: RunDir, folder: Path) -> Checkpoint | None:
    """The finished checkpoint, noted in the run's own directory; a damaged one is set aside."""
    path = folder / "checkpoint"
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise RunError(f"{folder}: not a folder")
        loaded = state.load(path)
        if loaded is None:
            return None
        error = float(loaded[1]["about"]["error"])
        run.about_pretrained(folder.name)
    except (RunError, KeyError, TypeError, ValueError) as problem:
        place = set_aside(folder, run.pretrained / "damaged")
        _LOG.warning("%s; set aside as %s, to be pretrained again", problem, place)
        return None
    run.note_pretraining(folder.name)
    return Checkpoint(path, folder.name, True, error)


def _load_pretrained(experiment: Experiment, checkpoint: Checkpoint) -> nn.Module:
    loaded = state.load(checkpoint.path)
    if loaded is None:
        raise RunError(f"{checkpoint.path.parent}: the checkpoint is gone")
    model = fresh_model(experiment, task_of(experiment, "pretrain"))
    state.restore(model, *loaded)
    return model


# -- convert ---------------------------------------------------------------------------------------


def convert(
    experiment: Experiment, run: RunDir, *, seed: int, limits: RunLimits = RunLimits()
) -> Generator[Rows, None, ConversionResult]:
    """Program the pretrained model onto arrays; compare both on the pretraining task's test images.

    Yields:
        Rows of ``epochs.csv`` of the pretraining, if it has to run first.
    """
    prepare_torch()
    task = normalised(task_of(experiment, "pretrain"), experiment, started=True)
    if run.find_pretrained(pretrain_key(experiment, basis_of(experiment, "pretrain"))) is None:
        check_network(experiment, task, on_arrays=True)
    checkpoint = yield from pretrain(experiment, run, limits)
    model = _load_pretrained(experiment, checkpoint)
    before = evaluate(model, task.test, task)
    conversion = transfer.to_analog(
        model,
        experiment.analog,
        experiment.convert,
        seed=seed,
        example=task.example(),
        plan=planned(experiment.finetune, stand_in_of(experiment, "finetune")),
        variant=variant_of(experiment),
    )
    after = evaluate(conversion.model, task.test, task)
    inputs, _ = next(task.batches(task.test, 64, seed=0, epoch=0, shuffle=True))
    losses = output_losses(model, conversion.model, inputs)
    kept = {} if losses is None else {name: one.row() for name, one in losses.layers.items()}
    warnings = [losses.warning()] if losses and losses.warning() else []
    base = {"experiment": experiment.name, "trial": f"convert,seed={seed}", "seed": seed}
    layers = [{**base, **row, **kept.get(row["layer"], {})} for row in conversion.layers]
    write_rows(run.inside("convert") / "layers.csv", LAYER_COLUMNS, layers)
    return ConversionResult(
        layers,
        before.error,
        after.error,
        conversion.engine,
        conversion.survey,
        [*conversion.notes, *warnings],
        None if losses is None else losses.network,
    )


# -- finetune --------------------------------------------------------------------------------------


def finetune(
    trial: Trial, run: RunDir, limits: RunLimits = RunLimits()
) -> Generator[Rows, None, dict[str, Any]]:
    """Run one trial, or go on with it: its arm at its level, learning rate and seed.

    Yields:
        The rows of ``epochs.csv`` of each epoch, epoch 0 (before any update) first.

    Returns:
        The row of ``trials.csv``; the trial's record is written by then.

    Raises:
        RunError: If the training fails (a loss that is not finite names its step), or stops at
            the deadline; or if the trial was planned with other images or versions than are here.
        ExperimentError: If the trial's settings do not fit the data, the model or the engine.
    """
    prepare_torch(limits.threads)
    _check_basis(trial)
    checkpoint = run.state_path(trial) / "state"
    if trial.arm is Arm.WEIGHT_PROGRAMMING:
        outcome = yield from _program(trial, limits)
    else:
        outcome = yield from _train(trial, run, limits, checkpoint)
    epochs, layers, pulses, files, facts, details = outcome
    facts |= _symmetry(trial)
    row = {**trial_row(trial), "status": TrialStatus.DONE, **_outcome(epochs), **facts}
    run.write_trial(trial, row, epochs, layers, pulses, files, details)
    delete_checkpoint(checkpoint)
    return row


def _train(
    trial: Trial, run: RunDir, limits: RunLimits, checkpoint: Path
) -> Generator[Rows, None, _Outcome]:
    experiment = trial.experiment
    task = task_of_trial(trial)
    model = yield from _start_model(trial, run, task, limits)
    began = time.perf_counter()  # the pretraining counts for all trials, and for none
    base = _names(trial)
    layers: Rows = []
    kind = "digital"
    facts: dict[str, Any] = {"engine": ""}
    smallest = smallest_batch(model, task, experiment.finetune, "finetune")
    if trial.arm.analog:
        kind = "analog" if trial.arm.trains_arrays else "frozen"
        conversion, layers = on_arrays(trial, model, task)
        model = conversion.model
        if trial.arm is Arm.SHUFFLED_GRADIENTS:
            shuffle_gradients(model)
        facts = {"engine": conversion.engine, **_held(conversion.survey)}
    facts |= trained_sizes(model, kind)
    training = ResumableTraining(
        model=on_device(model, trial.basis.device),
        smallest_batch=smallest,
        task=task,
        section=experiment.finetune,
        lr=trial.lr,
        seed=trial.seed,
        kind=kind,
        base={**base, "arm": trial.arm, "stage": "finetune", **trial.axes},
        checkpoint=checkpoint,
        damaged=run.damaged,
        key=trial.key,
        limits=limits,
    )
    rows: Rows = []
    for new in training.run():
        rows += new
        yield new
    if trial.evaluation_key:
        tensors, meta = state.capture(training.model)
        state.save(run.final_path(trial.id), tensors, meta | {"trial": trial.key})
    if layers:
        _, changed = training.changed()
        worn = training.wear()
        layers = [
            {**base, **row, "weights_changed": changed.get(name), **worn.get(name, {})}
            for row in layers
            for name in [row["layer"]]
        ]
    spent = training.spent + time.perf_counter() - began
    details = task.details(training.model)
    return (
        rows,
        layers,
        [{**base, **row} for row in training.pulses],
        files_of(trial, training.model, task),
        {
            **facts,
            **_balanced(rows, task),
            "n_classes": task.n_classes,
            "wall_s": spent,
            "resumed": training.resumed,
            **details.get("quality", {}),
        },
        details,
    )


def _program(trial: Trial, limits: RunLimits) -> Generator[Rows, None, _Outcome]:
    """One trial of weight programming. It takes seconds to minutes, so it is not saved half-way.

    In the tables, ``error`` of the split test is the programming error, and of the split validation
    the error of the outputs (see `analogtl.training.programming.Measure`); there is no accuracy.
    """
    began = time.perf_counter()
    section = trial.experiment.programming
    job = WeightProgrammingRun(section, trial.experiment.analog, lr=trial.lr, seed=trial.seed)
    base = _names(trial)
    rows: Rows = []
    pulses: Rows = []
    counted = pulses_so_far(job.model)
    changed = 0.0
    for measure in job.run():
        if measure.epoch:
            before, counted = counted, pulses_so_far(job.model)
            new = pulses_between(before, counted)
            pulses += [{**base, "epoch": measure.epoch, **row} for row in new]
        changed = measure.weights_changed
        common = {**base, "arm": trial.arm, "stage": "finetune", **trial.axes}
        common |= {"epoch": measure.epoch, "lr": trial.lr, "weights_changed": changed}
        common |= {"resumed": False, "wall_s": 0.0, "metric": trial.experiment.metric}
        new = [
            {**common, "split": "validation", "error": measure.output_error},
            {**common, "split": "test", "error": measure.error},
        ]
        if measure.loss is not None:
            spent = {"n_samples": measure.n_samples, "wall_s": measure.wall_s}
            new.insert(0, {**common, "split": "train", "loss": measure.loss, **spent})
        rows += new
        yield new
        if measure.epoch < section.epochs and limits.should_stop():
            raise Stopped("stopped at the deadline; the next call starts this trial again")
    (worn,) = job.wear().values()
    layers = [{**base, **layer, "weights_changed": changed, **worn} for layer in job.layers]
    wall_s = time.perf_counter() - began
    facts = {"engine": job.engine, "share_on_arrays": 1.0, "wall_s": wall_s, "resumed": False}
    return rows, layers, pulses, files_of(trial, job.model), facts, {}


def _start_model(
    trial: Trial, run: RunDir, task: Task, limits: RunLimits
) -> Generator[Rows, None, nn.Module]:
    if not trial.arm.pretrained:
        torch.manual_seed(transfer.derived_seed(trial.seed, "initial weights"))
        return fresh_model(trial.experiment, task)
    if not trial.pretrains:
        torch.manual_seed(transfer.derived_seed(trial.seed, "head"))
        model = fresh_model(trial.experiment, task)
        start_from(model, trial.experiment, task)
        return adapt(model, trial.experiment, task)
    if run.find_pretrained(trial.pretrain_key) is None:
        check_network(trial.experiment, task, on_arrays=trial.arm.analog)
    # The limit of a trial is no limit of the work that all trials share.
    limits = replace(limits, max_trial_hours=None)
    basis = trial.basis.of_pretraining()
    checkpoint = yield from pretrain(trial.experiment, run, limits, basis)
    source = task_of(trial.experiment, "pretrain", trial.basis.data[1])
    check_same_inputs(source, task)
    model = _load_pretrained(trial.experiment, checkpoint)
    torch.manual_seed(transfer.derived_seed(trial.seed, "head"))
    return adapt(model, trial.experiment, task)


def _held(found: Survey) -> dict[str, Any]:
    """What a row of ``trials.csv`` says of the arrays' share in the network."""
    warning = found.warning()
    return {"share_on_arrays": found.share_on_arrays} | ({"message": warning} if warning else {})


def _symmetry(trial: Trial) -> dict[str, Any]:
    """What a row of ``trials.csv`` says of the arrays' symmetry points."""
    analog, own = trial.experiment.analog, variant_of(trial.experiment)
    found = None
    devices = [(one.array_device, one.nonidealities) for one in (analog, own and own.analog) if one]
    if own and own.level == ALL:
        devices = devices[1:]
    if trial.arm.analog and devices[0] == devices[-1]:  # one kind of device in all layers
        found = symmetry_in_range(*devices[0])
    names = ("symmetry_point", "symmetry_spread")
    return {name: round(one, 4) for name, one in zip(names, found or (), strict=False)}


def _balanced(rows: Rows, task: Task) -> dict[str, Any]:
    """The balanced errors after the last epoch, of splits whose classes are imbalanced."""
    found: dict[str, Any] = {}
    if not isinstance(task, Classification):
        return found
    for split, name in (("test", "final"), ("validation", "validation")):
        sizes = torch.bincount(getattr(task, split).labels).tolist()
        if imbalance(sizes) > IMBALANCED:
            of_split = [row for row in rows if row["split"] == split]
            found[f"balanced_error_{name}"] = of_split[-1].get("balanced_error")
    return found


def _names(trial: Trial) -> dict[str, Any]:
    """What a row of any table says of its trial first."""
    return {"experiment": trial.experiment.name, "trial": trial.id, "seed": trial.seed}


def _outcome(rows: Rows) -> dict[str, Any]:
    """The cells of ``trials.csv`` that sum up the epochs."""
    test = {row["epoch"]: row["error"] for row in rows if row["split"] == "test"}
    validation = [row["error"] for row in rows if row["split"] == "validation"]
    trained = {epoch: error for epoch, error in test.items() if epoch > 0} or test
    best = min(trained, key=lambda epoch: (trained[epoch], epoch))
    return {
        "error_transfer": test[0],
        "error_final": test[max(test)],
        "error_best": trained[best],
        "epoch_best": best,
        "error_validation": validation[-1] if validation else None,
        "weights_changed": rows[-1]["weights_changed"],
    }


# -- what the stages share -------------------------------------------------------------------------


def task_of_trial(trial: Trial) -> Task:
    """The examples that a trial is fine-tuned and tested on, normalised as its network wants them.

    Raises:
        RunError: If their fingerprint is another one than planned.
        ExperimentError: If the network wants images of other channels.
    """
    task = task_of(trial.experiment, "finetune", trial.basis.data[0])
    return normalised(task, trial.experiment, started=trial.arm.pretrained)


def on_arrays(trial: Trial, model: nn.Module, task: Task) -> tuple[transfer.Conversion, Rows]:
    """The network of a trial, programmed onto arrays that are to be trained as planned.

    Args:
        model: The digital network, which may be changed.
        task: What it is trained on.

    Returns:
        The network, and its rows of ``layers.csv``.

    Raises:
        ExperimentError: As `analogtl.crossbar.convert.to_analog`.
    """
    experiment = trial.experiment
    adapters = adapted(model, experiment, task, trial.arm, trial.seed)
    conversion = transfer.to_analog(
        model,
        experiment.analog,
        experiment.convert,
        seed=trial.seed,
        example=task.example(),
        plan=planned(experiment.finetune, task),
        adapters=adapters,
        variant=variant_of(experiment),
    )
    return conversion, with_digital_layers(conversion, adapters) if adapters else conversion.layers


def task_of(experiment: Experiment, stage: str, expected: str | None = None) -> Task:
    """The examples of a stage, ``pretrain`` or ``finetune``; trials in one process share them.

    Raises:
        RunError: If their fingerprint is another one than expected.
    """
    seen = inventory_of(experiment, stage).fingerprint
    _check_data(experiment, stage, seen, expected)
    task = _cached_task(tuple(task_settings(experiment, stage).items()), seen)
    # What was read is what was looked at, also if files were replaced in between.
    _check_data(experiment, stage, inventory_of(experiment, stage).fingerprint, seen)
    return task


@lru_cache(maxsize=3)
def _cached_task(settings: tuple[tuple[str, Any], ...], _fingerprint: str) -> Task:
    return task_for(**dict(settings))


def _check_basis(trial: Trial) -> None:
    """See that versions and images are those that the trial was planned with."""
    check_versions(trial.basis, trial.experiment)
    check_device(trial.basis.device)
    if trial.basis.weights:
        _check_weights(trial.experiment, trial.basis)
    stages = stages_of(trial.experiment, trial.arm)
    for stage, expected in zip(stages, trial.basis.data, strict=True):
        seen = inventory_of(trial.experiment, stage).fingerprint
        _check_data(trial.experiment, stage, seen, expected)


def _check_weights(experiment: Experiment, basis: Basis) -> None:
    seen = weights_fingerprint(experiment)
    if seen != basis.weights:
        raise RunError(
            f"model.weights: {experiment.model.start} is not what was planned with (SHA-256 "
            f"{seen[:8]}, then {basis.weights[:8]}): it changed meanwhile, or this machine has "
            "another; the same command takes what is here now"
        )


def _check_data(experiment: Experiment, stage: str, seen: str, expected: str | None) -> None:
    if expected not in (None, seen):
        raise RunError(
            f"{stage}.dataset: the images of {getattr(experiment, stage).dataset} are not those "
            f"that the trial was planned with (fingerprint {seen[:8]}, then {str(expected)[:8]}): "
            "they changed meanwhile, or this machine has others; the same command takes those "
            "that are here now"
        )
