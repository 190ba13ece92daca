"""Run one trial in this process: what every worker does, whichever backend started it."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import time
from typing import Any

from analogtl.errors import AnalogtlError, ExperimentError, one_line
from analogtl.files import write_json
from analogtl.study.limits import RunLimits
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.trial import Trial
from analogtl.training.after import catch_up
from analogtl.training.resumable import Rows, Stopped
from analogtl.training.stages import finetune
from analogtl.training.track import tracked
from analogtl.vocabulary import TrialStatus


def run_trial(trial: Trial, run: RunDir, limits: RunLimits = RunLimits()) -> dict[str, Any]:
    """Run, resume or find a trial; record it, also where it fails.

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
            catch_up(trial, run)
            return dict(record.row)
        if run.planned().get(trial.id, "") not in ("", trial.key):
            # A job from a queue, handed in before the experiment became another one.
            why = "not run: it is asked for with other settings, images or versions by now"
            return {**trial_row(trial), "status": TrialStatus.FAILED, "message": why}
        _give_back_memory()
        began = time.perf_counter()
        began_at = None  # of the trial itself, which is after the pretraining
        steps = tracked(finetune(trial, run, limits), trial, run)
        progress = run.trial_path(trial.id) / "progress.json"
        try:
            while True:
                try:
                    rows = next(steps)
                except StopIteration as stop:
                    catch_up(trial, run)
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
                "message": one_line(error),
            }
            run.write_trial(trial, row, [], [])
            progress.unlink(missing_ok=True)
            # Not a column: a sweep whose very experiment is wrong is stopped.
            return {**row, "wrong": isinstance(error, ExperimentError)}


def _give_back_memory() -> None:
    """Free what an earlier trial left, or its network would lie beside this one's.

    Modules refer to one another in cycles; and what is freed in small pieces glibc keeps, which
    after a trial of SmolLM2 is 2 GB.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _progress(trial: Trial, rows: Rows, began_at: float | None) -> dict[str, Any]:
    """What ``progress.json`` says after an epoch."""
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
