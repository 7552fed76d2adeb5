"""An NNX model as a linen module computes what it computes by itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import nnx as ours
from normlab.adapters.classifier import Classifier
from normlab.adapters.nnx_linen import NnxNet, Source, as_linen, update, variables_of
from normlab.norms import BatchNorm, GroupNorm
from tests.shared.own_nets import NnxResNet

IMAGES = jax.random.normal(jax.random.key(0), (4, 6, 6, 3)) + 1


def made(seed=0):
    return NnxResNet(3, num_classes=5, rngs=nnx.Rngs(seed))


def without_dropout(model):
    for block in model.blocks:
        block.dropout.rate = 0.0
    return model


def assert_same(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def test_outputs_and_statistics_are_those_of_the_model_in_both_modes():
    model = without_dropout(made())
    network = Classifier(as_linen(model))
    params, state = network.init(jax.random.key(9), IMAGES)
    assert_same({"params": params, **state}, variables_of(model))
    logits, moved = network.apply(params, state, IMAGES, train=True, key=jax.random.key(1))
    evaluated, _ = network.apply(params, moved, IMAGES, train=False)
    model.train()
    np.testing.assert_allclose(logits, model(IMAGES), rtol=1e-5)
    assert_same(moved["batch_stats"], variables_of(model)["batch_stats"])
    model.eval()
    np.testing.assert_allclose(evaluated, model(IMAGES), rtol=1e-5)


def test_gradients_are_those_of_nnx():
    model = without_dropout(made())
    network = Classifier(as_linen(model))
    params, state = network.init(jax.random.key(0), IMAGES)

    def loss(params):
        return (network.apply(params, state, IMAGES, train=True)[0] ** 2).sum()

    model.train()
    expected = nnx.grad(lambda m: (m(IMAGES) ** 2).sum())(model)
    found = jax.jit(jax.grad(loss))(params)
    for path, variable in nnx.to_flat_state(expected):
        at = found
        for key in path:
            at = at[str(key)]
        scale = float(jnp.abs(variable[...]).max())
        np.testing.assert_allclose(at, variable[...], rtol=1e-3, atol=1e-3 * scale + 1e-5)


def test_dropout_draws_anew_by_the_key_of_the_call_and_leaves_evaluation_alone():
    network = Classifier(as_linen(made()))
    params, state = network.init(jax.random.key(0), IMAGES)
    outputs = [
        network.apply(params, state, IMAGES, train=True, key=jax.random.key(seed))[0]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()
    network.apply(params, state, IMAGES, train=False)  # needs no key


def test_the_seed_decides_the_weights_of_a_class():
    net = NnxNet(Source(lambda rngs: NnxResNet(3, num_classes=5, rngs=rngs)))
    one, same, other = (net.init(jax.random.key(seed), IMAGES) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["params"]["fc"]["kernel"] != other["params"]["fc"]["kernel"]).any()


def test_what_intercepts_linen_calls_meets_the_layers_by_path_and_kind():
    met = []

    def note(call, args, kwargs, context):
        if context.method_name == "__call__":
            met.append(("/".join(context.module.path), type(context.module).__name__))
        return call(*args, **kwargs)

    net = as_linen(made())
    variables = net.init(jax.random.key(0), IMAGES)
    with nn.intercept_methods(note):
        net.clone(train=False).apply(variables, IMAGES)
    assert met[1:] == [
        ("stem/layers/0", "Layer"),
        ("stem/layers/1", "BatchNorm"),
        ("blocks/0/conv", "Layer"),
        ("blocks/0/norm", "BatchNorm"),
        ("blocks/1/conv", "Layer"),
        ("blocks/1/norm", "BatchNorm"),
        ("norm", "NormLayer"),
        ("fc", "Layer"),
    ]


def test_a_normaliser_of_normlab_in_an_nnx_model_keeps_its_state():
    model = without_dropout(made())
    ours.swap(model, nnx.BatchNorm, BatchNorm(momentum=0.5))
    ours.swap(model, nnx.LayerNorm, GroupNorm(groups=2))
    network = Classifier(as_linen(model))
    params, state = network.init(jax.random.key(0), IMAGES)
    logits, moved = network.apply(params, state, IMAGES, train=True)
    model.train()
    np.testing.assert_allclose(logits, model(IMAGES), rtol=1e-5)
    assert_same(moved["batch_stats"], variables_of(model)["batch_stats"])


def test_layers_inside_a_transformation_of_nnx_run_as_they_are():
    class Stacked(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=3)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def make(rngs):
                return nnx.Linear(4, 4, rngs=rngs)

            self.layers, self.norm = make(rngs), nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def through(layer, x):
                return nnx.relu(layer(x))

            return self.norm(through(self.layers, x))

    model = Stacked(nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (8, 4))
    network = Classifier(as_linen(model))
    params, state = network.init(jax.random.key(0), x)
    logits, moved = network.apply(params, state, x, train=True)
    model.train()
    np.testing.assert_allclose(logits, model(x), rtol=1e-5, atol=1e-6)
    assert_same(moved["batch_stats"], variables_of(model)["batch_stats"])


def test_state_of_a_kind_of_its_own_is_carried():
    class Count(nnx.Variable):
        pass

    class Counting(nnx.Module):
        def __init__(self):
            self.calls = Count(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] += 1
            return x

    network = Classifier(as_linen(Counting()))
    params, state = network.init(jax.random.key(0), jnp.ones((2, 3)))
    assert (params, list(state)) == ({}, ["count"])
    for calls in (1, 2):
        _, state = network.apply(params, state, jnp.ones((2, 3)), train=True)
        assert state["count"]["calls"] == calls


@pytest.mark.parametrize("seed", [3])
def test_variables_go_back_into_the_model(seed):
    model, other = made(), made(seed)
    update(other, variables_of(model))
    assert_same(variables_of(other), variables_of(model))
