"""``analogtl show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analogtl.cli import complete, output, textplot
from analogtl.cli.common import use_threads
from analogtl.cli.options import Json, Settings
from analogtl.errors import ExperimentError, RunError

if TYPE_CHECKING:
    from analogtl.crossbar.pulse_response import DeviceView

EXAMPLES = (
    ("analogtl show ReRamArrayHfO2PresetDevice", "the paper's device"),
    ("analogtl show EcRamPresetDevice --out ecram.pdf", "its pulse response as a figure"),
    (
        "analogtl show ReRamArrayHfO2PresetDevice --set analog.nonidealities.n_states=100",
        "the same device with 100 states",
    ),
)
SUFFIXES = (".pdf", ".png", ".svg")
CHART_ROWS = 14
ROOM_FOR_NOTES = 110  # columns
MOST_DEVICES = 3  # in the terminal's plot; more lines hide one another


def command(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET",
            help="Device preset or device class (`analogtl list presets`).",
            autocompletion=complete.presets,
        ),
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the figure: .pdf, .png or .svg.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=1, help="Seed of the device draw.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Show a device: number of states, step size, bounds, symmetry point, noise, pulse response.

    The numbers are measured on a real tile of 400 devices. The plot gives some of them pulses, up
    and then down, and marks where each passes its symmetry point.
    """  # fmt: skip
    from analogtl.config.load import apply_overrides, validate
    from analogtl.config.source import Source

    if out is not None and out.suffix not in SUFFIXES:
        raise ExperimentError(f"--out {out}: expected a file that ends in {', '.join(SUFFIXES)}")
    source = Source()
    source.file = "analogtl show"
    source.data = {"name": "device", "analog": {"device": {"preset": _preset(preset)}}}
    apply_overrides(source, settings or ())
    analog = validate(source).analog

    use_threads(None)
    from analogtl.crossbar.pulse_response import view_device

    view = view_device(analog.array_device, analog.nonidealities, seed=seed)
    if out is not None:
        _draw(view, out)
    if as_json:
        from dataclasses import asdict

        for fact in view.facts:
            output.emit({"preset": view.preset, "device": view.device_class, **asdict(fact)})
        return
    _facts(view)
    output.say("")
    _chart(view)
    if out is not None:
        output.note(f"figure: {out}")
    else:
        output.note(f"as a figure: analogtl show {preset} --out {preset}.pdf")


def _preset(name: str) -> str:
    """A preset by its name, or by a part of it that only one has.

    Raises:
        ExperimentError: If there is none.
    """
    from difflib import get_close_matches

    from analogtl.config import catalog

    known = [*catalog.presets(), *catalog.devices()]
    if name in known:
        return name
    inside = [one for one in known if name.lower() in one.lower()]
    near = inside or get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`analogtl list presets` lists them"
    raise ExperimentError(f"unknown device preset {name!r}; {hint}")


def _facts(view: DeviceView) -> None:
    headings = ["", "set", f"{view.n_devices} devices", "unit", ""]
    rows = [
        [fact.name, _number(fact.nominal), _measured(fact), fact.unit, fact.note]
        for fact in view.facts
    ]
    if output.console().width < ROOM_FOR_NOTES:
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    title = f"{view.preset} ({view.device_class})"
    output.rows_table(headings, rows, title=title, right=(1, 2), styles={4: "dim"})


def _draw(view: DeviceView, out: Path) -> None:
    from analogtl.report.pulse_figure import pulse_figure

    try:
        pulse_figure(view).savefig(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None


def _chart(view: DeviceView) -> None:
    console = output.console()
    width = max(40, min(console.width, 100))
    lines = [
        textplot.Line(f"device {n + 1}", view.pulses.tolist(), view.weights[:, n].tolist())
        for n in range(min(MOST_DEVICES, view.weights.shape[1]))
    ]
    points = [_crossing(view, n) for n in range(len(lines))]
    marks = [point for pair in points for point in pair]
    lines.append(
        textplot.Line("symmetry point", [x for x, _ in marks], [y for _, y in marks], dots=True)
    )
    for row in textplot.chart(
        lines,
        width=width,
        height=CHART_ROWS,
        y_label="weight",
        x_label="pulses: up, then down",
        zero=False,
        unicode=textplot.has_unicode(console.encoding),
    ):
        console.print(row, no_wrap=True, crop=True)


def _crossing(view: DeviceView, device: int) -> list[tuple[float, float]]:
    """Where the ramps of a shown device pass its symmetry point."""
    point = float(view.symmetry_points[device])
    return [(x, point) for x in view.crossings(device)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _measured(fact: Any) -> str:
    if fact.measured is None:
        return "none" if fact.note.startswith("none") else ""
    spread = "" if fact.spread is None else f" ± {fact.spread:.2g}"
    return f"{fact.measured:.4g}{spread}"
