"""An estimate with an interval at any level, and the number of seeds that would decide."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from normlab.evidence import power
from normlab.evidence.intervals import EVERYTHING, LEVEL, Interval, equal
from normlab.measures.claims import Quantity


@dataclass(frozen=True, eq=False)
class IntervalEstimate:
    """A difference or ratio of two arms, or the mean of one.

    Attributes:
        quantity: "difference" (left minus right), "ratio" (left to right) or "mean".
        estimate: the estimate, by means, or by ranks if values are censored.
        method: the method of the interval, in words.
        paired: whether runs were paired by seed.
        n: how many values the left and the right arm have.
        at: a function that gives the interval at a level.
        distances: a function of a bound, for `normlab.evidence.power`. It gives the distances to
            distinguish from zero to decide on which side of the bound the truth lies.
        freedom: the interval's degrees of freedom per n - 1, where n is the seeds of an arm.
        lacking: the reason why there is no interval, in words; empty if there is one.
        correlation: that of the two arms' values over the pairs; NaN where there are no pairs.
    """

    quantity: Quantity
    estimate: float
    method: str
    paired: bool
    n: tuple[int, ...]
    at: Callable[[float], Interval]
    distances: Callable[[float], power.Distances] = lambda bound: ()
    freedom: float = 1.0
    lacking: str = ""
    correlation: float = math.nan

    @property
    def interval(self) -> Interval:
        """The 95% interval."""
        return self.at(LEVEL)

    def _distances(self, bounds: tuple[float, ...]) -> power.Distances:
        return list(dict.fromkeys(one for bound in bounds for one in self.distances(bound)))

    @property
    def foretells(self) -> bool:
        """Return whether the method can say how many seeds would decide."""
        return bool(self.distances(0.0))

    def seeds_to_decide(self, *bounds: float, level: float = LEVEL) -> int | None:
        """Return how many seeds an arm tell the estimate from every bound, if it is the truth.

        They do so in 80% of cases, and are never fewer than the present seeds. None means that more
        than 1000 would be needed, or the method gives no answer.
        """
        distances = self._distances(bounds)
        return power.seeds_to_decide(distances, self.freedom, level, max(self.n))

    def more_seeds(self, *bounds: float, level: float = LEVEL) -> int | None:
        """Return `seeds_to_decide`, or one more seed than have been made without deciding."""
        seeds = self.seeds_to_decide(*bounds, level=level)
        # Another draw of equally many seeds would probably have decided.
        return None if seeds is None else max(seeds, max(self.n) + 1)

    def seeds_range(self, *bounds: float, level: float = LEVEL) -> tuple[int | None, int | None]:
        """Return `more_seeds` for the least and the greatest spread in its 95% interval.

        The range shows how roughly few seeds know the spread; the estimate is taken for the truth.
        """
        degrees = self.freedom * (max(self.n) - 1)
        ends = power.scaled(self._distances(bounds), degrees)
        low, high = (power.seeds_to_decide(end, self.freedom, level) for end in ends)
        least = max(self.n) + 1
        return (low and max(low, least)), (high and max(high, least))

    def p_value(self, *bounds: float) -> float:
        """Return the smallest 1 - level at which the interval still excludes every bound.

        With one bound and Student's t it is the two-sided p-value.
        """
        return self.first(lambda low, high: all(b < low or b > high for b in bounds))

    def first(self, decided: Callable[[float, float], object]) -> float:
        """Return the smallest 1 - level at which the interval still decides; 1 if it never does.

        Args:
            decided: whether an interval with these ends decides; a narrower one must decide too.
        """
        low, high = 0.0, 1 - 1e-9  # it decides at the lower level, not at the higher
        if decided(*self.at(high)):
            return 1e-9
        if not decided(*self.at(1e-9)):
            return 1.0
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if decided(*self.at(middle)) else (low, middle)
        return 1 - low


def no_interval(
    quantity: Quantity, estimate: float, n: tuple[int, ...], why: str
) -> IntervalEstimate:
    """Return an estimate without an interval, and the reason for that."""
    return IntervalEstimate(quantity, estimate, "no interval", False, n, lambda level: EVERYTHING,
                    lacking=why)  # fmt: skip


def correlation(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """Return the correlation of pairs of values; NaN if one side has no spread.

    >>> correlation([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]), correlation([0.1, 0.2], [1.0, 1.0])
    (1.0, nan)
    """
    if equal(left) or equal(right):
        return math.nan
    return round(float(np.corrcoef(left, right)[0, 1]), 12)


def without_spread(*names: str) -> str:
    """Say that the values of some arms show no spread, as a reason for no interval."""
    return (
        f"the values of {' and of '.join(names)} are all equal, which says nothing of their spread"
    )


def exactly(quantity: Quantity, value: float, n: tuple[int, ...], method: str) -> IntervalEstimate:
    """Return an estimate that is known without error."""
    return IntervalEstimate(quantity, value, method, False, n, lambda level: Interval(value, value))
