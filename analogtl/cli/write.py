"""``analogtl init`` and ``validate``: write an experiment file, and check some."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import completion, options, output
from analogtl.cli.options import argument, option
from analogtl.errors import ExperimentError, counted, did_you_mean, shell_command
from analogtl.files import write_atomically
from analogtl.vocabulary import Algorithm, Backend, Dataset, Network, file_algorithm, file_network

if TYPE_CHECKING:
    from analogtl.study.data import StageData
    from analogtl.study.study import Study


def _tasks() -> dict[str, str]:
    from analogtl.config.starter import TASKS

    return {name: one["title"] for name, one in TASKS.items()}


def init(
    file: Annotated[
        Path, argument("FILE", "The file to write; exp.toml if not given.", parser=options.path)
    ] = Path(completion.DEFAULT_FILE),
    task: Annotated[
        str | None,
        option(
            "--task",
            "TASK",
            "digits, cifar-2, cifar-5 or images (your own).",
            completion.choices(lambda: _tasks().items()),
        ),
    ] = None,
    model: Annotated[
        str | None,
        option(
            "--model",
            "NAME",
            "Network: one of `analogtl list models`, or any timm name; or my_net.py, a network of "
            "your own beside FILE, which is written if it is not there. Default: the task's.",
            completion.choices(lambda: completion.meanings(Network)),
        ),
    ] = None,
    device: Annotated[
        str | None,
        option("--device", "PRESET", "One of `analogtl list presets`.", completion.presets),
    ] = None,
    algorithm: Annotated[
        str | None,
        option(
            "--algorithm",
            "NAME",
            "One of `analogtl list algorithms`; or my_rule.py, a rule of your own beside FILE, "
            "which is written with comments if it is not there.",
            completion.choices(lambda: completion.meanings(Algorithm)),
        ),
    ] = None,
    yes: Annotated[bool, option("--yes -y", None, "Ask nothing; take the defaults.")] = False,
    force: Annotated[bool, option("--force", None, "Overwrite the file if it exists.")] = False,
) -> None:
    """Write an experiment file with comments, ready to run and to edit.

    What no option says is asked for, unless --yes is given or there is nobody to ask.
    """
    if file.exists() and not force:
        raise ExperimentError(
            f"{file}: exists already; --force overwrites it, or name another file"
        )
    from analogtl.config import catalog, starter
    from analogtl.config.network_file import network_template
    from analogtl.config.python_file import text_or_template
    from analogtl.config.rule_file import rule_template

    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        presets = {name: catalog.device_class(name) for name in catalog.presets()}
        task = task or _ask("Task", _tasks(), starter.DEFAULT_TASK)
        if model is None and task in starter.TASKS:
            own = starter.TASKS[task]["model"]["architecture"]
            model = _ask(
                "Network (or any timm name)", dict(completion.meanings(Network)), own, others=True
            )
        device = device or _ask("Device", presets, starter.DEFAULT_DEVICE)
        algorithms = dict(completion.meanings(Algorithm))
        algorithm = algorithm or _ask("Algorithm", algorithms, starter.DEFAULT_ALGORITHM)
    algorithm = algorithm or starter.DEFAULT_ALGORITHM
    rule, network = file_algorithm(algorithm), file_network(model)
    texts, written = {}, []
    for named, template in ((rule, rule_template()), (network, network_template())):
        if named is not None:
            place = file.parent / named.file
            texts[named.file], new = text_or_template(place, template, named)
            written += [(place, texts[named.file])] if new else []
    text = starter.starter(
        task or starter.DEFAULT_TASK,
        model=model,
        device=device or starter.DEFAULT_DEVICE,
        algorithm=str(rule or algorithm),
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")[:100] or "exp",
        file=str(file),
        texts=texts,
    )
    for place, own in written:
        write_atomically(place, own)
        output.say(f"{place} written")
    write_atomically(file, text)
    output.say(f"{file} written")
    default = str(file) == completion.DEFAULT_FILE
    words = [] if default else [output.short(file)]
    output.note(f"next: {shell_command(['analogtl', 'finetune', *words])}")


def _ask(what: str, choices: Mapping[str, str], default: str, *, others: bool = False) -> str:
    """A choice by its number or its name; by any other word too where `others` are welcome."""
    names = list(choices)
    rows = [(str(number), name, choices[name]) for number, name in enumerate(names, 1)]
    output.rows_table((), rows, title=what, right=(0,), styles={2: "dim"})
    while True:
        answer = str(typer.prompt("number or name", default=default)).strip()
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        if answer in choices or (others and answer and not answer.isdigit()):
            return answer
        output.warn(f"{answer}: none of these; {did_you_mean(answer, names)}")


def validate(
    files: Annotated[
        list[str] | None,
        argument(
            "FILE",
            "Experiment files, or names of shipped ones. Without any: exp.toml.",
            completion.experiments,
        ),
    ] = None,
    settings: options.Settings = None,
    backend: options.WhichBackend = Backend.LOCAL,
    need_data: Annotated[
        bool,
        option("--need-data", None, "A data set that is not on this machine is a problem too."),
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Check experiment files, as far as that goes without training anything.

    Every problem is a line: file, line number, key, what is wrong, what was expected. Networks are
    built, the images are counted, and a small array is trained for a step, which takes a few
    seconds. A file with tasks is checked with each of them. A data set that is not here (a login
    node may lack it) is a note; nothing is downloaded. Exit code 2 if there is any problem.
    """
    from analogtl.scheduling.sweep import check_backend
    from analogtl.study.basis import no_look
    from analogtl.study.data import as_data
    from analogtl.study.study import Study

    check_backend(backend)
    told: set[str] = set()
    for file, task in _with_tasks(files or [completion.DEFAULT_FILE]):
        try:
            study = Study.open(file, settings or (), task=task, look=no_look)
            experiment = study.experiment
            section = experiment.sweep
            swept = bool(section.axes or section.lr or section.tune.candidates)
            study = study.swept() if swept else study
            trials = len(study.sketch)
            notes = _preflight(study, file, need_data)
            images = _own_images(study)
        except ExperimentError as error:
            new = [line for line in error.problems if line not in told]  # tasks share most of them
            told.update(new)
            if as_json:
                output.emit({"file": file, "ok": False, "problems": error.problems})
            for line in () if as_json else new:
                output.problem(line)
            continue
        if as_json:
            facts = {"name": experiment.name, "trials": trials, "notes": notes}
            facts["data"] = as_data(images, ["pretrain", "finetune"])
            output.emit({"file": file, "ok": True, **facts})
        elif not quiet:
            for note in (*notes, *(f"{one.stage}: {one}" for one in images)):
                output.note(f"{file}: {note}")
            what = f"{counted(trials, 'trial')}{' in its sweep' if swept else ''}"
            if study.tuning:
                what += f", {counted(study.tuning.trainings, 'training')} to tune it"
            output.say(f"{file}: ok: {experiment.name}, {what}")
    if told:
        raise typer.Exit(2)


def _own_images(study: Study) -> list[StageData]:
    """The images in folders of the user's own, where they are on this machine."""
    with contextlib.suppress(ExperimentError):  # what is wrong was told before
        return [one for one in study.data(at_hand=True) if one.dataset == Dataset.IMAGE_FOLDER]
    return []


def _preflight(study: Study, file: str, need_data: bool) -> list[str]:
    """Check what `finetune` and `sweep` would need; return notes."""
    from analogtl.training.preflight import Need, preflight

    trials = [*replace(study, sweep=False).trials, *study.sketch]
    trials += next(study.tuning.parts(), []) if study.tuning else []
    try:
        return preflight(map(Need.of, trials), need_data=need_data)
    except ExperimentError as error:
        raise ExperimentError(f"{file}: {problem}" for problem in error.problems) from None


def _with_tasks(files: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each file with the task that it chooses (None), and then with each of its other tasks."""
    from analogtl.config.source import tasks_of

    for file in files:
        yield file, None
        with contextlib.suppress(ExperimentError):  # it was told for None
            own, tasks = tasks_of(file)
            yield from ((file, task) for task in tasks if task != own)


COMMANDS: dict[str, Any] = {"init": init, "validate": validate}
