"""Writes and reads a trained network's answers for the test examples, in a run's folder."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normlab.store.files import DamagedError, read_json
from normlab.store.layout import OUTCOMES
from normlab.store.shapes import COUNT, NUMBER, TEXT, WHOLE
from normlab.store.writing import write_atomically

NOTHING = -1
"""The predicted class where the network's output is not a number."""

SHAPE = {"classes": [TEXT], "labels": [COUNT], "predicted": [WHOLE], "probability": [NUMBER],
         "names?": [TEXT]}  # fmt: skip
DIGITS = 5


@dataclass(frozen=True, eq=False)
class Outcomes:
    """A trained network's answers for the test set, in the order of its examples.

    Attributes:
        classes: the names of the classes.
        labels: `(N,)` int32, the true classes.
        predicted: `(N,)` int32, the predicted ones; -1 where the output was not a number.
        probability: `(N,)` float32, the probability that the network gives the true class.
        names: the files of the examples; empty where they have none.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        right = float((self.labels == self.predicted).mean())
        return f"<Outcomes of {len(self.labels)} test examples: accuracy {right:.3f}>"


def write_outcomes(run: Path, outcomes: Outcomes) -> None:
    """Write a network's answers into its run's folder; no hash or digest depends on them."""
    table = {
        "classes": list(outcomes.classes),
        "labels": outcomes.labels.tolist(),
        "predicted": outcomes.predicted.tolist(),
        "probability": [round(float(p), DIGITS) for p in outcomes.probability],
    }
    if outcomes.names:
        table["names"] = list(outcomes.names)
    write_atomically(run / OUTCOMES, json.dumps(table) + "\n")


def read_outcomes(run: Path) -> Outcomes | None:
    """Read the answers in a run's folder; None if there are none, as of an earlier normlab.

    Raises:
        DamagedError: the file is not as it was written.
    """
    mend = f"delete {run / OUTCOMES}; `run.outcomes()` in Python makes it anew"
    found = read_json(run / OUTCOMES, SHAPE, mend)
    if found is None:
        return None
    labels, predicted = (np.array(found[key], np.int32) for key in ("labels", "predicted"))
    outcomes = Outcomes(
        tuple(found["classes"]),
        labels,
        predicted,
        np.array(found["probability"], np.float32),
        tuple(found.get("names", ())),
    )
    lengths = {len(labels), len(predicted), len(outcomes.probability)}
    lengths |= {len(outcomes.names)} if "names" in found else set()
    every = np.concatenate([labels, predicted])
    if len(lengths) != 1 or not len(labels) or every.max() >= len(outcomes.classes):
        raise DamagedError(run / OUTCOMES, "its lists do not fit each other", mend)
    return outcomes


def packed(right: np.ndarray) -> str:
    """Write which test examples a network answers rightly as text, a bit for each.

    >>> packed(np.array([True, False, True])), unpacked(packed(np.array([True, False, True])), 3)
    ('oA==', array([ True, False,  True]))
    """
    return base64.b64encode(np.packbits(np.asarray(right, bool)).tobytes()).decode()


def unpacked(text: str, count: int) -> np.ndarray | None:
    """Read what `packed` wrote of so many examples; None if it is of another number, or broken."""
    try:
        bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except ValueError:
        return None
    whole = len(bits) == -(-count // 8)
    return np.unpackbits(bits, count=count).astype(bool) if whole else None
