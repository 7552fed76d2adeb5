"""Compares the chances that `normlab plan` tells with what then comes, in simulated sweeps.

    python -m experiments.planned [SWEEPS]

writes `results/planned.md`: for each kind of claim and true effect the planned chances, and the
shares of the verdicts on so many sweeps, which `judge` gives as it does for real runs.
"""

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.imagined_runs import config_of, imagine
from normlab.evidence.chances import Chances, together
from normlab.evidence.plans import ClaimPlan, Given, plan_claim
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.markdown import markdown_table

SWEEPS = 200

PAGE = Path(__file__).with_name("results") / "planned.md"

SPREAD, CORRELATION, BASE = 0.02, 0.5, 0.6
GIVEN = Given({"": SPREAD}, CORRELATION, BASE)

VERDICTS = Chances._fields


class Kind(NamedTuple):
    """A kind of claim.

    Attributes:
        expect: what the claim expects.
        effects: true effects.
        arms: the number of arms.
        models: whether each arm has a model of its own, so that arms are not paired.
    """

    expect: str
    effects: tuple[float, ...]
    arms: int = 2
    models: bool = False


KINDS = {
    "difference": Kind("difference > 0", (-0.01, 0.01, 0.02)),
    "difference, no pairs": Kind("difference > 0", (0.01, 0.025), models=True),
    "ratio": Kind("ratio > 1", (0.98, 1.03)),
    "ratio, no pairs": Kind("ratio > 1", (1.04,), models=True),
    "mean": Kind("mean > 0.6", (0.6, 0.615), 1),
    "equivalence": Kind("matches within 0.03", (0.0, 0.015, 0.05)),
    "more than": Kind("differs by more than 0.01", (0.0, 0.03)),
    "interaction": Kind("difference > 0", (0.02, 0.03), 4),
}
LOOKS = ((10,), (5, 10))

AXES = {
    "a": {"norm": "x", "optimizer": "sgd"},
    "b": {"norm": "y", "optimizer": "sgd"},
    "c": {"norm": "x", "optimizer": "muon"},
    "d": {"norm": "y", "optimizer": "muon"},
}
"""The arms of a claim across optimisers."""


def claim_of(kind: str) -> Claim:
    """Return the claim of a kind."""
    expect, _, arms, _ = KINDS[kind]
    left, right = ("x", "y") if arms == 4 else ("a", None if arms == 1 else "b")
    return Claim(kind, "final(test_accuracy)", left, right, expect,
                 across="optimizer" if arms == 4 else None)  # fmt: skip


def plan_of(kind: str, looks: tuple[int, ...], claims: int = 1) -> ClaimPlan:
    """Plan a claim of a kind."""
    names = "abcd"[: KINDS[kind].arms]
    models = names if KINDS[kind].models else ["imagined"] * 4
    arms = [(arm, config_of(arm, 0, model)) for arm, model in zip(names, models, strict=False)]
    return plan_claim(claim_of(kind), arms, looks, claims, GIVEN, ())


def sweep(kind: str, effect: float, looks: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Draw the values of one sweep, and return it as an experiment with a plan."""
    one, seeds = KINDS[kind], looks[-1]
    shared = rng.normal(size=seeds)
    values = {}
    for place, arm in enumerate("abcd"[: one.arms]):
        same = 0.0 if one.models else CORRELATION
        noise = math.sqrt(same) * shared + math.sqrt(1 - same) * rng.normal(size=seeds)
        values[arm] = (BASE if place or one.arms == 1 else 0) + SPREAD * noise
    first = {"ratio": BASE * effect, "mean": effect}.get(one.expect.split()[0], BASE + effect)
    values["a"] = values["a"] + first - (BASE if one.arms == 1 else 0)
    models = {arm: arm for arm in values} if one.models else None
    axes = AXES if one.arms == 4 else None
    plan = {"seeds": list(range(seeds)), "looks": list(looks)}
    return imagine(values, [claim_of(kind)], axes, models, plan=plan)


def realised(kind: str, effect: float, looks: tuple[int, ...], sweeps: int) -> Chances:
    """Return the shares of the verdicts on simulated sweeps."""
    rng = np.random.default_rng(0)
    outcomes = Counter(judge(sweep(kind, effect, looks, rng))[0].outcome for _ in range(sweeps))
    return Chances(*(outcomes[one] / sweeps for one in VERDICTS))


THREE = (0.02, 0.02, -0.005)
"""The true effects of three claims of one experiment."""


def of_three(sweeps: int) -> tuple[list[Chances], list[Chances]]:
    """Plan three claims of one experiment with Holm's rule; return the planned and the realised.

    They are about the arms a, b and c against a fourth, so their values are not independent.
    """
    looks, rng = (10,), np.random.default_rng(0)
    planned = together([plan_of("difference", looks, 3).design] * 3, THREE)  # type: ignore
    claims = [Claim(arm, "final(test_accuracy)", arm, "d", "difference > 0") for arm in "abc"]
    plan = {"seeds": list(range(10)), "looks": [10]}
    outcomes = [Counter() for _ in THREE]
    for _ in range(sweeps):
        shared = rng.normal(size=10)
        arms = {
            arm: BASE + effect + SPREAD * math.sqrt(0.5) * (shared + rng.normal(size=10))
            for arm, effect in zip("abcd", (*THREE, 0.0), strict=True)
        }
        for count, verdict in zip(outcomes, judge(imagine(arms, claims, plan=plan)), strict=True):
            count[verdict.outcome] += 1
    found = [Chances(*(own[one] / sweeps for one in VERDICTS)) for own in outcomes]
    return planned, found


def apart(planned: Chances, found: Chances) -> float:
    """Return the greatest difference between the chances of one verdict."""
    return max(abs(a - b) for a, b in zip(planned, found, strict=True))


OPENING = """\
# What was planned, and what came

`python -m experiments.planned` wrote this page: {sweeps} simulated sweeps a line, drawn by
`numpy.random.default_rng(0)`. Arms have a standard deviation of 0.02 between seeds, and the runs of
one seed a correlation of 0.5; both were stated to the plan. Each cell has the planned chance and
the share that came, in percent. The greatest difference is {worst:.1f} points.
"""


def main(sweeps: int = SWEEPS) -> None:
    """Write the page."""
    rows, worst = [], 0.0

    def add(name: str, looks: tuple[int, ...], effect: float, a: Chances, b: Chances) -> None:
        nonlocal worst
        worst = max(worst, apart(a, b))
        cells = [f"{100 * x:.0f}, {100 * y:.0f}" for x, y in zip(a, b, strict=True)]
        rows.append([name, ", ".join(map(str, looks)), f"{effect:g}", *cells])
        print(*rows[-1], sep=" | ", flush=True)

    for kind, one in KINDS.items():
        for looks in LOOKS:
            design = plan_of(kind, looks).design
            assert design is not None
            for effect in one.effects:
                found = realised(kind, effect, looks, sweeps)
                add(f"{kind}: {one.expect}", looks, effect, design.chances(effect), found)
    for place, (a, b) in enumerate(zip(*of_three(sweeps), strict=True)):
        add(f"claim {place + 1} of 3: difference > 0", (10,), THREE[place], a, b)
    heads = ["claim", "looks", "true effect", *VERDICTS]
    page = [OPENING.format(sweeps=sweeps, worst=100 * worst), *markdown_table(heads, rows), ""]
    PAGE.write_text("\n".join(page), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
