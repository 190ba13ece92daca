"""``analogtl show``: what devices do at a pulse, one or several side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from analogtl.cli import completion, options, output
from analogtl.cli.options import argument, checked, option
from analogtl.config import catalog
from analogtl.config.shipped import shipped_experiments
from analogtl.errors import ExperimentError, RunError, printable
from analogtl.files import digest
from analogtl.vocabulary import Algorithm, key_of

if TYPE_CHECKING:
    from analogtl.config.arrays import Analog
    from analogtl.config.schema import Experiment
    from analogtl.crossbar.pulse_response import DeviceView, Fact
    from analogtl.crossbar.pulsed_tile import Trace

SUFFIXES = (".pdf", ".png", ".svg")
MAX_SHOWN = 6  # devices side by side
MAX_TRACES = 5  # measured devices
MAX_LINES = 3  # in the terminal's plot; more lines hide one another
DOT = "●"  # a symmetry point in the plot
PLOT_SIZE = (100, 18)  # columns at most, rows
DEVICE_AXES = ("analog.device.file", "analog.device.preset")


@dataclass(frozen=True)
class Chosen:
    """A device that was asked for: what it is called, and where it stands."""

    name: str
    analog: Analog
    slow: bool = False  # the array that holds the weights, where it has another device
    folders: tuple[Path, ...] = ()  # where its device file may be

    @property
    def file(self) -> str:
        """The name of its device file; "" without one."""
        name = self.analog.slow_device.get("file") if self.slow else self.analog.device.file
        return name or ""

    @property
    def fit(self) -> Mapping[str, Any]:
        """Where its device file says that the parameters come from."""
        fit: Mapping[str, Any] = self.analog.device_files.get(self.file, {}).get("fit", {})
        return fit

    @property
    def intervals(self) -> Mapping[str, Any]:
        """Parameter -> interval, where its device file tells."""
        found = self.fit.get("intervals", {})
        return found if isinstance(found, dict) else {}

    def traces(self, data: Path | None) -> Sequence[Trace]:
        """What was measured: of the file, or the one that its device file names, if it is there."""
        from analogtl.fitting.pulses import read_pulses

        if data is None:
            places = [folder / self.file for folder in self.folders if self.file]
            beside = [place.parent for place in places if os.path.isfile(place)]
            if not beside or "source" not in self.fit:
                return ()
            data = beside[0] / self.fit["source"]
            if not os.path.isfile(data):
                output.note(f"{self.name}: its data, {data}, are not there; --data shows others")
                return ()
            if self.fit.get("sha256") not in (None, digest(data)):
                output.note(f"{self.name}: {data} has changed since the fit; --data shows it")
                return ()
        return read_pulses(data, self.fit.get("g_min"), self.fit.get("g_max")).traces[:MAX_TRACES]

    def view(self, data: Path | None) -> DeviceView:
        """Measure it, and give it the pulses of what was measured of real ones."""
        from analogtl.crossbar.pulse_response import view_device

        analog = self.analog
        device = (self.slow and analog.slow_array_device) or analog.array_device
        later = analog.values("slow_device") if self.slow else {}
        traces = self.traces(data)
        name = self.name
        return view_device(device, analog.nonidealities, later=later, name=name, traces=traces)


def show(
    devices: Annotated[
        list[str],
        argument(
            "DEVICE...",
            "Presets, device classes (`analogtl list presets`, `list devices`), device files or "
            "experiments.",
            completion.devices,
        ),
    ],
    settings: options.Settings = None,
    out: Annotated[
        Path | None,
        option("--out -o", "FILE", "Write the figure: .pdf, .png or .svg.", parser=options.path),
    ] = None,
    data: Annotated[
        Path | None,
        option(
            "--data",
            "PULSES",
            "Measured pulses to show beside, as `fit` reads them; by default those that a device "
            "file names.",
            parser=options.path,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show devices: number of states, step size, bounds, symmetry point, noise, pulse response.

    The numbers are measured on a real tile of 400 devices. The plot gives some of them pulses, up
    and then down, and marks where each passes its symmetry point. Several are shown side by side;
    of an experiment, the devices of its arrays and those that it sweeps. Beside measured pulses,
    simulated devices get the same pulses.
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise ExperimentError(f"--out {out}: expected a file that ends in {', '.join(SUFFIXES)}")
    chosen = [one for word in dict.fromkeys(devices) for one in _chosen(word, settings or ())]
    if len(chosen) > MAX_SHOWN:
        raise ExperimentError(f"{len(chosen)} devices: expected {MAX_SHOWN} or fewer side by side")
    views = [one.view(data) for one in chosen]
    if out is not None:
        from analogtl.report.pulse_figure import pulse_figure

        try:
            pulse_figure(views).savefig(out)
        except OSError as error:
            raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    if as_json:
        for one, view in zip(chosen, views, strict=True):
            for record in _records(one, view):
                output.emit({"device": view.name, "class": view.device_class, **record})
        return
    if len(views) == 1:
        _show_facts(views[0])
        _show_parameters(chosen[0], views[0])
    else:
        _show_side_by_side(views)
    for view in views:
        print("\n" + _plot(view, titled=len(views) > 1))
    if out is not None:
        output.note(f"figure: {out}")
    else:
        output.note(f"as a figure: analogtl show {' '.join(devices)} --out devices.pdf")


# -- which devices ---------------------------------------------------------------------------------


def _chosen(word: str, settings: Sequence[str]) -> Iterator[Chosen]:
    """The devices that a word of the command line stands for."""
    from analogtl.config.load import apply_overrides, read_source, validate
    from analogtl.config.source import Source, read_toml

    presets = (*catalog.presets(), *catalog.devices())
    is_file = os.path.isfile(word)
    if os.path.lexists(word) and not is_file and word not in (*presets, *shipped_experiments()):
        raise ExperimentError(f"{word}: expected a device, or a plain file with one")
    if not is_file and word not in shipped_experiments() and not word.endswith(".toml"):
        checked("device", word, dict.fromkeys([*presets, *shipped_experiments()]))
    table = read_toml(Path(word), "a device file or an experiment")[0] if is_file else {}
    if word not in presets and ({"name", "extends"} & set(table) or not is_file):
        source = read_source(word, settings)
        folders = (*source.folders, Path())
        yield from _of_experiment(word, validate(source), folders)
        return
    source = Source()
    source.file = "analogtl show"
    device = {"file" if is_file and word not in presets else "preset": word}
    source.data = {"name": "device", "analog": {"device": device}}
    apply_overrides(source, settings)
    yield Chosen(word, validate(source).analog, folders=(Path(),))


def _of_experiment(
    word: str, experiment: Experiment, folders: tuple[Path, ...]
) -> Iterator[Chosen]:
    """The devices of an experiment: at each level of an axis of devices, those of each array."""
    from analogtl.config.load import with_settings

    keys = {key_of(axis): levels for axis, levels in experiment.sweep.axes.items()}
    levels = [(key, level) for key in DEVICE_AXES for level in keys.get(key, ())]
    versions = {
        f"{word}: {level}": with_settings(experiment, {key: level}) for key, level in levels
    }
    for name, one in (versions or {word: experiment}).items():
        analog = one.analog
        yield Chosen(name, analog, folders=folders)
        own = analog.slow_array_device or analog.values("slow_device")
        if own and analog.algorithm not in (Algorithm.SGD, Algorithm.MP):
            yield Chosen(f"{name}, slow array", analog, slow=True, folders=folders)


# -- what is said of them --------------------------------------------------------------------------


def _records(one: Chosen, view: DeviceView) -> Iterator[dict[str, Any]]:
    """Facts and parameters, for JSON."""
    for fact in view.facts:
        yield asdict(fact)
    defaults = catalog.device_parameters(view.device_class)
    for name, value in view.parameters.items():
        interval = one.intervals.get(name)
        yield {"parameter": name, "value": value, "default": defaults[name], "interval": interval}


def _show_facts(view: DeviceView) -> None:
    rows = []
    for fact in view.facts:
        nominal = "" if fact.nominal is None else f"{fact.nominal:.4g}"
        rows.append([fact.name, nominal, _measured(fact), fact.unit, fact.note])
    output.rows_table(
        ["", "set", f"{view.n_devices} devices", "unit", ""],
        rows,
        title=view.title,
        right=(1, 2),
        styles={4: "dim"},
    )


def _show_parameters(one: Chosen, view: DeviceView) -> None:
    """What differs from the class's own values, and how well it is known."""
    defaults, cls, rows = catalog.device_parameters(view.device_class), view.device_class, []
    for name in _own(view):
        interval = one.intervals.get(name, "")
        meaning = catalog.parameter_meaning(cls, name)
        rows.append([name, *map(_cell, (view.parameters[name], interval, defaults[name])), meaning])
    if not rows:
        return
    headings = ["parameter", "value", "interval", "default", ""]
    if not one.intervals:
        headings.remove("interval")
        rows = [[*row[:2], *row[3:]] for row in rows]
    print()
    output.rows_table(headings, rows, right=(1,), styles={len(headings) - 1: "dim"})


