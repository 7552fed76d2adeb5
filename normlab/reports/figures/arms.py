"""Figures of a comparison, by matplotlib: to look at, to restyle, to print.

Every function takes a `Comparison` and returns a `Figure`.
"""

import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence.compare import Arm, Comparison
from normlab.evidence.intervals import mean_interval
from normlab.evidence.samples import sample
from normlab.measures.measures import METRICS
from normlab.reports.along_axis import over
from normlab.reports.probe_figures import probes
from normlab.reports.side_by_side import beside
from normlab.reports.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    blank,
    colour,
    dash,
    in_order,
    legend,
    marker,
    plain,
)
from normlab.store.record import Record

LONGEST_NAME = 40
"""Of an arm in one line, in characters."""


def differences(comparison: "Comparison") -> Figure:
    """A forest plot: each arm's difference to the baseline, with its 95% interval and its dots.

    The dots are the arm's single runs less the baseline's mean.
    """
    arms = [arm for arm in comparison.arms if arm.difference is not None]
    figure, axes = blank(0.75 + _row(arms) * max(1, len(arms)))
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
    axes.set_yticks(range(len(arms)), [_counted(arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    higher = comparison.measure.higher_is_better
    note = "" if higher is None else f"  ({'right' if higher else 'left'} is better)"
    axes.set_xlabel(f"{plain(comparison.measure)} less that of\n{plain(comparison.against)}{note}")
    return figure


def values(comparison: "Comparison") -> Figure:
    """Every run's value as a dot, by arm, with the mean and its 95% interval."""
    figure, axes = blank(0.75 + _row(comparison.arms) * len(comparison.arms))
    for row, arm in enumerate(comparison.arms):
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
    axes.set_yticks(range(len(comparison.arms)), [_counted(arm) for arm in comparison.arms])
    axes.set_ylim(len(comparison.arms) - 0.4, -0.6)
    axes.set_xlabel(f"{plain(comparison.measure)}; an open arrow: not reached by then")
    return figure


def curves(
    comparison: "Comparison",
    metric: str = "test_accuracy",
    *,
    x: str = "step",
    every_seed: bool = False,
) -> Figure:
    """Learning curves: the mean over seeds with the 95% interval of the mean as a band.

    Args:
        comparison: whose arms.
        metric: a column of the metrics.
        x: "step", "epoch" or "train_seconds".
        every_seed: show each run instead of the means; a cross is where one diverged.
    """
    if metric not in METRICS:
        raise UserError(f"no metric is called '{metric}'; {did_you_mean(metric, METRICS)}")
    figure, axes = blank(3.6)
    for arm in comparison.arms:
        style = {"color": colour(comparison, arm), "linestyle": dash(comparison, arm)}
        runs = [record for record in arm.records if record.metrics]
        if every_seed:
            _every_run(axes, arm, runs, metric, x, style)
        else:
            _mean_curve(axes, arm, runs, metric, x, style)
    axes.set_xlabel({"train_seconds": "seconds of training"}.get(x, x))
    axes.set_ylabel(metric.replace("_", " "))
    legend(axes)
    return figure


def _every_run(
    axes: Any, arm: "Arm", runs: list[Record], metric: str, x: str, style: dict[str, Any]
) -> None:
    for index, record in enumerate(runs):
        across, up = ([row.get(key) for row in record.metrics] for key in (x, metric))
        label = plain(arm.name) if index == 0 else None
        axes.plot(across, up, label=label, linewidth=1, alpha=0.8, **style)
        if record.state == "diverged":
            axes.plot(across[-1:], up[-1:], "x", color=style["color"], markersize=8)


def _mean_curve(
    axes: Any, arm: "Arm", runs: list[Record], metric: str, x: str, style: dict[str, Any]
) -> None:
    """Over the steps that every finished run has: a mean of a changing set would mislead."""
    whole = [record for record in runs if record.state == "done"]
    tables = [{row["step"]: row for row in record.metrics if metric in row} for record in whole]
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    if not steps:
        return
    across = [float(np.mean([table[step][x] for table in tables])) for step in steps]
    columns = [[table[step][metric] for table in tables] for step in steps]
    lost = len(runs) - len(whole)
    label = plain(arm.name) + (f" ({len(whole)} of {len(runs)} runs)" if lost else "")
    axes.plot(across, [np.mean(column) for column in columns], label=label, linewidth=2, **style)
    if len(whole) > 1:
        bands = np.array([mean_interval(column) for column in columns])
        bands[np.isinf(bands)] = np.nan  # where all seeds have the same, there is no band
        axes.fill_between(across, *bands.T, color=style["color"], alpha=0.16, linewidth=0)


def price(comparison: "Comparison", price: str = "seconds_per_step") -> Figure:
    """Price against quality: one point an arm, with the interval of its mean."""
    figure, axes = blank(3.4)
    for arm in comparison.arms:
        if price not in arm.prices or not math.isfinite(arm.mean.estimate):
            continue
        shade, across = colour(comparison, arm), arm.prices[price]
        low, high = arm.mean.interval
        if math.isfinite(low):
            axes.plot([across, across], [low, high], color=shade, linewidth=1.6)
        axes.plot(across, arm.mean.estimate, marker(comparison, arm), color=shade, markersize=9,
                  linestyle="none", label=plain(arm.name))  # fmt: skip
    axes.set_xlabel(price.replace("_", " ") + {"peak_memory": " (MB)"}.get(price, ""))
    axes.set_xlim(left=0)
    axes.set_ylabel(plain(comparison.measure))
    legend(axes)
    return figure


def heat(comparison: "Comparison", rows: str | None = None, columns: str | None = None) -> Figure:
    """The mean by two axes of the sweep; a hatched cell has no finished run.

    Args:
        comparison: of a sweep over at least two axes besides the seed.
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
    axes.set_xlabel(plain(across))
    axes.set_ylabel(plain(down))
    axes.set_title(f"mean {plain(comparison.measure)}", fontsize=10, loc="left", color=INK)
    axes.grid(False)
    return figure


def heat_axes(comparison: "Comparison") -> list[str]:
    """The axes that a heat map can have: those, besides the seed, that vary.

    Raises:
        UserError: there are fewer than two.
    """
    every = dict.fromkeys(axis for record in comparison.records for axis in record.axes)
    found = [
        axis for axis in every
        if all(axis in r.axes for r in comparison.records)
        and len({str(r.axes[axis]) for r in comparison.records}) > 1
    ]  # fmt: skip
    if len(found) < 2:
        raise UserError(f"a heat map needs two axes besides the seed; these vary: {found}")
    return found


def profile(comparison: "Comparison", axis: str = "data") -> Figure:
    """Performance profiles: the share of runs that reach each value, every data set alike."""
    from normlab.evidence.inference import performance_profile, profile_band

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
    axes.set_xlabel(f"{plain(comparison.measure)} of at least")
    axes.set_ylabel("share of runs")
    legend(axes)
    return figure


KINDS: dict[str, Callable[..., Figure]] = {
    "differences": differences,
    "curves": curves,
    "values": values,
    "price": price,
    "heat": heat,
    "over": over,
    "beside": beside,
    "profile": profile,
    "probes": probes,
}
"""What `Comparison.plot` can draw."""


def _row(arms: list["Arm"]) -> float:
    """Inches for each: less where they are many."""
    return 0.42 if len(arms) <= 12 else 0.27


def _counted(arm: "Arm") -> str:
    # In lines, for a name with many arguments would leave no room for the picture.
    lines = textwrap.wrap(f"{arm.name}  (n = {len(arm.sample)})", LONGEST_NAME)
    return "\n".join(map(plain, lines))


def _hatched(i: int, j: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", edgecolor=FAINT, linewidth=0
    )
