"""A packed state has no keys and no empty arrays, and the updates are the optimiser's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from normlab.training.storable import storable

PARAMS = {"kernel": jnp.ones((4, 3)), "conv": jnp.ones((1, 1, 2, 3)), "bias": jnp.ones(3)}
GRADS = jax.tree.map(lambda leaf: leaf.cumsum().reshape(leaf.shape), PARAMS)


@pytest.mark.parametrize(
    "optimizer", [optax.noisy_sgd(0.1, key=0), optax.contrib.galore(0.1, rank=2), optax.adam(0.1)]
)
def test_updates_stay_and_every_array_of_the_state_can_be_kept(optimizer):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        packed = storable(optimizer)
        ours, theirs = packed.init(PARAMS), optimizer.init(PARAMS)
        update = jax.jit(packed.update)
        for _ in range(3):
            found, ours = update(GRADS, ours, PARAMS)
            expected, theirs = optimizer.update(GRADS, theirs, PARAMS)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
            )
        for leaf in jax.tree.leaves(ours):
            assert leaf.size and np.asarray(leaf).dtype.kind in "fiub"
