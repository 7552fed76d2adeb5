"""Named streams of random keys, so that a new stream does not change the others."""

from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.store import seeds

Stream = Literal["init", "order", "augment", "dropout", "noise", "optimizer"]
"""What is drawn: initial weights, batches, augmentations, dropout, the noise of private training,
and that of an optimiser."""

NOISE: tuple[Stream, ...] = ("noise", "optimizer")
"""The streams that have no number of their own in a split seed, but that of dropout."""

STREAMS = {stream: place for place, stream in enumerate((*seeds.STREAMS, *NOISE))}


def stream_key(seed: Array | int, stream: Stream) -> Array:
    """Return the key of a named stream of a run's randomness.

    Args:
        seed: a seed, plain or split; in compiled code a number, or `(4,)` numbers, one a stream.
        stream: the stream's name.
    """
    numbered = "dropout" if stream in NOISE else stream
    if isinstance(seed, int):
        seed = seeds.streams_of(seed)[numbered]
    elif seed.ndim:
        seed = seed[seeds.STREAMS.index(numbered)]
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])


@lru_cache(maxsize=3)
def seed_array(seed: int, split: bool = False) -> Array:
    """Return a seed as compiled code takes it: a number, or one for each stream if it is split."""
    # The array is cached, because making it takes as long as a step of a small network.
    if split:
        return jnp.asarray(list(seeds.streams_of(seed).values()), jnp.uint32)
    return jnp.asarray(seed, jnp.uint32)
