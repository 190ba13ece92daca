"""The figure of devices' pulse responses, which `analogtl show --out` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analogtl.report import style

if TYPE_CHECKING:
    from analogtl.crossbar.pulse_response import DeviceView

COLORS = ("#0B5FA5", "#C2410C", "#2E7D32", "#6B4FA0", "#5F6773")
COLUMN = 2.2  # inches of a device, where there are several


def pulse_figure(views: Sequence[DeviceView]) -> Figure:
    """Draw the pulse response of some devices, and the typical step of all at each weight.

    Ramps up and down: a dot marks where each device passes its symmetry point. Steps: the sizes of
    up and down steps, which cross there. One device has them side by side; several have a column
    each, ramps above steps, with one scale of the weight.
    """
    with style.paper_style():
        if len(views) == 1:
            figure = style.new_figure(height=2.4, width=7.0)
            axes = figure.subplots(1, 2, width_ratios=(3, 2), squeeze=False).T
            figure.suptitle(views[0].title, fontsize=8)
        else:
            figure = style.new_figure(height=4.2, width=max(5.6, COLUMN * len(views)))
            axes = figure.subplots(2, len(views), squeeze=False)
            above = "; ".join(dict.fromkeys(map(_shown, views)))
            figure.suptitle(f"{above}; below: {_measured(views[0])}", fontsize=8)
            for ramps, steps in axes[:, 1:].T:  # one scale of the weight; steps differ too much
                ramps.sharey(axes[0, 0])
                steps.sharex(axes[1, 0])
        for number, view in enumerate(views):
            ramps, steps = axes[:, number]
            _draw_ramps(ramps, view)
            _draw_steps(steps, view, legend=not number)
            if len(views) == 1:
                ramps.set_title(_shown(view))
                steps.set_title(_measured(view))
            else:
                ramps.set_title(view.name.replace(": ", ":\n"))
            if number:
                ramps.set_ylabel("")
                steps.set_ylabel("")
    return figure


def _shown(view: DeviceView) -> str:
    if view.replays:
        return "dots: measured; line, band: median and 90 % of simulated"
    return f"{len(view.symmetry_points)} devices; dots: symmetry points"


def _measured(view: DeviceView) -> str:
    return f"median of {view.n_devices} devices"


def _draw_ramps(ramps: Axes, view: DeviceView) -> None:
    if view.replays:
        _draw_replays(ramps, view)
        return
    ramps.axvline(view.turn, color="#999999", linewidth=0.6, linestyle=":")
    for number, point in enumerate(view.symmetry_points):
        color = COLORS[number % len(COLORS)]
        ramps.plot(view.pulses, view.weights[:, number], color=color, linewidth=0.9)
        for crossing in view.crossings(number):
            ramps.plot(crossing, point, "o", color=color, markersize=4.5, markeredgecolor="black")
    ramps.set_xlabel("pulse (up, then down)")
    ramps.set_ylabel("weight")


def _draw_replays(ramps: Axes, view: DeviceView) -> None:
    for number, one in enumerate(view.replays[: len(COLORS)]):
        color = COLORS[number % len(COLORS)]
        ramps.fill_between(one.pulses, one.low, one.high, color="#D5D9DE", linewidth=0, zorder=1)
        ramps.plot(one.pulses, one.middle, color="black", linewidth=0.8, zorder=3)
        dots = ramps.plot(one.pulses, one.measured, ".", color=color, markersize=2.5, zorder=2)
        dots[0].set_markeredgewidth(0)
    ramps.set_xlabel("pulse, as measured")
    ramps.set_ylabel("weight")


def _draw_steps(steps: Axes, view: DeviceView, *, legend: bool) -> None:
    steps.plot(view.grid, view.up, color="#0B5FA5", label="up")
    steps.plot(view.grid, view.down, color="#C2410C", linestyle="--", label="down")
    steps.set_xlabel("weight")
    steps.set_ylabel("step of one pulse")
    steps.set_ylim(bottom=0)
    if legend:
        steps.legend()
