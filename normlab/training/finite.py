"""Checks at little cost that all numbers of a step are finite."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array


def all_finite(tree: Any) -> Array:
    """Return whether every number in a tree is finite.

    Each number is checked, because the norm of large finite gradients would overflow.

    >>> bool(all_finite({"w": jnp.array([1e38, 1e38])})), bool(all_finite([jnp.array(jnp.nan)]))
    (True, False)
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def computed_once(flag: Array) -> Array:
    """Return the same flag, but computed only once when every leaf of a large tree uses it.

    XLA for CPUs fuses the computation of a flag, which reads every leaf, into its use with each
    leaf. The step of a network of 56 layers then has 265,000 instructions instead of 39,000, and
    compiles much more slowly. XLA fuses nothing into a condition.

    >>> bool(computed_once(jnp.array(True)))
    True
    """
    if jax.default_backend() != "cpu":
        return flag
    return lax.cond(flag, lambda: jnp.ones((), bool), lambda: jnp.zeros((), bool))
