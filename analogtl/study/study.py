"""A study: one experiment, opened once, with its trials and its run directory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from analogtl.config.load import apply_overrides, read_source, validate
from analogtl.config.schema import Experiment
from analogtl.config.source import Source
from analogtl.errors import ExperimentError, RunError
from analogtl.files import make_way, names_in, write_atomically, write_json
from analogtl.study.basis import Look, basis_of, fingerprint_of
from analogtl.study.data import StageData, as_data, check_choosable, data_of
from analogtl.study.provenance import provenance
from analogtl.study.run_dir import DEFAULT_ROOT, TABLES_OF_RUN, RunDir
from analogtl.study.trial import Trial, level_key, pretrain_key, trials_of
from analogtl.study.tuning import FOLDER, Tuning
from analogtl.vocabulary import PER_LAYER, Arm, key_of


@dataclass(frozen=True)
class Study:
    """An experiment that is ready to run."""

    experiment: Experiment  # overrides applied
    run: RunDir
    # Whether the axes and learning rates of [sweep] are run, or the experiment as written.
    sweep: bool = False
    file: Path | None = None  # the experiment file; None for an experiment made in Python
    text: str = ""  # what stood in it
    notes: tuple[str, ...] = ()  # what the user should know of how the settings were taken
    look: Look = fingerprint_of  # how to look at the images; only with this one can it be run
    part: tuple[Trial, ...] | None = None  # the trials that are run, where it is not all

    @classmethod
    def open(
        cls,
        experiment: str | Path | Experiment,
        settings: Sequence[str] = (),
        root: str | Path = DEFAULT_ROOT,
        *,
        task: str | None = None,
        sweep: bool = False,
        axes: Mapping[str, Sequence[Any]] | None = None,
        look: Look = fingerprint_of,
    ) -> Study:
        """Read the experiment of a study; nothing is written.

        What is relative in it is so to the current folder, and stays where that was.

        Args:
            experiment: File, name of a shipped experiment, or an experiment.
            settings: Overrides of the file or of the experiment, as ``a.b=c``.
            root: Folder of the run directories.
            task: One of the file's tasks; None for its own choice. An experiment has none.
            sweep: Whether to run the axes and learning rates of [sweep].
            axes: Axes that take the place of the file's: name -> levels.
            look: How to look at the images.

        Raises:
            ExperimentError: With one line per problem.
        """
        root = Path(root).absolute()
        if isinstance(experiment, Experiment):
            if not (settings or task or axes):
                named = _named(experiment, sweep)
                return cls(named, RunDir(root, named.name), sweep, look=look)
            source = Source()
            source.data = experiment.as_written()
            if task is not None:
                raise ExperimentError(
                    f"task {task!r}: only a file has tasks; this is an experiment"
                )
            apply_overrides(source, settings)
        else:
            source = read_source(experiment, settings, task)
        notes = []
        if axes:
            section = source.data.setdefault("sweep", {})
            if isinstance(section, dict):
                section["axes"] = {name: list(levels) for name, levels in axes.items()}
                is_lr = any(key_of(axis) == "finetune.lr" for axis in axes)
                if is_lr and section.pop("lr", None):
                    notes.append("the axis lr takes the place of sweep.lr: each rate is a level")
            for axis in axes:
                source.origin[f"sweep.axes.{axis}"] = f"--param {axis}"
        read = _named(validate(source), sweep)
        run = RunDir(root, read.name)
        file = Path(source.file).absolute() if source.file else None
        text = file.read_text(encoding="utf-8-sig") if file else ""
        return cls(read, run, sweep, file, text, tuple(notes), look)

    def swept(self) -> Study:
        """The same with its axes and learning rates.

        Raises:
            ExperimentError: If a level means no layer of its network.
        """
        return replace(self, experiment=_named(self.experiment, True), sweep=True)

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, in the order in which they run.

        Raises:
            ExperimentError: If there are too many, levels that do not go together, or images that
                cannot be found.
            RunError: If something has to be chosen first; see `phases`.
        """
        if self.part is not None:
            return list(self.part)
        chosen = self.tuning.chosen if self.tuning else None
        return trials_of(self.experiment, sweep=self.sweep, look=self.look, chosen=chosen)

    @cached_property
    def tuning(self) -> Tuning | None:
        """What is chosen before its trials run; None for nothing."""
        if not self.sweep or self.part is not None:
            return None
        return Tuning.of(self.experiment, self.run, self.look)

    def phases(self) -> Iterator[Study]:
        """What to run, one after the other: what its choices are made from, then itself.

        It ends early where a phase was left unfinished: the next call goes on.
        """
        tuning = self.tuning
        if tuning is not None:
            for trials in tuning.parts():
                try:
                    yield self.tuned_by(trials)
                finally:
                    tuning.write(self.run.path)
            tuning.write(self.run.path)  # also where another process was at work
            if not tuning.is_over:
                return
        yield self

    def tuned_by(self, trials: Sequence[Trial]) -> Study:
        """Some trainings of its tuning, as a study of their own."""
        assert self.tuning is not None
        experiment, run = self.tuning.own_experiment, self.tuning.run
        return replace(self, experiment=experiment, run=run, sweep=True, part=tuple(trials))

    @property
    def sketch(self) -> list[Trial]:
        """Its own trials, if nothing is chosen yet as they would be without tuning."""
        if self.tuning is None or self.tuning.is_over:
            return self.trials
        return trials_of(self.experiment, sweep=self.sweep, look=self.look)

    @cached_property
    def pretrain_key(self) -> str:
        """`pretrain_key` of the model that the experiment as written pretrains.

        Raises:
            ExperimentError: If its images cannot be found.
        """
        return pretrain_key(self.experiment, basis_of(self.experiment, "pretrain", look=self.look))

    def data(self, *, with_trials: bool = True, at_hand: bool = False) -> list[StageData]:
        """Take stock of the images of the stages that are run.

        Args:
            with_trials: Whether its trials run, or only the pretraining.
            at_hand: Leave out what would have to be downloaded.

        Raises:
            ExperimentError: If images cannot be found or read, or are too few, also to choose by.
        """
        if not with_trials:
            return data_of([(self.experiment, "pretrain")], at_hand=at_hand)
        trials = [trial for trial in self.trials if trial.arm is not Arm.WEIGHT_PROGRAMMING]
        pretrained = ((trial.experiment, "pretrain") for trial in trials if trial.pretrains)
        finetuned = ((trial.experiment, "finetune") for trial in trials)
        found = data_of((*pretrained, *finetuned), at_hand=at_hand)
        if self.part is not None:
            check_choosable(self.experiment, found)
        return found

    def prepare(self, *, argv: Sequence[str] = (), with_trials: bool = True) -> list[StageData]:
        """Write what describes the run; see `at_work`, which does that first."""
        with self.at_work(argv=argv, with_trials=with_trials) as data:
            return data

    @contextlib.contextmanager
    def at_work(
        self, *, argv: Sequence[str] = (), with_trials: bool = True
    ) -> Iterator[list[StageData]]:
        """Write what describes the run, and keep others out of it who would run something else.

        Several processes may run the same experiment, or parts of it, in one run directory at the
        same time. One whose trials have other settings, images or versions is refused.

        Args:
            argv: The command line, for the provenance.
            with_trials: Plan the trials, in place of those of an earlier call, which are kept
                otherwise, and while others are at work.

        Yields:
            The images that will be used.

        Raises:
            RunError: If the directory cannot be written, or another process is at work there on an
                experiment that has the same name and is another one.
            ExperimentError: If images cannot be found or read, or are too few.
        """
        run = self.run
        data = self.data(with_trials=with_trials)
        _ = run.trials  # which refuses what nothing could be written into
        with contextlib.ExitStack() as stack:
            with run.lock("plan"):  # two of them may start at the same moment
                planned, models = run.planned(), run.planned_models()
                rules = self._rules()
                others = run.others_at_work()
                self._check_sameness(planned, others)
                if with_trials:
                    mine = {trial.id: trial.key for trial in self.trials}
                    needed = {t.pretrain_key for t in self.trials if t.pretrains}
                    planned = {**planned, **mine} if others else mine
                    models = sorted({*models, *needed} if others else needed)
                stack.enter_context(run.working())
                for name in (*TABLES_OF_RUN, "experiment.toml", "data.json"):
                    make_way(run.path / name, run.damaged)
                if self.file is not None:
                    write_atomically(run.path / "experiment.toml", self.text)
                write_json(run.path / "experiment.resolved.json", self.experiment.resolved())
                write_json(run.path / "provenance.json", provenance(argv))
                stages = ("pretrain", "finetune") if with_trials else ("pretrain",)
                known = {**run.read("data.json"), **as_data(data, stages)}
                write_json(run.path / "data.json", known)
                plan = {"trials": planned, "pretrained": models} | rules
                write_json(run.path / "plan.json", plan | self._tuned(others or not with_trials))
            yield data

    def _tuned(self, beside: bool) -> dict[str, dict[str, str]]:
        """What was chosen for each trial, for the plan, beside earlier ones; {} where nothing."""
        before = self.run.read("plan.json").get("tuned") if beside else None
        found = dict(before) if isinstance(before, dict) else {}
        if self.tuning is not None:
            chosen = self.tuning.chosen
            for trial in self.trials:
                values = chosen.get(level_key(trial.arm, trial.axes), {})
                found[trial.id] = "; ".join(f"{key} = {value}" for key, value in values.items())
        return {"tuned": found} if found else {}

    def _rules(self) -> dict[str, dict[str, str]]:
        """The text of the files that hold rules or networks, for the plan; {} if there is none."""
        now = {**self.experiment.analog.rules, **self.experiment.model.files}
        before = self.run.read("plan.json").get("rules")
        before = before if isinstance(before, dict) else {}
        if changed := [file for file in now if before.get(file, now[file]) != now[file]]:
            raise ExperimentError(
                f"{file}: has changed since the run in {self.run.path} began: put it back, or run "
                "what changed with --set name=ANOTHER"
                for file in changed
            )
        return {"rules": {**before, **now}} if now else {}

    def _check_sameness(self, planned: Mapping[str, str], others: bool) -> None:
        """See that nobody is at work on a trial of ours with another key."""
        for trial in self.trials if planned else ():
            if planned.get(trial.id, "") in ("", trial.key):
                continue
            with self.run.trial_lock(trial.id, wait=False) as idle:
                if others or not idle:
                    raise RunError(
                        f"{self.run.path}: another process is at work there on an experiment that "
                        f"is also called {self.run.name!r} and is another one ({trial.id} has "
                        "other settings, images or versions); wait for it, or add --set "
                        "name=ANOTHER"
                    )

    @contextlib.contextmanager
    def nothing_left_if_wrong(self) -> Iterator[None]:
        """Remove the run directory that the block has made if the experiment turns out to be wrong.

        Some mistakes show only once data and network are there. A directory that was there before,
        or holds a finished trial, or in which others are at work, is kept, and so is a pretrained
        model.
        """
        run, root = self.run.path, self.run.root
        new_run, new_root = not run.exists(), not root.exists()
        try:
            yield
        except ExperimentError:
            recorded = [
                self.run.record(file.parent.name) for file in run.glob("trials/*/trial.json")
            ]
            kept = any(record and record.done for record in recorded) or self.run.others_at_work()
            kept = kept or any(run.glob(f"{FOLDER}/trials/*/trial.json"))
            if new_run and not kept:
                shutil.rmtree(run, ignore_errors=True)
            if new_root and set(names_in(root)) <= {"pretrained"}:
                with contextlib.suppress(OSError):  # not there
                    if {path.name for path in self.run.pretrained.iterdir()} <= {".locks"}:
                        shutil.rmtree(self.run.pretrained)
                with contextlib.suppress(OSError):  # not empty: then it stays
                    root.rmdir()
            raise


def _named(experiment: Experiment, sweep: bool) -> Experiment:
    """The experiment with the names of its network's layers, where a sweep varies these."""
    if not sweep or PER_LAYER not in experiment.sweep.axes:
        return experiment
    from analogtl.study.network import with_layers_in_full  # which imports torch

    return with_layers_in_full(experiment)
