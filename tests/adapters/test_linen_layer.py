"""Every normaliser as a linen layer: its numbers are the normaliser's own, in any surroundings."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT

from normlab.adapters.linen import Norm
from normlab.errors import MaskError, UserError
from normlab.norms import BatchNorm, ConditionalBatchNorm, GroupNorm, LayerNorm
from tests.adapters.shared import SHAPE, SUBJECTS, by_the_normaliser, images, renamed
from tests.norms.conftest import NAMES, assert_trees_close, make, sample


def flat(variables):
    """Params, and the state from both of its collections."""
    state = variables.get("batch_stats", {}) | variables.get(OVERWRITE_WITH_GRADIENT, {})
    return variables.get("params", {}), state


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_gives_what_the_normaliser_gives_and_its_next_state(name):
    """This holds in training and in evaluation, which needs no state of the backward pass."""
    norm, x = make(name), images()
    backward = norm.facts.backward_state
    layer = Norm(norm)
    variables = layer.init(jax.random.key(0), x, use_running_average=False)
    params, state = norm.init(8)
    assert_trees_close(flat(variables), (params, renamed(state)), rtol=1e-6)  # nothing moved

    @jax.jit
    def ours(variables, x):
        y, moved = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        held = {**{k: variables[k] for k in variables if k == "params"}, **moved}
        return y, moved.get("batch_stats", {}), layer.apply(held, x, use_running_average=True)

    y, moved, evaluated = ours(variables, x)
    wanted, after, wanted_in_evaluation = by_the_normaliser(norm, params, state, x)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)
    assert_trees_close(
        moved, renamed({k: v for k, v in after.items() if k not in backward}), 1e-6, 1e-6
    )
    np.testing.assert_allclose(evaluated, wanted_in_evaluation, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SUBJECTS)
def test_gradients_and_masks_go_through_a_layer(name):
    norm, x = make(name), images()
    mask = jnp.asarray(sample((4, 3, 2, 1), seed=3) > -0.5)
    layer = Norm(norm, use_running_average=False)
    params, state = norm.init(8)
    variables = layer.init(jax.random.key(0), x)

    def ours(variables, x):
        return (layer.apply(variables, x, mask=mask, mutable=["batch_stats"])[0] ** 3).sum()

    def theirs(both, x):
        return (norm.apply(*both, x, train=True, mask=mask)[0] ** 3).sum()

    found = jax.jit(jax.grad(ours, argnums=(0, 1)))(variables, x)
    wanted = jax.jit(jax.grad(theirs, argnums=(0, 1)))((params, state), x)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5, atol=1e-5)
    of_params, of_state = flat(found[0])
    assert_trees_close(of_params, wanted[0][0], 1e-5, 1e-5)
    for leaf in norm.facts.backward_state:  # the gradient is the next value
        np.testing.assert_allclose(of_state[leaf], wanted[0][1][leaf], rtol=1e-5, atol=1e-5)


def test_checkpoints_of_flaxs_batch_norm_go_both_ways():
    theirs, ours = nn.BatchNorm(momentum=0.5), Norm(BatchNorm(momentum=0.5))
    x = images()
    for first, second in ((theirs, ours), (ours, theirs)):
        held = first.init(jax.random.key(0), x, use_running_average=False)
        _, moved = first.apply(held, x, use_running_average=False, mutable=["batch_stats"])
        held = {**held, **moved}
        y = [m.apply(held, images(1), use_running_average=True) for m in (first, second)]
        np.testing.assert_allclose(y[0], y[1], rtol=1e-5, atol=1e-5)


def test_a_layer_can_be_initialised_with_one_example_outside_its_axis():
    layer = Norm(BatchNorm(axis_name="devices"), use_running_average=False)
    assert set(layer.init(jax.random.key(0), jnp.ones((1, 8)))) == {"params", "batch_stats"}


def test_statistics_that_cannot_move_are_an_error_as_in_flax():
    layer = Norm(BatchNorm(), use_running_average=False)
    variables = layer.init(jax.random.key(0), images())
    with pytest.raises(nn.module.errors.ModifyScopeVariableError):
        layer.apply(variables, images())


def test_training_or_evaluation_must_be_said_once_where_there_is_a_state():
    x = images()
    with pytest.raises(ValueError, match="use_running_average"):
        Norm(BatchNorm()).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="use_running_average"):
        Norm(BatchNorm(), True).init(jax.random.key(0), x, use_running_average=True)
    Norm(LayerNorm()).init(jax.random.key(0), x)


def test_dtype_is_that_of_the_result_and_costs_the_statistics_nothing():
    x = images().astype(jnp.bfloat16)
    held = Norm(LayerNorm()).init(jax.random.key(0), x)
    wide = Norm(LayerNorm(), dtype=jnp.float32).apply(held, x)
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, Norm(LayerNorm()).apply(held, x.astype(jnp.float32)))
    narrow = Norm(LayerNorm(), dtype=jnp.bfloat16).apply(held, images())
    np.testing.assert_array_equal(
        narrow, Norm(LayerNorm()).apply(held, images()).astype(jnp.bfloat16)
    )
    with jax.numpy_dtype_promotion("standard"):  # Flax itself relies on it
        theirs = nn.LayerNorm(dtype=jnp.bfloat16, epsilon=1e-5).apply(held, images())
    assert narrow.dtype == theirs.dtype == Norm(LayerNorm()).apply(held, x).dtype


def test_initialisers_and_param_dtype_are_flaxs():
    layer = Norm(
        LayerNorm(),
        param_dtype=jnp.bfloat16,
        scale_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(0.5),
    )
    held = layer.init(jax.random.key(0), images())["params"]
    assert {leaf.dtype for leaf in held.values()} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(layer.apply({"params": held}, images()), jnp.full(SHAPE, 0.5))


def test_what_a_normaliser_takes_besides_goes_through():
    norm, x, condition = ConditionalBatchNorm(conditions=2), images(), jnp.array([0, 1, 1, 0])
    layer = Norm(norm, use_running_average=True)
    held = layer.init(jax.random.key(0), x)
    held["params"]["bias"] = held["params"]["bias"].at[1].set(7.0)
    difference = layer.apply(held, x, condition=condition) - layer.apply(held, x)
    np.testing.assert_allclose(difference[:, 0, 0, 0], [0, 7, 7, 0], rtol=1e-5)


def test_two_leaves_of_one_name_are_refused():
    class Twice(GroupNorm):
        def init(self, features):
            params, _ = super().init(features)
            return {**params, "var": params["bias"]}, {"variance": params["scale"]}

    with pytest.raises(UserError, match="two leaves that a Flax layer calls var"):
        Norm(Twice(), use_running_average=False).init(jax.random.key(0), images())


def test_a_mask_of_floats_and_an_empty_batch():
    layer, x = Norm(BatchNorm(), use_running_average=False), jnp.ones((4, 3))
    variables = layer.init(jax.random.key(0), x)
    with pytest.raises(MaskError, match="booleans"):
        layer.apply(variables, x, mask=jnp.zeros((4, 1)), mutable=["batch_stats"])
    y, after = layer.apply(variables, x[:0], mutable=["batch_stats"])
    assert y.shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"])
