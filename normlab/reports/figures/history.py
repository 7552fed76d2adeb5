"""Draws the learning curves of one training."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from normlab.measures.measures import metric_words, unit_of
from normlab.reports.figures.style import COLOURS, DASHES, MARKERS, across, blank, legend, plain


def draw(history: Sequence[dict[str, Any]], columns: Sequence[str]) -> Figure:
    """Draw some columns of the metrics over the epochs; one evaluation is a marker."""
    figure, axes = blank(3.2)
    for index, name in enumerate(columns):
        rows = [row for row in history if name in row]
        axes.plot(
            [row["epoch"] for row in rows],
            [row[name] for row in rows],
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)] if len(rows) == 1 else "",
            linewidth=2,
            label=plain(metric_words(name)),
        )
    axes.set_xlabel(across("epoch"))
    axes.set_ylabel(unit_of(columns[0]))
    legend(axes)
    return figure
