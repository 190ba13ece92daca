"""The rows of a training for trackers that are installed: never a reason for a trial to fail.

Everything stays on this machine, in ``tracking/`` of the run, unless the tracker's own environment
variables (WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_DIR) say otherwise.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from analogtl.config.section import flatten
from analogtl.errors import one_line
from analogtl.study.run_dir import RunDir
from analogtl.study.trial import Trial
from analogtl.training.resumable import Rows

_LOG = logging.getLogger(__name__)
Numbers = dict[str, float]
# What takes the numbers of an epoch, and what is done at the end.
Sink = tuple[Callable[[int, Numbers], object], Callable[[], object]]
_QUANTITIES = (*("loss", "error", "balanced_error", "accuracy", "lr", "wall_s", "weights_changed"),)


def tracked(
    steps: Generator[Rows, None, dict[str, Any]], trial: Trial, run: RunDir
) -> Generator[Rows, None, dict[str, Any]]:
    """Pass on what a training yields and returns; send the rows to the trackers asked for."""
    sinks: dict[str, Sink] = {}

    def told(name: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except Exception as error:  # of libraries that are not ours
            sinks.pop(name, None)
            _LOG.warning("report.track: %s: not sent: %s", name, one_line(error))
            return None

    for name in map(str, trial.experiment.report.track):
        open_it = partial(_OPENED[name], trial, run.path / "tracking" / name)
        if (sink := told(name, open_it)) is not None:
            sinks[name] = sink
    try:
        while True:
            try:
                rows = next(steps)
            except StopIteration as stop:
                result: dict[str, Any] = stop.value
                return result
            for epoch, numbers in _by_epoch(rows).items():
                for name, (log, _) in list(sinks.items()):
                    told(name, partial(log, epoch, numbers))
            yield rows
    finally:
        for name, (_, close) in list(sinks.items()):
            told(name, close)


def _by_epoch(rows: Rows) -> dict[int, Numbers]:
    """The numbers of each epoch of fine-tuning, by ``split/quantity``."""
    found: dict[int, Numbers] = {}
    for row in rows:
        if row.get("stage") == "pretrain":
            continue
        numbers = found.setdefault(int(row["epoch"]), {})
        for quantity in _QUANTITIES:
            if row.get(quantity) is not None:
                numbers[f"{row['split']}/{quantity}"] = float(row[quantity])
    return found


def _settings(trial: Trial) -> dict[str, Any]:
    flat = flatten(trial.settings())
    return {key: value for key, value in flat.items() if isinstance(value, int | float | str)}


def _tensorboard(trial: Trial, folder: Path) -> Sink:
    board: Any = importlib.import_module("torch.utils.tensorboard")
    writer = board.SummaryWriter(log_dir=str(folder / trial.id))

    def log(epoch: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return log, writer.close


def _wandb(trial: Trial, folder: Path) -> Sink:
    wandb: Any = importlib.import_module("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    session = wandb.init(
        project=trial.experiment.name,
        name=trial.id[:128],
        group=trial.arm.value,
        dir=str(folder),
        mode=os.environ.get("WANDB_MODE", "offline"),
        config=_settings(trial),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off"),
    )
    return (lambda epoch, numbers: session.log(numbers, step=epoch)), session.finish


def _mlflow(trial: Trial, folder: Path) -> Sink:
    mlflow: Any = importlib.import_module("mlflow")
    folder.mkdir(parents=True, exist_ok=True)
    here = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    client = mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))
    known = client.get_experiment_by_name(trial.experiment.name)
    number = known.experiment_id if known else client.create_experiment(trial.experiment.name)
    session = client.create_run(number, run_name=trial.id).info.run_id
    for key, value in _settings(trial).items():
        client.log_param(session, key.replace(":", "_"), value)

    def log(epoch: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            client.log_metric(session, name, value, step=epoch)

    return log, lambda: client.set_terminated(session)


def _trackio(trial: Trial, folder: Path) -> Sink:
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))  # read when it is imported
    trackio: Any = importlib.import_module("trackio")
    session = trackio.init(
        project=trial.experiment.name, name=trial.id, config=_settings(trial), embed=False
    )
    return (lambda epoch, numbers: session.log(numbers, step=epoch)), session.finish


_OPENED: dict[str, Callable[[Trial, Path], Sink]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
