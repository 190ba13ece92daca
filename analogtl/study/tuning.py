"""Settings that are chosen on validation data before a sweep: [sweep.tune].

Each arm at each level has a choice of its own. Its candidates are trained on blocks that nothing is
tested on, in a run directory of their own, ``runs/NAME/tuning``: a training is a trial, whatever it
is for. What is chosen follows from the records there, so nothing but the records is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from analogtl.config.schema import Experiment
from analogtl.config.section import Level, content_key
from analogtl.config.sweep import Tune
from analogtl.errors import RunError
from analogtl.study.basis import Basis, Look
from analogtl.study.choice import Choice, choose
from analogtl.study.columns import TUNING_COLUMNS, columns_of, epochs_judged
from analogtl.study.run_dir import RunDir, trial_row
from analogtl.study.tables import read_rows, write_rows
from analogtl.study.trial import Trial, check_count, level_key, levels_of, trial_at
from analogtl.vocabulary import Arm, Metric

FOLDER = "tuning"
TABLE = "tuning.csv"
# What says how arrays are trained, and nothing of how they are read: frozen ones do without.
_OF_HIDDEN = ("drive", "granularity_per_token")
_OF_TRAINING = (*_OF_HIDDEN, "compound", "update", "transfer_forward", "transfer_update")

Candidate = dict[str, Level]


class Ended(NamedTuple):
    """What became of a training: its mean validation error over the judged epochs, percent."""

    error: float  # NaN: it failed, or has no validation data
    done: bool
    images: int


@dataclass(frozen=True)
class Contest:
    """The candidates of one arm at one level.

    Attributes:
        candidates: Dotted key -> value, for each candidate.
        trials: The trials of each candidate, by block.
    """

    arm: Arm
    level: Mapping[str, Level]
    candidates: tuple[Candidate, ...]
    trials: tuple[dict[str, Trial], ...]


@dataclass(frozen=True)
class Standing:
    """How far a contest is.

    Attributes:
        wanted: Id of each trial of its rungs so far -> index of its candidate, trial, and number of
            the rung that it came with, from 1.
        choice: The index of the candidate chosen, once all rungs are over.
    """

    wanted: Mapping[str, tuple[int, Trial, int]]
    choice: Choice[int] | None


def rungs(candidates: int, blocks: int, tune: Tune) -> list[tuple[int, int]]:
    """How many candidates, and how many blocks so far, each rung has.

    Successive halving as Karnin, Koren and Somekh, ICML 2013, have it: every rung has the same
    share of the budget, so that the fewer candidates are left, the more blocks tell them apart.

    Args:
        candidates: How many there are.
        blocks: How many there are for each of them.
        tune: Method and budget.
    """
    if candidates == 1:
        return []
    if tune.method == "grid":
        return [(candidates, blocks)]
    budget = tune.budget or max(candidates, candidates * blocks // 2)
    share, left = budget // math.ceil(math.log2(candidates)), budget
    found: list[tuple[int, int]] = []
    done = 0
    while candidates > 1 and done < blocks and left >= candidates:
        new = min(max(1, share // candidates), left // candidates, blocks - done)
        done, left = done + new, left - new * candidates
        found.append((candidates, done))
        candidates = math.ceil(candidates / 2)
    return found


@dataclass(frozen=True)
class Tuning:
    """The choices of an experiment, and where their trainings are.

    Attributes:
        experiment: The experiment that they are for.
        look: How to look at images.
    """

    experiment: Experiment
    run: RunDir
    look: Look

    @classmethod
    def of(cls, experiment: Experiment, run: RunDir, look: Look) -> Tuning | None:
        """The tuning of an experiment that has one, beside its run."""
        if not experiment.sweep.tune.candidates:
            return None
        return cls(experiment, RunDir(run.root, f"{run.name}/{FOLDER}"), look)

    @cached_property
    def own_experiment(self) -> Experiment:
        """The tuning as an experiment: a sweep over the candidates, on its own blocks."""
        data = self.experiment.as_written()
        swept, tune = self.experiment.sweep, self.experiment.sweep.tune
        data["sweep"] = {
            "seeds": tune.seeds,
            "class_sets": tune.class_sets or swept.class_sets,
            "axes": {**swept.axes, **tune.candidates},
        }
        data["run"] = {**data.get("run", {}), "save_model": False}  # of what is thrown away
        return Experiment.model_validate(data)

    @cached_property
    def contests(self) -> tuple[Contest, ...]:
        """The choices to make, those with one candidate alone too.

        Raises:
            ExperimentError: If candidates do not go with a level, or images cannot be found.
        """
        bases: dict[object, Basis] = {}
        found = {}
        own = self.own_experiment.sweep
        check_count(own.seeds, own.class_sets or (None,), self.experiment.arms, *own.axes.values())
        for level in levels_of(self.experiment):
            for arm in self.experiment.arms:
                if arm is Arm.SHUFFLED_GRADIENTS and Arm.ANALOG_TL in self.experiment.arms:
                    continue  # the control of what analog-tl does there
                here = trial_at(self.experiment, arm, level, bases=bases, look=self.look).axes
                key = level_key(arm, here)
                if key not in found:
                    found[key] = self._contest(arm, here, bases)
        return tuple(found.values())

    def _contest(self, arm: Arm, level: Mapping[str, Level], bases: dict[object, Basis]) -> Contest:
        tune, blocks = self.experiment.sweep.tune, self.own_experiment.sweep

        def trial(candidate: Candidate, classes: Any = None) -> Trial:
            where = {**level, **candidate}
            return trial_at(
                self.own_experiment, arm, where, classes=classes, bases=bases, look=self.look
            )

        values = {
            key: values
            for key, values in tune.candidates.items()
            if len({_outcome(trial({key: value})) for value in values}) > 1
        }
        candidates = tuple(
            dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
        )
        trials = []
        for candidate in candidates:
            sets = [trial(candidate, classes) for classes in blocks.class_sets or (None,)]
            own = [replace(one, seed=seed) for seed in blocks.seeds for one in sets]
            trials.append({f"{one.seed} {one.class_set}".rstrip(): one for one in own})
        return Contest(arm, level, candidates, tuple(trials))

    def standing(self, contest: Contest) -> Standing:
        """How far a contest is, by the records of its trials."""
        tune = self.experiment.sweep.tune
        alive = list(range(len(contest.candidates)))
        wanted: dict[str, tuple[int, Trial, int]] = {}
        found: Choice[int] = choose({0: set()}, {})
        blocks = list(contest.trials[0])
        for number, (count, done) in enumerate(rungs(len(alive), len(blocks), tune), 1):
            alive = alive[:count]
            errors: dict[int, dict[str, float]] = {}
            whole = True
            for block, one in itertools.product(blocks[:done], alive):
                trial = contest.trials[one][block]
                wanted.setdefault(trial.id, (one, trial, number))
                end = self.ended(trial)
                whole = whole and end is not None
                if end is not None and end.done:
                    errors.setdefault(one, {})[block] = end.error
            if not whole:
                return Standing(wanted, None)
            tried = {one: set(blocks[:done]) for one in alive}
            found = choose(tried, errors)
            alive = _ranked(tried, errors)
        return Standing(wanted, found)

    def ended(self, trial: Trial) -> Ended | None:
        """What became of a trial; None if it has not ended."""
        record = self.run.record(trial.id)
        if record is None or record.key != trial.key:
            return None
        if not record.done:
            return Ended(math.nan, False, 0)
        rows = read_rows(self.run.trial_path(trial.id) / "epochs.csv")
        mine = [row for row in rows if row["split"] == "validation"]
        mine = mine[-epochs_judged(trial.section.epochs, self.experiment.report.judged_epochs) :]
        if not mine:
            return Ended(math.nan, True, 0)
        balanced = self.experiment.judged_by is Metric.BALANCED_ERROR
        column = "balanced_error" if balanced else "error"
        error = sum(float(row.get(column) or math.nan) for row in mine) / len(mine)
        return Ended(error, True, int(mine[-1].get("n_samples") or 0))

    # -- what to run, and what came out ------------------------------------------------------------

    def parts(self) -> Iterator[list[Trial]]:
        """The trials to run, all so far, a rung at a time; it ends where one was left unfinished.

        What failed in an earlier call is among them once.
        """
        before: set[str] = set()
        while True:
            standings = [self.standing(contest) for contest in self.contests]
            wanted = {id: trial for one in standings for id, (_, trial, _) in one.wanted.items()}
            ends = map(self.ended, wanted.values())
            is_open = any(end is None or not (end.done or before) for end in ends)
            if not is_open or wanted.keys() <= before:
                return
            before = set(wanted)
            yield list(wanted.values())

    def outline(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """Of each choice the number of candidates, and its `rungs`; of those to be made."""
        tune = self.experiment.sweep.tune
        sizes = [(len(one.candidates), len(one.trials[0])) for one in self.contests]
        return [(n, rungs(n, blocks, tune)) for n, blocks in sizes if n > 1]

    @property
    def trainings(self) -> int:
        """How many trainings all choices take."""
        count = 0
        for _, each in self.outline():
            before = 0
            for candidates, blocks in each:
                count += candidates * (blocks - before)
                before = blocks
        return count

    @property
    def is_over(self) -> bool:
        """Whether everything is chosen."""
        return all(self.standing(contest).choice for contest in self.contests)

    @cached_property
    def chosen(self) -> dict[str, Candidate]:
        """`level_key` -> the settings chosen there.

        Raises:
            RunError: If not everything is chosen yet.
        """
        found = {}
        for contest in self.contests:
            choice = self.standing(contest).choice
            if choice is None:
                raise RunError(f"{self.run.path}: not everything is chosen yet; run the sweep")
            found[level_key(contest.arm, contest.level)] = contest.candidates[choice.best]
            if contest.arm is Arm.ANALOG_TL:
                control = level_key(Arm.SHUFFLED_GRADIENTS, contest.level)
                found[control] = contest.candidates[choice.best]
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``tuning.csv``: what became of each candidate on each block so far."""
        rows = []
        for contest in self.contests:
            standing = self.standing(contest)
            for number, trial, rung in standing.wanted.values():
                end = self.ended(trial)
                rows.append(
                    {
                        "experiment": self.experiment.name,
                        "arm": contest.arm,
                        "algorithm": trial_row(trial)["algorithm"],
                        **contest.level,
                        **contest.candidates[number],
                        "seed": trial.seed,
                        "class_set": trial.class_set,
                        "rung": rung,
                        "trial": trial.id,
                        "done": end and end.done,
                        "metric": self.experiment.judged_by,
                        "error_validation": end and end.error,
                        "n_validation": end and end.images,
                        "chosen": standing.choice and standing.choice.best == number,
                    }
                )
        return rows

    def write(self, path: Path) -> None:
        """Write ``tuning.csv`` into the directory of the run."""
        rows = self.rows()
        if rows:
            write_rows(path / TABLE, columns_of(TUNING_COLUMNS, rows), rows)


def _ranked(tried: Mapping[int, Set[str]], errors: Mapping[int, Mapping[str, float]]) -> list[int]:
    """The candidates, the best first: chosen one after the other."""
    left, ranked = dict(tried), []
    while left:
        ranked.append(choose(left, {one: errors[one] for one in errors if one in left}).best)
        del left[ranked[-1]]
    return ranked


def _outcome(trial: Trial) -> str:
    """A hash of what counts for the outcome of a trial.

    Its key counts settings too that its arm or its algorithm does without.
    """
    settings = trial.settings()
    analog = dict(settings.get("analog", {}))
    unused = set() if trial.arm.trains_arrays else {*_OF_TRAINING}
    if not trial.experiment.analog.algorithm.granular:
        unused |= {*_OF_HIDDEN}
    kept = {key: value for key, value in analog.items() if key not in unused}
    return content_key({**settings, "analog": kept})
