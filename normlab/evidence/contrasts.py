"""How two arms differ: an estimate, an interval at any level, and how many seeds would decide."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from normlab.evidence.intervals import (
    EVERYTHING,
    LEVEL,
    Interval,
    fieller,
    mean_interval,
    proportion_difference,
    proportion_interval,
    rank_interval,
    welch,
)
from normlab.evidence.samples import Sample

POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True, eq=False)
class Contrast:
    """A difference or ratio of two arms, or the mean of one.

    Attributes:
        quantity: "difference" (left less right), "ratio" (left to right) or "mean".
        estimate: of the means, or by ranks where values are censored.
        method: how the interval comes about, in words.
        paired: whether runs were paired by seed.
        n: how many values of the left and of the right.
        at: from a level to the interval.
        spread: the standard deviation of the estimate times the root of the seeds an arm; NaN
            where the method has none.
        freedom: degrees of freedom of the interval, for each seed an arm less one.
    """

    quantity: Literal["difference", "ratio", "mean"]
    estimate: float
    method: str
    paired: bool
    n: tuple[int, ...]
    at: Callable[[float], Interval]
    spread: float = math.nan
    freedom: float = 1.0

    @property
    def interval(self) -> Interval:
        """The 95% interval."""
        return self.at(LEVEL)

    def seeds_to_decide(self, *bounds: float, level: float = LEVEL) -> int | None:
        """How many seeds an arm would tell the estimate from every bound, if it is the truth.

        With 80% chance, and never fewer than there are; None where more than 1000 would be needed,
        or where the method gives no answer.
        """
        distance = min((abs(self.estimate - bound) for bound in bounds), default=0.0)
        if not distance or math.isnan(self.spread):
            return None
        for n in range(max(2, *self.n), MOST_SEEDS + 1):
            t = special.stdtrit(self.freedom * (n - 1), [(1 + level) / 2, POWER]).sum()
            if t * self.spread / math.sqrt(n) <= distance:
                return n
        return None

    def more_seeds(self, *bounds: float, level: float = LEVEL) -> int | None:
        """As `seeds_to_decide`, of what so many seeds as there are have not decided: more."""
        seeds = self.seeds_to_decide(*bounds, level=level)
        # At as many as there are, another draw of them would more likely than not have decided.
        return None if seeds is None else max(seeds, max(self.n) + 1)

    def p_value(self, *bounds: float) -> float:
        """The smallest 1 - level at which the interval still leaves every bound outside it.

        So with one bound, and Student's t, it is the two-sided p-value.
        """

        def clear(level: float) -> bool:
            low, high = self.at(level)
            return all(bound < low or bound > high for bound in bounds)

        low, high = 0.0, 1 - 1e-9  # levels: clear at the lower one, not at the higher
        if clear(high):
            return 1e-9
        if not clear(1e-9):
            return 1.0
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if clear(middle) else (low, middle)
        return 1 - low


def contrast(
    left: Sample,
    right: Sample,
    quantity: Literal["difference", "ratio"] = "difference",
    paired: bool | None = None,
) -> Contrast:
    """Compare two arms by the method that suits their values.

    Args:
        left: what is compared.
        right: with what.
        quantity: `left - right`, or `left / right`.
        paired: whether to pair by seed; None to do so where it is shown to help, that is where
            the arms' values rise and fall together over the seeds (one-sided test of their
            correlation, 5%).
    """
    n = (len(left), len(right))
    if min(n) < 2:
        known = min(n) == 1 and not (left.censored.any() or right.censored.any())
        estimate = _of_means(left.values, right.values, quantity) if known else math.nan
        return Contrast(quantity, estimate, "too few runs", False, n, lambda level: EVERYTHING)
    if left.censored.any() or right.censored.any():
        return _by_ranks(left, right, quantity)
    if left.binary and right.binary and quantity == "difference":
        return _of_shares(left, right)
    if np.ptp(left.values) == 0 and np.ptp(right.values) == 0:
        return _by_ranks(left, right, quantity)
    common = [seed for seed in left.seeds if seed in right.seeds]
    if paired is None:
        paired = len(common) == max(n) and pairing_helps(left.values, right.values)
    if paired and len(common) < 2:
        paired = False
    a, b = (left.only(common), right.only(common)) if paired else (left.values, right.values)
    if quantity == "ratio":
        return _ratio(a, b, paired)
    if paired:
        differences = a - b
        if np.ptp(differences) == 0:
            return _by_ranks(left, right, quantity)
        return Contrast(
            "difference",
            float(differences.mean()),
            "Student's t of the seeds' differences",
            True,
            (len(common),) * 2,
            lambda level: mean_interval(differences, level),
            float(differences.std(ddof=1)),
        )
    return Contrast(
        "difference",
        float(a.mean() - b.mean()),
        "Welch's t",
        False,
        n,
        lambda level: welch(a, b, level),
        math.hypot(a.std(ddof=1), b.std(ddof=1)),
        _freedom(a.var(ddof=1), b.var(ddof=1)),
    )


def mean_of(one: Sample) -> Contrast:
    """The mean of one arm, as a contrast with nothing."""
    values, n = one.values, (len(one),)
    if len(one) < 2 or one.censored.any():
        known = len(one) > 0 and not one.censored.any()
        estimate = float(values.mean()) if known else math.nan
        method = "never reached by some runs" if one.censored.any() else "too few runs"
        return Contrast("mean", estimate, method, False, n, lambda level: EVERYTHING)
    if one.binary:
        successes = int(values.sum())
        return Contrast(
            "mean", float(values.mean()), "Wilson's interval of a share", False, n,
            lambda level: proportion_interval(successes, len(values), level),
        )  # fmt: skip
    return Contrast(
        "mean",
        float(values.mean()),
        "Student's t",
        False,
        n,
        lambda level: mean_interval(values, level),
        float(values.std(ddof=1)),
    )


def pairing_helps(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether the arms' values are shown to rise and fall together over the seeds.

    >>> pairing_helps(np.array([1.0, 2, 3, 4]), np.array([1.1, 2.1, 2.9, 4.2]))
    True
    """
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return False
    from scipy import stats

    p: Any = stats.pearsonr(left, right, alternative="greater")[1]
    return bool(p < 0.05)


