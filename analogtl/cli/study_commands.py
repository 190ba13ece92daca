"""``analogtl pretrain``, ``convert``, ``finetune`` and ``sweep``: the stages of a study."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import completion, options, output
from analogtl.cli.process import stoppable, use_one_thread
from analogtl.errors import ExperimentError, counted, did_you_mean
from analogtl.vocabulary import AXES, Backend, TrialStatus, key_of

if TYPE_CHECKING:
    from analogtl.cli.progress import Watcher
    from analogtl.study.limits import RunLimits
    from analogtl.study.study import Study
    from analogtl.training.stages import ConversionResult

DEFAULT_RUNS = Path("runs")
# Columns of the results that are left out, in this order, until the table fits the terminal.
LEAST_NEEDED = ("wall_s_mean", "weights_changed", "error_transfer", "lr", "error_best", "n")
MAX_FAILURES = 5  # that are told


def open_study(
    exp: str | None,
    settings: Sequence[str] | None,
    task: str | None,
    runs: Path,
    *,
    sweep: bool = False,
    axes: Mapping[str, Sequence[Any]] | None = None,
    tell: bool = True,
) -> Study:
    """Read the experiment that a command is about.

    Args:
        exp: File or name of a shipped experiment; None for exp.toml here, else the quickstart.
        settings: Overrides, ``a.b=c``.
        task: One of the experiment's tasks; None for its own choice.
        runs: Folder of the run directories.
        sweep: Whether the axes and learning rates of [sweep] are run.
        axes: Axes that take the place of the file's: name -> levels.
        tell: Say which experiment was taken where none was given.

    Raises:
        ExperimentError: With one line per problem.
    """
    from analogtl.study.study import Study

    notes: list[str] = []
    if exp is None and Path(completion.DEFAULT_FILE).exists():
        exp = completion.DEFAULT_FILE
        notes.append(f"using {exp} of this folder")
    elif exp is None:
        exp = "quickstart"
        notes.append("using the bundled quickstart; `analogtl init` writes an experiment of yours")
    for note in notes if tell else ():
        output.note(note)
    study = Study.open(exp, settings or (), runs, task=task, sweep=sweep, axes=axes)
    for note in study.notes if tell else ():
        output.note(note)
    return study


def resume_command(
    name: str,
    exp: str | None,
    settings: Sequence[str] | None,
    task: str | None,
    runs: Path,
    jobs: int | None = None,
    more: Sequence[str] = (),
) -> str:
    """The command line that does the same once more, and so goes on with what is left."""
    words = ["analogtl", name, *([exp] if exp else []), *more]
    words += [word for one in settings or () for word in ("--set", one)]
    words += ["--task", task] if task else []
    words += [] if runs == DEFAULT_RUNS else ["--runs", str(runs)]
    return shlex.join(words + ([] if jobs is None else ["--jobs", str(jobs)]))


# -- pretrain and convert --------------------------------------------------------------------------


def pretrain(
    exp: options.Exp = None,
    settings: options.Settings = None,
    task: options.Task = None,
    runs: options.Runs = DEFAULT_RUNS,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train the network digitally on the source task.

    The checkpoint goes to runs/pretrained and is reused by every experiment with the same model,
    data and [pretrain] section: the same network never trains twice. finetune and sweep pretrain by
    themselves where they need to. OMP_NUM_THREADS sets the number of threads; it is 1 otherwise.
    """
    study = open_study(exp, settings, task, runs, tell=not (quiet or as_json))
    if dry_run:
        from analogtl.cli.dry_run import show_stage

        show_stage(study, as_json=as_json)
        return
    use_one_thread()
    from analogtl.cli.progress import watch_pretraining
    from analogtl.study.limits import RunLimits
    from analogtl.training import stages

    epochs = study.experiment.pretrain.epochs
    with study.nothing_left_if_wrong(), stoppable() as stop:
        study.prepare(argv=sys.argv, with_trials=False)
        steps = stages.pretrain(study.experiment, study.run, RunLimits(stop=stop))
        checkpoint = watch_pretraining(steps, epochs, stop, quiet=quiet, as_json=as_json)
    where = checkpoint.path.parent
    if as_json:
        record = {"event": "pretrained", "key": checkpoint.key, "path": str(where)}
        output.emit({**record, "reused": checkpoint.reused, "error": checkpoint.error})
        return
    how = "found trained" if checkpoint.reused else "trained"
    output.say(f"{how}: test error {checkpoint.error:.1f} %, in {output.short(where)}")
    if not quiet:
        output.note(f"next: {resume_command('finetune', exp, settings, task, runs)}")


