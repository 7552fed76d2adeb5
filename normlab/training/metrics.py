"""What an evaluation can tell beyond loss and accuracy, from all logits of a split at once.

Both are for classes of unequal size, where accuracy rewards who always names the larger one; a
guess has a balanced accuracy of 1 / classes and an area of 0.5, whatever the sizes. They are
computed in float64 by the host, as neither is a mean over batches.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

Metric = Literal["auc", "balanced_accuracy"]


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of the share of each that is recognised (Brodersen et al. 2010).

    A class without examples does not count; without any example there is no share: NaN. Of equal
    logits the first is named, and where one is NaN none is.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` whole numbers.

    >>> logits = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    >>> balanced_accuracy(logits, np.array([0, 0, 0, 1]))
    1.0
    >>> balanced_accuracy(logits, np.array([0, 1, 0, 1]))
    0.75
    """
    if not len(labels):
        return float("nan")
    right = (np.argmax(logits, axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def auc(logits: np.ndarray, labels: np.ndarray) -> float:
    """The area under the ROC curve: how often an example of a class is rated above one of another.

    Each class against all others, and the mean over the classes (one versus rest, macro), as in
    MedMNIST's own evaluation; of two classes both have the same. What decides is the log-odds of
    the class, which order the examples as its probability does, but do not round to 1. A tie is
    half a success, so the area is exact (Mann and Whitney 1947). A class without examples does not
    count; with only one class there is no area: NaN, as where a logit is NaN.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` whole numbers.

    >>> logits = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 2.0], [0.0, 3.0]])
    >>> auc(logits, np.array([0, 0, 1, 1]))  # of four pairs, three in order and a tie
    0.875
    """
    classes = np.unique(labels)
    if len(classes) < 2 or np.isnan(logits).any():
        return float("nan")
    odds = _log_odds(np.asarray(logits, np.float64))
    return float(np.mean([_area(odds[:, k], labels == k) for k in classes]))


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """Of each class: its logit less the log of the sum of the exponentials of the others."""
    found = np.empty_like(logits)
    for k in range(logits.shape[1]):
        others = np.delete(logits, k, axis=1)
        largest = others.max(axis=1)
        # Exact for two classes, where the sum is one.
        spread = np.log(np.exp(others - largest[:, None]).sum(axis=1))
        found[:, k] = logits[:, k] - largest - spread
    return found


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of equal scores, their mean
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


METRICS: dict[Metric, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": auc,
    "balanced_accuracy": balanced_accuracy,
}
"""By the name that a recipe's `metrics` gives them."""


def of(asked: Iterable[Metric] | None, batches: Sequence[Any], labels: Any) -> dict[str, float]:
    """The metrics that are asked for, by name.

    Args:
        asked: their names; None for none.
        batches: the logits in order, on any device, `(B, K)` each; padding may follow the last.
        labels: `(N,)`, of all that counts.
    """
    if not asked:
        return {}
    truth = np.asarray(labels)
    logits = np.concatenate([np.asarray(batch) for batch in batches])[: len(truth)]
    return {metric: METRICS[metric](logits, truth) for metric in asked}
