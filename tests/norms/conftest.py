import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import NORMS

NAMES = list(NORMS.entries())


FIELDS = {
    "batch_renorm": {"warm_up": 0, "r_rise": 0, "d_rise": 0},  # else it is batch norm at first
    "decorrelated_batch_norm": {"group_size": 4},  # fewer channels than a small test has values
    "iterative_norm": {"group_size": 4},
    "divisive_norm": {"window": 3},
    "kernel_norm": {"window": 2},  # which divides no side of an image that is odd
    "partial_rms_norm": {"fraction": 0.3},  # more than one of a few channels
    "progressive_batch_norm": {"start": 0.5},  # else it is layer norm at first
    "seed_norm": {"heads": 2},
}


def make(name, **fields):
    """The entry called `name`, with the fields above and those of `fields` that it has."""
    norm = NORMS.load(name)(**FIELDS.get(name, {}))
    own = {field.name for field in dataclasses.fields(norm)}
    return dataclasses.replace(norm, **{k: v for k, v in fields.items() if k in own})


def removes_the_mean(name):
    return any("shift" in change for change in make(name).facts.invariant_to)


CENTRING = [
    name for name in NAMES if removes_the_mean(name) and not make(name).facts.fuses_activation
]
UNIT = [
    name
    for name in CENTRING
    if any("scale" in change for change in make(name).facts.invariant_to)
    and name != "l1_batch_norm"  # which divides by another distance
    and not name.startswith("normality")  # whose transform comes after
]
"""Those whose output has a variance of one too."""


def sample(shape, mean=0.0, std=1.0, seed=0, dtype=np.float32):
    return (mean + std * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def with_values(params, seed=1):
    """Parameters that are neither one nor zero, so that a swapped pair shows."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype) for k, v in params.items()}


def assert_trees_close(found, wanted, rtol, atol=0.0, err_msg=""):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, err_msg=err_msg)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def norm(name):
    return make(name)
