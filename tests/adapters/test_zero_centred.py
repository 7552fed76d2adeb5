"""A scale that is kept less one means the same in the layers and weights of every library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import LinenWeights, NnxWeights, carry
from normlab.adapters.nnx import Norm, swap
from normlab.models import MLP
from normlab.norms import BatchNorm, LayerNorm

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)


def mlp(zero_centred):
    return MLP(norm=LayerNorm(zero_centred=zero_centred), classes=2, widths=(8,))


@pytest.mark.parametrize(("one", "other"), [(False, True), (True, False), (True, True)])
def test_carried_weights_give_the_same_outputs(one, other):
    source, target = mlp(one), mlp(other)
    variables = source.init(jax.random.key(0), X, train=False)
    variables = jax.tree.map(lambda leaf: leaf + 0.25, variables)
    carried, _ = carry(LinenWeights(source, X, variables), LinenWeights(target, X))
    wanted = source.apply(variables, X, train=False)
    found = target.apply(carried, X, train=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(5, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


@pytest.mark.parametrize("again", [False, True])
def test_a_layer_that_takes_the_place_of_another_keeps_its_scale(again):
    net = Net(nnx.Rngs(0))
    net.norm.scale[...] = jnp.arange(1.0, 9.0)
    wanted = net(X)
    swap(net, nnx.LayerNorm, LayerNorm(eps=1e-6, zero_centred=True))
    np.testing.assert_array_equal(net.norm.scale[...], jnp.arange(8.0))
    if again:
        swap(net, Norm, LayerNorm(eps=1e-6))
        np.testing.assert_array_equal(net.norm.scale[...], jnp.arange(1.0, 9.0))
    np.testing.assert_allclose(net(X), wanted, rtol=1e-5, atol=1e-6)


def test_nnx_weights_are_carried_to_a_scale_less_one():
    source, target = Net(nnx.Rngs(0)), Net(nnx.Rngs(1))
    source.norm.scale[...] = jnp.arange(1.0, 9.0)
    swap(target, nnx.LayerNorm, LayerNorm(eps=1e-6, zero_centred=True))
    carried, _ = carry(NnxWeights(source, X), NnxWeights(target, X))
    np.testing.assert_array_equal(carried.norm.scale[...], jnp.arange(8.0))
    np.testing.assert_allclose(carried(X), source(X), rtol=1e-5, atol=1e-6)


def test_what_is_frozen_keeps_the_scale_less_one():
    norm = BatchNorm(zero_centred=True)
    assert norm.frozen().zero_centred
