"""Judges claims: supported, refuted or undecided, by an interval and by nothing else.

A claim is supported if the interval of its difference, ratio or mean lies wholly where the claim
wants it, refuted if it lies wholly outside, and undecided otherwise; "matches within d" is
therefore an equivalence test. The level is 95%, raised by Holm's rule for the number of claims in
the file, so that the chance of one wrong verdict among all of them is at most 5%. A claim is
undecided without a look at an interval if a run is not finished, or if no arm learned enough. The
verdict also names reasons why an interval covers less than it should (`doubts.py`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from normlab.errors import UserError
from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.doubts import doubts
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.interactions import interaction
from normlab.evidence.intervals import LEVEL, Interval
from normlab.evidence.power import MOST_SEEDS, between
from normlab.evidence.remarks import read_remarks
from normlab.evidence.samples import Sample, sample
from normlab.measures.claims import Claim, arms_of, read_claim
from normlab.store.layout import CLAIMS, EXPERIMENT, PUBLISHED
from normlab.store.record import Record
from normlab.store.runs import Runs


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
    weighed = [_weigh(claim, records) for claim in present]
    weighed += [v for claim in gone if (v := _weigh(claim, records, withdrawn=True)).registered]
    reasons = read_remarks(runs.path).withdrawn
    return [
        replace(verdict, retracted=reasons.get(verdict.claim.says, ""))
        for verdict in _decide(weighed)
    ]


def _ever_written(runs: Runs) -> list[Claim]:
    return [read_claim(claim, _file(runs, CLAIMS)) for claim in runs.ever_claimed]


def _file(runs: Runs, name: str) -> Path:
    """Return the file that holds a part of an experiment; published results have one for all."""
    return runs.path / (name if (runs.path / EXPERIMENT).exists() else PUBLISHED)


def _weigh(claim: Claim, records: list[Record], withdrawn: bool = False) -> Verdict:
    """Measure a claim; `_decide` then looks at the interval."""
    measure = claim.measured
    try:
        chosen = arms_of(records, claim)
    except UserError as error:  # the config has changed since
        return Verdict(claim, "undecided", str(error), _stood(claim, records), withdrawn)
    arms = [own for _, own in chosen]
    registered = _stood(claim, [record for arm in arms for record in arm])
    samples = tuple(sample(name, own, measure) for name, own in chosen)
    verdict = Verdict(claim, "undecided", "", registered, withdrawn, arms=samples)
    unfinished = [
        f"{s.name}: {trouble}"
        for s in samples
        for trouble in s.troubles
        if not s.complete and "diverged" not in trouble
    ]
    if not all(s.complete for s in samples):
        why = "; ".join(unfinished) or "a diverged run has no value of this measure"
        return replace(verdict, why=why)
    underfit = _underfit(claim, arms)
    if underfit:
        return replace(verdict, why=underfit)
    expected = claim.expectation
    if expected.quantity == "mean":
        found = mean_of(samples[0])
    elif claim.across is not None:
        found = interaction(samples[:2], samples[2:], claim.paired)
    else:
        found = contrast(samples[0], samples[1], expected.quantity, claim.paired)
    return replace(verdict, contrast=found, p=found.first(expected.outcome))


def _stood(claim: Claim, records: list[Record]) -> bool:
    """Return whether a claim was written down before any of these runs began."""
    begun = [record for record in records if record.provenance]
    return bool(begun) and all(claim.hash in r.provenance[0].get("claims", []) for r in begun)


def _underfit(claim: Claim, arms: list[list[Record]]) -> str:
    """Say why these arms cannot decide the claim, if they have not learned enough."""
    floor = claim.threshold
    if floor is None:
        return ""
    means = [float(sample("", arm, floor.measure).values.mean()) for arm in arms]
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
        verdict = replace(verdict, level=1 - allowed)
        decided[index] = verdict if verdict.contrast is None else _conclude(verdict, stopped)
    return decided


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
    if not bounds or not found.foretells:
        return replace(verdict, why=why)
    seeds = found.more_seeds(*bounds, level=verdict.level)
    ends = found.seeds_range(*bounds, level=verdict.level)
    if seeds is None:
        why += f"; more than {MOST_SEEDS} seeds an arm would be needed if the estimate is the truth"
        return replace(verdict, why=why)
    why += (
        f"; about {seeds} seeds an arm would decide it in 80% of cases if the estimate is the "
        f"truth ({between(ends)}, as far as {max(found.n)} seeds show the spread)"
    )
    return replace(verdict, why=why, seeds=seeds, seeds_range=ends)
