"""Estimates the difference or ratio of two arms, or the mean of one, by the method that suits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from normlab.evidence import power
from normlab.evidence.crossed_contrasts import crossed_contrast, of_grids
from normlab.evidence.estimates import (
    IntervalEstimate,
    correlation,
    exactly,
    no_interval,
    without_spread,
)
from normlab.evidence.intervals import (
    LEVEL,
    ROUNDING,
    equal,
    fieller,
    mean_interval,
    proportion_difference,
    proportion_interval,
    rank_interval,
    spreads,
    t_interval,
    welch,
)
from normlab.evidence.samples import Sample, same_runs

OfTwoArms = Literal["difference", "ratio"]
ONE_RUN = "one run an arm gives no interval: sweep over seeds"
LEAST_FOR_A_CONSTANT = 3
"""Seeds. Two differences of counts of 100 images agree by chance in one case of twenty, three in
one of four hundred."""


def contrast(
    left: Sample, right: Sample, quantity: OfTwoArms = "difference", paired: bool | None = None
) -> IntervalEstimate:
    """Compare two arms by the method that suits their values.

    Args:
        left: the arm that is compared.
        right: the arm that it is compared with.
        quantity: `left - right`, or `left / right`.
        paired: whether to pair by seed, or by unit where the samples have units. None pairs units,
            and seeds if the arms' configs give the runs of each seed the same start and the same
            batches. The values do not decide it, because then more than 5% of equal arms would seem
            to differ.
    """
    if left.crossed or right.crossed:
        return crossed_contrast(left, right, quantity, paired)
    n = (len(left), len(right))
    censored = left.censored.any() or right.censored.any()
    estimate = math.nan
    if min(n) and not censored:
        estimate = _of_means(left.values, right.values, quantity)
    if min(n) and left.exact and right.exact and equal(left.values) and equal(right.values):
        return exactly(quantity, estimate, n, "settled by the configs")
    if min(n) < 2:
        return no_interval(quantity, estimate, n, ONE_RUN)
    if censored:
        return _by_ranks(left, right, quantity)
    if left.binary and right.binary and quantity == "difference":
        return _of_shares(left, right)
    common = [seed for seed in left.seeds if seed in right.seeds]
    whole = len(common) == max(n)
    if paired and len(common) < 2:
        lacking = "fewer than two seeds are in both arms, to be paired"
        return no_interval(quantity, estimate, n, lacking)
    if paired is not False and whole and same_runs(left, right):
        return exactly(quantity, 0.0 if quantity == "difference" else 1.0, n, "the same runs")
    side_by_side = paired or (whole and paired is None)
    a, b = (left.only(common), right.only(common)) if side_by_side else (left.values, right.values)
    n = (len(a), len(b))
    alike = [arm.name or "an arm" for arm, own in ((left, a), (right, b)) if equal(own)]
    if len(alike) == 2:
        return no_interval(quantity, estimate, n, without_spread(*alike))
    constant = bool(side_by_side) and not alike and _constant(a, b, quantity)
    if paired is None:
        by_design = bool(left.unit) or (left.origins != () and left.origins == right.origins)
        paired = whole and (by_design or (constant and len(common) >= LEAST_FOR_A_CONSTANT))
    if paired and constant and len(common) < LEAST_FOR_A_CONSTANT:
        lacking = f"the {quantity}s of two seeds are equal, which says nothing of their spread"
        return no_interval(quantity, estimate, n, lacking)
    paired = paired and not alike  # pairing with values without spread narrows nothing
    steps = constant or (left.counted and right.counted)
    grain = max(left.grain, right.grain) if steps else 0.0
    each, how = "unit" if left.unit else "seed", ""
    if constant and paired:
        how = f", the same {quantity} in every {each}"
    elif alike:
        how = f", with the spread of the other arm for the equal values of {alike[0]}"
    if quantity == "ratio":
        found = _ratio(a, b, paired, how, grain, each)
        return replace(found, correlation=correlation(a, b) if paired else math.nan)
    if paired:
        differences = a - b
        return IntervalEstimate(
            "difference",
            float(differences.mean()),
            f"Student's t of the {each}s' differences{how}",
            True,
            n,
            lambda level: t_interval(differences, level, grain),
            _nothing
            if constant
            else _from(float(differences.mean()), float(differences.std(ddof=1))),
            correlation=correlation(a, b),
        )
    *variances, degrees = spreads(a, b)
    return IntervalEstimate(
        "difference",
        _of_means(a, b, "difference"),
        f"Welch's t{how}",
        False,
        n,
        lambda level: welch(a, b, level, grain),
        _from(_of_means(a, b, "difference"), math.sqrt(sum(variances))),
        degrees / (max(n) - 1),
    )


def mean_of(one: Sample) -> IntervalEstimate:
    """Estimate the mean of one arm."""
    values, n = one.values, (len(one),)
    if one.censored.any():
        return no_interval("mean", math.nan, n, "some runs never reached the target")
    estimate = float(values.mean()) if len(one) else math.nan
    if one.exact and len(one) and equal(values):
        return exactly("mean", estimate, n, "settled by the config")
    if len(one) < 2:
        return no_interval("mean", estimate, n, ONE_RUN)
    if one.crossed:
        return of_grids("mean", estimate, n, [one])
    if one.binary:
        successes = int(values.sum())
        return IntervalEstimate(
            "mean", estimate, "Wilson's interval of a share", False, n,
            lambda level: proportion_interval(successes, len(values), level),
        )  # fmt: skip
    if equal(values):
        return no_interval("mean", estimate, n, without_spread(one.name or "the arm"))
    return IntervalEstimate(
        "mean",
        estimate,
        "Student's t",
        False,
        n,
        lambda level: mean_interval(values, level, one.grain if one.counted else 0.0),
        _from(estimate, float(values.std(ddof=1))),
    )


def may_be_best(samples: Sequence[Sample], higher_is_better: bool) -> list[Sample]:
    """Return the arms that may be the best, at 95% (Hsu 1984, with Bonferroni's correction).

    An arm is left out if the interval of its difference to some other arm lies wholly on the worse
    side, at a level raised for the number of others. The truly best arm is thus left out in at most
    5% of cases, for any number of arms. With many arms of few seeds none is left out.

    Args:
        samples: the arms' values; every arm has at least one.
        higher_is_better: whether more is better.

    Returns:
        The arms that are left, in order of their means, the best first.

    >>> import numpy as np
    >>> def arm(name, *values):
    ...     values = np.array(values)
    ...     return Sample(name, (0, 1, 2), values, np.zeros(3, bool), 3)
    >>> arms = arm("a", 0.5, 0.52, 0.51), arm("b", 0.9, 0.91, 0.89), arm("c", 0.9, 0.88, 0.89)
    >>> [one.name for one in may_be_best(arms, True)]
    ['b', 'c']
    """
    level = 1 - (1 - LEVEL) / max(1, len(samples) - 1)

    def is_worse(one: Sample, other: Sample) -> bool:
        low, high = contrast(one, other).at(level)
        return high < 0 if higher_is_better else low > 0

    left = [
        one for one in samples
        if not any(is_worse(one, other) for other in samples if other is not one)
    ]  # fmt: skip
    sign = -1 if higher_is_better else 1
    return sorted(left, key=lambda one: sign * one.values.mean())


def _of_means(left: np.ndarray, right: np.ndarray, quantity: str) -> float:
    a, b = float(left.mean()), float(right.mean())
    if quantity == "difference":
        return a - b
    return a / b if b else math.nan


def _nothing(bound: float) -> power.Distances:
    return ()


def _from(estimate: float, spread: float) -> Callable[[float], power.Distances]:
    return lambda bound: ((estimate - bound, spread),)


def _constant(left: np.ndarray, right: np.ndarray, quantity: OfTwoArms) -> bool:
    """Return whether two arms differ equally in every seed, to the digits that are kept."""
    if quantity == "ratio":
        return bool(right.all() and equal(left / right))
    largest = max(np.abs(left).max(), np.abs(right).max())
    return bool(np.ptp(left - right) <= ROUNDING * largest)


def _ratio(
    a: np.ndarray, b: np.ndarray, paired: bool, how: str, grain: float, each: str
) -> IntervalEstimate:
    ratio = _of_means(a, b, "ratio")
    left, right, degrees = spreads(a, b, ratio if ratio and math.isfinite(ratio) else 1.0)

    def distances(bound: float) -> power.Distances:
        apart = math.sqrt(left + bound**2 * right)
        spread = float(np.std(a - bound * b, ddof=1)) if paired else apart
        # The ratio has bounds only if its denominator, too, is distinguished from zero.
        return (float(a.mean() - bound * b.mean()), spread), (float(b.mean()), math.sqrt(right))

    return IntervalEstimate(
        "ratio",
        ratio,
        f"Fieller's, of the {each}s' pairs{how}" if paired else f"Fieller's{how}",
        paired,
        (len(a), len(b)),
        lambda level: fieller(a, b, level, grain, paired=paired),
        distances,
        1.0 if paired else degrees / (max(len(a), len(b)) - 1),
    )


def _of_shares(left: Sample, right: Sample) -> IntervalEstimate:
    successes = (int(left.values.sum()), int(right.values.sum()))
    n = (len(left), len(right))
    return IntervalEstimate(
        "difference",
        successes[0] / n[0] - successes[1] / n[1],
        "Newcombe's interval of two shares",
        False,
        n,
        lambda level: proportion_difference(successes, n, level),
    )


def _by_ranks(left: Sample, right: Sample, quantity: OfTwoArms) -> IntervalEstimate:
    """Compare by the differences (or ratios) of all pairs; a censored value has no upper bound."""
    operation = np.subtract if quantity == "difference" else np.divide
    top_left = np.where(left.censored, math.inf, left.values)[:, None]
    top_right = np.where(right.censored, math.inf, right.values)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = operation(left.values[:, None], top_right)
        greatest = operation(top_left, right.values)
    # 0 / 0 counts as 1, because two values of zero are alike.
    pairs = np.nan_to_num(np.stack([least.ravel(), greatest.ravel()]), nan=1.0,
                          posinf=math.inf, neginf=-math.inf)  # fmt: skip
    n = (len(left), len(right))
    low, high = np.median(pairs[0]), np.median(pairs[1])
    return IntervalEstimate(
        quantity,
        float(low) if low == high else math.nan,
        "ranks (Hodges-Lehmann)",
        False,
        n,
        lambda level: rank_interval(pairs, n, level),
    )
