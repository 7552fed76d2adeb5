"""Sums that do not fit in their dtype."""

import jax.numpy as jnp

from normlab.core import Array


def unless_overflowed(sums: Array) -> Array:
    """Sums that are to be divided by, with NaN for one that is infinite.

    What is divided by infinity is zero, and nobody would see it.

    >>> unless_overflowed(jnp.array([1.0, jnp.inf])).tolist()
    [1.0, nan]
    """
    return jnp.where(sums < jnp.inf, sums, jnp.nan)