def _show_side_by_side(views: Sequence[DeviceView]) -> None:
    facts = [{fact.name: fact for fact in view.facts} for view in views]
    rows = [["device class", *(view.device_class.removesuffix("Device") for view in views)]]
    for name in dict.fromkeys(name for of_one in facts for name in of_one):
        found = [of_one.get(name) for of_one in facts]
        unit = next(fact.unit for fact in found if fact)
        cells = [_measured(fact) or _cell(fact.nominal) if fact else "" for fact in found]
        rows.append([f"{name} ({unit})" if unit else name, *cells])
    for name in dict.fromkeys(name for view in views for name in _own(view)):
        rows.append([name, *(_cell(view.parameters.get(name, "")) for view in views)])
    output.rows_table(["", *(view.name for view in views)], rows, styles={0: "bold"})


def _own(view: DeviceView) -> list[str]:
    """The parameters in which a device differs from its class's own values."""
    defaults, given = catalog.device_parameters(view.device_class), view.parameters
    quiet = set() if given.get("write_noise_std") else {"apply_write_noise_on_set"}
    return [name for name in given if given[name] != defaults[name] and name not in quiet]


def _measured(fact: Fact) -> str:
    if fact.measured is None:
        return "none" if fact.note.startswith("none") else ""
    spread = "" if fact.spread is None else f" ± {fact.spread:.2g}"
    return f"{fact.measured:.4g}{spread}"


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = [_cell(one) for one in value]
        return f"[{', '.join(shown[:4])}{', ...' if len(shown) > 4 else ''}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(view: DeviceView, *, titled: bool) -> str:
    """The pulse response of a few devices, in characters."""
    import plotext

    console, figure = output.console(), plotext.figure
    plotext.add_theme("terminal")  # no background of its own
    figure.clear().theme("terminal").plot_size(min(console.width, PLOT_SIZE[0]), PLOT_SIZE[1])
    shown = min(MAX_LINES, view.weights.shape[1])
    figure.label("weight", axis="y")
    figure.label(f"pulses to {shown} devices, up and then down; {DOT} symmetry point", axis="x")
    if titled:
        figure.title(printable(view.name))
    ticks = [0.0, view.turn, float(view.pulses[-1])]
    figure.ruler("x").ticks(ticks, [f"{tick:g}" for tick in ticks])
    for number in range(shown):
        weights, point = view.weights[:, number], float(view.symmetry_points[number])
        curve = figure.signal(view.pulses.tolist(), weights.tolist(), marker="braille")
        figure.draw(curve.lines())
        crossings = list(view.crossings(number))
        figure.draw(figure.signal(crossings, [point] * len(crossings), marker=DOT))
    plain = not console.is_terminal or console.is_dumb_terminal or console.no_color
    return str(figure.build().string(colorless=plain))
