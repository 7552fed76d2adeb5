"""Compares arms image by image: what the choice of test images adds, and how often they agree.

All runs are judged on the same test images, so seeds do not show what other images would give. The
answers of single runs do. Two runs that share nothing but the images are right on the same images
more often than chance has it, because some images are easier than others. The covariance of their
answers over the images is the variance of what images add. This is the image component of an
analysis of variance with seeds crossed with images (Searle, Casella & McCulloch 1992).

An interval for new seeds and new images joins that of the seeds with the error of the images, as
independent parts (MOVER: Zou & Donner 2008, Statistics in Medicine 27:1693-1702).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.intervals import Interval
from normlab.measures.claims import OF_IMAGES
from normlab.measures.measures import Measure
from normlab.store.outcomes import read_outcomes
from normlab.store.record import Record
from normlab.store.seeds import streams_of, varying

NO_ANSWERS = "not every run has its answers for the test images stored"
OTHER_IMAGES = "the arms were not tested on the same images"
ONE_SEED = "one seed an arm does not show what the images add"


@dataclass(frozen=True, eq=False)
class ArmAnswers:
    """The answers of one arm's runs for one test set.

    Attributes:
        seeds: the runs' seeds.
        labels: `(N,)` the true classes.
        predicted: `(S, N)` the classes that each run answers; -1 for no number.
        classes: whether these are classes. Published runs say only which answers are right, and
            then 0 stands for a right answer, and 1 for a wrong one.
    """

    seeds: tuple[int, ...]
    labels: np.ndarray
    predicted: np.ndarray
    classes: bool = True

    @property
    def right(self) -> np.ndarray:
        """`(S, N)` 1 where a run is right, else 0."""
        return (self.predicted == self.labels).astype(float)


def has_images(measure: Measure) -> bool:
    """Return whether a measure is the accuracy that stored answers have."""
    return str(measure) == OF_IMAGES


def arm_answers(records: Iterable[Record]) -> ArmAnswers | None:
    """Read the answers of an arm's runs; None unless all have them, for one test set.

    Raises:
        DamagedError: the answers of a run are not as they were written.
    """
    runs, found = sorted(records, key=lambda record: record.seed), []
    if runs and all(record.right is not None for record in runs):
        wrong = np.stack([~record.right for record in runs]).astype(int)  # type: ignore[operator]
        seeds = tuple(record.seed for record in runs)
        return ArmAnswers(seeds, np.zeros(wrong.shape[1], int), wrong, classes=False)
    for record in runs:
        whole = record.state == "done" and not record.published
        one = read_outcomes(record.path) if whole else None
        if one is None or (found and not np.array_equal(one.labels, found[0][1].labels)):
            return None
        found.append((record.seed, one))
    if not found:
        return None
    predicted = np.stack([one.predicted for _, one in found])
    return ArmAnswers(tuple(seed for seed, _ in found), found[0][1].labels, predicted)


def apart(left: Sequence[int], right: Sequence[int]) -> np.ndarray:
    """Return `(left, right)` whether two seeds share the number of no stream that varies.

    >>> apart((0, 1), (0, 1)).tolist()
    [[False, True], [True, False]]
    """
    streams = varying([*left, *right])
    a, b = (
        np.array([[streams_of(seed)[s] for s in streams] for seed in own]) for own in (left, right)
    )
    return (a[:, None, :] != b[None, :, :]).all(axis=-1) & bool(streams)


def image_error(arms: Sequence[ArmAnswers], signs: Sequence[int]) -> float:
    """Return the standard error that the choice of images gives a sum of arms' accuracies.

    Args:
        arms: with one test set.
        signs: 1 or -1 for each arm.

    Returns:
        The error; 0 if the estimate of its square is negative, and NaN if no two runs share nothing
        but the images.
    """
    n, variance = len(arms[0].labels), 0.0
    around = [arm.right - arm.right.mean(axis=1, keepdims=True) for arm in arms]
    for one, sign, centred in zip(arms, signs, around, strict=True):
        for other, also, against in zip(arms, signs, around, strict=True):
            chosen = apart(one.seeds, other.seeds)
            if not chosen.any():
                return math.nan
            covariance = centred @ against.T / (n - 1)
            variance += sign * also * float(covariance[chosen].mean())
    return math.sqrt(max(variance, 0.0) / n)


def errors_of(arms: Sequence[ArmAnswers | None], signs: Sequence[int]) -> tuple[float, str]:
    """Return `image_error` of arms, or NaN and why there is none."""
    known = [arm for arm in arms if arm is not None]
    if len(known) < len(arms):
        return math.nan, NO_ANSWERS
    if any(not np.array_equal(arm.labels, known[0].labels) for arm in known):
        return math.nan, OTHER_IMAGES
    error = image_error(known, signs)
    return error, ONE_SEED if math.isnan(error) else ""


def widened(found: IntervalEstimate, error: float, words: str) -> IntervalEstimate:
    """Join an estimate's interval with an independent standard error of something else.

    Args:
        found: the estimate.
        error: the standard error.
        words: what has that error, for the words of the method.

    >>> narrow = IntervalEstimate("mean", 0.5, "t", False, (5,), lambda level: Interval(0.47, 0.53))
    >>> [round(end, 3) for end in widened(narrow, 0.04 / 1.96, "new images").interval]
    [0.45, 0.55]
    """

    def at(level: float) -> Interval:
        low, high = found.at(level)
        more = float(special.ndtri((1 + level) / 2)) * error
        middle = found.estimate
        return Interval(
            middle - math.hypot(middle - low, more), middle + math.hypot(high - middle, more)
        )

    method = f"{found.method}, joined with the error of {words}"
    return replace(found, at=at, method=method, distances=lambda bound: ())


class Agreement(NamedTuple):
    """The shares of test images on which two networks answer alike, right or wrong.

    Attributes:
        between: a network of one arm and one of the other, of different seeds.
        left: two networks of the first arm; NaN for a single run.
        right: two networks of the second arm; NaN for a single run.
    """

    between: float
    left: float
    right: float

    @property
    def beyond(self) -> float:
        """How much less two arms agree than two seeds of one arm do, on average."""
        return (self.left + self.right) / 2 - self.between


def agreement(left: ArmAnswers, right: ArmAnswers) -> Agreement:
    """Return how often the networks of two arms answer alike, and how often two seeds of one do.

    Pairs of networks with one seed are left out, because runs of one seed may begin alike.
    """
    return Agreement(_alike(left, right), _alike(left, left), _alike(right, right))


def _alike(one: ArmAnswers, other: ArmAnswers) -> float:
    chosen = apart(one.seeds, other.seeds)
    shares = [
        float((one.predicted[i] == other.predicted[j]).mean()) for i, j in np.argwhere(chosen)
    ]
    return float(np.mean(shares)) if shares else float("nan")
