"""Judges many imagined sweeps at once, as `contrasts` and `interactions` estimate one.

`Form` says how a claim's arms are compared, which its arms' configs settle before any run.
`intervals` gives the intervals of thousands of sweeps with the formulas of `intervals.py`, in
arrays. The few sweeps with values that are all equal are estimated one by one, by the very code
that judges runs.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.interactions import interaction
from normlab.evidence.intervals import ROUNDING, unseen
from normlab.evidence.looks import level_at
from normlab.evidence.samples import Sample
from normlab.measures.claims import Expectation, Quantity

SUPPORTED, UNDECIDED, REFUTED = 1, 0, -1

Ends = tuple[np.ndarray, np.ndarray]


class Form(NamedTuple):
    """How the arms of a claim are compared.

    Attributes:
        quantity: "difference", "ratio" or "mean".
        arms: the number of arms: 1, 2, or 4 for a difference of two differences.
        paired: "all" if the runs of one seed begin alike in every arm, "pairs" if they do so in
            the two arms at each value of `across` alone, "none" otherwise.
        grain: the least step of a share of test examples; 0 for other measures.
    """

    quantity: Quantity
    arms: int
    paired: Literal["all", "pairs", "none"] = "all"
    grain: float = 0.0

    @property
    def one_number(self) -> bool:
        """Return whether each seed gives one number, of which Student's t is taken."""
        return self.quantity != "ratio" and (self.arms == 1 or self.paired == "all")


SIGNS = {1: (1.0,), 2: (1.0, -1.0), 4: (1.0, -1.0, -1.0, 1.0)}
"""The signs with which the arms of a mean, a difference and a difference of two are added up."""


def intervals(form: Form, values: np.ndarray, level: float) -> Ends:
    """Return the ends of the intervals that verdicts on many sweeps would look at.

    Args:
        form: how the arms are compared.
        values: `(arms, sweeps, seeds)`.
        level: the level of the intervals.

    Returns:
        The lower and the upper ends, each `(sweeps,)`.

    >>> values = np.array([[[0.5, 0.6, 0.7]]])
    >>> [float(end[0].round(3)) for end in intervals(Form("mean", 1), values, 0.95)]
    [0.352, 0.848]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _usual(form, values, level)
    for index in np.flatnonzero(_odd(form, values)):
        low[index], high[index] = _one_by_one(form, values[:, index]).at(level)
    return low, high


def decide(
    form: Form,
    expected: Expectation,
    looks: Sequence[int],
    values: np.ndarray,
    levels: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Judge many sweeps look by look, until each is decided.

    Args:
        form: how the arms are compared.
        expected: what the claim expects.
        looks: the numbers of seeds at the looks.
        values: `(arms, sweeps, seeds)`.
        levels: the level at each look.

    Returns:
        `SUPPORTED`, `UNDECIDED` or `REFUTED`, and the place of the look that decided, or of the
        last one; each `(sweeps,)`.
    """
    outcomes = np.zeros(values.shape[1], int)
    places = np.full(values.shape[1], len(looks) - 1)
    left = np.arange(values.shape[1])
    for place, (seeds, level) in enumerate(zip(looks, levels, strict=True)):
        ends = intervals(form, values[:, left, :seeds], level)
        inside, outside = expected.sides(*ends)
        found = np.where(inside, SUPPORTED, np.where(outside, REFUTED, UNDECIDED))
        outcomes[left] = found
        places[left[found != UNDECIDED]] = place
        left = left[found == UNDECIDED]
    return outcomes, places


def levels_of(looks: Sequence[int], allowed: float) -> list[float]:
    """Return the level of the interval at each look of a plan that may err so often.

    >>> levels_of([10], 0.05)
    [0.95]
    """
    return [level_at(allowed, looks, place) for place in range(len(looks))]


def _usual(form: Form, values: np.ndarray, level: float) -> Ends:
    if form.one_number:
        signs = np.array(SIGNS[form.arms])[:, None, None]
        return _student((signs * values).sum(axis=0), level, form.grain)
    if form.quantity == "ratio":
        return _fieller(form, values, level)
    if form.arms == 4 and form.paired == "pairs":
        values = values[[0, 2]] - values[[1, 3]]
    return _separate(values, level, form.grain)


