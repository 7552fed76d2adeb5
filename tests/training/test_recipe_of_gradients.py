"""Adaptive clipping and the learning rate of scalars apply to the right parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.catalogue import MODELS
from normlab.errors import FieldError, UserError
from normlab.norms import Identity
from normlab.training.optimizer import outside_head, with_recipe
from normlab.training.recipe import Recipe


def update(recipe, params, grads, optimizer=None):
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
    found = update(Recipe(adaptive_clip=0.01), PARAMS, GRADS)
    kernel, bias = found["Conv_0"]["kernel"], found["Conv_0"]["bias"]
    np.testing.assert_allclose(jnp.linalg.norm(kernel[0, 0], axis=0), [0.02, 0.02], rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(bias), 0.05, rtol=1e-5)
    np.testing.assert_allclose(found["Multiplier_0"]["norm"]["scale"], -1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found["Dense_0"]["kernel"], -10.0)


def test_adaptive_clip_leaves_a_small_gradient_alone():
    small = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-6), PARAMS)
    found = update(Recipe(adaptive_clip=0.01), PARAMS, small)
    jax.tree.map(lambda f: np.testing.assert_allclose(f, -1e-6, rtol=1e-6), found)


def test_the_global_clip_sees_what_the_adaptive_one_left():
    grads = {**GRADS, "Dense_0": {"kernel": jnp.zeros((2, 2))}}
    found = update(Recipe(adaptive_clip=0.01, clip=1.0), PARAMS, grads)
    np.testing.assert_allclose(jnp.linalg.norm(found["Conv_0"]["bias"]), 0.05, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.5, momentum=0.9), optax.adam(0.1)])
def test_scalar_rate_is_a_learning_rate_of_single_numbers_whatever_the_optimiser(optimizer):
    plain = update(Recipe(), PARAMS, GRADS, optimizer)
    found = update(Recipe(scalar_rate=0.1), PARAMS, GRADS, optimizer)
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
