"""Simulates how often claims are decided wrongly, and how many seeds are saved, by looking early.

    python -m experiments.looks [REPEATS]

writes two tables to `results/looks.md`. In the first the truth lies on the very bound of the claim,
so that every verdict but "undecided" counts as wrong. In the second there is an effect. "Whenever
it looks good" adds a seed at a time and stops at the first interval that decides, as one who pays
for no look does. "After the plan" has a plan of five seeds and adds one at a time to forty, each
time with the interval that holds at any time.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from normlab.evidence.imagined import SUPPORTED, UNDECIDED, Form, decide, levels_of
from normlab.evidence.intervals import LEVEL
from normlab.evidence.looks import anytime_level
from normlab.measures.claims import Expectation
from normlab.reports.markdown import markdown_table

REPEATS = 20_000
"""The standard error of a rate of 5% is then 0.15%."""

PAGE = Path(__file__).with_name("results") / "looks.md"

PLANS: dict[str, tuple[int, ...]] = {
    "one look at 5": (5,),
    "one look at 10": (10,),
    "5, 10": (5, 10),
    "5, 10, 20": (5, 10, 20),
    "5, 10, ..., 30": (5, 10, 15, 20, 25, 30),
    "one seed at a time, 3 to 12": tuple(range(3, 13)),
}
GROWING = tuple(range(5, 41))

SPREAD = 0.02
"""The standard deviation of an arm's seeds."""

KINDS = {
    "difference": ("difference > 0", 0.6, Form("difference", 2), 0.013),
    "difference, no pairs": ("difference > 0", 0.6, Form("difference", 2, "none"), 0.018),
    "ratio": ("ratio > 1", 0.6, Form("ratio", 2), 0.013),
    "mean": ("mean > 0.6", 0.6, Form("mean", 1), 0.013),
    "equivalence": ("matches within 0.02", 0.62, Form("difference", 2), -0.0125),
    "interaction": ("difference > 0", 0.6, Form("difference", 4), 0.018),
}
"""For each kind of claim: what it expects, the left arm's mean where it is just not true, how the
arms are compared, and the effect of the second table. The means of the other arms are 0.6."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _lognormal(sigma: float) -> Draw:
    square = math.exp(sigma**2)
    mean, deviation = math.sqrt(square), math.sqrt(square * (square - 1))
    return lambda rng, shape: (rng.lognormal(0, sigma, shape) - mean) / deviation


def _beta(mean: float, deviation: float) -> Draw:
    size = mean * (1 - mean) / deviation**2 - 1
    a, b = mean * size, (1 - mean) * size
    return lambda rng, shape: (rng.beta(a, b, shape) - mean) / deviation


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (_normal, 0.0),
    "skewed (lognormal, skewness 1.7)": (_lognormal(0.5), 0.0),
    "very skewed (lognormal, skewness 6.2)": (_lognormal(1.0), 0.0),
    "bounded (accuracies about 0.98)": (_beta(0.98, 0.0125), 0.0),
    "discrete (100 test images)": (_normal, 0.01),
    "heavy tails (t of 3 degrees)": (
        lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
        0.0,
    ),
}
"""For each shape of the values: draws of mean 0 and deviation 1, and the step between values."""


def sweeps(
    kind: str,
    seeds: int,
    repeats: int,
    effect: float = 0.0,
    shape: str = "normal",
    left_alone: bool = False,
    seed: int = 0,
) -> tuple[Form, np.ndarray]:
    """Draw the values of many sweeps, `(arms, repeats, seeds)`, and say how arms are compared.

    Half of the variance is that of the seed, which arms share if they are paired.

    Args:
        kind: a key of `KINDS`.
        seeds: seeds an arm.
        repeats: how many sweeps.
        effect: added to the left arm's mean.
        shape: a key of `SHAPES`.
        left_alone: whether the left arm alone has this shape, and the others are normal.
        seed: of the generator.
    """
    _, left, form, _ = KINDS[kind]
    draw, step = SHAPES[shape]
    rng = np.random.default_rng(seed)
    whole = (form.arms, repeats, seeds)
    own = draw(rng, whole)
    if left_alone:
        own[1:] = rng.normal(size=own[1:].shape)
    shared = rng.normal(size=whole[1:] if form.paired == "all" and form.arms > 1 else whole)
    values = math.sqrt(0.5) * (shared + own)
    if form.arms == 1 or form.paired == "none":  # nothing is shared
        values = own
    means = np.full(form.arms, 0.6)
    means[0] = left + effect
    values = means[:, None, None] + SPREAD * values
    if step:
        values = np.round(values / step) * step
    return form._replace(grain=step), values


def judged(
    kind: str,
    looks: Sequence[int],
    repeats: int,
    levels: Sequence[float] | None = None,
    **how: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Judge many sweeps; return the outcomes and the seeds that each needed, each `(repeats,)`."""
    form, values = sweeps(kind, looks[-1], repeats, **how)
    expected = Expectation.parse(KINDS[kind][0])
    known = levels_of(looks, 1 - LEVEL) if levels is None else levels
    outcomes, places = decide(form, expected, looks, values, known)
    return outcomes, np.array(looks)[places]


