"""Says of arms what seeds do not show: other test images, other tuning, equal answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.generalising import OtherNoise
from normlab.evidence.images import Agreement, agreement, has_images
from normlab.measures.measures import Measure
from normlab.store.record import Record

KINDS: tuple[str, ...] = ("images", "tuning")


@dataclass(frozen=True, eq=False)
class Wider:
    """A mean or a difference, with the intervals that speak of more than new seeds.

    Attributes:
        what: the arm's name, or "left minus right".
        seeds: the estimate with its interval over seeds.
        others: the estimate with wider intervals, by what they speak of beside seeds; those that
            are not known are missing.
    """

    what: str
    seeds: IntervalEstimate
    others: dict[str, IntervalEstimate]


def wider(comparison: Comparison) -> list[Wider]:
    """Return the mean of every arm and its difference to the baseline, with wider intervals.

    Only what has a wider interval is returned.
    """
    noise, measure = comparison.other_noise, comparison.measure
    found: list[Wider] = []
    if measure.axis is not None:  # an arm has several runs of one seed then
        return found
    for arm in comparison.arms:
        found.append(_wider(arm.name, arm.mean, [arm.records], noise, measure))
        if arm.difference is not None:
            base = comparison.arm(arm.baseline)
            words, pair = f"{arm.name} minus {base.name}", [arm.records, base.records]
            found.append(_wider(words, arm.difference, pair, noise, measure))
    return [one for one in found if one.others]


def _wider(
    what: str,
    found: IntervalEstimate,
    arms: Sequence[Sequence[Record]],
    noise: OtherNoise,
    measure: Measure,
) -> Wider:
    kinds = [kind for kind in KINDS if kind != "images" or has_images(measure)]
    joined = {kind: noise.joined(found, [kind], arms, measure) for kind in kinds}
    known = {k: one for k, one in joined.items() if not one.lacking and one.at is not found.at}
    return Wider(what, found, known)


def agreements(comparison: Comparison) -> list[tuple[Arm, Agreement]]:
    """Return how often each arm's networks answer as the baseline's do; those without answers miss.

    Answers are stored for the last evaluation, so they do not depend on the measure.
    """
    noise, found = comparison.other_noise, []
    for arm in comparison.arms:
        if arm.difference is None or comparison.measure.axis is not None:
            continue
        base = comparison.arm(arm.baseline)
        left, right = noise.answers(arm.records), noise.answers(base.records)
        if left is None or right is None or not (left.classes and right.classes):
            continue
        if np.array_equal(left.labels, right.labels):
            found.append((arm, agreement(left, right)))
    return found
