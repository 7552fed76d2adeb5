"""A run's randomness: named streams of keys, so that a new one leaves the others as they were."""

from typing import Literal

import jax

from normlab.core import Array

STREAMS = {"init": 0, "order": 1, "augment": 2, "dropout": 3}


def stream_key(seed: Array | int, stream: Literal["init", "order", "augment", "dropout"]) -> Array:
    """The key of one named stream of a run's randomness."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])
