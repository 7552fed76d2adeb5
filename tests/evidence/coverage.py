"""Simulates how often intervals miss, for values that are normal and values that are not.

    python -m tests.evidence.coverage [REPEATS]

prints the tables of `docs/claims.md`. Every table has its own generator with a fixed seed.
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.intervals import interquartile_mean_interval
from normlab.evidence.samples import Sample

SIZES = (3, 5, 10, 30)
REPEATS = 2000
"""The standard error of a rate of 5% is then 0.5%."""

Draw = Callable[[np.random.Generator, int], np.ndarray]


class Values(NamedTuple):
    """A kind of values: how seeds are drawn, the mean, the middle half's mean, the grain."""

    draw: Draw
    mean: float
    middle: float
    grain: float = 0.0


def of(draw: Draw, mean: float, grain: float = 0.0) -> Values:
    """Make a kind of values; the mean of the middle half is that of a million draws."""
    many = np.sort(draw(np.random.default_rng(1), 1_000_000))
    return Values(draw, mean, float(many[250_000:750_000].mean()), grain)


def failing(share: float) -> Draw:
    """Accuracies of about 60%, and of a guess for a share of the seeds."""
    return lambda rng, n: np.where(rng.random(n) < share, 0.1, rng.normal(0.6, 0.02, n))


KINDS = {
    "normal": of(lambda rng, n: rng.normal(0.6, 0.02, n), 0.6),
    "t3": of(lambda rng, n: 1 + 0.1 * rng.standard_t(3, n), 1.0),
    "lognormal, sigma 0.3": of(lambda rng, n: rng.lognormal(0, 0.3, n), float(np.exp(0.045))),
    "lognormal, sigma 1": of(lambda rng, n: rng.lognormal(0, 1, n), float(np.exp(0.5))),
    "accuracy, beta(98, 2)": of(lambda rng, n: rng.beta(98, 2, n), 0.98),
    "60% of 100 images": of(lambda rng, n: rng.binomial(100, 0.6, n) / 100, 0.6, 0.01),
    "99% of 100 images": of(lambda rng, n: rng.binomial(100, 0.99, n) / 100, 0.99, 0.01),
    "one seed in ten fails": of(failing(0.1), 0.55),
    "three in ten fail": of(failing(0.3), 0.45),
}


def arm(values, censored=None, *, grain=0.0, seeds_alike=False):
    """A sample; with `seeds_alike` one whose runs share their start with other such samples."""
    values = np.asarray(values, float)
    seeds = tuple(range(len(values)))
    censored = np.zeros(len(values), bool) if censored is None else censored
    origins = tuple(map(str, seeds)) if seeds_alike else ()
    known = {"grain": grain, "counted": grain > 0, "origins": origins}
    return Sample("", seeds, values, censored, len(values), **known)


def misses(intervals: Iterator[tuple[float, float]], truth: float) -> tuple[float, float]:
    """The shares of intervals that lie wholly above the truth, and wholly below it."""
    ends = np.array(list(intervals))
    rounding = 1e-12
    return float((ends[:, 0] > truth + rounding).mean()), float(
        (ends[:, 1] < truth - rounding).mean()
    )


def of_the_mean(kind: Values, n: int, repeats: int) -> tuple[float, float]:
    rng = np.random.default_rng(n)
    found = (mean_of(arm(kind.draw(rng, n), grain=kind.grain)).interval for _ in range(repeats))
    return misses(found, kind.mean)


def of_the_middle(kind: Values, n: int, repeats: int) -> tuple[float, float]:
    rng = np.random.default_rng(n)
    found = (interquartile_mean_interval(kind.draw(rng, n)) for _ in range(repeats))
    return misses(found, kind.middle)


def of_a_difference(
    kind: Values, n: int, repeats: int, times: float = 1.0, paired: bool = False
) -> tuple[float, float]:
    """Compare two arms of one mean, of which the left one has so many times the spread."""
    rng = np.random.default_rng(n)

    def one():
        left, right = (kind.draw(rng, n) for _ in range(2))
        left = kind.mean + times * (left - kind.mean)
        left, right = (arm(own, grain=kind.grain, seeds_alike=paired) for own in (left, right))
        return contrast(left, right).interval

    return misses((one() for _ in range(repeats)), 0.0)


def of_equal_arms(n: int, rho: float, repeats: int, paired: bool) -> tuple[float, float]:
    """A/A: two arms of one distribution, whose seeds rise and fall together by so much."""
    rng = np.random.default_rng(n)

    def one():
        shared, own = rng.normal(0, 1, n), rng.normal(0, 1, (2, n))
        values = 0.6 + 0.02 * (np.sqrt(rho) * shared + np.sqrt(1 - rho) * own)
        left, right = (arm(v, seeds_alike=paired) for v in values)
        return contrast(left, right).interval

    return misses((one() for _ in range(repeats)), 0.0)


def of_few_flips(n: int, flips: float, repeats: int) -> tuple[float, float]:
    """Accuracies of 100 images of two arms that differ in few images, so often by the same."""
    rng = np.random.default_rng(n)

    def one():
        right = rng.binomial(100, 0.6, n)
        counts = right + rng.binomial(100 - right, flips), right
        left, right = (arm(count / 100, grain=0.01, seeds_alike=True) for count in counts)
        return contrast(left, right).interval

    return misses((one() for _ in range(repeats)), 0.4 * flips)


def in_words(missed: tuple[float, float]) -> str:
    """The coverage, and how it is missed, in percent."""
    above, below = missed
    return f"{100 * (1 - above - below):.1f} ({100 * above:.1f}, {100 * below:.1f})"


def main(repeats: int = REPEATS) -> None:
    """Print the tables in Markdown."""
    heading = " | ".join(f"n = {n}" for n in SIZES)

    def table(title: str, rows: dict[str, Callable[[int], tuple[float, float]]]) -> None:
        print(f"\n| {title} | {heading} |\n|{'---|' * (1 + len(SIZES))}")
        for name, of_n in rows.items():
            print(f"| {name} | {' | '.join(in_words(of_n(n)) for n in SIZES)} |", flush=True)

    def of_kinds(measure, **options):
        return {name: lambda n, k=kind: measure(k, n, repeats, **options)
                for name, kind in KINDS.items()}  # fmt: skip

    table("mean, Student's t", of_kinds(of_the_mean))
    table("interquartile mean", of_kinds(of_the_middle))
    table("difference, spreads 4 : 1, Welch's t", of_kinds(of_a_difference, times=4.0))
    table("equal arms", {
        f"correlation {rho}, {'paired' if paired else 'not paired'}":
        lambda n, rho=rho, paired=paired: of_equal_arms(n, rho, repeats, paired)
        for paired in (True, False) for rho in (0.0, 0.5, 0.95)
    })  # fmt: skip
    table("share of 100 images that differ", {
        f"{flips:.1%}": lambda n, flips=flips: of_few_flips(n, flips, repeats)
        for flips in (0.003, 0.01, 0.02)
    })  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
