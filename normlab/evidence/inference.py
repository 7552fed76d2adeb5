"""Tests, probabilities and profiles that a comparison shows beside its intervals."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from normlab.evidence.samples import Sample

RESAMPLES = 9_999


def probability_better(left: Sample, right: Sample, higher_is_better: bool | None) -> float:
    """Return the chance that a run of the left arm beats one of the right; ties count half.

    Two values that were never reached are a tie. NaN if neither more nor less is better.

    >>> def arm(*values): return Sample("", (), np.array(values), np.zeros(len(values), bool), 0)
    >>> probability_better(arm(0.5, 0.7), arm(0.4, 0.5), higher_is_better=True)
    0.875
    """
    if not len(left) or not len(right) or higher_is_better is None:
        return math.nan
    a, b = (np.where(s.censored, math.inf, s.values) for s in (left, right))
    wins, ties = (a[:, None] > b).mean(), (a[:, None] == b).mean()
    return float(wins + ties / 2 if higher_is_better else 1 - wins - ties / 2)


def permutation_p(left: Sample, right: Sample, *, paired: bool = False, seed: int = 0) -> float:
    """Return the two-sided p-value of the difference of means when arms' labels are exchanged.

    It is exact with at most 9,999 exchanges, else estimated from so many at random. At five runs an
    arm it is never below 2/252, paired never below 2/32. NaN if a value is censored, or if
    streams of the seeds are crossed.
    """
    if min(len(left), len(right)) < 2 or left.censored.any() or right.censored.any():
        return math.nan
    if left.crossed or right.crossed:  # such runs are not exchangeable
        return math.nan
    if paired:
        common = [s for s in left.seeds if s in right.seeds]
        groups, kind = (left.only(common), right.only(common)), "samples"
    else:
        groups, kind = (left.values, right.values), "independent"
    # scipy.stats takes longer to import than the rest of a report to be made.
    if (exchanged := _every_exchange(*groups, kind)) is not None:
        return _two_sided(exchanged)
    from scipy import stats

    found = stats.permutation_test(
        groups,
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        permutation_type=kind,
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _every_exchange(left: np.ndarray, right: np.ndarray, kind: str) -> np.ndarray | None:
    """Return the differences of means after every exchange, the observed first.

    None stands for more exchanges than `RESAMPLES`.
    """
    n, both = len(left), np.concatenate([left, right])
    if kind == "samples":
        if 2**n > RESAMPLES:
            return None
        signs = np.array(list(itertools.product([False, True], repeat=n)))
        firsts, seconds = np.where(signs, right, left), np.where(signs, left, right)
    else:
        if math.comb(len(both), n) > RESAMPLES:
            return None
        chosen = np.array(list(itertools.combinations(range(len(both)), n)))
        others = np.array([np.setdiff1d(range(len(both)), one) for one in chosen])
        firsts, seconds = both[chosen], both[others]
    return firsts.mean(axis=-1) - seconds.mean(axis=-1)


def _two_sided(exchanged: np.ndarray) -> float:
    """Return twice the smaller share of differences as extreme as the first, up to rounding."""
    observed = exchanged[0]
    rounding = abs(100 * np.finfo(float).eps * observed)  # as scipy's permutation test has it
    below, above = exchanged <= observed + rounding, exchanged >= observed - rounding
    return float(min(1.0, 2 * min(below.mean(), above.mean())))


def least_p(left: int, right: int) -> float:
    """Return the smallest p-value that `permutation_p` can give for so many unpaired runs.

    Two arms of three runs can be exchanged in 20 ways, so the two-sided p is never below 2/20.

    >>> least_p(3, 3), round(least_p(4, 4), 3)
    (0.1, 0.029)
    """
    return min(1.0, 2 / math.comb(left + right, left)) if min(left, right) > 1 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's (1979) rule, so that each holds for all comparisons together.

    NaN stays NaN, and counts as a comparison.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [math.nan] * len(p_values), 0.0
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, index) in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        adjusted[index] = running
    return adjusted


def sampling_error(share: float, examples: int) -> float:
    """Return the standard error of an accuracy that the choice of test examples causes.

    Seeds do not show it: all runs are judged on the same examples. It moves all arms mostly
    alike, so it limits what an accuracy says about new data, less so a difference between arms.

    >>> round(sampling_error(0.6, 10_000), 4)
    0.0049
    """
    return math.sqrt(share * (1 - share) / examples)


def performance_profile(
    scores: Mapping[str, Sequence[float] | np.ndarray], thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the share of runs that reach each threshold; every data set counts alike.

    It is the profile of an arm over several data sets (Dolan & More 2002; Agarwal et al. 2021).

    Args:
        scores: for each data set one score a run; higher is better.
        thresholds: `(k,)`.

    Returns:
        `(k,)`, from 0 to 1.

    >>> performance_profile({"a": [0.5, 0.9], "b": [0.7]}, [0.6, 0.8]).tolist()
    [0.75, 0.25]
    """
    levels = np.asarray(thresholds, float)
    shares = [(np.asarray(own, float)[:, None] >= levels).mean(axis=0) for own in scores.values()]
    return np.mean(shares, axis=0)


def profile_band(
    scores: Mapping[str, Sequence[float]],
    thresholds: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pointwise bootstrap band of a profile; seeds are resampled within each data set.

    With few seeds it is too narrow, as every bootstrap is; read it as the least it can be.
    """
    rng = np.random.default_rng(seed)
    profiles = [
        performance_profile(
            {name: rng.choice(np.asarray(own), len(own)) for name, own in scores.items()},
            thresholds,
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(profiles, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
