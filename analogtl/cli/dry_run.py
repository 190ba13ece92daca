"""``--dry-run``: the resolved experiment, and what would run; as TOML that can be run itself."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analogtl.cli import output
from analogtl.cli.layer_settings import layer_settings, own_settings
from analogtl.config.per_layer import NONE
from analogtl.errors import counted
from analogtl.study.data import as_data
from analogtl.vocabulary import Arm, Backend

if TYPE_CHECKING:
    from analogtl.config.schema import Experiment
    from analogtl.crossbar.survey import Survey
    from analogtl.scheduling.plan import Plan
    from analogtl.study.data import StageData
    from analogtl.study.study import Study
    from analogtl.study.tuning import Tuning
    from analogtl.training.preflight import Need, Preflight


def show_stage(study: Study, *, convert: bool, as_json: bool = False) -> None:
    """What `pretrain` or `convert` would do.

    Raises:
        ExperimentError: If it would fail at once.
    """
    from analogtl.study.device import check_device, device_of
    from analogtl.training.preflight import Need, Preflight

    check_device(device_of(study.experiment, "pretrain"))
    checks = Preflight(need_data=False)
    need = Need(study.experiment, ("pretrain",), convert)
    checks.check([need])
    found = study.run.find_pretrained(study.pretrain_key)
    run = f"run: {study.experiment.pretrain.epochs} epochs"
    facts = {"pretrain": f"reuse {output.short(found)}" if found else run}
    if convert:
        facts["convert"] = "run: the pretrained model, programmed onto arrays"
        facts |= _layers(*checks.layers(need)) | _adapters(study.experiment)
        for line in _forebodings(checks, [need]):
            output.warn(line)
    images = study.data(with_trials=False, at_hand=True)
    data = {"data": as_data(images, ["pretrain"])}
    _print(study, _images(images) | facts, facts | data, as_json=as_json)
    for line in () if as_json else checks.notes:
        output.warn(line)


def show_trials(
    study: Study,
    *,
    jobs: int = 1,
    as_json: bool = False,
    backend: str = Backend.LOCAL,
    **options: Any,
) -> None:
    """What `finetune` or `sweep` would do.

    Raises:
        ExperimentError: If it would fail at once.
    """
    from analogtl.scheduling.plan import plan, shortages
    from analogtl.scheduling.sweep import check_backend
    from analogtl.training.preflight import Need, Preflight

    check_backend(backend, jobs, options)
    tuning = study.tuning
    to_tune = tuning is not None and not tuning.is_over
    first = study.tuned_by(next(tuning.parts())) if tuning and to_tune else study
    planned = plan(first)
    checks = Preflight(need_data=False)
    checks.check(map(Need.of, planned.left))
    pretrain = f"{planned.pretrain}: {planned.reason}"
    found = first.data(at_hand=True)
    facts = {**_images(found), "pretrain": pretrain}
    if tuning:
        facts["tuning"] = _tuning(tuning, planned if to_tune else None)
    facts["trials"] = _counted(study, None if to_tune else planned)
    trained = [one for one in study.sketch if one.arm.trains_arrays and one.arm.pretrained]
    # Of layers with settings of their own, one such level tells more than that without any.
    trained.sort(key=lambda one: one.experiment.per_layer.layer == NONE)
    for _, one in sorted({one.arm.has_adapters: one for one in reversed(trained)}.items()):
        facts |= _layers(*checks.layers(Need.of(one)), one.arm, one.axes)
    for line in _forebodings(checks, map(Need.of, trained)):
        output.warn(line)
    facts |= _adapters(study.experiment)
    record = {
        "data": as_data(found, ["pretrain", "finetune"]),
        "pretrain": pretrain,
        "trials": [trial.id for trial in planned.trials],
        "finished": sorted(planned.finished),
        "failed": planned.failed,
    }
    if tuning:
        record |= {"tuning": {"trainings": tuning.trainings, "over": not to_tune}}
        record |= {"trials": [trial.id for trial in study.sketch]} if to_tune else {}
    _print(study, facts, record, as_json=as_json)
    lacking = shortages(planned.left, first.run, jobs=jobs)
    for line in () if as_json else (*checks.notes, *planned.notes, *lacking):
        output.warn(line)


def _adapters(experiment: Experiment) -> dict[str, str]:
    from analogtl.training.preflight import planned_adapters

    return {"adapters": planned_adapters(experiment)} if experiment.has_adapters else {}


def _forebodings(checks: Preflight, needs: Iterable[Need]) -> list[str]:
    """What bodes ill for the planned trainings; what not all levels have names some."""
    from analogtl.crossbar.defaults import warnings
    from analogtl.study.network import variant_of
    from analogtl.training.preflight import at_levels

    found: dict[str, list[str]] = {}
    each = {(id(need.experiment), need.adapters): need for need in needs}
    for need in each.values():
        own = variant_of(need.experiment)
        analog = [need.experiment.analog, *([own.analog] if own else [])]
        for line in warnings(analog, checks.layers(need)[1]):
            found.setdefault(line, []).append(need.level)
    every = {need.level for need in each.values()}
    return [at_levels(line, levels, every) for line, levels in found.items()]


def _layers(
    surveyed: Survey,
    layers: Sequence[Mapping[str, Any]],
    arm: Arm = Arm.ANALOG_TL,
    level: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """What an arm has on arrays, and how they are to be trained; of a sweep, at its first level."""
    of_arm = f" ({arm})" if arm.has_adapters else ""
    facts = {f"on arrays{of_arm}": str(surveyed)}
    if not layers:
        return facts
    headings, rows = layer_settings(layers)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (headings, *rows)
    ]
    where = "".join(f", {name} = {value}" for name, value in (level or {}).items())
    where += own_settings(layers)
    return facts | {
        f"arrays{of_arm}": "\n#   ".join([f"as they are to be trained{where}:", *lines])
    }


def _images(found: Sequence[StageData]) -> dict[str, str]:
    """What each stage sees, where it varies everything that some trial sees."""
    seen: dict[str, list[str]] = {}
    for one in found:
        seen.setdefault(f"{one.stage} on", []).append(str(one))
    return {name: "; ".join(dict.fromkeys(lines)) for name, lines in seen.items()}


def _print(
    study: Study, facts: Mapping[str, str], record: Mapping[str, Any], *, as_json: bool
) -> None:
    experiment, run = study.experiment, output.short(study.run.path)
    assert study.file is not None  # of a command line
    file = output.short(study.file)
    if as_json:
        more = {"file": file, "run": run, **record, "experiment": experiment.resolved()}
        output.emit({"event": "dry-run", **more})
        return
    for name, fact in {"experiment": file, "run directory": run, **facts}.items():
        output.say(f"# {name:<13}  {fact}")
    output.say("#\n# The resolved experiment, every default filled in:")
    if "analog.algorithm" in experiment.sweep.axes:
        output.say("# ([analog] as it is written: its defaults differ from algorithm to algorithm)")
    output.say(output.toml(_runnable(experiment)).rstrip())


def _tuning(tuning: Tuning, planned: Plan | None) -> str:
    """How many choices there are to be made, from how many trainings; of those, what is left."""
    outline = tuning.outline()
    sizes = sorted({candidates for candidates, _ in outline})
    of = f" of {' or '.join(map(str, sizes))} candidates" if sizes else ""
    text = f"{counted(len(outline), 'choice')}{of}: {counted(tuning.trainings, 'training')}"
    if planned is None:
        return f"{text}, done"
    left = tuning.trainings - len(planned.finished)
    return f"{text}, {left} to run" if planned.finished else text


def _counted(study: Study, planned: Plan | None) -> str:
    """How many trials there are, of what, and how many are left; without a plan, of those to be."""
    trials = study.sketch
    counts = {"arm": len({trial.arm for trial in trials})}
    swept = study.experiment.sweep
    if study.sweep:
        counts |= {f"{name} level": len(levels) for name, levels in swept.axes.items()}
        counts |= {"learning rate": len(swept.lr)} if swept.lr else {}
    counts |= {"class set": len(swept.class_sets)} if swept.class_sets else {}
    counts["seed"] = len(swept.seeds)
    factors = [f"{number} {what}{'s' if number > 1 else ''}" for what, number in counts.items()]
    text = f"{len(trials)}: {' x '.join(factors)}"
    if planned is None:
        return f"{text}; with what is chosen"
    states = (
        (len(planned.finished), "finished"),
        (len(planned.failed), "failed before"),
        (len(planned.begun), "go on from a checkpoint"),
        *(
            (number, f"finished with {what}, to be run anew")
            for what, number in Counter(planned.changed.values()).items()
        ),
    )
    parts = [f"{number} {what}" for number, what in states if number]
    return "; ".join([text, *parts, f"{len(planned.left)} to run"]) if parts else text


def _runnable(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment without what it does not use or what would contradict itself."""
    from analogtl.config.schema import PROGRAMMING_SECTIONS, SWEPT_SECTIONS

    programs = experiment.is_weight_programming
    unused = set(SWEPT_SECTIONS) - set(PROGRAMMING_SECTIONS) if programs else {"programming"}
    whole = copy.deepcopy(experiment.resolved())
    data = {key: value for key, value in whole.items() if key not in unused}
    if "analog.algorithm" in experiment.sweep.axes:
        data["analog"] = experiment.as_written().get("analog", {})
    elif experiment.analog.granularity is None:
        data["analog"].pop("granularity_per_token", None)  # another setting is in force
    if not experiment.per_layer.settings:
        data.pop("per_layer", None)
    if not experiment.sweep.tune.candidates:
        data["sweep"] = {key: value for key, value in data["sweep"].items() if key != "tune"}
    if experiment.analog.device_files:
        written = experiment.as_written()["analog"]
        data["analog"] |= {key: written.get(key, {}) for key in ("device", "slow_device")}
    # Those of files, which are read again.
    for content in ("rule", "rules", "device_files", "slow_array"):
        data["analog"].pop(content, None)
    data.get("model", {}).pop("network", None)
    return data
