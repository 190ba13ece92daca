"""The figure of a fit: data, fit, band and residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from analogtl.report import style

if TYPE_CHECKING:
    from analogtl.fitting.choose import Result

SHOWN = 3  # devices
MANY: dict[str, Any] = {"rasterized": True}  # thousands of points: a small file


def fit_figure(result: Result, title: str) -> Figure:
    """Draw a few devices' readings with the fit and its band (95 %), and all residuals."""
    traces, shown = result.pulses.traces, min(SHOWN, len(result.pulses.traces))
    with style.paper_style():
        figure = style.new_figure(height=1.6 * shown + 2.0, width=7.0)
        axes = figure.subplots(shown + 1, 1, squeeze=False)[:, 0]
        figure.suptitle(f"{title}: {result.device_class}", fontsize=8)
        for ax, trace, curve, band in zip(axes, traces, result.curves, result.bands, strict=False):
            k = np.arange(len(curve))
            ax.plot(k, trace.weights, ".", **MANY, color="#5F6773", markersize=2, label="data")
            ax.plot(k, curve, color="#C2410C", label="fit")
            ax.fill_between(
                k,
                curve - 2 * band,
                curve + 2 * band,
                **MANY,
                color="#C2410C",
                alpha=0.2,
                label="± 2 sd",
            )
            ax.set_ylabel("weight")
            ax.set_title(f"device {trace.device}")
        axes[0].legend(ncols=3)
        for trace, residuals in zip(traces, result.residuals, strict=True):
            axes[-1].plot(trace.weights, residuals, ".", **MANY, color="#0B5FA5", markersize=1)
        axes[-2].set_xlabel("pulse")
        axes[-1].set_xlabel("weight")
        axes[-1].set_ylabel("residual / sd")
    return figure
