"""Several measures of one unit side by side: stored beside adapted, training beside test."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from normlab.evidence.compare import Comparison
from normlab.evidence.contrasts import mean_of
from normlab.evidence.samples import sample
from normlab.measures.measures import Measure
from normlab.reports.english import short_name
from normlab.reports.style import COLOURS, INK, MARKERS, blank, plain


def beside(comparison: "Comparison", measures: Sequence[str] = ()) -> Figure:
    """Each arm's mean of every measure with its 95% interval, and a tick for every run.

    Args:
        comparison: whose arms.
        measures: what to show; the comparison's own if left out. They should be of one unit.

    Raises:
        UserError: there is no such measure.
    """
    parsed = [Measure.parse(text) for text in measures] or [comparison.measure]
    apart = 0.7 / len(parsed)
    figure, axes = blank(0.9 + len(comparison.arms) * max(0.34, 0.16 * len(parsed)))
    for index, measure in enumerate(parsed):
        shade, mark = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for row, arm in enumerate(comparison.arms):
            own = sample(arm.name, arm.records, measure)
            place, known = row + apart * (index - (len(parsed) - 1) / 2), own.values[~own.censored]
            axes.plot(known, np.full(len(known), place), "|", color=shade, alpha=0.6, markersize=5)
            found = mean_of(own)
            if math.isfinite(found.interval.low):
                axes.plot(found.interval, [place, place], color=shade, linewidth=1.8)
            if math.isfinite(found.estimate):
                axes.plot(found.estimate, place, mark, color=shade, markersize=5.5)
        axes.plot([], [], mark, color=shade, label=plain(short_name(measure)))
    axes.set_yticks(range(len(comparison.arms)), [plain(a.name) for a in comparison.arms])
    axes.set_ylim(len(comparison.arms) - 0.45, -0.55)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False,
                  fontsize=9, labelcolor=INK, ncols=3)  # fmt: skip
    return figure
