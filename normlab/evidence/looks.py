"""Pays for every look at growing data, so that all looks together err in 5% of cases at most.

A plan names its looks before the first step, as numbers of seeds an arm. The allowed chance of a
wrong verdict is spent over them by the rule of Lan & DeMets (1983) of the O'Brien-Fleming type: an
early look decides only what is very clear, and the last one decides nearly as a single look would.

The boundaries are those of Student's t with its deviation estimated from the same growing data, and
not those of the normal approximation, which errs too often with five seeds. `looked_at` turns a
look's ordinary p-value into the one that holds for the whole plan; Holm's rule takes it as any
other. `level_at` gives the level of the interval that a look shows and decides by: the repeated
confidence interval of Jennison & Turnbull (1989).

Seeds that nobody planned are judged by an interval that holds however often one looks
(`anytime_level`).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import optimize, special

CELLS, NODES = 100, 16
"""The cells of the cosine, and the points of the quadrature over the share of the new data. Twice
as many move the nominal levels of six looks by less than half a percent of them."""

ALLOWED = (1e-7, 1e-5, 1e-4, 1e-3, 0.005, 0.0125, 0.025, 0.05, 0.1, 0.3)
"""The chances of error for which a plan's boundaries are computed; others are interpolated."""

NOTHING = 1e-13
"""A smaller chance is lost in rounding, so such a look decides as if it were the first."""


def spent(allowed: float, fraction: float) -> float:
    """Return the part of a two-sided chance of error that is spent at a fraction of the seeds.

    The rule is Lan & DeMets's (1983) for O'Brien-Fleming boundaries, with one half on each side.

    >>> round(spent(0.05, 0.25), 6), round(spent(0.05, 0.5), 4), spent(0.05, 1.0)
    (1.5e-05, 0.0031, 0.05)
    """
    if fraction >= 1:
        return allowed
    edge = special.ndtri(1 - allowed / 4) / math.sqrt(fraction)
    return float(4 * special.ndtr(-edge))


def looked_at(p: float, looks: Sequence[int], look: int) -> float:
    """Return the p-value that holds for a whole plan, from that of one of its looks.

    It is the least chance of error at which the plan would have decided at this look.

    Args:
        p: the two-sided p-value of Student's t at the look.
        looks: the numbers of seeds an arm at every look, rising.
        look: the place of the look, from 0.

    >>> looked_at(0.03, [10], 0)
    0.03
    >>> looked_at(0.03, [5, 10], 0) > 0.1, 0.03 < looked_at(0.03, [5, 10], 1) < 0.035
    (True, True)
    """
    if len(looks) == 1 or p >= 1:
        return p
    nominal = _probits(tuple(looks))[:, look]
    found = float(special.ndtr(-_between(_probit(p), nominal, _probit(np.array(ALLOWED)))))
    return min(1.0, 2 * found)


def level_at(allowed: float, looks: Sequence[int], look: int) -> float:
    """Return the level of the interval that a look decides by.

    Args:
        allowed: the chance of a wrong verdict that the whole plan may have.
        looks: as in `looked_at`.
        look: as in `looked_at`.

    >>> round(level_at(0.05, [5, 10, 20], 2), 3)
    0.952
    """
    if len(looks) == 1:
        return 1 - allowed
    nominal = _probits(tuple(looks))[:, look]
    found = _between(_probit(allowed), _probit(np.array(ALLOWED)), nominal)
    return 1 - 2 * float(special.ndtr(-found))


def anytime_level(allowed: float, seeds: int) -> float:
    """Return the level of the t interval that holds at every number of seeds at once.

    It is the interval of a mixture of t tests over effects that are normal about zero with the
    deviation of one seed's difference (Lai 1976; Wang & Ramdas 2023). The chance that it ever
    misses the truth, at any number of seeds, is at most `allowed`. It needs pairs by seed, or one
    arm alone.

    >>> [round(anytime_level(0.05, seeds), 4) for seeds in (3, 10, 40)]
    [1.0, 0.9962, 0.9981]
    """
    freedom, grown = seeds - 1, 1.0 + seeds
    # The mixture's likelihood ratio is ((1 + s) / (1 + s / grown))^(seeds/2) / sqrt(grown), where
    # s = t^2 / freedom; the interval ends where it is 1 / allowed.
    ratio = (math.sqrt(grown) / allowed) ** (2 / seeds)
    if freedom < 1 or ratio >= grown:
        return 1.0  # no t is far enough
    t = math.sqrt(freedom * (ratio - 1) / (1 - ratio / grown))
    return float(1 - 2 * special.stdtr(freedom, -t))


