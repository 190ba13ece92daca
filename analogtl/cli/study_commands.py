"""``analogtl pretrain``, ``convert``, ``finetune`` and ``sweep``: the stages of a study."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import completion, options, output
from analogtl.cli.layer_settings import layer_settings, own_settings, written
from analogtl.cli.process import stoppable
from analogtl.errors import ExperimentError, counted, shell_command
from analogtl.study.choice import CHOSEN
from analogtl.vocabulary import AXES, Arm, Backend, Metric, TrialStatus, arm_label, key_of

if TYPE_CHECKING:
    from analogtl.config.schema import Experiment
    from analogtl.scheduling.progress import Watcher
    from analogtl.study.data import StageData
    from analogtl.study.limits import RunLimits
    from analogtl.study.study import Study
    from analogtl.study.tuning import Tuning
    from analogtl.training.stages import ConversionResult

MAX_FAILURES = 5  # that are told


@dataclass(frozen=True)
class Request:
    """The options that every command about an experiment has."""

    exp: options.Exp = None
    settings: options.Settings = None
    task: options.Task = None
    runs: options.Runs = Path("runs")
    dry_run: options.DryRun = False
    quiet: options.Quiet = False
    as_json: options.Json = False
    device: options.WhichDevice = None

    @property
    def tells(self) -> bool:
        """Whether to print hints beside the results."""
        return not (self.quiet or self.as_json)

    def open(self, *, run: Mapping[str, Any] | None = None, **more: Any) -> Study:
        """Read the experiment: EXP, else exp.toml here, else the bundled quickstart.

        Args:
            run: Keys of [run] in place of the experiment's; those that are not set stay.
            more: Arguments of `Study.open`.

        Raises:
            ExperimentError: With one line per problem.
        """
        from analogtl.study.basis import fingerprint_at_hand, fingerprint_of
        from analogtl.study.study import Study

        # A dry run downloads nothing.
        more["look"] = fingerprint_at_hand if self.dry_run else fingerprint_of
        name = self.exp
        if name is None:
            name, said = "quickstart", "the bundled quickstart; `analogtl init` writes your own"
            if os.path.lexists(completion.DEFAULT_FILE):  # a link that leads nowhere is a mistake
                name = said = completion.DEFAULT_FILE
            if self.tells:
                output.note(f"using {said}")
        settings = [*(self.settings or ())]
        settings += [f"run.device={self.device}"] if self.device else []
        settings += [f"run.{key}={str(one).lower()}" for key, one in (run or {}).items() if one]
        study = Study.open(name, settings, self.runs, task=self.task, **more)
        for note in study.notes if self.tells else ():
            output.note(note)
        return study


def requested(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command that takes a `Request` have each of its options on the command line."""
    _request, *own = inspect.signature(command, eval_str=True).parameters.values()
    exp, *common = list(inspect.signature(Request, eval_str=True).parameters.values())

    @wraps(command)
    def wrapped(**given: Any) -> None:
        request = Request(**{one.name: given.pop(one.name) for one in (exp, *common)})
        command(request, **given)

    parameters = [exp, *own, *common]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapped


# -- pretrain and convert --------------------------------------------------------------------------


@requested
def pretrain(request: Request) -> None:
    """Train the network digitally on the source task.

    The checkpoint goes to runs/pretrained and is reused by every experiment with the same model,
    data and [pretrain] section: the same network never trains twice. finetune and sweep pretrain by
    themselves where they need to. On the CPU it computes with one thread: OMP_NUM_THREADS
    changes nothing.
    """
    study = request.open()
    if request.dry_run:
        from analogtl.cli.dry_run import show_stage

        show_stage(study, convert=False, as_json=request.as_json)
        return
    from analogtl.training import stages

    checkpoint = _stage(request, study, stages.pretrain, on_arrays=False)
    where, metric = checkpoint.path.parent, study.experiment.metric
    if request.as_json:
        record = {"event": "pretrained", "key": checkpoint.key, "path": str(where)}
        outcome = {"reused": checkpoint.reused, "error": checkpoint.error, "metric": metric}
        output.emit({**record, **outcome})
        return
    how = "found trained" if checkpoint.reused else "trained"
    said = f"{metric.label} {metric.text(checkpoint.error)}"
    output.say(f"{how}: {said}, in {output.short(where)}")
    if request.tells:
        output.note(f"next: {_typed('finetune')}")


