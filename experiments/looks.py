"""Simulates how often claims are decided wrongly, and how many seeds are saved, by looking early.

    python -m experiments.looks [REPEATS]

prints two tables in Markdown. In the first the truth lies on the very bound of the claim, so that
every verdict of "supported" is wrong. In the second there is an effect. "Whenever it looks good"
adds a seed at a time and stops at the first interval that decides, as one who pays for no look
does; it stands there for comparison.
"""

import sys
from collections.abc import Sequence

import numpy as np

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.intervals import LEVEL
from normlab.evidence.looks import level_at
from normlab.evidence.samples import Sample
from normlab.measures.claims import Expectation

REPEATS = 20_000
"""The standard error of a rate of 5% is then 0.15%."""

PLANS: dict[str, tuple[int, ...]] = {
    "one look at 10": (10,),
    "5, 10": (5, 10),
    "5, 10, 20": (5, 10, 20),
    "5, 10, ..., 30": (5, 10, 15, 20, 25, 30),
    "one seed at a time, 3 to 12": tuple(range(3, 13)),
}

SPREAD = 0.02
"""The standard deviation of an arm's seeds."""

KINDS = {
    "difference": ("difference > 0", 0.6, True),
    "difference, no pairs": ("difference > 0", 0.6, False),
    "ratio": ("ratio > 1", 0.6, True),
    "mean": ("mean > 0.6", 0.6, True),
    "equivalence": ("matches within 0.02", 0.62, True),
}
"""For each kind of claim: what it expects, the left arm's mean where it is just not true, and
whether the arms' seeds are paired. The right arm's mean is 0.6."""


def decided_at(
    kind: str, looks: Sequence[int], values: np.ndarray, levels: Sequence[float]
) -> int | None:
    """Return the first look at which a claim is supported; None if it is at none.

    Args:
        kind: a key of `KINDS`.
        looks: numbers of seeds.
        values: `(2, seeds)`, those of the left and of the right arm.
        levels: the level of the interval at each look.
    """
    text, _, paired = KINDS[kind]
    expected = Expectation.parse(text)
    for look, (seeds, level) in enumerate(zip(looks, levels, strict=True)):
        left, right = (_arm(own[:seeds], paired) for own in values)
        if expected.quantity == "mean":
            found = mean_of(left)
        else:
            found = contrast(left, right, expected.quantity)
        if expected.outcome(*found.at(level)) == "supported":
            return look
    return None


def _arm(values: np.ndarray, paired: bool) -> Sample:
    seeds = tuple(range(len(values)))
    origins = tuple(map(str, seeds)) if paired else ()
    return Sample("", seeds, values, np.zeros(len(values), bool), len(values), origins=origins)


def simulate(
    kind: str, looks: Sequence[int], repeats: int, effect: float = 0.0, paid: bool = True
) -> tuple[float, float]:
    """Return the share of sweeps that support a claim, and the mean seeds that they needed.

    Args:
        kind: a key of `KINDS`.
        looks: numbers of seeds.
        repeats: how many sweeps.
        effect: added to the left arm's mean.
        paid: whether looks are paid for; otherwise each has an interval of 95%.
    """
    rng = np.random.default_rng(len(looks))
    levels = [level_at(1 - LEVEL, looks, i) if paid else LEVEL for i in range(len(looks))]
    means = np.array([[KINDS[kind][1] + effect], [0.6]])
    supported, needed = 0, 0
    for _ in range(repeats):
        # Half of the variance is that of the seed, which arms share if they are paired.
        shared = rng.normal(0, 1, looks[-1]) if KINDS[kind][2] else rng.normal(0, 1, (2, looks[-1]))
        own = rng.normal(0, 1, (2, looks[-1]))
        look = decided_at(kind, looks, means + SPREAD * np.sqrt(0.5) * (shared + own), levels)
        supported += look is not None
        needed += looks[-1 if look is None else look]
    return supported / repeats, needed / repeats


def main(repeats: int = REPEATS) -> None:
    """Print the tables."""
    print("\n| wrongly supported, % | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    rows = {name: (looks, True) for name, looks in PLANS.items()}
    rows["whenever it looks good, 3 to 12"] = (tuple(range(3, 13)), False)
    for name, (looks, paid) in rows.items():
        rates = (simulate(kind, looks, repeats, paid=paid)[0] for kind in KINDS)
        print(f"| {name} | {' | '.join(f'{100 * rate:.2f}' for rate in rates)} |", flush=True)
    print("\n| difference > 0 | supported, % | seeds an arm |\n|---|---|---|")
    for effect in (0.01, 0.02, 0.04):
        for looks in ((20,), (5, 10, 20)):
            share, seeds = simulate("difference", looks, repeats, effect)
            name = f"{effect:g}, looks at {', '.join(map(str, looks))}"
            print(f"| {name} | {100 * share:.1f} | {seeds:.1f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
