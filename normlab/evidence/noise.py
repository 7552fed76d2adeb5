"""Finds in finished experiments how much a measure varies between seeds in a like setting.

A setting is like another by the first of these rules that holds, and the nearest one is taken:

1. the runs differ in the seed alone, and each arm has at least ten seeds;
2. data, model and training are the same, whatever the normaliser and the optimiser;
3. the data set and the kind of model have the same names;
4. the data set has the same name.

By the first rule each arm has its own deviation. By the others all arms that are alike have one,
pooled over arms whose every seed has learned. Among settings that are equally like, that with the
most degrees of freedom is taken.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from normlab.evidence.chances import Noise
from normlab.evidence.samples import Sample, sample
from normlab.measures.measures import Measure
from normlab.store.record import Record
from normlab.store.runs import Runs

MANY = 10
"""Seeds that show an arm's own deviation to within a factor of two."""

RULES = (
    "the same runs with other seeds",
    "the same data, model and training",
    "the same data set and kind of model",
    "the same data set",
)
"""The rules by which a setting is like another, the nearest first."""

Sections = dict[str, Any]

SECONDS = ("train_seconds", "evaluate_seconds", "probe_seconds")


class Found(NamedTuple):
    """The noise of a like setting, and where it was found.

    Attributes:
        noise: the noise.
        rule: the place in `RULES` of the rule that holds.
        folder: the folder of the experiment.
        arms: how many arms show the noise.
        seeds: the fewest and the most seeds of them.
        grain: the least step between two values, where the measure is a share of test examples.
    """

    noise: Noise
    rule: int
    folder: Path
    arms: int
    seeds: tuple[int, int]
    grain: float = 0.0


@dataclass(frozen=True, eq=False)
class KnownArm:
    """An arm of a finished experiment.

    Attributes:
        folder: the folder of the experiment.
        config: the resolved config of one of its runs.
        records: its finished runs.
        claimed: the measures of the experiment's claims.
    """

    folder: Path
    config: Sections
    records: list[Record]
    claimed: tuple[str, ...] = ()

    def sample(self, measure: Measure, learned: bool = True) -> Sample | None:
        """Return the values of a measure that show how it varies, or None if they do not.

        Args:
            measure: the measure.
            learned: whether every seed must have learned.
        """
        name = measure.name
        published = any(record.published for record in self.records)
        if published and name in ("best", "area") and str(measure) not in self.claimed:
            return None  # not every row that it needs is published
        last = [record.metrics[-1] if record.metrics else {} for record in self.records]
        if not all(metric in row for metric in measure.metrics for row in last):
            return None
        found = sample("", self.records, measure)
        whole = found.complete and len(found) > 1 and not found.censored.any()
        varies = whole and not found.exact and not (learned and found.unlearned)
        return found if varies and np.isfinite(found.values).all() else None

    @property
    def seconds(self) -> float | None:
        """The mean seconds of a run without its compilation; None if they were not measured."""
        known = [
            sum(record.status.get(part, 0.0) for part in SECONDS)
            for record in self.records
            if "train_seconds" in record.status
        ]
        return float(np.mean(known)) if known else None


def known_arms(experiments: Iterable[Runs]) -> list[KnownArm]:
    """List the arms of finished runs in some experiments."""
    found = []
    for runs in experiments:
        claimed = tuple(str(Measure.parse(c["measure"])) for c in runs.about.get("claims", []))
        arms: dict[str, list[Record]] = {}
        for record in runs.records():
            if record.finished:
                arms.setdefault(record.arm, []).append(record)
        found += [KnownArm(runs.path, own[0].config, own, claimed) for own in arms.values()]
    return found


def likeness(wanted: Sections, found: Sections) -> int | None:
    """Return the place in `RULES` of the first rule by which runs are alike; None if none holds.

    A setting that only one of them has is not compared: it was added to normlab in between, and its
    default does what was done before.

    >>> a = {"data": {"name": "shapes"}, "model": {"name": "mlp", "widths": [8]}, "train": {}}
    >>> likeness(a, a), likeness(a, {**a, "model": {"name": "mlp", "widths": [9]}})
    (0, 2)
    """
    data, models = ([one.get(part) or {} for one in (wanted, found)] for part in ("data", "model"))
    if any(data[0].get(key) != data[1].get(key) for key in ("name", "set", "path")):
        return None
    if models[0].get("name") != models[1].get("name"):
        return 3
    if not _same(wanted, found, ("data", "model", "train")):
        return 2
    return 0 if _same(wanted, found, (*{**wanted, **found},)) else 1


