"""Splits the variance of values that lie on a grid of crossed factors, such as seeds and images.

Every factor is random: its levels are drawn from many, and the question is about all of them. A
value is a sum of independent parts, one for each factor, each pair of factors and so on; the part
of all factors together holds whatever else there is. Sums of squares then give every part's
variance by the method of moments (Searle, Casella & McCulloch 1992, chapter 4), and the variance of
the mean of the grid. On complete grids these are the estimates by REML, where none is negative.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import special

from normlab.evidence.intervals import LEVEL, Interval
from normlab.store.seeds import streams_of, varying

DRAWS = 20_000
"""Draws for an interval of a component. The Monte Carlo error of its ends is about 1%."""

Part = frozenset[str]
"""The factors whose levels a part of a value depends on."""


class Component(NamedTuple):
    """One part of the variance of a value.

    Attributes:
        variance: the estimate; it is 0 where the method of moments gives a negative one.
        interval: its interval.
        share: its share of the whole variance.
        share_interval: the interval of the share.
    """

    variance: float
    interval: Interval
    share: float = math.nan
    share_interval: Interval = Interval(0.0, 1.0)


class Grid:
    """Values on a complete grid of factors.

    Attributes:
        factors: the names of the factors, one for each axis of the values.
        values: one for each combination of levels; every factor has at least two levels.
    """

    def __init__(self, factors: Sequence[str], values: np.ndarray):
        self.factors, self.values = tuple(factors), np.asarray(values, float)

    @cached_property
    def parts(self) -> list[Part]:
        """All parts: the factors, then the pairs, up to all factors together."""
        sizes = range(1, len(self.factors) + 1)
        return [frozenset(p) for n in sizes for p in itertools.combinations(self.factors, n)]

    def levels(self, part: Part) -> int:
        """Return the number of combinations of a part's levels."""
        return math.prod(self.values.shape[self.factors.index(factor)] for factor in part)

    @cached_property
    def degrees(self) -> dict[Part, int]:
        """The degrees of freedom of each part."""
        return {p: math.prod(self.levels(frozenset([f])) - 1 for f in p) for p in self.parts}

    @cached_property
    def mean_squares(self) -> dict[Part, float]:
        """The mean square of each part."""
        found = {}
        for part in self.parts:
            effect = sum(
                (-1) ** (len(part) - len(inner)) * self._means(inner)
                for size in range(len(part) + 1)
                for inner in map(frozenset, itertools.combinations(part, size))
            )
            each = self.values.size / self.levels(part)
            found[part] = float(each * np.sum(np.square(effect)) / self.degrees[part])
        return found

    def _means(self, part: Part) -> np.ndarray:
        """Average over all factors but those of a part."""
        axes = tuple(i for i, factor in enumerate(self.factors) if factor not in part)
        return self.values.mean(axis=axes, keepdims=True)

    @cached_property
    def error(self) -> tuple[float, float]:
        """The variance of the mean of the grid, and its degrees of freedom (Satterthwaite 1946).

        It is that of new levels of every factor. Sums of mean squares may have a small or negative
        estimate; it is never below what one factor alone shows.
        """
        n = self.values.size
        terms = {p: (-1) ** (len(p) + 1) * ms / n for p, ms in self.mean_squares.items()}
        whole = sum(terms.values())
        alone = {p: term for p, term in terms.items() if len(p) == 1}
        largest = max(alone, key=lambda part: alone[part])
        if whole <= alone[largest]:
            return alone[largest], float(self.degrees[largest])
        spread = sum(term**2 / self.degrees[p] for p, term in terms.items())
        return whole, max(whole**2 / spread, min(self.degrees[p] for p in alone))

    def components(
        self, level: float = LEVEL, others: Mapping[str, float] | None = None, seed: int = 0
    ) -> dict[Part, Component]:
        """Estimate the variance of every part, each with its interval and its share.

        The interval of the part of all factors is exact for normal values. The others are
        generalised (Weerahandi 1993): mean squares are divided by draws of chi-square.

        Args:
            level: the share of cases in which an interval is to cover.
            others: further variances, taken as known, which the shares are of too.
            seed: the seed of the draws.
        """
        rng, more = np.random.default_rng(seed), sum((others or {}).values())
        drawn = {
            part: square * self.degrees[part] / rng.chisquare(self.degrees[part], DRAWS)
            for part, square in self.mean_squares.items()
        }
        estimates = {p: max(0.0, float(self._solved(p, self.mean_squares))) for p in self.parts}
        likely = {p: np.maximum(self._solved(p, drawn), 0.0) for p in self.parts}
        whole, wholes = sum(estimates.values()) + more, sum(likely.values()) + more
        found, everything = {}, frozenset(self.factors)
        for part, estimate in estimates.items():
            ends = _middle(likely[part], level)
            if part == everything:
                ends = variance_interval(estimate, self.degrees[part], level)
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.nan_to_num(likely[part] / wholes)
            share = estimate / whole if whole else 0.0
            found[part] = Component(estimate, ends, share, _middle(shares, level))
        return found

    def _solved(self, part: Part, squares: Mapping[Part, np.ndarray | float]) -> np.ndarray | float:
        """Solve for a part's variance: its expected mean square holds all parts that contain it."""
        signed = ((-1) ** (len(p) - len(part)) * ms for p, ms in squares.items() if p >= part)
        return sum(signed) * self.levels(part) / self.values.size


def variance_interval(variance: float, degrees: float, level: float = LEVEL) -> Interval:
    """Return the interval of a variance that is estimated with so many degrees of freedom.

    It is exact for normal values.

    >>> [round(end, 3) for end in variance_interval(1.0, 9)]
    [0.473, 3.333]
    """
    ends = (special.chdtri(degrees, tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Interval(*(float(variance * degrees / end) for end in ends))


def _middle(values: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def on_grid(seeds: Sequence[int], values: np.ndarray) -> Grid | None:
    """Lay values on the grid of their seeds' streams.

    Args:
        seeds: one for each value.
        values: `(seeds,)`.

    Returns:
        The grid of the streams that vary; None if a combination is missing.
    """
    streams = varying(seeds)
    places = {s: sorted({streams_of(seed)[s] for seed in seeds}) for s in streams}
    shape = tuple(map(len, places.values()))
    if not streams or math.prod(shape) != len(seeds):
        return None
    order = np.lexsort([[streams_of(seed)[s] for seed in seeds] for s in reversed(streams)])
    return Grid(streams, np.asarray(values, float)[order].reshape(shape))
