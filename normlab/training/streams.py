"""Named streams of random keys, so that a new stream does not change the others."""

from typing import Literal

import jax

from normlab.core import Array

STREAMS = {"init": 0, "order": 1, "augment": 2, "dropout": 3}


def stream_key(seed: Array | int, stream: Literal["init", "order", "augment", "dropout"]) -> Array:
    """Return the key of a named stream of a run's randomness."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])
