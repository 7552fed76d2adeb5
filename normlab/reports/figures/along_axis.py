"""Figures of a measure over an axis of the sweep (batch size, depth, learning rate) or over steps.

With more axes there is a panel for each of their settings, and in each a line for each normaliser.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence.comparison import Comparison
from normlab.evidence.intervals import Interval, mean_interval
from normlab.evidence.samples import sample
from normlab.measures.measures import METRICS, Measure, metric_words, unit_of
from normlab.reports.english import axis_words
from normlab.reports.figures.style import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    WIDTH,
    Picture,
    across,
    framed,
    in_order,
    label,
    legend_above,
    plain,
    turned,
)
from normlab.store.record import Record, axes_of, setting_words

LOG_FROM = 8
"""An axis is logarithmic if its largest value is at least so many times the smallest."""

STEP, HEIGHT, LINE = "step", 2.9, "norm"


class PlottedMean(NamedTuple):
    """One point of a line: the mean, its interval, and how many of the runs diverged."""

    across: float
    mean: float
    interval: Interval
    lost: int = 0
    runs: int = 0


def over(
    comparison: Comparison, axis: str | None = None, *, metric: str | None = None, how: str = ""
) -> Figure:
    """Draw the mean by an axis of the sweep, or by step, with its 95% interval.

    A cross is where all runs diverged, an open ring where some did.

    Args:
        comparison: a comparison of a sweep over that axis.
        axis: the axis, or "step" for curves; the numeric axis with the most values if left out.
        metric: for curves a column of the metrics, or a probe's quantity such as activations.mean.
        how: how a quantity's values become one, as in the measure `probe`.

    Raises:
        UserError: the sweep has no such axis.
    """
    records = comparison.records
    axis = axis or next(iter(numeric_axes(records)), None)
    if axis != STEP and axis not in axes_of(records):
        known = did_you_mean(axis or "", [*axes_of(records), STEP])
        raise UserError(f"the sweep has no axis '{axis or 'of numbers'}'; {known}")
    tied = {axis} if axis == STEP else _tied(records, axis)
    others = [other for other in axes_of(records) if other not in tied]
    by = LINE if LINE in others else next(iter(others), None)
    panels: dict[str, list[Record]] = {}
    for record in records:
        rest = {a: record.axes[a] for a in others if a != by and a in record.axes}
        panels.setdefault(setting_words(rest), []).append(record)
    line_of = {id(record): "" if by is None else str(record.axes.get(by, "")) for record in records}
    lines = in_order(list(line_of.values()))
    figure = Picture(figsize=(WIDTH, HEIGHT), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    ticks = [] if axis == STEP else in_order([record.axes[axis] for record in records])
    for place, (title, own) in zip(row, panels.items(), strict=True):
        framed(place)
        for index, line in enumerate(lines):
            chosen = [record for record in own if line_of[id(record)] == line]
            points = (
                _by_step(chosen, metric or "test_accuracy", how) if axis == STEP
                else _by_axis(chosen, comparison.measure, axis, ticks)
            )  # fmt: skip
            if axis == STEP:
                _curve(place, points, line, index)
            else:
                _bars(place, points, line, index, joined=all(map(_is_number, ticks)))
        if ticks:
            _scale(place, ticks)
        place.set_xlabel(across(axis))
        place.set_title(plain(title), fontsize=9, loc="left", color=INK)
    curve = metric or "test_accuracy"
    unit = f" ({unit_of(curve)})" if curve in METRICS else ""
    words = f"{metric_words(curve)} {how}".strip() + unit
    row[0].set_ylabel(label(words if axis == STEP else axis_words(comparison.measure), 36))
    if by is not None:
        legend_above(figure)
    return figure


def numeric_axes(records: list[Record]) -> list[str]:
    """List the axes with at least two numbers, the one with the most values first."""
    values = {axis: {r.axes.get(axis) for r in records} for axis in axes_of(records)}
    numeric = [axis for axis, own in values.items() if len(own) > 1 and all(map(_is_number, own))]
    return sorted(numeric, key=lambda axis: -len(values[axis]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tied(records: list[Record], axis: str) -> set[str]:
    """Find the axes whose values follow from those of one axis."""
    found = set()
    for other in axes_of(records):
        pairs = {(record.axes.get(axis), str(record.axes.get(other))) for record in records}
        if len(pairs) == len({value for value, _ in pairs}):
            found.add(other)
    return found


def _by_axis(
    records: list[Record], measure: Measure, axis: str, ticks: list[Any]
) -> list[PlottedMean]:
    """Make a point for each value of the axis; names stand at 0, 1, 2."""
    found = []
    for index, tick in enumerate(ticks):
        own = [record for record in records if record.axes[axis] == tick]
        values = sample("", own, measure)
        if len(values) and not values.censored.any():
            lost = sum(record.state == "diverged" for record in own)
            place = tick if _is_number(tick) else index
            found.append(_point(place, values.values, lost, len(own)))
    return found


def _by_step(records: list[Record], metric: str, how: str) -> list[PlottedMean]:
    """Make a point for each step that all finished runs have: a mean of a changing set misleads."""
    tables = [_table(record, metric, how) for record in records if record.state == "done"]
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    return [_point(step, np.array([table[step] for table in tables])) for step in steps]


def _table(record: Record, metric: str, how: str) -> dict[int, float]:
    """Map steps to values of a column of metrics, or of what a probe saw."""
    if metric in METRICS:
        return {row["step"]: row[metric] for row in record.metrics if metric in row}
    steps = dict.fromkeys(row["step"] for row in record.probes if "values" in row)
    seen = {step: Measure("probe", (metric, step, *([how] if how else []))) for step in steps}
    values = {step: measure.of(record) for step, measure in seen.items()}
    return {step: value.number for step, value in values.items() if value is not None}


def _point(across: float, values: np.ndarray, lost: int = 0, runs: int = 0) -> PlottedMean:
    mean, found = float(values.mean()), mean_interval(values)
    return PlottedMean(across, mean, found if math.isfinite(found.low) else Interval(mean, mean),
                 lost, runs)  # fmt: skip


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": turned(DASHES, index),
            "marker": turned(MARKERS, index), "linewidth": 1.8}  # fmt: skip


def _curve(axes: Any, points: list[PlottedMean], name: str, index: int) -> None:
    """Draw means with a band."""
    if points:
        along, means, bands, *_ = zip(*points, strict=True)
        alone = len(points) == 1  # neither a line nor a band of one point is seen
        style = _style(index) | {"markersize": 6 if alone else 0}
        axes.plot(along, means, label=plain(name), **style)
        axes.fill_between(along, *zip(*bands, strict=True), color=style["color"], alpha=0.16,
                          linewidth=0)  # fmt: skip
        if alone:
            axes.vlines(along, *zip(*bands, strict=True), color=style["color"], linewidth=1.4)


def _bars(axes: Any, points: list[PlottedMean], name: str, index: int, joined: bool) -> None:
    """Draw means with a bar each, and lines between them."""
    if points:
        along, means, bars, *_ = zip(*points, strict=True)
        style = _style(index)
        if not joined:
            style["linestyle"] = "none"
        axes.plot(along, means, label=plain(name), markersize=4.5, **style)
        axes.vlines(along, *zip(*bars, strict=True), color=style["color"], linewidth=1.4,
                    alpha=0.7)  # fmt: skip
        for point in points:
            if point.lost:
                mark = "x" if point.lost == point.runs else "o"
                axes.plot(point.across, point.mean, mark, color=style["color"], markersize=9,
                          markerfacecolor="none", zorder=3)  # fmt: skip


def _scale(axes: Any, ticks: list[Any]) -> None:
    if not all(map(_is_number, ticks)):
        axes.set_xticks(
            range(len(ticks)), list(map(plain, ticks)), rotation=20, ha="right", fontsize=8
        )
        return
    if min(ticks) > 0 and max(ticks) >= LOG_FROM * min(ticks):
        axes.set_xscale("log")
    every = 1 + (len(ticks) - 1) // 6
    axes.set_xticks(ticks[::every], [f"{v:g}" for v in ticks[::every]])
    axes.minorticks_off()
