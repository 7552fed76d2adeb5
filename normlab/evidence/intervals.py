"""Intervals for means, differences and ratios, chosen for the five to thirty seeds people have.

Each covers what it claims to at these sizes, where the values are roughly normal;
`tests/evidence/test_coverage.py` simulates it. Student's t is the rule: at n = 5 a bootstrap of the
mean covers 85% where it says 95%, because resampling five values cannot show what a sixth would
be. So `bootstrap` is refused below 20 values. With strongly skewed values (one seed in ten fails)
every interval of a mean covers less, about 90% at n = 10; the interquartile mean keeps its 95%.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from normlab.errors import UserError

LEVEL = 0.95
LEAST_FOR_BOOTSTRAP = 20
"""Below it BCa covers less than 92% where it says 95%, even of normal values."""


class Interval(NamedTuple):
    """From `low` to `high`; infinite where the data set no bound."""

    low: float
    high: float


EVERYTHING = Interval(-math.inf, math.inf)


def mean_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Interval:
    """Student's t interval of the mean; unbounded for fewer than two values.

    >>> [round(end, 3) for end in mean_interval([0.5, 0.6, 0.7])]
    [0.352, 0.848]
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return EVERYTHING
    half = _t(level, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return _around(values.mean(), half)


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean without the lowest and the highest quarter (Agarwal et al. 2021).

    >>> interquartile_mean([0.0, 0.5, 0.6, 9.0])
    0.55
    """
    from scipy import stats  # takes half a second to import, and few need it

    return float(stats.trim_mean(values, 0.25))


def interquartile_mean_interval(
    values: Sequence[float] | np.ndarray, level: float = LEVEL
) -> Interval:
    """The t interval of a trimmed mean, from the winsorised deviation (Tukey & McLaughlin 1963)."""
    ordered = np.sort(np.asarray(values, float))
    n, cut = len(ordered), len(ordered) // 4
    if n < 2:
        return EVERYTHING
    winsorised = np.clip(ordered, ordered[cut], ordered[n - 1 - cut])
    error = winsorised.std(ddof=1) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = _t(level, n - 2 * cut - 1) * error
    return _around(interquartile_mean(ordered), half)


def bootstrap(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, *, seed: int = 0
) -> Interval:
    """The bias-corrected and accelerated bootstrap of the mean (Efron 1987), by scipy.

    Raises:
        UserError: there are fewer than 20 values, of which it would claim more than it knows.
    """
    if len(values) < LEAST_FOR_BOOTSTRAP:
        raise UserError(
            f"a bootstrap of {len(values)} values covers less than it says; it is offered from "
            f"{LEAST_FOR_BOOTSTRAP} on, and mean_interval at any number"
        )
    if np.ptp(values) == 0:
        return Interval(values[0], values[0])
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        confidence_level=level,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def proportion_interval(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share.

    >>> [round(end, 2) for end in proportion_interval(0, 5)]
    [0.0, 0.43]
    """
    from scipy import stats

    found = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


def proportion_difference(
    successes: tuple[int, int], n: tuple[int, int], level: float = LEVEL
) -> Interval:
    """The difference of two shares, from their two Wilson intervals (Newcombe 1998, method 10)."""
    left, right = (proportion_interval(*pair, level) for pair in zip(successes, n, strict=True))
    p, q = (k / m for k, m in zip(successes, n, strict=True))
    below = math.hypot(p - left.low, right.high - q)
    above = math.hypot(left.high - p, q - right.low)
    return Interval(p - q - below, p - q + above)


def welch(left: np.ndarray, right: np.ndarray, level: float = LEVEL) -> Interval:
    """The difference of two means with variances of their own (Welch 1947)."""
    a, b = left.var(ddof=1) / len(left), right.var(ddof=1) / len(right)
    half = _t(level, _welch_freedom(a, b, len(left), len(right))) * math.sqrt(a + b)
    return _around(left.mean() - right.mean(), half)


def fieller(
    left: np.ndarray, right: np.ndarray, level: float = LEVEL, *, paired: bool = False
) -> Interval:
    """The ratio of two means (Fieller 1954): every ratio that a t test would not reject.

    Unbounded where the mean of `right` is not distinguished from zero.
    """
    a, b = left.var(ddof=1) / len(left), right.var(ddof=1) / len(right)
    x, y = left.mean(), right.mean()
    covariance = np.cov(left, right)[0, 1] / len(left) if paired else 0.0
    ratio = x / y if y else math.inf
    if paired:
        freedom = len(left) - 1.0
    else:  # that of the difference left - ratio * right (Tamhane & Logan 2004)
        freedom = _welch_freedom(a, ratio**2 * b, len(left), len(right))
    t2 = _t(level, freedom) ** 2
    # (x - r y)^2 <= t2 (a - 2 r cov + r^2 b), a quadratic in the ratio r.
    square, half, constant = y * y - t2 * b, x * y - t2 * covariance, x * x - t2 * a
    root = half * half - square * constant
    if square <= 0 or root < 0:
        return EVERYTHING
    return _around(half / square, math.sqrt(root) / square)


def rank_interval(pairs: np.ndarray, n: tuple[int, int], level: float = LEVEL) -> Interval:
    """The shift between two samples by ranks (Hodges & Lehmann 1963, Moses).

    It assumes nothing of the distribution but that one is the other, shifted, and admits values
    that are only known to lie above a limit.

    Args:
        pairs: `(2, k)`: for each pair of one value of the left and one of the right, the least
            and the greatest that their difference (or ratio) may be.
        n: how many values are on the left and on the right.
        level: the least coverage.

    Returns:
        Unbounded if even the extreme ranks cannot reach the level.
    """
    # The largest k with P(U < k) <= (1 - level) / 2 under no shift.
    allowed = (1 - level) / 2 + 1e-12
    k = int(np.searchsorted(mann_whitney_cdf(*n), allowed, side="right"))
    if k == 0:
        return EVERYTHING
    least, greatest = np.sort(pairs[0]), np.sort(pairs[1])
    return Interval(float(least[k - 1]), float(greatest[-k]))


@lru_cache(maxsize=64)
def mann_whitney_cdf(left: int, right: int) -> np.ndarray:
    """P(U <= u) for u = 0, 1, ... without ties: exact, by the generating function.

    >>> mann_whitney_cdf(2, 2).round(3).tolist()
    [0.167, 0.333, 0.667, 0.833, 1.0]
    """
    counts = np.ones(1)
    for i in range(1, left + 1):
        # times (1 - q^(right + i)) / (1 - q^i), a polynomial in the end
        raised = np.zeros(len(counts) + right + i)
        raised[: len(counts)] = counts
        raised[right + i :] -= counts
        for j in range(i, len(raised)):
            raised[j] += raised[j - i]
        counts = raised[: i * right + 1]
    return np.cumsum(counts) / counts.sum()


def _around(middle: float, half: float) -> Interval:
    return Interval(float(middle - half), float(middle + half))


def _welch_freedom(a: float, b: float, n: int, m: int) -> float:
    return (a + b) ** 2 / (a * a / (n - 1) + b * b / (m - 1))


def _t(level: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + level) / 2))
