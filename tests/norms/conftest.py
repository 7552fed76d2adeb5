import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import NORMS

NAMES = list(NORMS.entries())


def make(name):
    return NORMS.load(name)()


def removes_the_mean(norm):
    return any("shift" in change for change in norm.facts.invariant_to)


def sample(shape, mean=0.0, std=1.0, seed=0, dtype=np.float32):
    return (mean + std * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def with_values(params, seed=1):
    """Parameters that are neither one nor zero, so that a swapped pair shows."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype) for k, v in params.items()}


@pytest.fixture(params=NAMES)
def norm(request):
    return make(request.param)
