"""Keeps the state of an optimiser in arrays that a checkpoint can hold, its random keys too."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from normlab.core import Array


class RunKey(NamedTuple):
    """Holds the numbers of a random key that the seed of the run sets."""

    data: Array


def storable(
    optimizer: optax.GradientTransformation, by_run: bool = False
) -> optax.GradientTransformation:
    """Keep random keys as their numbers, and empty arrays as one zero each.

    A checkpoint holds neither keys nor empty arrays. `noisy_sgd` has the former in its state, and
    `galore` the latter. The updates do not change.

    Args:
        optimizer: any optax transformation.
        by_run: whether `with_run_keys` may replace the keys.

    >>> noisy = storable(optax.noisy_sgd(0.1, key=0))
    >>> state = noisy.init(jnp.ones(2))
    >>> [str(leaf.dtype) for leaf in jax.tree.leaves(state)]
    ['int32', 'uint32']
    """

    def packed(leaf: Any) -> Any:
        if _is_key(leaf):
            data = jax.random.key_data(leaf)
            return RunKey(data) if by_run else data
        return jnp.zeros(1, leaf.dtype) if leaf.size == 0 else leaf

    def init(params: Any) -> Any:
        return jax.tree.map(packed, optimizer.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        own = jax.eval_shape(optimizer.init, updates if params is None else params)
        inner = jax.tree.map(_unpacked, state, own, is_leaf=_is_run_key)
        updates, moved = optimizer.update(updates, inner, params)
        return updates, jax.tree.map(packed, moved)

    return optax.GradientTransformation(init, update)


def with_run_keys(opt_state: Any, key: Array) -> Any:
    """Replace the keys that `storable` keeps by the run, each by one of its own.

    >>> state = storable(optax.noisy_sgd(0.1, key=0), by_run=True).init(jnp.ones(2))
    >>> one, other = (with_run_keys(state, jax.random.key(seed)) for seed in (1, 2))
    >>> [bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, (one, other)))]
    [True, False]
    """
    leaves, tree = jax.tree.flatten(opt_state, is_leaf=_is_run_key)
    for index, leaf in enumerate(leaves):
        if _is_run_key(leaf):
            leaves[index] = RunKey(jax.random.key_data(jax.random.fold_in(key, index)))
    return jax.tree.unflatten(tree, leaves)


def _is_run_key(node: Any) -> bool:
    return isinstance(node, RunKey)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _unpacked(leaf: Any, own: Any) -> Any:
    if _is_key(own):
        return jax.random.wrap_key_data(leaf.data if _is_run_key(leaf) else leaf)
    return jnp.zeros(own.shape, own.dtype) if own.size == 0 else leaf
