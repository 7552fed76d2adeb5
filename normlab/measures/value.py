"""Defines the value of a measure, and the error for a run that has none."""

import math
from typing import NamedTuple

from normlab.errors import UserError
from normlab.store.record import Record


class Value(NamedTuple):
    """The value of a measure; if it is `censored`, it is only known to exceed the number."""

    number: float
    censored: bool = False


class NoValueError(UserError):
    """A finished run has no value of a measure; the message continues "seed 3" and says why."""


def guess(record: Record, metric: str) -> float:
    """Return the metric of a network that guesses, because a diverged one knows no more."""
    classes = record.data["classes"]
    if metric.endswith("auc"):
        return 0.5
    return 1 / classes if metric.endswith("accuracy") else math.log(classes)
