"""The figure of a device's pulse response, which `analogtl show --out` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from analogtl.report import style

if TYPE_CHECKING:
    from analogtl.crossbar.pulse_response import DeviceView

COLORS = ("#0B5FA5", "#C2410C", "#2E7D32", "#6B4FA0", "#5F6773")


def pulse_figure(view: DeviceView) -> Figure:
    """Draw the pulse response of some devices, and the typical step of all at each weight.

    Left: up and down ramps; a dot marks where each device passes its symmetry point. Right: the
    sizes of up and down steps, which cross at the symmetry point.
    """
    with style.paper_style():
        figure = style.new_figure(height=2.4, width=7.0)
        ramps, steps = figure.subplots(1, 2, width_ratios=(3, 2))
        ramps.axvline(view.turn, color="#999999", linewidth=0.6, linestyle=":")
        for number, point in enumerate(view.symmetry_points):
            color = COLORS[number % len(COLORS)]
            ramps.plot(view.pulses, view.weights[:, number], color=color, linewidth=0.9)
            for crossing in view.crossings(number):
                ramps.plot(
                    crossing, point, "o", color=color, markersize=4.5, markeredgecolor="black"
                )
        ramps.set_xlabel("pulse (up, then down)")
        ramps.set_ylabel("weight")
        ramps.set_title(f"{len(view.symmetry_points)} devices; dots: symmetry points")
        steps.plot(view.grid, view.up, color="#0B5FA5", label="up")
        steps.plot(view.grid, view.down, color="#C2410C", linestyle="--", label="down")
        steps.set_xlabel("weight")
        steps.set_ylabel("step of one pulse")
        steps.set_ylim(bottom=0)
        steps.legend()
        steps.set_title(f"median of {view.n_devices} devices")
        figure.suptitle(f"{view.preset} ({view.device_class})", fontsize=8)
    return figure