def _of_means(left: np.ndarray, right: np.ndarray, quantity: str) -> float:
    a, b = float(left.mean()), float(right.mean())
    if quantity == "difference":
        return a - b
    return a / b if b else math.nan


def _ratio(a: np.ndarray, b: np.ndarray, paired: bool) -> Contrast:
    ratio = _of_means(a, b, "ratio")
    # The deviation of the ratio of means, to first order (the delta method).
    if paired:
        spread = float(np.std(a - ratio * b, ddof=1))
    else:
        spread = math.hypot(a.std(ddof=1), ratio * b.std(ddof=1))
    return Contrast(
        "ratio",
        ratio,
        "Fieller's, of the seeds' pairs" if paired else "Fieller's",
        paired,
        (len(a), len(b)),
        lambda level: fieller(a, b, level, paired=paired),
        spread / abs(b.mean()) if b.mean() else math.nan,
        1.0 if paired else _freedom(a.var(ddof=1), ratio**2 * b.var(ddof=1)),
    )


def _freedom(a: float, b: float) -> float:
    """Welch's, by variances, for each seed an arm less one: from 1 to 2."""
    return float((a + b) ** 2 / (a * a + b * b)) if a + b else 1.0


def _of_shares(left: Sample, right: Sample) -> Contrast:
    successes = (int(left.values.sum()), int(right.values.sum()))
    n = (len(left), len(right))
    return Contrast(
        "difference",
        successes[0] / n[0] - successes[1] / n[1],
        "Newcombe's interval of two shares",
        False,
        n,
        lambda level: proportion_difference(successes, n, level),
    )


def _by_ranks(left: Sample, right: Sample, quantity: Literal["difference", "ratio"]) -> Contrast:
    """By the differences (or ratios) of all pairs; a censored value may be anything above."""
    operation = np.subtract if quantity == "difference" else np.divide
    top_left = np.where(left.censored, math.inf, left.values)[:, None]
    top_right = np.where(right.censored, math.inf, right.values)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = operation(left.values[:, None], top_right)
        greatest = operation(top_left, right.values)
    # 0 / 0: two values of nothing are alike.
    pairs = np.nan_to_num(np.stack([least.ravel(), greatest.ravel()]), nan=1.0,
                          posinf=math.inf, neginf=-math.inf)  # fmt: skip
    n = (len(left), len(right))
    low, high = np.median(pairs[0]), np.median(pairs[1])
    return Contrast(
        quantity,
        float(low) if low == high else math.nan,
        "ranks (Hodges-Lehmann)",
        False,
        n,
        lambda level: rank_interval(pairs, n, level),
    )
