"""Figures of arms: differences, values, learning curves, prices, several measures side by side."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.contrasts import mean_of
from normlab.evidence.crossed_contrasts import mean_interval_over
from normlab.evidence.samples import sample
from normlab.measures.measures import METRICS, Measure, metric_words, unit_of
from normlab.reports.english import axis_words, short_name
from normlab.reports.figures.style import (
    COLOURS,
    FAINT,
    LONGEST_NAME,
    MARKERS,
    across,
    blank,
    colour,
    dash,
    label,
    legend,
    legend_above,
    marker,
    plain,
    row_names,
)
from normlab.reports.ranking import ranked
from normlab.store.record import Record


def differences(comparison: Comparison) -> Figure:
    """Draw a forest plot: each arm's difference to the baseline with its 95% interval, and ticks.

    The ticks are the arm's single runs minus the baseline's mean.
    """
    arms = [arm for arm in ranked(comparison) if arm.difference is not None]
    figure, axes = blank(0.9 + _row(arms) * max(1, len(arms)))
    axes.axvline(0, color=FAINT, linewidth=1)
    for row, arm in enumerate(arms):
        found = arm.difference
        assert found is not None
        shade = colour(comparison, arm)
        low, high = found.interval
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [row, row], color=shade, linewidth=2.4, solid_capstyle="butt")
        if math.isfinite(found.estimate):
            axes.plot(found.estimate, row, marker(comparison, arm), color=shade, markersize=8)
        else:
            axes.text(0, row, "  no interval: too few runs, or a target not reached",
                      va="center", color=FAINT, fontsize=9)  # fmt: skip
        base = comparison.arm(arm.baseline).mean.estimate
        values = arm.sample.values[~arm.sample.censored] - base
        axes.plot(values, np.full(len(values), row + 0.24), "|", color=shade, alpha=0.8,
                  markersize=7)  # fmt: skip
    names, room = row_names(list(map(_counted, arms)))
    axes.set_yticks(range(len(arms)), names)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    higher = comparison.measure.higher_is_better
    note = "" if higher is None else f"  ({'right' if higher else 'left'} is better)"
    words = axis_words(comparison.measure)
    axes.set_xlabel(
        f"{label(words, room)}\n{label(f'minus that of {comparison.against}{note}', room)}"
    )
    return figure


def values(comparison: Comparison) -> Figure:
    """Draw every run's value as a mark, by arm, with the 95% interval of the mean."""
    figure, axes = blank(0.75 + _row(comparison.arms) * len(comparison.arms))
    for row, arm in enumerate(arms := ranked(comparison)):
        shade, own = colour(comparison, arm), arm.sample
        spots = row + 0.22 * (np.arange(len(own)) % 3 - 1) * (len(own) > 1)
        known = ~own.censored
        axes.plot(own.values[known], spots[known], marker(comparison, arm), color=shade,
                  alpha=0.55, markersize=6)  # fmt: skip
        axes.plot(own.values[own.censored], spots[own.censored], ">", color=shade,
                  markerfacecolor="none", markersize=7)  # fmt: skip
        low, high = arm.mean.interval
        if math.isfinite(low):
            axes.plot([low, high], [row, row], color=shade, linewidth=2)
    names, room = row_names(list(map(_counted, arms)))
    axes.set_yticks(range(len(arms)), names)
    axes.set_ylim(len(comparison.arms) - 0.4, -0.6)
    censored = any(arm.sample.censored.any() for arm in comparison.arms)
    note = "\n(an open arrow: not reached by then)" if censored else ""
    axes.set_xlabel(f"{label(axis_words(comparison.measure), room)}{note}")
    return figure


def curves(
    comparison: Comparison,
    metric: str = "test_accuracy",
    *,
    x: str = "step",
    every_seed: bool = False,
) -> Figure:
    """Draw learning curves: the mean over seeds, with its 95% interval as a band.

    Args:
        comparison: the comparison of the arms.
        metric: a column of the metrics.
        x: "step", "epoch" or "train_seconds".
        every_seed: show each run instead of the means; a cross is where one diverged.
    """
    if metric not in METRICS:
        raise UserError(f"no metric is called '{metric}'; {did_you_mean(metric, METRICS)}")
    if not any(metric in row for record in comparison.records for row in record.metrics):
        raise UserError(f"these runs have no '{metric}'")
    figure, axes = blank(3.6)
    for arm in ranked(comparison):
        style = {"color": colour(comparison, arm), "linestyle": dash(comparison, arm),
                 "marker": marker(comparison, arm)}  # fmt: skip
        runs = [record for record in arm.records if record.metrics]
        if every_seed:
            _every_run(axes, arm, runs, metric, x, style)
        else:
            _mean_curve(axes, arm, runs, metric, x, style)
    axes.set_xlabel(across(x))
    axes.set_ylabel(f"{metric_words(metric)}\n({unit_of(metric)})")
    legend(axes)
    return figure


