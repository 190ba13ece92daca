"""The picture of what diffusion models draw: points in the plane, or small grey images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analogtl.report import style
from analogtl.report.drawing import Drawing
from analogtl.vocabulary import arm_label, arm_style

MAX_PANELS = 18
_COLUMNS = 3  # panels beside one another
_ACROSS = 6  # images of a panel beside one another
_LETTERS = 20  # of a line of a panel's title


def samples_figure(samples: Mapping[tuple[str, str], NDArray[np.float64]]) -> Drawing:
    """A panel of samples for each arm and setting.

    Args:
        samples: Arm and setting -> samples (N, D); two numbers are a point, a square of them an
            image.
    """
    lines = math.ceil(len(samples) / _COLUMNS)
    columns = min(_COLUMNS, len(samples))
    fig = style.new_figure(1.4 * lines + 0.1)
    labels = [", ".join(filter(None, (arm_label(arm), setting))) for arm, setting in samples]
    drawing = Drawing(fig, "arm", labels, ["samples"], "Samples of one trial of each.")
    axes = fig.subplots(lines, columns, squeeze=False).ravel()
    for ax, label, ((arm, setting), drawn) in zip(axes, labels, samples.items(), strict=False):
        if drawn.shape[1] == 2:
            look: dict[str, Any] = {"markersize": 1.5, "color": arm_style(arm).color}
            ax.plot(*drawn.T, ".", **look, alpha=0.6, rasterized=True)  # as SVG it takes 100 kB
            ax.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
        else:
            _images(ax, drawn)
            ax.spines[:].set_visible(False)
        ax.set(xticks=[], yticks=[])
        parts = [wrap(part, _LETTERS) for part in (arm_label(arm), setting)]
        ax.set_title("\n".join(chain(*parts)), fontsize=style.SMALL)
        drawing.numbers[label, "samples"] = str(len(drawn))
    for ax in axes[len(samples) :]:
        ax.set_visible(False)
    return drawing


def _images(ax: Axes, drawn_ND: NDArray[np.float64]) -> None:
    """Tile images into one, a pixel of white between them."""
    side = math.isqrt(drawn_ND.shape[1])
    lines = math.ceil(len(drawn_ND) / _ACROSS)
    low, high = -1.0, 2.0  # of normalised grey levels
    page = np.full((lines * (side + 1), _ACROSS * (side + 1)), low)
    for number, one in enumerate(drawn_ND[:, : side * side]):
        row, column = divmod(number, _ACROSS)
        top, left = row * (side + 1), column * (side + 1)
        page[top : top + side, left : left + side] = one.reshape(side, side)
    ax.imshow(page, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