@requested
def convert(request: Request) -> None:
    """Program the pretrained network onto arrays, and show what was achieved.

    Per layer: the relative error of the programmed weights, the share that the devices' bounds
    clipped, the tiles, and the learning rates and granularity that fine-tuning would use. In all:
    the test error before and after, on the pretraining task. The devices are drawn with the first
    of sweep.seeds.
    """
    study = request.open()
    if request.dry_run:
        from analogtl.cli.dry_run import show_stage

        show_stage(study, convert=True, as_json=request.as_json)
        return
    from analogtl.training import stages

    seed = study.experiment.sweep.seeds[0]
    stage = partial(stages.convert, seed=seed)
    result: ConversionResult = _stage(request, study, stage, on_arrays=True)
    if request.as_json:
        for layer in result.layers:
            output.emit({"event": "layer", **layer})
        for part in result.survey.digital:
            output.emit({"event": "digital", **asdict(part)})
        keys = ("error_digital", "error_analog", "engine", "notes")
        record = {key: getattr(result, key) for key in keys}
        share = {"share_on_arrays": result.survey.share_on_arrays}
        output.emit({"event": "converted", **record, **share})
        return
    _show_layers(result, study.experiment.metric)
    if study.experiment.has_adapters:
        _show_adapters(study.experiment)
    if request.tells:
        output.note(f"every number: {output.short(study.run.path / 'convert' / 'layers.csv')}")
        output.note(f"next: {_typed('finetune')}")


def _stage(request: Request, study: Study, stage: Callable[..., Any], *, on_arrays: bool) -> Any:
    """Run a stage that begins with the pretraining, and show that; return its result."""
    from analogtl.cli.progress import watch_pretraining
    from analogtl.study.device import check_device, device_of
    from analogtl.study.limits import RunLimits
    from analogtl.training.preflight import Need, preflight

    check_device(device_of(study.experiment, "pretrain"))
    preflight([Need(study.experiment, ("pretrain",), on_arrays)])

    # Only a pretraining has something to save when Ctrl-C comes.
    trained = study.run.find_pretrained(study.pretrain_key) is not None
    stopping = contextlib.nullcontext(bool) if trained else stoppable()
    at_work = study.at_work(argv=sys.argv, with_trials=False)
    with study.nothing_left_if_wrong(), at_work as data, stopping as stop:
        _tell_data(request, data)
        steps = stage(study.experiment, study.run, limits=RunLimits(stop=stop))
        how: dict[str, Any] = {"quiet": request.quiet, "as_json": request.as_json}
        how["metric"] = study.experiment.metric
        return watch_pretraining(steps, study.experiment.pretrain.epochs, stop, **how)


def _tell_data(request: Request, found: Iterable[StageData]) -> None:
    """Say how many images each stage uses, and warn of files that none uses."""
    for one in found if request.tells else ():
        (output.warn if one.left_out else output.note)(f"{one.stage}: {one}")


def _show_layers(result: ConversionResult, metric: Metric) -> None:
    known = result.outputs_kept is not None
    causes = ("all", "programming", "noise", "resolution", "bounds") if known else ()
    rows = [
        [
            *(str(layer[key]) for key in ("layer", "shape", "tiles")),
            *(written(layer[key], "{:.2f}", 100) for key in ("relative_error", "share_clipped")),
            *(written(layer.get(f"kept_{cause}"), "{:.2f}") for cause in causes),
        ]
        for layer in result.layers
    ]
    programmed = ("layer", "shape", "tiles", "error %", "clipped %", "outputs", *causes[1:])
    title = (
        "What was programmed, and how its outputs correlate with the digital ones: all in all, by"
    )
    output.rows_table(programmed, rows, title=f"{title} each cause alone", right=range(2, 10))
    headings, rows = layer_settings(result.layers)
    title = f"How it is to be trained, and what follows{own_settings(result.layers)}"
    output.rows_table(headings, rows, title=title, right=range(1, len(headings) - 1))
    if result.survey.digital:
        shares = [
            (part.name, part.kind, f"{100 * part.share:.2f}", part.reason)
            for part in result.survey.digital
        ]
        output.rows_table(
            ("part", "kind", "weights %", "why"), shares, title="What stays digital", right=(2,)
        )
    for note in result.notes:
        output.warn(note)
    output.say(f"on arrays: {100 * result.survey.share_on_arrays:.4g} % of the network's weights")
    if warning := result.survey.warning():
        output.warn(warning)
    if known:
        output.say(f"outputs of the network: correlation {result.outputs_kept:.2f} with digital")
    output.say(
        f"{metric.label} on the pretraining task: {metric.text(result.error_digital)} digital, "
        f"{metric.text(result.error_analog)} on the arrays ({result.engine} engine)"
    )


