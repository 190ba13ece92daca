"""``--dry-run``: the resolved experiment, and what would run; as TOML that can be run itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analogtl.cli import output, toml_text
from analogtl.cli.common import Opened

if TYPE_CHECKING:
    from analogtl.config.schema import Experiment
    from analogtl.scheduling.plan import Estimate, Plan, Sample


def show_stage(opened: Opened, *, convert: bool = False, as_json: bool = False) -> None:
    """What `pretrain` or `convert` would do."""
    found = opened.run.find_pretrained(opened.experiment)
    if found is not None:
        pretrain = f"reuse {found} (if the images are the same)"
    else:
        pretrain = f"run: {opened.experiment.pretrain.epochs} epochs"
    facts = {"pretrain": pretrain}
    if convert:
        facts["convert"] = "run: the pretrained model, programmed onto arrays"
    _print(opened, facts, as_json=as_json)


def show_trials(
    opened: Opened,
    *,
    sweep: bool = False,
    jobs: int | None = None,
    max_hours: float | None = None,
    measure: bool = False,
    as_json: bool = False,
) -> None:
    """What `finetune` or `sweep` would do, and how long it would take."""
    from analogtl.scheduling import plan as planning

    planned = planning.plan(opened.experiment, opened.run, sweep=sweep)
    samples = measured(planned) if measure else []
    expected = planning.estimate(
        planned, opened.run, jobs=jobs or 1, max_hours=max_hours, samples=samples
    )
    facts = {"pretrain": f"{planned.pretrain}: {planned.reason}"}
    facts["trials"] = _trials(opened.experiment, planned, sweep)
    if state := _state(planned):
        facts[""] = state
    facts["expected"] = early_word(expected, jobs or 1)
    record = {
        "trials": [trial.id for trial in planned.trials],
        "finished": sorted(planned.finished),
        "failed": planned.failed,
        "seconds": expected.seconds,
        "disk_bytes": expected.disk,
    }
    _print(opened, facts, record, as_json=as_json)
    if not as_json:
        for line in (*planned.notes, *expected.warnings):
            output.warn(line)


def measured(planned: Plan) -> list[Sample]:
    """Time a few steps of one trial of each arm that is left."""
    from analogtl.scheduling.measuring import measure

    samples = []
    for arm in dict.fromkeys(trial.arm for trial in planned.left):
        output.note(f"measuring {arm} ...")
        trial = next(trial for trial in planned.left if trial.arm == arm)
        sample = measure(trial)
        if sample is not None:
            samples.append(sample)
    return samples


def early_word(expected: Estimate, jobs: int) -> str:
    """Time, disk and memory of what is left, in a line."""
    if not expected.trials:
        return "nothing is left to run"
    if expected.seconds is None:
        time = f"time unknown ({expected.basis}; --measure finds out)"
    else:
        together = f", {jobs} at a time" if jobs > 1 else ""
        time = f"about {output.duration(expected.seconds)}{together} (from {expected.basis})"
    parts = [time, f"{expected.disk / 1e6:,.1f} MB of disk"]
    if expected.memory:
        parts.append(f"{expected.memory / 1e9:.1f} GB of memory a trial")
    return "; ".join(parts)


def _print(
    opened: Opened, facts: dict[str, str], record: dict[str, Any] | None = None, *, as_json: bool
) -> None:
    experiment, run = opened.experiment, opened.run
    if as_json:
        output.emit(
            {
                "event": "dry-run",
                "file": str(opened.file),
                "run": str(run.path),
                **{name: fact for name, fact in facts.items() if name in ("pretrain", "convert")},
                **(record or {}),
                "experiment": experiment.resolved(),
            }
        )
        return
    everything = {"experiment": str(opened.file), "run directory": str(run.path), **facts}
    for name, fact in everything.items():
        output.say(f"# {name:<13}  {fact}".rstrip())
    output.say("#\n# The resolved experiment, every default filled in:")
    if _algorithm_varies(experiment):
        output.say("# ([analog] as it is written: its defaults differ from algorithm to algorithm)")
    output.say(toml_text.text(_runnable(experiment)).rstrip())


def _trials(experiment: Experiment, planned: Plan, sweep: bool) -> str:
    arms = {trial.arm for trial in planned.trials}
    counts = {"arm": len(arms)}
    if sweep:
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

    programs = experiment.kind == "weight-programming"
    unused = set(SWEPT_SECTIONS) - set(PROGRAMMING_SECTIONS) if programs else {"programming"}
    data = {key: value for key, value in experiment.resolved().items() if key not in unused}
    if _algorithm_varies(experiment):
        data["analog"] = experiment.as_written().get("analog", {})
        return data
    if experiment.analog.granularity is None:
        data["analog"].pop("granularity_per_token", None)  # another setting is in force
    return data
