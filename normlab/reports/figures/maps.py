"""Figures of a whole sweep: a map of the mean by two axes, and profiles over data sets."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normlab.errors import UserError, did_you_mean
from normlab.evidence.comparison import Comparison
from normlab.evidence.inference import performance_profile, profile_band
from normlab.evidence.samples import sample
from normlab.reports.english import axis_words
from normlab.reports.figures import style
from normlab.reports.figures.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    blank,
    in_order,
    label,
    legend,
    plain,
)
from normlab.store.record import axes_of


def heat(comparison: Comparison, rows: str | None = None, columns: str | None = None) -> Figure:
    """Draw the mean by two axes of the sweep; a hatched cell has no finished run.

    Args:
        comparison: a comparison of a sweep over at least two axes besides the seed.
        rows: one axis; the first if left out.
        columns: another; the second if left out.
    """
    names = heat_axes(comparison)
    down, across = rows or names[0], columns or names[1]
    for name in (down, across):
        if name not in names:
            raise UserError(f"the sweep has no axis '{name}'; {did_you_mean(name, names)}")
    ticks = {axis: in_order([r.axes[axis] for r in comparison.records]) for axis in (down, across)}
    grid = np.full((len(ticks[down]), len(ticks[across])), np.nan)
    notes: dict[tuple[int, int], str] = {}
    for i, j in np.ndindex(*grid.shape):
        own = [r for r in comparison.records
               if (r.axes[down], r.axes[across]) == (ticks[down][i], ticks[across][j])]  # fmt: skip
        cell = sample("", own, comparison.measure)
        if len(cell):
            grid[i, j] = cell.values.mean()
        lost = sum(record.state == "diverged" for record in own)
        notes[i, j] = (
            f"{lost} of {len(own)} diverged" if lost else "" if len(own) else "not planned"
        )
    figure, axes = blank(0.9 + 0.5 * grid.shape[0])
    axes.set_facecolor("none")
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    for i, j in np.ndindex(*grid.shape):
        missing = np.isnan(grid[i, j])
        if missing:
            axes.add_patch(_hatched(i, j))
        text = (notes[i, j] or "missing") if missing else f"{grid[i, j]:.3g}\n{notes[i, j]}".strip()
        light = not missing and image.norm(grid[i, j]) > 0.55
        shade = INK if missing else "#000000" if light else "#ffffff"
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=shade)
    axes.set_xticks(range(grid.shape[1]), list(map(plain, ticks[across])))
    axes.set_yticks(range(grid.shape[0]), list(map(plain, ticks[down])))
    axes.set_xlabel(style.across(across))
    axes.set_ylabel(style.across(down))
    axes.set_title(label(f"mean {axis_words(comparison.measure)}"), fontsize=10, loc="left",
                   color=INK)  # fmt: skip
    axes.grid(False)
    return figure


def heat_axes(comparison: Comparison) -> list[str]:
    """List the axes that a heat map can have: all that vary, without the seed.

    Raises:
        UserError: there are fewer than two.
    """
    found = [
        axis for axis in axes_of(comparison.records)
        if all(axis in r.axes for r in comparison.records)
        and len({str(r.axes[axis]) for r in comparison.records}) > 1
    ]  # fmt: skip
    if len(found) < 2:
        raise UserError(f"a heat map needs two axes besides the seed; these vary: {found}")
    return found


def profile(comparison: Comparison, axis: str = "data") -> Figure:
    """Draw performance profiles: the share of runs that reach each value; data sets count alike."""
    if not all(axis in record.axes for record in comparison.records):
        raise UserError(f"a profile needs several data sets: an axis '{axis}' of the sweep")
    scores: dict[str, dict[str, list[float]]] = {}
    for record in comparison.records:
        value = comparison.measure.of(record) if record.finished else None
        if value is not None:
            rest = ", ".join(str(v) for a, v in record.axes.items() if a != axis)
            own = scores.setdefault(rest, {})
            own.setdefault(str(record.axes[axis]), []).append(value.number)
    every = [v for own in scores.values() for values in own.values() for v in values]
    thresholds = np.linspace(min(every), max(every), 101)
    figure, axes = blank(3.2)
    for index, (arm, own) in enumerate(scores.items()):
        shade = COLOURS[index % len(COLOURS)]
        low, high = profile_band(own, thresholds, resamples=500)
        axes.fill_between(thresholds, low, high, color=shade, alpha=0.16, linewidth=0)
        axes.plot(thresholds, performance_profile(own, thresholds), label=plain(arm), color=shade,
                  linestyle=DASHES[index % len(DASHES)], linewidth=2)  # fmt: skip
    axes.set_xlabel(label(f"{axis_words(comparison.measure)} of at least"))
    axes.set_ylabel("share of runs")
    legend(axes)
    return figure


def _hatched(i: int, j: int) -> Any:
    return Rectangle(
        (j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", edgecolor=FAINT, linewidth=0
    )
