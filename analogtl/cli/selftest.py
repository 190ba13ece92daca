"""``analogtl selftest``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from analogtl.cli import output
from analogtl.cli.common import use_threads
from analogtl.cli.options import Json
from analogtl.errors import ExperimentError

EXAMPLES = (
    ("analogtl selftest", "under a minute; once per machine"),
    ("analogtl selftest --all --repetitions 500", "every option of the algorithms, more closely"),
)
FEWEST = 50  # repetitions; with less the tests say nothing


def command(
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every configuration that the fast engine covers, not only the main ones."
        ),
    ] = False,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions",
            metavar="N",
            help="Runs of each configuration on each engine. Default: 250.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the fast engine's runs.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Compare the fast engine with aihwkit's own tiles, on this machine.

    Small tiles are trained on both engines, over and over; then the distribution of every cell of
    the arrays is compared, and so are forward and backward products. Exit code 1 if they differ:
    the chance of that although they are the same is below 1 in 10,000.
    """
    if repetitions is not None and repetitions < FEWEST:
        raise ExperimentError(f"--repetitions {repetitions}: expected {FEWEST} or more")
    use_threads(None)
    from analogtl.fastsim import cases, equivalence

    began = time.monotonic()
    with _busy("training small tiles on both engines ..."):
        rows = equivalence.check(
            list(cases.CASES) if everything else cases.BASIC,
            repetitions=repetitions or equivalence.REPETITIONS,
            seed=seed,
        )
    failed = [row for row in rows if not row["passed"]]
    if as_json:
        for row in rows:
            output.emit(row)
    else:
        _show(rows)
        took = output.duration(time.monotonic() - began)
        if failed:
            output.problem(
                f"{len(failed)} of {len(rows)} comparisons differ: use "
                "--set analog.engine=aihwkit, and please report it with this table"
            )
        else:
            output.say(f"the engines agree in all {len(rows)} comparisons ({took})", "green")
    if failed:
        raise typer.Exit(1)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    headings = ("configuration", "quantity", "shift", "spread", "p", "")
    cells = [
        (
            row["about"] if number == 0 or row["about"] != rows[number - 1]["about"] else "",
            row["quantity"],
            f"{row['mean_difference']:+.3f}",
            f"{row['spread_ratio']:.3f}",
            f"{row['p_value']:.2g}",
            "same" if row["passed"] else "DIFFERS",
        )
        for number, row in enumerate(rows)
    ]
    output.rows_table(headings, cells, right=(2, 3, 4))
    output.say(
        "Shift: mean difference, in standard deviations of a cell. Spread: standard deviation, "
        "fast / aihwkit. p: of the most telling test, corrected for the tests in its row.",
        "dim",
    )


def _busy(text: str) -> contextlib.AbstractContextManager[Any]:
    """A sign of life on a terminal."""
    console = output.console()
    if not console.is_terminal or console.is_dumb_terminal:
        return contextlib.nullcontext()
    return console.status(text)
