"""Whether a step has stayed in the finite numbers, at little cost."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array


def all_finite(tree: Any) -> Array:
    """Whether every number in a tree is finite.

    Number by number: the norm of large but finite gradients would overflow.

    >>> bool(all_finite({"w": jnp.array([1e38, 1e38])})), bool(all_finite([jnp.array(jnp.nan)]))
    (True, False)
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def computed_once(flag: Array) -> Array:
    """The same flag, to be used with every leaf of a large tree.

    XLA for CPUs fuses what a flag is made of, a number from each leaf, into what is done with each
    leaf: for the step of a network of 56 layers 265,000 instructions, which take two minutes to
    compile, in the place of 39,000. It fuses nothing into a condition.

    >>> bool(computed_once(jnp.array(True)))
    True
    """
    if jax.default_backend() != "cpu":
        return flag
    return lax.cond(flag, lambda: jnp.ones((), bool), lambda: jnp.zeros((), bool))
