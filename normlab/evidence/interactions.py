"""Estimates a difference of differences: whether two arms differ otherwise in other conditions."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from normlab.evidence.contrasts import ONE_RUN, contrast
from normlab.evidence.estimates import IntervalEstimate, no_interval
from normlab.evidence.intervals import Interval, equal, unseen
from normlab.evidence.samples import Sample


def interaction(
    first: Sequence[Sample], second: Sequence[Sample], paired: bool | None = None
) -> IntervalEstimate:
    """Estimate `(left - right)` of the first pair of arms minus that of the second.

    Runs of one seed that share data, model and training begin alike and see the same batches, in
    all four arms if only the normaliser and the optimiser differ. The difference of the differences
    is then one number a seed, and Student's t of these numbers gives the interval. If only the arms
    of each pair share them (across widths, say), each pair gives one difference a seed, and Welch's
    t compares the two sets. If nothing is shared, the four variances are added (Satterthwaite
    1946).

    Args:
        first: left and right arm at the first value.
        second: left and right arm at the second value.
        paired: whether runs are paired by seed; None lets their configs decide, as in `contrast`.
    """
    arms = (*first, *second)
    n = tuple(map(len, arms))
    if any(arm.censored.any() for arm in arms):
        why = "some runs never reached the target, and ranks give no difference of differences"
        return no_interval("difference", math.nan, n, why)
    if not min(n):
        return no_interval("difference", math.nan, n, "an arm has no value")
    one, other = (_differences(left, right, paired) for left, right in (first, second))
    if one is None or other is None:
        return _unpaired(arms, n)
    found = contrast(one, other, "difference", paired)
    method = found.method.replace("differences", "differences of differences")
    return replace(found, n=n, method=method, correlation=math.nan)  # it is not of two arms


def _differences(left: Sample, right: Sample, paired: bool | None) -> Sample | None:
    """Return the seeds' differences as the values of one arm, or None if they are not paired."""
    common = [seed for seed in left.seeds if seed in right.seeds]
    whole = len(common) == len(left) == len(right)
    alike = bool(left.unit) or (left.origins != () and left.origins == right.origins)
    exact = left.exact and right.exact
    if not (paired or (paired is None and whole and (alike or exact))) or not common:
        return None
    return Sample(
        f"{left.name} minus {right.name}",
        tuple(common),
        left.only(common) - right.only(common),
        np.zeros(len(common), bool),
        len(common),
        exact=exact,
        grain=max(left.grain, right.grain),
        counted=left.counted and right.counted,
        origins=left.origins if whole and alike else (),
        unit=left.unit,
    )


def _unpaired(arms: Sequence[Sample], n: tuple[int, ...]) -> IntervalEstimate:
    """Add the variances of four means that have nothing in common.

    An arm of equal values is taken to have the mean variance of the others, and adds no freedom.
    """
    means = [float(arm.values.mean()) for arm in arms]
    estimate = means[0] - means[1] - means[2] + means[3]
    if any(arm.crossed for arm in arms):
        why = "arms that do not begin alike have no such interval on crossed seeds"
        return no_interval("difference", estimate, n, why)
    if min(n) < 2:
        return no_interval("difference", estimate, n, ONE_RUN)
    known = [0.0 if equal(arm.values) else float(arm.values.var(ddof=1)) for arm in arms]
    if not any(known):
        why = "the values of each arm are all equal, which says nothing of their spread"
        return no_interval("difference", estimate, n, why)
    usual = float(np.mean([one for one in known if one]))
    errors = [(one or usual) / m for one, m in zip(known, n, strict=True)]
    parts = [error**2 / (m - 1) for error, one, m in zip(errors, known, n, strict=True) if one]
    degrees = sum(error for error, one in zip(errors, known, strict=True) if one) ** 2 / sum(parts)
    spread = math.sqrt(sum(one or usual for one in known))

    def at(level: float) -> Interval:
        steps = [unseen(arm.grain, len(arm), level) for arm in arms if arm.counted]
        wide = float(special.stdtrit(degrees, (1 + level) / 2)) * math.sqrt(sum(errors))
        half = math.hypot(wide, *steps)
        return Interval(estimate - half, estimate + half)

    return IntervalEstimate(
        "difference",
        estimate,
        "Satterthwaite's t of four arms",
        False,
        n,
        at,
        lambda bound: ((estimate - bound, spread),),
        degrees / (max(n) - 1),
    )
