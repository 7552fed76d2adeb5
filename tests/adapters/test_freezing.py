"""Frozen statistics stay in training, and gradients go through them as through constants."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.freezing import freeze
from normlab.adapters.linen import Norm
from normlab.errors import UserError
from normlab.models.plain import MLP
from normlab.models.slots import NORM_STATE
from normlab.norms import (
    BatchGroupNorm,
    BatchNorm,
    BatchRenorm,
    DebiasedBatchNorm,
    FrozenBatchNorm,
)

X = jnp.asarray(np.random.default_rng(0).normal(3, 2, (6, 5)), jnp.float32)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        x = Norm(BatchRenorm())(nn.relu(x), use_running_average=not train)
        return nn.Dense(2)(x)


MODELS = {
    "ours": (MLP(norm=BatchNorm(eps=1e-3), classes=2, widths=(4, 3)), NORM_STATE),
    "linen": (Linen(), "batch_stats"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_of_a_frozen_model_is_in_evaluation_and_moves_no_statistic(name):
    model, collection = MODELS[name]
    variables = jax.jit(lambda: model.init(jax.random.key(0), X, train=False))()
    begin = jax.jit(lambda v: model.apply(v, X, train=True, mutable=[collection])[1])
    variables = {**variables, **begin(variables)}
    frozen = freeze(model)
    assert jax.tree.structure(
        jax.eval_shape(lambda: frozen.init(jax.random.key(0), X, train=True))
    ) == jax.tree.structure(variables)

    @jax.jit
    def step(variables):
        def loss(params):
            tree = {**variables, "params": params}
            y, moved = frozen.apply(tree, X, train=True, mutable=[collection])
            return (y**2).mean(), (y, moved)

        (_, (y, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradient)
        return y, {**variables, "params": params, **moved}, gradient

    def loss(params):
        y = model.apply({**variables, "params": params}, X, train=False)
        return (y**2).mean(), y

    expected, evaluated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    y, after, gradient = step(variables)
    np.testing.assert_allclose(y, evaluated, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after[collection], variables[collection])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, expected)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "norm", [BatchNorm(eps=1e-3, use_bias=False), BatchGroupNorm(groups=2), DebiasedBatchNorm()]
)
def test_a_frozen_normaliser_is_the_evaluation_of_the_other(norm):
    params, state = norm.init(4)
    x = X[:, :4]
    _, state = norm.apply(params, state, x, train=True)
    frozen = freeze(norm)
    y, after = frozen.apply(params, state, x, train=True)
    assert after is state and isinstance(freeze(frozen), FrozenBatchNorm)
    np.testing.assert_allclose(y, norm.apply(params, state, x, train=False)[0], rtol=1e-6)


def test_what_has_no_frozen_counterpart_is_refused():
    with pytest.raises(UserError, match="BatchRenorm has no frozen counterpart"):
        freeze(MLP(norm=BatchRenorm(), classes=2))
