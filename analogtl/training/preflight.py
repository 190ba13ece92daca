"""Before anything is trained: find whatever would make a training fail, for all trials at once.

Data sets are taken stock of, networks are built and sent an image of zeros, and a small array is
trained for one step. What only a training shows, such as a loss that is not finite, is left to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from analogtl.config.arrays import Analog, Programming
from analogtl.config.per_layer import meant
from analogtl.config.schema import Experiment
from analogtl.config.section import content_key
from analogtl.config.training import Training
from analogtl.crossbar.layer_settings import check_covered, layer_settings, survey_arrays
from analogtl.crossbar.lora import AdaptedLayer, Adapters
from analogtl.crossbar.retention import aged_weights
from analogtl.crossbar.survey import Survey
from analogtl.errors import AnalogtlError, ExperimentError, RunError, counted, one_line
from analogtl.study.basis import is_at_hand, stages_of
from analogtl.study.data import data_of
from analogtl.study.network import fresh_model, stand_in_with, variant_of
from analogtl.study.trial import Trial
from analogtl.study.weights import WEIGHTS
from analogtl.tasks.sources import is_absent
from analogtl.tasks.stand_in import nominal_counts
from analogtl.tasks.task import Task
from analogtl.training.adapters import adapted
from analogtl.training.loop import planned
from analogtl.training.network import (
    adapt,
    check_same_inputs,
    smallest_batch,
)
from analogtl.training.programming import WeightProgrammingRun
from analogtl.training.weights import normalised, start_from
from analogtl.vocabulary import Arm, FileAlgorithm

T = TypeVar("T")
MAX_LEVELS = 3  # that a problem names


@dataclass(frozen=True)
class Need:
    """What is about to be done with an experiment."""

    experiment: Experiment
    stages: tuple[str, ...]  # whose images are seen: "pretrain", "finetune"
    on_arrays: bool
    level: str = ""  # of a sweep, in words
    starts: bool = True  # from the weights that are given, if any are
    arm: Arm = Arm.ANALOG_TL  # it counts where it has adapters

    @property
    def adapters(self) -> str:
        """The arm, where it has adapters."""
        return self.arm.value if self.arm.has_adapters else ""

    @classmethod
    def of(cls, trial: Trial) -> Need:
        """What a trial needs."""
        level = ", ".join(f"{name} = {value}" for name, value in trial.axes.items())
        stages = stages_of(trial.experiment, trial.arm)
        arm = trial.arm
        return cls(trial.experiment, stages, arm.analog, level, arm.pretrained, arm)


def preflight(needs: Iterable[Need], *, need_data: bool = True) -> list[str]:
    """Check everything that can be known before a training.

    Args:
        needs: What is about to be done.
        need_data: Whether a data set that is not on this machine is a problem, or a note.

    Returns:
        What could not be checked, one line each.

    Raises:
        ExperimentError: With all problems; one that not all levels of a sweep have names some.
    """
    checks = Preflight(need_data)
    checks.check(needs)
    return checks.notes


def stand_in_of(experiment: Experiment, stage: str) -> Task:
    """Make a task of as many images as a stage has, by the data set's name where it is not here.

    Raises:
        ExperimentError: As `preflight` does.
    """
    return Preflight(need_data=False).task(experiment, stage)


def planned_layers(
    experiment: Experiment, arm: Arm = Arm.ANALOG_TL
) -> tuple[Survey, list[dict[str, Any]]]:
    """Tell what an arm would have on arrays, and how each layer would be trained.

    Raises:
        ExperimentError: As `preflight` does.
    """
    need = Need(experiment, ("finetune",), True, starts=False, arm=arm)
    return Preflight(need_data=False).layers(need)


def planned_adapters(experiment: Experiment) -> str:
    """Tell how many adapters there are to be, and what they hold, in words.

    Raises:
        ExperimentError: As `preflight` does.
    """
    task, lora = stand_in_of(experiment, "finetune"), experiment.lora
    with torch.random.fork_rng():
        model = fresh_model(experiment, task)
        whole = sum(one.numel() for one in model.parameters())
        adapted(model, experiment, task, Arm.LORA_DIGITAL)
    held = sum(one.numel() for one in model.parameters()) - whole
    beside = counted(sum(isinstance(one, AdaptedLayer) for one in model.modules()), "layer")
    return (
        f"of rank {lora.rank} and scale {lora.alpha / lora.rank:g} beside {beside}: "
        f"{held:,} weights; the network has {whole:,} parameters"
    )


def at_levels(problem: str, levels: Sequence[str], every: set[str]) -> str:
    """A problem, and the levels at which it is where others are free of it."""
    named = [level for level in dict.fromkeys(levels) if level]
    if not named or "" in levels or set(named) >= every:
        return problem
    more = len(named) - MAX_LEVELS
    shown = "; ".join(named[:MAX_LEVELS]) + (f"; and {more} more" if more > 0 else "")
    return f"{problem} (at {shown})"


@dataclass(frozen=True)
class Network:
    """A network that was built and looked at; its weights are not kept, their shapes are."""

    model: nn.Module
    task: Task  # the last one that it was fit for
    adapters: Adapters | None = None
    surveyed: Survey | None = None  # of its arrays, if it is to have any


class Preflight:
    """Checks what is needed, the same thing once, and tells of it."""

    def __init__(self, need_data: bool) -> None:
        self.notes: list[str] = []
        self._need_data = need_data
        self._known: dict[str, Any] = {}

    def check(self, needs: Iterable[Need]) -> None:
        """Check everything that can be known before a training.

        Raises:
            ExperimentError: As `preflight` does.
        """
        levels: dict[str, list[str]] = {}
        looked: set[tuple[int, tuple[str, ...], bool, bool, str]] = set()
        kept = []  # an id is good for as long as its object lives
        for need in needs:
            same = (id(need.experiment), need.stages, need.on_arrays, need.starts, need.adapters)
            if same in looked:
                continue
            looked.add(same)
            kept.append(need)
            for problem in self._look(need)[0]:
                levels.setdefault(problem, []).append(need.level)
        if levels:
            every = {need.level for need in kept if need.on_arrays}
            raise ExperimentError(at_levels(one, where, every) for one, where in levels.items())

    def layers(self, need: Need) -> tuple[Survey, list[dict[str, Any]]]:
        """Tell what an arm has on arrays, and how each layer is to be trained in fine-tuning.

        Returns:
            The survey; rows of `analogtl.crossbar.layer_settings.layer_settings`.

        Raises:
            ExperimentError: As `preflight` does.
        """
        problems, network = self._look(need)
        if network is None or network.surveyed is None:
            raise ExperimentError(problems)
        experiment = need.experiment
        return network.surveyed, layer_settings(
            network.model,
            network.surveyed,
            experiment.analog,
            experiment.convert,
            plan=planned(experiment.finetune, self.task(experiment, "finetune")),
            variant=variant_of(experiment),
            adapters=network.adapters,
        )

    def _look(self, need: Need) -> tuple[list[str], Network | None]:
        """What is wrong, one line each; and the network."""
        experiment, analog = need.experiment, need.experiment.analog
        found: list[str] = []

        def told(check: Callable[..., T], *arguments: Any, parts: Any) -> T | None:
            result = self._once(check, arguments, parts)
            if isinstance(result, ExperimentError):
                found.extend(result.problems)
                return None
            return result

        if need.on_arrays:
            told(_try_array, analog, parts=analog.resolved())
            own = told(variant_of, experiment, parts=experiment.as_written())
            if own:
                told(_try_array, own.analog, parts=own.analog.resolved())
                told(check_covered, own.analog, parts=own.analog.resolved())
            if experiment.evaluate.times:
                asked = experiment.evaluate
                told(aged_weights, asked, parts=asked.model_dump(mode="json"))
        if experiment.is_weight_programming:
            if need.stages:
                found.append("kind: weight-programming has no network; `analogtl sweep` runs it")
            return found, None
        whole = experiment.resolved()
        tasks = {
            stage: told(
                self.task,
                experiment,
                stage,
                parts=(whole["objective"], whole[stage], whole["data"]),
            )
            for stage in need.stages
        }
        network = None
        if None not in tasks.values():
            seen = [whole[name] for name in ("objective", "model", "data", *need.stages)]
            seen.append(experiment.convert.digital_layers)
            covered = analog.resolved() if analog.engine == "fast" else None
            starts = need.starts and self._has_weights(experiment)
            need = replace(need, starts=starts)
            lora = (need.adapters, experiment.lora.model_dump()) if need.adapters else ()
            parts = (seen, need.on_arrays, covered, starts, lora)
            network = told(_check_network, need, tasks, parts=parts)
            if network and network.surveyed:
                level, arrays = experiment.per_layer.layer, list(network.surveyed.arrays)
                told(meant, level, arrays, parts=(level, arrays))
        return found, network

    def _has_weights(self, experiment: Experiment) -> bool:
        """Whether there are weights to start from, and they are here."""
        if not experiment.model.start:
            return False
        if self._need_data or is_at_hand(experiment, WEIGHTS):
            return True
        line = f"weights {experiment.model.start}: not on this machine; they are not checked"
        self.notes += [] if line in self.notes else [line]
        return False

    def _once(self, check: Callable[..., T], arguments: Any, parts: Any) -> T | ExperimentError:
        key = content_key(check.__name__, parts)
        if key not in self._known:
            try:
                self._known[key] = check(*arguments)
            except ExperimentError as error:
                self._known[key] = error
        found: T | ExperimentError = self._known[key]
        return found

    def task(self, experiment: Experiment, stage: str) -> Task:
        """A stand-in for what a stage learns from."""
        section: Training = getattr(experiment, stage)
        if not self._need_data and _is_absent(experiment, section.dataset):
            line = f"data set {section.dataset}: not on this machine; its images are not checked"
            self.notes += [] if line in self.notes else [line]
            counts = nominal_counts(section.dataset, section.classes)
        else:
            (found,) = data_of([(experiment, stage)], at_hand=False)
            counts = found.classes
        return stand_in_with(experiment, stage, counts)


def _is_absent(experiment: Experiment, dataset: str) -> bool:
    """Whether a data set, or the folder that is to hold it, is not on this machine."""
    if experiment.data.root is None:
        return is_absent(dataset, None)
    root = Path(os.path.expanduser(experiment.data.root))
    return not os.path.exists(root) or is_absent(dataset, root)


def _check_network(need: Need, tasks: dict[str, Task]) -> Network:
    """Build the network as the stages do, and see what they would do with it."""
    experiment, stages = need.experiment, list(reversed(need.stages))  # pretraining comes first
    tasks = {s: normalised(task, experiment, started=need.starts) for s, task in tasks.items()}
    task = tasks[stages[0]]
    with torch.random.fork_rng():
        model = fresh_model(experiment, task)
        if need.starts:
            start_from(model, experiment, task)
        for stage in stages:
            if tasks[stage] is not task:
                check_same_inputs(task, tasks[stage])
                task = tasks[stage]
                model = adapt(model, experiment, task)
            smallest_batch(model, task, getattr(experiment, stage), stage)
        if not need.on_arrays:
            return Network(model.to("meta"), task)
        adapters = adapted(model, experiment, task, need.arm) if need.adapters else None
        analog, convert = experiment.analog, experiment.convert
        surveyed = survey_arrays(model, analog, convert, task.example(), adapters)
        return Network(model.to("meta"), task, adapters, surveyed)


def _try_array(analog: Analog) -> None:
    """Train an array of a few cells for a step: aihwkit judges some parameters only there."""
    # The fast engine runs the same parameters, and would have to be compiled first; but only there
    # is a rule run.
    if not isinstance(analog.algorithm, FileAlgorithm):
        analog = analog.model_copy(update={"engine": "aihwkit"})
    small = Programming(size=3, vectors=2, batch_size=1, epochs=1)
    try:
        with torch.random.fork_rng():
            for _ in WeightProgrammingRun(small, analog, lr=0.01, seed=0).run():
                pass
    except RunError:  # that a loss is not finite is for the trials to find out
        return
    except AnalogtlError:
        raise
    except Exception as error:  # of aihwkit's, which has many
        reason = re.sub(r"^\w+: (Error in \S+ )?", "", one_line(error))
        if isinstance(analog.algorithm, FileAlgorithm):
            raise ExperimentError(f"analog.algorithm: {reason}") from error
        raise ExperimentError(f"analog: aihwkit refuses these settings: {reason}") from error
