"""``analogtl runs``: list, show, diff, clean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import complete, output
from analogtl.cli.options import Json, Runs
from analogtl.errors import counted

if TYPE_CHECKING:
    from analogtl.study.index import RunState

EXAMPLES = (
    ("analogtl runs", "every run and where it stands"),
    ("analogtl runs show quickstart", "its trials, failures and settings"),
    ("analogtl runs diff quickstart exp", "what differs in settings and versions"),
    ("analogtl runs clean", "remove leftovers; no result is lost"),
)
EXAMPLES_OF: dict[str, tuple[tuple[str, str], ...]] = {
    "list": (EXAMPLES[0],),
    "show": (EXAMPLES[1], ("analogtl runs show runs/quickstart --json", "for machines")),
    "diff": (EXAMPLES[2],),
    "clean": (
        EXAMPLES[3],
        ("analogtl runs clean --all --dry-run", "what else could go: replaced results, old models"),
    ),
}

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Name of a run, or its directory.", autocompletion=complete.run_names
    ),
]


def command(ctx: typer.Context, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Look at runs: where each stands, what differs between two, what can be removed.

    Without a command it lists them.
    """
    if ctx.invoked_subcommand is None:
        list_(runs, as_json)


def list_(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List every run below --runs: state, trials done and failed, time, size."""
    from analogtl.study.index import list_runs

    states = list_runs(runs)
    if as_json:
        for state in states:
            output.emit(_record(state))
        return
    if not states:
        output.say(f"no runs in {runs}/; `analogtl finetune` makes the first")
        return
    rows = [
        (
            state.name,
            state.state,
            f"{state.done}/{max(state.planned, state.done)}",
            str(len(state.failed) or ""),
            str(len(state.running) or ""),
            state.started_at[:16].replace("T", " "),
            _size(state.bytes),
        )
        for state in states
    ]
    headings = ("run", "state", "done", "failed", "running", "started (UTC)", "size")
    output.rows_table(headings, rows, right=(2, 3, 4, 6), styles={0: "bold"})


def show(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show one run: where it stands, its trials, what failed and why, what it was run with."""
    import shlex

    from analogtl.study.index import open_run, show_run

    details = show_run(open_run(run, runs))
    state = details.state
    if as_json:
        output.emit({**_record(state), "rows": details.rows, "settings": details.settings,
                     "provenance": details.provenance})  # fmt: skip
        return
    output.say(f"{state.name}: {state.state}, {state.done} of "
               f"{max(state.planned, state.done)} trials done", "bold")  # fmt: skip
    provenance = details.provenance
    versions, hardware = _table(provenance, "versions"), _table(provenance, "hardware")
    argv = provenance.get("argv")
    facts = {
        "directory": str(state.path),
        "about": str(details.settings.get("description") or ""),
        "started": state.started_at,
        "command": shlex.join(map(str, argv)) if isinstance(argv, list) else "",
        "versions": ", ".join(
            f"{name} {versions[name]}"
            for name in ("analogtl", "aihwkit", "torch")
            if name in versions
        ),
        "machine": f"{hardware.get('processor', '')}, {hardware.get('cores', '?')} cores",
        "size": _size(state.bytes),
    }
    for name, fact in facts.items():
        if fact:
            output.say(f"{name:<10} {fact}")
    if details.rows:
        output.say("")
        headings = ("trial", "status", "epoch 0", "final %", "best %", "time")
        rows = [_trial(row) for row in details.rows]
        output.rows_table(headings, rows, right=(2, 3, 4, 5))
    for name, progress in state.running.items():
        output.say(f"running: {name}: {progress.get('stage', '')} epoch "
                   f"{progress.get('epoch', '?')}/{progress.get('epochs', '?')}")  # fmt: skip
    for name, why in state.failed.items():
        output.problem(f"failed: {name}: {why}")
    if state.missing:
        output.note(f"{counted(len(state.missing), 'trial')} missing: the same command goes on")


def diff(a: RunName, b: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show what differs between two runs: resolved settings, versions, machine."""
    from analogtl.study.index import diff_runs, open_run

    first, second = open_run(a, runs), open_run(b, runs)
    differences = diff_runs(first, second)
    if as_json:
        for one in differences:
            output.emit({"key": one.key, "a": one.a, "b": one.b})
        return
    if not differences:
        output.say("no difference in settings, versions or machine")
        return
    rows = [(one.key, _value(one.a), _value(one.b)) for one in differences]
    output.rows_table(("key", first.name, second.name), rows, styles={0: "bold"})


def clean(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Only these runs. Default: every run below --runs.",
            autocompletion=complete.run_names,
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also what was set aside as damaged, results of earlier settings, logs, and "
            "pretrained models that no run refers to.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it; remove nothing.")] = False,
) -> None:
    """Remove what nobody needs: leftovers of killed processes, checkpoints of finished trials.

    No result is removed.
    """
    import sys

    from analogtl.study.index import open_run, removable, remove

    only = [open_run(name, runs) for name in run] if run else None
    things = removable(runs, only, everything=everything)
    if not things:
        output.say("nothing to remove")
        return
    shown = output.paths([thing.path for thing in things])
    for path, thing in zip(shown, things, strict=True):
        output.say(f"{_size(thing.bytes):>9}  {path}  ({thing.why})")
    total = _size(sum(thing.bytes for thing in things))
    if dry_run:
        output.say(f"{total} in all; nothing was removed")
        return
    if not yes:
        if not sys.stdin.isatty():
            output.note("nothing was removed: --yes does it")
            return
        typer.confirm(f"Remove them ({total})?", abort=True)
    output.say(f"removed: {_size(remove(things))}")


COMMANDS: dict[str, Any] = {"list": list_, "show": show, "diff": diff, "clean": clean}


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _record(state: RunState) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(state)


def _trial(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row.get("trial", "")),
        str(row.get("status", "")),
        *(_percent(row.get(key)) for key in ("error_transfer", "error_final", "error_best")),
        output.duration(row["wall_s"]) if isinstance(row.get("wall_s"), int | float) else "",
    )


def _percent(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
