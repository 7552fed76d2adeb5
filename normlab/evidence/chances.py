"""Computes before any run how likely each verdict on a claim is, if the truth were known.

The intervals, looks and levels are those of the verdict. Where each seed gives one number and there
is one look, the chances are exact (the noncentral t distribution, with both bounds of a margin);
otherwise ten thousand sweeps are drawn by a seeded generator and judged. Values are taken to be
normal.

With several claims the level depends by Holm's rule on how many others are decided. So a chance
lies between that with all others open and that with all others decided. `together` gives the
chances of all claims at once, if all truths are stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from normlab.evidence import power
from normlab.evidence.imagined import (
    REFUTED,
    SIGNS,
    SUPPORTED,
    UNDECIDED,
    Form,
    decide,
    levels_of,
)
from normlab.evidence.intervals import LEVEL, unseen
from normlab.measures.claims import Expectation

SWEEPS = 10_000
"""The standard error of a chance of 80% is then 0.4 points."""

FEW_SWEEPS = 2_000
"""For sweeps of hundreds of seeds, whose draws would not fit the memory."""

NODES = 2_000
"""The points of the quadrature over the deviation that a sweep shows."""

MOST_SPREADS = 1_000
"""An effect that is larger than so many standard deviations is not looked for."""


@dataclass(frozen=True)
class Noise:
    """How the values of a measure vary between seeds.

    Attributes:
        deviations: the standard deviation between seeds of each arm of the claim.
        correlation: the correlation of two arms' values of one seed, where runs are paired.
        base: the mean of the right arm, which a ratio needs; None if it is not known.
        degrees: the degrees of freedom with which the deviations are known; None if they are given.
    """

    deviations: tuple[float, ...]
    correlation: float = 0.0
    base: float | None = None
    degrees: float | None = None


class Chances(NamedTuple):
    """The chances of the three verdicts."""

    supported: float
    undecided: float
    refuted: float


@dataclass(frozen=True)
class Design:
    """What settles the chances of the verdicts on a claim, but for the truth.

    Attributes:
        form: how its arms are compared.
        expected: what it expects.
        looks: the numbers of seeds an arm at the looks.
        noise: how its measure varies between seeds.
        claims: how many claims the experiment has.
    """

    form: Form
    expected: Expectation
    looks: tuple[int, ...]
    noise: Noise
    claims: int = 1

    @property
    def strictest(self) -> float:
        """The chance of error that is allowed while no other claim is decided."""
        return (1 - LEVEL) / self.claims

    def chances(self, effect: float, allowed: float | None = None) -> Chances:
        """Return the chances of the verdicts if the truth is `effect`.

        Args:
            effect: the true difference, ratio or mean.
            allowed: the chance of error that Holm's rule allows; the strictest by default.

        >>> from normlab.measures.claims import Expectation
        >>> design = Design(Form("difference", 2), Expectation.parse("difference > 0"), (10,),
        ...                 Noise((1.0, 1.0), correlation=0.5))
        >>> [round(chance, 3) for chance in design.chances(1.0)]  # Cohen 1988: 0.803
        [0.803, 0.197, 0.0]
        """
        allowed = self.strictest if allowed is None else allowed
        if self.form.one_number and len(self.looks) == 1:
            return _exact(self, effect, allowed)
        outcomes = self.outcomes(effect, allowed)
        shares = ((outcomes == one).mean() for one in (SUPPORTED, UNDECIDED, REFUTED))
        return Chances(*map(float, shares))

    def outcomes(self, effect: float, allowed: float, stream: int = 0) -> np.ndarray:
        """Return the verdicts on many drawn sweeps; the same draws serve every effect.

        Args:
            effect: as in `chances`.
            allowed: as in `chances`.
            stream: claims with other numbers have independent draws.
        """
        form, means, deviations = self._sets(effect)
        seeds = self.looks[-1]
        draws = _draws(len(means), SWEEPS if seeds <= 100 else FEW_SWEEPS, seeds, stream)
        if form.quantity == "ratio" and form.paired == "all":
            same = self.noise.correlation
            draws = np.stack([same * draws[1] + math.sqrt(1 - same**2) * draws[0], draws[1]])
        values = means[:, None, None] + deviations[:, None, None] * draws
        return decide(form, self.expected, self.looks, values, levels_of(self.looks, allowed))[0]

    def _sets(self, effect: float) -> tuple[Form, np.ndarray, np.ndarray]:
        """Return the independent sets of values that are compared: form, means and deviations."""
        form, own = self.form, np.array(self.noise.deviations)
        if form.quantity == "ratio":
            assert self.noise.base is not None
            return form, self.noise.base * np.array([effect, 1.0]), own
        if form.one_number:
            spread = _spread(own, SIGNS[form.arms], self.noise.correlation)
            return Form("mean", 1, "all", form.grain), np.array([effect]), np.array([spread])
        if form.arms == 4 and form.paired == "pairs":
            own = np.array([_spread(pair, SIGNS[2], self.noise.correlation)
                            for pair in (own[:2], own[2:])])  # fmt: skip
            form = Form("difference", 2, "none", form.grain)
        return form, np.array([effect, *[0.0] * (len(own) - 1)]), own

    @property
    def spread(self) -> float:
        """The standard deviation of the estimate with one seed an arm, near the bound."""
        distances = self._distances(self.bounds[0])
        spread = distances[0][1]
        return spread / abs(self.noise.base or 1.0) if self.form.quantity == "ratio" else spread

    @property
    def bounds(self) -> tuple[float, ...]:
        """The finite ends of the region that the claim expects."""
        return tuple(e for e in (self.expected.low, self.expected.high) if math.isfinite(e))

    def _distances(self, bound: float, effect: float | None = None) -> power.Distances:
        """Return what must be told from zero to decide on a bound, for `normlab.evidence.power`."""
        effect = bound if effect is None else effect
        _, means, deviations = self._sets(effect)
        if self.form.quantity != "ratio":
            return ((effect - bound, float(np.hypot.reduce(deviations))),)
        same = self.noise.correlation if self.form.paired == "all" else 0.0
        signs = (1.0, -bound)
        return (
            (float(means[0] - bound * means[1]), _spread(deviations * signs, (1.0, 1.0), same)),
            (float(means[1]), float(deviations[1])),
        )

    def seeds_needed(self, effect: float) -> int | None:
        """Return how many seeds an arm decide the claim in four cases of five.

        It counts with the strictest level of the last look. None stands for more than 1000.

        Args:
            effect: the true difference, ratio or mean.
        """
        distances = [one for bound in self.expected.bounds(effect)
                     for one in self._distances(bound, effect)]  # fmt: skip
        _, _, deviations = self._sets(effect)
        freedom = 1.0
        if not self.form.one_number and not (
            self.form.quantity == "ratio" and self.form.paired == "all"
        ):
            freedom = float((deviations**2).sum() ** 2 / (deviations**4).sum())
        level = levels_of(self.looks, self.strictest)[-1]
        return power.seeds_to_decide(list(dict.fromkeys(distances)), freedom, level)

    def decided_from(self, side: int) -> tuple[float | None, float | None]:
        """Return the smallest effects beyond the bounds that are decided in four cases of five.

        Args:
            side: `SUPPORTED` or `REFUTED`.

        Returns:
            The effect below which and the effect above which the claim is decided so. None stands
            for no such effect.
        """
        low, high = self.expected.low, self.expected.high
        inside = (side == SUPPORTED) is not self.expected.outside
        if inside:  # between the bounds, or beyond the only one
            if math.isfinite(low) and math.isfinite(high):
                middle = (low + high) / 2
                return self._search(low, middle, side), self._search(high, middle, side)
            return (None, self._search(low, math.inf, side)) if math.isfinite(low) else (
                self._search(high, -math.inf, side), None)  # fmt: skip
        below = self._search(low, -math.inf, side) if math.isfinite(low) else None
        above = self._search(high, math.inf, side) if math.isfinite(high) else None
        return below, above

    def _search(self, bound: float, towards: float, side: int) -> float | None:
        """Find the effect nearest to a bound, on the way towards another, that is decided."""
        place = 0 if side == SUPPORTED else 2
        one_bound = len(self.bounds) == 1 and self.form.quantity != "ratio"
        if one_bound and math.isinf(self.expected.high) is not (towards > 0):
            found = self._search(bound, -towards, -side)  # both sides are alike
            return None if found is None else 2 * bound - found

        def enough(effect: float) -> bool:
            return self.chances(effect)[place] >= power.POWER

        near = bound
        if math.isinf(towards):
            step = math.copysign(self.spread / math.sqrt(self.looks[-1]), towards)
            far = bound + step
            while not enough(far):
                if abs(far - bound) > MOST_SPREADS * self.spread:
                    return None
                near, step = far, 2 * step
                far = bound + step
        else:
            far = towards
            if not enough(far):
                return None
        for _ in range(14):
            middle = (near + far) / 2
            near, far = (near, middle) if enough(middle) else (middle, far)
        return far


def together(designs: Sequence[Design], effects: Sequence[float]) -> list[Chances]:
    """Return the chances of the verdicts on all claims of an experiment, with Holm's rule.

    The claims' values are drawn independently.

    Args:
        designs: one a claim.
        effects: the truth of each.
    """
    count = len(designs)
    allowed = [(1 - LEVEL) / (count - decided) for decided in range(count)]
    # (claims, levels, sweeps)
    outcomes = np.array(
        [
            [design.outcomes(effect, one, stream) for one in allowed]
            for stream, (design, effect) in enumerate(zip(designs, effects, strict=True))
        ]
    )
    sweeps = np.arange(outcomes.shape[-1])
    step = np.zeros(len(sweeps), int)  # how many claims are decided, as far as is known
    for _ in range(count):
        decided = (outcomes[:, step, sweeps] != UNDECIDED).sum(axis=0)
        step = np.maximum(step, np.minimum(decided, count - 1))
    final = outcomes[:, step, sweeps]
    return [
        Chances(*(float((own == one).mean()) for one in (SUPPORTED, UNDECIDED, REFUTED)))
        for own in final
    ]


def _exact(design: Design, effect: float, allowed: float) -> Chances:
    """Integrate over the deviation that a sweep shows; given it, the mean is normal."""
    form, means, deviations = design._sets(effect)
    n, spread = design.looks[0], float(deviations[0])
    level = 1 - allowed
    shares = (np.arange(NODES) + 0.5) / NODES
    shown = spread * np.sqrt(2 * special.gammaincinv((n - 1) / 2, shares) / (n - 1))
    t = special.stdtrit(n - 1, (1 + level) / 2)
    half = np.hypot(t * shown / math.sqrt(n), unseen(form.grain, n, level))
    error = spread / math.sqrt(n)
    low, high = design.expected.low, design.expected.high

    def below(edge: np.ndarray | float) -> np.ndarray:
        return special.ndtr((edge - means[0]) / error)

    inside = np.maximum(below(high - half) - below(low + half), 0.0).mean()
    outside = (below(low - half) + 1 - below(high + half)).mean()
    if design.expected.outside:
        inside, outside = outside, inside
    return Chances(float(inside), float(max(0.0, 1 - inside - outside)), float(outside))


def _spread(deviations: np.ndarray, signs: Sequence[float], correlation: float) -> float:
    """Return the deviation of a signed sum of equally correlated values."""
    own = deviations * np.array(signs)
    square = (1 - correlation) * (own**2).sum() + correlation * own.sum() ** 2
    return math.sqrt(max(float(square), 0.0))


@lru_cache(maxsize=4)
def _draws(sets: int, sweeps: int, seeds: int, stream: int) -> np.ndarray:
    return np.random.default_rng(stream).normal(size=(sets, sweeps, seeds))
