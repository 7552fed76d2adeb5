"""Metrics beyond loss and accuracy, computed from all logits of a split at once.

Both are for classes of unequal size, where accuracy rewards always predicting the largest class. A
random guess has a balanced accuracy of 1 / classes and an area of 0.5, whatever the sizes. Neither
metric is a mean over batches, so the host computes them, in float64.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

Metric = Literal["auc", "balanced_accuracy"]


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean over classes of the recall of each class (Brodersen et al. 2010).

    A class without examples does not count. Without any example the result is NaN. The first of
    equal logits is the prediction. An example with a NaN logit counts as wrong.

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
    """Compute the area under the ROC curve, the mean over classes (one versus rest, macro).

    It is the probability that an example of a class is ranked above one of another class, as in
    MedMNIST's own evaluation. Two classes have the same area. Examples are ranked by the log-odds
    of the class, which have the order of its probability but do not round to 1. A tie counts as one
    half, so the area is exact (Mann and Whitney 1947). A class without examples does not count. The
    result is NaN if there is only one class or any logit is NaN.

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
    """Compute each class's logit minus the log of the sum of the exponentials of the others."""
    found = np.empty_like(logits)
    for k in range(logits.shape[1]):
        others = np.delete(logits, k, axis=1)
        largest = others.max(axis=1)
        # This is exact for two classes, where the sum is one.
        spread = np.log(np.exp(others - largest[:, None]).sum(axis=1))
        found[:, k] = logits[:, k] - largest - spread
    return found


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share their mean rank
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


METRICS: dict[Metric, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": auc,
    "balanced_accuracy": balanced_accuracy,
}
"""The metrics by their names in a recipe's `metrics`."""


def of(asked: Iterable[Metric] | None, batches: Sequence[Any], labels: Any) -> dict[str, float]:
    """Compute the requested metrics, by name.

    Args:
        asked: the names of the metrics; None for none.
        batches: the logits in order, on any device, `(B, K)` each; padding may follow the last.
        labels: `(N,)`, without padding.
    """
    if not asked:
        return {}
    truth = np.asarray(labels)
    logits = np.concatenate([np.asarray(batch) for batch in batches])[: len(truth)]
    return {metric: METRICS[metric](logits, truth) for metric in asked}
