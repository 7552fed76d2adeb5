"""Which arms may be the best: all that are not shown to be worse than another."""

from collections.abc import Sequence

from normlab.evidence.contrasts import contrast
from normlab.evidence.intervals import LEVEL
from normlab.evidence.samples import Sample


def may_be_best(samples: Sequence[Sample], higher_is_better: bool) -> list[Sample]:
    """The arms among which the best one is, at 95% (Hsu 1984, with Bonferroni's correction).

    An arm is left out if the interval of its difference to some other arm lies wholly on the worse
    side, at a level raised for the number of others. So the arm that is truly the best is left out
    in at most 5% of cases, however many arms there are; many arms of few seeds leave none out.

    Args:
        samples: the arms' values; none without a value.
        higher_is_better: whether more is better.

    Returns:
        Those, in order of their means, the best first.

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
