"""Finds reasons why an interval of a mean covers less than it says."""

from collections.abc import Iterable

import numpy as np

from normlab.evidence.samples import Sample
from normlab.measures.measures import Measure

SKEWED = 1 / 3
"""Values are skewed if their deviation exceeds this part of their mean distance from the end of the
scale. For lognormal values it is sigma = 0.33, where 5% of cases pass one end of a 95% interval."""


def share(one: Sample) -> str:
    """Say how many seeds of an arm did not learn; empty if all learned.

    >>> four = np.array([0.1, 0.6, 0.6, 0.6])
    >>> share(Sample("a", (0, 1, 2, 3), four, np.zeros(4, bool), 4, unlearned=(0,)))
    '1 of 4 seeds of a did not learn'
    """
    if not one.unlearned:
        return ""
    if not mixed(one):
        return f"none of the {len(one)} seeds of {one.name} learned"
    return f"{len(one.unlearned)} of {len(one)} seeds of {one.name} did not learn"


def mixed(one: Sample) -> bool:
    """Return whether some seeds of an arm learned and others did not."""
    return 0 < len(one.unlearned) < len(one)


def hidden_failures(seeds: int) -> float:
    """Return the largest share of seeds that may fail (95%) after so many seeds without a failure.

    >>> round(hidden_failures(5), 2)
    0.45
    """
    return 1 - 0.05 ** (1 / seeds)


def doubts(measure: Measure, arms: Iterable[Sample]) -> list[str]:
    """Name the arms for whose mean an interval says too much.

    Some of their seeds learned and others did not, or their values are skewed: they crowd at an end
    of their scale and spread over much of the distance from it.
    """
    found, seen = [], {one.name: one for one in arms}.values()
    names = [one.name for one in seen if mixed(one) and not one.censored.any()]
    if names:
        found.append(
            f"the interval of a mean does not cover what it says where some seeds do not learn "
            f"({', '.join(names)})"
        )
    names = [one.name for one in seen if not mixed(one) and skewed(measure, one)]
    if names:
        found.append(
            f"the values of {' and '.join(names)} may be skewed, and then the interval covers less "
            "than it says (about 82% where it says 95%, of lognormal values)"
        )
    return found


def warnings(measure: Measure, arms: Iterable[Sample]) -> list[str]:
    """Say the same in whole sentences."""
    return [f"{text[:1].upper()}{text[1:]}." for text in doubts(measure, arms)]


def skewed(measure: Measure, one: Sample) -> bool:
    """Return whether values spread more than a third of their mean distance to the scale's end.

    The end is zero if no value is below it. For an accuracy or an area under the curve it is one,
    if that is nearer.
    """
    if len(one) < 2 or one.binary or one.censored.any() or one.values.min() < 0:
        return False
    distances = [one.values]
    shares = bool(measure.metrics) and all(not m.endswith("loss") for m in measure.metrics)
    if shares and not measure.definition.unit and measure.name in ("final", "best", "area"):
        distances.append(1 - one.values)
    nearest = min(distances, key=np.mean)
    return bool(nearest.std(ddof=1) > SKEWED * nearest.mean())
