"""The figure of what training costs: energy by term, of arms and levels or of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analogtl.analysis.costs import ENERGIES, Costs
from analogtl.analysis.summaries import setting_text
from analogtl.report import style
from analogtl.report.cost_tables import unit_of
from analogtl.report.drawing import Drawing
from analogtl.report.figures import short_names
from analogtl.vocabulary import arm_label


def cost_bars(frame: pd.DataFrame, names: Sequence[str], corner: str) -> Drawing:
    """Stack the energy of each row by term; beside it, how many times that is done digitally.

    Args:
        names: What to call each row.
        corner: What the rows are.
    """
    colors = [light for light, _ in style.setting_colors(len(ENERGIES))]
    known = [
        (term, frame[f"energy_{term.name}"].to_numpy(float), color)
        for term, color in zip(ENERGIES, colors, strict=True)
        if f"energy_{term.name}" in frame and frame[f"energy_{term.name}"].gt(0).any()
    ]
    whole, digital = (frame[key].to_numpy(float) for key in ("energy", "same_energy"))
    unit, factor = unit_of(whole, "J")
    ratios = np.divide(digital, whole, out=np.full(len(frame), np.nan), where=whole > 0)
    caption = "Mean over trials."
    if np.isfinite(ratios).any():
        caption += " Beside each bar: the energy of the same training done digitally."
    columns = [*(term.label for term, _, _ in known), "energy", "the same digitally"]
    fig = style.new_figure(0.55 + 0.17 * max(len(frame), 2))
    drawing = Drawing(fig, corner, list(names), columns, caption)
    ax = fig.subplots()
    places = np.arange(len(frame))
    start = np.zeros(len(frame))
    handles: list[Any] = []
    for term, energy, color in known:
        part = factor * np.nan_to_num(energy)
        handles.append(
            ax.barh(places, part, left=start, height=0.62, color=color, label=term.label)
        )
        told = [(x, term.label, f"{y:.3g} {unit}") for x, y in zip(names, part, strict=True)]
        drawing.tell(ax, list(start + part / 2), list(places), told)
        start = start + part
    told = [(x, "energy", f"{y:.3g} {unit}") for x, y in zip(names, factor * whole, strict=True)]
    drawing.tell(ax, list(start), list(places), told)
    for place, name, ratio, other in zip(places, names, ratios, factor * digital, strict=True):
        if np.isfinite(ratio):
            drawing.numbers[name, "the same digitally"] = f"{other:.3g} {unit}"
            times = f"digitally {float(f'{ratio:.2g}'):g} x"
            ax.annotate(
                times, (start[place], place), (3, 0), textcoords="offset points", va="center",
                fontsize=style.SMALL, color=style.MUTED,
            )  # fmt: skip
    ax.set(xlabel=f"energy ({unit})", ylim=(len(frame) - 0.4, -0.6))
    ax.set_xlim(0, 1.4 * max(start.max(), 1e-12))
    ax.set_yticks(places, short_names(list(names)), fontsize=style.SMALL)
    ax.grid(visible=False, axis="y")
    fig.legend(handles=handles, loc="outside upper center", ncols=2, borderaxespad=0.1)
    fig.set_figheight(fig.get_figheight() + 0.15 * ((len(handles) + 1) // 2))
    return drawing


def names_of(costs: Costs, frame: pd.DataFrame) -> list[str]:
    """Arm and level of each row of the totals."""
    levels = (setting_text({a: row[a] for a in costs.axes}) for row in frame.to_dict("records"))
    arms = map(arm_label, frame["arm"])
    return [", ".join(filter(None, pair)) for pair in zip(arms, levels, strict=True)]
