"""``--dry-run``: the resolved experiment, and what would run; as TOML that can be run itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analogtl.cli import output, toml_text

if TYPE_CHECKING:
    from analogtl.config.schema import Experiment
    from analogtl.scheduling.plan import Plan
    from analogtl.study.study import Study


def show_stage(study: Study, *, convert: bool = False, as_json: bool = False) -> None:
    """What `pretrain` or `convert` would do."""
    found = study.run.find_pretrained(study.experiment)
    if found is not None:
        pretrain = f"reuse {found} (if the images are the same)"
    else:
        pretrain = f"run: {study.experiment.pretrain.epochs} epochs"
    facts = {"pretrain": pretrain}
    if convert:
        facts["convert"] = "run: the pretrained model, programmed onto arrays"
    _print(study, facts, as_json=as_json)


def show_trials(study: Study, *, jobs: int | None = None, as_json: bool = False) -> None:
    """What `finetune` or `sweep` would do."""
    from analogtl.scheduling.plan import plan, shortages

    planned = plan(study)
    facts = {"pretrain": f"{planned.pretrain}: {planned.reason}"}
    facts["trials"] = _trials(study, planned)
    if state := _state(planned):
        facts[""] = state
    record = {
        "trials": [trial.id for trial in planned.trials],
        "finished": sorted(planned.finished),
        "failed": planned.failed,
    }
    _print(study, facts, record, as_json=as_json)
    if not as_json:
        for line in (*planned.notes, *shortages(planned.left, study.run, jobs=jobs or 1)):
            output.warn(line)


def _print(
    study: Study, facts: dict[str, str], record: dict[str, Any] | None = None, *, as_json: bool
) -> None:
    experiment, run = study.experiment, study.run
    if as_json:
        output.emit(
            {
                "event": "dry-run",
                "file": str(study.file),
                "run": str(run.path),
                **{name: fact for name, fact in facts.items() if name in ("pretrain", "convert")},
                **(record or {}),
                "experiment": experiment.resolved(),
            }
        )
        return
    everything = {"experiment": str(study.file), "run directory": str(run.path), **facts}
    for name, fact in everything.items():
        output.say(f"# {name:<13}  {fact}".rstrip())
    output.say("#\n# The resolved experiment, every default filled in:")
    if _algorithm_varies(experiment):
        output.say("# ([analog] as it is written: its defaults differ from algorithm to algorithm)")
    output.say(toml_text.text(_runnable(experiment)).rstrip())


def _trials(study: Study, planned: Plan) -> str:
    experiment = study.experiment
    arms = {trial.arm for trial in planned.trials}
    counts = {"arm": len(arms)}
    if study.sweep:
        counts |= {f"level of {name}": len(v) for name, v in experiment.sweep.axes.items()}
        if experiment.sweep.lr:
            counts["learning rate"] = len(experiment.sweep.lr)
    counts["seed"] = len(experiment.sweep.seeds)
    factors = " x ".join(_count(number, what) for what, number in counts.items())
    text = f"{len(planned.trials)}: {factors}"
    if len(planned.trials) < math.prod(counts.values()):
        text += "; a digital arm once per seed, where no axis touches it"
    return text


def _state(planned: Plan) -> str:
    counts = (
        (len(planned.finished), "finished"),
        (len(planned.failed), "failed before"),
        (len(planned.begun), "go on from a checkpoint"),
        (len(planned.changed), "finished with other settings, to be run anew"),
    )
    parts = [f"{number} {what}" for number, what in counts if number]
    return ", ".join([*parts, f"{len(planned.left)} to run"]) if parts else ""


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"{number} {what}"
    return f"{number} {what.replace('level', 'levels', 1) if ' of ' in what else what + 's'}"


def _algorithm_varies(experiment: Experiment) -> bool:
    return "analog.algorithm" in experiment.sweep.axes


def _runnable(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment without what it does not use or what would contradict itself."""
    from analogtl.config.schema import PROGRAMMING_SECTIONS, SWEPT_SECTIONS

    programs = experiment.is_weight_programming
    unused = set(SWEPT_SECTIONS) - set(PROGRAMMING_SECTIONS) if programs else {"programming"}
    data = {key: value for key, value in experiment.resolved().items() if key not in unused}
    if _algorithm_varies(experiment):
        data["analog"] = experiment.as_written().get("analog", {})
        return data
    if experiment.analog.granularity is None:
        analog = data["analog"].items()  # without it, as another setting is in force
        data["analog"] = {k: v for k, v in analog if k != "granularity_per_token"}
    return data
