"""Plans a sweep: what the verdicts on its claims will be likely to be, before the first run.

`plan_claim` finds the noise, which the person gives or a like setting shows, and the form of the
comparison, which the configs of the arms settle. `ClaimPlan.rows` has the chances by the true
effect.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from normlab.evidence.chances import Chances, Design, Noise, together
from normlab.evidence.imagined import REFUTED, SUPPORTED, Form
from normlab.evidence.intervals import LEVEL
from normlab.evidence.noise import Found, KnownArm, Sections, find_noise
from normlab.evidence.power import scaled
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure

UNPLANNED = {
    "steps_to": "a run may never reach the target, and ranks decide then",
    "seconds_to": "a run may never reach the target, and ranks decide then",
    "largest_stable": "it takes only the few values that its axis has",
    "diverged": "it is 0 or 1 in each run",
}
"""The measures whose values are no normal numbers, and why."""

KNOWN_WELL = 200
"""With so many degrees of freedom a deviation is known to within a tenth."""

Arms = Sequence[tuple[str, Sections]]
"""The name of each arm of a claim, and the resolved config of one of its runs."""


@dataclass(frozen=True)
class Given:
    """What a person states of a sweep.

    Attributes:
        noise: the standard deviation between seeds, by measure; that of "" holds for the others.
        correlation: the correlation of two arms' values of one seed; None if it is not stated.
        base: the mean of the right arm, for ratios; None if it is not stated.
    """

    noise: Mapping[str, float] = field(default_factory=dict)
    correlation: float | None = None
    base: float | None = None

    def of(self, measure: Measure) -> float | None:
        """Return the noise of a measure; None if it is not stated."""
        return self.noise.get(str(measure), self.noise.get(""))


class Row(NamedTuple):
    """The chances at one true effect.

    Attributes:
        effect: the true difference, ratio or mean.
        chances: the chances while all other claims are open.
        others_decided: the chances once all other claims are decided.
        seeds: the seeds an arm that decide it in four cases of five; None for more than 1000.
        stated: whether a person stated this effect.
    """

    effect: float
    chances: Chances
    others_decided: Chances
    seeds: int | None
    stated: bool


@dataclass(frozen=True, eq=False)
class ClaimPlan:
    """The plan of one claim.

    Attributes:
        claim: the claim.
        arms: the names of its arms.
        design: what settles the chances; None if they cannot be told.
        lacking: why the chances cannot be told; empty if they can.
        found: the like setting that shows the noise; None if the person gave it.
        effects: the true effects that the person stated.
    """

    claim: Claim
    arms: tuple[str, ...]
    design: Design | None = None
    lacking: str = ""
    found: Found | None = None
    effects: tuple[float, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """The chances by the true effect, in rising order; empty if they cannot be told."""
        design = self.design
        if design is None:
            return []
        effects = sorted({*self._usual_effects(), *self.effects})
        return [
            Row(
                effect,
                design.chances(effect),
                design.chances(effect, 1 - LEVEL),
                design.seeds_needed(effect),
                effect in self.effects,
            )
            for effect in effects
        ]

    @cached_property
    def supported(self) -> tuple[float | None, float | None]:
        """The true effects nearest to the bounds at which it is supported in four cases of five."""
        return (None, None) if self.design is None else self.design.decided_from(SUPPORTED)

    @cached_property
    def refuted(self) -> tuple[float | None, float | None]:
        """The true effects nearest to the bounds at which it is refuted in four cases of five."""
        return (None, None) if self.design is None else self.design.decided_from(REFUTED)

    @cached_property
    def smallest_range(self) -> tuple[float, float] | None:
        """The smallest distance from the bound that is decided, for the least and greatest noise.

        They are the ends of the noise's 95% interval. None if the noise is given or well known, or
        if the claim has a margin.
        """
        design = self.design
        if design is None or len(design.bounds) != 1:
            return None
        degrees = design.noise.degrees
        if degrees is None or degrees >= KNOWN_WELL:
            return None
        near, far = scaled([(1.0, own) for own in design.noise.deviations], degrees)
        found = []
        for ends in (near, far):
            noise = replace(design.noise, deviations=tuple(deviation for _, deviation in ends))
            low, high = replace(design, noise=noise).decided_from(SUPPORTED)
            end = high if low is None else low
            found.append(math.inf if end is None else abs(end - design.bounds[0]))
        return found[0], found[1]

    def _usual_effects(self) -> list[float]:
        """Choose seven effects or so around the bounds, in round steps."""
        design = self.design
        assert design is not None
        bounds = design.bounds
        if len(bounds) == 2 and bounds[1] > 0:
            ends = [end for end in (*self.supported, *self.refuted) if end is not None]
            margin = bounds[1]
            step = _rounded(margin / 2)
            most = max([margin, *map(abs, ends)])
            while most / step > 6:
                step *= 2
            return [_clean(step * k, step) for k in range(math.ceil(most / step - 0.01) + 1)]
        centre = bounds[0]
        low, high = self.supported
        end = high if high is not None else low
        reach = design.spread if end is None else abs(end - centre)
        step = _rounded(reach / 2)
        ways = range(0, 4) if len(bounds) == 2 else range(-3, 4)
        effects = [_clean(centre + step * k, step) for k in ways]
        if design.form.quantity == "ratio" and centre > 0:  # of two positive means
            return [effect for effect in effects if effect > 0]
        return effects


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """The plan of an experiment.

    Attributes:
        name: the name of the experiment.
        arms: how many arms it has.
        looks: the numbers of seeds an arm at the looks; empty if the arms' seeds differ, or if runs
            share streams of their seeds.
        runs: how many runs it has, without the trials that tune the arms.
        trials: how many trials come first.
        claims: the plan of each claim.
        seconds: how long the runs take one after the other, as like runs took; None if not known.
        machine: where the like runs took so long, in words.
    """

    name: str
    arms: int
    looks: tuple[int, ...]
    runs: int
    trials: int
    claims: list[ClaimPlan]
    seconds: float | None = None
    machine: str = ""

    @cached_property
    def together(self) -> list[Chances] | None:
        """The chances of all claims at once, if there are several and each has one stated truth."""
        designs = [one.design for one in self.claims if one.design is not None]
        effects = [one.effects for one in self.claims]
        if len(designs) < max(2, len(self.claims)) or any(len(own) != 1 for own in effects):
            return None
        return together(designs, [own[0] for own in effects])


def plan_claim(
    claim: Claim,
    arms: Arms,
    looks: Sequence[int],
    claims: int,
    given: Given,
    known: Sequence[KnownArm],
    effects: Sequence[float] = (),
) -> ClaimPlan:
    """Plan one claim.

    Args:
        claim: the claim.
        arms: its arms.
        looks: the numbers of seeds an arm at the looks; empty if the arms' seeds differ, or if runs
            share streams of their seeds.
        claims: how many claims the experiment has.
        given: what the person states.
        known: the arms of finished experiments, in which a like setting is looked for.
        effects: the true effects that the person states.
    """
    plan = ClaimPlan(claim, tuple(name for name, _ in arms), effects=tuple(effects))
    measure, quantity = claim.measured, claim.expectation.quantity
    lacking = _unplanned(claim, looks)
    if lacking:
        return replace(plan, lacking=lacking)
    paired = pairing(claim, [config for _, config in arms])
    configs = [config for _, config in arms]
    ends = (claim.expectation.low, claim.expectation.high)
    bound = next((end for end in ends if math.isfinite(end)), None)
    ratio = bound or 1.0 if quantity == "ratio" else None
    found = find_noise(configs, measure, known, paired != "none", ratio=ratio)
    stated = given.of(measure)
    noise = None if found is None else found.noise
    if stated is not None:
        base = None if noise is None else noise.base
        noise = Noise((stated,) * len(arms), 0.0, base)
    if noise is None:
        failing = find_noise(configs, measure, known, paired != "none", False, ratio)
        return replace(plan, lacking=_no_like_setting(measure, failing))
    if given.correlation is not None:
        noise = replace(noise, correlation=given.correlation)
    if given.base is not None:
        noise = replace(noise, base=given.base)
    if quantity == "ratio" and not noise.base:
        why = "a ratio needs the mean of its right arm: give it with --base"
        return replace(plan, lacking=why)
    form = Form(quantity, len(arms), paired, _grain(measure, configs, found))
    design = Design(form, claim.expectation, tuple(looks), noise, claims)
    return replace(plan, design=design, found=None if stated is not None else found)


def pairing(claim: Claim, configs: Sequence[Sections]) -> Literal["all", "pairs", "none"]:
    """Return how the runs of a claim's arms will be paired by seed, as the verdict pairs them."""
    if len(configs) == 1:
        return "all"
    starts = [[one.get(part) for part in ("data", "model", "train")] for one in configs]
    for start in starts:
        start[2] = {key: value for key, value in (start[2] or {}).items() if key != "seed"}
    if claim.paired is not None:
        return "all" if claim.paired else "none"
    if all(start == starts[0] for start in starts):
        return "all"
    pairs = len(starts) == 4 and starts[0] == starts[1] and starts[2] == starts[3]
    return "pairs" if pairs else "none"


