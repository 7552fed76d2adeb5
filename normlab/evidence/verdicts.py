"""Judges claims: supported, refuted or undecided, by an interval and by nothing else.

A claim is supported if the interval of its difference, ratio or mean lies wholly where the claim
wants it, refuted if it lies wholly outside, and undecided otherwise; "matches within d" is
therefore an equivalence test. The level is 95%, raised by Holm's rule for the number of claims in
the file, so that the chance of one wrong verdict among all of them is at most 5%. A claim is
undecided without a look at an interval if a run is not finished, or if no arm learned enough. The
verdict also names reasons why an interval covers less than it should (`doubts.py`).

A plan says beforehand at which numbers of seeds one looks (`looks.py` pays for that); the seeds of
the plan alone decide. Seeds that were added later are told with an interval that holds at any time,
and decide nothing: the plan has used up the chance of error that it was allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from normlab.errors import UserError
from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.doubts import doubts
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.generalising import OtherNoise
from normlab.evidence.interactions import interaction
from normlab.evidence.intervals import LEVEL, Interval
from normlab.evidence.looks import anytime_level, level_at, looked_at
from normlab.evidence.power import MOST_SEEDS, between
from normlab.evidence.remarks import read_remarks
from normlab.evidence.samples import Sample, sample, sample_by_unit
from normlab.measures.claims import Claim, arms_of, read_claim
from normlab.measures.measures import Measure
from normlab.store.layout import CLAIMS, EXPERIMENT, PUBLISHED
from normlab.store.record import Record
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

Arms = list[tuple[str, list[Record]]]
"""The name and the runs of each arm of a claim."""


class Look(NamedTuple):
    """One look of a plan: its place from 0, the numbers of seeds of all looks, and how many done.

    `done` counts the looks for which every run is finished.
    """

    place: int
    seeds: tuple[int, ...]
    done: int


class Beyond(NamedTuple):
    """All seeds together, with those that no plan named, judged by an interval for any time."""

    contrast: IntervalEstimate
    level: float
    added: int
    outcome: Literal["supported", "refuted", "undecided"]

    @property
    def interval(self) -> Interval:
        """The interval, which holds at every number of seeds at once."""
        return self.contrast.at(self.level)


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on a claim.

    Attributes:
        claim: the claim.
        outcome: supported, refuted or undecided.
        why: the reason, in a sentence.
        registered: whether every run that it is judged by began with the claim already written.
        withdrawn: whether it was registered once and is no longer in the config.
        contrast: the estimate with its interval; None if a rule decided before that.
        level: the level of the interval that decides, after Holm's rule.
        p: the smallest 1 - level at which it would still be decided; 1 if a rule decided.
        seeds: the number of seeds an arm that would decide an undecided claim if the estimate is
            the truth; None if that is not known.
        seeds_range: the same for the least and the greatest spread in its 95% interval; None
            stands for more than 1000.
        arms: the values of the left and the right arm; of both at each of two values, if the claim
            is across an axis.
        retracted: why a person withdrew the verdict (`normlab.evidence.remarks`); empty if it
            stands.
        look: the look of the plan that `contrast` is of; None without a plan.
        beyond: what all seeds say together, if some were added after the plan.
        beside: the estimate with the interval that does not decide: for new test images as well as
            new seeds, where the runs' answers are stored; for seeds alone, where the claim
            generalises to more.
    """

    claim: Claim
    outcome: Literal["supported", "refuted", "undecided"]
    why: str
    registered: bool
    withdrawn: bool = False
    contrast: IntervalEstimate | None = None
    level: float = LEVEL
    p: float = 1.0
    seeds: int | None = None
    seeds_range: tuple[int | None, int | None] = (None, None)
    arms: tuple[Sample, ...] = ()
    retracted: str = ""
    look: Look | None = None
    beyond: Beyond | None = None
    beside: IntervalEstimate | None = None

    @property
    def interval(self) -> Interval | None:
        """The interval that decides."""
        return None if self.contrast is None else self.contrast.at(self.level)

    @property
    def standing(self) -> str:
        """Return whether the claim was registered in time, written after the fact, or withdrawn."""
        if self.withdrawn:
            return "registered, then taken out of the config"
        return "registered before the first step" if self.registered else "written after the fact"


def judge(runs: Runs, records: list[Record] | None = None) -> list[Verdict]:
    """Judge every claim that stands in the experiment, and every registered one taken out of it.

    Args:
        runs: an experiment, from disk.
        records: its runs' records, if they have been read already.
    """
    if runs.parts:  # a claim belongs to its own experiment
        return [verdict for part in runs.parts for verdict in judge(part)]
    records = records or runs.records()
    file = _file(runs, EXPERIMENT)
    present = [read_claim(claim, file) for claim in runs.about.get("claims", [])]
    hashes = {claim.hash for claim in present}
    gone = [claim for claim in _ever_written(runs) if claim.hash not in hashes]
    plan, noise = runs.about.get("plan"), OtherNoise(runs)
    weighed = [_weigh(claim, records, plan, noise) for claim in present]
    weighed += [v for claim in gone if (v := _weigh(claim, records, plan, noise, True)).registered]
    decided = _decide(weighed)
    if plan is not None:
        decided = [replace(v, beyond=_beyond_plan(v, records, plan["seeds"], len(decided)))
                   for v in decided]  # fmt: skip
    reasons = read_remarks(runs.path).withdrawn
    return [replace(verdict, retracted=reasons.get(verdict.claim.says, "")) for verdict in decided]


