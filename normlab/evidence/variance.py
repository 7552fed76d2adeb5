"""Says where the variance of a measure comes from: initialisation, order, augmentation, images.

Seeds that are split into streams and crossed (`seed: {init: 0..4, order: 0..4}`) give the variance
that each stream adds (`crossed.py`). Stored answers give what the choice of test images adds
(`images.py`). The same runs made again, on another machine or with other threads, give what the
machine's rounding adds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from normlab.errors import UserError
from normlab.evidence.crossed import Component, Grid, on_grid, variance_interval
from normlab.evidence.images import (
    NO_ANSWERS,
    ONE_SEED,
    ArmAnswers,
    apart,
    arm_answers,
    has_images,
)
from normlab.evidence.intervals import LEVEL, Interval
from normlab.evidence.samples import Sample, sample
from normlab.measures.measures import Measure
from normlab.store.record import Record
from normlab.store.runs import Runs
from normlab.store.seeds import shared, streams_of, varying

WORDS = {
    "init": "initial weights",
    "order": "order of the examples",
    "augment": "augmentation",
    "dropout": "dropout",
}
"""The streams of a seed in words."""

SEED, REST, IMAGES, ROUNDING = (
    "the whole seed",
    "interplay and the rest",
    "choice of test images",
    "rounding of the machine",
)
"""The other sources, in words."""

NOT_ACCURACY = "it is known of final(test_accuracy) alone"


@dataclass(frozen=True)
class Source:
    """One source of variance.

    Attributes:
        name: what it is, in words.
        component: its variance with an interval; None where it was not measured.
        note: why it was not measured, or what it contains; may be empty.
    """

    name: str
    component: Component | None = None
    note: str = ""


@dataclass(frozen=True)
class ArmVariance:
    """The sources of the variance of one arm's values.

    Attributes:
        arm: the arm's name.
        measure: the measure.
        n: how many runs have a value.
        left_out: how many of them are in no complete crossing, and were left out.
        mean: the mean of the values.
        variance: that of one new run, with every measured source drawn anew; the sum of the
            components but that of rounding, which is a part of the rest.
        sources: every source.
        numbers: how many numbers each crossed stream has, by its words; empty if none are crossed.
    """

    arm: str
    measure: str
    n: int
    left_out: int
    mean: float
    variance: float
    sources: tuple[Source, ...]
    numbers: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, with standard deviations beside variances."""
        rows = []
        for source in self.sources:
            row: dict[str, Any] = {"source": source.name, "measured": source.component is not None}
            if source.component is not None:
                variance, interval, share, shares = source.component
                row |= {
                    "variance": variance,
                    "variance_interval": list(interval),
                    "deviation": math.sqrt(variance),
                    "deviation_interval": [math.sqrt(end) for end in interval],
                    "share": share,
                    "share_interval": list(shares),
                }
            rows.append(row | ({"note": source.note} if source.note else {}))
        return {
            "arm": self.arm,
            "measure": self.measure,
            "n": self.n,
            "left_out": self.left_out,
            "mean": self.mean,
            "variance": self.variance,
            "deviation": math.sqrt(self.variance),
            "crossed": self.numbers,
            "sources": rows,
        }


def variances(
    runs: Runs, measure: Measure, again: Iterable[Runs] = (), level: float = LEVEL
) -> list[ArmVariance]:
    """Split the variance of every arm's values into its sources.

    Args:
        runs: an experiment.
        measure: a measure of single runs.
        again: experiments that hold the same runs, made again on another machine.
        level: the share of cases in which an interval is to cover.

    Raises:
        UserError: the measure is one of several runs.
    """
    arms: dict[str, list[Record]] = {}
    for record in runs.records():
        arms.setdefault(record.arm, []).append(record)
    others = [one.records() for one in again]
    return [sources_of(name, own, measure, others, level) for name, own in arms.items()]


def sources_of(
    name: str,
    records: Sequence[Record],
    measure: Measure,
    again: Iterable[Sequence[Record]] = (),
    level: float = LEVEL,
) -> ArmVariance:
    """Split the variance of an arm's values into its sources.

    Args:
        name: the arm's name.
        records: its runs.
        measure: a measure of single runs.
        again: runs of other folders. Those that are the same as one of `records`, made again,
            show the rounding of the machine.
        level: the share of cases in which an interval is to cover.

    Raises:
        UserError: the measure is one of several runs.
    """
    if measure.axis is not None:
        raise UserError(f"{measure} is taken over several runs; variance needs one of each run")
    values = sample(name, records, measure)
    known = ~values.censored & np.isfinite(values.values)
    seeds = tuple(seed for seed, one in zip(values.seeds, known, strict=True) if one)
    kept = complete(seeds) if shared(seeds) else seeds
    of_images = _images(kept, records, measure, level)
    grid, factors = _grid(values, kept)
    variance = 0.0 if of_images.component is None else of_images.component.variance
    sources: list[Source] = []
    if grid is not None:
        known_too = {IMAGES: variance} if variance else {}
        found = grid.components(level, known_too)
        variance += sum(one.variance for one in found.values())
        sources = _of_seeds(found, factors, varying(kept))
    of_images = _with_share(of_images, variance)
    fixed = [s for s in WORDS if kept and s not in varying(kept)]
    sources += [
        Source(WORDS[s], None, f"one number in every run: {streams_of(kept[0])[s]}") for s in fixed
    ]
    rounding = _with_share(_rounding(records, measure, again, level), variance)
    sources += [of_images, rounding]
    mean = float(values.only(kept).mean()) if kept else math.nan
    numbers = {
        WORDS[stream]: len({streams_of(seed)[stream] for seed in kept}) for stream in shared(kept)
    }
    left_out = len(values) - len(kept)
    return ArmVariance(
        name, str(measure), len(kept), left_out, mean, variance, tuple(sources), numbers
    )


