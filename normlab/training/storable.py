"""Keeps the state of an optimiser in arrays that a checkpoint can hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def storable(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Keep random keys as their numbers, and empty arrays as one zero each.

    A checkpoint holds neither keys nor empty arrays. `noisy_sgd` has the former in its state, and
    `galore` the latter. The updates do not change.

    >>> noisy = storable(optax.noisy_sgd(0.1, key=0))
    >>> state = noisy.init(jnp.ones(2))
    >>> [str(leaf.dtype) for leaf in jax.tree.leaves(state)]
    ['int32', 'uint32']
    """

    def init(params: Any) -> Any:
        return jax.tree.map(_packed, optimizer.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        own = jax.eval_shape(optimizer.init, updates if params is None else params)
        updates, moved = optimizer.update(updates, jax.tree.map(_unpacked, state, own), params)
        return updates, jax.tree.map(_packed, moved)

    return optax.GradientTransformation(init, update)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _packed(leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return jnp.zeros(1, leaf.dtype) if leaf.size == 0 else leaf


def _unpacked(leaf: Any, own: Any) -> Any:
    if _is_key(own):
        return jax.random.wrap_key_data(leaf)
    return jnp.zeros(own.shape, own.dtype) if own.size == 0 else leaf
