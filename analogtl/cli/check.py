"""``analogtl doctor`` and ``selftest``: does everything fit here, and do the engines agree?"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from analogtl.cli import output
from analogtl.cli.options import Json, Runs, option
from analogtl.errors import ExperimentError, duration

STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


def doctor(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Check this machine: does everything fit together, and what to do where it does not.

    It runs a real tile: torch and aihwkit of different builds import well and fail only there.
    Each line says ok, note or bad, and what to do. Exit code 1 if something is bad.
    """
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


def selftest(
    everything: Annotated[
        bool,
        option(
            "--all", None, "Every configuration that the fast engine covers, not the main ones."
        ),
    ] = False,
    algorithm: Annotated[
        str | None,
        option("--algorithm", "FILE:CLASS", "Try a rule in a Python file: my_rule.py:Rule."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the fast engine with aihwkit's own tiles, on this machine.

    Small tiles are trained on both engines, over and over; then the distribution of every cell of
    the arrays is compared, and so are forward and backward products. Exit code 1 if they differ:
    the chance of that although they are the same is below 1 in 10,000.

    With --algorithm, a small tile is trained with a rule: does it compile, stay finite and within
    its tile, and repeat itself? Where it names a counterpart of aihwkit, it is compared with that.
    Exit code 2 if the rule is wrong, with file and line.
    """
    from analogtl.fastsim import cases, equivalence

    began = time.monotonic()
    with output.console().status("training small tiles ..."):
        if algorithm is None:
            rows = equivalence.check(
                list(cases.CASES) if everything else cases.BASIC,
                repetitions=equivalence.REPETITIONS,
            )
        else:
            rows = _check_rule(algorithm)
    if not rows:
        output.say(f"{algorithm}: compiles, stays within its tile, and repeats itself", "green")
        return
    failed = [row for row in rows if not row["passed"]]
    if as_json:
        for row in rows:
            output.emit(row)
    else:
        headings = ("configuration", "quantity", "shift", "spread", "p", "")
        cells = [
            (
                row["about"],
                row["quantity"],
                f"{row['mean_difference']:+.3f}",
                f"{row['spread_ratio']:.3f}",
                f"{row['p_value']:.2g}",
                "same" if row["passed"] else "DIFFERS",
            )
            for row in rows
        ]
        output.rows_table(headings, cells, right=(2, 3, 4))
        output.say(
            "Shift: mean difference, in standard deviations of a cell. Spread: standard deviation, "
            "fast / aihwkit. p: of the most telling test, corrected for the tests in its row.",
            "dim",
        )
        took = duration(time.monotonic() - began)
        if failed:
            output.problem(
                f"{len(failed)} of {len(rows)} comparisons differ: use "
                "--set analog.engine=aihwkit, and please report it with this table"
            )
        else:
            output.say(f"the engines agree in all {len(rows)} comparisons ({took})", "green")
    if failed:
        raise typer.Exit(1)


def _check_rule(name: str) -> list[dict[str, Any]]:
    """Check the rule in a file."""
    from analogtl.config.rule_file import embed_rules
    from analogtl.fastsim.rules import RuleError, RuleText
    from analogtl.fastsim.rules.check import check_rule
    from analogtl.vocabulary import file_algorithm

    algorithm, data = file_algorithm(name), dict[str, Any]()
    embed_rules(data, {"analog.algorithm": name}, [Path()])
    text = data.get("analog", {}).get("rules", {})
    if algorithm is None or algorithm.file not in text:
        raise ExperimentError(f"--algorithm {name}: no such rule; expected my_rule.py:Rule")
    try:
        return check_rule(RuleText(algorithm.file, algorithm.inside, text[algorithm.file]))
    except RuleError as error:
        raise ExperimentError(str(error)) from None


COMMANDS: dict[str, Any] = {"doctor": doctor, "selftest": selftest}