def complete(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of a complete crossing: numbers with many missing partners are left out.

    >>> from normlab.store.seeds import split_seed
    >>> whole = [split_seed(i, o) for i in (0, 1, 2) for o in (0, 1)]
    >>> complete(whole) == tuple(whole), complete(whole[:-1]) == tuple(whole[:4])
    (True, True)
    """
    kept = list(seeds)
    while kept:
        counts: dict[tuple[str, int], int] = {}
        for stream in varying(kept):
            for seed in kept:
                key = stream, streams_of(seed)[stream]
                counts[key] = counts.get(key, 0) + 1
        levels = {s: sum(stream == s for stream, _ in counts) for s in varying(kept)}
        whole = math.prod(levels.values())
        if whole == len(kept):
            break
        # A number is dropped that has the least share of its combinations.
        share = {key: count * levels[key[0]] / whole for key, count in counts.items()}
        stream, number = min(share, key=lambda key: (share[key], -levels[key[0]]))
        kept = [seed for seed in kept if streams_of(seed)[stream] != number]
    return tuple(kept)


def _grid(values: Sample, kept: Sequence[int]) -> tuple[Grid | None, tuple[str, ...]]:
    """Lay the values on the grid of the streams, or on one line of seeds that share nothing."""
    if len(kept) < 2:
        return None, ()
    moved = varying(kept)
    if shared(kept):
        return on_grid(kept, values.only(kept)), moved
    factors = moved if len(moved) == 1 else (SEED,)
    return Grid(factors, values.only(kept)), factors


def _of_seeds(
    found: Mapping[frozenset[str], Component], factors: Sequence[str], moved: Sequence[str]
) -> list[Source]:
    """List the streams' own parts, and what they and everything else do together."""
    if len(factors) == 1:
        (only,), everything = factors, frozenset(factors)
        streams = [WORDS[stream] for stream in WORDS if stream in moved]
        note = f"{', '.join(streams)} together, and the rest" if only == SEED else "and the rest"
        return [Source(WORDS.get(only, SEED), found[everything], note)]
    own = [Source(WORDS[factor], found[frozenset([factor])]) for factor in factors]
    several = [(p, component) for p, component in found.items() if len(p) > 1]
    if len(several) == 1:
        return [*own, Source(REST, several[0][1])]
    more = [
        Source(f"interplay of {' and '.join(WORDS[s] for s in factors if s in part)}", component)
        for part, component in several[:-1]
    ]
    return [*own, *more, Source(REST, several[-1][1])]


def _images(
    kept: Sequence[int], records: Sequence[Record], measure: Measure, level: float
) -> Source:
    """Estimate what the choice of test images adds to the accuracy of one run."""
    if not has_images(measure):
        return Source(IMAGES, None, NOT_ACCURACY)
    answers = arm_answers([record for record in records if record.seed in kept])
    if answers is None:
        return Source(IMAGES, None, NO_ANSWERS)
    pairs = apart(answers.seeds, answers.seeds)
    if not pairs.any():
        return Source(IMAGES, None, ONE_SEED)
    variance, error = image_variance(answers, pairs)
    z = float(special.ndtri((1 + level) / 2))
    ends = Interval(max(0.0, variance - z * error), max(0.0, variance + z * error))
    note = f"{len(answers.labels):,} images"
    return Source(IMAGES, Component(max(0.0, variance), ends), note)


def image_variance(answers: ArmAnswers, pairs: np.ndarray) -> tuple[float, float]:
    """Return the variance that the images add to an accuracy, and its standard error.

    The variance is the mean covariance of the answers of two runs, over the images, by the number
    of images. Its error is that of a mean over the images.

    Args:
        answers: of one arm.
        pairs: `(S, S)` whether two runs share nothing but the images.
    """
    around = answers.right - answers.right.mean(axis=1, keepdims=True)
    n = len(answers.labels)
    each = np.einsum("si,si->i", around, pairs.astype(float) @ around) / pairs.sum()
    return float(each.sum() / (n - 1) / n), float(each.std(ddof=1) / math.sqrt(n) / n)


def _rounding(
    records: Sequence[Record], measure: Measure, again: Iterable[Sequence[Record]], level: float
) -> Source:
    """Estimate what the machine adds: the variance of runs that were made again elsewhere."""
    values: dict[str, list[float]] = {}
    for record in [*records, *(record for others in again for record in others)]:
        value = measure.of(record) if record.finished else None
        if value is not None and not value.censored and math.isfinite(value.number):
            values.setdefault(record.path.name, []).append(value.number)
    own = {record.path.name for record in records}
    several = [np.array(v) for name, v in values.items() if name in own and len(v) > 1]
    degrees = sum(len(one) - 1 for one in several)
    if not degrees:
        return Source(ROUNDING, None, "no run was made again on another machine")
    within = sum(float(np.square(one - one.mean()).sum()) for one in several)
    variance = within / degrees
    made = f"{len(several)} run{'s' if len(several) > 1 else ''} made again; a part of the rest"
    return Source(ROUNDING, Component(variance, variance_interval(variance, degrees, level)), made)


def _with_share(source: Source, whole: float) -> Source:
    """Give a component that has no share yet its share of the whole variance."""
    if source.component is None or not whole:
        return source
    variance, interval, *_ = source.component
    share = variance / whole
    rest = max(whole - variance, 0.0)
    ends = Interval(*(end / (end + rest) if end + rest else 0.0 for end in interval))
    return Source(source.name, Component(variance, interval, share, ends), source.note)