def convert(
    exp: options.Exp = None,
    settings: options.Settings = None,
    task: options.Task = None,
    runs: options.Runs = DEFAULT_RUNS,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Program the pretrained network onto arrays, and show what was achieved.

    Per layer: the relative error of the programmed weights, the share that the devices' bounds
    clipped, the tiles, and the learning rates and granularity that fine-tuning would use. In all:
    the test error before and after, on the pretraining task. The devices are drawn with the first
    of sweep.seeds.
    """
    study = open_study(exp, settings, task, runs, tell=not (quiet or as_json))
    if dry_run:
        from analogtl.cli.dry_run import show_stage

        show_stage(study, convert=True, as_json=as_json)
        return
    use_one_thread()
    from analogtl.cli.progress import watch_pretraining
    from analogtl.study.limits import RunLimits
    from analogtl.training import stages

    experiment, run = study.experiment, study.run
    # Only a pretraining has something to save when Ctrl-C comes.
    trained = run.find_pretrained(experiment) is not None
    with (
        study.nothing_left_if_wrong(),
        contextlib.nullcontext(bool) if trained else stoppable() as stop,
    ):
        study.prepare(argv=sys.argv, with_trials=False)
        limits = RunLimits(stop=stop)
        steps = stages.convert(experiment, run, seed=experiment.sweep.seeds[0], limits=limits)
        result: ConversionResult = watch_pretraining(
            steps, experiment.pretrain.epochs, stop, quiet=quiet, as_json=as_json
        )
    if as_json:
        for layer in result.layers:
            output.emit({"event": "layer", **layer})
        keys = ("error_digital", "error_analog", "engine", "notes")
        output.emit({"event": "converted", **{key: getattr(result, key) for key in keys}})
        return
    _show_layers(result)
    if not quiet:
        output.note(f"every number: {output.short(run.path / 'convert' / 'layers.csv')}")
        output.note(f"next: {resume_command('finetune', exp, settings, task, runs)}")


def _show_layers(result: ConversionResult) -> None:
    def number(value: Any, text: str, factor: float = 1.0) -> str:
        return "" if value in (None, "") else text.format(factor * float(value))

    headings = ("layer", "shape", "tiles", "error %", "clipped %", "granularity", "fast lr")
    rows = [
        [
            *(str(layer[key]) for key in ("layer", "shape", "tiles")),
            *(number(layer[key], "{:.2f}", 100) for key in ("relative_error", "share_clipped")),
            *(number(layer[key], "{:.4g}") for key in ("granularity", "fast_lr", "transfer_lr")),
        ]
        for layer in result.layers
    ]
    title = "What was programmed"
    output.rows_table((*headings, "transfer lr"), rows, title=title, right=range(2, 8))
    for note in result.notes:
        output.say(note)
    output.say(
        f"test error on the pretraining task: {result.error_digital:.1f} % digital, "
        f"{result.error_analog:.1f} % on the arrays ({result.engine} engine)"
    )


# -- finetune and sweep ----------------------------------------------------------------------------


def finetune(
    exp: options.Exp = None,
    settings: options.Settings = None,
    task: options.Task = None,
    runs: options.Runs = DEFAULT_RUNS,
    jobs: options.Jobs = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    max_hours: options.MaxHours = None,
    skip_failed: options.SkipFailed = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run every arm of an experiment on the target task, for every seed.

    Arms: digital-tl, analog-tl, digital-scratch, analog-scratch, and frozen-array, the control that
    tells whether the arrays learn at all. Pretraining and conversion run where they are needed.
    What is finished is never run again; what was interrupted goes on.
    """
    study = open_study(exp, settings, task, runs, tell=not (quiet or as_json))
    _run(
        study,
        resume_command("finetune", exp, settings, task, runs, jobs),
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        jobs=jobs,
        limits=_limits(checkpoint_minutes, max_hours),
        failed="skip" if skip_failed else "again",
    )


def sweep(
    exp: options.Exp = None,
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
    settings: options.Settings = None,
    task: options.Task = None,
    runs: options.Runs = DEFAULT_RUNS,
    jobs: options.Jobs = None,
    backend: options.WhichBackend = Backend.LOCAL.value,
    backend_options: options.BackendOptions = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    max_hours: options.MaxHours = None,
    skip_failed: options.SkipFailed = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run every arm at every level of one or more axes, for every learning rate and seed.

    All levels run at the first seed before any at the second, so a part of a sweep can already be
    reported. A digital arm, which no device axis touches, runs once per seed. What is finished is
    never run again. With several learning rates the best one at each level is kept, chosen on
    validation data.
    """
    if Backend.named(backend) is None:
        raise ExperimentError(f"--backend {backend}: not known; {did_you_mean(backend, Backend)}")
    more = _backend_options(backend_options or ())
    if more and backend == Backend.LOCAL:
        name = next(iter(more))
        raise ExperimentError(f"--backend-option {name}: local has no options; give --backend too")
    axes = _axes(param or [], values or [])
    tell = not (quiet or as_json)
    study = open_study(exp, settings, task, runs, sweep=True, axes=axes or None, tell=tell)
    if tell and not (study.experiment.sweep.axes or study.experiment.sweep.lr):
        output.note("no axis to sweep: give --param, or [sweep.axes] in the file")
    words = [] if backend == Backend.LOCAL else ["--backend", backend]
    for option, given in (("--backend-option", backend_options), ("--values", values)):
        words += [word for one in given or () for word in (option, one)]
    words = [word for one in param or () for word in ("--param", one)] + words
    _run(
        study,
        resume_command("sweep", exp, settings, task, runs, jobs, words),
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        jobs=jobs,
        backend=backend,
        limits=_limits(checkpoint_minutes, max_hours),
        failed="skip" if skip_failed else "again",
        **more,
    )


def _axes(params: Sequence[str], values: Sequence[str]) -> dict[str, list[Any]]:
    """Axis -> levels, of the command line.

    Raises:
        ExperimentError: If levels are missing, or there are more of them than axes.
    """
    from analogtl.config.load import parse_value

    problems = []
    if len(values) > len(params):
        example = f"--param wtn --values {values[0]}"
        problems.append(f"--values {values[0]}: levels of what? Give an axis too: {example}")
    if 0 < len(values) < len(params):
        problems.append(
            f"--values: expected one for each of the {len(params)} --param, or none at all"
        )
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
        name, equals, raw = option.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ExperimentError(
                f"--backend-option {option}: expected NAME=VALUE, e.g. address=auto"
            )
        parsed[name.strip()] = parse_value(raw.strip())
    return parsed


def _limits(checkpoint_minutes: float, max_hours: float | None) -> RunLimits:
    from analogtl.study.limits import RunLimits

    deadline = None if max_hours is None else time.time() + 3600 * max_hours
    return RunLimits(checkpoint_minutes=checkpoint_minutes, deadline=deadline)


def _run(
    study: Study, command: str, *, dry_run: bool, quiet: bool, as_json: bool, **how: Any
) -> None:
    """Run the trials of a study, show them meanwhile, and print the results.

    Args:
        study: The study.
        command: The command line that goes on with it.
        dry_run: Only say what would run.
        quiet: Print results and errors only.
        as_json: Print JSON.
        how: Arguments of `run_trials`.

    Raises:
        typer.Exit: With code 1 if a trial failed.
    """
    if dry_run:
        from analogtl.cli.dry_run import show_trials

        show_trials(study, jobs=how["jobs"] or 1, as_json=as_json)
        return
    from analogtl.cli.progress import watch, watcher_of
    from analogtl.scheduling.sweep import run_trials

    with study.nothing_left_if_wrong():
        if not (quiet or as_json):
            _announce(study, how["jobs"] or 1)
        study.prepare(argv=sys.argv)
        name = study.experiment.name
        watcher = watcher_of(name, study.trials, quiet=quiet, as_json=as_json)
        watch(run_trials(study, **how), watcher, command)
    if as_json:
        statuses = (TrialStatus.DONE, TrialStatus.FAILED, TrialStatus.STOPPED)
        counts = {status.value: watcher.count(status) for status in statuses}
        record = {"event": "summary", "run": str(study.run.path), "trials": len(study.trials)}
        output.emit({**record, **counts, "results": [dict(row) for row in watcher.rows.values()]})
    else:
        _sum_up(study, watcher, command, quiet=quiet)
    if watcher.count(TrialStatus.FAILED):
        raise typer.Exit(1)


def _announce(study: Study, jobs: int) -> None:
    """Say what will run, and what will not fit, before it runs."""
    from analogtl.scheduling.plan import plan, shortages

    planned = plan(study)
    if planned.left and (study.sweep or planned.finished):
        output.note(f"{len(planned.left)} of {len(planned.trials)} trials to run")
    for line in (*planned.notes, *shortages(planned.left, study.run, jobs=jobs)):
        output.warn(line)
    if planned.changed:
        output.warn(
            f"{counted(len(planned.changed), 'trial')} finished with other settings, to be run "
            f"anew; the earlier results go to {study.run.path / 'replaced'}/; to keep both, "
            "Ctrl-C and add --set name=ANOTHER"
        )


def _sum_up(study: Study, watcher: Watcher, command: str, *, quiet: bool) -> None:
    from analogtl.doctor import looks_like_mismatch

    run = study.run
    if watcher.count(TrialStatus.DONE):
        _show_results(study)
    failed = [id for id, status in watcher.status.items() if status is TrialStatus.FAILED]
    for trial in failed[:MAX_FAILURES]:
        output.problem(f"{trial}: failed: {watcher.messages[trial]}")
    if len(failed) > MAX_FAILURES:
        more = len(failed) - MAX_FAILURES
        output.problem(f"and {more} more failed; `analogtl runs show {run.name}` lists them")
    if any(looks_like_mismatch(watcher.messages[trial]) for trial in failed):
        output.problem("torch and aihwkit do not fit together: `analogtl doctor` says what to do")
    if quiet:
        return
    left = watcher.count(TrialStatus.MISSING, TrialStatus.STOPPED)
    if left or failed:
        what = f"{counted(left, 'trial')} left; go on" if left else "run what failed again"
        output.note(f"{what} with: {command}")
    if watcher.count(TrialStatus.DONE):
        output.note(f"next: analogtl report {shlex.quote(output.short(run.path))}")


def _show_results(study: Study) -> None:
    """Mean and spread of the test error per arm and level, at the learning rate kept."""
    from analogtl.analysis import summaries
    from analogtl.analysis.select_lr import select_learning_rate
    from analogtl.report import run_tables
    from analogtl.study.columns import TRIAL_COLUMNS
    from analogtl.study.tables import read_trials

    frame = read_trials(study.run.path)
    frame = frame[frame["trial"].isin([trial.id for trial in study.trials])]
    # Axes of other sweeps in this directory have no level here.
    fixed = set(TRIAL_COLUMNS)
    frame = frame[[c for c in frame.columns if c in fixed or frame[c].notna().any()]]
    chosen = select_learning_rate(frame)
    several = bool((chosen.choices["n_lrs"] > 1).any())
    levels = summaries.levels(chosen.rows)
    name = study.experiment.name
    table = run_tables.outcomes_table(levels, experiment=name, several_rates=several)
    output.show_table(table, drop=LEAST_NEEDED)


COMMANDS: dict[str, Any] = {
    "pretrain": pretrain,
    "convert": convert,
    "finetune": finetune,
    "sweep": sweep,
}
