"""Computes and draws how quantities grow along an axis: slopes in log-log coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from normlab.reports.figures.style import COLOURS, DASHES, FAINT, MARKERS, SVG, framed, legend

Quantities = dict[str, float]


def slope(values: Sequence[float], found: Sequence[float]) -> float:
    """Fit a line to the logarithms by least squares and return its slope.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 3)
    2.0
    """
    return float(np.polyfit(np.log(values), np.log(found), 1)[0])


def slopes(points: Mapping[int, Quantities]) -> Quantities:
    """Compute the slope of every quantity of an axis."""
    names = next(iter(points.values()))
    return {name: slope([*points], [q[name] for q in points.values()]) for name in names}


def draw(results: Mapping[str, Mapping[int, Quantities]]) -> Figure:
    """Draw a panel per axis, with every quantity relative to its first point."""
    columns = 4
    rows = -(-len(results) // columns)
    with matplotlib.rc_context(SVG):
        figure = Figure(figsize=(3.2 * columns, 3.0 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (axis, points) in zip(panels, results.items(), strict=False):
            _panel(framed(axes), axis, points)
        for axes in list(panels)[len(results) :]:
            axes.set_visible(False)
    return figure


def _panel(axes: Any, axis: str, points: Mapping[int, Quantities]) -> None:
    values = np.array([*points], float)
    for index, (name, own) in enumerate(slopes(points).items()):
        found = np.array([quantities[name] for quantities in points.values()])
        style = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": DASHES[index]}
        axes.loglog(values, found / found[0], label=f"{name}: {own:.2f}", markersize=4, **style)
    axes.loglog(values, values / values[0], color=FAINT, linewidth=0.8, label="linear")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(axis)
    axes.set_ylabel("times the first")
    legend(axes)