def find_noise(
    arms: Sequence[Sections],
    measure: Measure,
    known: Sequence[KnownArm],
    paired: bool,
    learned: bool = True,
    ratio: float | None = None,
) -> Found | None:
    """Find the noise of a claim's arms in a like setting.

    Args:
        arms: the resolved config of a run of each arm of the claim.
        measure: the claim's measure.
        known: the arms of finished experiments.
        paired: whether the claim's arms are paired by seed.
        learned: whether arms with seeds that did not learn are left out.
        ratio: where the claim is about a ratio, its bound. The deviations are then taken to be
            proportional to the means: the right arm's is that of its mean, the left arm's that of
            the mean at the bound.
    """
    if measure.axis is not None:
        return None
    folders = dict.fromkeys(one.folder for one in known)
    found = []
    for folder in folders:
        own = [one for one in known if one.folder == folder]
        samples = [(one.config, values) for one in own if (values := one.sample(measure, learned))]
        one = _in_experiment(folder, arms, samples, paired, ratio)
        found += [] if one is None else [one]
    return min(found, key=lambda one: (one.rule, -(one.noise.degrees or 0)), default=None)


def seconds_of(wanted: Sections, known: Iterable[KnownArm]) -> float | None:
    """Return how long a run took on average where data, model and training were the same.

    Runs that differ in the seed alone come first, if there are some.
    """
    by_rule: dict[int, list[float]] = {}
    for one in known:
        rule = likeness(wanted, one.config)
        if rule in (0, 1) and one.seconds is not None:
            by_rule.setdefault(rule, []).append(one.seconds)
    return float(np.mean(by_rule[min(by_rule)])) if by_rule else None


def _in_experiment(
    folder: Path,
    arms: Sequence[Sections],
    samples: Sequence[tuple[Sections, Sample]],
    paired: bool,
    ratio: float | None,
) -> Found | None:
    alike: list[list[Sample]] = []
    rules = []
    same = [[v for config, v in samples if likeness(arm, config) == 0] for arm in arms]
    if all(own and len(own[0]) >= MANY for own in same):
        alike, rules = [own[:1] for own in same], [0]
    for arm in arms if not alike else ():
        near = [(likeness(arm, config), values) for config, values in samples]
        places = [max(rule, 1) for rule, _ in near if rule is not None]
        if not places:
            return None
        rules.append(min(places))
        alike.append([v for rule, v in near if rule is not None and max(rule, 1) == rules[-1]])
    deviations = tuple(_pooled(own, ratio is not None) for own in alike)
    if not all(map(math.isfinite, deviations)) or not all(deviations):
        return None
    every = list({id(one): one for own in alike for one in own}.values())
    degrees = min(sum(len(one) - 1 for one in own) for own in alike)
    counts = [len(one) for one in every]
    base = None
    if len(arms) > 1:
        of_right = same[1] or alike[1]
        base = float(np.mean([one.values.mean() for one in of_right]))
    if ratio is not None and base is not None:
        left, right = deviations
        deviations = abs(ratio * base) * left, abs(base) * right
    correlation = _correlation(every) if paired else 0.0
    noise = Noise(deviations, correlation, base, degrees)
    grain = max(one.grain if one.counted else 0.0 for one in every)
    return Found(noise, max(rules), folder, len(every), (min(counts), max(counts)), grain)


def _pooled(samples: Sequence[Sample], relative: bool) -> float:
    """Return the pooled standard deviation, or that of the values over their arm's mean."""
    with np.errstate(divide="ignore"):
        squares = sum(
            (len(one) - 1) * one.values.var(ddof=1) / (one.values.mean() ** 2 if relative else 1)
            for one in samples
        )
    return math.sqrt(squares / sum(len(one) - 1 for one in samples))


def _correlation(samples: Sequence[Sample]) -> float:
    """Return the mean correlation of two arms' values of one seed; a negative one counts as 0.

    Arms are compared if their runs begin alike and have the same seeds.
    """
    groups: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for one in samples:
        groups.setdefault((one.seeds, one.origins), []).append(one.values - one.values.mean())
    shared = possible = 0.0
    for own in groups.values():
        values = np.array(own)
        deviations = values.std(axis=1, ddof=1)
        together = values.sum(axis=0).var(ddof=1) - (deviations**2).sum()
        shared += together
        possible += deviations.sum() ** 2 - (deviations**2).sum()
    return float(min(max(shared / possible, 0.0), 0.99)) if possible else 0.0


def _same(wanted: Sections, found: Sections, names: Sequence[str]) -> bool:
    return all(_alike(wanted.get(name), found.get(name)) for name in names)


def _alike(wanted: Any, found: Any) -> bool:
    if wanted == found:
        return True
    if isinstance(wanted, dict) and isinstance(found, dict):
        shared = (wanted.keys() & found.keys()) - {"seed"}
        return all(_alike(wanted[key], found[key]) for key in shared)
    # Files keep tuples as lists.
    return json.dumps(wanted, sort_keys=True) == json.dumps(found, sort_keys=True)
