"""Intervals for means, differences and ratios, chosen for the five to thirty seeds people have.

Each covers what it claims at these sizes if the values are roughly normal. For other values
`python -m tests.evidence.coverage` prints the coverage, and `docs/claims.md` holds the table.
Student's t is the rule. At n = 5 a bootstrap of the mean covers 85% where it says 95%, because five
values cannot show the value of a sixth. So `bootstrap` is refused below 20 values.

No interval knows of failures that no seed has shown. If one seed in ten fails, n seeds show none
with probability 0.9^n, and then the interval of the mean is wrong: Student's t covers 42% at n = 5
and 65% at n = 10. The interquartile mean leaves such seeds out and keeps 94%.

Values that are all equal say nothing about their spread, so their interval is unbounded. If one of
two arms has equal values, it is taken to spread as the other does.
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
"""With fewer values BCa covers less than 92% where it says 95%, even for normal values."""


class Interval(NamedTuple):
    """An interval from `low` to `high`; an end is infinite if the data set no bound."""

    low: float
    high: float


EVERYTHING = Interval(-math.inf, math.inf)
ROUNDING = 1e-5
"""Values that differ by less than this part of the largest are equal: results keep six digits."""


def equal(values: Sequence[float] | np.ndarray) -> bool:
    """Return whether the values are all the same, so that they show no spread.

    >>> equal([0.1, 0.1]), equal([0.1, 0.2])
    (True, False)
    """
    low, high = np.min(values), np.max(values)
    return bool(high - low <= ROUNDING * max(high, -low))


def mean_interval(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, grain: float = 0.0
) -> Interval:
    """Return Student's t interval of the mean; unbounded for fewer than two values, or equal ones.

    Args:
        values: one a seed.
        level: the share of cases in which it is to cover.
        grain: the least step between two values that can be told apart (`unseen`).

    >>> [round(end, 3) for end in mean_interval([0.5, 0.6, 0.7])]
    [0.352, 0.848]
    """
    values = np.asarray(values, float)
    if len(values) < 2 or equal(values):
        return EVERYTHING
    return t_interval(values, level, grain)


def t_interval(values: np.ndarray, level: float = LEVEL, grain: float = 0.0) -> Interval:
    """Return `mean_interval` of two or more values that may be equal for a known reason."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    half = math.hypot(_t(level, len(values) - 1) * error, unseen(grain, len(values), level))
    return _around(values.mean(), half)


