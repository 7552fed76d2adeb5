"""Gathers the values of a measure, arm by arm, from an experiment's records."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from normlab.measures.claims import label_of
from normlab.measures.measures import Measure
from normlab.measures.value import NoValueError, Value
from normlab.store.processes import is_left
from normlab.store.record import Record
from normlab.store.seeds import seed_text, shared


@dataclass(frozen=True, eq=False)
class Sample:
    """One arm's values of one measure, in order of the seeds.

    Attributes:
        name: the arm's name.
        seeds: the seeds that have a value.
        values: one value a seed; if it is censored, the number that the value is known to exceed.
        censored: for each value whether it is censored.
        planned: how many values the arm would have if every run were finished.
        troubles: the runs without a value, or with one by rule, and why: "seed 3 diverged at step
            12".
        binary: whether every value is 0 or 1, so that their mean is a share.
        exact: whether the config alone settles the value, such as the number of parameters.
        grain: the least step between two values of the measure; 0 if it has none.
        counted: whether the measure is a share of test examples, so that the grain is one example.
        unlearned: the seeds that did not learn, if the measure concerns something learned.
        origins: for each value the settings that fix the weights and batches its run began with.
        curves: for each value all metrics of its run, without the seconds.
        unit: the axis whose values are the units of replication; empty if each seed is one.
            `seeds` then holds the units, each with its mean over the seeds.
    """

    name: str
    seeds: tuple[Any, ...]
    values: np.ndarray
    censored: np.ndarray
    planned: int
    troubles: tuple[str, ...] = ()
    binary: bool = False
    exact: bool = False
    grain: float = 0.0
    counted: bool = False
    unlearned: tuple[Any, ...] = ()
    origins: tuple[str, ...] = ()
    curves: tuple[Any, ...] = ()
    unit: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def crossed(self) -> bool:
        """Return whether runs share streams of their seeds, so that they are no repetitions."""
        return not self.unit and bool(shared(self.seeds))

    @property
    def complete(self) -> bool:
        """Return whether every planned run has a value."""
        return len(self) == self.planned

    def only(self, seeds: Iterable[int]) -> np.ndarray:
        """Select the values of some seeds, in their order."""
        place = {seed: index for index, seed in enumerate(self.seeds)}
        return self.values[[place[seed] for seed in seeds]]


def sample(name: str, records: Iterable[Record], measure: Measure) -> Sample:
    """Gather the values of the runs of one arm."""
    by_seed: dict[int, list[Record]] = {}
    for record in records:
        by_seed.setdefault(record.seed, []).append(record)
    seeds, values, troubles = [], [], []
    for seed in sorted(by_seed):
        own = by_seed[seed]
        troubles += [text for record in own if (text := trouble(record))]
        try:
            value = _value(own, measure)
        except NoValueError as error:
            troubles.append(f"seed {seed_text(seed)} {error}")
            continue
        if value is not None:
            seeds.append(seed)
            values.append(value)
    numbers = np.array([value.number for value in values], float)
    runs = [by_seed[seed] for seed in seeds]
    of_learning = bool(measure.metrics) and measure.axis is None
    counted = measure.name in ("final", "best", "area") and measure.metrics == ("test_accuracy",)
    return Sample(
        name,
        tuple(seeds),
        numbers,
        np.array([value.censored for value in values], bool),
        len(by_seed),
        tuple(troubles),
        binary=measure.name == "diverged",
        exact=measure.definition.exact,
        grain=1 / runs[0][0].data["test_examples"]
        if runs and counted
        else _grain(measure, numbers),
        counted=counted,
        unlearned=tuple(
            seed for seed, own in zip(seeds, runs, strict=True) if of_learning and not learned(*own)
        ),
        origins=tuple("".join(sorted(map(_origin, own))) for own in runs),
        curves=tuple([_curve(record) for record in own] for own in runs),
    )


def sample_by_unit(name: str, records: Iterable[Record], measure: Measure, unit: str) -> Sample:
    """Gather the values of one arm, one for each value of an axis: its mean over the seeds.

    A unit of which a run has no value has none. If a run never reached its target, the mean is
    known to exceed that of the numbers that the runs are known to exceed.

    Args:
        name: the arm's name.
        records: the arm's runs.
        measure: the measure.
        unit: the axis.
    """
    by_unit: dict[str, list[Record]] = {}
    for record in records:
        by_unit.setdefault(label_of(record.axes[unit]), []).append(record)
    every = {label: sample(name, own, measure) for label, own in by_unit.items()}
    whole = {label: one for label, one in every.items() if one.complete and len(one)}
    of_seeds = list(whole.values())
    return Sample(
        name,
        tuple(whole),
        np.array([one.values.mean() for one in of_seeds], float),
        np.array([one.censored.any() for one in of_seeds], bool),
        len(every),
        tuple(f"{unit} = {label}, {text}" for label, one in every.items() for text in one.troubles),
        exact=measure.definition.exact,
        unlearned=tuple(label for label, one in whole.items() if one.unlearned),
        origins=tuple("".join(one.origins) for one in of_seeds),
        curves=tuple(one.curves for one in of_seeds),
        unit=unit,
    )


def same_runs(left: Sample, right: Sample) -> bool:
    """Return whether each seed's runs have the same value and the same curves, loss for loss."""
    return (
        all(left.curves)
        and len(left.curves) == len(left)
        and left.curves == right.curves
        and np.array_equal(left.values, right.values)
    )


