"""The values of a measure, arm by arm, read from an experiment's records."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from normlab.runs.measures import Measure
from normlab.runs.record import Record
from normlab.runs.values import NoValueError, Value


@dataclass(frozen=True, eq=False)
class Sample:
    """One arm's values of one measure, in order of the seeds.

    Attributes:
        name: the arm's.
        seeds: those that have a value.
        values: one a seed; where `censored`, the number that the value is known to exceed.
        censored: whether so.
        planned: how many values the arm would have if every run were finished.
        troubles: what became of the rest, and what entered by rule: "seed 3 diverged at step 12".
        binary: whether every value is 0 or 1, so that their mean is a share.
    """

    name: str
    seeds: tuple[int, ...]
    values: np.ndarray
    censored: np.ndarray
    planned: int
    troubles: tuple[str, ...] = ()
    binary: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def complete(self) -> bool:
        """Whether every planned run has been made to its end."""
        return len(self) == self.planned

    def only(self, seeds: Iterable[int]) -> np.ndarray:
        """The values of some seeds, in their order."""
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
            troubles.append(f"seed {seed} {error}")
            continue
        if value is not None:
            seeds.append(seed)
            values.append(value)
    return Sample(
        name,
        tuple(seeds),
        np.array([value.number for value in values], float),
        np.array([value.censored for value in values], bool),
        len(by_seed),
        tuple(troubles),
        binary=measure.name == "diverged",
    )


def _value(records: list[Record], measure: Measure) -> Value | None:
    if not all(record.finished for record in records):
        return None
    if measure.axis is not None:
        return measure.over(records)
    (record,) = records
    return measure.of(record)


def trouble(record: Record) -> str:
    """What a run has to be told of besides its values, if anything."""
    seed, state = f"seed {record.seed}", record.state
    if state == "diverged":
        return f"{seed} diverged at step {record.status['diverged']['step']}"
    if state == "failed":
        return f"{seed} failed ({record.status.get('error', 'see its error.txt')})"
    words = {"new": "is missing (not begun, or deleted)", "running": "is still running",
             "interrupted": "was interrupted"}  # fmt: skip
    return f"{seed} {words[state]}" if state in words else ""