def _ever_written(runs: Runs) -> list[Claim]:
    return [read_claim(claim, _file(runs, CLAIMS)) for claim in runs.ever_claimed]


def _file(runs: Runs, name: str) -> Path:
    """Return the file that holds a part of an experiment; published results have one for all."""
    return runs.path / (name if (runs.path / EXPERIMENT).exists() else PUBLISHED)


def _weigh(
    claim: Claim,
    records: list[Record],
    plan: dict[str, Any] | None,
    noise: OtherNoise,
    withdrawn: bool = False,
) -> Verdict:
    """Measure a claim; `_decide` then looks at the interval."""
    try:
        chosen = arms_of(records, claim)
    except UserError as error:  # the config has changed since
        return Verdict(claim, "undecided", str(error), _stood(claim, records, withdrawn), withdrawn)
    arms = [own for _, own in chosen]
    registered = _stood(claim, [record for arm in arms for record in arm], withdrawn)
    verdict = Verdict(claim, "undecided", "", registered, withdrawn)
    if plan is None:
        return _measured(verdict, chosen, noise)
    looks, done, found = tuple(plan["looks"]), 0, None
    for place, count in enumerate(looks):
        seeds = plan["seeds"][:count]
        missing = _unlisted(seeds, arms)
        if missing:
            one = replace(verdict, why=missing)
        else:
            own = [(name, [one for one in arm if one.seed in seeds]) for name, arm in chosen]
            one = _measured(verdict, own, noise)
        whole = one.contrast is not None
        done += whole
        if whole:
            one = replace(one, p=looked_at(one.p, looks, place))
        if found is None or (whole and (found.contrast is None or _clearer(one, found))):
            found = replace(one, look=Look(place, looks, 0))
        if not whole:
            break
    assert found is not None and found.look is not None
    return replace(found, look=found.look._replace(done=done))


def _clearer(one: Verdict, other: Verdict) -> bool:
    """Return whether a later look is the one to show: it is clearer, or none so far is clear."""
    return one.p <= other.p or other.p > 1 - LEVEL


def _unlisted(seeds: Sequence[int], arms: list[list[Record]]) -> str:
    """Name the seeds of the plan that the experiment does not list any more."""
    listed = [{record.seed for record in arm} for arm in arms]
    lost = [seed for seed in seeds if not all(seed in own for own in listed)]
    if not lost:
        return ""
    words = ("seed", "was", "has", "it") if len(lost) == 1 else ("seeds", "were", "have", "them")
    return (
        f"{words[0]} {', '.join(map(seed_text, lost))} {words[1]} registered and {words[2]} no "
        f"run in the experiment; add {words[3]} again, because a look needs all of its seeds to "
        "decide"
    )


def _measured(verdict: Verdict, arms: Arms, noise: OtherNoise) -> Verdict:
    """Measure a claim by these runs of its arms, or say why they cannot decide it."""
    claim = verdict.claim
    samples, why = _samples(claim, arms)
    verdict = replace(verdict, arms=samples)
    if why:
        return replace(verdict, why=why)
    of_seeds = _estimate(claim, samples, claim.paired)
    found, beside = noise.deciding(claim, of_seeds, [own for _, own in arms])
    p = found.first(claim.expectation.outcome)
    return replace(verdict, contrast=found, beside=beside, p=p)


def _samples(claim: Claim, arms: Arms) -> tuple[tuple[Sample, ...], str]:
    """Gather the values of a claim's arms; say why they cannot decide it, or say nothing."""
    samples = tuple(_sample(name, own, claim.measured, claim.unit) for name, own in arms)
    unfinished = [
        f"{s.name}: {trouble}"
        for s in samples
        for trouble in s.troubles
        if not s.complete and "diverged" not in trouble
    ]
    if not all(s.complete for s in samples):
        return samples, "; ".join(unfinished) or "a diverged run has no value of this measure"
    return samples, _underfit(claim, [own for _, own in arms])


def _sample(name: str, records: list[Record], measure: Measure, unit: str | None) -> Sample:
    if unit is None:
        return sample(name, records, measure)
    return sample_by_unit(name, records, measure, unit)


def _estimate(claim: Claim, samples: tuple[Sample, ...], paired: bool | None) -> IntervalEstimate:
    quantity = claim.expectation.quantity
    if quantity == "mean":
        return mean_of(samples[0])
    if claim.across is not None:
        return interaction(samples[:2], samples[2:], paired)
    return contrast(samples[0], samples[1], quantity, paired)


