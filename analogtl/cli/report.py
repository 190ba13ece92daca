"""``analogtl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from analogtl.cli import completion, output
from analogtl.cli.options import Json, Quiet, Runs, argument, option, path
from analogtl.errors import ExperimentError

FORMATS = {
    "html": "one self-contained page",
    "markdown": "one document with tables and figures",
    "csv": "every table with all its digits",
    "latex": "booktabs tables and PDF figures",
    "png": "figures",
    "svg": "figures",
    "pdf": "figures",
}


def command(
    run_dirs: Annotated[
        list[Path] | None,
        argument(
            "RUN_DIR",
            "Run directories, or folders of them. Without any: everything below --runs.",
            completion.run_dirs,
            parser=path,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "--out -o",
            "DIR",
            "Where to write it. Default: report/ in the run, or in the folder of runs.",
            parser=path,
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        option(
            "--format -f",
            "FORMAT",
            "html, markdown, csv, latex, png, svg or pdf; repeatable. Default: all but latex and "
            "pdf.",
            completion.choices(lambda: FORMATS.items()),
        ),
    ] = None,
    margin: Annotated[
        float | None,
        option(
            "--margin",
            "M",
            "What counts as no harm, in the metric's unit (percentage points of test error). "
            "Default: each experiment's own.",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        option(
            "--alpha",
            "P",
            "Significance level of the critical point. Default: each experiment's own.",
        ),
    ] = None,
    judged_epochs: Annotated[
        int | None,
        option(
            "--judged-epochs",
            "K",
            "Judge by the mean test error of the last K epochs. Default: each experiment's own.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            "KEY=VALUE",
            "A constant for the costs, over the experiment's: hardware.preset=hfox-reram, "
            "hardware.pulse_energy=1e-12; repeatable.",
            completion.settings,
        ),
    ] = None,
    together: Annotated[
        bool, option("--together", None, "All runs in the same figures and tables.")
    ] = False,
    plain: Annotated[bool, option("--plain", None, "Figures without the critical points.")] = False,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Make tables, figures and one HTML page from finished (or half-finished) runs.

    It reads the CSV files and the JSON beside them, never a checkpoint. Figures: test error per
    epoch for each arm, and test error against the level of each axis, with the critical point.
    A row or file that is damaged is left out and named; the exit code is then 1.
    """
    where = run_dirs or [runs]
    if not run_dirs and not runs.is_dir():
        raise ExperimentError(
            f"{runs}: no runs there yet; `analogtl finetune` makes the first, `--runs DIR` looks "
            "elsewhere"
        )
    from analogtl.report.build import DEFAULT_FORMATS, build_report

    result = build_report(
        where,
        out,
        formats=formats or DEFAULT_FORMATS,
        margin=margin,
        alpha=alpha,
        judged_epochs=judged_epochs,
        settings=settings or (),
        together=together,
        plain=plain,
    )
    code = 1 if result.damaged else 0
    if as_json:
        files = [str(path) for path in result.paths]
        record = {"event": "report", "out": str(result.out), "files": files}
        output.emit({**record, "messages": result.messages})
        return code
    for table in result.tables:
        if table.name in SHOWN and len(table):
            output.show_table(table)
            output.say("")
    for message in result.messages:
        output.warn(message)
    if quiet:
        return code
    pages = [path for path in result.paths if path.suffix in (".html", ".md")]
    for page in pages or [result.out]:
        output.say(output.short(page))
    output.note(f"{len(result.paths)} files in {output.short(result.out)}")
    return code


SHOWN = ("outcomes", "critical_points", "costs_of_arms", "findings")
