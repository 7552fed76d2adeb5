"""Computes the number of seeds an arm that would decide a claim, if the estimate is the truth."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

POWER = 0.8
MOST_SEEDS = 1000

Distances = Sequence[tuple[float, float]]
"""The quantities that an interval must distinguish from zero, each as its distance and its standard
deviation with one seed an arm.
"""


def power(distances: Distances, freedom: float, n: int, level: float) -> float:
    """Return the chance that n seeds an arm distinguish all distances from zero, on the right side.

    It is one minus the sum of each distance's chance to fail, which is exact (noncentral t). For
    the two bounds of an equivalence test it is off by less than a point if the power is above a
    half.

    Args:
        distances: as `Distances`.
        freedom: degrees of freedom per n - 1.
        n: the number of seeds an arm.
        level: the level of the interval that must exclude zero.

    >>> round(power([(1.0, 1.0)], 1.0, 10, 0.95), 3)  # Cohen 1988: 10 differences, d = 1
    0.803
    """
    distance, deviation = np.abs(np.array(distances, float)).T
    degrees = freedom * (n - 1)
    shifts = distance * math.sqrt(n) / deviation
    # Far out the noncentral t loses its digits, and the chance to fail is nothing.
    fail = special.nctdtr(
        degrees, np.minimum(shifts, 30), special.stdtrit(degrees, (1 + level) / 2)
    )
    return float(1 - fail.sum())


def seeds_to_decide(
    distances: Distances, freedom: float, level: float, at_least: int = 2
) -> int | None:
    """Return the fewest seeds an arm with 80% power; None if more than 1000 would be needed."""
    if not distances or any(not distance or math.isnan(distance) for distance, _ in distances):
        return None
    low, high = max(2, at_least) - 1, MOST_SEEDS
    if power(distances, freedom, high, level) < POWER:
        return None
    while high - low > 1:  # the higher number is enough, the lower is not known to be
        middle = (low + high) // 2
        enough = power(distances, freedom, middle, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def scaled(distances: Distances, degrees: float) -> tuple[Distances, Distances]:
    """Return the distances with the deviations at both ends of their 95% interval (chi-square).

    >>> near, far = scaled([(1.0, 1.0)], 4)
    >>> round(near[0][1], 2), round(far[0][1], 2)
    (0.6, 2.87)
    """
    ends = np.sqrt(degrees / special.chdtri(degrees, [0.025, 0.975]))
    near, far = ([(d, deviation * float(end)) for d, deviation in distances] for end in ends)
    return near, far


def between(ends: tuple[int | None, int | None]) -> str:
    """Write a range of seeds in words.

    >>> between((8, 62)), between((300, None)), between((None, None))
    ('8 to 62', '300 to over 1000', 'over 1000')
    """
    words = [f"over {MOST_SEEDS}" if end is None else str(end) for end in ends]
    return " to ".join(dict.fromkeys(words))
