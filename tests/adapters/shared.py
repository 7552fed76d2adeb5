"""Networks and values that the tests of the layers share."""

from functools import partial

import jax
import jax.numpy as jnp

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


@partial(jax.jit, static_argnums=0)
def by_the_normaliser(norm, params, state, x):
    """A training step's output and state, and the output of an evaluation after it."""
    y, after = norm.apply(params, state, x, train=True)
    return y, after, norm.apply(params, after, x, train=False)[0]
