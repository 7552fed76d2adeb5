"""Clipping and weight decay come before any optimiser, and the mask follows roles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.models.resnet import Resnet
from normlab.norms import BatchNorm, RMSNorm
from normlab.training.optimizer import RoleMask, clipped, decayed

ROLES = ("weight", "bias", "norm")
SUBSETS = [(), ("weight",), ("bias",), ("norm",), ("weight", "bias"), ROLES]


@pytest.fixture(scope="module")
def params():
    """Make kernels, convolution biases, norm scales and the head's bias, none of them zero."""
    model = Resnet(norm=RMSNorm(), classes=3, depth=8, width=4)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]
    )
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 2.0, leaf.dtype), shapes)


def touched(updates):
    """Return the roles of the parameters that an update changes, and of those that it does not."""
    moved, still = set(), set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        names = [part.key for part in path]
        role = "norm" if "norm" in names else {"kernel": "weight", "bias": "bias"}[names[-1]]
        assert len(np.unique(leaf)) == 1
        (moved if np.any(leaf != 0) else still).add(role)
    return moved, still


def update(optimizer, grads, params):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        return optimizer.update(grads, optimizer.init(params), params)[0]


@pytest.mark.parametrize("roles", SUBSETS, ids=str)
def test_decay_touches_the_roles_asked_for_and_no_other(params, roles):
    optimizer = decayed(optax.sgd(1.0), 0.25, roles)
    updates = update(optimizer, jax.tree.map(jnp.zeros_like, params), params)
    moved, still = touched(updates)
    assert (moved, still) == (set(roles), set(ROLES) - set(roles))
    assert {float(leaf.min()) for leaf in jax.tree.leaves(updates)} <= {-0.5, 0.0}


@pytest.mark.parametrize("roles", SUBSETS, ids=str)
def test_the_mask_serves_an_optimisers_own_decay(params, roles):
    optimizer = optax.adamw(1.0, weight_decay=0.25, mask=RoleMask(roles))
    moved, still = touched(update(optimizer, jax.tree.map(jnp.zeros_like, params), params))
    assert (moved, still) == (set(roles), set(ROLES) - set(roles))


def test_decay_is_added_to_the_gradient_before_the_optimiser():
    """It is L2 as in torch's SGD, so momentum accumulates it. Two steps are computed by hand."""
    optimizer = decayed(optax.sgd(0.1, momentum=0.5), 0.01, ("weight",))
    params = {"kernel": jnp.array(10.0)}
    state = optimizer.init(params)
    updates, state = optimizer.update({"kernel": jnp.array(1.0)}, state, params)
    assert updates["kernel"] == pytest.approx(-0.1 * (1 + 0.1))
    updates, state = optimizer.update({"kernel": jnp.array(1.0)}, state, params)
    assert updates["kernel"] == pytest.approx(-0.1 * (0.5 * 1.1 + 1.1))


def test_nothing_asked_for_leaves_the_optimiser_as_it_is():
    optimizer = optax.sgd(0.1)
    assert clipped(optimizer, None) is optimizer
    assert decayed(optimizer, 0, ("weight",)) is optimizer


@pytest.mark.parametrize("clip", [0.5, 5.0, 1e3])
def test_clip_is_optax_clip_by_global_norm(clip):
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}  # norm 5
    found = update(clipped(optax.sgd(1.0), clip), grads, grads)
    expected, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, -e, rtol=1e-6), found, expected)
    assert np.hypot(found["a"][0], found["b"]) == pytest.approx(min(clip, 5.0))


def test_the_mask_has_the_structure_of_the_parameters_and_both_values():
    model = Resnet(norm=BatchNorm(), classes=3, depth=8, width=4)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]
    )
    mask = RoleMask(("weight",))(shapes)
    assert jax.tree.structure(mask) == jax.tree.structure(shapes)
    assert sum(jax.tree.leaves(mask)) == 8  # seven convolutions and the head
