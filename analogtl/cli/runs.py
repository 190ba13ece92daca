"""``analogtl runs``: list, show, compare and clean up runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from analogtl.cli import completion, output
from analogtl.cli.options import Json, Runs, argument, option, path
from analogtl.errors import counted, duration, printable, shell_command
from analogtl.vocabulary import Arm, Metric, arm_label, metric_of

if TYPE_CHECKING:
    from analogtl.study.run_dir import RunDir


def _arms() -> completion.Offers:
    return completion.meanings(Arm)


RunName = Annotated[str, argument("RUN", "Name of a run, or its directory.", completion.run_names)]


def command(ctx: typer.Context, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Look at runs: where each stands, what differs between two, what can be removed.

    Without a command it lists them.
    """
    if ctx.invoked_subcommand is None:
        list_(runs, as_json)


def list_(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List every run below --runs: state, trials done and failed, time, size."""
    from analogtl.study.index import find_runs, recorded_rows, state_of

    states = [state_of(run, *recorded_rows(run)) for run in find_runs(runs)]
    if as_json:
        for state in states:
            output.emit(asdict(state))
        return
    if not states:
        output.say(f"no runs in {runs}/; `analogtl finetune` makes the first")
    rows = [
        (
            state.name,
            state.state,
            f"{state.done}/{max(state.planned, state.done)}",
            str(len(state.failed) or ""),
            str(len(state.running) or ""),
            state.started_at[:16].replace("T", " "),
            decimal(state.bytes),
        )
        for state in states
    ]
    headings = ("run", "state", "done", "failed", "running", "started (UTC)", "size")
    output.rows_table(headings, rows, right=(2, 3, 4, 6), styles={0: "bold"})
    for state in states:
        for line in state.problems:
            output.warn(line)


def show(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show one run: where it stands, its trials, what failed and why, what it was run with."""
    from analogtl.config.section import flatten
    from analogtl.study.checked import Problems, read_fields
    from analogtl.study.fields import ProvenanceFields
    from analogtl.study.index import open_run, recorded_rows, state_of

    found = open_run(run, runs)
    recorded = recorded_rows(found)
    state, problems = state_of(found, *recorded), Problems()
    provenance = read_fields(found.path / "provenance.json", ProvenanceFields, problems)
    for line in problems.lines:
        output.warn(line)
    settings = flatten(found.read("experiment.resolved.json"))
    if as_json:
        more = {"rows": recorded[0], "settings": settings, "provenance": provenance}
        output.emit({**asdict(state), **more})
        return
    planned = max(state.planned, state.done)
    output.say(f"{state.name}: {state.state}, {state.done} of {planned} trials done", "bold")
    versions, hardware = (
        table if isinstance(table := provenance.get(key), dict) else {}
        for key in ("versions", "hardware")
    )
    packages = [f"{name} {versions.get(name)}" for name in ("analogtl", "aihwkit", "torch")]
    facts = {
        "directory": str(state.path),
        "about": str(settings.get("description") or ""),
        "started": state.started_at,
        "command": shell_command(map(str, provenance.get("argv") or ())),
        "versions": ", ".join(packages) if versions else "",
        "machine": ", ".join(
            str(hardware[key]) for key in ("processor", "system") if key in hardware
        ),
        "size": decimal(state.bytes),
    }
    for name, fact in facts.items():
        if fact:
            output.say(f"{name:<10} {printable(fact)}")
    metric = metric_of(row.get("metric") for row in recorded[0])
    rows = [
        (
            str(row.get("trial", "")),
            str(row.get("status", "")),
            *(
                _number(row.get(key), metric)
                for key in ("error_transfer", "error_final", "error_best")
            ),
            duration(row["wall_s"]) if row.get("wall_s") else "",
        )
        for row in recorded[0]
    ]
    unit = f" {metric.unit}".rstrip()
    headings = ("trial", "status", "epoch 0", f"final{unit}", f"best{unit}", "time")
    output.rows_table(headings, rows, right=(2, 3, 4, 5))
    for name, progress in state.running.items():
        at = f"{progress.get('epoch', '?')}/{progress.get('epochs', '?')}"
        output.say(f"running: {name}: {progress.get('stage', '')} epoch {at}")
    for name, why in state.failed.items():
        output.problem(f"failed: {name}: {why}")
    for line in state.problems:
        output.warn(line)
    if state.missing:
        output.note(f"{counted(len(state.missing), 'trial')} missing: the same command goes on")


def diff(a: RunName, b: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show what differs between two runs: judged errors, resolved settings, versions, machine."""
    from analogtl.study.index import diff_runs, open_run

    first, second = open_run(a, runs), open_run(b, runs)
    differences = diff_runs(first, second)
    sides, metrics = _errors(first, second)
    same = metrics[0] if metrics[0] is metrics[1] else None
    if as_json:
        for (arm, levels), (mine, its) in sides.items():
            sides_of = {"error_a": mine, "metric_a": metrics[0]}
            sides_of |= {"error_b": its, "metric_b": metrics[1]}
            output.emit({"arm": arm, "levels": levels, **sides_of})
        for key, (value_a, value_b) in differences.items():
            output.emit({"key": key, "a": value_a, "b": value_b})
        return
    rows = []
    for (arm, levels), (mine, its) in sides.items():
        difference = same.number(its[0] - mine[0], "+") if same and mine and its else ""
        spreads = map(_spread, (mine, its), metrics)
        rows.append((arm_label(arm), levels, *spreads, difference))
    headings = ("arm", "levels", first.name, second.name, "difference")
    what = " and ".join(dict.fromkeys(metric.axis for metric in metrics))
    title = f"{what[0].upper()}{what[1:]}, judged epochs: mean ± sd (trials); lower is better"
    output.rows_table(headings, rows, title=title, right=(2, 3, 4))
    if not differences:
        output.say("no difference in settings, versions or machine")
    texts = [
        (key, *("" if value is None else str(value) for value in pair))
        for key, pair in differences.items()
    ]
    output.rows_table(("key", first.name, second.name), texts, styles={0: "bold"})


Spread = tuple[float, float, int]  # mean, standard deviation, trials


def _errors(
    *runs: RunDir,
) -> tuple[dict[tuple[str, str], list[Spread | None]], list[Metric]]:
    """Arm and levels -> judged error of each run, over trials, at the learning rate kept.

    And what the errors of each run are.
    """
    import pandas as pd

    from analogtl.analysis import summaries
    from analogtl.analysis.curves import metric_in
    from analogtl.analysis.read import read_run
    from analogtl.study.columns import JUDGED

    rows = [read_run(run.path, run.name).chosen.rows.assign(run=n) for n, run in enumerate(runs)]
    metrics = [metric_in(frame) for frame in rows]
    both = pd.concat([frame for frame in rows if len(frame)] or rows, ignore_index=True)
    axes = [axis for axis in summaries.axis_columns(both) if axis != "run"]
    found: dict[tuple[str, str], list[Spread | None]] = {}
    for row in summaries.spread(both, ["arm", *axes, "run"], [JUDGED]).to_dict("records"):
        levels = summaries.setting_text({axis: row[axis] for axis in axes})
        sides = found.setdefault((str(row["arm"]), levels), [None] * len(runs))
        mean, deviation = float(row[f"{JUDGED}_mean"]), float(row[f"{JUDGED}_sd"])
        sides[int(row["run"])] = (mean, deviation, int(row["n"]))
    return found, metrics


def _spread(error: Spread | None, metric: Metric) -> str:
    if error is None:
        return ""
    mean, deviation, count = error
    spread = f" ± {metric.number(deviation)}" if count > 1 else ""
    return f"{metric.number(mean)}{spread} ({count})"


def export(
    run: RunName,
    out: Annotated[Path, option("--out -o", "DIR", "Where to write them.", parser=path)],
    arm: Annotated[
        list[Arm] | None,
        option("--arm", "ARM", "Only trials of this arm; repeatable.", completion.choices(_arms)),
    ] = None,
    trial: Annotated[
        list[str] | None,
        option("--trial", "TRIAL", "Only this trial (`analogtl runs show`); repeatable."),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the networks of a run into a folder, as safetensors that anything can read.

    The pretrained network, and of each trial that ran with --save-model its weights and the
    conductances of its arrays. Files of the same names are replaced. Weights can be named in
    model.weights of another experiment. What is in the files: `analogtl explain models`.
    """
    from analogtl.study.export import export as write
    from analogtl.study.index import open_run

    files, notes = write(open_run(run, runs), out, arms=arm or (), trials=trial or ())
    for file in files:
        if as_json:
            output.emit({"file": str(file), "bytes": file.stat().st_size})
        else:
            output.say(f"{decimal(file.stat().st_size):>9}  {output.short(file)}")
    for line in notes:
        output.warn(line)


def clean(
    run: Annotated[
        list[str] | None,
        argument("RUN", "Only these runs. Default: all.", completion.run_names),
    ] = None,
    everything: Annotated[
        bool,
        option(
            "--all",
            None,
            "Also what was set aside as damaged, results and checkpoints of earlier settings, "
            "final states of which [evaluate] asks nothing any more, logs, and pretrained models "
            "that no run refers to.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
    yes: Annotated[bool, option("--yes -y", None, "Ask nothing.")] = False,
    dry_run: Annotated[bool, option("--dry-run", None, "Show it; remove nothing.")] = False,
) -> None:
    """Remove what nobody needs: leftovers of killed processes, checkpoints of finished trials.

    Without --all no result is removed, and nothing that an interrupted trial could go on from.
    """
    from analogtl.study.clean import removable, remove
    from analogtl.study.index import open_run

    only = [open_run(name, runs) for name in run] if run else None
    things, left_alone = removable(runs, only, everything=everything)
    for line in left_alone:
        output.warn(f"left alone: {line}")
    for thing in things:
        output.say(f"{decimal(thing.bytes):>9}  {output.short(thing.path)}  ({thing.why})")
    total = decimal(sum(thing.bytes for thing in things))
    if not things:
        output.say("nothing to remove")
    elif dry_run:
        output.say(f"{total} in all; nothing was removed")
    elif not yes and not sys.stdin.isatty():
        output.note("nothing was removed: --yes does it")
    else:
        if not yes:
            typer.confirm(f"Remove them ({total})?", abort=True)
        output.say(f"removed: {decimal(remove(things))}")


def _number(value: Any, metric: Metric) -> str:
    return metric.number(value) if isinstance(value, int | float) else ""


COMMANDS: dict[str, Any] = {
    "list": list_,
    "show": show,
    "diff": diff,
    "export": export,
    "clean": clean,
}