def _student(values: np.ndarray, level: float, grain: float) -> Ends:
    """Compute `t_interval` of each row."""
    n = values.shape[-1]
    error = values.std(axis=-1, ddof=1) / math.sqrt(n)
    half = np.hypot(_t(level, n - 1) * error, unseen(grain, n, level))
    middle = values.mean(axis=-1)
    return middle - half, middle + half


def _separate(values: np.ndarray, level: float, grain: float) -> Ends:
    """Compute Welch's interval of two sets of values, or Satterthwaite's of four."""
    sets, _, n = values.shape
    errors = values.var(axis=-1, ddof=1) / n
    degrees = errors.sum(axis=0) ** 2 / (errors**2 / (n - 1)).sum(axis=0)
    steps = math.sqrt(sets) * unseen(grain, n, level)
    half = np.hypot(_t(level, degrees) * np.sqrt(errors.sum(axis=0)), steps)
    means = values.mean(axis=-1)
    middle = (np.array(SIGNS[sets])[:, None] * means).sum(axis=0)
    return middle - half, middle + half


def _fieller(form: Form, values: np.ndarray, level: float) -> Ends:
    """Compute `fieller` of each pair of rows; a set of ratios without bounds is everything."""
    left, right = values
    n = left.shape[-1]
    x, y = left.mean(axis=-1), right.mean(axis=-1)
    a, b = left.var(axis=-1, ddof=1), right.var(axis=-1, ddof=1)
    degrees: np.ndarray | float = n - 1
    if form.paired != "all":
        p, q = a / n, (x / y) ** 2 * b / n
        degrees = (p + q) ** 2 / (p * p / (n - 1) + q * q / (n - 1))
    t2, step2 = _t(level, degrees) ** 2, unseen(form.grain, n, level) ** 2
    covariance = 0.0
    if form.paired == "all":
        products = (left - x[:, None]) * (right - y[:, None])
        covariance = t2 * products.sum(axis=-1) / (n - 1) / n
    square, half, constant = (
        y * y - (t2 * b / n + step2), x * y - covariance, x * x - (t2 * a / n + step2)
    )  # fmt: skip
    root = half * half - square * constant
    root = np.where(np.abs(root) < 1e-12 * half * half, 0.0, root)
    bounded = (square > 0) & (root >= 0) & (x != 0) & (y != 0)
    wide = np.sqrt(np.maximum(root, 0.0)) / square
    low, high = half / square - wide, half / square + wide
    return np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)


def _odd(form: Form, values: np.ndarray) -> np.ndarray:
    """Return which sweeps have an arm of equal values, or arms that differ equally in every seed.

    Other rules hold for these, because such values do not show their spread.
    """
    sets = values
    if form.arms == 4 and form.paired != "none":
        sets = values[[0, 2]] - values[[1, 3]]
    odd = _equal(sets).any(axis=0)
    if len(sets) == 2:
        difference = sets[0] - sets[1]
        if form.quantity == "ratio":
            with np.errstate(divide="ignore", invalid="ignore"):
                odd |= _equal(sets[0] / sets[1])
        largest = np.abs(sets).max(axis=(0, -1))
        odd |= np.ptp(difference, axis=-1) <= ROUNDING * largest
    return odd


def _equal(values: np.ndarray) -> np.ndarray:
    low, high = values.min(axis=-1), values.max(axis=-1)
    return high - low <= ROUNDING * np.maximum(high, -low)


def _one_by_one(form: Form, values: np.ndarray) -> IntervalEstimate:
    """Estimate one sweep, `(arms, seeds)`, as a verdict does."""
    arms = [_sample(form, arm, own) for arm, own in enumerate(values)]
    if form.quantity == "mean":
        return mean_of(arms[0])
    if form.arms == 4:
        return interaction(arms[:2], arms[2:])
    return contrast(arms[0], arms[1], form.quantity)


def _sample(form: Form, arm: int, values: np.ndarray) -> Sample:
    start = {"all": "", "pairs": str(arm // 2), "none": str(arm)}[form.paired]
    seeds = tuple(range(len(values)))
    known = np.zeros(len(values), bool)
    return Sample(
        f"arm {arm + 1}", seeds, values, known, len(values), grain=form.grain,
        counted=form.grain > 0, origins=tuple(f"{start} {seed}" for seed in seeds),
    )  # fmt: skip


def _t(level: float, freedom: np.ndarray | float) -> np.ndarray:
    return np.asarray(special.stdtrit(freedom, (1 + level) / 2))
