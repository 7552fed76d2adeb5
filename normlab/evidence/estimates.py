"""An estimate with an interval at any level, and what it would take to decide by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from normlab.evidence import power
from normlab.evidence.intervals import LEVEL, Interval


@dataclass(frozen=True, eq=False)
class IntervalEstimate:
    """A difference or ratio of two arms, or the mean of one.

    Attributes:
        quantity: "difference" (left less right), "ratio" (left to right) or "mean".
        estimate: of the means, or by ranks where values are censored.
        method: how the interval comes about, in words.
        paired: whether runs were paired by seed.
        n: how many values of the left and of the right.
        at: from a level to the interval.
        distances: from a bound to the distances that must be told from zero to decide on which
            side of it the truth lies, as `normlab.evidence.power` takes them.
        freedom: degrees of freedom of the interval, for each seed an arm less one.
        lacking: why there is no interval, in words; empty where there is one.
    """

    quantity: Literal["difference", "ratio", "mean"]
    estimate: float
    method: str
    paired: bool
    n: tuple[int, ...]
    at: Callable[[float], Interval]
    distances: Callable[[float], power.Distances] = lambda bound: ()
    freedom: float = 1.0
    lacking: str = ""

    @property
    def interval(self) -> Interval:
        """The 95% interval."""
        return self.at(LEVEL)

    def _distances(self, bounds: tuple[float, ...]) -> power.Distances:
        return list(dict.fromkeys(one for bound in bounds for one in self.distances(bound)))

    @property
    def foretells(self) -> bool:
        """Whether the method says how many seeds would decide."""
        return bool(self.distances(0.0))

    def seeds_to_decide(self, *bounds: float, level: float = LEVEL) -> int | None:
        """How many seeds an arm would tell the estimate from every bound, if it is the truth.

        With 80% chance, and never fewer than there are; None where more than 1000 would be needed,
        or where the method gives no answer.
        """
        distances = self._distances(bounds)
        return power.seeds_to_decide(distances, self.freedom, level, max(self.n))

    def more_seeds(self, *bounds: float, level: float = LEVEL) -> int | None:
        """As `seeds_to_decide`, of what so many seeds as there are have not decided: more."""
        seeds = self.seeds_to_decide(*bounds, level=level)
        # At as many as there are, another draw of them would more likely than not have decided.
        return None if seeds is None else max(seeds, max(self.n) + 1)

    def seeds_range(self, *bounds: float, level: float = LEVEL) -> tuple[int | None, int | None]:
        """As `more_seeds`, for the least and the greatest spread in its 95% interval.

        That is how well so few seeds know the spread; the estimate is taken for the truth.
        """
        degrees = self.freedom * (max(self.n) - 1)
        ends = power.scaled(self._distances(bounds), degrees)
        low, high = (power.seeds_to_decide(end, self.freedom, level) for end in ends)
        least = max(self.n) + 1
        return (low and max(low, least)), (high and max(high, least))

    def p_value(self, *bounds: float) -> float:
        """The smallest 1 - level at which the interval still leaves every bound outside it.

        So with one bound, and Student's t, it is the two-sided p-value.
        """
        return self.first(lambda low, high: all(b < low or b > high for b in bounds))

    def first(self, decided: Callable[[float, float], object]) -> float:
        """The smallest 1 - level at which the interval is still decided; 1 if it never is.

        Args:
            decided: from the interval's ends to something true; a narrower one stays decided.
        """
        low, high = 0.0, 1 - 1e-9  # levels: decided at the lower one, not at the higher
        if decided(*self.at(high)):
            return 1e-9
        if not decided(*self.at(1e-9)):
            return 1.0
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if decided(*self.at(middle)) else (low, middle)
        return 1 - low
