"""Compares arms with seeds whose streams are crossed, so that runs share streams."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from normlab.evidence.crossed import on_grid
from normlab.evidence.estimates import (
    IntervalEstimate,
    correlation,
    exactly,
    no_interval,
    without_spread,
)
from normlab.evidence.intervals import Interval, equal, mean_interval, unseen
from normlab.evidence.samples import Sample, same_runs
from normlab.measures.claims import Quantity
from normlab.store.seeds import shared, varying


def crossed_contrast(
    left: Sample, right: Sample, quantity: Quantity, paired: bool | None
) -> IntervalEstimate:
    """Compare two arms with seeds whose streams are crossed, so that runs share streams.

    Runs that share a stream are no repetitions of each other. The interval is that of the mean over
    new numbers of every stream that varies (`crossed.Grid.error`). Arms that begin alike are
    compared combination by combination.
    """
    n = (len(left), len(right))
    if not min(n) or left.censored.any() or right.censored.any():
        return no_interval(quantity, math.nan, n, "no interval is known of ranks on crossed seeds")
    means = float(left.values.mean()), float(right.values.mean())
    estimate = means[0] - means[1]
    if quantity == "ratio":
        estimate = means[0] / means[1] if means[1] else math.nan
    same = left.seeds == right.seeds
    if left.exact and right.exact and equal(left.values) and equal(right.values):
        return exactly(quantity, estimate, n, "settled by the configs")
    if same and paired is not False and same_runs(left, right):
        return exactly(quantity, 0.0 if quantity == "difference" else 1.0, n, "the same runs")
    if quantity == "ratio":
        lacking = "no interval is known of a ratio on crossed seeds: claim a difference"
        return no_interval(quantity, estimate, n, lacking)
    if paired and not same:
        return no_interval(quantity, estimate, n, "the arms have not the same seeds, to be paired")
    by_design = left.origins != () and left.origins == right.origins
    if same and (by_design if paired is None else paired):
        found = of_grids(quantity, estimate, n, [minus(left, right)], paired=True)
        return replace(found, correlation=correlation(left.values, right.values))
    return of_grids(quantity, estimate, n, [left, right])


def minus(left: Sample, right: Sample) -> Sample:
    """Return the seeds' differences of two arms with the same seeds, as the values of one arm."""
    return Sample(
        f"{left.name} minus {right.name}",
        left.seeds,
        left.values - right.values,
        np.zeros(len(left), bool),
        len(left),
        grain=max(left.grain, right.grain),
        counted=left.counted and right.counted,
    )


def of_grids(
    quantity: Quantity,
    estimate: float,
    n: tuple[int, ...],
    arms: Sequence[Sample],
    paired: bool = False,
) -> IntervalEstimate:
    """Return an estimate whose error is that of one grid of crossed seeds, or the sum of two."""
    grids = [on_grid(arm.seeds, arm.values) for arm in arms]
    if any(grid is None for grid in grids):
        lacking = (
            "runs share streams of their seeds, and not every combination of these has a value"
        )
        return no_interval(quantity, estimate, n, lacking)
    errors = [grid.error for grid in grids if grid is not None]
    variance = sum(error for error, _ in errors)
    if not variance:
        return no_interval(quantity, estimate, n, without_spread(*(arm.name for arm in arms)))
    freedom = variance**2 / sum(error**2 / degrees for error, degrees in errors)
    fewest = min(min(grid.values.shape) for grid in grids if grid is not None)
    grain = max(arm.grain if arm.counted else 0.0 for arm in arms)
    streams = varying(arms[0].seeds)

    def at(level: float) -> Interval:
        t = float(special.stdtrit(freedom, (1 + level) / 2))
        half = math.hypot(t * math.sqrt(variance), unseen(grain, fewest, level))
        return Interval(estimate - half, estimate + half)

    method = f"Satterthwaite's t, seeds crossed by {' and '.join(streams)}"
    return IntervalEstimate(quantity, estimate, method, paired, n, at)


def mean_interval_over(seeds: Sequence[int], values: Sequence[float]) -> Interval:
    """Return the 95% interval of the mean of one value a seed, whether streams are crossed or not.

    >>> [round(end, 3) for end in mean_interval_over([0, 1, 2], [0.5, 0.6, 0.7])]
    [0.352, 0.848]
    """
    if not shared(seeds):
        return mean_interval(values)
    own, n = np.asarray(values, float), len(values)
    one = Sample("", tuple(seeds), own, np.zeros(n, bool), n)
    return of_grids("mean", float(own.mean()), (n,), [one]).interval
