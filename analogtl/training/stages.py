"""The stages: pretrain, convert, finetune. Each runs, resumes or reuses what it needs.

A stage is a generator of rows for ``epochs.csv``; it prints nothing and returns its result.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analogtl.config.schema import Experiment, Training
from analogtl.crossbar import checkpoint as state
from analogtl.crossbar import convert as transfer
from analogtl.errors import AnalogtlError, ExperimentError, RunError
from analogtl.files import lock_file, read_json, set_aside, write_json
from analogtl.models.build import build_model, replace_head
from analogtl.study import columns as records
from analogtl.study.limits import RunLimits
from analogtl.study.provenance import versions
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.trial import Trial, pretrain_key, pretrain_settings
from analogtl.tasks.images import Task, batches, load_task
from analogtl.training.loop import (
    EpochDone,
    Position,
    Score,
    build_optimizer,
    evaluate,
    train_epochs,
)
from analogtl.training.programming import Measure, Program
from analogtl.vocabulary import Arm, TrialStatus

Rows = list[dict[str, Any]]

# A checkpoint at the end of an epoch is worth it while saving takes less than this share of the
# time since the last one; in between, `checkpoint_minutes` decides.
SAVING_SHARE = 0.05
POSITION = ("epoch", "batch", "loss_sum", "wrong", "seen", "wall_s")


class Stopped(RunError):
    """The deadline came: the state is saved, and the next call goes on."""


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model on disk.

    Attributes:
        path: Stem of its files, for `analogtl.crossbar.checkpoint.load`.
        key: Hash of the settings and the data that it was trained with.
        reused: Whether it was there already.
        error: Test error in percent after the last epoch.
    """

    path: Path
    key: str
    reused: bool
    error: float


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` found: per-layer rows, and the error on the pretraining task in percent."""

    layers: Rows
    error_digital: float
    error_analog: float
    engine: str
    notes: list[str]


def prepare_torch(threads: int | None = None) -> None:
    """Settings every process needs before it trains.

    Denormal gradients (1e-45) become NaN in aihwkit's backward pass, so they are flushed.
    """
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


# -- pretrain --------------------------------------------------------------------------------------


def pretrained_path(experiment: Experiment, run: RunDir) -> Path:
    """Stem of the shared checkpoint's files; the name holds the hashes of settings and images."""
    key = pretrain_key(experiment)
    return (
        run.pretrained / f"{key}-{task_of(experiment, 'pretrain').fingerprint[:12]}" / "checkpoint"
    )


def pretrain(
    experiment: Experiment,
    run: RunDir,
    limits: RunLimits = RunLimits(),
) -> Generator[dict[str, Any], None, Checkpoint]:
    """Train the model digitally on the source task, or find it trained.

    The checkpoint is shared by all experiments below the root whose model, pretraining and images
    are the same; a lock makes sure that it is trained once.

    Yields:
        Rows of ``epochs.csv`` as they come; none if the checkpoint is there.

    Raises:
        RunError: If training fails or stops at the deadline.
        ExperimentError: If the experiment is of a kind without a network.
    """
    if experiment.kind == "weight-programming":
        raise ExperimentError("kind: weight-programming has no network; `analogtl sweep` runs it")
    prepare_torch()
    path = pretrained_path(experiment, run)
    lock = run.pretrained / ".locks" / f"{path.parent.name}.lock"
    with lock_file(lock, until=limits.should_stop) as held:
        if not held:
            raise Stopped("stopped while another process pretrains; the next call goes on")
        found = _find_pretrained(experiment, run, path)
        if found is not None:
            return found
        task = task_of(experiment, "pretrain")
        section = experiment.pretrain
        torch.manual_seed(transfer.derived_seed(section.seed, "initial weights"))
        model = fresh_model(experiment, task)
        base = {"experiment": experiment.name, "trial": "pretrain", "seed": section.seed, "arm": ""}
        fit = Fit(
            model=model,
            task=task,
            section=section,
            lr=section.lr,
            seed=section.seed,
            kind="digital",
            base={**base, "stage": "pretrain"},
            resume=path.parent / "resume" / "state",
            key=path.parent.name,
            limits=limits,
        )
        rows: Rows = []
        for new in fit.run():
            rows += new
            yield from new
        final = [row for row in rows if row["split"] == "test"][-1]["error"]
        tensors, meta = state.capture(model)
        meta["about"] = {
            "settings": pretrain_settings(experiment),
            "n_classes": task.n_classes,
            "in_channels": task.in_channels,
            "image_size": task.image_size,
            "error": final,
            "versions": versions(),
        }
        records.write_rows(path.parent / "epochs.csv", records.EPOCH_COLUMNS, rows)
        state.save(path, tensors, meta)
        fit.forget()
        found = _find_pretrained(experiment, run, path)
        if found is None:
            raise RunError(f"{path.parent}: the checkpoint just written cannot be read")
        return Checkpoint(found.path, found.key, False, found.error)


def _find_pretrained(experiment: Experiment, run: RunDir, path: Path) -> Checkpoint | None:
    """The finished checkpoint, noted in the run's own directory; a damaged one is set aside."""
    try:
        loaded = state.load(path)
        if loaded is None:
            return None
        error = float(loaded[1]["about"]["error"])
        rows = records.read_rows(path.parent / "epochs.csv")
    except (RunError, KeyError, TypeError, ValueError):
        set_aside(path.parent, run.pretrained / "damaged")
        return None
    rows = [{**row, "experiment": experiment.name} for row in rows]
    pointer = {"key": path.parent.name, "settings": pretrain_settings(experiment)}
    folder = run.inside("pretrain")
    try:
        current = read_json(folder / "checkpoint.json")
    except RunError:
        current = None
    if current != pointer or not (folder / "epochs.csv").is_file():
        records.write_rows(folder / "epochs.csv", records.EPOCH_COLUMNS, rows)
        write_json(folder / "checkpoint.json", pointer)
    return Checkpoint(path, path.parent.name, True, error)


def _load_pretrained(experiment: Experiment, checkpoint: Checkpoint) -> nn.Module:
    loaded = state.load(checkpoint.path)
    if loaded is None:
        raise RunError(f"{checkpoint.path.parent}: the checkpoint is gone")
    model = fresh_model(experiment, task_of(experiment, "pretrain"))
    state.restore(model, *loaded)
    return model


# -- convert ---------------------------------------------------------------------------------------


def convert(
    experiment: Experiment,
    run: RunDir,
    *,
    seed: int,
    limits: RunLimits = RunLimits(),
) -> Generator[dict[str, Any], None, ConversionResult]:
    """Program the pretrained model onto arrays; compare both on the pretraining task's test images.

    Yields:
        Rows of ``epochs.csv`` of the pretraining, if it has to run first.
    """
    _check_layers(experiment)
    checkpoint = yield from pretrain(experiment, run, limits)
    model = _load_pretrained(experiment, checkpoint)
    task = task_of(experiment, "pretrain")
    before = evaluate(model, task.test, task)
    conversion = transfer.to_analog(
        model, experiment.analog, experiment.convert, seed=seed, example=example_of(task)
    )
    after = evaluate(conversion.model, task.test, task)
    base = {"experiment": experiment.name, "trial": f"convert,seed={seed}", "seed": seed}
    layers = [{**base, **row} for row in conversion.layers]
    records.write_rows(run.inside("convert") / "layers.csv", records.LAYER_COLUMNS, layers)
    return ConversionResult(layers, before.error, after.error, conversion.engine, conversion.notes)


# -- finetune --------------------------------------------------------------------------------------


def finetune(
    trial: Trial,
    run: RunDir,
    limits: RunLimits = RunLimits(),
) -> Generator[Rows, None, dict[str, Any]]:
    """Run one trial, or go on with it: its arm at its level, learning rate and seed.

    Yields:
        The rows of ``epochs.csv`` of each epoch, epoch 0 (before any update) first.

    Returns:
        The row of ``trials.csv``; the trial's record is written by then.

    Raises:
        RunError: If the training fails (a loss that is not finite names its step), or stops at
            the deadline.
        ExperimentError: If the trial's settings do not fit the data, the model or the engine.
    """
    prepare_torch()
    if trial.arm is Arm.WEIGHT_PROGRAMMING:
        return (yield from _program(trial, run, limits))
    experiment = trial.experiment
    task = task_of(experiment, "finetune")
    model = yield from _start_model(trial, run, task, limits)
    began = time.perf_counter()  # the pretraining counts for all trials, and for none
    layers: Rows = []
    engine = ""
    base = {"experiment": experiment.name, "trial": trial.id, "seed": trial.seed}
    if trial.is_analog:
        conversion = transfer.to_analog(
            model, experiment.analog, experiment.convert, seed=trial.seed, example=example_of(task)
        )
        model, engine = conversion.model, conversion.engine
        layers = [{**base, **row} for row in conversion.layers]
    fit = Fit(
        model=model,
        task=task,
        section=experiment.finetune,
        lr=trial.lr,
        seed=trial.seed,
        kind=kind_of(trial),
        base={**base, "arm": trial.arm, "stage": "finetune", **trial.axes},
        resume=run.inside("trials", trial.id, "resume") / "state",
        key=f"{trial.key}-{task.fingerprint}",
        limits=limits,
        on_arrays=trial.is_analog,
    )
    rows: Rows = []
    for new in fit.run():
        rows += new
        yield new
    if trial.is_analog:
        _, by_layer = fit.changed()
        layers = [{**row, "weights_changed": by_layer[row["layer"]]} for row in layers]
    row = {
        **trial_row(trial, task.n_classes, engine),
        "status": TrialStatus.DONE,
        **_outcome(rows),
        "wall_s": fit.spent + time.perf_counter() - began,
        "resumed": fit.resumed,
    }
    run.write_trial(trial, row, rows, layers)
    fit.forget()
    return row


def _program(trial: Trial, run: RunDir, limits: RunLimits) -> Generator[Rows, None, dict[str, Any]]:
    """One trial of weight programming. It takes seconds to minutes, so it is not saved half-way.

    In the tables, ``error`` of the split test is the programming error, and of the split validation
    the error of the outputs (see `analogtl.training.programming.Measure`); there is no accuracy.
    """
    began = time.perf_counter()
    section = trial.experiment.programming
    job = Program(section, trial.experiment.analog, lr=trial.lr, seed=trial.seed)
    base = {"experiment": trial.experiment.name, "trial": trial.id, "seed": trial.seed}
    rows: Rows = []
    for measure in job.run():
        rows += (new := _measured(trial, base, measure))
        yield new
        if measure.epoch < section.epochs and limits.should_stop():
            raise Stopped("stopped at the deadline; the next call starts this trial again")
    moved = rows[-1]["weights_changed"]
    layers = [{**base, **layer, "weights_changed": moved} for layer in job.layers]
    row = {
        **trial_row(trial, None, job.engine),
        "status": TrialStatus.DONE,
        **_outcome(rows),
        "wall_s": time.perf_counter() - began,
        "resumed": False,
    }
    run.write_trial(trial, row, rows, layers)
    return row


def _measured(trial: Trial, base: Mapping[str, Any], measure: Measure) -> Rows:
    common = {
        **base,
        **{"arm": trial.arm, "stage": "finetune", **trial.axes, "epoch": measure.epoch},
        **{"lr": trial.lr, "weights_changed": measure.weights_changed, "resumed": False},
    }
    rows: Rows = [
        {**common, "split": "validation", "error": measure.output_error, "wall_s": 0.0},
        {**common, "split": "test", "error": measure.error, "wall_s": 0.0},
    ]
    if measure.loss is not None:
        spent = {"n_samples": measure.n_samples, "wall_s": measure.wall_s}
        rows.insert(0, {**common, "split": "train", "loss": measure.loss, **spent})
    return rows


def run_trial(
    trial: Trial,
    run: RunDir,
    limits: RunLimits = RunLimits(),
) -> dict[str, Any]:
    """What every backend calls, in any process: run, resume or find a trial.

    Returns:
        The row of ``trials.csv``. Its status is done, failed (the message says why), busy
        (another process has the trial) or stopped (the deadline came). A failed one also says
        whether the experiment is ``wrong``: data, class, model or setting, not bad luck.
    """
    with run.trial_lock(trial.id, wait=False) as held:
        if not held:
            return {**trial_row(trial), "status": TrialStatus.BUSY}
        record = run.finished(trial)
        if record is not None:
            return dict(record.row)
        began = time.perf_counter()
        steps = finetune(trial, run, limits)
        progress = run.trial_path(trial.id) / "progress.json"
        began_at = None  # of the trial itself, which is after the pretraining
        try:
            while True:
                try:
                    rows = next(steps)
                except StopIteration as stop:
                    progress.unlink(missing_ok=True)
                    return dict(stop.value)
                if began_at is None and rows[-1]["stage"] != "pretrain":
                    began_at, began = time.time(), time.perf_counter()
                write_json(progress, _progress(trial, rows, began_at))
        except Stopped as error:
            return {**trial_row(trial), "status": TrialStatus.STOPPED, "message": str(error)}
        except (
            AnalogtlError,
            ArithmeticError,
            MemoryError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            row = {
                **trial_row(trial),
                "status": TrialStatus.FAILED,
                "wall_s": time.perf_counter() - began,
                "message": _one_line(error),
            }
            run.write_trial(trial, row, [], [])
            progress.unlink(missing_ok=True)
            # Not a column: the sweep stops a sweep whose very experiment is wrong.
            return {**row, "wrong": isinstance(error, ExperimentError)}


# -- the loop that pretraining and fine-tuning share -----------------------------------------------


class Fit:
    """One training from its first epoch to its last, saved on the way and gone on with.

    Attributes:
        resumed: Whether an earlier process began it.
        spent: Seconds that earlier processes spent on it.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        task: Task,
        section: Training,
        lr: float,
        seed: int,
        kind: str,
        base: Mapping[str, Any],
        resume: Path,
        key: str,
        limits: RunLimits,
        on_arrays: bool = False,
    ) -> None:
        self.model, self.task, self.section = model, task, section
        self.lr, self.seed, self.base = lr, seed, dict(base)
        self.resume, self.key, self.limits = resume, key, limits
        self.optimizer = build_optimizer(model, section, lr=lr, kind=kind)
        self.on_arrays = on_arrays
        self.resumed = False
        self.spent = 0.0
        self._rows: Rows = []
        self._start: dict[str, list[Tensor]] = {}
        self._began = self._saved = time.monotonic()
        self._cost = 0.0

    def run(self) -> Iterator[Rows]:
        """Train; yield the rows of each epoch, also those of an earlier process."""
        if self.on_arrays:
            self._start = transfer.programmed_weights(self.model)
        position = self._load()
        if position is None:
            position = Position()
            self._rows = self._score(0, None, 0.0, self.lr)
        # After a resume, what was recorded before comes first, in one go.
        yield list(self._rows)
        for event in train_epochs(
            self.model,
            self.optimizer,
            self.task,
            self.section,
            lr=self.lr,
            seed=self.seed,
            start=position,
            pause=self._due,
        ):
            last = False
            if isinstance(event, Position):
                self._save(event)
            else:
                new = self._score(event.epoch, event, event.wall_s, event.lr)
                self._rows += new
                self._check(event)
                last = event.epoch == self.section.epochs
                since = time.monotonic() - self._saved
                if not last and (self.limits.should_stop() or self._cost <= SAVING_SHARE * since):
                    self._save(event.next)
                yield new
            if last:  # nothing is left to stop
                continue
            if self.limits.should_stop():
                raise Stopped("stopped at the deadline; the next call goes on")
            if self._too_long():
                raise RunError(f"took longer than {self.limits.max_trial_hours:g} hours")

    def changed(self) -> tuple[float, dict[str, float]]:
        """Share of analog cells that moved since epoch 0: over all, and by layer."""
        return transfer.share_changed(self._start, transfer.programmed_weights(self.model))

    def forget(self) -> None:
        """Remove the saved state, once the result is recorded."""
        for file in self.resume.parent.glob("*"):
            file.unlink(missing_ok=True)
        if self.resume.parent.is_dir():
            self.resume.parent.rmdir()

    def _due(self) -> bool:
        minutes = (time.monotonic() - self._saved) / 60
        wanted = minutes >= self.limits.checkpoint_minutes
        return wanted or self.limits.should_stop() or self._too_long()

    def _too_long(self) -> bool:
        limit = self.limits.max_trial_hours
        return limit is not None and self.spent + time.monotonic() - self._began > 3600 * limit

    def _check(self, event: EpochDone) -> None:
        guess = torch.log(torch.tensor(float(self.task.n_classes))).item()
        if self.limits.stop_on_divergence and event.train.loss > 2 * guess:
            raise RunError(f"diverged: training loss {event.train.loss:.3g} at epoch {event.epoch}")

    def _score(self, epoch: int, event: EpochDone | None, wall_s: float, lr: float) -> Rows:
        rows: Rows = []
        moved = self.changed()[0] if self.on_arrays else None
        scores: list[tuple[str, Score, float]] = []
        if event is not None:
            scores.append(("train", event.train, wall_s))
        for split in ("validation", "test"):
            images = getattr(self.task, split)
            if len(images):
                began = time.perf_counter()
                score = evaluate(self.model, images, self.task)
                scores.append((split, score, time.perf_counter() - began))
        for split, score, seconds in scores:
            rows.append(
                {
                    **self.base,
                    "epoch": epoch,
                    "split": split,
                    "loss": score.loss,
                    "accuracy": (100 - score.error) / 100,
                    "error": score.error,
                    "lr": lr,
                    "n_samples": score.n_samples,
                    "wall_s": seconds,
                    "weights_changed": moved,
                    "resumed": self.resumed,
                }
            )
        return rows

    def _save(self, position: Position) -> None:
        began = time.monotonic()
        tensors, meta = state.capture(self.model)
        if position.rng is not None:
            tensors["rng"] = position.rng
        state.pack(self.optimizer.state_dict()["state"], "optimizer", tensors, meta)
        if self._start and not self.resume.with_name("start.json").is_file():
            state.save_weights(self.resume.with_name("start"), self._start)
        meta["fit"] = {
            "key": self.key,
            "format": state.FORMAT,
            "rows": self._rows,
            "spent": self.spent + began - self._began,
            "position": [getattr(position, name) for name in POSITION],
        }
        state.save(self.resume, tensors, meta)
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _load(self) -> Position | None:
        """Put a saved state back; None if there is none, or none that can be used."""
        try:
            loaded = state.load(self.resume)
            if loaded is None:
                self.forget()  # a process may have died after the first of two files
                return None
            tensors, meta = loaded
            about = meta["fit"]
            if (about["key"], about["format"]) != (self.key, state.FORMAT):
                # The settings, or the simulators, are not those any more: begin anew.
                self.forget()
                return None
            start = state.load(self.resume.with_name("start")) if self.on_arrays else None
            optimizer = state.unpack("optimizer", tensors, meta)
            state.restore(self.model, tensors, meta)
            if start is not None:
                self._start = state.unpack("weights", *start)
        except (RunError, KeyError, TypeError):
            set_aside(self.resume.parent, self.resume.parent.parent / "damaged")
            return None
        whole = self.optimizer.state_dict()
        whole["state"] = optimizer
        self.optimizer.load_state_dict(whole)
        self.resumed, self.spent, self._rows = True, float(about["spent"]), list(about["rows"])
        return Position(*about["position"], rng=tensors.get("rng"))


# -- inside ----------------------------------------------------------------------------------------


def kind_of(trial: Trial) -> str:
    """What the optimizer of a trial trains: ``digital``, ``analog`` or ``frozen`` arrays."""
    if trial.arm.digital:
        return "digital"
    return "analog" if trial.arm.trains_arrays else "frozen"


def task_of(experiment: Experiment, stage: str) -> Task:
    """The images of a stage, ``pretrain`` or ``finetune``; trials in one process share them."""
    section: Training = getattr(experiment, stage)
    settings = {
        "dataset": section.dataset,
        "classes": section.classes,
        "samples_per_class": section.samples_per_class,
        "test_samples_per_class": section.test_samples_per_class,
        "validation_fraction": section.validation_fraction,
        "image_size": experiment.data.image_size,
        "download": experiment.data.download,
    }
    root = experiment.data.root
    return _cached_task(tuple(settings.items()), root, os.environ.get("ANALOGTL_DATA"))


@lru_cache(maxsize=3)
def _cached_task(
    settings: tuple[tuple[str, Any], ...], root: str | None, _environment: str | None
) -> Task:
    """Trials in one process share their images; the environment is part of the question."""
    return load_task(**dict(settings), root=Path(root).expanduser() if root else None)


def fresh_model(experiment: Experiment, task: Task) -> nn.Module:
    """The model with random weights, from torch's generator."""
    return build_model(
        experiment.model.architecture,
        n_classes=task.n_classes,
        image_size=task.image_size,
        in_channels=task.in_channels,
        kwargs=experiment.model.kwargs,
    )


def _start_model(
    trial: Trial, run: RunDir, task: Task, limits: RunLimits
) -> Generator[Rows, None, nn.Module]:
    """The digital model that a trial starts from."""
    if not trial.is_pretrained:
        torch.manual_seed(transfer.derived_seed(trial.seed, "initial weights"))
        return fresh_model(trial.experiment, task)
    if trial.is_analog:
        _check_layers(trial.experiment)
    # The limit of a trial is no limit of the work that all trials share.
    steps = pretrain(trial.experiment, run, replace(limits, max_trial_hours=None))
    while True:
        try:
            yield [next(steps)]
        except StopIteration as stop:
            checkpoint: Checkpoint = stop.value
            break
    source = task_of(trial.experiment, "pretrain")
    for what in ("image_size", "in_channels"):
        if getattr(source, what) != getattr(task, what):
            raise ExperimentError(
                f"finetune.dataset: {what} is {getattr(task, what)}, but "
                f"{getattr(source, what)} in pretrain.dataset; use data sets of one size"
            )
    model = _load_pretrained(trial.experiment, checkpoint)
    torch.manual_seed(transfer.derived_seed(trial.seed, "head"))
    return replace_head(model, task.n_classes)


def _check_layers(experiment: Experiment) -> None:
    """Name a layer that does not exist before hours of pretraining, not after them."""
    if experiment.convert.digital_layers:
        model = fresh_model(experiment, task_of(experiment, "pretrain"))
        transfer.digital_layers(model, experiment.convert.digital_layers)


def example_of(task: Task) -> Tensor:
    """Two images, to see what reaches each layer."""
    x_BCHW, _ = next(batches(task.test, 2, task=task, seed=0, epoch=0, shuffle=False))
    return x_BCHW


def _outcome(rows: Rows) -> dict[str, Any]:
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


def _progress(trial: Trial, rows: Rows, began_at: float | None) -> dict[str, Any]:
    last = rows[-1]
    section = trial.experiment.pretrain if last["stage"] == "pretrain" else trial.section
    wall_s = sum(row["wall_s"] for row in rows if row["epoch"] == last["epoch"])
    return {
        "trial": trial.id,
        "stage": last["stage"],
        "epoch": last["epoch"],
        "epochs": section.epochs,
        "loss": last.get("loss"),
        "error": last["error"],
        "wall_s": wall_s,
        "seconds_left": wall_s * (section.epochs - last["epoch"]) if last["epoch"] else None,
        "began_at": began_at,
        "updated_at": time.time(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    expected = isinstance(error, AnalogtlError)
    return (text if expected else f"{type(error).__name__}: {text}")[:500]