def _beyond_plan(
    verdict: Verdict, records: list[Record], planned: list[int], claims: int
) -> Beyond | None:
    """Judge all seeds together, if some are in no plan and all have a result."""
    claim = verdict.claim
    if verdict.look is None or claim.unit is not None or claim.generalise is not None:
        return None  # of seeds alone an interval for any time is known
    arms = arms_of(records, claim)
    counts = [{record.seed for record in arm} for _, arm in arms]
    added = counts[0] - {*planned}
    if not added or any(own != counts[0] for own in counts):
        return None
    samples, why = _samples(claim, arms)
    found = None if why else _estimate(claim, samples, True)
    # By ranks or of shares no interval is known that holds at any time.
    if found is None or not found.foretells:
        return None
    level = anytime_level((1 - LEVEL) / claims, max(found.n))
    outcome = claim.expectation.outcome(*found.at(level)) or "undecided"
    return Beyond(found, level, len(added), outcome)


def _stood(claim: Claim, records: list[Record], withdrawn: bool) -> bool:
    """Return whether a claim was written down before any of these runs began.

    A claim whose runs have not begun is in time, as long as it stands in the config.
    """
    begun = [record for record in records if record.provenance]
    return (bool(begun) or not withdrawn) and all(
        claim.hash in r.provenance[0].get("claims", []) for r in begun
    )


def _underfit(claim: Claim, arms: list[list[Record]]) -> str:
    """Say why these arms cannot decide the claim, if they have not learned enough."""
    floor = claim.threshold
    if floor is None:
        return ""
    samples = [_sample("", arm, floor.measure, claim.unit) for arm in arms]
    means = [float(one.values.mean()) for one in samples]
    best = max(means) if floor.at_least else min(means)
    if best >= floor.bound if floor.at_least else best <= floor.bound:
        return ""
    return (
        f"the arms underfit: the best mean of {floor.measure} is {best:.3g}, "
        f"and the floor {floor.bound:g}"
    )


def _decide(weighed: list[Verdict]) -> list[Verdict]:
    """Decide by Holm's rule: the clearest claim needs the highest level.

    The first unclear claim ends it; the claims behind it stay undecided at its level.
    """
    order = sorted(range(len(weighed)), key=lambda index: weighed[index].p)
    decided = list(weighed)
    allowed, stopped = 1 - LEVEL, False
    for rank, index in enumerate(order):
        verdict = weighed[index]
        if not stopped:
            allowed = (1 - LEVEL) / (len(weighed) - rank)
            stopped = verdict.p > allowed
        decided[index] = _settled(verdict, allowed, stopped)
    return decided


def _settled(verdict: Verdict, allowed: float, stopped: bool) -> Verdict:
    """Give a verdict its level, and look at its interval."""
    look, level = verdict.look, 1 - allowed
    if look is not None and verdict.contrast is not None:
        level = level_at(allowed, look.seeds, look.place)
    verdict = replace(verdict, level=level)
    return verdict if verdict.contrast is None else _conclude(verdict, stopped)


def _conclude(verdict: Verdict, stopped: bool) -> Verdict:
    found, expected = verdict.contrast, verdict.claim.expectation
    assert found is not None
    outcome = None if stopped else expected.outcome(*found.at(verdict.level))
    if outcome is not None:
        where = "inside" if (outcome == "supported") is not expected.outside else "outside"
        where += " the margin" if expected.outside else ""
        why = f"the interval lies wholly {where}"
        caveats = doubts(verdict.claim.measured, verdict.arms)
        return replace(verdict, outcome=outcome, why="; but ".join([why, *caveats]))
    if found.lacking:
        return replace(verdict, why=found.lacking)
    why, bounds = "the interval does not decide it", expected.bounds(found.estimate)
    look = verdict.look
    if look is not None and look.done < len(look.seeds):
        why += f" at look {look.done} of {len(look.seeds)}"
        why += f"; the next look is at {look.seeds[look.done]} seeds an arm"
        return replace(verdict, why=why)
    if not bounds or not found.foretells:
        return replace(verdict, why=why)
    units = "seeds" if verdict.claim.unit is None else f"values of {verdict.claim.unit}"
    seeds = found.more_seeds(*bounds, level=verdict.level)
    ends = found.seeds_range(*bounds, level=verdict.level)
    if seeds is None:
        why += (
            f"; more than {MOST_SEEDS} {units} an arm would be needed if the estimate is the truth"
        )
        return replace(verdict, why=why)
    anew = "" if look is None else ", in a new plan,"
    why += (
        f"; about {seeds} {units} an arm{anew} would decide it in 80% of cases if the estimate is "
        f"the truth ({between(ends)}, as far as {max(found.n)} {units} show the spread)"
    )
    return replace(verdict, why=why, seeds=seeds, seeds_range=ends)
