"""Clipping, weight decay and the learning rate of scalars apply to the right parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.catalogue import MODELS
from normlab.errors import FieldError, UserError
from normlab.models.resnet import Resnet
from normlab.norms import BatchNorm, Identity, RMSNorm
from normlab.training.heads import outside_head
from normlab.training.optimizer import RoleMask, clipped, decayed, with_recipe
from normlab.training.recipe import Recipe

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


def recipe_update(recipe, params, grads, optimizer=None):
    made = with_recipe(optimizer or optax.sgd(1.0), recipe)
    with jax.numpy_dtype_promotion("standard"):  # Adam mixes dtypes
        updates, _ = made.update(grads, made.init(params), params)
    return updates


PARAMS = {
    "Conv_0": {"kernel": jnp.ones((1, 1, 4, 2)), "bias": jnp.array([3.0, 4.0])},
    "Multiplier_0": {"norm": {"scale": jnp.array(0.0)}},
    "Dense_0": {"kernel": jnp.ones((2, 2))},
}
GRADS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 10.0), PARAMS)


def test_adaptive_clip_holds_each_unit_to_its_share_of_the_weights_and_not_the_head():
    """Units have length 2, a bias has length 5, and a scalar of length 0 counts as 1e-3."""
    found = recipe_update(Recipe(adaptive_clip=0.01), PARAMS, GRADS)
    kernel, bias = found["Conv_0"]["kernel"], found["Conv_0"]["bias"]
    np.testing.assert_allclose(jnp.linalg.norm(kernel[0, 0], axis=0), [0.02, 0.02], rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(bias), 0.05, rtol=1e-5)
    np.testing.assert_allclose(found["Multiplier_0"]["norm"]["scale"], -1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found["Dense_0"]["kernel"], -10.0)


def test_adaptive_clip_leaves_a_small_gradient_alone():
    small = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-6), PARAMS)
    found = recipe_update(Recipe(adaptive_clip=0.01), PARAMS, small)
    jax.tree.map(lambda f: np.testing.assert_allclose(f, -1e-6, rtol=1e-6), found)


def test_the_global_clip_sees_what_the_adaptive_one_left():
    grads = {**GRADS, "Dense_0": {"kernel": jnp.zeros((2, 2))}}
    found = recipe_update(Recipe(adaptive_clip=0.01, clip=1.0), PARAMS, grads)
    np.testing.assert_allclose(jnp.linalg.norm(found["Conv_0"]["bias"]), 0.05, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.5, momentum=0.9), optax.adam(0.1)])
def test_scalar_rate_is_a_learning_rate_of_single_numbers_whatever_the_optimiser(optimizer):
    plain = recipe_update(Recipe(), PARAMS, GRADS, optimizer)
    found = recipe_update(Recipe(scalar_rate=0.1), PARAMS, GRADS, optimizer)
    for name, one in found.items():
        factor = 0.1 if name == "Multiplier_0" else 1.0
        jax.tree.map(
            lambda f, p, by=factor: np.testing.assert_allclose(f, by * p, rtol=1e-6),
            one,
            plain[name],
        )


@pytest.mark.parametrize("model", MODELS.entries())
def test_the_head_of_every_model_is_found_and_nothing_else(model):
    made = MODELS.load(model)(norm=Identity(), classes=7)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(lambda x: made.init(jax.random.key(0), x, train=False), x)["params"]
    clipped = jax.tree_util.tree_leaves_with_path(outside_head(params))
    head = {jax.tree_util.keystr(path, simple=True) for path, inside in clipped if not inside}
    of_classes = {
        jax.tree_util.keystr(path, simple=True)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.shape[-1:] == (7,)
    }
    assert head == of_classes
    assert len(head) == (1 if model == "speednet" else 2)  # whose head has no bias


@pytest.mark.parametrize("model", MODELS.entries())
def test_no_model_has_a_kernel_with_three_axes_which_optax_would_clip_by_the_wrong_unit(model):
    made = MODELS.load(model)(norm=Identity(), classes=7)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(lambda x: made.init(jax.random.key(0), x, train=False), x)["params"]
    assert {leaf.ndim for leaf in jax.tree.leaves(params)} <= {0, 1, 2, 4}


def test_a_model_whose_head_cannot_be_told_says_so():
    with pytest.raises(UserError, match="leaves out the head"):
        outside_head({"Conv_0": {"kernel": jnp.ones((1, 1, 2, 2))}})


@pytest.mark.parametrize("field", ["adaptive_clip", "scalar_rate"])
def test_a_value_that_cannot_work_is_named(field):
    with pytest.raises(FieldError, match=field):
        Recipe(**{field: 0.0})
