import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import KERNELS

NAMES = list(KERNELS.entries())
SHAPES = [(4, 5), (2, 2, 3, 5)]


def make(name, **fields):
    """The entry called `name`."""
    return KERNELS.load(name)(**fields)


def sample(shape, mean=0.3, std=1.0, seed=0, dtype=np.float32):
    return (mean + std * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def started(transform, kernel, seed=1):
    """Params and state for a kernel, the gains neither one nor what they start as."""
    params, state = transform.init(jax.random.key(seed), jnp.asarray(kernel))
    rng = np.random.default_rng(seed)
    gains = {k: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype) for k, v in params.items()}
    return gains, state


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def transform(name):
    return make(name)


@pytest.fixture(params=SHAPES, ids=str)
def kernel(request):
    return jnp.asarray(sample(request.param))
