"""``analogtl fit``: measured pulses to a device file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from analogtl.cli import options, output
from analogtl.cli.options import argument, checked, option
from analogtl.errors import ExperimentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analogtl.config.device_file import DeviceFile
    from analogtl.fitting.choose import Result

PANEL = "The fit"


def fit(
    pulses: Annotated[
        Path,
        argument("PULSES", "Table of measured pulses: CSV, TSV or XLSX.", parser=options.path),
    ],
    out: Annotated[
        Path | None,
        option(
            "--out -o",
            "FILE",
            "The device file; PULSES with .toml if not given.",
            parser=options.path,
        ),
    ] = None,
    g_min: Annotated[
        float | None, option("--g-min", "G", "Conductance of weight -1.", panel=PANEL)
    ] = None,
    g_max: Annotated[
        float | None, option("--g-max", "G", "Conductance of weight 1.", panel=PANEL)
    ] = None,
    model: Annotated[
        str | None,
        option("--model", "CLASS", "aihwkit's device class; by default the best.", panel=PANEL),
    ] = None,
    force: Annotated[bool, option("--force", None, "Overwrite the file if it exists.")] = False,
    to_aihwkit: Annotated[
        bool, option("--to-aihwkit", None, "Print the device as Python for aihwkit.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Fit a device to measured up and down pulses; write a device file and a figure.

    [analog.device] file = "..." of an experiment takes the file, and `analogtl show` draws it.
    """
    from analogtl.fitting.models import MODELS

    if model is not None:
        checked("device class", model, [one.device_class for one in MODELS])
    out = out or pulses.with_suffix(".toml")
    if out.exists() and not force:
        raise ExperimentError(f"{out}: exists already; --force overwrites it, or give --out")
    figure = out.with_suffix(".svg")
    if figure.exists() and not force:
        raise ExperimentError(f"{figure}: exists already; --force overwrites it, or give --out")
    from analogtl.fitting.choose import fit_pulses
    from analogtl.fitting.pulses import read_pulses
    from analogtl.report.fit_figure import fit_figure

    measured = read_pulses(pulses, g_min, g_max)
    try:
        result = fit_pulses(measured, model)
    except ExperimentError as error:
        raise ExperimentError(f"{pulses}: {problem}" for problem in error.problems) from None
    device = _device(pulses, result)
    _write(out, figure, device, fit_figure(result, pulses.name), pulses.name)
    rows = [*_rows(result)]
    if as_json:
        for name, value, low, high in rows:
            output.emit({"name": name, "value": value, "low": low, "high": high})
        for model_name, score in result.scores.items():
            output.emit({"name": model_name, **asdict(score)})
    elif to_aihwkit:
        print(_python(device))
    else:
        cells = [[name, *map(_cell, (value, low, high))] for name, value, low, high in rows]
        output.rows_table(
            ["", "value", "95 % from", "to"], cells, title=result.device_class, right=(1, 2, 3)
        )
    if not as_json:
        for line in _scores(result):
            output.note(line)
    for line in result.unknown:
        output.note(line)
    output.note(f"device file: {out}; figure: {figure}")


def _write(out: Path, figure: Path, device: DeviceFile, drawn: Figure, name: str) -> None:
    """Write the device file and the figure, both or none."""
    from io import BytesIO

    from analogtl.config.device_file import write_device
    from analogtl.files import atomic_file

    content = BytesIO()
    drawn.savefig(content, format="svg", dpi=100)
    with atomic_file(figure) as file:  # takes its place when the device file has
        file.write(content.getvalue())
        write_device(out, device, f"Fitted by analogtl fit to {name}.")


def _device(pulses: Path, result: Result) -> DeviceFile:
    from analogtl.config.device_file import DeviceFile
    from analogtl.files import digest

    parameters = result.population.parameters
    told = {
        "source": pulses.name,
        "sha256": digest(pulses),
        "g_min": result.pulses.g_min,
        "g_max": result.pulses.g_max,
        "unit": result.pulses.unit,
        "devices": len(result.pulses.traces),
        "cycles": result.pulses.n_cycles,
        "rows": result.pulses.rows,
        "ties": result.ties,
        "unknown": list(result.unknown),
        "intervals": {k: list(v) for k, v in result.population.intervals.items()},
    }
    return DeviceFile(result.device_class, parameters, told)


def _rows(result: Result) -> Any:
    population = result.population
    for name, value in population.parameters.items():
        yield name, value, *population.intervals.get(name, ("", ""))
    for name, (value, interval) in population.quantities.items():
        yield name, value, *interval


def _scores(result: Result) -> Any:
    """How close each class comes, the best first."""
    for name, score in sorted(result.scores.items(), key=lambda item: item[1].miss):
        told = f"{name}: {score.miss:.2f} % of the range from held-out readings"
        if score.gap.mean:
            told += f", {score.gap.mean:.2f} +- {score.gap.error:.2f} more than the best"
        if score.loss is not None and score.loss.mean:
            told += f"; log likelihood {score.loss.mean:.3f} +- {score.loss.error:.3f} lower"
        yield told


def _python(device: DeviceFile) -> str:
    lines = [f"    {name}={value!r}," for name, value in device.parameters.items()]
    name = device.device_class
    body = "\n".join(lines)
    return f"from aihwkit.simulator.configs import {name}\n\ndevice = {name}(\n{body}\n)"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{one:.3g}" for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


COMMANDS: dict[str, Any] = {"fit": fit}
