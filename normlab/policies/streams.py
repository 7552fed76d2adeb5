"""Orders test examples as a stream: shuffled, sorted by label, changing, or as they are stored.

A network that learns at test time, or that takes statistics from the batch, depends on what comes
together and what comes before. A stream of batch size 1 is any of these with `batch_size: 1`.
"""

from typing import Literal

import jax
import numpy as np

Stream = Literal["iid", "sorted", "changing", "as_stored"]

STREAMS: dict[Stream, str] = {
    "iid": "the test examples in a random order",
    "sorted": "all of the first class, then all of the second, in a random order within a class",
    "changing": "each corruption in turn, in a random order, and nothing begins anew between them",
    "as_stored": "the test examples in the order of the data set",
}
"""The streams, each in words."""


def order(stream: Stream, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the order in which a stream brings the test examples, `(N,)`.

    >>> order("as_stored", np.array([1, 0, 1]), 0).tolist()
    [0, 1, 2]
    >>> np.array([1, 0, 1])[order("sorted", np.array([1, 0, 1]), 0)].tolist()
    [0, 1, 1]
    """
    if stream == "as_stored":
        return np.arange(len(labels))
    found = np.asarray(jax.random.permutation(jax.random.key(seed), len(labels)))
    return found[np.argsort(labels[found], kind="stable")] if stream == "sorted" else found
