"""Sums up one difference over several data sets and networks, by partial pooling.

Each setting (a data set with a network) has an estimate with a variance. Its true value differs
from setting to setting: the true values are taken as drawn from one normal distribution, whose mean
and spread are asked for (DerSimonian & Laird 1986, Controlled Clinical Trials 7:177-188). This
assumes that the settings are alike as far as one knows beforehand, that they share no runs, and
that each variance is known well. None of that is tested here, and five settings show little of
their spread.

The spread is estimated by Paule & Mandel's (1982) rule, and the interval of the mean is Hartung &
Knapp's (2001), which covers with few settings, and is never narrower than it would be if variances
were all that counts (Roever, Knapp & Friede 2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special

from normlab.errors import UserError
from normlab.evidence.intervals import EVERYTHING, LEVEL, Interval


@dataclass(frozen=True)
class Pooled:
    """A difference over several settings.

    Attributes:
        estimate: the mean of the settings' true values.
        error: its standard error.
        interval: its interval: where the mean of such settings lies.
        spread: the standard deviation of the true values from setting to setting.
        prediction: the interval of the true value in one more setting of the kind; unbounded for
            fewer than three. With five settings it covers nine cases in ten and not 95%, because
            five show too little of the spread.
        settings: each setting's own value, drawn towards the mean by as much as its variance is
            large beside the spread.
    """

    estimate: float
    error: float
    interval: Interval
    spread: float
    prediction: Interval
    settings: tuple[float, ...]


def pool(estimates: Sequence[float], variances: Sequence[float], level: float = LEVEL) -> Pooled:
    """Pool the estimates of several settings, as drawn from one distribution of true values.

    Args:
        estimates: `(k,)`, one for each setting.
        variances: `(k,)`, the squares of their standard errors.
        level: the share of cases in which the intervals are to cover.

    Raises:
        UserError: there are fewer than two settings, or a variance is not positive.

    >>> found = pool([0.02, 0.03, 0.01, 0.04], [1e-4, 1e-4, 1e-4, 1e-4])
    >>> round(found.estimate, 3), round(found.spread, 4)
    (0.025, 0.0082)
    """
    y, v = np.asarray(estimates, float), np.asarray(variances, float)
    if len(y) < 2 or len(y) != len(v):
        raise UserError(f"at least two settings with a variance each are pooled, found {len(y)}")
    if not (np.isfinite(y).all() and np.isfinite(v).all() and (v > 0).all()):
        raise UserError("a setting's estimate must be a number, and its variance a positive one")
    between = _between(y, v)
    weights = 1 / (v + between)
    mean = float(weights @ y / weights.sum())
    scale = max(1.0, float(weights @ (y - mean) ** 2) / (len(y) - 1))
    error = math.sqrt(scale / weights.sum())
    half = _t(level, len(y) - 1) * error
    prediction = EVERYTHING
    if len(y) > 2:
        wide = _t(level, len(y) - 2) * math.hypot(error, math.sqrt(between))
        prediction = Interval(mean - wide, mean + wide)
    kept = between / (between + v)
    settings = tuple(float(one) for one in mean + kept * (y - mean))
    interval = Interval(mean - half, mean + half)
    return Pooled(mean, error, interval, math.sqrt(between), prediction, settings)


def _between(y: np.ndarray, v: np.ndarray) -> float:
    """Find the variance with which the weighted squares are as large as they should be."""

    def excess(between: float) -> float:
        weights = 1 / (v + between)
        mean = weights @ y / weights.sum()
        return float(weights @ (y - mean) ** 2) - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    # With the whole sum of squares as the variance, the weighted squares are below k - 1.
    most = float(np.square(y - y.mean()).sum())
    root: Any = optimize.brentq(excess, 0.0, most, xtol=1e-15)
    return float(root)


def _t(level: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + level) / 2))