def nominal_levels(looks: Sequence[int], allowed: float) -> np.ndarray:
    """Compute the two-sided p-values of Student's t below which each look decides.

    The t statistics of growing normal data are a Markov chain. The cosine of the angle between the
    n values and the direction of equal values is t in another scale; the cosine at the next look
    depends on this one and on the new values alone. So the probability of the cosines at which no
    look has decided is carried from look to look, in cells. Two arms without pairs have twice the
    degrees of freedom, for which these levels err on the safe side by less than 3% of them.

    Args:
        looks: the numbers of seeds an arm, rising.
        allowed: the chance of error of all looks together.

    Returns:
        `(looks,)`.

    >>> nominal_levels([5, 10, 20], 0.05).round(4).tolist()
    [0.0, 0.003, 0.0484]
    """
    found: list[float] = []
    before, cosines, mass, paid = 0, np.empty(0), np.empty(0), 0.0
    for seeds in looks:
        due = spent(allowed, seeds / looks[-1])
        chance, paid = (due - paid) / 2, due
        one_sided = _decides(chance, seeds, before, cosines, mass)
        found.append(2 * one_sided)
        edges = np.linspace(math.acos(_cosine(one_sided, seeds)), math.pi, CELLS + 1)
        mass = np.diff(_passing(np.cos(edges), seeds, before, cosines, mass))
        cosines, before = np.cos((edges[1:] + edges[:-1]) / 2), seeds
    return np.array(found)


def _decides(
    chance: float, seeds: int, before: int, cosines: np.ndarray, mass: np.ndarray
) -> float:
    """Find the one-sided p-value that is passed with this chance where no look has decided yet."""

    def too_often(z: float) -> float:
        edge = np.array([_cosine(float(special.ndtr(-z)), seeds)])
        return float(_passing(edge, seeds, before, cosines, mass)[0]) - chance

    first = -float(special.ndtri(chance))
    if not before or chance < NOTHING or too_often(first) >= 0:
        return chance
    edge: Any = optimize.brentq(too_often, 0.0, first, xtol=1e-6)
    return float(special.ndtr(-edge))


def _passing(
    edges: np.ndarray, seeds: int, before: int, cosines: np.ndarray, mass: np.ndarray
) -> np.ndarray:
    """Return the chance that no look has decided yet and that the cosine is above each edge."""
    if not before:
        return _cap(edges, seeds)
    return _next(edges[:, None], cosines, before, seeds) @ mass


def _next(edge: np.ndarray, cosine: np.ndarray, before: int, seeds: int) -> np.ndarray:
    """Return the chance that the cosine at the next look is above an edge, given the one before.

    The new values' share of the sum of squares is beta distributed, and their own cosine is that of
    a random direction; both are independent of everything before.
    """
    new = seeds - before
    old_part, new_part = math.sqrt(before / seeds), math.sqrt(new / seeds)
    if new > 1:
        points, weights = special.roots_jacobi(NODES, new / 2 - 1, before / 2 - 1)
        share = (1 + points) / 2  # of the old values
        needed = edge[..., None] - old_part * np.sqrt(share) * cosine[..., None]
        return _cap(needed / (new_part * np.sqrt(1 - share)), new) @ (weights / weights.sum())
    # One new value is only up or down, and the shares that pass are found exactly. With the angle
    # phi of the share, the cosine is length * cos(phi - middle).
    total = np.zeros(np.broadcast_shapes(edge.shape, cosine.shape))
    for sign in (-1, 1):
        old, fresh = old_part * cosine, sign * new_part
        length, middle = np.hypot(old, fresh), np.arctan2(fresh, old)
        reach = np.arccos(np.clip(edge / length, -1, 1))
        ends = (np.clip(middle + way * reach, 0, math.pi / 2) for way in (1, -1))
        high, low = (special.betainc(0.5, before / 2, np.sin(end) ** 2) for end in ends)
        total += np.maximum(high - low, 0) / 2
    return total


def _cap(edge: np.ndarray, dimension: int) -> np.ndarray:
    """Return the chance that a coordinate of a random direction in space is above an edge."""
    edge = np.clip(edge, -1, 1)
    half = special.betainc((dimension - 1) / 2, 0.5, 1 - edge * edge) / 2
    return np.where(edge >= 0, half, 1 - half)


def _cosine(one_sided: float, seeds: int) -> float:
    """Return the cosine whose t has a one-sided p-value."""
    t = -float(special.stdtrit(seeds - 1, one_sided))
    return t / math.hypot(t, math.sqrt(seeds - 1)) if math.isfinite(t) else 1.0


@lru_cache(maxsize=64)
def _probits(looks: tuple[int, ...]) -> np.ndarray:
    return np.array([_probit(nominal_levels(looks, allowed)) for allowed in ALLOWED])


def _probit(p: np.ndarray | float) -> np.ndarray:
    return -special.ndtri(np.maximum(p, 1e-300) / 2)


def _between(value: np.ndarray | float, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Interpolate, and beyond the ends go on along the last line; the scales are nearly linear."""
    order = np.argsort(known)
    known, wanted = known[order], wanted[order]
    place = int(np.clip(np.searchsorted(known, value), 1, len(known) - 1))
    slope = (wanted[place] - wanted[place - 1]) / (known[place] - known[place - 1])
    return wanted[place - 1] + slope * (value - known[place - 1])