def _show_adapters(experiment: Experiment) -> None:
    from analogtl.training.preflight import planned_adapters, planned_layers

    output.say(f"adapters: {planned_adapters(experiment)}")
    if Arm.LORA_ANALOG in experiment.arms:
        headings, rows = layer_settings(planned_layers(experiment, Arm.LORA_ANALOG)[1])
        title = f"How what {Arm.LORA_ANALOG} trains is to be trained, and what follows"
        output.rows_table(headings, rows, title=title, right=range(1, len(headings) - 1))


# -- finetune and sweep ----------------------------------------------------------------------------


@requested
def finetune(
    request: Request,
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    save_model: options.SaveModel = False,
    save_pulses: options.SavePulses = False,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    max_hours: options.MaxHours = None,
    skip_failed: options.SkipFailed = False,
) -> None:
    """Run every arm of an experiment on the target task, for every seed.

    Arms: digital-tl, analog-tl, digital-scratch, analog-scratch, lora-digital and lora-analog, and
    the controls that tell whether the arrays learn at all, frozen-array and shuffled-gradients.
    Pretraining and conversion run where they are needed. What is finished is never run again; what
    was interrupted goes on.
    """
    limits = _limits(checkpoint_minutes, max_hours)
    run = {"threads": threads, "save_model": save_model, "save_pulses": save_pulses}
    study = request.open(run=run)
    _run(request, study, skip_failed, jobs=jobs, limits=limits)