def unseen(grain: float, n: int, level: float = LEVEL) -> float:
    """Return how far a mean may lie from what n values show, because values move in steps.

    A step that a seed takes with a small chance shows in none of n seeds as long as its mean is at
    most -ln((1 - level) / 2) / n steps ("rule of three": Hanley & Lippman-Hand 1983). Intervals add
    its square to that of the error from the values' own spread. With 100 test images and 5 seeds
    it is 0.0074; beside a spread of several steps it is negligible.

    >>> round(unseen(0.01, 5), 4)
    0.0074
    """
    return -grain * math.log((1 - level) / 2) / n


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean without the lowest and the highest quarter (Agarwal et al. 2021).

    >>> interquartile_mean([0.0, 0.5, 0.6, 9.0])
    0.55
    """
    # scipy.stats, which has it too, takes longer to import than a whole report to be made.
    cut = len(values) // 4
    ordered = np.partition(np.asarray(values), (cut, len(values) - cut - 1))
    return float(ordered[cut : len(values) - cut].mean())


def interquartile_mean_interval(
    values: Sequence[float] | np.ndarray, level: float = LEVEL
) -> Interval:
    """Return the interval of the interquartile mean, by its winsorised deviation.

    It is Student's t interval of a trimmed mean (Tukey & McLaughlin 1963).
    """
    ordered = np.sort(np.asarray(values, float))
    n, cut = len(ordered), len(ordered) // 4
    if n < 2:
        return EVERYTHING
    winsorised = np.clip(ordered, ordered[cut], ordered[n - 1 - cut])
    if equal(winsorised):
        return EVERYTHING
    error = winsorised.std(ddof=1) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = _t(level, n - 2 * cut - 1) * error
    return _around(interquartile_mean(ordered), half)


def bootstrap(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, *, seed: int = 0
) -> Interval:
    """Return the bias-corrected and accelerated bootstrap of the mean (Efron 1987), by scipy.

    Raises:
        UserError: there are fewer than 20 values; their bootstrap would claim more than it knows.
    """
    if len(values) < LEAST_FOR_BOOTSTRAP:
        raise UserError(
            f"a bootstrap of {len(values)} values covers less than it says; it is offered from "
            f"{LEAST_FOR_BOOTSTRAP} on, and mean_interval at any number"
        )
    if equal(values):
        return EVERYTHING
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
    """Return Wilson's interval of a share.

    >>> [round(end, 2) for end in proportion_interval(0, 5)]
    [0.0, 0.43]
    """
    share, z = successes / n, float(special.ndtri(0.5 + 0.5 * level))
    twice = 2 * (n + z**2)
    centre = (2 * n * share + z**2) / twice
    half = z / twice * math.sqrt(4 * n * share * (1 - share) + z**2)
    # Rounding would leave the ends beside 0 and 1.
    return Interval(
        0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    )


def proportion_difference(
    successes: tuple[int, int], n: tuple[int, int], level: float = LEVEL
) -> Interval:
    """Return the interval of the difference of two shares (Newcombe 1998, method 10)."""
    left, right = (proportion_interval(*pair, level) for pair in zip(successes, n, strict=True))
    p, q = (k / m for k, m in zip(successes, n, strict=True))
    below = math.hypot(p - left.low, right.high - q)
    above = math.hypot(left.high - p, q - right.low)
    return Interval(p - q - below, p - q + above)


def welch(
    left: np.ndarray, right: np.ndarray, level: float = LEVEL, grain: float = 0.0
) -> Interval:
    """Return the interval of the difference of two means with unequal variances (Welch 1947).

    An arm of equal values is taken to have the other's variance; with two such arms the interval
    is unbounded.
    """
    a, b, degrees = spreads(left, right)
    if not a:
        return EVERYTHING
    error = math.sqrt(a / len(left) + b / len(right))
    steps = (unseen(grain, len(own), level) for own in (left, right))
    half = math.hypot(_t(level, degrees) * error, *steps)
    return _around(left.mean() - right.mean(), half)


def fieller(
    left: np.ndarray,
    right: np.ndarray,
    level: float = LEVEL,
    grain: float = 0.0,
    *,
    paired: bool = False,
) -> Interval:
    """Return the interval of the ratio of two means: every ratio that a t test would not reject.

    The method is Fieller's (1954). The interval is unbounded if the mean of `right` is not
    distinguished from zero, or if the values of each arm are all equal. If only one arm has equal
    values, it is taken to spread as the other does, in proportion to its mean.
    """
    x, y = left.mean(), right.mean()
    if not x or not y:
        return EVERYTHING
    a, b, degrees = spreads(left, right, x / y)
    if not a:
        return EVERYTHING
    n, m = len(left), len(right)
    t2 = _t(level, n - 1 if paired else degrees) ** 2
    # (x - r y)^2 <= a - 2 r covariance + r^2 b, a quadratic in the ratio r, with errors times t^2.
    a = t2 * a / n + unseen(grain, n, level) ** 2
    b = t2 * b / m + unseen(grain, m, level) ** 2
    covariance = t2 * np.cov(left, right)[0, 1] / n if paired else 0.0
    square, half, constant = y * y - b, x * y - covariance, x * x - a
    root = half * half - square * constant
    if abs(root) < 1e-12 * half * half:  # the arms are in one proportion, up to rounding
        root = 0.0
    if square <= 0 or root < 0:
        return EVERYTHING
    return _around(half / square, math.sqrt(root) / square)


def spreads(left: np.ndarray, right: np.ndarray, ratio: float = 1.0) -> tuple[float, float, float]:
    """Return both arms' variances, and the degrees of freedom of left - ratio * right, unpaired.

    An arm of equal values has the variance of the other and adds no freedom. If both arms have
    equal values, the variances are 0. The freedom of two arms is Welch's (of a ratio: Tamhane &
    Logan 2004).

    Args:
        left: the values of one arm.
        right: the values of the other arm.
        ratio: the left arm's deviation over the right arm's, as it is assumed.
    """
    n, m = len(left), len(right)
    a, b = (0.0 if equal(own) else float(own.var(ddof=1)) for own in (left, right))
    if not a or not b:
        return a or ratio**2 * b, b or a / ratio**2, float(n - 1 if a else m - 1)
    p, q = a / n, ratio**2 * b / m
    return a, b, (p + q) ** 2 / (p * p / (n - 1) + q * q / (m - 1))


def rank_interval(pairs: np.ndarray, n: tuple[int, int], level: float = LEVEL) -> Interval:
    """Return the interval of the shift between two samples by ranks (Hodges & Lehmann 1963, Moses).

    It assumes only that one distribution is the other, shifted. Values may be known only to lie
    above a limit.

    Args:
        pairs: `(2, k)`: for each pair of one value of the left and one of the right, the least
            and the greatest that their difference (or ratio) may be.
        n: the numbers of values on the left and on the right.
        level: the least coverage.

    Returns:
        The interval; it is unbounded if even the extreme ranks cannot reach the level.
    """
    # k is the largest number with P(U < k) <= (1 - level) / 2 under no shift.
    allowed = (1 - level) / 2 + 1e-12
    k = int(np.searchsorted(mann_whitney_cdf(*n), allowed, side="right"))
    if k == 0:
        return EVERYTHING
    least, greatest = np.sort(pairs[0]), np.sort(pairs[1])
    return Interval(float(least[k - 1]), float(greatest[-k]))


@lru_cache(maxsize=64)
def mann_whitney_cdf(left: int, right: int) -> np.ndarray:
    """Return P(U <= u) for u = 0, 1, ... without ties, exact by the generating function.

    >>> mann_whitney_cdf(2, 2).round(3).tolist()
    [0.167, 0.333, 0.667, 0.833, 1.0]
    """
    counts = np.ones(1)
    for i in range(1, left + 1):
        # Multiply by (1 - q^(right + i)) / (1 - q^i); the last product is a polynomial.
        raised = np.zeros(len(counts) + right + i)
        raised[: len(counts)] = counts
        raised[right + i :] -= counts
        for j in range(i, len(raised)):
            raised[j] += raised[j - i]
        counts = raised[: i * right + 1]
    return np.cumsum(counts) / counts.sum()


def _around(middle: float, half: float) -> Interval:
    return Interval(float(middle - half), float(middle + half))


def _t(level: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + level) / 2))