def _unplanned(claim: Claim, looks: Sequence[int]) -> str:
    """Say why no plan can be made of a claim at these looks; empty if one can."""
    measure = claim.measured
    if claim.unit is not None:
        return f"it counts values of {claim.unit}, and a plan counts seeds"
    if {*(claim.generalise or ())} - {"seeds"}:
        return "its interval speaks of more than seeds, and a plan knows the noise of seeds alone"
    if not looks:
        return "its arms have different seeds, or seeds whose streams are crossed"
    if looks[-1] < 2:
        return "one seed an arm gives no interval: sweep over seeds"
    if measure.definition.exact:
        return f"the config alone settles {measure}"
    why = UNPLANNED.get(measure.name)
    return "" if why is None else f"{measure} is not a number that varies about a mean: {why}"


def _no_like_setting(measure: Measure, failing: Found | None) -> str:
    if failing is not None:
        return (
            f"in {failing.folder}, the likest setting, each arm has seeds that did not learn, and "
            f"these do not show how {measure} varies; state it with --noise, as in --noise 0.01"
        )
    return (
        f"no finished experiment on the same data set shows how {measure} varies between seeds; "
        "measure it with --pilot 3, or state it with --noise, as in --noise 0.01"
    )


def _grain(measure: Measure, configs: Sequence[Sections], found: Found | None) -> float:
    """Return one test example's share of an accuracy; 0 for other measures, or if unknown."""
    if measure.name not in ("final", "best", "area") or measure.metrics != ("test_accuracy",):
        return 0.0
    examples = [config.get("data", {}).get("test_examples") for config in configs]
    if all(isinstance(one, int) and one > 0 for one in examples):
        return 1 / min(examples)
    return 0.0 if found is None else found.grain


def _rounded(value: float) -> float:
    """Round to 1, 2 or 5 times a power of ten, upwards where it is between.

    >>> _rounded(0.0123), _rounded(0.007)
    (0.02, 0.01)
    """
    power = 10.0 ** math.floor(math.log10(value))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= value * 0.999)


def _clean(value: float, step: float) -> float:
    return round(value, max(0, 2 - math.floor(math.log10(step))))
