"""Networks, values and comparisons that the tests of the adapters share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from normlab.adapters.flax_names import FLAX_NAMES
from tests.norms.conftest import NAMES, make, sample

SHAPE = (4, 3, 2, 8)
BACKWARD = [name for name in NAMES if make(name).facts.backward_state]
SUBJECTS = ["group_norm", "batch_norm", "mode_norm", *BACKWARD]
"""Those whose gradients are worth their time: of every kind of state one."""


def images(seed=0):
    return jnp.asarray(sample(SHAPE, 1, 2, seed=seed))


def renamed(state):
    return {FLAX_NAMES.get(name, name): leaf for name, leaf in state.items()}


def assert_same_arrays(found, expected):
    """Require the same names in the same order, and the same values to the bit."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(values), err_msg=name)


def assert_computes(found, expected):
    """Require the same output, up to rounding relative to the largest value."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=1e-6)


@partial(jax.jit, static_argnums=0)
def by_the_normaliser(norm, params, state, x):
    """A training step's output and state, and the output of an evaluation after it."""
    y, after = norm.apply(params, state, x, train=True)
    return y, after, norm.apply(params, after, x, train=False)[0]
