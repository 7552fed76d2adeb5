"""Measures the evaluations by policies: `evaluated(test_accuracy, tent, sorted, 64)`."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from normlab.errors import UserError
from normlab.measures.value import NoValueError, Value, guess
from normlab.store.record import Record

EVALUATE = "evaluate"
"""The name that the rows of evaluations have among those of probes."""

AFTER = "_after_"
"""The word between a probe and the evaluation after which it looks: `hessian_after_tent`."""

_QUANTITY = re.compile(r"(\w+)\((.*)\)")


class Judged(NamedTuple):
    """An evaluation that a run has or will have.

    Attributes:
        words: the policy's label, the stream and the batch size.
        parts: the corruptions in turn, or "clean".
    """

    words: tuple[str, ...]
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.words)


def quantity(metric: str, words: Sequence[str]) -> str:
    """Write the quantity of a row: a metric, and the words of the evaluation.

    >>> quantity("test_accuracy", ("tent", "sorted", "64"))
    'test_accuracy(tent, sorted, 64)'
    """
    return f"{metric}({', '.join(words)})"


def chosen(judged: Sequence[Judged], words: Sequence[str]) -> tuple[Judged, str | None]:
    """Return the one evaluation that words pick, and the corruption if one of them names it.

    Raises:
        NoValueError: they pick none or several; the message says which there are.
    """
    found = [
        one for one in judged if one.words[0] == words[0] and _fits(words[1:], one.words[1:], one)
    ]
    listed = "; ".join(dict.fromkeys(map(str, judged)))
    if not judged:
        raise NoValueError("is not evaluated by policies: give the section 'evaluate'")
    if not found:
        raise NoValueError(f"has no evaluation '{', '.join(words)}'; it has {listed}")
    if len(found) > 1:
        several = " or ".join(map(str, found))
        raise NoValueError(f"has several evaluations '{', '.join(words)}': write {several}")
    (one,) = found
    parts = [word for word in words[1:] if word not in one.words]
    return one, parts[0] if parts else None


def _fits(words: Sequence[str], own: Sequence[str], one: Judged) -> bool:
    others = [word for word in words if word not in own]
    return len(others) <= 1 and all(word in one.parts for word in others)


def evaluated(record: Record, metric: str, *words: str) -> Value:
    """The metric of the trained network under a policy; a stream, a batch size, a corruption."""
    if record.state == "diverged":
        return Value(guess(record, metric))
    return Value(value_of(record, metric, words))


def gained(record: Record, metric: str, policy: str, other: str, *words: str) -> Value | None:
    """The metric under the first policy minus that under the second; a diverged run has none."""
    if record.state == "diverged":
        return None
    one, two = (value_of(record, metric, (label, *words)) for label in (policy, other))
    return Value(one - two)


def value_of(record: Record, metric: str, words: Sequence[str]) -> float:
    """Return a metric of one evaluation of a run: the mean over corruptions, or that of one.

    Raises:
        NoValueError: the run has no such evaluation.
    """
    rows = {row["quantity"]: row for row in record.probes if _is_of(row)}
    judged = {}
    for name, row in rows.items():
        found = _QUANTITY.fullmatch(name)
        if found is not None and found[1] == metric:
            parts = tuple(row["layers"] or ("clean",))
            judged[Judged(tuple(found[2].split(", ")), parts)] = row
    if rows and not judged:
        raise NoValueError(f"has no '{metric}' of its evaluations; add it to train.metrics")
    one, part = chosen(list(judged), words)
    values = np.atleast_1d(np.array(judged[one]["values"], float))
    found = values.mean() if part is None else values[one.parts.index(part)]
    if not np.isfinite(found):
        raise NoValueError(f"has a '{metric}' of '{one}' that is not finite")
    return float(found)


def _is_of(row: dict[str, Any]) -> bool:
    return row["probe"] == EVALUATE and "values" in row


def as_policy(word: str) -> str:
    """Read the label of a policy.

    Raises:
        UserError: the word cannot be one.
    """
    if not word.isidentifier():
        raise UserError(f"'{word}' must be a policy, as in evaluated(test_accuracy, tent)")
    return word