def learned(record: Record) -> bool:
    """Return whether a finished run ended better than a guess: neither diverged nor at chance.

    At chance is a last test accuracy that guessing among the classes reaches, on so many test
    examples, in more than 5% of cases (exact binomial). With classes of unequal size naming the
    largest one is more than a guess by this rule.
    """
    if record.state == "diverged":
        return False
    accuracy = record.metrics[-1].get("test_accuracy") if record.metrics else None
    if accuracy is None:
        return True
    if not math.isfinite(accuracy):
        return False
    examples, classes = record.data["test_examples"], record.data["classes"]
    right = round(accuracy * examples)
    return right > 0 and special.betainc(right, examples - right + 1, 1 / classes) <= 0.05


def _grain(measure: Measure, values: np.ndarray) -> float:
    """Find the step between values: 0 for losses and seconds, else the step that the values show.

    They show a step if all gaps are whole multiples of the smallest gap.
    """
    accuracies = [name.endswith("accuracy") for name in measure.metrics]
    if measure.definition.unit == "s" or (accuracies and not any(accuracies)):
        return 0.0
    gaps = np.diff(np.sort(values))
    gaps = gaps[gaps > 1e-6 * np.abs(values).max(initial=0)]
    steps = gaps / gaps.min(initial=np.inf)
    return float(gaps.min()) if len(gaps) and np.abs(steps - steps.round()).max() < 0.01 else 0.0


def _origin(record: Record) -> str:
    """Write down data, model and training with the seed: runs that share them begin alike."""
    return json.dumps([record.config.get(key) for key in ("data", "model", "train")])


def _curve(record: Record) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.endswith("seconds")}
        for row in record.metrics
    ]


def _value(records: list[Record], measure: Measure) -> Value | None:
    if not all(record.finished for record in records):
        return None
    if measure.axis is not None:
        return measure.over(records)
    (record,) = records
    return measure.of(record)


def trouble(record: Record) -> str:
    """Describe a run's trouble, such as divergence; empty if there is none."""
    seed, state = f"seed {seed_text(record.seed)}", record.state
    if state == "diverged":
        return f"{seed} diverged at step {record.status['diverged']['step']}"
    if record.damage:
        return f"{seed} is damaged ({record.damage})"
    if state == "failed":
        return f"{seed} failed ({record.status.get('error', 'see its error.txt')})"
    status = record.status
    if state == "running" and "pid" in status and is_left((status.get("host"), status["pid"])):
        return f"{seed} was stopped: its process is no more"
    words = {"new": "is missing (not begun, or deleted)", "running": "is still running",
             "interrupted": "was interrupted"}  # fmt: skip
    return f"{seed} {words[state]}" if state in words else ""
