"""``analogtl doctor``."""

from __future__ import annotations

from pathlib import Path

import typer

from analogtl.cli import output
from analogtl.cli.options import Json, Runs

EXAMPLES = (("analogtl doctor", "when something does not work, and before a long run"),)
STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


def command(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Check this machine: does everything fit together, and what to do where it does not.

    It runs a real tile: torch and aihwkit of different builds import well and fail only there.
    Each line says ok, note or bad, and what to do. Exit code 1 if something is bad.
    """
    from dataclasses import asdict

    from analogtl.doctor import diagnose

    worst = 0
    for check in diagnose(runs):
        worst += check.status == "bad"
        if as_json:
            output.emit(asdict(check))
            continue
        output.say(f"{check.status:<5} {check.name:<13} {check.found}", STYLES[check.status])
        if check.advice:
            output.say(f"{'':<19} -> {check.advice}")
    if worst:
        raise typer.Exit(1)
    if not as_json:
        output.note("everything fits; `analogtl selftest` compares the fast engine with aihwkit")
