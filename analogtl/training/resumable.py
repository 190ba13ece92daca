"""A training that is saved on the way, so that another process can go on with it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from analogtl.config.training import Training
from analogtl.crossbar import checkpoint as state
from analogtl.crossbar import convert as transfer
from analogtl.crossbar.pulses import Counts, pulses_between, pulses_so_far, wear
from analogtl.errors import RunError
from analogtl.files import refuse_link, set_aside
from analogtl.study.limits import RunLimits
from analogtl.tasks.task import Task
from analogtl.training.loop import (
    EpochDone,
    Position,
    build_optimizer,
    evaluate,
    train_epochs,
)

_LOG = logging.getLogger(__name__)
Rows = list[dict[str, Any]]

# A checkpoint at the end of an epoch is worth it while saving takes less than this share of the
# time since the last one; in between, `checkpoint_minutes` decides.
SAVING_SHARE = 0.05
POSITION = ("epoch", "batch", "loss_sum", "judged", "seen", "wall_s")


class Stopped(RunError):
    """The deadline came: the state is saved, and the next call goes on."""


@dataclass
class ResumableTraining:
    """One training from its first epoch to its last, saved on the way and gone on with."""

    model: nn.Module  # digital or analog
    task: Task
    section: Training  # epochs, batch size, schedule, optimizer
    lr: float  # peak learning rate
    seed: int  # seed of everything random
    kind: str  # what is trained; see `build_optimizer`
    base: dict[str, Any]  # what every row of ``epochs.csv`` begins with
    checkpoint: Path  # stem of the files of the saved state
    damaged: Path  # folder where a saved state that is damaged is set aside
    key: str  # what the state belongs to; one with another key is not taken up
    limits: RunLimits  # when to save and to stop
    smallest_batch: int = 1  # fewest images of a step
    resumed: bool = False  # whether an earlier process began it
    spent: float = 0.0  # seconds that earlier processes spent on it
    pulses: Rows = field(default_factory=list)  # of ``pulses.csv``, of each epoch that is done
    _rows: Rows = field(default_factory=list)
    _start: dict[str, list[Tensor]] = field(default_factory=dict)  # programmed weights
    _counted: Counts = field(default_factory=dict)  # pulses until the last epoch's end
    _cost: float = 0.0  # seconds of the last checkpoint

    def __post_init__(self) -> None:
        self._on_arrays = self.kind != "digital"
        self._optimizer = build_optimizer(self.model, self.section, lr=self.lr, kind=self.kind)
        self._began = self._saved = time.monotonic()

    def run(self) -> Iterator[Rows]:
        """Train; yield the rows of each epoch, those of an earlier process first, in one go.

        Raises:
            Stopped: If it is time to stop; the state is saved by then.
            RunError: If it diverges or takes too long.
        """
        if self._on_arrays:
            self._start = transfer.programmed_weights(self.model)
            self._counted = pulses_so_far(self.model)
        position = self._load()
        if position is None:
            position = Position()
            self._rows = self._score(0, None, self.lr)
        yield list(self._rows)
        for event in train_epochs(
            self.model,
            self._optimizer,
            self.task,
            self.section,
            lr=self.lr,
            seed=self.seed,
            smallest_batch=self.smallest_batch,
            start=position,
            pause=self._checkpoint_due,
        ):
            last = False
            if isinstance(event, Position):
                self._save(event)
            else:
                new = self._score(event.epoch, event, event.lr)
                self._rows += new
                if self._counted:
                    before, self._counted = self._counted, pulses_so_far(self.model)
                    counted = pulses_between(before, self._counted)
                    self.pulses += [{"epoch": event.epoch, **row} for row in counted]
                loss = event.train.loss
                if self.limits.stop_on_divergence and loss > 2 * self.task.guessing:
                    raise RunError(f"diverged: training loss {loss:.3g} at epoch {event.epoch}")
                last = event.epoch == self.section.epochs
                cheap = self._cost <= SAVING_SHARE * (time.monotonic() - self._saved)
                if not last and (cheap or self.limits.should_stop()):
                    self._save(event.next)
                yield new
            if last:  # nothing is left to stop
                continue
            if self.limits.should_stop():
                raise Stopped("stopped at the deadline; the next call goes on")
            if self._takes_too_long():
                raise RunError(f"took longer than {self.limits.max_trial_hours:g} hours")

    def changed(self) -> tuple[float, dict[str, float]]:
        """Share of analog cells that changed since epoch 0: over all, and by layer."""
        return transfer.share_changed(self._start, transfer.programmed_weights(self.model))

    def wear(self) -> dict[str, dict[str, Any]]:
        """What happened to the arrays since epoch 0, by layer: pulses, reads, change of weights."""
        return wear(self.model, self._start)

    def _checkpoint_due(self) -> bool:
        minutes = (time.monotonic() - self._saved) / 60
        wanted = minutes >= self.limits.checkpoint_minutes
        return wanted or self.limits.should_stop() or self._takes_too_long()

    def _takes_too_long(self) -> bool:
        limit = self.limits.max_trial_hours
        return limit is not None and self.spent + time.monotonic() - self._began > 3600 * limit

    def _score(self, epoch: int, event: EpochDone | None, lr: float) -> Rows:
        """Evaluate; return the rows of an epoch."""
        changed = self.changed()[0] if self._on_arrays else None
        scores = [("train", event.train, event.wall_s)] if event is not None else []
        for split in ("validation", "test"):
            images = getattr(self.task, split)
            if len(images):
                began = time.perf_counter()
                score = evaluate(self.model, images, self.task)
                scores.append((split, score, time.perf_counter() - began))
        return [
            {
                **self.base,
                "epoch": epoch,
                "split": split,
                "loss": score.loss,
                "accuracy": (100 - score.error) / 100 if self.task.metric.is_share else None,
                "error": score.error,
                "balanced_error": score.balanced_error,
                "metric": self.task.metric,
                "lr": lr,
                "n_samples": score.n_samples,
                "wall_s": seconds,
                "weights_changed": changed,
                "resumed": self.resumed,
            }
            for split, score, seconds in scores
        ]

    def _save(self, position: Position) -> None:
        began = time.monotonic()
        tensors, meta = state.capture(self.model)
        if position.rng is not None:
            tensors["rng"] = position.rng
        state.pack(self._optimizer.state_dict()["state"], "optimizer", tensors, meta)
        start = self.checkpoint.with_name("start")
        if self._start and not start.with_suffix(".json").is_file():
            state.save_weights(start, self._start)
        if position.batch:
            state.pack(self._counted, "counted", tensors, meta)
        meta["fit"] = {
            "key": self.key,
            "format": state.FORMAT,
            "rows": self._rows,
            "pulses": self.pulses,
            "spent": self.spent + began - self._began,
            "position": [getattr(position, name) for name in POSITION],
        }
        state.save(self.checkpoint, tensors, meta)
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _load(self) -> Position | None:
        """Put a saved state back; None if there is none, or none that can be used."""
        try:
            loaded = state.load(self.checkpoint)
            if loaded is None:
                delete_checkpoint(self.checkpoint)  # it died after the first of two files
                return None
            tensors, meta = loaded
            about = meta["fit"]
            if (about["key"], about["format"]) != (self.key, state.FORMAT):
                # The settings, or the simulators, are not those any more: begin anew.
                delete_checkpoint(self.checkpoint)
                return None
            start = state.load(self.checkpoint.with_name("start")) if self._on_arrays else None
            weights = state.unpack("weights", *start) if start is not None else self._start
            optimizer = state.unpack("optimizer", tensors, meta)
            position = replace(Position(*about["position"]), rng=tensors.get("rng"))
            counted = state.unpack("counted", tensors, meta) if position.batch else None
        except (RunError, KeyError, TypeError, ValueError) as error:
            _LOG.warning("%s; the training begins anew", self._set_aside(error))
            return None
        try:
            state.restore(self.model, tensors, meta)
        except (RunError, KeyError, TypeError, ValueError) as error:  # perhaps half of it is in
            raise RunError(f"{self._set_aside(error)}; the next call begins anew") from None
        self._start = weights
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": optimizer})
        self._counted = pulses_so_far(self.model) if counted is None else counted
        self.resumed, self.spent = True, float(about["spent"])
        self._rows, self.pulses = list(about["rows"]), list(about["pulses"])
        return position

    def _set_aside(self, error: Exception) -> str:
        """Set the saved state aside; return a line that says why, and where it is."""
        return f"{error}; set aside as {set_aside(self.checkpoint.parent, self.damaged)}"


def delete_checkpoint(stem: Path) -> None:
    """Remove a saved state and its folder, once the result is recorded or nobody can use it.

    What cannot be removed does no harm; `analogtl runs clean` finds it.
    """
    refuse_link(stem.parent)
    shutil.rmtree(stem.parent, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or other states are in it
        stem.parent.parent.rmdir()