def wrong(kind: str, looks: Sequence[int], repeats: int, **how: Any) -> float:
    """Return the share of sweeps that are decided although the truth lies on the very bound."""
    return float((judged(kind, looks, repeats, **how)[0] != UNDECIDED).mean())


def unpaid(kind: str, looks: Sequence[int], repeats: int, **how: Any) -> float:
    """Return `wrong` of one who takes the 95% interval at every look, and pays for none."""
    levels = [LEVEL] * len(looks)
    return float((judged(kind, looks, repeats, levels, **how)[0] != UNDECIDED).mean())


def after(kind: str, looks: Sequence[int], repeats: int, **how: Any) -> float:
    """Return how often the interval that holds at any time ever decides, at these seeds."""
    levels = [anytime_level(1 - LEVEL, seeds) for seeds in looks]
    return float((judged(kind, looks, repeats, levels, **how)[0] != UNDECIDED).mean())


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
    levels = None if paid else [LEVEL] * len(looks)
    outcomes, needed = judged(kind, looks, repeats, levels, effect=effect)
    return float((outcomes == SUPPORTED).mean()), float(needed.mean())


def _rates(repeats: int) -> list[str]:
    """Write the table of wrong verdicts."""
    rows = []
    for shape in SHAPES:
        for left_alone in (False, True) if shape != "normal" else (False,):
            how = {"shape": shape, "left_alone": left_alone}
            name = f"{shape}, left arm alone" if left_alone else shape
            for plan, looks in PLANS.items():
                rates = [wrong(kind, looks, repeats, **how) for kind in KINDS]
                rows.append([name, plan, *_percent(rates)])
                print(*rows[-1], sep=" | ", flush=True)
            late = [
                after(kind, GROWING, repeats, **how)
                if KINDS[kind][2].one_number or kind == "ratio" else math.nan
                for kind in KINDS
            ]  # fmt: skip
            rows.append([name, "after the plan, 5 to 40", *_percent(late)])
    good = PLANS["one seed at a time, 3 to 12"]
    rates = [unpaid(kind, good, repeats) for kind in KINDS]
    rows.append(["normal", "whenever it looks good, 3 to 12 (not a plan)", *_percent(rates)])
    return markdown_table(["values", "looks", *KINDS], rows)


def _percent(rates: Sequence[float]) -> list[str]:
    return ["-" if math.isnan(rate) else f"{100 * rate:.2f}" for rate in rates]


CLEARER = {"difference": (0.02, 0.03, 0.04)}
"""Larger effects, which earlier looks find."""


def _powers(repeats: int) -> list[str]:
    """Write the table of claims that are true."""
    rows = []
    named = [(kind, known[-1]) for kind, known in KINDS.items()]
    named += [(kind, effect) for kind, effects in CLEARER.items() for effect in effects]
    for kind, effect in named:
        fixed, _ = simulate(kind, (20,), repeats, effect)
        for plan in ("5, 10, 20", "5, 10, 15, 20"):
            looks = tuple(map(int, plan.split(", ")))
            share, seeds = simulate(kind, looks, repeats, effect)
            rows.append([f"{kind}: {KINDS[kind][0]}", f"{effect:+g}", plan, f"{100 * share:.1f}",
                         f"{100 * fixed:.1f}", f"{seeds:.1f} of 20"])  # fmt: skip
    heads = ["claim", "effect", "looks", "supported, %", "with one look at 20, %", "seeds an arm"]
    return markdown_table(heads, rows)


OPENING = """\
# Looks: wrong verdicts and seeds saved

`python -m experiments.looks` wrote this page: {repeats:,} simulated sweeps a cell, drawn by
`numpy.random.default_rng(0)`. An arm's values have a standard deviation of 0.02, half of its
square shared by the arms of a seed.

## Wrong verdicts, %

The truth lies on the very bound of the claim, so every verdict but "undecided" is counted, on
either side. At most 5% are promised for values that are normal. The standard error is 0.15% at 5%.
"Left arm alone" means that the other arms are normal. "After the plan" is not a verdict: it is how
often the interval of all seeds together, which is told beside the verdict, ever excludes the truth
while seeds are added one at a time.
"""

MIDDLE = """
## Claims that are true

The effect is added to the left arm's mean.
"""


def main(repeats: int = REPEATS) -> None:
    """Write the page."""
    page = [OPENING.format(repeats=repeats), *_rates(repeats), MIDDLE, *_powers(repeats), ""]
    PAGE.write_text("\n".join(page), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
