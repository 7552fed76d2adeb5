"""Recomputation keeps a function's results and gradients, whatever its trees and constants are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms import PowerNorm
from normlab.training.recompute import in_segments


def function(tree, x, key):
    kept = jnp.arange(3.0)[None]  # a constant of the trace
    y = jnp.tanh(x @ tree["w"]) + kept
    y = jnp.where(jax.random.bernoulli(key, 0.5, y.shape), jnp.sin(y), 0)
    return (y**2).sum(), {"whole": y, "given": x, "three": 3}


@pytest.mark.parametrize("count", [1, 2, 50])
def test_results_and_gradients_stay(count):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    given = {"w": x.T @ x}, x, jax.random.key(0)
    pair = (jax.value_and_grad(f, has_aux=True) for f in (function, in_segments(function, count)))
    wanted, found = (jax.jit(f)(*given) for f in pair)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


def test_what_the_backward_pass_moves_is_moved_once():
    norm = PowerNorm()
    params, state = norm.init(4)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 4)), jnp.float32)

    def loss(params, state):
        y, moved = norm.apply(params, state, x, train=True)
        return (y**3).sum(), moved

    pair = (jax.grad(f, (0, 1), has_aux=True) for f in (loss, in_segments(loss, 3)))
    wanted, found = (f(params, state) for f in pair)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
