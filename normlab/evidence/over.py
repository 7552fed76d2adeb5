"""A measure over a numeric axis of the sweep: batch size, depth, learning rate."""

import math
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence.contrasts import mean_of
from normlab.evidence.samples import sample
from normlab.evidence.style import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    WIDTH,
    Picture,
    framed,
    in_order,
)
from normlab.runs.record import Record

if TYPE_CHECKING:
    from normlab.evidence.compare import Comparison

LOG_FROM = 8
"""An axis whose largest value is so many times the smallest is drawn on a log scale."""

HEIGHT = 3.2


def over(comparison: "Comparison", axis: str | None = None) -> Figure:
    """The mean by a numeric axis of the sweep, with its 95% interval: a line for each arm.

    With more axes there is a panel for each of their settings. A cross is where all runs diverged,
    and an open mark where some did.

    Args:
        comparison: of a sweep over a numeric axis.
        axis: which; that with the most values if left out.

    Raises:
        UserError: the sweep has no such axis.
    """
    records = comparison.records
    names = numeric_axes(records)
    if not names:
        raise UserError("a curve over an axis needs a sweep over numbers, such as batch_size")
    if axis is not None and axis not in names:
        raise UserError(f"the sweep has no numeric axis '{axis}'; {did_you_mean(axis, names)}")
    axis = axis or names[0]
    tied = _tied(records, axis)
    others = [other for other in _axes(records) if other not in tied]
    by = "norm" if "norm" in others else next(iter(others), None)
    panels: dict[str, list[Record]] = {}
    for record in records:
        rest = [_word(a, record.axes[a]) for a in others if a != by and a in record.axes]
        panels.setdefault(", ".join(rest), []).append(record)
    lines = in_order([str(record.axes.get(by, "")) for record in records])
    figure = Picture(figsize=(WIDTH, HEIGHT), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, (title, own) in zip(row, panels.items(), strict=True):
        framed(place)
        for index, line in enumerate(lines):
            _line(place, comparison, [r for r in own if str(r.axes.get(by, "")) == line], axis,
                  line, index)  # fmt: skip
        _scale(place, in_order([r.axes[axis] for r in records]))
        place.set_xlabel(axis.replace("_", " "))
        place.set_title(title, fontsize=9, loc="left", color=INK)
    row[0].set_ylabel(str(comparison.measure))
    handles, labels = row[0].get_legend_handles_labels()
    if by is not None:
        figure.legend(handles, labels, loc="outside upper left", frameon=False, fontsize=9,
                      labelcolor=INK, ncols=4)  # fmt: skip
    return figure


def numeric_axes(records: list[Record]) -> list[str]:
    """The sweep's axes of at least two numbers, that with the most values first."""
    values = {axis: {r.axes.get(axis) for r in records} for axis in _axes(records)}
    numeric = [
        axis for axis, own in values.items()
        if len(own) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in own)
    ]  # fmt: skip
    return sorted(numeric, key=lambda axis: -len(values[axis]))


def _axes(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(axis for record in records for axis in record.axes))


def _tied(records: list[Record], axis: str) -> set[str]:
    """The axes that go with one: it tells their values."""
    found = set()
    for other in _axes(records):
        pairs = {(record.axes[axis], str(record.axes.get(other))) for record in records}
        if len(pairs) == len({value for value, _ in pairs}):
            found.add(other)
    return found


def _word(axis: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{axis}={value}"


def _line(
    axes: Any, comparison: "Comparison", records: list[Record], axis: str, label: str, index: int
) -> None:
    """One arm's points, the mean of each with its interval."""
    shade = COLOURS[index % len(COLOURS)]
    # Colours repeat from the ninth line on, but not together with their marks and dashes.
    turn = index + index // len(COLOURS)
    across, up, bars = [], [], []
    for value in in_order([record.axes[axis] for record in records]):
        own = [record for record in records if record.axes[axis] == value]
        found = sample(label, own, comparison.measure)
        known = len(found) > 0 and not found.censored.any()
        if not known:
            continue
        middle, (low, high) = float(found.values.mean()), mean_of(found).interval
        across.append(value)
        up.append(middle)
        bars.append((low, high) if math.isfinite(low) else (middle, middle))
        lost = sum(record.state == "diverged" for record in own)
        if lost:
            whole = lost == len(own)
            axes.plot(value, middle, "x" if whole else "o", color=shade, markersize=9,
                      markerfacecolor="none", zorder=3)  # fmt: skip
    style = {"color": shade, "linestyle": DASHES[turn % len(DASHES)],
             "marker": MARKERS[turn % len(MARKERS)]}  # fmt: skip
    axes.plot(across, up, label=label, linewidth=1.8, markersize=4.5, **style)
    axes.vlines(across, [low for low, _ in bars], [high for _, high in bars], color=shade,
                linewidth=1.4, alpha=0.7)  # fmt: skip


def _scale(axes: Any, ticks: list[float]) -> None:
    if min(ticks) > 0 and max(ticks) >= LOG_FROM * min(ticks):
        axes.set_xscale("log")
    every = 1 + (len(ticks) - 1) // 6
    axes.set_xticks(ticks[::every], [f"{v:g}" for v in ticks[::every]])
    axes.minorticks_off()