@requested
def sweep(
    request: Request,
    param: Annotated[
        list[str] | None,
        options.option(
            "--param -p",
            "AXIS",
            "Axis to sweep in place of the file's: wtn, sps, spv, n_states, ... (`analogtl list "
            "axes`) or any dotted key; repeat it for a grid.",
            completion.axes,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        options.option(
            "--values",
            "A,B,C",
            "Levels of the axis; give it once per --param, in the same order. Default: the axis's "
            "own levels.",
        ),
    ] = None,
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    save_model: options.SaveModel = False,
    save_pulses: options.SavePulses = False,
    backend: options.WhichBackend = Backend.LOCAL,
    backend_options: options.BackendOptions = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    max_hours: options.MaxHours = None,
    skip_failed: options.SkipFailed = False,
) -> None:
    """Run every arm at every level of one or more axes, for every learning rate and seed.

    All levels run at the first seed before any at the second, so a part of a sweep can already be
    reported. A digital arm, which no device axis touches, runs once per seed. What is finished is
    never run again. With several learning rates the best one at each level is kept, chosen on
    validation data.
    """
    more = _backend_options(backend_options or ())
    if more and backend == Backend.LOCAL:
        name = next(iter(more))
        raise ExperimentError(f"--backend-option {name}: local has no options; give --backend too")
    axes = _axes(param or [], values or []) or None
    run = {"threads": threads, "save_model": save_model, "save_pulses": save_pulses}
    study = request.open(run=run, sweep=True, axes=axes)
    swept = study.experiment.sweep
    if request.tells and not (swept.axes or swept.lr or swept.tune.candidates):
        output.note("no axis to sweep: give --param, or [sweep.axes] in the file")
    more |= {"jobs": jobs, "backend": backend, "limits": _limits(checkpoint_minutes, max_hours)}
    _run(request, study, skip_failed, **more)


def _typed(name: str) -> str:
    """The command line that was typed, for the command of this name."""
    return shell_command(["analogtl", name, *sys.argv[2:]])


def _axes(params: Sequence[str], values: Sequence[str]) -> dict[str, list[Any]]:
    """Axis -> levels, of the command line."""
    from analogtl.config.load import parse_value

    problems = []
    if len(values) not in (0, len(params)):
        expected = f"expected one for each of the {len(params)} --param, or none at all"
        problems.append(f"--values {values[0]}: {expected}")
    keys = list(map(key_of, params))
    twice = [name for name in params if keys.count(key_of(name)) > 1]
    problems += [f"--param {twice[0]}: given more than once"] if twice else []
    axes: dict[str, list[Any]] = {}
    for place, name in enumerate(params):
        if place < len(values):
            if not all(map(str.strip, values[place].split(","))):
                problems.append(f"--values {values[place]}: a level is missing between commas")
                continue
            levels = parse_value(values[place], tuple[Any, ...])
            axes[name] = levels if isinstance(levels, list) else [levels]
        elif name in AXES:
            axes[name] = list(AXES[name].levels)
        elif "." in name and not values:
            problems.append(f"--param {name}: no default levels; give some, e.g. --values 1,2,5")
        else:
            axes[name] = [0]  # the schema says what is wrong with the name
    if problems:
        raise ExperimentError(problems)
    return axes


def _backend_options(given: Sequence[str]) -> dict[str, Any]:
    from analogtl.config.load import parse_value

    parsed = {}
    for option in given:
        name, equals, raw = map(str.strip, option.partition("="))
        if not equals or not name.isidentifier():
            expected = "expected NAME=VALUE, e.g. address=auto"
            raise ExperimentError(f"--backend-option {option}: {expected}")
        parsed[name] = parse_value(raw)
    return parsed


def _limits(checkpoint_minutes: float, max_hours: float | None) -> RunLimits:
    from analogtl.study.limits import RunLimits

    deadline = None if max_hours is None else time.time() + 3600 * max_hours
    return RunLimits(checkpoint_minutes=checkpoint_minutes, deadline=deadline)


def _run(request: Request, study: Study, skip_failed: bool, **how: Any) -> None:
    """Run the trials of a study as `run_trials` does, show them meanwhile; print the results."""
    from analogtl.scheduling.sweep import needs_of, run_trials
    from analogtl.study.device import arrays_stay

    jobs, quiet, as_json = how["jobs"] or 1, request.quiet, request.as_json
    if request.tells and (line := arrays_stay(study.experiment, study.experiment.arms)):
        output.note(line)
    if request.dry_run:
        from analogtl.cli.dry_run import show_trials

        needs_of(study, how.get("backend", Backend.LOCAL), jobs)
        kept = {name: value for name, value in how.items() if name not in ("jobs", "limits")}
        show_trials(study, jobs=jobs, as_json=as_json, **kept)
        return
    from analogtl.cli.progress import TerminalWatcher, watch

    command = shell_command(["analogtl", *sys.argv[1:]])
    with study.nothing_left_if_wrong():
        for phase in study.phases():
            needs_of(phase, how.get("backend", Backend.LOCAL), jobs)  # before anything is written
            if phase is study and study.tuning and request.tells:
                _tell_chosen(study.tuning)
            _announce(phase, jobs, tells=request.tells)
            _tell_data(request, phase.data())
            how_shown = {"quiet": quiet, "as_json": as_json}
            watcher = TerminalWatcher.of(phase.run.name, phase.trials, **how_shown)
            updates = run_trials(phase, skip_failed=skip_failed, argv=sys.argv, **how)
            watch(updates, watcher, command)
    if phase is not study:
        left = watcher.count(TrialStatus.MISSING, TrialStatus.STOPPED)
        output.warn(f"{counted(left, 'training')} left before all is chosen; go on with: {command}")
        return
    if as_json:
        statuses = (TrialStatus.DONE, TrialStatus.FAILED, TrialStatus.STOPPED)
        counts = {status.value: watcher.count(status) for status in statuses}
        record = {"event": "summary", "run": str(study.run.path), "trials": len(study.trials)}
        output.emit({**record, **counts, "results": [dict(row) for row in watcher.rows.values()]})
    else:
        _sum_up(study, watcher, command, quiet=quiet)
    if watcher.count(TrialStatus.FAILED):
        raise typer.Exit(1)


def _tell_chosen(tuning: Tuning) -> None:
    """Say what was chosen for each arm at each level."""
    for contest in tuning.contests:
        choice = tuning.standing(contest).choice
        if choice is None or len(contest.candidates) < 2:
            continue
        level = ", ".join(f"{name} = {value}" for name, value in contest.level.items())
        values = ", ".join(f"{k} = {v}" for k, v in contest.candidates[choice.best].items())
        where = arm_label(contest.arm) + (f" at {level}" if level else "")
        error = choice.means.get(choice.best, math.nan)
        error_text = tuning.experiment.judged_by.text(error)
        told = f", validation error {error_text}" if choice.how == CHOSEN else f" ({choice.how})"
        output.note(f"chosen for {where}: {values}{told}")


def _announce(study: Study, jobs: int, *, tells: bool) -> None:
    """Say what will run, and always what will not fit or be run anew, before it runs."""
    from analogtl.scheduling.plan import plan, shortages

    planned = plan(study)
    if tells and planned.left and (study.sweep or planned.finished):
        output.note(f"{len(planned.left)} of {len(planned.trials)} trials to run")
    for line in (*planned.notes, *shortages(planned.left, study.run, jobs=jobs)):
        output.warn(line)
    for what, number in Counter(planned.changed.values()).items():
        output.warn(
            f"{counted(number, 'trial')} finished with {what}, to be run anew; the earlier "
            f"results go to {study.run.path / 'replaced'}/; to keep both, Ctrl-C and add "
            "--set name=ANOTHER"
        )


def _sum_up(study: Study, watcher: Watcher, command: str, *, quiet: bool) -> None:
    from analogtl.doctor import is_mismatch

    run = study.run
    if watcher.count(TrialStatus.DONE):
        _show_results(study)
    failed = [id for id, status in watcher.status.items() if status is TrialStatus.FAILED]
    for trial in failed[:MAX_FAILURES]:
        output.problem(f"{trial}: failed: {watcher.messages[trial]}")
    if len(failed) > MAX_FAILURES:
        more = len(failed) - MAX_FAILURES
        output.problem(f"and {more} more failed; `analogtl runs show {run.name}` lists them")
    if any(is_mismatch(watcher.messages[trial]) for trial in failed):
        output.problem("torch and aihwkit do not fit together: `analogtl doctor` says what to do")
    if quiet:
        return
    left = watcher.count(TrialStatus.MISSING, TrialStatus.STOPPED)
    if left or failed:
        what = f"{counted(left, 'trial')} left; go on" if left else "run what failed again"
        output.note(f"{what} with: {command}")
    if watcher.count(TrialStatus.DONE):
        output.note(f"next: analogtl report {shell_command([output.short(run.path)])}")


def _show_results(study: Study) -> None:
    """Mean and spread of the test error per arm and level, at the learning rate kept."""
    from analogtl.analysis import summaries
    from analogtl.analysis.curves import metric_in
    from analogtl.analysis.judged import epochs_text, with_balanced, with_judged
    from analogtl.analysis.select_lr import select_learning_rate
    from analogtl.analysis.tuning import untuned_axes
    from analogtl.report import run_tables
    from analogtl.study.columns import TRIAL_COLUMNS
    from analogtl.study.tables import read_table

    frame = read_table(study.run.path / "trials.csv")
    frame = frame[frame["key"].isin([trial.key for trial in study.trials])]
    # Axes of other sweeps in this directory have no level here.
    fixed = set(TRIAL_COLUMNS)
    frame = frame[[c for c in frame.columns if c in fixed or frame[c].notna().any()]]
    epochs = read_table(study.run.path / "epochs.csv")
    epochs = epochs[epochs["stage"].eq("finetune") & epochs["trial"].isin(frame["trial"])]
    if study.experiment.judged_by is Metric.BALANCED_ERROR:
        judging = epochs[epochs["split"].isin(("validation", "test"))]
        frame, lacking = with_balanced(frame, judging)
        if lacking:
            output.warn(lacking)
        else:
            epochs = epochs.assign(error=epochs["balanced_error"])
    chosen = select_learning_rate(frame)
    several = bool((chosen.choices["n_lrs"] > 1).any())
    mine = epochs["split"].eq("test") & epochs["trial"].isin(chosen.rows["trial"])
    rows, _ = with_judged(chosen.rows, epochs[mine], study.experiment.report.judged_epochs)
    table = run_tables.outcomes_table(
        summaries.levels(rows),
        judged=epochs_text(rows),
        several_rates=several,
        untuned=untuned_axes(rows),
        metric=metric_in(rows),
    )
    output.show_table(replace(table, experiment=study.experiment.name))


COMMANDS: dict[str, Any] = {
    "pretrain": pretrain,
    "convert": convert,
    "finetune": finetune,
    "sweep": sweep,
}
