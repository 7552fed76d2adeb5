"""Sums up a network's answers: accuracy by class with intervals, mistakes, the hardest examples."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from normlab.evidence.intervals import Interval, proportion_interval
from normlab.store.outcomes import Outcomes


class ClassAccuracy(NamedTuple):
    """The number of test examples of one class that a network names rightly.

    `interval` is Wilson's 95% interval of the share: over test examples, for this one network.
    """

    name: str
    right: int
    count: int
    interval: Interval

    @property
    def share(self) -> float:
        """The accuracy in this class; NaN if it has no test example."""
        return self.right / self.count if self.count else float("nan")


class Mistake(NamedTuple):
    """The number of examples of one class that are taken for another."""

    true: str
    taken_for: str
    count: int
    of: int


class HardExample(NamedTuple):
    """A test example, its class, the runs' most frequent answer, and their certainty of its class.

    `index` is its place in the test set; `wrong` of the `runs` name it wrongly. `name` is its file,
    or empty if it has none.
    """

    index: int
    true: str
    taken_for: str
    probability: float
    wrong: int
    runs: int
    name: str = ""


def confusion(outcomes: Outcomes) -> np.ndarray:
    """Count examples by true class (row) and predicted class (column), `(K, K)` int.

    An answer that is not a number is in no column.
    """
    size, known = len(outcomes.classes), outcomes.predicted >= 0
    flat = outcomes.labels[known] * size + outcomes.predicted[known]
    return np.bincount(flat, minlength=size * size).reshape(size, size)


def class_accuracies(outcomes: Outcomes) -> list[ClassAccuracy]:
    """Return the accuracy in each class, in the order of the classes."""
    found = []
    for number, name in enumerate(outcomes.classes):
        own = outcomes.labels == number
        right, count = int((outcomes.predicted[own] == number).sum()), int(own.sum())
        interval = proportion_interval(right, count) if count else Interval(0.0, 1.0)
        found.append(ClassAccuracy(name, right, count, interval))
    return found


def mistakes(outcomes: Outcomes, most: int = 10) -> list[Mistake]:
    """Return the most frequent mistakes, the most frequent first."""
    table, names = confusion(outcomes), outcomes.classes
    pairs = [(int(table[i, j]), i, j) for i, j in np.ndindex(*table.shape) if i != j]
    chosen = sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])[:most]
    counts = Counter(outcomes.labels.tolist())
    return [Mistake(names[i], names[j], count, counts[i]) for count, i, j in chosen]


def hardest(runs: Sequence[Outcomes], most: int = 10) -> list[HardExample]:
    """Return the test examples to whose class the runs give the least probability on average.

    Args:
        runs: runs with one test set.
        most: the greatest number of examples.
    """
    first = runs[0]
    probability = np.mean([one.probability for one in runs], axis=0)
    wrong = np.sum([one.predicted != one.labels for one in runs], axis=0)
    found = []
    for index in np.argsort(probability, kind="stable")[:most]:
        ((answer, _),) = Counter(int(one.predicted[index]) for one in runs).most_common(1)
        found.append(
            HardExample(
                int(index),
                first.classes[first.labels[index]],
                first.classes[answer] if answer >= 0 else "not a number",
                float(probability[index]),
                int(wrong[index]),
                len(runs),
                first.names[index] if first.names else "",
            )
        )
    return found