def _every_run(
    axes: Any, arm: Arm, runs: list[Record], metric: str, x: str, style: dict[str, Any]
) -> None:
    for index, record in enumerate(runs):
        along, up = ([row.get(key) for row in record.metrics] for key in (x, metric))
        name = plain(arm.name) if index == 0 else None
        axes.plot(along, up, label=name, linewidth=1, alpha=0.8, **_seen(along, style))
        if record.state == "diverged":
            axes.plot(along[-1:], up[-1:], "x", color=style["color"], markersize=8)
    if not runs:
        axes.plot([], [], label=plain(f"{arm.name} (no evaluation)"), **style)


def _mean_curve(
    axes: Any, arm: Arm, runs: list[Record], metric: str, x: str, style: dict[str, Any]
) -> None:
    """Draw the steps that all finished runs have: a mean of a changing set misleads."""
    whole = [record for record in runs if record.state == "done"]
    tables = [{row["step"]: row for row in record.metrics if metric in row} for record in whole]
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    along = [float(np.mean([table[step][x] for table in tables])) for step in steps]
    columns = [[table[step][metric] for table in tables] for step in steps]
    lost = len(runs) - len(whole)
    name = plain(arm.name) + (f" ({len(whole)} of {len(runs)} runs)" if lost else "")
    means = [np.mean(column) for column in columns]
    axes.plot(along, means, label=name, linewidth=2, **_seen(along, style))
    if len(whole) > 1 and steps:
        seeds = [record.seed for record in whole]
        bands = np.array([mean_interval_over(seeds, column) for column in columns])
        bands[np.isinf(bands)] = np.nan  # where all seeds have the same, there is no band
        axes.fill_between(along, *bands.T, color=style["color"], alpha=0.16, linewidth=0)
        if len(steps) == 1:  # a band of one point has no width
            axes.vlines(along, *bands.T, color=style["color"], linewidth=1.6)


def _seen(along: Sequence[Any], style: dict[str, Any]) -> dict[str, Any]:
    """Show a marker where one evaluation is all there is: a line of one point is not seen."""
    if len(along) > 1:
        return {**style, "marker": ""}
    return {**style, "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.8}


def price(comparison: Comparison, price: str = "seconds_per_step") -> Figure:
    """Draw price against quality: one point an arm, with the interval of its mean."""
    figure, axes = blank(3.4)
    for arm in ranked(comparison):
        if price not in arm.prices or not math.isfinite(arm.mean.estimate):
            axes.plot([], [], marker(comparison, arm), color=colour(comparison, arm),
                      label=plain(f"{arm.name} (not known)"))  # fmt: skip
            continue
        shade, along = colour(comparison, arm), arm.prices[price]
        low, high = arm.mean.interval
        if math.isfinite(low):
            axes.plot([along, along], [low, high], color=shade, linewidth=1.6)
        axes.plot(along, arm.mean.estimate, marker(comparison, arm), color=shade, markersize=9,
                  linestyle="none", label=plain(arm.name))  # fmt: skip
    axes.set_xlabel(Measure(price).words)
    axes.set_xlim(left=0)
    axes.set_ylabel(label(axis_words(comparison.measure), 36))
    legend(axes)
    return figure


def beside(comparison: Comparison, measures: Sequence[str] = ()) -> Figure:
    """Draw each arm's mean of every measure with its 95% interval, and a tick for every run.

    Args:
        comparison: the comparison of the arms.
        measures: the measures, of one unit; the comparison's own if left out.

    Raises:
        UserError: there is no such measure.
    """
    parsed = [Measure.parse(text) for text in measures] or [comparison.measure]
    apart, arms = 0.7 / len(parsed), ranked(comparison)
    figure, axes = blank(0.9 + len(comparison.arms) * max(0.34, 0.16 * len(parsed)))
    for index, measure in enumerate(parsed):
        shade, mark = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for row, arm in enumerate(arms):
            own = sample(arm.name, arm.records, measure)
            place, known = row + apart * (index - (len(parsed) - 1) / 2), own.values[~own.censored]
            axes.plot(known, np.full(len(known), place), "|", color=shade, alpha=0.6, markersize=5)
            found = mean_of(own)
            if math.isfinite(found.interval.low):
                axes.plot(found.interval, [place, place], color=shade, linewidth=1.8)
            if math.isfinite(found.estimate):
                axes.plot(found.estimate, place, mark, color=shade, markersize=5.5)
        axes.plot([], [], mark, color=shade, label=plain(short_name(measure)))
    axes.set_yticks(range(len(arms)), row_names([arm.name for arm in arms])[0])
    axes.set_ylim(len(arms) - 0.45, -0.55)
    legend_above(figure, columns=3)
    return figure


def _row(arms: list[Arm]) -> float:
    """Give each row so many inches; less if there are many, but room for names of two lines."""
    if len(arms) <= 12:
        return 0.42
    return 0.27 if max(len(_counted(arm)) for arm in arms) <= LONGEST_NAME else 0.36


def _counted(arm: Arm) -> str:
    return f"{arm.name}  (n = {len(arm.sample)})"
