"""What is computed by a call of this process only, and by JAX where that cannot serve."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.ops.either import either

X = jnp.array([0.5, -2.0, 3.0])


def marked(x, factor):
    """The two functions differ here, so that the result tells which of them was asked."""
    return either(lambda x, k: {"y": 100 * k * x**3}, lambda x, k: {"y": k * x**3}, x, factor)["y"]


@pytest.mark.parametrize("of", [lambda f: f, jax.jit])
def test_compiled_by_itself(of):
    np.testing.assert_allclose(of(marked)(X, 2.0), 200 * X**3)


@pytest.mark.parametrize("of", [lambda f: f, jax.jit])
def test_plain_in_what_is_derived_or_batched(of):
    np.testing.assert_allclose(of(jax.vmap(marked, (0, None)))(X, 2.0), 2 * X**3)
    np.testing.assert_allclose(of(jax.jacfwd(marked))(X, 2.0), jnp.diag(6 * X**2))
    np.testing.assert_allclose(of(jax.jacrev(marked, 1))(X, 2.0), X**3)
    np.testing.assert_allclose(of(jax.hessian(lambda x: marked(x, 1.0).sum()))(X), jnp.diag(6 * X))


def test_plain_in_an_exported_program():
    exported = jax.export.export(jax.jit(marked))(X, jnp.float32(2.0))
    np.testing.assert_allclose(exported.call(X, jnp.float32(2.0)), 2 * X**3)
